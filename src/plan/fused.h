/* Tensors of a task that hold several of the base's, one after another: experts as one stack (experts.gate_up_proj of experts, 2 * inner,
 * width against experts.N.gate_proj and up_proj), q, k and v or gate and up one under another. Found by place in the model, shape and
 * values; names only say in which order the parts may come. */
#ifndef DZ_PLAN_FUSED_H
#define DZ_PLAN_FUSED_H

#include "checkpoint/checkpoint.h"

/* The base, ready to be asked for many tasks; it is borrowed. */
typedef struct dz_fused_finder dz_fused_finder;
dz_rc dz_fused_finder_make(dz_checkpoint *base, dz_fused_finder **out, dz_error *err);
void dz_fused_finder_free(dz_fused_finder *finder); /* accepts NULL */

/* Appends to `splits`, for dz_checkpoint_split, the tensors of the task that are to be known by the base's names. A few kilobytes of each
 * candidate are read: the delta of every part must have less energy than the part. Layouts in which parts are interleaved do not pass. */
dz_rc dz_fused_find(dz_fused_finder *finder, dz_checkpoint *task, dz_buf *splits, dz_error *err);

#endif

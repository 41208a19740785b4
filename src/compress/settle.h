/* Exact wins by itself: a lossy tensor whose exact coding is no larger is kept exactly, whatever the method; with fixed accuracy a task
 * whose exact coding is hardly larger; so is one of which a restored value could leave the range of its type. */
#ifndef DZ_COMPRESS_SETTLE_H
#define DZ_COMPRESS_SETTLE_H

#include "compress/encode.h"

/* How many times the bytes of a task's lossy tensors their exact coding may take: METHODS.md "Exact wins". 0: each by itself. */
double dz_exact_allowance(const dz_recipe *recipe);

/* Zero-initialise. */
typedef struct dz_exact_trials {
    uint64_t *bytes; /* [lossy] blocks of the common tiles when coded exactly; 0: not tried */
} dz_exact_trials;

/* Collective. Before the encoding. Tensors whose exact coding may be no larger than expected of the lossy one, by an estimate, are coded
 * exactly; those that win become exact in `lossy`. `*changed`: how many became exact. */
dz_rc dz_settle(dz_context *ctx, const dz_stats *stats, const dz_allocation *allocation, dz_lossy_plan *lossy, dz_exact_trials *trials,
                size_t *changed, dz_error *err);

/* After the encoding, with the real sizes; the same on every rank. Returns how many tensors became exact: these have to be encoded again.
 */
size_t dz_settle_encoded(const dz_context *ctx, const dz_block_table *blocks, const dz_exact_trials *trials, dz_lossy_plan *lossy);
void dz_exact_trials_free(dz_exact_trials *trials);

#endif

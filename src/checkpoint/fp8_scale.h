/* Block-scaled F8 tensors: NAME of F8_E4M3 or F8_E5M2, whose values are its codes times the scales in another tensor: NAME_scale_inv
 * (DeepSeek), NAME_scale (vLLM, compressed-tensors), or, NAME being M.weight, M.scale, M.scale_inv or M.scale_weight. */
#ifndef DZ_CHECKPOINT_FP8_SCALE_H
#define DZ_CHECKPOINT_FP8_SCALE_H

#include "checkpoint/checkpoint.h"

/* The other one of the pair: the scales of an F8 tensor, the F8 tensor of scales. NULL for what is of no pair. */
const dz_tensor *dz_scale_partner(const dz_checkpoint *ck, const dz_tensor *tensor);

/* The scales of an F8 tensor; NULL where there are none, and for what is not F8. */
const dz_tensor *dz_f8_scales(const dz_checkpoint *ck, const dz_tensor *tensor);

const dz_tensor *dz_first_scaled(const dz_checkpoint *ck); /* the first F8 tensor that has scales; NULL: none has */

/* In a model that has scales, a matrix of F8 without any is a fault. A line for each in `err` (DZ_EFAIL). */
dz_rc dz_check_scales(const dz_checkpoint *ck, dz_error *err);

#endif

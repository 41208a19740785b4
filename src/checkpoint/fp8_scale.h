/* Scaled F8 tensors: tensor NAME of F8_E4M3 or F8_E5M2 has codes, and another tensor its scales: NAME_scale_inv (DeepSeek), NAME_scale
 * (vLLM, compressed-tensors), or for NAME = M.weight also M.scale, M.scale_inv or M.scale_weight. */
#ifndef DZ_CHECKPOINT_FP8_SCALE_H
#define DZ_CHECKPOINT_FP8_SCALE_H

#include "checkpoint/checkpoint.h"

/* The other tensor of the pair: the scales of an F8 tensor, or the F8 tensor of scales. NULL if there is none. */
const dz_tensor *dz_scale_partner(const dz_checkpoint *ck, const dz_tensor *tensor);

/* The scales of an F8 tensor. NULL if there are none, or if the tensor is not F8. */
const dz_tensor *dz_f8_scales(const dz_checkpoint *ck, const dz_tensor *tensor);

const dz_tensor *dz_first_scaled(const dz_checkpoint *ck); /* the first F8 tensor with scales, or NULL */

/* In a model with scales, an F8 matrix without any is an error: a line for each in `err` (DZ_EFAIL). */
dz_rc dz_check_scales(const dz_checkpoint *ck, dz_error *err);

#endif

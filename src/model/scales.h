/* Block-scaled F8 tensors: NAME of F8_E4M3 or F8_E5M2 with its scales in NAME_scale_inv or NAME_scale. */
#ifndef DZ_MODEL_SCALES_H
#define DZ_MODEL_SCALES_H

#include "model/checkpoint.h"

/* The other one of the pair: the scales of an F8 tensor, the F8 tensor of scales. NULL for what is of no pair. */
const dz_tensor *dz_scale_partner(const dz_checkpoint *ck, const dz_tensor *tensor);

/* An F8 tensor without scales, though tensors whose names differ from its own in numbers alone have them, is a fault of the file. A line
 * for each in `err` (DZ_EFAIL). */
dz_rc dz_check_scales(const dz_checkpoint *ck, dz_error *err);

#endif

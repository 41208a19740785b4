/* Quantised layers: codes in a tensor of integers (or of 4 and 6 bits), their scales in others of the same module. By bitsandbytes
 * (weight with SCB, or with weight.absmax), GPTQ and AWQ (qweight, scales, qzeros), compressed-tensors (weight_packed or weight, with
 * weight_scale), torchao (_weight_qdata, _weight_scale), quanto, HQQ, mxfp4 (X_blocks, X_scales) and others, known by their types and by
 * the word for the scales. Scaled F8 is checkpoint/fp8_scale.h. */
#ifndef DZ_CHECKPOINT_QUANTISED_H
#define DZ_CHECKPOINT_QUANTISED_H

#include "checkpoint/checkpoint.h"

typedef enum dz_quantised_part {
    DZ_NOT_QUANTISED,
    DZ_QUANTISED_CODES,
    DZ_QUANTISED_SCALES
} dz_quantised_part; /* scales, zeros, maps, ... */

typedef struct dz_quantised {
    uint8_t *part;                   /* [tensors] a dz_quantised_part; NULL where nlayers is 0 */
    size_t nlayers;                  /* tensors of codes */
    const dz_tensor *codes, *scales; /* of the first layer by name */
} dz_quantised;

/* In O(tensors). Release with dz_quantised_free. */
dz_rc dz_quantised_find(const dz_checkpoint *ck, dz_quantised *out, dz_error *err);
void dz_quantised_free(dz_quantised *quantised);

dz_quantised_part dz_quantised_part_of(const dz_quantised *quantised, size_t tensor);

/* 1 if the layer that the tensor `name` would be a part of is quantised in `ck`. */
int dz_quantised_has_layer(const dz_checkpoint *ck, const dz_quantised *quantised, const char *name);

/* The name that the weights of a tensor of codes have where they are not quantised: "a.qweight" and "a._weight_qdata" are "a.weight". The
 * caller frees. */
char *dz_quantised_layer(const char *name, dz_error *err);

#endif

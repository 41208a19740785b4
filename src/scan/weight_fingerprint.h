/* What a model's layers are, and a few thousand of its values, from places that depend on names and shapes alone, so that two models can
 * be compared by them. */
#ifndef DZ_SCAN_WEIGHT_FINGERPRINT_H
#define DZ_SCAN_WEIGHT_FINGERPRINT_H

#include "checkpoint/checkpoint.h"

#define DZ_SKETCH_LAYERS 512
#define DZ_SKETCH_WINDOWS 1024 /* at most: two of each of 512 tensors */
#define DZ_SKETCH_VALUES 32    /* of a window */

/* A matrix that is no embedding and no head. */
typedef struct dz_weight_fingerprint_layer {
    uint64_t name; /* hash of the name without prefixes; 0: no layer */
    uint64_t dims; /* hash of the dimensions beyond the first */
    uint64_t kind; /* DZ_SKETCH_FLOAT, or a hash of the type's name: integers, and F8 with scales */
    uint64_t count;
} dz_weight_fingerprint_layer;

#define DZ_SKETCH_FLOAT 1

typedef struct dz_weight_fingerprint {
    dz_weight_fingerprint_layer layers[DZ_SKETCH_LAYERS]; /* ascending by name; those of the smallest hashes when there are more */
    uint64_t keys[DZ_SKETCH_WINDOWS]; /* ascending: of name without prefixes, dimensions beyond the first, place; 0 beyond the last */
    float values[DZ_SKETCH_WINDOWS][DZ_SKETCH_VALUES];
} dz_weight_fingerprint;

/* Reads the sketch of a model: values of its float matrices, or of all float tensors when it has none. An empty one is no error. */
dz_rc dz_weight_fingerprint_take(dz_checkpoint *ck, dz_weight_fingerprint *out, dz_error *err);

/* The relative distance of plan/groups.h; infinite unless half of the elements of the layers of the model with more are in both. */
double dz_weight_fingerprint_distance(const dz_weight_fingerprint *a, const dz_weight_fingerprint *b);

/* `a` is, or is made from, a quantised copy of what is near `of`: half of the layers of `of` or more are floats there and integers or
 * scaled F8 in `a`. No delta can be made of them. */
int dz_weight_fingerprint_is_quantised(const dz_weight_fingerprint *a, const dz_weight_fingerprint *of);

#endif

/* A model's layers and a few thousand of its values, from positions that depend on names and shapes alone, so that any two models can be
 * compared (METHODS.md "Distance of models"). */
#ifndef DZ_SCAN_WEIGHT_FINGERPRINT_H
#define DZ_SCAN_WEIGHT_FINGERPRINT_H

#include "checkpoint/checkpoint.h"

#define DZ_SKETCH_LAYERS 512
#define DZ_SKETCH_WINDOWS 1024 /* at most: two of each of 512 tensors */
#define DZ_SKETCH_VALUES 32    /* of a window */

/* A matrix that is neither embedding nor head. */
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

/* Reads the fingerprint of a model: values of its float matrices, or of all float tensors if it has none. An empty one is no error. */
dz_rc dz_weight_fingerprint_take(dz_checkpoint *ck, dz_weight_fingerprint *out, dz_error *err);

/* The relative distance of scan/base_clusters.h; infinite unless half of the elements of the larger model's layers are in both. */
double dz_weight_fingerprint_distance(const dz_weight_fingerprint *a, const dz_weight_fingerprint *b);

/* 1 if `a` is a quantised model near `of`: at least half of the layers of `of` are floats there and integers or scaled F8 in `a`. Such
 * layers have no delta. */
int dz_weight_fingerprint_is_quantised(const dz_weight_fingerprint *a, const dz_weight_fingerprint *of);

#endif

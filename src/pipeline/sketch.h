/* A few thousand values of a model, from places that depend on names and shapes alone, so that two models can be compared by them. */
#ifndef DZ_PIPELINE_SKETCH_H
#define DZ_PIPELINE_SKETCH_H

#include "model/checkpoint.h"

#define DZ_SKETCH_WINDOWS 1024 /* at most: two of each of 512 tensors */
#define DZ_SKETCH_VALUES 32    /* of a window */

typedef struct dz_sketch {
    uint64_t keys[DZ_SKETCH_WINDOWS]; /* ascending: of name without prefixes, dimensions beyond the first, place; 0 beyond the last */
    float values[DZ_SKETCH_WINDOWS][DZ_SKETCH_VALUES];
} dz_sketch;

/* Reads the sketch of a model: of its matrices, or of all float tensors when it has none. An empty one is no error. */
dz_rc dz_sketch_take(dz_checkpoint *ck, dz_sketch *out, dz_error *err);

/* The relative distance of plan/groups.h; infinite unless half of the windows of the model with fewer are in both. */
double dz_sketch_distance(const dz_sketch *a, const dz_sketch *b);

#endif

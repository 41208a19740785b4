/* Fourth stage: how much of each tensor is kept, at which step and scale, and how much noise that is expected to leave. Rank 0 allocates,
 * all ranks get the numbers. */
#ifndef DZ_COMPRESS_ALLOCATE_H
#define DZ_COMPRESS_ALLOCATE_H

#include "compress/histogram.h"
#include "compress/shapes.h"

typedef struct dz_allocation {
    double *task_level;        /* [tasks] what is tuned for a target ratio: see dz_method.allocate */
    dz_tensor_coding *tensors; /* [lossy] */
    uint64_t *quota;           /* [lossy * nlevels] elements of each level to keep; methods with levels */
    size_t nlevels;
} dz_allocation;

dz_rc dz_allocation_init(const dz_context *ctx, const dz_lossy_plan *lossy, dz_allocation *out, dz_error *err);
void dz_allocation_free(dz_allocation *allocation);

/* Collective. */
dz_rc dz_allocate(const dz_context *ctx, const dz_stats *stats, const dz_shapes *shapes, const dz_lossy_plan *lossy,
                  const dz_counts *counts, dz_allocation *out, dz_error *err);

/* A hash of all that the blocks of a lossy tensor depend on beside the inputs: for the journal. */
uint64_t dz_allocation_hash(const dz_allocation *allocation, const dz_lossy_plan *lossy, size_t tensor);

#endif

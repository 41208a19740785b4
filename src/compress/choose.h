/* Second stage: what the statistics make of each tensor that the plan calls lossy. Alike on every rank, no communication. */
#ifndef DZ_COMPRESS_CHOOSE_H
#define DZ_COMPRESS_CHOOSE_H

#include "compress/statistics.h"

typedef enum dz_reason { /* why a tensor that was planned as lossy is kept exactly */
                         DZ_REASON_NONE,
                         DZ_REASON_NONFINITE, /* it holds NaN or infinity */
                         DZ_REASON_OVERFLOW,  /* a restored value could leave the range of its type */
                         DZ_REASON_SMALLER,   /* its exact coding is no larger */
                         DZ_REASONS
} dz_reason;

typedef struct dz_lossy_tensor {
    dz_policy policy; /* DZ_POLICY_ULTRADELTA: lossy; DZ_POLICY_LOSSLESS; DZ_POLICY_EQUAL */
    dz_reason reason;
    dz_grid_levels grid;
} dz_lossy_tensor;

typedef struct dz_lossy_plan {
    dz_lossy_tensor *tensors; /* [lossy] */
    size_t nlevels;           /* places in a histogram: 2^bits, the most of any tensor */
} dz_lossy_plan;

/* DZ_EVALUE names the tensor whose delta is not finite, unless the recipe keeps such tensors exactly. */
dz_rc dz_choose(const dz_context *ctx, const dz_stats *stats, dz_lossy_plan *out, dz_error *err);
void dz_lossy_plan_free(dz_lossy_plan *lossy);

/* The final policy of a pair, whatever the plan calls it. */
dz_policy dz_policy_of(const dz_lossy_plan *lossy, const dz_tensor_pair *pair);

/* The number of the lossy tensor that a work item is a tile of, if the item is coded lossily; else -1. */
int64_t dz_lossy_of(const dz_context *ctx, const dz_lossy_plan *lossy, const dz_work_item *item);

/* 1 for a tile of a tensor that was planned as lossy and is kept exactly. */
int dz_turned_exact(const dz_context *ctx, const dz_lossy_plan *lossy, const dz_work_item *item);

#endif

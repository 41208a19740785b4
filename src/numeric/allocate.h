/* From a tensor's histogram of levels to the number of elements kept of each level: grid, moments, sparsity, quotas. Formulas: METHODS.md
 * "UltraDelta". All arithmetic is integer, or double in a fixed order: the same on every rank and machine. */
#ifndef DZ_NUMERIC_ALLOCATE_H
#define DZ_NUMERIC_ALLOCATE_H

#include <stddef.h>
#include <stdint.h>

#define DZ_MAX_LEVELS 256

/* The uniform grid of b bits over [lo, hi] (METHODS.md "Quantise"): decoded value = lo + level * step, in float. step is 0 when all
 * elements fall on one level. */
typedef struct dz_grid_levels {
    float lo, step;
    unsigned bits;
    int sign; /* 1 with bits = 1: the level is the sign of the delta, not the nearest level */
} dz_grid_levels;

dz_grid_levels dz_grid_levels_over(float lo, float hi, unsigned bits);

static inline float dz_level_value(const dz_grid_levels *grid, unsigned level) { return grid->lo + (float)level * grid->step; }

/* log2(x) in units of 2^-16, rounded down; x >= 1. Integers only, so that every machine decides alike. */
uint32_t dz_log2_fixed(uint64_t x);

/* Bits of the order-0 entropy of `n` counts, summed over all their elements, in units of 2^-16. */
uint64_t dz_entropy_fixed(const uint64_t *counts, size_t n);

/* Population standard deviation of the quantised delta: step * sqrt(E[q^2] - E[q]^2), from exact integer moments. */
double dz_quantised_std(const dz_grid_levels *grid, const uint64_t *histogram);

typedef struct dz_alloc_tensor {
    double std;           /* of the quantised delta */
    double bits_per_kept; /* coded bits of one kept value */
    uint64_t count;       /* elements */
    double sparsity;      /* out: share of the elements to drop */
} dz_alloc_tensor;

/* `thirds` (METHODS.md "Mixed sparsity allocation"): fills `sparsity` of n tensors for the mean `sparsity`. `order`: scratch, n numbers. */
void dz_allocate_thirds(dz_alloc_tensor *tensors, size_t n, double sparsity, double step, uint32_t *order);

/* `optimal` (METHODS.md "Optimal allocation"): least expected error for the size that the density 1 - sparsity has everywhere. */
void dz_allocate_optimal(dz_alloc_tensor *tensors, size_t n, double sparsity);

/* Group quotas (METHODS.md "Group-wise pruning"): how many of members[g] elements of level g are kept. 0 where the level's value is exactly
 * 0: such elements need no storage. With `systematic`, remainders are carried from group to group, so that the total is exact to one
 * element. Both arrays have 2^grid->bits entries. Returns the sum of the quotas. */
uint64_t dz_quotas(uint64_t *quota, const uint64_t *members, const dz_grid_levels *grid, double sparsity, int systematic);

/* The part of a tensor's quota for the members numbered [before, before + here) of `members`. The parts of all tiles add up to the quota
 * for any tiling. */
uint64_t dz_quota_share(uint64_t quota, uint64_t members, uint64_t before, uint64_t here);

#endif

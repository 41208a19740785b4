/* From a tensor's histogram of levels to how many of each are kept: quantiser grid, moments, sparsity (MSA), quotas (DAC).
 * Everything here is integer or plain double arithmetic in a fixed order: the same on every rank and machine. */
#ifndef DZ_NUMERIC_ALLOCATE_H
#define DZ_NUMERIC_ALLOCATE_H

#include <stddef.h>
#include <stdint.h>

#define DZ_MAX_LEVELS 256

/* The uniform grid of b bits over [lo, hi] (ALGORITHM section 2): decoded value = lo + level * step, in float. step is 0 when all elements
 * fall on one level. */
typedef struct dz_grid_levels {
    float lo, step;
    unsigned bits;
    int sign; /* bits = 1: the sign instead of the nearer level */
} dz_grid_levels;

dz_grid_levels dz_grid_levels_over(float lo, float hi, unsigned bits);

static inline float dz_level_value(const dz_grid_levels *grid, unsigned level) { return grid->lo + (float)level * grid->step; }

/* log2(x) in units of 2^-16, rounded down, x >= 1: integers only, so that every machine takes the same decision. */
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

/* Mixed sparsity allocation (ALGORITHM section 3, `thirds`): stable ascending order of std, thirds by cumulative element count. */
void dz_allocate_thirds(dz_alloc_tensor *tensors, size_t n, double sparsity, double step, uint32_t *order);

/* `optimal`: least expected error for the same size; density proportional to std / sqrt(bits per kept value), clamped to (0, 1]. */
void dz_allocate_optimal(dz_alloc_tensor *tensors, size_t n, double sparsity);

/* Group quotas (section 4): quota[g] = members[g] - round_half_even(members[g] * s'), s' = max(0, (s - z) / (1 - z)), z the share of
 * elements whose decoded value is exactly 0. Such elements need not be stored: their group's quota is 0. With `systematic` the remainders
 * are carried from group to group in level order, so that the total is exact to one element. Returns the sum of the quotas. */
uint64_t dz_quotas(uint64_t *quota, const uint64_t *members, const dz_grid_levels *grid, double sparsity, int systematic);

/* The part of a whole-tensor quota that falls to the members numbered [before, before + here) of `members`: cumulated shares, rounded, so
 * that the parts add up exactly whatever the tiling. */
uint64_t dz_quota_share(uint64_t quota, uint64_t members, uint64_t before, uint64_t here);

#endif

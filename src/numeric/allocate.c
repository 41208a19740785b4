#include "numeric/allocate.h"

#include <math.h>
#include <stdlib.h>

dz_grid_levels dz_grid_levels_over(float lo, float hi, unsigned bits) {
    return (dz_grid_levels){.lo = lo, .step = (hi - lo) / (float)((1U << bits) - 1), .bits = bits};
}

uint32_t dz_log2_fixed(uint64_t x) {
    unsigned whole = 63 - (unsigned)__builtin_clzll(x);
    uint64_t m = whole >= 31 ? x >> (whole - 31) : x << (31 - whole); /* in [2^31, 2^32) for a mantissa in [1, 2) */
    uint32_t fraction = 0;
    for (int bit = 0; bit < 16; bit++) {
        m = (m * m) >> 31;
        fraction <<= 1;
        if (m >> 32) {
            m >>= 1;
            fraction |= 1;
        }
    }
    return whole << 16 | fraction;
}

uint64_t dz_entropy_fixed(const uint64_t *counts, size_t n) {
    uint64_t total = 0, sum = 0;
    for (size_t i = 0; i < n; i++) total += counts[i];
    if (total == 0) return 0;
    uint32_t whole = dz_log2_fixed(total);
    for (size_t i = 0; i < n; i++) {
        if (counts[i]) sum += counts[i] * (whole - dz_log2_fixed(counts[i]));
    }
    return sum;
}

double dz_quantised_std(const dz_grid_levels *grid, const uint64_t *histogram) {
    __extension__ typedef unsigned __int128 u128;
    uint64_t n = 0;
    u128 sum = 0, squares = 0;
    for (unsigned g = 0; g < (1U << grid->bits); g++) {
        n += histogram[g];
        sum += (u128)histogram[g] * g;
        squares += (u128)histogram[g] * g * g;
    }
    if (n == 0) return 0;
    u128 spread = squares * n - sum * sum; /* n^2 times the variance of the level */
    return (double)grid->step * sqrt((double)spread) / (double)n;
}

static int by_std(const void *x, const void *y, void *arg) {
    const dz_alloc_tensor *t = arg;
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    if (t[a].std != t[b].std) return t[a].std < t[b].std ? -1 : 1;
    return a < b ? -1 : a > b; /* stable */
}

void dz_allocate_thirds(dz_alloc_tensor *t, size_t n, double sparsity, double step, uint32_t *order) {
    uint64_t total = 0, walked = 0, low = 0, mid = 0;
    for (size_t i = 0; i < n; i++) {
        order[i] = (uint32_t)i;
        total += t[i].count;
    }
    qsort_r(order, n, sizeof *order, by_std, t);
    size_t first_mid = n, first_high = n;
    for (size_t i = 0; i < n; i++) {
        uint64_t count = t[order[i]].count;
        walked += count;
        if (3 * walked <= total) {
            low += count;
        } else if (3 * walked <= 2 * total) {
            if (first_mid == n) first_mid = i;
            mid += count;
        } else {
            first_high = i;
            break;
        }
    }
    if (first_mid > first_high) first_mid = first_high;
    double N = (double)total, high_n = (double)(total - low - mid);
    double high = high_n > 0 ? (sparsity * N - sparsity * (double)mid - (sparsity + step) * (double)low) / high_n : sparsity;
    double most = sparsity > 0.99 ? sparsity : 0.99; /* the released clamp of 0.99 would miss targets above it */
    high = high < 0 ? 0 : high > most ? most : high;
    for (size_t i = 0; i < n; i++) t[order[i]].sparsity = i < first_mid ? sparsity + step : i < first_high ? sparsity : high;
}

void dz_allocate_optimal(dz_alloc_tensor *t, size_t n, double sparsity) {
    double budget = 0; /* bits: what uniform density would take */
    for (size_t i = 0; i < n; i++) {
        budget += (1 - sparsity) * (double)t[i].count * t[i].bits_per_kept;
        t[i].sparsity = t[i].std > 0 && t[i].bits_per_kept > 0 ? -1 : sparsity; /* -1: still free */
        if (t[i].sparsity >= 0) budget -= (1 - sparsity) * (double)t[i].count * t[i].bits_per_kept;
    }
    for (int again = 1; again;) { /* tensors that would need more than all their elements are kept whole; the rest shares what is left */
        double weight = 0;
        again = 0;
        for (size_t i = 0; i < n; i++) {
            if (t[i].sparsity < 0) weight += (double)t[i].count * t[i].std * sqrt(t[i].bits_per_kept);
        }
        double scale = weight > 0 ? budget / weight : 0;
        for (size_t i = 0; i < n; i++) {
            if (t[i].sparsity >= 0 || scale * t[i].std / sqrt(t[i].bits_per_kept) < 1) continue;
            t[i].sparsity = 0;
            budget -= (double)t[i].count * t[i].bits_per_kept;
            again = 1;
        }
        if (again) continue;
        for (size_t i = 0; i < n; i++) {
            if (t[i].sparsity < 0) t[i].sparsity = 1 - scale * t[i].std / sqrt(t[i].bits_per_kept);
        }
    }
}

uint64_t dz_quotas(uint64_t *quota, const uint64_t *members, const dz_grid_levels *grid, double sparsity, int systematic) {
    unsigned nlevels = 1U << grid->bits;
    uint64_t n = 0, zeros = 0, total = 0;
    for (unsigned g = 0; g < nlevels; g++) {
        n += members[g];
        if (dz_level_value(grid, g) == 0) zeros += members[g];
    }
    double z = n ? (double)zeros / (double)n : 0, s = z < 1 ? (sparsity - z) / (1 - z) : 1;
    if (s < 0) s = 0;
    double walked = 0, kept = 0;
    for (unsigned g = 0; g < nlevels; g++) {
        quota[g] = 0;
        if (dz_level_value(grid, g) == 0 || (grid->sign && g > 1)) continue;
        if (systematic) {
            walked += (double)members[g] * (1 - s);
            double upto = rint(walked), mine = upto - kept;
            if (mine > (double)members[g]) mine = (double)members[g];
            quota[g] = (uint64_t)(mine > 0 ? mine : 0);
            kept += (double)quota[g];
        } else {
            quota[g] = members[g] - (uint64_t)rint((double)members[g] * s);
        }
        total += quota[g];
    }
    return total;
}

uint64_t dz_quota_share(uint64_t quota, uint64_t members, uint64_t before, uint64_t here) {
    __extension__ typedef unsigned __int128 u128;
    if (members == 0) return 0;
    uint64_t upto = (uint64_t)(((u128)quota * (before + here) + members / 2) / members);
    uint64_t from = (uint64_t)(((u128)quota * before + members / 2) / members);
    return upto - from;
}

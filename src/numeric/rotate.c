#include "numeric/rotate.h"

#include <string.h>

#include "numeric/kernels.h"

static size_t power_below(size_t count) { return (size_t)1 << (63 - __builtin_clzll(count)); }

static void transform(float *x, size_t n, dz_flips flips, uint64_t key) {
    unsigned log = (unsigned)__builtin_ctzll(n);
    float norm = 1.0f / (float)((size_t)1 << log / 2);
    if (log % 2) norm *= 0x1.6a09e6p-1f; /* 1 / sqrt(2) */
    dz_kernels()->hadamard(x, n, norm, flips, key);
}

/* Rows that have not moved leave whole blocks at 0. */
static int is_zero(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (dz_float_bits(x[i])) return 0;
    }
    return 1;
}

/* What lies behind the first p of n. */
static void flip_rest(float *x, size_t p, size_t n, uint64_t key) {
    if (p < n) dz_kernels()->flip(x + p, dz_key_at(key, (uint32_t)p), n - p);
}

void dz_rotate_block(float *x, size_t count, uint64_t key, size_t block) {
    size_t first = dz_rotate_first(count, block), n = dz_rotate_first(count, block + 1) - first, p = n ? power_below(n) : 0;
    uint64_t here = dz_key_at(key, (uint32_t)first);
    if (n == 0 || is_zero(x, n)) return;
    flip_rest(x, p, n, here);
    transform(x, p, DZ_FLIPS_BEFORE, here);
    if (p < n) transform(x + n - p, p, DZ_FLIPS_BEFORE, dz_key_at(~key, (uint32_t)(first + n - p)));
}

void dz_rotate(float *x, size_t count, uint64_t key) {
    for (size_t b = 0; b < dz_rotate_blocks(count); b++) dz_rotate_block(x + dz_rotate_first(count, b), count, key, b);
}

void dz_unrotate_block(float *x, size_t count, uint64_t key, size_t block) {
    size_t first = dz_rotate_first(count, block), n = dz_rotate_first(count, block + 1) - first, p = n ? power_below(n) : 0;
    uint64_t here = dz_key_at(key, (uint32_t)first);
    if (n == 0) return;
    if (p < n) transform(x + n - p, p, DZ_FLIPS_AFTER, dz_key_at(~key, (uint32_t)(first + n - p)));
    if (p == n && is_zero(x, n)) { /* zeros, but for their signs */
        dz_kernels()->flip(x, here, n);
        return;
    }
    transform(x, p, DZ_FLIPS_AFTER, here);
    flip_rest(x, p, n, here);
}

void dz_unrotate(float *x, size_t count, uint64_t key) {
    for (size_t b = 0; b < dz_rotate_blocks(count); b++) dz_unrotate_block(x + dz_rotate_first(count, b), count, key, b);
}

void dz_block_zero(const dz_blocks *to, size_t count, size_t block) {
    memset(dz_block_place(to, count, block), 0, dz_rotate_length(count, block) * sizeof(float));
    dz_block_done(to, count, block);
}

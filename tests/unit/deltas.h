/* Elements for tests of exact coding: weights, and what was tuned from them. */
#ifndef DZ_TESTS_DELTAS_H
#define DZ_TESTS_DELTAS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/dtype.h"
#include "base/hash.h"

static inline double uniform(uint64_t key, uint64_t i) { return ((double)(dz_u64_at(key, i) >> 11) + 0.5) * 0x1p-53; }

static inline double gauss(uint64_t key, uint64_t i) {
    return sqrt(-2 * log(uniform(key, 2 * i))) * cos(6.283185307179586 * uniform(key, 2 * i + 1));
}

/* Student-t of 5 degrees of freedom; a chi-square of 4 is the logarithm of two uniform numbers. */
static inline double student5(uint64_t key, uint64_t i) {
    double g = gauss(key + 1, i), chi2 = g * g - 2 * log(uniform(key + 2, 2 * i) * uniform(key + 2, 2 * i + 1));
    return gauss(key, i) / sqrt(chi2 / 5);
}

static inline void fill_bytes(uint8_t *bytes, size_t nbytes, uint64_t key) {
    for (size_t i = 0; i < nbytes; i++) bytes[i] = (uint8_t)(dz_u64_at(key, i) >> 32);
}

/* Elements near those of `base`: a byte of some elements is altered. */
static inline void fill_near(uint8_t *words, const uint8_t *base, size_t count, size_t size, uint64_t key, unsigned one_in) {
    memcpy(words, base, count * size);
    for (size_t i = 0; i < count; i++) {
        uint64_t r = dz_u64_at(key, i);
        if (r % one_in == 0) words[i * size] ^= (uint8_t)(1 + (r >> 40) % 7);
    }
}

static inline void put_float(void *words, size_t i, dz_dtype dtype, double x) {
    float value = (float)x;
    dz_narrow((uint8_t *)words + dz_dtype_size(dtype) * i, &value, dtype, 1);
}

static inline void fill_weights(void *words, void *base, dz_dtype dtype, size_t count, double scale) {
    for (size_t i = 0; i < count; i++) {
        float x;
        put_float(base, i, dtype, 0.02 * gauss(11, i));
        dz_widen(&x, (const uint8_t *)base + i * dz_dtype_size(dtype), dtype, 1);
        put_float(words, i, dtype, x + (float)(scale * student5(77, i)));
    }
}

#endif

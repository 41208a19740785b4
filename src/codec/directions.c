#include "codec/directions.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "codec/variants.h"

enum {
    K = DZ_DIRECTIONS,
    ITERATIONS = 4, /* of the subspace */
    LANES = 8       /* of a sum of floats: its order is the same everywhere */
};

DZ_VARIANTS static float dot(const float *a, const float *b, size_t n) {
    float lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++) lane[j] += a[i + j] * b[i + j];
    }
    for (; i < n; i++) lane[i % LANES] += a[i] * b[i];
    for (size_t j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

float dz_rows_dot(const float *a, const float *b, size_t n) { return dot(a, b, n); }

int dz_row_to_one(float *row, size_t n) {
    float length = sqrtf(dot(row, row, n)), scale = length > 0x1p-60F && isfinite(length) ? 1 / length : 0;
    for (size_t i = 0; i < n; i++) row[i] *= scale;
    return scale > 0;
}

float dz_rows_along(const float *rows, size_t n, size_t columns, float *scratch, float *energy) {
    float *v = scratch, *more = v + columns, along = 0;
    *energy = 0;
    for (size_t r = 0; r < n; r++) {
        const float *row = rows + r * columns;
        int some = dot(row, row, columns) > 0.5F;
        *energy += (float)some;
        if (r == 0 || some) memcpy(v, row, columns * sizeof *v);
    }
    for (int i = 0; i < ITERATIONS; i++) {
        float length = sqrtf(dot(v, v, columns)), scale = length > 0 ? 1 / length : 0;
        for (size_t c = 0; c < columns; c++) v[c] *= scale, more[c] = 0;
        along = 0;
        for (size_t r = 0; r < n; r++) {
            const float *row = rows + r * columns;
            float u = dot(row, v, columns);
            along += u * u;
            for (size_t c = 0; c < columns; c++) more[c] += u * row[c];
        }
        memcpy(v, more, columns * sizeof *v);
    }
    return along;
}

/* K floats, which need not be aligned. */
typedef float vector __attribute__((vector_size(K * sizeof(float)), aligned(sizeof(float))));

/* Four sums: none waits for another. */
DZ_VARIANTS static void project(float *restrict u, const float *restrict row, const float *restrict v, size_t columns) {
    const vector *factor = (const vector *)v;
    vector a = {0}, b = {0}, c = {0}, d = {0};
    size_t i = 0;
    for (; i + 4 <= columns; i += 4) {
        a += row[i] * factor[i];
        b += row[i + 1] * factor[i + 1];
        c += row[i + 2] * factor[i + 2];
        d += row[i + 3] * factor[i + 3];
    }
    for (; i < columns; i++) a += row[i] * factor[i];
    *(vector *)u = (a + b) + (c + d);
}

void dz_row_project(float *u, const float *row, const float *v, size_t columns) { project(u, row, v, columns); }

DZ_VARIANTS static void add_outer(float *restrict v, const float *restrict row, const float *restrict u, size_t columns) {
    const vector factor = *(const vector *)u;
    for (size_t c = 0; c < columns; c++) ((vector *)v)[c] += row[c] * factor;
}

static void subtract(float *v, const float *from, double factor, size_t columns) {
    for (size_t c = 0; c < columns; c++) v[c * K] = (float)(v[c * K] - factor * from[c * K]);
}

/* Gram and Schmidt: the K columns of v become orthonormal, or 0. */
static void orthonormalise(float *v, size_t columns) {
    for (size_t k = 0; k < K; k++) {
        for (size_t j = 0; j <= k; j++) {
            double sum = 0;
            for (size_t c = 0; c < columns; c++) sum += (double)v[c * K + j] * v[c * K + k];
            if (j < k) {
                subtract(v + k, v + j, sum, columns);
            } else {
                double scale = sum > 0x1p-120 ? 1 / sqrt(sum) : 0;
                for (size_t c = 0; c < columns; c++) v[c * K + k] = (float)(v[c * K + k] * scale);
            }
        }
    }
}

dz_rc dz_directions_find(float *v, const float *rows, size_t n, size_t columns, dz_error *err) {
    float *u = dz_alloc_raw(n, K * sizeof *u, err);
    if (!u) return err->rc;
    for (size_t i = 0; i < columns * K; i++) v[i] = (float)(int32_t)(dz_u64_at(1, i) >> 40) - 0x1p23F;
    orthonormalise(v, columns);
    for (int i = 0; i < ITERATIONS; i++) {
        for (size_t r = 0; r < n; r++) project(u + r * K, rows + r * columns, v, columns);
        memset(v, 0, columns * K * sizeof *v);
        for (size_t r = 0; r < n; r++) add_outer(v, rows + r * columns, u + r * K, columns);
        orthonormalise(v, columns);
    }
    for (size_t i = 0; i < columns * K; i++) v[i] = rintf(v[i] * (1 << DZ_DIRECTION_BITS)) / (1 << DZ_DIRECTION_BITS);
    free(u);
    return DZ_OK;
}

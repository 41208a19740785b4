#include "numeric/lowrank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

#define OVERSAMPLED 10 /* directions more than the rank */
#define ITERATIONS 2
#define SWEEPS 60

/* y (rows x l) = d x (cols x l). */
static void times(const float *d, size_t rows, size_t cols, const double *x, size_t l, double *y) {
    memset(y, 0, rows * l * sizeof *y);
    for (size_t i = 0; i < rows; i++) {
        double *restrict out = y + i * l;
        for (size_t k = 0; k < cols; k++) {
            double a = (double)d[i * cols + k];
            if (a == 0) continue; /* most of a sparse delta */
            const double *restrict in = x + k * l;
            for (size_t j = 0; j < l; j++) out[j] += a * in[j];
        }
    }
}

/* z (cols x l) = d^T y (rows x l). */
static void transposed_times(const float *d, size_t rows, size_t cols, const double *y, size_t l, double *z) {
    memset(z, 0, cols * l * sizeof *z);
    for (size_t i = 0; i < rows; i++) {
        const double *restrict in = y + i * l;
        for (size_t k = 0; k < cols; k++) {
            double a = (double)d[i * cols + k];
            if (a == 0) continue;
            double *restrict out = z + k * l;
            for (size_t j = 0; j < l; j++) out[j] += a * in[j];
        }
    }
}

static double column_norm(const double *x, size_t n, size_t l, size_t j) {
    double sum = 0;
    for (size_t k = 0; k < n; k++) sum += x[k * l + j] * x[k * l + j];
    return sqrt(sum);
}

/* Makes the columns of x (n x l) orthonormal, by classical Gram-Schmidt done twice. One that depends on those before it becomes 0.
 * `scratch`: l. */
static void orthonormalise(double *x, size_t n, size_t l, double *scratch) {
    for (size_t j = 0; j < l; j++) {
        double before = column_norm(x, n, l, j);
        for (int pass = 0; pass < 2; pass++) {
            memset(scratch, 0, j * sizeof *scratch);
            for (size_t k = 0; k < n; k++) {
                const double *row = x + k * l;
                for (size_t i = 0; i < j; i++) scratch[i] += row[i] * row[j];
            }
            for (size_t k = 0; k < n; k++) {
                double *row = x + k * l, sum = 0;
                for (size_t i = 0; i < j; i++) sum += scratch[i] * row[i];
                row[j] -= sum;
            }
        }
        double norm = column_norm(x, n, l, j), scale = norm > 1e-12 * before ? 1 / norm : 0;
        for (size_t k = 0; k < n; k++) x[k * l + j] *= scale;
    }
}

/* One rotation of Jacobi's method on a symmetric matrix of size n, and on the columns of w. */
static void rotate(double *g, double *w, size_t n, size_t p, size_t q) {
    double apq = g[p * n + q];
    if (apq == 0) return;
    double theta = (g[q * n + q] - g[p * n + p]) / (2 * apq);
    double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1), s = t * c;
    for (size_t k = 0; k < n; k++) {
        double x = g[k * n + p], y = g[k * n + q];
        g[k * n + p] = c * x - s * y;
        g[k * n + q] = s * x + c * y;
    }
    for (size_t k = 0; k < n; k++) {
        double x = g[p * n + k], y = g[q * n + k];
        g[p * n + k] = c * x - s * y;
        g[q * n + k] = s * x + c * y;
    }
    for (size_t k = 0; k < n; k++) {
        double x = w[k * n + p], y = w[k * n + q];
        w[k * n + p] = c * x - s * y;
        w[k * n + q] = s * x + c * y;
    }
}

/* Eigenvectors of the symmetric g as columns of w; eigenvalues are left on g's diagonal. */
static void eigenvectors(double *g, double *w, size_t n) {
    memset(w, 0, n * n * sizeof *w);
    for (size_t i = 0; i < n; i++) w[i * n + i] = 1;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        double off = 0, all = 0;
        for (size_t p = 0; p < n; p++) {
            for (size_t q = 0; q < n; q++) {
                all += g[p * n + q] * g[p * n + q];
                if (p != q) off += g[p * n + q] * g[p * n + q];
            }
        }
        if (off <= 1e-26 * all) return;
        for (size_t p = 0; p + 1 < n; p++) {
            for (size_t q = p + 1; q < n; q++) rotate(g, w, n, p, q);
        }
    }
}

typedef struct workspace {
    double *y, *z, *g, *w, *scratch; /* rows x l, cols x l, l x l, l x l, l */
} workspace;

/* y becomes an orthonormal basis of the dominant columns, z = d^T y. */
static void find_range(const float *d, size_t rows, size_t cols, size_t l, uint64_t key, const workspace *s) {
    for (size_t i = 0; i < cols * l; i++) s->z[i] = dz_u64_at(key, i) >> 63 ? 1 : -1;
    times(d, rows, cols, s->z, l, s->y);
    orthonormalise(s->y, rows, l, s->scratch);
    for (int i = 0; i < ITERATIONS; i++) {
        transposed_times(d, rows, cols, s->y, l, s->z);
        orthonormalise(s->z, cols, l, s->scratch);
        times(d, rows, cols, s->z, l, s->y);
        orthonormalise(s->y, rows, l, s->scratch);
    }
    transposed_times(d, rows, cols, s->y, l, s->z);
}

/* Singular direction `e` (an eigenvector of z^T z) into column and row `r` of the factors. */
static void put_direction(const workspace *s, size_t rows, size_t cols, size_t l, size_t e, size_t r, size_t rank, float *left,
                          float *right) {
    double root = sqrt(sqrt(s->g[e * l + e])); /* of the singular value */
    for (size_t i = 0; i < rows; i++) {
        double sum = 0;
        for (size_t j = 0; j < l; j++) sum += s->y[i * l + j] * s->w[j * l + e];
        left[i * rank + r] = (float)(sum * root);
    }
    for (size_t k = 0; k < cols; k++) {
        double sum = 0;
        for (size_t j = 0; j < l; j++) sum += s->z[k * l + j] * s->w[j * l + e];
        right[r * cols + k] = (float)(sum / root);
    }
}

dz_rc dz_lowrank_approximate(const float *d, size_t rows, size_t cols, size_t rank, uint64_t key, float *left, float *right, double *energy,
                             double *kept, dz_error *err) {
    size_t least = rows < cols ? rows : cols, l = rank + OVERSAMPLED < least ? rank + OVERSAMPLED : least;
    workspace s = {.y = dz_alloc(rows * l, sizeof *s.y, err),
                   .z = dz_alloc(cols * l, sizeof *s.z, err),
                   .g = dz_alloc(l * l, sizeof *s.g, err),
                   .w = dz_alloc(l * l, sizeof *s.w, err),
                   .scratch = dz_alloc(l, sizeof *s.scratch, err)};
    *energy = *kept = 0;
    memset(left, 0, rows * rank * sizeof *left);
    memset(right, 0, rank * cols * sizeof *right);
    for (size_t i = 0; i < rows * cols; i++) *energy += (double)d[i] * (double)d[i];
    if (err->rc == DZ_OK && *energy > 0) {
        find_range(d, rows, cols, l, key, &s);
        for (size_t k = 0; k < cols; k++) {
            for (size_t i = 0; i < l; i++) {
                for (size_t j = 0; j < l; j++) s.g[i * l + j] += s.z[k * l + i] * s.z[k * l + j];
            }
        }
        eigenvectors(s.g, s.w, l);
        for (size_t r = 0; r < rank && r < l; r++) { /* the largest first */
            size_t e = 0;
            for (size_t j = 1; j < l; j++) e = s.g[j * l + j] > s.g[e * l + e] ? j : e;
            if (!(s.g[e * l + e] > 1e-20 * *energy)) break;
            put_direction(&s, rows, cols, l, e, r, rank, left, right);
            *kept += s.g[e * l + e];
            s.g[e * l + e] = -1;
        }
    }
    free(s.y);
    free(s.z);
    free(s.g);
    free(s.w);
    free(s.scratch);
    return err->rc;
}

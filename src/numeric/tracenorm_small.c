#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "numeric/slq_quadrature.h"
#include "numeric/tracenorm.h"

/* Singular values as roots of the eigenvalues of the Gram matrix of the smaller side: a few million operations where an estimate would need
 * a thousand probes. Plain double arithmetic in a fixed order, as everything that an archive's bytes depend on. */

/* Gram matrix of the columns, size cols. */
static void gram_of_columns(const dz_sparse *a, double *gram) {
    size_t n = (size_t)a->cols;
    for (uint64_t row = 0; row < a->rows; row++) {
        for (uint64_t i = a->row_start[row]; i < a->row_start[row + 1]; i++) {
            double *to = gram + a->col[i] * n, x = (double)a->value[a->level[i]];
            for (uint64_t k = a->row_start[row]; k < a->row_start[row + 1]; k++) to[a->col[k]] += x * (double)a->value[a->level[k]];
        }
    }
}

/* Of the rows, size rows. `dense`: cols zeros, and again at the end. */
static void gram_of_rows(const dz_sparse *a, double *gram, double *dense) {
    size_t n = (size_t)a->rows;
    for (size_t row = 0; row < n; row++) {
        for (uint64_t k = a->row_start[row]; k < a->row_start[row + 1]; k++) dense[a->col[k]] += (double)a->value[a->level[k]];
        for (size_t other = 0; other <= row; other++) {
            double sum = 0;
            for (uint64_t k = a->row_start[other]; k < a->row_start[other + 1]; k++)
                sum += (double)a->value[a->level[k]] * dense[a->col[k]];
            gram[row * n + other] = gram[other * n + row] = sum;
        }
        for (uint64_t k = a->row_start[row]; k < a->row_start[row + 1]; k++) dense[a->col[k]] = 0;
    }
}

static double dot(const double *x, const double *y, size_t len) {
    double sum = 0;
    for (size_t i = 0; i < len; i++) sum += x[i] * y[i];
    return sum;
}

/* The block behind row and column k of a symmetric matrix of size n, turned by the reflection that leaves one entry below the diagonal of
 * column k; that entry. `v` and `w`: scratch, n each (Golub and Van Loan, Matrix Computations, 8.3.1). */
static double reflect(double *a, size_t n, size_t k, double *v, double *w) {
    size_t len = n - k - 1;
    for (size_t i = 0; i < len; i++) v[i] = a[(k + 1 + i) * n + k];
    double norm = sqrt(dot(v, v, len)), entry = v[0] > 0 ? -norm : norm;
    v[0] -= entry;
    double square = dot(v, v, len);
    if (square == 0) return entry;
    for (size_t i = 0; i < len; i++) w[i] = 2 * dot(a + (k + 1 + i) * n + k + 1, v, len) / square;
    double half = dot(w, v, len) / square;
    for (size_t i = 0; i < len; i++) w[i] -= half * v[i];
    for (size_t i = 0; i < len; i++) {
        double *row = a + (k + 1 + i) * n + k + 1;
        for (size_t j = 0; j < len; j++) row[j] -= v[i] * w[j] + w[i] * v[j];
    }
    return entry;
}

/* The eigenvalues of a symmetric matrix of size n, which is used up, into `value`. `scratch`: 3 n. */
static void eigenvalues(double *a, size_t n, double *value, double *scratch) {
    double *below = scratch, *v = scratch + n, *w = scratch + 2 * n;
    for (size_t k = 0; k < n; k++) {
        below[k] = k + 1 < n ? reflect(a, n, k, v, w) : 0;
        value[k] = a[k * n + k];
    }
    memset(v, 0, n * sizeof *v);
    dz_tridiagonal_eigen(value, below, v, (int)n);
}

dz_rc dz_tracenorm_small(const dz_sparse *a, double *norm, dz_error *err) {
    int by_rows = a->rows < a->cols;
    size_t n = (size_t)(by_rows ? a->rows : a->cols);
    double square_sum = 0, largest = 0, sum = 0, *room = NULL;
    if (dz_sparse_check(a, &square_sum, NULL, NULL, err) != DZ_OK || square_sum == 0) goto out;
    if (n > DZ_TRACENORM_SMALL) {
        dz_fail(err, DZ_EUSAGE, "trace norm: a matrix of %zu rows or columns is not small", n);
        goto out;
    }
    if (!(room = dz_alloc(n * n + 4 * n + (by_rows ? (size_t)a->cols : 0), sizeof *room, err))) goto out;
    double *gram = room, *value = gram + n * n, *scratch = value + n;
    if (by_rows)
        gram_of_rows(a, gram, scratch + 3 * n);
    else
        gram_of_columns(a, gram);
    eigenvalues(gram, n, value, scratch);
    for (size_t i = 0; i < n; i++) largest = value[i] > largest ? value[i] : largest;
    for (size_t i = 0; i < n; i++) {
        if (value[i] > (double)n * DBL_EPSILON * largest) sum += sqrt(value[i]); /* below it is what rounding makes of 0 */
    }
out:
    if (err->rc == DZ_OK) *norm = sum;
    free(room);
    return err->rc;
}

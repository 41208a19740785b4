#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "numeric/eigen.h"
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
    dz_symmetric_eigenvalues(gram, n, value, scratch);
    for (size_t i = 0; i < n; i++) largest = value[i] > largest ? value[i] : largest;
    for (size_t i = 0; i < n; i++) {
        if (value[i] > (double)n * DBL_EPSILON * largest) sum += sqrt(value[i]); /* below it is what rounding makes of 0 */
    }
out:
    if (err->rc == DZ_OK) *norm = sum;
    free(room);
    return err->rc;
}

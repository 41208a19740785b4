#include "numeric/eigen.h"

#include <math.h>
#include <string.h>

#include "numeric/slq_quadrature.h"

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

void dz_symmetric_eigenvalues(double *a, size_t n, double *value, double *scratch) {
    double *below = scratch, *v = scratch + n, *w = scratch + 2 * n;
    for (size_t k = 0; k < n; k++) {
        below[k] = k + 1 < n ? reflect(a, n, k, v, w) : 0;
        value[k] = a[k * n + k];
    }
    memset(v, 0, n * sizeof *v);
    dz_tridiagonal_eigen(value, below, v, (int)n);
}

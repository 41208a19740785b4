#include "numeric/spectrum.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "numeric/eigen.h"

#define LANES 8
#define EDGE 1.2       /* singular values of rounding alone stay below so many times the bound, squared */
#define REST 3.0       /* rounding of values that hardly move has up to so many times the energy of uniform rounding */
#define LEAST_PART 0.2 /* of the energy in the significant singular values of a change of low rank */
#define FEW 3          /* they are at most this part of the rows or columns */
#define NUMERIC 1e-12  /* an eigenvalue below so much of the largest is 0 */

/* In lanes, so that the compiler may use vectors; the order of addition is fixed. */
static double product(const float *x, const float *y, size_t len) {
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= len; i += LANES)
        for (size_t k = 0; k < LANES; k++) lane[k] += (double)x[i + k] * (double)y[i + k];
    for (size_t k = 0; k < LANES; k++) sum += lane[k];
    for (; i < len; i++) sum += (double)x[i] * (double)y[i];
    return sum;
}

static int descending(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return (a < b) - (a > b);
}

double dz_rounding_variance(float x, dz_dtype dtype) {
    static const struct {
        int digits, least; /* bits of the significand after its point, smallest exponent */
    } types[DZ_DTYPE_COUNT] = {[DZ_F64] = {23, -126}, [DZ_F32] = {23, -126},  [DZ_F16] = {10, -14},
                               [DZ_BF16] = {7, -126}, [DZ_F8_E4M3] = {3, -6}, [DZ_F8_E5M2] = {2, -14}};
    int exponent = 0;
    frexpf(x, &exponent);
    exponent = x == 0 || exponent - 1 < types[dtype].least ? types[dtype].least : exponent - 1;
    double distance = ldexp(1, exponent - types[dtype].digits);
    return distance * distance / 12;
}

static double largest(const double *x, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
}

dz_rc dz_spectrum_of(const float *delta, size_t rows, size_t cols, const double *row_noise, const double *col_noise, dz_spectrum *out,
                     dz_error *err) {
    *out = (dz_spectrum){.rows = rows, .cols = cols};
    double *room = dz_alloc(rows * rows + 4 * rows, sizeof *room, err), *square = room ? room + rows * rows : NULL;
    if (!room) return err->rc;
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k <= i; k++) room[i * rows + k] = room[k * rows + i] = product(delta + i * cols, delta + k * cols, cols);
        out->energy += room[i * rows + i];
    }
    if (!(out->energy > 0) || !isfinite(out->energy)) goto out;
    dz_symmetric_eigenvalues(room, rows, square, square + rows);
    qsort(square, rows, sizeof *square, descending);
    double nuclear = 0, significant = 0, rest = 0, noise = 0;
    double edge = sqrt(largest(row_noise, rows)) + sqrt(largest(col_noise, cols));
    for (size_t i = 0; i < rows; i++) {
        double value = square[i] > NUMERIC * square[0] ? square[i] : 0;
        nuclear += sqrt(value);
        noise += row_noise[i];
        out->significant += value > EDGE * edge * edge;
        *(value > EDGE * edge * edge ? &significant : &rest) += value;
    }
    out->effective = nuclear * nuclear / out->energy;
    out->stable = out->energy / square[0];
    out->low_rank = out->significant > 0 && out->significant * FEW <= (rows < cols ? rows : cols) &&
                    rest <= REST * noise + NUMERIC * out->energy && significant >= LEAST_PART * out->energy;
out:
    free(room);
    return err->rc;
}

/* The singular values of a few rows of a delta: METHODS.md "Rank of a change". */
#ifndef DZ_NUMERIC_SPECTRUM_H
#define DZ_NUMERIC_SPECTRUM_H

#include <stddef.h>

#include "base/dtype.h"
#include "base/error.h"

#define DZ_SPECTRUM_ROWS 256 /* most rows */

typedef struct dz_spectrum {
    size_t rows, cols;
    double energy;      /* squared Frobenius norm */
    double effective;   /* effective rank: squared nuclear norm / energy, 1 .. min(rows, cols); 0 for a delta of 0 */
    double stable;      /* stable rank: energy / squared largest singular value */
    size_t significant; /* singular values above what rounding to the dtype can make */
    int low_rank;       /* what is left below them is rounding, and they are few */
} dz_spectrum;

/* `delta`: rows x cols, row-major. `row_noise` [rows], `col_noise` [cols]: sums of the variances of the elements' rounding. */
dz_rc dz_spectrum_of(const float *delta, size_t rows, size_t cols, const double *row_noise, const double *col_noise, dz_spectrum *out,
                     dz_error *err);

/* Variance of rounding a value near `x` to a dtype: (distance of its neighbours)^2 / 12. */
double dz_rounding_variance(float x, dz_dtype dtype);

#endif

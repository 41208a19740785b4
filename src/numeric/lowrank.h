/* The best approximation of a matrix by one of low rank, by randomised subspace iteration (METHODS.md "Low rank"): plain double arithmetic
 * in a fixed order, the same bits on every machine. */
#ifndef DZ_NUMERIC_LOWRANK_H
#define DZ_NUMERIC_LOWRANK_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* d: rows x cols, row-major, finite. left (rows x rank) times right (rank x cols) is near d's best approximation of this rank; each has the
 * square root of the singular values. Where d has a lower rank, the columns and rows beyond it are 0. `key` picks the random directions.
 * `*energy`: |d|^2 (Frobenius). `*kept`: that of the product before it is rounded to float. DZ_ENOMEM. */
dz_rc dz_lowrank_approximate(const float *d, size_t rows, size_t cols, size_t rank, uint64_t key, float *left, float *right, double *energy,
                             double *kept, dz_error *err);

#endif

/* The directions in which the rows of a matrix lie, found on a sample of them (METHODS.md "Predictions of low rank"). Sums are of floats in
 * a fixed order: the same directions on every machine. */
#ifndef DZ_CODEC_DIRECTIONS_H
#define DZ_CODEC_DIRECTIONS_H

#include <stddef.h>

#include "base/error.h"

#define DZ_DIRECTIONS 16     /* that are found */
#define DZ_DIRECTION_BITS 10 /* their elements are multiples of 2^-10 */

/* Inner product of two rows. */
float dz_rows_dot(const float *a, const float *b, size_t n);

/* Scales a row to energy 1, so that none outweighs others; 0: it has none, and becomes 0. */
int dz_row_to_one(float *row, size_t n);

/* Energy of the `n` rows, which have energy 1 or 0 each, in the one direction that has most of it. *energy: all of it. `scratch`: room for
 * 2 * columns numbers. */
float dz_rows_along(const float *rows, size_t n, size_t columns, float *scratch, float *energy);

/* v[columns][DZ_DIRECTIONS]: orthonormal up to rounding, those of most energy first, or 0 where there are fewer. DZ_ENOMEM. */
dz_rc dz_directions_find(float *v, const float *rows, size_t n, size_t columns, dz_error *err);

/* u[DZ_DIRECTIONS]: a row's, or a part's, inner products with the directions, v beginning with its first column. */
void dz_row_project(float *u, const float *row, const float *v, size_t columns);

#endif

/* Random tensors for tests and measurements: values of any element on its own, from a key and the element's index.
 *
 * An element is   mean + std * ( sqrt(1 - low_rank) * x  +  sqrt(low_rank) * sum_k u_rk v_kc / sqrt(8) )   at row r, column c:
 *   x     normal, or Student's t of 4 to 8 degrees of freedom, scaled to unit variance: heavy tails as fine-tuning leaves them
 *   u, v  normal: a rank-8 part, the structure of fine-tuning that independent noise lacks
 * and, where only a share of the rows moves, exactly 0 in all other rows. Rows are chosen by a hash of their number.
 *
 * Nothing here knows of the compressor: no value is rounded to a grid, clipped or chosen to code well. Draws come from inverse distribution
 * functions, tabulated with 256 cells per factor of two of the tail probability down to 2^-42 and linear in between, so that the tails are
 * those of the distribution (relative error of a quantile below 1e-5) also at the extremes of a tensor of 10^9 elements.
 */
#ifndef DZ_SYNTH_SYNTH_DELTA_H
#define DZ_SYNTH_SYNTH_DELTA_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define DZ_SYNTH_RANK 8
#define DZ_SYNTH_DF_MIN 4
#define DZ_SYNTH_DF_MAX 8

/* The law of one tensor of one model. */
typedef struct dz_synth_law {
    uint64_t key;  /* of the stream: differs for every tensor and model */
    uint64_t cols; /* elements per row, at least 1 */
    int df;        /* DZ_SYNTH_DF_MIN..DZ_SYNTH_DF_MAX, or 0: normal */
    double mean, std;
    double low_rank;   /* share of the variance in the rank-8 part, 0..1 */
    double moved_rows; /* share of rows that are not exactly 0; 1: all */
} dz_synth_law;

/* The inverse distribution functions (about 0.5 MB). Read-only once made: threads share them. Release with free(). */
typedef struct dz_synth_tables dz_synth_tables;
dz_rc dz_synth_tables_new(dz_synth_tables **out, dz_error *err);

/* Quantile: the x with P(X > x) = upper, for 2^-42 <= upper <= 1/2, unit variance. What the draws use; for tests. */
double dz_synth_quantile(const dz_synth_tables *tables, int df, double upper);

/* Floats of the right factor v, [8][cols]; 0 without a rank-8 part. */
size_t dz_synth_factor_size(const dz_synth_law *law);

/* Fills the right factor. It belongs to the whole tensor: one call serves all pieces. */
void dz_synth_factor(const dz_synth_tables *tables, const dz_synth_law *law, float *restrict factor);

/* Elements [first, first + count) in row-major order. `factor` as filled by dz_synth_factor, or NULL when its size is 0. A piece has the
 * same values as the same elements of the whole. */
void dz_synth_values(const dz_synth_tables *tables, const dz_synth_law *law, const float *restrict factor, uint64_t first, size_t count,
                     float *restrict dst);

#endif

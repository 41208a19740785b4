/* Trace norm (nuclear norm, sum of the singular values) of the pruned delta: METHODS.md "Trace norms".
 *
 * Three ways: a dense SVD for checking; stochastic Lanczos quadrature (slq), which only multiplies the sparse matrix with a few vectors;
 * and in its place for small matrices, of which it would need many, the eigenvalues of the Gram matrix. The last two give the same bits on
 * every machine; the SVD does not promise that (it is LAPACK's).
 */
#ifndef DZ_NUMERIC_TRACENORM_H
#define DZ_NUMERIC_TRACENORM_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A quantised sparse matrix, rows x cols, in CSR: entry k of row r (row_start[r] <= k < row_start[r + 1]) stands in column col[k] and is
 * value[level[k]]. All arrays are borrowed. Columns of a row may come in any order; an entry may be 0. Table entries that no level names
 * may be anything. */
typedef struct dz_sparse {
    uint64_t rows, cols;
    const uint64_t *row_start; /* rows + 1 */
    const uint32_t *col;       /* row_start[rows] */
    const uint8_t *level;      /* row_start[rows] */
    const float *value;        /* 256 */
} dz_sparse;

#define DZ_SLQ_MAX_STEPS 32
#define DZ_SLQ_MAX_PROBES 32

typedef struct dz_slq_options {
    int steps;        /* at most so many Lanczos steps, each one product with A and one with its transpose; 4 .. DZ_SLQ_MAX_STEPS */
    int probes;       /* random vectors, 1 .. DZ_SLQ_MAX_PROBES; more than one is rounded up to a multiple of 4 (they share each load) */
    double tolerance; /* stop early once two further products move the estimate by less than this share of it; 0 never does */
    uint64_t key;     /* of the random signs: from the seed, task and tensor */
} dz_slq_options;

/* Options for the matrices of one task, such that the standard error of the SUM of their trace norms is about 0.1 %. `small_sides` is the
 * sum of min(rows, cols) over these matrices. Depends on nothing else, so that every rank chooses the same. */
dz_slq_options dz_slq_choose(uint64_t small_sides, uint64_t key);

/* Estimates the trace norm. `*variance` (may be NULL) is that of the estimate: an upper bound of the probes' variance computed from the
 * spectrum that the quadrature sees (so one probe is enough to have it), plus the square of the last change by further steps.
 * Time about 1.1 ns (one probe) per entry and step. Memory: 4 * min(probes, 4) * (steps + 2) * (rows + cols) bytes at most.
 * DZ_EFAIL when the arrays are inconsistent or a value in use is not finite, DZ_EUSAGE when an option is out of range. */
dz_rc dz_tracenorm_slq(const dz_sparse *a, const dz_slq_options *opt, double *norm, double *variance, dz_error *err);

#define DZ_TRACENORM_SMALL 255 /* a shorter side up to this is small */

/* Singular values of a small matrix (DZ_EUSAGE for another), of which those below 1e-6 of the largest may be lost. */
dz_rc dz_tracenorm_small(const dz_sparse *a, double *norm, dz_error *err);

/* The dense SVD is refused above so many elements (512 MiB as doubles; a square matrix of 8192 takes minutes). */
#define DZ_TRACENORM_EXACT_MAX ((uint64_t)1 << 26)

/* Singular values by LAPACK (dgesdd without vectors, in double). The eigenvalues of the Gram matrix would cost about half, but lose half
 * the digits of the small singular values, and this function is what the estimate is measured against. */
dz_rc dz_tracenorm_exact(const dz_sparse *a, double *norm, dz_error *err);

/* What both ways look at first: sizes and indexes are consistent, values in use are finite. `*square_sum` = squared Frobenius norm.
 * `row_used` and `col_used` (rows and cols bytes, zeroed by the caller; both may be NULL) are set to 1 where there is an entry. */
dz_rc dz_sparse_check(const dz_sparse *a, double *square_sum, uint8_t *row_used, uint8_t *col_used, dz_error *err);

#endif

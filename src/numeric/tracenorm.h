/* Trace norm (nuclear norm, sum of the singular values) of the pruned delta: METHODS.md "Trace norms".
 *
 * Three ways: a dense SVD, for checking; stochastic Lanczos quadrature (slq), which only multiplies the sparse matrix with a few vectors;
 * and the eigenvalues of the Gram matrix, for small matrices. The last two give the same bits on every machine; LAPACK's SVD may not.
 */
#ifndef DZ_NUMERIC_TRACENORM_H
#define DZ_NUMERIC_TRACENORM_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A quantised sparse matrix, rows x cols, in CSR: entry k of row r (row_start[r] <= k < row_start[r + 1]) is in column col[k] and has the
 * value value[level[k]]. All arrays are borrowed. The columns of a row may come in any order; an entry may be 0. Unused entries of the
 * value table may be anything. */
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
    int steps;        /* most Lanczos steps, each a product with A and one with its transpose; 4 .. DZ_SLQ_MAX_STEPS */
    int probes;       /* random vectors, 1 .. DZ_SLQ_MAX_PROBES; more than one is rounded up to a multiple of 4 (they share each load) */
    double tolerance; /* stop when a step moves the estimate by less than this share of it; 0: never */
    uint64_t key;     /* of the random signs: from seed, task and tensor */
} dz_slq_options;

/* Options for the matrices of one task, for a standard error of about 0.1 % of the SUM of their trace norms. `small_sides` is the sum of
 * min(rows, cols) over these matrices. They depend on nothing else, so every rank chooses the same. */
dz_slq_options dz_slq_choose(uint64_t small_sides, uint64_t key);

/* Estimates the trace norm. `*variance` (may be NULL) is the variance of the estimate: an upper bound of the probes' variance, computed
 * from the quadrature's spectrum (so one probe is enough), plus the square of the last change between steps. Time about 1.1 ns (one probe)
 * per entry and step. Memory: 4 * min(probes, 4) * (steps + 2) * (rows + cols) bytes at most. DZ_EFAIL if the arrays are inconsistent or a
 * used value is not finite, DZ_EUSAGE if an option is out of range. */
dz_rc dz_tracenorm_slq(const dz_sparse *a, const dz_slq_options *opt, double *norm, double *variance, dz_error *err);

#define DZ_TRACENORM_SMALL 255 /* a shorter side up to this is small */

/* The trace norm of a small matrix by its Gram matrix (METHODS.md "Gram matrix"); DZ_EUSAGE for a larger one. Singular values below about
 * 1e-6 of the largest may be lost. */
dz_rc dz_tracenorm_small(const dz_sparse *a, double *norm, dz_error *err);

/* The dense SVD is refused above so many elements (512 MiB as doubles; a square matrix of 8192 takes minutes). */
#define DZ_TRACENORM_EXACT_MAX ((uint64_t)1 << 26)

/* The trace norm by LAPACK (dgesdd without vectors, in double): the reference for the other two. DZ_EFAIL for a matrix that is too large.
 */
dz_rc dz_tracenorm_exact(const dz_sparse *a, double *norm, dz_error *err);

/* Checks a matrix: sizes and indexes are consistent, used values are finite; else DZ_EFAIL. `*square_sum` = squared Frobenius norm.
 * `row_used` and `col_used` (rows and cols bytes, zeroed by the caller; both may be NULL) are set to 1 for rows and columns with entries.
 */
dz_rc dz_sparse_check(const dz_sparse *a, double *square_sum, uint8_t *row_used, uint8_t *col_used, dz_error *err);

#endif

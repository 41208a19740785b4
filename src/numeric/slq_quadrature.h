/* From the coefficients of Lanczos bidiagonalisation to an estimate of the trace norm (METHODS.md "Stochastic Lanczos quadrature"). Double
 * arithmetic in a fixed order. */
#ifndef DZ_NUMERIC_SLQ_QUADRATURE_H
#define DZ_NUMERIC_SLQ_QUADRATURE_H

#include "numeric/tracenorm.h"

#define DZ_SLQ_MAX_COEFS (2 * DZ_SLQ_MAX_STEPS)

/* One probe: alpha_1, beta_1, alpha_2, ... up to the limit, or to the end of the recurrence in an invariant subspace (`ended`). */
typedef struct dz_slq_probe {
    double coef[DZ_SLQ_MAX_COEFS];
    int count;
    int ended;
} dz_slq_probe;

typedef struct dz_slq_estimate {
    double norm;
    double variance;     /* of the probes only */
    double gauss, radau; /* the two rules' mean singular value, above and below that of the probes */
} dz_slq_estimate;

/* Eigenvalues of a symmetric tridiagonal matrix of `size` rows. `d`: diagonal in, eigenvalues out. `e`: subdiagonal, `size` entries of
 * which the last is unused; overwritten. `z`: a row vector, multiplied by the matrix of eigenvectors. */
void dz_tridiagonal_eigen(double *d, double *e, double *z, int size);

/* Nodes and weights from the first `count` coefficients: the singular values of the bidiagonal matrix and the squared first components of
 * its right singular vectors. Returns how many: count / 2 + 1. 0 <= count <= DZ_SLQ_MAX_COEFS. */
int dz_slq_gauss(const double *coef, int count, double *sigma, double *weight);

/* Estimate from the first `ncoefs` (even, >= 4) coefficients of each probe. `dim`: length of the probes; `square_sum`: ||A||_F^2. `before`:
 * the estimate of the same probes from one step less, if there is one. */
dz_slq_estimate dz_slq_evaluate(const dz_slq_probe *probe, int probes, int ncoefs, double dim, double square_sum,
                                const dz_slq_estimate *before);

#endif

/* Eigenvalues of small symmetric matrices: plain double arithmetic in a fixed order, the same bits on every machine. */
#ifndef DZ_NUMERIC_EIGEN_H
#define DZ_NUMERIC_EIGEN_H

#include <stddef.h>

/* The eigenvalues of a symmetric matrix of size n, which is used up, into `value`, in no order. `scratch`: 3 n. */
void dz_symmetric_eigenvalues(double *a, size_t n, double *value, double *scratch);

#endif

/* Rate and noise of keeping only place and sign of the largest of each section of standard normal numbers: the coding of rotated deltas
 * (numeric/rotate.h, codec/sparse_signs.h). Both follow from the share of kept numbers alone: METHODS.md "Largest of each section". */
#ifndef DZ_NUMERIC_GAUSS_H
#define DZ_NUMERIC_GAUSS_H

/* Smallest k with 2^(k+1) * share > 1: the shorter sections have 2^k numbers (0 < share <= 1; k at most 17). */
unsigned dz_gauss_log(double share);

/* Mean |x| of the kept numbers; a constant of the coding, the same on all machines. */
double dz_gauss_mean(double share);

double dz_gauss_bits(double share);         /* bits per number, kept or not: places and signs */
double dz_gauss_share_of_bits(double bits); /* its inverse, up to 1 */

/* Noise to signal E(y - x)^2 / E x^2 of the estimate y, scaled so that <y, x> = <x, x>. */
double dz_gauss_noise(double share);

#endif

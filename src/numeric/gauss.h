/* What it costs, and what it gives, to keep of standard normal numbers only the largest of each section, with its sign: the coding of
 * rotated deltas (numeric/rotate.h, codec/signs.h). Rate and error follow from the share that is kept alone.
 *
 * Sections have 2^k or 2^(k+1) numbers, mixed so that their share is the one wanted. The largest of L tells its place in log2 L bits and
 * its sign in one: less than what lies beyond a threshold takes for the same sum of sizes, as it is never said how many there are. The
 * larger L, the more a bit gives (0.64 of a square at L = 1, 1.06 at 512, 1.16 at 65536; the limit of all codings is 2 ln 2 = 1.39). */
#ifndef DZ_NUMERIC_GAUSS_H
#define DZ_NUMERIC_GAUSS_H

/* Smallest k with 2^(k+1) * share > 1: the shorter sections have 2^k numbers (0 < share <= 1; k at most 17). */
unsigned dz_gauss_log(double share);

/* Mean size of the kept ones; a constant of the coding, alike on all machines. */
double dz_gauss_mean(double share);

double dz_gauss_bits(double share);         /* bits a number: places and signs */
double dz_gauss_share_of_bits(double bits); /* its inverse, up to 1 */

/* Noise to signal, E(y - x)^2 / E x^2, of the estimate y of the same inner product with x as x itself. */
double dz_gauss_noise(double share);

#endif

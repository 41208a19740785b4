/* What it costs, and what it gives, to keep of standard normal numbers only where those beyond a threshold lie, and their signs: the coding
 * of rotated deltas (numeric/rotate.h). Rate and error follow from the share that is kept alone. */
#ifndef DZ_NUMERIC_GAUSS_H
#define DZ_NUMERIC_GAUSS_H

/* Most bits an element that this coding can use: a share of 2/3. */
#define DZ_GAUSS_MOST_BITS 1.584962500721156

/* The threshold t beyond which |x| lies with the chance `share` (0 < share < 1), in units of 2^-16 so that all machines agree. */
double dz_gauss_threshold(double share);

double dz_gauss_share(double threshold); /* P(|x| > t) */

/* Mean of |x| over those beyond the threshold. */
double dz_gauss_mean(double threshold);

double dz_gauss_bits(double share);         /* entropy an element: places and signs */
double dz_gauss_share_of_bits(double bits); /* its inverse, up to 2/3 */

/* Noise to signal, E(y - x)^2 / E x^2, of the estimate y of the same inner product with x as x itself. */
double dz_gauss_noise(double share);

#endif

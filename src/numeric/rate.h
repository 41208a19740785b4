/* The two codings of rotated tiles as one, from 0.00003 to 12 bits an element: above 0.957 bits every coefficient has a level
 * (numeric/uniform_quantiser.h, codec/uniform.h), below a message gives the signs of all (numeric/trellis.h, codec/trellis.h). At the
 * crossing both cost and give the same.
 *
 * One number, the step, covers both. Up to DZ_RATE_CROSSING it is the quantiser's, in standard deviations; beyond, the bits go on falling
 * with its square. Functions of the step are continuous and monotone, and have the same bits on every machine. */
#ifndef DZ_NUMERIC_RATE_H
#define DZ_NUMERIC_RATE_H

#define DZ_RATE_CROSSING 2.5001436163466826
#define DZ_RATE_STEP_LEAST 0x1p-10
#define DZ_RATE_STEP_MOST 512.0

double dz_rate_bits(double step); /* bits an element: falls with the step, 12 to 0.00003 */

/* Noise to signal, E(y - x)^2 / E x^2, of the estimate y whose inner product with x is that of x itself: rises with the step. With D the
 * least mean square error, D / (1 - D); no coding gives less than 1 / (4^bits - 1). */
double dz_rate_noise(double step);

/* Inverses, to 12 significant bits and within the limits above. */
double dz_rate_step_of_bits(double bits);
double dz_rate_step_of_noise(double noise);

/* What to write for a step (which is first taken into the limits). */
typedef struct dz_rate {
    int uniform;       /* 1: a level for each coefficient; 0: a message */
    float step, shift; /* of the index row, and of the codec; of a message, step is its bits a coefficient, to 20 significant bits */
    double scale;      /* times what the decoder gives, an estimate of the same inner product as the truth */
    double bits, noise;
} dz_rate;

dz_rate dz_rate_of_step(double step);

#endif

/* What a coding is expected to do to a tensor, from its density and scale alone: no data, no model. All against the true delta. */
#ifndef DZ_NUMERIC_NOISE_H
#define DZ_NUMERIC_NOISE_H

typedef struct dz_quality {
    double error; /* Frobenius norm of restored minus true delta over that of the true one */
    double noise; /* noise to signal of the unbiased estimate: variance of the noise over the mean square of the delta */
    double row;   /* noise over the row length: a row's outputs average so many terms. What accuracy goes by (results/quality.md) */
} dz_quality;

/* Above this `row`, models of two trained families lose more than about two points of accuracy; at 0.4, about twenty. */
#define DZ_QUALITY_LIMIT 0.1

/* Elements kept with the chance `density` and multiplied by `scale`. */
dz_quality dz_quality_sampled(double density, double scale, double columns);

/* Signs of the share of rotated coefficients that is largest, restored at `gain` times the size that keeps the inner product. */
dz_quality dz_quality_signs(double share, double gain, double columns);

/* The gain of signs times the mean size of a normal delta (bitdelta): 2 / pi. */
#define DZ_QUALITY_MEAN_GAIN 0.6366197723675814

/* The gain that method auto takes for a noise: below 1 only where the noise is not small against the row length. */
double dz_quality_gain(double noise, double columns);

#endif

/* What a lossy coding does to a delta, from its parameters alone, and what that means for the restored model. Formulas: src/METHODS.md,
 * "Noise". Energies are sums of squares. */
#ifndef DZ_NUMERIC_NOISE_H
#define DZ_NUMERIC_NOISE_H

/* A restored delta is gain * (true delta + noise), the noise uncorrelated with the delta. */
typedef struct dz_noise {
    double nsr;  /* energy of that noise over the delta's, at least 0; INFINITY: nothing is kept */
    double gain; /* inner product of the restored delta with the true one, over the true one's energy */
} dz_noise;

/* Elements kept with the chance `density` and multiplied by `scale` (UltraDelta, DARE). `quantisation`: energy of the error of the kept
 * values over the delta's energy, 0 where they are not quantised; `spread`: energy of the quantised values over the delta's. */
dz_noise dz_noise_sampled(double density, double scale, double spread, double quantisation);

/* The largest of each section of rotated coefficients, their share `share`, restored at `scale` standard deviations a kept one. */
dz_noise dz_noise_signs(double share, double scale);

/* Every sign times `scale` mean sizes; `cosine2`: (sum |d|)^2 / (n * sum d^2), 2 / pi for a normal delta. */
dz_noise dz_noise_all_signs(double cosine2, double scale);

/* Limits of the noise that keep a model: the verdicts, and the settings of `quality:` (fixed accuracy). results/choices.md. */
typedef enum dz_verdict {
    DZ_VERDICT_EXACT,
    DZ_VERDICT_HIGH,
    DZ_VERDICT_BALANCED,
    DZ_VERDICT_SMALL,
    DZ_VERDICT_POOR,
    DZ_VERDICTS
} dz_verdict;

#define DZ_LEAST_GAIN 0.7 /* below it a task is poor for that alone */

typedef struct dz_noise_limits {
    double to_delta; /* noise energy over the delta's energy, both restored at gain 1 */
    double to_base;  /* noise energy over the energy of the base's weights */
} dz_noise_limits;

/* Of high, balanced and small; infinite for poor, 0 for exact. */
dz_noise_limits dz_verdict_limits(dz_verdict verdict);
const char *dz_verdict_name(dz_verdict verdict); /* "exact", "high", "balanced", "small", "poor" */

/* Embeddings and heads of tokens are held to so much of the limits, by themselves: what is off in a row is off at each place where its
 * token is read or proposed, and no sum over many inputs averages it (results/choices.md). */
#define DZ_VOCABULARY_SHARE 0.2

/* Energies over lossy tensors. */
typedef struct dz_energies {
    double delta, base; /* of the true deltas, of the base's weights */
    double inner;       /* of restored and true deltas */
    double restored;    /* of the restored deltas */
    double noise;       /* of the noise in them */
} dz_energies;

/* Over the lossy tensors of a task; zero-initialise. */
typedef struct dz_noise_sum {
    dz_energies body, vocabulary; /* of matrices; of embeddings and heads of tokens */
} dz_noise_sum;

void dz_noise_add(dz_energies *sum, dz_noise noise, double delta_energy, double base_energy);

typedef struct dz_quality {
    double cosine;         /* between restored and true delta */
    double gain;           /* share of the true delta that is restored */
    double noise_to_delta; /* noise energy over the delta's energy at that gain */
    double noise_to_base;  /* noise energy over the base's energy; NaN when the base's energy is not known */
    double error;          /* Frobenius norm of restored minus true delta over that of the true one */
    double delta, base;    /* energies: of the true deltas; of the base's weights, 0 where that is not known */
    dz_verdict verdict;    /* the worse of body and vocabulary; the numbers above are over both */
} dz_quality;

/* Of sums without any lossy tensor: exact. */
dz_quality dz_quality_of(const dz_noise_sum *sum);

#endif

#include "numeric/noise.h"

#include <math.h>
#include <stddef.h>

#include "numeric/gauss.h"

dz_noise dz_noise_sampled(double density, double scale, double spread, double quantisation) {
    if (!(density > 0)) return (dz_noise){.nsr = INFINITY, .gain = 0};
    return (dz_noise){.nsr = (1 - density) / density * spread + quantisation, .gain = density * scale};
}

dz_noise dz_noise_signs(double share, double scale) {
    return (dz_noise){.nsr = dz_gauss_noise(share), .gain = scale * dz_gauss_mean(share)};
}

dz_noise dz_noise_all_signs(double cosine2, double scale) {
    if (!(cosine2 > 0)) return (dz_noise){.nsr = INFINITY, .gain = 0};
    return (dz_noise){.nsr = cosine2 < 1 ? 1 / cosine2 - 1 : 0, .gain = scale * cosine2};
}

#define LEAST_GAIN_HIGH 0.9 /* below it the task itself is weakened, however little noise there is */
#define LEAST_GAIN_BALANCED 0.8

static const struct {
    const char *name;
    dz_noise_limits limits;
    double least_gain;
} VERDICTS[DZ_VERDICTS] = {[DZ_VERDICT_EXACT] = {"exact", {0, 0}, 1},
                           [DZ_VERDICT_HIGH] = {"high", {1.2, 0.002}, LEAST_GAIN_HIGH},
                           [DZ_VERDICT_BALANCED] = {"balanced", {5, 0.01}, LEAST_GAIN_BALANCED},
                           [DZ_VERDICT_SMALL] = {"small", {12, 0.02}, DZ_LEAST_GAIN},
                           [DZ_VERDICT_POOR] = {"poor", {(double)INFINITY, (double)INFINITY}, 0}};

/* Of a limit: expected noise is met to a hundredth, and rounding to the task's type adds up to a twentieth where steps are small. */
#define TOLERANCE 1.1

dz_noise_limits dz_verdict_limits(dz_verdict verdict) { return VERDICTS[verdict].limits; }

const char *dz_verdict_name(dz_verdict verdict) { return VERDICTS[verdict].name; }

void dz_noise_add(dz_energies *sum, dz_noise noise, double delta_energy, double base_energy) {
    if (!(delta_energy > 0)) return;
    double gain2 = noise.gain * noise.gain;
    sum->delta += delta_energy;
    sum->base += base_energy;
    sum->inner += noise.gain * delta_energy;
    if (noise.gain == 0) return; /* nothing is restored, so there is no noise either */
    sum->noise += gain2 * noise.nsr * delta_energy;
    sum->restored += gain2 * (1 + noise.nsr) * delta_energy;
}

/* The numbers of the sums; the verdict by `share` of the limits. */
static dz_quality quality_within(const dz_energies *sum, double share) {
    dz_quality q = {.cosine = 1, .gain = 1, .delta = sum->delta, .base = sum->base, .verdict = DZ_VERDICT_EXACT};
    if (!(sum->delta > 0)) return q;
    q.gain = sum->inner / sum->delta;
    q.cosine = sum->restored > 0 ? sum->inner / sqrt(sum->restored * sum->delta) : 0;
    q.noise_to_delta = q.gain > 0 ? sum->noise / (q.gain * q.gain * sum->delta) : (double)INFINITY;
    q.noise_to_base = sum->base > 0 ? sum->noise / sum->base : (double)NAN;
    q.error = sqrt(fmax(0, 1 - 2 * q.gain + sum->restored / sum->delta));
    q.verdict = DZ_VERDICT_POOR;
    for (int v = DZ_VERDICT_SMALL; v >= DZ_VERDICT_HIGH; v--) {
        double most = TOLERANCE * share;
        int within = q.noise_to_delta <= most * VERDICTS[v].limits.to_delta && q.gain >= VERDICTS[v].least_gain;
        if (within && !(q.noise_to_base > most * VERDICTS[v].limits.to_base)) q.verdict = (dz_verdict)v;
    }
    return q;
}

dz_quality dz_quality_of(const dz_noise_sum *sum) {
    const dz_energies *body = &sum->body, *tokens = &sum->vocabulary;
    dz_energies all = {.delta = body->delta + tokens->delta,
                       .base = body->base + tokens->base,
                       .inner = body->inner + tokens->inner,
                       .restored = body->restored + tokens->restored,
                       .noise = body->noise + tokens->noise};
    dz_quality q = quality_within(&all, 1);
    dz_verdict one = quality_within(body, 1).verdict, other = quality_within(tokens, DZ_VOCABULARY_SHARE).verdict;
    q.verdict = one > other ? one : other;
    return q;
}

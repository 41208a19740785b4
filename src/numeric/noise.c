#include "numeric/noise.h"

#include <math.h>

#include "numeric/gauss.h"

#define GAIN_C 1.0 /* 0, 0.45 and 1 were compared on the validation split of two families (results/quality.md) */

dz_quality dz_quality_sampled(double density, double scale, double columns) {
    double noise = density > 0 ? (1 - density) / density : INFINITY;
    return (dz_quality){
        .error = sqrt(density * (scale - 1) * (scale - 1) + 1 - density), .noise = noise, .row = columns > 0 ? noise / columns : INFINITY};
}

dz_quality dz_quality_signs(double share, double gain, double columns) {
    double noise = dz_gauss_noise(share);
    return (dz_quality){.error = share > 0 ? sqrt((1 - gain) * (1 - gain) + gain * gain * noise) : 1,
                        .noise = noise,
                        .row = columns > 0 ? noise / columns : INFINITY};
}

double dz_quality_gain(double noise, double columns) { return 1 / (1 + GAIN_C * noise / columns); }

#include "numeric/rate.h"

#include <math.h>

#include "numeric/gauss.h"
#include "numeric/uniform_quantiser.h"

#define CROSSING_SHARE 0.27358026798096347 /* that of signs which cost and give the same as levels there */

static double within(double step) {
    return step > DZ_RATE_STEP_LEAST ? (step < DZ_RATE_STEP_MOST ? step : DZ_RATE_STEP_MOST) : DZ_RATE_STEP_LEAST;
}

static int is_uniform(double step) { return step <= DZ_RATE_CROSSING; }

static double share_of(double step) { return CROSSING_SHARE * (DZ_RATE_CROSSING / step) * (DZ_RATE_CROSSING / step); }

static double to_bits(double x, int bits) {
    int exponent;
    double mantissa = frexp(x, &exponent);
    return ldexp(rint(ldexp(mantissa, bits)), exponent - bits);
}

double dz_rate_bits(double step) {
    step = within(step);
    return is_uniform(step) ? dz_uniform_bits(step) : dz_gauss_bits(share_of(step));
}

double dz_rate_noise(double step) {
    step = within(step);
    return is_uniform(step) ? dz_uniform_noise(step) : dz_gauss_noise(share_of(step));
}

/* The step where a function that falls (sign 1) or rises (-1) with it crosses `value`. */
static double solve(double (*of)(double), double value, int sign) {
    double low = DZ_RATE_STEP_LEAST, high = DZ_RATE_STEP_MOST;
    for (int i = 0; i < 64; i++) {
        double mid = (low + high) / 2;
        *(sign * of(mid) > sign * value ? &low : &high) = mid;
    }
    return to_bits(low, 12);
}

double dz_rate_step_of_bits(double bits) { return solve(dz_rate_bits, bits, 1); }
double dz_rate_step_of_noise(double noise) { return solve(dz_rate_noise, noise, -1); }

dz_rate dz_rate_of_step(double step) {
    step = within(step);
    if (is_uniform(step)) {
        float of = (float)step;
        return (dz_rate){.uniform = 1,
                         .step = of,
                         .shift = dz_uniform_shift((double)of),
                         .scale = dz_uniform_scale((double)of),
                         .bits = dz_uniform_bits((double)of),
                         .noise = dz_uniform_noise((double)of)};
    }
    double share = to_bits(share_of(step), 20);
    return (dz_rate){.share = share, .scale = 1 / dz_gauss_mean(share), .bits = dz_gauss_bits(share), .noise = dz_gauss_noise(share)};
}

#include "numeric/rate.h"

#include <math.h>

#include "numeric/trellis.h"
#include "numeric/uniform_quantiser.h"

#define CROSSING_RATE 0.9572447780648542 /* bits of a level at DZ_RATE_CROSSING; a message of as many bits gives the same noise */
#define LONG ((size_t)1 << 40)           /* coefficients of a block of which the ends do not count */

static double within(double step) {
    return step > DZ_RATE_STEP_LEAST ? (step < DZ_RATE_STEP_MOST ? step : DZ_RATE_STEP_MOST) : DZ_RATE_STEP_LEAST;
}

static int is_uniform(double step) { return step <= DZ_RATE_CROSSING; }

static double rate_of(double step) { return CROSSING_RATE * (DZ_RATE_CROSSING / step) * (DZ_RATE_CROSSING / step); }

static double to_bits(double x, int bits) {
    int exponent;
    double mantissa = frexp(x, &exponent);
    return ldexp(rint(ldexp(mantissa, bits)), exponent - bits);
}

double dz_rate_bits(double step) {
    step = within(step);
    return is_uniform(step) ? dz_uniform_bits(step) : rate_of(step);
}

double dz_rate_noise(double step) {
    step = within(step);
    return is_uniform(step) ? dz_uniform_noise(step) : dz_trellis_noise(rate_of(step), LONG);
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

double dz_rate_step_of_bits(double bits) {
    if (!(bits < CROSSING_RATE)) return solve(dz_rate_bits, bits, 1);
    return to_bits(within(bits > 0 ? DZ_RATE_CROSSING * sqrt(CROSSING_RATE / bits) : DZ_RATE_STEP_MOST), 12); /* of a message: by rate_of */
}
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
    double rate = to_bits(rate_of(step), 20);
    return (dz_rate){.step = (float)rate, .scale = 1, .bits = rate, .noise = dz_trellis_noise(rate, LONG)};
}

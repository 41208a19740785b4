#include "numeric/gauss.h"

#include <math.h>

#define MOST 17

/* E max |x| of 2^k standard normal numbers, in units of 2^-12 (tests/unit/test_signs.c integrates it). */
static const double EXPECTED[MOST + 2] = {3268 / 4096.0,  4622 / 4096.0,  6000 / 4096.0,  7305 / 4096.0,  8508 / 4096.0,
                                          9614 / 4096.0,  10634 / 4096.0, 11582 / 4096.0, 12469 / 4096.0, 13305 / 4096.0,
                                          14098 / 4096.0, 14853 / 4096.0, 15574 / 4096.0, 16267 / 4096.0, 16933 / 4096.0,
                                          17576 / 4096.0, 18199 / 4096.0, 18802 / 4096.0, 19387 / 4096.0};

unsigned dz_gauss_log(double share) {
    unsigned k = 0;
    while (k < MOST && ldexp(share, (int)k + 1) <= 1) k++;
    return k;
}

double dz_gauss_mean(double share) {
    unsigned k = dz_gauss_log(share);
    double pairs = ldexp(1, -(int)k - 1); /* an element; a split pair keeps one more */
    double split = share > pairs ? (share - pairs) / share : 0;
    return 2 * split * EXPECTED[k] + (1 - 2 * split) * EXPECTED[k + 1];
}

double dz_gauss_bits(double share) {
    if (!(share > 0)) return 0;
    if (share > 1) share = 1;
    unsigned k = dz_gauss_log(share);
    return k * share + ldexp(1, -(int)k);
}

double dz_gauss_share_of_bits(double bits) {
    double low = 0, high = 1;
    for (int i = 0; i < 60; i++) {
        double mid = (low + high) / 2;
        *(dz_gauss_bits(mid) < bits ? &low : &high) = mid;
    }
    return low;
}

double dz_gauss_noise(double share) {
    double mean = dz_gauss_mean(share);
    return share > 0 ? 1 / (share * mean * mean) - 1 : INFINITY;
}

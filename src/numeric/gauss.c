#include "numeric/gauss.h"

#include <math.h>

#define FARTHEST 12.0

double dz_gauss_share(double threshold) { return erfc(threshold / sqrt(2.0)); }

double dz_gauss_mean(double threshold) {
    double share = dz_gauss_share(threshold);
    return share > 0 ? sqrt(2 / M_PI) * exp(-threshold * threshold / 2) / share : threshold;
}

double dz_gauss_threshold(double share) {
    double low = 0, high = FARTHEST;
    for (int i = 0; i < 60; i++) {
        double mid = (low + high) / 2;
        *(dz_gauss_share(mid) > share ? &low : &high) = mid;
    }
    return rint(low * 65536) / 65536;
}

double dz_gauss_bits(double share) {
    if (!(share > 0 && share < 1)) return share >= 1 ? 1 : 0;
    return -share * log2(share) - (1 - share) * log2(1 - share) + share;
}

double dz_gauss_share_of_bits(double bits) {
    double low = 0, high = 2.0 / 3;
    for (int i = 0; i < 60; i++) {
        double mid = (low + high) / 2;
        *(dz_gauss_bits(mid) < bits ? &low : &high) = mid;
    }
    return low;
}

double dz_gauss_noise(double share) {
    double mean = dz_gauss_mean(dz_gauss_threshold(share));
    return share > 0 ? 1 / (share * mean * mean) - 1 : INFINITY;
}

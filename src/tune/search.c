#include "tune/search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_LEAST (-8.0) /* log2 of the limits of noise_to_delta between which is searched: next to nothing, */
#define LOG_MOST 8.0     /* and so much that little of the fine-tuning is left */

int dz_drop_limit_parse(const char *text, dz_drop_limit *limit) {
    char *end = NULL;
    double x = strtod(text, &end);
    if (end == text || strspn(text, "+-.0123456789eE") != (size_t)(end - text) || !(x >= 0) || !isfinite(x)) return 0;
    limit->relative = strcmp(end, "%") == 0;
    limit->most = limit->relative ? x / 100 : x;
    return limit->relative || *end == '\0';
}

double dz_drop(const dz_drop_limit *limit, double original, double score) {
    return limit->lower_better ? score - original : original - score;
}

#define ROUNDING 1e-9 /* 0.93 - 0.92 is no more than 0.01 */

int dz_drop_ok(const dz_drop_limit *limit, double original, double score) {
    double most = limit->relative ? limit->most * fabs(original) : limit->most;
    return isfinite(score) && dz_drop(limit, original, score) <= most + ROUNDING * (fabs(original) + most);
}

double dz_tune_rung(unsigned k, unsigned steps) {
    char text[32];
    if (k == 0) return 0;
    snprintf(text, sizeof text, "%.3g", exp2(LOG_LEAST + (LOG_MOST - LOG_LEAST) * k / exp2(steps)));
    return strtod(text, NULL);
}

dz_tune_step dz_tune_next(const dz_tune_scored *scored, size_t n, unsigned steps) {
    unsigned low = 0, high = 1U << steps; /* low is within the limit, high taken to be beyond */
    while (high - low > 1) {
        unsigned mid = low + (high - low) / 2;
        double noise = dz_tune_rung(mid, steps);
        size_t i = 0;
        while (i < n && scored[i].noise != noise) i++;
        if (i == n) return (dz_tune_step){.noise = noise, .k = mid};
        *(scored[i].ok ? &low : &high) = mid;
    }
    return (dz_tune_step){.done = 1, .noise = dz_tune_rung(low, steps), .k = low};
}

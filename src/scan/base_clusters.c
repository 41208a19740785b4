#include "scan/base_clusters.h"

#include <stdlib.h>

#define SAME_SUM 1e-9
#define CLOSE_SUM 1.05 /* times the least */

/* Numbers a group by its first model. */
static void connect(const double *distance, size_t n, size_t first, uint32_t *group, uint32_t *open) {
    size_t nopen = 1;
    open[0] = (uint32_t)first;
    group[first] = (uint32_t)first;
    while (nopen > 0) {
        size_t i = open[--nopen];
        for (size_t j = 0; j < n; j++) {
            if (group[j] != UINT32_MAX || !(distance[i * n + j] < DZ_NEAR)) continue;
            group[j] = (uint32_t)first;
            open[nopen++] = (uint32_t)j;
        }
    }
}

/* Of the distances from all others of its group. */
static double sum_of(const double *distance, size_t n, uint32_t i, const uint32_t *group) {
    double sum = 0;
    for (size_t j = 0; j < n; j++) sum += group[j] == group[i] && j != i ? distance[(size_t)i * n + j] : 0;
    return sum;
}

static int is_better(double sum, double least, uint8_t tier, uint8_t best_tier, uint32_t preference, uint32_t best_preference) {
    if (tier != best_tier) return tier < best_tier;
    if (sum < least * (1 - SAME_SUM)) return 1;
    return sum <= least * (1 + SAME_SUM) && preference < best_preference;
}

static uint32_t choose(const double *distance, size_t n, uint32_t first, const uint32_t *group, const uint8_t *tier,
                       const uint32_t *preference, uint32_t *close) {
    uint32_t best = first;
    double least = sum_of(distance, n, first, group);
    for (uint32_t i = first + 1; i < n; i++) {
        if (group[i] != first) continue;
        double sum = sum_of(distance, n, i, group);
        if (!is_better(sum, least, tier[i], tier[best], preference[i], preference[best])) continue;
        best = i;
        least = sum;
    }
    *close = (uint32_t)n;
    for (uint32_t i = first; i < n && tier[best] > 0; i++) {
        if (group[i] == first && i != best && tier[i] == tier[best] && sum_of(distance, n, i, group) < CLOSE_SUM * least) *close = i;
    }
    return best;
}

dz_rc dz_cluster_models(const double *distance, size_t n, const uint8_t *forced, const uint8_t *tier, const uint32_t *preference,
                        uint32_t *base_of, uint32_t *close, dz_error *err) {
    uint32_t *group = dz_alloc(n, sizeof *group, err), *open = dz_alloc(n, sizeof *open, err);
    if (err->rc != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) group[i] = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        if (group[i] == UINT32_MAX) connect(distance, n, i, group, open);
    }
    for (uint32_t i = 0; i < n; i++) {
        int64_t nearest = -1;
        close[i] = (uint32_t)n;
        for (uint32_t f = 0; f < n; f++) {
            if (!forced[f] || group[f] != group[i] || (forced[i] && f != i)) continue;
            if (nearest < 0 || distance[i * n + f] < distance[i * n + (size_t)nearest]) nearest = f;
        }
        base_of[i] = nearest >= 0 ? (uint32_t)nearest : choose(distance, n, group[i], group, tier, preference, &close[i]);
    }
out:
    free(group);
    free(open);
    return err->rc;
}

#include "scan/base_clusters.h"

#include <stdlib.h>

#define SAME_SUM 1e-9

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

static uint32_t choose(const double *distance, size_t n, uint32_t first, const uint32_t *group, const uint32_t *preference) {
    uint32_t best = first;
    double least = -1;
    for (uint32_t i = first; i < n; i++) {
        double sum = 0;
        if (group[i] != first) continue;
        for (size_t j = 0; j < n; j++) sum += group[j] == first && j != i ? distance[(size_t)i * n + j] : 0;
        int smaller = least < 0 || sum < least * (1 - SAME_SUM), same = !smaller && sum <= least * (1 + SAME_SUM);
        if (!smaller && !(same && preference[i] < preference[best])) continue;
        best = i;
        least = sum;
    }
    return best;
}

dz_rc dz_cluster_models(const double *distance, size_t n, const uint8_t *forced, const uint32_t *preference, uint32_t *base_of,
                        dz_error *err) {
    uint32_t *group = dz_alloc(n, sizeof *group, err), *open = dz_alloc(n, sizeof *open, err);
    if (err->rc != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) group[i] = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        if (group[i] == UINT32_MAX) connect(distance, n, i, group, open);
    }
    for (uint32_t i = 0; i < n; i++) {
        int64_t nearest = -1;
        for (uint32_t f = 0; f < n; f++) {
            if (!forced[f] || group[f] != group[i] || (forced[i] && f != i)) continue;
            if (nearest < 0 || distance[i * n + f] < distance[i * n + (size_t)nearest]) nearest = f;
        }
        base_of[i] = nearest >= 0 ? (uint32_t)nearest : choose(distance, n, group[i], group, preference);
    }
out:
    free(group);
    free(open);
    return err->rc;
}

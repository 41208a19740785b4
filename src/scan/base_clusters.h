/* Groups models that share a base and picks the base. Pure: from the distances of all pairs (METHODS.md "Distance of models"). */
#ifndef DZ_SCAN_BASE_CLUSTERS_H
#define DZ_SCAN_BASE_CLUSTERS_H

#include "base/mem.h"

/* Relative distance of two models: root of the mean over samples of sum (a - b)^2 / max(sum a^2, sum b^2). Models trained apart are at 1 or
 * more, a model and its fine-tuned ones well below a half. */
#define DZ_NEAR 0.7

/* base_of[i] is the base of model i: the model itself if it is a base or has no other near it. A chain of near models is one group. Its
 * base has the least sum of distances; among equal sums (always with two models), the smaller `preference` decides. If models of a group
 * are `forced`, these are its bases, and each other model goes to the nearest. distance[i * n + j] is symmetrical. */
dz_rc dz_cluster_models(const double *distance, size_t n, const uint8_t *forced, const uint32_t *preference, uint32_t *base_of,
                        dz_error *err);

#endif

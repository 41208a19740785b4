/* Groups models that share a base and picks the base. Pure: from the distances of all pairs (METHODS.md "Distance of models"). */
#ifndef DZ_SCAN_BASE_CLUSTERS_H
#define DZ_SCAN_BASE_CLUSTERS_H

#include "base/mem.h"

/* Relative distance of two models: root of the mean over samples of sum (a - b)^2 / max(sum a^2, sum b^2). Models trained apart are at 1 or
 * more, a model and its fine-tuned ones well below a half. */
#define DZ_NEAR 0.7

/* base_of[i] is the base of model i: itself for a base, and for a model that has no other near it. Models are of one group when a chain of
 * near ones connects them; its base is of the lowest `tier` in it, of these the one with the least sum of distances, of equal ones (always
 * with two models) the one with the smaller `preference`. Where models are `forced`, these are the bases of their group, and each other
 * model goes to the nearest. `close[i]`: another of the group that could as well have been the base, by its tier and its sum; n: none.
 * distance[i * n + j] is symmetrical. */
dz_rc dz_cluster_models(const double *distance, size_t n, const uint8_t *forced, const uint8_t *tier, const uint32_t *preference,
                        uint32_t *base_of, uint32_t *close, dz_error *err);

#endif

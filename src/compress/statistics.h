/* First stage: every tile is read once. Lossy tiles are measured; exact ones are coded; base tiles are digested. */
#ifndef DZ_COMPRESS_STATISTICS_H
#define DZ_COMPRESS_STATISTICS_H

#include "compress/context.h"
#include "compress/tensor_stats.h"

typedef struct dz_stats {
    dz_tensor_stats *tensors; /* [lossy] */
    uint64_t *base_digests;   /* [2 * base tiles] high, low */
    dz_digest *digests;       /* [pairs] of the tasks' tensors (FORMAT.md "Index"); 0 0: it has no tile of its own */
} dz_stats;

/* Collective. */
dz_rc dz_statistics(dz_context *ctx, dz_stats *out, dz_error *err);
void dz_stats_free(dz_stats *stats);

#endif

/* Third stage: the members of each level, for methods that quantise to levels. The candidates of each tile (numeric/candidates.h) stay in
 * memory for the encoding where the budget allows. */
#ifndef DZ_COMPRESS_HISTOGRAM_H
#define DZ_COMPRESS_HISTOGRAM_H

#include "compress/choose.h"
#include "compress/tile_reader.h"
#include "numeric/candidates.h"

typedef struct dz_counts {
    size_t nlevels;
    uint64_t *histogram; /* [lossy * nlevels] members of each level, whole tensors */
    uint64_t *before;    /* [lossy * nlevels] members on lower ranks */
    uint8_t *cache;      /* address space for the budget, touched as it fills; NULL: none */
    size_t cache_size, cache_used;
    const dz_candidates **kept; /* [items of this rank] in the cache, or NULL */
} dz_counts;

/* Collective. Nothing is counted for a method without levels. */
dz_rc dz_histogram(dz_context *ctx, const dz_lossy_plan *lossy, dz_counts *out, dz_error *err);
void dz_counts_free(dz_counts *counts);

/* Reads lossy tiles over one base tile and takes the candidates of their levels, up to last[i]. */
dz_rc dz_take_candidates(dz_context *ctx, const dz_lossy_plan *lossy, dz_tile_reader *reader, const size_t *items, size_t n,
                         const uint32_t *last, uint32_t few, dz_buf *levels, dz_candidates *out, dz_error *err);

#endif

/* How a tensor is cut into tiles: flat ranges of about 4 M elements whose borders depend on the tensor alone, never on the ranks. */
#ifndef DZ_PLAN_TILING_H
#define DZ_PLAN_TILING_H

#include <stdint.h>

#define DZ_TILE_TARGET ((uint64_t)4 << 20) /* elements; a tile has at most one and a half times as many (format version 1) */

typedef struct dz_tiling {
    uint64_t count; /* elements */
    uint64_t size;  /* of every tile but the last */
    uint32_t ntiles;
} dz_tiling;

/* round(count / target) tiles, at least one, of equal size rounded up to 64 elements. No tile for an empty tensor. */
static inline dz_tiling dz_tiling_of(uint64_t count) {
    uint64_t n = (count + DZ_TILE_TARGET / 2) / DZ_TILE_TARGET, size = (count + (n ? n : 1) - 1) / (n ? n : 1);
    size = (size + 63) / 64 * 64;
    return (dz_tiling){.count = count, .size = size ? size : 64, .ntiles = count ? (uint32_t)((count + size - 1) / size) : 0};
}

/* A task tensor against its base: the first `common` elements follow the base's tiling, and the rest has a tiling of its own. */
typedef struct dz_pair_tiles {
    dz_tiling base;  /* of the base tensor (or of nothing) */
    dz_tiling extra; /* of the elements beyond `common` */
    uint64_t common;
    uint32_t ncommon, ntiles;
} dz_pair_tiles;

/* `base_count` elements of base, `common` of them shared with the task's `count`. */
static inline dz_pair_tiles dz_pair_tiles_of(uint64_t base_count, uint64_t common, uint64_t count) {
    dz_pair_tiles t = {.base = dz_tiling_of(common ? base_count : 0), .extra = dz_tiling_of(count - common), .common = common};
    t.ncommon = common ? (uint32_t)((common + t.base.size - 1) / t.base.size) : 0;
    t.ntiles = t.ncommon + t.extra.ntiles;
    return t;
}

/* First element and number of elements of tile `tile`. */
static inline uint64_t dz_tile_first(const dz_pair_tiles *t, uint32_t tile) {
    return tile < t->ncommon ? tile * t->base.size : t->common + (tile - t->ncommon) * t->extra.size;
}

static inline uint64_t dz_tile_count(const dz_pair_tiles *t, uint32_t tile) {
    uint64_t first = dz_tile_first(t, tile), end = tile < t->ncommon ? t->common : t->common + t->extra.count;
    uint64_t size = tile < t->ncommon ? t->base.size : t->extra.size;
    return end - first < size ? end - first : size;
}

#endif

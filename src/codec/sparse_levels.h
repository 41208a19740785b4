/* One tile of a pruned, quantised delta: which elements are kept and at which level, and its coded forms.
 *
 * SEEDED: positions are those of the hash (numeric/select.h); coded are only the levels of the candidates, a SKIP for a candidate that is
 * not kept, and a short list of kept elements beyond the candidates. GOLOMB: positions as Rice-coded gaps, the measured alternative.
 * src/archive/FORMAT.md has the bytes.
 */
#ifndef DZ_CODEC_SPARSE_LEVELS_H
#define DZ_CODEC_SPARSE_LEVELS_H

#include "numeric/select.h"

enum {                     /* on disk: first byte of a tile's body; 16 and above are codec/lossless.h's */
       DZ_SPARSE_NONE = 0, /* nothing is kept: the byte is all */
       DZ_SPARSE_SEEDED = 1,
       DZ_SPARSE_GOLOMB = 2,
       DZ_SPARSE_VALUES_SEEDED = 3, /* codec/values.h */
       DZ_SPARSE_VALUES_GOLOMB = 4,
       DZ_SPARSE_SIGNS = 5 /* codec/signs.h */
};

/* The kept elements of a tile in index order. Zero-initialise, reuse, free once. */
typedef struct dz_nonzeros {
    uint32_t *index;
    uint8_t *level;
    float *value; /* codec/values.h only */
    size_t count, cap;
    dz_buf scratch;
} dz_nonzeros;

void dz_nonzeros_free(dz_nonzeros *kept);
dz_rc dz_nonzeros_reserve(dz_nonzeros *kept, size_t count, dz_error *err); /* room for `count` elements; what it held is lost */

/* Appends a tile's body to `out`: of quota[g] elements of each level, as selected. */
dz_rc dz_nonzeros_encode(dz_buf *out, const dz_candidates *tile, const uint64_t *quota, const dz_selection *selection, int golomb,
                         dz_error *err);

/* Decodes a body of `nbytes` bytes for a tile of `count` elements with levels of `bits` bits. DZ_EDAMAGE when it is not one. */
dz_rc dz_nonzeros_decode(dz_nonzeros *kept, const uint8_t *body, size_t nbytes, uint64_t key, size_t count, unsigned bits, dz_error *err);

/* The key of tile `tile` of a tensor: XXH64 of the tensor's name seeded by the task's key, then of the tile number (u64, little endian)
 * seeded by that. */
uint64_t dz_tile_key(uint64_t task_key, const char *tensor, uint64_t tile);

#endif

/* One tile of a pruned, quantised delta: which elements are kept, at which level, and how they are coded. Bytes: FORMAT.md "Lossy tiles".
 *
 * SEEDED: positions follow from the hash (numeric/select.h). Stored are the level of each candidate, or SKIP if it is not kept, and a short
 * list of kept elements beyond the candidates. GOLOMB: positions are Rice-coded gaps.
 */
#ifndef DZ_CODEC_SPARSE_LEVELS_H
#define DZ_CODEC_SPARSE_LEVELS_H

#include "numeric/select.h"

enum {                     /* on disk: first byte of a tile's body; 16 and above are codec/lossless.h's */
       DZ_SPARSE_NONE = 0, /* nothing is kept: the body is this byte */
       DZ_SPARSE_SEEDED = 1,
       DZ_SPARSE_GOLOMB = 2,
       DZ_SPARSE_VALUES_SEEDED = 3, /* codec/sparse_values.h */
       DZ_SPARSE_VALUES_GOLOMB = 4,
       DZ_SPARSE_SIGNS = 5 /* codec/sparse_signs.h */
};

/* The kept elements of a tile in index order. Zero-initialise, reuse, free once. */
typedef struct dz_nonzeros {
    uint32_t *index;
    uint8_t *level;
    float *value; /* sparse_values.h and sparse_signs.h only */
    size_t count, cap;
    dz_buf scratch;
} dz_nonzeros;

void dz_nonzeros_free(dz_nonzeros *kept);
dz_rc dz_nonzeros_reserve(dz_nonzeros *kept, size_t count, dz_error *err); /* room for `count` elements; earlier content is lost */

/* Appends a tile's body to `out`: quota[g] elements of each level g, as selected. */
dz_rc dz_nonzeros_encode(dz_buf *out, const dz_candidates *tile, const uint64_t *quota, const dz_selection *selection, int golomb,
                         dz_error *err);

/* Decodes a body of `nbytes` bytes for a tile of `count` elements with levels of `bits` bits. DZ_EDAMAGE if it is no such body. */
dz_rc dz_nonzeros_decode(dz_nonzeros *kept, const uint8_t *body, size_t nbytes, uint64_t key, size_t count, unsigned bits, dz_error *err);

/* The key of tile `tile` of a tensor: XXH64 of the tile number (u64, little endian), seeded by the XXH64 of the tensor's name, which is
 * seeded by the task's key. */
uint64_t dz_tile_key(uint64_t task_key, const char *tensor, uint64_t tile);

#endif

/* Restores one tile from archive and base: the mirror of encoding. Used by restore, verify and compare. What a tile is coded against, its
 * reference, is a tile of the base (of its file, or as the archive holds it) or of another task's row; that one is restored in the same way
 * from its own, the oldest row first, so that two buffers serve any depth. */
#ifndef DZ_DECODE_TILE_DECODER_H
#define DZ_DECODE_TILE_DECODER_H

#include "archive/reader.h"
#include "codec/channels.h"
#include "codec/lowrank.h"
#include "codec/sparse_levels.h"

typedef struct dz_decoder {
    const dz_archive *archive;
    dz_checkpoint *base;   /* NULL: only what needs no base can be decoded, or all if the archive holds it */
    const uint8_t *given;  /* or the whole base tensor of the current row, in memory */
    int64_t *base_tensor;  /* [base rows of the catalog] tensor of `base`, or -1 */
    uint8_t *base_differs; /* [base rows] set when a tile's digest does not match */
    dz_buf base_bytes, block, predictor;
    uint32_t have_base, have_tile; /* base row and tile in base_bytes; DZ_NO_BASE: none */
    int have_differs;              /* the digest of that tile does not match */
    dz_buf up_bytes, other;        /* a restored tile of another task's row; the next one */
    const dz_index_row *have_up;   /* row whose tile `have_up_tile` is in up_bytes; NULL: none */
    uint32_t have_up_tile;
    int up_differs;                /* the base tile under it does not match */
    const dz_index_row *region_of; /* row of `region` */
    dz_region region;
    dz_nonzeros kept;
    dz_buf delta;                       /* of a block of a rotated tile */
    dz_channels known;                  /* the factors in `codes` */
    dz_channels channels;               /* factors of the current block's tensor; count 0: none */
    const dz_index_row *channels_of;    /* row of `codes` */
    dz_lowrank prediction;              /* of the current block; rank 0: none */
    dz_buf codes, factors, first_block; /* factors: [known.count] floats, of the codes with the other sign */
    dz_buf whole;                       /* a restored tile that is not passed on in pieces */
    double bytes_read;
} dz_decoder;

/* Matches the base's tensors with the archive's. DZ_EFAIL names a tensor that is missing or has another shape or type, if `needed` (by base
 * row; NULL: all) says that it is needed. */
dz_rc dz_decoder_open(dz_decoder *decoder, const dz_archive *archive, dz_checkpoint *base, const uint8_t *needed, dz_error *err);
void dz_decoder_close(dz_decoder *decoder);

/* Drops the tiles that are kept in memory: the next ones are read, and checked, anew. */
void dz_decoder_forget(dz_decoder *decoder);

/* 1 if the base's values can be had: from its file, or from the archive. */
int dz_decoder_has_base(const dz_decoder *decoder);

/* The tiles of a row for restoring: those of its region; for equal and dropped tensors, those of the base. */
dz_pair_tiles dz_row_work(const dz_catalog *catalog, const dz_index_row *row);

/* Restores the tile's elements, in the task's dtype, into `out` (count * element size bytes). The base tile's digest is checked. A mismatch
 * sets base_differs and does not fail, even if the block cannot be decoded with such a tile; `out` is then useless. DZ_EDAMAGE names task,
 * tensor and block. */
dz_rc dz_decode_tile(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, void *out, dz_error *err);

/* The same in another type: of lossy tiles, whose base and delta are added in float and rounded once, and of dropped ones. */
dz_rc dz_decode_tile_as(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_dtype to, void *out,
                        dz_error *err);

/* As dz_decode_tile, but passes the elements to `sink` in consecutive pieces. A tile that needs only the base elements at the same
 * positions is read, restored and passed on in pieces that stay in the cache. The first piece comes after the whole block was checked. */
typedef dz_rc (*dz_tile_sink)(void *arg, const void *bytes, size_t len, dz_error *err);
dz_rc dz_decode_tile_to(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_tile_sink sink,
                        void *arg, dz_error *err);

/* Reads and checks the row's table of blocks, unless it is the current one. */
dz_rc dz_decoder_region(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, dz_error *err);

/* The substitute for a lost tile, into `out` as dz_decode_tile: what it is coded against, in the task's dtype, or what that is coded
 * against if it is lost too; at last the base's values, or zeros without a base tensor. */
dz_rc dz_decode_substitute(dz_decoder *decoder, const dz_index_row *row, uint32_t tile, void *out, dz_error *err);

/* The delta of a lossy row's tile as floats, from what it is coded against, with gamma and scale, 0 where nothing is kept; `out` has an
 * entry for each element. It needs no base. */
dz_rc dz_decode_delta(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, float *out, dz_error *err);

/* The base tile under a row's common tile: its bytes (the decoder's, until the next call) and their type. */
dz_rc dz_decoder_base(dz_decoder *decoder, const dz_index_row *row, uint32_t tile, const uint8_t **bytes, dz_dtype *dtype, dz_error *err);

/* A restored tile of a row in its own type: its bytes are the decoder's, until another tile of this kind is asked for. */
dz_rc dz_decoder_row(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, const uint8_t **bytes,
                     dz_error *err);

/* The base tile under a row's common tile in the row's type. NULL beyond the base. The decoder's, until the next call. */
dz_rc dz_decoder_predictor(dz_decoder *decoder, const dz_index_row *row, uint32_t tile, const uint8_t **bytes, dz_error *err);

/* Checks a tile's block without a base: its checksum, and that a lossy one decodes. Adds the number of kept elements to `*kept`. */
dz_rc dz_check_tile(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, uint64_t *kept, dz_error *err);

/* The base's tensor of a row of /base/tensors, all its bytes, from wherever the decoder has it. */
dz_rc dz_decode_base(dz_decoder *decoder, uint32_t base_row, uint8_t *out, dz_error *err);

#endif

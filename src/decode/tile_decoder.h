/* One tile back from the archive: the mirror of coding. Used by restore, verify and compare. */
#ifndef DZ_DECODE_TILE_DECODER_H
#define DZ_DECODE_TILE_DECODER_H

#include "archive/reader.h"
#include "codec/sparse_levels.h"

typedef struct dz_decoder {
    const dz_archive *archive;
    dz_checkpoint *base;   /* NULL: only what needs no base can be decoded */
    const uint8_t *given;  /* or the whole base tensor of the row at hand, in memory */
    int64_t *base_tensor;  /* [base rows of the catalog] tensor of `base`, or -1 */
    uint8_t *base_differs; /* [base rows] set when a tile's digest does not match */
    dz_buf base_bytes, block, predictor;
    uint32_t have_base, have_tile; /* base row and tile in base_bytes; DZ_NO_BASE: none */
    int have_differs;              /* that tile's digest does not match */
    const dz_index_row *region_of; /* whose region is read */
    dz_region region;
    dz_nonzeros kept;
    dz_buf delta; /* of a rotated tile */
    dz_buf whole; /* a restored tile that is not handed on in pieces */
    double bytes_read;
} dz_decoder;

/* Matches the base's tensors with the archive's: a missing one, another shape or type fails naming it, if `needed` (by base row) says that
 * it is needed; NULL: all are. */
dz_rc dz_decoder_open(dz_decoder *decoder, const dz_archive *archive, dz_checkpoint *base, const uint8_t *needed, dz_error *err);
void dz_decoder_close(dz_decoder *decoder);

/* Tiles in which a row is restored: those of its region; for equal and dropped tensors, those of the base. */
dz_pair_tiles dz_row_work(const dz_catalog *catalog, const dz_index_row *row);

/* Restores the tile's elements, in the task's dtype, into `out` (count * element size bytes). The base tile's digest is checked when it is
 * read: a mismatch sets base_differs and does not fail, nor does it if the block cannot be decoded with such a tile; what is then in `out`
 * is of no use. DZ_EDAMAGE names task, tensor and block. */
dz_rc dz_decode_tile(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, void *out, dz_error *err);

/* As dz_decode_tile, handed on in pieces that follow each other. A tile that takes from the base no more than what stands at the same place
 * is read, restored and handed on piece by piece, as few elements as stay in the cache; the first piece comes when nothing of its block can
 * be damaged any more. */
typedef dz_rc (*dz_tile_sink)(void *arg, const void *bytes, size_t len, dz_error *err);
dz_rc dz_decode_tile_to(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_tile_sink sink,
                        void *arg, dz_error *err);

/* Reads and checks the row's table of blocks, if it is not at hand: all that its tiles have in common. */
dz_rc dz_decoder_region(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, dz_error *err);

/* What takes a lost tile's place, into `out` as dz_decode_tile: the base's values in the task's dtype, zeros where there is no base. */
dz_rc dz_decode_substitute(dz_decoder *decoder, const dz_index_row *row, uint32_t tile, void *out, dz_error *err);

/* The delta of a lossy row's common tile in float, gamma and scale applied, 0 where nothing is kept: `out` has a place for each element.
 * Needs no base. */
dz_rc dz_decode_delta(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, float *out, dz_error *err);

/* The base tile under a row's common tile: its bytes (the decoder's, until the next call) and their type. */
dz_rc dz_decoder_base(dz_decoder *decoder, const dz_index_row *row, uint32_t tile, const uint8_t **bytes, dz_dtype *dtype, dz_error *err);

/* Checks a tile's block without a base: checksum, and for lossy ones that it decodes. Adds to `*kept` what is kept. */
dz_rc dz_check_tile(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, uint64_t *kept, dz_error *err);

#endif

/* Walking over a rank's tiles: base and task bytes of a unit, the base's read once for all tasks that follow it. */
#ifndef DZ_COMPRESS_TILE_READER_H
#define DZ_COMPRESS_TILE_READER_H

#include "compress/chains.h"
#include "numeric/allocate.h"
#include "numeric/kernels.h"
#include "plan/plan.h"

typedef struct dz_tile {
    const dz_work_item *unit;
    const dz_tensor_pair *pair; /* NULL: only the base tile matters */
    uint64_t first, count;      /* elements of the task's tensor */
    const uint8_t *task, *base; /* raw bytes; base: what the tile is coded against, the base's or the parent's; NULL: nothing */
    dz_dtype task_dtype, base_dtype;
    uint64_t base_first, base_count; /* the whole base tile */
    const uint8_t *parent;           /* chained: the parent's own tile, in the task's type; NULL: not read */
    float kept;                      /* then a share of the parent's noise that the delta leaves as it is */
} dz_tile;

typedef struct dz_tile_reader {
    dz_checkpoint *base;
    dz_checkpoint **tasks;
    const dz_plan *plan;
    dz_chains *chains;
    dz_buf base_bytes, task_bytes; /* whole tiles, or pieces */
    dz_buf parent_bytes;           /* a whole tile */
    dz_buf wide;                   /* a piece of the base in float */
    int64_t have_base;             /* base tensor whose tile is in base_bytes, or -1 */
    uint32_t have_tile;
    double bytes_read;
} dz_tile_reader;

void dz_tile_reader_init(dz_tile_reader *reader, const dz_zoo *zoo, const dz_plan *plan, dz_chains *chains);
void dz_tile_reader_free(dz_tile_reader *reader);
dz_rc dz_tile_read(dz_tile_reader *reader, size_t unit, dz_tile *tile, dz_error *err);

/* The same without the task's bytes, which are read piece by piece: `piece` is a tile of `count` elements from `first` on. Its task's bytes
 * are the reader's until the next call; pieces of at most DZ_PIECE elements stay in the second-level cache. */
dz_rc dz_tile_open(dz_tile_reader *reader, size_t unit, dz_tile *tile, dz_error *err);
dz_rc dz_tile_piece(dz_tile_reader *reader, const dz_tile *tile, uint64_t first, uint64_t count, dz_tile *piece, dz_error *err);

/* Of a chained unit whose tile has been read: reads the tile of its parent's own model too, if there is one. */
dz_rc dz_tile_read_parent(dz_tile_reader *reader, dz_tile *tile, dz_error *err);

/* Sums over the tile: of s^2, e^2 and s * e, s = task - parent, e = restored parent - parent; with no model of the parent, of
 * (task - restored parent)^2, 0 and 0. */
void dz_tile_chain_sums(const dz_tile *tile, double sums[3]);

/* The whole tile of the base under a unit that has one, whatever the unit is coded against: base_count elements. */
dz_rc dz_tile_base(dz_tile_reader *reader, size_t unit, const uint8_t **base, dz_error *err);

/* Lossy units of one base tile, walked together in pieces that stay in the second-level cache from reading to counting: a piece of the base
 * is read, and widened to float, once for all of them. A unit that is coded against another task's tensor is walked alone. `visit` gets the
 * number of the unit and its piece, a tile of these elements with the base in F32. `base`, if not NULL, becomes the digest of the whole
 * base tile. */
typedef dz_rc (*dz_piece_visit)(void *arg, size_t i, const dz_tile *piece, dz_error *err);
dz_rc dz_tiles_walk(dz_tile_reader *reader, const size_t *units, size_t n, dz_digest *base, dz_piece_visit visit, void *arg, dz_error *err);

/* Of pieces. Levels of the delta on a grid; all 0 where a uniform grid has no step. */
void dz_piece_levels(const dz_tile *piece, const dz_grid_levels *grid, uint8_t *levels);

#define DZ_TILES_AT_ONCE 8 /* tasks whose tiles are walked together */

#define DZ_DISTANCES 256

/* Sums over the pieces of a tile, in an order that every machine keeps. Start from DZ_PIECE_MEASURES_NONE. */
typedef struct dz_piece_measures {
    dz_measures delta;
    double base[DZ_LANES];                    /* sums of the base's squares, a lane each (dz_lanes_total) */
    float base_max;                           /* largest size of a base value */
    uint64_t count;                           /* elements */
    uint64_t sampled, distance[DZ_DISTANCES]; /* sampled elements by the bits of their distance from the base in steps of the task's type */
} dz_piece_measures;

#define DZ_PIECE_MEASURES_NONE ((dz_piece_measures){.delta = DZ_MEASURES_NONE})

/* Of a chained unit whose tile has been read: measures it against the base. */
dz_rc dz_tile_measure_base(dz_tile_reader *reader, size_t unit, const dz_tile *tile, int sizes, dz_piece_measures *measures, dz_error *err);

/* Adds a piece, or its base alone; a piece before the last has a multiple of DZ_LANES elements. `sizes`: with the sums of |d| and the
 * number of changed elements. */
void dz_piece_measure(const dz_tile *piece, int sizes, dz_piece_measures *measures);
void dz_piece_measure_base(const dz_tile *piece, dz_piece_measures *measures);

/* Bits that the exact coding of the tile will take, about: the entropy of the sampled distances' sizes, and their lower bits. */
double dz_measures_exact_bits(const dz_piece_measures *measures);

/* The tile's delta, in float. */
void dz_tile_delta(const dz_tile *tile, size_t first, size_t count, float *delta);

/* The first element whose delta is not finite: fails naming file, tensor and index. */
dz_rc dz_tile_nonfinite(const dz_tile_reader *reader, const dz_tile *tile, dz_error *err);

/* The base tile in the task's type, as predictor of the exact coding: the raw bytes, or converted into `scratch`; NULL without one. */
const void *dz_tile_predictor(const dz_tile *tile, dz_buf *scratch, dz_error *err);

#endif

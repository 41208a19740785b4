/* Exact tiles of matrices that moved along few directions: a prediction of low rank is added to the base, and a body of another kind codes
 * the elements against the sum (METHODS.md "Predictions of low rank").
 */
#ifndef DZ_CODEC_LOWRANK_H
#define DZ_CODEC_LOWRANK_H

#include "base/dtype.h"
#include "base/mem.h"

#define DZ_LOWRANK_EXPONENT_MOST 64 /* so that no product is infinite */

/* Where the elements of a tile are in their tensor: in rows of `columns` elements, the first one in column `first` of its row. columns 0:
 * the tensor has no rows. */
typedef struct dz_tile_rows {
    uint64_t columns, first;
} dz_tile_rows;

/* Of a tile that begins with element `first` of a tensor with this shape. */
static inline dz_tile_rows dz_tile_rows_of(const uint64_t *shape, uint32_t ndim, uint64_t first) {
    uint64_t columns = ndim >= 2 ? shape[ndim - 1] : 0;
    return (dz_tile_rows){.columns = columns, .first = columns ? first % columns : 0};
}

/* Whole numbers u and v; element (r, c) is predicted to be 2^exponent * sum over k of u[r][k] v[k][c] above the base. */
typedef struct dz_lowrank {
    size_t columns, first, rows; /* rows: those that the tile touches */
    unsigned rank;               /* 0: no prediction is worth its bytes */
    int exponent;
    int16_t *u, *v; /* [rows][rank], [rank][columns] */
} dz_lowrank;

/* Looks for a prediction on a sample of the rows, and makes it if it is worth it. All choices are the same on every machine. */
dz_rc dz_lowrank_find(dz_lowrank *found, const void *words, const void *base, dz_dtype dtype, size_t count, const dz_tile_rows *rows,
                      dz_error *err);
void dz_lowrank_free(dz_lowrank *p);

/* The factors, as they stand in a body behind its kind byte. DZ_EDAMAGE from `get` if they are not those of a tile of `count` elements. */
dz_rc dz_lowrank_put(dz_buf *out, const dz_lowrank *p, dz_error *err);
dz_rc dz_lowrank_get(dz_lowrank *p, dz_dtype dtype, size_t count, dz_view *view, dz_error *err);

/* sum[i] = the sum over k of u[row][k] v[k][column + i], modulo 2^32: the predictions of n elements of a row, as signed integers and before
 * 2^exponent. */
void dz_lowrank_sums(uint32_t *sum, const dz_lowrank *p, size_t row, size_t column, size_t n);

/* out[i] = the base's element plus its prediction, in float and then to nearest even in `dtype`; an infinity or NaN stays as it is. */
dz_rc dz_lowrank_add(void *out, const void *base, dz_dtype dtype, size_t count, const dz_lowrank *p, dz_error *err);

#endif

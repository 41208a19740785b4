/* Floats without a base whose columns differ in width or mean: columns that are alike form a group, which is coded by itself
 * (METHODS.md "Columns in groups").
 */
#ifndef DZ_CODEC_COLUMNS_H
#define DZ_CODEC_COLUMNS_H

#include "base/dtype.h"
#include "base/mem.h"
#include "codec/lowrank.h"

#define DZ_COLUMNS_GROUPS 64

/* Each column's group, and whether the signs of its elements are inverted. */
typedef struct dz_columns {
    size_t columns, first, rows;         /* rows: those that the tile touches */
    unsigned ngroups;                    /* 0: one group would do as well */
    uint8_t *group;                      /* [columns]: 2 * group + inverted */
    uint32_t *order;                     /* [columns]: columns by group, in a group ascending */
    size_t start[DZ_COLUMNS_GROUPS + 1]; /* of each group in `order` */
    size_t at[DZ_COLUMNS_GROUPS + 1];    /* of each group's elements, where groups follow each other */
} dz_columns;

/* Groups the columns by a sample of the rows. All choices are the same on every machine. */
dz_rc dz_columns_find(dz_columns *found, const void *words, dz_dtype dtype, size_t count, const dz_tile_rows *rows, dz_error *err);
void dz_columns_free(dz_columns *c);

/* The groups, as they stand in a body behind its kind byte. DZ_EDAMAGE from `get` if they are not those of a tile of `count` elements. */
dz_rc dz_columns_put(dz_buf *out, const dz_columns *c, dz_error *err);
dz_rc dz_columns_get(dz_columns *c, dz_dtype dtype, size_t count, dz_view *view, dz_error *err);

/* The tile's elements group by group, each group's in the order of the tile, and back. */
void dz_columns_gather(void *groups, const void *words, size_t size, size_t count, const dz_columns *c);
void dz_columns_scatter(void *words, const void *groups, size_t size, size_t count, const dz_columns *c);

#endif

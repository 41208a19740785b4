/* A table's bytes as they stand in the file, and back: what HDF5's filters shuffle, deflate and fletcher32 made of one chunk. Undone here,
 * since HDF5's library (1.10) neither bounds what it inflates nor notices when that is less than the chunk. */
#ifndef DZ_ARCHIVE_TABLE_H
#define DZ_ARCHIVE_TABLE_H

#include "base/mem.h"

/* Undoes the three filters: `coded` (`ncoded` bytes) must hold exactly nrows * row bytes, which go to `rows`. DZ_EDAMAGE otherwise, with a
 * text that does not name the file. */
dz_rc dz_table_decode(uint8_t *rows, size_t nrows, size_t row, const uint8_t *coded, size_t ncoded, dz_error *err);

#endif

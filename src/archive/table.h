/* Codes and decodes a table's chunk as stored by HDF5's filters shuffle, deflate and fletcher32. We do it here because libhdf5 1.10 neither
 * bounds the size of inflated data nor notices if it is less than the chunk. */
#ifndef DZ_ARCHIVE_TABLE_H
#define DZ_ARCHIVE_TABLE_H

#include "base/mem.h"

/* Inverts the three filters: `coded` (`ncoded` bytes) must hold exactly nrows * row bytes, which go to `rows`. DZ_EDAMAGE otherwise; its
 * text does not name the file. */
dz_rc dz_table_decode(uint8_t *rows, size_t nrows, size_t row, const uint8_t *coded, size_t ncoded, dz_error *err);

/* Applies them: the bytes that HDF5 would store for these rows, so that their number is known when they are written. Replaces what is in
 * `coded`. */
dz_rc dz_table_encode(const uint8_t *rows, size_t nrows, size_t row, dz_buf *coded, dz_error *err);

#endif

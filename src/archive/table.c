#include "archive/table.h"

#include <stdlib.h>
#include <zlib.h>

static uint32_t fold(uint32_t x) { return (x & 0xffff) + (x >> 16); }

/* Fletcher's checksum as HDF5 has it: 16-bit words, the first byte the high one. */
static uint32_t fletcher32(const uint8_t *bytes, size_t len) {
    uint32_t low = 0, high = 0;
    for (size_t i = 0; i < len; i += 2) {
        low += (uint32_t)bytes[i] << 8 | (i + 1 < len ? bytes[i + 1] : 0U);
        high += low;
        if (i % 720 == 718 || i + 2 >= len) { /* before the sums overflow */
            low = fold(low);
            high = fold(high);
        }
    }
    return fold(high) << 16 | fold(low);
}

dz_rc dz_table_decode(uint8_t *rows, size_t nrows, size_t row, const uint8_t *coded, size_t ncoded, dz_error *err) {
    size_t len = nrows * row;
    if (ncoded < 4) return dz_fail(err, DZ_EDAMAGE, "a table of %zu bytes", ncoded);
    dz_view end = {.data = coded, .len = ncoded, .pos = ncoded - 4};
    if (dz_view_u32(&end) != fletcher32(coded, ncoded - 4)) return dz_fail(err, DZ_EDAMAGE, "its checksum does not match");
    uint8_t *shuffled = dz_alloc_raw(len, 1, err);
    if (!shuffled) return err->rc;
    uLongf got = len;
    if (uncompress(shuffled, &got, coded, (uLong)(ncoded - 4)) != Z_OK || got != len) {
        dz_fail(err, DZ_EDAMAGE, "it does not unpack to %zu rows of %zu bytes", nrows, row);
    } else {
        for (size_t byte = 0; byte < row; byte++) {
            for (size_t i = 0; i < nrows; i++) rows[i * row + byte] = shuffled[byte * nrows + i];
        }
    }
    free(shuffled);
    return err->rc;
}

dz_rc dz_table_encode(const uint8_t *rows, size_t nrows, size_t row, dz_buf *coded, dz_error *err) {
    size_t len = nrows * row;
    uLongf room = len + len / 1000 + 13; /* as HDF5 has it: what does not fit, it would store as it is */
    uint8_t *shuffled = dz_alloc_raw(len, 1, err);
    coded->len = 0;
    if (!shuffled || dz_buf_reserve(coded, (size_t)room + 4, err) != DZ_OK) goto out;
    for (size_t byte = 0; byte < row; byte++) {
        for (size_t i = 0; i < nrows; i++) shuffled[byte * nrows + i] = rows[i * row + byte];
    }
    if (compress2(coded->data, &room, shuffled, (uLong)len, 9) != Z_OK) {
        dz_fail(err, DZ_EFAIL, "a table of %zu rows cannot be packed", nrows);
        goto out;
    }
    coded->len = (size_t)room;
    dz_buf_put_u32(coded, fletcher32(coded->data, coded->len), err);
out:
    free(shuffled);
    return err->rc;
}

/* The payload of an archive that is open: tables of tiles and blocks, each checked when it is read. */
#include <stdlib.h>

#include "archive/reader.h"
#include "base/file.h"

static const char *row_name(const dz_archive *a, const dz_index_row *row) { return a->catalog->tensors[row->tensor].name; }

/* Bytes of a task's payload. What the disk does not give back is damage. */
static dz_rc read_payload(const dz_archive *a, const dz_task_entry *task, const dz_index_row *row, void *dst, size_t len, uint64_t at,
                          dz_error *err) {
    dz_error inner = {0};
    if (dz_pread_all(a->fd, a->path, dst, len, task->payload_offset + at, &inner) == DZ_OK) return DZ_OK;
    return dz_fail(err, DZ_EDAMAGE, "%s: task '%s': tensor '%s': %s", a->path, task->name, row_name(a, row), inner.text);
}

dz_rc dz_region_read(const dz_archive *a, const dz_task_entry *task, const dz_index_row *row, dz_region *region, dz_error *err) {
    dz_pair_tiles tiles = dz_row_tiles(a->catalog, row);
    size_t table = tiles.ntiles > 1 ? 4 * (size_t)tiles.ntiles + 4 : 0;
    *region = (dz_region){.ntiles = tiles.ntiles, .first = row->offset + table};
    if (tiles.ntiles == 0)
        return row->length == 0
                   ? DZ_OK
                   : dz_fail(err, DZ_EDAMAGE, "%s: task '%s': tensor '%s' has bytes but no tile", a->path, task->name, row_name(a, row));
    if (row->length < table || (tiles.ntiles == 1 && (row->length < 5 || row->length > UINT32_MAX))) {
        return dz_fail(err, DZ_EDAMAGE, "%s: task '%s': tensor '%s': its %llu bytes do not hold %u tiles", a->path, task->name,
                       row_name(a, row), (unsigned long long)row->length, tiles.ntiles);
    }
    if (!(region->lengths = dz_alloc(tiles.ntiles, sizeof *region->lengths, err))) return err->rc;
    region->lengths[0] = (uint32_t)row->length;
    if (tiles.ntiles == 1) return DZ_OK;
    uint8_t *bytes = dz_alloc_raw(table, 1, err);
    if (!bytes || read_payload(a, task, row, bytes, table, row->offset, err) != DZ_OK) goto out;
    dz_view v = {.data = bytes, .len = table};
    uint64_t sum = table;
    for (uint32_t i = 0; i < tiles.ntiles; i++) {
        region->lengths[i] = dz_view_u32(&v);
        sum += region->lengths[i];
        if (region->lengths[i] < 5) v.bad = 1;
    }
    if (dz_view_u32(&v) != dz_checksum(bytes, table - 4) || v.bad || sum != row->length)
        dz_fail(err, DZ_EDAMAGE, "%s: task '%s': tensor '%s': its table of tiles is damaged", a->path, task->name, row_name(a, row));
out:
    free(bytes);
    if (err->rc != DZ_OK) {
        free(region->lengths);
        region->lengths = NULL;
    }
    return err->rc;
}

dz_rc dz_block_read(const dz_archive *a, const dz_task_entry *task, const dz_index_row *row, const dz_region *region, uint32_t tile,
                    dz_buf *block, dz_error *err) {
    uint64_t at = region->first;
    for (uint32_t i = 0; i < tile; i++) at += region->lengths[i];
    size_t len = region->lengths[tile];
    block->len = 0;
    if (dz_buf_reserve(block, len, err) != DZ_OK) return err->rc;
    if (read_payload(a, task, row, block->data, len, at, err) != DZ_OK) return err->rc;
    dz_view v = {.data = block->data, .len = len, .pos = len - 4};
    if (dz_view_u32(&v) != dz_checksum(block->data, len - 4))
        return dz_fail(err, DZ_EDAMAGE, "%s: task '%s': tensor '%s': block %u is damaged (checksum)", a->path, task->name, row_name(a, row),
                       tile);
    block->len = len - 4;
    return DZ_OK;
}

#include "archive_ops/rebase.h"

#include <stdlib.h>

#include "codec/lossless.h"
#include "restore/restore.h"

static const dz_index_row *row_of(const dz_copy_tasks *c, const dz_rebase_item *it) {
    return &c->old->catalog->tasks[it->task].rows[it->row];
}

static dz_rc find_items(dz_rebase *r, const dz_copy_tasks *c, dz_error *err) {
    const dz_catalog *cat = c->old->catalog;
    size_t cap = 0;
    for (size_t t = 0; t < cat->ntasks; t++) {
        for (size_t i = 0; i < cat->tasks[t].nrows && !c->leave[t]; i++) {
            if (!dz_copy_tasks_in_vain(c, &cat->tasks[t].rows[i])) continue;
            if (dz_grow((void **)&r->items, &cap, r->nitems + 1, sizeof *r->items, err) != DZ_OK) return err->rc;
            r->items[r->nitems++] = (dz_rebase_item){.task = (uint32_t)t, .row = (uint32_t)i, .first = r->ntiles};
            r->ntiles += dz_row_work(cat, &cat->tasks[t].rows[i]).ntiles;
        }
    }
    return DZ_OK;
}

/* The tile as it restores, coded exactly against the base: the block is in r->body. */
static dz_rc code_tile(dz_rebase *r, const dz_copy_tasks *c, const dz_rebase_item *it, uint32_t tile, dz_error *err) {
    const dz_index_row *row = row_of(c, it);
    const dz_catalog *cat = c->old->catalog;
    dz_pair_tiles tiles = dz_row_work(cat, row);
    dz_tensor tensor = dz_tensor_of_row(&cat->tensors[row->tensor]);
    dz_dtype dtype = tensor.dtype;
    dz_tile_rows rows = dz_tile_rows_of(tensor.shape, tensor.ndim, dz_tile_first(&tiles, tile));
    size_t count = (size_t)dz_tile_count(&tiles, tile);
    const uint8_t *base = NULL;
    r->tile.len = r->body.len = 0;
    if (dz_buf_reserve(&r->tile, count * dz_dtype_size(dtype), err) != DZ_OK ||
        dz_decode_tile(&r->decoder, &cat->tasks[it->task], row, tile, r->tile.data, err) != DZ_OK ||
        dz_decoder_predictor(&r->decoder, row, tile, &base, err) != DZ_OK ||
        dz_lossless_encode(&r->body, r->tile.data, base, dtype, count, &rows, err) != DZ_OK)
        return err->rc;
    return dz_buf_put_u32(&r->body, dz_checksum(r->body.data, r->body.len), err);
}

/* All tiles of this rank: their lengths, or with a writer their bytes; `where`: file offsets of the items' regions. */
static dz_rc code_all(dz_rebase *r, const dz_world *world, const dz_copy_tasks *c, const uint64_t *where, dz_extent_writer *w,
                      dz_error *err) {
    for (size_t i = 0; i < r->nitems && err->rc == DZ_OK; i++) {
        dz_pair_tiles tiles = dz_row_work(c->old->catalog, row_of(c, &r->items[i]));
        uint64_t at = where ? where[i] + dz_region_table_bytes(tiles.ntiles) : 0;
        for (uint32_t tile = 0; tile < tiles.ntiles && err->rc == DZ_OK; tile++) {
            uint64_t number = r->items[i].first + tile;
            if (number % (uint64_t)world->size == (uint64_t)world->rank && code_tile(r, c, &r->items[i], tile, err) == DZ_OK) {
                if (w)
                    dz_extent_put(w, at, r->body.data, r->body.len, err);
                else
                    r->lengths[number] = r->body.len;
            }
            at += r->lengths[number];
        }
    }
    return err->rc;
}

/* The lengths of a tensor's blocks, and their checksum. */
static dz_rc put_table(dz_rebase *r, const dz_pair_tiles *tiles, const dz_rebase_item *it, uint64_t at, dz_extent_writer *w,
                       dz_error *err) {
    r->body.len = 0;
    for (uint32_t tile = 0; tile < tiles->ntiles; tile++) dz_buf_put_u32(&r->body, (uint32_t)r->lengths[it->first + tile], err);
    dz_buf_put_u32(&r->body, dz_checksum(r->body.data, r->body.len), err);
    return err->rc == DZ_OK ? dz_extent_put(w, at, r->body.data, r->body.len, err) : err->rc;
}

dz_rc dz_rebase_open(dz_rebase *r, const dz_world *world, dz_copy_tasks *c, const char *base, dz_error *err) {
    dz_rc rc = dz_sync_error(world, find_items(r, c, err), err);
    if (rc != DZ_OK || r->nitems == 0) return rc;
    if ((rc = dz_base_open_all(world, c->old, base, &r->base, err)) != DZ_OK) return dz_sync_error(world, rc, err);
    r->lengths = dz_alloc(r->ntiles, sizeof *r->lengths, err);
    c->anew_length = dz_alloc(r->nitems, sizeof *c->anew_length, err);
    if (err->rc == DZ_OK) r->open = dz_decoder_open(&r->decoder, c->old, r->base, NULL, err) == DZ_OK;
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) return rc;
    if ((rc = dz_sync_error(world, code_all(r, world, c, NULL, NULL, err), err)) != DZ_OK) return rc;
    dz_sum_u64(world, r->lengths, r->ntiles);
    if ((rc = dz_agree_on_base(world, c->old, base, r->decoder.base_differs, err)) != DZ_OK) return rc;
    for (size_t i = 0; i < r->nitems && err->rc == DZ_OK; i++) {
        const dz_index_row *row = row_of(c, &r->items[i]);
        dz_pair_tiles tiles = dz_row_work(c->old->catalog, row);
        c->anew_length[i] = dz_region_table_bytes(tiles.ntiles);
        for (uint32_t tile = 0; tile < tiles.ntiles; tile++) c->anew_length[i] += r->lengths[r->items[i].first + tile];
        dz_lookup_add(&c->anew, &row, sizeof row, (uint32_t)i, err);
    }
    return dz_sync_error(world, err->rc, err);
}

dz_rc dz_rebase_write(dz_rebase *r, const dz_world *world, const dz_copy_tasks *c, const dz_catalog *catalog, dz_extent_writer *w,
                      dz_error *err) {
    if (r->nitems == 0) return DZ_OK;
    uint64_t *where = dz_alloc(r->nitems, sizeof *where, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    for (size_t i = 0; i < r->nitems && rc == DZ_OK && world->rank == 0; i++) {
        int64_t t = dz_catalog_find(catalog, c->old->catalog->tasks[r->items[i].task].name);
        where[i] = catalog->tasks[t].payload_offset + catalog->tasks[t].rows[r->items[i].row].offset;
    }
    if (rc == DZ_OK) dz_bcast_u64(world, where, r->nitems);
    for (size_t i = 0; i < r->nitems && rc == DZ_OK && world->rank == 0 && err->rc == DZ_OK; i++) {
        dz_pair_tiles tiles = dz_row_work(c->old->catalog, row_of(c, &r->items[i]));
        if (tiles.ntiles > 1) put_table(r, &tiles, &r->items[i], where[i], w, err);
    }
    if (rc == DZ_OK && err->rc == DZ_OK) code_all(r, world, c, where, w, err);
    free(where);
    return rc == DZ_OK ? err->rc : rc;
}

void dz_rebase_close(dz_rebase *r) {
    if (r->open) dz_decoder_close(&r->decoder);
    dz_checkpoint_free(r->base);
    free(r->items);
    free(r->lengths);
    dz_buf_free(&r->tile);
    dz_buf_free(&r->body);
    *r = (dz_rebase){0};
}

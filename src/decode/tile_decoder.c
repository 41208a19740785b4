#include "decode/tile_decoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/describe.h"
#include "codec/lossless.h"
#include "codec/sparse_values.h"
#include "decode/add_kept.h"
#include "decode/rotated.h"

/* Ends the error of a wrong base: which is wanted, and what was given. */
static void note_which_base(const dz_catalog *c, const dz_checkpoint *given, dz_error *err) {
    char text[DZ_BASE_TEXT], *name = NULL, *revision = NULL;
    dz_error none = {0};
    dz_checkpoint_describe(given, &name, &revision, &none);
    size_t len = strlen(err->text);
    snprintf(err->text + len, sizeof err->text - len,
             "; the archive's base is %s, this is '%s' with other tensors: another architecture or size", dz_catalog_base_text(c, text),
             name ? name : "");
    free(name);
    free(revision);
}

dz_rc dz_decoder_open(dz_decoder *d, const dz_archive *archive, dz_checkpoint *base, const uint8_t *needed, dz_error *err) {
    const dz_catalog *c = archive->catalog;
    *d = (dz_decoder){.archive = archive, .base = base, .have_base = DZ_NO_BASE};
    d->base_tensor = dz_alloc(c->nbase, sizeof *d->base_tensor, err);
    d->base_differs = dz_alloc(c->nbase, 1, err);
    if (err->rc != DZ_OK || !base) return err->rc;
    int named = 0;
    for (size_t i = 0; i < c->nbase; i++) {
        dz_tensor want = dz_tensor_of_row(&c->tensors[c->base[i].tensor]);
        char a[DZ_SHAPE_TEXT], b[DZ_SHAPE_TEXT];
        d->base_tensor[i] = dz_checkpoint_find(base, want.name);
        if (needed && !needed[i]) continue;
        if (d->base_tensor[i] < 0) {
            if (named++ < 3) dz_fail_more(err, DZ_EFAIL, "%s: not the base of this archive: it has no tensor '%s'", base->path, want.name);
            continue;
        }
        const dz_tensor *have = &base->tensors[d->base_tensor[i]];
        if (dz_same_shape(&want, have) && strcmp(want.dtype_name, have->dtype_name) == 0) continue;
        if (named++ < 3)
            dz_fail_more(err, DZ_EFAIL, "%s: not the base of this archive: tensor '%s' is %s %s, not %s %s", base->path, want.name,
                         have->dtype_name, dz_shape_text(have, a), want.dtype_name, dz_shape_text(&want, b));
    }
    if (named) note_which_base(c, base, err);
    return err->rc;
}

void dz_decoder_close(dz_decoder *d) {
    free(d->base_tensor);
    free(d->base_differs);
    free(d->region.lengths);
    dz_buf_free(&d->base_bytes);
    dz_buf_free(&d->block);
    dz_buf_free(&d->predictor);
    dz_buf_free(&d->delta);
    dz_buf_free(&d->codes);
    dz_buf_free(&d->factors);
    dz_buf_free(&d->first_block);
    dz_lowrank_free(&d->prediction);
    dz_buf_free(&d->whole);
    dz_buf_free(&d->up_bytes);
    dz_buf_free(&d->other);
    dz_nonzeros_free(&d->kept);
}

dz_pair_tiles dz_row_work(const dz_catalog *c, const dz_index_row *row) {
    if (row->policy != DZ_POLICY_EQUAL && row->policy != DZ_POLICY_DROP) return dz_row_tiles(c, row);
    uint64_t count = dz_tensor_of_row(&c->tensors[row->tensor]).count;
    uint64_t base = row->base == DZ_NO_BASE ? 0 : dz_tensor_of_row(&c->tensors[c->base[row->base].tensor]).count;
    return dz_pair_tiles_of(base, count < base ? count : base, count);
}

static const char *name_of(const dz_decoder *d, const dz_index_row *row) { return d->archive->catalog->tensors[row->tensor].name; }

dz_rc dz_decoder_region(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, dz_error *err) {
    if (d->region_of == row) return DZ_OK;
    free(d->region.lengths);
    d->region = (dz_region){0};
    d->region_of = NULL;
    if (dz_region_read(d->archive, task, row, &d->region, err) != DZ_OK) return err->rc;
    d->region_of = row;
    return DZ_OK;
}

static int reads_stored(const dz_decoder *d) { return !d->given && !d->base && d->archive->catalog->stored; }

void dz_decoder_forget(dz_decoder *d) {
    d->have_base = DZ_NO_BASE;
    d->have_up = NULL;
}

int dz_decoder_has_base(const dz_decoder *d) { return d->given || d->base || d->archive->catalog->stored; }

static dz_rc decode_exact(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, const uint8_t *base,
                          int differs, dz_dtype dtype, size_t count, void *out, dz_error *err);

/* A tile of the base under a row. */
typedef struct base_tile {
    uint32_t row, tile; /* base row of the catalog */
    dz_dtype dtype;
    size_t size, count; /* bytes of an element; elements */
    uint64_t first;     /* byte of the tensor */
} base_tile;

/* Locates a base tile and drops the cached one. */
static dz_rc find_base_tile(dz_decoder *d, uint32_t row, uint32_t tile, base_tile *out, dz_error *err) {
    const dz_catalog *c = d->archive->catalog;
    dz_tensor b = dz_tensor_of_row(&c->tensors[c->base[row].tensor]);
    dz_pair_tiles grid = dz_pair_tiles_of(b.count, b.count, b.count);
    size_t size = dz_dtype_size(b.dtype);
    d->have_base = DZ_NO_BASE;
    d->base_bytes.len = 0;
    if (!d->given && !reads_stored(d) && (!d->base || d->base_tensor[row] < 0))
        return dz_fail(err, DZ_EFAIL, "tensor '%s' cannot be restored without its base", b.name);
    *out = (base_tile){.row = row,
                       .tile = tile,
                       .dtype = b.dtype,
                       .size = size,
                       .count = (size_t)dz_tile_count(&grid, tile),
                       .first = dz_tile_first(&grid, tile) * size};
    return DZ_OK;
}

/* Of the base as the archive holds it: tiles of a tensor that nothing is under are the base's. */
static dz_rc read_stored(dz_decoder *d, const base_tile *t, dz_error *err) {
    const dz_catalog *c = d->archive->catalog;
    const dz_task_entry *task = &c->tasks[c->stored - 1];
    const dz_index_row *row = c->stored_rows[t->row];
    size_t len = t->count * t->size;
    if (dz_buf_reserve(&d->base_bytes, len, err) != DZ_OK || dz_decoder_region(d, task, row, err) != DZ_OK ||
        dz_block_read(d->archive, task, row, &d->region, t->tile, &d->block, err) != DZ_OK)
        return err->rc;
    return decode_exact(d, task, row, t->tile, NULL, 0, t->dtype, t->count, d->base_bytes.data, err);
}

static dz_rc read_base(dz_decoder *d, const base_tile *t, size_t from, size_t count, dz_error *err) {
    uint64_t first = t->first + from * t->size;
    size_t len = count * t->size;
    if (dz_buf_reserve(&d->base_bytes, len, err) != DZ_OK) return err->rc;
    d->bytes_read += (double)len;
    if (!d->given) return dz_checkpoint_read(d->base, (size_t)d->base_tensor[t->row], first, len, d->base_bytes.data, err);
    memcpy(d->base_bytes.data, d->given + first, len);
    return DZ_OK;
}

/* 1 if the tile is another one than the archive was made with. */
static int compare_digest(dz_decoder *d, const base_tile *t, dz_digest digest) {
    const dz_catalog *c = d->archive->catalog;
    dz_digest want = c->base_tiles[c->base[t->row].first_tile + t->tile];
    int differs = digest.hi != want.hi || digest.lo != want.lo;
    if (differs) d->base_differs[t->row] = 1;
    return differs;
}

/* Reads the base tile, once for several tasks, and compares its digest. */
static dz_rc need_base(dz_decoder *d, uint32_t row, uint32_t tile, dz_error *err) {
    base_tile t;
    if (d->have_base == row && d->have_tile == tile) return DZ_OK;
    if (find_base_tile(d, row, tile, &t, err) != DZ_OK) return err->rc;
    if (reads_stored(d) ? read_stored(d, &t, err) != DZ_OK : read_base(d, &t, 0, t.count, err) != DZ_OK) return err->rc;
    d->have_differs = compare_digest(d, &t, dz_digest_of(d->base_bytes.data, t.count * t.size));
    if (d->have_differs && reads_stored(d)) {
        d->base_differs[row] = 0;
        return dz_fail(err, DZ_EDAMAGE, "%s: the base that is stored: tensor '%s': block %u is not the base's", d->archive->path,
                       d->archive->catalog->tensors[d->archive->catalog->base[row].tensor].name, tile);
    }
    d->have_base = row;
    d->have_tile = tile;
    return DZ_OK;
}

/* The reference in the task's type: itself, or a converted copy. */
static const uint8_t *predictor(dz_decoder *d, const uint8_t *bytes, dz_dtype from, dz_dtype to, size_t count, dz_error *err) {
    const dz_kernel_table *k = dz_kernels();
    float wide[DZ_CHUNK];
    if (from == to) return bytes;
    d->predictor.len = 0;
    if (dz_buf_reserve(&d->predictor, count * dz_dtype_size(to), err) != DZ_OK) return NULL;
    for (size_t at = 0; at < count; at += DZ_CHUNK) {
        size_t len = count - at < DZ_CHUNK ? count - at : DZ_CHUNK;
        k->widen(wide, bytes + at * dz_dtype_size(from), from, len);
        k->narrow(d->predictor.data + at * dz_dtype_size(to), wide, to, len);
    }
    return d->predictor.data;
}

/* Restored delta of each level, in float: (gamma * scale) * (lo + q * step). */
static void level_deltas(const dz_task_entry *task, const dz_index_row *row, float *delta) {
    if (row->bits > 8) return;
    dz_grid_levels grid = {.lo = row->lo, .step = row->step, .bits = row->bits};
    float scale = task->gamma * row->scale;
    for (unsigned g = 0; g < 1U << row->bits; g++) delta[g] = scale * dz_level_value(&grid, g);
}

static dz_rc blame(const dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, const dz_error *inner,
                   dz_error *err) {
    return dz_fail(err, inner->rc, "%s: task '%s': tensor '%s': block %u: %s", d->archive->path, task->name, name_of(d, row), tile,
                   inner->text);
}

static dz_rc decode_kept(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, size_t count, dz_error *err) {
    uint64_t key = dz_tile_key(task->key, name_of(d, row), tile);
    dz_error inner = {0};
    if (dz_kind_is_rotated(row->bits))
        dz_rotated_count(d, task, row, tile, count, &inner);
    else if (row->bits > 8)
        dz_values_decode(&d->kept, d->block.data, d->block.len, key, count, &inner);
    else
        dz_nonzeros_decode(&d->kept, d->block.data, d->block.len, key, count, row->bits, &inner);
    return inner.rc == DZ_OK ? DZ_OK : blame(d, task, row, tile, &inner, err);
}

dz_rc dz_check_tile(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, uint64_t *kept, dz_error *err) {
    dz_pair_tiles tiles = dz_row_tiles(d->archive->catalog, row);
    if (dz_decoder_region(d, task, row, err) != DZ_OK || dz_block_read(d->archive, task, row, &d->region, tile, &d->block, err) != DZ_OK)
        return err->rc;
    if (row->policy != DZ_POLICY_ULTRADELTA || !dz_tile_has_reference(row, &tiles, tile)) return DZ_OK;
    if (decode_kept(d, task, row, tile, (size_t)dz_tile_count(&tiles, tile), err) == DZ_OK) *kept += d->kept.count;
    return err->rc;
}

/* A block is not to blame for what another base makes of it: its checksum was right. `differs`: base_differs has the finding. */
static dz_rc decode_exact(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, const uint8_t *base,
                          int differs, dz_dtype dtype, size_t count, void *out, dz_error *err) {
    dz_error inner = {0};
    if (dz_lossless_decode(out, base, dtype, count, d->block.data, d->block.len, &inner) == DZ_OK) return DZ_OK;
    if (inner.rc == DZ_EDAMAGE && base && differs) {
        memcpy(out, base, count * dz_dtype_size(dtype));
        return DZ_OK;
    }
    return blame(d, task, row, tile, &inner, err);
}

/* What a tile is coded against. */
typedef struct reference {
    const uint8_t *bytes; /* NULL: nothing */
    dz_dtype dtype;
    int differs; /* the base under it is another one */
} reference;

/* What a tile is coded against in the task's type, into `out`. */
static dz_rc copy_reference(dz_decoder *d, const reference *ref, dz_dtype to, size_t count, void *out, dz_error *err) {
    const uint8_t *bytes = predictor(d, ref->bytes, ref->dtype, to, count, err);
    if (bytes) memcpy(out, bytes, count * dz_dtype_size(to));
    return err->rc;
}

static dz_rc decode_rotated(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, const reference *ref,
                            dz_dtype to, void *out, dz_error *err) {
    dz_pair_tiles tiles = dz_row_tiles(d->archive->catalog, row);
    dz_rotated r = {.count = (size_t)dz_tile_count(&tiles, tile), .base = ref->bytes, .from = ref->dtype, .out = out, .to = to};
    dz_error inner = {0};
    if (dz_decoder_region(d, task, row, err) != DZ_OK || dz_block_read(d->archive, task, row, &d->region, tile, &d->block, err) != DZ_OK ||
        (to == DZ_F64 && copy_reference(d, ref, to, r.count, out, err) != DZ_OK))
        return err->rc;
    if (dz_rotated_restore(d, task, row, tile, &r, &inner) != DZ_OK) return blame(d, task, row, tile, &inner, err);
    return r.any ? DZ_OK : copy_reference(d, ref, to, r.count, out, err);
}

/* The tile in type `to` from its reference. */
static dz_rc decode_from(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, const reference *ref,
                         dz_dtype to, void *out, dz_error *err) {
    dz_pair_tiles tiles = dz_row_work(d->archive->catalog, row);
    size_t count = (size_t)dz_tile_count(&tiles, tile), nbytes = count * dz_dtype_size(to);
    if (row->policy == DZ_POLICY_ULTRADELTA && ref->bytes && dz_kind_is_rotated(row->bits))
        return decode_rotated(d, task, row, tile, ref, to, out, err);
    const uint8_t *base = ref->bytes ? predictor(d, ref->bytes, ref->dtype, to, count, err) : NULL;
    if (err->rc != DZ_OK) return err->rc;
    if (row->policy == DZ_POLICY_EQUAL || row->policy == DZ_POLICY_DROP) {
        memcpy(out, base, nbytes);
        return DZ_OK;
    }
    if (dz_decoder_region(d, task, row, err) != DZ_OK || dz_block_read(d->archive, task, row, &d->region, tile, &d->block, err) != DZ_OK)
        return err->rc;
    if (row->policy != DZ_POLICY_ULTRADELTA || !ref->bytes)
        return decode_exact(d, task, row, tile, base, ref->differs, to, count, out, err);
    float delta[DZ_MAX_LEVELS];
    if (decode_kept(d, task, row, tile, count, err) != DZ_OK) return err->rc;
    memcpy(out, base, nbytes);
    level_deltas(task, row, delta);
    dz_stretch all = {.base = ref->bytes, .out = out, .from = ref->dtype, .to = to, .end = count};
    dz_add_kept(&d->kept, &all, delta, task->gamma * row->scale, row->bits > 8);
    return DZ_OK;
}

/* The base's tile under a row without a source. */
static dz_rc base_reference(dz_decoder *d, const dz_index_row *row, uint32_t tile, reference *ref, dz_error *err) {
    const dz_catalog *c = d->archive->catalog;
    dz_pair_tiles tiles = dz_row_work(c, row);
    *ref = (reference){.bytes = NULL};
    if (tile >= tiles.ncommon) return DZ_OK;
    if (need_base(d, row->base, tile, err) != DZ_OK) return err->rc;
    *ref = (reference){
        .bytes = d->base_bytes.data, .dtype = dz_tensor_of_row(&c->tensors[c->base[row->base].tensor]).dtype, .differs = d->have_differs};
    return DZ_OK;
}

/* One of the rows under another, which is restored from the one before into up_bytes. */
static dz_rc restore_up(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_error *err) {
    dz_tensor t = dz_tensor_of_row(&d->archive->catalog->tensors[row->tensor]);
    dz_pair_tiles tiles = dz_row_work(d->archive->catalog, row);
    reference ref = {.bytes = d->up_bytes.data, .dtype = t.dtype, .differs = d->up_differs};
    d->have_up = NULL;
    d->other.len = 0;
    if (row->source == 0 && base_reference(d, row, tile, &ref, err) != DZ_OK) return err->rc;
    if (dz_buf_reserve(&d->other, (size_t)dz_tile_count(&tiles, tile) * dz_dtype_size(t.dtype), err) != DZ_OK ||
        decode_from(d, task, row, tile, &ref, t.dtype, d->other.data, err) != DZ_OK)
        return err->rc;
    dz_buf swap = d->up_bytes;
    d->up_bytes = d->other;
    d->other = swap;
    d->up_differs = ref.differs;
    d->have_up = row;
    d->have_up_tile = tile;
    return DZ_OK;
}

/* Restores the tile of a row into up_bytes, the oldest row under it first. Rows that equal another are that one. */
static dz_rc need_row(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_error *err) {
    const dz_index_row *rows[DZ_DEPTH_MAX + 1];
    const dz_task_entry *tasks[DZ_DEPTH_MAX + 1];
    size_t n = 0;
    for (; row && !(d->have_up == row && d->have_up_tile == tile); task = row->up_task, row = row->up) {
        if (row->source && row->policy == DZ_POLICY_EQUAL) continue;
        rows[n] = row;
        tasks[n++] = task;
    }
    while (n > 0 && err->rc == DZ_OK) {
        n--;
        restore_up(d, tasks[n], rows[n], tile, err);
    }
    return err->rc;
}

dz_rc dz_decoder_row(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, const uint8_t **bytes,
                     dz_error *err) {
    if (need_row(d, task, row, tile, err) == DZ_OK) *bytes = d->up_bytes.data;
    return err->rc;
}

/* What the tile is coded against. Damage there is reported as the task's own. */
static dz_rc find_reference(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, reference *ref,
                            dz_error *err) {
    dz_error inner = {0};
    if (row->source == 0) return base_reference(d, row, tile, ref, err);
    if (need_row(d, row->up_task, row->up, tile, &inner) == DZ_OK) {
        *ref = (reference){.bytes = d->up_bytes.data,
                           .dtype = dz_tensor_of_row(&d->archive->catalog->tensors[row->tensor]).dtype,
                           .differs = d->up_differs};
        return DZ_OK;
    }
    const char *path = d->archive->path, *text = inner.text;
    if (strncmp(text, path, strlen(path)) == 0 && text[strlen(path)] == ':') text += strlen(path) + 2;
    return dz_fail(err, inner.rc, "%s: task '%s': tensor '%s': block %u: what it is coded against: %.900s", path, task ? task->name : "",
                   name_of(d, row), tile, text);
}

dz_rc dz_decode_substitute(dz_decoder *d, const dz_index_row *row, uint32_t tile, void *out, dz_error *err) {
    dz_pair_tiles tiles = dz_row_work(d->archive->catalog, row);
    dz_dtype to = dz_tensor_of_row(&d->archive->catalog->tensors[row->tensor]).dtype;
    size_t count = (size_t)dz_tile_count(&tiles, tile);
    reference ref = {.bytes = NULL};
    for (; row->source; row = row->up) {
        dz_error inner = {0};
        if (find_reference(d, NULL, row, tile, &ref, &inner) == DZ_OK) break;
        if (inner.rc != DZ_EDAMAGE) return dz_fail(err, inner.rc, "%s", inner.text);
    }
    if (!row->source && base_reference(d, row, tile, &ref, err) != DZ_OK) return err->rc;
    const uint8_t *bytes = ref.bytes ? predictor(d, ref.bytes, ref.dtype, to, count, err) : NULL;
    if (bytes)
        memcpy(out, bytes, count * dz_dtype_size(to));
    else if (err->rc == DZ_OK)
        memset(out, 0, count * dz_dtype_size(to));
    return err->rc;
}

dz_rc dz_decode_delta(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, float *out, dz_error *err) {
    dz_pair_tiles tiles = dz_row_tiles(d->archive->catalog, row);
    size_t count = (size_t)dz_tile_count(&tiles, tile);
    float delta[DZ_MAX_LEVELS], scale = task->gamma * row->scale;
    if (dz_decoder_region(d, task, row, err) != DZ_OK || dz_block_read(d->archive, task, row, &d->region, tile, &d->block, err) != DZ_OK)
        return err->rc;
    if (dz_kind_is_rotated(row->bits)) {
        dz_rotated r = {.count = count, .delta = out};
        dz_error inner = {0};
        return dz_rotated_restore(d, task, row, tile, &r, &inner) == DZ_OK ? DZ_OK : blame(d, task, row, tile, &inner, err);
    }
    if (decode_kept(d, task, row, tile, count, err) != DZ_OK) return err->rc;
    memset(out, 0, count * sizeof *out);
    level_deltas(task, row, delta);
    for (size_t i = 0; i < d->kept.count; i++) out[d->kept.index[i]] = row->bits > 8 ? scale * d->kept.value[i] : delta[d->kept.level[i]];
    return DZ_OK;
}

dz_rc dz_decoder_predictor(dz_decoder *d, const dz_index_row *row, uint32_t tile, const uint8_t **bytes, dz_error *err) {
    const dz_catalog *c = d->archive->catalog;
    dz_pair_tiles tiles = dz_row_work(c, row);
    *bytes = NULL;
    if (tile >= tiles.ncommon) return DZ_OK;
    if (need_base(d, row->base, tile, err) != DZ_OK) return err->rc;
    *bytes = predictor(d, d->base_bytes.data, dz_tensor_of_row(&c->tensors[c->base[row->base].tensor]).dtype,
                       dz_tensor_of_row(&c->tensors[row->tensor]).dtype, (size_t)dz_tile_count(&tiles, tile), err);
    return err->rc;
}

dz_rc dz_decoder_base(dz_decoder *d, const dz_index_row *row, uint32_t tile, const uint8_t **bytes, dz_dtype *dtype, dz_error *err) {
    const dz_catalog *c = d->archive->catalog;
    if (need_base(d, row->base, tile, err) != DZ_OK) return err->rc;
    *bytes = d->base_bytes.data;
    *dtype = dz_tensor_of_row(&c->tensors[c->base[row->base].tensor]).dtype;
    return DZ_OK;
}

dz_rc dz_decode_base(dz_decoder *d, uint32_t base_row, uint8_t *out, dz_error *err) {
    const dz_catalog *c = d->archive->catalog;
    dz_tensor t = dz_tensor_of_row(&c->tensors[c->base[base_row].tensor]);
    dz_pair_tiles grid = dz_pair_tiles_of(t.count, t.count, t.count);
    size_t size = dz_dtype_size(t.dtype);
    for (uint32_t tile = 0; tile < grid.ntiles; tile++) {
        if (need_base(d, base_row, tile, err) != DZ_OK) return err->rc;
        memcpy(out + dz_tile_first(&grid, tile) * size, d->base_bytes.data, (size_t)dz_tile_count(&grid, tile) * size);
    }
    return DZ_OK;
}

dz_rc dz_decode_tile_as(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_dtype to, void *out,
                        dz_error *err) {
    reference ref;
    if (find_reference(d, task, row, tile, &ref, err) != DZ_OK) return err->rc;
    return decode_from(d, task, row, tile, &ref, to, out, err);
}

dz_rc dz_decode_tile(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, void *out, dz_error *err) {
    dz_dtype to = dz_tensor_of_row(&d->archive->catalog->tensors[row->tensor]).dtype;
    return dz_decode_tile_as(d, task, row, tile, to, out, err);
}

/* 1 if only the base elements at the same positions are needed, and they are not cached. */
static int goes_in_pieces(const dz_decoder *d, const dz_index_row *row, const dz_pair_tiles *tiles, uint32_t tile) {
    if (row->source || tile >= tiles->ncommon || d->given || !d->base || (d->have_base == row->base && d->have_tile == tile)) return 0;
    return row->policy == DZ_POLICY_EQUAL || row->policy == DZ_POLICY_DROP ||
           (row->policy == DZ_POLICY_ULTRADELTA && !dz_kind_is_rotated(row->bits));
}

/* The tile of the base with the kept elements added, piece by piece. Its whole digest is taken, though the task may have fewer rows. */
static dz_rc pass_pieces(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, size_t count, dz_dtype to,
                         dz_tile_sink sink, void *arg, dz_error *err) {
    base_tile t;
    float delta[DZ_MAX_LEVELS];
    size_t k = 0;
    level_deltas(task, row, delta);
    dz_digester *digester = find_base_tile(d, row->base, tile, &t, err) == DZ_OK ? dz_digest_begin(err) : NULL;
    if (!digester) return err->rc;
    for (size_t at = 0; at < t.count && err->rc == DZ_OK; at += DZ_PIECE) {
        size_t len = t.count - at < DZ_PIECE ? t.count - at : DZ_PIECE, n = at >= count ? 0 : count - at < len ? count - at : len;
        if (read_base(d, &t, at, len, err) != DZ_OK) break;
        dz_digest_add(digester, d->base_bytes.data, len * t.size);
        uint8_t *out = d->base_bytes.data; /* the base's piece itself, or a converted copy */
        if (n && predictor(d, out, t.dtype, to, n, err) != out) out = d->predictor.data;
        if (n == 0 || err->rc != DZ_OK) continue;
        dz_stretch piece = {.base = d->base_bytes.data, .out = out, .from = t.dtype, .to = to, .first = at, .end = at + n, .k = k};
        k = dz_add_kept(&d->kept, &piece, delta, task->gamma * row->scale, row->bits > 8);
        sink(arg, out, n * dz_dtype_size(to), err);
    }
    dz_digest digest = dz_digest_end(digester);
    if (err->rc == DZ_OK) compare_digest(d, &t, digest);
    return err->rc;
}

dz_rc dz_decode_tile_to(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_tile_sink sink, void *arg,
                        dz_error *err) {
    dz_pair_tiles tiles = dz_row_work(d->archive->catalog, row);
    size_t count = (size_t)dz_tile_count(&tiles, tile);
    dz_dtype to = dz_tensor_of_row(&d->archive->catalog->tensors[row->tensor]).dtype;
    if (!goes_in_pieces(d, row, &tiles, tile)) {
        size_t len = count * dz_dtype_size(to);
        d->whole.len = 0;
        if (dz_buf_reserve(&d->whole, len, err) != DZ_OK || dz_decode_tile(d, task, row, tile, d->whole.data, err) != DZ_OK) return err->rc;
        return sink(arg, d->whole.data, len, err);
    }
    d->kept.count = 0;
    if (row->policy == DZ_POLICY_ULTRADELTA &&
        (dz_decoder_region(d, task, row, err) != DZ_OK || dz_block_read(d->archive, task, row, &d->region, tile, &d->block, err) != DZ_OK ||
         decode_kept(d, task, row, tile, count, err) != DZ_OK))
        return err->rc;
    return pass_pieces(d, task, row, tile, count, to, sink, arg, err);
}

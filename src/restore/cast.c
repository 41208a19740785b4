#include "restore/cast.h"

#include <math.h>
#include <string.h>

static int is_cast_from(dz_dtype dtype) { return dtype == DZ_F64 || dtype == DZ_F32 || dtype == DZ_F16 || dtype == DZ_BF16; }

static dz_tensor stored(const dz_restore_job *r, const dz_index_row *row) {
    return dz_tensor_of_row(&r->archive->catalog->tensors[row->tensor]);
}

int dz_restore_is_cast(const dz_restore_job *r, const dz_index_row *row) {
    dz_dtype dtype = stored(r, row).dtype;
    return r->opt->dtype != DZ_OPAQUE && dtype != r->opt->dtype && is_cast_from(dtype);
}

int dz_restore_cast_rounds(const dz_restore_job *r, const dz_index_row *row) {
    return dz_restore_is_cast(r, row) && (r->opt->dtype != DZ_F32 || stored(r, row).dtype == DZ_F64);
}

dz_tensor dz_restore_written(const dz_restore_job *r, const dz_index_row *row) {
    dz_tensor t = stored(r, row);
    if (!dz_restore_is_cast(r, row)) return t;
    t.dtype = r->opt->dtype;
    memset(t.dtype_name, 0, sizeof t.dtype_name);
    strncpy(t.dtype_name, dz_dtype_name(t.dtype), sizeof t.dtype_name - 1);
    t.nbytes = t.count * dz_dtype_size(t.dtype);
    return t;
}

/* Narrows, but not to infinity. */
static dz_rc narrow(const dz_restore_job *r, const dz_index_row *row, const float *x, size_t count, uint8_t *out, dz_error *err) {
    const dz_kernel_table *k = dz_kernels();
    dz_dtype to = r->opt->dtype;
    size_t size = dz_dtype_size(to);
    for (size_t at = 0; at < count; at += DZ_CHUNK) {
        size_t n = count - at < DZ_CHUNK ? count - at : DZ_CHUNK;
        float back[DZ_CHUNK];
        k->narrow(out + at * size, x + at, to, n);
        if (to == DZ_F32) continue;
        k->widen(back, out + at * size, to, n);
        for (size_t i = 0; i < n; i++) {
            if (isfinite(back[i]) || !isfinite(x[at + i])) continue;
            return dz_fail(err, DZ_EVALUE, "task '%s': tensor '%s' has %g, beyond the range of %s: give --dtype %s", r->task->name,
                           stored(r, row).name, (double)x[at + i], dz_dtype_name(to), to == DZ_F16 ? "bf16 or f32" : "f32");
        }
    }
    return DZ_OK;
}

/* Values of a tile of the tensor's own type, in float. Beyond a float's range only F64 has any. */
static dz_rc widen(const dz_restore_job *r, const dz_index_row *row, const uint8_t *bytes, size_t count, float *x, dz_error *err) {
    dz_tensor t = stored(r, row);
    size_t size = dz_dtype_size(t.dtype);
    for (size_t at = 0; at < count; at += DZ_CHUNK) {
        size_t n = count - at < DZ_CHUNK ? count - at : DZ_CHUNK;
        dz_kernels()->widen(x + at, bytes + at * size, t.dtype, n);
    }
    for (size_t i = 0; t.dtype == DZ_F64 && i < count; i++) {
        double value;
        memcpy(&value, bytes + i * size, sizeof value);
        if (isfinite(value) && !isfinite(x[i]))
            return dz_fail(err, DZ_EVALUE, "task '%s': tensor '%s' has %g, beyond the range of %s: restore it without --dtype",
                           r->task->name, t.name, value, dz_dtype_name(r->opt->dtype));
    }
    return DZ_OK;
}

static size_t count_of(const dz_restore_job *r, const dz_index_row *row, uint32_t tile) {
    dz_pair_tiles tiles = dz_row_work(r->archive->catalog, row);
    return (size_t)dz_tile_count(&tiles, tile);
}

/* The tile's values: sums and lossy tiles as they are computed, before they are rounded to the tensor's own type. */
static dz_rc values(dz_restore_job *r, const dz_index_row *row, uint32_t tile, size_t count, float *x, dz_error *err) {
    dz_pair_tiles tiles = dz_row_work(r->archive->catalog, row);
    int plain = dz_merge_is_plain(&r->merge), common = tile < tiles.ncommon;
    if (!plain && common) return dz_merge_tile_as(&r->merge, &r->decoder, row, tile, DZ_F32, x, err);
    if (common && (row->policy == DZ_POLICY_ULTRADELTA || row->policy == DZ_POLICY_DROP))
        return dz_decode_tile_as(&r->decoder, r->task, row, tile, DZ_F32, x, err);
    r->own.len = 0;
    if (dz_buf_reserve(&r->own, count * dz_dtype_size(stored(r, row).dtype), err) != DZ_OK ||
        dz_decode_tile(&r->decoder, r->task, row, tile, r->own.data, err) != DZ_OK)
        return err->rc;
    return widen(r, row, r->own.data, count, x, err);
}

static float *room(dz_restore_job *r, size_t count, dz_error *err) {
    r->wide.len = 0;
    return dz_buf_reserve(&r->wide, count * sizeof(float), err) == DZ_OK ? (float *)(void *)r->wide.data : NULL;
}

dz_rc dz_restore_cast_tile(dz_restore_job *r, const dz_index_row *row, uint32_t tile, void *out, dz_error *err) {
    size_t count = count_of(r, row, tile);
    float *x = room(r, count, err);
    if (!x || values(r, row, tile, count, x, err) != DZ_OK) return err->rc;
    return narrow(r, row, x, count, out, err);
}

dz_rc dz_restore_cast_substitute(dz_restore_job *r, const dz_index_row *row, uint32_t tile, void *out, dz_error *err) {
    size_t count = count_of(r, row, tile);
    float *x = room(r, count, err);
    r->own.len = 0;
    if (!x || dz_buf_reserve(&r->own, count * dz_dtype_size(stored(r, row).dtype), err) != DZ_OK ||
        dz_decode_substitute(&r->decoder, row, tile, r->own.data, err) != DZ_OK || widen(r, row, r->own.data, count, x, err) != DZ_OK)
        return err->rc;
    return narrow(r, row, x, count, out, err);
}

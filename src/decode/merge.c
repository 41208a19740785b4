#include "decode/merge.h"

#include <stdlib.h>
#include <string.h>

void dz_merge_free(dz_merge *m) {
    for (size_t k = 0; m->rows && k < m->ntasks; k++) dz_lookup_free(&m->rows[k]);
    free(m->rows);
    free(m->tasks);
    free(m->weights);
    dz_buf_free(&m->sum);
    dz_buf_free(&m->elected);
    dz_buf_free(&m->delta);
    dz_buf_free(&m->exact);
    *m = (dz_merge){0};
}

int dz_merge_is_plain(const dz_merge *m) { return m->ntasks == 1 && m->weights[0] == 1; }

/* sum[i] += factor * value i of `bytes`. */
static void add_values(double *sum, double factor, const uint8_t *bytes, dz_dtype dtype, size_t count) {
    const dz_kernel_table *k = dz_kernels();
    size_t size = dz_dtype_size(dtype);
    for (size_t at = 0; at < count; at += DZ_CHUNK) {
        size_t n = count - at < DZ_CHUNK ? count - at : DZ_CHUNK;
        double wide[DZ_CHUNK];
        float x[DZ_CHUNK];
        if (dtype == DZ_F64) {
            memcpy(wide, bytes + at * size, n * sizeof *wide);
        } else {
            k->widen(x, bytes + at * size, dtype, n);
            for (size_t i = 0; i < n; i++) wide[i] = (double)x[i];
        }
        for (size_t i = 0; i < n; i++) sum[at + i] += factor * wide[i];
    }
}

static void put_values(uint8_t *bytes, const double *values, dz_dtype dtype, size_t count) {
    const dz_kernel_table *k = dz_kernels();
    if (dtype == DZ_F64) memcpy(bytes, values, count * sizeof *values);
    for (size_t at = 0; at < count && dtype != DZ_F64; at += DZ_CHUNK) {
        size_t n = count - at < DZ_CHUNK ? count - at : DZ_CHUNK;
        float x[DZ_CHUNK];
        for (size_t i = 0; i < n; i++) x[i] = (float)values[at + i];
        k->narrow(bytes + at * dz_dtype_size(dtype), x, dtype, n);
    }
}

/* Rows that both have of the base are cut into the same tiles: either has all of the base, or both are of one shape. */
static int same_tiles(const dz_catalog *c, const dz_index_row *row, const dz_tensor *a, const dz_tensor *b) {
    if (dz_same_shape(a, b)) return 1;
    if (row->base == DZ_NO_BASE) return 0;
    uint64_t count = dz_tensor_of_row(&c->tensors[c->base[row->base].tensor]).count;
    return a->count >= count && b->count >= count;
}

static dz_rc find_rows(dz_merge *m, const dz_catalog *c, dz_error *err) {
    if (m->rows || !(m->rows = dz_alloc(m->ntasks, sizeof *m->rows, err))) return err->rc;
    for (size_t k = 0; k < m->ntasks && err->rc == DZ_OK; k++) dz_task_rows(c, m->tasks[k], &m->rows[k], err);
    return err->rc;
}

/* The row of task `k` that is merged with `row` of the first one: same name and base, a float, with rows in common. NULL: there is none. */
static const dz_index_row *partner(const dz_merge *m, const dz_catalog *c, size_t k, const dz_index_row *row) {
    dz_tensor want = dz_tensor_of_row(&c->tensors[row->tensor]);
    int64_t at = dz_lookup_find(&m->rows[k], want.name, strlen(want.name));
    if (at < 0) return NULL;
    const dz_index_row *other = &m->tasks[k]->rows[at];
    dz_tensor have = dz_tensor_of_row(&c->tensors[other->tensor]);
    if (!dz_dtype_is_float(have.dtype) || !same_tiles(c, row, &have, &want)) return NULL;
    other = dz_row_source(m->tasks[k], other);
    return other->base == row->base ? other : NULL;
}

dz_rc dz_tile_difference(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_buf *scratch, double *out,
                         dz_error *err) {
    const uint8_t *base;
    row = dz_row_values(&task, row);
    dz_dtype from, to = dz_tensor_of_row(&d->archive->catalog->tensors[row->tensor]).dtype;
    dz_pair_tiles tiles = dz_row_work(d->archive->catalog, row);
    size_t count = (size_t)dz_tile_count(&tiles, tile);
    int common = tile < tiles.ncommon;
    scratch->len = 0;
    if (dz_row_has_delta(row) && common) {
        if (dz_buf_reserve(scratch, count * sizeof(float), err) != DZ_OK) return err->rc;
        float *delta = (float *)(void *)scratch->data;
        if (dz_decode_delta(d, task, row, tile, delta, err) != DZ_OK) return err->rc;
        for (size_t i = 0; i < count; i++) out[i] = (double)delta[i];
        return DZ_OK;
    }
    if (dz_buf_reserve(scratch, count * dz_dtype_size(to), err) != DZ_OK ||
        dz_decode_tile(d, task, row, tile, scratch->data, err) != DZ_OK ||
        (common && dz_decoder_base(d, row, tile, &base, &from, err) != DZ_OK))
        return err->rc;
    memset(out, 0, count * sizeof *out);
    add_values(out, 1, scratch->data, to, count);
    if (common) add_values(out, -1, base, from, count);
    return DZ_OK;
}

static dz_rc add_up(dz_merge *m, dz_decoder *d, const dz_index_row *row, uint32_t tile, size_t count, const double *elected, double *sum,
                    dz_error *err) {
    double *delta = (double *)(void *)m->delta.data;
    if (find_rows(m, d->archive->catalog, err) != DZ_OK) return err->rc;
    for (size_t k = 0; k < m->ntasks; k++) {
        const dz_index_row *other = k == 0 ? row : partner(m, d->archive->catalog, k, row);
        if (!other) continue;
        if (dz_tile_difference(d, m->tasks[k], other, tile, &m->exact, delta, err) != DZ_OK) return err->rc;
        for (size_t i = 0; i < count; i++) {
            double x = m->weights[k] * delta[i];
            if (!elected || x * elected[i] > 0) sum[i] += x;
        }
    }
    return DZ_OK;
}

dz_rc dz_merge_tile_as(dz_merge *m, dz_decoder *d, const dz_index_row *row, uint32_t tile, dz_dtype to, void *out, dz_error *err) {
    dz_pair_tiles tiles = dz_row_work(d->archive->catalog, row);
    dz_dtype from;
    size_t count = (size_t)dz_tile_count(&tiles, tile), nbytes = count * sizeof(double);
    const uint8_t *base;
    m->sum.len = m->elected.len = m->delta.len = 0;
    if (dz_buf_reserve(&m->sum, nbytes, err) != DZ_OK || dz_buf_reserve(&m->delta, nbytes, err) != DZ_OK) return err->rc;
    double *sum = (double *)(void *)m->sum.data, *elected = NULL;
    if (m->sign_consensus) {
        if (dz_buf_reserve(&m->elected, nbytes, err) != DZ_OK) return err->rc;
        elected = (double *)(void *)m->elected.data;
        memset(elected, 0, nbytes);
        if (add_up(m, d, row, tile, count, NULL, elected, err) != DZ_OK) return err->rc;
    }
    memset(sum, 0, nbytes);
    if (add_up(m, d, row, tile, count, elected, sum, err) != DZ_OK || dz_decoder_base(d, row, tile, &base, &from, err) != DZ_OK)
        return err->rc;
    add_values(sum, 1, base, from, count);
    put_values(out, sum, to, count);
    return DZ_OK;
}

dz_rc dz_merge_tile(dz_merge *m, dz_decoder *d, const dz_index_row *row, uint32_t tile, void *out, dz_error *err) {
    dz_dtype to = dz_tensor_of_row(&d->archive->catalog->tensors[row->tensor]).dtype;
    if (tile >= dz_row_work(d->archive->catalog, row).ncommon || !dz_dtype_is_float(to))
        return dz_decode_tile(d, m->tasks[0], row, tile, out, err);
    return dz_merge_tile_as(m, d, row, tile, to, out, err);
}

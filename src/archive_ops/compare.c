#include "archive_ops/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "config/zoo.h"
#include "decode/tile_decoder.h"
#include "parallel/progress.h"

enum { ERROR2, DELTA2, RESTORED2, DOT, BASE2, DIFFERS, NSUMS };

typedef struct compare {
    const dz_world *world;
    dz_archive *archive;
    const dz_task_entry *task;
    dz_checkpoint *base, *finetuned;
    dz_decoder decoder;
    dz_buf restored, original;
    double *sums, *most; /* [rows][NSUMS], [rows] */
} compare;

void dz_compare_result_free(dz_compare_result *r) {
    for (size_t i = 0; i < r->ntensors; i++) free(r->tensors[i].name);
    free(r->tensors);
    *r = (dz_compare_result){0};
}

/* Sums of one tile, chunk by chunk. Of tensors without a base deltas are the tensors themselves; elements beyond the base have none. */
static void add_tile(compare *c, size_t row, dz_dtype dtype, dz_dtype base_dtype, const uint8_t *base, int beyond, size_t count) {
    const dz_kernel_table *k = dz_kernels();
    float a[DZ_CHUNK], b[DZ_CHUNK], w[DZ_CHUNK] = {0};
    size_t size = dz_dtype_size(dtype);
    double *s = &c->sums[row * NSUMS];
    for (size_t at = 0; at < count; at += DZ_CHUNK) {
        size_t len = count - at < DZ_CHUNK ? count - at : DZ_CHUNK;
        k->widen(a, c->restored.data + at * size, dtype, len);
        k->widen(b, c->original.data + at * size, dtype, len);
        if (base) k->widen(w, base + at * dz_dtype_size(base_dtype), base_dtype, len);
        for (size_t i = 0; i < len; i++) {
            double r = (double)a[i] - (double)w[i], d = (double)b[i] - (double)w[i], e = (double)a[i] - (double)b[i];
            s[ERROR2] += e * e;
            if (fabs(e) > c->most[row]) c->most[row] = fabs(e);
            if (beyond) continue;
            s[DELTA2] += d * d;
            s[RESTORED2] += r * r;
            s[DOT] += r * d;
            s[BASE2] += (double)w[i] * (double)w[i];
        }
    }
}

static dz_rc compare_tile(compare *c, size_t i, int64_t tensor, uint32_t tile, dz_error *err) {
    const dz_index_row *row = dz_row_source(c->task, &c->task->rows[i]);
    const dz_catalog *cat = c->archive->catalog;
    dz_pair_tiles tiles = dz_row_work(cat, row);
    dz_tensor t = dz_tensor_of_row(&cat->tensors[row->tensor]);
    size_t size = dz_dtype_size(t.dtype), count = (size_t)dz_tile_count(&tiles, tile), len = count * size;
    c->restored.len = c->original.len = 0;
    if (dz_buf_reserve(&c->restored, len, err) != DZ_OK || dz_buf_reserve(&c->original, len, err) != DZ_OK) return err->rc;
    if (dz_decode_tile(&c->decoder, c->task, row, tile, c->restored.data, err) != DZ_OK) return err->rc;
    if (dz_checkpoint_read(c->finetuned, (size_t)tensor, dz_tile_first(&tiles, tile) * size, len, c->original.data, err) != DZ_OK)
        return err->rc;
    if (memcmp(c->restored.data, c->original.data, len) != 0) c->sums[i * NSUMS + DIFFERS] += 1;
    if (!dz_dtype_is_float(t.dtype)) return DZ_OK;
    const uint8_t *base = NULL;
    dz_dtype base_dtype = t.dtype;
    if (tile < tiles.ncommon && dz_decoder_base(&c->decoder, row, tile, &base, &base_dtype, err) != DZ_OK) return err->rc;
    if (!dz_dtype_is_float(base_dtype)) base = NULL;
    add_tile(c, i, t.dtype, base_dtype, base, tiles.ncommon > 0 && tile >= tiles.ncommon, count);
    return DZ_OK;
}

/* Every tensor of the index is in the fine-tuned model, with the same shape and type. */
static dz_rc match(compare *c, int64_t *tensor, dz_error *err) {
    for (size_t i = 0; i < c->task->nrows; i++) {
        dz_tensor want = dz_tensor_of_row(&c->archive->catalog->tensors[c->task->rows[i].tensor]);
        char a[DZ_SHAPE_TEXT], b[DZ_SHAPE_TEXT];
        tensor[i] = -1;
        if (c->task->rows[i].policy == DZ_POLICY_ABSENT) continue;
        tensor[i] = dz_checkpoint_find(c->finetuned, want.name);
        if (tensor[i] < 0) return dz_fail(err, DZ_EFAIL, "%s: has no tensor '%s'", c->finetuned->path, want.name);
        const dz_tensor *have = &c->finetuned->tensors[tensor[i]];
        if (!dz_same_shape(&want, have) || strcmp(want.dtype_name, have->dtype_name) != 0)
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s' is %s %s, in the archive %s %s", c->finetuned->path, want.name, have->dtype_name,
                           dz_shape_text(have, a), want.dtype_name, dz_shape_text(&want, b));
    }
    return DZ_OK;
}

static void finish(dz_tensor_error *e) {
    e->relative = e->delta2 > 0 ? sqrt(e->error2 / e->delta2) : e->error2 > 0 ? (double)INFINITY : 0;
    e->cosine = e->delta2 > 0 && e->restored2 > 0 ? e->dot / sqrt(e->delta2 * e->restored2) : e->delta2 == e->restored2 ? 1 : 0;
}

static void add_to(dz_tensor_error *sum, const dz_tensor_error *e) {
    sum->count += e->count;
    sum->identical &= e->identical;
    sum->error2 += e->error2;
    sum->delta2 += e->delta2;
    sum->restored2 += e->restored2;
    sum->dot += e->dot;
    sum->base2 += e->base2;
    if (e->max_abs > sum->max_abs) sum->max_abs = e->max_abs;
}

static dz_rc make_result(const compare *c, dz_compare_result *r, dz_error *err) {
    if (!(r->tensors = dz_alloc(c->task->nrows, sizeof *r->tensors, err))) return err->rc;
    r->lossy.identical = r->body.identical = r->vocabulary.identical = 1;
    for (size_t i = 0; i < c->task->nrows; i++) {
        const dz_index_row *row = &c->task->rows[i];
        if (row->policy == DZ_POLICY_ABSENT) continue;
        const double *s = &c->sums[i * NSUMS];
        dz_tensor t = dz_tensor_of_row(&c->archive->catalog->tensors[row->tensor]);
        dz_tensor_error *e = &r->tensors[r->ntensors++];
        *e = (dz_tensor_error){.policy = row->policy,
                               .count = t.count,
                               .identical = s[DIFFERS] == 0,
                               .max_abs = c->most[i],
                               .error2 = s[ERROR2],
                               .delta2 = s[DELTA2],
                               .restored2 = s[RESTORED2],
                               .dot = s[DOT],
                               .base2 = s[BASE2]};
        if (!(e->name = dz_strdup(t.name, err))) return err->rc;
        finish(e);
        if (!dz_row_is_noisy(row)) continue;
        add_to(&r->lossy, e);
        add_to(dz_row_is_vocabulary(c->archive->catalog, row) ? &r->vocabulary : &r->body, e);
    }
    finish(&r->lossy);
    finish(&r->body);
    finish(&r->vocabulary);
    return DZ_OK;
}

static dz_rc walk(compare *c, const int64_t *tensor, dz_progress *progress, dz_error *err) {
    uint64_t number = 0;
    for (size_t i = 0; i < c->task->nrows && err->rc == DZ_OK; i++) {
        if (tensor[i] < 0) continue;
        dz_pair_tiles tiles = dz_row_work(c->archive->catalog, dz_row_source(c->task, &c->task->rows[i]));
        for (uint32_t tile = 0; tile < tiles.ntiles && err->rc == DZ_OK; tile++, number++) {
            if (number % (uint64_t)c->world->size != (uint64_t)c->world->rank) continue;
            compare_tile(c, i, tensor[i], tile, err);
            dz_progress_add(progress, (double)dz_tile_count(&tiles, tile));
        }
    }
    return err->rc;
}

dz_rc dz_compare(const dz_world *world, const char *archive, const char *task, const char *base, const char *finetuned, int quiet,
                 dz_compare_result *result, dz_error *err) {
    double begun = dz_now();
    compare c = {.world = world};
    int64_t *tensor = NULL;
    dz_progress progress;
    dz_rc rc = dz_archive_open_tasks_all(world, archive, &task, 1, &c.archive, err);
    if (rc != DZ_OK || (rc = dz_sync_error(world, dz_archive_task(c.archive, task, &c.task, err), err)) != DZ_OK) goto out;
    if ((rc = dz_base_open_all(world, c.archive, base, &c.base, err)) != DZ_OK) goto out;
    if ((rc = dz_checkpoint_open_all(world, finetuned, &c.finetuned, err)) != DZ_OK) goto out;
    size_t n = c.task->nrows;
    tensor = dz_alloc(n, sizeof *tensor, err);
    c.sums = dz_alloc(n * NSUMS, sizeof *c.sums, err);
    c.most = dz_alloc(n, sizeof *c.most, err);
    if (err->rc == DZ_OK && match(&c, tensor, err) == DZ_OK) dz_decoder_open(&c.decoder, c.archive, c.base, NULL, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    double total = 0;
    for (size_t i = 0; i < n; i++) total += tensor[i] >= 0 ? (double)c.finetuned->tensors[tensor[i]].count : 0;
    dz_progress_begin(&progress, world, "compare", total, quiet);
    walk(&c, tensor, &progress, err);
    dz_progress_end(&progress);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    if ((rc = dz_agree_on_base(world, c.archive, base, c.decoder.base_differs, err)) != DZ_OK) goto out;
    dz_sum_f64(world, c.sums, n * NSUMS);
    dz_max_f64(world, c.most, n);
    rc = dz_sync_error(world, make_result(&c, result, err), err);
    result->secs = dz_now() - begun;
out:
    free(tensor);
    free(c.sums);
    free(c.most);
    dz_buf_free(&c.restored);
    dz_buf_free(&c.original);
    dz_decoder_close(&c.decoder);
    dz_checkpoint_free(c.base);
    dz_checkpoint_free(c.finetuned);
    dz_archive_close(c.archive);
    return rc;
}

#include "archive_ops/export.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/dense.h"
#include "archive_ops/task_source.h"
#include "base/file.h"
#include "base/log.h"
#include "base/staging.h"
#include "checkpoint/header.h"
#include "checkpoint/mark.h"
#include "decode/merge.h"
#include "parallel/progress.h"
#include "restore/restore.h"

#define LACKS_MOST 100 /* names */

typedef struct item {
    const dz_index_row *row;          /* the one that has the bytes */
    dz_tensor out;                    /* as it is written (dense), name borrowed */
    uint64_t kept, positions, values; /* sparse: how many; offsets in the file. dense: `values` */
} item;

typedef struct export {
    const dz_world *world;
    const dz_export_options *opt;
    dz_task_source source;
    item *items;
    size_t nitems, left_out;
    dz_buf lacks; /* names of those left out, a line each */
    dz_staging staging;
    int fd;
    uint64_t file_size;
    dz_buf delta, wide, out, scratch;
}
export;

/* Which tensors have a delta that can be written. */
static dz_rc choose(export *x, dz_error *err) {
    const dz_catalog *c = x->source.archive->catalog;
    int dense = x->opt->format != DZ_EXPORT_SPARSE;
    if (!(x->items = dz_alloc(x->source.task->nrows, sizeof *x->items, err))) return err->rc;
    for (size_t i = 0; i < x->source.task->nrows; i++) {
        const dz_index_row *row = &x->source.task->rows[i], *source = dz_row_source(x->source.task, row);
        dz_tensor t = dz_tensor_of_row(&c->tensors[row->tensor]);
        if (row->policy == DZ_POLICY_ABSENT || (x->opt->tensors && fnmatch(x->opt->tensors, t.name, 0) != 0)) continue;
        int exact = dense && dz_decoder_has_base(&x->source.decoder) && source->base != DZ_NO_BASE && dz_dtype_is_float(t.dtype);
        if (!dz_row_has_delta(source) && !exact) {
            if (x->left_out++ < LACKS_MOST) dz_buf_line(&x->lacks, err, "%s\n", t.name);
            continue;
        }
        t.dtype = DZ_F32;
        strcpy(t.dtype_name, "F32");
        t.nbytes = t.count * sizeof(float);
        x->items[x->nitems++] = (item){.row = source, .out = t};
    }
    if (x->nitems == 0)
        dz_fail(err, DZ_EUSAGE, "%s: task '%s' has no tensor with a delta%s%s%s", x->source.archive->path, x->source.task->name,
                x->opt->tensors ? " that matches '" : "", x->opt->tensors ? x->opt->tensors : "",
                x->opt->tensors                                     ? "'"
                : dz_decoder_has_base(&x->source.decoder) || !dense ? ""
                                                                    : " without its base (--base)");
    return err->rc;
}

/* The delta of a tile in float. */
static dz_rc delta_of(export *x, const item *it, uint32_t tile, size_t count, dz_error *err) {
    x->delta.len = x->wide.len = 0;
    if (dz_buf_reserve(&x->delta, count * sizeof(float), err) != DZ_OK || dz_buf_reserve(&x->wide, count * sizeof(double), err) != DZ_OK)
        return err->rc;
    float *delta = (float *)(void *)x->delta.data;
    double *wide = (double *)(void *)x->wide.data;
    if (dz_tile_difference(&x->source.decoder, x->source.task, it->row, tile, &x->scratch, wide, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < count; i++) delta[i] = (float)wide[i];
    return DZ_OK;
}

/* Collective. Sparse: how many values each tensor has; a tensor is one rank's. */
static dz_rc count_kept(export *x, dz_error *err) {
    uint64_t *kept = dz_alloc(x->nitems, sizeof *kept, err);
    for (size_t i = 0; kept && i < x->nitems && err->rc == DZ_OK; i++) {
        dz_pair_tiles tiles = dz_row_work(x->source.archive->catalog, x->items[i].row);
        if (i % (size_t)x->world->size != (size_t)x->world->rank) continue;
        for (uint32_t tile = 0; tile < tiles.ncommon && err->rc == DZ_OK; tile++) {
            size_t n = (size_t)dz_tile_count(&tiles, tile);
            if (delta_of(x, &x->items[i], tile, n, err) != DZ_OK) break;
            const float *delta = (const float *)(const void *)x->delta.data;
            for (size_t k = 0; k < n; k++) kept[i] += delta[k] != 0;
        }
    }
    dz_rc rc = dz_sync_error(x->world, err->rc, err);
    if (rc == DZ_OK) {
        dz_sum_u64(x->world, kept, x->nitems);
        for (size_t i = 0; i < x->nitems; i++) x->items[i].kept = kept[i];
    }
    free(kept);
    return rc;
}

/* What the vector says of itself: its task, and what of the task is not in it. The caller frees. */
static char *vector_mark(const export *x, int sparse, dz_error *err) {
    dz_buf b = {0};
    dz_buf_line(&b, err, "{\"kind\":\"" DZ_MARK_VECTOR "\",\"task\":\"%s\",\"form\":\"%s\",\"lacks_count\":%zu,\"lacks\":[",
                x->source.task->name, sparse ? "sparse" : "dense", x->left_out);
    for (size_t at = 0; at < x->lacks.len && err->rc == DZ_OK;) {
        const char *line = (const char *)x->lacks.data + at, *end = memchr(line, '\n', x->lacks.len - at);
        char *name = dz_strndup(line, (size_t)(end - line), err);
        dz_buf_line(&b, err, at ? "," : "");
        if (name) dz_mark_put_quoted(&b, name, err);
        free(name);
        at += (size_t)(end - line) + 1;
    }
    dz_buf_put(&b, "]}", 3, err);
    if (err->rc == DZ_OK) return (char *)b.data;
    dz_buf_free(&b);
    return NULL;
}

typedef struct part { /* of the file: an item's values, or its positions */
    dz_tensor tensor; /* first, for dz_safetensors_order */
    uint64_t *at;     /* where the item notes the offset */
} part;

/* Places of all values in a safetensors file, and its header. Alike on every rank. */
static dz_rc lay_out(export *x, dz_buf *header, dz_error *err) {
    int sparse = x->opt->format == DZ_EXPORT_SPARSE;
    size_t n = 0;
    part *parts = dz_alloc(2 * x->nitems, sizeof *parts, err);
    dz_tensor *list = dz_alloc(2 * x->nitems, sizeof *list, err);
    char *mark = vector_mark(x, sparse, err);
    for (size_t i = 0; parts && i < x->nitems; i++) {
        item *it = &x->items[i];
        if (!sparse) {
            parts[n] = (part){it->out, &it->values};
            parts[n++].tensor.name = dz_strdup(it->out.name, err);
            continue;
        }
        dz_tensor positions = {.ndim = 1, .shape = {it->kept}, .nbytes = 8 * it->kept};
        dz_tensor values = {.ndim = 1, .shape = {it->kept}, .nbytes = 4 * it->kept};
        strcpy(positions.dtype_name, "I64");
        strcpy(values.dtype_name, "F32");
        positions.name = dz_format(err, "%s.positions", it->out.name);
        values.name = dz_format(err, "%s.values", it->out.name);
        parts[n++] = (part){positions, &it->positions};
        parts[n++] = (part){values, &it->values};
    }
    if (err->rc == DZ_OK) qsort(parts, n, sizeof *parts, dz_safetensors_order);
    for (size_t i = 0; list && parts && i < n; i++) list[i] = parts[i].tensor;
    if (err->rc == DZ_OK && dz_safetensors_header(list, n, (dz_like){.mark = mark}, header, err) == DZ_OK) {
        x->file_size = header->len;
        for (size_t i = 0; i < n; i++) {
            *parts[i].at = x->file_size;
            x->file_size += list[i].nbytes;
        }
    }
    for (size_t i = 0; parts && i < n; i++) free(parts[i].tensor.name);
    free(parts);
    free(list);
    free(mark);
    return err->rc;
}

/* Collective. */
static dz_rc make_file(export *x, dz_error *err) {
    dz_buf header = {0};
    uint64_t *offsets = dz_alloc(x->nitems, sizeof *offsets, err);
    dz_tensor *list = dz_alloc(x->nitems, sizeof *list, err);
    dz_rc rc = dz_sync_error(x->world, err->rc, err);
    if (rc != DZ_OK) goto out;
    if (x->opt->format == DZ_EXPORT_HDF5) {
        for (size_t i = 0; i < x->nitems; i++) list[i] = x->items[i].out;
        if (x->world->rank == 0 && dz_staging_begin_file(&x->staging, DZ_TARGET_VECTOR, err) == DZ_OK)
            dz_dense_layout(x->staging.partial, x->source.task->name, "delta: add it to the base model's tensor of the same name", list,
                            x->nitems, offsets, err);
        if ((rc = dz_sync_error(x->world, err->rc, err)) != DZ_OK) goto out;
        dz_bcast_u64(x->world, offsets, x->nitems);
        for (size_t i = 0; i < x->nitems; i++) x->items[i].values = offsets[i];
        goto out;
    }
    if (x->opt->format == DZ_EXPORT_SPARSE && (rc = count_kept(x, err)) != DZ_OK) goto out;
    if (lay_out(x, &header, err) == DZ_OK && x->world->rank == 0 && dz_staging_begin_file(&x->staging, DZ_TARGET_VECTOR, err) == DZ_OK)
        dz_make_file(x->staging.partial, header.data, header.len, x->file_size, err);
    rc = dz_sync_error(x->world, err->rc, err);
out:
    dz_buf_free(&header);
    free(offsets);
    free(list);
    return rc;
}

/* Appends the nonzero values of a tile to a sparse tensor, at `*done`. */
static dz_rc put_sparse(export *x, const item *it, uint64_t first, size_t count, uint64_t *done, dz_error *err) {
    const float *delta = (const float *)(const void *)x->delta.data;
    size_t n = 0;
    x->out.len = x->scratch.len = 0;
    for (size_t i = 0; i < count; i++) {
        if (delta[i] == 0) continue;
        dz_buf_put_u64(&x->out, first + i, err);
        dz_buf_put(&x->scratch, &delta[i], sizeof *delta, err);
        n++;
    }
    if (err->rc != DZ_OK || n == 0) return err->rc;
    if (dz_pwrite_all(x->fd, x->staging.partial, x->out.data, x->out.len, it->positions + 8 * *done, err) == DZ_OK)
        dz_pwrite_all(x->fd, x->staging.partial, x->scratch.data, x->scratch.len, it->values + 4 * *done, err);
    *done += n;
    return err->rc;
}

static dz_rc fill(export *x, dz_progress *progress, dz_error *err) {
    int sparse = x->opt->format == DZ_EXPORT_SPARSE;
    uint64_t number = 0;
    if ((x->fd = dz_open(x->staging.partial, O_WRONLY)) < 0)
        return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", x->staging.partial, strerror(errno));
    for (size_t i = 0; i < x->nitems && err->rc == DZ_OK; i++) {
        const item *it = &x->items[i];
        dz_pair_tiles tiles = dz_row_work(x->source.archive->catalog, it->row);
        uint64_t done = 0;
        for (uint32_t tile = 0; tile < (sparse ? tiles.ncommon : tiles.ntiles) && err->rc == DZ_OK; tile++, number++) {
            size_t count = (size_t)dz_tile_count(&tiles, tile);
            if ((sparse ? i : number) % (uint64_t)x->world->size != (uint64_t)x->world->rank) continue;
            if (delta_of(x, it, tile, count, err) != DZ_OK) break;
            if (sparse)
                put_sparse(x, it, dz_tile_first(&tiles, tile), count, &done, err);
            else
                dz_pwrite_all(x->fd, x->staging.partial, x->delta.data, count * sizeof(float),
                              it->values + sizeof(float) * dz_tile_first(&tiles, tile), err);
            dz_progress_add(progress, (double)count);
        }
    }
    if (err->rc == DZ_OK && dz_fsync(x->fd) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", x->staging.partial, strerror(errno));
    close(x->fd);
    return err->rc;
}

static dz_rc check_output(const char *out, int force, dz_error *err) {
    if (dz_overwrite_check(out, DZ_TARGET_VECTOR, force, err) == DZ_OK) dz_staging_check_file(out, DZ_TARGET_VECTOR, err);
    return err->rc;
}

static dz_rc open_all(export *x, dz_error *err) {
    const dz_export_options *opt = x->opt;
    dz_rc rc = dz_sync_error(x->world, x->world->rank == 0 ? check_output(opt->out, opt->force, err) : DZ_OK, err);
    if (rc != DZ_OK || (rc = dz_task_source_open(x->world, opt->archive, opt->task, opt->base, &x->source, err)) != DZ_OK) return rc;
    if (choose(x, err) == DZ_OK) dz_staging_name(&x->staging, opt->out, err);
    return dz_sync_error(x->world, err->rc, err);
}

dz_rc dz_export(const dz_world *world, const dz_export_options *opt, dz_export_result *result, dz_error *err) {
    double begun = dz_now(), total = 0;
    export x = {.world = world, .opt = opt, .fd = -1};
    dz_progress progress;
    dz_rc rc = open_all(&x, err);
    if (rc == DZ_OK) rc = make_file(&x, err);
    if (rc == DZ_OK) {
        for (size_t i = 0; i < x.nitems; i++) total += (double)x.items[i].out.count;
        dz_progress_begin(&progress, world, "export", total, opt->quiet);
        fill(&x, &progress, err);
        dz_progress_end(&progress);
        rc = dz_sync_error(world, err->rc, err);
    }
    if (rc == DZ_OK && x.source.base) rc = dz_agree_on_base(world, x.source.archive, opt->base, x.source.decoder.base_differs, err);
    if (rc == DZ_OK && world->rank == 0) dz_staging_publish(&x.staging, 1, err);
    rc = dz_sync_error(world, err->rc, err);
    dz_staging_discard(&x.staging);
    struct stat st = {0};
    if (rc == DZ_OK) stat(opt->out, &st);
    *result = (dz_export_result){
        .ntensors = x.nitems, .left_out = x.left_out, .lacks = x.lacks, .nbytes = (uint64_t)st.st_size, .secs = dz_now() - begun};
    dz_buf_free(&x.delta);
    dz_buf_free(&x.wide);
    dz_buf_free(&x.out);
    dz_buf_free(&x.scratch);
    free(x.items);
    dz_staging_free(&x.staging);
    dz_task_source_close(&x.source);
    return rc;
}

#include "archive_ops/patch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive_ops/task_source.h"
#include "base/file.h"
#include "base/log.h"
#include "base/staging.h"
#include "checkpoint/header.h"
#include "checkpoint/mark.h"
#include "parallel/progress.h"
#include "restore/restore.h"

typedef struct item { /* a tensor of the task */
    const dz_index_row *row;
    dz_tensor tensor;    /* name borrowed */
    int64_t base;        /* row of the base's of the same name, type and shape, or -1 */
    uint32_t first_tile; /* in the table of digests */
    uint64_t changed;    /* elements */
    int dense;
    uint64_t indices, values; /* in the file */
} item;

typedef struct patch {
    const dz_world *world;
    const dz_export_options *opt;
    dz_task_source source;
    item *items;
    size_t nitems;
    uint64_t *facts; /* [nitems] changed, then hi and lo of each tile's digest; each filled by one rank, 0 elsewhere */
    uint32_t ntiles;
    uint8_t *new, *old; /* a tensor, and the base's */
    dz_staging staging;
    uint64_t file_size;
} patch;

static dz_rc list_tensors(patch *x, dz_error *err) {
    const dz_task_entry *task = x->source.task;
    const dz_catalog *c = x->source.archive->catalog;
    dz_lookup base = {0};
    uint64_t most = 0;
    x->items = dz_alloc(task->nrows, sizeof *x->items, err);
    for (size_t b = 0; b < c->nbase; b++) {
        const char *name = c->tensors[c->base[b].tensor].name;
        dz_lookup_add(&base, name, strlen(name), (uint32_t)b, err);
    }
    for (size_t i = 0; x->items && i < task->nrows && task->rows[i].policy != DZ_POLICY_ABSENT; i++) {
        item *it = &x->items[x->nitems++];
        *it = (item){.row = dz_row_source(task, &task->rows[i]),
                     .tensor = dz_tensor_of_row(&c->tensors[task->rows[i].tensor]),
                     .first_tile = x->ntiles};
        int64_t at = dz_lookup_find(&base, it->tensor.name, strlen(it->tensor.name));
        dz_tensor old = at < 0 ? (dz_tensor){0} : dz_tensor_of_row(&c->tensors[c->base[at].tensor]);
        it->base = at >= 0 && dz_same_kind(&old, &it->tensor) ? at : -1;
        x->ntiles += dz_tiling_of(it->tensor.count).ntiles;
        if (it->tensor.nbytes > most) most = it->tensor.nbytes;
    }
    dz_lookup_free(&base);
    x->facts = dz_alloc(x->nitems + 2 * (size_t)x->ntiles, sizeof *x->facts, err);
    x->new = dz_alloc_raw((size_t)most, 1, err);
    x->old = dz_alloc_raw((size_t)most, 1, err);
    return err->rc;
}

static size_t element_size(const item *it) { return dz_dtype_size(it->tensor.dtype); }

static int differs(const patch *x, size_t k, size_t size) { return memcmp(x->new + k *size, x->old + k * size, size) != 0; }

/* The tensor and the base's into memory. */
static dz_rc read_both(patch *x, const item *it, dz_error *err) {
    if (dz_task_source_tensor(&x->source, it->row, x->new, err) == DZ_OK && it->base >= 0)
        dz_decode_base(&x->source.decoder, (uint32_t)it->base, x->old, err);
    return err->rc;
}

/* How many elements differ, and the digests. */
static dz_rc measure(patch *x, size_t i, dz_error *err) {
    const item *it = &x->items[i];
    size_t size = element_size(it), count = (size_t)it->tensor.nbytes / size;
    dz_tiling tiling = dz_tiling_of(it->tensor.count);
    if (read_both(x, it, err) != DZ_OK) return err->rc;
    if (it->base < 0) x->facts[i] = count;
    for (size_t k = 0; it->base >= 0 && k < count; k++) x->facts[i] += (uint64_t)differs(x, k, size);
    for (uint32_t tile = 0; tile < tiling.ntiles; tile++) {
        uint64_t first = tile * tiling.size, n = tiling.count - first < tiling.size ? tiling.count - first : tiling.size;
        dz_digest digest = dz_digest_of(x->new + first *size, (size_t)n * size);
        uint64_t *to = x->facts + x->nitems + 2 * (size_t)(it->first_tile + tile);
        to[0] = digest.hi;
        to[1] = digest.lo;
    }
    return DZ_OK;
}

/* Collective. */
static dz_rc measure_all(patch *x, dz_progress *progress, dz_error *err) {
    for (size_t i = 0; i < x->nitems && err->rc == DZ_OK; i++) {
        if (i % (size_t)x->world->size != (size_t)x->world->rank) continue;
        measure(x, i, err);
        dz_progress_add(progress, (double)x->items[i].tensor.nbytes);
    }
    dz_rc rc = dz_sync_error(x->world, err->rc, err);
    if (rc != DZ_OK) return rc;
    dz_sum_u64(x->world, x->facts, x->nitems + 2 * (size_t)x->ntiles);
    for (size_t i = 0; i < x->nitems; i++) {
        item *it = &x->items[i];
        uint64_t size = element_size(it);
        it->changed = x->facts[i];
        it->dense = it->base < 0 || it->tensor.count > INT32_MAX || it->changed * (size + sizeof(int32_t)) >= it->tensor.nbytes;
        it->dense &= it->changed > 0 || it->base < 0;
    }
    return DZ_OK;
}

/* The target's fingerprint, made as the base's (FORMAT.md "Tiles"). */
static dz_rc fingerprint(const patch *x, char hex[33], dz_error *err) {
    const dz_catalog *c = x->source.archive->catalog;
    dz_catalog target = {.tensors = c->tensors, .ntensors = c->ntensors, .nbase = x->nitems, .nbase_tiles = x->ntiles};
    dz_digest digest = {0};
    target.base = dz_alloc(x->nitems, sizeof *target.base, err);
    target.base_tiles = dz_alloc(x->ntiles, sizeof *target.base_tiles, err);
    for (size_t i = 0; err->rc == DZ_OK && i < x->nitems; i++)
        target.base[i] = (dz_base_row){.tensor = x->source.task->rows[i].tensor, .first_tile = x->items[i].first_tile};
    for (size_t k = 0; err->rc == DZ_OK && k < x->ntiles; k++)
        target.base_tiles[k] = (dz_digest){.hi = x->facts[x->nitems + 2 * k], .lo = x->facts[x->nitems + 2 * k + 1]};
    if (err->rc == DZ_OK) dz_catalog_fingerprint(&target, &digest, err);
    dz_digest_hex(digest, hex);
    free(target.base);
    free(target.base_tiles);
    return err->rc;
}

/* Tensors that the base has and the task has not. */
static void put_removed(const patch *x, dz_buf *b, dz_error *err) {
    const dz_catalog *c = x->source.archive->catalog;
    dz_lookup rows = {0};
    size_t n = 0;
    if (dz_task_rows(c, x->source.task, &rows, err) != DZ_OK) return;
    for (size_t i = 0; i < c->nbase && err->rc == DZ_OK; i++) {
        const char *name = c->tensors[c->base[i].tensor].name;
        if (dz_lookup_find(&rows, name, strlen(name)) >= 0) continue;
        dz_buf_line(b, err, n++ ? "," : "");
        dz_mark_put_quoted(b, name, err);
    }
    dz_lookup_free(&rows);
}

/* What the file says of itself; the caller frees. */
static char *patch_mark(const patch *x, dz_error *err) {
    dz_buf b = {0};
    char base[33], target[33];
    size_t n = 0;
    dz_digest_hex(x->source.archive->catalog->fingerprint, base);
    if (fingerprint(x, target, err) != DZ_OK) return NULL;
    dz_buf_line(&b, err, "{\"kind\":\"" DZ_MARK_VECTOR "\",\"form\":\"patch\",\"version\":1,\"task\":");
    dz_mark_put_quoted(&b, x->source.task->name, err);
    dz_buf_line(&b, err, ",\"base_fingerprint\":\"%s\",\"target_fingerprint\":\"%s\",\"tensors\":{", base, target);
    for (size_t i = 0; i < x->nitems; i++) {
        const item *it = &x->items[i];
        if (it->changed == 0 && !it->dense) continue;
        dz_buf_line(&b, err, n++ ? "," : "");
        dz_mark_put_quoted(&b, it->tensor.name, err);
        dz_buf_line(&b, err, ":{\"dtype\":\"%s\",\"shape\":[", it->tensor.dtype_name);
        for (uint32_t d = 0; d < it->tensor.ndim; d++)
            dz_buf_line(&b, err, "%s%llu", d ? "," : "", (unsigned long long)it->tensor.shape[d]);
        dz_buf_line(&b, err, "],\"changed\":%llu}", (unsigned long long)it->changed);
    }
    dz_buf_line(&b, err, "},\"removed\":[");
    put_removed(x, &b, err);
    dz_buf_put(&b, "]}", 3, err);
    if (err->rc == DZ_OK) return (char *)b.data;
    dz_buf_free(&b);
    return NULL;
}

/* Header and places. Alike on every rank. Values come first, so that they are aligned to their elements: by size, falling; then indices. */
static dz_rc lay_out(patch *x, dz_buf *header, dz_error *err) {
    size_t n = 0;
    uint64_t at = 0;
    dz_tensor *list = dz_alloc(2 * x->nitems, sizeof *list, err);
    char *mark = patch_mark(x, err);
    for (size_t size = 8; list && mark && size > 0; size /= 2) {
        for (size_t i = 0; i < x->nitems; i++) {
            item *it = &x->items[i];
            if (element_size(it) == size && it->dense) {
                list[n] = it->tensor;
                list[n++].name = dz_format(err, "%s.values", it->tensor.name);
                it->values = at;
                at += it->tensor.nbytes;
            } else if (element_size(it) == size && it->changed) {
                list[n] = (dz_tensor){
                    .name = dz_format(err, "%s.values", it->tensor.name), .ndim = 1, .shape = {it->changed}, .nbytes = it->changed * size};
                strcpy(list[n++].dtype_name, it->tensor.dtype_name);
                it->values = at;
                at += it->changed * size;
            }
        }
        for (size_t i = 0; size == sizeof(int32_t) && i < x->nitems; i++) {
            item *it = &x->items[i];
            if (it->dense || it->changed == 0) continue;
            list[n++] = (dz_tensor){.name = dz_format(err, "%s.indices", it->tensor.name),
                                    .dtype_name = "I32",
                                    .ndim = 1,
                                    .shape = {it->changed},
                                    .nbytes = it->changed * sizeof(int32_t)};
            it->indices = at;
            at += it->changed * sizeof(int32_t);
        }
    }
    if (err->rc == DZ_OK) dz_safetensors_header(list, n, (dz_like){.mark = mark}, header, err);
    for (size_t i = 0; i < x->nitems; i++) {
        x->items[i].values += header->len;
        x->items[i].indices += header->len;
    }
    x->file_size = at + header->len;
    for (size_t i = 0; list && i < n; i++) free(list[i].name);
    free(list);
    free(mark);
    return err->rc;
}

static dz_rc put_changes(patch *x, const item *it, int fd, dz_error *err) {
    size_t size = element_size(it), count = (size_t)it->tensor.nbytes / size, n = 0;
    int32_t *indices = dz_alloc_raw((size_t)it->changed, sizeof *indices, err);
    for (size_t k = 0; indices && k < count; k++) {
        if (!differs(x, k, size)) continue;
        indices[n] = (int32_t)k;
        memmove(x->new + n++ *size, x->new + k *size, size); /* values move to the front */
    }
    if (indices && dz_pwrite_all(fd, x->staging.partial, indices, n * sizeof *indices, it->indices, err) == DZ_OK)
        dz_pwrite_all(fd, x->staging.partial, x->new, n * size, it->values, err);
    free(indices);
    return err->rc;
}

static dz_rc fill(patch *x, dz_progress *progress, dz_error *err) {
    int fd = dz_open(x->staging.partial, O_WRONLY);
    if (fd < 0) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", x->staging.partial, strerror(errno));
    for (size_t i = 0; i < x->nitems && err->rc == DZ_OK; i++) {
        const item *it = &x->items[i];
        if (i % (size_t)x->world->size != (size_t)x->world->rank) continue;
        if ((it->dense || it->changed) && read_both(x, it, err) == DZ_OK) {
            if (it->dense)
                dz_pwrite_all(fd, x->staging.partial, x->new, (size_t)it->tensor.nbytes, it->values, err);
            else
                put_changes(x, it, fd, err);
        }
        dz_progress_add(progress, (double)it->tensor.nbytes);
    }
    if (err->rc == DZ_OK && dz_fsync(fd) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", x->staging.partial, strerror(errno));
    close(fd);
    return err->rc;
}

static dz_rc check_options(const dz_export_options *opt, dz_error *err) {
    if (dz_overwrite_check(opt->out, DZ_TARGET_VECTOR, opt->force, err) == DZ_OK) dz_staging_check_file(opt->out, DZ_TARGET_VECTOR, err);
    return err->rc;
}

/* Collective: the elements are counted, the file is laid out and filled. */
static dz_rc make(patch *x, dz_error *err) {
    dz_progress progress;
    dz_buf header = {0};
    double total = 0;
    if (!dz_decoder_has_base(&x->source.decoder))
        return dz_fail(err, DZ_EUSAGE, "export: --format patch needs --base PATH: it has what differs from the base");
    dz_rc rc = dz_sync_error(x->world, list_tensors(x, err), err);
    if (rc != DZ_OK) return rc;
    for (size_t i = 0; i < x->nitems; i++) total += 2 * (double)x->items[i].tensor.nbytes;
    dz_progress_begin(&progress, x->world, "export", total, x->opt->quiet);
    rc = measure_all(x, &progress, err);
    if (rc == DZ_OK) rc = dz_agree_on_base(x->world, x->source.archive, x->opt->base, x->source.decoder.base_differs, err);
    if (rc == DZ_OK) {
        dz_staging_name(&x->staging, x->opt->out, err);
        if (err->rc == DZ_OK && lay_out(x, &header, err) == DZ_OK && x->world->rank == 0 &&
            dz_staging_begin_file(&x->staging, DZ_TARGET_VECTOR, err) == DZ_OK)
            dz_make_file(x->staging.partial, header.data, header.len, x->file_size, err);
        rc = dz_sync_error(x->world, err->rc, err);
    }
    if (rc == DZ_OK) rc = dz_sync_error(x->world, fill(x, &progress, err), err);
    dz_progress_end(&progress);
    if (rc == DZ_OK) rc = dz_sync_error(x->world, x->world->rank == 0 ? dz_staging_publish(&x->staging, 1, err) : DZ_OK, err);
    dz_buf_free(&header);
    return rc;
}

dz_rc dz_export_patch(const dz_world *world, const dz_export_options *opt, dz_export_result *result, dz_error *err) {
    double begun = dz_now();
    patch x = {.world = world, .opt = opt};
    dz_rc rc = dz_sync_error(world, world->rank == 0 ? check_options(opt, err) : DZ_OK, err);
    if (rc == DZ_OK) rc = dz_task_source_open(world, opt->archive, opt->task, opt->base, &x.source, err);
    if (rc == DZ_OK) rc = make(&x, err);
    dz_staging_discard(&x.staging);
    *result = (dz_export_result){.nbytes = x.file_size, .secs = dz_now() - begun};
    for (size_t i = 0; rc == DZ_OK && i < x.nitems; i++) {
        result->ntensors += x.items[i].changed > 0 || x.items[i].dense;
        result->changed += x.items[i].changed;
        result->elements += x.items[i].tensor.count;
        result->dense += (uint64_t)x.items[i].dense;
        result->model_bytes += x.items[i].tensor.nbytes;
    }
    dz_staging_free(&x.staging);
    free(x.items);
    free(x.facts);
    free(x.new);
    free(x.old);
    dz_task_source_close(&x.source);
    return rc;
}

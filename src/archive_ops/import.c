/* A task vector back into a model: base + vector, tile by tile, in the base's files. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive_ops/export.h"
#include "base/file.h"
#include "base/log.h"
#include "base/staging.h"
#include "checkpoint/mark.h"
#include "config/zoo.h"
#include "numeric/kernels.h"
#include "parallel/progress.h"
#include "plan/tiling.h"

typedef struct import {
    const dz_world *world;
    const dz_import_options *opt;
    dz_checkpoint *base, *vector;
    dz_staging staging;
    int *fds; /* of the base's shards, as they are written */
    dz_buf base_bytes, vector_bytes;
} import;

/* Every tensor of the vector has one of the base, of the same shape. */
static dz_rc check_vector(const import *m, dz_error *err) {
    for (size_t i = 0; i < m->vector->ntensors; i++) {
        const dz_tensor *v = &m->vector->tensors[i];
        int64_t at = dz_checkpoint_find(m->base, v->name);
        const dz_tensor *b = at < 0 ? NULL : &m->base->tensors[at];
        char have[DZ_SHAPE_TEXT], want[DZ_SHAPE_TEXT];
        if (!b)
            dz_fail_more(err, DZ_EFAIL, "%s: tensor '%s' is not in the base", m->vector->path, v->name);
        else if (!dz_same_shape(v, b))
            dz_fail_more(err, DZ_EFAIL, "%s: tensor '%s' is %s, the base's is %s", m->vector->path, v->name, dz_shape_text(v, have),
                         dz_shape_text(b, want));
        else if (!dz_dtype_is_float(v->dtype) || !dz_dtype_is_float(b->dtype))
            dz_fail_more(err, DZ_EFAIL, "%s: tensor '%s' cannot be added: %s to %s", m->vector->path, v->name, v->dtype_name,
                         b->dtype_name);
    }
    return err->rc;
}

static char *path_of(const import *m, const char *name, dz_error *err) { return dz_format(err, "%s/%s", m->staging.partial, name); }

static dz_rc make_file(const import *m, const char *name, const void *head, size_t len, uint64_t size, dz_error *err) {
    char *path = path_of(m, name, err);
    if (path) dz_make_file(path, head, len, size, err);
    free(path);
    return err->rc;
}

/* Rank 0: the directory, the shards' headers and the side files. */
static dz_rc make_files(import *m, dz_error *err) {
    if (dz_staging_begin_dir(&m->staging, "import", err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < m->base->nshards && err->rc == DZ_OK; i++)
        make_file(m, m->base->shards[i].file, m->base->shards[i].header, m->base->shards[i].header_len, m->base->shards[i].size, err);
    for (size_t i = 0; i < m->base->ncompanions && err->rc == DZ_OK; i++) {
        const dz_companion_file *side = &m->base->companions[i];
        char *bytes = NULL;
        size_t len = (size_t)side->size;
        if (!side->bytes && dz_read_file(side->path, DZ_SIDE_MAX, &bytes, &len, err) != DZ_OK) break;
        make_file(m, side->file, side->bytes ? side->bytes : (const void *)bytes, len, len, err);
        free(bytes);
    }
    return err->rc;
}

static dz_rc add_tile(import *m, size_t b, int64_t v, uint64_t first, size_t count, dz_error *err) {
    const dz_kernel_table *k = dz_kernels();
    dz_dtype to = m->base->tensors[b].dtype, from = m->vector->tensors[v].dtype;
    size_t size = dz_dtype_size(to), vsize = dz_dtype_size(from);
    m->vector_bytes.len = 0;
    if (dz_buf_reserve(&m->vector_bytes, count * vsize, err) != DZ_OK ||
        dz_checkpoint_read(m->vector, (size_t)v, first * vsize, count * vsize, m->vector_bytes.data, err) != DZ_OK)
        return err->rc;
    for (size_t at = 0; at < count; at += DZ_CHUNK) {
        size_t n = count - at < DZ_CHUNK ? count - at : DZ_CHUNK;
        float delta[DZ_CHUNK], x[DZ_CHUNK];
        k->widen(delta, m->vector_bytes.data + at * vsize, from, n);
        if (to == DZ_F64) { /* nothing of the base's value is lost */
            for (size_t i = 0; i < n; i++) {
                double wide;
                memcpy(&wide, m->base_bytes.data + 8 * (at + i), sizeof wide);
                wide += (double)delta[i];
                memcpy(m->base_bytes.data + 8 * (at + i), &wide, sizeof wide);
            }
            continue;
        }
        k->widen(x, m->base_bytes.data + at * size, to, n);
        for (size_t i = 0; i < n; i++) x[i] += delta[i];
        k->narrow(m->base_bytes.data + at * size, x, to, n);
    }
    return DZ_OK;
}

static dz_rc put(import *m, const dz_tensor *t, uint64_t first_byte, size_t len, dz_error *err) {
    const dz_shard *shard = &m->base->shards[t->shard];
    char *path = path_of(m, shard->file, err);
    if (path && m->fds[t->shard] < 0 && (m->fds[t->shard] = dz_open(path, O_WRONLY)) < 0)
        dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    if (err->rc == DZ_OK) dz_pwrite_all(m->fds[t->shard], path, m->base_bytes.data, len, t->offset + first_byte, err);
    free(path);
    return err->rc;
}

static dz_rc fill(import *m, dz_progress *progress, dz_error *err) {
    uint64_t number = 0;
    for (size_t b = 0; b < m->base->ntensors && err->rc == DZ_OK; b++) {
        const dz_tensor *t = &m->base->tensors[b];
        dz_pair_tiles tiles = dz_pair_tiles_of(t->count, t->count, t->count);
        int64_t v = dz_checkpoint_find(m->vector, t->name);
        size_t size = dz_dtype_size(t->dtype);
        for (uint32_t tile = 0; tile < tiles.ntiles && err->rc == DZ_OK; tile++, number++) {
            uint64_t first = dz_tile_first(&tiles, tile);
            size_t count = (size_t)dz_tile_count(&tiles, tile), len = count * size;
            if (number % (uint64_t)m->world->size != (uint64_t)m->world->rank) continue;
            m->base_bytes.len = 0;
            if (dz_buf_reserve(&m->base_bytes, len, err) != DZ_OK ||
                dz_checkpoint_read(m->base, b, first * size, len, m->base_bytes.data, err) != DZ_OK)
                break;
            if (v < 0 || add_tile(m, b, v, first, count, err) == DZ_OK) put(m, t, first * size, len, err);
            dz_progress_add(progress, (double)len);
        }
    }
    for (size_t i = 0; i < m->base->nshards; i++) {
        if (m->fds[i] < 0) continue;
        if (dz_fsync(m->fds[i]) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", m->base->shards[i].file, strerror(errno));
        close(m->fds[i]);
    }
    return err->rc;
}

static dz_rc open_all(import *m, dz_error *err) {
    const dz_world *world = m->world;
    if (world->rank == 0 && access(m->opt->out, F_OK) == 0) dz_fail(err, DZ_EUSAGE, "%s: exists already", m->opt->out);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc != DZ_OK || (rc = dz_checkpoint_open_all(world, m->opt->base, &m->base, err)) != DZ_OK) return rc;
    if ((rc = dz_checkpoint_open_all(world, m->opt->vector, &m->vector, err)) != DZ_OK) return rc;
    if ((rc = dz_sync_error(world, check_vector(m, err), err)) != DZ_OK) return rc;
    dz_staging_name(&m->staging, m->opt->out, err);
    m->fds = dz_alloc(m->base->nshards, sizeof *m->fds, err);
    for (size_t i = 0; m->fds && i < m->base->nshards; i++) m->fds[i] = -1;
    return dz_sync_error(world, err->rc, err);
}

dz_rc dz_import(const dz_world *world, const dz_import_options *opt, dz_export_result *result, dz_error *err) {
    double begun = dz_now();
import m = {.world = world, .opt = opt };
    dz_progress progress;
    dz_rc rc = open_all(&m, err);
    if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? make_files(&m, err) : DZ_OK, err);
    if (rc == DZ_OK) {
        dz_progress_begin(&progress, world, "import", (double)dz_checkpoint_nbytes(m.base), opt->quiet);
        fill(&m, &progress, err);
        dz_progress_end(&progress);
        rc = dz_sync_error(world, err->rc, err);
    }
    if (rc == DZ_OK && world->rank == 0) dz_staging_publish(&m.staging, 1, err);
    rc = dz_sync_error(world, err->rc, err);
    dz_staging_discard(&m.staging);
    dz_buf lacks = {0};
    uint64_t nlacks = 0;
    if (rc == DZ_OK) dz_mark_vector_lacks(m.vector->shards[0].header, m.vector->shards[0].header_len, &lacks, &nlacks, err);
    if (rc == DZ_OK)
        *result = (dz_export_result){.ntensors = m.base->ntensors,
                                     .left_out = nlacks,
                                     .lacks = lacks,
                                     .nbytes = dz_checkpoint_nbytes(m.base),
                                     .secs = dz_now() - begun};
    dz_buf_free(&m.base_bytes);
    dz_buf_free(&m.vector_bytes);
    free(m.fds);
    dz_staging_free(&m.staging);
    dz_checkpoint_free(m.base);
    dz_checkpoint_free(m.vector);
    return rc;
}

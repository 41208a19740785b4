#include "compress/companions.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "parallel/exchange.h"

#define LARGE ((uint64_t)128 << 10) /* bytes; smaller files take a few hundredths of a second each */

/* The large files of all tasks, alike on every rank. */
typedef struct file_list {
    const dz_companion_file **files;
    uint64_t *digests; /* [3 * n] high, low, size */
    size_t n;
} file_list;

static dz_rc find_large(const dz_context *ctx, file_list *list, dz_error *err) {
    size_t most = 0;
    for (size_t t = 0; t < ctx->zoo.ntasks; t++) most += ctx->zoo.tasks[t]->ncompanions;
    list->files = dz_alloc(most, sizeof *list->files, err);
    list->digests = dz_alloc(3 * most, sizeof *list->digests, err);
    for (size_t t = 0; t < ctx->zoo.ntasks && err->rc == DZ_OK; t++) {
        for (size_t i = 0; i < ctx->zoo.tasks[t]->ncompanions; i++) {
            const dz_companion_file *file = &ctx->zoo.tasks[t]->companions[i];
            if (!file->bytes && file->size > LARGE) list->files[list->n++] = file;
        }
    }
    return err->rc;
}

/* Each rank reads some of them. */
static dz_rc digest_some(const dz_world *world, file_list *list, dz_error *err) {
    for (size_t i = (size_t)world->rank; i < list->n && err->rc == DZ_OK; i += (size_t)world->size) {
        char *bytes = NULL;
        size_t len = 0;
        if (dz_read_file(list->files[i]->path, DZ_SIDE_MAX, &bytes, &len, err) != DZ_OK) break;
        dz_digest digest = dz_digest_of(bytes, len);
        list->digests[3 * i] = digest.hi;
        list->digests[3 * i + 1] = digest.lo;
        list->digests[3 * i + 2] = len;
        free(bytes);
    }
    return err->rc;
}

/* The same content as one before it. */
static int is_known(dz_lookup *seen, const file_list *list, size_t i, dz_error *err) {
    const uint64_t *key = &list->digests[3 * i];
    if (dz_lookup_find(seen, key, 3 * sizeof *key) >= 0) return 1;
    dz_lookup_add(seen, key, 3 * sizeof *key, (uint32_t)i, err);
    return 0;
}

/* Codes this rank's share: each file goes to the rank that has the fewest bytes so far, of those alike the last. */
static dz_rc code_share(const dz_world *world, const file_list *list, dz_catalog *mine, dz_error *err) {
    uint64_t *load = dz_alloc((size_t)world->size, sizeof *load, err);
    dz_lookup seen = {0};
    for (size_t i = 0; i < list->n && err->rc == DZ_OK; i++) {
        if (is_known(&seen, list, i, err)) continue;
        int to = world->size - 1;
        for (int r = to - 1; r >= 0; r--) to = load[r] < load[to] ? r : to;
        load[to] += list->digests[3 * i + 2];
        if (to != world->rank) continue;
        char *bytes = NULL;
        size_t len = 0;
        uint32_t number;
        if (dz_read_file(list->files[i]->path, DZ_SIDE_MAX, &bytes, &len, err) == DZ_OK)
            dz_catalog_add_blob(mine, bytes, len, &number, err);
        free(bytes);
    }
    dz_lookup_free(&seen);
    free(load);
    return err->rc;
}

static dz_rc pack(const dz_catalog *mine, dz_buf *out, dz_error *err) {
    for (size_t i = 0; i < mine->nblobs; i++) {
        const dz_blob_row *row = &mine->blobs[i];
        dz_buf_put_u64(out, row->digest.hi, err);
        dz_buf_put_u64(out, row->digest.lo, err);
        dz_buf_put_u64(out, row->raw_size, err);
        dz_buf_put_u64(out, row->length, err);
        dz_buf_put(out, mine->blob_data.data + row->offset, (size_t)row->length, err);
    }
    return err->rc;
}

static dz_rc unpack(const dz_buf *all, dz_catalog *out, dz_error *err) {
    dz_view v = {.data = all->data, .len = all->len};
    while (v.pos < v.len && err->rc == DZ_OK) {
        dz_blob_row row = {.digest.hi = dz_view_u64(&v)};
        row.digest.lo = dz_view_u64(&v);
        row.raw_size = dz_view_u64(&v);
        row.length = dz_view_u64(&v);
        row.offset = out->blob_data.len;
        const uint8_t *bytes = dz_view_bytes(&v, row.length);
        if (!bytes || dz_grow((void **)&out->blobs, &out->blobs_cap, out->nblobs + 1, sizeof *out->blobs, err) != DZ_OK) break;
        if (dz_buf_put(&out->blob_data, bytes, (size_t)row.length, err) == DZ_OK) out->blobs[out->nblobs++] = row;
    }
    return err->rc;
}

dz_rc dz_companions_code(dz_context *ctx, dz_catalog **coded, dz_error *err) {
    const dz_world *world = ctx->world;
    file_list list = {0};
    dz_catalog *mine = NULL;
    dz_buf packed = {0}, all = {0};
    double begun = dz_now();
    dz_rc rc = DZ_OK;
    if (world->size == 1) return DZ_OK;
    find_large(ctx, &list, err);
    if (list.n) digest_some(world, &list, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK || list.n == 0) goto out;
    dz_sum_u64(world, list.digests, 3 * list.n);
    mine = dz_alloc(1, sizeof *mine, err);
    if (mine && code_share(world, &list, mine, err) == DZ_OK) pack(mine, &packed, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    if ((rc = dz_sync_error(world, dz_gather_bufs(world, &packed, &all, err), err)) != DZ_OK) goto out;
    if (world->rank == 0 && (*coded = dz_alloc(1, sizeof **coded, err))) unpack(&all, *coded, err);
    rc = dz_sync_error(world, err->rc, err);
out:
    ctx->secs[DZ_PHASE_WRITE] += dz_now() - begun;
    dz_catalog_free(mine);
    dz_buf_free(&packed);
    dz_buf_free(&all);
    free(list.files);
    free(list.digests);
    return rc;
}

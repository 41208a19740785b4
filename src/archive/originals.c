#include "archive/originals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive/reader.h"
#include "base/file.h"

typedef struct original {
    const dz_catalog *c;
    const dz_task_entry *task;
    dz_checkpoint *model;
    dz_progress *progress; /* or NULL */
    char *why;
} original;

static int differs(original *o, const char *what, const char *name) {
    snprintf(o->why, DZ_ORIGINAL_WHY, "%s '%.400s'", what, name);
    dz_one_line(o->why);
    return 0;
}

static const dz_file_row *find_file(const dz_task_entry *task, const char *path) {
    for (size_t i = 0; i < task->nfiles; i++) {
        if (strcmp(task->files[i].path, path) == 0) return &task->files[i];
    }
    return NULL;
}

static int has_content(const dz_catalog *c, const dz_file_row *file, const void *bytes, size_t len) {
    dz_digest got = dz_digest_of(bytes, len), want = file->blob < c->nblobs ? c->blobs[file->blob].digest : (dz_digest){0};
    return file->blob < c->nblobs && got.hi == want.hi && got.lo == want.lo;
}

/* Headers: with them the tensors' names, types, shapes and places. Rank 0, or any. */
static int same_headers(original *o) {
    for (size_t i = 0; i < o->model->nshards; i++) {
        const dz_shard *s = &o->model->shards[i];
        const dz_file_row *file = find_file(o->task, s->file);
        if (!file || file->kind != DZ_FILE_SAFETENSORS) return differs(o, "a new file", s->file);
        if (file->size != s->size || file->prefix != s->prefix || !has_content(o->c, file, s->header, s->header_len))
            return differs(o, "the header of", s->file);
    }
    return 1;
}

static int same_companion(original *o, const dz_companion_file *side) {
    const dz_file_row *file = find_file(o->task, side->file);
    char *bytes = NULL;
    size_t len = 0;
    dz_error none = {0};
    int same;
    if (!file || file->kind != DZ_FILE_SIDE) return differs(o, "a new file", side->file);
    if (side->bytes)
        same = has_content(o->c, file, side->bytes, (size_t)side->size);
    else
        same = dz_read_file(side->path, DZ_SIDE_MAX, &bytes, &len, &none) == DZ_OK && has_content(o->c, file, bytes, len);
    free(bytes);
    return same ? 1 : differs(o, "file", side->file);
}

/* Rank 0. */
static int same_files(original *o) {
    if (o->task->files_lost || o->c->blobs_lost) return differs(o, "its files are lost in", o->c->path ? o->c->path : "the archive");
    if (!same_headers(o)) return 0;
    for (size_t i = 0; i < o->model->ncompanions; i++) {
        if (!same_companion(o, &o->model->companions[i])) return 0;
    }
    for (size_t i = 0; i < o->task->nfiles; i++) { /* equal numbers: none is gone */
        const char *path = o->task->files[i].path;
        size_t k = 0;
        while (k < o->model->nshards && strcmp(o->model->shards[k].file, path) != 0) k++;
        if (k < o->model->nshards) continue;
        for (k = 0; k < o->model->ncompanions && strcmp(o->model->companions[k].file, path) != 0;) k++;
        if (k == o->model->ncompanions) return differs(o, "no file", path);
    }
    return 1;
}

/* A tensor of the index and where its bytes are in the model. */
typedef struct span {
    const dz_index_row *row;
    size_t tensor;  /* of the model */
    uint64_t first; /* byte of it */
    dz_pair_tiles tiles;
    size_t digest; /* number of its first tile among all */
} span;

typedef struct spans {
    span *list;
    size_t n, cap, ntiles;
} spans;

static dz_rc add_span(spans *all, const original *o, const dz_file_place *place, const dz_shard *shard, const dz_tensor *in_file,
                      dz_error *err) {
    const dz_catalog *c = o->c;
    const dz_index_row *row = dz_row_source(o->task, &o->task->rows[place->row]); /* a tied tensor has the digest of the other */
    uint64_t count = dz_tensor_of_row(&c->tensors[row->tensor]).count, base = 0;
    if (count == 0 || row->policy == DZ_POLICY_DROP) return DZ_OK; /* without a digest */
    if (row->base != DZ_NO_BASE) base = dz_tensor_of_row(&c->tensors[c->base[row->base].tensor]).count;
    if (dz_grow((void **)&all->list, &all->cap, all->n + 1, sizeof *all->list, err) != DZ_OK) return err->rc;
    span *s = &all->list[all->n++];
    *s = (span){.row = row,
                .tensor = shard->first + place->tensor,
                .first = place->offset - in_file->offset,
                .tiles = dz_pair_tiles_of(base, base < count ? base : count, count),
                .digest = all->ntiles};
    all->ntiles += s->tiles.ntiles;
    return DZ_OK;
}

/* Of all files, whose headers are those of the archive. */
static dz_rc find_spans(const original *o, spans *all, dz_error *err) {
    dz_lookup rows = {0};
    if (dz_task_rows(o->c, o->task, &rows, err) != DZ_OK) goto out;
    for (size_t i = 0; i < o->model->nshards && err->rc == DZ_OK; i++) {
        const dz_shard *s = &o->model->shards[i];
        const dz_file_row *file = find_file(o->task, s->file);
        dz_tensor *tensors = NULL;
        dz_file_place *places = NULL;
        size_t n = 0, nplaces = 0;
        if (dz_safetensors_parse(s->path, s->header + 8, s->header_len - 8, s->size, 0, &tensors, &n, err) == DZ_OK &&
            dz_file_prefix_tensors(file, tensors, n, err) == DZ_OK)
            dz_file_places(o->c, o->task, file, &rows, tensors, n, &places, &nplaces, err);
        for (size_t k = 0; k < nplaces && err->rc == DZ_OK; k++) add_span(all, o, &places[k], s, &tensors[places[k].tensor], err);
        free(places);
        dz_tensors_free(tensors, n);
    }
out:
    dz_lookup_free(&rows);
    return err->rc;
}

/* This rank's tiles; the digests of others stay 0. */
static dz_rc read_tiles(const dz_world *world, original *o, const spans *all, uint64_t *digests, dz_error *err) {
    dz_buf bytes = {0};
    for (size_t i = 0; i < all->n && err->rc == DZ_OK; i++) {
        const span *s = &all->list[i];
        size_t size = dz_dtype_size(dz_tensor_of_row(&o->c->tensors[s->row->tensor]).dtype);
        for (uint32_t tile = 0; tile < s->tiles.ntiles && err->rc == DZ_OK; tile++) {
            size_t number = s->digest + tile, len = (size_t)dz_tile_count(&s->tiles, tile) * size;
            if (number % (size_t)world->size != (size_t)world->rank) continue;
            bytes.len = 0;
            if (o->progress && dz_progress_check(o->progress, err) != DZ_OK) break;
            if (dz_buf_reserve(&bytes, len, err) != DZ_OK ||
                dz_checkpoint_read(o->model, s->tensor, s->first + dz_tile_first(&s->tiles, tile) * size, len, bytes.data, err) != DZ_OK)
                break;
            dz_digest d = dz_digest_of(bytes.data, len);
            digests[2 * number] = d.hi;
            digests[2 * number + 1] = d.lo;
            if (o->progress) dz_progress_add(o->progress, (double)len);
        }
    }
    dz_buf_free(&bytes);
    return err->rc;
}

static dz_rc digest_of_tiles(const uint64_t *words, size_t ntiles, dz_buf *b, dz_digest *out, dz_error *err) {
    b->len = 0;
    for (size_t k = 0; k < 2 * ntiles; k++) dz_buf_put_u64(b, words[k], err);
    *out = dz_digest_of(b->data, b->len);
    return err->rc;
}

/* The first tensor that is another. Alike on every rank. */
static dz_rc compare(original *o, const spans *all, const uint64_t *digests, int *same, dz_error *err) {
    dz_buf b = {0};
    *same = 1;
    for (size_t i = 0; i < all->n && *same && err->rc == DZ_OK; i++) {
        const span *s = &all->list[i];
        dz_digest got;
        if (digest_of_tiles(digests + 2 * s->digest, s->tiles.ntiles, &b, &got, err) != DZ_OK) break;
        if (got.hi != s->row->digest.hi || got.lo != s->row->digest.lo) *same = differs(o, "tensor", o->c->tensors[s->row->tensor].name);
    }
    dz_buf_free(&b);
    return err->rc;
}

static int has_digests(const spans *all) {
    for (size_t i = 0; i < all->n; i++) {
        if (all->list[i].row->digest.hi == 0 && all->list[i].row->digest.lo == 0) return 0;
    }
    return 1;
}

/* Collective. */
static dz_rc check_tensors(const dz_world *world, original *o, dz_original *state, dz_error *err) {
    spans all = {0};
    uint64_t *digests = NULL;
    int same = 0;
    dz_rc rc = dz_sync_error(world, find_spans(o, &all, err), err);
    if (rc != DZ_OK) goto out;
    if (!has_digests(&all)) {
        *state = DZ_ORIGINAL_UNKNOWN;
        snprintf(o->why, DZ_ORIGINAL_WHY, "the archive has no digests of its original");
        goto out;
    }
    digests = dz_alloc(2 * all.ntiles, sizeof *digests, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    if ((rc = dz_sync_error(world, read_tiles(world, o, &all, digests, err), err)) != DZ_OK) goto out;
    dz_sum_u64(world, digests, 2 * all.ntiles);
    rc = dz_sync_error(world, compare(o, &all, digests, &same, err), err);
    *state = same ? DZ_ORIGINAL_SAME : DZ_ORIGINAL_CHANGED;
out:
    free(digests);
    free(all.list);
    return rc;
}

dz_rc dz_original_check(const dz_world *world, const dz_catalog *c, const dz_task_entry *task, dz_checkpoint *model, dz_progress *progress,
                        dz_original *state, char why[DZ_ORIGINAL_WHY], dz_error *err) {
    original o = {.c = c, .task = task, .model = model, .progress = progress, .why = why};
    dz_buf text = {0};
    why[0] = '\0';
    if (world->rank == 0 && !same_files(&o)) dz_buf_put(&text, why, strlen(why) + 1, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) rc = dz_bcast_buf(world, &text, err);
    if (rc == DZ_OK && text.len > 0) snprintf(why, DZ_ORIGINAL_WHY, "%s", (const char *)text.data);
    *state = DZ_ORIGINAL_CHANGED;
    if (rc == DZ_OK && text.len == 0) rc = check_tensors(world, &o, state, err);
    dz_buf_free(&text);
    return rc;
}

/* This rank's tiles of the base's tensors. `*first`: the number of the first tensor that is another; unchanged if none is. */
static dz_rc compare_base(const dz_world *world, const dz_catalog *c, dz_checkpoint *base, int64_t *first, dz_error *err) {
    dz_buf bytes = {0};
    for (size_t b = 0; b < c->nbase && err->rc == DZ_OK; b++) {
        dz_tensor want = dz_tensor_of_row(&c->tensors[c->base[b].tensor]);
        int64_t at = dz_checkpoint_find(base, want.name);
        dz_pair_tiles tiles = dz_pair_tiles_of(want.count, want.count, want.count);
        size_t size = dz_dtype_size(want.dtype);
        int same = at >= 0 && dz_same_kind(&base->tensors[at], &want);
        for (uint32_t tile = 0; same && tile < tiles.ntiles; tile++) {
            size_t number = c->base[b].first_tile + tile, len = (size_t)dz_tile_count(&tiles, tile) * size;
            if (number % (size_t)world->size != (size_t)world->rank) continue;
            bytes.len = 0;
            if (dz_buf_reserve(&bytes, len, err) != DZ_OK ||
                dz_checkpoint_read(base, (size_t)at, dz_tile_first(&tiles, tile) * size, len, bytes.data, err) != DZ_OK)
                break;
            dz_digest got = dz_digest_of(bytes.data, len);
            same = got.hi == c->base_tiles[number].hi && got.lo == c->base_tiles[number].lo;
        }
        if (!same && (int64_t)b < *first) *first = (int64_t)b;
    }
    dz_buf_free(&bytes);
    return err->rc;
}

dz_rc dz_original_base_check(const dz_world *world, const dz_catalog *c, dz_checkpoint *base, dz_original *state, char why[DZ_ORIGINAL_WHY],
                             dz_error *err) {
    int64_t first = (int64_t)c->nbase;
    dz_rc rc = dz_sync_error(world, compare_base(world, c, base, &first, err), err);
    why[0] = '\0';
    if (rc != DZ_OK) return rc;
    dz_min_i64(world, &first, 1);
    *state = first == (int64_t)c->nbase ? DZ_ORIGINAL_SAME : DZ_ORIGINAL_CHANGED;
    if (*state == DZ_ORIGINAL_CHANGED) snprintf(why, DZ_ORIGINAL_WHY, "tensor '%.400s'", c->tensors[c->base[first].tensor].name);
    return DZ_OK;
}

#include "archive/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/file.h"
#include "checkpoint/describe.h"
#include "plan/structure.h"

/* A tokenizer of 10 MB takes six seconds at zstd's level 19, 0.2 at level 9 with a sixth more bytes, 0.1 at level 6 with a fifth more
 * (results/bench.md). No file takes more than about 0.3 seconds. */
static int blob_level(size_t len) {
    return len <= (size_t)128 << 10 ? 19 : len <= (size_t)1 << 20 ? 16 : len <= (size_t)8 << 20 ? 9 : len <= (size_t)16 << 20 ? 6 : 5;
}

#define BLOB_MAX (DZ_HEADER_MAX + 8) /* a file's header is the largest */

void dz_task_entry_free(dz_task_entry *e) {
    for (size_t i = 0; i < e->nfiles; i++) dz_file_row_free(&e->files[i]);
    free(e->files);
    free(e->files_lost);
    free(e->rows);
    free(e->name);
    free(e->recipe);
    free(e->recipe_text);
    free(e->score);
    for (size_t i = 0; i < e->nsources; i++) free(e->sources[i]);
    free(e->sources);
}

void dz_catalog_free(dz_catalog *c) {
    if (!c) return;
    for (size_t i = 0; i < c->ntensors; i++) free(c->tensors[i].name);
    free(c->tensors);
    dz_lookup_free(&c->by_task);
    dz_lookup_free(&c->by_tensor);
    dz_lookup_free(&c->by_blob);
    free(c->base);
    free(c->base_tiles);
    free(c->vocabulary);
    free(c->base_name);
    free(c->base_origin);
    free(c->base_revision);
    free(c->stored_name);
    free(c->stored_lost);
    free(c->stored_rows);
    free(c->blobs);
    dz_buf_free(&c->blob_data);
    for (size_t t = 0; t < c->ntasks; t++) dz_task_entry_free(&c->tasks[t]);
    free(c->tasks);
    for (size_t i = 0; i < c->nlost; i++) {
        free(c->lost[i].name);
        free(c->lost[i].text);
    }
    free(c->lost);
    free(c->blobs_lost);
    dz_buf_free(&c->foreign);
    dz_buf_free(&c->foreign_tasks);
    free(c);
}

typedef struct blob_key {
    uint64_t hi, lo, raw_size;
} blob_key;

/* Its number; -1: there is none, or no memory to look (then `err` has it). Rows that the reader has put there are taken in first. */
static int64_t find_blob(dz_catalog *c, dz_digest digest, uint64_t len, dz_error *err) {
    const blob_key wanted = {digest.hi, digest.lo, len};
    while (c->by_blob.n < c->nblobs) {
        const dz_blob_row *row = &c->blobs[c->by_blob.n];
        const blob_key key = {row->digest.hi, row->digest.lo, row->raw_size};
        if (dz_lookup_add(&c->by_blob, &key, sizeof key, (uint32_t)c->by_blob.n, err) != DZ_OK) return -1;
    }
    return dz_lookup_find(&c->by_blob, &wanted, sizeof wanted);
}

dz_rc dz_catalog_copy_blob(dz_catalog *c, const dz_catalog *from, uint32_t number, uint32_t *added, dz_error *err) {
    if (number >= from->nblobs || from->blobs[number].length > from->blob_data.len ||
        from->blobs[number].offset > from->blob_data.len - from->blobs[number].length)
        return dz_fail(err, DZ_EDAMAGE, "%s: shared file (blob) %u is not in the archive", from->path ? from->path : "archive", number);
    dz_blob_row row = from->blobs[number];
    int64_t found = find_blob(c, row.digest, row.raw_size, err);
    if (found >= 0) *added = (uint32_t)found;
    if (found >= 0 || err->rc != DZ_OK) return err->rc;
    if (dz_grow((void **)&c->blobs, &c->blobs_cap, c->nblobs + 1, sizeof *c->blobs, err) != DZ_OK) return err->rc;
    const uint8_t *coded = from->blob_data.data + row.offset;
    row.offset = c->blob_data.len;
    if (dz_buf_put(&c->blob_data, coded, (size_t)row.length, err) != DZ_OK) return err->rc;
    c->blobs[c->nblobs] = row;
    *added = (uint32_t)c->nblobs++;
    return DZ_OK;
}

char *dz_catalog_line(const dz_catalog *c, const char *task, const char *text, dz_error *err) {
    const char *path = c->path ? c->path : "archive";
    char *named = dz_format(err, "%s: task '%s': ", path, task), *line = NULL;
    if (!named) return NULL;
    size_t len = strlen(path) + 2;
    if (strncmp(text, named, strlen(named)) == 0)
        text += strlen(named);
    else if (strncmp(text, named, len) == 0)
        text += len;
    line = dz_format(err, "%s%s", named, text);
    free(named);
    return line;
}

dz_rc dz_lost_rc(const dz_lost *lost) { return lost->unread ? DZ_EFAIL : DZ_EDAMAGE; }

dz_rc dz_catalog_lose(dz_catalog *c, const char *task, const char *text, dz_error *err) {
    dz_lost *grown = realloc(c->lost, (c->nlost + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "out of memory");
    c->lost = grown;
    grown[c->nlost++] = (dz_lost){.name = dz_strdup(task, err), .text = dz_catalog_line(c, task, text, err)};
    return err->rc;
}

dz_rc dz_catalog_add_blob(dz_catalog *c, const void *bytes, size_t len, uint32_t *number, dz_error *err) {
    dz_digest digest = dz_digest_of(bytes, len);
    int64_t found = find_blob(c, digest, len, err);
    if (found >= 0) *number = (uint32_t)found;
    if (found >= 0 || err->rc != DZ_OK) return err->rc;
    if (c->earlier && (found = find_blob(c->earlier, digest, len, err)) >= 0)
        return dz_catalog_copy_blob(c, c->earlier, (uint32_t)found, number, err);
    if (err->rc != DZ_OK) return err->rc;
    size_t bound = ZSTD_compressBound(len);
    if (dz_grow((void **)&c->blobs, &c->blobs_cap, c->nblobs + 1, sizeof *c->blobs, err) != DZ_OK) return err->rc;
    if (dz_buf_reserve(&c->blob_data, bound, err) != DZ_OK) return err->rc;
    size_t coded = ZSTD_compress(c->blob_data.data + c->blob_data.len, bound, bytes, len, blob_level(len));
    if (ZSTD_isError(coded)) return dz_fail(err, DZ_EFAIL, "zstd: %s", ZSTD_getErrorName(coded));
    c->blobs[c->nblobs] = (dz_blob_row){.digest = digest, .raw_size = len, .offset = c->blob_data.len, .length = coded};
    c->blob_data.len += coded;
    *number = (uint32_t)c->nblobs++;
    return DZ_OK;
}

dz_rc dz_catalog_blob(const dz_catalog *c, uint32_t number, char **out, size_t *len, dz_error *err) {
    if (c->blobs_lost) return dz_fail(err, DZ_EDAMAGE, "%s", c->blobs_lost);
    if (number >= c->nblobs)
        return dz_fail(err, DZ_EDAMAGE, "%s: shared file (blob) %u is not in the archive", c->path ? c->path : "archive", number);
    const dz_blob_row *b = &c->blobs[number];
    if (b->raw_size > BLOB_MAX || b->length > c->blob_data.len || b->offset > c->blob_data.len - b->length)
        return dz_fail(err, DZ_EDAMAGE, "%s: shared file (blob) %u: its sizes are not sound", c->path ? c->path : "archive", number);
    const uint8_t *coded = c->blob_data.data + b->offset;
    if (ZSTD_getFrameContentSize(coded, (size_t)b->length) != b->raw_size)
        return dz_fail(err, DZ_EDAMAGE, "%s: shared file (blob) %u: not the frame its index tells of", c->path ? c->path : "archive",
                       number);
    char *raw = dz_alloc_raw((size_t)b->raw_size + 1, 1, err);
    if (!raw) return err->rc;
    size_t got = ZSTD_decompress(raw, (size_t)b->raw_size, coded, (size_t)b->length);
    dz_digest digest = dz_digest_of(raw, (size_t)b->raw_size);
    if (ZSTD_isError(got) || got != b->raw_size || digest.hi != b->digest.hi || digest.lo != b->digest.lo) {
        free(raw);
        return dz_fail(err, DZ_EDAMAGE, "%s: shared file (blob) %u: its checksum does not match", c->path ? c->path : "archive", number);
    }
    raw[b->raw_size] = '\0';
    *out = raw;
    *len = (size_t)b->raw_size;
    return DZ_OK;
}

/* All that makes a row what it is, as bytes. */
static dz_rc tensor_key(const char *name, const char *dtype, uint32_t ndim, const uint64_t *shape, uint64_t nbytes, dz_buf *key,
                        dz_error *err) {
    key->len = 0;
    dz_buf_put(key, name, strlen(name) + 1, err);
    dz_buf_put(key, dtype, strlen(dtype) + 1, err);
    dz_buf_put_u64(key, nbytes, err);
    for (uint32_t d = 0; d < ndim; d++) dz_buf_put_u64(key, shape[d], err);
    return err->rc;
}

/* Appends the row. */
static dz_rc add_tensor(dz_catalog *c, const dz_tensor *t, dz_error *err) {
    if (dz_grow((void **)&c->tensors, &c->tensors_cap, c->ntensors + 1, sizeof *c->tensors, err) != DZ_OK) return err->rc;
    dz_tensor_row *row = &c->tensors[c->ntensors];
    *row = (dz_tensor_row){.name = dz_strdup(t->name, err), .ndim = t->ndim, .nbytes = t->nbytes};
    if (!row->name) return err->rc;
    memcpy(row->dtype, t->dtype_name, sizeof row->dtype);
    memcpy(row->shape, t->shape, sizeof row->shape);
    c->ntensors++;
    return DZ_OK;
}

dz_rc dz_catalog_tensor(dz_catalog *c, const dz_tensor *t, uint32_t *number, dz_error *err) {
    dz_buf key = {0};
    int64_t found = -1;
    while (err->rc == DZ_OK && c->by_tensor.n < c->ntensors) { /* rows that are not of this function */
        const dz_tensor_row *row = &c->tensors[c->by_tensor.n];
        if (tensor_key(row->name, row->dtype, row->ndim, row->shape, row->nbytes, &key, err) == DZ_OK)
            dz_lookup_add(&c->by_tensor, key.data, key.len, (uint32_t)c->by_tensor.n, err);
    }
    if (err->rc == DZ_OK && tensor_key(t->name, t->dtype_name, t->ndim, t->shape, t->nbytes, &key, err) == DZ_OK)
        found = dz_lookup_find(&c->by_tensor, key.data, key.len);
    if (err->rc == DZ_OK && found < 0) {
        found = (int64_t)c->ntensors;
        if (add_tensor(c, t, err) == DZ_OK) dz_lookup_add(&c->by_tensor, key.data, key.len, (uint32_t)found, err);
    }
    dz_buf_free(&key);
    if (err->rc == DZ_OK) *number = (uint32_t)found;
    return err->rc;
}

dz_tensor dz_tensor_of_row(const dz_tensor_row *row) {
    dz_tensor t = {.name = row->name, .ndim = row->ndim, .dtype = dz_dtype_of(row->dtype), .nbytes = row->nbytes};
    memcpy(t.dtype_name, row->dtype, sizeof t.dtype_name);
    memcpy(t.shape, row->shape, sizeof t.shape);
    t.count = row->nbytes / dz_dtype_size(t.dtype);
    return t;
}

static int by_base_name(const void *x, const void *y, void *arg) {
    const dz_catalog *c = arg;
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return strcmp(c->tensors[c->base[a].tensor].name, c->tensors[c->base[b].tensor].name);
}

dz_rc dz_catalog_mark_vocabulary(dz_catalog *c, dz_error *err) {
    dz_tensor *tensors = dz_alloc(c->nbase, sizeof *tensors, err);
    dz_tensor_role *roles = NULL;
    free(c->vocabulary);
    c->vocabulary = dz_alloc(c->nbase, sizeof *c->vocabulary, err);
    for (size_t i = 0; i < c->nbase && err->rc == DZ_OK; i++) tensors[i] = dz_tensor_of_row(&c->tensors[c->base[i].tensor]);
    if (err->rc == DZ_OK) dz_roles_make(tensors, c->nbase, &roles, err);
    for (size_t i = 0; i < c->nbase && roles; i++) c->vocabulary[i] = (uint8_t)roles[i].vocabulary;
    free(tensors);
    free(roles);
    return err->rc;
}

dz_rc dz_catalog_fingerprint(const dz_catalog *c, dz_digest *out, dz_error *err) {
    dz_buf b = {0};
    uint32_t *order = dz_alloc(c->nbase, sizeof *order, err);
    for (size_t i = 0; order && i < c->nbase; i++) order[i] = (uint32_t)i;
    if (order) qsort_r(order, c->nbase, sizeof *order, by_base_name, (void *)(uintptr_t)c);
    for (size_t n = 0; order && n < c->nbase; n++) {
        uint32_t i = order[n];
        const dz_tensor_row *row = &c->tensors[c->base[i].tensor];
        dz_buf_put(&b, row->name, strlen(row->name) + 1, err);
        dz_buf_put(&b, row->dtype, strlen(row->dtype) + 1, err);
        dz_buf_put_u32(&b, row->ndim, err);
        for (uint32_t d = 0; d < row->ndim; d++) dz_buf_put_u64(&b, row->shape[d], err);
        size_t end = i + 1 < c->nbase ? c->base[i + 1].first_tile : c->nbase_tiles;
        for (size_t tile = c->base[i].first_tile; tile < end; tile++) {
            dz_buf_put_u64(&b, c->base_tiles[tile].hi, err);
            dz_buf_put_u64(&b, c->base_tiles[tile].lo, err);
        }
    }
    if (err->rc == DZ_OK) *out = dz_digest_of(b.data, b.len);
    dz_buf_free(&b);
    free(order);
    return err->rc;
}

dz_rc dz_catalog_index_tasks(dz_catalog *c, dz_error *err) {
    dz_lookup_free(&c->by_task);
    for (size_t t = 0; t < c->ntasks && err->rc == DZ_OK; t++)
        dz_lookup_add(&c->by_task, c->tasks[t].name, strlen(c->tasks[t].name), (uint32_t)t, err);
    return err->rc;
}

dz_lost *dz_catalog_find_lost(const dz_catalog *c, const char *task) {
    for (size_t i = 0; i < c->nlost; i++) {
        if (strcmp(c->lost[i].name, task) == 0) return &c->lost[i];
    }
    return NULL;
}

int64_t dz_catalog_find(const dz_catalog *c, const char *task) {
    if (c->by_task.n && c->by_task.n == c->ntasks) return dz_lookup_find(&c->by_task, task, strlen(task));
    for (size_t t = 0; t < c->ntasks; t++) {
        if (strcmp(c->tasks[t].name, task) == 0) return (int64_t)t;
    }
    return -1;
}

dz_rc dz_catalog_describe_base(dz_catalog *c, const dz_checkpoint *base, const char *manifest, dz_error *err) {
    char *folder = dz_path_beside(manifest, "", err); /* the manifest's, to which its paths are relative */
    size_t len = folder ? strlen(folder) : 0;
    const char *origin = base->path;
    if (len && strchr(manifest, '/') && strncmp(origin, folder, len) == 0 && origin[len]) origin += len;
    c->base_origin = dz_plain_text(origin, strlen(origin), err);
    free(folder);
    return dz_checkpoint_describe(base, &c->base_name, &c->base_revision, err);
}

char *dz_catalog_base_text(const dz_catalog *c, char text[DZ_BASE_TEXT]) {
    char hex[33];
    dz_digest_hex(c->fingerprint, hex);
    if (c->base_name && c->base_name[0])
        snprintf(text, DZ_BASE_TEXT, "'%.500s'%s%.60s (fingerprint %s)", c->base_name,
                 c->base_revision && c->base_revision[0] ? ", revision " : "", c->base_revision ? c->base_revision : "", hex);
    else
        snprintf(text, DZ_BASE_TEXT, "fingerprint %s", hex);
    return text;
}

uint64_t dz_catalog_base_bytes(const dz_catalog *c) {
    uint64_t sum = 0;
    for (size_t i = 0; i < c->nbase; i++) sum += c->tensors[c->base[i].tensor].nbytes;
    return sum;
}

int dz_catalog_is_foreign(const dz_catalog *c, const char *name) {
    const char *names = (const char *)c->foreign_tasks.data;
    for (size_t at = 0; at < c->foreign_tasks.len; at += strlen(names + at) + 1) {
        if (strcmp(names + at, name) == 0) return 1;
    }
    return 0;
}

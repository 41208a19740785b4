/* include/deltazoo.h over the reader and the decoder. */
#include "deltazoo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "decode/tile_decoder.h"

struct deltazoo_archive {
    dz_archive *archive;
    dz_checkpoint *base;
    dz_decoder decoder;
    dz_buf delta, part;
    size_t *counts;  /* [tasks] tensors */
    dz_lookup *rows; /* [tasks] by name */
};

static int report(const dz_error *err, char *message, size_t size) {
    if (message && size) snprintf(message, size, "%s", err->text);
    return (int)err->rc;
}

const char *deltazoo_version(void) { return DZ_VERSION; }

/* Absent tensors are last in the index and are no tensors of the task. */
static void index_tasks(deltazoo_archive *a, dz_error *err) {
    const dz_catalog *c = a->archive->catalog;
    a->counts = dz_alloc(c->ntasks, sizeof *a->counts, err);
    a->rows = dz_alloc(c->ntasks, sizeof *a->rows, err);
    for (size_t t = 0; t < c->ntasks && err->rc == DZ_OK; t++) {
        const dz_task_entry *task = &c->tasks[t];
        while (a->counts[t] < task->nrows && task->rows[a->counts[t]].policy != DZ_POLICY_ABSENT) a->counts[t]++;
        dz_task_rows(c, task, &a->rows[t], err);
    }
}

/* With the archive read. */
static int finish_open(deltazoo_archive *a, deltazoo_archive **out, dz_error *err, char *message, size_t size) {
    if (err->rc == DZ_OK && dz_decoder_open(&a->decoder, a->archive, NULL, NULL, err) == DZ_OK) index_tasks(a, err);
    if (err->rc == DZ_OK) {
        *out = a;
        a = NULL;
    }
    if (a) deltazoo_close(a);
    return report(err, message, size);
}

int deltazoo_open(const char *path, deltazoo_archive **out, char *message, size_t size) {
    dz_error err = {0};
    deltazoo_archive *a = dz_alloc(1, sizeof *a, &err);
    if (a) dz_archive_open_partly(path, &a->archive, &err);
    return finish_open(a, out, &err, message, size);
}

static void check_task(const dz_catalog *c, const char *name, dz_error *err) {
    if (dz_catalog_find(c, name) >= 0) return;
    const dz_lost *lost = dz_catalog_find_lost(c, name);
    if (lost)
        dz_fail(err, dz_lost_rc(lost), "%s", lost->text);
    else
        dz_fail(err, DZ_EUSAGE, "%s: has no task '%s'", c->path, name);
}

int deltazoo_open_tasks(const char *path, const char *const *names, size_t n, deltazoo_archive **out, char *message, size_t size) {
    dz_error err = {0};
    deltazoo_archive *a = dz_alloc(1, sizeof *a, &err);
    if (a) dz_archive_open_tasks(path, names, n, &a->archive, &err);
    for (size_t i = 0; i < n && err.rc == DZ_OK; i++) check_task(a->archive->catalog, names[i], &err);
    return finish_open(a, out, &err, message, size);
}

/* Without a base a decoder still gives deltas, and restores from a base in memory. */
static void drop_base(deltazoo_archive *a, dz_error *err) {
    dz_decoder_close(&a->decoder);
    dz_checkpoint_free(a->base);
    a->base = NULL;
    dz_decoder_open(&a->decoder, a->archive, NULL, NULL, err);
}

void deltazoo_close(deltazoo_archive *a) {
    if (!a) return;
    if (a->archive) dz_decoder_close(&a->decoder);
    dz_checkpoint_free(a->base);
    for (size_t t = 0; a->rows && t < a->archive->catalog->ntasks; t++) dz_lookup_free(&a->rows[t]);
    free(a->rows);
    free(a->counts);
    dz_archive_close(a->archive);
    dz_buf_free(&a->delta);
    dz_buf_free(&a->part);
    free(a);
}

size_t deltazoo_lost_count(const deltazoo_archive *a) { return a->archive->catalog->nlost; }

const char *deltazoo_lost(const deltazoo_archive *a, size_t number) {
    return number < a->archive->catalog->nlost ? a->archive->catalog->lost[number].text : NULL;
}

size_t deltazoo_task_count(const deltazoo_archive *a) { return a->archive->catalog->ntasks; }

const char *deltazoo_task_name(const deltazoo_archive *a, size_t task) {
    return task < a->archive->catalog->ntasks ? a->archive->catalog->tasks[task].name : NULL;
}

size_t deltazoo_tensor_count(const deltazoo_archive *a, size_t task) { return task < a->archive->catalog->ntasks ? a->counts[task] : 0; }

static void describe(const dz_tensor_row *t, deltazoo_tensor *out) {
    *out = (deltazoo_tensor){.name = t->name, .dtype = t->dtype, .policy = "", .ndim = t->ndim, .nbytes = t->nbytes};
    memcpy(out->shape, t->shape, sizeof out->shape);
}

int deltazoo_task_at(const deltazoo_archive *a, size_t task, deltazoo_task *out) {
    if (task >= a->archive->catalog->ntasks) return DELTAZOO_EUSAGE;
    const dz_task_entry *t = &a->archive->catalog->tasks[task];
    dz_size_stats sizes = dz_task_size_stats(t);
    *out = (deltazoo_task){.name = t->name,
                           .recipe = t->recipe,
                           .sparsity = t->sparsity,
                           .gamma = (double)t->gamma,
                           .trace_norm = t->trace_norm,
                           .source_bytes = t->source_bytes,
                           .stored_bytes = (uint64_t)sizes.stored};
    return DELTAZOO_OK;
}

int deltazoo_tensor_at(const deltazoo_archive *a, size_t task, size_t index, deltazoo_tensor *out) {
    if (index >= deltazoo_tensor_count(a, task)) return DELTAZOO_EUSAGE;
    const dz_index_row *row = &a->archive->catalog->tasks[task].rows[index];
    describe(&a->archive->catalog->tensors[row->tensor], out);
    out->policy = dz_policy_name((dz_policy)row->policy);
    out->stored_bytes = row->length;
    return DELTAZOO_OK;
}

int deltazoo_tensor_find(const deltazoo_archive *a, size_t task, const char *name, size_t *index) {
    int64_t at = task < a->archive->catalog->ntasks ? dz_lookup_find(&a->rows[task], name, strlen(name)) : -1;
    if (at < 0 || (size_t)at >= a->counts[task]) return DELTAZOO_EUSAGE;
    *index = (size_t)at;
    return DELTAZOO_OK;
}

/* The row that holds a tensor's bytes, or NULL with an error. */
static const dz_index_row *row_at(const deltazoo_archive *a, size_t task, size_t index, dz_error *err) {
    const dz_catalog *c = a->archive->catalog;
    if (index < deltazoo_tensor_count(a, task)) return dz_row_source(&c->tasks[task], &c->tasks[task].rows[index]);
    dz_fail(err, DZ_EUSAGE, "task %zu has no tensor %zu", task, index);
    return NULL;
}

int deltazoo_base_of(const deltazoo_archive *a, size_t task, size_t index, deltazoo_tensor *out) {
    dz_error err = {0};
    const dz_index_row *row = row_at(a, task, index, &err);
    if (!row || row->base == DZ_NO_BASE) return DELTAZOO_EUSAGE;
    const dz_catalog *c = a->archive->catalog;
    describe(&c->tensors[c->base[row->base].tensor], out);
    return DELTAZOO_OK;
}

int deltazoo_lossy_at(const deltazoo_archive *a, size_t task, size_t index, deltazoo_lossy *out) {
    dz_error err = {0};
    const dz_index_row *row = row_at(a, task, index, &err);
    if (!row || row->policy != DZ_POLICY_ULTRADELTA) return DELTAZOO_EUSAGE;
    *out = (deltazoo_lossy){.sparsity = (double)row->sparsity,
                            .bits = row->bits,
                            .kept = row->kept,
                            .nsr = (double)row->nsr,
                            .gain = (double)row->gain,
                            .delta_rms = (double)row->delta_rms,
                            .base_rms = (double)row->base_rms};
    return DELTAZOO_OK;
}

int deltazoo_quality_of(const deltazoo_archive *a, size_t task, size_t index, deltazoo_quality *out) {
    const dz_catalog *c = a->archive->catalog;
    dz_quality q = {.cosine = 1, .gain = 1, .verdict = DZ_VERDICT_EXACT};
    if (task >= c->ntasks || (index != DELTAZOO_WHOLE && index >= a->counts[task])) return DELTAZOO_EUSAGE;
    if (index == DELTAZOO_WHOLE) {
        q = dz_task_quality(c, &c->tasks[task]);
    } else {
        const dz_task_entry *holder = &c->tasks[task];
        const dz_index_row *row = dz_row_values(&holder, dz_row_source(holder, &holder->rows[index]));
        if (dz_row_is_noisy(row)) q = dz_row_quality(c, holder, row);
    }
    *out = (deltazoo_quality){.cosine = q.cosine,
                              .gain = q.gain,
                              .noise_to_delta = q.noise_to_delta,
                              .noise_to_base = q.noise_to_base,
                              .delta = q.delta,
                              .base = q.base,
                              .verdict = dz_verdict_name(q.verdict)};
    return DELTAZOO_OK;
}

static const char *or_empty(const char *text) { return text ? text : ""; }

void deltazoo_base_info(const deltazoo_archive *a, deltazoo_base *out) {
    const dz_catalog *c = a->archive->catalog;
    *out = (deltazoo_base){
        .name = or_empty(c->base_name), .origin = or_empty(c->base_origin), .revision = or_empty(c->base_revision), .ntensors = c->nbase};
    dz_digest_hex(c->fingerprint, out->fingerprint);
}

int deltazoo_base_at(const deltazoo_archive *a, size_t index, deltazoo_tensor *out) {
    const dz_catalog *c = a->archive->catalog;
    if (index >= c->nbase) return DELTAZOO_EUSAGE;
    describe(&c->tensors[c->base[index].tensor], out);
    return DELTAZOO_OK;
}

int deltazoo_stored_base(const deltazoo_archive *a, size_t *task) {
    const dz_catalog *c = a->archive->catalog;
    if (!c->stored) return DELTAZOO_EUSAGE;
    *task = c->stored - 1;
    return DELTAZOO_OK;
}

int deltazoo_set_base(deltazoo_archive *a, const char *path, char *message, size_t size) {
    dz_error err = {0};
    drop_base(a, &err);
    if (path && err.rc == DZ_OK && dz_checkpoint_load(path, &a->base, &err) == DZ_OK) {
        dz_decoder_close(&a->decoder);
        if (dz_decoder_open(&a->decoder, a->archive, a->base, NULL, &err) != DZ_OK) drop_base(a, &(dz_error){0});
    }
    return report(&err, message, size);
}

int deltazoo_base_read(deltazoo_archive *a, size_t index, void *dst, char *message, size_t size) {
    dz_error err = {0};
    const dz_catalog *c = a->archive->catalog;
    int has_base = dz_decoder_has_base(&a->decoder);
    if (index >= c->nbase || !has_base) {
        dz_fail(&err, DZ_EUSAGE, has_base ? "the base has no tensor %zu" : "deltazoo_set_base comes before reading tensor %zu of the base",
                index);
        return report(&err, message, size);
    }
    dz_decoder_forget(&a->decoder); /* read, and checked, anew */
    a->decoder.base_differs[index] = 0;
    dz_decode_base(&a->decoder, (uint32_t)index, dst, &err);
    if (err.rc == DZ_OK && a->decoder.base_differs[index])
        dz_fail(&err, DZ_EFAIL, "%s: not the base of this archive: tensor '%s' differs", a->base->path,
                c->tensors[c->base[index].tensor].name);
    return report(&err, message, size);
}

/* Elements first .. first + count - 1 of the row's tensor. */
static void restore_tiles(deltazoo_archive *a, size_t task, const dz_index_row *row, uint64_t first, uint64_t count, uint8_t *dst,
                          dz_error *err) {
    const dz_catalog *c = a->archive->catalog;
    dz_pair_tiles tiles = dz_row_work(c, row);
    size_t size = dz_dtype_size(dz_tensor_of_row(&c->tensors[row->tensor]).dtype);
    if (row->base != DZ_NO_BASE) a->decoder.base_differs[row->base] = 0;
    dz_decoder_forget(&a->decoder);
    for (uint32_t tile = 0; tile < tiles.ntiles && err->rc == DZ_OK; tile++) {
        uint64_t begin = dz_tile_first(&tiles, tile), end = begin + dz_tile_count(&tiles, tile);
        uint64_t from = begin > first ? begin : first, to = end < first + count ? end : first + count;
        if (from >= to) continue;
        if (from == begin && to == end) {
            dz_decode_tile(&a->decoder, &c->tasks[task], row, tile, dst + (begin - first) * size, err);
            continue;
        }
        a->part.len = 0;
        if (dz_buf_reserve(&a->part, (end - begin) * size, err) == DZ_OK &&
            dz_decode_tile(&a->decoder, &c->tasks[task], row, tile, a->part.data, err) == DZ_OK)
            memcpy(dst + (from - first) * size, a->part.data + (from - begin) * size, (to - from) * size);
    }
    dz_decoder_forget(&a->decoder);
    if (err->rc == DZ_OK && row->base != DZ_NO_BASE && a->decoder.base_differs[row->base])
        dz_fail(err, DZ_EFAIL, "%s: not the base of this archive: tensor '%s' differs",
                a->base && !a->decoder.given ? a->base->path : "the base given", c->tensors[c->base[row->base].tensor].name);
}

static uint64_t elements_of(const deltazoo_archive *a, const dz_index_row *row) {
    dz_tensor t = dz_tensor_of_row(&a->archive->catalog->tensors[row->tensor]);
    return t.nbytes / dz_dtype_size(t.dtype);
}

int deltazoo_restore(deltazoo_archive *a, size_t task, size_t index, void *dst, char *message, size_t size) {
    dz_error err = {0};
    const dz_index_row *row = row_at(a, task, index, &err);
    if (row && !dz_decoder_has_base(&a->decoder))
        dz_fail(&err, DZ_EUSAGE, "deltazoo_set_base comes before deltazoo_restore");
    else if (row)
        restore_tiles(a, task, row, 0, elements_of(a, row), dst, &err);
    return report(&err, message, size);
}

/* `base`: the whole base tensor, or NULL where it has none or its file is set. */
static void restore_given(deltazoo_archive *a, size_t task, const dz_index_row *row, uint64_t first, uint64_t count, const void *base,
                          void *dst, dz_error *err) {
    a->decoder.given = base;
    restore_tiles(a, task, row, first, count, dst, err);
    a->decoder.given = NULL;
}

int deltazoo_restore_from(deltazoo_archive *a, size_t task, size_t index, const void *base, void *dst, char *message, size_t size) {
    dz_error err = {0};
    const dz_index_row *row = row_at(a, task, index, &err);
    if (row && row->base != DZ_NO_BASE && !base && !a->archive->catalog->stored)
        dz_fail(&err, DZ_EUSAGE, "task %zu, tensor %zu: its base tensor is needed (deltazoo_base_of)", task, index);
    else if (row)
        restore_given(a, task, row, 0, elements_of(a, row), base, dst, &err);
    return report(&err, message, size);
}

int deltazoo_restore_part(deltazoo_archive *a, size_t task, size_t index, uint64_t first, uint64_t count, const void *base, void *dst,
                          char *message, size_t size) {
    dz_error err = {0};
    const dz_index_row *row = row_at(a, task, index, &err);
    if (row && row->base != DZ_NO_BASE && !base && !dz_decoder_has_base(&a->decoder))
        dz_fail(&err, DZ_EUSAGE, "task %zu, tensor %zu: its base tensor is needed (deltazoo_base_of, deltazoo_set_base)", task, index);
    else if (row && (first > elements_of(a, row) || count > elements_of(a, row) - first))
        dz_fail(&err, DZ_EUSAGE, "task %zu, tensor %zu: has %llu elements, not %llu from %llu on", task, index,
                (unsigned long long)elements_of(a, row), (unsigned long long)count, (unsigned long long)first);
    else if (row)
        restore_given(a, task, row, first, count, base, dst, &err);
    return report(&err, message, size);
}

/* Tile by tile, `take` is given the delta's elements from `first` on. */
static int each_delta(deltazoo_archive *a, size_t task, size_t index, void (*take)(void *arg, uint64_t first, const float *delta, size_t n),
                      void *arg, char *message, size_t size) {
    dz_error err = {0};
    const dz_index_row *row = row_at(a, task, index, &err);
    if (row && row->policy != DZ_POLICY_ULTRADELTA)
        dz_fail(&err, DZ_EUSAGE, "task %zu, tensor %zu: not lossy: it has no delta of its own", task, index);
    else if (row && row->source)
        dz_fail(&err, DZ_EUSAGE, "task %zu, tensor %zu: coded against task '%s', not the base: restore both for its delta", task, index,
                row->up_task->name);
    dz_pair_tiles tiles = err.rc == DZ_OK ? dz_row_tiles(a->archive->catalog, row) : (dz_pair_tiles){0};
    for (uint32_t tile = 0; tile < tiles.ncommon && err.rc == DZ_OK; tile++) {
        size_t n = (size_t)dz_tile_count(&tiles, tile);
        a->delta.len = 0;
        if (dz_buf_reserve(&a->delta, n * sizeof(float), &err) != DZ_OK) break;
        float *delta = (float *)(void *)a->delta.data;
        if (dz_decode_delta(&a->decoder, &a->archive->catalog->tasks[task], row, tile, delta, &err) == DZ_OK)
            take(arg, dz_tile_first(&tiles, tile), delta, n);
    }
    return report(&err, message, size);
}

static void take_dense(void *arg, uint64_t first, const float *delta, size_t n) { memcpy((float *)arg + first, delta, n * sizeof *delta); }

int deltazoo_delta(deltazoo_archive *a, size_t task, size_t index, float *dst, char *message, size_t size) {
    deltazoo_tensor t;
    if (deltazoo_tensor_at(a, task, index, &t) == DELTAZOO_OK && strcmp(t.policy, "ultradelta") == 0) {
        uint64_t count = 1;
        for (uint32_t d = 0; d < t.ndim; d++) count *= t.shape[d];
        memset(dst, 0, (size_t)count * sizeof *dst); /* rows beyond the base have no delta */
    }
    return each_delta(a, task, index, take_dense, dst, message, size);
}

typedef struct sparse {
    uint64_t n, room, *positions;
    float *values;
} sparse;

static void take_sparse(void *arg, uint64_t first, const float *delta, size_t n) {
    sparse *s = arg;
    for (size_t i = 0; i < n; i++) {
        if (delta[i] == 0) continue;
        if (s->positions && s->values && s->n < s->room) {
            s->positions[s->n] = first + i;
            s->values[s->n] = delta[i];
        }
        s->n++;
    }
}

int deltazoo_delta_sparse(deltazoo_archive *a, size_t task, size_t index, uint64_t *count, uint64_t *positions, float *values,
                          char *message, size_t size) {
    sparse s = {.room = *count, .positions = positions, .values = values};
    int rc = each_delta(a, task, index, take_sparse, &s, message, size);
    dz_error err = {0};
    if (rc != DELTAZOO_OK) return rc;
    *count = s.n;
    if (positions && values && s.n > s.room)
        dz_fail(&err, DZ_EUSAGE, "room for %llu values, %llu are needed", (unsigned long long)s.room, (unsigned long long)s.n);
    return report(&err, message, size);
}

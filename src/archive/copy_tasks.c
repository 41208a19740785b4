#include "archive/copy_tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define PIECE ((uint64_t)8 << 20)

dz_rc dz_copy_tasks_open(dz_copy_tasks *c, const dz_world *world, const char *path, dz_error *err) {
    *c = (dz_copy_tasks){0};
    if (dz_archive_open_partly(path, &c->old, err) == DZ_OK) {
        c->ntasks = c->old->catalog->ntasks;
        c->leave = dz_alloc(c->ntasks, 1, err);
        c->drop = dz_alloc(c->old->catalog->nlost, 1, err);
    }
    return dz_sync_error(world, err->rc, err);
}

void dz_copy_tasks_close(dz_copy_tasks *c) {
    dz_archive_close(c->old);
    free(c->leave);
    free(c->drop);
    free(c->heir);
    dz_lookup_free(&c->heirs);
    dz_lookup_free(&c->anew);
    free(c->anew_length);
    *c = (dz_copy_tasks){0};
}

int dz_copy_tasks_leave(dz_copy_tasks *c, const char *task) {
    if (!c->old) return 0;
    int64_t t = dz_catalog_find(c->old->catalog, task);
    const dz_lost *lost = t < 0 ? dz_catalog_find_lost(c->old->catalog, task) : NULL;
    if (lost) return c->drop[lost - c->old->catalog->lost] = 1;
    if (t < 0) return 0;
    if (!c->leave[t]) c->ntasks--;
    c->leave[t] = 1;
    return 1;
}

int dz_copy_tasks_has(const dz_copy_tasks *c, const char *task) {
    return c->old && (dz_catalog_find(c->old->catalog, task) >= 0 || dz_catalog_find_lost(c->old->catalog, task));
}

static int leaves(const dz_copy_tasks *c, const dz_task_entry *task) { return c->leave[task - c->old->catalog->tasks]; }

/* Number of a row among all rows of its archive, to find it again. */
typedef struct row_key {
    const dz_index_row *row;
} row_key;

/* What a row refers to, once tasks have been left out. */
typedef struct referred {
    const dz_task_entry *task;
    const dz_index_row *row;
    int is_itself; /* the row gets the bytes of `row`, whose task goes */
} referred;

/* Bytes can go to another task if nothing but the base is needed to decode them: lossy ones belong to their task's key. */
static int can_move(const dz_index_row *row) { return row->policy == DZ_POLICY_LOSSLESS && row->source == 0; }

int dz_copy_tasks_needs(const dz_task_entry *task, const dz_task_entry *source) {
    for (size_t i = 0; i < task->nrows; i++) {
        const dz_index_row *row = &task->rows[i];
        const dz_task_entry *holder = task;
        if (!row->source || row->up_task != source) continue;
        if (row->policy != DZ_POLICY_EQUAL || !can_move(dz_row_values(&holder, row))) return 1;
    }
    return 0;
}

/* Rows that get the bytes of a task that goes: the first of those that stay and are equal to them. */
static dz_rc find_heirs(dz_copy_tasks *c, dz_error *err) {
    const dz_catalog *from = c->old->catalog;
    dz_lookup_free(&c->heirs);
    c->nheirs = 0;
    for (size_t t = 0; t < from->ntasks; t++) {
        for (size_t i = 0; i < from->tasks[t].nrows && !c->leave[t]; i++) {
            const dz_index_row *row = &from->tasks[t].rows[i];
            const dz_task_entry *holder = &from->tasks[t];
            if (!row->source || row->policy != DZ_POLICY_EQUAL) continue;
            row_key key = {dz_row_values(&holder, row)};
            if (!leaves(c, holder) || !can_move(key.row)) continue;
            if (c->nheirs == UINT32_MAX || dz_lookup_find(&c->heirs, &key, sizeof key) >= 0) continue;
            if (dz_grow((void **)&c->heir, &c->heirs_cap, c->nheirs + 1, sizeof *c->heir, err) != DZ_OK) return err->rc;
            c->heir[c->nheirs] = (dz_heir){.task = (uint32_t)t, .row = (uint32_t)i};
            if (dz_lookup_add(&c->heirs, &key, sizeof key, (uint32_t)c->nheirs++, err) != DZ_OK) return err->rc;
        }
    }
    return DZ_OK;
}

/* 0: what the row needs goes, and no other has it. */
static int refer(const dz_copy_tasks *c, const dz_index_row *row, referred *out) {
    const dz_task_entry *holder = row->up_task;
    row_key key = {dz_row_values(&holder, row->up)};
    *out = (referred){.task = row->up_task, .row = row->up};
    if (!leaves(c, row->up_task)) return 1;
    *out = (referred){.task = holder, .row = key.row};
    if (!leaves(c, holder)) return 1;
    int64_t at = dz_lookup_find(&c->heirs, &key, sizeof key);
    if (at < 0) return 0;
    const dz_task_entry *heir = &c->old->catalog->tasks[c->heir[at].task];
    out->is_itself = &heir->rows[c->heir[at].row] == row;
    if (!out->is_itself) *out = (referred){.task = heir, .row = &heir->rows[c->heir[at].row]};
    return 1;
}

int dz_copy_tasks_in_vain(const dz_copy_tasks *c, const dz_index_row *row) {
    referred to;
    return row->source && !refer(c, row, &to);
}

int64_t dz_copy_tasks_anew(const dz_copy_tasks *c, const dz_index_row *row) {
    row_key key = {row};
    return dz_lookup_find(&c->anew, &key, sizeof key);
}

static int refers_in_vain(const dz_copy_tasks *c, const dz_task_entry *task, const dz_task_entry *gone) {
    referred to;
    for (size_t i = 0; i < task->nrows; i++) {
        if (task->rows[i].source && task->rows[i].up_task == gone && !refer(c, &task->rows[i], &to)) return 1;
    }
    return 0;
}

/* Tasks that stay and are coded against one that does not. */
static dz_rc check_sources(const dz_copy_tasks *c, dz_error *err) {
    const dz_catalog *from = c->old->catalog;
    for (size_t gone = 0; gone < from->ntasks; gone++) {
        char names[400] = "";
        size_t n = 0;
        for (size_t t = 0; t < from->ntasks && c->leave[gone]; t++) {
            size_t len = strlen(names);
            if (c->leave[t] || !refers_in_vain(c, &from->tasks[t], &from->tasks[gone])) continue;
            if (n++ < 4) snprintf(names + len, sizeof names - len, "%s'%.90s'", n > 1 ? ", " : "", from->tasks[t].name);
        }
        if (n)
            dz_fail_more(
                err, DZ_EUSAGE,
                "%s: task '%s' cannot go: %zu other%s coded against it: %s%s (keep it too, or 'deltazoo remove --rebase' codes %s anew)",
                c->old->path, from->tasks[gone].name, n, n > 1 ? "s are" : " is", names, n > 4 ? ", ..." : "", n > 1 ? "them" : "it");
    }
    return err->rc;
}

dz_rc dz_copy_tasks_check(dz_copy_tasks *c, dz_error *err) {
    const dz_catalog *from = c->old->catalog;
    const char *path = c->old->path;
    if (find_heirs(c, err) != DZ_OK) return err->rc;
    if (!c->rebase) check_sources(c, err);
    for (size_t i = 0; i < from->nlost; i++) {
        if (!c->drop[i] && from->lost[i].unread)
            dz_fail_more(err, DZ_EFAIL, "%s", from->lost[i].text);
        else if (!c->drop[i])
            dz_fail_more(err, DZ_EDAMAGE, "%s; 'deltazoo remove %s --task %s' drops it, 'deltazoo compress --replace' makes it anew",
                         from->lost[i].text, path, from->lost[i].name);
    }
    for (size_t t = 0; t < from->ntasks; t++) {
        dz_error inner = {0};
        char *text = NULL;
        size_t len = 0;
        if (c->leave[t]) continue;
        if (from->blobs_lost || from->tasks[t].files_lost)
            dz_fail(&inner, DZ_EDAMAGE, "%s", from->blobs_lost ? from->blobs_lost : from->tasks[t].files_lost);
        else
            dz_catalog_blob(from, from->tasks[t].recipe_blob, &text, &len, &inner);
        free(text);
        if (inner.rc != DZ_OK)
            dz_fail_more(err, inner.rc, "%.1200s: task '%s' cannot be copied ('deltazoo restore --keep-going' restores what is left of it)",
                         inner.text, from->tasks[t].name);
        if (from->blobs_lost) break;
    }
    return err->rc;
}

static dz_rc carry_tensor(const dz_catalog *from, dz_catalog *to, uint32_t row, uint32_t *number, dz_error *err) {
    dz_tensor t = dz_tensor_of_row(&from->tensors[row]);
    return dz_catalog_tensor(to, &t, number, err);
}

static dz_rc carry_base(const dz_copy_tasks *c, dz_catalog *to, dz_error *err) {
    const dz_catalog *from = c->old->catalog;
    to->base = dz_alloc(from->nbase, sizeof *to->base, err);
    to->base_tiles = dz_alloc(from->nbase_tiles, sizeof *to->base_tiles, err);
    if (err->rc != DZ_OK) return err->rc;
    to->nbase = from->nbase;
    to->nbase_tiles = from->nbase_tiles;
    memcpy(to->base, from->base, from->nbase * sizeof *to->base);
    memcpy(to->base_tiles, from->base_tiles, from->nbase_tiles * sizeof *to->base_tiles);
    to->fingerprint = from->fingerprint;
    if (from->base_name) to->base_name = dz_strdup(from->base_name, err);
    if (from->base_origin) to->base_origin = dz_strdup(from->base_origin, err);
    if (from->base_revision) to->base_revision = dz_strdup(from->base_revision, err);
    int64_t stored = from->stored_name ? dz_catalog_find(from, from->stored_name) : -1;
    if (stored >= 0 && !c->leave[stored]) to->stored_name = dz_strdup(from->stored_name, err);
    for (size_t i = 0; i < to->nbase; i++) {
        if (carry_tensor(from, to, from->base[i].tensor, &to->base[i].tensor, err) != DZ_OK) return err->rc;
    }
    return dz_catalog_mark_vocabulary(to, err);
}

/* A row that refers to another one, to what that is now. One that gets bytes lies behind the rows before it. */
static dz_rc carry_reference(const dz_copy_tasks *c, const dz_index_row *old, dz_task_entry *t, dz_index_row *row, dz_error *err) {
    referred to = {0};
    uint32_t tensor = row->tensor;
    if (!old->source) return DZ_OK;
    if (!refer(c, old, &to)) return dz_fail(err, DZ_EFAIL, "%s: task '%s': what it is coded against is left out", c->old->path, t->name);
    if (to.is_itself) {
        *row = *to.row;
        row->tensor = tensor;
        row->digest = old->digest;
        return DZ_OK;
    }
    row->reference = (uint32_t)(to.row - to.task->rows);
    return dz_task_add_source(t, to.task->name, &row->source, err);
}

/* The row becomes an exact one over the base. What is known of its noise stays: its values are not the original's. */
static void code_anew(const dz_copy_tasks *c, const dz_task_entry *task, const dz_index_row *row, dz_task_entry *t, dz_index_row *out) {
    const dz_task_entry *holder = task;
    const dz_index_row *values = dz_row_values(&holder, row);
    int lossy = dz_row_is_lossy(row);
    uint64_t common = dz_row_common(c->old->catalog, row);
    *out = (dz_index_row){.tensor = out->tensor,
                          .base = row->base,
                          .policy = DZ_POLICY_LOSSLESS,
                          .length = c->anew_length[dz_copy_tasks_anew(c, row)],
                          .digest = row->digest,
                          .gain = 1};
    if (lossy) {
        out->nsr = isfinite(values->nsr) && values->nsr > 0 ? values->nsr : 1;
        out->gain = values->gain * holder->gamma / task->gamma;
        out->delta_rms = values->delta_rms;
        out->base_rms = values->base_rms;
    }
    if (row->policy != DZ_POLICY_ULTRADELTA) return;
    dz_tensor tensor = dz_tensor_of_row(&c->old->catalog->tensors[row->tensor]);
    double share =
        t->lossy_parameters ? (double)common / (double)t->lossy_parameters : 0; /* of the figures that are kept for the whole task */
    t->value_bits *= 1 - share;
    t->entropy_bytes *= 1 - share;
    t->lossy_parameters -= common;
    t->lossy_source_bytes -= common * dz_dtype_size(tensor.dtype);
    t->lossy_kept -= row->kept;
}

static dz_rc carry_task(const dz_copy_tasks *c, const dz_task_entry *task, dz_catalog *to, dz_error *err) {
    const dz_catalog *from = c->old->catalog;
    dz_task_entry *t = &to->tasks[to->ntasks++];
    *t = *task;
    t->name = t->recipe = t->recipe_text = t->score = NULL;
    t->rows = NULL;
    t->files = NULL;
    t->sources = NULL;
    t->nfiles = t->nsources = 0;
    t->index_bytes = t->meta_bytes = t->payload_offset = 0;
    t->name = dz_strdup(task->name, err);
    t->recipe = dz_strdup(task->recipe, err);
    if (task->score) t->score = dz_strdup(task->score, err);
    t->rows = dz_alloc(task->nrows, sizeof *t->rows, err);
    t->files = dz_alloc(task->nfiles, sizeof *t->files, err);
    if (err->rc != DZ_OK || dz_catalog_copy_blob(to, from, task->recipe_blob, &t->recipe_blob, err) != DZ_OK) return err->rc;
    memcpy(t->rows, task->rows, task->nrows * sizeof *t->rows);
    t->payload_len = 0;
    for (size_t i = 0; i < t->nrows; i++) {
        if (carry_tensor(from, to, task->rows[i].tensor, &t->rows[i].tensor, err) != DZ_OK) return err->rc;
        if (dz_copy_tasks_anew(c, &task->rows[i]) >= 0)
            code_anew(c, task, &task->rows[i], t, &t->rows[i]);
        else if (carry_reference(c, &task->rows[i], t, &t->rows[i], err) != DZ_OK)
            return err->rc;
        t->rows[i].up = NULL;
        t->rows[i].up_task = NULL;
        t->rows[i].offset = t->payload_len;
        t->payload_len += t->rows[i].length;
    }
    for (size_t i = 0; i < task->nfiles; i++) {
        dz_file_row *f = &t->files[t->nfiles];
        *f = task->files[i];
        f->fused = NULL;
        if (!(f->path = dz_strdup(task->files[i].path, err))) return err->rc;
        t->nfiles++;
        if (!(f->fused = dz_alloc(f->nfused, sizeof *f->fused, err))) return err->rc;
        if (f->nfused) memcpy(f->fused, task->files[i].fused, f->nfused * sizeof *f->fused);
        if (dz_catalog_copy_blob(to, from, task->files[i].blob, &f->blob, err) != DZ_OK) return err->rc;
    }
    return dz_catalog_add_files(to, t, err);
}

dz_rc dz_copy_tasks_catalog(const dz_copy_tasks *c, dz_catalog *to, size_t more, dz_error *err) {
    const dz_catalog *from = c->old->catalog;
    to->format_version = DZ_FORMAT_VERSION;
    to->trace_reference = from->trace_reference;
    if (!(to->tasks = dz_alloc(c->ntasks + more, sizeof *to->tasks, err)) || carry_base(c, to, err) != DZ_OK) return err->rc;
    for (size_t t = 0; t < from->ntasks && err->rc == DZ_OK; t++) {
        if (!c->leave[t]) carry_task(c, &from->tasks[t], to, err);
    }
    return err->rc;
}

/* Bytes that lie one after another in both archives. */
typedef struct run {
    uint64_t from, to, len;
} run;

typedef struct payload_copy {
    const dz_copy_tasks *c;
    const dz_world *world;
    dz_extent_writer *writer;
    uint64_t piece; /* of all; ranks take them in turn */
    dz_buf bytes;
} payload_copy;

static dz_rc copy_run(payload_copy *p, run r, dz_error *err) {
    const dz_archive *old = p->c->old;
    for (uint64_t at = 0; at < r.len && err->rc == DZ_OK; at += PIECE, p->piece++) {
        if (p->piece % (uint64_t)p->world->size != (uint64_t)p->world->rank) continue;
        size_t len = (size_t)(r.len - at < PIECE ? r.len - at : PIECE);
        if (dz_pread_all(old->fd, old->path, p->bytes.data, len, r.from + at, err) == DZ_OK)
            dz_extent_put(p->writer, r.to + at, p->bytes.data, len, err);
    }
    return err->rc;
}

/* A task's own regions, and between them those that it gets from tasks that go. */
static dz_rc copy_task(payload_copy *p, const dz_task_entry *task, uint64_t to, dz_error *err) {
    run r = {.to = to};
    for (size_t i = 0; i < task->nrows && err->rc == DZ_OK; i++) {
        const dz_index_row *row = &task->rows[i];
        const dz_task_entry *of = task;
        referred other = {0};
        if (row->source && refer(p->c, row, &other) && other.is_itself) {
            row = other.row;
            of = other.task;
        }
        int64_t anew = dz_copy_tasks_anew(p->c, row);
        if (anew >= 0) { /* a gap, which the caller fills */
            copy_run(p, r, err);
            r = (run){.to = r.to + r.len + p->c->anew_length[anew]};
            continue;
        }
        if (row->length == 0) continue;
        uint64_t from = of->payload_offset + row->offset;
        if (r.len && from != r.from + r.len) {
            copy_run(p, r, err);
            r = (run){.to = r.to + r.len};
        }
        if (r.len == 0) r.from = from;
        r.len += row->length;
    }
    return err->rc == DZ_OK ? copy_run(p, r, err) : err->rc;
}

dz_rc dz_copy_tasks_payloads(const dz_copy_tasks *c, const dz_world *world, const dz_catalog *catalog, dz_extent_writer *w, dz_error *err) {
    if (!c->old) return DZ_OK;
    uint64_t *where = dz_alloc(c->ntasks, sizeof *where, err);
    payload_copy p = {.c = c, .world = world, .writer = w};
    dz_buf_reserve(&p.bytes, (size_t)PIECE, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc != DZ_OK) goto out;
    for (size_t t = 0; t < c->ntasks && world->rank == 0; t++) where[t] = catalog->tasks[t].payload_offset;
    dz_bcast_u64(world, where, c->ntasks);
    for (size_t t = 0, to = 0; t < c->old->catalog->ntasks && err->rc == DZ_OK; t++) {
        if (!c->leave[t]) copy_task(&p, &c->old->catalog->tasks[t], where[to++], err);
    }
    rc = err->rc;
out:
    free(where);
    dz_buf_free(&p.bytes);
    return rc;
}

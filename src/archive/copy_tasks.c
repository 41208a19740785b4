#include "archive/copy_tasks.h"

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
    *c = (dz_copy_tasks){0};
}

/* The number of a task among those that cannot be read, or -1. */
static int64_t find_lost(const dz_copy_tasks *c, const char *task) {
    for (size_t i = 0; c->old && i < c->old->catalog->nlost; i++) {
        if (strcmp(c->old->catalog->lost[i].name, task) == 0) return (int64_t)i;
    }
    return -1;
}

int dz_copy_tasks_leave(dz_copy_tasks *c, const char *task) {
    int64_t t = c->old ? dz_catalog_find(c->old->catalog, task) : -1, lost = t < 0 ? find_lost(c, task) : -1;
    if (lost >= 0) return c->drop[lost] = 1;
    if (t < 0) return 0;
    if (!c->leave[t]) c->ntasks--;
    c->leave[t] = 1;
    return 1;
}

int dz_copy_tasks_has(const dz_copy_tasks *c, const char *task) {
    return c->old && (dz_catalog_find(c->old->catalog, task) >= 0 || find_lost(c, task) >= 0);
}

/* Tasks that stay and are coded against one that does not. */
static dz_rc check_sources(const dz_copy_tasks *c, dz_error *err) {
    const dz_catalog *from = c->old->catalog;
    for (size_t gone = 0; gone < from->ntasks; gone++) {
        char names[400] = "";
        size_t n = 0;
        for (size_t t = 0; t < from->ntasks && c->leave[gone]; t++) {
            for (size_t s = 0; s < from->tasks[t].nsources && !c->leave[t]; s++) {
                size_t len = strlen(names);
                if (strcmp(from->tasks[t].sources[s], from->tasks[gone].name) != 0) continue;
                if (n++ < 4) snprintf(names + len, sizeof names - len, "%s'%.90s'", n > 1 ? ", " : "", from->tasks[t].name);
            }
        }
        if (n)
            dz_fail_more(err, DZ_EUSAGE, "%s: task '%s' cannot go: %zu other%s coded against it: %s%s", c->old->path,
                         from->tasks[gone].name, n, n > 1 ? "s are" : " is", names, n > 4 ? ", ..." : "");
    }
    return err->rc;
}

dz_rc dz_copy_tasks_check(const dz_copy_tasks *c, dz_error *err) {
    const dz_catalog *from = c->old->catalog;
    const char *path = c->old->path;
    check_sources(c, err);
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
    return DZ_OK;
}

static dz_rc carry_task(const dz_catalog *from, const dz_task_entry *task, dz_catalog *to, dz_error *err) {
    dz_task_entry *t = &to->tasks[to->ntasks++];
    uint32_t number;
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
    for (size_t i = 0; i < task->nsources; i++) dz_task_add_source(t, task->sources[i], &number, err);
    t->rows = dz_alloc(task->nrows, sizeof *t->rows, err);
    t->files = dz_alloc(task->nfiles, sizeof *t->files, err);
    if (err->rc != DZ_OK || dz_catalog_copy_blob(to, from, task->recipe_blob, &t->recipe_blob, err) != DZ_OK) return err->rc;
    memcpy(t->rows, task->rows, task->nrows * sizeof *t->rows);
    for (size_t i = 0; i < t->nrows; i++) {
        t->rows[i].up = NULL;
        t->rows[i].up_task = NULL;
        if (carry_tensor(from, to, task->rows[i].tensor, &t->rows[i].tensor, err) != DZ_OK) return err->rc;
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
        if (!c->leave[t]) carry_task(from, &from->tasks[t], to, err);
    }
    return err->rc;
}

dz_rc dz_copy_tasks_payloads(const dz_copy_tasks *c, const dz_world *world, const dz_catalog *catalog, dz_extent_writer *w, dz_error *err) {
    if (!c->old) return DZ_OK;
    uint64_t *where = dz_alloc(c->ntasks, sizeof *where, err), piece = 0;
    dz_buf bytes = {0};
    dz_buf_reserve(&bytes, (size_t)PIECE, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc != DZ_OK) goto out;
    for (size_t t = 0; t < c->ntasks && world->rank == 0; t++) where[t] = catalog->tasks[t].payload_offset;
    dz_bcast_u64(world, where, c->ntasks);
    for (size_t t = 0, to = 0; t < c->old->catalog->ntasks; t++) {
        const dz_task_entry *task = &c->old->catalog->tasks[t];
        if (c->leave[t]) continue;
        for (uint64_t at = 0; at < task->payload_len && err->rc == DZ_OK; at += PIECE, piece++) {
            if (piece % (uint64_t)world->size != (uint64_t)world->rank) continue;
            size_t len = (size_t)(task->payload_len - at < PIECE ? task->payload_len - at : PIECE);
            if (dz_pread_all(c->old->fd, c->old->path, bytes.data, len, task->payload_offset + at, err) == DZ_OK)
                dz_extent_put(w, where[to] + at, bytes.data, len, err);
        }
        to++;
    }
    rc = err->rc;
out:
    free(where);
    dz_buf_free(&bytes);
    return rc;
}

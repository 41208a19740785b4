#include "archive_ops/coverage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/originals.h"
#include "archive/reader.h"
#include "base/file.h"
#include "config/zoo.h"
#include "restore/restore.h"

typedef struct finder {
    const dz_world *world;
    const dz_catalog *c;
    dz_progress progress;
} finder;

const char *dz_cover_name(dz_cover cover) {
    static const char *const names[DZ_COVERS] = {"exact", "lossy", "partly", "changed", "missing", "base", "gone"};
    return names[cover];
}

void dz_coverage_free(dz_coverage *v) {
    for (size_t i = 0; i < v->n; i++) {
        free(v->list[i].name);
        free(v->list[i].path);
        free(v->list[i].why);
        dz_buf_free(&v->list[i].files);
    }
    free(v->list);
    *v = (dz_coverage){0};
}

static dz_rc say(dz_covered *one, dz_cover cover, const char *why, dz_error *err) {
    free(one->why);
    one->cover = cover;
    one->why = dz_strdup(why, err);
    if (one->why) dz_one_line(one->why);
    return err->rc;
}

/* Rank 0. By these a later look sees that nothing has been written since. */
static dz_rc note_file(dz_covered *one, const char *path, dz_error *err) {
    struct stat st;
    char *full = realpath(path, NULL);
    if (full && stat(full, &st) == 0)
        dz_buf_line(&one->files, err, "%lld\t%lld\t%s\n", (long long)st.st_size, (long long)dz_mtime_ns(&st), full);
    free(full);
    return err->rc;
}

static dz_rc note_files(dz_covered *one, const dz_checkpoint *ck, dz_error *err) {
    struct stat st;
    if (stat(one->path, &st) == 0 && S_ISDIR(st.st_mode)) note_file(one, one->path, err); /* a new file changes its time */
    for (size_t i = 0; i < ck->nshards && err->rc == DZ_OK; i++) note_file(one, ck->shards[i].path, err);
    for (size_t i = 0; i < ck->ncompanions && err->rc == DZ_OK; i++) note_file(one, ck->companions[i].path, err);
    return err->rc;
}

/* What is restored of a model whose content is that of the task. */
static dz_rc say_restored(const finder *f, const dz_task_entry *task, const dz_checkpoint *ck, dz_covered *one, dz_error *err) {
    dz_quality quality = dz_task_quality(f->c, task);
    dz_dropped dropped = dz_task_dropped(f->c, task);
    one->verdict = quality.verdict;
    if (dropped.ntensors) {
        char text[96];
        snprintf(text, sizeof text, "%zu of its tensors are dropped", dropped.ntensors);
        return say(one, DZ_COVER_PARTLY, text, err);
    }
    if (ck->nskipped_files) {
        char *text = dz_format(err, "%s%s the archive does not hold", ck->skipped_files[0].file,
                               ck->nskipped_files > 1 ? " and other files, which" : ", which");
        if (text) say(one, DZ_COVER_PARTLY, text, err);
        free(text);
        return err->rc;
    }
    return say(one, quality.verdict == DZ_VERDICT_EXACT ? DZ_COVER_EXACT : DZ_COVER_LOSSY, "", err);
}

/* Collective. The model as it is now against a task of the archive. */
static dz_rc compare_model(finder *f, const dz_task_entry *task, dz_checkpoint *ck, dz_covered *one, dz_error *err) {
    char why[DZ_ORIGINAL_WHY];
    dz_original state;
    if (f->world->rank == 0) note_files(one, ck, err);
    dz_rc rc = dz_sync_error(f->world, err->rc, err);
    if (rc == DZ_OK) rc = dz_original_check(f->world, f->c, task, ck, &f->progress, &state, why, err);
    if (rc != DZ_OK || f->world->rank != 0) return rc;
    if (state == DZ_ORIGINAL_SAME) return say_restored(f, task, ck, one, err);
    return say(one, DZ_COVER_CHANGED, why, err);
}

/* Collective. Opens a model; one that is not there or cannot be read is no failure. NULL: it is said why. */
static dz_rc open_model(const finder *f, dz_covered *one, dz_checkpoint **ck, dz_error *err) {
    dz_error why = {0};
    if (dz_checkpoint_open_all(f->world, one->path, ck, &why) == DZ_OK) {
        char *full = realpath(one->path, NULL);
        if (full) {
            free(one->path);
            one->path = full;
        }
        one->bytes = dz_checkpoint_nbytes(*ck);
        return DZ_OK;
    }
    dz_checkpoint_free(*ck);
    *ck = NULL;
    if (why.rc == DZ_ENOMEM) return dz_fail(err, why.rc, "%s", why.text);
    return say(one, access(one->path, F_OK) != 0 ? DZ_COVER_GONE : DZ_COVER_CHANGED, why.text, err);
}

static dz_rc find_task(finder *f, dz_covered *one, dz_error *err) {
    dz_checkpoint *ck = NULL;
    int64_t at = dz_catalog_find(f->c, one->name);
    dz_rc rc = open_model(f, one, &ck, err);
    if (rc == DZ_OK && ck && at < 0)
        rc = say(one, DZ_COVER_MISSING, "not in the archive", err);
    else if (rc == DZ_OK && ck)
        rc = compare_model(f, &f->c->tasks[at], ck, one, err);
    dz_checkpoint_free(ck);
    return dz_sync_error(f->world, rc, err);
}

/* The base: held by the archive, or to be kept. */
static dz_rc find_base(finder *f, dz_covered *one, dz_error *err) {
    dz_checkpoint *ck = NULL;
    char why[DZ_ORIGINAL_WHY];
    dz_original state;
    dz_rc rc = open_model(f, one, &ck, err);
    if (rc == DZ_OK && !ck && !f->c->stored && f->world->rank == 0)
        rc = dz_fail(err, DZ_EFAIL, "%s: the base cannot be read: %s", one->path, one->why);
    if (rc == DZ_OK && ck && f->c->stored) {
        rc = compare_model(f, &f->c->tasks[f->c->stored - 1], ck, one, err);
    } else if (rc == DZ_OK && ck) {
        if (f->world->rank == 0) note_files(one, ck, err);
        rc = dz_original_base_check(f->world, f->c, ck, &state, why, err);
        if (rc == DZ_OK && state != DZ_ORIGINAL_SAME)
            rc = dz_fail(err, DZ_EVALUE, "%s: not the base of this archive: %s differs", one->path, why);
        if (rc == DZ_OK) rc = say(one, DZ_COVER_BASE, "the archive does not hold its base", err);
    }
    dz_checkpoint_free(ck);
    return dz_sync_error(f->world, rc, err);
}

dz_rc dz_coverage_base(const dz_world *world, const char *manifest, char **path, dz_error *err) {
    dz_manifest *m = NULL;
    if (dz_manifest_load(manifest, &m, err) == DZ_OK) *path = dz_strdup(m->base, err);
    dz_manifest_free(m);
    return dz_sync_error(world, err->rc, err);
}

dz_rc dz_coverage_find(const dz_world *world, const char *archive, const char *manifest, int quiet, dz_coverage *v, dz_error *err) {
    finder f = {.world = world};
    dz_archive *a = NULL;
    dz_manifest *m = NULL;
    dz_manifest_load(manifest, &m, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc != DZ_OK || (rc = dz_archive_open_all(world, archive, &a, err)) != DZ_OK) goto out;
    f.c = a->catalog;
    if ((v->list = dz_alloc(m->ntasks + 1, sizeof *v->list, err))) {
        for (size_t i = 0; i <= m->ntasks && err->rc == DZ_OK; i++) {
            dz_covered *one = &v->list[v->n++];
            if (i) one->name = dz_strdup(m->tasks[i - 1].name, err);
            one->path = dz_strdup(i ? m->tasks[i - 1].path : m->base, err);
            one->why = dz_strdup("", err);
        }
    }
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    dz_progress_begin(&f.progress, world, "compare", 0, quiet);
    rc = find_base(&f, &v->list[0], err);
    for (size_t i = 1; i < v->n && rc == DZ_OK; i++) rc = find_task(&f, &v->list[i], err);
    dz_progress_end(&f.progress);
out:
    dz_manifest_free(m);
    dz_archive_close(a);
    return rc;
}

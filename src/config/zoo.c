#include "config/zoo.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

dz_rc dz_checkpoint_open_all(const dz_world *world, const char *path, dz_checkpoint **out, dz_error *err) {
    dz_buf packed = {0};
    dz_rc rc = DZ_OK;
    if (world->rank == 0) {
        rc = dz_checkpoint_load(path, out, err);
        if (rc == DZ_OK && world->size > 1) rc = dz_checkpoint_pack(*out, &packed, err);
    }
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) goto out;
    if (world->size == 1) goto out;
    if ((rc = dz_bcast_buf(world, &packed, err)) != DZ_OK) goto out;
    if (world->rank != 0) rc = dz_checkpoint_unpack(packed.data, packed.len, out, err);
    rc = dz_sync_error(world, rc, err);
out:
    dz_buf_free(&packed);
    return rc;
}

dz_rc dz_check_not_of_model(const dz_checkpoint *model, const char *out, dz_error *err) {
    if (access(out, F_OK) != 0) return DZ_OK;
    for (size_t i = 0; i < model->nshards + model->ncompanions; i++) {
        const char *path = i < model->nshards ? model->shards[i].path : model->companions[i - model->nshards].path;
        if (dz_same_file(out, path))
            return dz_fail(err, DZ_EUSAGE, "%s: is a file of the model %s: nothing is written over it", out, model->path);
    }
    return DZ_OK;
}

void dz_zoo_close(dz_zoo *zoo) {
    if (zoo->tasks) dz_zoo_cut(zoo, 0);
    free(zoo->tasks);
    free(zoo->own);
    free(zoo->names);
    dz_checkpoint_free(zoo->base);
    dz_recipe_free(zoo->recipe);
    dz_manifest_free(zoo->manifest);
    *zoo = (dz_zoo){0};
}

size_t dz_zoo_in_manifest(const dz_zoo *zoo, size_t task) {
    for (size_t m = 0; m < zoo->manifest->ntasks; m++) {
        if (zoo->manifest->tasks[m].name == zoo->names[task]) return m;
    }
    return DZ_NOT_IN_MANIFEST;
}

void dz_zoo_keep(dz_zoo *zoo, size_t from, size_t to) {
    dz_checkpoint *task = zoo->tasks[from];
    zoo->tasks[from] = zoo->tasks[to]; /* what is left out is freed by dz_zoo_cut */
    zoo->tasks[to] = task;
    zoo->names[to] = zoo->names[from];
    if (!zoo->own) return;
    dz_recipe *own = zoo->own[from];
    zoo->own[from] = zoo->own[to];
    zoo->own[to] = own;
}

void dz_zoo_cut(dz_zoo *zoo, size_t ntasks) {
    for (size_t t = ntasks; t < zoo->ntasks; t++) {
        dz_checkpoint_free(zoo->tasks[t]);
        zoo->tasks[t] = NULL;
        if (!zoo->own) continue;
        dz_recipe_free(zoo->own[t]);
        zoo->own[t] = NULL;
    }
    zoo->ntasks = ntasks;
}

void dz_zoo_leave_out(dz_zoo *zoo, const uint8_t *marked) {
    size_t kept = 0;
    for (size_t t = 0; t < zoo->ntasks; t++) {
        if (!marked[t]) dz_zoo_keep(zoo, t, kept++);
    }
    dz_zoo_cut(zoo, kept);
}

/* A task that is the base itself, by its path or by a link to it, is a mistake of the manifest. */
static void check_not_base(const dz_manifest *m, dz_error *err) {
    struct stat base, task;
    if (!m->base || stat(m->base, &base) != 0) return; /* reported elsewhere */
    for (size_t t = 0; t < m->ntasks; t++) {
        const dz_manifest_task *it = &m->tasks[t];
        if (it->path && stat(it->path, &task) == 0 && task.st_dev == base.st_dev && task.st_ino == base.st_ino)
            dz_fail_more(err, DZ_EUSAGE, "%s:%d: task '%s': %s is the base itself", m->path, it->line, it->name ? it->name : "?", it->path);
    }
}

/* Leaves one task. */
static void take_only(dz_manifest *m, const char *only, dz_error *err) {
    size_t at = 0;
    while (at < m->ntasks && !(m->tasks[at].name && strcmp(m->tasks[at].name, only) == 0)) at++;
    if (at == m->ntasks) {
        if (err->rc == DZ_OK) dz_fail(err, DZ_EUSAGE, "%s: has no task '%s'", m->path, only);
        return;
    }
    dz_manifest_task first = m->tasks[0];
    m->tasks[0] = m->tasks[at];
    m->tasks[at] = first;
    while (m->ntasks > 1) dz_manifest_task_free(&m->tasks[--m->ntasks]);
    free(m->tasks[0].parent); /* which is not there */
    m->tasks[0].parent = NULL;
}

static dz_rc open_manifest(const char *path, const char *only, dz_zoo *zoo, dz_error *err) {
    dz_manifest_load(path, &zoo->manifest, err);
    if (!zoo->manifest) return err->rc;
    if (only) take_only(zoo->manifest, only, err);
    size_t n = zoo->manifest->ntasks;
    zoo->tasks = dz_alloc(n, sizeof *zoo->tasks, err);
    zoo->names = dz_alloc(n, sizeof *zoo->names, err);
    zoo->own = dz_alloc(n, sizeof *zoo->own, err);
    if (!zoo->tasks || !zoo->names || !zoo->own) return err->rc;
    for (size_t t = 0; t < n; t++) zoo->names[t] = zoo->manifest->tasks[t].name;
    zoo->ntasks = n;
    return err->rc;
}

/* Without a base: a model of no tensors. */
static dz_rc no_base(dz_zoo *zoo, dz_error *err) {
    zoo->base = dz_alloc(1, sizeof *zoo->base, err);
    if (zoo->base) zoo->base->path = dz_strdup("none", err);
    return err->rc;
}

/* Every model that cannot be opened gets its line. */
static void load_models(dz_zoo *zoo, dz_error *err) {
    for (size_t t = 0; t <= zoo->ntasks; t++) {
        dz_error one = {0};
        const char *path = t == 0 ? zoo->manifest->base : zoo->manifest->tasks[t - 1].path;
        if (t == 0 && zoo->manifest->no_base) no_base(zoo, &one);
        if (path) dz_checkpoint_load(path, t == 0 ? &zoo->base : &zoo->tasks[t - 1], &one);
        dz_fail_join(err, &one);
    }
}

static const char *const EXACT_SETS[] = {"quality=lossless"};
static const dz_recipe_request EXACT = {.sets = EXACT_SETS, .nsets = 1};

/* The recipe, and those of tasks with settings of their own: in the manifest, or by the request, which goes before it. */
static dz_rc load_recipes(const dz_recipe_request *request, dz_zoo *zoo, dz_error *err) {
    int no_base = zoo->manifest && zoo->manifest->no_base, asked = request->recipe || request->nsets;
    if (dz_recipe_load(no_base && !asked ? &EXACT : request, &zoo->recipe, err) != DZ_OK) return err->rc;
    if (no_base && !dz_recipe_is_exact(zoo->recipe))
        return dz_fail(err, DZ_EUSAGE, "%s: names no base: its tasks can only be kept exactly (--quality or --recipe lossless)",
                       zoo->manifest->path);
    for (size_t t = 0; zoo->manifest && t < zoo->ntasks; t++) {
        const dz_manifest_task *task = &zoo->manifest->tasks[t];
        dz_task_request own = {.task = task->name};
        for (int k = 0; k < DZ_MANIFEST_KEYS; k++) {
            if (task->sets[k]) own.sets[own.nsets++] = task->sets[k];
        }
        char *where = dz_format(err, "%s:%d", zoo->manifest->path, task->line);
        for (size_t i = 0; task->name && i < request->nown; i++)
            own = strcmp(request->own[i].task, task->name) == 0 ? request->own[i] : own;
        if (where && own.nsets && no_base)
            return free(where), dz_fail(err, DZ_EUSAGE, "%s:%d: task '%s': has settings, but there is no base: it is kept exactly",
                                        zoo->manifest->path, task->line, task->name);
        if (where && own.nsets) dz_recipe_load_own(request, &own, where, &zoo->own[t], err);
        free(where);
    }
    return err->rc;
}

/* Rank 0: opens manifest, models and recipe. A problem with one does not keep it from the others. */
static dz_rc open_all(const char *manifest, const dz_recipe_request *request, dz_zoo *zoo, dz_error *err) {
    dz_error of_recipe = {0};
    open_manifest(manifest, request->only, zoo, err);
    if (zoo->manifest) {
        check_not_base(zoo->manifest, err);
        load_models(zoo, err);
    }
    load_recipes(request, zoo, &of_recipe);
    dz_fail_join(err, &of_recipe);
    return err->rc;
}

static dz_rc share_model(const dz_world *world, dz_checkpoint **ck, dz_error *err) {
    dz_buf packed = {0};
    dz_rc rc = world->rank == 0 ? dz_checkpoint_pack(*ck, &packed, err) : DZ_OK;
    if ((rc = dz_sync_error(world, rc, err)) == DZ_OK) rc = dz_bcast_buf(world, &packed, err);
    if (rc == DZ_OK) {
        if (world->rank != 0) rc = dz_checkpoint_unpack(packed.data, packed.len, ck, err);
        rc = dz_sync_error(world, rc, err);
    }
    dz_buf_free(&packed);
    return rc;
}

dz_rc dz_zoo_check_originals(const dz_zoo *zoo, int allow, dz_buf *notes, dz_error *err) {
    for (size_t t = 0; t <= zoo->ntasks; t++) {
        const dz_checkpoint *ck = t == 0 ? zoo->base : zoo->tasks[t - 1];
        if (!ck || !ck->lossy) continue;
        if (allow)
            dz_buf_note(notes, err, "%s is not an original: it was restored from a lossy archive (%s)", ck->path, ck->lossy);
        else
            dz_fail_more(err, DZ_EUSAGE,
                         "%s: not an original: restored from a lossy archive (%s); compress the original, or give --allow-lossy-input "
                         "('deltazoo unmark' takes the mark off)",
                         ck->path, ck->lossy);
    }
    return err->rc;
}

/* A copy of the base's headers, and of its list of files. */
static dz_rc copy_model(dz_checkpoint *of, dz_checkpoint **out, dz_error *err) {
    dz_buf packed = {0};
    if (dz_checkpoint_pack(of, &packed, err) == DZ_OK) dz_checkpoint_unpack(packed.data, packed.len, out, err);
    dz_buf_free(&packed);
    return err->rc;
}

dz_rc dz_zoo_store_base(dz_zoo *zoo, dz_error *err) {
    size_t n = zoo->ntasks;
    if (zoo->manifest->no_base) return dz_fail(err, DZ_EUSAGE, "%s: there is no base to store", zoo->manifest->path);
    for (size_t t = 0; t < n; t++) {
        if (strcmp(zoo->names[t], DZ_STORED_NAME) == 0)
            return dz_fail(err, DZ_EUSAGE, "%s: task '%s': the base that is stored has this name: give the task another",
                           zoo->manifest->path, zoo->names[t]);
    }
    dz_checkpoint **tasks = realloc(zoo->tasks, (n + 1) * sizeof *tasks);
    if (tasks) zoo->tasks = tasks;
    const char **names = realloc(zoo->names, (n + 1) * sizeof *names);
    if (names) zoo->names = names;
    dz_recipe **own = realloc(zoo->own, (n + 1) * sizeof *own);
    if (own) zoo->own = own;
    if (!tasks || !names || !own) return dz_fail(err, DZ_ENOMEM, "out of memory");
    tasks[n] = NULL;
    own[n] = NULL;
    names[n] = DZ_STORED_NAME;
    zoo->ntasks++;
    if (copy_model(zoo->base, &tasks[n], err) != DZ_OK) return err->rc;
    zoo->stored = tasks[n];
    return dz_recipe_load(&EXACT, &own[n], err);
}

dz_rc dz_zoo_open(const dz_world *world, const char *manifest, const dz_recipe_request *request, dz_zoo *zoo, dz_error *err) {
    *zoo = (dz_zoo){0};
    dz_rc rc = world->rank == 0 ? open_all(manifest, request, zoo, err) : DZ_OK;
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK || world->size == 1) return rc;
    if (world->rank != 0) rc = open_manifest(manifest, request->only, zoo, err);
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) return rc;
    for (size_t t = 0; t <= zoo->ntasks; t++) {
        if ((rc = share_model(world, t == 0 ? &zoo->base : &zoo->tasks[t - 1], err)) != DZ_OK) return rc;
    }
    if (world->rank != 0) rc = load_recipes(request, zoo, err);
    return dz_sync_error(world, rc, err);
}

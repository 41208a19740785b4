#include "compress/chains.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/notes.h"
#include "compress/auto_parent.h"
#include "compress/method.h"

int dz_has_parents(const dz_zoo *zoo) {
    for (size_t m = 0; m < zoo->manifest->ntasks; m++) {
        if (zoo->manifest->tasks[m].parent) return 1;
    }
    return 0;
}

/* The tasks of a job while their order is looked for. Numbers are the manifest's. */
typedef struct ordering {
    const dz_manifest *m;
    dz_generations *g;
    const dz_catalog *old;
    dz_lookup names;
    uint8_t *in_job, *state; /* state: 0 new, 1 begun, 2 done */
    uint32_t *depth;
    uint32_t anchor_every;
    dz_buf *notes;
} ordering;

static int64_t number_of(const ordering *o, const char *name) { return dz_lookup_find(&o->names, name, strlen(name)); }

/* What the task's parent is: a task of the job (its number), one of the archive (-1 and its depth), or none (-2). */
static int64_t find_parent(const ordering *o, size_t m, unsigned *depth, dz_error *err) {
    const dz_manifest_task *task = &o->m->tasks[m];
    if (!o->g->parent[m]) return -2;
    int64_t at = number_of(o, o->g->parent[m]), there = o->old ? dz_catalog_find(o->old, o->g->parent[m]) : -1;
    if (at >= 0 && o->in_job[at]) return at;
    if (there >= 0) {
        *depth = dz_task_depth(&o->old->tasks[there]);
        return -1;
    }
    if (at >= 0)
        dz_buf_note(o->notes, err, "task '%s': its parent '%s' is left out: coded against the base", task->name, o->g->parent[m]);
    else if (o->g->foreseen)
        dz_buf_note(o->notes, err, "task '%s': its parent '%s' is not in the manifest: foreseen against the base", task->name,
                    o->g->parent[m]);
    else
        dz_fail_more(err, DZ_EUSAGE, "%s:%d: task '%s': its parent '%s' is neither in the manifest nor in the archive", o->m->path,
                     task->line, task->name, o->g->parent[m]);
    return -2;
}

/* The task is coded against the base. */
static void detach(ordering *o, size_t m) {
    free(o->g->parent[m]);
    o->g->parent[m] = NULL;
    o->depth[m] = 0;
    o->g->of[m] = 0;
}

/* Depth and generation of a task whose parent is settled: task `up` of the job, or of depth `old_depth` in the archive. */
static void settle(ordering *o, size_t m, int64_t up, unsigned old_depth) {
    uint32_t depth = (up >= 0 ? o->depth[up] : old_depth) + 1;
    if (depth >= o->anchor_every) {
        detach(o, m);
        return;
    }
    o->depth[m] = depth;
    o->g->of[m] = up >= 0 ? o->g->of[up] + 1 : 0;
}

/* Follows the parents up to one that is settled, and settles all on the way. */
static dz_rc order_task(ordering *o, size_t m, size_t *way, dz_error *err) {
    size_t n = 0;
    unsigned depth = 0;
    int64_t up = (int64_t)m;
    while (up >= 0 && o->state[up] == 0) {
        o->state[up] = 1;
        way[n++] = (size_t)up;
        up = find_parent(o, (size_t)up, &depth, err);
    }
    if (up >= 0 && o->state[up] == 1) {
        dz_fail_more(err, DZ_EUSAGE, "%s:%d: task '%s': its parents lead back to itself", o->m->path, o->m->tasks[up].line,
                     o->m->tasks[up].name);
        up = -2;
    }
    for (; n > 0; up = (int64_t)way[n]) {
        n--;
        if (up == -2)
            detach(o, way[n]);
        else
            settle(o, way[n], up, depth);
        o->state[way[n]] = 2;
    }
    return err->rc;
}

static dz_rc check_method(const dz_zoo *zoo, dz_error *err) {
    const dz_method *method = dz_method_of(zoo->recipe->method);
    if (method->trace_norms && zoo->recipe->tracenorm != DZ_TRACENORM_OFF && zoo->recipe->quality != DZ_QUALITY_LOSSLESS)
        dz_fail_more(
            err, DZ_EUSAGE,
            "%s: tasks have a `parent`, and method %s rescales all tasks by trace norms against the base: give --set tracenorm=off, "
            "or --method auto",
            zoo->manifest->path, method->name);
    return err->rc;
}

dz_rc dz_generations_make(const dz_world *world, int anchor_every, const dz_zoo *zoo, const dz_catalog *old, dz_generations *g,
                          dz_buf *notes, dz_error *err) {
    const dz_manifest *m = zoo->manifest;
    dz_buf dropped = {0};
    ordering o = {.m = m, .g = g, .old = old, .notes = world->rank == 0 ? notes : &dropped};
    size_t *way = dz_alloc(m->ntasks, sizeof *way, err);
    o.anchor_every = (uint32_t)(anchor_every ? anchor_every : DZ_ANCHOR_EVERY);
    o.in_job = dz_alloc(m->ntasks, 1, err);
    o.state = dz_alloc(m->ntasks, 1, err);
    o.depth = dz_alloc(m->ntasks, sizeof *o.depth, err);
    g->of = dz_alloc(m->ntasks, sizeof *g->of, err);
    g->parent = dz_alloc(m->ntasks, sizeof *g->parent, err);
    g->ntasks = err->rc == DZ_OK ? m->ntasks : 0;
    for (size_t i = 0; i < g->ntasks; i++) {
        g->of[i] = -1;
        if (m->tasks[i].parent) g->parent[i] = dz_strdup(m->tasks[i].parent, err);
        dz_lookup_add(&o.names, m->tasks[i].name, strlen(m->tasks[i].name), (uint32_t)i, err);
    }
    if (dz_sync_error(world, err->rc, err) != DZ_OK || dz_auto_parents(world, zoo, g->parent, err) != DZ_OK) goto out;
    for (size_t t = 0; t < zoo->ntasks && err->rc == DZ_OK; t++) {
        if (number_of(&o, zoo->names[t]) >= 0) o.in_job[number_of(&o, zoo->names[t])] = 1;
    }
    if (err->rc != DZ_OK) goto out;
    check_method(zoo, err);
    g->n = 1;
    for (size_t i = 0; i < m->ntasks; i++) {
        if (!o.in_job[i]) continue;
        order_task(&o, i, way, err);
        if ((size_t)g->of[i] + 1 > g->n) g->n = (size_t)g->of[i] + 1;
    }
out:
    dz_lookup_free(&o.names);
    free(o.in_job);
    free(o.state);
    free(o.depth);
    free(way);
    dz_buf_free(&dropped);
    return dz_sync_error(world, err->rc, err);
}

void dz_generations_free(dz_generations *g) {
    for (size_t i = 0; i < g->nown; i++) {
        free((char *)(uintptr_t)g->own[i].task);
        for (size_t k = 0; k < g->own[i].nsets; k++) free((char *)(uintptr_t)g->own[i].sets[k]);
    }
    free(g->own);
    for (size_t i = 0; g->parent && i < g->ntasks; i++) free(g->parent[i]);
    free(g->parent);
    free(g->of);
    free(g->dir);
    free(g->from);
    free(g->to);
    *g = (dz_generations){0};
}

dz_rc dz_chains_take(dz_chains *c, const dz_generations *g, dz_zoo *zoo, dz_error *err) {
    uint8_t *out = dz_alloc(zoo->ntasks, 1, err);
    c->others = dz_alloc(g->ntasks, sizeof *c->others, err);
    c->nothers = g->ntasks;
    for (size_t t = 0; err->rc == DZ_OK && t < zoo->ntasks; t++) {
        size_t m = dz_zoo_in_manifest(zoo, t);
        if (m == DZ_NOT_IN_MANIFEST || g->of[m] == (int32_t)g->at) continue;
        out[t] = 1;
        c->others[m] = zoo->tasks[t];
        zoo->tasks[t] = NULL;
    }
    if (err->rc == DZ_OK) dz_zoo_leave_out(zoo, out);
    free(out);
    return err->rc;
}

/* The geometry of the tiles is the same on both sides. */
static int same_tiles(const dz_pair_tiles *a, const dz_pair_tiles *b) {
    return a->ntiles == b->ntiles && a->ncommon == b->ncommon && a->common == b->common && a->extra.size == b->extra.size &&
           a->extra.count == b->extra.count && (a->ncommon == 0 || a->base.size == b->base.size);
}

/* The row of the parent that a tensor of its child is coded against, or -1. */
static int64_t row_for(const dz_catalog *c, const dz_task_entry *parent, const dz_lookup *rows, const dz_plan *plan,
                       const dz_tensor_pair *pair) {
    const dz_tensor *t = dz_pair_tensor(plan, pair);
    int64_t at = dz_lookup_find(rows, t->name, strlen(t->name));
    if (at < 0 || pair->tiles.ntiles == 0) return -1;
    const dz_index_row *row = dz_row_source(parent, &parent->rows[at]);
    dz_tensor have = dz_tensor_of_row(&c->tensors[row->tensor]);
    dz_pair_tiles tiles = dz_row_work(c, row);
    if (row->policy == DZ_POLICY_ABSENT || !dz_same_kind(&have, t) || !same_tiles(&tiles, &pair->tiles) || row->depth >= DZ_DEPTH_MAX)
        return -1;
    if (pair->lossy >= 0 && pair->tiles.extra.ntiles) return -1; /* rows that the base lacks would be lossy too */
    const char *base = row->base == DZ_NO_BASE ? NULL : c->tensors[c->base[row->base].tensor].name;
    const char *mine = pair->base >= 0 && pair->tiles.ncommon ? plan->base->tensors[pair->base].name : NULL;
    return (!base && !mine) || (base && mine && strcmp(base, mine) == 0) ? at : -1;
}

dz_rc dz_chains_open(dz_chains *c, const dz_generations *g, const dz_zoo *zoo, const dz_plan *plan, const dz_archive *old, dz_error *err) {
    if (!g->parent) return DZ_OK;
    c->parent = dz_alloc(plan->ntasks, sizeof *c->parent, err);
    c->model = dz_alloc(plan->ntasks, sizeof *c->model, err);
    c->row = dz_alloc(plan->npairs, sizeof *c->row, err);
    if (err->rc != DZ_OK) return err->rc;
    memset(c->row, 0xff, plan->npairs * sizeof *c->row);
    int any = 0;
    for (size_t t = 0; t < plan->ntasks && err->rc == DZ_OK; t++) {
        size_t number = dz_zoo_in_manifest(zoo, t);
        const char *name = number == DZ_NOT_IN_MANIFEST ? NULL : g->parent[number];
        int64_t at = name && old ? dz_catalog_find(old->catalog, name) : -1;
        dz_lookup rows = {0};
        if (at < 0) continue;
        c->parent[t] = &old->catalog->tasks[at];
        for (size_t m = 0; m < g->ntasks; m++) {
            if (strcmp(zoo->manifest->tasks[m].name, name) == 0) c->model[t] = c->others[m];
        }
        dz_task_rows(old->catalog, c->parent[t], &rows, err);
        for (size_t i = plan->first_pair[t]; i < plan->first_pair[t + 1] && err->rc == DZ_OK; i++)
            c->row[i] = row_for(old->catalog, c->parent[t], &rows, plan, &plan->pairs[i]);
        dz_lookup_free(&rows);
        any = 1;
    }
    if (any && err->rc == DZ_OK) c->open = dz_decoder_open(&c->decoder, old, zoo->base, NULL, err) == DZ_OK;
    return err->rc;
}

dz_rc dz_chains_models(dz_chains *c, const dz_world *world, const dz_zoo *zoo, size_t ntasks, dz_error *err) {
    const dz_manifest *manifest = zoo->manifest;
    dz_rc rc = DZ_OK;
    for (size_t t = 0; c->parent && t < ntasks && rc == DZ_OK; t++) {
        size_t m = 0;
        while (c->parent[t] && m < manifest->ntasks && strcmp(manifest->tasks[m].name, c->parent[t]->name) != 0) m++;
        if (!c->parent[t] || c->model[t] || m == manifest->ntasks) continue;
        dz_error why = {0};
        if (!c->others[m]) dz_checkpoint_open_all(world, manifest->tasks[m].path, &c->others[m], &why);
        rc = dz_sync_error(world, why.rc == DZ_ENOMEM ? dz_fail(err, why.rc, "%s", why.text) : DZ_OK, err);
        c->model[t] = why.rc == DZ_OK ? c->others[m] : NULL;
    }
    return rc;
}

void dz_chains_close(dz_chains *c) {
    if (c->open) dz_decoder_close(&c->decoder);
    for (size_t i = 0; c->others && i < c->nothers; i++) dz_checkpoint_free(c->others[i]);
    free(c->others);
    free(c->parent);
    free(c->model);
    free(c->row);
    *c = (dz_chains){0};
}

dz_rc dz_chains_tile(dz_chains *c, const dz_plan *plan, const dz_work_item *u, const uint8_t **bytes, dz_error *err) {
    const dz_task_entry *parent = c->parent[plan->pairs[u->pair].task];
    return dz_decoder_row(&c->decoder, parent, dz_row_source(parent, &parent->rows[c->row[u->pair]]), u->tile, bytes, err);
}

/* ---- Archives of generations: ARCHIVE.generations/IDENTITY.h5 ---- */

#define NAME_LEN 35 /* 32 digits and ".h5" */

static int is_generation(const char *name) {
    return strlen(name) >= NAME_LEN && strspn(name, "0123456789abcdef") == 32 && strncmp(name + 32, ".h5", 3) == 0;
}

/* Removes files of generations but one. */
static void clear(const char *dir, const char *keep) {
    DIR *d = opendir(dir);
    dz_error none = {0};
    for (struct dirent *e; d && (e = readdir(d));) {
        char *path = is_generation(e->d_name) ? dz_format(&none, "%s/%s", dir, e->d_name) : NULL;
        if (path && !(keep && strcmp(path, keep) == 0)) unlink(path);
        free(path);
    }
    if (d) closedir(d);
}

void dz_generations_remove(const char *archive) {
    dz_error none = {0};
    char *dir = dz_format(&none, "%s.generations", archive);
    if (dir) {
        clear(dir, NULL);
        rmdir(dir);
    }
    free(dir);
}

dz_rc dz_generations_place(dz_generations *g, const char *archive, dz_digest identity, int first, int *there, dz_error *err) {
    uint64_t words[4] = {g->identity.hi, g->identity.lo, identity.hi, identity.lo};
    char hex[33];
    *there = 0;
    g->identity = dz_digest_of(words, sizeof words);
    dz_digest_hex(g->identity, hex);
    free(g->to);
    g->to = NULL;
    if (g->at + 1 == g->n) return DZ_OK;
    if (!g->dir && !(g->dir = dz_format(err, "%s.generations", archive))) return err->rc;
    if (!(g->to = dz_format(err, "%s/%s.h5", g->dir, hex)) || !first) return err->rc;
    if (mkdir(g->dir, 0777) != 0 && errno != EEXIST)
        return dz_fail(err, DZ_EFAIL, "%s: cannot make the directory: %s", g->dir, strerror(errno));
    *there = access(g->to, F_OK) == 0;
    if (!*there) clear(g->dir, g->from);
    return DZ_OK;
}

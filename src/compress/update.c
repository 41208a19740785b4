#include "compress/update.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive/originals.h"

typedef enum action { ADDED, REPLACED, UNCHANGED } action;

static const char *const ACTIONS[] = {"added", "replaced", "unchanged"};

typedef struct update {
    dz_context *ctx;
    dz_generations *generations;
    const dz_catalog *old;
    uint8_t *action; /* [zoo tasks] */
    char (*why)[DZ_ORIGINAL_WHY + 64];
    dz_lookup names; /* of the zoo's tasks */
    uint8_t *pruned; /* [old tasks] */
    size_t *queue;   /* [zoo tasks] */
} update;

/* Other settings do not make another model. */
static void compare_settings(update *u, size_t t, const dz_task_entry *entry, dz_error *err) {
    char *text = dz_recipe_text(dz_zoo_recipe(&u->ctx->zoo, t), err);
    if (text && strcmp(text, entry->recipe_text) != 0)
        snprintf(u->why[t], sizeof u->why[t], "stored with other settings, which --replace would change");
    free(text);
}

/* Collective. */
static dz_rc compare_task(update *u, size_t t, dz_progress *progress, dz_error *err) {
    const char *name = u->ctx->zoo.names[t];
    int64_t at = dz_catalog_find(u->old, name);
    dz_original state;
    if (at < 0) {
        int lost = dz_copy_tasks_has(&u->ctx->copied, name);
        u->action[t] = lost ? REPLACED : ADDED;
        if (lost) strcpy(u->why[t], "damaged in the archive");
        return DZ_OK;
    }
    const dz_task_entry *entry = &u->old->tasks[at];
    dz_rc rc = dz_original_check(u->ctx->world, u->old, entry, u->ctx->zoo.tasks[t], progress, &state, u->why[t], err);
    u->action[t] = state == DZ_ORIGINAL_SAME ? UNCHANGED : REPLACED;
    if (rc == DZ_OK && state == DZ_ORIGINAL_SAME) compare_settings(u, t, entry, err);
    return rc == DZ_OK ? dz_sync_error(u->ctx->world, err->rc, err) : rc;
}

static dz_rc compare_tasks(update *u, dz_error *err) {
    dz_progress progress;
    double total = 0;
    dz_rc rc = DZ_OK;
    for (size_t t = 0; t < u->ctx->zoo.ntasks; t++) total += (double)dz_checkpoint_nbytes(u->ctx->zoo.tasks[t]);
    dz_progress_begin(&progress, u->ctx->world, "compare", total, u->ctx->opt->quiet);
    for (size_t t = 0; t < u->ctx->zoo.ntasks && rc == DZ_OK; t++) rc = compare_task(u, t, &progress, err);
    dz_progress_end(&progress);
    return rc;
}

/* "quality=high" from a line "quality: high" of a recipe's text, which every such text has. */
static char *setting_of(const char *text, const char *key, dz_error *err) {
    size_t len = strlen(key);
    while (text && !(strncmp(text, key, len) == 0 && text[len] == ':')) text = strchr(text, '\n') ? strchr(text, '\n') + 1 : NULL;
    const char *value = text ? text + len + 1 + strspn(text + len + 1, " ") : "";
    return dz_format(err, "%s=%.*s", key, (int)strcspn(value, "\n"), value);
}

/* A child that has not changed keeps the quality and the limits that it was stored with, whatever those of the others are tonight. 0 where
 * its settings differ in more than these. */
static int keep_settings(update *u, size_t t, const dz_task_entry *entry, dz_error *err) {
    static const char *const keys[DZ_TASK_KEYS] = {"quality", "noise_to_delta", "noise_to_base"};
    dz_zoo *zoo = &u->ctx->zoo;
    dz_recipe *own = NULL;
    dz_error inner = {0};
    char *sets[DZ_TASK_KEYS], *text = NULL;
    dz_task_request request = {.task = entry->name, .nsets = DZ_TASK_KEYS};
    if (zoo->recipe->method != DZ_METHOD_AUTO || zoo->recipe->target_ratio > 0 || zoo->manifest->no_base) return 0;
    for (size_t k = 0; k < DZ_TASK_KEYS; k++) request.sets[k] = sets[k] = setting_of(entry->recipe_text, keys[k], err);
    if (err->rc == DZ_OK && dz_recipe_load_own(&u->ctx->opt->recipe, &request, u->ctx->opt->archive, &own, &inner) == DZ_OK)
        text = dz_recipe_text(own, err);
    int same = text && strcmp(text, entry->recipe_text) == 0;
    if (same && (request.task = dz_strdup(entry->name, err))) {
        dz_recipe_free(zoo->own[t]);
        zoo->own[t] = own;
        u->generations->own[u->generations->nown++] = request;
    } else {
        for (size_t k = 0; k < DZ_TASK_KEYS; k++) free(sets[k]);
        dz_recipe_free(own);
    }
    free(text);
    return same;
}

/* What is coded against a task that is replaced would be restored as something else: it is coded anew as well, and what is coded against
 * that. */
static void follow_sources(update *u, dz_error *err) {
    const dz_zoo *zoo = &u->ctx->zoo;
    size_t n = 0;
    for (size_t t = 0; t < zoo->ntasks; t++) {
        if (u->action[t] == REPLACED) u->queue[n++] = t;
    }
    for (size_t i = 0; i < n; i++) {
        const char *name = zoo->names[u->queue[i]];
        int64_t source = dz_catalog_find(u->old, name);
        for (size_t t = 0; t < u->old->ntasks && source >= 0; t++) {
            const dz_task_entry *entry = &u->old->tasks[t];
            int64_t child =
                dz_copy_tasks_needs(entry, &u->old->tasks[source]) ? dz_lookup_find(&u->names, entry->name, strlen(entry->name)) : -1;
            if (child < 0 || u->action[child] != UNCHANGED) continue;
            u->action[child] = REPLACED;
            int other = u->why[child][0] != 0; /* compare_settings */
            const char *how = !other                                        ? ""
                              : keep_settings(u, (size_t)child, entry, err) ? ", with its settings as before"
                                                                            : ", with other settings than before";
            snprintf(u->why[child], sizeof u->why[child], "coded against '%s', which is replaced%s", name, how);
            u->queue[n++] = (size_t)child;
        }
    }
}

static int64_t in_zoo(const update *u, const dz_task_entry *entry) { return dz_lookup_find(&u->names, entry->name, strlen(entry->name)); }

/* A task that the manifest no longer names goes, unless one that stays is coded against it. */
static void choose_pruned(update *u) {
    const dz_catalog *c = u->old;
    int again = 1;
    for (size_t t = 0; t < c->ntasks; t++) u->pruned[t] = u->ctx->opt->prune && in_zoo(u, &c->tasks[t]) < 0 && c->stored != t + 1;
    while (again) {
        again = 0;
        for (size_t t = 0; t < c->ntasks; t++) {
            int64_t at = in_zoo(u, &c->tasks[t]);
            if (u->pruned[t] || (at >= 0 && u->action[at] != UNCHANGED)) continue;
            for (size_t s = 0; s < c->tasks[t].nsources; s++) {
                int64_t source = dz_catalog_find(c, c->tasks[t].sources[s]);
                if (source < 0 || !u->pruned[source] || !dz_copy_tasks_needs(&c->tasks[t], &c->tasks[source])) continue;
                u->pruned[source] = 0;
                again = 1;
            }
        }
    }
}

/* Rank 0. */
static void tell(const update *u, dz_compress_result *result, dz_error *err) {
    const dz_catalog *c = u->old;
    for (size_t t = 0; t < u->ctx->zoo.ntasks; t++)
        dz_buf_line(&result->update, err, "%s\t%s\t%s\n", u->ctx->zoo.names[t], ACTIONS[u->action[t]], u->why[t]);
    for (size_t t = 0; t < c->ntasks; t++) {
        if (in_zoo(u, &c->tasks[t]) >= 0 || c->stored == t + 1) continue;
        if (u->pruned[t]) dz_buf_line(&result->pruned, err, "%s\n", c->tasks[t].name);
        dz_buf_line(&result->update, err, "%s\t%s\tno longer in the manifest%s\n", c->tasks[t].name, u->pruned[t] ? "removed" : "kept",
                    u->pruned[t]          ? ""
                    : !u->ctx->opt->prune ? " (--prune removes it)"
                                          : ", but another task is coded against it");
    }
}

/* Collective. The base has to be the archive's also where nothing is coded. */
static dz_rc check_base(update *u, dz_error *err) {
    const dz_catalog *c = u->old;
    char why[DZ_ORIGINAL_WHY];
    dz_original state;
    dz_rc rc = dz_original_base_check(u->ctx->world, c, u->ctx->zoo.base, &state, why, err);
    if (rc == DZ_OK && state != DZ_ORIGINAL_SAME)
        rc = dz_fail(err, DZ_EVALUE, "%s: not the base of %s: %s differs", u->ctx->zoo.base->path, u->ctx->opt->archive, why);
    return rc;
}

dz_rc dz_update_settle(dz_context *ctx, dz_generations *generations, dz_compress_result *result, dz_error *err) {
    dz_zoo *zoo = &ctx->zoo;
    update u = {.ctx = ctx,
                .generations = generations,
                .old = ctx->copied.old->catalog,
                .action = dz_alloc(zoo->ntasks, 1, err),
                .why = dz_alloc(zoo->ntasks, sizeof *u.why, err),
                .queue = dz_alloc(zoo->ntasks, sizeof *u.queue, err),
                .pruned = dz_alloc(ctx->copied.old->catalog->ntasks, 1, err)};
    size_t kept = 0;
    generations->own = dz_alloc(zoo->ntasks, sizeof *generations->own, err);
    for (size_t t = 0; t < zoo->ntasks && err->rc == DZ_OK; t++)
        dz_lookup_add(&u.names, zoo->names[t], strlen(zoo->names[t]), (uint32_t)t, err);
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    if (rc != DZ_OK || (rc = compare_tasks(&u, err)) != DZ_OK) goto out;
    follow_sources(&u, err);
    if ((rc = dz_sync_error(ctx->world, err->rc, err)) != DZ_OK) goto out;
    choose_pruned(&u);
    if (ctx->world->rank == 0) tell(&u, result, err);
    for (size_t t = 0; t < u.old->ntasks; t++) {
        if (u.pruned[t]) dz_copy_tasks_leave(&ctx->copied, u.old->tasks[t].name);
    }
    for (size_t t = 0; t < zoo->ntasks; t++) {
        if (u.action[t] == UNCHANGED) continue;
        if (u.action[t] == REPLACED) dz_copy_tasks_leave(&ctx->copied, zoo->names[t]);
        dz_zoo_keep(zoo, t, kept++);
    }
    dz_zoo_cut(zoo, kept);
    rc = dz_sync_error(ctx->world, err->rc, err);
    if (rc == DZ_OK && kept == 0) rc = check_base(&u, err);
out:
    dz_lookup_free(&u.names);
    free(u.pruned);
    free(u.queue);
    free(u.why);
    free(u.action);
    return rc;
}

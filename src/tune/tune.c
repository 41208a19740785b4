#include "tune/tune.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/publish.h"
#include "base/file.h"
#include "base/log.h"
#include "base/staging.h"
#include "base/version.h"
#include "parallel/watchdog.h"
#include "restore/restore.h"
#include "tune/candidate.h"
#include "tune/command.h"
#include "tune/prepare.h"

/* A run: what it works on. Tasks are alike on every rank but for their states, which rank 0 has. */
typedef struct tuning {
    const dz_world *world;
    const dz_tune_options *opt;
    dz_tune_result *result;
    dz_processors *processors; /* rank 0 */
    char *folder;              /* of the states */
} tuning;

void dz_tune_result_free(dz_tune_result *r) {
    for (size_t t = 0; t < r->ntasks; t++) {
        free(r->tasks[t].name);
        free(r->tasks[t].model);
        free(r->tasks[t].file);
        free(r->tasks[t].path);
    }
    free(r->tasks);
    free(r->base);
    dz_compress_result_free(&r->compress);
    *r = (dz_tune_result){0};
}

/* What comes next for a task. */
enum { STEP_DONE, STEP_ORIGINAL, STEP_BASE, STEP_CANDIDATE };

static int next_step(const tuning *g, const dz_tuned_task *t, double *noise) {
    const dz_tune_state *s = &t->state;
    dz_tune_scored scored[sizeof s->candidates / sizeof *s->candidates];
    if (!s->has_original) return STEP_ORIGINAL;
    if (!s->has_base) return STEP_BASE;
    for (size_t i = 0; i < s->ncandidates; i++)
        scored[i] =
            (dz_tune_scored){.noise = s->candidates[i].noise, .ok = dz_drop_ok(&g->opt->limit, s->original, s->candidates[i].score)};
    dz_tune_step step = dz_tune_next(scored, s->ncandidates, g->opt->steps);
    *noise = step.noise;
    return step.done ? STEP_DONE : STEP_CANDIDATE;
}

/* Rank 0: runs the command on a model. `what` is scored, for the error. */
static dz_rc score(const tuning *g, dz_tuned_task *t, const char *model, const char *what, double *out, dz_error *err) {
    dz_error inner = {0};
    char *text = dz_command_text(g->opt->command, model, t->name, g->result->base, err);
    if (text && dz_command_score(text, g->processors, out, &inner) != DZ_OK)
        dz_fail(err, inner.rc, inner.rc == DZ_EINTERRUPT ? "%s: interrupted" : "task '%s', %s: %s (%.500s)", t->name, what, inner.text,
                text);
    t->state.evaluations += err->rc == DZ_OK;
    free(text);
    return err->rc;
}

static void tell(const tuning *g, const dz_tuned_task *t, const char *what, double score, const char *more) {
    if (!g->opt->quiet) dz_log("task '%s', %s: score %.6g%s", t->name, what, score, more);
}

/* Rank 0: the original's score, or the base's on this task. */
static dz_rc score_reference(const tuning *g, dz_tuned_task *t, int step, dz_error *err) {
    int original = step == STEP_ORIGINAL;
    const char *what = original ? "original" : "base";
    double x = 0;
    if (score(g, t, original ? t->model : g->result->base, what, &x, err) != DZ_OK) return err->rc;
    if (original && !isfinite(x))
        return dz_fail(err, DZ_EFAIL, "task '%s', original: its score is %g: nothing can be measured against it", t->name, x);
    if (original && x == 0 && g->opt->limit.relative)
        return dz_fail(err, DZ_EUSAGE, "task '%s', original: its score is 0, of which no share can be lost: give --max-drop as a number",
                       t->name);
    *(original ? &t->state.original : &t->state.base) = x;
    *(original ? &t->state.has_original : &t->state.has_base) = 1;
    tell(g, t, what, x, "");
    return dz_tune_state_write(t->path, t->name, &t->key, &t->state, err);
}

/* Rank 0: a candidate that needs no run of the command: nothing of it is lossy, or the same bytes have a score. */
static int has_score(const dz_tuned_task *t, dz_tune_candidate *c) {
    c->score = t->state.original;
    if (c->exact) return 1;
    for (size_t i = 0; i < t->state.ncandidates; i++) {
        if (strcmp(t->state.candidates[i].content, c->content) != 0) continue;
        c->score = t->state.candidates[i].score;
        return 1;
    }
    return 0;
}

static dz_rc keep_candidate(const tuning *g, dz_tuned_task *t, const dz_tune_candidate *c, int known, dz_error *err) {
    char what[64], size[32], more[96];
    snprintf(what, sizeof what, "noise_to_delta %g", c->noise);
    snprintf(more, sizeof more, ", %s, %s%s", dz_format_size(c->stored, size),
             dz_drop_ok(&g->opt->limit, t->state.original, c->score) ? "within the limit" : "too much is lost",
             known ? " (known without a run)" : "");
    tell(g, t, what, c->score, more);
    if (t->state.ncandidates == sizeof t->state.candidates / sizeof *t->state.candidates)
        t->state.ncandidates--; /* of other ladders: cannot be needed any more */
    t->state.candidates[t->state.ncandidates++] = *c;
    return dz_tune_state_write(t->path, t->name, &t->key, &t->state, err);
}

/* Collective. Compresses the task with a limit, restores it and scores what comes back. */
static dz_rc score_candidate(const tuning *g, dz_tuned_task *t, const char *scratch, double noise, dz_error *err) {
    dz_tune_candidate c = {.noise = noise};
    const dz_tune_options *opt = g->opt;
    char what[64], *archive = dz_format(err, "%s/candidate.h5", scratch), *out = dz_format(err, "%s/%s-noise-%g", scratch, t->name, noise);
    char *model = out && t->file ? dz_format(err, "%s/%s", out, t->file) : NULL;
    uint64_t known = 0;
    dz_rc rc = dz_sync_error(g->world, err->rc, err);
    if (rc == DZ_OK) rc = dz_candidate_make(g->world, opt, t->name, noise, archive, err);
    if (rc == DZ_OK && g->world->rank == 0) {
        dz_candidate_look(archive, t->name, &c, err);
        known = err->rc == DZ_OK && has_score(t, &c);
    }
    if (rc == DZ_OK) rc = dz_sync_error(g->world, err->rc, err);
    if (rc == DZ_OK) dz_bcast_u64(g->world, &known, 1);
    if (rc == DZ_OK && !known) rc = dz_candidate_restore(g->world, archive, g->result->base, t->name, out, err);
    if (rc == DZ_OK && g->world->rank == 0) {
        snprintf(what, sizeof what, "candidate noise_to_delta %g", noise);
        if (known || score(g, t, model ? model : out, what, &c.score, err) == DZ_OK) keep_candidate(g, t, &c, (int)known, err);
        if (!known) dz_remove_tree(out);
        unlink(archive);
    }
    dz_wait_asleep(g->world);
    rc = dz_sync_error(g->world, rc == DZ_OK ? err->rc : rc, err);
    free(archive);
    free(model);
    free(out);
    return rc;
}

/* Collective. Steps until the search of a task is over. */
static dz_rc search(const tuning *g, dz_tuned_task *t, const char *scratch, dz_error *err) {
    for (;;) {
        double noise = 0;
        uint64_t step = 0;
        if (g->world->rank == 0) step = (uint64_t)next_step(g, t, &noise);
        dz_bcast_u64(g->world, &step, 1);
        dz_bcast_f64(g->world, &noise, 1);
        if (step == STEP_DONE) {
            t->scored = 1;
            dz_tune_choose(t, noise);
            return DZ_OK;
        }
        if (step == STEP_CANDIDATE) {
            if (score_candidate(g, t, scratch, noise, err) != DZ_OK) return err->rc;
            continue;
        }
        if (g->world->rank == 0) score_reference(g, t, (int)step, err);
        dz_wait_asleep(g->world);
        if (dz_sync_error(g->world, err->rc, err) != DZ_OK) return err->rc;
    }
}

/* Rank 0: the folder in which candidates are made, and the state of the task, under a lock. */
static dz_rc begin_task(const tuning *g, dz_tuned_task *t, dz_staging *scratch, dz_lock *lock, dz_error *err) {
    char *name = dz_tune_scratch(g->opt, g->folder, t->name, err);
    if (name && dz_make_dirs(g->folder, err) == DZ_OK && dz_archive_lock(lock, t->path, err) == DZ_OK &&
        dz_tune_state_read(t->path, t->name, &t->key, &t->state, err) == DZ_OK)
        dz_staging_name(scratch, name, err);
    double noise;
    if (err->rc == DZ_OK && next_step(g, t, &noise) != STEP_DONE) dz_staging_begin_dir(scratch, "tune", err);
    free(name);
    return err->rc;
}

static dz_rc share_text(const dz_world *world, const char *mine, char **all, dz_error *err) {
    dz_buf text = {0};
    if (world->rank == 0) dz_buf_put(&text, mine ? mine : "", strlen(mine ? mine : "") + 1, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) rc = dz_bcast_buf(world, &text, err);
    if (rc == DZ_OK) *all = dz_strdup((const char *)text.data, err);
    dz_buf_free(&text);
    return dz_sync_error(world, err->rc, err);
}

static dz_rc tune_task(const tuning *g, dz_tuned_task *t, dz_error *err) {
    dz_staging scratch = {0};
    dz_lock lock = {.fd = -1};
    char *partial = NULL;
    dz_rc rc = dz_sync_error(g->world, g->world->rank == 0 ? begin_task(g, t, &scratch, &lock, err) : DZ_OK, err);
    if (rc == DZ_OK) rc = share_text(g->world, scratch.partial, &partial, err);
    if (rc == DZ_OK) rc = search(g, t, partial, err);
    dz_staging_discard(&scratch);
    dz_staging_free(&scratch);
    dz_lock_drop(&lock);
    free(partial);
    return rc;
}

/* Rank 0: the scores as the archive keeps them. */
static dz_rc score_texts(const tuning *g, dz_task_score *scores, dz_error *err) {
    for (size_t t = 0; t < g->result->ntasks && err->rc == DZ_OK; t++) {
        dz_tuned_task *task = &g->result->tasks[t];
        char *text = dz_tune_score_text(&task->state, task->chosen, &g->opt->limit, g->opt->command, err);
        scores[t] = (dz_task_score){.task = task->name, .text = text};
    }
    return err->rc;
}

/* Rank 0: the archive has what was scored. Then its states are no longer needed. */
static dz_rc check_published(const tuning *g, dz_error *err) {
    for (size_t t = 0; t < g->result->ntasks && err->rc == DZ_OK; t++) {
        const dz_tuned_task *task = &g->result->tasks[t];
        dz_tune_candidate now = {0};
        if (!task->chosen || dz_candidate_look(g->opt->archive, task->name, &now, err) != DZ_OK) continue;
        if (strcmp(now.content, task->chosen->content) != 0)
            dz_fail(err, DZ_EFAIL, "%s: task '%s' is not what was scored: did a model change meanwhile?", g->opt->archive, task->name);
    }
    for (size_t t = 0; t < g->result->ntasks && err->rc == DZ_OK; t++) dz_tune_state_remove(g->result->tasks[t].path);
    return err->rc;
}

/* Collective. */
static dz_rc publish(const tuning *g, dz_error *err) {
    dz_tune_result *r = g->result;
    dz_task_score *scores = dz_alloc(r->ntasks, sizeof *scores, err);
    dz_task_request *own = dz_alloc(r->ntasks, sizeof *own, err);
    if (err->rc == DZ_OK && g->world->rank == 0) score_texts(g, scores, err);
    dz_rc rc = dz_sync_error(g->world, err->rc, err);
    for (size_t t = 0; rc == DZ_OK && t < r->ntasks; t++) own[t] = dz_candidate_request(r->tasks[t].name, r->tasks[t].setting);
    dz_compress_options opt = {.manifest = g->opt->manifest,
                               .archive = g->opt->archive,
                               .recipe = g->opt->recipe,
                               .mem_per_rank = g->opt->mem_per_rank,
                               .force = g->opt->force,
                               .quiet = g->opt->quiet,
                               .allow_lossy = g->opt->allow_lossy,
                               .watchdog = g->opt->watchdog,
                               .scores = scores,
                               .nscores = g->world->rank == 0 ? r->ntasks : 0};
    opt.recipe.own = own;
    opt.recipe.nown = r->ntasks;
    if (rc == DZ_OK) rc = dz_compress(g->world, &opt, &r->compress, err);
    if (rc == DZ_OK) rc = dz_sync_error(g->world, g->world->rank == 0 ? check_published(g, err) : DZ_OK, err);
    r->published = rc == DZ_OK;
    for (size_t t = 0; scores && t < r->ntasks; t++) free((char *)(uintptr_t)scores[t].text);
    free(scores);
    free(own);
    return rc;
}

/* Rank 0: states of other jobs are found before any work. */
static dz_rc check_states(const tuning *g, dz_error *err) {
    for (size_t t = 0; t < g->result->ntasks; t++) {
        dz_tuned_task *task = &g->result->tasks[t];
        dz_error one = {0};
        dz_tune_state_read(task->path, task->name, &task->key, &task->state, &one);
        dz_fail_join(err, &one);
    }
    return err->rc;
}

static int is_wanted(const dz_tune_options *opt, const char *name) {
    for (size_t i = 0; i < opt->ntasks; i++) {
        if (strcmp(opt->tasks[i], name) == 0) return 1;
    }
    return opt->ntasks == 0;
}

dz_rc dz_tune(const dz_world *world, const dz_tune_options *opt, dz_tune_result *result, dz_error *err) {
    tuning g = {.world = world, .opt = opt, .result = result, .folder = dz_format(err, "%s.tune", opt->archive)};
    dz_stop_on_signals();
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) rc = dz_tune_prepare(world, opt, g.folder, result, err);
    if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? check_states(&g, err) : DZ_OK, err);
    if (rc != DZ_OK || opt->dry_run) goto out;
    g.processors = dz_processors_of_host(world);
    for (size_t t = 0; t < result->ntasks && rc == DZ_OK; t++) {
        if (is_wanted(opt, result->tasks[t].name)) rc = tune_task(&g, &result->tasks[t], err);
    }
    if (rc == DZ_OK && opt->ntasks == 0) rc = publish(&g, err);
    if (rc == DZ_EINTERRUPT)
        snprintf(err->text, sizeof err->text, "%s: interrupted; the same command goes on where it stopped (from %s)", opt->archive,
                 g.folder);
out:
    if (world->rank == 0 && g.folder) rmdir(g.folder); /* if nothing is in it */
    free(g.processors);
    free(g.folder);
    return rc;
}

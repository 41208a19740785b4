#include "tune/prepare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/overwrite.h"
#include "base/version.h"
#include "compress/forecast.h"
#include "plan/zoo_plan.h"
#include "tune/candidate.h"

static dz_rc add_model(dz_buf *b, const dz_checkpoint *ck, dz_error *err) {
    for (size_t i = 0; i < ck->nshards; i++) {
        struct stat st;
        if (stat(ck->shards[i].path, &st) != 0) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", ck->shards[i].path, strerror(errno));
        dz_buf_put(b, ck->shards[i].file, strlen(ck->shards[i].file) + 1, err);
        dz_buf_put(b, ck->shards[i].header, ck->shards[i].header_len, err);
        dz_buf_put_u64(b, (uint64_t)st.st_size, err);
        dz_buf_put_u64(b, (uint64_t)dz_mtime_ns(&st), err);
    }
    return err->rc;
}

/* As the command sees it from any folder. The caller frees. */
static char *absolute(const char *path, dz_error *err) {
    char *here = path[0] == '/' ? NULL : getcwd(NULL, 0), *all = here ? dz_format(err, "%s/%s", here, path) : dz_strdup(path, err);
    free(here);
    return all;
}

static dz_rc take_task(const dz_zoo *zoo, size_t t, const char *folder, const dz_tune_options *opt, dz_tuned_task *out, dz_error *err) {
    const dz_checkpoint *ck = zoo->tasks[t];
    struct stat st;
    dz_buf models = {0};
    out->name = dz_strdup(zoo->names[t], err);
    out->model = absolute(ck->path, err);
    out->path = dz_format(err, "%s/%s.json", folder, zoo->names[t]);
    out->key.command = opt->command;
    if (stat(zoo->manifest->tasks[t].path, &st) == 0 && S_ISREG(st.st_mode) && ck->nshards == 1)
        out->file = dz_strdup(ck->shards[0].file, err);
    for (size_t i = 0; i < ck->ntensors; i++) out->source += (double)ck->tensors[i].nbytes;
    add_model(&models, zoo->base, err);
    add_model(&models, ck, err);
    char *recipe = dz_recipe_text(zoo->recipe, err);
    if (err->rc == DZ_OK) {
        dz_buf_put(&models, "", 1, err);
        dz_digest_hex(dz_digest_of(models.data, models.len), out->key.models);
        models.len = 0;
        dz_buf_put(&models, recipe, strlen(recipe) + 1, err);
        dz_buf_put(&models, DZ_VERSION, sizeof DZ_VERSION, err);
        dz_digest_hex(dz_digest_of(models.data, models.len), out->key.recipe);
    }
    free(recipe);
    dz_buf_free(&models);
    return err->rc;
}

/* Rank 0: bytes of each task at the rungs of the first evaluations. */
static dz_rc forecast(dz_zoo *zoo, const dz_tune_options *opt, dz_tune_result *r, dz_error *err) {
    dz_forecast f = {0};
    dz_plan *plan = NULL;
    unsigned steps = dz_tune_forecast_steps(opt);
    if (dz_zoo_plan(zoo, 1, 0, &plan, err) == DZ_OK) dz_forecast_make(zoo, plan, NULL, &f, err);
    for (unsigned k = 1; k < 1U << steps && err->rc == DZ_OK; k++) {
        char setting[64];
        dz_candidate_setting(dz_tune_rung(k, steps), setting);
        for (size_t t = 0; t < zoo->ntasks && err->rc == DZ_OK; t++) {
            dz_task_request own = dz_candidate_request(zoo->names[t], setting);
            dz_recipe_free(zoo->own[t]);
            zoo->own[t] = NULL;
            dz_recipe_load_own(&opt->recipe, &own, "--eval", &zoo->own[t], err);
        }
        if (err->rc == DZ_OK) dz_forecast_again(zoo, plan, &f, err);
        for (size_t t = 0; t < zoo->ntasks && err->rc == DZ_OK; t++) r->tasks[t].forecast[k] = f.tasks[t].stored;
    }
    dz_forecast_free(&f);
    dz_plan_free(plan);
    return err->rc;
}

/* Rank 0. */
static dz_rc check_request(const dz_zoo *zoo, const dz_tune_options *opt, dz_error *err) {
    dz_buf notes = {0};
    struct stat st;
    if (zoo->recipe->method != DZ_METHOD_AUTO || zoo->recipe->target_ratio > 0)
        dz_fail_more(err, DZ_EUSAGE,
                     "tune: works with method auto, without target_ratio: take method and target_ratio out of recipe and options");
    for (size_t t = 0; t < zoo->ntasks; t++) {
        if (zoo->own[t])
            dz_fail_more(err, DZ_EUSAGE, "%s:%d: task '%s': tune chooses its quality: take quality, noise_to_delta and noise_to_base out",
                         zoo->manifest->path, zoo->manifest->tasks[t].line, zoo->names[t]);
    }
    for (size_t i = 0; i < opt->ntasks; i++) {
        size_t t = 0;
        while (t < zoo->ntasks && strcmp(zoo->names[t], opt->tasks[i]) != 0) t++;
        if (t == zoo->ntasks) dz_fail_more(err, DZ_EUSAGE, "--task %s: %s has no such task", opt->tasks[i], zoo->manifest->path);
    }
    if (opt->scratch && (stat(opt->scratch, &st) != 0 || !S_ISDIR(st.st_mode)))
        dz_fail_more(err, DZ_EUSAGE, "--scratch %s: no such folder", opt->scratch);
    dz_zoo_check_originals(zoo, opt->allow_lossy, &notes, err);
    dz_buf_free(&notes);
    if (!opt->force && dz_target_of(opt->archive) == DZ_TARGET_ARCHIVE)
        return dz_fail_more(err, DZ_EUSAGE, "%s: exists already (--force replaces it)", opt->archive);
    dz_error output = {0};
    if (dz_overwrite_check(opt->archive, DZ_TARGET_ARCHIVE, opt->force, &output) != DZ_OK) dz_fail_join(err, &output);
    return err->rc;
}

char *dz_tune_scratch(const dz_tune_options *opt, const char *folder, const char *task, dz_error *err) {
    char *full = absolute(folder, err), *given = opt->scratch ? absolute(opt->scratch, err) : NULL, *out = NULL;
    if (full && given) /* others may use the same folder, for tasks of the same name */
        out = dz_format(err, "%s/deltazoo-tune-%016llx-%s", given, (unsigned long long)dz_hash64(full, strlen(full), 0), task);
    else if (full)
        out = dz_format(err, "%s/%s", full, task);
    free(full);
    free(given);
    return err->rc == DZ_OK ? out : NULL;
}

dz_rc dz_tune_prepare(const dz_world *world, const dz_tune_options *opt, const char *folder, dz_tune_result *r, dz_error *err) {
    dz_zoo zoo = {0};
    dz_rc rc = dz_zoo_open(world, opt->manifest, &opt->recipe, &zoo, err);
    if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? check_request(&zoo, opt, err) : DZ_OK, err);
    if (rc != DZ_OK) goto out;
    r->base = absolute(zoo.base->path, err);
    if ((r->tasks = dz_alloc(zoo.ntasks, sizeof *r->tasks, err))) r->ntasks = zoo.ntasks;
    for (size_t t = 0; t < r->ntasks && err->rc == DZ_OK; t++) take_task(&zoo, t, folder, opt, &r->tasks[t], err);
    if (err->rc == DZ_OK && opt->dry_run && world->rank == 0) forecast(&zoo, opt, r, err);
    rc = dz_sync_error(world, err->rc, err);
out:
    dz_zoo_close(&zoo);
    return rc;
}

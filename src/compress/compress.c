#include "compress/compress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/publish.h"
#include "base/file.h"
#include "base/log.h"
#include "base/overwrite.h"
#include "base/version.h"
#include "compress/append.h"
#include "compress/companions.h"
#include "compress/fused.h"
#include "compress/job.h"
#include "compress/tied.h"
#include "parallel/watchdog.h"
#include "plan/zoo_plan.h"

#define MEMORY_CHAINS ((uint64_t)64 << 20) /* tiles of parents as they are restored */

void dz_compress_result_free(dz_compress_result *r) {
    free(r->recipe_name);
    free(r->setting);
    free(r->task);
    free(r->ranks);
    dz_buf_free(&r->notes);
    dz_buf_free(&r->update);
    dz_buf_free(&r->pruned);
    *r = (dz_compress_result){0};
}

static dz_rc check_output(const dz_compress_options *opt, dz_error *err) {
    if (!opt->force && !opt->append && dz_target_of(opt->archive) == DZ_TARGET_ARCHIVE)
        return dz_fail(err, DZ_EUSAGE, "%s: exists already (--force replaces it, --append adds to it)", opt->archive);
    if (dz_overwrite_check(opt->archive, DZ_TARGET_ARCHIVE, opt->force || opt->append, err) != DZ_OK) return err->rc;
    return dz_staging_check_file(opt->archive, DZ_TARGET_ARCHIVE, err);
}

/* Splits the memory budget: fixed buffers first, then a quarter for coded blocks and the rest for candidates kept between stages. */
static void set_budgets(dz_job *job) {
    uint64_t fixed = DZ_MEMORY_LEAST + dz_checkpoint_memory(job->ctx.zoo.base), mem = job->ctx.opt->mem_per_rank;
    if (job->ctx.chains.open) fixed += MEMORY_CHAINS;
    for (size_t t = 0; t < job->ctx.zoo.ntasks; t++) fixed += dz_checkpoint_memory(job->ctx.zoo.tasks[t]);
    uint64_t left = mem > fixed ? mem - fixed : 0;
    job->block_budget = left / 4 + ((uint64_t)8 << 20);
    job->ctx.cache_budget = left / 4 * 3;
}

static dz_rc prepare(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    ctx->plan = job->plan;
    ctx->method = dz_method_of(ctx->zoo.recipe->method);
    if (dz_chains_open(&ctx->chains, job->generations, &ctx->zoo, ctx->plan, ctx->copied.old, err) != DZ_OK) return err->rc;
    set_budgets(job);
    if (!(ctx->task_key = dz_alloc(job->plan->ntasks, sizeof *ctx->task_key, err))) return err->rc;
    for (size_t t = 0; t < job->plan->ntasks; t++)
        ctx->task_key[t] = dz_hash64(ctx->zoo.names[t], strlen(ctx->zoo.names[t]), ctx->zoo.recipe->seed);
    return DZ_OK;
}

/* Neither --force nor --report may put anything in the place of what this job reads. */
static dz_rc check_no_input(const dz_job *job, const char *out, dz_error *err) {
    const char *read[] = {job->ctx.opt->manifest, job->ctx.opt->recipe.recipe}, *what[] = {"manifest", "recipe"};
    for (int i = 0; i < 2; i++) {
        if (read[i] && access(out, F_OK) == 0 && dz_same_file(out, read[i]))
            return dz_fail(err, DZ_EUSAGE, "%s: is the %s: nothing is written over it", out, what[i]);
    }
    dz_rc rc = dz_check_not_of_model(job->ctx.zoo.base, out, err);
    for (size_t t = 0; t < job->ctx.zoo.ntasks && rc == DZ_OK; t++) rc = dz_check_not_of_model(job->ctx.zoo.tasks[t], out, err);
    return rc;
}

static dz_rc check_outputs(const dz_job *job, dz_compress_result *result, dz_error *err) {
    const char *report = job->ctx.opt->report;
    dz_zoo_check_originals(&job->ctx.zoo, job->ctx.opt->allow_lossy, &result->notes, err);
    if (check_no_input(job, job->ctx.opt->archive, err) == DZ_OK && report)
        result->report_is_input = check_no_input(job, report, err) != DZ_OK;
    return err->rc;
}

/* Which tasks are coded against which, and what these are. */
static void identify_parents(const dz_job *job, dz_buf *b, dz_error *err) {
    const dz_archive *old = job->ctx.copied.old;
    const dz_generations *g = job->generations;
    struct stat st = {0};
    if (!job->ctx.chains.open) return;
    for (size_t t = 0; t < job->plan->ntasks; t++) {
        const char *name = job->ctx.chains.parent[t] ? job->ctx.chains.parent[t]->name : "";
        dz_buf_put(b, name, strlen(name) + 1, err);
    }
    dz_buf_put_u64(b, g->identity.hi, err);
    dz_buf_put_u64(b, g->identity.lo, err);
    if (g->at > 0 || stat(old->path, &st) != 0) return;
    dz_buf_put_u64(b, (uint64_t)st.st_size, err); /* an archive of the user's, by what is seen from outside */
    dz_buf_put_u64(b, (uint64_t)dz_mtime_ns(&st), err);
}

/* Rank 0: whatever the coded blocks depend on: program, recipe, models. The order of the tasks counts, their number of ranks does not. */
static dz_rc identity(const dz_job *job, dz_digest *out, dz_error *err) {
    dz_buf b = {0};
    for (size_t t = 0; t <= job->ctx.zoo.ntasks && err->rc == DZ_OK; t++) {
        const dz_recipe *own = t == 0 ? job->ctx.zoo.recipe : job->ctx.zoo.own[t - 1];
        char *recipe = own ? dz_recipe_text(own, err) : NULL;
        if (recipe) dz_buf_put(&b, recipe, strlen(recipe) + 1, err);
        if (!own) dz_buf_put(&b, "", 1, err);
        free(recipe);
    }
    dz_buf_put(&b, DZ_VERSION, sizeof DZ_VERSION, err);
    dz_buf_put_u32(&b, DZ_FORMAT_VERSION, err);
    for (size_t t = 0; t <= job->ctx.zoo.ntasks; t++) {
        const dz_checkpoint *ck = t == 0 ? job->ctx.zoo.base : job->ctx.zoo.tasks[t - 1];
        if (t > 0) dz_buf_put(&b, job->ctx.zoo.names[t - 1], strlen(job->ctx.zoo.names[t - 1]) + 1, err);
        for (size_t i = 0; i < ck->nshards; i++) {
            struct stat st;
            if (stat(ck->shards[i].path, &st) != 0) {
                dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", ck->shards[i].path, strerror(errno));
                goto out;
            }
            dz_buf_put(&b, ck->shards[i].path, strlen(ck->shards[i].path) + 1, err);
            dz_buf_put(&b, ck->shards[i].header, ck->shards[i].header_len, err);
            dz_buf_put_u64(&b, (uint64_t)st.st_size, err);
            dz_buf_put_u64(&b, (uint64_t)dz_mtime_ns(&st), err);
        }
    }
    identify_parents(job, &b, err);
    *out = dz_digest_of(b.data, b.len);
out:
    dz_buf_free(&b);
    return err->rc;
}

/* Collective. Whether an earlier run has finished this generation. */
static dz_rc place_generation(dz_job *job, dz_error *err) {
    const dz_world *world = job->ctx.world;
    dz_generations *g = job->generations;
    dz_digest id = {0};
    int there = 0;
    if (!g->parent) return DZ_OK;
    dz_rc rc = world->rank == 0 ? identity(job, &id, err) : DZ_OK;
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) return rc;
    uint64_t words[3] = {id.hi, id.lo, 0};
    dz_bcast_u64(world, words, 2);
    id = (dz_digest){.hi = words[0], .lo = words[1]};
    rc = dz_generations_place(g, job->ctx.opt->archive, id, world->rank == 0, &there, err);
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) return rc;
    words[2] = (uint64_t)there;
    dz_bcast_u64(world, words, 3);
    job->done = (int)words[2];
    return DZ_OK;
}

/* Collective. */
static dz_rc open_journal(dz_job *job, dz_error *err) {
    const dz_world *world = job->ctx.world;
    dz_digest id = {0};
    dz_rc rc = dz_sync_error(world, world->rank == 0 ? identity(job, &id, err) : DZ_OK, err);
    if (rc != DZ_OK) return rc;
    uint64_t words[2] = {id.hi, id.lo};
    dz_bcast_u64(world, words, 2);
    id = (dz_digest){.hi = words[0], .lo = words[1]};
    const dz_plan *plan = job->plan;
    dz_journal_units mine = {
        .place = plan->place, .nunits = plan->nunits, .first = plan->first_work[world->rank], .count = dz_context_nitems(&job->ctx)};
    rc = dz_journal_open(&job->ctx.journal, world, job->ctx.opt->archive, id, mine, job->block_budget, &job->foreign, err);
    if (job->ctx.chains.open) job->foreign = 0; /* it was this job's, of the generation before */
    uint64_t found = job->ctx.journal.nentries;
    if (rc == DZ_OK) dz_sum_u64(world, &found, 1);
    job->resumed = rc == DZ_OK && found > 0;
    return rc;
}

/* Collective. The first lines of a log. */
static void tell_begin(const dz_job *job) {
    uint64_t known = 0;
    char size[32];
    double bytes = 0;
    const char *slurm = getenv("SLURM_JOB_ID"), *nodes = getenv("SLURM_JOB_NODELIST");
    for (size_t i = 0; i < job->ctx.journal.nentries; i++) known += job->ctx.journal.entries[i].kind == DZ_RECORD_STATISTICS;
    dz_sum_u64(job->ctx.world, &known, 1);
    if (job->ctx.world->rank != 0 || job->ctx.opt->quiet || dz_log_on_terminal()) return;
    for (size_t t = 0; t < job->ctx.zoo.ntasks; t++) {
        for (size_t i = 0; i < job->ctx.zoo.tasks[t]->ntensors; i++) bytes += (double)job->ctx.zoo.tasks[t]->tensors[i].nbytes;
    }
    dz_log("%s: %zu task%s of %s in all, %zu tiles, %d rank%s%s%s%s%s", job->ctx.opt->manifest, job->ctx.zoo.ntasks,
           job->ctx.zoo.ntasks == 1 ? "" : "s", dz_format_size(bytes, size), job->plan->nunits, job->ctx.world->size,
           job->ctx.world->size == 1 ? "" : "s", slurm ? ", SLURM job " : "", slurm ? slurm : "", slurm && nodes ? " on " : "",
           slurm && nodes ? nodes : "");
    if (known) dz_log("%llu of these tiles were begun by an earlier run of this job", (unsigned long long)known);
}

/* Rank 0. The output is looked at once more under the lock: the job that had it may have made the archive meanwhile. */
static dz_rc take_output(dz_job *job, dz_error *err) {
    if (job->lock->fd < 0) {
        if (check_output(job->ctx.opt, err) != DZ_OK || dz_archive_lock(job->lock, job->ctx.opt->archive, err) != DZ_OK) return err->rc;
        if (check_output(job->ctx.opt, err) != DZ_OK) return err->rc;
    }
    return dz_staging_begin_file(&job->ctx.staging, DZ_TARGET_ARCHIVE, err);
}

/* With --with-base, unless the archive holds it already. Alike on every rank. */
static dz_rc store_base(dz_context *ctx, dz_error *err) {
    dz_zoo *zoo = &ctx->zoo;
    if (!ctx->opt->with_base && !zoo->manifest->store_base) return DZ_OK;
    if (ctx->copied.old && ctx->copied.old->catalog->stored_name) return DZ_OK;
    if (dz_copy_tasks_has(&ctx->copied, DZ_STORED_NAME))
        return dz_fail(err, DZ_EUSAGE, "%s: has a task '%s', which is the name of a base that is stored", ctx->opt->archive,
                       DZ_STORED_NAME);
    return dz_zoo_store_base(zoo, err);
}

/* Collective. With chains: leaves the tasks of the generation at work. In the first one all tasks are planned, so that every error of
 * theirs is found before any heavy work. */
static dz_rc take_generation(dz_job *job, dz_compress_result *result, dz_error *err) {
    dz_context *ctx = &job->ctx;
    dz_generations *g = job->generations;
    const dz_world *world = ctx->world;
    dz_rc rc = DZ_OK;
    if (!dz_has_parents(&ctx->zoo)) return DZ_OK;
    if (g->at == 0) {
        dz_plan *whole = NULL;
        rc = dz_zoo_plan(&ctx->zoo, world->size, ctx->opt->skip_unmatched, &whole, err);
        if (rc == DZ_OK && world->rank == 0) dz_buf_put(&result->notes, whole->notes.data, whole->notes.len, err);
        dz_plan_free(whole);
        if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) return rc;
        rc = dz_generations_make(world, ctx->opt->anchor_every, &ctx->zoo, ctx->copied.old ? ctx->copied.old->catalog : NULL, g,
                                 &result->notes, err);
        if (rc != DZ_OK) return rc;
    }
    if (g->n > 1 && world->rank == 0 && !ctx->opt->quiet) dz_log("generation %zu of %zu", g->at + 1, g->n);
    return dz_sync_error(world, dz_chains_take(&ctx->chains, g, &ctx->zoo, err), err);
}

/* Collective. Models, recipe, plan: every error of this kind is found here, before any heavy work. */
static dz_rc open_job(dz_job *job, dz_compress_result *result, dz_error *err) {
    const dz_world *world = job->ctx.world;
    dz_error of_output = {0};
    dz_rc rc = dz_io_check_hints(job->ctx.opt->hints, job->ctx.opt->nhints, &of_output);
    if (rc == DZ_OK) rc = dz_staging_name(&job->ctx.staging, job->ctx.opt->archive, &of_output);
    if (world->rank == 0 && rc == DZ_OK) take_output(job, &of_output);
    dz_recipe_request request = job->ctx.opt->recipe;
    if (job->generations->nown) request.own = job->generations->own, request.nown = job->generations->nown;
    dz_zoo_open(world, job->ctx.opt->manifest, &request, &job->ctx.zoo, err);
    dz_fail_join(&of_output, err); /* what is wrong with the output hides nothing that is wrong with the input */
    *err = of_output;
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) return rc;
    if ((rc = dz_sync_error(world, world->rank == 0 ? check_outputs(job, result, err) : DZ_OK, err)) != DZ_OK) return rc;
    if ((rc = dz_append_open(&job->ctx, job->generations, &job->skipped, result, err)) != DZ_OK) return rc;
    if ((rc = dz_sync_error(world, store_base(&job->ctx, err), err)) != DZ_OK || job->ctx.zoo.ntasks == 0) return rc;
    if ((rc = dz_split_fused(world, &job->ctx.zoo, err)) != DZ_OK) return rc;
    if ((rc = take_generation(job, result, err)) != DZ_OK) return rc;
    if ((rc = dz_find_tied(world, job->ctx.zoo.tasks, job->ctx.zoo.ntasks, err)) != DZ_OK) return rc;
    rc = dz_zoo_plan(&job->ctx.zoo, world->size, job->ctx.opt->skip_unmatched, &job->plan, err);
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) return rc;
    if ((rc = dz_sync_error(world, prepare(job, err), err)) != DZ_OK) return rc;
    if ((rc = place_generation(job, err)) != DZ_OK || job->done) return rc;
    if ((rc = dz_chains_models(&job->ctx.chains, world, &job->ctx.zoo, job->plan->ntasks, err)) != DZ_OK) return rc;
    if ((rc = open_journal(job, err)) != DZ_OK) return rc;
    tell_begin(job);
    result->resumed |= job->resumed;
    return dz_sync_error(
        world, world->rank == 0 && job->ctx.opt->begins && job->generations->at == 0 ? job->ctx.opt->begins(job->ctx.opt->arg, err) : DZ_OK,
        err);
}

static void close_job(dz_job *job) {
    dz_stats_free(&job->stats);
    dz_shapes_free(&job->shapes);
    dz_lossy_plan_free(&job->lossy);
    dz_counts_free(&job->counts);
    dz_allocation_free(&job->allocation);
    dz_exact_trials_free(&job->trials);
    dz_block_table_free(&job->blocks);
    dz_gammas_free(&job->gammas);
    dz_catalog_free(job->catalog);
    free(job->ctx.task_key);
    dz_context_forget_coded(&job->ctx);
    dz_chains_close(&job->ctx.chains);
    dz_plan_free(job->plan);
    dz_zoo_close(&job->ctx.zoo);
}

static double imbalance(const dz_plan *plan) {
    double sum = 0, most = 0;
    for (int r = 0; r < plan->nranks; r++) {
        sum += (double)plan->rank_cost[r];
        if ((double)plan->rank_cost[r] > most) most = (double)plan->rank_cost[r];
    }
    return sum > 0 ? most * plan->nranks / sum : 1;
}

/* Collective. */
static dz_rc gather_figures(const dz_job *job, dz_compress_result *result, double begun, dz_error *err) {
    dz_rank_figures mine = {.peak_memory = dz_peak_memory(),
                            .bytes_read = job->ctx.bytes_read,
                            .bytes_written = (double)dz_bytes_written(),
                            .blocks_taken_over = (double)job->ctx.journal.adopted};
    memcpy(mine.secs, job->ctx.secs, sizeof mine.secs);
    if (gethostname(mine.host, sizeof mine.host - 1) != 0) strcpy(mine.host, "?");
    result->nranks = job->ctx.world->size;
    if (job->ctx.world->rank == 0) result->ranks = dz_alloc((size_t)job->ctx.world->size, sizeof mine, err);
    dz_rc rc = dz_sync_error(job->ctx.world, err->rc, err);
    if (rc != DZ_OK) return rc;
    dz_gather(job->ctx.world, &mine, sizeof mine, result->ranks);
    result->total_secs = dz_now() - begun;
    result->planned_imbalance = imbalance(job->plan);
    return DZ_OK;
}

/* Collective. The stages. */
static dz_rc run_stages(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    dz_results results = dz_job_results(job);
    dz_rc rc = dz_statistics(ctx, &job->stats, err);
    if (rc == DZ_OK) rc = dz_append_check_base(ctx, &job->stats, err);
    if (rc == DZ_OK) rc = dz_shapes_make(ctx, &job->stats, &job->shapes, err);
    if (rc == DZ_OK) rc = dz_sync_error(ctx->world, dz_choose(ctx, &job->stats, &job->lossy, err), err);
    if (rc == DZ_OK) rc = dz_histogram(ctx, &job->lossy, &job->counts, err);
    if (rc == DZ_OK) rc = dz_sync_error(ctx->world, dz_allocation_init(ctx, &job->lossy, &job->allocation, err), err);
    if (rc == DZ_OK) rc = dz_sync_error(ctx->world, dz_gammas_init(ctx, &job->gammas, err), err);
    if (rc == DZ_OK) rc = dz_companions_code(ctx, &job->catalog, err);
    if (rc == DZ_OK) rc = dz_job_encode(job, err);
    if (rc == DZ_OK) rc = dz_trace_norms(ctx, &job->lossy, &job->allocation, &job->blocks, &job->gammas, err);
    if (rc == DZ_OK) rc = dz_assemble(ctx, &results, &job->catalog, err);
    return rc;
}

static void touch_lock(void *arg) { dz_lock_touch(arg); }

/* Collective. After success NAME.partial has become the archive. After a failure that a later run may get over, the journal stays;
 * otherwise nothing does. */
static dz_rc clean_up(dz_job *job, dz_rc rc, dz_error *err) {
    const char *archive = job->ctx.opt->archive;
    int begun = job->ctx.journal.dir != NULL;
    int keep = begun && (rc == DZ_EINTERRUPT || ((rc == DZ_EFAIL || rc == DZ_ENOMEM) && dz_journal_worth_keeping(&job->ctx.journal)));
    dz_error none = {0};
    if (keep) dz_journal_flush(&job->ctx.journal, &none);
    dz_journal_close(&job->ctx.journal);
    if (job->ctx.world->rank == 0 && job->lock->fd >= 0) {
        dz_staging_discard(&job->ctx.staging);
        if (begun && (rc == DZ_OK || !keep)) dz_journal_remove(archive);
        if (rc == DZ_OK ? job->generations->at + 1 >= job->generations->n : begun && !keep) dz_generations_remove(archive);
    }
    if (begun && rc == DZ_EINTERRUPT)
        snprintf(err->text, sizeof err->text, "%s: interrupted; the same command goes on where it stopped (from %s.journal)", archive,
                 archive);
    else if (keep && strlen(err->text) + strlen(archive) + 80 < sizeof err->text)
        sprintf(err->text + strlen(err->text), "; the same command goes on where it stopped (from %s.journal)", archive);
    return rc;
}

/* Rank 0: the figures of the job, or of its generation, for the user. */
static void tell_result(const dz_job *job, dz_compress_result *result, dz_error *err) {
    const dz_zoo *zoo = &job->ctx.zoo;
    char setting[DZ_SETTING_TEXT];
    size_t own = 0;
    for (size_t t = 0; t < zoo->ntasks; t++) own += zoo->own[t] != NULL && zoo->tasks[t] != zoo->stored;
    dz_job_notes(job, &result->notes, err);
    result->own_settings += own;
    own = result->own_settings;
    free(result->recipe_name);
    free(result->setting);
    result->recipe_name = dz_strdup(zoo->recipe->name, err);
    result->setting = own ? dz_format(err, "%s; %zu task%s with settings of %s own", dz_recipe_setting(zoo->recipe, setting), own,
                                      own == 1 ? "" : "s", own == 1 ? "its" : "their")
                          : dz_strdup(dz_recipe_setting(zoo->recipe, setting), err);
    if (!result->task) result->task = dz_strdup(zoo->names[0], err);
}

/* Collective. The whole job, or one generation of it. */
static dz_rc run_job(dz_job *job, dz_compress_result *result, double begun, dz_error *err) {
    const dz_world *world = job->ctx.world;
    dz_generations *g = job->generations;
    double opened = dz_now();
    dz_rc rc = open_job(job, result, err);
    job->ctx.secs[DZ_PHASE_OPEN] += dz_now() - opened;
    if (rc == DZ_OK && job->ctx.zoo.ntasks == 0) {
        result->nothing_to_do = 1;
        g->n = 1;
        if (world->rank == 0) dz_journal_remove(job->ctx.opt->archive); /* of a job that was killed when its archive was there */
    } else if (rc == DZ_OK && !job->done) {
        if (g->to) {
            free(job->ctx.staging.path);
            job->ctx.staging.path = dz_strdup(g->to, err);
            rc = dz_sync_error(world, err->rc, err);
        }
        if (rc == DZ_OK) rc = run_stages(job, err);
        if (rc == DZ_OK) rc = gather_figures(job, result, begun, err);
        if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? (tell_result(job, result, err), err->rc) : DZ_OK, err);
    }
    if (rc == DZ_OK && !result->nothing_to_do) result->ntasks += job->ctx.zoo.ntasks - (job->ctx.zoo.stored != NULL);
    rc = clean_up(job, rc, err);
    if (job->plan)
        close_job(job);
    else
        dz_zoo_close(&job->ctx.zoo);
    dz_chains_close(&job->ctx.chains);
    dz_copy_tasks_close(&job->ctx.copied);
    dz_staging_free(&job->ctx.staging);
    return rc;
}

dz_rc dz_compress(const dz_world *world, const dz_compress_options *opt, dz_compress_result *result, dz_error *err) {
    double begun = dz_now(), secs[DZ_PHASES] = {0}, bytes_read = 0;
    dz_lock lock = {.fd = -1};
    dz_generations g = {.n = 1};
    dz_rc rc = DZ_OK;
    dz_stop_on_signals();
    dz_watchdog_start(world, opt->watchdog, world->rank == 0 ? touch_lock : NULL, &lock);
    for (; rc == DZ_OK && g.at < g.n; g.at++) {
        dz_job job = {.ctx = {.world = world, .opt = opt, .journal = {.fd = -1, .other_fd = -1}, .bytes_read = bytes_read},
                      .generations = &g,
                      .lock = &lock};
        memcpy(job.ctx.secs, secs, sizeof secs);
        rc = run_job(&job, result, begun, err);
        memcpy(secs, job.ctx.secs, sizeof secs);
        bytes_read = job.ctx.bytes_read;
        free(g.from);
        g.from = g.to;
        g.to = NULL;
    }
    dz_watchdog_stop();
    dz_lock_drop(&lock);
    dz_generations_free(&g);
    return rc;
}

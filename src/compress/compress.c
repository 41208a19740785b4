#include "compress/compress.h"

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
#include "base/overwrite.h"
#include "base/version.h"
#include "compress/append.h"
#include "compress/assemble.h"
#include "compress/companions.h"
#include "compress/fused.h"
#include "compress/settle.h"
#include "compress/tied.h"
#include "parallel/watchdog.h"
#include "plan/zoo_plan.h"

#define MEMORY_CHAINS ((uint64_t)64 << 20) /* tiles of parents as they are restored */
#define MEMORY_LEAST ((uint64_t)128 << 20) /* two tiles, their levels and candidates, and what MPI and HDF5 take */

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

/* A job: what its stages share, and their results in the order in which they come. With chains, the part of it that is one generation. */
typedef struct dz_job {
    dz_context ctx;
    dz_generations *generations;
    dz_plan *plan; /* the context has it as const */
    dz_stats stats;
    dz_shapes shapes;
    dz_lossy_plan lossy;
    dz_counts counts;
    dz_allocation allocation;
    dz_exact_trials trials;
    dz_block_table blocks;
    dz_gammas gammas;
    dz_catalog *catalog;   /* rank 0, from the first layout on */
    dz_lock *lock;         /* rank 0: of the archive, while all generations run */
    int done;              /* an earlier run has made this generation's archive */
    uint64_t block_budget; /* bytes of coded blocks that may stay in memory */
    size_t skipped;        /* tasks of the manifest that the archive has already */
    int foreign;           /* the journal was another job's: it is gone */
    int resumed;           /* the journal has something of an earlier run of this job */
} dz_job;

/* Splits the memory budget: fixed buffers first, then a quarter for coded blocks and the rest for candidates kept between stages. */
static void set_budgets(dz_job *job) {
    uint64_t fixed = MEMORY_LEAST + dz_checkpoint_memory(job->ctx.zoo.base), mem = job->ctx.opt->mem_per_rank;
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
    dz_buf_put_u64(b, (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec, err);
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
            dz_buf_put_u64(&b, (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec, err);
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
        for (size_t at = 0; rc == DZ_OK && world->rank == 0 && at < whole->notes.len;) {
            const char *line = (const char *)whole->notes.data + at;
            int len = (int)strcspn(line, "\n");
            if (strncmp(line, "left out: ", 10) == 0) dz_buf_note(&result->notes, err, "%.*s", len, line);
            at += (size_t)len + 1;
        }
        dz_plan_free(whole);
        if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) return rc;
        rc = dz_generations_make(world, ctx->opt, &ctx->zoo, ctx->copied.old ? ctx->copied.old->catalog : NULL, g, &result->notes, err);
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
    dz_zoo_open(world, job->ctx.opt->manifest, &job->ctx.opt->recipe, &job->ctx.zoo, err);
    dz_fail_join(&of_output, err); /* what is wrong with the output hides nothing that is wrong with the input */
    *err = of_output;
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) return rc;
    if ((rc = dz_sync_error(world, world->rank == 0 ? check_outputs(job, result, err) : DZ_OK, err)) != DZ_OK) return rc;
    if ((rc = dz_append_open(&job->ctx, job->generations->from, &job->skipped, result, err)) != DZ_OK) return rc;
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
    dz_chains_close(&job->ctx.chains);
    dz_plan_free(job->plan);
    dz_zoo_close(&job->ctx.zoo);
}

/* The names of a task's rows of a policy, the first three of them; how many rows there are. */
static size_t name_rows(const dz_catalog *c, const dz_task_entry *task, dz_policy policy, dz_buf *names, dz_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < task->nrows; i++) {
        if (task->rows[i].policy == policy && n++ < 3)
            dz_buf_line(names, err, "%s'%s'", n > 1 ? ", " : "", c->tensors[task->rows[i].tensor].name);
    }
    if (n > 3) dz_buf_line(names, err, " and %zu more (info --task lists them)", n - 3);
    dz_buf_put(names, "", 1, err);
    return n;
}

/* A task's tensors that are not kept, and one that adds nothing to the base. */
static void note_what_is_kept(const dz_job *job, size_t t, dz_buf *notes, dz_error *err) {
    const dz_catalog *c = job->catalog;
    const dz_task_entry *task = &c->tasks[job->ctx.copied.ntasks + t];
    dz_buf dropped = {0}, absent = {0};
    size_t ndropped = name_rows(c, task, DZ_POLICY_DROP, &dropped, err), nabsent = name_rows(c, task, DZ_POLICY_ABSENT, &absent, err);
    size_t n = task->nrows - nabsent, differ = 0;
    for (size_t i = 0; i < task->nrows; i++)
        differ += task->rows[i].length != 0 || task->rows[i].source != 0 || task->rows[i].base == DZ_NO_BASE;
    if (err->rc != DZ_OK) goto out;
    if (ndropped)
        dz_buf_note(notes, err, "task '%s': %zu tensor%s dropped by the recipe, the base's values take their place: %s", task->name,
                    ndropped, ndropped == 1 ? " is" : "s are", (const char *)dropped.data);
    if (!differ && ndropped + nabsent == 0)
        dz_buf_note(notes, err, "task '%s' equals the base", task->name);
    else if (!differ && n > ndropped)
        dz_buf_note(notes, err, "task '%s': what is kept of it (%zu of %zu tensors) equals the base%s%s", task->name, n - ndropped, n,
                    nabsent ? ", without " : "", (const char *)absent.data);
out:
    dz_buf_free(&dropped);
    dz_buf_free(&absent);
}

/* Tensors of a task that were to be lossy and are kept exactly, with the reason. */
static void note_exact(const dz_job *job, size_t t, dz_reason reason, dz_buf *notes, dz_error *err) {
    static const char *const why[DZ_REASONS] = {[DZ_REASON_NONFINITE] = "with NaN or infinity",
                                                [DZ_REASON_OVERFLOW] = "whose restored values could leave the range of their type",
                                                [DZ_REASON_SMALLER] = "whose exact coding is no larger than the lossy one, or hardly"};
    const dz_plan *plan = job->plan;
    const char *first = NULL;
    size_t n = 0;
    for (size_t i = plan->first_pair[t]; i < plan->first_pair[t + 1]; i++) {
        const dz_tensor_pair *pair = &plan->pairs[i];
        if (pair->lossy < 0 || job->lossy.tensors[pair->lossy].reason != reason) continue;
        if (n++ == 0) first = dz_pair_tensor(plan, pair)->name;
    }
    if (n)
        dz_buf_note(notes, err, "task '%s': %zu tensor%s %s, kept exactly: '%s'%s", job->ctx.zoo.names[t], n, n == 1 ? "" : "s",
                    why[reason], first, n > 1 ? ", ..." : "");
}

/* What the user should know beyond the table: what was not taken as the recipe's main case. */
static void collect_notes(const dz_job *job, dz_buf *notes, dz_error *err) {
    const dz_plan *plan = job->plan;
    dz_buf_put(notes, plan->notes.data, plan->notes.len, err);
    if (job->ctx.zoo.recipe->method_implied)
        dz_buf_note(notes, err, "method ultradelta, because its keys are set (sparsity and the like): --method names another");
    if (job->ctx.zoo.manifest->no_base)
        dz_buf_note(notes, err, "%s names no base: each task is coded by itself, exactly", job->ctx.opt->manifest);
    for (size_t t = 0; t < plan->ntasks; t++) {
        for (int reason = DZ_REASON_NONFINITE; reason < DZ_REASONS; reason++) note_exact(job, t, (dz_reason)reason, notes, err);
        note_what_is_kept(job, t, notes, err);
    }
    if (job->ctx.opt->append && !job->ctx.copied.old && !job->ctx.opt->skip_existing && !job->ctx.opt->update &&
        !job->resumed) /* what a requeued job expects is not reported */
        dz_buf_note(notes, err, "there was no archive to append to: it is a new one");
    for (size_t at = 0; job->ctx.copied.old && at < job->ctx.copied.old->catalog->foreign.len;) {
        const char *line = (const char *)job->ctx.copied.old->catalog->foreign.data + at;
        int len = (int)strcspn(line, "\n");
        dz_buf_note(notes, err, "%s: %.*s was not of the archive: not taken along", job->ctx.opt->archive, len, line);
        at += (size_t)len + 1;
    }
    if (job->foreign)
        dz_buf_note(notes, err, "%s.journal was of another job (models, recipe or program differ): it was not used", job->ctx.opt->archive);
    if (job->resumed) dz_buf_note(notes, err, "went on where an earlier run of this job was interrupted");
    if (job->ctx.opt->mem_per_rank < MEMORY_LEAST)
        dz_buf_note(notes, err, "--mem-per-rank: less than the 128M that a rank needs at least: 128M are taken");
    if (job->skipped) dz_buf_note(notes, err, "%zu tasks are in the archive already", job->skipped);
    if (job->ctx.opt->nhints && !dz_io_by_mpi(job->ctx.opt->io, job->ctx.world))
        dz_buf_note(notes, err, "--io-hint has no effect: it needs --io collective and more than one rank");
    if ((size_t)job->ctx.world->size > plan->nunits)
        dz_buf_note(notes, err, "%d ranks for %zu tiles: some have nothing to do", job->ctx.world->size, plan->nunits);
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

static dz_results results_of(const dz_job *job) {
    return (dz_results){
        .stats = &job->stats, .lossy = &job->lossy, .allocation = &job->allocation, .blocks = &job->blocks, .gammas = &job->gammas};
}

/* Collective. Allocates until no more tensor turns out to be as small when coded exactly. */
static dz_rc allocate_and_settle(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    size_t changed = 1;
    dz_rc rc = DZ_OK;
    while (rc == DZ_OK && changed) {
        rc = dz_allocate(ctx, &job->stats, &job->shapes, &job->lossy, &job->counts, &job->allocation, err);
        if (rc == DZ_OK) rc = dz_settle(ctx, &job->stats, &job->allocation, &job->lossy, &job->trials, &changed, err);
    }
    return rc;
}

/* Collective. */
static dz_rc encode_and_settle(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    dz_rc rc = DZ_OK;
    do {
        rc = dz_encode(ctx, &job->shapes, &job->lossy, &job->counts, &job->allocation, &job->blocks, err);
    } while (rc == DZ_OK && dz_settle_encoded(ctx, &job->blocks, &job->trials, &job->lossy) > 0);
    return rc;
}

#define MOST_FORECASTS 12
#define MOST_ROUNDS 8
#define FORESEEN 0.0005   /* of the target, between it and a forecast */
#define CLOSE_ENOUGH 0.01 /* of the target, between it and what was encoded */

/* Bytes of the tensors of a task that the plan calls lossy, as the laid-out file has them. */
typedef struct fit {
    double want, now, fixed; /* the target; what they take; of that what no level changes */
    int lossy;               /* any of them is */
} fit;

/* Rank 0, by the block table and the last layout. */
static fit fit_of(const dz_job *job, size_t t) {
    const dz_context *ctx = &job->ctx;
    double source = 0, exact = 0, coded = 0;
    fit f = {0};
    for (size_t i = ctx->plan->first_pair[t]; i < ctx->plan->first_pair[t + 1]; i++) {
        const dz_tensor_pair *pair = &ctx->plan->pairs[i];
        if (pair->lossy < 0) continue;
        dz_policy policy = job->lossy.tensors[pair->lossy].policy;
        if (policy != DZ_POLICY_LOSSLESS && policy != DZ_POLICY_ULTRADELTA) continue;
        source += (double)(pair->tiles.common * dz_dtype_size(dz_pair_tensor(ctx->plan, pair)->dtype));
        *(policy == DZ_POLICY_LOSSLESS ? &exact : &coded) += (double)dz_region_bytes(ctx->plan, &job->blocks, pair);
        f.lossy |= policy == DZ_POLICY_ULTRADELTA;
    }
    f.fixed = exact + dz_task_size_stats(&job->catalog->tasks[ctx->copied.ntasks + t]).lossy_fixed;
    f.now = coded + f.fixed;
    f.want = source / ctx->zoo.recipe->target_ratio;
    return f;
}

/* Rank 0: the levels to try next; 1 if a task is off by more than `allowed` of the target. */
static int adjust_levels(dz_job *job, double allowed) {
    const dz_context *ctx = &job->ctx;
    int again = 0;
    for (size_t t = 0; t < ctx->plan->ntasks; t++) {
        double *level = &job->allocation.task_level[t], before = *level;
        fit f = fit_of(job, t);
        if (!f.lossy || fabs(f.now / f.want - 1) < allowed) continue;
        *level = ctx->method->relevel(before, f.want > f.fixed ? (f.want - f.fixed) / (f.now - f.fixed) : 0.5);
        again |= *level != before;
    }
    return again;
}

#define MET 0.02 /* of the target, either way */

/* Rank 0: a target that was not met is an error that says what is possible. Less than was asked for is no fault where tensors are exact. */
static dz_rc check_target(const dz_job *job, dz_error *err) {
    double target = job->ctx.zoo.recipe->target_ratio;
    for (size_t t = 0; t < job->plan->ntasks; t++) {
        fit f = fit_of(job, t);
        if (!f.lossy || fabs(f.now / f.want - 1) <= MET) continue;
        dz_fail_more(
            err, DZ_EUSAGE,
            "task '%s': target_ratio %g is not met within 2 %%: the nearest that method %s comes to is %.4g (index and tables alone "
            "allow %.4g); give a ratio that is possible, or --quality",
            job->ctx.zoo.names[t], target, job->ctx.method->name, target * f.want / f.now, target * f.want / fmax(1, f.fixed));
    }
    return err->rc;
}

/* Collective: rank 0's adjustment on all ranks. */
static uint64_t adjust(dz_job *job, double allowed, int may) {
    const dz_context *ctx = &job->ctx;
    uint64_t again = may && ctx->world->rank == 0 ? (uint64_t)adjust_levels(job, allowed) : 0;
    dz_bcast_u64(ctx->world, &again, 1);
    if (again) dz_bcast_f64(ctx->world, job->allocation.task_level, ctx->plan->ntasks);
    return again;
}

/* Collective. Levels at which the lossy tensors are expected to have the size that was asked for; one layout tells the rest of the bytes.
 */
static dz_rc foresee(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    dz_results results = results_of(job);
    dz_rc rc = DZ_OK;
    for (int i = 0; rc == DZ_OK; i++) {
        rc = allocate_and_settle(job, err);
        if (rc == DZ_OK) rc = dz_expect_blocks(ctx, &job->lossy, &job->allocation, &job->blocks, err);
        if (rc == DZ_OK && i == 0) rc = dz_assemble_layout(ctx, &results, &job->catalog, err);
        if (rc == DZ_OK && !adjust(job, FORESEEN, i < MOST_FORECASTS)) break;
    }
    return rc;
}

/* Collective. Once; with a target ratio again until every task's lossy tensors have, on disk, the size that was asked for. */
static dz_rc fit_and_encode(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    dz_results results = results_of(job);
    int by_ratio = ctx->zoo.recipe->target_ratio > 0;
    dz_rc rc = by_ratio ? foresee(job, err) : allocate_and_settle(job, err);
    for (int round = 1; rc == DZ_OK; round++) {
        rc = encode_and_settle(job, err);
        if (rc != DZ_OK || !by_ratio) return rc;
        rc = dz_assemble_layout(ctx, &results, &job->catalog, err);
        if (rc == DZ_OK && !adjust(job, CLOSE_ENOUGH, round < MOST_ROUNDS)) break;
        if (rc == DZ_OK) rc = allocate_and_settle(job, err);
    }
    if (rc != DZ_OK) return rc;
    return dz_sync_error(ctx->world, ctx->world->rank == 0 ? check_target(job, err) : DZ_OK, err);
}

/* Collective. The stages. */
static dz_rc run_stages(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    dz_results results = results_of(job);
    dz_rc rc = dz_statistics(ctx, &job->stats, err);
    if (rc == DZ_OK) rc = dz_append_check_base(ctx, &job->stats, err);
    if (rc == DZ_OK) rc = dz_shapes_make(ctx, &job->shapes, err);
    if (rc == DZ_OK) rc = dz_sync_error(ctx->world, dz_choose(ctx, &job->stats, &job->lossy, err), err);
    if (rc == DZ_OK) rc = dz_histogram(ctx, &job->lossy, &job->counts, err);
    if (rc == DZ_OK) rc = dz_sync_error(ctx->world, dz_allocation_init(ctx, &job->lossy, &job->allocation, err), err);
    if (rc == DZ_OK) rc = dz_gammas_init(ctx, &job->gammas, err);
    if (rc == DZ_OK) rc = dz_companions_code(ctx, &job->catalog, err);
    if (rc == DZ_OK) rc = fit_and_encode(job, err);
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

/* Rank 0: what the user is told of the job, or of its generation. */
static void tell_result(const dz_job *job, dz_compress_result *result, dz_error *err) {
    const dz_zoo *zoo = &job->ctx.zoo;
    char setting[DZ_SETTING_TEXT];
    size_t own = 0;
    for (size_t t = 0; t < zoo->ntasks; t++) own += zoo->own[t] != NULL && zoo->tasks[t] != zoo->stored;
    collect_notes(job, &result->notes, err);
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

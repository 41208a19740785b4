#include "compress/compress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/publish.h"
#include "base/file.h"
#include "base/log.h"
#include "base/overwrite.h"
#include "base/version.h"
#include "compress/job.h"
#include "compress/tied.h"
#include "parallel/watchdog.h"

const char *const DZ_PHASE_NAMES[DZ_PHASES] = {"open", "statistics", "histogram", "code", "trace norm", "write"};

void dz_job_begin_phase(const dz_job *job, dz_progress *progress, int phase, double total) {
    static const char *const titles[DZ_PHASES + 1] = {"open",           "1/6 statistics", "2/6 histogram", "3/6 code",
                                                      "4/6 trace norm", "5/6 write",      "6/6 read back"};
    dz_progress_begin(progress, job->world, titles[phase], total, job->opt->quiet);
}

#define MEMORY_LEAST ((uint64_t)128 << 20) /* two tiles, their levels and candidates, and what MPI and HDF5 take */

void dz_compress_result_free(dz_compress_result *r) {
    free(r->recipe_name);
    free(r->task);
    free(r->ranks);
    dz_buf_free(&r->notes);
    *r = (dz_compress_result){0};
}

static dz_rc check_output(const dz_compress_options *opt, dz_error *err) {
    if (!opt->force && !opt->append && dz_target_of(opt->archive) == DZ_TARGET_ARCHIVE)
        return dz_fail(err, DZ_EUSAGE, "%s: exists already (--force replaces it, --append adds to it)", opt->archive);
    if (dz_overwrite_check(opt->archive, DZ_TARGET_ARCHIVE, opt->force || opt->append, err) != DZ_OK) return err->rc;
    char *partial = dz_format(err, "%s.partial", opt->archive);
    if (partial) dz_overwrite_check_partial(partial, DZ_TARGET_ARCHIVE, err);
    free(partial);
    return err->rc;
}

/* Splits the memory budget: fixed buffers first, then a quarter for coded blocks and the rest for sieves kept between passes. */
static void set_budgets(dz_job *job) {
    uint64_t fixed = MEMORY_LEAST + dz_checkpoint_memory(job->zoo.base), mem = job->opt->mem_per_rank, want = 0;
    for (size_t t = 0; t < job->zoo.ntasks; t++) fixed += dz_checkpoint_memory(job->zoo.tasks[t]);
    uint64_t left = mem > fixed ? mem - fixed : 0;
    for (size_t i = 0; i < dz_job_nunits(job); i++) {
        const dz_work_item *unit = &job->plan->units[dz_job_unit(job, i)];
        if (dz_item_is_lossy(job->plan, unit)) want += dz_tile_count(&job->plan->pairs[unit->pair].tiles, unit->tile);
    }
    job->block_budget = left / 4 + ((uint64_t)8 << 20);
    job->cache_size = (size_t)(want < left / 4 * 3 ? want : left / 4 * 3);
    if (job->cache_size == 0) return;
    job->cache = mmap(NULL, job->cache_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (job->cache == MAP_FAILED) { /* the cache is a help, not a need */
        job->cache = NULL;
        job->cache_size = 0;
    } else {
        madvise(job->cache, job->cache_size, MADV_HUGEPAGE); /* page faults would cost more than the levels */
    }
}

static dz_rc prepare(dz_job *job, dz_error *err) {
    const dz_plan *plan = job->plan;
    for (size_t i = 0; i < plan->nlossy; i++) {
        size_t levels = (size_t)1 << plan->pairs[plan->lossy[i]].bits;
        if (levels > job->levels) job->levels = levels;
    }
    size_t n = plan->nlossy * job->levels, mine = dz_job_nunits(job);
    job->lossy = dz_alloc(plan->nlossy, sizeof *job->lossy, err);
    job->histograms = dz_alloc(n, sizeof *job->histograms, err);
    job->befores = dz_alloc(n, sizeof *job->befores, err);
    job->quotas = dz_alloc(n, sizeof *job->quotas, err);
    job->running = dz_alloc(n, sizeof *job->running, err);
    job->kepts = dz_alloc(n, sizeof *job->kepts, err);
    job->unit_sums = dz_alloc(2 * plan->nunits, sizeof *job->unit_sums, err);
    job->task_sparsity = dz_alloc(plan->ntasks, sizeof *job->task_sparsity, err);
    job->task_key = dz_alloc(plan->ntasks, sizeof *job->task_key, err);
    job->base_digests = dz_alloc(2 * (size_t)plan->base_tile[plan->base->ntensors], sizeof *job->base_digests, err);
    job->block_len = dz_alloc(plan->nunits, sizeof *job->block_len, err);
    job->sieved = dz_alloc(mine, sizeof *job->sieved, err);
    job->gamma = dz_alloc(plan->ntasks, sizeof *job->gamma, err);
    job->trace_norm = dz_alloc(plan->ntasks, sizeof *job->trace_norm, err);
    job->trace_error = dz_alloc(plan->ntasks, sizeof *job->trace_error, err);
    set_budgets(job);
    if (err->rc != DZ_OK) return err->rc;
    for (size_t i = 0; i < plan->nlossy; i++) {
        job->lossy[i].histogram = job->histograms + i * job->levels;
        job->lossy[i].before = job->befores + i * job->levels;
        job->lossy[i].quota = job->quotas + i * job->levels;
        job->lossy[i].kept_levels = job->kepts + i * job->levels;
    }
    for (size_t t = 0; t < plan->ntasks; t++) job->task_sparsity[t] = dz_job_first_sparsity(job->zoo.recipe);
    for (size_t t = 0; t < plan->ntasks; t++)
        job->task_key[t] = dz_hash64(job->zoo.names[t], strlen(job->zoo.names[t]), job->zoo.recipe->seed);
    return DZ_OK;
}

/* Neither --force nor --report may put anything in the place of what this job reads. */
static dz_rc check_no_input(const dz_job *job, const char *out, dz_error *err) {
    const char *read[] = {job->opt->manifest, job->opt->recipe.recipe}, *what[] = {"manifest", "recipe"};
    for (int i = 0; i < 2; i++) {
        if (read[i] && access(out, F_OK) == 0 && dz_same_file(out, read[i]))
            return dz_fail(err, DZ_EUSAGE, "%s: is the %s: nothing is written over it", out, what[i]);
    }
    dz_rc rc = dz_check_not_of_model(job->zoo.base, out, err);
    for (size_t t = 0; t < job->zoo.ntasks && rc == DZ_OK; t++) rc = dz_check_not_of_model(job->zoo.tasks[t], out, err);
    return rc;
}

static dz_rc check_outputs(const dz_job *job, dz_compress_result *result, dz_error *err) {
    const char *report = job->opt->report;
    if (check_no_input(job, job->opt->archive, err) == DZ_OK && report) result->report_is_input = check_no_input(job, report, err) != DZ_OK;
    return err->rc;
}

/* Rank 0: whatever the coded blocks depend on: program, recipe, models. The order of the tasks counts, their number of ranks does not. */
static dz_rc identity(const dz_job *job, dz_digest *out, dz_error *err) {
    dz_buf b = {0};
    char *recipe = dz_recipe_text(job->zoo.recipe, err);
    if (recipe) dz_buf_put(&b, recipe, strlen(recipe) + 1, err);
    dz_buf_put(&b, DZ_VERSION, sizeof DZ_VERSION, err);
    dz_buf_put_u32(&b, DZ_FORMAT_VERSION, err);
    for (size_t t = 0; t <= job->zoo.ntasks; t++) {
        const dz_checkpoint *ck = t == 0 ? job->zoo.base : job->zoo.tasks[t - 1];
        if (t > 0) dz_buf_put(&b, job->zoo.names[t - 1], strlen(job->zoo.names[t - 1]) + 1, err);
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
    *out = dz_digest_of(b.data, b.len);
out:
    free(recipe);
    dz_buf_free(&b);
    return err->rc;
}

/* Collective. */
static dz_rc open_journal(dz_job *job, dz_error *err) {
    const dz_world *world = job->world;
    dz_digest id = {0};
    dz_rc rc = dz_sync_error(world, world->rank == 0 ? identity(job, &id, err) : DZ_OK, err);
    if (rc != DZ_OK) return rc;
    uint64_t told[2] = {id.hi, id.lo};
    dz_bcast_u64(world, told, 2);
    id = (dz_digest){.hi = told[0], .lo = told[1]};
    const dz_plan *plan = job->plan;
    dz_journal_units mine = {
        .place = plan->place, .nunits = plan->nunits, .first = plan->first_work[world->rank], .count = dz_job_nunits(job)};
    rc = dz_journal_open(&job->journal, world, job->opt->archive, id, mine, job->block_budget, &job->foreign, err);
    uint64_t found = job->journal.nentries;
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
    for (size_t i = 0; i < job->journal.nentries; i++) known += job->journal.entries[i].kind == DZ_RECORD_STATISTICS;
    dz_sum_u64(job->world, &known, 1);
    if (job->world->rank != 0 || job->opt->quiet || dz_log_on_terminal()) return;
    for (size_t t = 0; t < job->zoo.ntasks; t++) {
        for (size_t i = 0; i < job->zoo.tasks[t]->ntensors; i++) bytes += (double)job->zoo.tasks[t]->tensors[i].nbytes;
    }
    dz_log("%s: %zu task%s of %s in all, %zu tiles, %d rank%s%s%s%s%s", job->opt->manifest, job->zoo.ntasks,
           job->zoo.ntasks == 1 ? "" : "s", dz_format_size(bytes, size), job->plan->nunits, job->world->size,
           job->world->size == 1 ? "" : "s", slurm ? ", SLURM job " : "", slurm ? slurm : "", slurm && nodes ? " on " : "",
           slurm && nodes ? nodes : "");
    if (known) dz_log("%llu of these tiles were begun by an earlier run of this job", (unsigned long long)known);
}

/* Rank 0. The output is looked at once more under the lock: the job that had it may have made the archive meanwhile. */
static dz_rc take_output(dz_job *job, dz_error *err) {
    if (check_output(job->opt, err) != DZ_OK || dz_archive_lock(&job->lock, job->opt->archive, err) != DZ_OK) return err->rc;
    return check_output(job->opt, err);
}

/* Collective. Models, recipe, plan: every error of this kind is found here, before any heavy work. */
static dz_rc open_job(dz_job *job, dz_compress_result *result, dz_error *err) {
    const dz_world *world = job->world;
    dz_error of_output = {0};
    dz_rc rc = dz_io_check_hints(job->opt->hints, job->opt->nhints, &of_output);
    if (world->rank == 0 && rc == DZ_OK) take_output(job, &of_output);
    dz_zoo_open(world, job->opt->manifest, &job->opt->recipe, &job->zoo, err);
    dz_fail_join(&of_output, err); /* what is wrong with the output hides nothing that is wrong with the input */
    *err = of_output;
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) return rc;
    if ((rc = dz_sync_error(world, world->rank == 0 ? check_outputs(job, result, err) : DZ_OK, err)) != DZ_OK) return rc;
    if ((rc = dz_job_open_archive(job, err)) != DZ_OK || job->zoo.ntasks == 0) return rc;
    if ((rc = dz_find_tied(world, job->zoo.tasks, job->zoo.ntasks, err)) != DZ_OK) return rc;
    rc = dz_plan_make(job->zoo.base, job->zoo.tasks, job->zoo.names, job->zoo.ntasks, job->zoo.recipe, world->size, &job->plan, err);
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) return rc;
    if ((rc = dz_sync_error(world, prepare(job, err), err)) != DZ_OK) return rc;
    if ((rc = open_journal(job, err)) != DZ_OK) return rc;
    tell_begin(job);
    result->resumed = job->resumed;
    return dz_sync_error(world, world->rank == 0 && job->opt->begins ? job->opt->begins(job->opt->arg, err) : DZ_OK, err);
}

static void close_job(dz_job *job) {
    if (job->cache) munmap(job->cache, job->cache_size);
    free(job->sieved);
    free(job->lossy);
    free(job->histograms);
    free(job->befores);
    free(job->quotas);
    free(job->running);
    free(job->kepts);
    free(job->unit_sums);
    free(job->task_sparsity);
    dz_catalog_free(job->catalog);
    free(job->task_key);
    free(job->base_digests);
    free(job->block_len);
    free(job->gamma);
    free(job->trace_norm);
    free(job->trace_error);
    dz_plan_free(job->plan);
    dz_zoo_close(&job->zoo);
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
    const dz_task_entry *task = &c->tasks[job->copied.ntasks + t];
    dz_buf dropped = {0}, absent = {0};
    size_t ndropped = name_rows(c, task, DZ_POLICY_DROP, &dropped, err), nabsent = name_rows(c, task, DZ_POLICY_ABSENT, &absent, err);
    size_t n = task->nrows - nabsent, differ = 0;
    for (size_t i = 0; i < task->nrows; i++) differ += task->rows[i].length != 0 || task->rows[i].base == DZ_NO_BASE;
    if (err->rc != DZ_OK) goto out;
    if (ndropped)
        dz_buf_note(notes, err, "task '%s': %zu tensor%s dropped by the recipe, the base's values take their place: %s", task->name,
                    ndropped, ndropped == 1 ? " is" : "s are", (const char *)dropped.data);
    if (!differ && ndropped + nabsent == 0)
        dz_buf_note(notes, err, "task '%s' equals the base", task->name);
    else if (!differ && n > ndropped)
        dz_buf_note(notes, err, "task '%s': what is kept of it (%zu of %zu tensors) equals the base%s%s", task->name, n - ndropped, n,
                    nabsent ? ", of which it has not " : "", (const char *)absent.data);
out:
    dz_buf_free(&dropped);
    dz_buf_free(&absent);
}

/* What the user should know beyond the table: what was not taken as the recipe's main case. */
static void collect_notes(const dz_job *job, dz_buf *notes, dz_error *err) {
    const dz_plan *plan = job->plan;
    dz_buf_put(notes, plan->notes.data, plan->notes.len, err);
    for (size_t t = 0; t < plan->ntasks; t++) {
        for (size_t i = plan->first_pair[t]; i < plan->first_pair[t + 1]; i++) {
            const dz_tensor_pair *pair = &plan->pairs[i];
            if (pair->policy == DZ_POLICY_LOSSLESS && pair->lossy >= 0)
                dz_buf_note(notes, err, "task '%s': tensor '%s' holds NaN or infinity: kept exactly", job->zoo.names[t],
                            dz_pair_tensor(plan, pair)->name);
        }
        note_what_is_kept(job, t, notes, err);
    }
    if (job->opt->append && !job->copied.old && !job->opt->skip_existing && !job->resumed) /* what a requeued job expects is not told */
        dz_buf_note(notes, err, "there was no archive to append to: it is a new one");
    if (job->foreign)
        dz_buf_note(notes, err, "%s.journal was of another job (models, recipe or program differ): it was not used", job->opt->archive);
    if (job->resumed) dz_buf_note(notes, err, "went on where an earlier run of this job was interrupted");
    if (job->opt->mem_per_rank < MEMORY_LEAST)
        dz_buf_note(notes, err, "--mem-per-rank: less than the 128M that a rank needs at least: 128M are taken");
    if (job->skipped) dz_buf_note(notes, err, "%zu tasks are in the archive already", job->skipped);
    if (job->opt->nhints && !dz_io_by_mpi(job->opt->io, job->world))
        dz_buf_note(notes, err, "--io-hint has no effect: it needs --io collective and more than one rank");
    if ((size_t)job->world->size > plan->nunits)
        dz_buf_note(notes, err, "%d ranks for %zu tiles: some have nothing to do", job->world->size, plan->nunits);
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
                            .bytes_read = job->bytes_read,
                            .bytes_written = (double)dz_bytes_written(),
                            .blocks_taken_over = (double)job->journal.adopted};
    memcpy(mine.secs, job->secs, sizeof mine.secs);
    if (gethostname(mine.host, sizeof mine.host - 1) != 0) strcpy(mine.host, "?");
    result->nranks = job->world->size;
    if (job->world->rank == 0) result->ranks = dz_alloc((size_t)job->world->size, sizeof mine, err);
    dz_rc rc = dz_sync_error(job->world, err->rc, err);
    if (rc != DZ_OK) return rc;
    dz_gather(job->world, &mine, sizeof mine, result->ranks);
    result->total_secs = dz_now() - begun;
    result->planned_imbalance = imbalance(job->plan);
    return DZ_OK;
}

/* Collective. Once; with a target ratio again until every task's lossy tensors have, on disk, the size that was asked for. */
static dz_rc prune_and_code(dz_job *job, dz_error *err) {
    int again = 1;
    for (int round = 0; again; round++) {
        dz_rc rc = dz_job_allocate(job, err);
        if (rc == DZ_OK) rc = dz_job_code(job, err);
        if (rc == DZ_OK && job->zoo.recipe->target_ratio > 0) rc = dz_job_layout(job, err);
        if (rc != DZ_OK) return rc;
        dz_job_adjust(job, round, &again);
    }
    return DZ_OK;
}

static void touch_lock(void *arg) { dz_lock_touch(&((dz_job *)arg)->lock); }

/* Collective. After success NAME.partial has become the archive. After a failure that a later run may get over, the journal stays;
 * otherwise nothing does. */
static dz_rc clean_up(dz_job *job, dz_rc rc, dz_error *err) {
    const char *archive = job->opt->archive;
    int begun = job->journal.dir != NULL;
    int keep = begun && (rc == DZ_EINTERRUPT || ((rc == DZ_EFAIL || rc == DZ_ENOMEM) && dz_journal_worth_keeping(&job->journal)));
    dz_error none = {0};
    if (keep) dz_journal_flush(&job->journal, &none);
    dz_journal_close(&job->journal);
    if (job->world->rank == 0 && job->lock.fd >= 0) {
        char *partial = rc != DZ_OK ? dz_format(&none, "%s.partial", archive) : NULL;
        if (partial) unlink(partial);
        free(partial);
        if (begun && (rc == DZ_OK || !keep)) dz_journal_remove(archive);
    }
    if (begun && rc == DZ_EINTERRUPT)
        snprintf(err->text, sizeof err->text, "%s: interrupted; the same command goes on where it stopped (from %s.journal)", archive,
                 archive);
    else if (keep && strlen(err->text) + strlen(archive) + 80 < sizeof err->text)
        sprintf(err->text + strlen(err->text), "; the same command goes on where it stopped (from %s.journal)", archive);
    dz_lock_drop(&job->lock);
    return rc;
}

dz_rc dz_compress(const dz_world *world, const dz_compress_options *opt, dz_compress_result *result, dz_error *err) {
    double begun = dz_now();
    dz_job job = {.world = world, .opt = opt, .lock = {.fd = -1}, .journal = {.fd = -1, .other_fd = -1}};
    dz_stop_on_signals();
    dz_watchdog_start(world, opt->watchdog, world->rank == 0 ? touch_lock : NULL, &job);
    dz_rc rc = open_job(&job, result, err);
    job.secs[DZ_PHASE_OPEN] = dz_now() - begun;
    result->nothing_to_do = rc == DZ_OK && job.zoo.ntasks == 0;
    if (result->nothing_to_do) goto out;
    if (rc == DZ_OK) rc = dz_job_statistics(&job, err);
    if (rc == DZ_OK) rc = dz_job_histograms(&job, err);
    if (rc == DZ_OK) rc = prune_and_code(&job, err);
    if (rc == DZ_OK) rc = dz_job_trace(&job, err);
    if (rc == DZ_OK) rc = dz_job_write(&job, err);
    if (rc == DZ_OK) rc = gather_figures(&job, result, begun, err);
    if (rc == DZ_OK) {
        if (world->rank == 0) collect_notes(&job, &result->notes, err);
        if (world->rank == 0) result->recipe_name = dz_strdup(job.zoo.recipe->name, err);
        if (world->rank == 0) result->task = dz_strdup(job.zoo.names[0], err);
        result->ntasks = job.zoo.ntasks;
        rc = dz_sync_error(world, err->rc, err);
    }
out:
    dz_watchdog_stop();
    rc = clean_up(&job, rc, err);
    if (job.plan)
        close_job(&job);
    else
        dz_zoo_close(&job.zoo);
    dz_copy_tasks_close(&job.copied);
    return rc;
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "archive/reader.h"
#include "archive_ops/repack.h"
#include "base/file.h"
#include "base/log.h"
#include "base/overwrite.h"
#include "cli/cli.h"
#include "cli/report.h"
#include "compress/compress.h"

static void print_headline(const dz_catalog *c, const dz_compress_options *opt, const dz_compress_result *r) {
    int64_t at = dz_catalog_find(c, r->task);
    const dz_task_entry *task = &c->tasks[at < 0 ? 0 : at];
    char some[48] = "";
    size_t n = dz_catalog_ntasks(c);
    if (r->ntasks < n) snprintf(some, sizeof some, ", %zu by this job:", r->ntasks);
    printf("%s: %zu task%s%s%s%s recipe %s: %s, seed %llu\n\n", opt->archive, n, n == 1 ? "" : "s", c->stored ? " and the base" : "", some,
           some[0] ? "" : ",", r->recipe_name, r->setting, (unsigned long long)task->seed);
}

/* One job from its start to its end; what the report needs. */
typedef struct compress_job {
    const dz_compress_options *opt;
    dz_compress_result result;
    time_t started;
    double begun;
    int nranks, begins, report_lost; /* lost: it could not be written, and that was reported */
} compress_job;

#define LARGEST_REPORT ((size_t)1 << 30)

/* The report of a job that came to a good end. */
static int is_good_report(const char *path) {
    dz_error none = {0};
    char *text = NULL;
    size_t len = 0;
    if (dz_target_of(path) != DZ_TARGET_REPORT || dz_read_file(path, LARGEST_REPORT, &text, &len, &none) != DZ_OK) return 0;
    json_t *root = json_loadb(text, len, 0, NULL);
    const char *state = json_string_value(json_object_get(json_object_get(root, "job"), "state"));
    int good = state && (strcmp(state, "done") == 0 || strcmp(state, "nothing to do") == 0);
    json_decref(root);
    free(text);
    return good;
}

/* FILE.rerun.json beside FILE.json: of a job that has not come to a good end, where FILE.json tells of one that has. The caller frees. */
static char *rerun_report(const char *report, dz_error *err) {
    int stem = (int)strlen(report) - (dz_ends_with(report, ".json") ? 5 : 0);
    return dz_format(err, "%.*s.rerun.json", stem, report);
}

/* `c` NULL: no archive to tell of. `end` NULL: the job has only begun. */
static dz_rc write_report(compress_job *job, const dz_catalog *c, const dz_error *end, dz_error *err) {
    const char *report = job->opt->report, *good = job->result.nothing_to_do ? "nothing to do" : "done";
    dz_job_state state = {.state = !end                       ? "running"
                                   : end->rc == DZ_OK         ? good
                                   : end->rc == DZ_EINTERRUPT ? "interrupted"
                                                              : "failed",
                          .started = job->started,
                          .secs = dz_now() - job->begun,
                          .nranks = job->nranks,
                          .err = end};
    if (!report || job->report_lost || job->result.report_is_input) return err->rc;
    char *rerun = rerun_report(report, err);
    int ended_well = end && end->rc == DZ_OK, beside = rerun && !ended_well && is_good_report(report);
    if (rerun && dz_overwrite_check(beside ? rerun : report, DZ_TARGET_REPORT, 0, err) == DZ_OK)
        dz_print_json(dz_job_json(&state, &job->result, c, job->opt), beside ? rerun : report, err);
    if (err->rc == DZ_OK && ended_well && dz_target_of(rerun) == DZ_TARGET_REPORT) unlink(rerun);
    if (err->rc == DZ_OK && beside && end && end->rc != DZ_OK)
        dz_message("note", "%s tells of a job that is done, and stays; this job's report is %s", report, rerun);
    job->report_lost = err->rc != DZ_OK;
    free(rerun);
    return err->rc;
}

/* From here on an earlier report that tells of no good end would be taken for this job's, should it be killed. */
static dz_rc begins(void *arg, dz_error *err) {
    compress_job *job = arg;
    job->begins = 1;
    return write_report(job, NULL, NULL, err);
}

/* A line for each task: what --update makes of it. */
static void print_update(const dz_buf *lines) {
    for (size_t at = 0; at < lines->len; at += strcspn((const char *)lines->data + at, "\n") + 1) {
        const char *name = (const char *)lines->data + at, *action = name + strcspn(name, "\t") + 1,
                   *why = action + strcspn(action, "\t") + 1;
        int len = (int)strcspn(why, "\n");
        printf("%-9.*s %.*s%s%.*s\n", (int)(why - action) - 1, action, (int)(action - name) - 1, name, len ? ": " : "", len, why);
    }
    if (lines->len) putchar('\n');
}

/* Collective. Tasks that --prune removes where nothing is added: an archive without them. */
static dz_rc prune(const dz_world *world, const compress_job *job, dz_error *err) {
    dz_rewrite_options opt = {.archive = job->opt->archive, .out = job->opt->archive};
    dz_rewrite_result result = {0};
    dz_buf names = {0};
    const char **leave = NULL;
    dz_buf_put(&names, job->result.pruned.data, job->result.pruned.len, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) rc = dz_bcast_buf(world, &names, err);
    if (rc != DZ_OK || names.len == 0) goto out;
    leave = dz_alloc(names.len, sizeof *leave, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    for (size_t at = 0; at < names.len;) {
        char *name = (char *)names.data + at;
        at += strcspn(name, "\n") + 1;
        names.data[at - 1] = '\0';
        leave[opt.nleave++] = name;
    }
    opt.leave = leave;
    rc = dz_rewrite(world, &opt, &result, err);
out:
    dz_buf_free(&result.foreign);
    dz_buf_free(&names);
    free(leave);
    return rc;
}

/* Rank 0: tells the result as the archive has it, not as the job remembers it. */
static dz_rc tell(compress_job *job, dz_error *err) {
    const dz_compress_options *opt = job->opt;
    const dz_compress_result *r = &job->result;
    dz_archive *archive = NULL;
    if (dz_archive_open(opt->archive, &archive, err) != DZ_OK) return err->rc;
    dz_print_notes(&r->notes);
    const dz_catalog *c = archive->catalog;
    print_update(&r->update);
    if (r->nothing_to_do) {
        printf("%s: has all tasks of %s already%s\n", opt->archive, opt->manifest, opt->update ? ", and none has changed" : "");
    } else {
        print_headline(c, opt, r);
        dz_print_tasks(c, NULL);
        dz_print_phases(r);
        dz_buf warnings = {0};
        for (size_t t = 0; t < c->ntasks; t++) dz_task_warnings(c, &c->tasks[t], &warnings, err);
        dz_print_notes(&warnings);
        dz_buf_free(&warnings);
    }
    dz_error none = {0};
    write_report(job, c, &none, err);
    dz_archive_close(archive);
    return err->rc;
}

/* Rank 0: of a job that has not done its work. What kept it from that comes first. */
static void report_failure(compress_job *job, dz_error *err) {
    dz_error why = *err, more = {0};
    if (write_report(job, NULL, &why, &more) != DZ_OK) dz_fail_more(err, err->rc, "%s", more.text);
}

/* A report that cannot be written is found before the work. */
static dz_rc check_report(const char *path, const char *archive, dz_error *err) {
    dz_error why = {0};
    if (dz_same_file(archive, path)) return dz_fail(err, DZ_EUSAGE, "--report %s: is the archive", path);
    return dz_overwrite_check(path, DZ_TARGET_REPORT, 0, &why) == DZ_OK ? DZ_OK : dz_fail(err, why.rc, "--report %s", why.text);
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    dz_compress_options opt = {.mem_per_rank = (uint64_t)2 << 30, .anchor_every = DZ_ANCHOR_EVERY};
    dz_option_list sets = {0};
    compress_job job = {.opt = &opt, .started = time(NULL), .begun = dz_now(), .nranks = world->size};
    dz_option_list hints = {0};
    const char *io = "posix", *args[1];
    int helped = 0, watchdog = 1800;
    const dz_option options[] = {
        {"output", 'o', DZ_OPTION_TEXT, &opt.archive, "ARCHIVE", "the HDF5 file to write"},
        {"recipe", 0, DZ_OPTION_TEXT, &opt.recipe.recipe, "FILE|NAME", "which tensors are lossy, and how (default: structure)"},
        DZ_METHOD_OPTIONS(sets),
        {"set", 0, DZ_OPTION_LIST, &sets, "KEY=VALUE", "overrides one key of the recipe; may be repeated"},
        {"force", 0, DZ_OPTION_FLAG, &opt.force, NULL, "replace an existing archive"},
        {"append", 0, DZ_OPTION_FLAG, &opt.append, NULL, "add the zoo's tasks to an existing archive"},
        {"replace", 0, DZ_OPTION_FLAG, &opt.replace, NULL, "append, replacing tasks of the same name"},
        {"skip-existing", 0, DZ_OPTION_FLAG, &opt.skip_existing, NULL, "append only tasks that the archive lacks"},
        {"update", 0, DZ_OPTION_FLAG, &opt.update, NULL, "append new tasks and replace those whose models have changed, by their content"},
        {"prune", 0, DZ_OPTION_FLAG, &opt.prune, NULL, "with --update: remove tasks that the manifest no longer names"},
        {"with-base", 0, DZ_OPTION_FLAG, &opt.with_base, NULL, "store the base too: nothing else is needed to restore"},
        {"allow-lossy-input", 0, DZ_OPTION_FLAG, &opt.allow_lossy, NULL, "also compress models restored from a lossy archive"},
        {"skip-unmatched", 0, DZ_OPTION_FLAG, &opt.skip_unmatched, NULL, "leave out tasks that do not match the base"},
        {"anchor-every", 0, DZ_OPTION_INT, &opt.anchor_every, "N", "of a chain of parents, code every N-th against the base (9)"},
        {"mem-per-rank", 0, DZ_OPTION_SIZE, &opt.mem_per_rank, "SIZE", "memory of each rank (2G); at least 128M"},
        {"io", 0, DZ_OPTION_TEXT, &io, "posix|collective", "who writes: each rank by itself (posix), or MPI-IO"},
        {"io-hint", 0, DZ_OPTION_LIST, &hints, "KEY=VALUE", "a hint for MPI-IO (cb_nodes=8); may be repeated"},
        {"report", 0, DZ_OPTION_TEXT, &opt.report, "FILE.json", "write a report of the job"},
        {"watchdog", 0, DZ_OPTION_INT, &watchdog, "SECONDS", "end with code 75 after this time without progress (1800; 0: never)"},
        {"quiet", 'q', DZ_OPTION_FLAG, &opt.quiet, NULL, "no progress"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    dz_rc rc = dz_parse_options(world, &DZ_CMD_COMPRESS, argc, argv, options, args, 1, &helped, err);
    if (rc != DZ_OK || helped) goto out;
    if (!opt.archive) {
        rc = dz_fail(err, DZ_EUSAGE, "compress: -o ARCHIVE is needed (deltazoo compress --help)");
        goto out;
    }
    if (opt.update && (opt.force || opt.append || opt.replace || opt.skip_existing)) {
        rc = dz_fail(err, DZ_EUSAGE, "compress: --update decides itself what is added and replaced; give it alone");
        goto out;
    }
    if (opt.prune && !opt.update) {
        rc = dz_fail(err, DZ_EUSAGE, "compress: --prune goes with --update");
        goto out;
    }
    if (opt.force && (opt.append || opt.replace || opt.skip_existing)) {
        rc = dz_fail(err, DZ_EUSAGE, "compress: --force would do away with what --append keeps; give one of them");
        goto out;
    }
    if (opt.anchor_every < 1 || opt.anchor_every > DZ_ANCHOR_MOST) {
        rc = dz_fail(err, DZ_EUSAGE, "compress: --anchor-every %d: give 1 (no chains) to %d", opt.anchor_every, DZ_ANCHOR_MOST);
        goto out;
    }
    if (strcmp(io, "posix") != 0 && strcmp(io, "collective") != 0) {
        rc = dz_fail(err, DZ_EUSAGE, "compress: --io: '%s' is neither posix nor collective", io);
        goto out;
    }
    opt.io = strcmp(io, "collective") == 0 ? DZ_IO_COLLECTIVE : DZ_IO_POSIX;
    opt.hints = hints.values;
    opt.nhints = hints.n;
    opt.append |= opt.replace || opt.skip_existing || opt.update;
    opt.watchdog = watchdog;
    opt.manifest = args[0];
    opt.recipe.sets = sets.values;
    opt.recipe.nsets = sets.n;
    opt.begins = begins;
    opt.arg = &job;
    rc = dz_sync_error(world, world->rank == 0 && opt.report ? check_report(opt.report, opt.archive, err) : DZ_OK, err);
    if (rc != DZ_OK) goto out;
    rc = dz_compress(world, &opt, &job.result, err);
    if (rc == DZ_OK && job.result.nothing_to_do) rc = prune(world, &job, err);
    if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? tell(&job, err) : DZ_OK, err);
    if (rc != DZ_OK && world->rank == 0) report_failure(&job, err);
out:
    dz_compress_result_free(&job.result);
    dz_option_list_free(&sets);
    dz_option_list_free(&hints);
    return rc;
}

const dz_command DZ_CMD_COMPRESS = {"compress",
                                    "ZOO.yaml -o ARCHIVE [--quality high|balanced|small | --target-ratio R] [--method NAME] [--recipe "
                                    "FILE|NAME] [--set KEY=VALUE]... [--append|--update] [--mem-per-rank SIZE] [--report FILE.json]",
                                    "Compresses the fine-tuned models of a zoo against their base into one archive.", run,
                                    "deltazoo compress zoo.yaml -o zoo.h5\n"
                                    "mpirun -n 2 deltazoo compress zoo.yaml -o zoo.h5 --force --quality high --report job.json\n"
                                    "deltazoo compress zoo.yaml -o small.h5 --target-ratio 100\n"
                                    "deltazoo compress zoo.yaml -o paper.h5 --recipe ultradelta --set sparsity=0.99\n"
                                    "deltazoo compress zoo.yaml -o zoo.h5 --skip-existing\n"
                                    "deltazoo compress zoo.yaml -o zoo.h5 --update"};

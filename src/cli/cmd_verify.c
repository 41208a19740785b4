#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "archive_ops/coverage.h"
#include "archive_ops/verify.h"
#include "base/file.h"
#include "base/log.h"
#include "base/overwrite.h"
#include "cli/cli.h"
#include "cli/report.h"

static dz_rc tell_json(const char *path, const dz_verify_result *r, const dz_coverage *coverage, dz_error *err) {
    json_t *list = dz_damage_json(&r->damage), *lines = json_array(), *entry;
    size_t i;
    json_array_foreach(list, i, entry) json_array_append(lines, json_object_get(entry, "message"));
    json_t *all = json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "archive", path, "sound", r->damage.count == 0, "tasks",
                            (json_int_t)r->ntasks, "tensors", (json_int_t)r->ntensors, "blocks", (json_int_t)r->nblocks, "payload_bytes",
                            (json_int_t)r->nbytes, "damage_count", (json_int_t)r->damage.count, "damage", list, "problems", lines,
                            "foreign", dz_json_lines(&r->foreign));
    if (coverage->n && all) json_object_set_new(all, "originals", dz_coverage_json(coverage));
    return dz_print_json(all, NULL, err);
}

/* What would come back of each original. */
static void print_coverage(const dz_coverage *v) {
    char size[32], path[4096];
    for (size_t i = 0; i < v->n; i++) {
        const dz_covered *one = &v->list[i];
        const char *about = one->cover == DZ_COVER_LOSSY ? dz_verdict_name(one->verdict) : one->why;
        snprintf(path, sizeof path, "%s", one->path);
        printf("%-8s %9s  %s", dz_cover_name(one->cover), one->bytes ? dz_format_size((double)one->bytes, size) : "-", dz_one_line(path));
        if (about[0]) printf("  (%s)", about);
        putchar('\n');
    }
}

/* What to do about damage: a task that cannot be read at all can only go; of others there is something left. */
static void give_advice(const char *path, const dz_verify_result *r, dz_error *err) {
    const char *first = (const char *)r->lost.data;
    if (r->lost.len == 0)
        dz_fail(err, DZ_EDAMAGE, "%s: is damaged ('deltazoo restore --keep-going' restores the rest)", path);
    else
        dz_fail(err, DZ_EDAMAGE, "%s: is damaged: task '%.*s' cannot be read ('deltazoo remove %s --task %.*s' drops it%s)", path,
                (int)strcspn(first, "\n"), first, path, (int)strcspn(first, "\n"), first,
                r->only_lost ? "; every other task is sound" : "");
}

static void print_foreign(const char *path, const dz_buf *lines) {
    for (size_t at = 0; at < lines->len;) {
        const char *line = (const char *)lines->data + at, *end = memchr(line, '\n', lines->len - at);
        dz_message("note", "%s: %.*s is not of the archive: stepped over", path, (int)(end ? end - line : 0), line);
        at += (size_t)(end ? end - line : 0) + 1;
    }
}

/* Rank 0, of a check that came to its end: a report (`deltazoo report` reads it). */
static dz_rc write_report(const char *report, const char *archive, const char *base, const struct stat *st, const dz_verify_result *r,
                          const dz_coverage *coverage, dz_job_state state, dz_error *err) {
    dz_error end = *err, more = {0};
    if (!report || (end.rc == DZ_EINTERRUPT)) return err->rc;
    state.err = &end;
    state.state = end.rc == DZ_OK ? "done" : "failed";
    if (dz_overwrite_check(report, DZ_TARGET_REPORT, 0, &more) != DZ_OK ||
        dz_print_json(dz_verify_job_json(&state, archive, base, st, r, coverage), report, &more) != DZ_OK)
        dz_fail_more(err, more.rc, "--report %s", more.text);
    return err->rc;
}

static dz_rc check_report(const char *report, const char *archive, struct stat *st, dz_error *err) {
    dz_error why = {0};
    if (!report) return DZ_OK;
    if (stat(archive, st) != 0) return DZ_OK; /* which is reported when it is opened */
    if (dz_same_file(archive, report)) return dz_fail(err, DZ_EUSAGE, "--report %s: is the archive", report);
    return dz_overwrite_check(report, DZ_TARGET_REPORT, 0, &why) == DZ_OK ? DZ_OK : dz_fail(err, why.rc, "--report %s", why.text);
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *base = NULL, *report = NULL, *originals = NULL, *args[1];
    char *own_base = NULL;
    dz_option_list tasks = {0};
    dz_coverage coverage = {0};
    int json = 0, quiet = 0, helped = 0;
    dz_verify_result r = {0};
    struct stat st = {0};
    dz_job_state state = {.started = time(NULL), .nranks = world->size};
    const dz_option options[] = {
        {"base", 'b', DZ_OPTION_TEXT, &base, "PATH", "also check the base, and decode everything against it"},
        {"task", 't', DZ_OPTION_LIST, &tasks, "NAME", "only this task and what it is coded against; may be repeated"},
        {"report", 0, DZ_OPTION_TEXT, &report, "FILE.json", "write a report, which 'deltazoo report' takes into its sum"},
        {"originals", 0, DZ_OPTION_TEXT, &originals, "ZOO.yaml",
         "then compare the manifest's models with the archive: what restoring would bring back of each (with its base, if no --base)"},
        {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs"},
        {"quiet", 'q', DZ_OPTION_FLAG, &quiet, NULL, "no progress"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    dz_rc rc = dz_parse_options(world, &DZ_CMD_VERIFY, argc, argv, options, args, 1, &helped, err);
    if (rc == DZ_OK && tasks.n && (report || originals))
        rc = dz_fail(err, DZ_EUSAGE, "verify: --report and --originals are of a whole archive; leave --task out");
    if (rc != DZ_OK || helped) {
        dz_option_list_free(&tasks);
        return rc;
    }
    rc = dz_sync_error(world, world->rank == 0 ? check_report(report, args[0], &st, err) : DZ_OK, err);
    if (rc == DZ_OK && originals && (rc = dz_coverage_base(world, originals, &own_base, err)) == DZ_OK && !base &&
        access(own_base, F_OK) == 0)
        base = own_base;
    int begun = rc == DZ_OK;
    if (begun) rc = dz_verify(world, args[0], base, tasks.values, tasks.n, quiet, &r, err);
    if (rc == DZ_OK && originals) rc = dz_coverage_find(world, args[0], originals, quiet, &coverage, err);
    int finished = rc == DZ_OK || (rc == DZ_EDAMAGE && err->rc == DZ_OK);
    if (world->rank == 0 && finished && json) {
        tell_json(args[0], &r, &coverage, err);
    } else if (world->rank == 0 && finished) {
        char size[32];
        print_foreign(args[0], &r.foreign);
        dz_print_damage(&r.damage);
        printf("%s: %llu task%s%s, %llu tensors, %llu blocks, %s: ", args[0], (unsigned long long)r.ntasks, r.ntasks == 1 ? "" : "s",
               r.base_stored ? " and the base" : "", (unsigned long long)r.ntensors, (unsigned long long)r.nblocks,
               dz_format_size((double)r.nbytes, size));
        if (r.damage.count)
            printf("%llu problem%s\n", (unsigned long long)r.damage.count, r.damage.count == 1 ? "" : "s");
        else
            printf("sound%s, %.2f s\n", base ? ", base right" : "", r.secs);
        print_coverage(&coverage);
    }
    if (rc == DZ_EDAMAGE && err->rc == DZ_OK && world->rank == 0) give_advice(args[0], &r, err);
    state.secs = r.secs;
    if (begun && world->rank == 0 && st.st_size > 0) {
        if (rc != DZ_OK && err->rc == DZ_OK) err->rc = rc;
        write_report(report, args[0], base, &st, &r, &coverage, state, err);
    }
    if (begun && report) rc = dz_sync_error(world, rc == DZ_OK ? err->rc : rc, err);
    dz_option_list_free(&tasks);
    dz_coverage_free(&coverage);
    free(own_base);
    dz_buf_free(&r.foreign);
    dz_buf_free(&r.lost);
    dz_damage_free(&r.damage);
    return rc;
}

const dz_command DZ_CMD_VERIFY = {"verify", "ARCHIVE [--base PATH] [--task NAME]... [--originals ZOO.yaml] [--report FILE.json] [--json]",
                                  "Checks structure, every checksum and every block; exit 3 on damage.", run,
                                  "deltazoo verify zoo.h5\n"
                                  "mpirun -n 2 deltazoo verify zoo.h5 --base base --json\n"
                                  "deltazoo verify zoo.h5 --originals zoo.yaml --report zoo.verify.json"};

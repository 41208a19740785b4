#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/picture.h"
#include "cli/plot.h"
#include "cli/report_originals.h"
#include "cli/report_rows.h"
#include "cli/report_sum.h"
#include "cli/table.h"

#define FIXED 62 /* columns beside the file's name */

/* Times of day without seconds. */
static void print_row(const dz_job_row *r) {
    char secs[32], stored[32], name[256], ratio[32] = "-";
    if (r->whole && r->stored > 0) snprintf(ratio, sizeof ratio, "%.1fx", r->source / r->stored);
    printf("%-16.16s %-13s %11s %9s %7s  %s\n", r->finished, r->state, r->whole || r->exit_code >= 0 ? dz_format_time(r->secs, secs) : "-",
           r->whole ? dz_format_size(r->stored, stored) : "-", ratio, dz_table_name(r->archive, DZ_TABLE_COLUMNS - FIXED, name));
}

static void print_wide_row(const dz_job_row *r) {
    char secs[32], source[32], stored[32], memory[32], read[32];
    printf("%-20s  %-13s  %10s  %6d  %5d  ", r->finished, r->state, r->slurm, r->starts, r->ranks);
    if (!r->whole) {
        printf("%5s  %12s  %5s  %9s  %9s  %8s  %11s  %9s  %5s  %s\n", "-", r->exit_code < 0 ? "-" : dz_format_time(r->secs, secs), "-", "-",
               "-", "-", "-", "-", "-", r->archive);
        return;
    }
    printf("%5zu  %12s  %5lld  %9s  %9s  %7.1fx  %11s  %9s  %5zu  %s", json_object_size(r->hosts), dz_format_time(r->secs, secs),
           (long long)r->tasks, dz_format_size(r->source, source), dz_format_size(r->stored, stored),
           r->stored > 0 ? r->source / r->stored : 0, dz_format_size(r->secs > 0 ? r->bytes_read / r->secs : 0, read),
           dz_format_size(r->memory, memory), json_array_size(r->notes), r->archive);
    if (r->dropped > 0) printf(" (ratio without dropped tensors: %.1fx)", r->stored > 0 ? (r->source - r->dropped) / r->stored : 0);
    putchar('\n');
}

/* Why a job lacks figures. */
static void print_errors(const dz_job_row *r) {
    char line[DZ_ERROR_TEXT];
    char next[DZ_NEXT_TEXT];
    json_t *value;
    size_t i;
    if (r->exit_code < 0 && !r->missing) printf("%s: has not ended, or was killed\n", r->archive);
    json_array_foreach(r->errors, i, value) {
        int at = printf("%s: exit code %lld: ", r->archive, (long long)r->exit_code);
        dz_print_wrapped(dz_report_line(json_string_value(value), line, sizeof line), at, 4);
    }
    if (dz_report_next(r, next)) {
        int at = printf("%s: next: ", r->archive);
        dz_print_wrapped(next, at, 4);
    }
}

/* One job alone: also its phases over the ranks, its hosts and notes. */
static void print_details(const dz_job_row *r) {
    const char *name;
    json_t *value;
    size_t i;
    char text[3][32], line[DZ_ERROR_TEXT];
    printf("\n%-12s %12s %12s %12s\n", "phase", "fastest rank", "mean", "slowest rank");
    json_object_foreach(r->phases, name, value) {
        static const char *const columns[] = {"min", "mean", "max"};
        for (int k = 0; k < 3; k++) dz_format_time(json_number_value(json_object_get(value, columns[k])), text[k]);
        printf("%-12s %12s %12s %12s\n", dz_report_line(name, line, sizeof line), text[0], text[1], text[2]);
    }
    putchar('\n');
    if (strcmp(r->slurm, "-") != 0) printf("SLURM job %s, start %d\n", r->slurm, r->starts);
    printf("%d rank%s on", r->ranks, r->ranks == 1 ? "" : "s");
    json_object_foreach(r->hosts, name, value)
        printf(" %s (%lld)", dz_report_line(name, line, sizeof line), (long long)json_integer_value(value));
    printf("\n%lld task%s of %s; peak memory %s per rank\n", (long long)r->tasks, r->tasks == 1 ? "" : "s",
           dz_format_size(r->source, text[0]), dz_format_size(r->memory, text[1]));
    printf("read %s, %s per s; written %s\n", dz_format_size(r->bytes_read, text[0]),
           dz_format_size(r->secs > 0 ? r->bytes_read / r->secs : 0, text[1]), dz_format_size(r->bytes_written, text[2]));
    if (r->dropped > 0) printf("ratio without dropped tensors: %.1fx\n", r->stored > 0 ? (r->source - r->dropped) / r->stored : 0);
    if (r->resumed) printf("%lld blocks from an interrupted run\n", (long long)r->resumed);
    if (r->this_start_only) printf("times and bytes are of the last start only\n");
    json_array_foreach(r->notes, i, value) {
        printf("note: ");
        dz_print_wrapped(dz_report_line(json_string_value(value), line, sizeof line), 6, 6);
    }
}

static void print_wide(const dz_job_row *rows, size_t n) {
    printf("%-20s  %-13s  %10s  %6s  %5s  %5s  %12s  %5s  %9s  %9s  %8s  %11s  %9s  %5s  %s\n", "finished", "state", "SLURM job", "starts",
           "ranks", "hosts", "time", "tasks", "bytes in", "archive", "ratio", "read per s", "memory", "notes", "file");
    for (size_t i = 0; i < n; i++) print_wide_row(&rows[i]);
}

static void print_table(const dz_job_row *rows, size_t n, int wide) {
    if (wide) {
        print_wide(rows, n);
    } else {
        printf("%-16s %-13s %11s %9s %7s  %s\n", "finished", "state", "time", "archive", "ratio", "file");
        for (size_t i = 0; i < n; i++) print_row(&rows[i]);
    }
    for (size_t i = 0; i < n; i++) print_errors(&rows[i]);
    if (n == 1 && rows[0].whole) print_details(&rows[0]);
}

static double bytes_of(const json_t *task, const char *key) {
    return json_number_value(json_object_get(json_object_get(task, "bytes"), key));
}

/* What a report tells of a task; older ones have no verdict. */
static dz_plot_task plot_task(json_t *task) {
    const json_t *lossy = json_object_get(task, "lossy"), *noise = json_object_get(lossy, "noise_to_delta");
    const char *name = json_string_value(json_object_get(task, "name")), *verdict = json_string_value(json_object_get(lossy, "verdict"));
    dz_plot_task t = {.name = name ? name : "?",
                      .source = json_number_value(json_object_get(task, "source_bytes")),
                      .lossy = bytes_of(task, "kept_values") + bytes_of(task, "positions_and_codes") + bytes_of(task, "checks"),
                      .exact = bytes_of(task, "exact_tensors"),
                      .fixed = bytes_of(task, "index") + bytes_of(task, "structures"),
                      .noise = json_is_number(noise) ? json_number_value(noise) : INFINITY,
                      .verdict = DZ_VERDICT_POOR};
    for (int v = 0; v < DZ_VERDICTS && verdict; v++)
        if (strcmp(verdict, dz_verdict_name((dz_verdict)v)) == 0) t.verdict = (dz_verdict)v;
    if (t.verdict == DZ_VERDICT_EXACT) t.noise = 0;
    return t;
}

/* The tasks of all jobs that are done. */
static dz_rc plot_jobs(const dz_job_row *rows, size_t n, const char *path, dz_error *err) {
    size_t ntasks = 0, cap = 0, jobs = 0, i;
    dz_plot_task *tasks = NULL;
    json_t *task;
    char title[128];
    for (size_t r = 0; r < n; r++) {
        if (!rows[r].whole) continue;
        jobs++;
        json_array_foreach(json_object_get(rows[r].root, "tasks"), i, task) {
            if (dz_grow((void **)&tasks, &cap, ntasks + 1, sizeof *tasks, err) != DZ_OK) goto out;
            tasks[ntasks++] = plot_task(task);
        }
    }
    snprintf(title, sizeof title, "%zu job%s, %zu task%s", jobs, jobs == 1 ? "" : "s", ntasks, ntasks == 1 ? "" : "s");
    if (ntasks == 0)
        dz_fail(err, DZ_EUSAGE, "--plot %s: none of the reports has tasks that are done", path);
    else
        dz_plot_tasks(tasks, ntasks, title, path, err);
out:
    free(tasks);
    return err->rc;
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *picture = NULL;
    int helped = 0, wide = 0, json = 0, originals = 0;
    dz_job_rows rows = {0};
    const dz_option options[] = {
        {"wide", 0, DZ_OPTION_FLAG, &wide, NULL, "all columns and full names, in more than 80 columns"},
        {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs: each archive, and the sum"},
        {"originals", 0, DZ_OPTION_FLAG, &originals, NULL,
         "which original models are covered by verified archives ('verify --originals'), and which must be kept; deletes nothing"},
        {"plot", 0, DZ_OPTION_TEXT, &picture, "FILE", "draw sizes and rates of the tasks into FILE.svg or FILE.png"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_REPORT, argc, argv, options, NULL, DZ_ANY_ARGS, &helped, err) != DZ_OK || helped) return err->rc;
    if (world->rank != 0 || (picture && dz_picture_check(picture, err) != DZ_OK)) return err->rc;
    size_t given = (size_t)(argc - optind);
    for (size_t i = 0; i < given && err->rc == DZ_OK; i++) dz_job_rows_add(&rows, argv[(size_t)optind + i], err);
    if (rows.n && picture && err->rc == DZ_OK) plot_jobs(rows.rows, rows.n, picture, err);
    if (rows.n && err->rc == DZ_OK && originals) dz_print_originals(&rows, json, err);
    if (rows.n && err->rc == DZ_OK && json && !originals) dz_print_json(dz_report_sum_json(&rows), NULL, err);
    if (rows.n && err->rc == DZ_OK && !json && !originals) print_table(rows.rows, rows.n, wide);
    if (rows.n > 1 && err->rc == DZ_OK && !json && !originals) dz_print_report_sum(&rows);
    if (err->rc == DZ_OK && rows.bad)
        dz_fail(err, DZ_EUSAGE, "%zu of %zu files are no reports", rows.bad, rows.n + rows.bad > given ? rows.n + rows.bad : given);
    dz_job_rows_free(&rows);
    return err->rc;
}

const dz_command DZ_CMD_REPORT = {"report", "JOB.json|FOLDER|LIST... [--wide|--json] [--originals] [--plot FILE]",
                                  "Shows reports of compress jobs as a table, and their sum; for a single report also phases, hosts and "
                                  "notes. FOLDER: its reports. LIST (of scan --list): the reports beside its archives.",
                                  run,
                                  "deltazoo report job.json\n"
                                  "deltazoo report job.json --plot job.svg"};

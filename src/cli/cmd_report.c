#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"

/* What the table shows of one report. The strings belong to `root`. */
typedef struct job_row {
    json_t *root, *notes, *phases, *hosts;
    const char *finished, *archive, *slurm;
    double secs, bytes_read, bytes_written, memory, source, dropped, stored;
    int ranks, starts;
    json_int_t tasks, resumed;
} job_row;

#define MOST_BYTES ((size_t)1 << 30)

static dz_rc read_row(const char *path, job_row *row, dz_error *err) {
    char *text = NULL;
    size_t len = 0;
    json_error_t why;
    json_t *tasks = NULL, *slurm = NULL, *task;
    json_int_t stored = 0;
    size_t i;
    if (dz_read_file(path, MOST_BYTES, &text, &len, err) != DZ_OK) return err->rc;
    row->root = json_loadb(text, len, 0, &why);
    free(text);
    if (!row->root) return dz_fail(err, DZ_EUSAGE, "%s: is no report: line %d: %s", path, why.line, why.text);
    if (json_unpack_ex(row->root, &why, 0, "{s:I, s:o, s:{s:s, s:s, s:o, s:o, s:i, s:F, s:o, s:F, s:F, s:F, s:I, s:o}}", "archive_bytes",
                       &stored, "tasks", &tasks, "job", "finished", &row->finished, "archive", &row->archive, "slurm", &slurm, "hosts",
                       &row->hosts, "ranks", &row->ranks, "seconds", &row->secs, "phase_seconds_of_ranks", &row->phases,
                       "peak_memory_bytes", &row->memory, "bytes_read", &row->bytes_read, "bytes_written", &row->bytes_written,
                       "resumed_blocks", &row->resumed, "notes", &row->notes) != 0)
        return dz_fail(err, DZ_EUSAGE, "%s: is no report of 'compress --report': %s", path, why.text);
    row->stored = (double)stored;
    row->tasks = (json_int_t)json_array_size(tasks);
    row->starts = 1 + (int)json_integer_value(json_object_get(slurm, "restarts"));
    row->slurm = json_string_value(json_object_get(slurm, "job_id"));
    json_array_foreach(tasks, i, task) {
        row->source += json_number_value(json_object_get(task, "source_bytes"));
        row->dropped += json_number_value(json_object_get(json_object_get(task, "dropped"), "source_bytes"));
    }
    return DZ_OK;
}

static void print_row(const job_row *r) {
    char secs[32], source[32], stored[32], memory[32], read[32];
    printf("%-20s  %10s  %6d  %5d  %5zu  %12s  %5lld  %9s  %9s  %7.1fx  %11s  %9s  %5zu  %s", r->finished, r->slurm ? r->slurm : "-",
           r->starts, r->ranks, json_object_size(r->hosts), dz_format_time(r->secs, secs), (long long)r->tasks,
           dz_format_size(r->source, source), dz_format_size(r->stored, stored), r->stored > 0 ? r->source / r->stored : 0,
           dz_format_size(r->secs > 0 ? r->bytes_read / r->secs : 0, read), dz_format_size(r->memory, memory), json_array_size(r->notes),
           r->archive);
    if (r->dropped > 0) printf(" (ratio without what is dropped: %.1fx)", r->stored > 0 ? (r->source - r->dropped) / r->stored : 0);
    putchar('\n');
}

/* One job alone: also its phases over the ranks, its hosts and notes. */
static void print_details(const job_row *r) {
    const char *name;
    json_t *value;
    size_t i;
    char text[3][32];
    printf("\n%-12s %12s %12s %12s\n", "phase", "fastest rank", "mean", "slowest rank");
    json_object_foreach(r->phases, name, value) {
        static const char *const columns[] = {"min", "mean", "max"};
        for (int k = 0; k < 3; k++) dz_format_time(json_number_value(json_object_get(value, columns[k])), text[k]);
        printf("%-12s %12s %12s %12s\n", name, text[0], text[1], text[2]);
    }
    printf("\nread %s, written %s, %lld blocks from an interrupted run; ranks on", dz_format_size(r->bytes_read, text[0]),
           dz_format_size(r->bytes_written, text[1]), (long long)r->resumed);
    json_object_foreach(r->hosts, name, value) printf(" %s (%lld)", name, (long long)json_integer_value(value));
    printf("\n");
    json_array_foreach(r->notes, i, value) printf("note: %s\n", json_string_value(value) ? json_string_value(value) : "");
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    int helped = 0;
    const dz_option options[] = {{NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_REPORT, argc, argv, options, NULL, DZ_ANY_ARGS, &helped, err) != DZ_OK || helped) return err->rc;
    if (world->rank != 0) return DZ_OK;
    size_t n = (size_t)(argc - optind);
    job_row *rows = dz_alloc(n, sizeof *rows, err);
    for (size_t i = 0; rows && i < n && err->rc == DZ_OK; i++) read_row(argv[(size_t)optind + i], &rows[i], err);
    if (err->rc == DZ_OK) {
        printf("%-20s  %10s  %6s  %5s  %5s  %12s  %5s  %9s  %9s  %8s  %11s  %9s  %5s  %s\n", "finished", "SLURM job", "starts", "ranks",
               "hosts", "time", "tasks", "bytes in", "archive", "ratio", "read per s", "memory", "notes", "file");
        for (size_t i = 0; i < n; i++) print_row(&rows[i]);
        if (n == 1) print_details(&rows[0]);
    }
    for (size_t i = 0; rows && i < n; i++) json_decref(rows[i].root);
    free(rows);
    return err->rc;
}

const dz_command DZ_CMD_REPORT = {"report", "JOB.json...",
                                  "A table over the reports of many compress jobs; of one job also its phases, hosts and notes.", run,
                                  "deltazoo report job.json"};

/* Output of results: tables for people and JSON for programs. */
#ifndef DZ_CLI_REPORT_H
#define DZ_CLI_REPORT_H

#include <jansson.h>
#include <sys/stat.h>
#include <time.h>

#include "archive/reader.h"
#include "archive_ops/coverage.h"
#include "archive_ops/verify.h"
#include "cli/task_view.h"
#include "compress/compress.h"
#include "decode/damage.h"

/* `info --json`'s object; of one task also its tensors when `task` is not NULL, those whose names `match` (a shell pattern; NULL: all).
 * `view` NULL: all tasks. NULL when memory is out. */
json_t *dz_info_json(const dz_catalog *catalog, const dz_task_entry *task, const dz_task_view *view, const char *match);

/* A task's and its tensors' parts of that. */
json_t *dz_task_json(const dz_catalog *catalog, const dz_task_entry *task);
json_t *dz_tensors_json(const dz_catalog *catalog, const dz_task_entry *task, const char *match);

/* The state of a compress job. */
typedef struct dz_job_state {
    const char *state; /* "running", "done", "nothing to do", "interrupted" or "failed" */
    time_t started;
    double secs;
    int nranks;
    const dz_error *err; /* NULL while it runs */
} dz_job_state;

/* The report of a compress job: what, where, how long, how much. `catalog` NULL: there is no archive. The figures of `result` are
 * included if it has any. */
json_t *dz_job_json(const dz_job_state *state, const dz_compress_result *result, const dz_catalog *catalog, const dz_compress_options *opt);

/* The same for verify (`stat`: of the archive before it was read), with "verify" for what was found. */
json_t *dz_verify_job_json(const dz_job_state *state, const char *archive, const char *base, const struct stat *stat,
                           const dz_verify_result *result, const dz_coverage *coverage);

/* Its list of originals. */
json_t *dz_coverage_json(const dz_coverage *coverage);

/* The line of a job's phases, slowest rank each. */
void dz_print_phases(const dz_compress_result *result);
/* cosine, gain, noise_to_delta, noise_to_base, expected_relative_error and verdict into an object; null where they are not finite. */
void dz_json_quality(json_t *object, dz_quality quality);

/* Lines of text as an array of strings. */
json_t *dz_json_lines(const dz_buf *lines);

/* The table of tasks, in 80 columns: its head (`stored` names the column of stored bytes) and a row. Ratios of 0 are shown as "-". */
void dz_print_quality_head(const char *stored);
#define DZ_STORED_ROW "base, stored" /* name of the base that is stored, in tables */

void dz_print_quality_row(const char *task, double source, double stored, double lossy_ratio, dz_quality quality);

/* That table and the totals, with the base and without. `view`: the rows of the table (NULL: all tasks); the totals are of all. */
void dz_print_tasks(const dz_catalog *catalog, const dz_task_view *view);

/* The same of one task, of an archive of which others need not have been read. */
void dz_print_one_task(const dz_catalog *catalog, const dz_task_entry *task);

/* A line for each task that has the scores of an evaluation; nothing where none has. */
void dz_print_scores(const dz_catalog *catalog);

/* A line on stderr for each record. */
void dz_print_damage(const dz_damage *damage);

/* A list of {task, tensor, block, message}: null where a record has none. */
json_t *dz_damage_json(const dz_damage *damage);

/* The tensors that hold most bytes: of a task, or (NULL) of all together. */
void dz_print_largest(const dz_catalog *catalog, const dz_task_entry *task);

/* A line for each tensor of a task that `match` (NULL: all); `wide`: all columns and full names, beyond 80 columns. */
void dz_print_tensors(const dz_catalog *catalog, const dz_task_entry *task, const char *match, int wide);

#endif

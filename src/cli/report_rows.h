/* Reports of compress and verify jobs, read for tables and sums. */
#ifndef DZ_CLI_REPORT_ROWS_H
#define DZ_CLI_REPORT_ROWS_H

#include <jansson.h>

#include "base/error.h"
#include "numeric/noise.h"

/* What is known of the last check of an archive. */
typedef enum dz_checked {
    DZ_CHECKED_NOT,     /* no report of verify */
    DZ_CHECKED_SOUND,   /* completely, and the file has not changed since */
    DZ_CHECKED_DAMAGED, /* damage was found */
    DZ_CHECKED_BEFORE   /* the file was written, moved or removed since, or that job did not end */
} dz_checked;

/* One compress job. The JSON values belong to `root` and `verify`. */
typedef struct dz_job_row {
    json_t *root, *notes, *errors, *phases, *hosts;
    json_t *verify; /* the report of verify on this archive; NULL: none */
    dz_checked checked;
    char started[32], finished[32], state[32], archive[4096], manifest[4096], slurm[32];
    const char *base_id; /* the base's fingerprint */
    char file[4096];     /* the archive's path as the report has it, not made fit for a terminal */
    double secs, bytes_read, bytes_written, memory, source, dropped, stored, base;
    int ranks, starts, whole, this_start_only; /* whole: the job is done, all figures are there */
    int known;                                 /* sizes and tasks of the archive are there: the job is done, or had nothing to do */
    int base_stored;                           /* the archive holds its base: it need not be kept */
    int unverified;                            /* of a list whose other archives have been verified: this one has not */
    int missing;                               /* of a list: no job has written a report yet */
    size_t element;                            /* number in the list; 0: not from a list */
    size_t verdicts[DZ_VERDICTS], unknown;     /* tasks of each verdict, and of none (older reports) */
    long long tasks, resumed, exit_code;       /* exit_code: -1 while the job runs */
} dz_job_row;

typedef struct dz_job_rows {
    dz_job_row *rows;
    size_t n, cap;
    size_t bad;       /* files named by the user that are no reports: a warning was printed for each */
    const char *list; /* the last list among the sources */
    size_t nlists;
} dz_job_rows;

/* A string of a file that may be anybody's, for a terminal: one line, no control characters; "-" for none. Returns `copy`. */
char *dz_report_line(const char *text, char *copy, size_t size);

/* Adds the reports of `source`: a report, a folder (its *.json that are reports; others are passed over), or a list of zoos
 * (config/zoo_list.h; the report of each is beside its archive). Failures are counted in `bad`, but for lack of memory. */
dz_rc dz_job_rows_add(dz_job_rows *rows, const char *source, dz_error *err);
void dz_job_rows_free(dz_job_rows *rows);

#endif

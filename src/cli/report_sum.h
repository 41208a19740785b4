/* The sum over the reports of many jobs: what a night made of many families. */
#ifndef DZ_CLI_REPORT_SUM_H
#define DZ_CLI_REPORT_SUM_H

#include "cli/report_rows.h"

/* What to do about a job that is not done. Returns `text`, or NULL where there is nothing to do. */
#define DZ_NEXT_TEXT 512
const char *dz_report_next(const dz_job_row *row, char text[DZ_NEXT_TEXT]);

/* Families, tasks, bytes, verdicts, checks, times, and the elements of a list to be submitted again. */
void dz_print_report_sum(const dz_job_rows *rows);

/* {"families": [...], "totals": {...}}. NULL when memory is out. */
json_t *dz_report_sum_json(const dz_job_rows *rows);

#endif

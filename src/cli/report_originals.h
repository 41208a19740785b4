/* Which original models are covered by verified archives, over the reports of many jobs. Prints; nothing is ever deleted. */
#ifndef DZ_CLI_REPORT_ORIGINALS_H
#define DZ_CLI_REPORT_ORIGINALS_H

#include "cli/report_rows.h"

/* A model counts as covered if `verify --originals` found the archive sound and the model restored, the archive has not been written since,
 * and the model's files have the sizes and times that they had then. Archives without such a report are named. */
dz_rc dz_print_originals(const dz_job_rows *rows, int json, dz_error *err);

#endif

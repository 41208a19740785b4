/* An archive's numbers as a picture. */
#ifndef DZ_CLI_PLOT_H
#define DZ_CLI_PLOT_H

#include "archive/reader.h"

/* Writes an SVG file of a task: stored bytes per layer, stacked by kind of tensor, and the expected relative error of its lossy tensors.
 * Every mark has its figure as a <title>, which viewers show. */
dz_rc dz_plot_task(const dz_catalog *catalog, const dz_task_entry *task, const char *path, dz_error *err);

#endif

/* An archive's, a job's or a comparison's numbers as a picture (cli/picture.h). Every mark has its figure as a <title>, which viewers
 * show. */
#ifndef DZ_CLI_PLOT_H
#define DZ_CLI_PLOT_H

#include "archive/reader.h"
#include "compress/model_diff.h"

/* Of one task: stored bytes by layer, stacked by kind of tensor, and the expected relative error of its lossy tensors. `task` NULL: of all
 * tasks together, and their sizes, and rate against noise. */
dz_rc dz_plot_archive(const dz_catalog *catalog, const dz_task_entry *task, const char *path, dz_error *err);

typedef struct dz_plot_task { /* what a report has of a task */
    const char *name;
    double source, lossy, exact, fixed; /* bytes: in its files; stored of lossy tensors, of others, of index and structures */
    double noise;                       /* noise to delta of the lossy tensors; 0: exact */
    dz_verdict verdict;
} dz_plot_task;

/* Of jobs: sizes of tasks, and rate against noise. `title` is a line. */
dz_rc dz_plot_tasks(const dz_plot_task *tasks, size_t n, const char *title, const char *path, dz_error *err);

/* Of a comparison: changed elements, |D|/|W| and effective rank by layer and kind. */
dz_rc dz_plot_diff(const dz_model_diff *diff, const char *text, const char *path, dz_error *err);

#endif

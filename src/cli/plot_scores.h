/* Size against score, of a tuned zoo. */
#ifndef DZ_CLI_PLOT_SCORES_H
#define DZ_CLI_PLOT_SCORES_H

#include "tune/tune.h"

/* Writes an SVG or PNG file: a panel for each task that has been scored, with all its candidates. Every mark has its figures as a <title>.
 */
dz_rc dz_plot_scores(const dz_tune_result *result, const dz_drop_limit *limit, const char *path, dz_error *err);

#endif

/* Before any work: models, recipe and output are looked at, and what scores depend on is written down. */
#ifndef DZ_TUNE_PREPARE_H
#define DZ_TUNE_PREPARE_H

#include "tune/tune.h"

/* Collective. Fills base and tasks of the result; states of the tasks are in `folder`. With opt->dry_run also forecasts. */
dz_rc dz_tune_prepare(const dz_world *world, const dz_tune_options *opt, const char *folder, dz_tune_result *result, dz_error *err);

/* Where candidates of a task are made; its name ends in .partial while they are. The caller frees. */
char *dz_tune_scratch(const dz_tune_options *opt, const char *folder, const char *task, dz_error *err);

#endif

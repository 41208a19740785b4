/* One setting of one task: made into an archive of its own, looked at, restored. */
#ifndef DZ_TUNE_CANDIDATE_H
#define DZ_TUNE_CANDIDATE_H

#include "tune/tune.h"

#define DZ_SETTING_LOSSLESS "quality=lossless"

/* "noise_to_delta=2.38", or lossless for 0. */
void dz_candidate_setting(double noise, char setting[64]);

/* The setting of a task, in the place of the recipe's limits. */
dz_task_request dz_candidate_request(const char *task, const char *setting);

/* Collective. Compresses the task alone into `archive`. */
dz_rc dz_candidate_make(const dz_world *world, const dz_tune_options *opt, const char *task, double noise, const char *archive,
                        dz_error *err);

/* Rank 0: fills all but noise and score. */
dz_rc dz_candidate_look(const char *archive, const char *task, dz_tune_candidate *out, dz_error *err);

/* Collective. */
dz_rc dz_candidate_restore(const dz_world *world, const char *archive, const char *base, const char *task, const char *out, dz_error *err);

/* The search has ended at this rung. */
void dz_tune_choose(dz_tuned_task *task, double noise);

#endif

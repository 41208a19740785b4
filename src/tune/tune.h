/* The measured way to choose bytes: the user's own evaluation says how much noise each task of a zoo bears. */
#ifndef DZ_TUNE_TUNE_H
#define DZ_TUNE_TUNE_H

#include "compress/compress.h"
#include "tune/state.h"

#define DZ_TUNE_FORECAST_STEPS 3 /* a dry run forecasts the rungs of a search's first three evaluations */

typedef struct dz_tune_options {
    const char *manifest, *archive;
    dz_recipe_request recipe;
    const char *command; /* with {model}, {task}, {base} */
    dz_drop_limit limit;
    unsigned steps;           /* evaluations of candidates of each task, at most */
    const char *const *tasks; /* [ntasks] only these are scored, and no archive is made; 0: all, and the archive */
    size_t ntasks;
    const char *scratch; /* a folder; NULL: beside the archive */
    uint64_t mem_per_rank;
    int force, quiet, allow_lossy, dry_run;
    double watchdog;
} dz_tune_options;

static inline unsigned dz_tune_forecast_steps(const dz_tune_options *opt) {
    return opt->steps < DZ_TUNE_FORECAST_STEPS ? opt->steps : DZ_TUNE_FORECAST_STEPS;
}

/* A task and what the search has found. */
typedef struct dz_tuned_task {
    char *name;
    char *model;   /* its path; of a hub's cache, that of the snapshot */
    char *file;    /* of a model that is one file: the name under which it is restored; else NULL */
    char *path;    /* of its state */
    double source; /* bytes of its tensors */
    dz_tune_key key;
    dz_tune_state state;
    int scored;                                   /* the search is over */
    const dz_tune_candidate *chosen;              /* NULL: lossless */
    char setting[64];                             /* "noise_to_delta=2.38": what the task is compressed with */
    double forecast[1 << DZ_TUNE_FORECAST_STEPS]; /* dry run: bytes at rung k of that ladder, from 1 on */
} dz_tuned_task;

typedef struct dz_tune_result { /* rank 0 */
    char *base;
    dz_tuned_task *tasks;
    size_t ntasks;
    int published;               /* the archive was made */
    dz_compress_result compress; /* of the archive */
} dz_tune_result;

/* Collective. Scores what is not scored yet, and makes the archive. A run that is stopped (DZ_EINTERRUPT), killed, or whose command fails,
 * goes on when it is called again. Only rank 0 runs the command. */
dz_rc dz_tune(const dz_world *world, const dz_tune_options *opt, dz_tune_result *result, dz_error *err);
void dz_tune_result_free(dz_tune_result *result);

#endif

/* The main job: a zoo in, one archive out. */
#ifndef DZ_COMPRESS_COMPRESS_H
#define DZ_COMPRESS_COMPRESS_H

#include "config/recipe.h"
#include "parallel/extent_writer.h"

#define DZ_ANCHOR_EVERY 9
#define DZ_ANCHOR_MOST 64

enum { DZ_PHASE_OPEN, DZ_PHASE_STATISTICS, DZ_PHASE_HISTOGRAM, DZ_PHASE_CODE, DZ_PHASE_TRACE, DZ_PHASE_WRITE, DZ_PHASES };
extern const char *const DZ_PHASE_NAMES[DZ_PHASES];

/* What the archive keeps of an evaluation of a task (FORMAT.md "Task attributes"). */
typedef struct dz_task_score {
    const char *task, *text;
} dz_task_score;

typedef struct dz_compress_options {
    const char *manifest, *archive;
    dz_recipe_request recipe;
    uint64_t mem_per_rank;                     /* bytes */
    const char *report;                        /* NULL, or a file that the caller will write: it must be no input either */
    dz_rc (*begins)(void *arg, dz_error *err); /* rank 0, may be NULL: all that is read and written has been looked at, the work begins */
    void *arg;
    int force, quiet;
    int append, replace, skip_existing; /* the last two imply append */
    int update, prune;                  /* likewise: by content (compress/update.h) */
    int allow_lossy;                    /* models that were restored from a lossy archive are compressed again */
    int with_base;                      /* the archive is to hold the base too */
    int skip_unmatched;                 /* tasks that the base does not match are left out with a note */
    int anchor_every;                   /* every n-th task of a chain is coded against the base; 0: DZ_ANCHOR_EVERY */
    dz_io io;
    const char *const *hints; /* of MPI-IO, KEY=VALUE each */
    size_t nhints;
    const dz_task_score *scores; /* rank 0: [nscores] */
    size_t nscores;
    double watchdog; /* seconds without any progress after which the job ends; 0: never */
} dz_compress_options;

/* Of one rank. */
typedef struct dz_rank_figures {
    char host[64];
    double secs[DZ_PHASES];   /* of its own work; of phases that wait for others, with the waiting */
    double peak_memory;       /* bytes */
    double bytes_read;        /* of models */
    double bytes_written;     /* of journal and archive */
    double blocks_taken_over; /* from an interrupted run */
} dz_rank_figures;

/* What a job tells its user, on rank 0. */
typedef struct dz_compress_result {
    char *recipe_name, *setting; /* setting: method and what decides about the bytes (dz_recipe_setting) */
    char *task;                  /* the first of those this job has compressed; with --append others come before it */
    size_t ntasks, own_settings; /* own_settings: tasks that have some */
    double total_secs;
    double planned_imbalance; /* largest planned cost of a rank over the mean */
    int nranks;
    dz_rank_figures *ranks; /* [nranks] */
    int nothing_to_do;      /* --skip-existing, and the archive has all tasks */
    int report_is_input;    /* so that the job was refused: nothing may be written there */
    int resumed;            /* an interrupted run had done a part of the work: figures are of this run alone */
    dz_buf notes;
    dz_buf update, pruned; /* of --update: lines NAME<tab>ACTION<tab>WHY; names of tasks to be removed, a line each */
} dz_compress_result;

/* Collective. A job that was interrupted (DZ_EINTERRUPT, or killed) or that failed after some time of work, leaves ARCHIVE.journal
 * and goes on there when it is run again; any other failure leaves nothing behind. */
dz_rc dz_compress(const dz_world *world, const dz_compress_options *opt, dz_compress_result *result, dz_error *err);
void dz_compress_result_free(dz_compress_result *result);

#endif

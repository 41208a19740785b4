/* Progress of a phase over all ranks, shown by rank 0: a bar on a terminal, a line per interval in a log. It never synchronises the work:
 * ranks send what they have done now and then, and a last message at the end of the phase; rank 0 takes what has come. The same messages
 * carry the wish to stop, and what the watchdog needs to know. */
#ifndef DZ_PARALLEL_PROGRESS_H
#define DZ_PARALLEL_PROGRESS_H

#include "parallel/world.h"

typedef struct dz_progress {
    const dz_world *world;
    const char *phase;
    double total, mine, others; /* bytes */
    double *of_rank;            /* rank 0: what each rank has told */
    double begun, shown, sent, ordered;
    double interval; /* seconds between log lines (DZ_LOG_INTERVAL); 0: by default, closer at first */
    int terminal, quiet, finished_ranks, stop_told;
    MPI_Request request;
    double message[2];
} dz_progress;

/* Collective. A phase that handles `total` bytes over all ranks. */
void dz_progress_begin(dz_progress *progress, const dz_world *world, const char *phase, double total, int quiet);

void dz_progress_add(dz_progress *progress, double nbytes);

/* To be asked before each piece of work: DZ_EINTERRUPT once this rank or rank 0 was asked to stop (dz_stop_on_signals). */
dz_rc dz_progress_check(dz_progress *progress, dz_error *err);

/* Collective, in the sense that every rank calls it, whether its work succeeded or not. All wait here for all, rank 0 shows how they come
 * in. Returns the seconds of this rank's own work. */
double dz_progress_end(dz_progress *progress);

#endif

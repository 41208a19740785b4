/* Progress of a phase over all ranks, shown by rank 0: a bar on a terminal, a line per interval in a log. It never synchronises the work:
 * ranks send the bytes they have done from time to time and a last message at the end of the phase, and rank 0 receives what has arrived.
 * The same messages carry requests to stop and the watchdog's heartbeats. */
#ifndef DZ_PARALLEL_PROGRESS_H
#define DZ_PARALLEL_PROGRESS_H

#include "parallel/world.h"

typedef struct dz_progress {
    const dz_world *world;
    const char *phase;
    double total, mine, others; /* bytes */
    double *of_rank;            /* rank 0: bytes reported by each rank */
    double begun, shown, sent, ordered;
    double interval; /* seconds between log lines (DZ_LOG_INTERVAL); 0: the default, shorter at first */
    int terminal, quiet, finished_ranks, stop_reported;
    MPI_Request request;
    double message[2];
} dz_progress;

/* Collective. Begins a phase that handles `total` bytes over all ranks. */
void dz_progress_begin(dz_progress *progress, const dz_world *world, const char *phase, double total, int quiet);

void dz_progress_add(dz_progress *progress, double nbytes);

/* Call it before each piece of work. DZ_EINTERRUPT once this rank or rank 0 was asked to stop (dz_stop_on_signals). */
dz_rc dz_progress_check(dz_progress *progress, dz_error *err);

/* Collective: every rank calls it, even if its work failed. All ranks wait here for all others while rank 0 shows the progress. Returns the
 * seconds of this rank's own work. */
double dz_progress_end(dz_progress *progress);

#endif

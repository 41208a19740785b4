/* Signals and the watchdog: a job that is asked to stop does so at the next tile; a job without progress ends by itself. */
#ifndef DZ_PARALLEL_WATCHDOG_H
#define DZ_PARALLEL_WATCHDOG_H

#include "parallel/world.h"

/* From now on SIGTERM, SIGINT and SIGUSR1 ask this process to stop (a second SIGINT ends it at once). */
void dz_stop_on_signals(void);
int dz_stop_asked(void);
void dz_stop_ask(void); /* as if a signal had asked: rank 0 sent the request */

/* Starts a thread that ends the process with exit code 75 after `seconds` without progress (0: never). Progress is bytes read or written
 * here, work reported, or, while this rank waits for others, their reports to rank 0. Rank 0 also ends the job if one rank is silent for
 * that long, and says in one line which rank is behind.
 * `every_minute` (may be NULL) is called with `arg` about once a minute. */
void dz_watchdog_start(const dz_world *world, double seconds, void (*every_minute)(void *), void *arg);
void dz_watchdog_stop(void);

/* Rank 0: a rank, or rank 0 itself, has reported work of `phase`, or its end (`finished`). */
void dz_watchdog_heard(int rank, const char *phase, int finished);

double dz_watchdog_limit(void); /* seconds; 0: none */

#endif

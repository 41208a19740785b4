/* Signals and stillness: a job that is asked to stop does so at the next tile, one that no longer moves ends by itself. */
#ifndef DZ_PARALLEL_WATCHDOG_H
#define DZ_PARALLEL_WATCHDOG_H

#include "parallel/world.h"

/* From now on SIGTERM, SIGINT and SIGUSR1 ask this process to stop (a second SIGINT ends it at once). */
void dz_stop_on_signals(void);
int dz_stop_asked(void);
void dz_stop_ask(void); /* rank 0 has told so */

/* Starts a thread that ends the process with exit code 75 when nothing has moved for `seconds` (0: never): bytes read or written here, work
 * reported, or, where this rank waits for others, their work as rank 0 hears of it. Rank 0 also ends the job when it has not heard of one
 * rank for so long, and says in one line which rank is behind.
 * `every_minute` (may be NULL) is called with `arg` about once a minute. */
void dz_watchdog_start(const dz_world *world, double seconds, void (*every_minute)(void *), void *arg);
void dz_watchdog_stop(void);

/* Rank 0: a rank has reported work of `phase`, or the end of it. Own work as well. */
void dz_watchdog_heard(int rank, const char *phase, int finished);

double dz_watchdog_limit(void); /* seconds; 0: none */

#endif

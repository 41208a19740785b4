/* One writer at a time: a lock file beside what is written, held by flock where the file system has it, and telling who holds it. */
#ifndef DZ_BASE_LOCK_H
#define DZ_BASE_LOCK_H

#include "base/error.h"

typedef struct dz_lock {
    char *path;
    int fd; /* -1: not held */
} dz_lock;

/* Takes the lock file `path`, trying for `patience` seconds: a job that was just killed lets go only when its last process has ended.
 * DZ_EUSAGE names host, pid and SLURM job of the holder. A lock is stale, and taken over, when its flock is free and its holder was of this
 * host, or of the same SLURM job (requeued), or has not touched the file for two minutes. */
dz_rc dz_lock_take(dz_lock *lock, const char *path, double patience, dz_error *err);

/* The holder is alive: to be called at least every minute, for those who see the file but not the flock. */
void dz_lock_touch(const dz_lock *lock);

/* Removes the lock file. Accepts a lock that is not held. */
void dz_lock_drop(dz_lock *lock);

#endif

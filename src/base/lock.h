/* One writer at a time: a lock file beside the output that names its holder, guarded by flock where the file system supports it. */
#ifndef DZ_BASE_LOCK_H
#define DZ_BASE_LOCK_H

#include "base/error.h"

typedef struct dz_lock {
    char *path;
    int fd; /* -1: not held */
} dz_lock;

/* Takes the lock file `path`. Retries for `patience` seconds, since a killed job keeps the lock until its last process has ended.
 * DZ_EUSAGE names host, pid and SLURM job of the holder. A lock is stale and is taken over if its flock is free and its holder was on this
 * host, belonged to the same SLURM job (requeued), or did not touch the file for two minutes. */
dz_rc dz_lock_take(dz_lock *lock, const char *path, double patience, dz_error *err);

/* Shows that the holder is alive. Call it at least every minute, for hosts that see the file but not the flock. */
void dz_lock_touch(const dz_lock *lock);

/* Removes the lock file. Accepts a lock that is not held. */
void dz_lock_drop(dz_lock *lock);

#endif

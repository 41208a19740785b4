/* Outputs are written beside their place, as NAME.partial, and renamed when they are complete: a reader sees the old state or the new one,
 * never a part, and a failure leaves nothing behind. One process makes, publishes and discards; all may write. */
#ifndef DZ_BASE_STAGING_H
#define DZ_BASE_STAGING_H

#include <stddef.h>

#include "base/overwrite.h"

#define DZ_PARTIAL ".partial" /* ends the name of what is being written */

typedef struct dz_staging { /* zero-initialise; free with dz_staging_free */
    char *path;             /* the final name, without slashes at its end */
    char *partial;          /* where it is written */
    char *marker;           /* of a directory: the file in it that says who made it; NULL otherwise */
    size_t kept;            /* of `partial`, a directory: the part of its path that existed before */
    int made;               /* by this process: dz_staging_discard removes it */
} dz_staging;

/* The names only; every process may call it. */
dz_rc dz_staging_name(dz_staging *staging, const char *path, dz_error *err);

/* Before any work: may `path`.partial be made anew? DZ_EUSAGE when something is there that a killed job of kind `own` did not leave. */
dz_rc dz_staging_check_file(const char *path, dz_target own, dz_error *err);

/* A file of kind `own` is to be made, by the caller, as `partial`: removes what a killed job left. DZ_EUSAGE as dz_staging_check_file. */
dz_rc dz_staging_begin_file(dz_staging *staging, dz_target own, dz_error *err);

/* A new file with these bytes, synced. DZ_EFAIL when `partial` exists. */
dz_rc dz_staging_write(dz_staging *staging, const void *bytes, size_t len, dz_error *err);

/* An empty directory, and the directories above it. `job` ("restore") names the kind of job that fills it, in its marker
 * .deltazoo-JOB: one that a killed job of this kind left is removed; anything else in its place is DZ_EUSAGE. */
dz_rc dz_staging_begin_dir(dz_staging *staging, const char *job, dz_error *err);

/* Gives it its name, in the place of a file or of an empty directory of that name. `sync`: the rename is durable on return. */
dz_rc dz_staging_publish(dz_staging *staging, int sync, dz_error *err);

/* Gives a directory's files their places in the directory `path`, which has files already: `names`, paths inside it, one by one. Then
 * removes `partial`. */
dz_rc dz_staging_publish_into(dz_staging *staging, const char *const *names, size_t n, dz_error *err);

/* Removes what this process made, and the directories above it that were not there before. What was published stays. */
void dz_staging_discard(dz_staging *staging);
void dz_staging_free(dz_staging *staging);

/* Renames with an error that names both. `sync`: and syncs the directory. */
dz_rc dz_staging_rename(const char *from, const char *to, int sync, dz_error *err);

/* A small file, whole: its name has the old content or the new. A name of this process's own is used meanwhile; those
 * of processes that were killed then are removed. */
dz_rc dz_replace_file(const char *path, const void *bytes, size_t len, dz_error *err);

#endif

/* Restores a task from archive and base: its files, with lossless tensors byte for byte. */
#ifndef DZ_RESTORE_RESTORE_H
#define DZ_RESTORE_RESTORE_H

#include "archive/reader.h"
#include "decode/damage.h"

/* Collective. Opens the archive on every rank, as dz_archive_open_partly. */
dz_rc dz_archive_open_all(const dz_world *world, const char *path, dz_archive **out, dz_error *err);

/* Collective. The same as dz_archive_open_tasks. */
dz_rc dz_archive_open_tasks_all(const dz_world *world, const char *path, const char *const *names, size_t n, dz_archive **out,
                                dz_error *err);

/* Finds the task's entry. dz_lost_rc if it is lost; DZ_EUSAGE names the tasks of the archive if it has none of this name. */
dz_rc dz_archive_task(const dz_archive *archive, const char *name, const dz_task_entry **out, dz_error *err);

typedef struct dz_restore_options {
    const char *archive, *base, *out;
    const char *const *tasks; /* one, or several whose weighted deltas are added (decode/merge.h) */
    const double *weights;
    size_t ntasks;
    int sign_consensus;
    const char *tensors; /* glob; NULL: all, and the companion files */
    uint64_t max_shard;  /* bytes of tensors in a new shard, at most (a larger tensor gets its own); 0: the original shards */
    dz_dtype dtype;      /* of float tensors (restore/cast.h); DZ_OPAQUE: as they were */
    int one_file;        /* `out` is a safetensors file: all tensors, or those of `tensors`, and nothing else. One task, not keep_going or
                            max_shard */
    int force, quiet;
    int dry_run;    /* everything is checked and noted, nothing is made */
    int no_sync;    /* return while files may still be in the page cache only */
    int keep_going; /* go on after damage: lost parts are left out, or replaced by the base's values */
} dz_restore_options;

typedef struct dz_restore_result {
    uint64_t ntensors, nbytes, nfiles;
    dz_buf notes;     /* on a sum of tasks: what is of one task alone or left out; with one_file: what is not made; the caller frees */
    dz_damage damage; /* keep_going: its count on all ranks, its records on rank 0; the caller frees */
    double secs, peak_memory;
} dz_restore_result;

/* Collective. Writes OUT.partial and renames it; a failure leaves nothing behind. A wrong base is refused, naming the first tensors that
 * differ. With keep_going and damage, everything readable is restored, and the return code is DZ_EDAMAGE on all ranks without text in
 * `err`. */
dz_rc dz_restore(const dz_world *world, const dz_restore_options *opt, dz_restore_result *result, dz_error *err);

/* Collective. Opens the base model of the archive on every rank. `path` NULL: none is given; DZ_EUSAGE, unless the archive needs none,
 * since it holds its base, or has none: then `*out` is NULL. */
dz_rc dz_base_open_all(const dz_world *world, const dz_archive *archive, const char *path, dz_checkpoint **out, dz_error *err);

/* Collective. Fails on all ranks, naming tensors, if any rank's `base_differs` (by base row) is set. */
dz_rc dz_agree_on_base(const dz_world *world, const dz_archive *archive, const char *base_path, const uint8_t *base_differs, dz_error *err);

#endif

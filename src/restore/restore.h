/* A task back from archive and base: the files it had, lossless tensors byte for byte. */
#ifndef DZ_RESTORE_RESTORE_H
#define DZ_RESTORE_RESTORE_H

#include "archive/reader.h"
#include "decode/damage.h"

/* Collective. Every rank opens the archive, as dz_archive_open_partly. */
dz_rc dz_archive_open_all(const dz_world *world, const char *path, dz_archive **out, dz_error *err);

/* The task's entry; DZ_EDAMAGE when it is lost, DZ_EUSAGE naming those there are. */
dz_rc dz_archive_task(const dz_archive *archive, const char *name, const dz_task_entry **out, dz_error *err);

typedef struct dz_restore_options {
    const char *archive, *base, *out;
    const char *const *tasks; /* one; or several, whose weighted deltas are added (pipeline/merge.h) */
    const double *weights;
    size_t ntasks;
    int sign_consensus;
    const char *tensors; /* glob; NULL: all, and the side files */
    uint64_t max_shard;  /* new shards of at most so many bytes of tensors (one larger tensor is alone); 0: the original ones */
    int force, quiet;
    int no_sync;    /* files may still be in the page cache when it returns */
    int keep_going; /* past damage: what is lost is left out, or the base's values take its place */
} dz_restore_options;

typedef struct dz_restore_result {
    uint64_t ntensors, nbytes, nfiles;
    dz_damage damage; /* keep_going: its count on all ranks, its records on rank 0; the caller frees */
    double secs, peak_memory;
} dz_restore_result;

/* Collective. Writes DIR.partial and renames; nothing is left behind on failure. A wrong base is refused naming the first tensors that
 * differ. With keep_going and damage, what there is has been restored, and the return code is DZ_EDAMAGE on all ranks without text in
 * `err`. */
dz_rc dz_restore(const dz_world *world, const dz_restore_options *opt, dz_restore_result *result, dz_error *err);

/* Collective. Fails on all ranks, naming tensors, if any rank's `base_differs` (by base row) is set. */
dz_rc dz_agree_on_base(const dz_world *world, const dz_archive *archive, const char *base_path, const uint8_t *base_differs, dz_error *err);

#endif

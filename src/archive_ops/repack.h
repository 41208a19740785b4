/* Removes tasks from an archive, or copies some into another: writes a new file, checks it, and renames it. */
#ifndef DZ_ARCHIVE_OPS_REPACK_H
#define DZ_ARCHIVE_OPS_REPACK_H

#include "base/mem.h"
#include "parallel/world.h"

typedef struct dz_rewrite_options {
    const char *archive, *out;              /* the same file, or another */
    const char *const *leave, *const *take; /* names of tasks to leave out; or, if any, the only tasks to take */
    size_t nleave, ntake;
    int force;
    int rebase;       /* what is coded against a task that is left out is coded anew, exactly as it restores, against the base */
    const char *base; /* for that: the base model; NULL: the archive holds it */
} dz_rewrite_options;

typedef struct dz_rewrite_result {
    uint64_t bytes_before, bytes_after;
    size_t ntasks;  /* in the new file */
    dz_buf foreign; /* lines on what other tools had put into the old one, which is not carried along; rank 0, the caller frees */
} dz_rewrite_result;

/* Collective. The old file stays as it is until the new one is complete on disk. */
dz_rc dz_rewrite(const dz_world *world, const dz_rewrite_options *opt, dz_rewrite_result *result, dz_error *err);

#endif

/* Taking tasks out of an archive, or some of them into another: a new file, checked, that takes the name. */
#ifndef DZ_ARCHIVE_OPS_REPACK_H
#define DZ_ARCHIVE_OPS_REPACK_H

#include "parallel/world.h"

typedef struct dz_rewrite_options {
    const char *archive, *out;              /* the same file, or another */
    const char *const *leave, *const *take; /* names of tasks: left out; or, when there are any, the only ones taken */
    size_t nleave, ntake;
    int force;
} dz_rewrite_options;

typedef struct dz_rewrite_result {
    uint64_t bytes_before, bytes_after;
    size_t ntasks; /* in the new file */
} dz_rewrite_result;

/* Collective. The old file stays as it is until the new one is complete on disk. */
dz_rc dz_rewrite(const dz_world *world, const dz_rewrite_options *opt, dz_rewrite_result *result, dz_error *err);

#endif

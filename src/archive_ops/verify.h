/* Verifies an archive: structure, every checksum, every block decoded; with the base, also its digests. */
#ifndef DZ_ARCHIVE_OPS_VERIFY_H
#define DZ_ARCHIVE_OPS_VERIFY_H

#include "decode/damage.h"
#include "restore/restore.h"

typedef struct dz_verify_result {
    int finished;                               /* everything was read: the damage is all the damage */
    uint64_t ntasks, ntensors, nblocks, nbytes; /* ntasks: without the base that is stored */
    int base_stored;
    dz_buf foreign;   /* lines on what other tools have put into the archive; rank 0, the caller frees */
    dz_buf lost;      /* names of tasks that cannot be read, a line each; likewise */
    int only_lost;    /* nothing else is damaged */
    dz_damage damage; /* its count on all ranks, its records on rank 0; the caller frees */
    double secs;
} dz_verify_result;

/* Collective. Goes on after damage and collects it: rank 0's `result` has it, and the return code is DZ_EDAMAGE on all ranks, without text
 * in `err`. A file that cannot be opened as an archive fails as usual. `base` may be NULL. With `tasks`, only these
 * [ntasks], what they are coded against, and a stored base are read. */
dz_rc dz_verify(const dz_world *world, const char *archive, const char *base, const char *const *tasks, size_t ntasks, int quiet,
                dz_verify_result *result, dz_error *err);

#endif

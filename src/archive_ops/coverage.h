/* Which of a manifest's original models an archive covers: what restoring would bring back of each, if its files were gone. Nothing is ever
 * deleted here. */
#ifndef DZ_ARCHIVE_OPS_COVERAGE_H
#define DZ_ARCHIVE_OPS_COVERAGE_H

#include "base/mem.h"
#include "numeric/noise.h"
#include "parallel/world.h"

typedef enum dz_cover {
    DZ_COVER_EXACT,   /* every file is restored as it is */
    DZ_COVER_LOSSY,   /* every file, but some tensors with noise */
    DZ_COVER_PARTLY,  /* not everything: files that are not kept, dropped tensors */
    DZ_COVER_CHANGED, /* it is not what was stored, or that is not known */
    DZ_COVER_MISSING, /* the archive does not have it */
    DZ_COVER_BASE,    /* a base that the archive does not hold: without it, nothing is restored */
    DZ_COVER_GONE,    /* there is no such model (any more) */
    DZ_COVERS
} dz_cover;

const char *dz_cover_name(dz_cover cover); /* "exact", "lossy", "partly", "changed", "missing", "base", "gone" */

typedef struct dz_covered {
    char *name, *path; /* name NULL: the base. The path is absolute where the model is there */
    dz_cover cover;
    dz_verdict verdict; /* of a lossy one */
    uint64_t bytes;     /* of its tensors; 0: not known */
    char *why;          /* "" where there is nothing to say */
    dz_buf files;       /* SIZE<tab>NANOSECONDS<tab>PATH, a line for each file that was compared */
} dz_covered;

typedef struct dz_coverage { /* on rank 0 */
    dz_covered *list;
    size_t n;
} dz_coverage;

/* Collective. Reads every model of the manifest once and compares it with the archive, which must be sound: verify it first. */
dz_rc dz_coverage_find(const dz_world *world, const char *archive, const char *manifest, int quiet, dz_coverage *coverage, dz_error *err);
void dz_coverage_free(dz_coverage *coverage);

/* Collective. The path of the manifest's base; the caller frees. */
dz_rc dz_coverage_base(const dz_world *world, const char *manifest, char **path, dz_error *err);

#endif

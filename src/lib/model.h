/* What the library of the Python package (src/python) has beside include/deltazoo.h: whole models and archives. It is of the build without
 * MPI only, where a world is one rank. Functions return and report as those of deltazoo.h. */
#ifndef DZ_LIB_MODEL_H
#define DZ_LIB_MODEL_H

#include "deltazoo.h"

typedef struct deltazoo_made {
    uint64_t ntensors, nbytes, nfiles;
} deltazoo_made;

/* As `deltazoo restore`: the files of a task, or of a weighted sum of several, in the directory `out`. `force`: replaces the files of an
 * earlier restore; `sync`: returns when they are on the disk. */
DELTAZOO_API int deltazoo_restore_model(const char *archive, const char *const *tasks, const double *weights, size_t ntasks,
                                        int sign_consensus, const char *base, const char *out, int force, int sync, deltazoo_made *made,
                                        char *message, size_t size);

typedef struct deltazoo_checked {
    uint64_t ntasks, ntensors, nblocks, nproblems;
} deltazoo_checked;

/* As `deltazoo verify`; `base` may be NULL. DELTAZOO_EDAMAGE with the first problem in `message`. */
DELTAZOO_API int deltazoo_verify(const char *archive, const char *base, deltazoo_checked *checked, char *message, size_t size);

#endif

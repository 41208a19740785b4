/* The zoo manifest: one base, many named tasks. Paths are relative to the manifest. */
#ifndef DZ_CONFIG_MANIFEST_H
#define DZ_CONFIG_MANIFEST_H

#include "base/mem.h"

#define DZ_MANIFEST_KEYS 3 /* keys of the recipe that a task may have: quality, noise_to_delta, noise_to_base */

typedef struct dz_manifest_task {
    char *name, *path;
    char *parent;                 /* the task it is to be coded against, "auto", or NULL: the base */
    char *sets[DZ_MANIFEST_KEYS]; /* "quality=high"; NULL: not given */
    int line;                     /* of the manifest */
} dz_manifest_task;

typedef struct dz_manifest {
    char *path, *base;
    int no_base;    /* it names none: each task is coded by itself */
    int store_base; /* the archive is to hold the base */
    dz_manifest_task *tasks;
    size_t ntasks;
} dz_manifest;

/* Loads a manifest. All problems are one error, a line each (DZ_EUSAGE): those of dz_yaml_load, a missing key, no task, a duplicate or an
 * invalid name. With problems `*out` has what could be read (base, names and paths may be NULL), or is NULL. */
dz_rc dz_manifest_load(const char *path, dz_manifest **out, dz_error *err);
void dz_manifest_free(dz_manifest *manifest);
void dz_manifest_task_free(dz_manifest_task *task); /* what it holds */

/* 1 if a manifest can hold this path: YAML is UTF-8. */
int dz_manifest_path_ok(const char *path);

/* Appends the text of a manifest, with its paths as they are. */
dz_rc dz_manifest_text(const dz_manifest *manifest, dz_buf *out, dz_error *err);

#endif

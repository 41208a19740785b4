/* The zoo manifest: one base, many named tasks. Paths are relative to the manifest. */
#ifndef DZ_CONFIG_MANIFEST_H
#define DZ_CONFIG_MANIFEST_H

#include "base/mem.h"

typedef struct dz_manifest_task {
    char *name, *path;
    int line; /* of the manifest */
} dz_manifest_task;

typedef struct dz_manifest {
    char *path, *base;
    dz_manifest_task *tasks;
    size_t ntasks;
} dz_manifest;

/* Every problem in one error, a line each (DZ_EUSAGE): what dz_yaml_load tells, a missing key, no task, a name twice, a name that cannot be
 * one. With problems `*out` is what could be read, in which base, names and paths may be NULL, or NULL. */
dz_rc dz_manifest_load(const char *path, dz_manifest **out, dz_error *err);
void dz_manifest_free(dz_manifest *manifest);

/* Whether a manifest can hold this path: only UTF-8 can be written in YAML. */
int dz_manifest_path_ok(const char *path);

/* The text of a manifest; its paths are taken as they are. */
dz_rc dz_manifest_text(const dz_manifest *manifest, dz_buf *out, dz_error *err);

/* A task's name becomes an HDF5 group and a directory: letters, digits and . _ + - only, at most 128, not starting with a dot. */
int dz_task_name_ok(const char *name);

#endif

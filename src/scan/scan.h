/* Scan: which models of a folder share a base; a manifest for each base. */
#ifndef DZ_SCAN_SCAN_H
#define DZ_SCAN_SCAN_H

#include <sys/types.h>

#include "parallel/world.h"

typedef struct dz_scan_options {
    const char *dir, *out;    /* out: NULL writes nothing */
    const char *list;         /* NULL, or with `out` the list of manifests and archives (config/zoo_list.h) */
    const char *archives;     /* folder of the archives in that list; NULL: beside the manifests */
    const char *const *bases; /* names or paths of models that must be bases */
    size_t nbases;
    int force;
    int allow_lossy; /* also models that were restored from a lossy archive */
    int chains;      /* checkpoints of a run (step-100, step-200) are each other's parents in the manifest, by their numbers */
} dz_scan_options;

typedef struct dz_scan_model {
    char *name, *path;
    uint64_t identity; /* of its files; 0: not known */
    uint64_t nbytes;   /* of its tensors */
    int bad;           /* cannot be read; the notes say why */
    uint32_t base;     /* number of its base; its own number if it is a base or alone */
    size_t ntasks;     /* models whose base it is */
    double distance;   /* from its base */
    double sum;        /* of the distances from all others of its base */
    char *manifest;    /* of a base: the file written; NULL where none was asked for */
    int outside;       /* of the folder that was scanned: named as a base by its path */
    int is_adapter;    /* LoRA and its like: a task of the base that it names */
    size_t nadapters;  /* of ntasks */
    char *claim;       /* the base that it names, as it does; "" for none */
    dev_t device;      /* of its path; the inode is 0 where that is not known */
    ino_t inode;
    int equal; /* to another task of the same base, which is in the manifest: this one is not */
} dz_scan_model;

typedef struct dz_scan_result { /* on rank 0 */
    dz_scan_model *models;
    size_t nmodels, nmanifests;
    dz_buf notes;
    dz_buf left; /* what is in no manifest and why: NAME<tab>WHY, a line each */
} dz_scan_result;

/* Collective. Scans the models of `dir` (scan/find_models.h): headers and a few thousand values of each are read, each by one rank. Writes
 * `out`, or with several bases or with `list` out-BASE.yaml for each. DZ_EFAIL if no two models share a base; then nothing is written. */
dz_rc dz_scan(const dz_world *world, const dz_scan_options *opt, dz_scan_result *result, dz_error *err);
void dz_scan_result_free(dz_scan_result *result);

#endif

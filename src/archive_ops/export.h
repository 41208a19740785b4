/* A task's delta for other tools: a task vector as safetensors, dense or sparse, or as plain HDF5 arrays; and a task vector back into a
 * model. */
#ifndef DZ_ARCHIVE_OPS_EXPORT_H
#define DZ_ARCHIVE_OPS_EXPORT_H

#include "base/mem.h"
#include "parallel/world.h"

typedef enum dz_export_format {
    DZ_EXPORT_DENSE,  /* safetensors: each tensor's delta as F32, under its own name */
    DZ_EXPORT_SPARSE, /* safetensors: NAME.positions I64 (ascending, in the flat tensor) and NAME.values F32, of lossy tensors */
    DZ_EXPORT_HDF5,   /* as dense, a dataset each */
    DZ_EXPORT_LORA,   /* lora.h: a directory */
    DZ_EXPORT_PATCH   /* patch.h */
} dz_export_format;

typedef struct dz_export_options {
    const char *archive, *task, *out;
    const char *base;    /* dense, hdf5 and lora: adds the differences of exact float tensors; may be NULL. patch needs it */
    const char *tensors; /* glob; NULL: all */
    dz_export_format format;
    unsigned rank; /* lora */
    int force, quiet;
} dz_export_options;

typedef struct dz_export_result {
    uint64_t ntensors, left_out, nbytes;
    dz_buf lacks; /* names of tensors that are left out, or that a vector lacks, a line each, the first hundred; the caller frees */
    double secs;
    double energy, energy_in, energy_kept; /* lora: |delta|^2 of all tensors that have one, of those in the adapter, of the adapter */
    double least;                          /* the smallest share kept of a tensor */
    uint64_t without_base;                 /* lora: linear layers left out for want of --base */
    uint64_t beside_experts;               /* lora: layers of the adapter with the last name of an expert's, which peft may leave out */
    uint64_t changed, elements, dense;     /* patch: elements that differ, of how many; tensors that are written whole */
    uint64_t model_bytes;                  /* patch: of all tensors */
} dz_export_result;

/* Collective. Writes OUT.partial and renames. */
dz_rc dz_export(const dz_world *world, const dz_export_options *opt, dz_export_result *result, dz_error *err);

typedef struct dz_import_options {
    const char *vector, *base, *out; /* a model file or directory of F32, F16, BF16 or F64 deltas; the base; a new directory */
    int quiet;
} dz_import_options;

/* Collective. OUT gets base + vector in the base's types and names. Tensors that the vector lacks are the base's; `left_out` and `lacks`
 * are those of them that its task has of its own. */
dz_rc dz_import(const dz_world *world, const dz_import_options *opt, dz_export_result *result, dz_error *err);

#endif

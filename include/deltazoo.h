/* libdeltazoo: open an archive, list its tasks and tensors, restore a tensor or take its delta. C11, usable from C++.
 *
 * Functions return 0, or one of the codes below with a one-line text in `message` (always terminated when size > 0; message may be NULL).
 * Use a handle from one thread at a time. Open handles from several threads only if the HDF5 library is built thread-safe: opening uses
 * HDF5, all later calls do not. The library does not start or call MPI (a parallel HDF5 brings its MPI along), and it never prints or
 * exits.
 */
#ifndef DELTAZOO_H
#define DELTAZOO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DELTAZOO_API __attribute__((visibility("default")))

enum { DELTAZOO_OK = 0, DELTAZOO_EFAIL = 1, DELTAZOO_EUSAGE = 2, DELTAZOO_EDAMAGE = 3, DELTAZOO_ENOMEM = 5 };

typedef struct deltazoo_archive deltazoo_archive;

typedef struct deltazoo_task {
    const char *name;   /* borrowed from the archive, as the others */
    const char *recipe; /* its name */
    double sparsity, gamma, trace_norm;
    uint64_t source_bytes; /* of all its tensors */
    uint64_t stored_bytes; /* payload, index and its share of the file's structures */
} deltazoo_task;

/* A tensor that is kept as the base's separate ones (experts as a stack, fused projections) is listed as these, under the base's names. */
typedef struct deltazoo_tensor {
    const char *name;
    const char *dtype;  /* safetensors name: "BF16" */
    const char *policy; /* "ultradelta" (lossy), "lossless", "equal", "drop" or "tied"; of a base tensor "" */
    uint32_t ndim;
    uint64_t shape[8];
    uint64_t nbytes;       /* restored */
    uint64_t stored_bytes; /* in the archive */
} deltazoo_tensor;

/* How a lossy tensor is stored, and what that is expected to cost: of the restored delta d' = gamma * gain * d + noise, |noise|^2 is about
 * nsr * |gamma * gain * d|^2. */
typedef struct deltazoo_lossy {
    double sparsity;                       /* share of the elements that were to be dropped */
    uint32_t bits;                         /* a kept value; 16 and more: other codings (FORMAT.md "Lossy tiles") */
    uint64_t kept;                         /* elements */
    double nsr, gain, delta_rms, base_rms; /* NaN in archives of format version 1 */
} deltazoo_lossy;

typedef struct deltazoo_base {
    const char *name, *origin, *revision; /* as far as the archive knows them, else "" */
    char fingerprint[33];                 /* hexadecimal */
    uint64_t ntensors;
} deltazoo_base;

DELTAZOO_API const char *deltazoo_version(void); /* "0.1.0" */

/* Opens an archive; the caller closes `*out`. Tasks that are too damaged to read are left out: see deltazoo_lost. */
DELTAZOO_API int deltazoo_open(const char *path, deltazoo_archive **out, char *message, size_t size);

/* The same, but only these tasks are there, the tasks that they are coded against, and a stored base: what it takes does not grow with the
 * number of the others. Tasks are found by deltazoo_task_name. DELTAZOO_EUSAGE if one is not in the archive. */
DELTAZOO_API int deltazoo_open_tasks(const char *path, const char *const *names, size_t n, deltazoo_archive **out, char *message,
                                     size_t size);
DELTAZOO_API void deltazoo_close(deltazoo_archive *archive); /* accepts NULL */

DELTAZOO_API size_t deltazoo_task_count(const deltazoo_archive *archive);
DELTAZOO_API const char *deltazoo_task_name(const deltazoo_archive *archive, size_t task);           /* NULL beyond the last */
DELTAZOO_API int deltazoo_task_at(const deltazoo_archive *archive, size_t task, deltazoo_task *out); /* DELTAZOO_EUSAGE beyond the last */

/* A line for each part of the archive that cannot be read. Count 0, or NULL beyond the last: everything else can. */
DELTAZOO_API size_t deltazoo_lost_count(const deltazoo_archive *archive);
DELTAZOO_API const char *deltazoo_lost(const deltazoo_archive *archive, size_t number);

/* Tensors of a task, in the order of its files. */
DELTAZOO_API size_t deltazoo_tensor_count(const deltazoo_archive *archive, size_t task);
DELTAZOO_API int deltazoo_tensor_at(const deltazoo_archive *archive, size_t task, size_t index, deltazoo_tensor *out);

/* The number of the tensor `name` of a task; DELTAZOO_EUSAGE if there is none. */
DELTAZOO_API int deltazoo_tensor_find(const deltazoo_archive *archive, size_t task, const char *name, size_t *index);

/* The base's tensor that a task's tensor is restored from: its name, type and shape. DELTAZOO_EUSAGE if it needs none. */
DELTAZOO_API int deltazoo_base_of(const deltazoo_archive *archive, size_t task, size_t index, deltazoo_tensor *out);

/* How the tensor is stored, if it is lossy; else DELTAZOO_EUSAGE. */
DELTAZOO_API int deltazoo_lossy_at(const deltazoo_archive *archive, size_t task, size_t index, deltazoo_lossy *out);

/* What restoring is expected to cost, over the lossy tensors of a task together, or of one tensor: an exact one has cosine and gain 1, no
 * noise, and the verdict "exact". Verdicts: "exact", "high", "balanced", "small", "poor". */
typedef struct deltazoo_quality {
    double cosine;         /* between restored and true delta */
    double gain;           /* share of the true delta that is restored */
    double noise_to_delta; /* energy of the noise over that of the delta, at this gain; infinity where nothing is restored */
    double noise_to_base;  /* energy of the noise over that of the base's weights; NaN where that is not known */
    double delta, base;    /* energies, sums of squares: of the true deltas; of the base's weights, 0 where that is not known */
    const char *verdict;
} deltazoo_quality;

#define DELTAZOO_WHOLE ((size_t)-1)

/* `index`: a tensor of the task, or DELTAZOO_WHOLE. */
DELTAZOO_API int deltazoo_quality_of(const deltazoo_archive *archive, size_t task, size_t index, deltazoo_quality *out);

/* The base model that the archive was made from, and its tensors; DELTAZOO_EUSAGE beyond the last. */
DELTAZOO_API void deltazoo_base_info(const deltazoo_archive *archive, deltazoo_base *out);
DELTAZOO_API int deltazoo_base_at(const deltazoo_archive *archive, size_t index, deltazoo_tensor *out);

/* The task that is the base itself, if the archive holds it: then deltazoo_set_base is not needed. It is listed and restored like any
 * other. DELTAZOO_EUSAGE if the archive does not hold its base. */
DELTAZOO_API int deltazoo_stored_base(const deltazoo_archive *archive, size_t *task);

/* Sets the base model (a .safetensors file or a directory), which deltazoo_restore needs. A base with other names, types or shapes is
 * refused here; a base with other values is refused when a tensor is restored. NULL: none any more. */
DELTAZOO_API int deltazoo_set_base(deltazoo_archive *archive, const char *path, char *message, size_t size);

/* Reads the base's tensor `index` (of deltazoo_base_at) from the model that was set, or else from the archive if
 * that holds it, and checks its digests. */
DELTAZOO_API int deltazoo_base_read(deltazoo_archive *archive, size_t index, void *dst, char *message, size_t size);

/* Restores tensor `index` of task `task` into `dst`, which has room for its nbytes. Blocks' checksums and the base's digests are checked.
 */
DELTAZOO_API int deltazoo_restore(deltazoo_archive *archive, size_t task, size_t index, void *dst, char *message, size_t size);

/* The same with the base's tensor (deltazoo_base_of) in memory instead of a file: `base` has its nbytes, or is NULL if none is needed. */
DELTAZOO_API int deltazoo_restore_from(deltazoo_archive *archive, size_t task, size_t index, const void *base, void *dst, char *message,
                                       size_t size);

/* Elements first .. first + count - 1 of the flat tensor; only the tiles that they are in are decoded. `base`: the whole base tensor in
 * memory, or NULL for the one of deltazoo_set_base. Elements of types that the library does not know are bytes. */
DELTAZOO_API int deltazoo_restore_part(deltazoo_archive *archive, size_t task, size_t index, uint64_t first, uint64_t count,
                                       const void *base, void *dst, char *message, size_t size);

/* The delta of a lossy tensor, with gamma and scale; needs no base. A float for each element, 0 where nothing is kept and beyond the base's
 * elements. DELTAZOO_EUSAGE for a tensor that is not lossy. */
DELTAZOO_API int deltazoo_delta(deltazoo_archive *archive, size_t task, size_t index, float *dst, char *message, size_t size);

/* The same as positions (ascending, in the flat tensor) and values of the nonzeros. `*count`: room on entry, number of nonzeros on return;
 * with `positions` or `values` NULL only the count is returned. DELTAZOO_EUSAGE if there is not enough room. */
DELTAZOO_API int deltazoo_delta_sparse(deltazoo_archive *archive, size_t task, size_t index, uint64_t *count, uint64_t *positions,
                                       float *values, char *message, size_t size);

#ifdef __cplusplus
}
#endif

#endif

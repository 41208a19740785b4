/* libdeltazoo: open an archive, look at its tasks and tensors, restore a tensor. C11, also from C++.
 *
 * Functions return 0, or one of the codes below with a one-line text in `message` (always terminated when size > 0; message may be NULL).
 * One archive handle is used by one thread at a time. The library neither starts nor needs MPI, and never prints or exits.
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

typedef struct deltazoo_tensor {
    const char *name;   /* borrowed from the archive, as the others */
    const char *dtype;  /* safetensors name: "BF16" */
    const char *policy; /* "ultradelta", "lossless", "equal", "drop" or "tied" */
    uint32_t ndim;
    uint64_t shape[8];
    uint64_t nbytes;       /* restored */
    uint64_t stored_bytes; /* in the archive */
} deltazoo_tensor;

/* Opens an archive; `*out` is the caller's, to be closed. */
DELTAZOO_API int deltazoo_open(const char *path, deltazoo_archive **out, char *message, size_t size);
DELTAZOO_API void deltazoo_close(deltazoo_archive *archive); /* accepts NULL */

DELTAZOO_API size_t deltazoo_task_count(const deltazoo_archive *archive);
DELTAZOO_API const char *deltazoo_task_name(const deltazoo_archive *archive, size_t task); /* NULL beyond the last */

/* Tensors of a task, in the order of its files. */
DELTAZOO_API size_t deltazoo_tensor_count(const deltazoo_archive *archive, size_t task);
DELTAZOO_API int deltazoo_tensor_at(const deltazoo_archive *archive, size_t task, size_t index, deltazoo_tensor *out);

/* Gives the base model (a .safetensors file or a directory). Needed before deltazoo_restore; one whose tensors' names, types or shapes
 * differ is refused here, one whose values differ when a tensor is restored. */
DELTAZOO_API int deltazoo_set_base(deltazoo_archive *archive, const char *path, char *message, size_t size);

/* Restores tensor `index` of task `task` into `dst`, which has room for its nbytes. Blocks' checksums and the base's digests are checked.
 */
DELTAZOO_API int deltazoo_restore(deltazoo_archive *archive, size_t task, size_t index, void *dst, char *message, size_t size);

#ifdef __cplusplus
}
#endif

#endif

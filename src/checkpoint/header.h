/* Writing a safetensors header. */
#ifndef DZ_CHECKPOINT_HEADER_H
#define DZ_CHECKPOINT_HEADER_H

#include "checkpoint/safetensors.h"

/* Text of a file whose metadata is taken over: a safetensors file's beginning, or an index. {0}, and text that is none: no metadata but the
 * usual. */
typedef struct dz_like {
    const char *text;
    size_t len;
    const char *mark; /* NULL, or the value of DZ_MARK_KEY among the metadata (base/overwrite.h), where it comes first */
} dz_like;

/* Order of tensors in a file that is laid out anew, for qsort: the safetensors library's, by dtype from U64 down to BOOL, then by name.
 * Each tensor then begins at a multiple of its element's size. */
int dz_safetensors_order(const void *a, const void *b); /* two dz_tensor */

/* The first bytes of a safetensors file that holds `tensors` end to end in this order: 8-byte little-endian length, JSON padded with spaces
 * to a multiple of 8. Uses name, dtype_name, ndim, shape and nbytes. Appended to `out`. */
dz_rc dz_safetensors_header(const dz_tensor *tensors, size_t ntensors, dz_like like, dz_buf *out, dz_error *err);

/* The model.safetensors.index.json that tells of each tensor the file it is in. Appended to `out`. */
dz_rc dz_safetensors_index(const dz_tensor *tensors, const char *const *files, size_t ntensors, dz_like like, dz_buf *out, dz_error *err);

#endif

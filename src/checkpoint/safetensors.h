/* The safetensors header: parsed by jansson, and checked before memory is allocated from its numbers.
 *
 * file = u64 little-endian header length, JSON header, data. The tensors' bytes fill the data end to end, without gap or overlap.
 */
#ifndef DZ_CHECKPOINT_SAFETENSORS_H
#define DZ_CHECKPOINT_SAFETENSORS_H

#include "base/dtype.h"
#include "base/mem.h"

#define DZ_MAX_NDIM 8
#define DZ_DTYPE_NAME 16
#define DZ_TENSOR_NAME_MAX 65535            /* bytes: a field of HDF5 has no more */
#define DZ_HEADER_MAX ((uint64_t)100 << 20) /* the reference implementation's limit */

typedef struct dz_tensor {
    char *name;
    char dtype_name[DZ_DTYPE_NAME]; /* as in the file */
    dz_dtype dtype;                 /* DZ_OPAQUE for those that are bytes to us */
    uint32_t ndim;
    uint64_t shape[DZ_MAX_NDIM];
    uint64_t count;  /* elements; bytes for DZ_OPAQUE */
    uint64_t nbytes; /* in the file */
    uint32_t shard;  /* number of the file in the checkpoint */
    uint64_t offset; /* of the first byte, from the start of that file; for PyTorch, of the file as which it is restored */
} dz_tensor;

/* Parses the JSON header (`len` bytes of text) of the file `path` of `file_size` bytes and appends its tensors, in the order of their
 * bytes, to the array. DZ_EFAIL names the file, the tensor and the wrong value. */
dz_rc dz_safetensors_parse(const char *path, const char *text, size_t len, uint64_t file_size, uint32_t shard, dz_tensor **tensors,
                           size_t *ntensors, dz_error *err);

void dz_tensors_free(dz_tensor *tensors, size_t ntensors);

/* "[4096, 11008]"; returns `text`. */
#define DZ_SHAPE_TEXT 192
char *dz_shape_text(const dz_tensor *tensor, char text[DZ_SHAPE_TEXT]);

/* 1 if a name can be stored and printed: not empty, not too long, no control characters. */
int dz_tensor_name_ok(const char *name);

/* Bits of an element of the dtype with this safetensors name; 0 if safetensors has no such dtype. */
uint64_t dz_element_bits(const char *dtype_name);

int dz_same_shape(const dz_tensor *a, const dz_tensor *b);

#endif

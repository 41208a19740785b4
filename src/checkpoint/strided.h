/* Where a tensor's elements stand in a file: one after the other in row-major order, or by strides (a transposed or sliced view, as
 * torch.save keeps it). Whatever the strides, a tensor is read as its row-major copy. */
#ifndef DZ_CHECKPOINT_STRIDED_H
#define DZ_CHECKPOINT_STRIDED_H

#include "checkpoint/safetensors.h"

typedef struct dz_strided {
    uint64_t offset;              /* of the first element, from the start of the file */
    int strided;                  /* not row-major: */
    uint64_t stride[DZ_MAX_NDIM]; /* elements from one index to the next; 0 for a dimension of one, and where all are the same element */
} dz_strided;

/* The place at `offset` with these strides, of a tensor whose shape and count are known. */
dz_strided dz_strided_of(const dz_tensor *tensor, uint64_t offset, const uint64_t *stride);

/* Bytes from the first element to the end of the last; 0 where that overflows, or for a tensor without elements. */
uint64_t dz_strided_span(const dz_strided *place, const dz_tensor *tensor);

/* Orders tensors of one file by their places. 0 only for the same bytes in the same order and shape. */
int dz_compare_places(const dz_strided *a, const dz_tensor *of_a, const dz_strided *b, const dz_tensor *of_b);

/* Reads bytes [first, first + len) of the row-major copy. The range lies in the tensor, and the place's span has been checked. */
dz_rc dz_strided_read(const dz_strided *place, const dz_tensor *tensor, int fd, const char *path, uint64_t first, size_t len, void *dst,
                      dz_error *err);

#endif

/* Strided views: where a tensor's elements are in a file, in row-major order or by strides (a transposed or sliced view, as torch.save
 * stores it). Whatever the strides, a tensor is read as its row-major copy. */
#ifndef DZ_CHECKPOINT_STRIDED_H
#define DZ_CHECKPOINT_STRIDED_H

#include "checkpoint/safetensors.h"

typedef struct dz_strided {
    uint64_t offset;              /* of the first element, from the start of the file */
    int strided;                  /* not row-major: */
    uint64_t stride[DZ_MAX_NDIM]; /* elements from one index to the next; 0 for a dimension of one, and for expanded dimensions */
} dz_strided;

/* The view at `offset` with these strides, for a tensor whose shape and count are set. */
dz_strided dz_strided_of(const dz_tensor *tensor, uint64_t offset, const uint64_t *stride);

/* Bytes from the first element to the end of the last; 0 if that overflows or the tensor has no elements. */
uint64_t dz_strided_span(const dz_strided *place, const dz_tensor *tensor);

/* Orders tensors of one file by location. 0 only for the same bytes in the same order and shape. */
int dz_compare_places(const dz_strided *a, const dz_tensor *of_a, const dz_strided *b, const dz_tensor *of_b);

/* Reads bytes [first, first + len) of the row-major copy. The range is within the tensor, and the caller has checked the view's span. */
dz_rc dz_strided_read(const dz_strided *place, const dz_tensor *tensor, int fd, const char *path, uint64_t first, size_t len, void *dst,
                      dz_error *err);

#endif

/* Plain arrays in an HDF5 file, for h5dump or h5py. Not part of the archive format. */
#ifndef DZ_ARCHIVE_DENSE_H
#define DZ_ARCHIVE_DENSE_H

#include "checkpoint/safetensors.h"

/* One process. Makes the file: a contiguous f32 dataset for each tensor, of its name and shape, space allocated, with the text attributes
 * `task` and `meaning` at the root. `offsets[i]` gets where tensor i's values lie in the file (0 for an empty one). */
dz_rc dz_dense_layout(const char *path, const char *task, const char *meaning, const dz_tensor *tensors, size_t ntensors, uint64_t *offsets,
                      dz_error *err);

#endif

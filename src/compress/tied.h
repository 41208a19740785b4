/* Tensors of a task that hold the same bytes (tied weights written out twice): found by content, so that they can be stored once. */
#ifndef DZ_COMPRESS_TIED_H
#define DZ_COMPRESS_TIED_H

#include "config/zoo.h"

/* Collective. Fills `same` of the tasks' checkpoints: tensors of one type and shape and of at least 4 KiB whose bytes are equal. A few
 * kilobytes of each candidate are read; only where these agree is all of both read and compared, by all ranks together. */
dz_rc dz_find_tied(const dz_world *world, dz_checkpoint **tasks, size_t ntasks, dz_error *err);

#endif

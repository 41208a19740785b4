/* Fused tensors of the tasks (plan/fused.h), on all ranks. */
#ifndef DZ_COMPRESS_FUSED_H
#define DZ_COMPRESS_FUSED_H

#include "config/zoo.h"

/* Collective. The tasks' tensors that hold several of the base's are known by these from then on. Rank 0 looks for them. */
dz_rc dz_split_fused(const dz_world *world, dz_zoo *zoo, dz_error *err);

#endif

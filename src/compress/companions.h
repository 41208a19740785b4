/* Large companion files (tokenizers), coded by all ranks: what one rank would spend seconds on. */
#ifndef DZ_COMPRESS_COMPANIONS_H
#define DZ_COMPRESS_COMPANIONS_H

#include "compress/context.h"

/* Collective. Rank 0: `*coded` becomes a catalog that has the blobs of the tasks' large companion files and nothing else, for the layout to
 * take them from (dz_catalog's `earlier`). It stays NULL on the other ranks, on one rank alone, and where no file is large. */
dz_rc dz_companions_code(dz_context *ctx, dz_catalog **coded, dz_error *err);

#endif

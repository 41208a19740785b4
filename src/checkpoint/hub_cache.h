/* The cache of the Hugging Face hub: models--ORG--NAME holds blobs, refs and snapshots, whose files are links to blobs. */
#ifndef DZ_CHECKPOINT_HUB_CACHE_H
#define DZ_CHECKPOINT_HUB_CACHE_H

#include "base/mem.h"

/* The snapshot of a model's folder in the cache: what refs/main says, or the only one. Any other path is returned as it is. DZ_EFAIL for
 * several snapshots of which none is main. The caller frees. */
char *dz_hub_snapshot(const char *path, dz_error *err);

#endif

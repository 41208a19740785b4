#include "compress/fused.h"

#include "plan/fused.h"

dz_rc dz_split_fused(const dz_world *world, dz_zoo *zoo, dz_error *err) {
    dz_buf splits = {0};
    dz_fused_finder *finder = NULL;
    dz_rc rc = dz_sync_error(world, world->rank == 0 ? dz_fused_finder_make(zoo->base, &finder, err) : DZ_OK, err);
    for (size_t t = 0; t < zoo->ntasks && rc == DZ_OK; t++) {
        splits.len = 0;
        rc = dz_sync_error(world, world->rank == 0 ? dz_fused_find(finder, zoo->tasks[t], &splits, err) : DZ_OK, err);
        if (rc == DZ_OK && world->size > 1) rc = dz_bcast_buf(world, &splits, err);
        if (rc == DZ_OK) rc = dz_sync_error(world, dz_checkpoint_split(zoo->tasks[t], &splits, err), err);
    }
    dz_fused_finder_free(finder);
    dz_buf_free(&splits);
    return rc;
}

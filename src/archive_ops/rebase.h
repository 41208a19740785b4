/* Tasks whose parent is removed: what was coded against it is coded anew against the base, exactly as it restores. */
#ifndef DZ_ARCHIVE_OPS_REBASE_H
#define DZ_ARCHIVE_OPS_REBASE_H

#include "archive/copy_tasks.h"
#include "decode/tile_decoder.h"

typedef struct dz_rebase_item {
    uint32_t task, row; /* numbers in the old archive */
    uint64_t first;     /* of its tiles, among all */
} dz_rebase_item;

typedef struct dz_rebase {
    dz_checkpoint *base;
    dz_decoder decoder;
    int open;
    dz_rebase_item *items;
    size_t nitems;
    uint64_t ntiles, *lengths; /* [ntiles] of their blocks */
    dz_buf tile, body;
} dz_rebase;

/* Collective, after dz_copy_tasks_check: finds the rows, codes them to learn their sizes, and enters these in `copied`. Nothing to do: no
 * base is asked for. */
dz_rc dz_rebase_open(dz_rebase *rebase, const dz_world *world, dz_copy_tasks *copied, const char *base, dz_error *err);
void dz_rebase_close(dz_rebase *rebase);

/* Collective. Codes the rows once more and writes them into their places. `catalog`: rank 0's, laid out. */
dz_rc dz_rebase_write(dz_rebase *rebase, const dz_world *world, const dz_copy_tasks *copied, const dz_catalog *catalog,
                      dz_extent_writer *writer, dz_error *err);

#endif

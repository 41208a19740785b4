/* Fifth stage: lossy tiles are pruned and coded, tensors that turned out to be exact are coded exactly. */
#ifndef DZ_COMPRESS_ENCODE_H
#define DZ_COMPRESS_ENCODE_H

#include "compress/allocate.h"

typedef struct dz_block_table {
    uint64_t *length;      /* [items] bytes of the block, checksum included; 0: none */
    uint64_t *kept;        /* [lossy] elements or coefficients kept, over all ranks */
    uint64_t *kept_levels; /* [lossy * nlevels] of each level */
    size_t nlevels;
} dz_block_table;

/* Collective. May be called again with another allocation: it fills the same table. */
dz_rc dz_encode(dz_context *ctx, const dz_shapes *shapes, const dz_lossy_plan *lossy, const dz_counts *counts,
                const dz_allocation *allocation, dz_block_table *out, dz_error *err);
void dz_block_table_free(dz_block_table *table);

/* Collective. The same table before anything is encoded: blocks of lossy tensors as long as the allocation expects them to be. */
dz_rc dz_expect_blocks(const dz_context *ctx, const dz_lossy_plan *lossy, const dz_allocation *allocation, dz_block_table *out,
                       dz_error *err);

/* Codes the tile of a work item exactly, unless the journal has that block. */
dz_rc dz_encode_exact(dz_context *ctx, dz_tile_reader *reader, size_t item, dz_buf *body, dz_buf *scratch, dz_error *err);

/* Bytes of a pair's region: table and blocks. */
uint64_t dz_region_bytes(const dz_plan *plan, const dz_block_table *table, const dz_tensor_pair *pair);

#endif

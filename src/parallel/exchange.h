/* Bytes from rank to rank: blocks that are sent in an agreed order, and buffers gathered on rank 0. */
#ifndef DZ_PARALLEL_EXCHANGE_H
#define DZ_PARALLEL_EXCHANGE_H

#include "parallel/world.h"

#define DZ_BLOCK_MAX ((size_t)INT32_MAX) /* bytes of one block: MPI's counts are ints */

typedef struct dz_outgoing {
    uint8_t *block; /* owned */
    size_t len;
    int to;
    MPI_Request request;
} dz_outgoing;

/* Blocks of this rank for others. Zero-initialise; all blocks are added before the first is sent, so that a failure is agreed on before
 * anyone waits for a message. */
typedef struct dz_outbox {
    dz_outgoing *list;
    size_t n, cap, started;
} dz_outbox;

/* Room for `len` bytes (at most DZ_BLOCK_MAX) to rank `to`, for the caller to fill; NULL with `err` set when memory is out. Blocks from one
 * rank to another arrive in the order in which they are added. */
uint8_t *dz_outbox_add(dz_outbox *box, int to, size_t len, dz_error *err);

/* Starts to send all of them, without waiting. */
void dz_outbox_start(dz_outbox *box, const dz_world *world);

/* Waits until those that are under way have been taken, and frees them all. */
void dz_outbox_finish(dz_outbox *box);

/* The next block of rank `from`, of `len` bytes, into `block`; NULL: it is taken all the same, so that its sender is not left waiting, and
 * thrown away. */
void dz_receive_block(const dz_world *world, int from, uint8_t *block, size_t len);

/* Collective. All ranks' bytes, in the order of the ranks, appended to rank 0's `all`. Buffers that would lead beyond INT32_MAX bytes in
 * all are left out. */
dz_rc dz_gather_bufs(const dz_world *world, const dz_buf *mine, dz_buf *all, dz_error *err);

#endif

#include "parallel/exchange.h"

#include <stdlib.h>

#define BLOCK_TAG 1

uint8_t *dz_outbox_add(dz_outbox *box, int to, size_t len, dz_error *err) {
    if (len > DZ_BLOCK_MAX) dz_fail(err, DZ_EFAIL, "a block of %zu bytes is too long for one message", len);
    uint8_t *block = err->rc == DZ_OK ? dz_alloc_raw(len, 1, err) : NULL;
    if (!block || dz_grow((void **)&box->list, &box->cap, box->n + 1, sizeof *box->list, err) != DZ_OK) {
        free(block);
        return NULL;
    }
    box->list[box->n++] = (dz_outgoing){.block = block, .len = len, .to = to, .request = MPI_REQUEST_NULL};
    return block;
}

void dz_outbox_start(dz_outbox *box, const dz_world *world) {
    for (; box->started < box->n; box->started++) {
        dz_outgoing *o = &box->list[box->started];
        MPI_Isend(o->block, (int)o->len, MPI_BYTE, o->to, BLOCK_TAG, world->comm, &o->request);
    }
}

void dz_outbox_finish(dz_outbox *box) {
    for (size_t i = 0; i < box->started; i++) MPI_Wait(&box->list[i].request, MPI_STATUS_IGNORE);
    for (size_t i = 0; i < box->n; i++) free(box->list[i].block);
    free(box->list);
    *box = (dz_outbox){0};
}

void dz_receive_block(const dz_world *world, int from, uint8_t *block, size_t len) {
    uint8_t *into = block ? block : malloc(len ? len : 1);
    if (!into) MPI_Abort(world->comm, 1);
    MPI_Recv(into, (int)len, MPI_BYTE, from, BLOCK_TAG, world->comm, MPI_STATUS_IGNORE);
    if (into != block) free(into);
}

dz_rc dz_gather_bufs(const dz_world *world, const dz_buf *mine, dz_buf *all, dz_error *err) {
    if (world->size == 1) return dz_buf_put(all, mine->data, mine->len, err);
    int len = mine->len > INT32_MAX ? INT32_MAX : (int)mine->len, total = 0;
    int *lens = dz_alloc((size_t)world->size, sizeof *lens, err), *at = dz_alloc((size_t)world->size, sizeof *at, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc != DZ_OK) goto out;
    MPI_Allgather(&len, 1, MPI_INT, lens, 1, MPI_INT, world->comm);
    for (int r = 0; r < world->size; r++) { /* alike on every rank: who is left out sends nothing */
        if (lens[r] > INT32_MAX - 1 - total) lens[r] = 0;
        at[r] = total;
        total += lens[r];
    }
    if (world->rank == 0) dz_buf_reserve(all, (size_t)total + 1, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    uint8_t *into = world->rank == 0 ? all->data + all->len : NULL;
    MPI_Gatherv(mine->data, lens[world->rank], MPI_BYTE, into, lens, at, MPI_BYTE, 0, world->comm);
    if (world->rank == 0) all->len += (size_t)total;
out:
    free(lens);
    free(at);
    return rc;
}

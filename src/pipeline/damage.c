#include "pipeline/damage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A record: task, tensor, block in decimal and text, a NUL behind each. */
void dz_damage_add(dz_damage *d, const char *task, const char *tensor, int64_t block, const char *text) {
    dz_error none = {0};
    char number[24];
    size_t before = d->records.len;
    d->count++;
    if (before > DZ_DAMAGE_MAX) return;
    snprintf(number, sizeof number, "%lld", (long long)block);
    const char *const fields[] = {task ? task : "", tensor ? tensor : "", number, text};
    for (int i = 0; i < 4; i++) dz_buf_put(&d->records, fields[i], strlen(fields[i]) + 1, &none);
    if (none.rc != DZ_OK) d->records.len = before;
}

void dz_damage_free(dz_damage *d) {
    dz_buf_free(&d->records);
    *d = (dz_damage){0};
}

dz_rc dz_damage_gather(const dz_world *world, dz_damage *d, dz_error *err) {
    dz_buf all = {0};
    int len = (int)d->records.len, *lens = NULL, *at = NULL, total = 0;
    if (world->size == 1) return DZ_OK;
    if (world->rank == 0) {
        lens = dz_alloc((size_t)world->size, sizeof *lens, err);
        at = dz_alloc((size_t)world->size, sizeof *at, err);
    }
    dz_rc rc = dz_agree(world, err->rc, err);
    if (rc == DZ_OK) {
        MPI_Gather(&len, 1, MPI_INT, lens, 1, MPI_INT, 0, world->comm);
        for (int r = 0; world->rank == 0 && r < world->size; r++) {
            if (lens[r] > INT32_MAX - total) lens[r] = 0;
            at[r] = total;
            total += lens[r];
        }
        if (world->rank == 0) dz_buf_reserve(&all, (size_t)total + 1, err);
        rc = dz_agree(world, err->rc, err);
    }
    if (rc == DZ_OK) {
        MPI_Gatherv(d->records.data, len, MPI_BYTE, all.data, lens, at, MPI_BYTE, 0, world->comm);
        all.len = (size_t)total;
        dz_sum_u64(world, &d->count, 1);
        if (world->rank == 0) {
            dz_buf_free(&d->records);
            d->records = all;
            all = (dz_buf){0};
        }
    }
    dz_buf_free(&all);
    free(lens);
    free(at);
    return rc;
}

int dz_damage_next(const dz_damage *d, size_t *at, dz_damage_record *record) {
    const char *field[4];
    if (*at >= d->records.len) return 0;
    for (int i = 0; i < 4; i++) {
        field[i] = (const char *)d->records.data + *at;
        *at += strlen(field[i]) + 1;
    }
    *record = (dz_damage_record){.task = field[0], .tensor = field[1], .block = strtoll(field[2], NULL, 10), .text = field[3]};
    return 1;
}

#include "decode/damage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/exchange.h"

#define FIELDS 5 /* of a record: place in decimal, task, tensor, block in decimal and text, a NUL behind each */

void dz_damage_add(dz_damage *d, const char *task, const char *tensor, int64_t block, const char *text) {
    dz_error none = {0};
    char place[24], number[24];
    size_t before = d->records.len;
    d->count++;
    if (before > DZ_DAMAGE_MAX) return;
    snprintf(number, sizeof number, "%lld", (long long)block);
    snprintf(place, sizeof place, "%llu", (unsigned long long)d->place);
    const char *const fields[FIELDS] = {place, task ? task : "", tensor ? tensor : "", number, text};
    for (int i = 0; i < FIELDS; i++) dz_buf_put(&d->records, fields[i], strlen(fields[i]) + 1, &none);
    if (none.rc != DZ_OK) d->records.len = before;
}

void dz_damage_free(dz_damage *d) {
    dz_buf_free(&d->records);
    *d = (dz_damage){0};
}

typedef struct placed { /* a record in a buffer */
    uint64_t place;
    size_t at, len;
} placed;

static int by_place(const void *x, const void *y) {
    const placed *a = x, *b = y;
    if (a->place != b->place) return a->place < b->place ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

/* All ranks' records, one rank after another, into the order of the archive. */
static dz_rc put_in_order(dz_damage *d, const dz_buf *all, dz_error *err) {
    placed *list = NULL;
    size_t n = 0, cap = 0, next;
    dz_damage whole = {.records = *all};
    dz_damage_record r;
    for (size_t at = 0; next = at, dz_damage_next(&whole, &next, &r); at = next) {
        if (dz_grow((void **)&list, &cap, n + 1, sizeof *list, err) != DZ_OK) break;
        list[n++] = (placed){.place = strtoull((const char *)all->data + at, NULL, 10), .at = at, .len = next - at};
    }
    if (n) qsort(list, n, sizeof *list, by_place);
    d->records.len = 0;
    for (size_t i = 0; i < n && d->records.len <= DZ_DAMAGE_MAX; i++) dz_buf_put(&d->records, all->data + list[i].at, list[i].len, err);
    free(list);
    return err->rc;
}

dz_rc dz_damage_gather(const dz_world *world, dz_damage *d, dz_error *err) {
    dz_buf all = {0};
    if (world->size == 1) return DZ_OK;
    dz_rc rc = dz_gather_bufs(world, &d->records, &all, err);
    if (rc == DZ_OK) {
        dz_sum_u64(world, &d->count, 1);
        rc = dz_sync_error(world, world->rank == 0 ? put_in_order(d, &all, err) : DZ_OK, err);
    }
    dz_buf_free(&all);
    return rc;
}

int dz_damage_next(const dz_damage *d, size_t *at, dz_damage_record *record) {
    const char *field[FIELDS];
    if (*at >= d->records.len) return 0;
    for (int i = 0; i < FIELDS; i++) {
        field[i] = (const char *)d->records.data + *at;
        *at += strlen(field[i]) + 1;
    }
    *record = (dz_damage_record){.task = field[1], .tensor = field[2], .block = strtoll(field[3], NULL, 10), .text = field[4]};
    return 1;
}

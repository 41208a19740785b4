#include "compress/share.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "archive/reader.h"

/* By what originals are compared. */
typedef struct original_key {
    dz_digest digest;
    char dtype[16];
    uint64_t shape[8];
    uint32_t ndim, none;
} original_key;

static original_key key_of(const dz_catalog *c, const dz_index_row *row) {
    dz_tensor t = dz_tensor_of_row(&c->tensors[row->tensor]);
    original_key key = {.digest = row->digest, .ndim = t.ndim};
    memcpy(key.dtype, t.dtype_name, strnlen(t.dtype_name, sizeof key.dtype));
    for (uint32_t d = 0; d < t.ndim && d < 8; d++) key.shape[d] = t.shape[d];
    return key;
}

static int has_bytes(const dz_index_row *row) {
    return row->length > 0 && (row->digest.hi || row->digest.lo) &&
           (row->policy == DZ_POLICY_LOSSLESS || row->policy == DZ_POLICY_ULTRADELTA);
}

dz_rc dz_share_add(dz_share *s, const dz_catalog *c, size_t task, size_t row, dz_error *err) {
    const dz_index_row *r = &c->tasks[task].rows[row];
    original_key key = key_of(c, r);
    if (!has_bytes(r)) return DZ_OK;
    if (dz_grow((void **)&s->holders, &s->cap, s->nholders + 1, sizeof *s->holders, err) != DZ_OK) return err->rc;
    s->holders[s->nholders] = (dz_holder){.task = (uint32_t)task, .row = (uint32_t)row};
    int exact = r->policy == DZ_POLICY_LOSSLESS && !dz_row_was_lossy(r);
    return dz_lookup_add(exact ? &s->exact : &s->lossy, &key, sizeof key, (uint32_t)s->nholders++, err);
}

dz_rc dz_share_add_task(dz_share *s, const dz_catalog *c, size_t task, dz_error *err) {
    const dz_task_entry *t = &c->tasks[task];
    if (c->stored_name && strcmp(c->stored_name, t->name) == 0) return DZ_OK; /* it may be taken out again */
    for (size_t i = 0; i < t->nrows && err->rc == DZ_OK; i++) dz_share_add(s, c, task, i, err);
    return err->rc;
}

#define AS_MUCH 1.02f /* noise that counts as no more: two codings of one tensor at one rate differ by less */

/* A lossy row may be restored from another lossy one that is as near to the original. */
static int as_good(const dz_task_entry *holder, const dz_index_row *held, const dz_task_entry *task, const dz_index_row *row) {
    return row->policy == DZ_POLICY_ULTRADELTA && !(holder->gamma < task->gamma || holder->gamma > task->gamma) &&
           held->nsr <= AS_MUCH * row->nsr && fabsf(held->gain - row->gain) <= 1e-3f;
}

int dz_share_row(const dz_share *s, const dz_catalog *c, dz_task_entry *task, dz_index_row *row, dz_error *err) {
    original_key key = key_of(c, row);
    dz_error none = {0};
    if (!has_bytes(row)) return 0;
    for (int lossy = 0; lossy < 2; lossy++) {
        int64_t at = dz_lookup_find(lossy ? &s->lossy : &s->exact, &key, sizeof key);
        if (at < 0) continue;
        const dz_task_entry *holder = &c->tasks[s->holders[at].task];
        const dz_index_row *held = &holder->rows[s->holders[at].row];
        if (held->base != row->base || held->depth >= DZ_DEPTH_MAX || (lossy && !as_good(holder, held, task, row))) continue;
        dz_index_row equal = {.tensor = row->tensor, .base = row->base, .policy = DZ_POLICY_EQUAL, .offset = row->offset};
        if (dz_task_add_source(task, holder->name, &equal.source, &none) != DZ_OK) { /* too many: it keeps its bytes */
            if (none.rc != DZ_EUSAGE) *err = none;
            continue;
        }
        equal.reference = s->holders[at].row;
        equal.digest = row->digest;
        equal.depth = (uint8_t)(held->depth + 1);
        *row = equal;
        return 1;
    }
    return 0;
}

void dz_share_free(dz_share *s) {
    dz_lookup_free(&s->exact);
    dz_lookup_free(&s->lossy);
    free(s->holders);
    *s = (dz_share){0};
}

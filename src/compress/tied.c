#include "compress/tied.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define LEAST ((uint64_t)4096)    /* smaller tensors cost next to nothing */
#define WINDOW ((uint64_t)2048)   /* bytes of a sample: at the start, in the middle, at the end */
#define PIECE ((uint64_t)4 << 20) /* bytes compared at a time */

static int compare_kinds(const dz_tensor *a, const dz_tensor *b) {
    if (a->nbytes != b->nbytes) return a->nbytes < b->nbytes ? -1 : 1;
    int order = strcmp(a->dtype_name, b->dtype_name);
    if (order != 0) return order;
    if (a->ndim != b->ndim) return a->ndim < b->ndim ? -1 : 1;
    return memcmp(a->shape, b->shape, a->ndim * sizeof a->shape[0]);
}

typedef struct candidates {
    const dz_tensor *tensors;
    uint64_t *samples; /* a hash of some bytes; 0: of a kind of its own, or small */
    uint32_t *order;   /* tensors by kind, then by sample */
} candidates;

static int by_kind_and_sample(const void *x, const void *y, void *arg) {
    const candidates *c = arg;
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    int order = compare_kinds(&c->tensors[a], &c->tensors[b]);
    if (order != 0) return order;
    if (c->samples[a] != c->samples[b]) return c->samples[a] < c->samples[b] ? -1 : 1;
    return a < b ? -1 : a > b;
}

static dz_rc sample(dz_checkpoint *ck, size_t tensor, uint64_t *out, dz_error *err) {
    uint8_t bytes[3 * WINDOW];
    uint64_t nbytes = ck->tensors[tensor].nbytes, at[3] = {0, nbytes / 2 - WINDOW / 2, nbytes - WINDOW};
    for (int i = 0; i < 3; i++) {
        if (dz_checkpoint_read(ck, tensor, at[i], WINDOW, bytes + (size_t)i * WINDOW, err) != DZ_OK) return err->rc;
    }
    *out = dz_hash64(bytes, sizeof bytes, 0);
    return DZ_OK;
}

/* Collective. Samples of tensors that have another of their kind. */
static dz_rc sample_all(const dz_world *world, dz_checkpoint *ck, candidates *c, dz_error *err) {
    size_t n = ck->ntensors;
    for (size_t k = 0; k < n && err->rc == DZ_OK; k++) {
        const dz_tensor *t = &ck->tensors[c->order[k]];
        int twin = (k > 0 && compare_kinds(&ck->tensors[c->order[k - 1]], t) == 0) ||
                   (k + 1 < n && compare_kinds(&ck->tensors[c->order[k + 1]], t) == 0);
        if (twin && t->nbytes >= LEAST && k % (size_t)world->size == (size_t)world->rank)
            sample(ck, c->order[k], &c->samples[c->order[k]], err);
    }
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) dz_sum_u64(world, c->samples, n); /* each was taken by one rank */
    return rc;
}

/* Collective. Drops the candidates, first[i] != i, whose bytes differ somewhere. Ranks take pieces in turn. */
static dz_rc confirm(const dz_world *world, dz_checkpoint *ck, const uint32_t *first, int32_t *differs, dz_error *err) {
    uint64_t number = 0;
    dz_buf a = {0}, b = {0};
    for (size_t i = 0; i < ck->ntensors && err->rc == DZ_OK; i++) {
        if (first[i] == i) continue;
        for (uint64_t at = 0; at < ck->tensors[i].nbytes && err->rc == DZ_OK && !differs[i]; at += PIECE) {
            if (number++ % (uint64_t)world->size != (uint64_t)world->rank) continue;
            size_t len = (size_t)(ck->tensors[i].nbytes - at < PIECE ? ck->tensors[i].nbytes - at : PIECE);
            a.len = b.len = 0;
            if (dz_buf_reserve(&a, len, err) != DZ_OK || dz_buf_reserve(&b, len, err) != DZ_OK ||
                dz_checkpoint_read(ck, i, at, len, a.data, err) != DZ_OK || dz_checkpoint_read(ck, first[i], at, len, b.data, err) != DZ_OK)
                break;
            differs[i] = memcmp(a.data, b.data, len) != 0;
        }
    }
    dz_buf_free(&a);
    dz_buf_free(&b);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) dz_max_i32(world, differs, ck->ntensors);
    return rc;
}

/* The first tensor of the same kind and sample, for each; itself where there is none or it is known already. */
static void pick(const dz_checkpoint *ck, const candidates *c, uint32_t *first) {
    for (size_t k = 0; k < ck->ntensors; k++) {
        uint32_t i = c->order[k], before = k ? c->order[k - 1] : i;
        first[i] = i;
        if (c->samples[i] == 0 || c->samples[i] != c->samples[before] || compare_kinds(&ck->tensors[i], &ck->tensors[before]) != 0)
            continue;
        first[i] = first[before];
    }
    for (uint32_t i = 0; i < ck->ntensors; i++) first[i] = ck->same[i] == i ? first[i] : i;
}

static dz_rc find_twins(const dz_world *world, dz_checkpoint *ck, dz_error *err) {
    size_t n = ck->ntensors;
    uint32_t *first = dz_alloc(n, sizeof *first, err);
    int32_t *differs = dz_alloc(n, sizeof *differs, err);
    candidates c = {.tensors = ck->tensors, .samples = dz_alloc(n, sizeof *c.samples, err), .order = dz_alloc(n, sizeof *c.order, err)};
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc != DZ_OK) goto out;
    for (uint32_t i = 0; i < n; i++) c.order[i] = i;
    qsort_r(c.order, n, sizeof *c.order, by_kind_and_sample, &c);
    if ((rc = sample_all(world, ck, &c, err)) != DZ_OK) goto out;
    qsort_r(c.order, n, sizeof *c.order, by_kind_and_sample, &c);
    pick(ck, &c, first);
    if ((rc = confirm(world, ck, first, differs, err)) != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) {
        if (first[i] != i && !differs[i]) ck->same[i] = ck->same[first[i]];
    }
out:
    free(first);
    free(differs);
    free(c.samples);
    free(c.order);
    return rc;
}

dz_rc dz_find_tied(const dz_world *world, dz_checkpoint **tasks, size_t ntasks, dz_error *err) {
    dz_rc rc = DZ_OK;
    for (size_t t = 0; t < ntasks && rc == DZ_OK; t++) rc = find_twins(world, tasks[t], err);
    return rc;
}

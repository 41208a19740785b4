#include "numeric/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 256
#define ROW (BUCKETS + 1) /* the last place counts what lies beyond */

void dz_selection_free(dz_selection *s) {
    free(s->index);
    free(s->u);
    free(s->level);
    free(s->rare);
    dz_buf_free(&s->scratch);
    *s = (dz_selection){0};
}

/* How far candidates reach. Every large group's limit lies near density * 2^32, within a few times its own scatter of 1/sqrt(quota); small
 * groups that reach further are completed from the sieve's rare levels. Any value is correct: this one is rarely too small and seldom
 * wasteful. */
static uint32_t reach(const dz_candidates *in, const uint64_t *quota, uint64_t kept) {
    uint64_t active = 0;
    for (unsigned g = 0; g < 1U << in->bits; g++) {
        if (quota[g]) active += in->members[g];
    }
    if (active == 0) return 0;
    double density = (double)kept / (double)active, typical = (double)kept / 32;
    if (typical < 1) typical = 1;
    double last = density * (1 + 5 / sqrt(typical)) * 4294967296.0;
    return last >= 4294967295.0 ? UINT32_MAX : (uint32_t)last;
}

static dz_rc make_room(dz_selection *s, size_t want, dz_error *err) {
    if (want <= s->cap) return DZ_OK;
    free(s->index);
    free(s->u);
    free(s->level);
    s->cap = 0;
    s->index = dz_alloc_raw(want, sizeof *s->index, err);
    s->u = dz_alloc_raw(want, sizeof *s->u, err);
    s->level = dz_alloc_raw(want, 1, err);
    if (err->rc == DZ_OK) s->cap = want;
    return err->rc;
}

/* Levels whose quota may reach beyond the candidates: all but those that have more of them than chance can take away (8 deviations), and
 * the rare ones, of which the sieve has all. */
static void find_doubtful(const dz_candidates *in, const uint64_t *quota, uint32_t last, uint8_t *doubtful) {
    for (unsigned g = 0; g < 1U << in->bits; g++) {
        double expected = (double)in->members[g] * ((double)last + 1) / 4294967296.0, want = (double)quota[g];
        doubtful[g] = quota[g] && (in->members[g] <= in->few || expected < want + 8 * sqrt(expected));
    }
}

/* The sieve's candidates up to `last`; counts[level][u >> shift] how many there are. Those of doubtful levels beyond it are rare. */
static dz_rc find_candidates(const dz_candidates *in, const uint8_t *doubtful, dz_selection *s, uint32_t (*counts)[ROW], unsigned shift,
                             dz_error *err) {
    const dz_kernel_table *k = dz_kernels();
    uint32_t index[DZ_CHUNK + 16], u[DZ_CHUNK + 16];
    const uint8_t *level = in->level;
    const uint32_t last = s->last;
    size_t n = 0;
    if (make_room(s, in->ncandidates + 1, err) != DZ_OK) return err->rc;
    uint32_t *restrict to_index = s->index, *restrict to_u = s->u;
    uint8_t *restrict to_level = s->level;
    for (size_t at = 0; at < in->count; at += DZ_CHUNK) {
        size_t len = in->count - at < DZ_CHUNK ? in->count - at : DZ_CHUNK;
        size_t hits = k->candidates(index, u, dz_key_at(in->key, (uint32_t)at), in->last, len);
        if (dz_grow((void **)&s->rare, &s->rare_cap, s->nrare + hits + 1, sizeof *s->rare, err) != DZ_OK) return err->rc;
        dz_rare_member *restrict rare = s->rare;
        size_t nrare = s->nrare;
        for (size_t i = 0; i < hits; i++) { /* no branch on random data */
            uint8_t g = level[i];
            int below = u[i] <= last;
            to_index[n] = index[i] + (uint32_t)at;
            to_u[n] = u[i];
            to_level[n] = g;
            n += (size_t)below;
            counts[g][below ? u[i] >> shift : BUCKETS]++;
            rare[nrare] = (dz_rare_member){.u = u[i], .index = index[i] + (uint32_t)at, .level = g};
            nrare += (size_t)(doubtful[g] & !below);
        }
        s->nrare = nrare;
        level += hits;
    }
    s->ncandidates = n;
    return DZ_OK;
}

static int by_u(const void *x, const void *y) {
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

static int rare_by_u(const void *x, const void *y) {
    const dz_rare_member *a = x, *b = y;
    return a->u < b->u ? -1 : a->u > b->u;
}

static int rare_by_index(const void *x, const void *y) {
    const dz_rare_member *a = x, *b = y;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Buckets of u are 2^shift wide, so that BUCKETS of them reach beyond `last`. */
static unsigned bucket_shift(uint32_t last) {
    unsigned shift = 0;
    while (((uint64_t)last >> shift) >= BUCKETS) shift++;
    return shift;
}

/* limit[g] for the groups whose quota is met among the candidates: the bucket that holds the quota-th smallest u, then that bucket sorted.
 * found[g]: candidates of level g. */
static dz_rc limits_among_candidates(const uint64_t *quota, unsigned nlevels, dz_selection *s, uint32_t (*counts)[ROW], unsigned shift,
                                     uint64_t *found, dz_error *err) {
    uint32_t at_bucket[DZ_MAX_LEVELS];
    uint64_t left[DZ_MAX_LEVELS];
    size_t start[DZ_MAX_LEVELS + 1] = {0}, fill[DZ_MAX_LEVELS];
    for (unsigned g = 0; g < nlevels; g++) {
        uint64_t seen = 0, want = quota[g];
        at_bucket[g] = UINT32_MAX;
        s->limit[g] = 0;
        start[g + 1] = start[g];
        for (uint32_t b = 0; b < BUCKETS; b++) {
            uint32_t here = counts[g][b];
            if (want && at_bucket[g] == UINT32_MAX && seen + here >= want) {
                at_bucket[g] = b;
                left[g] = want - seen;
                start[g + 1] += here;
            }
            seen += here;
        }
        found[g] = seen;
    }
    /* Members of the deciding buckets, by level. */
    uint32_t *picks = dz_alloc_raw(start[nlevels], sizeof *picks, err);
    if (!picks) return err->rc;
    memcpy(fill, start, sizeof fill);
    for (size_t i = 0; i < s->ncandidates; i++) {
        uint8_t level = s->level[i];
        if (s->u[i] >> shift == at_bucket[level]) picks[fill[level]++] = s->u[i];
    }
    for (unsigned g = 0; g < nlevels; g++) {
        if (at_bucket[g] == UINT32_MAX) continue;
        qsort(picks + start[g], start[g + 1] - start[g], sizeof *picks, by_u);
        s->limit[g] = (uint64_t)picks[start[g] + left[g] - 1] + 1;
    }
    free(picks);
    return DZ_OK;
}

/* The elements of the incomplete levels with u > last that the sieve has. */
static dz_rc gather_rare(const dz_candidates *in, dz_selection *s, const uint8_t *incomplete, dz_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < s->nrare; i++) {
        s->rare[n] = s->rare[i];
        n += incomplete[s->rare[i].level];
    }
    s->nrare = n;
    if (dz_grow((void **)&s->rare, &s->rare_cap, s->nrare + in->nrare, sizeof *s->rare, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < in->nrare; i++) {
        if (incomplete[in->rare[i].level]) s->rare[s->nrare++] = in->rare[i];
    }
    return DZ_OK;
}

/* The incomplete groups: all their candidates are kept, and the smallest of the rest make up the quota. The sieve was not enough if a group
 * that is not rare in it still lacks some. */
static void limits_among_rare(const dz_candidates *in, const uint64_t *quota, dz_selection *s, const uint8_t *incomplete,
                              const uint64_t *found) {
    uint64_t want[DZ_MAX_LEVELS];
    for (unsigned g = 0; g < 1U << in->bits; g++) want[g] = incomplete[g] ? quota[g] - found[g] : 0;
    if (s->nrare) qsort(s->rare, s->nrare, sizeof *s->rare, rare_by_u);
    size_t kept = 0;
    for (size_t i = 0; i < s->nrare; i++) {
        uint8_t g = s->rare[i].level;
        if (want[g] == 0) continue;
        want[g]--;
        s->limit[g] = (uint64_t)s->rare[i].u + 1;
        s->rare[kept++] = s->rare[i];
    }
    s->nrare = kept;
    if (kept) qsort(s->rare, kept, sizeof *s->rare, rare_by_index);
    s->want_last = in->last;
    for (unsigned g = 0; g < 1U << in->bits; g++) {
        if (want[g] == 0) continue;
        s->enough = 0;
        if (in->members[g] > s->want_few) s->want_few = (uint32_t)in->members[g];
    }
}

dz_rc dz_select(const dz_candidates *in, const uint64_t *quota, dz_selection *s, dz_error *err) {
    unsigned nlevels = 1U << in->bits;
    uint64_t found[DZ_MAX_LEVELS];
    uint8_t incomplete[DZ_MAX_LEVELS] = {0}, doubtful[DZ_MAX_LEVELS] = {0};
    int any = 0;
    s->kept = 0;
    s->nrare = 0;
    s->enough = 1;
    s->want_last = s->want_few = 0;
    for (unsigned g = 0; g < nlevels; g++) {
        if (quota[g] > in->members[g])
            return dz_fail(err, DZ_EFAIL, "level %u: quota %llu exceeds its %llu members", g, (unsigned long long)quota[g],
                           (unsigned long long)in->members[g]);
        s->kept += quota[g];
    }
    s->last = reach(in, quota, s->kept);
    if (s->last > in->last) {
        s->enough = 0;
        s->want_last = s->last;
        s->want_few = in->few;
        return DZ_OK;
    }
    unsigned shift = bucket_shift(s->last);
    s->scratch.len = 0;
    if (dz_buf_reserve(&s->scratch, nlevels * ROW * sizeof(uint32_t), err) != DZ_OK) return err->rc;
    uint32_t(*counts)[ROW] = (uint32_t(*)[ROW])(void *)s->scratch.data;
    memset(counts, 0, nlevels * sizeof *counts);
    find_doubtful(in, quota, s->last, doubtful);
    if (find_candidates(in, doubtful, s, counts, shift, err) != DZ_OK ||
        limits_among_candidates(quota, nlevels, s, counts, shift, found, err) != DZ_OK)
        return err->rc;
    for (unsigned g = 0; g < nlevels; g++) {
        incomplete[g] = found[g] < quota[g];
        any |= incomplete[g];
    }
    if (!any) {
        s->nrare = 0;
        return DZ_OK;
    }
    if (gather_rare(in, s, incomplete, err) != DZ_OK) return err->rc;
    limits_among_rare(in, quota, s, incomplete, found);
    return DZ_OK;
}

uint32_t dz_chance_limit(double density) {
    double limit = rint(density * 4294967296.0);
    return limit < 1 ? 0 : limit >= 4294967296.0 ? UINT32_MAX : (uint32_t)(limit - 1);
}

void dz_count_below(const dz_candidates *in, uint32_t last, uint64_t *quota) {
    const dz_kernel_table *k = dz_kernels();
    uint32_t index[DZ_CHUNK + 16], u[DZ_CHUNK + 16];
    size_t taken = 0;
    for (size_t at = 0; at < in->count; at += DZ_CHUNK) {
        size_t len = in->count - at < DZ_CHUNK ? in->count - at : DZ_CHUNK;
        size_t hits = k->candidates(index, u, dz_key_at(in->key, (uint32_t)at), in->last, len);
        for (size_t i = 0; i < hits; i++) quota[in->level[taken + i]] += u[i] <= last;
        taken += hits;
    }
}

#include "numeric/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 256

void dz_selection_free(dz_selection *s) {
    free(s->index);
    free(s->u);
    free(s->level);
    free(s->rare);
    dz_buf_free(&s->scratch);
    *s = (dz_selection){0};
}

/* How far candidates reach. Every large group's limit lies near density * 2^32, within a few times its own scatter of 1/sqrt(quota); small
 * groups that reach further are completed from the tile itself. Any value is correct: this one is rarely too small and seldom wasteful. */
static uint32_t reach(const dz_select_input *in, uint64_t kept) {
    uint64_t active = 0;
    for (unsigned g = 0; g < 1U << in->bits; g++) {
        if (in->quota[g]) active += in->members[g];
    }
    if (active == 0) return 0;
    double density = (double)kept / (double)active, typical = (double)kept / 32;
    if (typical < 1) typical = 1;
    double last = density * (1 + 5 / sqrt(typical)) * 4294967296.0;
    return last >= 4294967295.0 ? UINT32_MAX : (uint32_t)last;
}

static dz_rc find_candidates(const dz_select_input *in, dz_selection *s, dz_error *err) {
    size_t expect = (size_t)((double)in->count * ((double)s->last + 1) / 4294967296.0);
    size_t want = expect + 8 * (size_t)sqrt((double)expect) + 64;
    if (want > in->count) want = in->count;
    want += 16;
    if (want > s->cap) {
        free(s->index);
        free(s->u);
        free(s->level);
        s->cap = 0;
        s->index = dz_alloc_raw(want, sizeof *s->index, err);
        s->u = dz_alloc_raw(want, sizeof *s->u, err);
        s->level = dz_alloc_raw(want, 1, err);
        if (err->rc != DZ_OK) return err->rc;
        s->cap = want;
    }
    /* The number of hits is binomial: 8 deviations above the mean is beyond chance for a sound hash, and the kernel writes no more than
     * count + 16, so a tile is walked in pieces that cannot overrun the room left. */
    const dz_kernel_table *k = dz_kernels();
    const size_t piece = DZ_CHUNK;
    uint32_t local[DZ_CHUNK + 16];
    size_t n = 0;
    for (size_t at = 0; at < in->count; at += piece) {
        size_t len = in->count - at < piece ? in->count - at : piece;
        size_t hits = k->candidates(local, dz_key_at(in->key, (uint32_t)at), s->last, len);
        if (n + hits > s->cap) return dz_fail(err, DZ_EFAIL, "more than %zu of %zu elements are candidates", s->cap, in->count);
        for (size_t i = 0; i < hits; i++) {
            uint32_t index = local[i] + (uint32_t)at;
            s->index[n + i] = index;
            s->u[n + i] = dz_u32_at(in->key, index);
            s->level[n + i] = in->levels[index];
        }
        n += hits;
    }
    s->ncandidates = n;
    return DZ_OK;
}

static int by_u(const void *x, const void *y) {
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

static int rare_by_u(const void *x, const void *y) {
    const dz_rare *a = x, *b = y;
    return a->u < b->u ? -1 : a->u > b->u;
}

static int rare_by_index(const void *x, const void *y) {
    const dz_rare *a = x, *b = y;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* limit[g] for the groups whose quota is met among the candidates: the bucket that holds the quota-th smallest u, then that bucket sorted.
 */
static dz_rc limits_among_candidates(const dz_select_input *in, dz_selection *s, uint64_t *found, dz_error *err) {
    unsigned nlevels = 1U << in->bits;
    uint64_t width = ((uint64_t)s->last + BUCKETS) / BUCKETS;
    unsigned shift = 0;
    while ((width >> shift) > 1) shift++;
    if (((uint64_t)1 << shift) < width) shift++;
    s->scratch.len = 0;
    if (dz_buf_reserve(&s->scratch, (size_t)nlevels * BUCKETS * sizeof(uint32_t) + s->ncandidates * sizeof(uint64_t), err) != DZ_OK)
        return err->rc;
    uint32_t *bucket = (uint32_t *)(void *)s->scratch.data;
    memset(bucket, 0, (size_t)nlevels * BUCKETS * sizeof *bucket);
    for (size_t i = 0; i < s->ncandidates; i++) bucket[(size_t)s->level[i] * BUCKETS + (s->u[i] >> shift)]++;

    uint32_t at_bucket[DZ_MAX_LEVELS];
    uint64_t left[DZ_MAX_LEVELS];
    for (unsigned g = 0; g < nlevels; g++) {
        uint64_t seen = 0, want = in->quota[g];
        at_bucket[g] = UINT32_MAX;
        s->limit[g] = 0;
        for (uint32_t b = 0; b < BUCKETS; b++) {
            uint32_t here = bucket[(size_t)g * BUCKETS + b];
            if (want && at_bucket[g] == UINT32_MAX && seen + here >= want) {
                at_bucket[g] = b;
                left[g] = want - seen;
            }
            seen += here;
        }
        found[g] = seen;
    }
    /* Members of the deciding buckets, gathered by level. */
    struct pick {
        uint32_t u, level;
    } *picks = (struct pick *)(void *)(s->scratch.data + (size_t)nlevels * BUCKETS * sizeof(uint32_t));
    size_t npicks = 0, start[DZ_MAX_LEVELS + 1] = {0};
    for (size_t i = 0; i < s->ncandidates; i++) {
        if (s->u[i] >> shift != at_bucket[s->level[i]]) continue;
        picks[npicks++] = (struct pick){s->u[i], s->level[i]};
        start[s->level[i] + 1]++;
    }
    for (unsigned g = 0; g < nlevels; g++) start[g + 1] += start[g];
    uint32_t *sorted = dz_alloc_raw(npicks, sizeof *sorted, err);
    if (!sorted) return err->rc;
    size_t fill[DZ_MAX_LEVELS];
    memcpy(fill, start, sizeof fill);
    for (size_t i = 0; i < npicks; i++) sorted[fill[picks[i].level]++] = picks[i].u;
    for (unsigned g = 0; g < nlevels; g++) {
        if (at_bucket[g] == UINT32_MAX) continue;
        qsort(sorted + start[g], start[g + 1] - start[g], sizeof *sorted, by_u);
        s->limit[g] = (uint64_t)sorted[start[g] + left[g] - 1] + 1;
    }
    free(sorted);
    return DZ_OK;
}

/* Adds every element of the incomplete levels [not above `below` or not below `above`, or flagged] with u > last. */
static dz_rc gather_rare(const dz_select_input *in, dz_selection *s, const uint8_t *incomplete, dz_error *err) {
    s->nrare = 0;
    for (size_t at = 0; at < in->count; at += 64) {
        size_t len = in->count - at < 64 ? in->count - at : 64;
        uint8_t any = 0;
        for (size_t i = 0; i < len; i++) any |= incomplete[in->levels[at + i]];
        if (!any) continue;
        for (size_t i = at; i < at + len; i++) {
            uint32_t u = dz_u32_at(in->key, (uint32_t)i);
            if (!incomplete[in->levels[i]] || u <= s->last) continue;
            if (dz_grow((void **)&s->rare, &s->rare_cap, s->nrare + 1, sizeof *s->rare, err) != DZ_OK) return err->rc;
            s->rare[s->nrare++] = (dz_rare){.u = u, .index = (uint32_t)i, .level = in->levels[i]};
        }
    }
    return DZ_OK;
}

/* The incomplete groups: all their candidates are kept, and the smallest of the rest make up the quota. */
static void limits_among_rare(const dz_select_input *in, dz_selection *s, const uint8_t *incomplete, const uint64_t *found) {
    uint64_t want[DZ_MAX_LEVELS];
    for (unsigned g = 0; g < 1U << in->bits; g++) want[g] = incomplete[g] ? in->quota[g] - found[g] : 0;
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
}

dz_rc dz_select(const dz_select_input *in, dz_selection *s, dz_error *err) {
    unsigned nlevels = 1U << in->bits;
    uint64_t found[DZ_MAX_LEVELS];
    uint8_t incomplete[DZ_MAX_LEVELS] = {0};
    int any = 0;
    s->kept = 0;
    s->nrare = 0;
    for (unsigned g = 0; g < nlevels; g++) {
        if (in->quota[g] > in->members[g])
            return dz_fail(err, DZ_EFAIL, "level %u: quota %llu exceeds its %llu members", g, (unsigned long long)in->quota[g],
                           (unsigned long long)in->members[g]);
        s->kept += in->quota[g];
    }
    s->last = reach(in, s->kept);
    if (find_candidates(in, s, err) != DZ_OK || limits_among_candidates(in, s, found, err) != DZ_OK) return err->rc;
    for (unsigned g = 0; g < nlevels; g++) {
        incomplete[g] = found[g] < in->quota[g];
        any |= incomplete[g];
    }
    if (!any) return DZ_OK;
    if (gather_rare(in, s, incomplete, err) != DZ_OK) return err->rc;
    limits_among_rare(in, s, incomplete, found);
    return DZ_OK;
}

uint32_t dz_chance_limit(double density) {
    double limit = rint(density * 4294967296.0);
    return limit < 1 ? 0 : limit >= 4294967296.0 ? UINT32_MAX : (uint32_t)(limit - 1);
}

void dz_count_below(const dz_select_input *in, uint32_t last, uint64_t *quota) {
    const dz_kernel_table *k = dz_kernels();
    uint32_t local[DZ_CHUNK + 16];
    for (size_t at = 0; at < in->count; at += DZ_CHUNK) {
        size_t len = in->count - at < DZ_CHUNK ? in->count - at : DZ_CHUNK;
        size_t hits = k->candidates(local, dz_key_at(in->key, (uint32_t)at), last, len);
        for (size_t i = 0; i < hits; i++) quota[in->levels[local[i] + at]]++;
    }
}

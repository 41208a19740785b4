#include "numeric/candidates.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void dz_candidates_free(dz_candidates *s) {
    free(s->level);
    free(s->rare);
    *s = (dz_candidates){0};
}

/* Groups scatter by 1 / sqrt(quota) about the density, and a small tile's density about the tensor's. Any value is correct: one too small
 * costs reading the tile again, one too large costs memory. */
uint32_t dz_candidates_last(double density, size_t count) {
    double typical = density * (double)count / 32;
    double last = density * (1 + 5 / sqrt(typical < 1 ? 1 : typical)) * 1.18 * 4294967296.0;
    return last >= 4294967295.0 ? UINT32_MAX : (uint32_t)last;
}

void dz_candidates_begin(dz_candidates *s, uint64_t key, unsigned bits, uint32_t last, uint32_t few) {
    s->key = key;
    s->last = last;
    s->few = few;
    s->bits = bits;
    s->count = s->ncandidates = s->nrare = 0;
    memset(s->members, 0, sizeof s->members);
}

static dz_rc add_candidates(dz_candidates *s, const uint8_t *levels, size_t count, dz_error *err) {
    const dz_kernel_table *k = dz_kernels();
    uint32_t index[DZ_CHUNK + 16], u[DZ_CHUNK + 16];
    size_t hits = k->candidates(index, u, dz_key_at(s->key, (uint32_t)s->count), s->last, count);
    if (dz_grow((void **)&s->level, &s->cap, s->ncandidates + hits, 1, err) != DZ_OK) return err->rc;
    uint8_t *to = s->level + s->ncandidates;
    for (size_t i = 0; i < hits; i++) to[i] = levels[index[i]];
    s->ncandidates += hits;
    return DZ_OK;
}

static dz_rc add_rare(dz_candidates *s, const uint8_t *levels, const uint8_t *wanted, size_t count, dz_error *err) {
    uint32_t index[DZ_CHUNK + 16];
    size_t hits = dz_kernels()->pick(index, levels, wanted, s->bits, count);
    if (dz_grow((void **)&s->rare, &s->rare_cap, s->nrare + hits, sizeof *s->rare, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < hits; i++) {
        uint32_t at = (uint32_t)s->count + index[i], u = dz_u32_at(s->key, at);
        if (u > s->last) s->rare[s->nrare++] = (dz_rare_member){.u = u, .index = at, .level = levels[index[i]]};
    }
    return DZ_OK;
}

dz_rc dz_candidates_add(dz_candidates *s, const uint8_t *levels, size_t count, dz_error *err) {
    uint64_t before[DZ_MAX_LEVELS];
    uint8_t wanted[DZ_MAX_LEVELS];
    unsigned nlevels = 1U << s->bits, any = 0;
    memcpy(before, s->members, nlevels * sizeof *before);
    dz_kernels()->count(s->members, levels, s->bits, count);
    memset(wanted, 0, sizeof wanted);
    for (unsigned g = 0; g < nlevels; g++) {
        wanted[g] = s->members[g] <= s->few;
        any |= wanted[g] && s->members[g] > before[g];
    }
    for (size_t at = 0; at < count; at += DZ_CHUNK) {
        size_t len = count - at < DZ_CHUNK ? count - at : DZ_CHUNK;
        if (add_candidates(s, levels + at, len, err) != DZ_OK) return err->rc;
        if (any && add_rare(s, levels + at, wanted, len, err) != DZ_OK) return err->rc;
        s->count += len;
    }
    return DZ_OK;
}

/* Levels that were rare at first and are not: out. */
void dz_candidates_end(dz_candidates *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->nrare; i++) {
        s->rare[n] = s->rare[i];
        n += s->members[s->rare[i].level] <= s->few;
    }
    s->nrare = n;
}

size_t dz_candidates_size(const dz_candidates *s) {
    size_t rare = s->nrare * sizeof *s->rare;
    return sizeof *s + (rare + s->ncandidates + 7) / 8 * 8;
}

const dz_candidates *dz_candidates_copy(void *at, const dz_candidates *s) {
    dz_candidates *copy = at;
    *copy = *s;
    copy->rare = (dz_rare_member *)(void *)(copy + 1);
    copy->level = (uint8_t *)(copy->rare + s->nrare);
    if (s->nrare) memcpy(copy->rare, s->rare, s->nrare * sizeof *s->rare);
    if (s->ncandidates) memcpy(copy->level, s->level, s->ncandidates);
    return copy;
}

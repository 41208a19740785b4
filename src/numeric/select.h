/* Which members of each group are kept: those with the smallest u = dz_u32_at(key, index), exactly quota[g] of them (METHODS.md "Positions
 * from a hash"). u is uniform and without repetition in a tile, so this is a uniform random subset of each group, and it needs no stored
 * positions: the kept elements of all groups lie at nearly the same u. */
#ifndef DZ_NUMERIC_SELECT_H
#define DZ_NUMERIC_SELECT_H

#include "numeric/candidates.h"

/* Result and scratch; zero-initialise, reuse from tile to tile, free once. */
typedef struct dz_selection {
    uint64_t kept;
    uint32_t last;                 /* candidates are the elements with u <= last */
    uint64_t limit[DZ_MAX_LEVELS]; /* element of level g is kept iff u < limit[g] (0: none, up to 2^32) */
    uint32_t *index, *u;           /* candidates in index order */
    uint8_t *level;
    size_t ncandidates, cap;
    dz_rare_member *rare; /* kept elements with u > last, in index order */
    size_t nrare, rare_cap;
    dz_buf scratch;
    int enough;                   /* the candidate set was large enough */
    uint32_t want_last, want_few; /* if not: the limits that it needs */
} dz_selection;

/* The limit of u for a chance of `density` (0 < density <= 1): round(density * 2^32) - 1, at least 0. */
uint32_t dz_chance_limit(double density);

/* Adds to quota[g] the members of level g with u <= last, for `dac: off`. `last` is at most the candidate set's. The caller clears levels
 * whose members are never stored. */
void dz_count_below(const dz_candidates *sieve, uint32_t last, uint64_t *quota);

/* Selects quota[g] of level g's members. DZ_EFAIL if a quota exceeds the members. If the candidate set was too small, `out->enough` is 0
 * and nothing is selected. */
dz_rc dz_select(const dz_candidates *sieve, const uint64_t *quota, dz_selection *out, dz_error *err);
void dz_selection_free(dz_selection *selection);

#endif

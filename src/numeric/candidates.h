/* What stays of a tile's levels until the quotas are known. Which elements are kept depends on all ranks' histograms, but all that may be
 * kept is known before: the elements with a small u = dz_u32_at(key, index), and the members of levels that have only a few. That is a
 * tenth of a tile, so it stays in memory where the levels would not, and the tile is not read again. */
#ifndef DZ_NUMERIC_CANDIDATES_H
#define DZ_NUMERIC_CANDIDATES_H

#include "base/mem.h"
#include "numeric/allocate.h"
#include "numeric/kernels.h"

#define DZ_RARE 4096 /* members up to which all of a level are taken: a quota of so few scatters beyond any sensible limit of u */

typedef struct dz_rare_member { /* an element beyond the candidates */
    uint32_t u, index;
    uint8_t level;
} dz_rare_member;

/* Zero-initialise, reuse from tile to tile, free once. */
typedef struct dz_candidates {
    uint64_t key;
    uint32_t last; /* candidates are the elements with u <= last */
    uint32_t few;  /* members up to which a level is rare */
    size_t count;  /* elements of the tile, below 2^32 */
    unsigned bits; /* levels lie below 2^bits */
    uint64_t members[DZ_MAX_LEVELS];
    uint8_t *level; /* of each candidate, in index order */
    size_t ncandidates, cap;
    dz_rare_member *rare; /* all members of rare levels with u > last, in index order */
    size_t nrare, rare_cap;
} dz_candidates;

/* A sieve for a tile of about `count` elements of which about `density` are kept; `last` is at least what that calls for. */
uint32_t dz_candidates_last(double density, size_t count);

void dz_candidates_begin(dz_candidates *sieve, uint64_t key, unsigned bits, uint32_t last, uint32_t few);

/* The next `count` levels of the tile. */
dz_rc dz_candidates_add(dz_candidates *sieve, const uint8_t *levels, size_t count, dz_error *err);

/* After the last ones. */
void dz_candidates_end(dz_candidates *sieve);
void dz_candidates_free(dz_candidates *sieve);

/* Bytes of a copy in one piece, and that copy, at an address divisible by 8: to be read, neither to be added to nor freed. */
size_t dz_candidates_size(const dz_candidates *sieve);
const dz_candidates *dz_candidates_copy(void *at, const dz_candidates *sieve);

#endif

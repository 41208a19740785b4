/* The candidate set of a tile (METHODS.md "Candidate set and rare members"): all elements that may be kept, gathered before the quotas are
 * known. It holds the elements with a small u = dz_u32_at(key, index), and all members of levels that have only a few. That is about a
 * tenth of a tile, so it stays in memory and the tile is not read again. */
#ifndef DZ_NUMERIC_CANDIDATES_H
#define DZ_NUMERIC_CANDIDATES_H

#include "base/mem.h"
#include "numeric/allocate.h"
#include "numeric/kernels.h"

#define DZ_RARE 4096 /* levels with up to this many members are rare: their quotas may reach beyond any sensible limit of u */

typedef struct dz_rare_member { /* an element of a rare level with u > last */
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

/* The limit `last` of u for a tile of about `count` elements of which about `density` are kept. */
uint32_t dz_candidates_last(double density, size_t count);

void dz_candidates_begin(dz_candidates *sieve, uint64_t key, unsigned bits, uint32_t last, uint32_t few);

/* Adds the next `count` levels of the tile. */
dz_rc dz_candidates_add(dz_candidates *sieve, const uint8_t *levels, size_t count, dz_error *err);

/* Call it after the last levels: drops members of levels that are no longer rare. */
void dz_candidates_end(dz_candidates *sieve);
void dz_candidates_free(dz_candidates *sieve);

/* Bytes of a copy in one piece, and the copy itself at `at`, an address divisible by 8. The copy is read-only; do not free it. */
size_t dz_candidates_size(const dz_candidates *sieve);
const dz_candidates *dz_candidates_copy(void *at, const dz_candidates *sieve);

#endif

/* Damage found by any rank while work goes on: task, tensor and block, and a line about it. */
#ifndef DZ_DECODE_DAMAGE_H
#define DZ_DECODE_DAMAGE_H

#include "parallel/world.h"

#define DZ_DAMAGE_MAX ((size_t)1 << 20) /* bytes of a rank's records: what is beyond is only counted */

typedef struct dz_damage { /* zero-initialise */
    dz_buf records;
    uint64_t count; /* also of those that did not fit */
    uint64_t place; /* position in the archive of the next record; never decreases */
} dz_damage;

typedef struct dz_damage_record {
    const char *task, *tensor; /* "": none */
    int64_t block;             /* -1: none */
    const char *text;          /* one line, without an end */
} dz_damage_record;

/* Adds a record; NULL means "". If memory runs out, the record is counted but not kept. */
void dz_damage_add(dz_damage *damage, const char *task, const char *tensor, int64_t block, const char *text);
void dz_damage_free(dz_damage *damage);

/* Collective. Gathers all ranks' records on rank 0, ordered by place and then by rank, as many as one rank would have kept. All ranks get
 * the sum of the counts. */
dz_rc dz_damage_gather(const dz_world *world, dz_damage *damage, dz_error *err);

/* Reads the record at `*at` and advances it; begin with 0. Returns 0 at the end. */
int dz_damage_next(const dz_damage *damage, size_t *at, dz_damage_record *record);

#endif

/* What is found damaged, by any rank, while work goes on: which task, tensor and block, and a line about it. */
#ifndef DZ_DECODE_DAMAGE_H
#define DZ_DECODE_DAMAGE_H

#include "parallel/world.h"

#define DZ_DAMAGE_MAX ((size_t)1 << 20) /* bytes of a rank's records: what is beyond is only counted */

typedef struct dz_damage { /* zero-initialise */
    dz_buf records;
    uint64_t count; /* also of those that did not fit */
    uint64_t place; /* in the archive, of what is added next: never less than before */
} dz_damage;

typedef struct dz_damage_record {
    const char *task, *tensor; /* "": none */
    int64_t block;             /* -1: none */
    const char *text;          /* one line, without an end */
} dz_damage_record;

/* A NULL is a "". Out of memory, the record is counted and not kept. */
void dz_damage_add(dz_damage *damage, const char *task, const char *tensor, int64_t block, const char *text);
void dz_damage_free(dz_damage *damage);

/* Collective. All ranks' records, in the order of their places, those of one place in the order of ranks, into rank 0's: as many as one
 * rank would have kept. The sum of the counts into everyone's. */
dz_rc dz_damage_gather(const dz_world *world, dz_damage *damage, dz_error *err);

/* The record at `*at`, which is advanced; begin with 0. 0 when there is none. */
int dz_damage_next(const dz_damage *damage, size_t *at, dz_damage_record *record);

#endif

/* What a job has done so far, kept beside the archive (ARCHIVE.journal/, FORMAT.md "Beside the archive, while a job runs"): coded blocks on
 * their way to the archive, and the small results that precede them. Each rank appends to a file of its own; a record carries its
 * checksums, so that what a crash has cut is simply not there. Records stay in memory at first, up to a budget: a short job does not write
 * what it soon has to write again. A later run of the same job, on any number of ranks, finds the records and does the rest. */
#ifndef DZ_COMPRESS_JOURNAL_H
#define DZ_COMPRESS_JOURNAL_H

#include "base/hash.h"
#include "parallel/world.h"

/* What a record tells, and what its id counts. */
typedef enum dz_record {
    DZ_RECORD_STATISTICS = 1, /* unit */
    DZ_RECORD_HISTOGRAM = 2,  /* unit */
    DZ_RECORD_BLOCK = 3,      /* unit */
    DZ_RECORD_TRACE = 4       /* lossy pair */
} dz_record;

typedef struct dz_journal_entry {
    uint64_t id, key, offset; /* offset of the record's bytes in its part */
    uint32_t kind, len, part;
    uint32_t reserved;
    uint64_t checksum;
} dz_journal_entry;

/* Which units are this rank's: those at places first .. first + count - 1. */
typedef struct dz_journal_units {
    const uint32_t *place; /* [nunits] of every unit; borrowed */
    size_t nunits, first, count;
} dz_journal_units;

typedef struct dz_journal {
    char *dir;
    uint64_t *parts; /* numbers of the parts: run in the upper 32 bits, rank in the lower; the last is this rank's own */
    size_t nparts;
    int fd; /* this rank's part */
    int other_fd;
    uint32_t other;   /* a part of an earlier run, open for reading */
    dz_buf memory;    /* records that are not yet in the file, which they follow */
    uint64_t flushed; /* bytes in the file */
    uint64_t budget;
    double begun, after, synced;
    dz_journal_entry *entries; /* of earlier runs, sorted by kind, id, key */
    size_t nentries;
    dz_journal_units mine;
    uint64_t *offset; /* [mine.count] of the block's bytes */
    uint32_t *length; /* [mine.count] checksum included; 0: none yet */
    uint32_t *part;   /* [mine.count] */
    uint64_t *key;    /* [mine.count] of the block that counts now */
    size_t adopted;   /* blocks taken over from earlier runs */
} dz_journal;

/* Collective. Opens ARCHIVE.journal, or makes it. `identity`: of the job; records of another job are removed, and `*foreign` tells so. Up
 * to `budget` bytes stay in memory, for some seconds (DZ_JOURNAL_AFTER, by default 10).
 */
dz_rc dz_journal_open(dz_journal *journal, const dz_world *world, const char *archive, dz_digest identity, dz_journal_units mine,
                      uint64_t budget, int *foreign, dz_error *err);

/* The job has run for so long that its records go to the file. */
int dz_journal_worth_keeping(const dz_journal *journal);

/* Writes what is still in memory: for a job that is about to stop, and is to be resumed. */
dz_rc dz_journal_flush(dz_journal *journal, dz_error *err);

void dz_journal_close(dz_journal *journal);

/* One process: removes the directory, when the archive has its name or the job cannot be resumed. */
void dz_journal_remove(const char *archive);

dz_rc dz_journal_put(dz_journal *journal, dz_record kind, uint64_t id, uint64_t key, const void *bytes, size_t len, dz_error *err);

/* Bytes of a record of an earlier run into `out`, exactly `len` of them; 0 when there is none, or none that is whole. */
int dz_journal_find(dz_journal *journal, dz_record kind, uint64_t id, uint64_t key, void *out, size_t len);

/* A coded block: `n` counts of the caller, then the body, behind which its checksum is put (4 bytes, little endian). A later block of the
 * same unit takes its place. */
dz_rc dz_journal_put_block(dz_journal *journal, uint64_t unit, uint64_t key, const uint64_t *counts, size_t n, dz_buf *body, dz_error *err);

/* 1 when this block has been coded under the same key, by this run or by an earlier one, whose block then counts as this run's: its counts
 * are filled. */
int dz_journal_has_block(dz_journal *journal, uint64_t unit, uint64_t key, uint64_t *counts, size_t n);

/* Copies a block into `out` (as many bytes as its length). */
dz_rc dz_journal_get_block(dz_journal *journal, uint64_t unit, uint8_t *out, dz_error *err);

#endif

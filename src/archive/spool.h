/* Coded blocks of one rank on their way to the archive: in memory up to a budget, beyond it in an unlinked temporary file. */
#ifndef DZ_ARCHIVE_SPOOL_H
#define DZ_ARCHIVE_SPOOL_H

#include "base/mem.h"

typedef struct dz_spool {
    char *dir;       /* where a temporary file may go: the archive's directory */
    uint64_t budget; /* bytes of memory */
    dz_buf memory;
    int fd;           /* -1 while everything fits in memory */
    uint64_t flushed; /* bytes in the file; block offsets count file and memory as one stream */
    uint64_t *offset; /* [nblocks] in the stream */
    uint32_t *length; /* [nblocks] */
    size_t nblocks;
} dz_spool;

dz_rc dz_spool_open(dz_spool *spool, const char *archive_path, uint64_t budget, size_t nblocks, dz_error *err);
void dz_spool_close(dz_spool *spool);

/* Appends a block: `len` bytes at `body`, and their checksum (4 bytes, little endian) behind them. Each number once. */
dz_rc dz_spool_put(dz_spool *spool, size_t block, const uint8_t *body, size_t len, dz_error *err);

/* Copies a block into `out` (its length is length[block]). */
dz_rc dz_spool_get(const dz_spool *spool, size_t block, uint8_t *out, dz_error *err);

#endif

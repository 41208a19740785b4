/* The part of the zip format that torch.save writes: a central directory (also zip64) over stored entries, one file, no encryption.
 *
 * The file is not trusted: every offset and size is checked before use, and an entry that cannot be read in place (compressed, encrypted,
 * in another file) is refused by name when it is needed.
 */
#ifndef DZ_CHECKPOINT_TORCH_ZIP_H
#define DZ_CHECKPOINT_TORCH_ZIP_H

#include "base/mem.h"

typedef struct dz_zip_entry {
    char *name;
    uint64_t header; /* offset of the local header */
    uint64_t size;   /* bytes of the content */
    uint64_t packed; /* bytes in the file: the same when stored */
    uint16_t method; /* 0: stored */
    uint16_t flags;
} dz_zip_entry;

typedef struct dz_zip {
    int fd;           /* borrowed */
    const char *path; /* borrowed: for messages */
    uint64_t end;     /* start of the central directory: all entries are before it */
    dz_zip_entry *entries;
    size_t nentries; /* sorted by name, none twice */
} dz_zip;

/* Reads the central directory of `fd`, a file of `file_size` bytes. On DZ_OK the caller frees with dz_zip_free. */
dz_rc dz_zip_open(int fd, const char *path, uint64_t file_size, dz_zip *out, dz_error *err);
void dz_zip_free(dz_zip *zip);

/* The entry of this name, or NULL. */
const dz_zip_entry *dz_zip_find(const dz_zip *zip, const char *name);

/* Offset of the entry's bytes in the file. DZ_EFAIL names an entry that is not stored uncompressed, or not within the file. */
dz_rc dz_zip_locate(const dz_zip *zip, const dz_zip_entry *entry, uint64_t *offset, dz_error *err);

#endif

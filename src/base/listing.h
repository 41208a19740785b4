/* A directory's entries and what they are. */
#ifndef DZ_BASE_LISTING_H
#define DZ_BASE_LISTING_H

#include "base/mem.h"

typedef struct dz_entry {
    char *name;
    int is_dir, is_file, is_link; /* a link is also what it leads to */
    int error;                    /* errno if the entry cannot be examined, as for a dangling link; else 0 */
} dz_entry;

typedef struct dz_listing { /* zero-initialise */
    dz_entry *entries;      /* sorted by name; without . and .. */
    size_t n, cap;
} dz_listing;

/* Lists a directory. Returns 0, or errno if it cannot be read. Out of memory sets `err`. */
int dz_listing_read(const char *path, dz_listing *out, dz_error *err);
/* The entry of this name, or NULL. */
const dz_entry *dz_listing_find(const dz_listing *listing, const char *name);
void dz_listing_free(dz_listing *listing);

#endif

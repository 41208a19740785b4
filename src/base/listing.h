/* A directory's entries and what they are. */
#ifndef DZ_BASE_LISTING_H
#define DZ_BASE_LISTING_H

#include "base/mem.h"

typedef struct dz_entry {
    char *name;
    int is_dir, is_file, is_link; /* a link is also what it leads to */
    int error;                    /* errno, of what cannot be looked at: a link that leads nowhere */
} dz_entry;

typedef struct dz_listing { /* zero-initialise */
    dz_entry *entries;      /* sorted by name; without . and .. */
    size_t n, cap;
} dz_listing;

/* Returns errno of a directory that cannot be read, or 0. Memory that runs out is an error in `err`. */
int dz_listing_read(const char *path, dz_listing *out, dz_error *err);
void dz_listing_free(dz_listing *listing);

#endif

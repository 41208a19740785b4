/* Names, or any bytes, to numbers: a hash table (uthash) instead of a walk through a list. */
#ifndef DZ_BASE_LOOKUP_H
#define DZ_BASE_LOOKUP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dz_lookup { /* zero-initialise; free with dz_lookup_free */
    struct dz_lookup_entry *entries;
    size_t n; /* calls of dz_lookup_add that succeeded */
} dz_lookup;

/* Adds a key, which is copied; one that is there keeps the number it has. */
dz_rc dz_lookup_add(dz_lookup *lookup, const void *key, size_t len, uint32_t number, dz_error *err);

/* The key's number; -1: it is not there. */
int64_t dz_lookup_find(const dz_lookup *lookup, const void *key, size_t len);

void dz_lookup_free(dz_lookup *lookup);

#endif

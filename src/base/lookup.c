#include "base/lookup.h"

#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(entry) out_of_memory = 1
#include <uthash.h>

#include "base/mem.h"

struct dz_lookup_entry {
    UT_hash_handle hh;
    uint32_t number;
    uint8_t key[];
};

dz_rc dz_lookup_add(dz_lookup *l, const void *key, size_t len, uint32_t number, dz_error *err) {
    struct dz_lookup_entry *e = NULL;
    int out_of_memory = 0;
    if (len > UINT32_MAX) return dz_fail(err, DZ_EFAIL, "a name of %zu bytes is too long", len);
    if (dz_lookup_find(l, key, len) >= 0) {
        l->n++;
        return DZ_OK;
    }
    if (!(e = dz_alloc_raw(sizeof *e + len, 1, err))) return err->rc;
    memset(&e->hh, 0, sizeof e->hh);
    memcpy(e->key, key, len);
    e->number = number;
    HASH_ADD_KEYPTR(hh, l->entries, e->key, (unsigned)len, e);
    if (out_of_memory) {
        free(e);
        return dz_fail(err, DZ_ENOMEM, "out of memory for %zu names", l->n + 1);
    }
    l->n++;
    return DZ_OK;
}

int64_t dz_lookup_find(const dz_lookup *l, const void *key, size_t len) {
    struct dz_lookup_entry *e = NULL;
    HASH_FIND(hh, l->entries, key, (unsigned)len, e);
    return e ? (int64_t)e->number : -1;
}

void dz_lookup_free(dz_lookup *l) {
    struct dz_lookup_entry *e = l->entries;
    HASH_CLEAR(hh, l->entries); /* the table; the entries are still chained */
    while (e) {
        struct dz_lookup_entry *next = e->hh.next;
        free(e);
        e = next;
    }
    *l = (dz_lookup){0};
}

#include "cli/layers.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

size_t dz_layer_length(const char *name) {
    for (const char *p = name; *p; p += strcspn(p, "."), p += *p == '.') {
        size_t word = strcspn(p, "."), digits = strspn(p, "0123456789");
        if (word > 0 && digits == word && p[word]) return (size_t)(p - name) + word;
    }
    return 0;
}

size_t dz_layer_number_at(const char *layer, size_t len) {
    size_t at = len;
    while (at > 0 && layer[at - 1] != '.') at--;
    return at;
}

int dz_layer_order(const char *a, size_t na, const char *b, size_t nb) {
    size_t la = dz_layer_number_at(a, na), lb = dz_layer_number_at(b, nb);
    int order = memcmp(a, b, la < lb ? la : lb);
    if (order != 0 || la != lb) return order != 0 ? order : la < lb ? -1 : 1;
    unsigned long long i = strtoull(a + la, NULL, 10), j = strtoull(b + lb, NULL, 10);
    return i < j ? -1 : i > j;
}

typedef struct named {
    const char *name;
    size_t len, at;
} named;

static int by_order(const void *x, const void *y) {
    const named *a = x, *b = y;
    int order = dz_layer_order(a->name, a->len, b->name, b->len);
    return order ? order : (a->at > b->at) - (a->at < b->at);
}

dz_rc dz_layer_list_make(const char *const *names, size_t n, dz_layer_list *out, size_t *where, dz_error *err) {
    *out = (dz_layer_list){0};
    named *all = dz_alloc(n, sizeof *all, err);
    out->name = dz_alloc(n, sizeof *out->name, err);
    out->len = dz_alloc(n, sizeof *out->len, err);
    size_t found = 0;
    for (size_t i = 0; err->rc == DZ_OK && i < n; i++) {
        size_t len = names[i] ? dz_layer_length(names[i]) : 0;
        where[i] = SIZE_MAX;
        if (len) all[found++] = (named){names[i], len, i};
    }
    if (err->rc == DZ_OK && found) qsort(all, found, sizeof *all, by_order);
    for (size_t i = 0; err->rc == DZ_OK && i < found; i++) {
        if (i == 0 || dz_layer_order(all[i - 1].name, all[i - 1].len, all[i].name, all[i].len) != 0) {
            out->name[out->n] = all[i].name;
            out->len[out->n++] = all[i].len;
        }
        where[all[i].at] = out->n - 1;
    }
    free(all);
    return err->rc;
}

void dz_layer_list_free(dz_layer_list *list) {
    free(list->name);
    free(list->len);
    *list = (dz_layer_list){0};
}

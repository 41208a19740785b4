#include "cli/layers.h"

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

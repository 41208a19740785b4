#include "pipeline/sketch.h"

#include <math.h>
#include <stdlib.h>

#include "base/hash.h"
#include "plan/match.h"

#define PER_TENSOR 2

typedef struct choice {
    uint64_t hash; /* of the name: two models choose the same tensors */
    uint32_t tensor;
} choice;

typedef struct window {
    uint64_t key;
    float values[DZ_SKETCH_VALUES];
} window;

static int by_hash(const void *x, const void *y) {
    const choice *a = x, *b = y;
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    return a->tensor < b->tensor ? -1 : a->tensor > b->tensor;
}

static int by_key(const void *x, const void *y) {
    const window *a = x, *b = y;
    return a->key < b->key ? -1 : a->key > b->key;
}

static size_t choose(const dz_checkpoint *ck, uint32_t least_ndim, choice *out) {
    size_t n = 0;
    for (uint32_t i = 0; i < ck->ntensors; i++) {
        const dz_tensor *t = &ck->tensors[i];
        const char *bare = dz_bare_name(t->name);
        if (!dz_dtype_is_float(t->dtype) || t->count == 0 || t->ndim < least_ndim) continue;
        out[n++] = (choice){.hash = dz_hash64(bare, strlen(bare), 0), .tensor = i};
    }
    qsort(out, n, sizeof *out, by_hash);
    return n < DZ_SKETCH_WINDOWS / PER_TENSOR ? n : DZ_SKETCH_WINDOWS / PER_TENSOR;
}

/* The place depends on the count's power of two, so that a few rows more or less do not move it. */
static dz_rc take_window(dz_checkpoint *ck, const choice *c, uint64_t number, window *out, dz_error *err) {
    const dz_tensor *t = &ck->tensors[c->tensor];
    size_t size = dz_dtype_size(t->dtype), len = t->count < DZ_SKETCH_VALUES ? (size_t)t->count : DZ_SKETCH_VALUES;
    uint64_t power = 1, draw = dz_u64_at(c->hash, number);
    uint8_t bytes[8 * DZ_SKETCH_VALUES];
    while (power <= t->count / 2) power *= 2;
    uint64_t at = power > len ? draw % (power - len + 1) : 0;
    *out = (window){.key = dz_hash64(&at, sizeof at, c->hash)};
    if (t->ndim > 1) out->key = dz_hash64(t->shape + 1, (t->ndim - 1) * sizeof t->shape[0], out->key);
    out->key += out->key == 0;
    if (dz_checkpoint_read(ck, c->tensor, at * size, len * size, bytes, err) == DZ_OK) dz_widen(out->values, bytes, t->dtype, len);
    return err->rc;
}

dz_rc dz_sketch_take(dz_checkpoint *ck, dz_sketch *out, dz_error *err) {
    size_t n = 0;
    choice *choices = dz_alloc(ck->ntensors, sizeof *choices, err);
    window *windows = dz_alloc(DZ_SKETCH_WINDOWS, sizeof *windows, err);
    if (err->rc != DZ_OK) goto out;
    size_t chosen = choose(ck, 2, choices);
    if (chosen == 0) chosen = choose(ck, 0, choices);
    for (size_t i = 0; i < chosen && err->rc == DZ_OK; i++) {
        for (uint64_t k = 0; k < PER_TENSOR && err->rc == DZ_OK; k++) take_window(ck, &choices[i], k, &windows[n++], err);
    }
    qsort(windows, n, sizeof *windows, by_key);
    for (size_t i = 0; i < n; i++) {
        out->keys[i] = windows[i].key;
        memcpy(out->values[i], windows[i].values, sizeof out->values[i]);
    }
out:
    free(choices);
    free(windows);
    return err->rc;
}

static size_t count_windows(const dz_sketch *s) {
    size_t n = 0;
    while (n < DZ_SKETCH_WINDOWS && s->keys[n]) n++;
    return n;
}

/* sum (a - b)^2 / max(sum a^2, sum b^2); negative where that is no number. */
static double window_distance(const float *a, const float *b) {
    double difference = 0, of_a = 0, of_b = 0;
    for (int i = 0; i < DZ_SKETCH_VALUES; i++) {
        double x = (double)a[i], y = (double)b[i];
        difference += (x - y) * (x - y);
        of_a += x * x;
        of_b += y * y;
    }
    double most = of_a > of_b ? of_a : of_b;
    if (!isfinite(difference) || !isfinite(most)) return -1;
    return most > 0 ? difference / most : 0;
}

double dz_sketch_distance(const dz_sketch *a, const dz_sketch *b) {
    size_t na = count_windows(a), nb = count_windows(b), least = na < nb ? na : nb, both = 0, counted = 0;
    double sum = 0;
    for (size_t i = 0, j = 0; i < na && j < nb;) {
        if (a->keys[i] != b->keys[j]) {
            if (a->keys[i] < b->keys[j])
                i++;
            else
                j++;
            continue;
        }
        double d = window_distance(a->values[i++], b->values[j++]);
        both++;
        if (d < 0) continue;
        sum += d;
        counted++;
    }
    return counted && 2 * both >= least ? sqrt(sum / (double)counted) : (double)INFINITY;
}

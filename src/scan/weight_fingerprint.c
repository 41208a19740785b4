#include "scan/weight_fingerprint.h"

#include <math.h>
#include <stdlib.h>

#include "base/hash.h"
#include "checkpoint/fp8_scale.h"
#include "checkpoint/quantised.h"
#include "plan/match.h"
#include "scan/base_clusters.h"

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

/* Of a bare name; codes have that of their layer's weight. */
static uint64_t hash_name(const char *name, dz_quantised_part part) {
    dz_error none = {0};
    char *layer = part == DZ_QUANTISED_CODES ? dz_quantised_layer(name, &none) : NULL;
    const char *bare = dz_bare_name(layer ? layer : name);
    uint64_t hash = dz_hash64(bare, strlen(bare), 0);
    free(layer);
    return hash;
}

/* Scaled F8 says nothing without its scales. */
static uint64_t kind_of(const dz_checkpoint *ck, const dz_quantised *q, size_t tensor) {
    const dz_tensor *t = &ck->tensors[tensor];
    int scaled = dz_quantised_part_of(q, tensor) || (dz_dtype_size(t->dtype) == 1 && dz_scale_partner(ck, t));
    return dz_dtype_is_float(t->dtype) && !scaled ? DZ_SKETCH_FLOAT : dz_hash64(t->dtype_name, strlen(t->dtype_name), 0);
}

static uint64_t hash_dims(const dz_tensor *t, uint64_t seed) {
    return t->ndim > 1 ? dz_hash64(t->shape + 1, (t->ndim - 1) * sizeof t->shape[0], seed) : seed;
}

static int is_layer(const dz_tensor *t) {
    const char *bare = dz_bare_name(t->name);
    return t->ndim >= 2 && !dz_is_vocabulary(bare) && !strstr(bare, "embed");
}
static int is_tensor(const dz_tensor *t) { return t->count > 0; }
static int is_float_matrix(const dz_tensor *t) { return t->ndim >= 2 && dz_dtype_is_float(t->dtype); }
static int is_float(const dz_tensor *t) { return dz_dtype_is_float(t->dtype); }

/* At most `max` of the tensors that are `wanted`; of those that are `otherwise` when there are none. */
static size_t choose(const dz_checkpoint *ck, const dz_quantised *q, int (*wanted)(const dz_tensor *), int (*otherwise)(const dz_tensor *),
                     size_t max, choice *out) {
    size_t n = 0;
    for (uint32_t i = 0; i < ck->ntensors; i++) {
        const dz_tensor *t = &ck->tensors[i];
        dz_quantised_part part = dz_quantised_part_of(q, i);
        if (t->count > 0 && wanted(t) && part != DZ_QUANTISED_SCALES) out[n++] = (choice){.hash = hash_name(t->name, part), .tensor = i};
    }
    if (n == 0 && otherwise) return choose(ck, q, otherwise, NULL, max, out);
    qsort(out, n, sizeof *out, by_hash);
    return n < max ? n : max;
}

static void take_layers(const dz_checkpoint *ck, const dz_quantised *q, choice *choices, dz_weight_fingerprint *out) {
    size_t n = choose(ck, q, is_layer, is_tensor, DZ_SKETCH_LAYERS, choices);
    for (size_t i = 0; i < n; i++) {
        const dz_tensor *t = &ck->tensors[choices[i].tensor];
        out->layers[i] = (dz_weight_fingerprint_layer){.name = choices[i].hash + (choices[i].hash == 0),
                                                       .dims = hash_dims(t, 0),
                                                       .kind = kind_of(ck, q, choices[i].tensor),
                                                       .count = t->count};
    }
}

/* The place depends on the count's power of two, so that a few rows more or less do not move it. */
static dz_rc take_window(dz_checkpoint *ck, const dz_quantised *q, const choice *c, uint64_t number, window *out, dz_error *err) {
    const dz_tensor *t = &ck->tensors[c->tensor];
    size_t size = dz_dtype_size(t->dtype), len = t->count < DZ_SKETCH_VALUES ? (size_t)t->count : DZ_SKETCH_VALUES;
    uint64_t power = 1, draw = dz_u64_at(c->hash, number);
    uint8_t bytes[8 * DZ_SKETCH_VALUES];
    while (power <= t->count / 2) power *= 2;
    uint64_t at = power > len ? draw % (power - len + 1) : 0;
    uint64_t kind = kind_of(ck, q, c->tensor);
    *out = (window){.key = hash_dims(t, dz_hash64(&at, sizeof at, c->hash))};
    if (kind != DZ_SKETCH_FLOAT) out->key = dz_hash64(&kind, sizeof kind, out->key); /* comparable with its like only */
    out->key += out->key == 0;
    if (dz_checkpoint_read(ck, c->tensor, at * size, len * size, bytes, err) == DZ_OK) dz_widen(out->values, bytes, t->dtype, len);
    return err->rc;
}

dz_rc dz_weight_fingerprint_take(dz_checkpoint *ck, dz_weight_fingerprint *out, dz_error *err) {
    size_t n = 0;
    choice *choices = dz_alloc(ck->ntensors, sizeof *choices, err);
    window *windows = dz_alloc(DZ_SKETCH_WINDOWS, sizeof *windows, err);
    dz_quantised q = {0};
    if (err->rc != DZ_OK || dz_quantised_find(ck, &q, err) != DZ_OK) goto out;
    take_layers(ck, &q, choices, out);
    size_t chosen = choose(ck, &q, is_float_matrix, is_float, DZ_SKETCH_WINDOWS / PER_TENSOR, choices);
    for (size_t i = 0; i < chosen && err->rc == DZ_OK; i++) {
        for (uint64_t k = 0; k < PER_TENSOR && err->rc == DZ_OK; k++) take_window(ck, &q, &choices[i], k, &windows[n++], err);
    }
    qsort(windows, n, sizeof *windows, by_key);
    for (size_t i = 0; i < n; i++) {
        out->keys[i] = windows[i].key;
        memcpy(out->values[i], windows[i].values, sizeof out->values[i]);
    }
out:
    dz_quantised_free(&q);
    free(choices);
    free(windows);
    return err->rc;
}

static size_t count_windows(const dz_weight_fingerprint *s) {
    size_t n = 0;
    while (n < DZ_SKETCH_WINDOWS && s->keys[n]) n++;
    return n;
}

static size_t count_layers(const dz_weight_fingerprint *s) {
    size_t n = 0;
    while (n < DZ_SKETCH_LAYERS && s->layers[n].name) n++;
    return n;
}

/* Elements of layers. */
typedef struct overlap {
    double in_a, in_b;
    double both;      /* of one type, or both floats */
    double quantised; /* floats in b that a has as something else */
} overlap;

/* Where one list was cut short, nothing is known of the other's layers beyond its last one. */
static overlap compare_layers(const dz_weight_fingerprint *a, const dz_weight_fingerprint *b) {
    overlap sum = {0, 0, 0, 0};
    size_t na = count_layers(a), nb = count_layers(b), i = 0, j = 0;
    while ((i < na || j < nb) && !(i == DZ_SKETCH_LAYERS || j == DZ_SKETCH_LAYERS)) {
        const dz_weight_fingerprint_layer *x = i < na ? &a->layers[i] : NULL, *y = j < nb ? &b->layers[j] : NULL;
        int take_x = x && (!y || x->name <= y->name), take_y = y && (!x || y->name <= x->name);
        if (take_x) sum.in_a += (double)x->count;
        if (take_y) sum.in_b += (double)y->count;
        if (take_x && take_y) {
            double least = (double)(x->count < y->count ? x->count : y->count);
            if (x->dims == y->dims && x->kind == y->kind) sum.both += least;
            if (x->kind != DZ_SKETCH_FLOAT && y->kind == DZ_SKETCH_FLOAT) sum.quantised += (double)y->count;
        }
        i += (size_t)take_x;
        j += (size_t)take_y;
    }
    return sum;
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

/* Of the values that are in both. */
static double distance_of_values(const dz_weight_fingerprint *a, const dz_weight_fingerprint *b) {
    size_t na = count_windows(a), nb = count_windows(b), counted = 0;
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
        if (d < 0) continue;
        sum += d;
        counted++;
    }
    return counted ? sqrt(sum / (double)counted) : (double)INFINITY;
}

double dz_weight_fingerprint_distance(const dz_weight_fingerprint *a, const dz_weight_fingerprint *b) {
    overlap layers = compare_layers(a, b);
    double most = layers.in_a > layers.in_b ? layers.in_a : layers.in_b;
    return 2 * layers.both >= most ? distance_of_values(a, b) : (double)INFINITY;
}

int dz_weight_fingerprint_is_quantised(const dz_weight_fingerprint *a, const dz_weight_fingerprint *of) {
    overlap layers = compare_layers(a, of);
    return layers.quantised > 0 && 2 * layers.quantised >= layers.in_b && distance_of_values(a, of) < DZ_NEAR;
}

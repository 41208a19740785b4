/* How a tensor is matrices: how many in a stack, rows, columns, and which of them are outputs. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "plan/role_internal.h"

#define KERNEL_MAX 16 /* elements along the last dimension of a convolution in one dimension */

static int is_kernel_of_flax(const dz_parts_of_name *name) { return dz_part_is(&name->part[name->n - 1], "kernel"); }

static int has_expert(const dz_parts_of_name *name) {
    for (size_t i = 0; i < name->n; i++) {
        if (dz_part_contains(&name->part[i], "expert")) return 1;
    }
    return 0;
}

/* Three dimensions are a stack of matrices, or a convolution in one dimension. */
static int is_stack(const dz_tensor *t, const dz_parts_of_name *name) {
    if (t->ndim != 3 || t->shape[1] == 1 || t->shape[2] == 1) return 0;
    if (dz_part_contains(&name->part[dz_own_part(name)], "conv") && dz_leaf_is_weight(name)) return 0;
    return has_expert(name) || !dz_leaf_is_weight(name) || t->shape[2] > KERNEL_MAX;
}

dz_matrix_view dz_view_of_shape(const dz_tensor *t, const dz_parts_of_name *name) {
    uint64_t dims[DZ_MAX_NDIM] = {0};
    uint32_t n = 0;
    if (!dz_dtype_is_float(t->dtype) || t->count == 0) return (dz_matrix_view){0};
    for (uint32_t d = 0; d < t->ndim; d++) {
        if (t->shape[d] > 1) dims[n++] = t->shape[d];
    }
    if (n < 2) return (dz_matrix_view){0};
    if (is_stack(t, name) && n == 3) return (dz_matrix_view){.count = dims[0], .rows = dims[1], .cols = dims[2]};
    if (n > 2 && is_kernel_of_flax(name)) /* height, width, in, out */
        return (dz_matrix_view){.count = 1, .rows = t->count / dims[n - 1], .cols = dims[n - 1]};
    return (dz_matrix_view){.count = 1, .rows = dims[0], .cols = t->count / dims[0]};
}

dz_matrix_view dz_view_of_rows(const dz_matrix_view *view, uint64_t elements) {
    dz_matrix_view v = *view;
    if (v.count > 1 && v.rows && v.cols && elements % (v.rows * v.cols) == 0)
        v.count = elements / (v.rows * v.cols);
    else if (v.count == 1 && v.cols)
        v.rows = elements / v.cols;
    return v;
}

/* ---- orientation: what says which dimension is the output -------------------------------------------------------------------------- */

/* A vector that may be a layer's bias, by the hash of its name. */
typedef struct named_vector {
    uint64_t hash;
    size_t tensor;
} named_vector;

/* What the matrices of one place say together: above 0: rows are outputs. */
typedef struct opinion {
    uint64_t key;
    int64_t sum;
} opinion;

typedef struct orienting {
    const dz_tensor *tensors;
    const dz_named *named;
    size_t n;
    dz_tensor_role *roles;
    named_vector *biases;
    size_t nbiases;
    opinion *opinions; /* [n], sorted by key, then one for each key */
    size_t nopinions;
    int8_t *own; /* [n] what a tensor says itself: 1: rows are outputs, -1: columns are */
} orienting;

static int by_hash(const void *x, const void *y) {
    const named_vector *a = x, *b = y;
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    return a->tensor < b->tensor ? -1 : a->tensor > b->tensor;
}

static int by_key(const void *x, const void *y) {
    const opinion *a = x, *b = y;
    return a->key < b->key ? -1 : a->key > b->key;
}

static const dz_tensor *vector_of_hash(const orienting *o, uint64_t hash) {
    size_t low = 0, high = o->nbiases;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (o->biases[mid].hash < hash)
            low = mid + 1;
        else
            high = mid;
    }
    return low < o->nbiases && o->biases[low].hash == hash ? &o->tensors[o->biases[low].tensor] : NULL;
}

/* The bias of a matrix: its name with "bias" for "weight" in the last part, or with "_bias" behind it. */
static const dz_tensor *bias_of(const orienting *o, size_t i) {
    const char *name = o->tensors[i].name, *leaf = name + strlen(name);
    char text[512];
    while (leaf > name && leaf[-1] != '.' && leaf[-1] != '/') leaf--;
    const char *word = strstr(leaf, "weight") ? strstr(leaf, "weight") : strstr(leaf, "kernel"); /* of the same length */
    if (strlen(name) + sizeof "_bias" > sizeof text) return NULL;
    size_t len = strlen(name);
    if (word) {
        len = (size_t)(word - name);
        memcpy(text, name, len);
        len += (size_t)(stpcpy(stpcpy(text + len, "bias"), word + 6) - (text + len));
    } else {
        memcpy(text, name, len);
        memcpy(text + len, "_bias", 5);
        len += 5;
    }
    return vector_of_hash(o, dz_hash64(text, len, 0));
}

static int compare(uint64_t rows, uint64_t cols, uint64_t outputs) { return (rows == outputs) - (cols == outputs); }

static uint64_t parent_hash(const char *name) {
    size_t len = strlen(name);
    while (len > 0 && name[len - 1] != '.' && name[len - 1] != '/') len--;
    return dz_hash64(name, len, 1);
}

/* Where a matrix asks, when it does not know itself: the module that holds a stack (which all say the same), or all blocks of its place. */
static uint64_t key_of(const orienting *o, size_t i) {
    return o->roles[i].view.count > 1 ? parent_hash(o->tensors[i].name) : o->named[i].family;
}

/* By its own bias: (outputs), or (matrices, outputs) of a stack. A convolution's channels stand for its rows and columns. */
static int said_by_bias(const orienting *o, size_t i) {
    const dz_tensor *t = &o->tensors[i], *bias = bias_of(o, i);
    const dz_matrix_view *v = &o->roles[i].view;
    if (!bias || bias->count % v->count != 0) return 0;
    uint64_t outputs = bias->count / v->count;
    if (v->count == 1 && t->ndim > 2) return compare(t->shape[0], t->shape[1], outputs);
    return compare(v->rows, v->cols, outputs);
}

/* Two stacks of one module that fit each other: (2I, H) and (H, I), or (H, 2I) and (I, H). */
static int said_by_partner(const dz_matrix_view *a, const dz_matrix_view *b) {
    int rows_out = (a->cols == b->rows && a->rows == 2 * b->cols) || (b->cols == a->rows && b->rows == 2 * a->cols);
    int cols_out = (a->rows == b->cols && a->cols == 2 * b->rows) || (b->rows == a->cols && b->cols == 2 * a->rows);
    return rows_out - cols_out;
}

/* The number of features of the model as a norm of the same block tells: what goes into gate and up, and comes out of down. */
static int said_by_width(const dz_tensor_role *role, uint64_t width) {
    int into = role->kind == DZ_KIND_GATE || role->kind == DZ_KIND_UP || role->kind == DZ_KIND_MLP_OTHER;
    if (width == 0 || (!into && role->kind != DZ_KIND_DOWN)) return 0;
    int rows_are_width = compare(role->view.rows, role->view.cols, width);
    return into ? -rows_are_width : rows_are_width;
}

/* Fills what stacks say from `from` on, neighbours of one module in the order of their names' parents. */
static void hear_stacks(orienting *o, const uint64_t *width_of) {
    for (size_t i = 0; i < o->n; i++) {
        const dz_matrix_view *v = &o->roles[i].view;
        if (v->count < 2 || o->own[i]) continue;
        o->own[i] = (int8_t)said_by_width(&o->roles[i], width_of[i]);
        uint64_t parent = parent_hash(o->tensors[i].name);
        for (size_t k = i > 4 ? i - 4 : 0; k < o->n && k < i + 5 && !o->own[i]; k++) { /* a module's tensors lie beside each other */
            const dz_matrix_view *w = &o->roles[k].view;
            if (k == i || w->count != v->count || parent_hash(o->tensors[k].name) != parent) continue;
            o->own[i] = (int8_t)said_by_partner(v, w);
        }
    }
}

static void find_biases(orienting *o) {
    for (size_t i = 0; i < o->n; i++) {
        const dz_parts_of_name *name = &o->named[i].name;
        if (!dz_part_has(&name->part[name->n - 1], "bias")) continue;
        o->biases[o->nbiases++] = (named_vector){.hash = dz_hash64(o->tensors[i].name, strlen(o->tensors[i].name), 0), .tensor = i};
    }
    if (o->nbiases) qsort(o->biases, o->nbiases, sizeof *o->biases, by_hash);
}

/* width_of[i]: elements of the nearest norm before tensor i in the order of the file, or else behind it, among the blocks of its place. */
static void find_widths(const orienting *o, uint64_t *width_of) {
    for (int backwards = 0; backwards < 2; backwards++) {
        uint64_t width = 0, family = 0;
        for (size_t step = 0; step < o->n; step++) {
            size_t i = backwards ? o->n - 1 - step : step;
            const dz_parts_of_name *name = &o->named[i].name;
            if (o->named[i].block == SIZE_MAX) continue;
            if (o->named[i].family != family) width = 0;
            family = o->named[i].family;
            const dz_part *own = &name->part[dz_own_part(name)];
            int is_norm = o->roles[i].view.count == 0 && dz_part_contains(own, "norm") && !dz_part_has(own, "q k query key head");
            if (is_norm && o->tensors[i].ndim == 1) width = o->tensors[i].count;
            if (width_of[i] == 0) width_of[i] = width;
        }
    }
}

static void gather_opinions(orienting *o) {
    for (size_t i = 0; i < o->n; i++) {
        const dz_matrix_view *v = &o->roles[i].view;
        if (v->count == 0 || o->own[i] == 0 || (v->count == 1 && o->tensors[i].ndim > 2)) continue;
        o->opinions[o->nopinions++] = (opinion){.key = key_of(o, i), .sum = o->own[i]};
    }
    if (o->nopinions) qsort(o->opinions, o->nopinions, sizeof *o->opinions, by_key);
    size_t kept = 0;
    for (size_t i = 0; i < o->nopinions; i++) {
        if (kept && o->opinions[kept - 1].key == o->opinions[i].key)
            o->opinions[kept - 1].sum += o->opinions[i].sum;
        else
            o->opinions[kept++] = o->opinions[i];
    }
    o->nopinions = kept;
}

static int64_t opinion_of(const orienting *o, size_t i) {
    const opinion wanted = {.key = key_of(o, i)};
    const opinion *found = o->nopinions ? bsearch(&wanted, o->opinions, o->nopinions, sizeof *o->opinions, by_key) : NULL;
    return found ? found->sum : 0;
}

dz_rc dz_orient_views(const dz_tensor *tensors, const dz_named *named, size_t n, dz_tensor_role *roles, dz_error *err) {
    orienting o = {.tensors = tensors, .named = named, .n = n, .roles = roles};
    uint64_t *width_of = dz_alloc(n, sizeof *width_of, err);
    o.biases = dz_alloc(n, sizeof *o.biases, err);
    o.opinions = dz_alloc(n, sizeof *o.opinions, err);
    o.own = dz_alloc(n, sizeof *o.own, err);
    if (err->rc != DZ_OK) goto out;
    find_biases(&o);
    find_widths(&o, width_of);
    for (size_t i = 0; i < n; i++) {
        if (roles[i].view.count) o.own[i] = (int8_t)(is_kernel_of_flax(&named[i].name) ? -1 : said_by_bias(&o, i));
    }
    hear_stacks(&o, width_of);
    gather_opinions(&o);
    for (size_t i = 0; i < n; i++) {
        dz_matrix_view *v = &roles[i].view;
        if (v->count == 0 || named[i].block == SIZE_MAX) continue;
        int is_convolution = v->count == 1 && tensors[i].ndim > 2;
        v->in_first = o.own[i] ? o.own[i] < 0 : !is_convolution && opinion_of(&o, i) < 0;
    }
out:
    free(width_of);
    free(o.biases);
    free(o.opinions);
    free(o.own);
    return err->rc;
}

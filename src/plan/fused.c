#include "plan/fused.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "plan/match.h"
#include "plan/name_parts.h"

#define LEAF 24      /* letters of the last part of a name that can be one of several parts */
#define LEAVES 16    /* different ones in a module */
#define MOST_PARTS 3 /* tensors one under another */
#define SAMPLE 1024  /* elements of a part that are looked at */

/* In the order in which they come one under another. */
static const char *const orders[][MOST_PARTS] = {{"q_proj", "k_proj", "v_proj"},
                                                 {"query", "key", "value"},
                                                 {"q", "k", "v"},
                                                 {"to_q", "to_k", "to_v"},
                                                 {"wq", "wk", "wv"},
                                                 {"q_lin", "k_lin", "v_lin"},
                                                 {"query_proj", "key_proj", "value_proj"},
                                                 {"gate_proj", "up_proj", NULL},
                                                 {"gate", "up", NULL},
                                                 {"w1", "w3", NULL},
                                                 {"wi_0", "wi_1", NULL}};

/* Where a tensor is: its module, without the last part of its name and, of an expert's, without the expert's number. */
typedef struct spot {
    uint64_t numbers; /* hash of the numbers in the module's name, of what kind of place it is, and of the last part of what is no expert */
    uint64_t module;
    uint64_t leaf;
    int32_t expert; /* -1: the module is no stack */
    uint32_t tensor;
    char name[LEAF]; /* the leaf; empty if it is longer */
} spot;

static size_t part_len(const dz_part *part) { return strcspn(part->text, "./"); }

static uint64_t hash_numbers(const dz_parts_of_name *name, size_t n, uint64_t seed) {
    uint64_t hash = seed;
    for (size_t i = 0; i < n; i++) {
        if (name->part[i].number >= 0) hash = dz_hash64(&name->part[i].number, sizeof name->part[i].number, hash);
    }
    return hash;
}

/* 0 for a tensor that is no part and has none. A task's tensor of three dimensions in the experts' module is their stack. */
static int find_spot(const dz_tensor *t, uint32_t number, int of_base, spot *out) {
    char text[DZ_PLAIN_NAME];
    dz_parts_of_name name;
    *out = (spot){.tensor = number, .expert = -1};
    if (t->ndim == 0 || t->ndim > 3 || t->count == 0 || !dz_dtype_is_float(t->dtype) || dz_dtype_is_f8(t->dtype)) return 0;
    dz_name_split(dz_plain_name(t, text), &name);
    if (name.n < 2 || name.n == DZ_MAX_PARTS) return 0;
    size_t leaf = name.n - 1;
    int is_bias = dz_part_is(&name.part[leaf], "bias");
    if ((is_bias || dz_part_is(&name.part[leaf], "weight")) && --leaf == 0) return 0;
    size_t module = leaf;
    int is_stack =
        of_base ? t->ndim == 2 && leaf > 1 && dz_part_is_number(&name.part[leaf - 1]) && dz_part_contains(&name.part[leaf - 2], "expert")
                : t->ndim == 3 && dz_part_contains(&name.part[leaf - 1], "expert");
    if (!is_stack && t->ndim == 3) return 0;
    if (is_stack && of_base) out->expert = name.part[--module].number;
    const dz_part *last = &name.part[module - 1];
    size_t len = part_len(&name.part[leaf]);
    out->module = dz_hash64(name.name, (size_t)(name.part[module].text - name.name), (uint64_t)is_stack);
    out->numbers = hash_numbers(&name, module, (uint64_t)(2 * is_stack + is_bias));
    if (!is_stack) out->numbers = dz_hash64(last->text, part_len(last), out->numbers);
    out->leaf = dz_hash64(name.part[leaf].text, len, 0);
    if (len < LEAF) memcpy(out->name, name.part[leaf].text, len);
    return 1;
}

static int by_spot(const void *x, const void *y) {
    const spot *a = x, *b = y;
    if (a->numbers != b->numbers) return a->numbers < b->numbers ? -1 : 1;
    if (a->module != b->module) return a->module < b->module ? -1 : 1;
    if (a->leaf != b->leaf) return a->leaf < b->leaf ? -1 : 1;
    if (a->expert != b->expert) return a->expert < b->expert ? -1 : 1;
    return a->tensor < b->tensor ? -1 : a->tensor > b->tensor;
}

struct dz_fused_finder {
    dz_checkpoint *base, *task;
    spot *spots; /* of the base's tensors, by place */
    size_t nspots;
    uint8_t *taken; /* base tensors that are a part already */
};

static dz_rc list_spots(dz_fused_finder *f, dz_error *err) {
    if (f->spots) return DZ_OK;
    f->spots = dz_alloc(f->base->ntensors, sizeof *f->spots, err);
    f->taken = dz_alloc(f->base->ntensors, 1, err);
    for (size_t i = 0; i < f->base->ntensors && err->rc == DZ_OK; i++)
        f->nspots += (size_t)find_spot(&f->base->tensors[i], (uint32_t)i, 1, &f->spots[f->nspots]);
    if (f->nspots) qsort(f->spots, f->nspots, sizeof *f->spots, by_spot);
    return err->rc;
}

/* Matrices of one leaf: of all experts, in their order, or of one module. */
typedef struct leaf {
    const spot *spots;
    size_t n;
} leaf;

/* The leaves of the base's module in the tensor's place: that of the same name, or else the only one with the same numbers. */
static size_t find_leaves(const dz_fused_finder *f, const spot *at, leaf leaves[LEAVES]) {
    size_t low = 0, high = f->nspots, n = 0;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (f->spots[mid].numbers < at->numbers)
            low = mid + 1;
        else
            high = mid;
    }
    size_t end = low;
    uint64_t module = low < f->nspots ? f->spots[low].module : 0;
    int several = 0, same = 0;
    for (; end < f->nspots && f->spots[end].numbers == at->numbers; end++) {
        several |= f->spots[end].module != module;
        same |= f->spots[end].module == at->module;
    }
    if (low == end || (several && !same)) return 0;
    if (same) module = at->module;
    for (size_t i = low; i < end; i++) {
        if (f->spots[i].module != module) continue;
        if (n && leaves[n - 1].spots->leaf == f->spots[i].leaf) {
            leaves[n - 1].n++;
            continue;
        }
        if (n == LEAVES) return 0;
        leaves[n++] = (leaf){.spots = &f->spots[i], .n = 1};
    }
    return n;
}

/* A leaf whose matrices can be parts of t: of each expert one, all of one shape, none of them in the task or in another tensor. */
static int is_whole(const dz_fused_finder *f, const dz_tensor *t, const leaf *l, size_t experts) {
    const dz_tensor *first = &f->base->tensors[l->spots->tensor];
    uint32_t ndim = t->ndim == 3 ? 2 : t->ndim;
    if (l->n != experts || first->ndim != ndim || (ndim == 2 && first->shape[1] != t->shape[t->ndim - 1])) return 0;
    for (size_t i = 0; i < l->n; i++) {
        const dz_tensor *b = &f->base->tensors[l->spots[i].tensor];
        if ((t->ndim == 3 && l->spots[i].expert != (int32_t)i) || !dz_same_shape(b, first) || f->taken[l->spots[i].tensor] ||
            dz_checkpoint_find(f->task, b->name) >= 0)
            return 0;
    }
    return 1;
}

/* One sample in the middle of a part: energies of the task's values and of their differences to the base's. */
static dz_rc look(dz_fused_finder *f, size_t tensor, uint64_t at, uint32_t base_tensor, double energy[2], dz_error *err) {
    const dz_tensor *t = &f->task->tensors[tensor], *b = &f->base->tensors[base_tensor];
    uint8_t raw[SAMPLE * sizeof(double)];
    float x[SAMPLE], y[SAMPLE];
    size_t n = b->count < SAMPLE ? (size_t)b->count : SAMPLE, size = dz_dtype_size(t->dtype), base_size = dz_dtype_size(b->dtype);
    uint64_t middle = (b->count - n) / 2;
    if (dz_checkpoint_read(f->task, tensor, (at + middle) * size, n * size, raw, err) != DZ_OK) return err->rc;
    dz_widen(x, raw, t->dtype, n);
    if (dz_checkpoint_read(f->base, base_tensor, middle * base_size, n * base_size, raw, err) != DZ_OK) return err->rc;
    dz_widen(y, raw, b->dtype, n);
    for (size_t i = 0; i < n; i++) {
        double own = (double)x[i], delta = own - (double)y[i];
        energy[0] += own * own;
        energy[1] += delta * delta;
    }
    return DZ_OK;
}

/* The parts' share of change in the first, middle and last expert: `*ratio` below 1 where all of them pass, else 1. */
static dz_rc measure(dz_fused_finder *f, size_t tensor, const leaf *const *tuple, size_t n, size_t experts, double *ratio, dz_error *err) {
    double sum[2] = {0};
    uint64_t slice = f->task->tensors[tensor].count / experts, before = 0;
    *ratio = 1;
    for (size_t k = 0; k < n; k++) {
        double energy[2] = {0};
        for (size_t i = 0; i < (experts < 3 ? experts : 3); i++) {
            size_t e = experts < 3 ? i : i * (experts - 1) / 2;
            if (look(f, tensor, e * slice + before, tuple[k]->spots[e].tensor, energy, err) != DZ_OK) return err->rc;
        }
        if (!(energy[1] < energy[0]) && !(energy[1] == 0)) return DZ_OK;
        sum[0] += energy[0];
        sum[1] += energy[1];
        before += f->base->tensors[tuple[k]->spots->tensor].count;
    }
    *ratio = sum[1] > 0 ? sum[1] / sum[0] : 0;
    return DZ_OK;
}

/* The leaves of an order of names, if all are there and fill the rows. */
static size_t choose(const dz_fused_finder *f, const dz_tensor *t, const char *const *order, const leaf *leaves, size_t nleaves,
                     size_t experts, const leaf **tuple) {
    uint64_t rows = 0, want = t->ndim == 3 ? t->shape[1] : t->shape[0];
    size_t n = 0;
    for (; n < MOST_PARTS && order[n]; n++) {
        tuple[n] = NULL;
        for (size_t i = 0; i < nleaves; i++) {
            if (strcmp(leaves[i].spots->name, order[n]) == 0 && is_whole(f, t, &leaves[i], experts)) tuple[n] = &leaves[i];
        }
        if (!tuple[n]) return 0;
        rows += f->base->tensors[tuple[n]->spots->tensor].shape[0];
    }
    return rows == want ? n : 0;
}

static dz_rc add_split(dz_fused_finder *f, size_t tensor, const leaf *const *tuple, size_t n, size_t experts, dz_buf *splits,
                       dz_error *err) {
    const dz_tensor **parts = dz_alloc(n * experts, sizeof *parts, err);
    for (size_t e = 0; parts && e < experts; e++) {
        for (size_t k = 0; k < n; k++) {
            parts[e * n + k] = &f->base->tensors[tuple[k]->spots[e].tensor];
            f->taken[tuple[k]->spots[e].tensor] = 1;
        }
    }
    if (parts) dz_split_add(splits, tensor, parts, n * experts, err);
    free(parts);
    return err->rc;
}

static dz_rc find_parts(dz_fused_finder *f, size_t tensor, dz_buf *splits, dz_error *err) {
    const dz_tensor *t = &f->task->tensors[tensor];
    const leaf *tuple[MOST_PARTS] = {0}, *best[MOST_PARTS] = {0};
    leaf leaves[LEAVES];
    spot at;
    double least = 1, ratio;
    size_t most = 0, experts = t->ndim == 3 ? (size_t)t->shape[0] : 1;
    if (!find_spot(t, (uint32_t)tensor, 0, &at)) return DZ_OK;
    if (list_spots(f, err) != DZ_OK) return err->rc;
    size_t nleaves = find_leaves(f, &at, leaves), norders = sizeof orders / sizeof *orders;
    for (size_t i = 0; i < norders + nleaves && nleaves; i++) {
        size_t n = 1;
        if (i < norders) {
            n = choose(f, t, orders[i], leaves, nleaves, experts, tuple);
        } else { /* a stack of one matrix of each expert */
            tuple[0] = &leaves[i - norders];
            if (t->ndim != 3 || !is_whole(f, t, tuple[0], experts) || f->base->tensors[tuple[0]->spots->tensor].shape[0] != t->shape[1])
                n = 0;
        }
        if (n == 0) continue;
        if (measure(f, tensor, tuple, n, experts, &ratio, err) != DZ_OK) return err->rc;
        if (ratio >= least) continue;
        least = ratio;
        most = n;
        memcpy(best, tuple, sizeof best);
    }
    return most ? add_split(f, tensor, best, most, experts, splits, err) : DZ_OK;
}

dz_rc dz_fused_finder_make(dz_checkpoint *base, dz_fused_finder **out, dz_error *err) {
    if ((*out = dz_alloc(1, sizeof **out, err))) (*out)->base = base;
    return err->rc;
}

void dz_fused_finder_free(dz_fused_finder *f) {
    if (!f) return;
    free(f->spots);
    free(f->taken);
    free(f);
}

dz_rc dz_fused_find(dz_fused_finder *f, dz_checkpoint *task, dz_buf *splits, dz_error *err) {
    f->task = task;
    if (f->taken) memset(f->taken, 0, f->base->ntensors);
    for (size_t i = 0; i < task->ntensors && !task->is_adapter && err->rc == DZ_OK; i++) {
        if (dz_checkpoint_find(f->base, task->tensors[i].name) < 0) find_parts(f, i, splits, err);
    }
    return err->rc;
}

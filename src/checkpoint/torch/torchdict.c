#include "checkpoint/torch/torchdict.h"

#include <stdio.h>
#include <string.h>

#define KEYS_SHOWN 6

static const char *const NAMES[] = {"state_dict", "model_state_dict", "model",   "module", "params_ema", "params",
                                    "ema",        "weights",          "network", "net",    "generator"};

enum { NNAMES = sizeof NAMES / sizeof *NAMES, CANDIDATES = NNAMES + NNAMES * NNAMES + 1 };

/* The number of the usual name that the key is, or -1. */
static int name_of(const dz_pickle *p, uint32_t key) {
    const dz_pickle_value *k = &p->values[key];
    for (int i = 0; k->kind == DZ_PICKLE_STR && i < NNAMES; i++) {
        if (k->count == strlen(NAMES[i]) && memcmp(p->bytes + k->u.at, NAMES[i], k->count) == 0) return i;
    }
    return -1;
}

int dz_torch_dict_is_name(const dz_pickle *p, uint32_t key) { return name_of(p, key) >= 0; }

/* Adds the dicts under usual names of the last dict of `above`, those that are not there yet. Returns the new number of candidates. */
static size_t add_named(const dz_pickle *p, const dz_torch_dict *above, dz_torch_dict *list, size_t n) {
    const dz_pickle_item *found[NNAMES] = {0};
    for (size_t i = 0; i < p->nitems; i++) {
        int name = p->items[i].dict == above->dicts[above->depth] ? name_of(p, p->items[i].key) : -1;
        if (name >= 0) found[name] = &p->items[i]; /* a key that is set again has the later value */
    }
    for (int i = 0; i < NNAMES; i++) {
        if (!found[i] || p->values[found[i]->value].kind != DZ_PICKLE_DICT || found[i]->value == p->root) continue;
        int twice = 0;
        for (size_t k = 0; k < n; k++) twice |= list[k].dicts[list[k].depth] == found[i]->value;
        if (twice) continue;
        list[n] = *above;
        list[n].keys[above->depth] = found[i]->key;
        list[n].dicts[++list[n].depth] = found[i]->value;
        n++;
    }
    return n;
}

static void count_tensors(const dz_pickle *p, dz_torch_dict *list, size_t n) {
    for (size_t i = 0; i < p->nitems; i++) {
        if (!dz_pickle_is_tensor(&p->values[p->items[i].value])) continue;
        for (size_t k = 0; k < n; k++) list[k].ntensors += list[k].dicts[list[k].depth] == p->items[i].dict;
    }
}

static dz_rc find_none(const char *path, const dz_pickle *p, dz_error *err) {
    dz_buf names = {0}, held = {0};
    size_t shown = 0, more = 0;
    char key[DZ_PICKLE_TEXT], what[DZ_PICKLE_TEXT];
    for (int i = 0; i < NNAMES; i++) dz_buf_line(&names, err, "%s'%s'", i == 0 ? "" : i + 1 < NNAMES ? ", " : " or ", NAMES[i]);
    for (size_t i = 0; i < p->nitems; i++) {
        const dz_pickle_item *item = &p->items[i];
        if (item->dict != p->root) continue;
        if (shown == KEYS_SHOWN) {
            more++;
            continue;
        }
        dz_buf_line(&held, err, "%s'%s' (%s)", shown++ ? ", " : "", dz_pickle_key(p, item->key, key),
                    dz_pickle_describe(p, item->value, what));
    }
    if (more) dz_buf_line(&held, err, " and %zu more", more);
    dz_buf_put(&names, "", 1, err);
    dz_buf_put(&held, "", 1, err);
    if (err->rc == DZ_OK)
        dz_fail(err, DZ_EFAIL, "%s: data.pkl: no tensor in its dict, nor in one under %s (or under two of these); it holds %s", path,
                (char *)names.data, shown ? (char *)held.data : "nothing");
    dz_buf_free(&names);
    dz_buf_free(&held);
    return err->rc;
}

dz_rc dz_torch_dict_find(const char *path, const dz_pickle *p, dz_torch_dict *out, dz_error *err) {
    dz_torch_dict list[CANDIDATES], own = {.dicts = {p->root}};
    size_t n = 0, most = 0;
    if (p->values[p->root].kind != DZ_PICKLE_DICT)
        return dz_fail(err, DZ_EFAIL, "%s: data.pkl: holds %s, not a dict of tensors: save the model's state_dict()", path,
                       dz_pickle_kind_name(&p->values[p->root]));
    n = add_named(p, &own, list, n);
    for (size_t i = 0, first = n; i < first; i++) n = add_named(p, &list[i], list, n);
    list[n++] = own;
    count_tensors(p, list, n);
    for (size_t i = 0; i < n; i++) most = list[i].ntensors > most ? list[i].ntensors : most;
    for (size_t i = 0; i < n; i++) {
        if (most == 0 || list[i].ntensors < most - most / 2) continue;
        *out = list[i];
        return DZ_OK;
    }
    return find_none(path, p, err);
}

int dz_torch_dict_has(const dz_torch_dict *d, uint32_t value) {
    int has = 0;
    for (uint32_t k = 0; k <= d->depth; k++) has |= d->dicts[k] == value;
    return has;
}

char *dz_torch_dict_way(const dz_pickle *p, const dz_torch_dict *d, uint32_t depth, char text[DZ_TORCH_WAY]) {
    char first[DZ_PICKLE_TEXT] = "", second[DZ_PICKLE_TEXT] = "";
    if (depth > 0) dz_pickle_key(p, d->keys[0], first);
    if (depth > 1) dz_pickle_key(p, d->keys[1], second);
    snprintf(text, DZ_TORCH_WAY, "%s%s%s", first, depth > 1 ? "/" : "", second);
    return text;
}

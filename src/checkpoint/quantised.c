#include "checkpoint/quantised.h"

#include <stdlib.h>
#include <string.h>

#include "checkpoint/fp8_scale.h"

#define AROUND 64 /* names, in their order, in which a module's other tensors are looked for */

/* Integers of a width that codes have, the types of 4 and 6 bits, and F8 whose scales are not named as those of F8 are. */
static int may_be_codes(const dz_checkpoint *ck, const dz_tensor *t) {
    if (t->ndim < 2 || t->count == 0) return 0;
    switch (t->dtype) {
        case DZ_I8:
        case DZ_U8:
        case DZ_I16:
        case DZ_U16:
        case DZ_I32:
        case DZ_U32: return 1;
        case DZ_F8_E4M3:
        case DZ_F8_E5M2: return dz_scale_partner(ck, t) == NULL;
        case DZ_OPAQUE: return dz_element_bits(t->dtype_name) < 8;
        default: return 0;
    }
}

/* Letters of the name before what is its own: up to the last '.', or the ':' of torchao. */
static size_t module_length(const char *name) {
    size_t len = strlen(name);
    while (len > 0 && name[len - 1] != '.' && name[len - 1] != ':') len--;
    return len;
}

/* The tensor `other` belongs to the codes `t`: it is of the same module, or below "t.". */
static int is_beside(const dz_tensor *t, size_t module, const dz_tensor *other) {
    const char *rest = other->name + module, *leaf = t->name + module;
    size_t len = strlen(leaf);
    if (strncmp(other->name, t->name, module) != 0 || other == t) return 0;
    return !strpbrk(rest, ".:") || (strncmp(rest, leaf, len) == 0 && rest[len] == '.');
}

static int is_scales(const char *rest) {
    return strstr(rest, "scale") || strstr(rest, "absmax") || strstr(rest, "SCB") || strstr(rest, "quant_state") ||
           strstr(rest, "codebook") || strstr(rest, "centroid");
}

/* What belongs to codes, beside their scales; a layer's bias is a bias. */
static int is_companion(const dz_checkpoint *ck, const dz_tensor *t, const dz_tensor *other, const char *rest) {
    return is_scales(rest) || (!dz_ends_with(rest, "bias") && 2 * other->nbytes <= t->nbytes && !may_be_codes(ck, other)) ||
           strstr(rest, "zero");
}

/* The codes at place `at` of the names in their order. */
static void find_layer(const dz_checkpoint *ck, size_t at, dz_quantised *out) {
    const dz_tensor *t = &ck->tensors[ck->by_name[at]], *scales = NULL;
    size_t module = module_length(t->name), first = at, end = at;
    if (is_scales(t->name + module)) return;
    while (first > 0 && at - first < AROUND && strncmp(ck->tensors[ck->by_name[first - 1]].name, t->name, module) == 0) first--;
    while (end < ck->ntensors && end - at < AROUND && strncmp(ck->tensors[ck->by_name[end]].name, t->name, module) == 0) end++;
    for (size_t i = first; i < end && !scales; i++) {
        const dz_tensor *other = &ck->tensors[ck->by_name[i]];
        if (!is_beside(t, module, other) || !is_scales(other->name + module) || may_be_codes(ck, other)) continue;
        if (strstr(other->name + module, "codebook") || 2 * other->nbytes <= t->nbytes) scales = other;
    }
    /* scales of 8 bits are of the type of the codes: of mxfp4 the fewer are the scales */
    for (size_t i = first; i < end && !scales; i++) {
        const dz_tensor *other = &ck->tensors[ck->by_name[i]];
        if (is_beside(t, module, other) && is_scales(other->name + module) && 2 * other->nbytes <= t->nbytes) scales = other;
    }
    if (!scales) return;
    for (size_t i = first; i < end; i++) {
        const dz_tensor *other = &ck->tensors[ck->by_name[i]];
        if (is_beside(t, module, other) && is_companion(ck, t, other, other->name + module) &&
            out->part[ck->by_name[i]] == DZ_NOT_QUANTISED)
            out->part[ck->by_name[i]] = DZ_QUANTISED_SCALES;
    }
    if (strstr(t->name + module, "zero") || strstr(t->name + module, "g_idx")) {
        out->part[ck->by_name[at]] = DZ_QUANTISED_SCALES;
        return;
    }
    out->part[ck->by_name[at]] = DZ_QUANTISED_CODES;
    if (out->nlayers++ == 0) {
        out->codes = t;
        out->scales = scales;
    }
}

dz_rc dz_quantised_find(const dz_checkpoint *ck, dz_quantised *out, dz_error *err) {
    *out = (dz_quantised){0};
    for (size_t i = 0; i < ck->ntensors; i++) {
        if (!may_be_codes(ck, &ck->tensors[ck->by_name[i]])) continue;
        if (!out->part && !(out->part = dz_alloc(ck->ntensors, 1, err))) return err->rc;
        find_layer(ck, i, out);
    }
    if (out->nlayers == 0) dz_quantised_free(out);
    return DZ_OK;
}

void dz_quantised_free(dz_quantised *q) {
    free(q->part);
    *q = (dz_quantised){0};
}

dz_quantised_part dz_quantised_part_of(const dz_quantised *q, size_t tensor) {
    return q->part ? (dz_quantised_part)q->part[tensor] : DZ_NOT_QUANTISED;
}

int dz_quantised_has_layer(const dz_checkpoint *ck, const dz_quantised *q, const char *name) {
    size_t module = module_length(name), low = 0, high = ck->ntensors;
    if (!q->part) return 0;
    while (low < high) { /* the first name of the module, or where it would be */
        size_t mid = low + (high - low) / 2;
        if (strncmp(ck->tensors[ck->by_name[mid]].name, name, module) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    for (size_t i = low; i < ck->ntensors && i - low < AROUND; i++) {
        if (strncmp(ck->tensors[ck->by_name[i]].name, name, module) != 0) break;
        if (q->part[ck->by_name[i]] == DZ_QUANTISED_CODES) {
            dz_error none = {0};
            char *layer = dz_quantised_layer(ck->tensors[ck->by_name[i]].name, &none);
            int is = layer && strcmp(layer, name) == 0;
            free(layer);
            if (is) return 1;
        }
    }
    return 0;
}

char *dz_quantised_layer(const char *name, dz_error *err) {
    static const char BLOCKS[] = "_blocks", WEIGHT[] = ".weight";
    size_t module = module_length(name), len = strlen(name);
    const char *leaf = name + module;
    if (module > 0 && name[module - 1] == ':') return dz_strndup(name, module - 1, err);
    if (module > sizeof WEIGHT - 1 && strncmp(name + module - sizeof WEIGHT, WEIGHT, sizeof WEIGHT - 1) == 0)
        return dz_strndup(name, module - 1, err); /* "a.weight._data" */
    if (dz_ends_with(leaf, BLOCKS)) return dz_strndup(name, len - (sizeof BLOCKS - 1), err);
    return strstr(leaf, "weight") || strcmp(leaf, "W_q") == 0 || strcmp(leaf, "codes") == 0 || strcmp(leaf, "indices") == 0
               ? dz_format(err, "%.*sweight", (int)module, name)
               : dz_strdup(name, err);
}

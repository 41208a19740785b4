#include "plan/structure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "plan/role_internal.h"

/* A matrix below a numbered part of its name. */
typedef struct entry {
    uint64_t prefix; /* hash of the name up to the number: the place whose children are numbered */
    uint64_t group;  /* equal for matrices that do the same in blocks of the same kind */
    uint32_t tensor, number, place;
    uint8_t part;     /* of the name, in which the number is */
    uint8_t is_layer; /* nothing but a layer is below the number: "mlp.2.weight" */
    uint8_t in_word;  /* "layer_7", not "7" */
    uint8_t is_experts;
} entry;

/* A place of the model with numbered children. */
typedef struct numbered_place {
    uint64_t prefix;
    uint32_t children; /* highest number + 1 */
    uint8_t repeated;  /* its children are blocks */
} numbered_place;

/* A module with experts in it, by the hash of its name with the separator. */
typedef struct expert_parent {
    uint64_t hash, experts;
} expert_parent;

typedef struct finder {
    const dz_tensor *tensors;
    size_t n;
    dz_named *named;
    dz_tensor_role *roles;
    entry *entries;
    size_t nentries, entries_cap;
    numbered_place *places;
    size_t nplaces;
    expert_parent *experts;
    size_t nexperts, experts_cap;
} finder;

/* ---- words ------------------------------------------------------------------------------------------------------------------------- */

const char *dz_place_name(dz_place place) {
    static const char *const names[DZ_NPLACES] = {"body",       "vectors",   "matrices outside of repeated blocks",
                                                  "embeddings", "heads",     "norms",
                                                  "routers",    "positions", "depthwise kernels",
                                                  "tables"};
    return names[place];
}

int dz_part_projects(const dz_part *part) {
    return dz_part_has(part, "proj projection projector linear dense fc mlp attn attention layers lin");
}

int dz_leaf_is_weight(const dz_parts_of_name *name) {
    const dz_part *leaf = &name->part[name->n - 1];
    return leaf->number == DZ_NOT_NUMBERED && dz_part_is(leaf, "weight kernel w weight_v weight_g original");
}

size_t dz_own_part(const dz_parts_of_name *name) {
    size_t at = name->n - 1;
    if (!dz_leaf_is_weight(name) && !dz_part_is_number(&name->part[at])) return at;
    while (at > 0) {
        at--;
        if (!dz_part_is_number(&name->part[at])) return at;
    }
    return name->n - 1;
}

/* The part before `at` that is no number; `at` when there is none. */
static size_t parent_part(const dz_parts_of_name *name, size_t at) {
    for (size_t i = at; i-- > 0;) {
        if (!dz_part_is_number(&name->part[i])) return i;
    }
    return at;
}

static int is_embedding_word(const dz_part *part) {
    if (dz_part_projects(part)) return 0;
    return dz_part_contains(part, "embed") || dz_part_has(part, "wte wpe emb embs embd vocab codebook codebooks tokens");
}

static int is_position_word(const dz_part *part) {
    int relative = dz_part_has(part, "rel relative") && dz_part_has(part, "bias table pos position embedding embeddings");
    if (relative || dz_part_has(part, "rope rotary alibi")) return 1;
    return !dz_part_projects(part) && dz_part_has(part, "pos position positions positional");
}

static const char HEAD_WORDS[] = "head heads classifier classifiers logits";
static const char OUTPUT_WORDS[] = "predictor predictors prediction predictions score"; /* of a sequence of layers, not within blocks */
static const char TABLE_WORDS[] =
    "bias biases table token tokens scale shift gamma beta alpha log mask prompt prompts mean var std freq freqs lambda decay mu "
    "query_tokens latents sinks";

/* ---- blocks ------------------------------------------------------------------------------------------------------------------------ */

/* Hash of what follows a number in a name, other numbers left out. */
static uint64_t rest_hash(const char *text, uint64_t seed) {
    char rest[512];
    size_t n = 0;
    for (; *text && n < sizeof rest; text++) {
        if (*text >= '0' && *text <= '9') {
            if (n == 0 || rest[n - 1] != '#') rest[n++] = '#';
        } else {
            rest[n++] = *text;
        }
    }
    return dz_hash64(rest, n, seed);
}

static uint64_t shape_hash(const dz_tensor *t, uint64_t seed) { return dz_hash64(t->shape, t->ndim * sizeof t->shape[0], seed); }

/* Layers of recurrent networks have their number at the end: "lstm.weight_ih_l0". */
static int is_recurrent(const dz_part *leaf) { return dz_part_is(leaf, "weight_ih_l weight_hh_l weight_hr_l"); }

static dz_rc add_entry(finder *f, size_t tensor, size_t part, dz_error *err) {
    const dz_tensor *t = &f->tensors[tensor];
    const dz_parts_of_name *name = &f->named[tensor].name;
    const dz_part *it = &name->part[part], *holder = it;
    int last = part + 1 == name->n, in_word = it->len > 0;
    int is_layer = part + 2 == name->n && dz_leaf_is_weight(name);
    if ((last && !is_recurrent(it)) || (in_word && is_layer)) return DZ_OK; /* "fc1.weight" is no block */
    if (dz_grow((void **)&f->entries, &f->entries_cap, f->nentries + 1, sizeof *f->entries, err) != DZ_OK) return err->rc;
    size_t prefix_len = (size_t)(it->text - name->name) + it->len;
    const char *rest = it->text + it->len;
    while (*rest >= '0' && *rest <= '9') rest++;
    if (!in_word && part > 0) holder = &name->part[part - 1];
    entry e = {.prefix = dz_hash64(name->name, prefix_len, 0),
               .tensor = (uint32_t)tensor,
               .number = (uint32_t)it->number,
               .part = (uint8_t)part,
               .is_layer = (uint8_t)is_layer,
               .in_word = (uint8_t)in_word,
               .is_experts = (uint8_t)dz_part_contains(holder, "expert")};
    if (last || e.is_layer || in_word) /* the same place, the same shape */
        e.group = shape_hash(t, rest_hash(rest, e.prefix));
    else if (holder != it && holder->len) /* blocks of one name, wherever they are: attentions.3 of down_blocks.0 and of mid_block */
        e.group = rest_hash(rest, dz_hash64(holder->text, holder->len, 2));
    else
        e.group = rest_hash(rest, e.prefix);
    f->entries[f->nentries++] = e;
    return DZ_OK;
}

static dz_rc gather_entries(finder *f, dz_error *err) {
    for (size_t i = 0; i < f->n; i++) {
        const dz_parts_of_name *name = &f->named[i].name;
        for (size_t p = 0; p < name->n && f->roles[i].view.count; p++) {
            if (name->part[p].number >= 0 && add_entry(f, i, p, err) != DZ_OK) return err->rc;
        }
    }
    return DZ_OK;
}

static int compare_numbers(uint64_t a, uint64_t b) { return a < b ? -1 : a > b; }

static int by_place(const void *x, const void *y) {
    const entry *a = x, *b = y;
    int order = compare_numbers(a->prefix, b->prefix);
    if (order == 0) order = compare_numbers(a->number, b->number);
    return order ? order : compare_numbers(a->tensor, b->tensor);
}

static int by_group(const void *x, const void *y) {
    const entry *a = x, *b = y;
    int order = compare_numbers(a->group, b->group);
    return order ? order : by_place(x, y);
}

static int by_tensor(const void *x, const void *y) {
    const entry *a = x, *b = y;
    int order = compare_numbers(a->tensor, b->tensor);
    return order ? order : compare_numbers(a->part, b->part);
}

static void sort_entries(finder *f, int (*order)(const void *, const void *)) {
    if (f->nentries) qsort(f->entries, f->nentries, sizeof *f->entries, order);
}

static dz_rc number_places(finder *f, dz_error *err) {
    f->places = dz_alloc(f->nentries, sizeof *f->places, err);
    if (!f->places) return err->rc;
    sort_entries(f, by_place);
    for (size_t i = 0; i < f->nentries; i++) {
        entry *e = &f->entries[i];
        if (i == 0 || e->prefix != f->entries[i - 1].prefix) f->places[f->nplaces++].prefix = e->prefix;
        numbered_place *place = &f->places[f->nplaces - 1];
        e->place = (uint32_t)(f->nplaces - 1);
        if (e->number >= place->children) place->children = e->number + 1;
    }
    return DZ_OK;
}

/* Places where two children have a matrix that does the same. */
static void find_repeated(finder *f) {
    sort_entries(f, by_group);
    for (size_t i = 0, next; i < f->nentries; i = next) {
        int repeated = dz_part_contains(&f->named[f->entries[i].tensor].name.part[f->entries[i].part], "weight_"); /* recurrent */
        for (next = i + 1; next < f->nentries && f->entries[next].group == f->entries[i].group; next++)
            repeated |= f->entries[next].prefix != f->entries[i].prefix || f->entries[next].number != f->entries[i].number;
        for (size_t k = i; k < next && repeated; k++) f->places[f->entries[k].place].repeated = 1;
    }
}

static int is_called_block(const finder *f, const entry *e) {
    const dz_part *part = &f->named[e->tensor].name.part[e->part];
    return dz_part_is(e->in_word || e->part == 0 ? part : part - 1, "layers layer blocks block h resblocks stages");
}

/* A model of one block: a numbered child with several matrices in it, or called a block, and no blocks further down (those would be the
 * repeated ones). */
static void find_single(finder *f) {
    sort_entries(f, by_tensor);
    for (size_t i = f->nentries; i-- > 0;) { /* from the deepest number of a tensor on: `group` is used up, and tells of blocks below */
        entry *e = &f->entries[i];
        const entry *below = i + 1 < f->nentries && e[1].tensor == e->tensor ? &e[1] : NULL;
        e->group =
            below && (below->group || (f->places[below->place].repeated && !below->is_experts && !below->in_word && !below->is_layer));
    }
    sort_entries(f, by_place);
    for (size_t i = 0, next; i < f->nentries; i = next) {
        const entry *e = &f->entries[i];
        size_t matrices = 0, below = 0;
        for (next = i; next < f->nentries && f->entries[next].prefix == e->prefix && f->entries[next].number == e->number; next++) {
            matrices += !f->entries[next].is_layer && !f->entries[next].in_word;
            below += f->entries[next].group != 0;
        }
        if ((matrices >= 2 || (matrices && is_called_block(f, e))) && below == 0 && e->part > 0) f->places[e->place].repeated = 1;
    }
}

/* Number within the place, and within the place below it (blocks of stages), as a share of all. */
static double depth_of(const finder *f, const entry *outer, const entry *inner) {
    double children = f->places[outer->place].children;
    double below = inner ? (double)inner->number / f->places[inner->place].children : 0;
    return (outer->number + below) / children;
}

/* The block of each tensor is that of the first number that is one of blocks; numbers that are parts of words come last. */
static void choose_blocks(finder *f) {
    sort_entries(f, by_tensor);
    for (size_t i = 0, next; i < f->nentries; i = next) {
        const entry *outer = NULL, *inner = NULL;
        for (next = i; next < f->nentries && f->entries[next].tensor == f->entries[i].tensor; next++) {
            const entry *e = &f->entries[next];
            if (f->places[e->place].repeated && (!outer || e->in_word < outer->in_word)) outer = e;
        }
        for (size_t k = i; k < next && outer && !inner; k++) {
            const entry *e = &f->entries[k];
            int is_block = f->places[e->place].repeated && !e->in_word && !e->is_layer && !e->is_experts;
            if (is_block && e->part > outer->part) inner = e;
        }
        if (!outer) continue;
        dz_named *named = &f->named[outer->tensor];
        named->block = outer->in_word || outer->part == 0 ? outer->part : outer->part - 1U;
        named->family = outer->prefix;
        named->in_sequence = outer->is_layer;
        f->roles[outer->tensor].depth = depth_of(f, outer, inner);
    }
}

/* A vector is of the block whose place its name begins with: for the width that its norms tell. */
static int by_prefix(const void *x, const void *y) { return compare_numbers(*(const uint64_t *)x, ((const numbered_place *)y)->prefix); }

static void place_vectors(finder *f) {
    for (size_t i = 0; i < f->n; i++) {
        dz_named *named = &f->named[i];
        for (size_t p = 0; p + 1 < named->name.n && f->roles[i].view.count == 0 && named->block == SIZE_MAX; p++) {
            const dz_part *part = &named->name.part[p];
            if (part->number < 0 || !f->nplaces) continue;
            uint64_t prefix = dz_hash64(named->name.name, (size_t)(part->text - named->name.name) + part->len, 0);
            const numbered_place *place = bsearch(&prefix, f->places, f->nplaces, sizeof *f->places, by_prefix);
            if (!place || !place->repeated) continue;
            named->block = p;
            named->family = prefix;
        }
    }
}

/* ---- places ------------------------------------------------------------------------------------------------------------------------ */

static int by_parent(const void *x, const void *y) {
    const expert_parent *a = x, *b = y;
    return compare_numbers(a->hash, b->hash);
}

/* Modules that hold experts, and how many. */
static dz_rc find_experts(finder *f, dz_error *err) {
    for (size_t i = 0; i < f->n; i++) {
        const dz_parts_of_name *name = &f->named[i].name;
        for (size_t p = 0; p < name->n && f->roles[i].view.count; p++) {
            const dz_part *next = p + 1 < name->n ? &name->part[p + 1] : NULL;
            if (!dz_part_contains(&name->part[p], "expert") || dz_part_contains(&name->part[p], "shared")) continue;
            if (dz_grow((void **)&f->experts, &f->experts_cap, f->nexperts + 1, sizeof *f->experts, err) != DZ_OK) return err->rc;
            uint64_t count = next && next->number >= 0 ? (uint64_t)next->number + 1 : f->roles[i].view.count;
            f->experts[f->nexperts++] =
                (expert_parent){.hash = dz_hash64(name->name, (size_t)(name->part[p].text - name->name), 0), .experts = count};
            break;
        }
    }
    if (f->nexperts) qsort(f->experts, f->nexperts, sizeof *f->experts, by_parent);
    size_t kept = 0;
    for (size_t i = 0; i < f->nexperts; i++) {
        if (kept == 0 || f->experts[kept - 1].hash != f->experts[i].hash)
            f->experts[kept++] = f->experts[i];
        else if (f->experts[i].experts > f->experts[kept - 1].experts)
            f->experts[kept - 1].experts = f->experts[i].experts;
    }
    f->nexperts = kept;
    return DZ_OK;
}

/* A router gives one number for each expert, and is in the module that holds them. */
static int is_router(const finder *f, size_t i, size_t own) {
    const dz_parts_of_name *name = &f->named[i].name;
    const dz_matrix_view *v = &f->roles[i].view;
    for (size_t p = f->named[i].block; p <= own; p++) {
        if (dz_part_has(&name->part[p], p == own ? "router routers gating" : "router routers")) return 1;
    }
    if (dz_part_contains(&name->part[own], "expert")) return dz_part_has(&name->part[own], "gate") && !dz_part_projects(&name->part[own]);
    const expert_parent wanted = {.hash = dz_hash64(name->name, (size_t)(name->part[own].text - name->name), 0)};
    const expert_parent *parent = f->nexperts ? bsearch(&wanted, f->experts, f->nexperts, sizeof wanted, by_parent) : NULL;
    if (!parent) return 0;
    return dz_part_is(&name->part[own], "gate wg") ||
           (v->count == 1 && parent->experts > 1 && v->rows == parent->experts && v->rows < v->cols);
}

static int is_head(const dz_parts_of_name *name, size_t first, size_t own, int in_block) {
    for (size_t p = 0; p <= own; p++) {
        if (dz_part_contains(&name->part[p], "attn") || dz_part_contains(&name->part[p], "attention")) return 0;
    }
    for (size_t p = first; p <= own; p++) {
        if (dz_part_has(&name->part[p], HEAD_WORDS) || (!in_block && dz_part_has(&name->part[p], OUTPUT_WORDS))) return 1;
    }
    return 0;
}

#define TINY_KERNEL 256 /* elements of a depthwise kernel */

static int is_depthwise(const dz_tensor *t) {
    return t->ndim > 2 && t->shape[1] == 1 && t->shape[0] > 1 && t->count / t->shape[0] <= TINY_KERNEL;
}

/* An embedding of patches takes an image or a latent; of more channels it takes the features of a stage before it. */
#define IMAGE_CHANNELS 16

static int is_between_stages(const finder *f, size_t i) {
    const dz_tensor *t = &f->tensors[i];
    return f->named[i].block != SIZE_MAX && t->ndim > 2 && t->shape[1] > IMAGE_CHANNELS && f->roles[i].view.count == 1;
}

/* What a layer's own name, and that of what it is part of, say. `first`: part from which on names are of the block. */
static dz_place place_by_name(const finder *f, size_t i, size_t first) {
    const dz_parts_of_name *name = &f->named[i].name;
    size_t own = dz_own_part(name), up = parent_part(name, own);
    const dz_part *layer = &name->part[own];
    if (dz_part_contains(layer, "norm") || dz_part_has(layer, "ln bn")) {
        if (!dz_part_projects(layer)) return DZ_PLACE_NORM;
    }
    if (is_position_word(layer)) return DZ_PLACE_POSITION;
    int embeds = !is_between_stages(f, i);
    if (embeds && own >= first && is_embedding_word(layer)) return DZ_PLACE_EMBEDDING;
    int generic = dz_part_is(layer, "proj projection conv convolution linear dense patch_proj");
    if (embeds && generic && up != own && up >= first && is_embedding_word(&name->part[up])) return DZ_PLACE_EMBEDDING;
    if (f->named[i].block != SIZE_MAX && is_router(f, i, own)) return DZ_PLACE_ROUTER;
    if (is_head(name, first, own, f->named[i].block != SIZE_MAX && !f->named[i].in_sequence)) return DZ_PLACE_HEAD;
    if (!dz_leaf_is_weight(name) && !is_recurrent(layer) && !dz_part_has(layer, "weight") && dz_part_has(layer, TABLE_WORDS))
        return DZ_PLACE_TABLE;
    return DZ_PLACE_BODY;
}

static dz_place place_of(const finder *f, size_t i) {
    const dz_named *named = &f->named[i];
    if (f->roles[i].view.count == 0) return DZ_PLACE_VECTOR;
    if (is_depthwise(&f->tensors[i])) return DZ_PLACE_DEPTHWISE;
    size_t first = named->block == SIZE_MAX || named->in_sequence ? 0 : named->block;
    dz_place place = place_by_name(f, i, first);
    return place == DZ_PLACE_BODY && named->block == SIZE_MAX ? DZ_PLACE_OUTSIDE : place;
}

#define TOKENS 4096 /* rows of a vocabulary, at least; and twice as many rows as columns */

static int has_tokens(const dz_tensor *t) {
    return t->ndim == 2 && dz_dtype_is_float(t->dtype) && t->shape[0] >= TOKENS && t->shape[0] >= 2 * t->shape[1];
}

#define VOCABULARIES 8 /* shapes of them in one model, at most */

/* Embeddings of tokens, and heads that have the shape of one: a classifier's head is no vocabulary's. */
static void find_vocabulary(const finder *f) {
    const dz_tensor *found[VOCABULARIES];
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++) {
        f->roles[i].vocabulary = f->roles[i].place == DZ_PLACE_EMBEDDING && has_tokens(&f->tensors[i]);
        int known = !f->roles[i].vocabulary;
        for (size_t k = 0; k < n; k++) known |= dz_same_shape(found[k], &f->tensors[i]);
        if (!known && n < VOCABULARIES) found[n++] = &f->tensors[i];
    }
    for (size_t i = 0; i < f->n; i++) {
        for (size_t k = 0; k < n && f->roles[i].place == DZ_PLACE_HEAD; k++)
            f->roles[i].vocabulary |= dz_same_shape(found[k], &f->tensors[i]) && has_tokens(&f->tensors[i]);
    }
}

dz_rc dz_roles_make(const dz_tensor *tensors, size_t n, dz_tensor_role **out, dz_error *err) {
    finder f = {.tensors = tensors, .n = n};
    f.named = dz_alloc(n, sizeof *f.named, err);
    f.roles = dz_alloc(n, sizeof *f.roles, err);
    if (err->rc != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) {
        dz_name_split(tensors[i].name, &f.named[i].name);
        f.named[i].block = SIZE_MAX;
        f.roles[i] = (dz_tensor_role){.depth = (double)NAN, .view = dz_view_of_shape(&tensors[i], &f.named[i].name)};
    }
    if (gather_entries(&f, err) != DZ_OK || number_places(&f, err) != DZ_OK) goto out;
    find_repeated(&f);
    find_single(&f);
    choose_blocks(&f);
    place_vectors(&f);
    if (find_experts(&f, err) != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) {
        f.roles[i].place = place_of(&f, i);
        if (f.roles[i].place == DZ_PLACE_BODY) f.roles[i].kind = dz_kind_of(&tensors[i], &f.named[i], &f.roles[i].view);
    }
    if (dz_orient_views(tensors, f.named, n, f.roles, err) != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) {
        if (f.roles[i].place == DZ_PLACE_BODY)
            f.roles[i].kind = dz_kind_of(&tensors[i], &f.named[i], &f.roles[i].view); /* once more: tall and wide are known now */
        if (f.roles[i].view.count == 0) f.roles[i].view = (dz_matrix_view){.count = 1, .rows = tensors[i].count, .cols = 1};
    }
    find_vocabulary(&f);
    *out = f.roles;
    f.roles = NULL;
out:
    free(f.named);
    free(f.roles);
    free(f.entries);
    free(f.places);
    free(f.experts);
    return err->rc;
}

#include "plan/match.h"

#include <stdlib.h>
#include <string.h>

#define PREFIXES(X)                                                                                                                        \
    X("base_model.")                                                                                                                       \
    X("model.")                                                                                                                            \
    X("module.")                                                                                                                           \
    X("_orig_mod.") X("transformer.") X("language_model.") X("gpt_neox.") X("bert.") X("roberta.") X("distilbert.") X("backbone.")

#define AS_ENTRY(text) text,
#define AS_TEXT(text) text " "
static const char *const prefixes[] = {PREFIXES(AS_ENTRY)};
const char DZ_MATCH_PREFIXES[] = PREFIXES(AS_TEXT);

/* Bare names. */
static const char *const heads[] = {"lm_head.weight", "embed_out.weight", "lm_head.decoder.weight", "cls.predictions.decoder.weight"};
static const char *const embeddings[] = {
    "embed_tokens.weight", "decoder.embed_tokens.weight",       "wte.weight",   "word_embeddings.weight",
    "embed_in.weight",     "embeddings.word_embeddings.weight", "shared.weight"};

const char *dz_bare_name(const char *name) {
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        size_t len = strlen(prefixes[i]);
        if (strncmp(name, prefixes[i], len) == 0 && name[len]) return dz_bare_name(name + len);
    }
    return name;
}

const char *dz_match_name(dz_match how) {
    static const char *const names[] = {"none", "name", "prefix", "head"};
    return names[how];
}

static int by_bare_name(const void *x, const void *y, void *arg) {
    const dz_tensor *t = arg;
    return strcmp(dz_bare_name(t[*(const uint32_t *)x].name), dz_bare_name(t[*(const uint32_t *)y].name));
}

dz_rc dz_matcher_init(dz_matcher *m, const dz_checkpoint *base, dz_error *err) {
    *m = (dz_matcher){.base = base, .by_bare = dz_alloc(base->ntensors, sizeof *m->by_bare, err)};
    if (!m->by_bare) return err->rc;
    for (size_t i = 0; i < base->ntensors; i++) m->by_bare[i] = (uint32_t)i;
    qsort_r(m->by_bare, base->ntensors, sizeof *m->by_bare, by_bare_name, base->tensors);
    return DZ_OK;
}

void dz_matcher_free(dz_matcher *m) {
    free(m->by_bare);
    m->by_bare = NULL;
}

#define NO_SUCH (-1)
#define SEVERAL (-2)

/* The only tensor of this bare name, or why there is none. */
static int64_t find_bare(const dz_matcher *m, const char *bare) {
    const dz_tensor *t = m->base->tensors;
    size_t low = 0, high = m->base->ntensors, n = high;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(dz_bare_name(t[m->by_bare[mid]].name), bare) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == n || strcmp(dz_bare_name(t[m->by_bare[low]].name), bare) != 0) return NO_SUCH;
    if (low + 1 < n && strcmp(dz_bare_name(t[m->by_bare[low + 1]].name), bare) == 0) return SEVERAL;
    return m->by_bare[low];
}

int dz_comparable(const dz_tensor *task, const dz_tensor *base) {
    if (task->dtype == base->dtype) return task->dtype != DZ_OPAQUE || strcmp(task->dtype_name, base->dtype_name) == 0;
    return dz_dtype_is_float(task->dtype) && dz_dtype_is_float(base->dtype);
}

uint64_t dz_common_elements(const dz_tensor *task, const dz_tensor *base) {
    if (!dz_comparable(task, base)) return 0;
    if (dz_same_shape(task, base)) return task->count;
    if (task->ndim != base->ndim || task->ndim < 2) return 0;
    if (memcmp(task->shape + 1, base->shape + 1, (task->ndim - 1) * sizeof task->shape[0]) != 0) return 0;
    return task->count < base->count ? task->count : base->count;
}

static int is_among(const char *bare, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], bare) == 0) return 1;
    }
    return 0;
}

static int is_head(const char *bare) { return is_among(bare, heads, sizeof heads / sizeof *heads); }

int dz_is_vocabulary(const char *bare) { return is_head(bare) || is_among(bare, embeddings, sizeof embeddings / sizeof *embeddings); }

int64_t dz_matcher_find(const dz_matcher *m, const dz_tensor *task, dz_match *how) {
    int64_t found = dz_checkpoint_find(m->base, task->name);
    const char *bare = dz_bare_name(task->name);
    *how = DZ_MATCH_NAME;
    if (found >= 0) return found;
    *how = DZ_MATCH_PREFIX;
    if ((found = find_bare(m, bare)) >= 0 && dz_common_elements(task, &m->base->tensors[found]) > 0) return found;
    *how = DZ_MATCH_HEAD;
    for (size_t e = 0; e < sizeof embeddings / sizeof *embeddings && found == NO_SUCH && is_head(bare); e++) {
        int64_t embedding = find_bare(m, embeddings[e]);
        if (embedding >= 0 && dz_common_elements(task, &m->base->tensors[embedding]) > 0) return embedding;
    }
    *how = DZ_MATCH_NONE;
    return -1;
}

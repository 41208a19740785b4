#include "plan/match.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "plan/name_parts.h"

/* ---- names ------------------------------------------------------------------------------------------------------------------------- */

static const char *const prefixes[] = {"base_model.", "model.", "module.",  "_orig_mod.",  "transformer.", "language_model.",
                                       "gpt_neox.",   "bert.",  "roberta.", "distilbert.", "backbone."};
static const char *const vocabularies[] = {"lm_head.weight",
                                           "embed_out.weight",
                                           "lm_head.decoder.weight",
                                           "cls.predictions.decoder.weight",
                                           "embed_tokens.weight",
                                           "decoder.embed_tokens.weight",
                                           "wte.weight",
                                           "word_embeddings.weight",
                                           "embed_in.weight",
                                           "embeddings.word_embeddings.weight",
                                           "shared.weight"};

const char *dz_bare_name(const char *name) {
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        size_t len = strlen(prefixes[i]);
        if (strncmp(name, prefixes[i], len) == 0 && name[len]) return dz_bare_name(name + len);
    }
    return name;
}

int dz_is_vocabulary(const char *bare) {
    for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; i++) {
        if (strcmp(vocabularies[i], bare) == 0) return 1;
    }
    return 0;
}

const char *dz_match_name(dz_match how) {
    static const char *const names[] = {"none", "name", "prefix", "head"};
    return names[how];
}

static int is_part(const char *at, size_t len, const char *word) { return strlen(word) == len && memcmp(at, word, len) == 0; }

/* How many parts from here on are there for a wrapper: 0 for a part of the model. */
static int wrapper_parts(const char *at, size_t len, int leading) {
    if (is_part(at, len, "modules_to_save") && at[len] == '.') return 2; /* with the adapter's name */
    if (leading && is_part(at, len, "module")) return 1;
    return is_part(at, len, "_orig_mod") || is_part(at, len, "base_layer") || is_part(at, len, "original_module") ||
           is_part(at, len, "_fsdp_wrapped_module") || is_part(at, len, "_checkpoint_wrapped_module");
}

/* The last part as it is compared. */
static const char *plain_leaf(const dz_tensor *t, const char *leaf) {
    if (t->ndim == 1 && strcmp(leaf, "gamma") == 0) return "weight";
    if (t->ndim == 1 && strcmp(leaf, "beta") == 0) return "bias";
    return leaf;
}

const char *dz_plain_name(const dz_tensor *t, char text[DZ_PLAIN_NAME]) {
    static const char NORM0[] = ".parametrizations.weight.original0", NORM1[] = ".parametrizations.weight.original1";
    size_t n = 0, len = strlen(t->name), cut = sizeof NORM0 - 1;
    if (len >= DZ_PLAIN_NAME) return t->name;
    for (const char *at = t->name; *at;) {
        size_t part = strcspn(at, ".");
        int skipped = at[part] ? wrapper_parts(at, part, n == 0) : 0;
        for (; skipped > 0 && at[part]; skipped--) {
            at += part + 1;
            part = strcspn(at, ".");
        }
        if (at[part] && wrapper_parts(at, part, n == 0)) continue;
        const char *from = at[part] ? at : plain_leaf(t, at);
        size_t from_len = at[part] ? part + 1 : strlen(from); /* weight for gamma: one letter longer, and below checked */
        if (n + from_len >= DZ_PLAIN_NAME) return t->name;
        memcpy(text + n, from, from_len);
        n += from_len;
        at += part + (at[part] != 0);
    }
    text[n] = '\0';
    if (n > cut && strcmp(text + n - cut, NORM0) == 0) memcpy(text + n - cut, ".weight_g", sizeof ".weight_g");
    if (n > cut && strcmp(text + n - cut, NORM1) == 0) memcpy(text + n - cut, ".weight_v", sizeof ".weight_v");
    return n ? text : t->name;
}

/* ---- types and shapes -------------------------------------------------------------------------------------------------------------- */

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

/* The same for tensors that have common elements: all dimensions of a vector, those beyond the first of others. */
static uint64_t hash_shape(const dz_tensor *t) {
    uint32_t from = t->ndim < 2 ? 0 : 1;
    return dz_hash64(t->shape + from, (t->ndim - from) * sizeof t->shape[0], t->ndim);
}

/* ---- the base ---------------------------------------------------------------------------------------------------------------------- */

typedef struct hashed {
    uint64_t hash;
    uint32_t tensor;
} hashed;

/* Two prefixes of names: the one in the task is the other in the base. */
typedef struct renaming {
    char *of_task, *of_base;
    size_t votes; /* tensors of the sample that agree under it */
    int numbered; /* what follows them has numbered blocks */
} renaming;

struct dz_matcher {
    const dz_checkpoint *base;
    const dz_tensor_role *roles;
    hashed *plain; /* [base tensors] by the hash of their plain names */
    hashed *ends;  /* by the hash of each end of a plain name that begins with a part, and of the shape */
    size_t nends, ends_cap;
    int has_ends;
    renaming *found; /* for the current task, most votes first */
    size_t nfound, found_cap;
};

static int by_hash(const void *x, const void *y) {
    const hashed *a = x, *b = y;
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    return a->tensor < b->tensor ? -1 : a->tensor > b->tensor;
}

/* The first entry of a hash, or where it would be. */
static size_t first_of(const hashed *list, size_t n, uint64_t hash) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (list[mid].hash < hash)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static uint64_t hash_text(const char *text) { return dz_hash64(text, strlen(text), 0); }

dz_rc dz_matcher_make(const dz_checkpoint *base, const dz_tensor_role *roles, dz_matcher **out, dz_error *err) {
    char text[DZ_PLAIN_NAME];
    dz_matcher *m = dz_alloc(1, sizeof *m, err);
    if (!m) return err->rc;
    *m = (dz_matcher){.base = base, .roles = roles, .plain = dz_alloc(base->ntensors, sizeof *m->plain, err)};
    if (!m->plain) {
        dz_matcher_free(m);
        return err->rc;
    }
    for (size_t i = 0; i < base->ntensors; i++)
        m->plain[i] = (hashed){.hash = hash_text(dz_plain_name(&base->tensors[i], text)), .tensor = (uint32_t)i};
    if (base->ntensors) qsort(m->plain, base->ntensors, sizeof *m->plain, by_hash);
    *out = m;
    return DZ_OK;
}

static void forget_renamings(dz_matcher *m) {
    for (size_t i = 0; i < m->nfound; i++) {
        free(m->found[i].of_task);
        free(m->found[i].of_base);
    }
    m->nfound = 0;
}

void dz_matcher_free(dz_matcher *m) {
    if (!m) return;
    forget_renamings(m);
    free(m->found);
    free(m->plain);
    free(m->ends);
    free(m);
}

/* ---- prefixes under which names agree ---------------------------------------------------------------------------------------------- */

#define SAMPLE 256     /* tensors that are asked for their prefixes at a time */
#define ROUNDS 4       /* of asking those that are still left */
#define MOST_CHOICES 8 /* base tensors of one end: of more it is no help */

/* The next end of a name, which begins with a part; NULL after the last that has two. */
static const char *next_end(const char *end) {
    const char *dot = strchr(end, '.');
    return dot && strchr(dot + 1, '.') ? dot + 1 : NULL;
}

/* The base's ends, when they are needed for the first time. */
static dz_rc list_ends(dz_matcher *m, dz_error *err) {
    char text[DZ_PLAIN_NAME];
    if (m->has_ends) return DZ_OK;
    for (size_t i = 0; i < m->base->ntensors; i++) {
        uint64_t seed = hash_shape(&m->base->tensors[i]);
        for (const char *end = dz_plain_name(&m->base->tensors[i], text); end; end = next_end(end)) {
            if (dz_grow((void **)&m->ends, &m->ends_cap, m->nends + 1, sizeof *m->ends, err) != DZ_OK) return err->rc;
            m->ends[m->nends++] = (hashed){.hash = dz_hash64(end, strlen(end), seed), .tensor = (uint32_t)i};
        }
    }
    if (m->nends) qsort(m->ends, m->nends, sizeof *m->ends, by_hash);
    m->has_ends = 1;
    return DZ_OK;
}

static int has_number(const char *end) {
    dz_parts_of_name parts;
    dz_name_split(end, &parts);
    for (size_t i = 0; i < parts.n; i++) {
        if (dz_part_is_number(&parts.part[i])) return 1;
    }
    return 0;
}

/* One vote for the two beginnings of these lengths. */
static dz_rc vote(dz_matcher *m, const char *task, size_t task_len, const char *base, size_t base_len, int numbered, dz_error *err) {
    for (size_t i = 0; i < m->nfound; i++) {
        renaming *r = &m->found[i];
        if (strlen(r->of_task) != task_len || strlen(r->of_base) != base_len) continue;
        if (memcmp(r->of_task, task, task_len) != 0 || memcmp(r->of_base, base, base_len) != 0) continue;
        r->votes++;
        r->numbered |= numbered;
        return DZ_OK;
    }
    if (dz_grow((void **)&m->found, &m->found_cap, m->nfound + 1, sizeof *m->found, err) != DZ_OK) return err->rc;
    renaming *r = &m->found[m->nfound++];
    *r = (renaming){.of_task = dz_format(err, "%.*s", (int)task_len, task), .of_base = dz_format(err, "%.*s", (int)base_len, base)};
    r->votes = 1;
    r->numbered = numbered;
    return err->rc;
}

/* The longest end of the tensor's name that the base has with this shape votes for what is before it, here and there. */
static dz_rc ask(dz_matcher *m, const dz_tensor *t, dz_error *err) {
    char text[DZ_PLAIN_NAME], other[DZ_PLAIN_NAME];
    uint64_t seed = hash_shape(t);
    const char *name = dz_plain_name(t, text);
    for (const char *end = name; end; end = next_end(end)) {
        size_t len = strlen(end);
        uint64_t hash = dz_hash64(end, len, seed);
        size_t first = first_of(m->ends, m->nends, hash), n = 0;
        while (first + n < m->nends && m->ends[first + n].hash == hash) n++;
        if (n == 0) continue;
        int numbered = has_number(end);
        for (size_t i = 0; i < n && n <= MOST_CHOICES; i++) {
            const dz_tensor *b = &m->base->tensors[m->ends[first + i].tensor];
            const char *plain = dz_plain_name(b, other);
            if (!dz_comparable(t, b)) continue;
            if (vote(m, name, (size_t)(end - name), plain, strlen(plain) - len, numbered, err) != DZ_OK) return err->rc;
        }
        return DZ_OK;
    }
    return DZ_OK;
}

static int by_votes(const void *x, const void *y) {
    const renaming *a = x, *b = y;
    if (a->votes != b->votes) return a->votes > b->votes ? -1 : 1;
    int order = strcmp(a->of_task, b->of_task);
    return order ? order : strcmp(a->of_base, b->of_base);
}

/* Prefixes for the tensors that have no base yet: those that a fifth of them agree on, and that either only one side has, or that come
 * before numbered blocks. "classifier." for "pooler." of two dense layers is not enough. */
static dz_rc find_renamings(dz_matcher *m, const dz_checkpoint *task, const int64_t *base_of, dz_error *err) {
    size_t left = 0, asked = 0, seen = 0, kept = 0;
    forget_renamings(m);
    if (list_ends(m, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < task->ntensors; i++) left += base_of[i] < 0;
    size_t every = left / SAMPLE + 1;
    for (size_t i = 0; i < task->ntensors; i++) {
        if (base_of[i] >= 0 || seen++ % every != 0) continue;
        asked++;
        if (ask(m, &task->tensors[i], err) != DZ_OK) return err->rc;
    }
    for (size_t i = 0; i < m->nfound; i++) {
        renaming r = m->found[i];
        if (5 * r.votes >= asked && (r.numbered || !r.of_task[0] || !r.of_base[0])) {
            m->found[i] = m->found[kept];
            m->found[kept++] = r;
        }
    }
    for (size_t i = kept; i < m->nfound; i++) {
        free(m->found[i].of_task);
        free(m->found[i].of_base);
    }
    m->nfound = kept;
    if (kept) qsort(m->found, kept, sizeof *m->found, by_votes);
    return DZ_OK;
}

#define NO_SUCH (-1)
#define SEVERAL (-2)

/* The only base tensor of a plain name. */
static int64_t find_plain(const dz_matcher *m, const char *plain) {
    uint64_t hash = hash_text(plain);
    size_t n = m->base->ntensors, at = first_of(m->plain, n, hash);
    if (at == n || m->plain[at].hash != hash) return NO_SUCH;
    return at + 1 < n && m->plain[at + 1].hash == hash ? SEVERAL : (int64_t)m->plain[at].tensor;
}

/* By the renamings; none when two that have as many votes lead to different tensors. */
static int64_t find_renamed(const dz_matcher *m, const dz_tensor *t) {
    char text[DZ_PLAIN_NAME], other[2 * DZ_PLAIN_NAME];
    const char *name = dz_plain_name(t, text);
    int64_t best = NO_SUCH;
    size_t votes = 0;
    for (size_t i = 0; i < m->nfound && (best < 0 || m->found[i].votes == votes); i++) {
        const renaming *r = &m->found[i];
        size_t len = strlen(r->of_task);
        if (strncmp(name, r->of_task, len) != 0 || strlen(r->of_base) + strlen(name) >= sizeof other) continue;
        stpcpy(stpcpy(other, r->of_base), name + len);
        int64_t found = find_plain(m, other);
        if (found < 0 || found == best || dz_common_elements(t, &m->base->tensors[found]) == 0) continue;
        if (best >= 0) return SEVERAL;
        best = found;
        votes = r->votes;
    }
    return best;
}

/* ---- a task ------------------------------------------------------------------------------------------------------------------------ */

/* The base's token embedding for an output head: the largest that the head's rows fit on. */
static int64_t find_embedding(const dz_matcher *m, const dz_tensor *t) {
    dz_parts_of_name name;
    int64_t best = NO_SUCH;
    uint64_t most = t->count / 2;
    int named = 0;
    if (t->ndim != 2 || !dz_dtype_is_float(t->dtype)) return NO_SUCH;
    dz_name_split(t->name, &name);
    for (size_t i = 0; i + 1 < name.n; i++) named |= dz_part_has(&name.part[i], "head decoder output out logits");
    for (size_t b = 0; b < m->base->ntensors && named; b++) {
        if (m->roles[b].place != DZ_PLACE_EMBEDDING || m->base->tensors[b].ndim != 2) continue;
        uint64_t common = dz_common_elements(t, &m->base->tensors[b]);
        if (common <= most || common <= m->base->tensors[b].count / 2) continue;
        most = common;
        best = (int64_t)b;
    }
    return best;
}

/* By plain names: found[i] only where the base's tensor fits. */
static size_t match_plain(const dz_matcher *m, const dz_checkpoint *task, int64_t *base_of, dz_match *how) {
    char text[DZ_PLAIN_NAME];
    size_t left = 0;
    for (size_t i = 0; i < task->ntensors; i++) {
        if (base_of[i] >= 0) continue;
        int64_t found = find_plain(m, dz_plain_name(&task->tensors[i], text));
        if (found >= 0 && dz_common_elements(&task->tensors[i], &m->base->tensors[found]) > 0) {
            base_of[i] = found;
            how[i] = DZ_MATCH_PREFIX;
        }
        left += base_of[i] < 0;
    }
    return left;
}

dz_rc dz_matcher_task(dz_matcher *m, const dz_checkpoint *task, int64_t *base_of, dz_match *how, dz_error *err) {
    size_t left = 0;
    for (size_t i = 0; i < task->ntensors; i++) {
        base_of[i] = dz_checkpoint_find(m->base, task->tensors[i].name);
        how[i] = base_of[i] >= 0 ? DZ_MATCH_NAME : DZ_MATCH_NONE;
        left += base_of[i] < 0;
    }
    if (left) left = match_plain(m, task, base_of, how);
    for (int round = 0; round < ROUNDS && left; round++) {
        size_t before = left;
        if (find_renamings(m, task, base_of, err) != DZ_OK) return err->rc;
        for (size_t i = 0; i < task->ntensors && m->nfound; i++) {
            if (base_of[i] >= 0) continue;
            int64_t found = find_renamed(m, &task->tensors[i]);
            if (found < 0) continue;
            base_of[i] = found;
            how[i] = DZ_MATCH_PREFIX;
            left--;
        }
        if (left == before) break;
    }
    for (size_t i = 0; i < task->ntensors && left; i++) {
        if (base_of[i] >= 0 || (base_of[i] = find_embedding(m, &task->tensors[i])) < 0) continue;
        how[i] = DZ_MATCH_HEAD;
    }
    return err->rc;
}

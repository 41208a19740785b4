#include "plan/pairs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/notes.h"
#include "checkpoint/folder_model.h"
#include "checkpoint/fp8_scale.h"
#include "plan/name_parts.h"

/* Tensors of a task with the same note: how many, and the first. */
typedef struct gathered {
    size_t n;
    const char *first, *other; /* names: of the first, and of its partner */
} gathered;

/* A task while its tensors are matched. */
typedef struct matching {
    dz_plan *plan;
    dz_matcher *matcher;
    int64_t *base_of; /* [its tensors] as the matcher says */
    dz_match *how;
    const dz_recipe *recipe;
    const dz_checkpoint *ck;
    const char *name;
    size_t task;
    uint8_t *unmatched; /* [tasks] or NULL */
    uint8_t *met;       /* [base tensors] matched with a tensor of the task */
    int has_scales, base_has_scales;
    size_t lossy_added, lossy_scaled; /* under a lossy rule: not in the base; of an F8 pair */
    dz_quantised quantised;           /* of the task */
    gathered added, integers, over_scaled, over_quantised, renamed, tied, unlike;
} matching;

static void gather(gathered *g, const char *first, const char *other) {
    if (g->n++ == 0) *g = (gathered){.n = 1, .first = first, .other = other};
}

/* "tensor 'a'", "3 tensors ('a', ...)". */
#define SUBJECT_TEXT 512
static const char *subject(const gathered *g, char text[SUBJECT_TEXT]) {
    if (g->n == 1)
        snprintf(text, SUBJECT_TEXT, "tensor '%.400s'", g->first);
    else
        snprintf(text, SUBJECT_TEXT, "%zu tensors ('%.400s', ...)", g->n, g->first);
    return text;
}

static const char *is_or_are(const gathered *g) { return g->n == 1 ? "is" : "are"; }

/* The codes of a block-scaled F8 tensor are not its values: one of a pair that is scaled, and one that is not, have nothing in common. Two
 * of F8 of which one has lost its scales are a fault. */
static int scaled_alone(const matching *m, const dz_tensor *t, const dz_tensor *b, dz_error *err) {
    const dz_tensor *mine = dz_f8_scales(m->ck, t), *theirs = dz_f8_scales(m->plan->base, b);
    if (!mine == !theirs) return 0;
    int lost_all = !(mine ? m->base_has_scales : m->has_scales); /* missing single scales are reported by dz_check_scales */
    if (lost_all && dz_dtype_is_f8(t->dtype) && dz_dtype_is_f8(b->dtype)) {
        const dz_checkpoint *lacks = mine ? m->plan->base : m->ck;
        dz_fail_more(err, DZ_EFAIL, "%s: tensor '%s': fp8 scale missing: the %s '%s' has '%s'", lacks->shards[(mine ? b : t)->shard].path,
                     (mine ? b : t)->name, mine ? "task's" : "base's", (mine ? t : b)->name, (mine ? mine : theirs)->name);
    }
    return 1;
}

/* A rule that needs the base's tensor, and one of another shape or type in its place. */
static void refuse_misfit(const matching *m, const dz_tensor_pair *pair, const dz_tensor *t, const dz_tensor *b, dz_error *err) {
    char mine[DZ_SHAPE_TEXT], theirs[DZ_SHAPE_TEXT];
    dz_fail_more(err, DZ_EFAIL, "%s: task '%s': tensor '%s' is %s %s, but %s %s in the base: its rule (%s) needs a base of the same %s",
                 m->ck->path, m->name, t->name, t->dtype_name, dz_shape_text(t, mine), b->dtype_name, dz_shape_text(b, theirs),
                 dz_policy_name(pair->policy), dz_comparable(t, b) ? "shape" : "type, or both of float types");
}

static void note_rows(const matching *m, const dz_tensor *t, const dz_tensor *b, uint64_t common, dz_error *err) {
    char mine[DZ_SHAPE_TEXT], theirs[DZ_SHAPE_TEXT];
    if ((common == t->count && common == b->count) || t->count == 0) return;
    dz_buf_note(&m->plan->notes, err, "task '%s': tensor '%s' is %s %s, %s %s in the base: %s", m->name, t->name, t->dtype_name,
                dz_shape_text(t, mine), b->dtype_name, dz_shape_text(b, theirs),
                common == 0         ? "kept exactly, without the base"
                : common < t->count ? "the rows beyond the base's are kept exactly"
                                    : "the base's other rows are not needed");
}

/* What the rule says of a tensor, and of `structure` what its base's place in the model says. */
static void set_policy(const matching *m, dz_tensor_pair *pair, const char *name) {
    const dz_rule *rule = dz_recipe_rule(m->recipe, name);
    pair->policy = rule ? rule->policy : DZ_POLICY_LOSSLESS;
    pair->by_structure = pair->policy == DZ_POLICY_STRUCTURE;
    pair->bits = rule && rule->bits ? rule->bits : m->recipe->bits;
    pair->sparsity = rule ? rule->sparsity : (double)NAN;
    pair->factor = rule ? rule->factor : 1;
    pair->vocabulary = pair->base >= 0 && m->plan->roles[pair->base].vocabulary;
    if (!pair->by_structure) return;
    int of_body = pair->base >= 0 && m->plan->roles[pair->base].place == DZ_PLACE_BODY;
    pair->policy = of_body || (pair->vocabulary && dz_recipe_codes_vocabulary(m->recipe)) ? DZ_POLICY_ULTRADELTA : DZ_POLICY_LOSSLESS;
}

/* A tensor of a quantised layer, here or in the base. It is exact, and one note speaks of all of them. */
static int of_quantised(matching *m, const dz_tensor_pair *pair, const dz_tensor *t) {
    const dz_plan *p = m->plan;
    if (dz_quantised_part_of(&m->quantised, pair->tensor)) return 1;
    int in_base = pair->base >= 0 ? dz_quantised_part_of(&p->quantised, (size_t)pair->base) != DZ_NOT_QUANTISED
                                  : dz_quantised_has_layer(p->base, &p->quantised, t->name);
    if (in_base) gather(&m->over_quantised, t->name, NULL);
    return in_base;
}

/* The pair of tensor number `pair->tensor`. */
static void match(matching *m, dz_tensor_pair *pair, dz_error *err) {
    const dz_tensor *t = dz_pair_tensor(m->plan, pair);
    pair->count = t->count;
    pair->lossy = -1;
    pair->base = m->base_of[pair->tensor];
    pair->match = m->how[pair->tensor];
    set_policy(m, pair, t->name);
    const dz_tensor *b = pair->base >= 0 ? &m->plan->base->tensors[pair->base] : NULL;
    uint64_t common = b ? dz_common_elements(t, b) : 0;
    if (b) m->met[pair->base] = 1;
    int quantised = of_quantised(m, pair, t);
    if (quantised && pair->policy != DZ_POLICY_DROP) pair->policy = DZ_POLICY_LOSSLESS;
    if (pair->policy == DZ_POLICY_ULTRADELTA && t->count && !dz_dtype_is_float(t->dtype)) {
        gather(&m->integers, t->name, t->dtype_name);
        pair->policy = DZ_POLICY_LOSSLESS;
    }
    if (pair->policy == DZ_POLICY_ULTRADELTA && dz_scale_partner(m->ck, t)) {
        m->lossy_scaled++; /* reported by note_scales */
        pair->policy = DZ_POLICY_LOSSLESS;
    }
    if (b && scaled_alone(m, t, b, err)) {
        if (dz_f8_scales(m->plan->base, b)) gather(&m->over_scaled, t->name, dz_f8_scales(m->plan->base, b)->name);
        pair->policy = DZ_POLICY_LOSSLESS;
        common = 0;
    } else if (quantised && pair->policy == DZ_POLICY_LOSSLESS) {
        /* one note speaks of all */
    } else if (b && pair->by_structure && pair->policy != DZ_POLICY_LOSSLESS && t->count && common == 0) {
        gather(&m->unlike, t->name, NULL);
        pair->policy = DZ_POLICY_LOSSLESS;
    } else if (b && pair->policy != DZ_POLICY_LOSSLESS && t->count &&
               (common == 0 || (pair->policy == DZ_POLICY_DROP && common < t->count))) {
        refuse_misfit(m, pair, t, b, err);
    } else if (b) {
        note_rows(m, t, b, common, err);
    } else {
        m->lossy_added += pair->policy == DZ_POLICY_ULTRADELTA;
        if (!dz_scale_partner(m->ck, t)) gather(&m->added, t->name, NULL); /* F8 pairs have a note of their own */
        pair->policy = DZ_POLICY_LOSSLESS;
    }
    if (t->count == 0) pair->policy = DZ_POLICY_LOSSLESS;
    if (b && pair->match == DZ_MATCH_PREFIX) gather(&m->renamed, t->name, b->name);
    if (b && pair->match == DZ_MATCH_HEAD)
        dz_buf_note(&m->plan->notes, err, "task '%s': tensor '%s' is not in the base, whose head is tied: matched with '%s'", m->name,
                    t->name, b->name);
    if (common == 0) {
        pair->base = -1;
        pair->match = DZ_MATCH_NONE;
    }
    pair->tiles = pair->policy == DZ_POLICY_DROP ? (dz_pair_tiles){0} : dz_pair_tiles_of(common ? b->count : 0, common, t->count);
}

static void note_scales(const matching *m, dz_error *err) {
    const dz_tensor *first = dz_first_scaled(m->ck);
    size_t n = 0;
    for (size_t i = 0; i < m->ck->ntensors && first; i++) n += dz_f8_scales(m->ck, &m->ck->tensors[i]) != NULL;
    if (n)
        dz_buf_note(&m->plan->notes, err, "task '%s': %zu block-scaled F8 tensor%s ('%s' with '%s') and their scales are kept exactly",
                    m->name, n, n > 1 ? "s" : "", first->name, dz_f8_scales(m->ck, first)->name);
}

static char *layers_text(const dz_quantised *q, dz_error *err) {
    return dz_format(err, "quantised: integer weights with scales in %zu layer%s ('%s' with '%s')", q->nlayers, q->nlayers > 1 ? "s" : "",
                     q->codes->name, q->scales->name);
}

/* Unless the base, of which that is said, is quantised alike. */
static void note_quantised(const matching *m, dz_error *err) {
    dz_plan *p = m->plan;
    char subject_text[SUBJECT_TEXT];
    char *text = m->quantised.nlayers && m->quantised.nlayers != p->quantised.nlayers ? layers_text(&m->quantised, err) : NULL;
    if (text)
        dz_buf_note(&p->notes, err, "task '%s': %s: kept exactly%s", m->name, text,
                    p->quantised.nlayers ? "" : "; for a delta, give the model that is not quantised");
    free(text);
    if (m->over_quantised.n)
        dz_buf_note(&p->notes, err, "task '%s': %s %s quantised in the base: kept exactly, without the base", m->name,
                    subject(&m->over_quantised, subject_text), is_or_are(&m->over_quantised));
}

static void note_quantised_base(dz_plan *p, dz_error *err) {
    char *text = p->quantised.nlayers ? layers_text(&p->quantised, err) : NULL;
    if (text) dz_buf_note(&p->notes, err, "base: %s: of these no delta is made, they are kept exactly", text);
    free(text);
}

/* Tensors that only the base has. */
static void note_absent(const matching *m, dz_error *err) {
    char text[SUBJECT_TEXT];
    gathered absent = {0};
    for (size_t b = 0; b < m->plan->base->ntensors; b++) {
        const dz_tensor *t = &m->plan->base->tensors[b];
        if (m->met[b] || dz_quantised_part_of(&m->plan->quantised, b) || dz_scale_partner(m->plan->base, t)) continue;
        if (!dz_quantised_has_layer(m->ck, &m->quantised, t->name)) gather(&absent, t->name, NULL);
    }
    if (absent.n)
        dz_buf_note(&m->plan->notes, err, "task '%s': %s of the base %s not in it", m->name, subject(&absent, text), is_or_are(&absent));
}

/* A module of which one side has some tensors and the other side others, by its plain name, and the elements of their matrices. */
typedef struct module {
    uint64_t hash;
    uint64_t of_task, of_base; /* elements */
    uint64_t nbytes;           /* of the task's */
    size_t in_task, in_base;   /* tensors */
    const dz_tensor *first_task, *first_base;
} module;

/* Elements of the tensors without a counterpart, added to those of their module: what holds the experts, or the layer. */
static dz_rc add_to_module(module **list, size_t *n, size_t *cap, const dz_tensor *t, int of_task, dz_error *err) {
    char text[DZ_PLAIN_NAME];
    dz_parts_of_name name;
    if (t->ndim < 2) return DZ_OK;
    dz_name_split(dz_plain_name(t, text), &name);
    size_t end = name.n > 1 ? name.n - 2 : 0;
    for (size_t i = 0; i < name.n; i++) {
        if (dz_part_contains(&name.part[i], "expert")) end = i;
    }
    if (end == 0) return DZ_OK;
    uint64_t hash = dz_hash64(name.name, (size_t)(name.part[end].text - name.name), 0);
    size_t at = 0;
    while (at < *n && (*list)[*n - 1 - at].hash != hash && at < 64) at++; /* of one module they are near each other */
    if (at == *n || at == 64) {
        if (dz_grow((void **)list, cap, *n + 1, sizeof **list, err) != DZ_OK) return err->rc;
        (*list)[(*n)++] = (module){.hash = hash};
        at = 0;
    }
    module *m = &(*list)[*n - 1 - at];
    *(of_task ? &m->of_task : &m->of_base) += t->count;
    *(of_task ? &m->in_task : &m->in_base) += 1;
    m->nbytes += of_task ? t->nbytes : 0;
    const dz_tensor **first = of_task ? &m->first_task : &m->first_base;
    if (!*first) *first = t;
    return DZ_OK;
}

static int by_module(const void *x, const void *y) {
    const module *a = x, *b = y;
    return a->hash < b->hash ? -1 : a->hash > b->hash;
}

static void add_module(module *sum, const module *more) {
    sum->of_task += more->of_task;
    sum->of_base += more->of_base;
    sum->nbytes += more->nbytes;
    sum->in_task += more->in_task;
    sum->in_base += more->in_base;
    if (!sum->first_task) sum->first_task = more->first_task;
    if (!sum->first_base) sum->first_base = more->first_base;
}

/* Names, shapes, what it costs, and which side to save again. */
static void say_fused(const matching *m, const module *one, size_t found, uint64_t nbytes, dz_error *err) {
    char mine[DZ_SHAPE_TEXT], theirs[DZ_SHAPE_TEXT], size[32];
    int task_is_fused = one->in_task < one->in_base;
    dz_buf_note(
        &m->plan->notes, err,
        "task '%s': %zu module%s fused on one side and separate on the other (here %zu tensor%s: '%s' %s, ...; in the base %zu: '%s' "
        "%s, ...): %s kept exactly, without the base; save the %s again with save_pretrained, which writes the separate layout "
        "(save_original_format=True)",
        m->name, found, found > 1 ? "s are" : " is", one->in_task, one->in_task > 1 ? "s" : "", one->first_task->name,
        dz_shape_text(one->first_task, mine), one->in_base, one->first_base->name, dz_shape_text(one->first_base, theirs),
        dz_format_size((double)nbytes, size), task_is_fused ? "task" : "base");
}

/* Modules whose matrices are fused on one side and separate on the other have no counterpart, although nothing is new. */
static dz_rc note_fused(const matching *m, dz_error *err) {
    module *list = NULL, one = {0};
    size_t n = 0, cap = 0, found = 0;
    uint64_t nbytes = 0;
    for (size_t i = 0; i < m->ck->ntensors && err->rc == DZ_OK; i++) {
        if (m->base_of[i] < 0) add_to_module(&list, &n, &cap, &m->ck->tensors[i], 1, err);
    }
    for (size_t b = 0; b < m->plan->base->ntensors && err->rc == DZ_OK && n; b++) {
        if (!m->met[b]) add_to_module(&list, &n, &cap, &m->plan->base->tensors[b], 0, err);
    }
    if (n) qsort(list, n, sizeof *list, by_module);
    for (size_t i = 0, next; i < n; i = next) {
        module sum = {0};
        for (next = i; next < n && list[next].hash == list[i].hash; next++) add_module(&sum, &list[next]);
        if (sum.of_task == 0 || sum.of_task != sum.of_base || sum.in_task == sum.in_base) continue;
        nbytes += sum.nbytes;
        if (found++ == 0 || strcmp(sum.first_task->name, one.first_task->name) < 0) one = sum;
    }
    if (found) say_fused(m, &one, found, nbytes, err);
    free(list);
    return err->rc;
}

/* What is compared part by part. */
static void note_parts(const matching *m, dz_error *err) {
    const dz_checkpoint *ck = m->ck;
    const dz_fused *f = ck->fused;
    if (ck->nfused == 0) return;
    dz_buf_note(&m->plan->notes, err,
                "task '%s': %zu tensor%s the base's separate ones in one ('%s' of %zu: '%s', ...): compared one by one", m->name,
                ck->nfused, ck->nfused > 1 ? "s have" : " has", f->whole.name, f->nparts, ck->tensors[f->first].name);
}

static void note_tied(const matching *m, dz_error *err) {
    if (m->tied.n == 1)
        dz_buf_note(&m->plan->notes, err, "task '%s': tensor '%s' has the bytes of '%s': stored once", m->name, m->tied.first,
                    m->tied.other);
    else if (m->tied.n)
        dz_buf_note(&m->plan->notes, err, "task '%s': %zu tensors have the bytes of others ('%s' of '%s', ...): stored once", m->name,
                    m->tied.n, m->tied.first, m->tied.other);
}

/* What is not the recipe's main case, a line for each kind. */
static void note_gathered(const matching *m, dz_error *err) {
    dz_plan *p = m->plan;
    const char *name = m->name;
    char text[SUBJECT_TEXT];
    if (dz_plan_is_alone(p, m->task)) {
        note_tied(m, err);
        return;
    }
    if (m->ck->is_adapter) {
        dz_buf_note(&p->notes, err, "task '%s': an adapter (LoRA), not a whole model: kept exactly, without the base", name);
        return;
    }
    if (m->added.n)
        dz_buf_note(&p->notes, err, "task '%s': %s %s not in the base: kept exactly", name, subject(&m->added, text), is_or_are(&m->added));
    if (m->integers.n)
        dz_buf_note(&p->notes, err, "task '%s': %s %s %s: kept exactly", name, subject(&m->integers, text),
                    m->integers.n == 1 ? "is" : "are of no float type, but", m->integers.other);
    if (m->unlike.n)
        dz_buf_note(&p->notes, err, "task '%s': %s %s of another shape or type than in the base: kept exactly, without the base", name,
                    subject(&m->unlike, text), is_or_are(&m->unlike));
    if (m->over_scaled.n)
        dz_buf_note(&p->notes, err, "task '%s': %s %s block-scaled F8 in the base ('%s'): kept exactly, without the base", name,
                    subject(&m->over_scaled, text), is_or_are(&m->over_scaled), m->over_scaled.other);
    if (m->renamed.n)
        dz_buf_note(&p->notes, err, "task '%s': %zu tensor%s matched with the base's of another name ('%s' with '%s')", name, m->renamed.n,
                    m->renamed.n > 1 ? "s are" : " is", m->renamed.first, m->renamed.other);
    note_tied(m, err);
    note_scales(m, err);
    note_quantised(m, err);
    note_absent(m, err);
}

/* `before`, `name` and `after`: of which model. */
static void note_file(dz_plan *p, const char *before, const char *name, const char *after, const dz_companion_file *file, const char * not,
                      dz_error *err) {
    dz_buf_note(&p->notes, err, "%s%s%s%s is not %s%s%s", before, name, after, file->file, not, file->why ? ": " : "",
                file->why ? file->why : "");
}

static void note_lines(dz_plan *p, const char *before, const char *name, const char *after, const dz_buf *lines, dz_error *err) {
    for (size_t at = 0; at < lines->len;) {
        const char *line = (const char *)lines->data + at, *end = memchr(line, '\n', lines->len - at);
        int len = (int)(end ? (size_t)(end - line) : lines->len - at);
        dz_buf_note(&p->notes, err, "%s%s%s%.*s", before, name, after, len, line);
        at += (size_t)len + 1;
    }
}

/* Files that are not kept, and what a PyTorch file holds beyond its tensors. */
static void note_files(const matching *m, dz_error *err) {
    const dz_checkpoint *ck = m->ck;
    dz_notes reasons = {0};
    dz_buf none = {0};
    for (size_t i = 0; i < ck->nskipped_files; i++)
        dz_notes_add(&reasons, err, ck->skipped_files[i].why ? ck->skipped_files[i].why : "", "%s", ck->skipped_files[i].file);
    for (size_t i = 0; i < reasons.nkinds; i++) {
        const dz_notes_kind *kind = &reasons.kinds[i];
        const char *colon = kind->text[0] ? ": " : "";
        for (size_t k = 0; k < kind->n && k < DZ_NOTES_LINES && kind->n <= DZ_NOTES_LINES; k++)
            dz_buf_note(&m->plan->notes, err, "task '%s': %s is not kept%s%s", m->name, kind->names[k], colon, kind->text);
        if (kind->n > DZ_NOTES_LINES)
            dz_buf_note(&m->plan->notes, err, "task '%s': %s and %zu more files are not kept%s%s", m->name, kind->names[0], kind->n - 1,
                        colon, kind->text);
    }
    dz_notes_flush(&reasons, &none);
    dz_buf_free(&none);
    note_lines(m->plan, "task '", m->name, "': ", &ck->warnings, err);
    note_lines(m->plan, "task '", m->name, "': ", &ck->notes, err);
}

/* Of a base nothing is kept; what may have been meant is other weights. */
static void note_base_files(dz_plan *p, dz_error *err) {
    for (size_t i = 0; i < p->base->nskipped_files; i++) {
        if (dz_is_weights(p->base->skipped_files[i].file)) note_file(p, "", "base", ": ", &p->base->skipped_files[i], "read", err);
    }
    note_lines(p, "", "base", ": ", &p->base->warnings, err);
}

/* Which of two equal tensors is stored: an exact one, so that no tensor becomes less exact than its rule; then one with a base,
 * best of the same name. */
static int tie_rank(const dz_tensor_pair *pair) {
    return 4 * (pair->policy == DZ_POLICY_LOSSLESS) + 2 * (pair->base >= 0) + (pair->match == DZ_MATCH_NAME);
}

static int can_tie(const dz_tensor_pair *pair, const dz_tensor_pair *stored) {
    if (pair->policy == DZ_POLICY_DROP || stored->policy == DZ_POLICY_DROP) return 0;
    if (stored->policy == DZ_POLICY_LOSSLESS) return 1;
    int same_sparsity = isnan(pair->sparsity) ? isnan(stored->sparsity) : !(pair->sparsity != stored->sparsity);
    return pair->policy == stored->policy && pair->bits == stored->bits && same_sparsity && !(pair->factor != stored->factor);
}

/* Tensors of a task whose bytes are another one's are stored once. */
static dz_rc tie(matching *m, dz_tensor_pair *pairs, dz_error *err) {
    const dz_checkpoint *ck = m->ck;
    uint32_t *stored = dz_alloc_raw(ck->ntensors, sizeof *stored, err);
    if (!stored) return err->rc;
    for (uint32_t i = 0; i < ck->ntensors; i++) stored[i] = i;
    for (uint32_t i = 0; i < ck->ntensors; i++) { /* the first of a kind has the smallest number */
        uint32_t *best = &stored[ck->same[i]];
        if (tie_rank(&pairs[i]) > tie_rank(&pairs[*best])) *best = i;
    }
    for (uint32_t i = 0; i < ck->ntensors; i++) {
        uint32_t with = stored[ck->same[i]];
        if (i == with || !can_tie(&pairs[i], &pairs[with])) continue;
        pairs[i].policy = DZ_POLICY_TIED;
        pairs[i].tied = with;
        pairs[i].tiles = (dz_pair_tiles){0};
        gather(&m->tied, ck->tensors[i].name, ck->tensors[with].name);
    }
    free(stored);
    return err->rc;
}

/* Numbers the task's tiles and its lossy tensors. Returns how many of these there are. */
static size_t number_pairs(dz_plan *p, dz_tensor_pair *pairs, const dz_checkpoint *ck, uint64_t *tiles) {
    size_t before = p->nlossy;
    for (size_t i = 0; i < ck->ntensors; i++) {
        dz_tensor_pair *pair = &pairs[i];
        pair->first_tile = (uint32_t)*tiles;
        *tiles += pair->tiles.ntiles;
        p->source_bytes += ck->tensors[i].nbytes;
        if (pair->policy != DZ_POLICY_ULTRADELTA) continue;
        pair->lossy = (int64_t)p->nlossy;
        p->lossy[p->nlossy++] = (uint32_t)(pair - p->pairs);
        p->lossy_bytes += ck->tensors[i].nbytes;
    }
    return p->nlossy - before;
}

/* The base has something that could be lossy by the recipe: a rule that says so, or a body where structure decides. */
static int wants_lossy(const dz_plan *p, const dz_recipe *recipe) {
    int by_rule = 0, by_structure = 0, body = 0;
    for (size_t r = 0; r < recipe->nrules; r++) {
        by_rule |= recipe->rules[r].policy == DZ_POLICY_ULTRADELTA;
        by_structure |= recipe->rules[r].policy == DZ_POLICY_STRUCTURE;
    }
    for (size_t b = 0; b < p->base->ntensors && by_structure; b++) body |= p->roles[b].place == DZ_PLACE_BODY;
    return body || (by_rule && !by_structure);
}

/* Why nothing of a task could be lossy; NULL: its types, which have their own notes. */
static char *why_unmatched(const matching *m, dz_error *err) {
    const dz_tensor_pair *pairs = &m->plan->pairs[m->plan->first_pair[m->task]];
    size_t matched = 0, n = m->ck->ntensors;
    for (size_t i = 0; i < n; i++) matched += pairs[i].base >= 0;
    if (matched == 0)
        return dz_format(err, "%s: task '%s': none of its %zu tensors ('%.200s'%s) is in the base by name and shape: is this its base?",
                         m->ck->path, m->name, n, m->ck->tensors[0].name, n > 1 ? ", ..." : "");
    if (m->quantised.nlayers || m->over_quantised.n) return NULL;
    if (m->lossy_added || m->integers.n + m->lossy_scaled + m->over_scaled.n == 0)
        return dz_format(err,
                         "%s: task '%s': no tensor that could be lossy (a float type, and in the base) is matched by a lossy rule of "
                         "recipe '%s' (first tensor '%s')",
                         m->ck->path, m->name, m->recipe->name, m->ck->tensors[0].name);
    return NULL;
}

/* A recipe that is to compress, and a task of which nothing is: a wrong base or recipe, unless the tensors cannot be lossy by their type.
 * Refused, or marked to be left out. */
static dz_rc check_lossy(const matching *m, dz_error *err) {
    if (m->ck->is_adapter || !wants_lossy(m->plan, m->recipe)) return DZ_OK;
    char *why = why_unmatched(m, err);
    if (err->rc == DZ_ENOMEM) return err->rc;
    if (why && m->unmatched) {
        m->unmatched[m->task] = 1;
        dz_buf_note(&m->plan->notes, err, "left out: %s", why);
    } else if (why) {
        dz_fail_more(err, DZ_EUSAGE, "%s; --skip-unmatched leaves such tasks out", why);
    } else if (m->quantised.nlayers == 0) {
        dz_buf_note(&m->plan->notes, err, "task '%s': all of it is kept exactly", m->name);
    }
    free(why);
    return err->rc;
}

/* A model in which structure finds nothing to make lossy: said once. */
static void note_no_body(dz_plan *p, const dz_recipe *recipe, dz_error *err) {
    for (size_t r = 0; r < recipe->nrules; r++) {
        if (recipe->rules[r].policy != DZ_POLICY_STRUCTURE || wants_lossy(p, recipe) || p->nlossy || p->quantised.nlayers ||
            !p->base->ntensors)
            continue;
        dz_buf_note(&p->notes, err,
                    "%s: no repeated blocks of float matrices in this model (first tensor '%s'): all is kept exactly; a recipe with rules "
                    "for its names (--recipe FILE) makes it lossy",
                    p->base->path, p->base->ntensors ? p->base->tensors[0].name : "none");
        return;
    }
}

#define WORTH_NAMING 0.02 /* share of the tasks' bytes */

/* What structure leaves exact, where it is much: by the kind of place, with the largest tensor of it. */
static void note_left_exact(dz_plan *p, dz_error *err) {
    double bytes[DZ_NPLACES] = {0};
    const dz_tensor *largest[DZ_NPLACES] = {NULL};
    char text[600] = "";
    for (size_t i = 0; i < p->npairs; i++) {
        const dz_tensor_pair *pair = &p->pairs[i];
        if (!pair->by_structure || pair->policy != DZ_POLICY_LOSSLESS || pair->base < 0) continue;
        if (dz_quantised_part_of(&p->quantised, (size_t)pair->base)) continue;
        const dz_tensor *t = dz_pair_tensor(p, pair);
        dz_place place = p->roles[pair->base].place;
        if (place == DZ_PLACE_BODY) continue; /* exact for another reason, which has its own note */
        bytes[place] += (double)t->nbytes;
        if (!largest[place] || t->nbytes > largest[place]->nbytes) largest[place] = t;
    }
    for (int place = 0; place < DZ_NPLACES; place++) {
        double share = p->source_bytes ? bytes[place] / (double)p->source_bytes : 0;
        size_t len = strlen(text);
        if (share <= WORTH_NAMING || p->nlossy == 0) continue;
        snprintf(text + len, sizeof text - len, "%s%s %.3g %% ('%.100s')", len ? ", " : "", dz_place_name((dz_place)place), 100 * share,
                 largest[place]->name);
    }
    if (text[0]) dz_buf_note(&p->notes, err, "kept exactly, of all bytes: %s", text);
}

static dz_rc pair_task(matching *m, size_t task, uint64_t *tiles, dz_error *err) {
    dz_tensor_pair *pairs = &m->plan->pairs[m->plan->first_pair[task]];
    int problems = err->problems;
    dz_check_scales(m->ck, err);
    if (dz_quantised_find(m->ck, &m->quantised, err) != DZ_OK && err->rc == DZ_ENOMEM) return err->rc;
    int alone = dz_plan_is_alone(m->plan, task);
    for (size_t i = 0; i < m->ck->ntensors; i++) m->base_of[i] = -1; /* an adapter has no counterparts */
    if (!m->ck->is_adapter && !alone && dz_matcher_task(m->matcher, m->ck, m->base_of, m->how, err) == DZ_ENOMEM) return err->rc;
    for (size_t i = 0; i < m->ck->ntensors && err->rc != DZ_ENOMEM; i++) {
        pairs[i].task = (uint32_t)task;
        pairs[i].tensor = (uint32_t)i;
        match(m, &pairs[i], err);
    }
    if (err->rc == DZ_ENOMEM || tie(m, pairs, err) == DZ_ENOMEM) return err->rc;
    note_gathered(m, err);
    note_parts(m, err);
    if (!alone && note_fused(m, err) == DZ_ENOMEM) return err->rc;
    note_files(m, err);
    if (number_pairs(m->plan, pairs, m->ck, tiles) == 0 && err->problems == problems && !alone) check_lossy(m, err);
    return err->rc;
}

dz_rc dz_plan_pairs(dz_plan *p, const char *const *names, const dz_recipe *recipe, uint8_t *unmatched, dz_error *err) {
    uint64_t tiles = 0;
    size_t most = 0;
    dz_matcher *matcher = NULL;
    for (size_t k = 0; k < p->ntasks; k++) {
        p->npairs += p->tasks[k]->ntensors;
        if (p->tasks[k]->ntensors > most) most = p->tasks[k]->ntensors;
    }
    p->pairs = dz_alloc(p->npairs, sizeof *p->pairs, err);
    p->lossy = dz_alloc(p->npairs, sizeof *p->lossy, err);
    p->first_pair = dz_alloc(p->ntasks + 1, sizeof *p->first_pair, err);
    uint8_t *met = dz_alloc(p->base->ntensors, 1, err);
    int64_t *base_of = dz_alloc(most, sizeof *base_of, err);
    dz_match *how = dz_alloc(most, sizeof *how, err);
    if (err->rc != DZ_OK || dz_matcher_make(p->base, p->roles, &matcher, err) != DZ_OK) goto out;
    for (size_t k = 0; k < p->ntasks; k++) p->first_pair[k + 1] = p->first_pair[k] + p->tasks[k]->ntensors;
    int base_has_scales = dz_first_scaled(p->base) != NULL;
    dz_check_scales(p->base, err);
    note_base_files(p, err);
    note_quantised_base(p, err);
    for (size_t k = 0; k < p->ntasks && err->rc != DZ_ENOMEM; k++) {
        matching m = {.plan = p, .matcher = matcher, .base_of = base_of, .how = how, .recipe = recipe, .ck = p->tasks[k], .name = names[k]};
        m.task = k;
        m.unmatched = unmatched;
        m.met = met;
        m.base_has_scales = base_has_scales;
        m.has_scales = dz_first_scaled(m.ck) != NULL;
        memset(met, 0, p->base->ntensors);
        pair_task(&m, k, &tiles, err);
        dz_quantised_free(&m.quantised);
    }
    if (err->rc == DZ_OK) note_no_body(p, recipe, err);
    if (err->rc == DZ_OK) note_left_exact(p, err);
    if (tiles > UINT32_MAX / 2) dz_fail(err, DZ_EFAIL, "%llu tiles are too many for one archive", (unsigned long long)tiles);
out:
    dz_matcher_free(matcher);
    free(met);
    free(base_of);
    free(how);
    return err->rc;
}

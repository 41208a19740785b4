#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/model_diff.h"

#define MOST 0.8    /* of the changed matrices of blocks, by elements: then the model's change is theirs */
#define SPARSE 0.25 /* of the elements of changed tensors */

const char *dz_diff_sort_name(dz_diff_sort sort) {
    static const char *const names[DZ_DIFF_SORTS] = {"identical",  "dtype only",      "vocabulary grown", "head only",
                                                     "norms only", "embeddings only", "lora merged",      "sparse",
                                                     "full",       "other model",     "adapter",          "unmatched"};
    return names[sort];
}

dz_place dz_diff_place(const dz_model_diff *d, const dz_tensor_pair *pair) {
    const dz_checkpoint *base = d->plan->base;
    dz_place place = d->plan->roles[pair->base].place;
    const char *name = base->tensors[pair->base].name, *end = strrchr(name, '.');
    if (place != DZ_PLACE_VECTOR || !end || !isnan(d->plan->roles[pair->base].depth)) return place;
    for (size_t i = 0; i < base->ntensors; i++) { /* the bias of a head */
        if (d->plan->roles[i].place == DZ_PLACE_HEAD && strncmp(base->tensors[i].name, name, (size_t)(end - name) + 1) == 0)
            return DZ_PLACE_HEAD;
    }
    return place;
}

/* Elements of the changed tensors by what they are. */
typedef struct parts {
    uint64_t of[DZ_NPLACES];
    uint64_t low_rank, body;
    size_t matched;
} parts;

static void add_tensor(dz_model_diff *d, size_t i, parts *p) {
    const dz_tensor_pair *pair = &d->plan->pairs[i];
    const dz_tensor_diff *t = &d->tensors[i];
    dz_diff_totals *sum = &d->totals;
    const dz_tensor *tensor = dz_pair_tensor(d->plan, pair);
    if (t->tied) return;
    if (pair->base < 0) {
        sum->added += tensor->count > 0;
        return;
    }
    const dz_tensor *b = &d->plan->base->tensors[pair->base];
    dz_place place = dz_diff_place(d, pair);
    int body = place == DZ_PLACE_BODY;
    p->matched++;
    sum->tensors++;
    sum->body += (size_t)body;
    sum->other_dtype += strcmp(tensor->dtype_name, b->dtype_name) != 0;
    sum->grown += (place == DZ_PLACE_EMBEDDING || place == DZ_PLACE_HEAD) && tensor->count > t->common;
    sum->elements += t->common;
    sum->elements_changed += t->changed;
    if (!t->changed) return;
    sum->changed++;
    sum->body_changed += (size_t)body;
    sum->among += t->common;
    sum->delta_energy += t->delta_energy;
    sum->base_energy += t->base_energy;
    p->of[place] += t->common;
    if (!t->ranked) return;
    sum->ranked++;
    p->body += t->common;
    if (!t->spectrum.low_rank) return;
    sum->low_rank++;
    p->low_rank += t->common;
    if (t->spectrum.significant > sum->rank) sum->rank = t->spectrum.significant;
}

static uint64_t but(const parts *p, dz_place a, dz_place b) { /* elements of changed tensors of all other places */
    uint64_t n = 0;
    for (int i = 0; i < DZ_NPLACES; i++) n += i == (int)a || i == (int)b ? 0 : p->of[i];
    return n;
}

static dz_diff_sort sort_of(const dz_model_diff *d, const parts *p) {
    const dz_diff_totals *s = &d->totals;
    if (d->zoo.tasks[0]->is_adapter) return DZ_DIFF_ADAPTER;
    if (p->matched == 0) return DZ_DIFF_UNMATCHED;
    if (s->changed == 0) {
        if (s->added) return DZ_DIFF_HEAD;
        if (s->grown) return DZ_DIFF_VOCABULARY;
        return s->other_dtype ? DZ_DIFF_DTYPE : DZ_DIFF_IDENTICAL;
    }
    if (s->delta_energy > s->base_energy && p->of[DZ_PLACE_BODY] > 0) return DZ_DIFF_OTHER_MODEL;
    if (but(p, DZ_PLACE_HEAD, DZ_PLACE_HEAD) == 0) return DZ_DIFF_HEAD;
    if (but(p, DZ_PLACE_NORM, DZ_PLACE_VECTOR) == 0) return DZ_DIFF_NORMS;
    if (but(p, DZ_PLACE_EMBEDDING, DZ_PLACE_POSITION) == 0) return DZ_DIFF_EMBEDDINGS;
    if (p->body && (double)p->low_rank >= MOST * (double)p->body) return DZ_DIFF_LORA;
    return (double)s->elements_changed < SPARSE * (double)s->among ? DZ_DIFF_SPARSE : DZ_DIFF_FULL;
}

dz_rc dz_diff_judge(dz_model_diff *d, dz_error *err) {
    parts p = {0};
    size_t nbase = d->plan->base->ntensors;
    uint8_t *met = dz_alloc(nbase, 1, err);
    if (!met) return err->rc;
    d->totals = (dz_diff_totals){0};
    for (size_t i = 0; i < d->plan->npairs; i++) {
        add_tensor(d, i, &p);
        if (d->plan->pairs[i].base >= 0) met[d->plan->pairs[i].base] = 1;
    }
    for (size_t b = 0; b < nbase; b++) d->totals.absent += !met[b];
    d->sort = sort_of(d, &p);
    free(met);
    return DZ_OK;
}

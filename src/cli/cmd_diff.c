#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/layers.h"
#include "cli/picture.h"
#include "cli/plot.h"
#include "cli/report.h"
#include "cli/table.h"
#include "compress/model_diff.h"

/* A row of a table: tensors of one kind, or of one or several layers. */
typedef struct row {
    char label[64];
    const char *layer; /* the name of a tensor that begins with it, or NULL */
    size_t layer_len;
    size_t tensors, changed, ranked;
    uint64_t elements, elements_changed;
    double delta, base; /* energies of the changed ones */
    double ranks;       /* sum of the effective ranks */
    size_t rank_of;     /* most rows of the spectra */
    double source, exact, lossy;
} row;

typedef struct table {
    row *rows;
    size_t n;
} table;

static void add(row *r, const dz_model_diff *d, size_t i) {
    const dz_tensor_diff *t = &d->tensors[i];
    const dz_tensor *tensor = dz_pair_tensor(d->plan, &d->plan->pairs[i]);
    r->source += (double)tensor->nbytes;
    r->exact += d->forecast.tensors[i].exact_bytes;
    r->lossy += d->forecast.tensors[i].bytes;
    r->tensors++;
    r->elements += tensor->count;
    r->changed += t->changed > 0;
    r->elements_changed += t->changed;
    if (!t->changed) return;
    r->delta += t->delta_energy;
    r->base += t->base_energy;
    if (!t->ranked) return;
    r->ranked++;
    r->ranks += t->spectrum.effective;
    if (t->spectrum.rows > r->rank_of) r->rank_of = t->spectrum.rows;
}

/* "q", "norms", "not in the base". */
static const char *kind_of(const dz_model_diff *d, const dz_tensor_pair *pair) {
    if (pair->policy == DZ_POLICY_TIED) return "tied";
    if (pair->base < 0) return "not in the base";
    dz_place place = dz_diff_place(d, pair);
    if (place == DZ_PLACE_OUTSIDE) return "outside blocks";
    return place == DZ_PLACE_BODY ? dz_kind_name(dz_plan_kind(d->plan, pair)) : dz_place_name(place);
}

static dz_rc by_kind(const dz_model_diff *d, table *out, dz_error *err) {
    if (!(out->rows = dz_alloc((size_t)DZ_NKINDS + DZ_NPLACES + 2, sizeof *out->rows, err))) return err->rc;
    for (size_t i = 0; i < d->plan->npairs; i++) {
        const char *kind = kind_of(d, &d->plan->pairs[i]);
        size_t k = 0;
        while (k < out->n && strcmp(out->rows[k].label, kind) != 0) k++;
        if (k == out->n) snprintf(out->rows[out->n++].label, sizeof out->rows[k].label, "%s", kind);
        add(&out->rows[k], d, i);
    }
    return DZ_OK;
}

static int by_layer_order(const void *x, const void *y) {
    const row *a = x, *b = y;
    return dz_layer_order(a->layer, a->layer_len, b->layer, b->layer_len);
}

static int same_layer(const row *r, const char *name, size_t len) { return r->layer_len == len && memcmp(r->layer, name, len) == 0; }

static dz_rc by_layer(const dz_model_diff *d, table *out, dz_error *err) {
    if (!(out->rows = dz_alloc(d->plan->npairs, sizeof *out->rows, err))) return err->rc;
    for (size_t i = 0; i < d->plan->npairs; i++) {
        const dz_tensor_pair *pair = &d->plan->pairs[i];
        const char *name = dz_pair_tensor(d->plan, pair)->name;
        size_t len = dz_layer_length(name), k = out->n;
        if (!len || pair->policy == DZ_POLICY_TIED) continue;
        while (k > 0 && !same_layer(&out->rows[k - 1], name, len)) k--;
        if (k == 0) {
            out->rows[k = out->n++] = (row){.layer = name, .layer_len = len};
            snprintf(out->rows[k].label, sizeof out->rows[k].label, "%.*s", (int)(len < 63 ? len : 63), name + (len < 63 ? 0 : len - 63));
            k++;
        }
        add(&out->rows[k - 1], d, i);
    }
    if (out->n) qsort(out->rows, out->n, sizeof *out->rows, by_layer_order);
    return DZ_OK;
}

#define LINES 16 /* at most so many lines of layers */

/* Neighbouring layers of one stack as one row, in place: "model.layers.0-3". */
static void join_layers(table *t) {
    size_t each = (t->n + LINES - 1) / LINES, n = 0;
    for (size_t i = 0; i < t->n && each > 1;) {
        row sum = t->rows[i];
        size_t at = dz_layer_number_at(sum.layer, sum.layer_len), k = i + 1;
        for (; k < t->n && k < i + each; k++) {
            const row *r = &t->rows[k];
            if (dz_layer_number_at(r->layer, r->layer_len) != at || memcmp(r->layer, sum.layer, at) != 0) break;
            sum.tensors += r->tensors;
            sum.changed += r->changed;
            sum.ranked += r->ranked;
            sum.elements += r->elements;
            sum.elements_changed += r->elements_changed;
            sum.delta += r->delta;
            sum.base += r->base;
            sum.ranks += r->ranks;
            sum.rank_of = r->rank_of > sum.rank_of ? r->rank_of : sum.rank_of;
            sum.source += r->source;
            sum.exact += r->exact;
            sum.lossy += r->lossy;
        }
        const row *last = &t->rows[k - 1];
        if (k > i + 1)
            snprintf(sum.label, sizeof sum.label, "%.*s-%.*s", (int)(sum.layer_len < 40 ? sum.layer_len : 40),
                     sum.layer + (sum.layer_len < 40 ? 0 : sum.layer_len - 40), (int)(last->layer_len - at), last->layer + at);
        t->rows[n++] = sum;
        i = k;
    }
    if (each > 1) t->n = n;
}

static double relative(const row *r) { return r->base > 0 ? sqrt(r->delta / r->base) : NAN; }

/* "3.2 %", "0.0004 %": never 0 or 100 unless it is. */
static const char *percent(uint64_t part, uint64_t all, char text[32]) {
    double p = all ? 100.0 * (double)part / (double)all : 0;
    if (part == 0)
        snprintf(text, 32, "0");
    else if (part == all)
        snprintf(text, 32, "100 %%");
    else
        snprintf(text, 32, p < 0.001 ? "%.0e %%" : p < 1 ? "%.2g %%" : "%.1f %%", p > 99.9 ? 99.9 : p);
    return text;
}

static void print_table(const char *head, const table *t) {
    char share[32], exact[32], lossy[32], name[256];
    printf("\n%-18s %7s %7s %8s %8s %7s %9s %9s\n", head, "tensors", "changed", "elements", "|D|/|W|", "rank", "exact", "lossy");
    for (size_t i = 0; i < t->n; i++) {
        const row *r = &t->rows[i];
        char change[32] = "-", rank[32] = "-";
        if (r->changed && isfinite(relative(r))) snprintf(change, sizeof change, "%.3g", relative(r));
        if (r->ranked) snprintf(rank, sizeof rank, r->ranks / (double)r->ranked < 9.95 ? "%.1f" : "%.0f", r->ranks / (double)r->ranked);
        printf("%-18s %7zu %7zu %8s %8s %7s %9s %9s\n", dz_table_name(r->label, 18, name), r->tensors, r->changed,
               percent(r->elements_changed, r->elements, share), change, rank, dz_format_size(r->exact, exact),
               dz_format_size(r->lossy, lossy));
    }
}

/* The kinds of matrices whose change is of low rank: "q, v". */
static const char *low_rank_kinds(const dz_model_diff *d, char text[128]) {
    unsigned seen = 0;
    text[0] = '\0';
    for (size_t i = 0; i < d->plan->npairs; i++) {
        dz_kind kind = dz_plan_kind(d->plan, &d->plan->pairs[i]);
        if (!d->tensors[i].changed || !d->tensors[i].ranked || !d->tensors[i].spectrum.low_rank || seen & 1U << kind) continue;
        size_t len = strlen(text);
        snprintf(text + len, 128 - len, "%s%s", len ? ", " : "", dz_kind_name(kind));
        seen |= 1U << kind;
    }
    return text;
}

/* What sort of change it looks like, in a line. */
static void describe(const dz_model_diff *d, char text[256]) {
    const dz_diff_totals *s = &d->totals;
    char share[32], kinds[128];
    percent(s->elements_changed, s->among, share);
    double change = s->base_energy > 0 ? sqrt(s->delta_energy / s->base_energy) : 0;
    switch (d->sort) {
        case DZ_DIFF_IDENTICAL: snprintf(text, 256, "identical: no element differs"); break;
        case DZ_DIFF_DTYPE: snprintf(text, 256, "dtype only: every value is the base's, rounded to the model's dtype"); break;
        case DZ_DIFF_VOCABULARY: snprintf(text, 256, "vocabulary grown: rows were added, nothing else changed"); break;
        case DZ_DIFF_HEAD: snprintf(text, 256, "head only: the rest is the base's"); break;
        case DZ_DIFF_NORMS: snprintf(text, 256, "norms and biases only: the rest is the base's"); break;
        case DZ_DIFF_EMBEDDINGS: snprintf(text, 256, "embeddings only: the rest is the base's"); break;
        case DZ_DIFF_LORA:
            snprintf(text, 256, "LoRA, merged: rank up to %zu in %zu of %zu matrices of blocks\n(%s)", s->rank, s->low_rank, s->body,
                     low_rank_kinds(d, kinds));
            break;
        case DZ_DIFF_SPARSE: snprintf(text, 256, "sparse: %s of the elements of %zu tensors changed", share, s->changed); break;
        case DZ_DIFF_FULL:
            snprintf(text, 256, "full fine-tune: %zu of %zu matrices of blocks changed; of the changed\ntensors %s of the elements",
                     s->body_changed, s->body, share);
            break;
        case DZ_DIFF_OTHER_MODEL: snprintf(text, 256, "no fine-tune of this base: |D|/|W| is %.2f, as of unrelated models", change); break;
        case DZ_DIFF_ADAPTER: snprintf(text, 256, "an adapter, not merged: not a whole model that could be compared"); break;
        default: snprintf(text, 256, "no tensor of it is in the base: another architecture, or other names"); break;
    }
}

static json_t *table_json(const table *t) {
    json_t *list = json_array();
    for (size_t i = 0; i < t->n; i++) {
        const row *r = &t->rows[i];
        json_array_append_new(
            list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:f, s:f, s:f}", "name", r->label, "tensors", (json_int_t)r->tensors,
                            "changed_tensors", (json_int_t)r->changed, "elements", (json_int_t)r->elements, "changed_elements",
                            (json_int_t)r->elements_changed, "relative_change", r->changed ? dz_json_number(relative(r)) : json_real(0),
                            "mean_effective_rank", r->ranked ? json_real(r->ranks / (double)r->ranked) : json_null(), "source_bytes",
                            r->source, "predicted_exact_bytes", r->exact, "predicted_stored_bytes", r->lossy));
    }
    return list;
}

static json_t *tensor_json(const dz_model_diff *d, size_t i) {
    const dz_tensor_pair *pair = &d->plan->pairs[i];
    const dz_tensor_diff *t = &d->tensors[i];
    const dz_tensor *tensor = dz_pair_tensor(d->plan, pair), *base = pair->base >= 0 ? &d->plan->base->tensors[pair->base] : NULL;
    json_t *o =
        json_pack("{s:s, s:s, s:s?, s:s?, s:s, s:I, s:I, s:I, s:f, s:f}", "name", tensor->name, "dtype", tensor->dtype_name, "base",
                  base ? base->name : NULL, "base_dtype", base ? base->dtype_name : NULL, "kind", kind_of(d, pair), "elements",
                  (json_int_t)tensor->count, "common_elements", (json_int_t)t->common, "changed_elements", (json_int_t)t->changed,
                  "predicted_exact_bytes", d->forecast.tensors[i].exact_bytes, "predicted_stored_bytes", d->forecast.tensors[i].bytes);
    json_object_set_new(o, "relative_change", dz_json_number(t->changed ? sqrt(t->delta_energy / t->base_energy) : 0));
    if (!t->ranked || !t->changed) return o;
    const dz_spectrum *s = &t->spectrum;
    json_object_set_new(o, "rank",
                        json_pack("{s:I, s:I, s:f, s:f, s:I, s:b}", "rows", (json_int_t)s->rows, "columns", (json_int_t)s->cols,
                                  "effective", s->effective, "stable", s->stable, "above_rounding", (json_int_t)s->significant, "low",
                                  s->low_rank));
    return o;
}

static dz_rc print_json(const dz_model_diff *d, const table *kinds, const table *layers, const char *text, dz_error *err) {
    const dz_diff_totals *s = &d->totals;
    const dz_forecast_task *f = &d->forecast.tasks[0];
    json_t *tensors = json_array();
    for (size_t i = 0; i < d->plan->npairs; i++) json_array_append_new(tensors, tensor_json(d, i));
    json_t *totals =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "tensors", (json_int_t)s->tensors, "changed_tensors",
                  (json_int_t)s->changed, "new_tensors", (json_int_t)s->added, "absent_tensors", (json_int_t)s->absent, "other_dtype",
                  (json_int_t)s->other_dtype, "grown_tensors", (json_int_t)s->grown, "low_rank_tensors", (json_int_t)s->low_rank, "rank",
                  (json_int_t)s->rank, "elements", (json_int_t)s->elements, "changed_elements", (json_int_t)s->elements_changed);
    json_object_set_new(totals, "relative_change", dz_json_number(s->base_energy > 0 ? sqrt(s->delta_energy / s->base_energy) : 0));
    json_object_set_new(totals, "source_bytes", json_real(f->source));
    json_object_set_new(totals, "predicted_exact_bytes", json_real(f->exact));
    json_object_set_new(totals, "predicted_stored_bytes", json_real(f->stored));
    dz_json_quality(totals, f->quality);
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "base", d->zoo.base->path, "model", d->zoo.tasks[0]->path,
                             "sort", dz_diff_sort_name(d->sort), "text", text, "totals", totals, "kinds", table_json(kinds), "layers",
                             table_json(layers), "tensors", tensors, "notes", dz_json_lines(&d->plan->notes));
    return dz_print_json(root, NULL, err);
}

static void print_totals(const dz_model_diff *d, const char *text) {
    const dz_diff_totals *s = &d->totals;
    const dz_forecast_task *f = &d->forecast.tasks[0];
    char a[32], b[32], name[256], base[256], setting[DZ_SETTING_TEXT];
    printf("%s against %s:\n", dz_table_name(d->name, 33, name), dz_table_name(d->zoo.base->path, 33, base));
    printf("%s\n", text);
    if (s->other_dtype) printf("%zu tensor%s of another dtype than the base's\n", s->other_dtype, s->other_dtype == 1 ? " is" : "s are");
    if (s->grown)
        printf("%zu embedding%s or head%s more rows than the base's\n", s->grown, s->grown == 1 ? "" : "s",
               s->grown == 1 ? " has" : "s have");
    if (s->added) printf("%zu tensor%s not in the base\n", s->added, s->added == 1 ? " is" : "s are");
    if (s->absent)
        printf("%zu tensor%s of the base %s not in the model\n", s->absent, s->absent == 1 ? "" : "s", s->absent == 1 ? "is" : "are");
    printf("\nTo expect in an archive, of %s: exactly (--recipe lossless) about %s,\n", dz_format_size(f->source, a),
           dz_format_size(f->exact, b));
    printf("with %s", dz_recipe_setting(d->zoo.recipe, setting));
    printf(" about %s (quality %s)\n", dz_format_size(f->stored, a), dz_verdict_name(f->quality.verdict));
}

static dz_rc print(const dz_model_diff *d, const char *picture, int json, dz_error *err) {
    char text[256] = "", line[256];
    table kinds = {0}, layers = {0};
    describe(d, text);
    if (by_kind(d, &kinds, err) != DZ_OK || by_layer(d, &layers, err) != DZ_OK) goto out;
    for (size_t i = 0; i < sizeof text; i++) line[i] = text[i] == '\n' ? ' ' : text[i];
    if (picture && dz_plot_diff(d, line, picture, err) != DZ_OK) goto out;
    dz_print_notes(&d->plan->notes);
    if (json) {
        print_json(d, &kinds, &layers, line, err);
        goto out;
    }
    print_totals(d, text);
    print_table("kind", &kinds);
    join_layers(&layers);
    if (layers.n) print_table("layers", &layers);
    printf("\nelements: share that differs from the base; |D|/|W|: of the changed tensors, the\n"
           "norm of the change over the base's; rank: mean effective rank of the changes,\n"
           "from up to %d rows of each matrix (deltazoo diff --json has more)\n",
           DZ_SPECTRUM_ROWS);
out:
    free(kinds.rows);
    free(layers.rows);
    return err->rc;
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *args[2];
    const char *picture = NULL;
    int json = 0, quiet = 0, helped = 0;
    dz_option_list sets = {0};
    dz_recipe_request request = {0};
    dz_model_diff d = {0};
    const dz_option options[] = {
        {"recipe", 0, DZ_OPTION_TEXT, &request.recipe, "FILE|NAME", "of the lossy size to expect, as for compress"},
        {"set", 0, DZ_OPTION_LIST, &sets, "KEY=VALUE", "as for compress"},
        DZ_METHOD_OPTIONS(sets),
        {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs: also every tensor"},
        {"plot", 0, DZ_OPTION_TEXT, &picture, "FILE", "draw the changes by layer and kind into FILE.svg or FILE.png"},
        {"quiet", 'q', DZ_OPTION_FLAG, &quiet, NULL, "no progress"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    dz_rc rc = dz_parse_options(world, &DZ_CMD_DIFF, argc, argv, options, args, 2, &helped, err);
    if (rc == DZ_OK && !helped) {
        request.sets = sets.values;
        request.nsets = sets.n;
        if (picture) rc = dz_sync_error(world, world->rank == 0 ? dz_picture_check(picture, err) : DZ_OK, err);
        if (rc == DZ_OK) rc = dz_model_diff_make(world, args[0], args[1], &request, quiet, &d, err);
        if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? print(&d, picture, json, err) : DZ_OK, err);
    }
    dz_model_diff_free(&d);
    dz_option_list_free(&sets);
    return rc;
}

const dz_command DZ_CMD_DIFF = {
    "diff", "BASE MODEL [--quality high|balanced|small] [--method NAME] [--recipe FILE|NAME] [--set KEY=VALUE]... [--json] [--plot FILE]",
    "Shows what a fine-tune changed of its base, without an archive: which tensors, how much, of what rank, and the sizes to expect.", run,
    "deltazoo diff base math\n"
    "deltazoo diff base math --plot math.svg"};

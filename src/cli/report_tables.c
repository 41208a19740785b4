/* Tables for people. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/report.h"
#include "cli/report_internal.h"
#include "cli/table.h"

#define RATIO_TEXT 16

/* "12.3x", "502x": in 6 columns. */
static const char *ratio_text(double ratio, char text[RATIO_TEXT]) {
    if (ratio > 0)
        snprintf(text, RATIO_TEXT, "%.*fx", ratio < 999.95, ratio);
    else
        snprintf(text, RATIO_TEXT, "-");
    return text;
}

#define NAME_WIDTH 12 /* the other columns take 67 */

void dz_print_quality_head(const char *stored) {
    printf("%-*s %8s %8s %6s %6s %6s %6s %7s %s\n", NAME_WIDTH, "task", "bytes in", stored, "lossy", "whole", "cosine", "noise/", "noise/",
           "quality");
    printf("%-*s %8s %8s %6s %6s %6s %6s %7s\n", NAME_WIDTH, "", "", "", "", "", "", "delta", "base");
}

void dz_print_quality_row(const char *task, double source, double stored, double lossy_ratio, dz_quality q) {
    char a[32], b[32], lossy[RATIO_TEXT], whole[RATIO_TEXT], name[256];
    printf("%-*s %8s %8s %6s %6s ", NAME_WIDTH, dz_table_name(task, NAME_WIDTH, name), dz_format_size(source, a), dz_format_size(stored, b),
           ratio_text(lossy_ratio, lossy), ratio_text(stored > 0 ? source / stored : 0, whole));
    if (q.verdict == DZ_VERDICT_EXACT)
        printf("%6s %6s %7s %s\n", "1", "0", "0", dz_verdict_name(q.verdict));
    else if (isfinite(q.noise_to_base))
        printf("%6.4f %6.3g %6.2g%% %s\n", q.cosine, q.noise_to_delta, 100 * q.noise_to_base, dz_verdict_name(q.verdict));
    else
        printf("%6.4f %6.3g %7s %s\n", q.cosine, q.noise_to_delta, "?", dz_verdict_name(q.verdict));
}

static void print_task(const dz_catalog *c, const dz_task_entry *e) {
    char a[32];
    dz_size_stats s = dz_task_size_stats(e);
    dz_dropped d = dz_task_dropped(c, e);
    dz_print_quality_row(dz_catalog_is_stored(c, e) ? DZ_STORED_ROW : e->name, s.source, s.stored, s.lossy_ratio, dz_task_quality(c, e));
    if (d.ntensors)
        printf("    %zu tensor%s of %s, %s, dropped; without: %.1fx\n", d.ntensors, d.ntensors == 1 ? "" : "s", e->name,
               dz_format_size(d.source, a), d.ratio);
}

/* The ratios that the paper counts and the trace norms: of methods that quantise to levels. */
static void print_paper_ratios(const dz_catalog *c, const dz_task_entry *only) {
    char name[256];
    int any = 0;
    for (size_t t = 0; t < c->ntasks; t++) any |= (!only || only == &c->tasks[t]) && c->tasks[t].trace_norm > 0;
    if (!any) return;
    printf("\n%-14s %11s %11s %9s  %s\n", "the paper's", "value bits", "pos. coded", "gamma", "trace norm");
    for (size_t t = 0; t < c->ntasks; t++) {
        const dz_task_entry *e = &c->tasks[t];
        dz_size_stats s = dz_task_size_stats(e);
        if (!(e->trace_norm > 0) || (only && only != e)) continue;
        printf("%-14s %10.1fx %10.1fx %9.4f  %.5g +- %.2g %%\n", dz_table_name(e->name, 14, name), s.value_bits, s.positions_coded,
               (double)e->gamma, e->trace_norm, 100 * e->trace_error / e->trace_norm);
    }
}

/* What a ratio would be if it did not count what is dropped; "" where nothing is. */
static const char *beside_drops(double kept, double dropped, double stored, char *text, size_t size) {
    text[0] = '\0';
    if (dropped > 0 && stored > 0) snprintf(text, size, " (dropped tensors excluded, %.1fx)", kept / stored);
    return text;
}

static void print_shared(const dz_catalog *c) {
    dz_error none = {0};
    dz_shared s;
    char size[32];
    if (dz_shared_of(c, &s, &none) != DZ_OK || (s.ntensors == 0 && s.saved < c->file_size / 100)) return;
    printf("stored once for several tasks: %zu tensor%s, %zu file%s; %s saved\n", s.ntensors, s.ntensors == 1 ? "" : "s", s.nfiles,
           s.nfiles == 1 ? "" : "s", dz_format_size((double)s.saved, size));
}

/* Tasks that are coded against others, and what that costs. */
static void print_chains(const dz_catalog *c) {
    size_t n = 0;
    unsigned depth = 0;
    double most = 1;
    for (size_t t = 0; t < c->ntasks; t++) {
        const dz_task_entry *task = &c->tasks[t];
        if (!dz_task_parent(task)) continue;
        n++;
        depth = dz_task_depth(task) > depth ? dz_task_depth(task) : depth;
        most = fmax(most, dz_task_decodings(c, task));
    }
    if (n)
        printf("coded against other tasks: %zu task%s, at most %u deep; restoring decodes at most\n%.3g times their tiles (info "
               "--columns name,parent,depth,decoded)\n",
               n, n == 1 ? "" : "s", depth, most);
}

void dz_print_one_task(const dz_catalog *c, const dz_task_entry *task) {
    char size[32];
    size_t n = c->there - (c->stored != 0);
    dz_print_quality_head("stored");
    print_task(c, task);
    if (dz_task_is_adapter(task)) printf("\nan adapter (LoRA), stored exactly\n");
    print_paper_ratios(c, task);
    printf("\narchive %s, %zu task%s\n", dz_format_size((double)c->file_size, size), n, n == 1 ? "" : "s");
    if (dz_task_parent(task))
        printf("coded against task '%s', %u deep; restoring decodes %.3g times its tiles\n", dz_task_parent(task), dz_task_depth(task),
               dz_task_decodings(c, task));
}

void dz_print_tasks(const dz_catalog *c, const dz_task_view *view) {
    char a[32], b[32], beside[64];
    double source = 0, dropped = 0, base = (double)dz_catalog_base_bytes(c), file = (double)c->file_size;
    dz_print_quality_head("stored");
    for (size_t t = 0; t < c->ntasks; t++) {
        dz_size_stats s = dz_task_size_stats(&c->tasks[t]);
        if (dz_catalog_is_stored(c, &c->tasks[t])) continue;
        source += s.source;
        dropped += dz_task_dropped(c, &c->tasks[t]).source;
        if (!view) print_task(c, &c->tasks[t]);
    }
    for (size_t t = 0; view && t < view->n; t++) print_task(c, view->tasks[t]);
    if (c->stored) print_task(c, &c->tasks[c->stored - 1]);
    if (view && view->n < dz_catalog_ntasks(c)) printf("(%zu of %zu tasks; what follows is of all)\n", view->n, dz_catalog_ntasks(c));
    if (!view || view->n == dz_catalog_ntasks(c)) print_paper_ratios(c, NULL);
    size_t adapters = 0;
    for (size_t t = 0; t < c->ntasks; t++) adapters += (size_t)dz_task_is_adapter(&c->tasks[t]);
    if (adapters) printf("\n%zu adapter%s (LoRA) among them, stored exactly", adapters, adapters > 1 ? "s" : "");
    printf("\narchive %s (%s shared by all tasks): %.1fx%s\n", dz_format_size(file, a), dz_format_size((double)c->shared_bytes, b),
           file > 0 ? source / file : 0, beside_drops(source - dropped, dropped, file, beside, sizeof beside));
    const char *name = c->base_name ? c->base_name : "", *comma = c->base_name ? ", " : "";
    if (c->stored)
        printf("with the base, which is in it (%s%s%s): %.2fx\n", name, comma, dz_format_size(base, a),
               file > 0 ? (source + base) / file : 0);
    else if (c->nbase)
        printf("with the base, which must be kept (%s%s%s): %.2fx\n", name, comma, dz_format_size(base, a),
               (source + base) / (file + base));
    else
        printf("no base: each task is coded by itself\n");
    print_shared(c);
    print_chains(c);
}

static const char *score_number(const json_t *score, const char *key, char text[24]) {
    const json_t *value = json_object_get(score, key);
    snprintf(text, 24, json_is_number(value) ? "%.5g" : "-", json_number_value(value));
    return text;
}

void dz_print_scores(const dz_catalog *c) {
    char name[256], original[24], base[24], tuned[24], drop[24], limit[24];
    int any = 0;
    for (size_t t = 0; t < c->ntasks; t++) {
        json_t *score = dz_report_score(&c->tasks[t]);
        const char *type = json_string_value(json_object_get(score, "drop_type"));
        double most = json_number_value(json_object_get(score, "max_drop"));
        int relative = type && strcmp(type, "relative") == 0;
        if (!score) continue;
        if (!any++) printf("\n%-20s %10s %10s %10s %10s %10s\n", "tuned task", "original", "base", "restored", "drop", "at most");
        snprintf(limit, sizeof limit, relative ? "%.4g%%" : "%.5g", relative ? 100 * most : most);
        printf("%-20s %10s %10s %10s %10s %10s\n", dz_table_name(c->tasks[t].name, 20, name), score_number(score, "original", original),
               score_number(score, "base", base), score_number(score, "tuned", tuned), score_number(score, "drop", drop), limit);
        json_decref(score);
    }
}

static void print_tensor(const dz_catalog *c, const dz_task_entry *t, const dz_index_row *r, int width, int wide) {
    dz_tensor tensor = dz_tensor_of_row(&c->tensors[r->tensor]);
    char shape[DZ_SHAPE_TEXT], name[256], sparsity[32] = "-", kept[32] = "-", cosine[32] = "-", noise[32] = "-", ratio[RATIO_TEXT];
    if (r->policy == DZ_POLICY_ULTRADELTA) {
        dz_quality q = dz_row_quality(c, t, r);
        snprintf(sparsity, sizeof sparsity, "%.5f", (double)r->sparsity);
        snprintf(kept, sizeof kept, "%llu", (unsigned long long)r->kept);
        snprintf(cosine, sizeof cosine, "%.4f", q.cosine);
        snprintf(noise, sizeof noise, "%.3g", q.noise_to_delta);
    }
    printf("%-*s ", width, dz_table_name(tensor.name, width, name));
    if (wide) printf("%-6s %-18s ", tensor.dtype_name, dz_shape_text(&tensor, shape));
    printf("%-10s %8s ", dz_policy_name((dz_policy)r->policy), cosine);
    if (wide) printf("%9s %10s ", sparsity, kept);
    printf("%9s %9llu %8s\n", noise, (unsigned long long)r->length,
           ratio_text(r->length ? (double)tensor.nbytes / (double)r->length : 0, ratio));
}

void dz_print_tensors(const dz_catalog *c, const dz_task_entry *t, const char *match, int wide) {
    size_t longest = 6;
    for (size_t i = 0; i < t->nrows; i++) {
        if (!dz_report_shows(c, &t->rows[i], match)) continue;
        size_t len = strlen(c->tensors[t->rows[i].tensor].name);
        longest = len > longest ? len : longest;
    }
    int width = dz_table_width(longest, 49, wide);
    printf("\n%-*s ", width, "tensor");
    if (wide) printf("%-6s %-18s ", "dtype", "shape");
    printf("%-10s %8s ", "policy", "cosine");
    if (wide) printf("%9s %10s ", "sparsity", "kept");
    printf("%9s %9s %8s\n", "noise", "stored", "ratio");
    for (size_t i = 0; i < t->nrows; i++) {
        if (dz_report_shows(c, &t->rows[i], match)) print_tensor(c, t, &t->rows[i], width, wide);
    }
    printf("\nnoise: energy over that of the delta.");
    if (!wide) printf("\n--wide has more columns%s, --json has everything.", (size_t)width < longest ? " and full names" : "");
    putchar('\n');
}

void dz_print_damage(const dz_damage *damage) {
    dz_damage_record r;
    uint64_t printed = 0;
    for (size_t at = 0; dz_damage_next(damage, &at, &r); printed++) dz_message("damage", "%s", r.text);
    if (printed < damage->count) dz_message("damage", "and %llu more", (unsigned long long)(damage->count - printed));
}

void dz_print_largest(const dz_catalog *c, const dz_task_entry *only) {
    dz_holder list[DZ_LARGEST];
    uint64_t total;
    char size[32], name[256];
    size_t n = dz_report_largest(c, only, list, &total);
    for (size_t i = 0; i < n; i++)
        printf("%s %-38s %-10s %9s %5.1f %%\n", i ? "           " : "most bytes:", dz_table_name(c->tensors[list[i].tensor].name, 38, name),
               dz_policy_name((dz_policy)list[i].policy), dz_format_size((double)list[i].stored, size),
               100 * (double)list[i].stored / (double)total);
}

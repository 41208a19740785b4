#include "cli/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/plot_internal.h"

dz_hue dz_hue_of(dz_place place, dz_kind kind) {
    static const dz_hue kinds[DZ_NKINDS] = {[DZ_KIND_OTHER] = DZ_HUE_MATRICES,
                                            [DZ_KIND_Q] = DZ_HUE_Q,
                                            [DZ_KIND_K] = DZ_HUE_K,
                                            [DZ_KIND_V] = DZ_HUE_V,
                                            [DZ_KIND_O] = DZ_HUE_O,
                                            [DZ_KIND_ATTENTION_OTHER] = DZ_HUE_ATTENTION,
                                            [DZ_KIND_GATE] = DZ_HUE_GATE,
                                            [DZ_KIND_UP] = DZ_HUE_UP,
                                            [DZ_KIND_DOWN] = DZ_HUE_DOWN,
                                            [DZ_KIND_MLP_OTHER] = DZ_HUE_MLP,
                                            [DZ_KIND_CONV] = DZ_HUE_CONV};
    switch (place) {
        case DZ_PLACE_BODY: return kinds[kind];
        case DZ_PLACE_OUTSIDE: return DZ_HUE_MATRICES;
        case DZ_PLACE_EMBEDDING:
        case DZ_PLACE_POSITION: return DZ_HUE_EMBEDDINGS;
        case DZ_PLACE_HEAD: return DZ_HUE_HEADS;
        case DZ_PLACE_VECTOR:
        case DZ_PLACE_NORM: return DZ_HUE_VECTORS;
        default: return DZ_HUE_REST;
    }
}

double dz_plot_layer_x(const dz_panel *a, const dz_layer_list *layers, size_t layer) {
    return a->left + a->width / (double)layers->n * ((double)layer + 0.5);
}

double dz_plot_kind_x(const dz_panel *a, const dz_layer_list *layers, size_t layer, const char *used, dz_hue hue) {
    double n = 0, before = 0, each = a->width / (double)layers->n;
    for (int h = 0; h < DZ_HUES_OF_TENSORS; h++) {
        n += used[h] != 0;
        before += used[h] && h < (int)hue;
    }
    return dz_plot_layer_x(a, layers, layer) + (before - (n - 1) / 2) * fmin(9, 0.8 * each / fmax(n, 1));
}

void dz_plot_layer_labels(dz_picture *p, const dz_panel *a, const dz_layer_list *layers) {
    size_t every = 1 + (size_t)(24 * (double)layers->n / a->width), stacks = 0, last = 0, begun = 0;
    for (size_t i = 0; i < layers->n; i++) {
        size_t at = dz_layer_number_at(layers->name[i], layers->len[i]);
        int first = i == 0 || at != last || memcmp(layers->name[i], layers->name[i - 1], at) != 0;
        last = at;
        if (first) begun = i;
        stacks += (size_t)first;
        if ((i - begun) % every == 0 && (first || layers->n - i >= every || every == 1)) {
            char text[32];
            snprintf(text, sizeof text, "%.*s", (int)(layers->len[i] - at < 8 ? layers->len[i] - at : 8), layers->name[i] + at);
            dz_picture_text(p, dz_plot_layer_x(a, layers, i), a->top + a->height + 16, 11, DZ_MIDDLE, text, 0);
        }
    }
    for (size_t i = 0; i < layers->n && stacks > 1;) { /* the stacks' names, each below its layers */
        char name[256];
        size_t at = dz_layer_number_at(layers->name[i], layers->len[i]), k = i;
        while (k < layers->n && dz_layer_number_at(layers->name[k], layers->len[k]) == at &&
               memcmp(layers->name[k], layers->name[i], at) == 0)
            k++;
        double from = dz_plot_layer_x(a, layers, i), to = dz_plot_layer_x(a, layers, k - 1), each = a->width / (double)layers->n;
        snprintf(name, sizeof name, "%.*s", (int)(at > 0 && at < 250 ? at - 1 : 0), layers->name[i]);
        if (each * (double)(k - i) > 40)
            dz_picture_text(p, (from + to) / 2, a->top + a->height + 32, 11, DZ_MIDDLE, name, each * (double)(k - i) - 6);
        if (i > 0) dz_picture_line(p, from - each / 2, a->top, from - each / 2, a->top + a->height + 34, "#bbbbbb", 1);
        i = k;
    }
}

/* A tensor's figures in the picture. */
typedef struct cell {
    double nbytes;
    double error, weight; /* sums of elements * error^2, and of elements, of lossy tensors */
} cell;

typedef struct plot {
    const dz_catalog *c;
    const dz_task_entry *only;
    dz_layer_list layers;
    size_t *where; /* [tensors] layer of each row of /tensors */
    cell *cells;   /* [layers][hues of tensors] */
    double outside, heaviest;
    size_t noutside;
    const char *heaviest_name;
    dz_tensor_role *roles; /* [base tensors] */
} plot;

static dz_rc find_roles(plot *p, dz_error *err) {
    dz_tensor *tensors = dz_alloc(p->c->nbase, sizeof *tensors, err);
    for (size_t i = 0; tensors && i < p->c->nbase; i++) tensors[i] = dz_tensor_of_row(&p->c->tensors[p->c->base[i].tensor]);
    if (tensors) dz_roles_make(tensors, p->c->nbase, &p->roles, err);
    free(tensors);
    return err->rc;
}

static void add_row(plot *p, const dz_task_entry *task, const dz_index_row *row) {
    const dz_tensor_row *tensor = &p->c->tensors[row->tensor];
    size_t layer = p->where[row->tensor];
    if (row->policy == DZ_POLICY_ABSENT) return;
    if (layer == SIZE_MAX) {
        p->outside += (double)row->length;
        p->noutside++;
        if ((double)row->length > p->heaviest) {
            p->heaviest = (double)row->length;
            p->heaviest_name = tensor->name;
        }
        return;
    }
    const dz_tensor_role *role = row->base == DZ_NO_BASE ? NULL : &p->roles[row->base];
    cell *at = &p->cells[layer * DZ_HUES_OF_TENSORS + (size_t)(role ? dz_hue_of(role->place, role->kind) : DZ_HUE_NEW)];
    at->nbytes += (double)row->length;
    if (row->policy != DZ_POLICY_ULTRADELTA) return;
    double count = (double)dz_tensor_of_row(tensor).count, error = dz_row_quality(p->c, task, row).error;
    at->error += count * error * error;
    at->weight += count;
}

static dz_rc gather(plot *p, dz_error *err) {
    size_t n = p->c->ntensors;
    const char **names = dz_alloc(n, sizeof *names, err);
    p->where = dz_alloc(n, sizeof *p->where, err);
    if (err->rc != DZ_OK || find_roles(p, err) != DZ_OK) goto out;
    for (size_t t = 0; t < p->c->ntasks; t++) {
        const dz_task_entry *task = &p->c->tasks[t];
        for (size_t i = 0; i < task->nrows && (!p->only || p->only == task); i++) {
            const dz_index_row *row = &task->rows[i];
            if (row->policy != DZ_POLICY_ABSENT) names[row->tensor] = p->c->tensors[row->tensor].name;
        }
    }
    if (dz_layer_list_make(names, n, &p->layers, p->where, err) != DZ_OK) goto out;
    if (!(p->cells = dz_alloc(p->layers.n * DZ_HUES_OF_TENSORS, sizeof *p->cells, err))) goto out;
    for (size_t t = 0; t < p->c->ntasks; t++) {
        const dz_task_entry *task = &p->c->tasks[t];
        for (size_t i = 0; i < task->nrows && (!p->only || p->only == task); i++) add_row(p, task, &task->rows[i]);
    }
out:
    free(names);
    return err->rc;
}

static const cell *cell_of(const plot *p, size_t layer, int hue) { return &p->cells[layer * DZ_HUES_OF_TENSORS + (size_t)hue]; }

static void draw_bytes(dz_picture *svg, const plot *p, dz_panel *a) {
    char used[DZ_HUES] = {0}, title[512];
    for (size_t i = 0; i < p->layers.n; i++) {
        double sum = 0;
        for (int h = 0; h < DZ_HUES_OF_TENSORS; h++) sum += cell_of(p, i, h)->nbytes;
        a->most = fmax(a->most, sum);
    }
    dz_panel_axis(svg, a, p->only ? "Stored bytes by layer" : "Stored bytes by layer, all tasks", DZ_AXIS_BYTES);
    dz_plot_layer_labels(svg, a, &p->layers);
    double width = fmin(a->width / (double)p->layers.n * 0.7, 60);
    for (size_t i = 0; i < p->layers.n; i++) {
        double below = 0;
        for (int h = 0; h < DZ_HUES_OF_TENSORS; h++) {
            double nbytes = cell_of(p, i, h)->nbytes;
            if (nbytes <= 0) continue;
            used[h] = 1;
            snprintf(title, sizeof title, "%.*s, %s: %.0f bytes", (int)(p->layers.len[i] < 300 ? p->layers.len[i] : 300), p->layers.name[i],
                     dz_hue_name((dz_hue)h), nbytes);
            dz_picture_bar(svg, dz_plot_layer_x(a, &p->layers, i) - width / 2, dz_panel_y(a, below + nbytes), width,
                           a->height * nbytes / a->most, (dz_hue)h, title);
            below += nbytes;
        }
    }
    dz_picture_legend(svg, DZ_PLOT_LEGEND, a->top, used);
}

static void draw_errors(dz_picture *svg, const plot *p, dz_panel *a) {
    char used[DZ_HUES] = {0}, title[512];
    for (size_t i = 0; i < p->layers.n * DZ_HUES_OF_TENSORS; i++) {
        used[i % DZ_HUES_OF_TENSORS] |= p->cells[i].weight > 0;
        double error = p->cells[i].weight > 0 ? sqrt(p->cells[i].error / p->cells[i].weight) : 0;
        if (isfinite(error)) a->most = fmax(a->most, error);
    }
    dz_panel_axis(svg, a, "Expected relative error of the lossy deltas by layer (1: as large as the delta; black: all of the layer)", 0);
    dz_plot_layer_labels(svg, a, &p->layers);
    double width = fmin(a->width / (double)p->layers.n * 0.8, 80);
    for (size_t i = 0; i < p->layers.n; i++) {
        double x = dz_plot_layer_x(a, &p->layers, i), sum = 0, weight = 0;
        int len = (int)(p->layers.len[i] < 300 ? p->layers.len[i] : 300);
        for (int h = 0; h < DZ_HUES_OF_TENSORS; h++) {
            sum += cell_of(p, i, h)->error;
            weight += cell_of(p, i, h)->weight;
        }
        if (!(weight > 0) || !isfinite(sum)) continue;
        snprintf(title, sizeof title, "%.*s: expected relative error %.6g", len, p->layers.name[i], sqrt(sum / weight));
        dz_picture_bar(svg, x - width / 2, dz_panel_y(a, sqrt(sum / weight)) - 1, width, 2, DZ_HUE_MARK, title);
        for (int h = 0; h < DZ_HUES_OF_TENSORS; h++) {
            const cell *at = cell_of(p, i, h);
            if (!(at->weight > 0)) continue;
            snprintf(title, sizeof title, "%.*s, %s: expected relative error %.6g", len, p->layers.name[i], dz_hue_name((dz_hue)h),
                     sqrt(at->error / at->weight));
            dz_picture_dot(svg, dz_plot_kind_x(a, &p->layers, i, used, (dz_hue)h), dz_panel_y(a, sqrt(at->error / at->weight)),
                           p->layers.n > 30 ? 2.5 : 4, (dz_hue)h, title);
        }
    }
    dz_picture_legend(svg, DZ_PLOT_LEGEND, a->top, used);
}

static void draw_outside(dz_picture *svg, const plot *p, double y) {
    char text[512], size[32], heaviest[32];
    if (!(p->outside > 0)) return;
    int n = snprintf(text, sizeof text, "outside the layers %s in %zu tensor%s", dz_format_size(p->outside, size), p->noutside,
                     p->noutside == 1 ? "" : "s");
    if (p->only && p->heaviest > 0)
        snprintf(text + n, sizeof text - (size_t)n, ", of which %s in %.300s", dz_format_size(p->heaviest, heaviest), p->heaviest_name);
    dz_picture_text(svg, DZ_PLOT_LEFT, y, 12, DZ_START, text, DZ_PLOT_WIDTH - DZ_PLOT_LEFT - 20);
}

static void draw_layers(dz_picture *svg, const plot *p, double top) {
    draw_outside(svg, p, top);
    if (p->layers.n == 0) {
        dz_picture_text(svg, DZ_PLOT_LEFT, top + 40, 12, DZ_START, "No tensor has a layer's number in its name.", 0);
        return;
    }
    dz_panel bytes = {.left = DZ_PLOT_LEFT, .top = top + 44, .width = DZ_PLOT_PANEL, .height = 210}, errors = bytes;
    errors.top += 310;
    draw_bytes(svg, p, &bytes);
    draw_errors(svg, p, &errors);
}

#define LAYERS_HEIGHT(p) ((p)->layers.n ? 620.0 : 70.0)

static void head_of_task(dz_picture *svg, const dz_catalog *c, const dz_task_entry *t) {
    char title[300], line[400], size[32];
    snprintf(title, sizeof title, "Task %s", t->name);
    dz_quality q = dz_task_quality(c, t);
    int n = snprintf(line, sizeof line, "recipe %.200s, payload %s, quality %s", t->recipe, dz_format_size((double)t->payload_len, size),
                     dz_verdict_name(q.verdict));
    if (q.verdict != DZ_VERDICT_EXACT)
        snprintf(line + n, sizeof line - (size_t)n, ": cosine %.4f, noise %.3g times the change", q.cosine, q.noise_to_delta);
    dz_picture_text(svg, DZ_PLOT_LEFT, 32, -17, DZ_START, title, DZ_PLOT_WIDTH - DZ_PLOT_LEFT - 20);
    dz_picture_text(svg, DZ_PLOT_LEFT, 54, 12, DZ_START, line, DZ_PLOT_WIDTH - DZ_PLOT_LEFT - 20);
}

static dz_plot_task task_of(const dz_catalog *c, const dz_task_entry *t) {
    dz_size_stats s = dz_task_size_stats(t);
    dz_parts parts = dz_task_parts(c, t);
    dz_quality q = dz_task_quality(c, t);
    return (dz_plot_task){.name = t->name,
                          .source = s.source,
                          .lossy = parts.values + parts.coding + parts.checks,
                          .exact = parts.exact,
                          .fixed = parts.index + parts.structures,
                          .noise = q.verdict == DZ_VERDICT_EXACT ? 0 : q.noise_to_delta,
                          .verdict = q.verdict};
}

static void draw_archive(dz_picture *svg, const plot *p, dz_error *err) {
    const dz_catalog *c = p->c;
    dz_plot_task *tasks = dz_alloc(c->ntasks, sizeof *tasks, err);
    char title[128], a[32], b[32];
    double source = 0, stored = 0, height = dz_plot_tasks_height(c->ntasks);
    for (size_t t = 0; tasks && t < c->ntasks; t++) {
        tasks[t] = task_of(c, &c->tasks[t]);
        source += tasks[t].source;
        stored += tasks[t].lossy + tasks[t].exact + tasks[t].fixed;
    }
    dz_picture_begin(svg, DZ_PLOT_WIDTH, 64 + height + 12 + LAYERS_HEIGHT(p), err);
    size_t n = dz_catalog_ntasks(c);
    snprintf(title, sizeof title, "%zu task%s%s: %s as %s, %.1fx", n, n == 1 ? "" : "s", c->stored ? " and the base" : "",
             dz_format_size(source, a), dz_format_size(stored, b), stored > 0 ? source / stored : 0);
    dz_picture_text(svg, DZ_PLOT_LEFT, 32, -17, DZ_START, title, 0);
    if (tasks) dz_plot_tasks_panels(svg, tasks, c->ntasks, 64);
    draw_layers(svg, p, 64 + height + 12);
    free(tasks);
}

dz_rc dz_plot_archive(const dz_catalog *catalog, const dz_task_entry *task, const char *path, dz_error *err) {
    plot p = {.c = catalog, .only = task};
    dz_picture svg = {0};
    if (gather(&p, err) != DZ_OK) goto out;
    if (task) {
        dz_picture_begin(&svg, DZ_PLOT_WIDTH, 72 + LAYERS_HEIGHT(&p), err);
        head_of_task(&svg, catalog, task);
        draw_layers(&svg, &p, 72);
    } else {
        draw_archive(&svg, &p, err);
    }
    dz_picture_end(&svg);
    dz_picture_write(&svg, path, err);
out:
    dz_layer_list_free(&p.layers);
    free(p.where);
    free(p.cells);
    free(p.roles);
    return err->rc;
}

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/plot_internal.h"

enum { SHARE, CHANGE, RANK, PANELS };

/* A figure of a tensor; NaN: it has none. */
static double figure_of(const dz_tensor_diff *t, int panel) {
    switch (panel) {
        case SHARE: return t->common ? (double)t->changed / (double)t->common : NAN;
        case CHANGE: return t->changed && t->base_energy > 0 ? sqrt(t->delta_energy / t->base_energy) : NAN;
        default: return t->changed && t->ranked ? t->spectrum.effective : NAN;
    }
}

static dz_hue hue_of(const dz_model_diff *d, size_t i) {
    return dz_hue_of(dz_diff_place(d, &d->plan->pairs[i]), dz_plan_kind(d->plan, &d->plan->pairs[i]));
}

static void draw_panel(dz_picture *svg, const dz_model_diff *d, const dz_layer_list *layers, const size_t *where, int panel, double top) {
    static const char *const titles[PANELS] = {"Share of the elements that differ from the base, by layer",
                                               "|D|/|W|: norm of the change over the base's, by layer",
                                               "Effective rank of the change, from up to 256 rows of each matrix, by layer"};
    dz_panel a = {.left = DZ_PLOT_LEFT, .top = top, .width = DZ_PLOT_PANEL, .height = 190};
    char used[DZ_HUES] = {0}, title[512];
    for (size_t i = 0; i < d->plan->npairs; i++) {
        double value = figure_of(&d->tensors[i], panel);
        if (where[i] == SIZE_MAX || !isfinite(value) || d->plan->pairs[i].base < 0) continue;
        a.most = fmax(a.most, value);
        used[hue_of(d, i)] = 1;
    }
    dz_panel_axis(svg, &a, titles[panel], panel == SHARE ? DZ_AXIS_SHARE : DZ_AXIS_PLAIN);
    dz_plot_layer_labels(svg, &a, layers);
    for (size_t i = 0; i < d->plan->npairs; i++) {
        const dz_tensor_pair *pair = &d->plan->pairs[i];
        double value = figure_of(&d->tensors[i], panel);
        if (where[i] == SIZE_MAX || !isfinite(value) || pair->base < 0) continue;
        snprintf(title, sizeof title, "%.400s: %.6g", dz_pair_tensor(d->plan, pair)->name, value);
        dz_picture_dot(svg, dz_plot_kind_x(&a, layers, where[i], used, hue_of(d, i)), dz_panel_y(&a, value), layers->n > 30 ? 2.5 : 4,
                       hue_of(d, i), title);
    }
    dz_picture_legend(svg, DZ_PLOT_LEGEND, a.top, used);
}

dz_rc dz_plot_diff(const dz_model_diff *d, const char *text, const char *path, dz_error *err) {
    size_t n = d->plan->npairs;
    dz_layer_list layers = {0};
    dz_picture svg = {0};
    char title[600];
    const char **names = dz_alloc(n, sizeof *names, err);
    size_t *where = dz_alloc(n, sizeof *where, err);
    for (size_t i = 0; err->rc == DZ_OK && i < n; i++)
        names[i] = d->tensors[i].tied ? NULL : dz_pair_tensor(d->plan, &d->plan->pairs[i])->name;
    if (err->rc != DZ_OK || dz_layer_list_make(names, n, &layers, where, err) != DZ_OK) goto out;
    dz_picture_begin(&svg, DZ_PLOT_WIDTH, layers.n ? 90 + 270 * PANELS : 140, err);
    snprintf(title, sizeof title, "%.200s against %.300s", d->name, d->zoo.base->path);
    dz_picture_text(&svg, DZ_PLOT_LEFT, 32, -17, DZ_START, title, DZ_PLOT_WIDTH - DZ_PLOT_LEFT - 20);
    dz_picture_text(&svg, DZ_PLOT_LEFT, 54, 12, DZ_START, text, DZ_PLOT_WIDTH - DZ_PLOT_LEFT - 20);
    for (int k = 0; k < PANELS && layers.n; k++) draw_panel(&svg, d, &layers, where, k, 100 + 270.0 * k);
    if (!layers.n) dz_picture_text(&svg, DZ_PLOT_LEFT, 100, 12, DZ_START, "No tensor has a layer's number in its name.", 0);
    dz_picture_end(&svg);
    dz_picture_write(&svg, path, err);
out:
    dz_layer_list_free(&layers);
    free(names);
    free(where);
    return err->rc;
}

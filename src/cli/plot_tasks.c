#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/plot_internal.h"

#define NAMED 40      /* up to so many tasks each has a line with its name */
#define ROW 17.0      /* its height */
#define THIN 190.0    /* height of the panel of more tasks */
#define NAMES 190.0   /* width of the names, */
#define FIGURES 150.0 /* and of the figures behind the bars */
#define SCATTER 230.0
#define LABELLED 12 /* up to so many tasks have their names beside their marks */

double dz_plot_tasks_height(size_t n) { return (n <= NAMED ? ROW * (double)n + 20 : THIN + 40) + 56 + SCATTER + 64; }

static double stored(const dz_plot_task *t) { return t->lossy + t->exact + t->fixed; }

static int by_size(const void *x, const void *y) {
    const dz_plot_task *a = *(const dz_plot_task *const *)x, *b = *(const dz_plot_task *const *)y;
    if (stored(a) != stored(b)) return stored(a) < stored(b) ? 1 : -1;
    return strcmp(a->name, b->name);
}

static void title_of(const dz_plot_task *t, const char *part, double nbytes, char text[512]) {
    snprintf(text, 512, "%.300s, %s: %.0f bytes", t->name, part, nbytes);
}

/* The parts of a task's bytes as one bar: to the right, or upwards. */
static void stack(dz_picture *p, const dz_plot_task *t, double x, double y, double thickness, double scale, int upwards) {
    const double parts[3] = {t->lossy, t->exact, t->fixed};
    const dz_hue hues[3] = {DZ_HUE_LOSSY, DZ_HUE_KEPT, DZ_HUE_FIXED};
    for (int i = 0; i < 3; i++) {
        char title[512];
        double len = parts[i] * scale;
        if (!(parts[i] > 0)) continue;
        title_of(t, dz_hue_name(hues[i]), parts[i], title);
        if (upwards)
            dz_picture_bar(p, x, y - len, thickness, len, hues[i], title);
        else
            dz_picture_bar(p, x, y, len, thickness, hues[i], title);
        *(upwards ? &y : &x) += upwards ? -len : len;
    }
}

static void draw_named(dz_picture *p, const dz_plot_task *const *order, size_t n, double top) {
    double most = 0, left = DZ_PLOT_LEFT - 60 + NAMES, width = DZ_PLOT_LEFT + DZ_PLOT_PANEL - FIGURES - left;
    for (size_t i = 0; i < n; i++) most = fmax(most, stored(order[i]));
    for (size_t i = 0; i < n; i++) {
        char size[32], text[64];
        const dz_plot_task *t = order[i];
        double y = top + ROW * (double)i;
        dz_picture_text(p, left - 8, y + 11, 12, DZ_END, t->name, NAMES - 12);
        stack(p, t, left, y + 1, ROW - 4, most > 0 ? width / most : 0, 0);
        snprintf(text, sizeof text, "%s, %.1fx", dz_format_size(stored(t), size), stored(t) > 0 ? t->source / stored(t) : 0);
        dz_picture_text(p, left + (most > 0 ? width * stored(t) / most : 0) + 8, y + 11, 12, DZ_START, text, 0);
    }
}

static void draw_thin(dz_picture *p, const dz_plot_task *const *order, size_t n, double top) {
    dz_panel a = {.left = DZ_PLOT_LEFT, .top = top, .width = DZ_PLOT_PANEL, .height = THIN};
    for (size_t i = 0; i < n; i++) a.most = fmax(a.most, stored(order[i]));
    dz_panel_axis(p, &a, "", DZ_AXIS_BYTES);
    double each = a.width / (double)n, gap = each < 5 ? 0 : 0.1 * each; /* thin gaps would be a pattern of their own */
    for (size_t i = 0; i < n; i++)
        stack(p, order[i], a.left + each * (double)i + gap, a.top + a.height, each - 2 * gap, a.height / a.most, 1);
    char text[64];
    snprintf(text, sizeof text, "%zu tasks, the largest first", n);
    dz_picture_text(p, a.left + a.width / 2, a.top + a.height + 18, 12, DZ_MIDDLE, text, 0);
}

typedef struct box {
    double x, y, width;
} box;

/* The first place around a mark where a name meets no other name or mark; 0: there is none. */
static int place_name(const dz_panel *a, const box *taken, size_t n, double x, double y, double width, box *out) {
    const double offsets[4][2] = {{8, 4}, {-8 - width, 4}, {-width / 2, -9}, {-width / 2, 18}};
    for (size_t k = 0; k < 4; k++) {
        *out = (box){x + offsets[k][0], y + offsets[k][1], width};
        int free_place = out->x >= a->left && out->x + width <= a->left + a->width && out->y - 11 >= a->top && out->y <= a->top + a->height;
        for (size_t i = 0; i < n && free_place; i++)
            free_place = out->x > taken[i].x + taken[i].width || taken[i].x > out->x + width || fabs(out->y - taken[i].y) > 13;
        if (free_place) return 1;
    }
    return 0;
}

static double rate_of(const dz_plot_task *t) { return stored(t) > 0 ? t->source / stored(t) : 1; }

/* Exact tasks are on the panel's lower edge. */
static void draw_scatter(dz_picture *p, const dz_plot_task *const *order, size_t n, double top) {
    dz_panel a = {.left = DZ_PLOT_LEFT, .top = top, .width = DZ_PLOT_PANEL, .height = SCATTER, .least = INFINITY, .log = 1};
    double least = INFINITY, most = 0;
    char used[DZ_HUES] = {0};
    box taken[3 * LABELLED];
    size_t ntaken = 0;
    for (size_t i = 0; i < n; i++) {
        least = fmin(least, rate_of(order[i]));
        most = fmax(most, rate_of(order[i]));
        if (!(order[i]->noise > 0) || !isfinite(order[i]->noise)) continue;
        a.least = fmin(a.least, order[i]->noise);
        a.most = fmax(a.most, order[i]->noise);
    }
    if (a.least > a.most) a.least = a.most = 1;
    a.least /= 1.5; /* exact ones are below all others */
    dz_panel_axis(p, &a, "Rate against noise (noise energy over the energy of the change; exact tasks on the lower edge)", DZ_AXIS_PLAIN);
    dz_panel_axis_below(p, &a, &least, &most, "source bytes over stored bytes");
    for (int names = 0; names < 2; names++) { /* marks first, so that no name covers one */
        for (size_t i = 0; i < n; i++) {
            const dz_plot_task *t = order[i];
            char title[512];
            double x = dz_panel_x(&a, least, most, rate_of(t));
            double y = t->noise > 0 && isfinite(t->noise) ? dz_panel_y(&a, t->noise) : isfinite(t->noise) ? a.top + a.height : a.top;
            double width = fmin(dz_picture_text_width(t->name, 11), 160);
            if (!names) {
                used[DZ_HUE_EXACT + (int)t->verdict] = 1;
                snprintf(title, sizeof title, "%.300s: %.4gx, noise %.4g, quality %s", t->name, rate_of(t), t->noise,
                         dz_verdict_name(t->verdict));
                dz_picture_dot(p, x, y, n > 100 ? 3.5 : 5, (dz_hue)(DZ_HUE_EXACT + (int)t->verdict), title);
                if (n <= LABELLED) taken[ntaken++] = (box){x - 6, y + 5, 12};
            } else if (n <= LABELLED && place_name(&a, taken, ntaken, x, y, width, &taken[ntaken])) {
                dz_picture_text(p, taken[ntaken].x, taken[ntaken].y, 11, DZ_START, t->name, 160);
                ntaken++;
            }
        }
    }
    dz_picture_legend(p, DZ_PLOT_LEGEND, a.top, used);
}

void dz_plot_tasks_panels(dz_picture *p, const dz_plot_task *tasks, size_t n, double top) {
    char used[DZ_HUES] = {0};
    const dz_plot_task **order = dz_alloc(n, sizeof *order, p->err);
    if (!order) return;
    for (size_t i = 0; i < n; i++) {
        order[i] = &tasks[i];
        used[DZ_HUE_LOSSY] |= tasks[i].lossy > 0;
        used[DZ_HUE_KEPT] |= tasks[i].exact > 0;
        used[DZ_HUE_FIXED] |= tasks[i].fixed > 0;
    }
    qsort(order, n, sizeof *order, by_size);
    dz_picture_text(p, DZ_PLOT_LEFT, top, -13, DZ_START, "Stored bytes of tasks", 0);
    double height = n <= NAMED ? ROW * (double)n + 20 : THIN + 40;
    if (n <= NAMED)
        draw_named(p, order, n, top + 12);
    else
        draw_thin(p, order, n, top + 12);
    dz_picture_legend(p, DZ_PLOT_LEGEND, top + 12, used);
    draw_scatter(p, order, n, top + height + 36);
    free(order);
}

dz_rc dz_plot_tasks(const dz_plot_task *tasks, size_t n, const char *title, const char *path, dz_error *err) {
    dz_picture p;
    dz_picture_begin(&p, DZ_PLOT_WIDTH, 76 + dz_plot_tasks_height(n), err);
    dz_picture_text(&p, DZ_PLOT_LEFT, 32, -17, DZ_START, title, DZ_PLOT_WIDTH - DZ_PLOT_LEFT - 20);
    dz_plot_tasks_panels(&p, tasks, n, 68);
    dz_picture_end(&p);
    return dz_picture_write(&p, path, err);
}

#include "cli/plot_scores.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/picture.h"

#define WIDTH 960.0
#define HEAD 84.0
#define ROW 300.0 /* of panels, two to a row */
#define SAME "#009e73"
#define LIMIT "#d55e00"
#define BASE "#999999"

static void widen(double x, double *least, double *most) {
    if (!isfinite(x)) return;
    if (x < *least) *least = x;
    if (x > *most) *most = x;
}

/* Scores have no natural zero: the axis covers those that there are. */
static void draw_scores_axis(dz_picture *p, dz_panel *a, const dz_tuned_task *t) {
    const dz_tune_state *s = &t->state;
    a->least = (double)INFINITY;
    a->most = -(double)INFINITY;
    widen(s->original, &a->least, &a->most);
    widen(s->base, &a->least, &a->most);
    for (size_t i = 0; i < s->ncandidates; i++) widen(s->candidates[i].score, &a->least, &a->most);
    double room = a->most > a->least ? 0.08 * (a->most - a->least) : fmax(1e-6, 0.1 * fabs(a->most));
    a->least -= room;
    a->most += room;
    double power = pow(10, floor(log10((a->most - a->least) / 5))), step = power;
    static const double steps[] = {1, 2, 5, 10};
    for (size_t i = 0; i < 4 && (a->most - a->least) / step > 6; i++) step = steps[i] * power;
    for (double k = ceil(a->least / step); k * step <= a->most; k++) {
        char label[32];
        double y = dz_panel_y(a, k * step);
        snprintf(label, sizeof label, "%.6g", k * step);
        dz_picture_line(p, a->left, y, a->left + a->width, y, "#dddddd", 1);
        dz_picture_text(p, a->left - 6, y + 4, 11, DZ_END, label, 0);
    }
    dz_picture_line(p, a->left, a->top, a->left, a->top + a->height, "#222222", 1);
    dz_picture_line(p, a->left, a->top + a->height, a->left + a->width, a->top + a->height, "#222222", 1);
}

static void draw_level(dz_picture *p, const dz_panel *a, double score, const char *colour) {
    if (!isfinite(score) || score < a->least || score > a->most) return;
    dz_picture_line(p, a->left, dz_panel_y(a, score), a->left + a->width, dz_panel_y(a, score), colour, 2);
}

static void draw_task(dz_picture *p, dz_panel a, const dz_tuned_task *t, const dz_drop_limit *limit) {
    const dz_tune_state *s = &t->state;
    char size[32], title[256];
    double lost = limit->relative ? limit->most * fabs(s->original) : limit->most, least = (double)INFINITY, most = 0;
    dz_picture_text(p, a.left, a.top - 12, -13, DZ_START, t->name, a.width);
    draw_scores_axis(p, &a, t);
    for (size_t i = 0; i < s->ncandidates; i++) widen(t->source / s->candidates[i].stored, &least, &most);
    dz_panel_axis_below(p, &a, &least, &most, "bytes in its files over bytes stored");
    draw_level(p, &a, s->base, BASE);
    draw_level(p, &a, s->original + (limit->lower_better ? lost : -lost), LIMIT);
    draw_level(p, &a, s->original, SAME);
    for (size_t i = 0; i < s->ncandidates; i++) {
        const dz_tune_candidate *c = &s->candidates[i];
        int ok = dz_drop_ok(limit, s->original, c->score), chosen = c == t->chosen;
        if (!isfinite(c->score)) continue;
        snprintf(title, sizeof title, "noise_to_delta %g: %s, %.4gx, score %.6g%s", c->noise, dz_format_size(c->stored, size),
                 t->source / c->stored, c->score,
                 chosen ? ", chosen"
                 : ok   ? ""
                        : ", too much is lost");
        dz_picture_dot(p, dz_panel_x(&a, least, most, t->source / c->stored), dz_panel_y(&a, c->score), chosen ? 7 : 4,
                       ok ? DZ_HUE_MARK : DZ_HUE_POOR, title);
    }
}

static void draw_legend(dz_picture *p) {
    static const struct { const char *text, *colour; } lines[] = {{"original", SAME}, {"limit", LIMIT}, {"base", BASE}};
    double x = 84;
    for (size_t i = 0; i < 3; i++, x += 105) {
        dz_picture_line(p, x, 50, x + 30, 50, lines[i].colour, 2);
        dz_picture_text(p, x + 36, 54, 12, DZ_START, lines[i].text, 0);
    }
    dz_picture_dot(p, x + 5, 50, 4, DZ_HUE_MARK, "within the limit");
    dz_picture_text(p, x + 16, 54, 12, DZ_START, "within the limit (the chosen one is larger)", 0);
    dz_picture_dot(p, x + 275, 50, 4, DZ_HUE_POOR, "too much is lost");
    dz_picture_text(p, x + 286, 54, 12, DZ_START, "too much is lost", 0);
}

dz_rc dz_plot_scores(const dz_tune_result *r, const dz_drop_limit *limit, const char *path, dz_error *err) {
    dz_picture p = {0};
    size_t n = 0;
    for (size_t t = 0; t < r->ntasks; t++) n += r->tasks[t].scored != 0;
    dz_picture_begin(&p, WIDTH, HEAD + ROW * (double)((n + 1) / 2), err);
    dz_picture_text(&p, 84, 30, -17, DZ_START, "Score against size", 0);
    draw_legend(&p);
    n = 0;
    for (size_t t = 0; t < r->ntasks; t++) {
        dz_panel a = {.left = n % 2 ? 564 : 84, .top = HEAD + 30 + ROW * (double)(n / 2), .width = 370, .height = 190};
        if (!r->tasks[t].scored) continue;
        draw_task(&p, a, &r->tasks[t], limit);
        n++;
    }
    dz_picture_end(&p);
    return dz_picture_write(&p, path, err);
}

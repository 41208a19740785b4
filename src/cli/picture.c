#include "cli/picture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/overwrite.h"

/* Attention blue, MLP orange; verdicts from green to red; bytes in greys. */
static const struct {
    const char *name, *colour;
} HUES[DZ_HUES] = {[DZ_HUE_Q] = {"attention q", "#08306b"},
                   [DZ_HUE_K] = {"attention k", "#2171b5"},
                   [DZ_HUE_V] = {"attention v", "#6baed6"},
                   [DZ_HUE_O] = {"attention o", "#b3d4ea"},
                   [DZ_HUE_ATTENTION] = {"attention, other", "#4a7fb0"},
                   [DZ_HUE_GATE] = {"MLP gate", "#8c2d04"},
                   [DZ_HUE_UP] = {"MLP up", "#e6550d"},
                   [DZ_HUE_DOWN] = {"MLP down", "#fdae6b"},
                   [DZ_HUE_MLP] = {"MLP, other", "#d98841"},
                   [DZ_HUE_CONV] = {"convolutions", "#01665e"},
                   [DZ_HUE_MATRICES] = {"other matrices", "#5ab4ac"},
                   [DZ_HUE_EMBEDDINGS] = {"embeddings", "#b8a900"},
                   [DZ_HUE_HEADS] = {"heads", "#cc79a7"},
                   [DZ_HUE_VECTORS] = {"norms, biases", "#7a6a58"},
                   [DZ_HUE_REST] = {"other", "#8f8f8f"},
                   [DZ_HUE_NEW] = {"not in the base", "#e0218a"},
                   [DZ_HUE_LOSSY] = {"lossy tensors", "#4d4d4d"},
                   [DZ_HUE_KEPT] = {"exact tensors", "#a6a6a6"},
                   [DZ_HUE_FIXED] = {"index, structures", "#dcdcdc"},
                   [DZ_HUE_EXACT] = {"exact", "#00441b"},
                   [DZ_HUE_HIGH] = {"high", "#1b9e3f"},
                   [DZ_HUE_BALANCED] = {"balanced", "#a6dba0"},
                   [DZ_HUE_SMALL] = {"small", "#c2a5cf"},
                   [DZ_HUE_POOR] = {"poor", "#b2182b"},
                   [DZ_HUE_MARK] = {"", "#333333"}};

const char *dz_hue_name(dz_hue hue) { return HUES[hue].name; }

#define CHARACTER 0.58 /* mean width over size of sans serif fonts, on the wide side */

void dz_picture_begin(dz_picture *p, double width, double height, dz_error *err) {
    *p = (dz_picture){.width = width, .height = height, .err = err};
    dz_buf_line(&p->svg, err,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
                "font-family=\"sans-serif\">\n<!-- " DZ_PLOT_MARK " -->\n"
                "<rect x=\"0\" y=\"0\" width=\"%.0f\" height=\"%.0f\" fill=\"#ffffff\"/>\n",
                width, height, width, height, width, height);
}

void dz_picture_end(dz_picture *p) { dz_buf_line(&p->svg, p->err, "</svg>\n"); }

/* Text where XML wants none of its own characters. */
static void put(dz_picture *p, const char *text) {
    for (; *text; text++) {
        unsigned char ch = (unsigned char)*text;
        const char *entity = ch == '&' ? "&amp;" : ch == '<' ? "&lt;" : ch == '>' ? "&gt;" : ch < 32 || ch == 127 ? "?" : NULL;
        dz_buf_put(&p->svg, entity ? entity : text, entity ? strlen(entity) : 1, p->err);
    }
}

static size_t characters(const char *text) {
    size_t n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

double dz_picture_text_width(const char *text, double size) { return CHARACTER * fabs(size) * (double)characters(text); }

void dz_picture_text(dz_picture *p, double x, double y, double size, dz_anchor anchor, const char *text, double room) {
    static const char *const anchors[] = {"start", "middle", "end"};
    size_t most = room > 0 ? (size_t)fmax(4, room / (CHARACTER * fabs(size))) : SIZE_MAX, n = characters(text);
    dz_buf_line(&p->svg, p->err, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%g\" text-anchor=\"%s\"%s fill=\"#222222\">", x, y, fabs(size),
                anchors[anchor], size < 0 ? " font-weight=\"bold\"" : "");
    if (n > most) { /* names differ at the end */
        for (size_t drop = n - most + 3; drop > 0 && *text; drop--) {
            text++;
            while ((*text & 0xc0) == 0x80) text++;
        }
        put(p, "...");
    }
    put(p, text);
    dz_buf_line(&p->svg, p->err, "</text>\n");
}

void dz_picture_line(dz_picture *p, double x1, double y1, double x2, double y2, const char *colour, double width) {
    dz_buf_line(&p->svg, p->err, "<line x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" stroke=\"%s\" stroke-width=\"%g\"/>\n", x1, y1, x2,
                y2, colour, width);
}

void dz_picture_bar(dz_picture *p, double x, double y, double width, double height, dz_hue hue, const char *title) {
    dz_buf_line(&p->svg, p->err, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\">", x, y, width, height,
                HUES[hue].colour);
    if (title) dz_buf_line(&p->svg, p->err, "<title>");
    if (title) put(p, title);
    dz_buf_line(&p->svg, p->err, "%s</rect>\n", title ? "</title>" : "");
}

void dz_picture_dot(dz_picture *p, double x, double y, double radius, dz_hue hue, const char *title) {
    dz_buf_line(&p->svg, p->err, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"%g\" fill=\"%s\" stroke=\"#ffffff\" stroke-width=\"0.5\"><title>", x,
                y, radius, HUES[hue].colour);
    put(p, title);
    dz_buf_line(&p->svg, p->err, "</title></circle>\n");
}

void dz_picture_legend(dz_picture *p, double x, double y, const char *used) {
    for (int i = 0; i < DZ_HUES; i++) {
        if (!used[i]) continue;
        dz_picture_bar(p, x, y, 11, 11, (dz_hue)i, NULL);
        dz_picture_text(p, x + 17, y + 10, 12, DZ_START, HUES[i].name, 0);
        y += 17;
    }
}

/* 1, 2 or 5 times a power of ten: at most five steps to `most`. */
static double step_to(double most) {
    double power = pow(10, floor(log10(most / 5)));
    static const double steps[] = {1, 2, 5};
    for (size_t i = 0; i < 3; i++)
        if (most / (steps[i] * power) <= 5) return steps[i] * power;
    return 10 * power;
}

static void label_of(double value, int unit, char text[32]) {
    if (unit == DZ_AXIS_BYTES)
        dz_format_size(value, text);
    else
        snprintf(text, 32, "%.4g%s", unit == DZ_AXIS_SHARE ? 100 * value : value, unit == DZ_AXIS_SHARE ? " %" : "");
}

double dz_panel_y(const dz_panel *a, double value) {
    double share = a->log ? log(value / a->least) / log(a->most / a->least) : (value - a->least) / (a->most - a->least);
    return a->top + a->height * (1 - share);
}

static void line_at(dz_picture *p, const dz_panel *a, double value, int unit, int bottom) {
    char label[32];
    double y = dz_panel_y(a, value);
    label_of(value, unit, label);
    dz_picture_line(p, a->left, y, a->left + a->width, y, bottom ? "#222222" : "#dddddd", 1);
    dz_picture_text(p, a->left - 6, y + 4, 11, DZ_END, label, 0);
}

/* Ends of a logarithmic axis: powers of ten. */
static void whole_decades(double *least, double *most) {
    if (!(*least > 0) || !isfinite(*least)) *least = *most > 0 && isfinite(*most) ? *most : 1;
    if (!(*most >= *least) || !isfinite(*most)) *most = *least;
    *least = pow(10, floor(log10(*least) + 1e-9));
    *most = pow(10, ceil(log10(*most) - 1e-9));
    if (*most <= *least) *most = 10 * *least;
}

void dz_panel_axis(dz_picture *p, dz_panel *a, const char *title, int unit) {
    dz_picture_text(p, a->left, a->top - 12, -13, DZ_START, title, 0);
    if (a->log) {
        whole_decades(&a->least, &a->most);
        double decades = log10(a->most / a->least), each = ceil(decades / 6 - 1e-9);
        for (double i = 0; i <= decades + 1e-9; i += each) {
            line_at(p, a, a->least * pow(10, i), unit, i == 0);
            for (int k = 2; decades < 2.5 && i < decades - 0.5 && k <= 5; k += 3) line_at(p, a, a->least * pow(10, i) * k, unit, 0);
        }
        return;
    }
    if (!isfinite(a->most) || a->most <= 0) a->most = 1;
    a->least = 0;
    double step = step_to(a->most);
    a->most = step * ceil(a->most / step - 1e-9);
    for (int i = 0; i * step <= a->most * (1 + 1e-9); i++) line_at(p, a, i * step, unit, i == 0);
}

double dz_panel_x(const dz_panel *a, double least, double most, double value) {
    return a->left + a->width * log(value / least) / log(most / least);
}

void dz_panel_axis_below(dz_picture *p, const dz_panel *a, double *least, double *most, const char *title) {
    static const double steps[] = {1, 2, 5};
    if (!(*least > 0) || !isfinite(*least)) *least = 1;
    if (!(*most >= *least) || !isfinite(*most)) *most = *least;
    *least /= 1.3;
    *most *= 1.3;
    if (*most / *least < 12) { /* some labels in any case */
        double middle = sqrt(*least * *most);
        *least = middle / sqrt(12.0);
        *most = middle * sqrt(12.0);
    }
    int many = log10(*most / *least) > 3;
    for (double power = pow(10, floor(log10(*least))); power <= *most; power *= 10) {
        for (size_t i = 0; i < (many ? 1 : 3); i++) {
            char label[32];
            double value = steps[i] * power, x = dz_panel_x(a, *least, *most, value);
            if (value < *least || value > *most) continue;
            snprintf(label, sizeof label, "%gx", value);
            dz_picture_line(p, x, a->top, x, a->top + a->height, "#dddddd", 1);
            dz_picture_text(p, x, a->top + a->height + 16, 11, DZ_MIDDLE, label, 0);
        }
    }
    dz_picture_text(p, a->left + a->width / 2, a->top + a->height + 34, 12, DZ_MIDDLE, title, 0);
}

#include "cli/plot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/overwrite.h"
#include "base/staging.h"
#include "cli/layers.h"

/* A layer is a tensor's name up to its first number ("model.layers.7"); the kind is the rest, without the last
 * word ("self_attn.q_proj"). Kinds are ordered by bytes; those beyond the last colour are one. */
#define KINDS 8
static const char *const COLOURS[KINDS] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a900", "#999999"};

typedef struct part {
    const char *name; /* borrowed, `len` characters of it */
    size_t len;
    uint64_t nbytes;
} part;

typedef struct layer {
    part what;
    uint64_t of_kind[KINDS];
    double error, weight; /* sum of count * error^2, and of count, of the lossy tensors */
} layer;

typedef struct plot {
    const dz_catalog *c;
    const dz_task_entry *task;
    layer *layers;
    part *kinds, outside, heaviest; /* outside: of tensors in no layer, `len` counts them */
    size_t nlayers, nkinds;
} plot;

/* Splits a name; 0 when it has no layer. */
static int split(const char *name, part *where, part *kind) {
    size_t len = dz_layer_length(name);
    if (!len) return 0;
    const char *rest = name + len + 1, *last = strrchr(rest, '.');
    *where = (part){name, len, 0};
    *kind = (part){rest, last ? (size_t)(last - rest) : strlen(rest), 0};
    return 1;
}

static int same(const part *a, const part *b) { return a->len == b->len && memcmp(a->name, b->name, a->len) == 0; }

static int by_bytes(const void *x, const void *y) {
    const part *a = x, *b = y;
    return (a->nbytes < b->nbytes) - (a->nbytes > b->nbytes);
}

/* Stacks of layers by name, the layers of each by number. */
static int by_number(const void *x, const void *y) {
    const part *a = &((const layer *)x)->what, *b = &((const layer *)y)->what;
    return dz_layer_order(a->name, a->len, b->name, b->len);
}

static size_t kind_of(const plot *p, const part *kind) {
    size_t k = 0;
    while (k < p->nkinds && !same(&p->kinds[k], kind)) k++;
    return k;
}

static layer *layer_of(plot *p, const part *where) {
    for (size_t i = p->nlayers; i-- > 0;) /* names come in order: mostly the last one */
        if (same(&p->layers[i].what, where)) return &p->layers[i];
    p->layers[p->nlayers].what = *where;
    return &p->layers[p->nlayers++];
}

static dz_rc gather(plot *p, dz_error *err) {
    part where, kind;
    p->kinds = dz_alloc(p->task->nrows, sizeof *p->kinds, err);
    p->layers = dz_alloc(p->task->nrows, sizeof *p->layers, err);
    if (err->rc != DZ_OK) return err->rc;
    for (size_t i = 0; i < p->task->nrows; i++) {
        const dz_index_row *row = &p->task->rows[i];
        const char *name = p->c->tensors[row->tensor].name;
        if (row->policy == DZ_POLICY_ABSENT) continue;
        if (!split(name, &where, &kind)) {
            p->outside.nbytes += row->length;
            p->outside.len++;
            if (row->length > p->heaviest.nbytes) p->heaviest = (part){name, strlen(name), row->length};
            continue;
        }
        size_t k = kind_of(p, &kind);
        if (k == p->nkinds) p->kinds[p->nkinds++] = kind;
        p->kinds[k].nbytes += row->length;
    }
    qsort(p->kinds, p->nkinds, sizeof *p->kinds, by_bytes);
    for (size_t i = 0; i < p->task->nrows; i++) {
        const dz_index_row *row = &p->task->rows[i];
        const dz_tensor_row *tensor = &p->c->tensors[row->tensor];
        if (row->policy == DZ_POLICY_ABSENT || !split(tensor->name, &where, &kind)) continue;
        layer *l = layer_of(p, &where);
        size_t k = kind_of(p, &kind);
        l->what.nbytes += row->length;
        l->of_kind[k < KINDS - 1 || p->nkinds == KINDS ? k : KINDS - 1] += row->length;
        if (row->policy != DZ_POLICY_ULTRADELTA) continue;
        double count = (double)dz_tensor_of_row(tensor).count, error = dz_row_quality(p->c, p->task, row).error;
        l->error += count * error * error;
        l->weight += count;
    }
    qsort(p->layers, p->nlayers, sizeof *p->layers, by_number);
    while (p->nkinds > 0 && p->kinds[p->nkinds - 1].nbytes == 0) p->nkinds--;
    return DZ_OK;
}

/* Text where XML wants none of its own characters. */
static void put_text(dz_buf *svg, const char *text, size_t len, dz_error *err) {
    for (size_t i = 0; i < len; i++) {
        unsigned char ch = (unsigned char)text[i];
        const char *entity = ch == '&' ? "&amp;" : ch == '<' ? "&lt;" : ch == '>' ? "&gt;" : ch < 32 ? "?" : NULL;
        dz_buf_put(svg, entity ? entity : text + i, entity ? strlen(entity) : 1, err);
    }
}

/* 1, 2 or 5 times a power of ten: at most six steps to `most`. */
static double step_to(double most) {
    double power = pow(10, floor(log10(most / 6)));
    static const double steps[] = {1, 2, 5, 10};
    for (size_t i = 0; i < 4; i++)
        if (most / (steps[i] * power) <= 6) return steps[i] * power;
    return 10 * power;
}

typedef struct panel {
    double left, top, width, height, most;
} panel;

static double y_of(const panel *a, double value) { return a->top + a->height * (1 - value / a->most); }

/* Title, axis of values with its lines, and the axis of layers. `unit`: bytes are written as sizes. */
static void draw_axes(dz_buf *svg, const plot *p, panel *a, const char *title, int bytes, dz_error *err) {
    double step = step_to(a->most);
    a->most = step * ceil(a->most / step - 1e-9);
    dz_buf_line(svg, err, "<text x=\"%.1f\" y=\"%.1f\" class=\"head\">%s</text>\n", a->left, a->top - 12, title);
    for (int i = 0; i * step <= a->most * (1 + 1e-9); i++) {
        char label[32];
        if (bytes)
            dz_format_size(i * step, label);
        else
            snprintf(label, sizeof label, "%g", i * step);
        double y = y_of(a, i * step);
        dz_buf_line(svg, err, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>", a->left, y, a->left + a->width, y,
                    i ? "grid" : "axis");
        dz_buf_line(svg, err, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", a->left - 6, y + 4, label);
    }
    double each = a->width / (double)p->nlayers;
    size_t every = 1 + (size_t)(22 / each);
    char first = p->layers[0].what.name[0];
    int several = 0; /* stacks of layers: encoder and decoder, for example, distinguished by their first letters */
    for (size_t i = 0; i < p->nlayers; i++) several |= p->layers[i].what.name[0] != first;
    for (size_t i = 0; i < p->nlayers; i += every) {
        const part *what = &p->layers[i].what;
        size_t digits = what->len - dz_layer_number_at(what->name, what->len);
        dz_buf_line(svg, err, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", a->left + each * ((double)i + 0.5),
                    a->top + a->height + 17);
        if (several) put_text(svg, what->name, 1, err);
        put_text(svg, what->name + what->len - digits, digits, err);
        dz_buf_line(svg, err, "</text>\n");
    }
    dz_buf_line(svg, err, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">layer</text>\n", a->left + a->width / 2,
                a->top + a->height + 35);
}

static void put_kind(dz_buf *svg, const plot *p, size_t k, dz_error *err) {
    if (k == KINDS - 1 && p->nkinds > KINDS)
        dz_buf_line(svg, err, "others");
    else
        put_text(svg, p->kinds[k].name, p->kinds[k].len, err);
}

static void draw_bytes(dz_buf *svg, const plot *p, panel *a, dz_error *err) {
    for (size_t i = 0; i < p->nlayers; i++) a->most = fmax(a->most, (double)p->layers[i].what.nbytes);
    if (a->most <= 0) a->most = 1;
    draw_axes(svg, p, a, "Stored bytes by layer", 1, err);
    double each = a->width / (double)p->nlayers, width = fmin(each * 0.7, 60);
    for (size_t i = 0; i < p->nlayers; i++) {
        double below = 0;
        for (size_t k = 0; k < KINDS; k++) {
            double nbytes = (double)p->layers[i].of_kind[k];
            if (nbytes <= 0) continue;
            dz_buf_line(svg, err, "<rect x=\"%.1f\" y=\"%.2f\" width=\"%.1f\" height=\"%.2f\" fill=\"%s\"><title>",
                        a->left + each * ((double)i + 0.5) - width / 2, y_of(a, below + nbytes), width, a->height * nbytes / a->most,
                        COLOURS[k]);
            put_text(svg, p->layers[i].what.name, p->layers[i].what.len, err);
            dz_buf_line(svg, err, ", ");
            put_kind(svg, p, k, err);
            dz_buf_line(svg, err, ": %.0f bytes</title></rect>\n", nbytes);
            below += nbytes;
        }
    }
    for (size_t k = 0; k < p->nkinds && k < KINDS; k++) {
        double y = a->top + 18 * (double)k;
        dz_buf_line(svg, err, "<rect x=\"%.1f\" y=\"%.1f\" width=\"11\" height=\"11\" fill=\"%s\"/><text x=\"%.1f\" y=\"%.1f\">",
                    a->left + a->width + 16, y, COLOURS[k], a->left + a->width + 33, y + 10);
        put_kind(svg, p, k, err);
        dz_buf_line(svg, err, "</text>\n");
    }
}

static void draw_errors(dz_buf *svg, const plot *p, panel *a, dz_error *err) {
    for (size_t i = 0; i < p->nlayers; i++)
        if (p->layers[i].weight > 0) a->most = fmax(a->most, sqrt(p->layers[i].error / p->layers[i].weight));
    if (!isfinite(a->most) || a->most <= 0) a->most = 1;
    draw_axes(svg, p, a, "Expected relative error of the lossy deltas by layer (Frobenius norm, 1 = as large as the delta)", 0, err);
    double each = a->width / (double)p->nlayers;
    for (size_t i = 0; i < p->nlayers; i++) {
        const layer *l = &p->layers[i];
        double error = l->weight > 0 ? sqrt(l->error / l->weight) : NAN, x = a->left + each * ((double)i + 0.5);
        if (!isfinite(error)) continue;
        dz_buf_line(svg, err,
                    "<line x1=\"%.1f\" y1=\"%.2f\" x2=\"%.1f\" y2=\"%.2f\" class=\"stem\"/><circle cx=\"%.1f\" cy=\"%.2f\" r=\"4\" "
                    "fill=\"#0072b2\"><title>",
                    x, y_of(a, 0), x, y_of(a, error), x, y_of(a, error));
        put_text(svg, l->what.name, l->what.len, err);
        dz_buf_line(svg, err, ": expected relative error %.6g</title></circle>\n", error);
    }
}

static void draw(dz_buf *svg, const plot *p, dz_error *err) {
    char size[32], all[32];
    const double width = 960, height = 676;
    dz_buf_line(svg, err,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
                "height=\"%.0f\">\n<!-- " DZ_PLOT_MARK " -->\n<style>text{font:12px sans-serif;fill:#222}"
                ".head{font-weight:bold;font-size:13px}.name{font-weight:bold;font-size:17px}.grid{stroke:#ddd}.axis{stroke:#222}.stem{"
                "stroke:#0072b2;stroke-width:2}"
                "</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text x=\"76\" y=\"30\" class=\"name\">Task ",
                width, height, width, height);
    put_text(svg, p->task->name, strlen(p->task->name), err);
    dz_buf_line(svg, err, "</text>\n<text x=\"76\" y=\"50\">recipe ");
    put_text(svg, p->task->recipe, strlen(p->task->recipe), err);
    dz_buf_line(svg, err, ", sparsity %g, %u bits, gamma %.4f, payload %s", p->task->sparsity, p->task->bits, (double)p->task->gamma,
                dz_format_size((double)p->task->payload_len, all));
    if (p->outside.len) { /* a line of its own: names are long */
        dz_buf_line(svg, err, "</text>\n<text x=\"76\" y=\"68\">outside the layers %s in %zu tensor%s",
                    dz_format_size((double)p->outside.nbytes, size), p->outside.len, p->outside.len == 1 ? "" : "s");
        if (p->heaviest.nbytes) {
            dz_buf_line(svg, err, ", of which %s in ", dz_format_size((double)p->heaviest.nbytes, size));
            put_text(svg, p->heaviest.name, p->heaviest.len, err);
        }
    }
    dz_buf_line(svg, err, "</text>\n");
    if (p->nlayers) {
        panel bytes = {76, 116, 690, 200, 0}, errors = {76, 418, 690, 200, 0};
        draw_bytes(svg, p, &bytes, err);
        draw_errors(svg, p, &errors, err);
    } else {
        dz_buf_line(svg, err, "<text x=\"76\" y=\"100\">No tensor of this task has a layer's number in its name.</text>\n");
    }
    dz_buf_line(svg, err, "</svg>\n");
}

dz_rc dz_plot_task(const dz_catalog *catalog, const dz_task_entry *task, const char *path, dz_error *err) {
    plot p = {.c = catalog, .task = task};
    dz_buf svg = {0};
    if (gather(&p, err) == DZ_OK) draw(&svg, &p, err);
    if (err->rc == DZ_OK) dz_replace_file(path, svg.data, svg.len, err);
    dz_buf_free(&svg);
    free(p.kinds);
    free(p.layers);
    return err->rc;
}

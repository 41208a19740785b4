/* Pictures as SVG of few kinds of elements (rect, line, circle, text with explicit attributes), and as PNG through Python's matplotlib,
 * which draws those elements. */
#ifndef DZ_CLI_PICTURE_H
#define DZ_CLI_PICTURE_H

#include "base/mem.h"

/* What a colour means, in every picture. */
typedef enum dz_hue {
    DZ_HUE_Q,
    DZ_HUE_K,
    DZ_HUE_V,
    DZ_HUE_O,
    DZ_HUE_ATTENTION,
    DZ_HUE_GATE,
    DZ_HUE_UP,
    DZ_HUE_DOWN,
    DZ_HUE_MLP,
    DZ_HUE_CONV,
    DZ_HUE_MATRICES,
    DZ_HUE_EMBEDDINGS,
    DZ_HUE_HEADS,
    DZ_HUE_VECTORS,
    DZ_HUE_REST,
    DZ_HUE_NEW,
    DZ_HUES_OF_TENSORS,
    DZ_HUE_LOSSY = DZ_HUES_OF_TENSORS, /* stored bytes */
    DZ_HUE_KEPT,
    DZ_HUE_FIXED,
    DZ_HUE_EXACT, /* verdicts, in the order of dz_verdict */
    DZ_HUE_HIGH,
    DZ_HUE_BALANCED,
    DZ_HUE_SMALL,
    DZ_HUE_POOR,
    DZ_HUE_MARK, /* of no kind */
    DZ_HUES
} dz_hue;

const char *dz_hue_name(dz_hue hue);

typedef struct dz_picture { /* zero-initialise */
    dz_buf svg;
    double width, height;
    dz_error *err;
} dz_picture;

/* Begins and ends the text. */
void dz_picture_begin(dz_picture *p, double width, double height, dz_error *err);
void dz_picture_end(dz_picture *p);

typedef enum dz_anchor { DZ_START, DZ_MIDDLE, DZ_END } dz_anchor;

/* Text with its baseline at (x, y), shortened at its front to `room` (0: any length); `size` in pixels, negative for bold. */
void dz_picture_text(dz_picture *p, double x, double y, double size, dz_anchor anchor, const char *text, double room);

/* A width that text of that size takes, about. */
double dz_picture_text_width(const char *text, double size);

void dz_picture_line(dz_picture *p, double x1, double y1, double x2, double y2, const char *colour, double width);

/* Marks with a figure that viewers show; `title` is plain text. */
void dz_picture_bar(dz_picture *p, double x, double y, double width, double height, dz_hue hue, const char *title);
void dz_picture_dot(dz_picture *p, double x, double y, double radius, dz_hue hue, const char *title);

/* Names of the hues that are `used`, one below the other. */
void dz_picture_legend(dz_picture *p, double x, double y, const char *used);

/* A panel with an axis of values on its left. */
typedef struct dz_panel {
    double left, top, width, height;
    double least, most; /* of the values */
    int log;
} dz_panel;

#define DZ_AXIS_PLAIN 0
#define DZ_AXIS_BYTES 1
#define DZ_AXIS_SHARE 2 /* 1 is 100 % */

/* Widens the range to whole steps, and draws title, lines and labels. */
void dz_panel_axis(dz_picture *p, dz_panel *panel, const char *title, int unit);
double dz_panel_y(const dz_panel *panel, double value);

/* The same for an axis below, logarithmic. */
void dz_panel_axis_below(dz_picture *p, const dz_panel *panel, double *least, double *most, const char *title);
double dz_panel_x(const dz_panel *panel, double least, double most, double value);

/* Before any work: may `path` be written, by its ending and by what is there? DZ_EUSAGE names what is possible. */
dz_rc dz_picture_check(const char *path, dz_error *err);

/* Writes the picture by the ending of `path`, and frees it. */
dz_rc dz_picture_write(dz_picture *p, const char *path, dz_error *err);

#endif

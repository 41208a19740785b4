/* Panels that several pictures have. */
#ifndef DZ_CLI_PLOT_INTERNAL_H
#define DZ_CLI_PLOT_INTERNAL_H

#include "cli/layers.h"
#include "cli/picture.h"
#include "cli/plot.h"

#define DZ_PLOT_WIDTH 960.0
#define DZ_PLOT_LEFT 84.0
#define DZ_PLOT_PANEL 690.0 /* width of panels that have a legend beside them */
#define DZ_PLOT_LEGEND (DZ_PLOT_LEFT + DZ_PLOT_PANEL + 20)

dz_hue dz_hue_of(dz_place place, dz_kind kind);

/* Numbers of the layers below a panel. */
void dz_plot_layer_labels(dz_picture *p, const dz_panel *a, const dz_layer_list *layers);

/* The middle of a layer's column. */
double dz_plot_layer_x(const dz_panel *a, const dz_layer_list *layers, size_t layer);

/* The same for a mark of one kind: kinds are side by side. `used`: those that the panel has. */
double dz_plot_kind_x(const dz_panel *a, const dz_layer_list *layers, size_t layer, const char *used, dz_hue hue);

/* The two panels of tasks from `top` on; the height that they take (dz_plot_tasks_height). */
void dz_plot_tasks_panels(dz_picture *p, const dz_plot_task *tasks, size_t n, double top);
double dz_plot_tasks_height(size_t n);

#endif

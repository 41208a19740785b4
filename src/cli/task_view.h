/* Which of an archive's tasks are shown, in which order and with which columns. */
#ifndef DZ_CLI_TASK_VIEW_H
#define DZ_CLI_TASK_VIEW_H

#include "archive/catalog.h"

typedef struct dz_task_filter {
    const char *match;    /* names by shell pattern; NULL: all */
    const char *sort;     /* a column, "-" before it: the other way round; NULL: in the order of the archive */
    const char *columns;  /* names of columns with commas between; NULL: the usual table */
    uint64_t skip, limit; /* limit 0: none */
} dz_task_filter;

typedef struct dz_task_view {
    const dz_task_entry **tasks; /* borrowed from the catalog */
    size_t n, matching;          /* shown; that match, before skip and limit */
} dz_task_view;

/* Names of the columns, for the help: "name, bytes, ...". */
#define DZ_TASK_COLUMNS                                                                                                                    \
    "name, bytes, stored, lossy, ratio, cosine, noise, noise-base, quality, tensors, files, recipe, parent, depth, decoded, gamma, bits, " \
    "seed"

/* DZ_EUSAGE for a column that there is not, naming those that there are. */
dz_rc dz_task_filter_check(const dz_task_filter *filter, dz_error *err);

/* The tasks to be shown; free with dz_task_view_free. */
dz_rc dz_task_view_make(const dz_catalog *catalog, const dz_task_filter *filter, dz_task_view *view, dz_error *err);
void dz_task_view_free(dz_task_view *view);

/* A table of `columns`, each as wide as what is in it. */
dz_rc dz_print_task_columns(const dz_catalog *catalog, const dz_task_view *view, const char *columns, dz_error *err);

#endif

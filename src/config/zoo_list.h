/* A list of zoos: a line for each, manifest and archive, as jobs/array.sbatch takes it. Between them a tab, or blanks where neither path
 * has any. Empty lines and comments (#) are ignored. Paths are as the job sees them: relative to its working directory. */
#ifndef DZ_CONFIG_ZOO_LIST_H
#define DZ_CONFIG_ZOO_LIST_H

#include "base/mem.h"

typedef struct dz_zoo_list_row {
    char *manifest, *archive;
} dz_zoo_list_row;

typedef struct dz_zoo_list {
    dz_zoo_list_row *rows;
    size_t n, cap;
} dz_zoo_list;

/* DZ_EUSAGE, a line for each row that is not a manifest and an archive, or whose archive another row has, or when there is no row. */
dz_rc dz_zoo_list_load(const char *path, dz_zoo_list *list, dz_error *err);
void dz_zoo_list_free(dz_zoo_list *list);

/* Appends a row. DZ_EFAIL if a path has a tab or a newline. */
dz_rc dz_zoo_list_put(dz_buf *text, const char *manifest, const char *archive, dz_error *err);

#endif

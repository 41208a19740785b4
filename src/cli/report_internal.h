/* What JSON (report.c) and tables (report_tables.c) of an archive share. */
#ifndef DZ_CLI_REPORT_INTERNAL_H
#define DZ_CLI_REPORT_INTERNAL_H

#include <jansson.h>

#include "archive/reader.h"

#define DZ_LARGEST 5

typedef struct dz_holder { /* a tensor by the bytes that tasks have for it */
    uint32_t tensor;       /* row of /tensors */
    uint8_t policy;        /* in the first task that has it */
    size_t ntasks;
    uint64_t stored;
} dz_holder;

/* The tensors that hold most bytes, at most DZ_LARGEST; how many. `only` NULL: of all tasks together. `*total`: of all tensors. */
size_t dz_report_largest(const dz_catalog *catalog, const dz_task_entry *only, dz_holder out[DZ_LARGEST], uint64_t *total);

/* What an archive keeps of an evaluation; NULL where there is none, or nothing that can be read. */
json_t *dz_report_score(const dz_task_entry *task);

/* 1 if the tensor's name matches; `match` NULL: all do. */
int dz_report_shows(const dz_catalog *catalog, const dz_index_row *row, const char *match);

#endif

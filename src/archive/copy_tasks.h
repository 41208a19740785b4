/* Copies tasks of an archive into its next version. An archive is never changed in place: a new file with the old tasks' bytes takes its
 * name. */
#ifndef DZ_ARCHIVE_COPY_TASKS_H
#define DZ_ARCHIVE_COPY_TASKS_H

#include "archive/reader.h"
#include "parallel/extent_writer.h"

/* A row that gets the bytes of one that is left out. */
typedef struct dz_heir {
    uint32_t task, row; /* numbers in the old archive */
} dz_heir;

typedef struct dz_copy_tasks {
    dz_archive *old; /* NULL: nothing is copied */
    uint8_t *leave;  /* [old tasks] 1: not copied */
    uint8_t *drop;   /* [old lost tasks] 1: left out as well; what cannot be read cannot be copied */
    size_t ntasks;   /* copied */
    dz_lookup heirs; /* rows whose bytes move to another task: numbers of `heir` */
    dz_heir *heir;
    size_t nheirs, heirs_cap;
    int rebase;            /* rows that are coded against a task that goes are the caller's to code anew, exactly, against the base */
    dz_lookup anew;        /* those rows: numbers of `anew_length` */
    uint64_t *anew_length; /* bytes of their regions */
} dz_copy_tasks;

/* Collective. Opens the archive, of which a part may be damaged, and marks all its tasks to be copied. */
dz_rc dz_copy_tasks_open(dz_copy_tasks *copied, const dz_world *world, const char *path, dz_error *err);
void dz_copy_tasks_close(dz_copy_tasks *copied);

/* Leaves a task out, also one that is damaged beyond reading. Returns 0 if the archive has no task of this name. */
int dz_copy_tasks_leave(dz_copy_tasks *copied, const char *task);

/* 1 if `task` cannot stay without `source`: it has rows that are coded against it, and does not only share exact bytes with it. */
int dz_copy_tasks_needs(const dz_task_entry *task, const dz_task_entry *source);

/* The archive has a task of this name, readable or not. */
int dz_copy_tasks_has(const dz_copy_tasks *copied, const char *task);

/* After all that stay behind were named: exact bytes that tasks to be copied share with them will go along. DZ_EUSAGE if a task to be
 * copied is coded against one that stays behind otherwise. DZ_EDAMAGE if a task to be copied cannot be, naming it and what to do. */
dz_rc dz_copy_tasks_check(dz_copy_tasks *copied, dz_error *err);

/* 1 if the row stays and is coded against one that does not. */
int dz_copy_tasks_in_vain(const dz_copy_tasks *copied, const dz_index_row *row);

/* The row's number among those that are coded anew, or -1. */
int64_t dz_copy_tasks_anew(const dz_copy_tasks *copied, const dz_index_row *row);

/* Rank 0: fills an empty catalog with the old one's base and copied tasks, in their order, and with the tensors and blobs that these need.
 * Leaves room for `more` further tasks. */
dz_rc dz_copy_tasks_catalog(const dz_copy_tasks *copied, dz_catalog *catalog, size_t more, dz_error *err);

/* Collective. Broadcasts where the copied payloads go in the laid-out file (`catalog`: rank 0's) and copies this rank's share. */
dz_rc dz_copy_tasks_payloads(const dz_copy_tasks *copied, const dz_world *world, const dz_catalog *catalog, dz_extent_writer *writer,
                             dz_error *err);

#endif

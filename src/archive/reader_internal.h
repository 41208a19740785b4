/* Between reader.c, which reads what all tasks share and a task's group, and read_tasks.c. */
#ifndef DZ_ARCHIVE_READER_INTERNAL_H
#define DZ_ARCHIVE_READER_INTERNAL_H

#include <hdf5.h>

#include "archive/reader.h"

/* Names of tasks that are to be read; n 0 and names NULL: all. */
typedef struct dz_task_choice {
    const char *const *names;
    size_t n;
} dz_task_choice;

/* One task, from its open group; its name is there already. `b`: scratch. */
dz_rc dz_reader_task(dz_archive *archive, hid_t group, dz_task_entry *task, dz_buf *b, dz_error *err);

/* The tasks of the file, into the catalog, linked to what they are coded against; those that cannot be read are noted as lost. */
dz_rc dz_reader_tasks(dz_archive *archive, hid_t file, const dz_task_choice *choice, dz_buf *b, dz_error *err);

#endif

/* A restore under way: shared by the files of this folder. */
#ifndef DZ_RESTORE_JOB_H
#define DZ_RESTORE_JOB_H

#include "base/staging.h"
#include "checkpoint/mark.h"
#include "decode/merge.h"
#include "restore/restore.h"

typedef struct dz_restore_file {
    char *name, *path; /* within the directory; where it is made */
    int fd;
    int must_equal; /* rank 0: a file of this name that is not known to be ours is there; it is replaced only by its own bytes */
} dz_restore_file;

typedef struct dz_restore_tensor {
    uint32_t row, file;
    uint32_t whole;  /* 0, or 1 + the number of the fused tensor of which it is a part */
    uint64_t offset; /* in the file */
} dz_restore_tensor;

/* A fused tensor of the task's files, kept as parts (archive/catalog.h). */
typedef struct dz_restore_whole {
    dz_tensor tensor;
    uint32_t first, count; /* rows */
    uint32_t file, number; /* of the task's files; among the file's fused tensors */
} dz_restore_whole;

typedef struct dz_restore_job {
    const dz_world *world;
    const dz_restore_options *opt;
    const char *one; /* with opt->one_file: its name in its folder; else NULL */
    dz_archive *archive;
    const dz_task_entry *task; /* the first one: its files are made */
    dz_merge merge;
    dz_checkpoint *base;
    dz_staging staging;
    dz_restore_file *files; /* all that are made */
    size_t nfiles;
    dz_damage damage;
    dz_restore_tensor *tensors;
    size_t ntensors;
    dz_restore_whole *wholes;
    size_t nwholes;
    dz_decoder decoder;
    dz_buf own, wide; /* of a tile that is written in another type: in its own, and in float */
    dz_mark mark;
    char *sum, *method, *fingerprint, *mark_text; /* of the mark; its text is what goes into headers */
    uint64_t nbytes;
} dz_restore_job;

/* files.c: which files are made, with their headers; alike on every rank, made by rank 0. */
dz_rc dz_restore_plan_all(dz_restore_job *r, dz_error *err);       /* as the task had them */
dz_rc dz_restore_plan_some(dz_restore_job *r, dz_error *err);      /* opt->tensors into one */
dz_rc dz_restore_plan_shards(dz_restore_job *r, dz_error *err);    /* new shards of opt->max_shard */
dz_rc dz_restore_plan_one(dz_restore_job *r, dz_error *err);       /* opt->one_file: all tensors into it */
dz_rc dz_restore_find_wholes(dz_restore_job *r, dz_error *err);    /* before all these: fills `wholes` */
int dz_restore_chooses(const dz_restore_job *r, const char *name); /* opt->tensors: the tensor of this name, or a part of a chosen one */
size_t dz_restore_count(const dz_restore_job *r);                  /* tensors in the files that are made */

/* Of opt->one_file: the task's files that are not made, as a note. */
dz_rc dz_restore_note_left_out(const dz_restore_job *r, dz_buf *lines, dz_error *err);

dz_rc dz_restore_add_file(dz_restore_job *r, const char *name, const void *head, size_t len, uint64_t size, dz_error *err);

/* sum.c: several tasks, or one that is weighted. */
dz_rc dz_restore_order_sum(dz_merge *m, dz_error *err); /* the leader first; the order in which tasks are given makes no difference */
dz_rc dz_restore_check_sum(dz_restore_job *r, dz_buf *lines, dz_error *err); /* refuses what cannot be added, notes what is left out */
int dz_restore_is_chosen(const char *glob, const char *name);

/* mark.c: what says that a model is not the original. */
int dz_restore_is_lossy_row(const dz_restore_job *r, size_t row); /* its values are not the original's */
int dz_restore_has_lossy(const dz_restore_job *r, size_t first);  /* so are some of the tensors from `first` on */
dz_rc dz_restore_make_mark(dz_restore_job *r, dz_error *err);     /* what a mark would say */
dz_rc dz_restore_add_mark(dz_restore_job *r, dz_error *err);      /* rank 0: deltazoo.json, where it is due */
void dz_restore_drop_old_mark(const dz_restore_job *r);           /* rank 0: of an earlier restore into the same folder */

/* publish.c, on rank 0: what may be replaced, and how the model takes its place. */
dz_rc dz_restore_check_output(const dz_restore_options *opt, dz_error *err);
dz_rc dz_restore_check_replaced(dz_restore_job *r, dz_error *err);
dz_rc dz_restore_publish(dz_restore_job *r, dz_error *err);

#endif

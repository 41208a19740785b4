/* Sums of tasks: in which order they are added, whose files are made, what cannot be added, and what is left out of the sum. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/notes.h"
#include "restore/job.h"

typedef struct summand {
    const dz_task_entry *task;
    double weight;
} summand;

/* The leader first: the largest weight, then the first name. The result is the same for any order in which tasks are given. */
static int by_weight_and_name(const void *x, const void *y) {
    const summand *a = x, *b = y;
    if (fabs(a->weight) != fabs(b->weight)) return fabs(a->weight) > fabs(b->weight) ? -1 : 1;
    int order = strcmp(a->task->name, b->task->name);
    return order ? order : (a->weight < b->weight) - (a->weight > b->weight);
}

dz_rc dz_restore_order_sum(dz_merge *m, dz_error *err) {
    summand *all = dz_alloc(m->ntasks, sizeof *all, err);
    if (!all) return err->rc;
    for (size_t t = 0; t < m->ntasks; t++) all[t] = (summand){m->tasks[t], m->weights[t]};
    qsort(all, m->ntasks, sizeof *all, by_weight_and_name);
    for (size_t t = 0; t < m->ntasks; t++) {
        m->tasks[t] = all[t].task;
        m->weights[t] = all[t].weight;
    }
    free(all);
    return DZ_OK;
}

static const dz_index_row *find_row(const dz_catalog *c, const dz_task_entry *task, const char *name) {
    for (size_t i = 0; i < task->nrows; i++) {
        if (task->rows[i].policy != DZ_POLICY_ABSENT && strcmp(c->tensors[task->rows[i].tensor].name, name) == 0) return &task->rows[i];
    }
    return NULL;
}

/* The task has the scales of this F8 tensor (checkpoint/fp8_scale.h has the names). */
static int has_scales(const dz_catalog *c, const dz_task_entry *task, const char *name) {
    static const char *const ends[] = {"_scale_inv", "_scale", ".scale", ".scale_inv", ".scale_weight", NULL};
    dz_error none = {0};
    int found = 0;
    for (int i = 0; ends[i] && !found; i++) {
        size_t len = strlen(name), cut = ends[i][0] == '.' ? strlen(".weight") : 0;
        if (cut && !dz_ends_with(name, ".weight")) continue;
        char *scales = dz_format(&none, "%.*s%s", (int)(len - cut), name, ends[i]);
        found = scales && find_row(c, task, scales) != NULL;
        free(scales);
    }
    return found;
}

/* Values that mean nothing when they are added: integers that are not the base's, and codes that have their scales elsewhere. */
static dz_rc check_row(const dz_restore_job *r, const dz_task_entry *task, const dz_index_row *row, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    const dz_index_row *source = dz_row_source(task, row);
    dz_tensor t = dz_tensor_of_row(&c->tensors[row->tensor]);
    if (row->policy == DZ_POLICY_ABSENT || dz_row_is_base(source) || t.count == 0) return DZ_OK;
    if (!dz_dtype_is_float(t.dtype))
        return dz_fail_more(err, DZ_EUSAGE,
                            "task '%s': tensor '%s' is %s and not the base's: integers and quantised weights cannot be added%s", task->name,
                            t.name, t.dtype_name, r->merge.ntasks == 1 ? " or scaled" : "");
    if (strncmp(t.dtype_name, "F8_", 3) == 0 && has_scales(c, task, t.name))
        return dz_fail_more(err, DZ_EUSAGE, "task '%s': tensor '%s' is %s with scales of its own: quantised weights cannot be added",
                            task->name, t.name, t.dtype_name);
    return DZ_OK;
}

static const char ROWS[] = "these rows, which the base lacks, are the first task's alone";
static const char LEFT[] = "these tensors of other tasks are left out: the first task or the base lacks one of that name";
static const char TYPES[] = "these tensors get the first task's type";
static const char FILES[] = "these files differ between the tasks, and are the first task's";

/* One tensor of another task beside the leader's. */
static dz_rc compare_row(const dz_restore_job *r, const dz_task_entry *task, const dz_index_row *other, dz_notes *notes, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    dz_tensor b = dz_tensor_of_row(&c->tensors[other->tensor]);
    const dz_index_row *row = find_row(c, r->task, b.name);
    if (!row)
        return other->base == DZ_NO_BASE || !dz_row_is_base(other) ? dz_notes_add(notes, err, LEFT, "'%s' of '%s'", b.name, task->name)
                                                                   : DZ_OK;
    dz_tensor a = dz_tensor_of_row(&c->tensors[row->tensor]);
    const dz_index_row *of_a = dz_row_source(r->task, row), *of_b = dz_row_source(task, other);
    if (of_a->base == DZ_NO_BASE) return dz_notes_add(notes, err, LEFT, "'%s' of '%s'", b.name, task->name);
    if (of_a->base != of_b->base)
        return dz_fail_more(err, DZ_EUSAGE,
                            "tensor '%s' of task '%s' is a change of another base tensor than that of '%s': they cannot be added", b.name,
                            task->name, r->task->name);
    if (strcmp(a.dtype_name, b.dtype_name) != 0 && dz_dtype_is_float(a.dtype))
        dz_notes_add(notes, err, TYPES, "'%s' (%s, of '%s' %s)", a.name, a.dtype_name, task->name, b.dtype_name);
    dz_tensor base = dz_tensor_of_row(&c->tensors[c->base[of_a->base].tensor]);
    if (dz_same_shape(&a, &b) && a.count <= base.count) return DZ_OK;
    if (a.count < base.count || b.count < base.count) {
        char x[DZ_SHAPE_TEXT], y[DZ_SHAPE_TEXT];
        if (dz_same_shape(&a, &b)) return DZ_OK;
        return dz_fail_more(err, DZ_EUSAGE,
                            "tensor '%s' is %s in task '%s' and %s in '%s', with fewer rows than the base: they cannot be added", a.name,
                            dz_shape_text(&a, x), r->task->name, dz_shape_text(&b, y), task->name);
    }
    return a.ndim && a.count ? dz_notes_add(notes, err, ROWS, "'%s' (from row %llu on)", a.name, (unsigned long long)base.shape[0]) : DZ_OK;
}

static int same_file(const dz_task_entry *task, const dz_file_row *f) {
    for (size_t i = 0; i < task->nfiles; i++) {
        if (strcmp(task->files[i].path, f->path) == 0) return task->files[i].blob == f->blob;
    }
    return 0;
}

/* Alike on every rank; the notes are for rank 0. */
dz_rc dz_restore_check_sum(dz_restore_job *r, dz_buf *lines, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    dz_notes notes = {0};
    const char *only = r->opt->tensors;
    if (c->nbase == 0)
        return dz_fail(err, DZ_EUSAGE,
                       "%s: has no base, so its tasks have no deltas to be added or scaled: restore one task, without a weight",
                       r->archive->path);
    for (size_t t = 0; t < r->merge.ntasks; t++) {
        const dz_task_entry *task = r->merge.tasks[t];
        for (size_t i = 0; i < task->nrows && r->merge.weights[t] != 0; i++) {
            const dz_index_row *row = &task->rows[i];
            if (row->policy == DZ_POLICY_ABSENT || !dz_restore_chooses(r, c->tensors[row->tensor].name)) continue;
            check_row(r, task, row, err);
            if (task != r->task) compare_row(r, task, row, &notes, err);
        }
        for (size_t i = 0; i < r->task->nfiles && task != r->task && !only; i++) {
            const dz_file_row *f = &r->task->files[i];
            if (f->kind == DZ_FILE_SIDE && !same_file(task, f)) dz_notes_add(&notes, err, FILES, "%s", f->path);
        }
    }
    if (r->merge.ntasks > 1 && err->rc == DZ_OK && notes.nkinds)
        dz_buf_note(lines, err, "the first task is '%s': the one of the largest weight, then by name", r->task->name);
    dz_notes_flush(&notes, lines);
    return err->rc;
}

/* What a restored model says of itself. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "restore/cast.h"

#include "base/file.h"

/* Values of this row are not the original's. */
int dz_restore_is_lossy_row(const dz_restore_job *r, size_t i) {
    const dz_index_row *row = dz_row_source(r->task, &r->task->rows[i]);
    return !dz_merge_is_plain(&r->merge) || dz_row_is_lossy(row) || dz_restore_cast_rounds(r, row);
}

int dz_restore_has_lossy(const dz_restore_job *r, size_t first) {
    size_t i = first;
    while (i < r->ntensors && !dz_restore_is_lossy_row(r, r->tensors[i].row)) i++;
    return i < r->ntensors;
}

/* The method as the task's recipe has it; "ultradelta" where it says nothing. The caller frees. */
static char *method_of(const dz_task_entry *task, dz_error *err) {
    const char *at = task->recipe_text;
    while (at && strncmp(at, "method: ", 8) != 0) {
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
    return at ? dz_strndup(at + 8, strcspn(at + 8, "\r\n"), err) : dz_strdup("ultradelta", err);
}

/* Expected |restored - true| / |true| of the delta of all lossy tensors together; NAN where the archive does not say (format version 1). */
static double noise_of(const dz_catalog *c, const dz_task_entry *task) {
    double sum = 0, energy = 0;
    for (size_t i = 0; i < task->nrows; i++) {
        const dz_task_entry *holder = task;
        const dz_index_row *row = dz_row_values(&holder, &task->rows[i]);
        if (row->policy != DZ_POLICY_ULTRADELTA && !dz_row_was_lossy(row)) continue;
        double rms = (double)row->delta_rms, gain = (double)holder->gamma * (double)row->gain;
        double here = (double)dz_row_common(c, row) * rms * rms;
        sum += here * ((1 - gain) * (1 - gain) + gain * gain * (double)row->nsr);
        energy += here;
    }
    return energy > 0 ? sqrt(sum / energy) : NAN;
}

/* "math", or "0.6 * math + 0.4 * code". The caller frees. */
static char *sum_text(const dz_merge *m, int plain, dz_error *err) {
    dz_buf b = {0};
    if (plain) return dz_strdup(m->tasks[0]->name, err);
    for (size_t t = 0; t < m->ntasks; t++) dz_buf_line(&b, err, "%s%.9g * %s", t ? " + " : "", m->weights[t], m->tasks[t]->name);
    dz_buf_put(&b, "", 1, err);
    return (char *)b.data;
}

/* What a mark would say; alike on every rank but for the archive's date. */
dz_rc dz_restore_make_mark(dz_restore_job *r, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    struct stat st = {0};
    int plain = dz_merge_is_plain(&r->merge);
    char hex[33];
    dz_digest_hex(c->fingerprint, hex);
    stat(r->archive->path, &st);
    r->sum = sum_text(&r->merge, plain, err);
    r->method = plain ? method_of(r->task, err) : dz_strdup(r->merge.sign_consensus ? "sum, sign consensus" : "sum", err);
    r->fingerprint = dz_strdup(hex, err);
    r->mark = (dz_mark){.task = r->sum,
                        .method = r->method,
                        .kept = plain && r->task->lossy_parameters ? (double)r->task->lossy_kept / (double)r->task->lossy_parameters : NAN,
                        .noise = plain ? noise_of(c, r->task) : NAN,
                        .base = c->base_name ? c->base_name : "",
                        .fingerprint = r->fingerprint,
                        .generator = c->generator,
                        .format_version = c->format_version,
                        .archive = dz_path_last(r->archive->path),
                        .archive_date = st.st_mtime,
                        .dtype = r->opt->dtype ? dz_dtype_name(r->opt->dtype) : NULL,
                        .lossy = 1};
    if (err->rc == DZ_OK) r->mark_text = dz_mark_text(&r->mark, err);
    r->mark.lossy = 0;
    for (size_t i = 0; i < r->task->nrows; i++) r->mark.lossy |= dz_restore_is_lossy_row(r, i);
    return err->rc;
}

/* Rank 0: deltazoo.json beside what is not the original. One file has its header only. */
dz_rc dz_restore_add_mark(dz_restore_job *r, dz_error *err) {
    dz_buf text = {0};
    struct stat st;
    const char **names = dz_alloc(r->nfiles, sizeof *names, err);
    uint64_t *sizes = dz_alloc(r->nfiles, sizeof *sizes, err);
    int lossy = dz_restore_has_lossy(r, 0);
    if (r->one || (!lossy && r->damage.count == 0)) goto out;
    r->mark.lossy = lossy;
    r->mark.damaged = r->damage.count;
    for (size_t i = 0; names && sizes && i < r->nfiles; i++) {
        names[i] = r->files[i].name;
        if (stat(r->files[i].path, &st) == 0) sizes[i] = (uint64_t)st.st_size;
    }
    if (err->rc == DZ_OK && dz_mark_file(&r->mark, names, sizes, r->nfiles, &text, err) == DZ_OK)
        dz_restore_add_file(r, DZ_MARK_FILE, text.data, text.len, text.len, err);
out:
    dz_buf_free(&text);
    free(names);
    free(sizes);
    return err->rc;
}

/* Rank 0: one of an earlier restore into the same folder, where this one has none. */
void dz_restore_drop_old_mark(const dz_restore_job *r) {
    dz_error none = {0};
    char *path = dz_format(&none, "%s/" DZ_MARK_FILE, r->opt->out);
    size_t i = 0;
    while (i < r->nfiles && strcmp(r->files[i].name, DZ_MARK_FILE) != 0) i++;
    if (path && i == r->nfiles && dz_mark_is_file(path)) unlink(path);
    free(path);
}

#include <string.h>

#include "compress/job.h"

/* The names of a task's rows of a policy, the first three of them; how many rows there are. */
static size_t name_rows(const dz_catalog *c, const dz_task_entry *task, dz_policy policy, dz_buf *names, dz_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < task->nrows; i++) {
        if (task->rows[i].policy == policy && n++ < 3)
            dz_buf_line(names, err, "%s'%s'", n > 1 ? ", " : "", c->tensors[task->rows[i].tensor].name);
    }
    if (n > 3) dz_buf_line(names, err, " and %zu more (info --task lists them)", n - 3);
    dz_buf_put(names, "", 1, err);
    return n;
}

/* A task's tensors that are not kept, and one that adds nothing to the base. */
static void note_what_is_kept(const dz_job *job, size_t t, dz_buf *notes, dz_error *err) {
    const dz_catalog *c = job->catalog;
    const dz_task_entry *task = &c->tasks[job->ctx.copied.ntasks + t];
    dz_buf dropped = {0}, absent = {0};
    size_t ndropped = name_rows(c, task, DZ_POLICY_DROP, &dropped, err), nabsent = name_rows(c, task, DZ_POLICY_ABSENT, &absent, err);
    size_t n = task->nrows - nabsent, differ = 0;
    for (size_t i = 0; i < task->nrows; i++)
        differ += task->rows[i].length != 0 || task->rows[i].source != 0 || task->rows[i].base == DZ_NO_BASE;
    if (err->rc != DZ_OK) goto out;
    if (ndropped)
        dz_buf_note(notes, err, "task '%s': %zu tensor%s dropped by the recipe, the base's values take their place: %s", task->name,
                    ndropped, ndropped == 1 ? " is" : "s are", (const char *)dropped.data);
    if (!differ && ndropped + nabsent == 0)
        dz_buf_note(notes, err, "task '%s' equals the base", task->name);
    else if (!differ && n > ndropped)
        dz_buf_note(notes, err, "task '%s': what is kept of it (%zu of %zu tensors) equals the base%s%s", task->name, n - ndropped, n,
                    nabsent ? ", without " : "", (const char *)absent.data);
out:
    dz_buf_free(&dropped);
    dz_buf_free(&absent);
}

/* Tensors of a task that were to be lossy and are kept exactly, with the reason. */
static void note_exact(const dz_job *job, size_t t, dz_reason reason, dz_buf *notes, dz_error *err) {
    static const char *const why[DZ_REASONS] = {[DZ_REASON_NONFINITE] = "with NaN or infinity",
                                                [DZ_REASON_OVERFLOW] = "whose restored values could leave the range of their type",
                                                [DZ_REASON_SMALLER] = "whose exact coding is at most a tenth larger than the lossy one"};
    const dz_plan *plan = job->plan;
    const char *first = NULL;
    size_t n = 0;
    for (size_t i = plan->first_pair[t]; i < plan->first_pair[t + 1]; i++) {
        const dz_tensor_pair *pair = &plan->pairs[i];
        if (pair->lossy < 0 || job->lossy.tensors[pair->lossy].reason != reason) continue;
        if (n++ == 0) first = dz_pair_tensor(plan, pair)->name;
    }
    if (n)
        dz_buf_note(notes, err, "task '%s': %zu tensor%s %s, kept exactly: '%s'%s", job->ctx.zoo.names[t], n, n == 1 ? "" : "s",
                    why[reason], first, n > 1 ? ", ..." : "");
}

/* Lines that are not there yet: generations of a job have much in common. */
static void add_new_lines(dz_buf *notes, const dz_buf *lines, dz_error *err) {
    for (size_t at = 0, len; at < lines->len; at += len + 1) {
        const uint8_t *line = lines->data + at, *end = memchr(line, '\n', lines->len - at);
        int known = 0;
        len = end ? (size_t)(end - line) : lines->len - at;
        for (size_t i = 0; i + len < notes->len && !known; i++) {
            known = (i == 0 || notes->data[i - 1] == '\n') && notes->data[i + len] == '\n' && memcmp(notes->data + i, line, len) == 0;
        }
        if (!known) dz_buf_put(notes, line, len + (end != NULL), err);
    }
}

static void note_all(const dz_job *job, dz_buf *notes, dz_error *err) {
    const dz_plan *plan = job->plan;
    if (!dz_has_parents(&job->ctx.zoo)) dz_buf_put(notes, plan->notes.data, plan->notes.len, err); /* else they are there, of all tasks */
    if (job->ctx.zoo.recipe->method_implied)
        dz_buf_note(notes, err, "method ultradelta, because its keys are set (sparsity and the like): --method names another");
    if (job->ctx.zoo.manifest->no_base)
        dz_buf_note(notes, err, "%s names no base: each task is coded by itself, exactly", job->ctx.opt->manifest);
    for (size_t t = 0; t < plan->ntasks; t++) {
        for (int reason = DZ_REASON_NONFINITE; reason < DZ_REASONS; reason++) note_exact(job, t, (dz_reason)reason, notes, err);
        note_what_is_kept(job, t, notes, err);
    }
    if (job->ctx.opt->append && !job->ctx.copied.old && !job->ctx.opt->skip_existing && !job->ctx.opt->update &&
        !job->resumed) /* what a requeued job expects is not reported */
        dz_buf_note(notes, err, "there was no archive to append to: it is a new one");
    for (size_t at = 0; job->ctx.copied.old && at < job->ctx.copied.old->catalog->foreign.len;) {
        const char *line = (const char *)job->ctx.copied.old->catalog->foreign.data + at;
        int len = (int)strcspn(line, "\n");
        dz_buf_note(notes, err, "%s: %.*s was not of the archive: not taken along", job->ctx.opt->archive, len, line);
        at += (size_t)len + 1;
    }
    if (job->foreign)
        dz_buf_note(notes, err, "%s.journal was of another job (models, recipe or program differ): it was not used", job->ctx.opt->archive);
    if (job->resumed) dz_buf_note(notes, err, "went on where an earlier run of this job was interrupted");
    if (job->ctx.opt->mem_per_rank < DZ_MEMORY_LEAST)
        dz_buf_note(notes, err, "--mem-per-rank: less than the 128M that a rank needs at least: 128M are taken");
    if (job->skipped) dz_buf_note(notes, err, "%zu task%s in the archive already", job->skipped, job->skipped == 1 ? " is" : "s are");
    if (job->ctx.opt->nhints && !dz_io_by_mpi(job->ctx.opt->io, job->ctx.world))
        dz_buf_note(notes, err, "--io-hint has no effect: it needs --io collective and more than one rank");
    if ((size_t)job->ctx.world->size > plan->nunits && job->generations->at == 0)
        dz_buf_note(notes, err, "%d ranks for %zu tiles: some have nothing to do", job->ctx.world->size, plan->nunits);
}

/* What the user should know beyond the table: what was not taken as the recipe's main case. */
void dz_job_notes(const dz_job *job, dz_buf *notes, dz_error *err) {
    dz_buf lines = {0};
    note_all(job, &lines, err);
    add_new_lines(notes, &lines, err);
    dz_buf_free(&lines);
}

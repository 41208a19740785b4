/* What rows are coded against: of the base, or of other tasks of the archive (FORMAT.md "Index"). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive/reader.h"

typedef struct linker {
    dz_catalog *c;
    uint32_t **sources;       /* [tasks][nsources] their numbers */
    char **why;               /* [tasks] why the task cannot be read; NULL: it can */
    uint8_t *unread;          /* [tasks] as in dz_lost */
    size_t *pending;          /* [tasks] sources that are not linked yet */
    size_t *first, *children; /* children[first[t]] .. of each task */
    size_t *queue, nqueue;
} linker;

static void give_up(linker *l, size_t t, int unread, char *text) {
    if (l->why[t]) {
        free(text);
        return;
    }
    l->why[t] = text;
    l->unread[t] = (uint8_t)unread;
}

static dz_rc find_sources(linker *l, dz_error *err) {
    dz_catalog *c = l->c;
    dz_catalog_index_tasks(c, err);
    for (size_t t = 0; t < c->ntasks && err->rc == DZ_OK; t++) {
        const dz_task_entry *task = &c->tasks[t];
        if (!(l->sources[t] = dz_alloc(task->nsources, sizeof **l->sources, err))) break;
        for (size_t s = 0; s < task->nsources && err->rc == DZ_OK; s++) {
            int64_t at = dz_catalog_find(c, task->sources[s]);
            const dz_lost *lost = at < 0 ? dz_catalog_find_lost(c, task->sources[s]) : NULL;
            if (lost)
                give_up(l, t, lost->unread, dz_format(err, "its source cannot be read: %.900s", lost->text));
            else if (at < 0)
                give_up(l, t, 0, dz_format(err, "its source '%s' is not in the archive", task->sources[s]));
            l->sources[t][s] = at < 0 ? UINT32_MAX : (uint32_t)at;
            if (at < 0) continue;
            l->pending[t]++;
            l->first[at + 1]++;
        }
    }
    return err->rc;
}

/* Tasks by what they are a source of. */
static dz_rc list_children(linker *l, dz_error *err) {
    size_t n = l->c->ntasks;
    for (size_t t = 0; t < n; t++) l->first[t + 1] += l->first[t];
    size_t *at = dz_alloc(n, sizeof *at, err);
    l->children = dz_alloc(l->first[n], sizeof *l->children, err);
    for (size_t t = 0; t < n && err->rc == DZ_OK; t++) {
        for (size_t s = 0; s < l->c->tasks[t].nsources; s++) {
            uint32_t source = l->sources[t][s];
            if (source != UINT32_MAX) l->children[l->first[source] + at[source]++] = t;
        }
    }
    free(at);
    return err->rc;
}

/* Why the row does not go with what it refers to; NULL: it does. */
static const char *link_row(const dz_catalog *c, dz_index_row *row, const dz_task_entry *to) {
    if (row->reference >= to->nrows) return "refers to a row that is not there";
    const dz_index_row *up = dz_row_source(to, &to->rows[row->reference]);
    dz_tensor a = dz_tensor_of_row(&c->tensors[row->tensor]), b = dz_tensor_of_row(&c->tensors[up->tensor]);
    if (up->policy == DZ_POLICY_ABSENT) return "refers to a tensor that is not there";
    if (!dz_same_kind(&a, &b)) return "refers to a tensor of another type or shape";
    if (up->depth >= DZ_DEPTH_MAX) return "is more than 64 rows deep";
    row->up = up;
    row->up_task = to;
    row->base = up->base;
    row->depth = (uint8_t)(up->depth + 1);
    return NULL;
}

static void link_task(linker *l, size_t t, dz_error *err) {
    dz_task_entry *task = &l->c->tasks[t];
    for (size_t i = 0; i < task->nrows && !l->why[t]; i++) {
        dz_index_row *row = &task->rows[i];
        if (row->source == 0) continue;
        const char *wrong = link_row(l->c, row, &l->c->tasks[l->sources[t][row->source - 1]]);
        if (wrong) give_up(l, t, 0, dz_format(err, "row %zu of its index %s", i, wrong));
    }
}

static void leave_queue(linker *l, size_t t, dz_error *err) {
    const dz_catalog *c = l->c;
    for (size_t i = l->first[t]; i < l->first[t + 1]; i++) {
        size_t child = l->children[i];
        if (l->why[t])
            give_up(l, child, l->unread[t], dz_format(err, "its source '%s' cannot be read: %.800s", c->tasks[t].name, l->why[t]));
        if (--l->pending[child] == 0) l->queue[l->nqueue++] = child;
    }
}

/* Sources first. What is left then refers to itself. */
static void link_all(linker *l, dz_error *err) {
    for (size_t t = 0; t < l->c->ntasks; t++) {
        if (l->pending[t] == 0) l->queue[l->nqueue++] = t;
    }
    for (size_t i = 0; i < l->nqueue && err->rc == DZ_OK; i++) {
        link_task(l, l->queue[i], err);
        leave_queue(l, l->queue[i], err);
    }
    for (size_t t = 0; t < l->c->ntasks && err->rc == DZ_OK; t++) {
        if (l->pending[t]) give_up(l, t, 0, dz_format(err, "its sources refer to each other in a circle"));
    }
}

/* Moves tasks that cannot be read to those that are lost. */
static void drop_lost(linker *l, dz_error *err) {
    dz_catalog *c = l->c;
    size_t n = 0;
    for (size_t t = 0; t < c->ntasks; t++) {
        if (!l->why[t]) {
            c->tasks[n++] = c->tasks[t];
            continue;
        }
        if (err->rc == DZ_OK && dz_catalog_lose(c, c->tasks[t].name, l->why[t], err) == DZ_OK) c->lost[c->nlost - 1].unread = l->unread[t];
        dz_task_entry_free(&c->tasks[t]);
    }
    if (n == c->ntasks) return;
    c->ntasks = n;
    dz_catalog_index_tasks(c, err);
    for (size_t t = 0; t < n && err->rc == DZ_OK; t++) { /* the entries have moved */
        for (size_t i = 0; i < c->tasks[t].nrows; i++) {
            dz_index_row *row = &c->tasks[t].rows[i];
            if (row->source) row->up_task = &c->tasks[dz_catalog_find(c, c->tasks[t].sources[row->source - 1])];
        }
    }
}

/* The row is a tensor of the base itself, exactly, from nothing else. */
static const char *stored_row(const dz_catalog *c, const dz_task_entry *task, const dz_index_row *row, const dz_tensor *want) {
    const dz_index_row *source = dz_row_source(task, row);
    dz_tensor have = dz_tensor_of_row(&c->tensors[row->tensor]);
    if (!dz_same_kind(&have, want)) return "is of another type or shape";
    if (source->policy != DZ_POLICY_LOSSLESS || source->base != DZ_NO_BASE || source->source) return "is not stored by itself";
    return NULL;
}

static dz_rc find_stored(dz_catalog *c, dz_error *err) {
    dz_lookup rows = {0};
    int64_t number = c->stored_name ? dz_catalog_find(c, c->stored_name) : -1;
    const dz_lost *lost = c->stored_name && number < 0 ? dz_catalog_find_lost(c, c->stored_name) : NULL;
    if (!c->stored_name) return DZ_OK;
    if (number < 0) {
        c->stored_lost = lost ? dz_format(err, "the base that is stored cannot be read: %.900s", lost->text)
                              : dz_format(err, "%s: the task '%s' that holds the base is not in the archive", c->path, c->stored_name);
        return err->rc;
    }
    const dz_task_entry *task = &c->tasks[number];
    if (!(c->stored_rows = dz_alloc(c->nbase, sizeof *c->stored_rows, err)) || dz_task_rows(c, task, &rows, err) != DZ_OK) goto out;
    for (size_t i = 0; i < c->nbase && !c->stored_lost && err->rc == DZ_OK; i++) {
        dz_tensor want = dz_tensor_of_row(&c->tensors[c->base[i].tensor]);
        int64_t at = dz_lookup_find(&rows, want.name, strlen(want.name));
        const char *wrong = at < 0 ? "is not there" : stored_row(c, task, &task->rows[at], &want);
        if (wrong) c->stored_lost = dz_format(err, "%s: the base that is stored: tensor '%s' %s", c->path, want.name, wrong);
        if (!wrong) c->stored_rows[i] = dz_row_source(task, &task->rows[at]);
    }
    if (!c->stored_lost && err->rc == DZ_OK) c->stored = (size_t)number + 1;
out:
    dz_lookup_free(&rows);
    return err->rc;
}

dz_rc dz_catalog_link(dz_catalog *c, dz_error *err) {
    size_t n = c->ntasks;
    linker l = {.c = c,
                .sources = dz_alloc(n, sizeof *l.sources, err),
                .why = dz_alloc(n, sizeof *l.why, err),
                .unread = dz_alloc(n, 1, err),
                .pending = dz_alloc(n, sizeof *l.pending, err),
                .first = dz_alloc(n + 1, sizeof *l.first, err),
                .queue = dz_alloc(n, sizeof *l.queue, err)};
    if (err->rc == DZ_OK && find_sources(&l, err) == DZ_OK && list_children(&l, err) == DZ_OK) {
        link_all(&l, err);
        drop_lost(&l, err);
    }
    if (err->rc == DZ_OK) find_stored(c, err);
    for (size_t t = 0; t < n; t++) {
        if (l.sources) free(l.sources[t]);
        if (l.why) free(l.why[t]);
    }
    free(l.sources);
    free(l.why);
    free(l.unread);
    free(l.pending);
    free(l.first);
    free(l.children);
    free(l.queue);
    return err->rc;
}

dz_rc dz_task_add_source(dz_task_entry *t, const char *name, uint32_t *number, dz_error *err) {
    size_t bytes = strlen(name) + 1;
    for (size_t s = 0; s < t->nsources; s++) {
        *number = (uint32_t)s + 1;
        if (strcmp(t->sources[s], name) == 0) return DZ_OK;
        bytes += strlen(t->sources[s]) + 1;
    }
    if (bytes > DZ_SOURCES_MAX)
        return dz_fail(err, DZ_EUSAGE, "task '%s': refers to %zu other tasks, whose names are more than the %d bytes that it has room for",
                       t->name, t->nsources + 1, DZ_SOURCES_MAX);
    char **grown = realloc(t->sources, (t->nsources + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "out of memory");
    t->sources = grown;
    if (!(grown[t->nsources] = dz_strdup(name, err))) return err->rc;
    *number = (uint32_t)++t->nsources;
    return DZ_OK;
}

const dz_index_row *dz_row_values(const dz_task_entry **task, const dz_index_row *row) {
    for (; row->policy == DZ_POLICY_EQUAL && row->up; row = row->up) *task = row->up_task;
    return row;
}

int dz_row_is_base(const dz_index_row *row) {
    const dz_task_entry *task = NULL;
    row = dz_row_values(&task, row);
    return row->source == 0 && (row->policy == DZ_POLICY_EQUAL || row->policy == DZ_POLICY_DROP);
}

int dz_row_was_lossy(const dz_index_row *row) { return row->policy == DZ_POLICY_LOSSLESS && row->nsr > 0; }

int dz_row_is_noisy(const dz_index_row *row) {
    const dz_task_entry *task = NULL;
    row = dz_row_values(&task, row);
    return row->policy == DZ_POLICY_ULTRADELTA || dz_row_was_lossy(row);
}

int dz_row_is_vocabulary(const dz_catalog *c, const dz_index_row *row) { return row->base < c->nbase && c->vocabulary[row->base]; }

int dz_row_is_lossy(const dz_index_row *row) {
    const dz_task_entry *task = NULL;
    return dz_row_is_noisy(row) || dz_row_values(&task, row)->policy == DZ_POLICY_DROP;
}

int dz_row_has_delta(const dz_index_row *row) {
    const dz_task_entry *task = NULL;
    row = dz_row_values(&task, row);
    return row->policy == DZ_POLICY_ULTRADELTA && row->source == 0;
}

unsigned dz_task_depth(const dz_task_entry *task) {
    unsigned depth = 0;
    for (size_t i = 0; i < task->nrows; i++) depth = task->rows[i].depth > depth ? task->rows[i].depth : depth;
    return depth;
}

uint64_t dz_row_common(const dz_catalog *c, const dz_index_row *row) {
    uint64_t count = dz_tensor_of_row(&c->tensors[row->tensor]).count, base;
    if (row->source) return count;
    base = row->base == DZ_NO_BASE ? 0 : dz_tensor_of_row(&c->tensors[c->base[row->base].tensor]).count;
    return count < base ? count : base;
}

int dz_tile_has_reference(const dz_index_row *row, const dz_pair_tiles *tiles, uint32_t tile) {
    return row->source || tile < tiles->ncommon;
}

const char *dz_task_parent(const dz_task_entry *task) {
    size_t most = 0, parent = 0;
    for (size_t s = 0; s < task->nsources; s++) {
        size_t n = 0;
        for (size_t i = 0; i < task->nrows; i++) n += task->rows[i].source == s + 1 && task->rows[i].policy != DZ_POLICY_EQUAL;
        if (n > most) {
            most = n;
            parent = s;
        }
    }
    return most ? task->sources[parent] : NULL;
}

double dz_task_decodings(const dz_catalog *c, const dz_task_entry *task) {
    double tiles = 0, decoded = 0;
    for (size_t i = 0; i < task->nrows; i++) {
        const dz_index_row *row = &task->rows[i];
        if (row->policy == DZ_POLICY_ABSENT || row->policy == DZ_POLICY_TIED) continue;
        double n = (double)dz_tiling_of(dz_tensor_of_row(&c->tensors[row->tensor]).count).ntiles;
        tiles += n;
        for (; row->up; row = row->up) decoded += row->policy == DZ_POLICY_EQUAL ? 0 : n;
        decoded += n;
    }
    return tiles > 0 ? decoded / tiles : 1;
}

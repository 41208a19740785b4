#include "cli/task_view.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive/reader.h"
#include "base/file.h"

typedef enum shown { TEXT, SIZE, RATIO, NUMBER, WHOLE } shown;

/* What is known of a task. */
typedef struct facts {
    const dz_task_entry *task;
    dz_size_stats size;
    dz_quality quality;
    double decoded;
} facts;

static const char *name_of(const facts *f) { return f->task->name; }
static const char *recipe_of(const facts *f) { return f->task->recipe; }
static const char *parent_of(const facts *f) { return dz_task_parent(f->task) ? dz_task_parent(f->task) : "-"; }
static double depth_of(const facts *f) { return (double)dz_task_depth(f->task); }
static double decoded_of(const facts *f) { return f->decoded; }
static const char *verdict_of(const facts *f) { return dz_verdict_name(f->quality.verdict); }
static double bytes_of(const facts *f) { return f->size.source; }
static double stored_of(const facts *f) { return f->size.stored; }
static double lossy_of(const facts *f) { return f->size.lossy_ratio; }
static double ratio_of(const facts *f) { return f->size.stored > 0 ? f->size.source / f->size.stored : 0; }
static double cosine_of(const facts *f) { return f->quality.verdict == DZ_VERDICT_EXACT ? 1 : f->quality.cosine; }
static double noise_of(const facts *f) { return f->quality.verdict == DZ_VERDICT_EXACT ? 0 : f->quality.noise_to_delta; }
static double noise_base_of(const facts *f) { return f->quality.verdict == DZ_VERDICT_EXACT ? 0 : f->quality.noise_to_base; }
static double rank_of(const facts *f) { return (double)f->quality.verdict; }
static double tensors_of(const facts *f) { return (double)f->task->nrows; }
static double files_of(const facts *f) { return (double)f->task->nfiles; }
static double gamma_of(const facts *f) { return (double)f->task->gamma; }
static double bits_of(const facts *f) { return (double)f->task->bits; }
static double seed_of(const facts *f) { return (double)f->task->seed; }

static const struct column {
    const char *name;
    shown shown;
    const char *(*text)(const facts *f);
    double (*value)(const facts *f); /* by which it is sorted; NULL: by the text */
} COLUMNS[] = {{"name", TEXT, name_of, NULL},          {"bytes", SIZE, NULL, bytes_of},
               {"stored", SIZE, NULL, stored_of},      {"lossy", RATIO, NULL, lossy_of},
               {"ratio", RATIO, NULL, ratio_of},       {"cosine", NUMBER, NULL, cosine_of},
               {"noise", NUMBER, NULL, noise_of},      {"noise-base", NUMBER, NULL, noise_base_of},
               {"quality", TEXT, verdict_of, rank_of}, {"tensors", WHOLE, NULL, tensors_of},
               {"files", WHOLE, NULL, files_of},       {"recipe", TEXT, recipe_of, NULL},
               {"parent", TEXT, parent_of, NULL},      {"depth", WHOLE, NULL, depth_of},
               {"decoded", NUMBER, NULL, decoded_of},  {"gamma", NUMBER, NULL, gamma_of},
               {"bits", WHOLE, NULL, bits_of},         {"seed", WHOLE, NULL, seed_of}};
#define NCOLUMNS (sizeof COLUMNS / sizeof *COLUMNS)

static const struct column *find_column(const char *name, size_t len) {
    for (size_t i = 0; i < NCOLUMNS; i++) {
        if (strlen(COLUMNS[i].name) == len && memcmp(COLUMNS[i].name, name, len) == 0) return &COLUMNS[i];
    }
    return NULL;
}

static dz_rc no_column(const char *option, const char *name, size_t len, dz_error *err) {
    return dz_fail(err, DZ_EUSAGE, "%s: there is no column '%.*s' (%s)", option, (int)len, name, DZ_TASK_COLUMNS);
}

/* The next of a list with commas; NULL at its end. `*at` goes on behind it. */
static const char *next_name(const char **at, size_t *len) {
    const char *name = *at;
    if (!name) return NULL;
    *len = strcspn(name, ",");
    *at = name[*len] ? name + *len + 1 : NULL;
    return name;
}

dz_rc dz_task_filter_check(const dz_task_filter *f, dz_error *err) {
    size_t len;
    const char *sort = f->sort && f->sort[0] == '-' ? f->sort + 1 : f->sort, *at = f->columns;
    if (sort && !find_column(sort, strlen(sort))) no_column("--sort", sort, strlen(sort), err);
    for (const char *name; err->rc == DZ_OK && (name = next_name(&at, &len));) {
        if (!find_column(name, len)) no_column("--columns", name, len, err);
    }
    return err->rc;
}

static facts facts_of(const dz_catalog *c, const dz_task_entry *t) {
    return (facts){.task = t, .size = dz_task_size_stats(t), .quality = dz_task_quality(c, t), .decoded = dz_task_decodings(c, t)};
}

/* What tasks are sorted by, and their order in the archive. */
typedef struct key {
    const dz_task_entry *task;
    const char *text;
    double value;
    size_t number;
} key;

static int compare(const void *x, const void *y, void *arg) {
    const key *a = x, *b = y;
    int sign = *(const int *)arg, order = 0;
    if (a->text)
        order = strcmp(a->text, b->text);
    else if (isnan(a->value) || isnan(b->value))
        return isnan(a->value) == isnan(b->value) ? (a->number < b->number ? -1 : 1) : isnan(a->value) ? 1 : -1; /* last, either way */
    else
        order = (a->value > b->value) - (a->value < b->value);
    return order ? sign * order : a->number < b->number ? -1 : 1;
}

dz_rc dz_task_view_make(const dz_catalog *c, const dz_task_filter *f, dz_task_view *v, dz_error *err) {
    *v = (dz_task_view){.tasks = dz_alloc(c->ntasks, sizeof *v->tasks, err)};
    key *keys = dz_alloc(c->ntasks, sizeof *keys, err);
    int sign = f->sort && f->sort[0] == '-' ? -1 : 1;
    const struct column *by = f->sort ? find_column(f->sort + (sign < 0), strlen(f->sort) - (sign < 0)) : NULL;
    if (err->rc != DZ_OK || dz_task_filter_check(f, err) != DZ_OK) goto out;
    for (size_t t = 0; t < c->ntasks; t++) {
        if (dz_catalog_is_stored(c, &c->tasks[t])) continue; /* it is no task to its users */
        if (f->match && fnmatch(f->match, c->tasks[t].name, 0) != 0) continue;
        key *k = &keys[v->matching];
        *k = (key){.task = &c->tasks[t], .number = v->matching++};
        if (!by) continue;
        facts all = facts_of(c, k->task);
        k->text = by->value ? NULL : by->text(&all);
        k->value = by->value ? by->value(&all) : 0;
    }
    if (by && v->matching) qsort_r(keys, v->matching, sizeof *keys, compare, &sign);
    for (size_t i = (size_t)f->skip; i < v->matching && (f->limit == 0 || v->n < f->limit); i++) v->tasks[v->n++] = keys[i].task;
out:
    free(keys);
    return err->rc;
}

void dz_task_view_free(dz_task_view *v) {
    free(v->tasks);
    *v = (dz_task_view){0};
}

#define CELL 256

static void cell_text(const struct column *column, const facts *f, char text[CELL]) {
    double x = column->shown == TEXT ? 0 : column->value(f);
    char size[32];
    if (column->shown == TEXT)
        snprintf(text, CELL, "%s", column->text(f));
    else if (!isfinite(x) || (column->shown == RATIO && x <= 0))
        snprintf(text, CELL, "-");
    else if (column->shown == SIZE)
        snprintf(text, CELL, "%s", dz_format_size(x, size));
    else if (column->shown == RATIO)
        snprintf(text, CELL, "%.2fx", x);
    else
        snprintf(text, CELL, column->shown == WHOLE ? "%.0f" : "%.4g", x);
}

dz_rc dz_print_task_columns(const dz_catalog *c, const dz_task_view *v, const char *columns, dz_error *err) {
    const struct column **list = dz_alloc(strlen(columns) + 1, sizeof *list, err);
    size_t n = 0, len, *width = dz_alloc(strlen(columns) + 1, sizeof *width, err);
    const char *at = columns;
    char text[CELL];
    if (err->rc != DZ_OK) goto out;
    for (const char *name; (name = next_name(&at, &len)); n++) {
        if (!(list[n] = find_column(name, len))) {
            no_column("--columns", name, len, err);
            goto out;
        }
        width[n] = len;
    }
    for (size_t pass = 0; pass < 2; pass++) { /* widths, then lines */
        for (size_t i = 0; pass && i < n; i++)
            printf(list[i]->shown == TEXT ? "%s%-*s" : "%s%*s", i ? "  " : "", i + 1 == n && list[i]->shown == TEXT ? 0 : (int)width[i],
                   list[i]->name);
        if (pass) putchar('\n');
        for (size_t t = 0; t < v->n; t++) {
            facts f = facts_of(c, v->tasks[t]);
            for (size_t i = 0; i < n; i++) {
                cell_text(list[i], &f, text);
                if (!pass && strlen(text) > width[i]) width[i] = strlen(text);
                if (pass)
                    printf(list[i]->shown == TEXT ? "%s%-*s" : "%s%*s", i ? "  " : "",
                           i + 1 == n && list[i]->shown == TEXT ? 0 : (int)width[i], text);
            }
            if (pass) putchar('\n');
        }
    }
out:
    free(width);
    free(list);
    return err->rc;
}

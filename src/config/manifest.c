#include "config/manifest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "config/yaml.h"

#define MANIFEST_MAX ((size_t)4 << 20)

typedef struct raw_task {
    char *name, *path, *parent, *value[DZ_MANIFEST_KEYS];
} raw_task;

static const char *const KEYS[DZ_MANIFEST_KEYS] = {"quality", "noise_to_delta", "noise_to_base"};

typedef struct raw_manifest {
    char *base, *store_base;
    dz_yaml_list tasks;
} raw_manifest;

static const dz_yaml_field TASK_FIELDS[] = {
    {"name", DZ_YAML_TEXT, offsetof(raw_task, name), NULL},
    {"path", DZ_YAML_TEXT, offsetof(raw_task, path), NULL},
    {"parent", DZ_YAML_TEXT, offsetof(raw_task, parent), NULL},
    {"quality", DZ_YAML_TEXT, offsetof(raw_task, value[0]), NULL},
    {"noise_to_delta", DZ_YAML_TEXT, offsetof(raw_task, value[1]), NULL},
    {"noise_to_base", DZ_YAML_TEXT, offsetof(raw_task, value[2]), NULL},
    {NULL, DZ_YAML_TEXT, 0, NULL},
};
static const dz_yaml_table TASK = {TASK_FIELDS, sizeof(raw_task)};
static const dz_yaml_field FIELDS[] = {
    {"base", DZ_YAML_TEXT, offsetof(raw_manifest, base), NULL},
    {"store_base", DZ_YAML_TEXT, offsetof(raw_manifest, store_base), NULL},
    {"tasks", DZ_YAML_LIST, offsetof(raw_manifest, tasks), &TASK},
    {NULL, DZ_YAML_TEXT, 0, NULL},
};
static const dz_yaml_table MANIFEST = {FIELDS, sizeof(raw_manifest)};

static int compare_names(const void *x, const void *y) {
    const dz_manifest_task *a = *(const dz_manifest_task *const *)x, *b = *(const dz_manifest_task *const *)y;
    int order = strcmp(a->name, b->name);
    return order ? order : (a->line > b->line) - (a->line < b->line);
}

static void find_doubles(const dz_manifest *m, dz_error *err) {
    size_t n = 0;
    const dz_manifest_task **sorted = dz_alloc(m->ntasks, sizeof *sorted, err);
    if (!sorted) return;
    for (size_t i = 0; i < m->ntasks; i++) {
        if (m->tasks[i].name) sorted[n++] = &m->tasks[i];
    }
    qsort(sorted, n, sizeof *sorted, compare_names);
    for (size_t i = 1; i < n; i++) {
        int same = strcmp(sorted[i]->name, sorted[i - 1]->name) == 0;
        if (same && (i < 2 || strcmp(sorted[i]->name, sorted[i - 2]->name) != 0))
            dz_fail_more(err, DZ_EUSAGE, "%s:%d: task '%s' is named twice, first on line %d", m->path, sorted[i]->line, sorted[i]->name,
                         sorted[i - 1]->line);
    }
    free(sorted);
}

/* A path as the program uses it; NULL when there is none, or an empty one. `what` it is the path of, for the error. */
static char *take_path(const dz_manifest *m, const char *path, int line, const char *what, dz_error *err) {
    if (path && path[0]) return dz_path_beside(m->path, path, err);
    if (path) dz_fail_more(err, DZ_EUSAGE, "%s:%d: '%s' is empty", m->path, line, what);
    return NULL;
}

static int is_there(const dz_yaml *yaml, size_t item, const char *key) { return dz_yaml_find(yaml, item, key) != NULL; }

static void take_task(dz_manifest *m, const dz_yaml *yaml, const raw_task *raw, size_t item, dz_error *err) {
    dz_manifest_task *t = &m->tasks[m->ntasks++];
    t->line = dz_yaml_line(yaml, item, NULL);
    if (!is_there(yaml, item, "name") || !is_there(yaml, item, "path"))
        dz_fail_more(err, DZ_EUSAGE, "%s:%d: a task needs 'name' and 'path'", m->path, t->line);
    if (raw->name) t->name = dz_strdup(raw->name, err);
    if (t->name && !dz_task_name_ok(t->name))
        dz_fail_more(err, DZ_EUSAGE,
                     "%s:%d: '%s' cannot be a task's name (letters, digits, . _ + - only, at most 128, no . at the beginning)", m->path,
                     dz_yaml_line(yaml, item, "name"), t->name);
    t->path = take_path(m, raw->path, dz_yaml_line(yaml, item, "path"), "path", err);
    if (raw->parent) t->parent = dz_strdup(raw->parent, err);
    if (t->parent && (!dz_task_name_ok(t->parent) || (t->name && strcmp(t->parent, t->name) == 0)))
        dz_fail_more(err, DZ_EUSAGE, "%s:%d: task '%s': '%s' cannot be its parent: give another task's name, or auto", m->path,
                     dz_yaml_line(yaml, item, "parent"), t->name ? t->name : "?", t->parent);
    for (int k = 0; k < DZ_MANIFEST_KEYS; k++) {
        if (raw->value[k]) t->sets[k] = dz_format(err, "%s=%s", KEYS[k], raw->value[k]);
    }
}

static void take_store_base(dz_manifest *m, const dz_yaml *yaml, const char *value, dz_error *err) {
    int yes = value ? dz_yaml_boolean(value) : 0, line = dz_yaml_line(yaml, 0, "store_base");
    if (yes < 0) dz_fail_more(err, DZ_EUSAGE, "%s:%d: store_base: '%s' is neither true nor false", m->path, line, value);
    if (yes > 0 && !is_there(yaml, 0, "base"))
        dz_fail_more(err, DZ_EUSAGE, "%s:%d: store_base: there is no 'base' to store", m->path, line);
    m->store_base = yes > 0;
}

static void take(dz_manifest *m, const dz_yaml *yaml, dz_error *err) {
    const raw_manifest *raw = yaml->data;
    m->no_base = !is_there(yaml, 0, "base");
    take_store_base(m, yaml, raw->store_base, err);
    m->base = take_path(m, raw->base, dz_yaml_line(yaml, 0, "base"), "base", err);
    const dz_yaml_place *list = dz_yaml_find(yaml, 0, "tasks");
    if (raw->tasks.n == 0 && !(list && list->refused)) dz_fail_more(err, DZ_EUSAGE, "%s: no task", m->path);
    if (!(m->tasks = dz_alloc(raw->tasks.n, sizeof *m->tasks, err))) return;
    const raw_task *tasks = raw->tasks.items;
    for (size_t i = 0; i < raw->tasks.n; i++) take_task(m, yaml, &tasks[i], i + 1, err);
    find_doubles(m, err);
}

dz_rc dz_manifest_load(const char *path, dz_manifest **out, dz_error *err) {
    char *text = NULL;
    size_t len = 0;
    dz_yaml yaml = {0};
    dz_manifest *m = dz_alloc(1, sizeof *m, err);
    if (!m || !(m->path = dz_strdup(path, err))) goto out;
    if (dz_read_file(path, MANIFEST_MAX, &text, &len, err) != DZ_OK) {
        err->rc = DZ_EUSAGE;
        goto out;
    }
    dz_yaml_load(path, text, len, &MANIFEST, &yaml, err);
    if (!yaml.data) goto out;
    take(m, &yaml, err);
    *out = m;
    m = NULL;
out:
    dz_yaml_free(&yaml);
    free(text);
    dz_manifest_free(m);
    return err->rc;
}

void dz_manifest_task_free(dz_manifest_task *t) {
    free(t->name);
    free(t->path);
    free(t->parent);
    for (int k = 0; k < DZ_MANIFEST_KEYS; k++) free(t->sets[k]);
}

void dz_manifest_free(dz_manifest *m) {
    if (!m) return;
    for (size_t i = 0; i < m->ntasks; i++) dz_manifest_task_free(&m->tasks[i]);
    free(m->tasks);
    free(m->base);
    free(m->path);
    free(m);
}

int dz_manifest_path_ok(const char *path) {
    json_t *json = json_string(path);
    json_decref(json);
    return json != NULL;
}

/* Appends head, the path quoted, and tail. */
static void put_path(dz_buf *out, const char *head, const char *path, const char *tail, dz_error *err) {
    if (!dz_manifest_path_ok(path)) dz_fail(err, DZ_EFAIL, "%s: a path that is not UTF-8 cannot stand in a manifest", path);
    dz_buf_put(out, head, strlen(head), err);
    dz_yaml_quote(out, path, err);
    dz_buf_put(out, tail, strlen(tail), err);
}

dz_rc dz_manifest_text(const dz_manifest *m, dz_buf *out, dz_error *err) {
    put_path(out, "base: ", m->base, "\ntasks:\n", err);
    for (size_t i = 0; i < m->ntasks && err->rc == DZ_OK; i++) {
        char *head = dz_format(err, "  - {name: \"%s\", path: ", m->tasks[i].name);
        char *tail = m->tasks[i].parent ? dz_format(err, ", parent: \"%s\"}\n", m->tasks[i].parent) : dz_strdup("}\n", err);
        if (head && tail) put_path(out, head, m->tasks[i].path, tail, err);
        free(head);
        free(tail);
    }
    return err->rc;
}

#include "model/manifest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/yaml.h"

#define MANIFEST_MAX ((size_t)4 << 20)

typedef struct raw_task {
    char *name, *path;
} raw_task;

typedef struct raw_manifest {
    char *base;
    raw_task *tasks;
    unsigned ntasks;
} raw_manifest;

static const cyaml_schema_field_t TASK_FIELDS[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER_NULL_STR | CYAML_FLAG_OPTIONAL, raw_task, name, 0, CYAML_UNLIMITED),
    CYAML_FIELD_STRING_PTR("path", CYAML_FLAG_POINTER_NULL_STR | CYAML_FLAG_OPTIONAL, raw_task, path, 0, CYAML_UNLIMITED), CYAML_FIELD_END};
static const cyaml_schema_value_t TASK = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, raw_task, TASK_FIELDS)};
static const cyaml_schema_field_t FIELDS[] = {
    CYAML_FIELD_STRING_PTR("base", CYAML_FLAG_POINTER_NULL_STR | CYAML_FLAG_OPTIONAL, raw_manifest, base, 0, CYAML_UNLIMITED),
    {.key = "tasks",
     .value = {.type = CYAML_SEQUENCE,
               .flags = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
               .data_size = sizeof(raw_task),
               .sequence = {.entry = &TASK, .min = 0, .max = CYAML_UNLIMITED}},
     .data_offset = offsetof(raw_manifest, tasks),
     .count_offset = offsetof(raw_manifest, ntasks),
     .count_size = sizeof(unsigned)},
    CYAML_FIELD_END};
static const cyaml_schema_value_t MANIFEST = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, raw_manifest, FIELDS)};

int dz_task_name_ok(const char *name) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-";
    size_t len = strlen(name);
    return len > 0 && len <= 128 && name[0] != '.' && strspn(name, allowed) == len;
}

static int compare_names(const void *x, const void *y) {
    return strcmp((*(const dz_manifest_task *const *)x)->name, (*(const dz_manifest_task *const *)y)->name);
}

static void find_doubles(const dz_manifest *m, dz_error *err) {
    const dz_manifest_task **sorted = dz_alloc(m->ntasks, sizeof *sorted, err);
    if (!sorted) return;
    for (size_t i = 0; i < m->ntasks; i++) sorted[i] = &m->tasks[i];
    qsort(sorted, m->ntasks, sizeof *sorted, compare_names);
    for (size_t i = 1; i < m->ntasks; i++) {
        int same = strcmp(sorted[i]->name, sorted[i - 1]->name) == 0;
        if (same && (i < 2 || strcmp(sorted[i]->name, sorted[i - 2]->name) != 0))
            dz_fail_more(err, DZ_EUSAGE, "%s: task '%s' is named twice", m->path, sorted[i]->name);
    }
    free(sorted);
}

static void take(dz_manifest *m, const raw_manifest *raw, dz_error *err) {
    if (!raw->base)
        dz_fail_more(err, DZ_EUSAGE, "%s: no 'base'", m->path);
    else
        m->base = dz_path_beside(m->path, raw->base, err);
    if (raw->ntasks == 0) dz_fail_more(err, DZ_EUSAGE, "%s: no task", m->path);
    if (!(m->tasks = dz_alloc(raw->ntasks, sizeof *m->tasks, err))) return;
    for (unsigned i = 0; i < raw->ntasks; i++) {
        const raw_task *t = &raw->tasks[i];
        if (!t->name || !t->path) {
            dz_fail_more(err, DZ_EUSAGE, "%s: task %u: 'name' and 'path' are needed", m->path, i + 1);
            continue;
        }
        if (!dz_task_name_ok(t->name))
            dz_fail_more(err, DZ_EUSAGE, "%s: task %u: '%s' cannot be a name (letters, digits, . _ + - only, at most 128)", m->path, i + 1,
                         t->name);
        m->tasks[m->ntasks++] = (dz_manifest_task){.name = dz_strdup(t->name, err), .path = dz_path_beside(m->path, t->path, err)};
        if (err->rc == DZ_ENOMEM) return;
    }
    find_doubles(m, err);
}

dz_rc dz_manifest_load(const char *path, dz_manifest **out, dz_error *err) {
    char *text = NULL;
    size_t len = 0;
    raw_manifest *raw = NULL;
    dz_manifest *m = dz_alloc(1, sizeof *m, err);
    if (!m || !(m->path = dz_strdup(path, err))) goto out;
    if (dz_read_file(path, MANIFEST_MAX, &text, &len, err) != DZ_OK) {
        err->rc = DZ_EUSAGE;
        goto out;
    }
    if (dz_yaml_load(path, text, len, &MANIFEST, (void **)&raw, err) != DZ_OK) goto out;
    take(m, raw, err);
    if (err->rc != DZ_OK) goto out;
    *out = m;
    m = NULL;
out:
    dz_yaml_free(&MANIFEST, raw);
    free(text);
    dz_manifest_free(m);
    return err->rc;
}

void dz_manifest_free(dz_manifest *m) {
    if (!m) return;
    for (size_t i = 0; i < m->ntasks; i++) {
        free(m->tasks[i].name);
        free(m->tasks[i].path);
    }
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

/* JSON's text of a string as YAML's: YAML has the same escapes, but refuses, or folds as line breaks, some characters that JSON leaves as
 * they are: U+007F to U+009F, U+FFFE and U+FFFF. */
static void put_quoted(dz_buf *out, const char *json, dz_error *err) {
    for (const unsigned char *at = (const unsigned char *)json; *at && err->rc == DZ_OK; at++) {
        if (at[0] == 0x7f) {
            dz_buf_line(out, err, "\\u007f");
        } else if (at[0] == 0xc2 && at[1] < 0xa0) {
            dz_buf_line(out, err, "\\u00%02x", *++at);
        } else if (at[0] == 0xef && at[1] == 0xbf && at[2] >= 0xbe) {
            dz_buf_line(out, err, "\\uff%02x", at[2] + 0x40);
            at += 2;
        } else {
            dz_buf_put(out, at, 1, err);
        }
    }
}

/* Appends head, the path quoted, and tail. */
static void put_path(dz_buf *out, const char *head, const char *path, const char *tail, dz_error *err) {
    json_t *json = json_string(path);
    char *quoted = json ? json_dumps(json, JSON_ENCODE_ANY) : NULL;
    if (!json)
        dz_fail(err, DZ_EFAIL, "%s: a path that is not UTF-8 cannot stand in a manifest", path);
    else if (!quoted)
        dz_fail(err, DZ_ENOMEM, "out of memory for a manifest");
    dz_buf_put(out, head, strlen(head), err);
    if (quoted) put_quoted(out, quoted, err);
    dz_buf_put(out, tail, strlen(tail), err);
    free(quoted);
    json_decref(json);
}

dz_rc dz_manifest_text(const dz_manifest *m, dz_buf *out, dz_error *err) {
    put_path(out, "base: ", m->base, "\ntasks:\n", err);
    for (size_t i = 0; i < m->ntasks && err->rc == DZ_OK; i++) {
        char *head = dz_format(err, "  - {name: \"%s\", path: ", m->tasks[i].name);
        if (head) put_path(out, head, m->tasks[i].path, "}\n", err);
        free(head);
    }
    return err->rc;
}

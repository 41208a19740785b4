#include "base/notes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

static dz_notes_kind *kind_of(dz_notes *g, const char *text, dz_error *err) {
    for (size_t i = 0; i < g->nkinds; i++) {
        if (strcmp(g->kinds[i].text, text) == 0) return &g->kinds[i];
    }
    if (dz_grow((void **)&g->kinds, &g->cap, g->nkinds + 1, sizeof *g->kinds, err) != DZ_OK) return NULL;
    g->kinds[g->nkinds] = (dz_notes_kind){.text = text};
    return &g->kinds[g->nkinds++];
}

dz_rc dz_notes_add(dz_notes *g, dz_error *err, const char *text, const char *fmt, ...) {
    dz_notes_kind *kind = kind_of(g, text, err);
    if (!kind || (kind->n++ >= DZ_NOTES_LINES && !g->every)) return err->rc;
    char name[1024];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    dz_one_line(len < 0 ? strcpy(name, "?") : name);
    if (g->every) dz_buf_line(g->every, err, "%s\t%s\n", name, text);
    if (kind->n <= DZ_NOTES_LINES) kind->names[kind->n - 1] = dz_strdup(name, err);
    return err->rc;
}

void dz_notes_flush(dz_notes *g, dz_buf *out) {
    dz_error none = {0};
    for (size_t i = 0; i < g->nkinds; i++) {
        const dz_notes_kind *kind = &g->kinds[i];
        for (size_t k = 0; k < DZ_NOTES_LINES && k < kind->n; k++) {
            char more[48] = "";
            if (kind->n > DZ_NOTES_LINES) snprintf(more, sizeof more, " and %zu more", kind->n - 1);
            char *line = kind->names[k] && (k == 0 || !*more) ? dz_format(&none, "%s%s: %s\n", kind->names[k], more, kind->text) : NULL;
            if (line) dz_buf_put(out, line, strlen(line), &none);
            free(line);
            free(kind->names[k]);
        }
    }
    free(g->kinds);
    *g = (dz_notes){0};
}

/* ---- lines of one kind ------------------------------------------------------------------------------------------------------------- */

typedef struct line {
    const char *text, *rest; /* rest: behind the task's name; the line itself where it is of no task */
    size_t len, number;
    uint64_t key;    /* equal for notes of one kind: of `rest`, numbers left out */
    uint64_t spoken; /* of `rest` as it is */
} line;

static line line_of(const char *text, size_t len, size_t number) {
    static const char TASK[] = "task '", NAME_END[] = "': ";
    const char *task = memmem(text, len, TASK, sizeof TASK - 1);
    const char *name = task && (task == text || task[-1] == ' ') ? task + sizeof TASK - 1 : NULL;
    const char *end = name ? memmem(name, len - (size_t)(name - text), NAME_END, sizeof NAME_END - 1) : NULL;
    line l = {.text = text, .rest = end ? end + sizeof NAME_END - 1 : text, .len = len, .number = number, .key = end != NULL};
    size_t rest = len - (size_t)(l.rest - text);
    l.spoken = dz_hash64(l.rest, rest, 0);
    for (size_t i = 0, from = 0; i <= rest; i++) { /* stretches without digits */
        int digit = i < rest && l.rest[i] >= '0' && l.rest[i] <= '9';
        if (i < rest && !digit) continue;
        if (i > from || from == 0) l.key = dz_hash64(l.rest + from, i - from, l.key);
        from = i + 1;
    }
    return l;
}

static int by_key(const void *x, const void *y) {
    const line *a = x, *b = y;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

static int by_number(const void *x, const void *y) {
    const line *a = x, *b = y;
    return a->number < b->number ? -1 : a->number > b->number;
}

/* The n lines of one kind. */
static void put_kind(const line *first, size_t n, line *out, size_t *nout, dz_buf *texts, dz_error *err) {
    int same = first->rest != first->text;
    for (size_t i = 1; i < n; i++) same &= first[i].spoken == first->spoken;
    if (n <= DZ_NOTES_LINES) {
        memcpy(out + *nout, first, n * sizeof *out);
        *nout += n;
        return;
    }
    size_t before = texts->len;
    if (same)
        dz_buf_line(texts, err, "%.*s and %zu more: %.*s", (int)(first->rest - first->text) - 2, first->text, n - 1,
                    (int)(first->len - (size_t)(first->rest - first->text)), first->rest);
    else
        dz_buf_line(texts, err, "%.*s (and %zu more like it)", (int)first->len, first->text, n - 1);
    out[(*nout)++] = (line){.len = texts->len - before, .number = first->number, .spoken = before};
}

dz_rc dz_notes_group(const dz_buf *lines, dz_buf *out, dz_error *err) {
    size_t n = 0, nout = 0;
    dz_buf texts = {0};
    for (size_t i = 0; i < lines->len; i++) n += lines->data[i] == '\n' || i + 1 == lines->len;
    line *list = dz_alloc(2 * n, sizeof *list, err), *kept = list ? list + n : NULL;
    if (!list) return err->rc;
    for (size_t at = 0, i = 0; at < lines->len; i++) {
        const char *text = (const char *)lines->data + at, *end = memchr(text, '\n', lines->len - at);
        size_t len = end ? (size_t)(end - text) : lines->len - at;
        list[i] = line_of(text, len, i);
        at += len + 1;
    }
    if (n) qsort(list, n, sizeof *list, by_key);
    for (size_t i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && list[next].key == list[i].key;) next++;
        put_kind(&list[i], next - i, kept, &nout, &texts, err);
    }
    if (nout) qsort(kept, nout, sizeof *kept, by_number);
    for (size_t i = 0; i < nout && err->rc == DZ_OK; i++) {
        const char *text = kept[i].text ? kept[i].text : (const char *)texts.data + kept[i].spoken;
        dz_buf_put(out, text, kept[i].len, err);
        dz_buf_put(out, "\n", 1, err);
    }
    dz_buf_free(&texts);
    free(list);
    return err->rc;
}

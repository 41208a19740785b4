#include "config/zoo_list.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/lookup.h"

#define LIST_MAX ((size_t)64 << 20)

void dz_zoo_list_free(dz_zoo_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        free(list->rows[i].manifest);
        free(list->rows[i].archive);
    }
    free(list->rows);
    *list = (dz_zoo_list){0};
}

/* Splits a line at its only tab, or at blanks. NULL: it is not of two words. */
static char *second_word(char *line) {
    static const char BLANKS[] = " \t";
    char *tab = strchr(line, '\t'), *second;
    size_t first = tab ? (size_t)(tab - line) : strcspn(line, BLANKS);
    if (!line[first]) return NULL;
    second = line + first + strspn(line + first, BLANKS);
    line[first] = '\0';
    if (!*second || strpbrk(second, tab ? "\t" : BLANKS)) return NULL;
    return second;
}

static void take_line(const char *path, size_t number, char *line, dz_zoo_list *list, dz_lookup *archives, dz_error *err) {
    size_t len = strlen(line);
    while (len > 0 && strchr(" \t\r", line[len - 1])) line[--len] = '\0';
    line += strspn(line, " \t");
    if (!*line || *line == '#') return;
    char *archive = second_word(line);
    if (!archive) {
        dz_fail_more(err, DZ_EUSAGE, "%s:%zu: a line of a list is a manifest and an archive, with a tab between them", path, number);
        return;
    }
    int64_t before = dz_lookup_find(archives, archive, strlen(archive));
    if (before >= 0) {
        dz_fail_more(err, DZ_EUSAGE, "%s:%zu: archive %s is named twice, first on line %lld", path, number, archive, (long long)before);
        return;
    }
    dz_lookup_add(archives, archive, strlen(archive), (uint32_t)number, err);
    if (dz_grow((void **)&list->rows, &list->cap, list->n + 1, sizeof *list->rows, err) != DZ_OK) return;
    list->rows[list->n++] = (dz_zoo_list_row){.manifest = dz_strdup(line, err), .archive = dz_strdup(archive, err)};
}

dz_rc dz_zoo_list_load(const char *path, dz_zoo_list *list, dz_error *err) {
    char *text = NULL;
    size_t len = 0, number = 1;
    dz_lookup archives = {0};
    if (dz_read_file(path, LIST_MAX, &text, &len, err) != DZ_OK) {
        err->rc = DZ_EUSAGE;
        return err->rc;
    }
    for (char *line = text, *next; line; line = next, number++) {
        next = strchr(line, '\n');
        if (next) *next++ = '\0';
        take_line(path, number, line, list, &archives, err);
    }
    free(text);
    dz_lookup_free(&archives);
    return err->rc == DZ_OK && list->n == 0 ? dz_fail(err, DZ_EUSAGE, "%s: no zoo (a line each: manifest, archive)", path) : err->rc;
}

dz_rc dz_zoo_list_put(dz_buf *text, const char *manifest, const char *archive, dz_error *err) {
    if (strpbrk(manifest, "\t\n") || strpbrk(archive, "\t\n"))
        return dz_fail(err, DZ_EFAIL, "%s: a list cannot hold a path with a tab or a newline", manifest);
    return dz_buf_line(text, err, "%s\t%s\n", manifest, archive);
}

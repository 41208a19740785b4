#include "base/notes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    if (!kind || kind->n++ >= DZ_NOTES_LINES) return err->rc;
    char name[1024];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    dz_one_line(len < 0 ? strcpy(name, "?") : name);
    kind->names[kind->n - 1] = dz_strdup(name, err);
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

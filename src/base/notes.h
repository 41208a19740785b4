/* Notes grouped by kind, so that thousands of files do not give thousands of lines. */
#ifndef DZ_BASE_NOTES_H
#define DZ_BASE_NOTES_H

#include "base/mem.h"

#define DZ_NOTES_LINES 3 /* of one kind; more become one line */

typedef struct dz_notes_kind {
    const char *text; /* the same for all names */
    char *names[DZ_NOTES_LINES];
    size_t n;
} dz_notes_kind;

typedef struct dz_notes { /* zero-initialise */
    dz_notes_kind *kinds;
    size_t nkinds, cap;
    dz_buf *every; /* NULL, or gets each note, "NAME<tab>TEXT", a line each */
} dz_notes;

/* Adds a note: `fmt` gives the file or model, `text` the statement about it (borrowed). Notes with equal text are one kind. */
dz_rc dz_notes_add(dz_notes *notes, dz_error *err, const char *text, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Appends lines "NAME: TEXT" or "NAME and 41 more: TEXT" to `out`, kinds in the order of their first note, and empties the notes. It never
 * fails: notes must not hide an error. */
void dz_notes_flush(dz_notes *notes, dz_buf *out);

/* Lines for people, of which more than DZ_NOTES_LINES that say the same become one: "task 'a' and 299 more: TEXT", or, where only numbers
 * differ, "LINE (and 299 more like it)". Newline-separated; in the order of each kind's first line. Appended to `out`. */
dz_rc dz_notes_group(const dz_buf *lines, dz_buf *out, dz_error *err);

#endif

/* Notes gathered by kind, so that a folder of thousands does not give thousands of lines. */
#ifndef DZ_BASE_NOTES_H
#define DZ_BASE_NOTES_H

#include "base/mem.h"

#define DZ_NOTES_LINES 3 /* of one kind; more become one line */

typedef struct dz_notes_kind {
    const char *text; /* what is said of all of them */
    char *names[DZ_NOTES_LINES];
    size_t n;
} dz_notes_kind;

typedef struct dz_notes { /* zero-initialise */
    dz_notes_kind *kinds;
    size_t nkinds, cap;
} dz_notes;

/* Of which file or model (`fmt`) something is said. Equal texts are one kind; `text` is borrowed. */
dz_rc dz_notes_add(dz_notes *notes, dz_error *err, const char *text, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Appends the lines, "NAME: TEXT" or "NAME and 41 more: TEXT", kinds in the order of their first note. Empties the notes. Best effort
 * and no result: notes must not cover an error. */
void dz_notes_flush(dz_notes *notes, dz_buf *out);

#endif

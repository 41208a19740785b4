/* Errors: one code and one text, written where the fault is found.
 *
 * A function that can fail returns dz_rc and takes `dz_error *err` last. The text names the file, the tensor and the value.
 * A list of problems (a manifest with three mistakes) is one error whose text has one line for each.
 */
#ifndef DZ_BASE_ERROR_H
#define DZ_BASE_ERROR_H

#include <stdarg.h>

typedef enum dz_rc {
    DZ_OK = 0,
    DZ_EFAIL = 1,      /* input or output cannot be used: exit 1 */
    DZ_EUSAGE = 2,     /* command line, recipe or manifest: exit 2 */
    DZ_EDAMAGE = 3,    /* an archive is damaged: exit 3 */
    DZ_EINTERRUPT = 4, /* stopped early, may be resumed: exit 75 */
    DZ_ENOMEM = 5,     /* out of memory: exit 1 */
    DZ_EVALUE = 6      /* a model's values cannot be compressed, and a retry would not help: exit 1 */
} dz_rc;

#define DZ_ERROR_TEXT 4096

typedef struct dz_error {
    dz_rc rc;
    int problems; /* lines in text, and those that did not fit */
    char text[DZ_ERROR_TEXT];
} dz_error;

/* Sets the error and returns `rc`. An error that is set already stays: the first fault is the cause. */
dz_rc dz_fail(dz_error *err, dz_rc rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Adds one line to the error's text: for faults that are reported all at once. Returns `rc`. */
dz_rc dz_fail_more(dz_error *err, dz_rc rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Adds all lines of another error, which may be empty. The result is a usage error if either is one. */
void dz_fail_join(dz_error *err, const dz_error *more);

/* Makes text with names from files safe for a terminal: '?' replaces control characters. In place; returns `text`. */
char *dz_one_line(char *text);

/* Process exit code of a result (0 done, 1 failed, 2 usage, 3 damage, 75 may be resumed). */
int dz_exit_code(dz_rc rc);

#endif

/* Tables on a terminal: 80 columns, names shortened to fit unless the user asks for wide ones. */
#ifndef DZ_CLI_TABLE_H
#define DZ_CLI_TABLE_H

#include <stddef.h>

#define DZ_TABLE_COLUMNS 80

/* Width of a name column for names of at most `longest` bytes beside columns that take `others`: all of it where it fits or with `wide`. */
int dz_table_width(size_t longest, size_t others, int wide);

/* `name` in at most `width` (4 to 255) bytes: the front of a longer one becomes "...", since names differ at the end. Returns `name` or
 * `text`. */
const char *dz_table_name(const char *name, int width, char text[256]);

/* Prints text that begins in column `at` and may be long: lines break between words, and go on in column `indent`. */
void dz_print_wrapped(const char *text, int at, int indent);

#endif

/* Prints the tables of commands and options as help, manual page or completion words. Rank 0 only. */
#ifndef DZ_CLI_HELP_H
#define DZ_CLI_HELP_H

#include "cli/cli.h"

/* 1 for a known form: NULL for the terminal; "man" for a manual page (roff); "words" for shell completion, an option per line, with "=" if
 * it takes a value. */
int dz_help_form_ok(const char *form);

void dz_print_help(const dz_command *command, const dz_option *options, const char *form);

/* The same for the whole program; `commands` ends in NULL. */
void dz_print_program_help(const dz_command *const *commands, const char *form);

/* A topic's text; 0: there is none of this name. */
int dz_print_topic(const char *name);
int dz_is_topic(const char *name);

#endif

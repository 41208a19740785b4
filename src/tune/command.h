/* The user's evaluation: a shell command that prints a score. One process calls it. */
#ifndef DZ_TUNE_COMMAND_H
#define DZ_TUNE_COMMAND_H

#include "base/mem.h"
#include "parallel/spread.h"

/* The command with {model}, {task} and {base} replaced; what a shell would take apart is quoted. The caller frees. */
char *dz_command_text(const char *command, const char *model, const char *task, const char *base, dz_error *err);

/* The last number in a text: digits with sign, point and exponent, or nan, inf, that are no part of a word. 1 if there is one. */
int dz_last_number(const char *text, size_t len, double *number);

/* Runs it by /bin/sh, without the variables by which a launcher (mpirun, srun) makes its processes know each other, and reads the last
 * number of its standard output (of the last 64 KB). Its standard error is passed on. Nothing from its standard input. DZ_EFAIL: it failed,
 * or printed no number; the text has exit code or signal and its last line. DZ_EINTERRUPT: this process was asked to stop; the command and
 * its children are ended. `processors` that it may run on; NULL: those of this process. */
dz_rc dz_command_score(const char *text, const dz_processors *processors, double *score, dz_error *err);

#endif

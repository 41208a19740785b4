/* Messages for people, on stderr, and clocks. Results go to stdout and are printed by the commands themselves. */
#ifndef DZ_BASE_LOG_H
#define DZ_BASE_LOG_H

/* Prints a line of a job's log: "2026-11-25 04:31:02  ...". Only rank 0 calls it. */
void dz_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints "deltazoo: KIND: ...": a note, a warning, damage, an error. Both break their lines to fit where they are read on a terminal; in a
 * log each is one line. */
void dz_message(const char *kind, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* 1 if standard error is a terminal, or a pipe to the launcher (mpirun) whose own standard error is a terminal. DZ_PROGRESS=bar or
 * DZ_PROGRESS=lines in the environment overrides it. */
int dz_log_on_terminal(void);

/* Columns of the terminal on standard error; COLUMNS in the environment, or 80, where that is not known. */
int dz_log_columns(void);

/* Seconds of a monotonic clock. */
double dz_now(void);

/* "0.35 s", "42 s", "12 min 05 s", "3 h 20 min". Returns `text`. */
char *dz_format_time(double secs, char text[32]);

/* Peak resident set of this process so far, bytes. */
double dz_peak_memory(void);

#endif

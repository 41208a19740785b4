/* Messages for people, on stderr. Results go to stdout and are printed by the commands themselves. */
#ifndef DZ_BASE_LOG_H
#define DZ_BASE_LOG_H

/* "deltazoo: warning: ..." Only rank 0 calls these; other ranks hand their text over (parallel/agree.h). */
void dz_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void dz_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Seconds of a monotonic clock. */
double dz_now(void);

/* Peak resident set of this process so far, bytes. */
double dz_peak_memory(void);

#endif

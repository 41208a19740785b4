/* Which candidate of a task is scored next: a bisection over the limit of the noise, on a ladder. Pure. METHODS.md "Search by evaluation".
 */
#ifndef DZ_TUNE_SEARCH_H
#define DZ_TUNE_SEARCH_H

#include <stddef.h>

#define DZ_TUNE_MOST_STEPS 12 /* evaluations of candidates of one task */

/* What a score may lose. */
typedef struct dz_drop_limit {
    double most;      /* absolute, or a share of the original's score */
    int relative;     /* DROP TYPE of NNCF: absolute or relative */
    int lower_better; /* a loss, an error, a perplexity */
} dz_drop_limit;

/* "0.01" or "0.5%": 1, else 0. */
int dz_drop_limit_parse(const char *text, dz_drop_limit *limit);

/* How much worse a score is than the original's, in its unit; negative: better. */
double dz_drop(const dz_drop_limit *limit, double original, double score);

/* Whether that is within the limit. A score that is not finite is not. */
int dz_drop_ok(const dz_drop_limit *limit, double original, double score);

/* Rung k of the ladder of 2^steps - 1 rungs: a limit of the noise over the delta's energy (noise_to_delta), to three digits. Rung 0 is
 * lossless: 0. A ladder of one step more has all rungs of this one. */
double dz_tune_rung(unsigned k, unsigned steps);

/* A candidate that has its score. */
typedef struct dz_tune_scored {
    double noise; /* its rung */
    int ok;       /* it loses no more than allowed */
} dz_tune_scored;

typedef struct dz_tune_step {
    int done;     /* the search is over: `noise` is the best, 0 for lossless */
    double noise; /* to be scored next */
    unsigned k;   /* its number on the ladder */
} dz_tune_step;

/* The next step of a search of at most `steps` evaluations, by what is known. */
dz_tune_step dz_tune_next(const dz_tune_scored *scored, size_t n, unsigned steps);

#endif

/* What is known of a task that is being tuned, in ARCHIVE.tune/TASK.json, so that a run that was stopped goes on. One process calls it. */
#ifndef DZ_TUNE_STATE_H
#define DZ_TUNE_STATE_H

#include "base/hash.h"
#include "tune/search.h"

typedef struct dz_tune_candidate {
    double noise;     /* its limit noise_to_delta; 0: lossless */
    double stored;    /* bytes of payload and index */
    double measured;  /* expected noise over the delta's energy, of the whole task */
    int exact;        /* every tensor turned out exact: its score is the original's */
    char content[33]; /* digest of what is restored from: equal ones have one score */
    double score;
} dz_tune_candidate;

/* What scores depend on; a state of others is refused. */
typedef struct dz_tune_key {
    char models[33], recipe[33]; /* digests: of headers, sizes and times of base and task; of recipe and program */
    const char *command;
} dz_tune_key;

typedef struct dz_tune_state {
    double original, base; /* their scores */
    int has_original, has_base;
    dz_tune_candidate candidates[2 * DZ_TUNE_MOST_STEPS];
    size_t ncandidates;
    int evaluations; /* runs of the command so far, all runs of this job together */
} dz_tune_state;

/* An empty state where there is no file. DZ_EUSAGE: it is not a state, or of other models, another recipe or command. */
dz_rc dz_tune_state_read(const char *path, const char *task, const dz_tune_key *key, dz_tune_state *state, dz_error *err);

/* The file has the old state or the new one, never a part. */
dz_rc dz_tune_state_write(const char *path, const char *task, const dz_tune_key *key, const dz_tune_state *state, dz_error *err);

/* Removes the file if it is a state. */
void dz_tune_state_remove(const char *path);

/* The candidate of this rung, or NULL. */
const dz_tune_candidate *dz_tune_find(const dz_tune_state *state, double noise);

/* What an archive keeps of it: an object in one line of ASCII. The caller frees. */
char *dz_tune_score_text(const dz_tune_state *state, const dz_tune_candidate *chosen, const dz_drop_limit *limit, const char *command,
                         dz_error *err);

#endif

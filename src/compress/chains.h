/* Tasks that are coded against other tasks (`parent` in a manifest). A child needs its parent as it is restored, so a job with chains works
 * by generations: the first is written to an archive of its own, beside the one that is asked for; the next takes that archive's tasks
 * along and is coded against them; the last one takes the archive's name. What an interrupted job has finished is taken up again. */
#ifndef DZ_COMPRESS_CHAINS_H
#define DZ_COMPRESS_CHAINS_H

#include "base/staging.h"
#include "compress/compress.h"
#include "config/zoo.h"
#include "decode/tile_decoder.h"
#include "plan/plan.h"

/* The generations of a job, over all of them. */
typedef struct dz_generations {
    size_t n, at;         /* how many; the one at work, from 0 */
    int32_t *of;          /* [tasks of the manifest] their generation; -1: left out */
    char **parent;        /* [tasks of the manifest] the task that it is coded against; NULL: the base */
    size_t ntasks;        /* of the manifest */
    char *dir;            /* where archives of finished generations are */
    char *from, *to;      /* the last one; the one at work. NULL: none; the archive that is asked for */
    dz_digest identity;   /* of all that the last one depends on */
    int replaced;         /* the manifest's tasks have been compared with the archive */
    dz_task_request *own; /* [nown] settings that tasks keep from the archive (--update); owned */
    size_t nown;
    int foreseen; /* of a plan: parents that the manifest lacks may be in an archive, which is not known */
} dz_generations;

/* Of one generation. */
typedef struct dz_chains {
    const dz_task_entry **parent; /* [tasks] in the archive of the generations before; NULL: the base. Or NULL: no task has one */
    dz_checkpoint **model;        /* [tasks] the parent's own model, or NULL */
    int64_t *row;                 /* [pairs] of the parent's index; -1: coded against the base */
    dz_checkpoint **others;       /* [tasks of the manifest] models of other generations, and of parents in the archive */
    size_t nothers;
    dz_decoder decoder;
    int open; /* the decoder is */
} dz_chains;

static inline int64_t dz_chains_row(const dz_chains *c, uint32_t pair) { return c->row ? c->row[pair] : -1; }

/* 1 if a task of the manifest has a parent. */
int dz_has_parents(const dz_zoo *zoo);

/* Collective, in the first generation, when the zoo has the tasks that are to be compressed: which task is coded against which, and in
 * which generation. `anchor_every`: 0 is DZ_ANCHOR_EVERY. `old`: the archive that is appended to, or NULL. Every fault gets its line: an
 * unknown parent, a circle, a method that cannot do it. */
dz_rc dz_generations_make(const dz_world *world, int anchor_every, const dz_zoo *zoo, const dz_catalog *old, dz_generations *generations,
                          dz_buf *notes, dz_error *err);
void dz_generations_free(dz_generations *generations);

/* Leaves the zoo the tasks of the generation at work; the others' models are kept. */
dz_rc dz_chains_take(dz_chains *chains, const dz_generations *generations, dz_zoo *zoo, dz_error *err);

/* With the plan: finds the parents' rows in `old`, the archive of the generations before. Tensors that fit to none of the parent's are
 * coded against the base. */
dz_rc dz_chains_open(dz_chains *chains, const dz_generations *generations, const dz_zoo *zoo, const dz_plan *plan, const dz_archive *old,
                     dz_error *err);

/* Collective, after it. Opens the models of parents that are in the archive, where the manifest names them and they can be read. What is
 * coded then is as good as in one job; without them, or if they have changed, it only takes more bytes. */
dz_rc dz_chains_models(dz_chains *chains, const dz_world *world, const dz_zoo *zoo, size_t ntasks, dz_error *err);
void dz_chains_close(dz_chains *chains);

/* The restored tile of the parent's tensor that the unit's is coded against; the decoder's, until the next call. */
dz_rc dz_chains_tile(dz_chains *chains, const dz_plan *plan, const dz_work_item *unit, const uint8_t **bytes, dz_error *err);

/* Where the archive of the generation at work goes. `first`: rank 0, which learns whether an earlier run has finished it (`*there`), and
 * removes files of other jobs. `identity`: of the generation's own inputs. */
dz_rc dz_generations_place(dz_generations *generations, const char *archive, dz_digest identity, int first, int *there, dz_error *err);

/* One process: removes the archives of generations. */
void dz_generations_remove(const char *archive);

#endif

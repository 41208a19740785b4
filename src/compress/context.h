/* A compress job as its stages see it: the ranks, what was asked for, the inputs and the plan, which stages read and never write; and what
 * a job keeps beside the stages' results: the journal with the coded blocks, the clock, the bytes read.
 *
 * The stages, in the order in which compress.c calls them. Each takes the results before it as const and returns its own:
 *
 *     statistics -> dz_stats        ranges, energies and moments of the deltas; digests of the base; exact tensors coded on the way
 *     choose     -> dz_lossy_plan   what the data makes of each lossy tensor: grid, or exact after all
 *     histogram  -> dz_counts       members of each level (methods that quantise to levels)
 *     allocate   -> dz_allocation   density, step, scale and expected noise of each lossy tensor
 *     encode     -> dz_block_table  lengths of the coded blocks
 *     trace norm -> dz_gammas       trace norms and gamma of each task (methods that rescale by them)
 *     publish                       catalog, layout, payloads, rename
 *
 * Arrays over lossy pairs are numbered as dz_plan.lossy and are equal on all ranks. */
#ifndef DZ_COMPRESS_CONTEXT_H
#define DZ_COMPRESS_CONTEXT_H

#include "archive/copy_tasks.h"
#include "base/staging.h"
#include "compress/chains.h"
#include "compress/compress.h"
#include "compress/journal.h"
#include "compress/method.h"
#include "config/zoo.h"
#include "parallel/progress.h"
#include "plan/plan.h"

/* An exact tile that this rank has coded. Tasks that share a tensor have its tiles one after another, and it is coded once. */
typedef struct dz_coded_tile {
    dz_digest digest; /* of its elements */
    int64_t base;     /* of the unit; -1: none */
    uint32_t tile;
    int alone; /* nothing was before it */
    uint64_t count, columns;
    dz_dtype dtype;
    dz_buf body;
} dz_coded_tile;

#define DZ_CODED_TILES 2 /* that are kept */

typedef struct dz_context {
    const dz_world *world;
    const dz_compress_options *opt;
    const dz_method *method;
    dz_zoo zoo;
    dz_copy_tasks copied; /* with --append: tasks that the archive has already */
    const dz_plan *plan;
    dz_chains chains;   /* tasks that are coded against others */
    uint64_t *task_key; /* [tasks] */
    dz_staging staging; /* of the archive; rank 0 makes and publishes it */
    dz_journal journal; /* blocks on their way to the archive, and what a later run of this job need not do again */
    dz_coded_tile coded[DZ_CODED_TILES];
    size_t ncoded;         /* so far: the next one takes the place of number ncoded % DZ_CODED_TILES */
    uint64_t cache_budget; /* bytes for candidates kept between stages */
    double secs[DZ_PHASES];
    double bytes_read;
} dz_context;

#define DZ_PHASE_READ_BACK DZ_PHASES /* the second half of DZ_PHASE_WRITE, shown by itself */

/* Collective. Shows a phase: its number, its name, and how far it is in `total` bytes. */
void dz_context_begin_phase(const dz_context *ctx, dz_progress *progress, int phase, double total);

/* Bytes of the two sides that all ranks' items will read: the total of a pass; only lossy items with `lossy_only`. */
double dz_context_pass_bytes(const dz_context *ctx, int lossy_only);

/* Bytes of a work item's tile in the task's file: its part of that total. */
double dz_context_item_bytes(const dz_context *ctx, const dz_work_item *item);

/* How many of this rank's items from number i on are lossy and lie over the same base tile, at most `most`. 0: number i is not lossy. */
size_t dz_context_run(const dz_context *ctx, size_t i, size_t most);

/* Number i of this rank's items, in the order of its work, and how many there are; the number of an item among them. */
static inline size_t dz_context_item(const dz_context *ctx, size_t i) {
    return ctx->plan->work[ctx->plan->first_work[ctx->world->rank] + i];
}
static inline size_t dz_context_nitems(const dz_context *ctx) {
    return ctx->plan->first_work[ctx->world->rank + 1] - ctx->plan->first_work[ctx->world->rank];
}
static inline size_t dz_context_number(const dz_context *ctx, size_t item) {
    return ctx->plan->place[item] - ctx->plan->first_work[ctx->world->rank];
}

/* The pair of a lossy tensor by its number, and the task's tensor behind it. */
static inline const dz_tensor_pair *dz_context_lossy_pair(const dz_context *ctx, size_t lossy) {
    return &ctx->plan->pairs[ctx->plan->lossy[lossy]];
}

/* Key of the tile of a work item (codec/sparse_levels.h). */
uint64_t dz_context_tile_key(const dz_context *ctx, const dz_work_item *item);

#define DZ_EXACT_KEY 0 /* journal key of the block of an exact tile: it depends on the inputs alone */

/* Codes a tile exactly against its base and puts the block into the journal. */
struct dz_tile;
dz_rc dz_context_code_exact(dz_context *ctx, size_t item, const struct dz_tile *tile, dz_buf *body, dz_buf *scratch, dz_error *err);
void dz_context_forget_coded(dz_context *ctx);

#endif

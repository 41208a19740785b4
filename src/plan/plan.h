/* From headers to work: which base tensor and which rule each task tensor gets, cut into work items, work items assigned to ranks
 * (METHODS.md "Distribution over ranks"). Pure: the same plan on every rank, from headers alone. */
#ifndef DZ_PLAN_PLAN_H
#define DZ_PLAN_PLAN_H

#include "checkpoint/quantised.h"
#include "config/recipe.h"
#include "plan/match.h"
#include "plan/structure.h"
#include "plan/tiling.h"

#define DZ_NO_PAIR UINT32_MAX

/* One tensor of one task. */
typedef struct dz_tensor_pair {
    uint32_t task, tensor; /* numbers of the task and of the tensor in its checkpoint */
    int64_t base;          /* number of the base tensor it is coded against, or -1 */
    dz_match match;        /* how that was found */
    uint32_t tied;         /* policy tied: the tensor of its checkpoint that has its bytes */
    dz_policy policy;      /* never structure: that is decided */
    int by_structure;      /* its rule was structure */
    int vocabulary;        /* lossy: a row for each token (structure.h) */
    int bits;              /* lossy: levels of 2^bits */
    double sparsity;       /* NaN: by allocation */
    double factor;
    uint64_t count;      /* elements of the task's tensor */
    dz_pair_tiles tiles; /* against the base */
    uint32_t first_tile; /* of this pair in dz_plan.unit_of */
    int64_t lossy;       /* its number among the lossy pairs, or -1 */
} dz_tensor_pair;

/* One tile of one pair, or (pair == DZ_NO_PAIR) a base tile that only needs its digest. */
typedef struct dz_work_item {
    uint32_t pair, tile;
    int64_t base; /* base tensor whose tile `tile` is needed, or -1 */
} dz_work_item;

typedef struct dz_plan {
    const dz_checkpoint *base;
    const dz_checkpoint *stored; /* the task that is the base itself, coded without a base; NULL: none */
    dz_tensor_role *roles;       /* [base tensors] what each is in the model */
    dz_quantised quantised;      /* the base's layers of codes and scales: of no tensor here a delta is made */
    dz_checkpoint *const *tasks; /* [ntasks], borrowed */
    size_t ntasks;
    dz_tensor_pair *pairs; /* task after task, each in the order of its checkpoint */
    size_t npairs;
    size_t *first_pair; /* [ntasks + 1] */
    uint32_t *lossy;    /* pair numbers of the lossy ones */
    size_t nlossy;
    dz_work_item *units; /* base tensor by base tensor, tile by tile, task by task; then tiles without a base */
    size_t nunits;
    uint32_t *unit_of; /* unit number of (pair, tile) */
    /* Assignment: rank r does work[first_work[r]] .. work[first_work[r + 1] - 1], first its exact units, then its lossy ones, which are a
     * contiguous run of all lossy units. */
    uint32_t *work;
    uint32_t *place; /* [nunits] position of a unit in `work` */
    size_t *first_work;
    uint64_t *rank_cost; /* [nranks] planned cost, arbitrary unit */
    int nranks;
    uint32_t *base_tile;                /* [base tensors + 1] first tile of each in the table of base tiles */
    uint64_t source_bytes, lossy_bytes; /* of the tasks' tensors */
    dz_buf notes;                       /* lines to tell the user, newline-separated */
} dz_plan;

/* A task that is coded by itself, without a base: the stored base, or any where there is no base. */
static inline int dz_plan_is_alone(const dz_plan *plan, size_t task) {
    return plan->tasks[task] == plan->stored || plan->base->ntensors == 0;
}

/* All faults (shapes that do not fit, a task that cannot be matched) in one error, a line each. `names` are the tasks' names. `unmatched`:
 * NULL, or [ntasks] zeros: tasks that cannot be matched are marked there instead, and the plan is to be made again without them. */
dz_rc dz_plan_make(const dz_checkpoint *base, const dz_checkpoint *stored, dz_checkpoint *const *tasks, const char *const *names,
                   size_t ntasks, const dz_recipe *recipe, int nranks, uint8_t *unmatched, dz_plan **out, dz_error *err);
void dz_plan_free(dz_plan *plan);

/* True for the first unit of a base tile: its rank computes the tile's digest. */
int dz_item_is_first(const dz_plan *plan, size_t unit);

/* 1 for a tile that is coded lossily: of a lossy tensor, and within the base's rows. */
int dz_item_is_lossy(const dz_plan *plan, const dz_work_item *unit);

/* The tensor behind a pair. */
const dz_tensor *dz_pair_tensor(const dz_plan *plan, const dz_tensor_pair *pair);

/* What a tensor is in its model: that which the base's tensor is. Of a tensor without one: DZ_KIND_OTHER, NaN, a row for each element. */
dz_kind dz_plan_kind(const dz_plan *plan, const dz_tensor_pair *pair);

/* Whether MLPs of the base have gates, as those of language models do: by a matrix of its own, or one that is fused with up. */
int dz_plan_is_gated(const dz_plan *plan);

/* Number of its block over that of all blocks of its place, in [0, 1); NaN outside of blocks. */
double dz_plan_depth(const dz_plan *plan, const dz_tensor_pair *pair);

/* The elements that the pair shares with its base, as matrices. Rows that only the task has are none of it. */
dz_matrix_view dz_plan_view(const dz_plan *plan, const dz_tensor_pair *pair);

/* The rank that computes a lossy pair's trace norm: the one that coded most of its tiles. */
int dz_pair_owner(const dz_plan *plan, const dz_tensor_pair *pair);

/* The rank of a unit. */
int dz_item_rank(const dz_plan *plan, size_t unit);

#endif

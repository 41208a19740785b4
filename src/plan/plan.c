#include "plan/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "plan/pairs.h"

/* Planned cost of an element, or of a byte, in tenths of a nanosecond of one rank (results/bench.md, LLaMA shapes, all phases): only the
 * proportions matter. */
#define COST_LOSSY 27
#define COST_LOSSLESS_BYTE 16
#define COST_BASE_BYTE 4

void dz_plan_free(dz_plan *p) {
    if (!p) return;
    free(p->roles);
    dz_quantised_free(&p->quantised);
    free(p->pairs);
    free(p->first_pair);
    free(p->lossy);
    free(p->units);
    free(p->unit_of);
    free(p->work);
    free(p->place);
    free(p->first_work);
    free(p->rank_cost);
    free(p->base_tile);
    dz_buf_free(&p->notes);
    free(p);
}

const dz_tensor *dz_pair_tensor(const dz_plan *plan, const dz_tensor_pair *pair) { return &plan->tasks[pair->task]->tensors[pair->tensor]; }

/* Units in the order of the work: every base tile with all tasks that need it, then the rest. */
static dz_rc make_units(dz_plan *p, dz_error *err) {
    size_t nbase = p->base->ntensors, cap = 0;
    uint64_t tiles = 0, total = 0;
    uint32_t *head = dz_alloc_raw(nbase, sizeof *head, err), *next = dz_alloc_raw(p->npairs, sizeof *next, err);
    p->base_tile = dz_alloc(nbase + 1, sizeof *p->base_tile, err);
    for (size_t i = 0; i < p->npairs; i++) total += p->pairs[i].tiles.ntiles;
    p->unit_of = dz_alloc(total, sizeof *p->unit_of, err);
    if (err->rc != DZ_OK) goto out;
    memset(head, 0xff, nbase * sizeof *head);
    for (size_t i = p->npairs; i-- > 0;) { /* backwards, so that each list is in task order */
        if (p->pairs[i].base < 0) continue;
        next[i] = head[p->pairs[i].base];
        head[p->pairs[i].base] = (uint32_t)i;
    }
    for (size_t b = 0; b < nbase; b++) {
        dz_tiling grid = dz_tiling_of(p->base->tensors[b].count);
        p->base_tile[b] = (uint32_t)tiles;
        tiles += grid.ntiles;
        for (uint32_t tile = 0; tile < grid.ntiles; tile++) {
            size_t before = p->nunits;
            for (uint32_t i = head[b]; i != DZ_NO_PAIR; i = next[i]) {
                dz_tensor_pair *pair = &p->pairs[i];
                if (tile >= pair->tiles.ncommon) continue;
                if (dz_grow((void **)&p->units, &cap, p->nunits + 1, sizeof *p->units, err) != DZ_OK) goto out;
                p->unit_of[pair->first_tile + tile] = (uint32_t)p->nunits;
                p->units[p->nunits++] = (dz_work_item){.pair = i, .tile = tile, .base = (int64_t)b};
            }
            if (p->nunits > before) continue;
            if (dz_grow((void **)&p->units, &cap, p->nunits + 1, sizeof *p->units, err) != DZ_OK) goto out;
            p->units[p->nunits++] = (dz_work_item){.pair = DZ_NO_PAIR, .tile = tile, .base = (int64_t)b};
        }
    }
    p->base_tile[nbase] = (uint32_t)tiles;
    for (size_t i = 0; i < p->npairs; i++) {
        dz_tensor_pair *pair = &p->pairs[i];
        for (uint32_t tile = pair->tiles.ncommon; tile < pair->tiles.ntiles; tile++) {
            if (dz_grow((void **)&p->units, &cap, p->nunits + 1, sizeof *p->units, err) != DZ_OK) goto out;
            p->unit_of[pair->first_tile + tile] = (uint32_t)p->nunits;
            p->units[p->nunits++] = (dz_work_item){.pair = (uint32_t)i, .tile = tile, .base = -1};
        }
    }
out:
    free(head);
    free(next);
    return err->rc;
}

int dz_item_is_first(const dz_plan *p, size_t unit) {
    const dz_work_item *u = &p->units[unit];
    return u->base >= 0 && (unit == 0 || u[-1].base != u->base || u[-1].tile != u->tile);
}

static uint64_t base_cost(const dz_plan *p, size_t unit) {
    const dz_work_item *u = &p->units[unit];
    if (u->base < 0) return 0;
    const dz_tensor *b = &p->base->tensors[u->base];
    dz_pair_tiles grid = dz_pair_tiles_of(b->count, b->count, b->count);
    return COST_BASE_BYTE * dz_tile_count(&grid, u->tile) * dz_dtype_size(b->dtype);
}

int dz_item_is_lossy(const dz_plan *p, const dz_work_item *u) {
    return u->pair != DZ_NO_PAIR && p->pairs[u->pair].policy == DZ_POLICY_ULTRADELTA && u->tile < p->pairs[u->pair].tiles.ncommon;
}

/* `begins`: the unit is the first of a run, whose rank must read the base tile whoever else does. */
static uint64_t unit_cost(const dz_plan *p, size_t unit, int begins) {
    const dz_work_item *u = &p->units[unit];
    uint64_t cost = begins || dz_item_is_first(p, unit) ? base_cost(p, unit) : 0;
    if (u->pair == DZ_NO_PAIR) return cost;
    const dz_tensor_pair *pair = &p->pairs[u->pair];
    uint64_t count = dz_tile_count(&pair->tiles, u->tile);
    return cost +
           (dz_item_is_lossy(p, u) ? COST_LOSSY * count : COST_LOSSLESS_BYTE * count * dz_dtype_size(dz_pair_tensor(p, pair)->dtype));
}

/* Cuts list[0 .. n) into runs of at most `limit` each, first[r] where that of rank r begins: false when there are more of them than ranks.
 */
static int cut_by(const dz_plan *p, const uint32_t *list, size_t n, uint64_t limit, size_t *first, uint64_t *cost_of_rank) {
    int rank = 0;
    memset(cost_of_rank, 0, (size_t)p->nranks * sizeof *cost_of_rank);
    first[0] = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t cost = unit_cost(p, list[i], i == first[rank]);
        if (cost_of_rank[rank] + cost > limit && i > first[rank]) {
            if (++rank == p->nranks) return 0;
            first[rank] = i;
            cost = unit_cost(p, list[i], 1);
        }
        if (cost > limit) return 0;
        cost_of_rank[rank] += cost;
    }
    while (rank < p->nranks) first[++rank] = n;
    return 1;
}

/* The min-max partition: METHODS.md "Distribution over ranks". */
static void cut(const dz_plan *p, const uint32_t *list, size_t n, size_t *first, uint64_t *cost_of_rank) {
    uint64_t low = 0, high = 0; /* too little; enough */
    for (size_t i = 0; i < n; i++) high += unit_cost(p, list[i], i == 0);
    while (low + high / 1024 + 1 < high) {
        uint64_t middle = low + (high - low) / 2;
        if (cut_by(p, list, n, middle, first, cost_of_rank))
            high = middle;
        else
            low = middle;
    }
    cut_by(p, list, n, high, first, cost_of_rank);
}

typedef struct shuffled {
    uint64_t key;
    uint32_t unit;
} shuffled;

static int by_key(const void *x, const void *y) {
    const shuffled *a = x, *b = y;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    return a->unit < b->unit ? -1 : a->unit > b->unit;
}

/* Base tiles in random order, since the cost of an exact tile depends on its content: most rows of an embedding have not moved, those of a
 * head have. */
static dz_rc shuffle(const dz_plan *p, uint32_t *list, size_t n, dz_error *err) {
    shuffled *order = dz_alloc_raw(n, sizeof *order, err);
    for (size_t i = 0; order && i < n; i++) {
        const dz_work_item *u = &p->units[list[i]];
        uint64_t of[3] = {(uint64_t)u->base, u->tile, u->base < 0 ? u->pair : 0};
        order[i] = (shuffled){.key = dz_hash64(of, sizeof of, 0), .unit = list[i]};
    }
    if (order && n) qsort(order, n, sizeof *order, by_key);
    for (size_t i = 0; order && i < n; i++) list[i] = order[i].unit;
    free(order);
    return err->rc;
}

/* Exact and lossy units are dealt each by itself, since ranks wait for each other between phases, and a phase has work for one kind or for
 * both. Runs of whole base tiles, so that one is read by one rank, or two where a run ends inside it; the lossy ones in the order of all,
 * as the counts of members on lower ranks need it. */
static dz_rc deal(dz_plan *p, dz_error *err) {
    size_t nranks = (size_t)p->nranks, n[2] = {0, 0}, at = 0;
    uint32_t *list[2] = {dz_alloc_raw(p->nunits, sizeof **list, err), dz_alloc_raw(p->nunits, sizeof **list, err)};
    size_t *first[2] = {dz_alloc(nranks + 1, sizeof **first, err), dz_alloc(nranks + 1, sizeof **first, err)};
    uint64_t *cost = dz_alloc(nranks, sizeof *cost, err);
    p->work = dz_alloc_raw(p->nunits, sizeof *p->work, err);
    p->place = dz_alloc_raw(p->nunits, sizeof *p->place, err);
    p->first_work = dz_alloc(nranks + 1, sizeof *p->first_work, err);
    p->rank_cost = dz_alloc(nranks, sizeof *p->rank_cost, err);
    if (err->rc != DZ_OK) goto out;
    for (size_t u = 0; u < p->nunits; u++) {
        int kind = dz_item_is_lossy(p, &p->units[u]);
        list[kind][n[kind]++] = (uint32_t)u;
    }
    if (shuffle(p, list[0], n[0], err) != DZ_OK) goto out;
    for (int kind = 0; kind < 2; kind++) {
        cut(p, list[kind], n[kind], first[kind], cost);
        for (size_t r = 0; r < nranks; r++) p->rank_cost[r] += cost[r];
    }
    for (size_t r = 0; r < nranks; r++) {
        for (int kind = 0; kind < 2; kind++) {
            for (size_t i = first[kind][r]; i < first[kind][r + 1]; i++) {
                p->place[list[kind][i]] = (uint32_t)at;
                p->work[at++] = list[kind][i];
            }
        }
        p->first_work[r + 1] = at;
    }
out:
    for (int kind = 0; kind < 2; kind++) {
        free(list[kind]);
        free(first[kind]);
    }
    free(cost);
    return err->rc;
}

int dz_item_rank(const dz_plan *p, size_t unit) {
    int low = 0, high = p->nranks - 1; /* the last rank whose work does not begin after the unit */
    while (low < high) {
        int mid = low + (high - low + 1) / 2;
        if (p->first_work[mid] <= p->place[unit])
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

int dz_pair_owner(const dz_plan *p, const dz_tensor_pair *pair) {
    int best = 0, run_rank = -1;
    uint32_t run = 0, most = 0;
    for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) { /* ranks ascend with tiles */
        int rank = dz_item_rank(p, p->unit_of[pair->first_tile + tile]);
        run = rank == run_rank ? run + 1 : 1;
        run_rank = rank;
        if (run > most) {
            most = run;
            best = rank;
        }
    }
    return best;
}

dz_rc dz_plan_make(const dz_checkpoint *base, const dz_checkpoint *stored, dz_checkpoint *const *tasks, const char *const *names,
                   size_t ntasks, const dz_recipe *recipe, int nranks, uint8_t *unmatched, dz_plan **out, dz_error *err) {
    dz_plan *p = dz_alloc(1, sizeof *p, err);
    if (!p) return err->rc;
    p->base = base;
    p->stored = stored;
    p->tasks = tasks;
    p->ntasks = ntasks;
    p->nranks = nranks;
    if (dz_recipe_notes(recipe, tasks, ntasks, &p->notes, err) != DZ_OK) goto out;
    if (dz_roles_make(base->tensors, base->ntensors, &p->roles, err) != DZ_OK || dz_quantised_find(base, &p->quantised, err) != DZ_OK)
        goto out;
    for (size_t b = 0; b < base->ntensors && p->quantised.part; b++) {
        if (p->roles[b].place == DZ_PLACE_BODY && p->quantised.part[b]) p->roles[b].place = DZ_PLACE_TABLE;
    }
    if (dz_plan_pairs(p, names, recipe, unmatched, err) != DZ_OK || make_units(p, err) != DZ_OK || deal(p, err) != DZ_OK) goto out;
    *out = p;
    p = NULL;
out:
    dz_plan_free(p);
    return err->rc;
}

dz_kind dz_plan_kind(const dz_plan *p, const dz_tensor_pair *pair) { return pair->base < 0 ? DZ_KIND_OTHER : p->roles[pair->base].kind; }

int dz_plan_is_gated(const dz_plan *p) {
    for (size_t i = 0; i < p->base->ntensors; i++) {
        if (p->roles[i].kind == DZ_KIND_GATE) return 1;
        if (p->roles[i].kind == DZ_KIND_MLP_OTHER && strstr(p->base->tensors[i].name, "gate")) return 1;
    }
    return 0;
}

double dz_plan_depth(const dz_plan *p, const dz_tensor_pair *pair) { return pair->base < 0 ? (double)NAN : p->roles[pair->base].depth; }

dz_matrix_view dz_plan_view(const dz_plan *p, const dz_tensor_pair *pair) {
    if (pair->base < 0) return (dz_matrix_view){.count = 1, .rows = pair->count, .cols = 1};
    return dz_view_of_rows(&p->roles[pair->base].view, pair->tiles.common);
}

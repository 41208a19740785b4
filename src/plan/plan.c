#include "plan/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "model/scales.h"

/* Planned cost of an element, or of a byte, in tenths of a nanosecond of one rank (results/bench.md, LLaMA shapes, all phases): only the
 * proportions matter. */
#define COST_LOSSY 27
#define COST_LOSSLESS_BYTE 16
#define COST_BASE_BYTE 4

void dz_plan_free(dz_plan *p) {
    if (!p) return;
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

const dz_tensor *dz_pair_tensor(const dz_plan *plan, const dz_pair *pair) { return &plan->tasks[pair->task]->tensors[pair->tensor]; }

static void note(dz_plan *p, dz_error *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void note(dz_plan *p, dz_error *err, const char *fmt, ...) {
    char line[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line - 1, fmt, args);
    va_end(args);
    if (n < 0) return;
    size_t len = (size_t)n < sizeof line - 2 ? (size_t)n : sizeof line - 2;
    line[len] = '\n';
    dz_buf_put(&p->notes, line, len + 1, err);
}

static void match(dz_plan *p, const dz_matcher *matcher, dz_pair *pair, const char *task_name, const dz_recipe *recipe, dz_error *err) {
    const dz_tensor *t = dz_pair_tensor(p, pair);
    const dz_rule *rule = dz_recipe_rule(recipe, t->name);
    char mine[DZ_SHAPE_TEXT], theirs[DZ_SHAPE_TEXT];
    pair->policy = rule ? rule->policy : DZ_POLICY_LOSSLESS;
    pair->bits = rule && rule->bits ? rule->bits : recipe->bits;
    pair->sparsity = rule ? rule->sparsity : (double)NAN;
    pair->factor = rule ? rule->factor : 1;
    pair->count = t->count;
    pair->lossy = -1;
    pair->base = dz_matcher_find(matcher, t, &pair->match);
    uint64_t common = 0, base_count = 0;
    int wants_base = pair->policy != DZ_POLICY_LOSSLESS;
    if (pair->base >= 0) {
        const dz_tensor *b = &p->base->tensors[pair->base];
        common = dz_common_elements(t, b);
        base_count = b->count;
        int comparable_types = dz_comparable(t, b);
        int misfit = wants_base && t->count != 0 && (common == 0 || (pair->policy == DZ_POLICY_DROP && common < t->count));
        if (misfit) {
            dz_fail_more(
                err, DZ_EFAIL, "%s: task '%s': tensor '%s' is %s %s, but %s %s in the base: its rule (%s) needs a base of the same %s",
                p->tasks[pair->task]->path, task_name, t->name, t->dtype_name, dz_shape_text(t, mine), b->dtype_name,
                dz_shape_text(b, theirs), dz_policy_name(pair->policy), comparable_types ? "shape" : "type, or both of float types");
        } else if (common < t->count) {
            note(p, err, "task '%s': tensor '%s' is %s %s, %s %s in the base: %s", task_name, t->name, t->dtype_name,
                 dz_shape_text(t, mine), b->dtype_name, dz_shape_text(b, theirs),
                 common ? "the rows beyond the base's are kept exactly" : "kept exactly, without the base");
        }
    } else if (wants_base) {
        note(p, err, "task '%s': tensor '%s' is not in the base: kept exactly", task_name, t->name);
        pair->policy = DZ_POLICY_LOSSLESS;
    }
    if (pair->policy == DZ_POLICY_ULTRADELTA && common && !dz_dtype_is_float(t->dtype)) {
        note(p, err, "task '%s': tensor '%s' is %s: kept exactly", task_name, t->name, t->dtype_name);
        pair->policy = DZ_POLICY_LOSSLESS;
    }
    if (t->count == 0 || (pair->policy == DZ_POLICY_ULTRADELTA && dz_scale_partner(p->tasks[pair->task], t)))
        pair->policy = DZ_POLICY_LOSSLESS;
    if (common == 0) {
        pair->base = -1;
        pair->match = DZ_MATCH_NONE;
    }
    pair->tiles = pair->policy == DZ_POLICY_DROP ? (dz_pair_tiles){0} : dz_pair_tiles_of(base_count, common, t->count);
}

/* The user sees which rule found a base tensor of another name. */
static void note_matches(dz_plan *p, size_t task, const char *task_name, dz_error *err) {
    const dz_pair *first = NULL;
    size_t n = 0;
    for (const dz_pair *pair = &p->pairs[p->first_pair[task]]; pair < &p->pairs[p->first_pair[task] + p->tasks[task]->ntensors]; pair++) {
        if (pair->match == DZ_MATCH_HEAD)
            note(p, err, "task '%s': tensor '%s' is not in the base, whose head is tied: matched with '%s'", task_name,
                 dz_pair_tensor(p, pair)->name, p->base->tensors[pair->base].name);
        if (pair->match != DZ_MATCH_PREFIX) continue;
        if (n++ == 0) first = pair;
    }
    if (n)
        note(p, err, "task '%s': %zu tensor%s matched with the base's of another prefix ('%s' with '%s'); not compared: %s", task_name, n,
             n > 1 ? "s are" : " is", dz_pair_tensor(p, first)->name, p->base->tensors[first->base].name, DZ_MATCH_PREFIXES);
}

static void note_scales(dz_plan *p, size_t task, const char *task_name, dz_error *err) {
    const dz_checkpoint *ck = p->tasks[task];
    const dz_tensor *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < ck->ntensors; i++) {
        if (dz_dtype_size(ck->tensors[i].dtype) != 1 || !dz_scale_partner(ck, &ck->tensors[i])) continue;
        if (n++ == 0) first = &ck->tensors[i];
    }
    if (n)
        note(p, err, "task '%s': %zu block-scaled F8 tensor%s ('%s' with '%s') and their scales are kept exactly", task_name, n,
             n > 1 ? "s" : "", first->name, dz_scale_partner(ck, first)->name);
}

/* Which of two equal tensors is stored: an exact one, so that no tensor becomes less exact than its rule; then one with a base,
 * best of the same name. */
static int tie_rank(const dz_pair *pair) {
    return 4 * (pair->policy == DZ_POLICY_LOSSLESS) + 2 * (pair->base >= 0) + (pair->match == DZ_MATCH_NAME);
}

static int can_tie(const dz_pair *pair, const dz_pair *stored) {
    if (pair->policy == DZ_POLICY_DROP || stored->policy == DZ_POLICY_DROP) return 0;
    if (stored->policy == DZ_POLICY_LOSSLESS) return 1;
    int same_sparsity = isnan(pair->sparsity) ? isnan(stored->sparsity) : !(pair->sparsity != stored->sparsity);
    return pair->policy == stored->policy && pair->bits == stored->bits && same_sparsity && !(pair->factor != stored->factor);
}

/* Tensors of a task whose bytes are another one's are stored once. */
static dz_rc tie(dz_plan *p, size_t task, const char *task_name, dz_error *err) {
    const dz_checkpoint *ck = p->tasks[task];
    dz_pair *pairs = &p->pairs[p->first_pair[task]];
    uint32_t *stored = dz_alloc_raw(ck->ntensors, sizeof *stored, err);
    if (!stored) return err->rc;
    for (uint32_t i = 0; i < ck->ntensors; i++) stored[i] = i;
    for (uint32_t i = 0; i < ck->ntensors; i++) { /* the first of a kind has the smallest number */
        uint32_t *best = &stored[ck->same[i]];
        if (tie_rank(&pairs[i]) > tie_rank(&pairs[*best])) *best = i;
    }
    for (uint32_t i = 0; i < ck->ntensors; i++) {
        uint32_t with = stored[ck->same[i]];
        if (i == with || !can_tie(&pairs[i], &pairs[with])) continue;
        pairs[i].policy = DZ_POLICY_TIED;
        pairs[i].tied = with;
        pairs[i].tiles = (dz_pair_tiles){0};
        note(p, err, "task '%s': tensor '%s' has the bytes of '%s': stored once", task_name, ck->tensors[i].name, ck->tensors[with].name);
    }
    free(stored);
    return err->rc;
}

/* A task's pairs, from names, types and shapes. */
static dz_rc pair_task(dz_plan *p, const dz_matcher *matcher, size_t task, const char *task_name, const dz_recipe *recipe, dz_error *err) {
    for (size_t i = 0; i < p->tasks[task]->ntensors; i++) {
        dz_pair *pair = &p->pairs[p->first_pair[task] + i];
        pair->task = (uint32_t)task;
        pair->tensor = (uint32_t)i;
        match(p, matcher, pair, task_name, recipe, err);
        if (err->rc == DZ_ENOMEM) return err->rc;
    }
    note_matches(p, task, task_name, err);
    note_scales(p, task, task_name, err);
    return tie(p, task, task_name, err);
}

static dz_rc make_pairs(dz_plan *p, const char *const *names, const dz_recipe *recipe, dz_error *err) {
    for (size_t k = 0; k < p->ntasks; k++) p->npairs += p->tasks[k]->ntensors;
    p->pairs = dz_alloc(p->npairs, sizeof *p->pairs, err);
    p->lossy = dz_alloc(p->npairs, sizeof *p->lossy, err);
    p->first_pair = dz_alloc(p->ntasks + 1, sizeof *p->first_pair, err);
    dz_matcher matcher = {0};
    if (err->rc != DZ_OK || dz_matcher_init(&matcher, p->base, err) != DZ_OK) return err->rc;
    dz_check_scales(p->base, err);
    size_t n = 0;
    uint64_t tiles = 0;
    for (size_t k = 0; k < p->ntasks && err->rc != DZ_ENOMEM; k++) {
        size_t lossy_before = p->nlossy;
        int problems_before = err->problems;
        p->first_pair[k] = n;
        dz_check_scales(p->tasks[k], err);
        pair_task(p, &matcher, k, names[k], recipe, err);
        for (size_t i = 0; i < p->tasks[k]->ntensors; i++, n++) {
            dz_pair *pair = &p->pairs[n];
            pair->first_tile = (uint32_t)tiles;
            tiles += pair->tiles.ntiles;
            if (pair->policy == DZ_POLICY_ULTRADELTA) {
                pair->lossy = (int64_t)p->nlossy;
                p->lossy[p->nlossy++] = (uint32_t)n;
                p->lossy_bytes += p->tasks[k]->tensors[i].nbytes;
            }
            p->source_bytes += p->tasks[k]->tensors[i].nbytes;
        }
        int wants_lossy = 0;
        for (size_t r = 0; r < recipe->nrules; r++) wants_lossy |= recipe->rules[r].policy == DZ_POLICY_ULTRADELTA;
        if (wants_lossy && p->nlossy == lossy_before && err->problems == problems_before)
            dz_fail_more(err, DZ_EUSAGE,
                         "%s: task '%s': no tensor that could be lossy (a float type, and in the base) is matched by a lossy rule of "
                         "recipe '%s' (first tensor '%s')",
                         p->tasks[k]->path, names[k], recipe->name, p->tasks[k]->tensors[0].name);
    }
    dz_matcher_free(&matcher);
    p->first_pair[p->ntasks] = n;
    if (tiles > UINT32_MAX / 2) return dz_fail(err, DZ_EFAIL, "%llu tiles are too many for one archive", (unsigned long long)tiles);
    return err->rc;
}

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
                dz_pair *pair = &p->pairs[i];
                if (tile >= pair->tiles.ncommon) continue;
                if (dz_grow((void **)&p->units, &cap, p->nunits + 1, sizeof *p->units, err) != DZ_OK) goto out;
                p->unit_of[pair->first_tile + tile] = (uint32_t)p->nunits;
                p->units[p->nunits++] = (dz_unit){.pair = i, .tile = tile, .base = (int64_t)b};
            }
            if (p->nunits > before) continue;
            if (dz_grow((void **)&p->units, &cap, p->nunits + 1, sizeof *p->units, err) != DZ_OK) goto out;
            p->units[p->nunits++] = (dz_unit){.pair = DZ_NO_PAIR, .tile = tile, .base = (int64_t)b};
        }
    }
    p->base_tile[nbase] = (uint32_t)tiles;
    for (size_t i = 0; i < p->npairs; i++) {
        dz_pair *pair = &p->pairs[i];
        for (uint32_t tile = pair->tiles.ncommon; tile < pair->tiles.ntiles; tile++) {
            if (dz_grow((void **)&p->units, &cap, p->nunits + 1, sizeof *p->units, err) != DZ_OK) goto out;
            p->unit_of[pair->first_tile + tile] = (uint32_t)p->nunits;
            p->units[p->nunits++] = (dz_unit){.pair = (uint32_t)i, .tile = tile, .base = -1};
        }
    }
out:
    free(head);
    free(next);
    return err->rc;
}

int dz_unit_is_first(const dz_plan *p, size_t unit) {
    const dz_unit *u = &p->units[unit];
    return u->base >= 0 && (unit == 0 || u[-1].base != u->base || u[-1].tile != u->tile);
}

static uint64_t base_cost(const dz_plan *p, size_t unit) {
    const dz_unit *u = &p->units[unit];
    if (u->base < 0) return 0;
    const dz_tensor *b = &p->base->tensors[u->base];
    dz_pair_tiles grid = dz_pair_tiles_of(b->count, b->count, b->count);
    return COST_BASE_BYTE * dz_tile_count(&grid, u->tile) * dz_dtype_size(b->dtype);
}

int dz_unit_is_lossy(const dz_plan *p, const dz_unit *u) {
    return u->pair != DZ_NO_PAIR && p->pairs[u->pair].policy == DZ_POLICY_ULTRADELTA && u->tile < p->pairs[u->pair].tiles.ncommon;
}

/* `begins`: the unit is the first of a run, whose rank must read the base tile whoever else does. */
static uint64_t unit_cost(const dz_plan *p, size_t unit, int begins) {
    const dz_unit *u = &p->units[unit];
    uint64_t cost = begins || dz_unit_is_first(p, unit) ? base_cost(p, unit) : 0;
    if (u->pair == DZ_NO_PAIR) return cost;
    const dz_pair *pair = &p->pairs[u->pair];
    uint64_t count = dz_tile_count(&pair->tiles, u->tile);
    return cost +
           (dz_unit_is_lossy(p, u) ? COST_LOSSY * count : COST_LOSSLESS_BYTE * count * dz_dtype_size(dz_pair_tensor(p, pair)->dtype));
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

/* The costliest run as cheap as can be. */
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

/* Base tiles in random order. What an exact tile costs depends on what is in it: of an embedding most rows have not moved, of a head all.
 */
static dz_rc shuffle(const dz_plan *p, uint32_t *list, size_t n, dz_error *err) {
    shuffled *order = dz_alloc_raw(n, sizeof *order, err);
    for (size_t i = 0; order && i < n; i++) {
        const dz_unit *u = &p->units[list[i]];
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
        int kind = dz_unit_is_lossy(p, &p->units[u]);
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

int dz_unit_rank(const dz_plan *p, size_t unit) {
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

int dz_pair_owner(const dz_plan *p, const dz_pair *pair) {
    int best = 0, run_rank = -1;
    uint32_t run = 0, most = 0;
    for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) { /* ranks ascend with tiles */
        int rank = dz_unit_rank(p, p->unit_of[pair->first_tile + tile]);
        run = rank == run_rank ? run + 1 : 1;
        run_rank = rank;
        if (run > most) {
            most = run;
            best = rank;
        }
    }
    return best;
}

dz_rc dz_plan_make(const dz_checkpoint *base, dz_checkpoint *const *tasks, const char *const *names, size_t ntasks, const dz_recipe *recipe,
                   int nranks, dz_plan **out, dz_error *err) {
    dz_plan *p = dz_alloc(1, sizeof *p, err);
    if (!p) return err->rc;
    p->base = base;
    p->tasks = tasks;
    p->ntasks = ntasks;
    p->nranks = nranks;
    if (dz_recipe_notes(recipe, tasks, ntasks, &p->notes, err) != DZ_OK) goto out;
    if (make_pairs(p, names, recipe, err) != DZ_OK || make_units(p, err) != DZ_OK || deal(p, err) != DZ_OK) goto out;
    *out = p;
    p = NULL;
out:
    dz_plan_free(p);
    return err->rc;
}

double dz_plan_spread(const dz_plan *plan, size_t task) {
    double elements = 0, roots = 0;
    for (size_t i = plan->first_pair[task]; i < plan->first_pair[task + 1]; i++) {
        const dz_pair *pair = &plan->pairs[i];
        if (pair->policy != DZ_POLICY_ULTRADELTA || !isnan(pair->sparsity)) continue;
        elements += (double)pair->tiles.common;
        roots += sqrt((double)pair->tiles.common);
    }
    return roots > 0 ? elements / roots : 0;
}

double dz_plan_density(const dz_pair *pair, double density, double spread) {
    return pair->tiles.common ? fmin(1, density * spread / sqrt((double)pair->tiles.common)) : density;
}

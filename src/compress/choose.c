#include "compress/choose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The final policy of a tensor whose delta is finite. */
static dz_policy policy_of(const dz_context *ctx, const dz_tensor_pair *pair, float lo, float hi) {
    int f64 = dz_pair_tensor(ctx->plan, pair)->dtype == DZ_F64; /* its deltas may vanish only in f32 */
    return lo == 0 && hi == 0 && pair->tiles.extra.ntiles == 0 && !f64 ? DZ_POLICY_EQUAL : DZ_POLICY_ULTRADELTA;
}

static dz_rc choose_one(const dz_context *ctx, const dz_tensor_pair *pair, const dz_tensor_stats *stats, dz_lossy_tensor *l,
                        dz_error *err) {
    const dz_recipe *recipe = dz_zoo_recipe(&ctx->zoo, pair->task);
    float lo = dz_from_ordered(stats->range.lo), hi = dz_from_ordered(stats->range.hi);
    int exact = recipe->quality == DZ_QUALITY_LOSSLESS;
    *l = (dz_lossy_tensor){.policy = DZ_POLICY_LOSSLESS, .reason = exact ? DZ_REASON_NONE : DZ_REASON_NONFINITE, .grid = {.bits = 1}};
    if (exact) return DZ_OK;
    if (dz_range_finite(stats->range) && isfinite(hi - lo)) {
        l->policy = policy_of(ctx, pair, lo, hi);
        l->reason = DZ_REASON_NONE;
        if (ctx->method->levels) l->grid = dz_grid_levels_over(lo, hi, (unsigned)pair->bits);
        if (ctx->method->grid) ctx->method->grid(pair, stats, &l->grid);
    } else if (recipe->nonfinite != DZ_NONFINITE_LOSSLESS) {
        dz_fail(err, DZ_EVALUE, "%s: tensor '%s': its delta from %g to %g is too wide for a float", ctx->plan->tasks[pair->task]->path,
                dz_pair_tensor(ctx->plan, pair)->name, (double)lo, (double)hi);
    }
    return err->rc;
}

dz_rc dz_choose(const dz_context *ctx, const dz_stats *stats, dz_lossy_plan *out, dz_error *err) {
    const dz_plan *plan = ctx->plan;
    out->nlevels = 2;
    out->tensors = dz_alloc(plan->nlossy, sizeof *out->tensors, err);
    for (size_t i = 0; i < plan->nlossy && err->rc == DZ_OK; i++) {
        choose_one(ctx, dz_context_lossy_pair(ctx, i), &stats->tensors[i], &out->tensors[i], err);
        size_t levels = (size_t)1 << out->tensors[i].grid.bits;
        if (levels > out->nlevels) out->nlevels = levels;
    }
    return err->rc;
}

void dz_lossy_plan_free(dz_lossy_plan *lossy) {
    free(lossy->tensors);
    *lossy = (dz_lossy_plan){0};
}

dz_policy dz_policy_of(const dz_lossy_plan *lossy, const dz_tensor_pair *pair) {
    return pair->lossy >= 0 ? lossy->tensors[pair->lossy].policy : pair->policy;
}

int64_t dz_lossy_of(const dz_context *ctx, const dz_lossy_plan *lossy, const dz_work_item *item) {
    if (!dz_item_is_lossy(ctx->plan, item)) return -1;
    int64_t i = ctx->plan->pairs[item->pair].lossy;
    return lossy->tensors[i].policy == DZ_POLICY_ULTRADELTA ? i : -1;
}

int dz_turned_exact(const dz_context *ctx, const dz_lossy_plan *lossy, const dz_work_item *item) {
    return dz_item_is_lossy(ctx->plan, item) && lossy->tensors[ctx->plan->pairs[item->pair].lossy].policy == DZ_POLICY_LOSSLESS;
}

#include "compress/allocate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

dz_rc dz_allocation_init(const dz_context *ctx, const dz_lossy_plan *lossy, dz_allocation *out, dz_error *err) {
    size_t n = ctx->plan->nlossy;
    *out = (dz_allocation){.nlevels = lossy->nlevels};
    out->task_level = dz_alloc(ctx->plan->ntasks, sizeof *out->task_level, err);
    out->tensors = dz_alloc(n, sizeof *out->tensors, err);
    out->quota = dz_alloc(n * lossy->nlevels, sizeof *out->quota, err);
    for (size_t t = 0; err->rc == DZ_OK && t < ctx->plan->ntasks; t++)
        out->task_level[t] = ctx->method->first_level(dz_zoo_recipe(&ctx->zoo, t));
    return err->rc;
}

void dz_allocation_free(dz_allocation *a) {
    free(a->task_level);
    free(a->tensors);
    free(a->quota);
    *a = (dz_allocation){0};
}

/* The task's lossy tensors, as the method sees them. */
static dz_rc allocate_task(const dz_context *ctx, const dz_stats *stats, const dz_shapes *shapes, const dz_lossy_plan *lossy,
                           const dz_counts *counts, size_t task, dz_allocation *out, dz_error *err) {
    const dz_plan *plan = ctx->plan;
    dz_method_task t = {.recipe = dz_zoo_recipe(&ctx->zoo, task), .level = out->task_level[task]};
    int gated = dz_plan_is_gated(plan);
    t.tensors = dz_alloc(plan->first_pair[task + 1] - plan->first_pair[task], sizeof *t.tensors, err);
    for (size_t i = plan->first_pair[task]; i < plan->first_pair[task + 1] && err->rc == DZ_OK; i++) {
        const dz_tensor_pair *pair = &plan->pairs[i];
        if (pair->lossy < 0 || lossy->tensors[pair->lossy].policy != DZ_POLICY_ULTRADELTA) continue;
        t.tensors[t.n++] =
            (dz_method_tensor){.pair = pair,
                               .tensor = dz_pair_tensor(plan, pair),
                               .stats = &stats->tensors[pair->lossy],
                               .grid = &lossy->tensors[pair->lossy].grid,
                               .kind = dz_plan_kind(plan, pair),
                               .gated = gated,
                               .shape = dz_shape_of(shapes, pair),
                               .inputs = dz_method_inputs(plan, pair),
                               .histogram = counts->histogram ? counts->histogram + (size_t)pair->lossy * counts->nlevels : NULL,
                               .coding = &out->tensors[pair->lossy]};
    }
    if (err->rc == DZ_OK && t.n) ctx->method->allocate(&t, err);
    free(t.tensors);
    return err->rc;
}

/* Rank 0's numbers on every rank. */
static dz_rc share(const dz_context *ctx, dz_allocation *out, dz_error *err) {
    dz_buf bytes = {0};
    size_t len = ctx->plan->nlossy * sizeof *out->tensors;
    if (ctx->world->rank == 0) dz_buf_put(&bytes, out->tensors, len, err);
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    if (rc == DZ_OK) rc = dz_bcast_buf(ctx->world, &bytes, err);
    if (rc == DZ_OK && len) memcpy(out->tensors, bytes.data, len);
    dz_buf_free(&bytes);
    return rc;
}

dz_rc dz_allocate(const dz_context *ctx, const dz_stats *stats, const dz_shapes *shapes, const dz_lossy_plan *lossy,
                  const dz_counts *counts, dz_allocation *out, dz_error *err) {
    const dz_recipe *r = ctx->zoo.recipe;
    for (size_t t = 0; t < ctx->plan->ntasks && err->rc == DZ_OK && ctx->world->rank == 0; t++)
        allocate_task(ctx, stats, shapes, lossy, counts, t, out, err);
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    if (rc == DZ_OK) rc = share(ctx, out, err);
    for (size_t i = 0; i < ctx->plan->nlossy && rc == DZ_OK && ctx->method->levels; i++) {
        if (lossy->tensors[i].policy == DZ_POLICY_ULTRADELTA)
            dz_quotas(out->quota + i * out->nlevels, counts->histogram + i * out->nlevels, &lossy->tensors[i].grid,
                      out->tensors[i].sparsity, r->rounding == DZ_ROUND_SYSTEMATIC);
    }
    return rc;
}

uint64_t dz_allocation_hash(const dz_allocation *a, const dz_lossy_plan *lossy, size_t i) {
    struct {
        double sparsity;
        float lo, step;
        uint32_t bits, kind, shaped;
        float kept;
    } of = {a->tensors[i].sparsity, a->tensors[i].lo,     a->tensors[i].step, lossy->tensors[i].grid.bits,
            a->tensors[i].kind,     a->tensors[i].shaped, a->tensors[i].kept};
    return dz_hash64(a->quota + i * a->nlevels, a->nlevels * sizeof *a->quota, dz_hash64(&of, sizeof of, 1));
}

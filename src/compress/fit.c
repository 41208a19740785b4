#include <math.h>

#include "compress/job.h"

dz_results dz_job_results(const dz_job *job) {
    return (dz_results){
        .stats = &job->stats, .lossy = &job->lossy, .allocation = &job->allocation, .blocks = &job->blocks, .gammas = &job->gammas};
}

/* Collective. Allocates until no more tensor turns out to be as small when coded exactly. */
static dz_rc allocate_and_settle(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    size_t changed = 1;
    dz_rc rc = DZ_OK;
    while (rc == DZ_OK && changed) {
        rc = dz_allocate(ctx, &job->stats, &job->shapes, &job->lossy, &job->counts, &job->allocation, err);
        if (rc == DZ_OK) rc = dz_settle(ctx, &job->stats, &job->allocation, &job->lossy, &job->trials, &changed, err);
    }
    return rc;
}

/* Collective. */
static dz_rc encode_and_settle(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    dz_rc rc = DZ_OK;
    do {
        rc = dz_encode(ctx, &job->shapes, &job->lossy, &job->counts, &job->allocation, &job->blocks, err);
    } while (rc == DZ_OK && dz_settle_encoded(ctx, &job->blocks, &job->trials, &job->lossy) > 0);
    return rc;
}

#define MOST_FORECASTS 12
#define MOST_ROUNDS 8
#define FORESEEN 0.0005   /* of the target, between it and a forecast */
#define CLOSE_ENOUGH 0.01 /* of the target, between it and what was encoded */

/* Bytes of the tensors of a task that the plan calls lossy, as the laid-out file has them. */
typedef struct fit {
    double want, now, fixed; /* the target; what they take; of that what no level changes */
    int lossy;               /* any of them is */
} fit;

/* Rank 0, by the block table and the last layout. */
static fit fit_of(const dz_job *job, size_t t) {
    const dz_context *ctx = &job->ctx;
    double source = 0, exact = 0, coded = 0;
    fit f = {0};
    for (size_t i = ctx->plan->first_pair[t]; i < ctx->plan->first_pair[t + 1]; i++) {
        const dz_tensor_pair *pair = &ctx->plan->pairs[i];
        if (pair->lossy < 0) continue;
        dz_policy policy = job->lossy.tensors[pair->lossy].policy;
        if (policy != DZ_POLICY_LOSSLESS && policy != DZ_POLICY_ULTRADELTA) continue;
        source += (double)(pair->tiles.common * dz_dtype_size(dz_pair_tensor(ctx->plan, pair)->dtype));
        *(policy == DZ_POLICY_LOSSLESS ? &exact : &coded) += (double)dz_region_bytes(ctx->plan, &job->blocks, pair);
        f.lossy |= policy == DZ_POLICY_ULTRADELTA;
    }
    f.fixed = exact + dz_task_size_stats(&job->catalog->tasks[ctx->copied.ntasks + t]).lossy_fixed;
    f.now = coded + f.fixed;
    f.want = source / ctx->zoo.recipe->target_ratio;
    return f;
}

/* Rank 0: the levels to try next; 1 if a task is off by more than `allowed` of the target. */
static int adjust_levels(dz_job *job, double allowed) {
    const dz_context *ctx = &job->ctx;
    int again = 0;
    for (size_t t = 0; t < ctx->plan->ntasks; t++) {
        double *level = &job->allocation.task_level[t], before = *level;
        fit f = fit_of(job, t);
        if (!f.lossy || fabs(f.now / f.want - 1) < allowed) continue;
        *level = ctx->method->relevel(before, f.want > f.fixed ? (f.want - f.fixed) / (f.now - f.fixed) : 0.5);
        again |= *level != before;
    }
    return again;
}

#define MET 0.02 /* of the target, either way */

/* Rank 0: a target that was not met is an error that says what is possible. Less than was asked for is no fault where tensors are exact. */
static dz_rc check_target(const dz_job *job, dz_error *err) {
    double target = job->ctx.zoo.recipe->target_ratio;
    for (size_t t = 0; t < job->plan->ntasks; t++) {
        fit f = fit_of(job, t);
        if (!f.lossy || fabs(f.now / f.want - 1) <= MET) continue;
        dz_fail_more(
            err, DZ_EUSAGE,
            "task '%s': target_ratio %g is not met within 2 %%: the nearest that method %s comes to is %.4g (index and tables alone "
            "allow %.4g); give a ratio that is possible, or --quality",
            job->ctx.zoo.names[t], target, job->ctx.method->name, target * f.want / f.now, target * f.want / fmax(1, f.fixed));
    }
    return err->rc;
}

/* Collective: rank 0's adjustment on all ranks. */
static uint64_t adjust(dz_job *job, double allowed, int may) {
    const dz_context *ctx = &job->ctx;
    uint64_t again = may && ctx->world->rank == 0 ? (uint64_t)adjust_levels(job, allowed) : 0;
    dz_bcast_u64(ctx->world, &again, 1);
    if (again) dz_bcast_f64(ctx->world, job->allocation.task_level, ctx->plan->ntasks);
    return again;
}

/* Collective. Levels at which the lossy tensors are expected to have the size that was asked for; one layout gives the rest of the bytes.
 */
static dz_rc foresee(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    dz_results results = dz_job_results(job);
    dz_rc rc = DZ_OK;
    for (int i = 0; rc == DZ_OK; i++) {
        rc = allocate_and_settle(job, err);
        if (rc == DZ_OK) rc = dz_expect_blocks(ctx, &job->lossy, &job->allocation, &job->blocks, err);
        if (rc == DZ_OK && i == 0) rc = dz_assemble_layout(ctx, &results, &job->catalog, err);
        if (rc == DZ_OK && !adjust(job, FORESEEN, i < MOST_FORECASTS)) break;
    }
    return rc;
}

/* Collective. Once; with a target ratio again until every task's lossy tensors have, on disk, the size that was asked for. */
dz_rc dz_job_encode(dz_job *job, dz_error *err) {
    dz_context *ctx = &job->ctx;
    dz_results results = dz_job_results(job);
    int by_ratio = ctx->zoo.recipe->target_ratio > 0;
    dz_rc rc = by_ratio ? foresee(job, err) : allocate_and_settle(job, err);
    for (int round = 1; rc == DZ_OK; round++) {
        rc = encode_and_settle(job, err);
        if (rc != DZ_OK || !by_ratio) return rc;
        rc = dz_assemble_layout(ctx, &results, &job->catalog, err);
        if (rc == DZ_OK && !adjust(job, CLOSE_ENOUGH, round < MOST_ROUNDS)) break;
        if (rc == DZ_OK) rc = allocate_and_settle(job, err);
    }
    if (rc != DZ_OK) return rc;
    return dz_sync_error(ctx->world, ctx->world->rank == 0 ? check_target(job, err) : DZ_OK, err);
}

/* What each method makes of a tensor's statistics: its grid, the density of what is kept, the scale of what is restored. Everything here is
 * computed from reduced numbers, alike on every rank. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/job.h"
#include "numeric/gauss.h"
#include "numeric/noise.h"

int dz_job_has_levels(const dz_job *job) {
    return job->zoo.recipe->method == DZ_METHOD_ULTRADELTA || job->zoo.recipe->method == DZ_METHOD_BITDELTA;
}

/* The grid of a finite range by method. */
static void set_grid(const dz_recipe *r, const dz_tensor_pair *pair, float lo, float hi, dz_lossy *l) {
    double n = (double)pair->tiles.common;
    l->grid = dz_grid_levels_over(lo, hi, (unsigned)pair->bits);
    if (r->method == DZ_METHOD_BITDELTA) {
        float mean = (float)(l->sums[0] / n);
        l->grid = (dz_grid_levels){.lo = -mean, .step = 2 * mean, .bits = 1, .sign = 1};
    } else if (r->method != DZ_METHOD_ULTRADELTA) {
        l->grid.bits = 1;
    }
}

dz_rc dz_job_set_grids(dz_job *job, const int32_t *extremes, dz_error *err) {
    dz_plan *plan = job->plan;
    for (size_t i = 0; i < plan->nlossy; i++) {
        dz_tensor_pair *pair = &plan->pairs[plan->lossy[i]];
        dz_range range = {.lo = ~extremes[2 * i], .hi = extremes[2 * i + 1]};
        float lo = dz_from_ordered(range.lo), hi = dz_from_ordered(range.hi);
        int finite = dz_range_finite(range) && isfinite(hi - lo);
        if (finite) {
            set_grid(job->zoo.recipe, pair, lo, hi, &job->lossy[i]);
            int f64 = dz_pair_tensor(plan, pair)->dtype == DZ_F64; /* its deltas may vanish only in f32 */
            if (lo == 0 && hi == 0 && pair->tiles.extra.ntiles == 0 && !f64) pair->policy = DZ_POLICY_EQUAL;
        } else if (job->zoo.recipe->nonfinite == DZ_NONFINITE_LOSSLESS) {
            pair->policy = DZ_POLICY_LOSSLESS;
        } else {
            return dz_fail(err, DZ_EVALUE, "%s: tensor '%s': its delta from %g to %g is too wide for a float",
                           plan->tasks[pair->task]->path, dz_pair_tensor(plan, pair)->name, (double)lo, (double)hi);
        }
    }
    return DZ_OK;
}

uint64_t dz_job_block_key(const dz_job *job, const dz_lossy *l) {
    struct {
        double sparsity;
        float lo, step;
        uint32_t bits, reserved;
    } of = {l->sparsity, l->grid.lo, l->grid.step, l->grid.bits, 0};
    return dz_hash64(l->quota, job->levels * sizeof *l->quota, dz_hash64(&of, sizeof of, 1));
}

static double entropy_bits(const dz_lossy *l) { return (double)dz_entropy_fixed(l->histogram, (size_t)1 << l->grid.bits) / 65536; }

/* To `bits` significant bits: a last bit that differs between C libraries does no harm then. */
static double rounded(double x, int bits) {
    int exponent;
    double mantissa = frexp(x, &exponent);
    return ldexp(rint(ldexp(mantissa, bits)), exponent - bits);
}

double dz_job_first_sparsity(const dz_recipe *r) {
    if (r->method != DZ_METHOD_AUTO || r->target_ratio <= 0) return r->sparsity;
    return 1 - rounded(dz_gauss_share_of_bits(16 / r->target_ratio), 20); /* most models are of 16-bit numbers */
}

/* The allocation is made of the levels, whose sieve has to reach as far as it: nearly certain by thirds, likely otherwise. */
double dz_job_most_density(const dz_job *job, const dz_tensor_pair *pair) {
    const dz_recipe *r = job->zoo.recipe;
    if (r->method == DZ_METHOD_BITDELTA) return 1;
    if (!isnan(pair->sparsity)) return 1 - pair->sparsity;
    double density = 1 - job->task_sparsity[pair->task];
    if (r->allocation == DZ_ALLOCATE_THIRDS) density += r->step;
    if (r->allocation == DZ_ALLOCATE_OPTIMAL || r->target_ratio > 0) density *= 1.5;
    return density < 1 ? density : 1;
}

static void allocate_by_size(dz_job *job, size_t task, double density) {
    const dz_plan *plan = job->plan;
    double spread = dz_plan_spread(plan, task);
    for (size_t i = 0; i < plan->nlossy; i++) {
        const dz_tensor_pair *pair = &plan->pairs[plan->lossy[i]];
        if (pair->task != task || !isnan(pair->sparsity)) continue;
        job->lossy[i].sparsity = 1 - rounded(dz_plan_density(pair, density, spread), 20);
    }
}

dz_rc dz_job_allocate_task(dz_job *job, size_t task, dz_error *err) {
    const dz_plan *plan = job->plan;
    const dz_recipe *r = job->zoo.recipe;
    double sparsity = job->task_sparsity[task], step = sparsity == r->sparsity ? r->step : fmin(r->step, (1 - sparsity) / 3);
    dz_alloc_tensor *tensors = dz_alloc(plan->nlossy, sizeof *tensors, err);
    uint32_t *order = dz_alloc(plan->nlossy, sizeof *order, err), *number = dz_alloc(plan->nlossy, sizeof *number, err);
    size_t n = 0;
    if (err->rc != DZ_OK) goto out;
    for (size_t i = 0; i < plan->nlossy; i++) {
        const dz_tensor_pair *pair = &plan->pairs[plan->lossy[i]];
        dz_lossy *l = &job->lossy[i];
        if (pair->task != task || pair->policy != DZ_POLICY_ULTRADELTA) continue;
        l->sparsity = isnan(pair->sparsity) ? sparsity : pair->sparsity;
        if (r->method == DZ_METHOD_BITDELTA) l->sparsity = 0;
        if (!isnan(pair->sparsity) || !dz_job_has_levels(job)) continue; /* its own, outside the allocation */
        number[n] = (uint32_t)i;
        tensors[n++] = (dz_alloc_tensor){.std = dz_quantised_std(&l->grid, l->histogram),
                                         .count = pair->tiles.common,
                                         .bits_per_kept = entropy_bits(l) / (double)pair->tiles.common,
                                         .sparsity = sparsity};
    }
    if (r->method == DZ_METHOD_AUTO) allocate_by_size(job, task, 1 - sparsity);
    if (r->method != DZ_METHOD_ULTRADELTA) goto out;
    if (r->allocation == DZ_ALLOCATE_THIRDS) dz_allocate_thirds(tensors, n, sparsity, step, order);
    if (r->allocation == DZ_ALLOCATE_OPTIMAL) dz_allocate_optimal(tensors, n, sparsity);
    for (size_t i = 0; i < n; i++) job->lossy[number[i]].sparsity = tensors[i].sparsity;
out:
    free(tensors);
    free(order);
    free(number);
    return err->rc;
}

/* Method auto: the kept coefficients' size is such that the restored delta's inner product with the true one is the true one's square: a
 * block's standard deviation and number of elements a kept one (codec/signs.h) over their mean size in standard deviations. The index has
 * the sparsity in f32: what reads it divides a block alike. */
static void set_signs(const dz_recipe *r, const dz_tensor_pair *pair, const dz_tensor *tensor, dz_lossy *l) {
    double columns = tensor->ndim >= 2 ? (double)(tensor->count / tensor->shape[0]) : 1;
    l->sparsity = (double)(float)l->sparsity;
    double share = 1 - l->sparsity, gain = isnan(r->gain) ? dz_quality_gain(dz_gauss_noise(share), columns) : r->gain;
    l->scale = (float)rounded(pair->factor * gain / dz_gauss_mean(share), 12);
}

void dz_job_set_scales(dz_job *job) {
    const dz_recipe *r = job->zoo.recipe;
    for (size_t i = 0; i < job->plan->nlossy; i++) {
        const dz_tensor_pair *pair = &job->plan->pairs[job->plan->lossy[i]];
        dz_lossy *l = &job->lossy[i];
        if (pair->policy != DZ_POLICY_ULTRADELTA) continue;
        double target = r->rescale == DZ_RESCALE_TENSOR || !isnan(pair->sparsity) ? l->sparsity : job->task_sparsity[pair->task];
        int plain = r->method == DZ_METHOD_MAGNITUDE || r->method == DZ_METHOD_BITDELTA;
        l->scale = (float)(plain ? pair->factor : pair->factor / (1 - target));
        if (r->method == DZ_METHOD_AUTO) set_signs(r, pair, dz_pair_tensor(job->plan, pair), l);
        if (dz_job_has_levels(job)) dz_quotas(l->quota, l->histogram, &l->grid, l->sparsity, r->rounding == DZ_ROUND_SYSTEMATIC);
    }
}

#define MOST_ROUNDS 8

void dz_job_adjust(dz_job *job, int round, int *again) {
    const dz_recipe *r = job->zoo.recipe;
    size_t ntasks = job->plan->ntasks;
    double told[2] = {0, 0};
    *again = 0;
    if (r->target_ratio <= 0 || round + 1 >= MOST_ROUNDS) return;
    for (size_t t = 0; t < ntasks && job->world->rank == 0; t++) {
        const dz_task_entry *e = &job->catalog->tasks[job->copied.ntasks + t];
        dz_size_stats s = dz_task_size_stats(e);
        if (s.lossy_stored <= 0) continue;
        double want = s.lossy_source / r->target_ratio, fixed = s.lossy_fixed, now = s.lossy_stored;
        if (fabs(now / want - 1) < 0.003) continue;
        double density = 1 - job->task_sparsity[t], change = want > fixed ? (want - fixed) / (now - fixed) : 0.5;
        density = r->method == DZ_METHOD_AUTO ? rounded(dz_gauss_share_of_bits(change * dz_gauss_bits(density)), 20) : density * change;
        if (density > 1) density = 1;
        if (1 - density == job->task_sparsity[t]) continue;
        told[0] = 1;
        job->task_sparsity[t] = 1 - density;
    }
    dz_bcast_f64(job->world, told, 2);
    dz_bcast_f64(job->world, job->task_sparsity, ntasks);
    *again = told[0] != 0;
}

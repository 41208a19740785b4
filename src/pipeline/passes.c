/* The passes over the data: statistics, histograms, coding. Each walks this rank's units in the plan's order. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "codec/kept.h"
#include "codec/lossless.h"
#include "pipeline/job.h"
#include "pipeline/tiles.h"

/* Bytes of the two sides that a rank's units will read: the progress of a pass. */
static double bytes_of_pass(const dz_job *job, int lossy_only) {
    double sum = 0;
    for (size_t i = 0; i < job->plan->npairs; i++) {
        const dz_pair *pair = &job->plan->pairs[i];
        if (pair->tiles.ntiles && (!lossy_only || pair->lossy >= 0)) sum += (double)dz_pair_tensor(job->plan, pair)->nbytes;
    }
    return sum;
}

static double tile_bytes(const dz_tile *t) { return t->pair ? (double)(t->count * dz_dtype_size(t->task_dtype)) : 0; }

/* The tile of a lossy pair that goes the lossy way (rows beyond the base do not). NULL otherwise. */
static dz_lossy *lossy_of(const dz_job *job, const dz_unit *u) {
    if (u->pair == DZ_NO_PAIR) return NULL;
    const dz_pair *pair = &job->plan->pairs[u->pair];
    return pair->lossy >= 0 && pair->policy == DZ_POLICY_ULTRADELTA && u->tile < pair->tiles.ncommon ? &job->lossy[pair->lossy] : NULL;
}

static dz_rc put_block(dz_job *job, size_t unit, const dz_buf *body, dz_error *err) {
    if (dz_spool_put(&job->spool, unit - dz_job_first(job), body->data, body->len, err) != DZ_OK) return err->rc;
    job->block_len[unit] = body->len + 4;
    return DZ_OK;
}

static dz_rc code_exact(dz_job *job, size_t unit, const dz_tile *t, dz_buf *body, dz_buf *scratch, dz_error *err) {
    const void *base = dz_tile_predictor(t, scratch, err);
    body->len = 0;
    if (err->rc != DZ_OK || dz_lossless_encode(body, t->task, base, t->task_dtype, (size_t)t->count, err) != DZ_OK) return err->rc;
    return put_block(job, unit, body, err);
}

static dz_rc statistics_of_unit(dz_job *job, dz_tile_reader *reader, size_t unit, int32_t *extremes, dz_buf *body, dz_buf *scratch,
                                dz_progress *progress, dz_error *err) {
    dz_tile t;
    if (dz_tile_read(reader, unit, &t, err) != DZ_OK) return err->rc;
    if (dz_unit_is_first(job->plan, unit)) {
        dz_digest digest = dz_digest_of(t.base, (size_t)t.base_count * dz_dtype_size(t.base_dtype));
        uint32_t at = job->plan->base_tile[t.unit->base] + t.unit->tile;
        job->base_digests[2 * at] = digest.hi;
        job->base_digests[2 * at + 1] = digest.lo;
    }
    if (!t.pair) return DZ_OK;
    if (lossy_of(job, t.unit)) {
        dz_range range = DZ_RANGE_EMPTY;
        dz_tile_range(&t, &range);
        if (!dz_range_finite(range) && job->zoo.recipe->nonfinite == DZ_NONFINITE_ERROR) return dz_tile_nonfinite(reader, &t, err);
        int32_t *e = &extremes[2 * t.pair->lossy]; /* ~x mirrors the order of integers, so one maximum serves both ends */
        if (~range.lo > e[0]) e[0] = ~range.lo;
        if (range.hi > e[1]) e[1] = range.hi;
    } else if (code_exact(job, unit, &t, body, scratch, err) != DZ_OK) {
        return err->rc;
    }
    dz_progress_add(progress, tile_bytes(&t));
    return DZ_OK;
}

/* Grids from the global ranges. A pair with a delta that is not finite (and a recipe that allows it) becomes exact; one without any delta
 * is equal. */
static dz_rc set_grids(dz_job *job, const int32_t *extremes, dz_error *err) {
    dz_plan *plan = job->plan;
    for (size_t i = 0; i < plan->nlossy; i++) {
        dz_pair *pair = &plan->pairs[plan->lossy[i]];
        const dz_tensor *tensor = dz_pair_tensor(plan, pair);
        dz_range range = {.lo = ~extremes[2 * i], .hi = extremes[2 * i + 1]};
        float lo = dz_from_ordered(range.lo), hi = dz_from_ordered(range.hi);
        dz_grid_levels grid = dz_range_finite(range) ? dz_grid_levels_over(lo, hi, (unsigned)pair->bits) : (dz_grid_levels){0};
        if (dz_range_finite(range) && isfinite(grid.step)) {
            job->lossy[i].grid = grid;
            if (lo == 0 && hi == 0 && pair->tiles.extra.ntiles == 0) pair->policy = DZ_POLICY_EQUAL;
        } else if (job->zoo.recipe->nonfinite == DZ_NONFINITE_LOSSLESS) {
            pair->policy = DZ_POLICY_LOSSLESS;
        } else {
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': its delta from %g to %g is too wide for a float", plan->tasks[pair->task]->path,
                           tensor->name, (double)lo, (double)hi);
        }
    }
    return DZ_OK;
}

dz_rc dz_job_statistics(dz_job *job, dz_error *err) {
    dz_plan *plan = job->plan;
    dz_tile_reader reader;
    dz_progress progress;
    dz_buf body = {0}, scratch = {0};
    int32_t *extremes = dz_alloc_raw(2 * plan->nlossy, sizeof *extremes, err);
    for (size_t i = 0; extremes && i < 2 * plan->nlossy; i++) extremes[i] = INT32_MIN;
    dz_tile_reader_init(&reader, job->zoo.base, job->zoo.tasks, plan);
    dz_progress_begin(&progress, job->world, DZ_PHASE_NAMES[DZ_PHASE_STATISTICS], bytes_of_pass(job, 0), job->opt->quiet);
    for (size_t u = dz_job_first(job); u < dz_job_end(job) && err->rc == DZ_OK; u++)
        statistics_of_unit(job, &reader, u, extremes, &body, &scratch, &progress, err);
    job->secs[DZ_PHASE_STATISTICS] = dz_progress_end(&progress);
    job->bytes_read += reader.bytes_read;
    dz_rc rc = dz_agree(job->world, err->rc, err);
    if (rc == DZ_OK) {
        dz_max_i32(job->world, extremes, 2 * plan->nlossy);
        dz_sum_u64(job->world, job->base_digests, 2 * (size_t)plan->base_tile[plan->base->ntensors]);
        rc = set_grids(job, extremes, err); /* the same on every rank */
    }
    dz_tile_reader_free(&reader);
    dz_buf_free(&body);
    dz_buf_free(&scratch);
    free(extremes);
    return rc;
}

/* Levels of up to 4 bits are kept two to a byte: the first half of a tile in the low nibbles, the second in the high ones. */
static size_t packed_size(size_t count, int bits) { return bits <= 4 ? (count + 1) / 2 : count; }

static void pack_levels(uint8_t *restrict packed, const uint8_t *restrict levels, size_t count, int bits) {
    size_t half = packed_size(count, bits);
    memcpy(packed, levels, half);
    for (size_t i = 0; i < count - half; i++) packed[i] = (uint8_t)(packed[i] | levels[half + i] << 4);
}

static void unpack_levels(uint8_t *restrict levels, const uint8_t *restrict packed, size_t count, int bits) {
    size_t half = packed_size(count, bits);
    if (bits > 4) {
        memcpy(levels, packed, count);
        return;
    }
    for (size_t i = 0; i < half; i++) levels[i] = packed[i] & 15;
    for (size_t i = half; i < count; i++) levels[i] = packed[i - half] >> 4;
}

static dz_rc histogram_of_unit(dz_job *job, dz_tile_reader *reader, size_t unit, dz_buf *levels, dz_buf *scratch, dz_progress *progress,
                               dz_error *err) {
    const dz_unit *u = &job->plan->units[unit];
    dz_tile t;
    dz_lossy *lossy = lossy_of(job, u);
    int became_exact = u->pair != DZ_NO_PAIR && job->plan->pairs[u->pair].lossy >= 0 &&
                       job->plan->pairs[u->pair].policy == DZ_POLICY_LOSSLESS && u->tile < job->plan->pairs[u->pair].tiles.ncommon;
    if (!lossy && !became_exact) return DZ_OK;
    if (dz_tile_read(reader, unit, &t, err) != DZ_OK) return err->rc;
    dz_progress_add(progress, tile_bytes(&t));
    if (became_exact) return code_exact(job, unit, &t, levels, scratch, err);
    levels->len = 0;
    if (dz_buf_reserve(levels, (size_t)t.count, err) != DZ_OK) return err->rc;
    dz_tile_levels(&t, &lossy->grid, levels->data);
    dz_kernels()->count(lossy->histogram, levels->data, lossy->grid.bits, (size_t)t.count);
    size_t packed = packed_size((size_t)t.count, t.pair->bits);
    if (packed > job->cache_size - job->cache_used) return DZ_OK; /* the coding pass will read the tile again */
    uint8_t *at = job->cache + job->cache_used;
    pack_levels(at, levels->data, (size_t)t.count, t.pair->bits);
    job->cached[unit - dz_job_first(job)] = at;
    job->cache_used += packed;
    return DZ_OK;
}

dz_rc dz_job_histograms(dz_job *job, dz_error *err) {
    dz_tile_reader reader;
    dz_progress progress;
    dz_buf levels = {0}, scratch = {0};
    size_t n = job->plan->nlossy * job->levels;
    dz_tile_reader_init(&reader, job->zoo.base, job->zoo.tasks, job->plan);
    dz_progress_begin(&progress, job->world, DZ_PHASE_NAMES[DZ_PHASE_HISTOGRAM], bytes_of_pass(job, 1), job->opt->quiet);
    for (size_t u = dz_job_first(job); u < dz_job_end(job) && err->rc == DZ_OK; u++)
        histogram_of_unit(job, &reader, u, &levels, &scratch, &progress, err);
    job->secs[DZ_PHASE_HISTOGRAM] = dz_progress_end(&progress);
    job->bytes_read += reader.bytes_read;
    dz_rc rc = dz_agree(job->world, err->rc, err);
    if (rc == DZ_OK && n) {
        memcpy(job->befores, job->histograms, n * sizeof *job->befores);
        dz_before_u64(job->world, job->befores, n);
        dz_sum_u64(job->world, job->histograms, n);
    }
    dz_tile_reader_free(&reader);
    dz_buf_free(&levels);
    dz_buf_free(&scratch);
    return rc;
}

/* Sparsities of one task's tensors, by the recipe's allocation. */
static dz_rc allocate_task(dz_job *job, size_t task, dz_error *err) {
    const dz_plan *plan = job->plan;
    const dz_recipe *r = job->zoo.recipe;
    dz_alloc_tensor *tensors = dz_alloc(plan->nlossy, sizeof *tensors, err);
    uint32_t *order = dz_alloc(plan->nlossy, sizeof *order, err), *number = dz_alloc(plan->nlossy, sizeof *number, err);
    size_t n = 0;
    if (err->rc != DZ_OK) goto out;
    for (size_t i = 0; i < plan->nlossy; i++) {
        const dz_pair *pair = &plan->pairs[plan->lossy[i]];
        dz_lossy *l = &job->lossy[i];
        if (pair->task != task || pair->policy != DZ_POLICY_ULTRADELTA) continue;
        l->sparsity = isnan(pair->sparsity) ? r->sparsity : pair->sparsity;
        if (!isnan(pair->sparsity)) continue; /* its own, outside the allocation */
        double entropy = (double)dz_entropy_fixed(l->histogram, (size_t)1 << pair->bits) / 65536;
        number[n] = (uint32_t)i;
        tensors[n++] = (dz_alloc_tensor){.std = dz_quantised_std(&l->grid, l->histogram),
                                         .count = pair->tiles.common,
                                         .bits_per_kept = entropy / (double)pair->tiles.common,
                                         .sparsity = r->sparsity};
    }
    if (r->allocation == DZ_ALLOCATE_THIRDS) dz_allocate_thirds(tensors, n, r->sparsity, r->step, order);
    if (r->allocation == DZ_ALLOCATE_OPTIMAL) dz_allocate_optimal(tensors, n, r->sparsity);
    for (size_t i = 0; i < n; i++) job->lossy[number[i]].sparsity = tensors[i].sparsity;
out:
    free(tensors);
    free(order);
    free(number);
    return err->rc;
}

dz_rc dz_job_allocate(dz_job *job, dz_error *err) {
    const dz_recipe *r = job->zoo.recipe;
    for (size_t task = 0; task < job->plan->ntasks && err->rc == DZ_OK && job->world->rank == 0; task++) allocate_task(job, task, err);
    dz_rc rc = dz_agree(job->world, err->rc, err);
    double *sparsity = rc == DZ_OK ? dz_alloc(job->plan->nlossy, sizeof *sparsity, err) : NULL;
    if (rc == DZ_OK) rc = dz_agree(job->world, err->rc, err);
    if (rc != DZ_OK) goto out;
    for (size_t i = 0; i < job->plan->nlossy; i++) sparsity[i] = job->lossy[i].sparsity;
    dz_bcast_f64(job->world, sparsity, job->plan->nlossy);
    for (size_t i = 0; i < job->plan->nlossy; i++) {
        const dz_pair *pair = &job->plan->pairs[job->plan->lossy[i]];
        dz_lossy *l = &job->lossy[i];
        if (pair->policy != DZ_POLICY_ULTRADELTA) continue;
        l->sparsity = sparsity[i];
        double target = r->rescale == DZ_RESCALE_TENSOR || !isnan(pair->sparsity) ? l->sparsity : r->sparsity;
        l->scale = (float)(pair->factor / (1 - target));
        l->kept = dz_quotas(l->quota, l->histogram, &l->grid, l->sparsity, r->rounding == DZ_ROUND_SYSTEMATIC);
    }
out:
    free(sparsity);
    return rc;
}

typedef struct coder {
    dz_buf levels, body;
    dz_selection selection;
} coder;

static dz_rc code_unit(dz_job *job, dz_tile_reader *reader, size_t unit, coder *c, dz_progress *progress, dz_error *err) {
    const dz_unit *u = &job->plan->units[unit];
    dz_lossy *l = lossy_of(job, u);
    if (!l) return DZ_OK;
    const dz_pair *pair = &job->plan->pairs[u->pair];
    size_t count = (size_t)dz_tile_count(&pair->tiles, u->tile);
    uint8_t **cached = &job->cached[unit - dz_job_first(job)];
    c->levels.len = c->body.len = 0;
    if (dz_buf_reserve(&c->levels, count, err) != DZ_OK) return err->rc;
    if (*cached) {
        unpack_levels(c->levels.data, *cached, count, pair->bits);
    } else {
        dz_tile t;
        if (dz_tile_read(reader, unit, &t, err) != DZ_OK) return err->rc;
        dz_tile_levels(&t, &l->grid, c->levels.data);
    }
    uint64_t members[DZ_MAX_LEVELS] = {0}, quota[DZ_MAX_LEVELS];
    dz_kernels()->count(members, c->levels.data, l->grid.bits, count);
    for (unsigned g = 0; g < 1U << l->grid.bits; g++) {
        quota[g] = dz_quota_share(l->quota[g], l->histogram[g], l->before[g], members[g]);
        l->before[g] += members[g];
    }
    dz_select_input in = {.levels = c->levels.data,
                          .count = count,
                          .bits = l->grid.bits,
                          .key = dz_tile_key(job->task_key[pair->task], dz_pair_tensor(job->plan, pair)->name, u->tile),
                          .members = members,
                          .quota = quota};
    if (dz_select(&in, &c->selection, err) != DZ_OK) return err->rc;
    if (dz_kept_encode(&c->body, &in, &c->selection, job->zoo.recipe->positions == DZ_POSITIONS_GOLOMB, err) != DZ_OK) return err->rc;
    dz_progress_add(progress, (double)(count * dz_dtype_size(dz_pair_tensor(job->plan, pair)->dtype)));
    return put_block(job, unit, &c->body, err);
}

dz_rc dz_job_code(dz_job *job, dz_error *err) {
    dz_tile_reader reader;
    dz_progress progress;
    coder c = {0};
    dz_tile_reader_init(&reader, job->zoo.base, job->zoo.tasks, job->plan);
    dz_progress_begin(&progress, job->world, DZ_PHASE_NAMES[DZ_PHASE_CODE], bytes_of_pass(job, 1), job->opt->quiet);
    for (size_t u = dz_job_first(job); u < dz_job_end(job) && err->rc == DZ_OK; u++) code_unit(job, &reader, u, &c, &progress, err);
    job->secs[DZ_PHASE_CODE] = dz_progress_end(&progress);
    job->bytes_read += reader.bytes_read;
    dz_rc rc = dz_agree(job->world, err->rc, err);
    if (rc == DZ_OK) dz_sum_u64(job->world, job->block_len, job->plan->nunits); /* each block was coded by one rank */
    dz_tile_reader_free(&reader);
    dz_buf_free(&c.levels);
    dz_buf_free(&c.body);
    dz_selection_free(&c.selection);
    return rc;
}

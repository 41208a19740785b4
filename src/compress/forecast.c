#include "compress/forecast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/lossless.h"
#include "compress/settle.h"
#include "compress/tile_reader.h"

#define RUN 16384 /* elements read at a time */
#define RUNS 16   /* of a tensor */

#define BYTES_OF_ROW 40.0 /* a tensor's part of index and structures, about */

typedef struct sampler {
    const dz_zoo *zoo;
    const dz_plan *plan;
    dz_buf task, base, wide, levels;
    dz_buf words, predictor, body; /* a tensor's runs, one after the other, and their exact coding */
} sampler;

/* A run of elements of a pair as a piece of a tile: the base in float. */
static dz_rc read_run(sampler *s, const dz_tensor_pair *pair, uint64_t first, uint64_t count, dz_tile *out, dz_error *err) {
    dz_checkpoint *task = s->zoo->tasks[pair->task], *base = s->zoo->base;
    const dz_tensor *t = &task->tensors[pair->tensor], *b = &base->tensors[pair->base];
    size_t size = dz_dtype_size(t->dtype), base_size = dz_dtype_size(b->dtype);
    s->task.len = s->base.len = s->wide.len = 0;
    if (dz_buf_reserve(&s->task, count * size, err) != DZ_OK || dz_buf_reserve(&s->base, count * base_size, err) != DZ_OK ||
        dz_buf_reserve(&s->wide, count * sizeof(float), err) != DZ_OK ||
        dz_checkpoint_read(task, pair->tensor, first * size, count * size, s->task.data, err) != DZ_OK ||
        dz_checkpoint_read(base, (size_t)pair->base, first * base_size, count * base_size, s->base.data, err) != DZ_OK)
        return err->rc;
    dz_kernels()->widen((float *)(void *)s->wide.data, s->base.data, b->dtype, count);
    *out =
        (dz_tile){.pair = pair, .count = count, .task = s->task.data, .base = s->wide.data, .task_dtype = t->dtype, .base_dtype = DZ_F32};
    return DZ_OK;
}

/* First element and length of run `i` of a pair's common elements; 0 elements beyond the last. */
static uint64_t run_of(const dz_tensor_pair *pair, unsigned i, uint64_t *first) {
    uint64_t common = pair->tiles.common, runs = (common + RUN - 1) / RUN, n = runs < RUNS ? runs : RUNS;
    if (i >= n) return 0;
    *first = runs * i / n * RUN;
    return common - *first < RUN ? common - *first : RUN;
}

/* Adds a run to what is coded exactly. */
static dz_rc keep_run(sampler *s, const dz_tile *run, dz_dtype base_dtype, dz_error *err) {
    size_t size = dz_dtype_size(run->task_dtype), len = (size_t)run->count * size;
    if (dz_buf_put(&s->words, run->task, len, err) != DZ_OK) return err->rc;
    if (base_dtype == run->task_dtype) return dz_buf_put(&s->predictor, s->base.data, len, err);
    if (dz_buf_reserve(&s->predictor, len, err) != DZ_OK) return err->rc;
    dz_kernels()->narrow(s->predictor.data + s->predictor.len, (const float *)(const void *)s->wide.data, run->task_dtype,
                         (size_t)run->count);
    s->predictor.len += len;
    return DZ_OK;
}

static dz_rc sample_tensor(sampler *s, const dz_tensor_pair *pair, dz_forecast_tensor *out, dz_error *err) {
    dz_piece_measures m = DZ_PIECE_MEASURES_NONE;
    uint64_t first = 0, count;
    dz_dtype dtype = s->zoo->tasks[pair->task]->tensors[pair->tensor].dtype, base_dtype = s->zoo->base->tensors[pair->base].dtype;
    s->words.len = s->predictor.len = s->body.len = 0;
    for (unsigned i = 0; (count = run_of(pair, i, &first)) > 0; i++) {
        dz_tile run;
        if (read_run(s, pair, first, count, &run, err) != DZ_OK || keep_run(s, &run, base_dtype, err) != DZ_OK) return err->rc;
        dz_piece_measure(&run, 1, &m);
        dz_piece_measure_base(&run, &m);
    }
    out->stats.range = m.delta.range;
    if (m.count == 0) return DZ_OK;
    double scale = (double)pair->tiles.common / (double)m.count;
    out->stats.abs_sum = scale * dz_lanes_total(m.delta.sums);
    out->stats.delta_energy = scale * dz_lanes_total(m.delta.sums + DZ_LANES);
    out->stats.base_energy = scale * dz_lanes_total(m.base);
    out->stats.changed = scale * (double)m.delta.changed;
    if (dz_lossless_encode(&s->body, s->words.data, s->predictor.data, dtype, (size_t)m.count, NULL, err) != DZ_OK) return err->rc;
    out->stats.exact_bits = scale * fmin(dz_measures_exact_bits(&m), 8 * (double)s->body.len);
    out->stats.base_max = (double)m.base_max;
    return DZ_OK;
}

/* Members of each level, by the sample. */
static dz_rc sample_levels(sampler *s, const dz_tensor_pair *pair, const dz_grid_levels *grid, uint64_t *histogram, dz_error *err) {
    uint64_t first = 0, count, total = 0;
    for (unsigned i = 0; (count = run_of(pair, i, &first)) > 0; i++) {
        dz_tile run;
        s->levels.len = 0;
        if (read_run(s, pair, first, count, &run, err) != DZ_OK || dz_buf_reserve(&s->levels, count, err) != DZ_OK) return err->rc;
        dz_piece_levels(&run, grid, s->levels.data);
        dz_kernels()->count(histogram, s->levels.data, grid->bits, count);
        total += count;
    }
    for (size_t g = 0; total && g < (size_t)1 << grid->bits; g++)
        histogram[g] = (uint64_t)((double)histogram[g] * (double)pair->tiles.common / (double)total);
    return DZ_OK;
}

/* Elements beyond the base, and tensors without one, at two thirds of their bytes. */
static double bytes_beyond(const dz_plan *plan, const dz_tensor_pair *pair) {
    double size = (double)dz_dtype_size(dz_pair_tensor(plan, pair)->dtype);
    return (double)(pair->count - pair->tiles.common) * size * 2 / 3;
}

static dz_rc allocate_task(sampler *s, const dz_method *method, size_t task, dz_forecast *out, dz_error *err) {
    const dz_plan *plan = s->plan;
    size_t n = plan->first_pair[task + 1] - plan->first_pair[task];
    const dz_recipe *recipe = dz_zoo_recipe(s->zoo, task);
    int gated = dz_plan_is_gated(plan);
    dz_method_task t = {.recipe = recipe, .level = method->first_level(recipe)};
    dz_grid_levels *grids = dz_alloc(n, sizeof *grids, err);
    uint64_t *histograms = dz_alloc(method->levels ? n * DZ_MAX_LEVELS : 0, sizeof *histograms, err);
    t.tensors = dz_alloc(n, sizeof *t.tensors, err);
    for (size_t k = 0; k < n && err->rc == DZ_OK; k++) {
        const dz_tensor_pair *pair = &plan->pairs[plan->first_pair[task] + k];
        dz_forecast_tensor *f = &out->tensors[plan->first_pair[task] + k];
        if (pair->lossy < 0 || !dz_range_finite(f->stats.range)) continue;
        if (recipe->quality == DZ_QUALITY_LOSSLESS) {
            f->coding.bytes = (double)INFINITY;
            continue;
        }
        grids[k] = dz_grid_levels_over(dz_from_ordered(f->stats.range.lo), dz_from_ordered(f->stats.range.hi), (unsigned)pair->bits);
        if (method->grid) method->grid(pair, &f->stats, &grids[k]);
        if (method->levels && sample_levels(s, pair, &grids[k], histograms + k * DZ_MAX_LEVELS, err) != DZ_OK) break;
        t.tensors[t.n++] = (dz_method_tensor){.pair = pair,
                                              .tensor = dz_pair_tensor(plan, pair),
                                              .stats = &f->stats,
                                              .grid = &grids[k],
                                              .kind = dz_plan_kind(plan, pair),
                                              .gated = gated,
                                              .shape = dz_shape_of(&out->shapes, pair),
                                              .inputs = dz_method_inputs(plan, pair),
                                              .histogram = histograms + (method->levels ? k * DZ_MAX_LEVELS : 0),
                                              .coding = &f->coding};
    }
    if (err->rc == DZ_OK && t.n) method->allocate(&t, err);
    free(t.tensors);
    free(grids);
    free(histograms);
    return err->rc;
}

/* As dz_settle decides: each tensor by itself, or all of a task. */
static void settle_task(const dz_plan *plan, const dz_recipe *recipe, size_t task, const dz_forecast *out) {
    double exact = 0, now = 0;
    for (size_t i = plan->first_pair[task]; i < plan->first_pair[task + 1]; i++) {
        dz_forecast_tensor *f = &out->tensors[i];
        if (plan->pairs[i].lossy < 0) continue;
        f->exact = f->stats.exact_bits / 8 <= f->coding.bytes;
        exact += f->stats.exact_bits / 8;
        now += fmin(f->stats.exact_bits / 8, f->coding.bytes);
    }
    for (size_t i = plan->first_pair[task]; i < plan->first_pair[task + 1]; i++) {
        if (plan->pairs[i].lossy >= 0 && exact <= dz_exact_allowance(recipe) * now) out->tensors[i].exact = 1;
    }
}

static void sum_task(const dz_plan *plan, const dz_recipe *recipe, size_t task, dz_forecast *out) {
    dz_forecast_task *sum = &out->tasks[task];
    dz_noise_sum noise = {0};
    settle_task(plan, recipe, task, out);
    for (size_t i = plan->first_pair[task]; i < plan->first_pair[task + 1]; i++) {
        const dz_tensor_pair *pair = &plan->pairs[i];
        dz_forecast_tensor *f = &out->tensors[i];
        double nbytes = (double)dz_pair_tensor(plan, pair)->nbytes;
        int stored = pair->policy == DZ_POLICY_LOSSLESS || pair->policy == DZ_POLICY_ULTRADELTA;
        f->exact_bytes = pair->policy == DZ_POLICY_TIED ? 0 : bytes_beyond(plan, pair) + f->stats.exact_bits / 8;
        f->bytes = !stored ? 0 : pair->lossy >= 0 && !f->exact ? bytes_beyond(plan, pair) + f->coding.bytes : f->exact_bytes;
        sum->source += nbytes;
        sum->stored += f->bytes + BYTES_OF_ROW;
        sum->exact += f->exact_bytes + BYTES_OF_ROW;
        sum->turned_exact += (size_t)f->exact;
        if (pair->lossy < 0 || f->exact) continue;
        sum->lossy_source += nbytes;
        sum->lossy_stored += f->bytes + BYTES_OF_ROW;
        dz_noise_add(&noise, f->coding.noise, f->stats.delta_energy, f->stats.base_energy);
    }
    sum->quality = dz_quality_of(&noise);
}

dz_rc dz_forecast_make(const dz_zoo *zoo, const dz_plan *plan, dz_forecast *out, dz_error *err) {
    sampler s = {.zoo = zoo, .plan = plan};
    const dz_method *method = dz_method_of(zoo->recipe->method);
    out->tensors = dz_alloc(plan->npairs, sizeof *out->tensors, err);
    out->tasks = dz_alloc(plan->ntasks, sizeof *out->tasks, err);
    if (err->rc == DZ_OK) dz_shapes_sample(zoo, plan, method, &out->shapes, err);
    for (size_t i = 0; i < plan->npairs && err->rc == DZ_OK; i++) {
        const dz_tensor_pair *pair = &plan->pairs[i];
        const dz_tensor *t = dz_pair_tensor(plan, pair);
        int floats = pair->base >= 0 && dz_dtype_is_float(t->dtype) && dz_dtype_is_float(plan->base->tensors[pair->base].dtype);
        if (floats && pair->policy != DZ_POLICY_TIED)
            sample_tensor(&s, pair, &out->tensors[i], err);
        else if (pair->base >= 0) /* integers: as they are, or equal */
            out->tensors[i].stats.exact_bits = 8.0 * (double)t->nbytes * 2 / 3;
    }
    for (size_t t = 0; t < plan->ntasks && err->rc == DZ_OK; t++) {
        if (allocate_task(&s, method, t, out, err) == DZ_OK) sum_task(plan, dz_zoo_recipe(zoo, t), t, out);
    }
    dz_buf_free(&s.task);
    dz_buf_free(&s.base);
    dz_buf_free(&s.wide);
    dz_buf_free(&s.levels);
    dz_buf_free(&s.words);
    dz_buf_free(&s.predictor);
    dz_buf_free(&s.body);
    return err->rc;
}

dz_rc dz_forecast_again(const dz_zoo *zoo, const dz_plan *plan, dz_forecast *out, dz_error *err) {
    sampler s = {.zoo = zoo, .plan = plan};
    const dz_method *method = dz_method_of(zoo->recipe->method);
    for (size_t t = 0; t < plan->ntasks && err->rc == DZ_OK; t++) {
        out->tasks[t] = (dz_forecast_task){0};
        if (allocate_task(&s, method, t, out, err) == DZ_OK) sum_task(plan, dz_zoo_recipe(zoo, t), t, out);
    }
    return err->rc;
}

void dz_forecast_free(dz_forecast *f) {
    free(f->tensors);
    free(f->tasks);
    dz_shapes_free(&f->shapes);
    *f = (dz_forecast){0};
}

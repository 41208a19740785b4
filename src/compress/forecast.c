#include "compress/forecast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/lossless.h"
#include "codec/prediction.h"
#include "compress/settle.h"
#include "compress/tile_reader.h"

#define RUN 16384 /* elements read at a time */
#define RUNS 16   /* of a tensor */

#define MOST_LEFT 1.5     /* by a prediction, over the noise: more needs more than a bit an element in too many blocks, about */
#define BOUND 1.15        /* noise of messages over the least that any code has; blocks of different energies */
#define BYTES_OF_ROW 40.0 /* a tensor's part of index and structures, about */

typedef struct sampler {
    const dz_zoo *zoo;
    const dz_plan *plan;
    dz_buf task, base, wide, levels;
    dz_buf words, predictor, body; /* a tensor's runs, one after the other, and their exact coding */
} sampler;

/* What a pair's elements are compared with: a tensor of the base or of the parent's model. */
typedef struct reference {
    dz_checkpoint *model; /* NULL: none */
    size_t tensor;
} reference;

static reference base_of(const sampler *s, const dz_tensor_pair *pair) {
    return (reference){.model = s->zoo->base, .tensor = (size_t)pair->base};
}

/* The tensor of the parent's model that the pair's would be coded against, if it has one of the same kind. */
static reference parent_of(const sampler *s, const dz_forecast *f, const dz_tensor_pair *pair) {
    const dz_tensor *t = dz_pair_tensor(s->plan, pair);
    reference r = {.model = f->up[pair->task] >= 0 ? s->zoo->tasks[f->up[pair->task]] : NULL};
    int64_t at = r.model ? dz_checkpoint_find(r.model, t->name) : -1;
    if (at < 0 || !dz_same_kind(&r.model->tensors[at], t) || (pair->lossy >= 0 && pair->tiles.extra.ntiles)) r.model = NULL;
    r.tensor = (size_t)at;
    return r;
}

/* A run of elements of a pair as a piece of a tile: what they are compared with in float. */
static dz_rc read_run(sampler *s, const dz_tensor_pair *pair, reference from, uint64_t first, uint64_t count, dz_tile *out, dz_error *err) {
    dz_checkpoint *task = s->zoo->tasks[pair->task];
    const dz_tensor *t = &task->tensors[pair->tensor], *b = &from.model->tensors[from.tensor];
    size_t size = dz_dtype_size(t->dtype), base_size = dz_dtype_size(b->dtype);
    s->task.len = s->base.len = s->wide.len = 0;
    if (dz_buf_reserve(&s->task, count * size, err) != DZ_OK || dz_buf_reserve(&s->base, count * base_size, err) != DZ_OK ||
        dz_buf_reserve(&s->wide, count * sizeof(float), err) != DZ_OK ||
        dz_checkpoint_read(task, pair->tensor, first * size, count * size, s->task.data, err) != DZ_OK ||
        dz_checkpoint_read(from.model, from.tensor, first * base_size, count * base_size, s->base.data, err) != DZ_OK)
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

static dz_rc sample_against(sampler *s, const dz_tensor_pair *pair, reference from, dz_tensor_stats *out, dz_error *err) {
    dz_piece_measures m = DZ_PIECE_MEASURES_NONE;
    uint64_t first = 0, count;
    dz_dtype dtype = s->zoo->tasks[pair->task]->tensors[pair->tensor].dtype, base_dtype = from.model->tensors[from.tensor].dtype;
    s->words.len = s->predictor.len = s->body.len = 0;
    for (unsigned i = 0; (count = run_of(pair, i, &first)) > 0; i++) {
        dz_tile run;
        if (read_run(s, pair, from, first, count, &run, err) != DZ_OK || keep_run(s, &run, base_dtype, err) != DZ_OK) return err->rc;
        dz_piece_measure(&run, 1, &m);
        dz_piece_measure_base(&run, &m);
    }
    out->range = m.delta.range;
    if (m.count == 0) return DZ_OK;
    double scale = (double)pair->tiles.common / (double)m.count;
    out->abs_sum = scale * dz_lanes_total(m.delta.sums);
    out->step = out->whole = out->delta_energy = scale * dz_lanes_total(m.delta.sums + DZ_LANES);
    out->base_energy = scale * dz_lanes_total(m.base);
    out->changed = scale * (double)m.delta.changed;
    if (dz_lossless_encode(&s->body, s->words.data, s->predictor.data, dtype, (size_t)m.count, NULL, err) != DZ_OK) return err->rc;
    out->exact_bits = scale * fmin(dz_measures_exact_bits(&m), 8 * (double)s->body.len);
    out->base_max = (double)m.base_max;
    return DZ_OK;
}

/* What is forecast of the parent's tensor. */
static const dz_forecast_tensor *forecast_of(const dz_plan *plan, const dz_forecast *f, size_t task, size_t tensor) {
    for (size_t i = plan->first_pair[task]; i < plan->first_pair[task + 1]; i++) {
        if (plan->pairs[i].tensor == tensor) return &f->tensors[i];
    }
    return NULL;
}

/* Against the parent, where that is expected to be better: as sum_tiles of the first pass decides. The parent comes with noise of energy E,
 * which what is coded has too: S + E in place of the step's S, and half of log2((S + E) / S) bits an element more if it is coded exactly.
 */
static dz_rc sample_parent(sampler *s, const dz_tensor_pair *pair, reference parent, const dz_forecast *out, dz_tensor_stats *stats,
                           dz_error *err) {
    const dz_recipe *recipe = dz_zoo_recipe(s->zoo, pair->task);
    const dz_forecast_tensor *f = forecast_of(s->plan, out, (size_t)out->up[pair->task], parent.tensor);
    dz_tensor_stats own = {0};
    if (sample_against(s, pair, parent, &own, err) != DZ_OK || !dz_range_finite(own.range)) return err->rc;
    own.chained = 1;
    own.whole = stats->delta_energy;
    own.base_energy = stats->base_energy;
    own.base_max = stats->base_max;
    own.old = f ? f->off : 0;
    if (own.old > 0 && own.step > 0) own.exact_bits += (double)pair->tiles.common * log2(1 + own.old / own.step) / 2;
    own.delta_energy += own.old;
    int exact = pair->lossy < 0 || recipe->quality == DZ_QUALITY_LOSSLESS;
    if (exact ? own.exact_bits < stats->exact_bits : dz_chain_is_better(dz_method_of(recipe->method), recipe, &own)) *stats = own;
    return DZ_OK;
}

static dz_rc sample_tensor(sampler *s, const dz_tensor_pair *pair, const dz_forecast *out, dz_tensor_stats *stats, dz_error *err) {
    reference parent = parent_of(s, out, pair);
    if (sample_against(s, pair, base_of(s, pair), stats, err) != DZ_OK || !parent.model || !dz_range_finite(stats->range)) return err->rc;
    return sample_parent(s, pair, parent, out, stats, err);
}

/* Members of each level, by the sample. */
static dz_rc sample_levels(sampler *s, const dz_tensor_pair *pair, reference from, const dz_grid_levels *grid, uint64_t *histogram,
                           dz_error *err) {
    uint64_t first = 0, count, total = 0;
    for (unsigned i = 0; (count = run_of(pair, i, &first)) > 0; i++) {
        dz_tile run;
        s->levels.len = 0;
        if (read_run(s, pair, from, first, count, &run, err) != DZ_OK || dz_buf_reserve(&s->levels, count, err) != DZ_OK) return err->rc;
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

/* Whole rows of a run; the first element of the first one. */
static size_t rows_of_run(uint64_t first, uint64_t count, uint64_t columns, uint64_t *begin) {
    *begin = (first + columns - 1) / columns * columns;
    return *begin < first + count ? (size_t)((first + count - *begin) / columns) : 0;
}

/* Deltas of the whole rows in the runs, nrows of them: every fourth one in the last quarter. */
static dz_rc take_rows(sampler *s, const dz_tensor_pair *pair, size_t nrows, size_t columns, float *rows, dz_error *err) {
    uint64_t first = 0, count, begin;
    size_t k = 0;
    for (unsigned i = 0; (count = run_of(pair, i, &first)) > 0; i++) {
        dz_tile run;
        size_t n = rows_of_run(first, count, columns, &begin);
        if (read_run(s, pair, base_of(s, pair), first, count, &run, err) != DZ_OK) return err->rc;
        for (size_t r = 0; r < n && k < nrows; r++, k++)
            dz_tile_delta(&run, (size_t)(begin - first) + r * columns, columns,
                          rows + (k % 4 == 3 ? nrows * 3 / 4 + k / 4 : k - k / 4) * columns);
    }
    return err->rc;
}

/* What factors by row and predictions will make of a vocabulary's noise, and their bytes (METHODS.md "Predictions of embeddings"). */
static dz_rc expect_shape(sampler *s, const dz_tensor_pair *pair, const dz_forecast_tensor *f, dz_shape *out, dz_error *err) {
    const dz_tensor *t = dz_pair_tensor(s->plan, pair);
    double noise = dz_vocabulary_noise(dz_zoo_recipe(s->zoo, pair->task), pair, &f->stats), bits = 0;
    uint64_t first = 0, count, begin, columns = t->shape[1];
    size_t nrows = 0;
    *out = (dz_shape){.spread = 1, .share = 1, .factors = 1, .bytes = DZ_ROW_CODE_BYTES * (double)t->shape[0]};
    for (unsigned i = 0; (count = run_of(pair, i, &first)) > 0; i++) nrows += rows_of_run(first, count, columns, &begin);
    nrows -= nrows % 4;
    if (!isfinite(noise) || nrows == 0) return DZ_OK;
    float *rows = dz_alloc_raw(nrows * (size_t)columns, sizeof *rows, err);
    if (rows) take_rows(s, pair, nrows, (size_t)columns, rows, err);
    for (double share = DZ_PREDICTED_SHARE; share <= 1 && out->rate == 0 && err->rc == DZ_OK; share /= DZ_PREDICTED_SHARE) {
        double left = 1, most = share * noise;
        dz_prediction_expect(rows, nrows, (size_t)columns, (size_t)dz_tile_count(&pair->tiles, 0), most, &left, &bits, err);
        if (left == 1 || left > MOST_LEFT * most) continue;
        out->predicted = out->spread = out->share = most;
        out->rate = log2(1 + left * BOUND / most) / 2;
        out->bytes += bits / 8 * (double)pair->tiles.common;
    }
    free(rows);
    return err->rc;
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
    dz_shape *expected = dz_alloc(n, sizeof *expected, err);
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
        reference from = f->stats.chained ? parent_of(s, out, pair) : base_of(s, pair);
        if (method->levels && sample_levels(s, pair, from, &grids[k], histograms + k * DZ_MAX_LEVELS, err) != DZ_OK) break;
        const dz_shape *shape = dz_shape_of(&out->shapes, pair);
        if (pair->vocabulary && method->rotates && isnan(pair->sparsity) && !f->stats.chained) {
            if (expect_shape(s, pair, f, &expected[k], err) != DZ_OK) break;
            shape = &expected[k];
        }
        t.tensors[t.n++] = (dz_method_tensor){.pair = pair,
                                              .tensor = dz_pair_tensor(plan, pair),
                                              .stats = &f->stats,
                                              .grid = &grids[k],
                                              .kind = dz_plan_kind(plan, pair),
                                              .gated = gated,
                                              .shape = shape,
                                              .inputs = dz_method_inputs(plan, pair),
                                              .histogram = histograms + (method->levels ? k * DZ_MAX_LEVELS : 0),
                                              .coding = &f->coding};
    }
    if (err->rc == DZ_OK && t.n) method->allocate(&t, err);
    free(t.tensors);
    free(expected);
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
        dz_energies *sum_of = pair->vocabulary ? &noise.vocabulary : &noise.body;
        sum->lossy_source += nbytes;
        sum->lossy_stored += f->bytes + BYTES_OF_ROW;
        f->off = dz_chain_error(&f->stats, f->stats.chained ? (double)f->coding.kept : 1, f->coding.noise.nsr, f->coding.noise.gain);
        if (f->stats.chained) /* of the whole delta from the base, as in the index */
            dz_noise_add(sum_of, (dz_noise){.nsr = f->stats.whole > 0 ? f->off / f->stats.whole : 0, .gain = 1}, f->stats.whole,
                         f->stats.base_energy);
        else
            dz_noise_add(sum_of, f->coding.noise, f->stats.delta_energy, f->stats.base_energy);
    }
    sum->quality = dz_quality_of(&noise);
}

static dz_rc sample_task(sampler *s, size_t task, dz_forecast *out, dz_error *err) {
    const dz_plan *plan = s->plan;
    for (size_t i = plan->first_pair[task]; i < plan->first_pair[task + 1] && err->rc == DZ_OK; i++) {
        const dz_tensor_pair *pair = &plan->pairs[i];
        const dz_tensor *t = dz_pair_tensor(plan, pair);
        int floats = pair->base >= 0 && dz_dtype_is_float(t->dtype) && dz_dtype_is_float(plan->base->tensors[pair->base].dtype);
        if (floats && pair->policy != DZ_POLICY_TIED)
            sample_tensor(s, pair, out, &out->tensors[i].stats, err);
        else if (pair->base >= 0) /* integers: as they are, or equal */
            out->tensors[i].stats.exact_bits = 8.0 * (double)t->nbytes * 2 / 3;
    }
    return err->rc;
}

/* Which task has which as its parent, and an order in which parents come first. */
static dz_rc order_tasks(const dz_zoo *zoo, const dz_plan *plan, const dz_generations *g, dz_forecast *out, dz_error *err) {
    size_t n = 0, last = g && g->n ? g->n : 1;
    out->up = dz_alloc(plan->ntasks, sizeof *out->up, err);
    out->order = dz_alloc(plan->ntasks, sizeof *out->order, err);
    for (size_t at = 0; at < last && err->rc == DZ_OK; at++) {
        for (size_t t = 0; t < plan->ntasks; t++) {
            size_t m = g && g->of ? dz_zoo_in_manifest(zoo, t) : DZ_NOT_IN_MANIFEST;
            if ((m == DZ_NOT_IN_MANIFEST || g->of[m] < 0 ? 0 : (size_t)g->of[m]) != at) continue;
            out->order[n++] = t;
            out->up[t] = -1;
            for (size_t p = 0; m != DZ_NOT_IN_MANIFEST && g->parent[m] && p < plan->ntasks; p++) {
                if (strcmp(zoo->names[p], g->parent[m]) == 0) out->up[t] = (int64_t)p;
            }
        }
    }
    return err->rc;
}

dz_rc dz_forecast_make(const dz_zoo *zoo, const dz_plan *plan, const dz_generations *generations, dz_forecast *out, dz_error *err) {
    sampler s = {.zoo = zoo, .plan = plan};
    const dz_method *method = dz_method_of(zoo->recipe->method);
    out->tensors = dz_alloc(plan->npairs, sizeof *out->tensors, err);
    out->tasks = dz_alloc(plan->ntasks, sizeof *out->tasks, err);
    if (err->rc == DZ_OK) order_tasks(zoo, plan, generations, out, err);
    if (err->rc == DZ_OK) dz_shapes_sample(zoo, plan, method, &out->shapes, err);
    for (size_t i = 0; i < plan->ntasks && err->rc == DZ_OK; i++) {
        size_t t = out->order[i];
        if (sample_task(&s, t, out, err) == DZ_OK && allocate_task(&s, method, t, out, err) == DZ_OK)
            sum_task(plan, dz_zoo_recipe(zoo, t), t, out);
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
    free(f->up);
    free(f->order);
    dz_shapes_free(&f->shapes);
    *f = (dz_forecast){0};
}

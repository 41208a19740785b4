#include "compress/model_diff.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/fused.h"
#include "parallel/progress.h"

enum { CHANGED, DELTA, BASE, SUMS }; /* of a tile */
enum { ENERGY, EFFECTIVE, STABLE, SIGNIFICANT, LOW, ROWS, COLS, RANKS };

#define MOST_COLS ((uint64_t)32768) /* of the rows whose spectrum is taken */

typedef struct work {
    const dz_world *world;
    dz_model_diff *diff;
    dz_checkpoint *base, *model;
    dz_buf task, raw, same_type, wide; /* elements of the model; of the base: as they are, in the model's dtype, in float */
    dz_progress *progress;
} work;

/* The base's elements [first, first + count) in the model's dtype: raw, and for float dtypes also widened, as the model's are. */
static dz_rc read_both(work *w, const dz_tensor_pair *pair, uint64_t first, size_t count, dz_error *err) {
    const dz_tensor *t = &w->model->tensors[pair->tensor], *b = &w->base->tensors[pair->base];
    size_t size = dz_dtype_size(t->dtype), base_size = dz_dtype_size(b->dtype);
    w->task.len = w->raw.len = w->same_type.len = w->wide.len = 0;
    if (dz_buf_reserve(&w->task, count * size, err) != DZ_OK || dz_buf_reserve(&w->raw, count * base_size, err) != DZ_OK ||
        dz_buf_reserve(&w->same_type, count * size, err) != DZ_OK || dz_buf_reserve(&w->wide, count * sizeof(float), err) != DZ_OK ||
        dz_checkpoint_read(w->model, pair->tensor, first * size, count * size, w->task.data, err) != DZ_OK ||
        dz_checkpoint_read(w->base, (size_t)pair->base, first * base_size, count * base_size, w->raw.data, err) != DZ_OK)
        return err->rc;
    float *wide = (float *)(void *)w->wide.data;
    if (strcmp(t->dtype_name, b->dtype_name) == 0) {
        memcpy(w->same_type.data, w->raw.data, count * size);
    } else {
        dz_kernels()->widen(wide, w->raw.data, b->dtype, count);
        dz_kernels()->narrow(w->same_type.data, wide, t->dtype, count);
    }
    if (dz_dtype_is_float(t->dtype)) dz_kernels()->widen(wide, w->same_type.data, t->dtype, count);
    return DZ_OK;
}

static uint64_t differing(const uint8_t *a, const uint8_t *b, size_t size, size_t count) {
    uint64_t n = 0;
    for (size_t i = 0; i < count; i++) n += memcmp(a + i * size, b + i * size, size) != 0;
    return n;
}

/* A piece at a time, so that what is read stays in the cache. */
static dz_rc measure_tile(work *w, const dz_tensor_pair *pair, uint64_t first, uint64_t count, double sums[SUMS], dz_error *err) {
    const dz_tensor *t = &w->model->tensors[pair->tensor];
    dz_measures delta = DZ_MEASURES_NONE;
    double base[DZ_LANES] = {0};
    size_t size = dz_dtype_size(t->dtype);
    for (uint64_t at = 0; at < count; at += DZ_PIECE) {
        size_t len = (size_t)(count - at < DZ_PIECE ? count - at : DZ_PIECE);
        if (read_both(w, pair, first + at, len, err) != DZ_OK) return err->rc;
        uint64_t changed = memcmp(w->task.data, w->same_type.data, len * size) ? differing(w->task.data, w->same_type.data, size, len) : 0;
        const float *wide = (const float *)(const void *)w->wide.data;
        sums[CHANGED] += (double)changed;
        if (!dz_dtype_is_float(t->dtype)) continue;
        if (changed) dz_kernels()->measure(&delta, 0, w->task.data, t->dtype, wide, len);
        dz_kernels()->energy(base, wide, len);
    }
    sums[DELTA] = dz_lanes_total(delta.sums + DZ_LANES);
    sums[BASE] = dz_lanes_total(base);
    return DZ_OK;
}

/* Rows spread evenly over the first matrix of a tensor. */
static dz_rc measure_rank(work *w, const dz_tensor_pair *pair, double out[RANKS], dz_error *err) {
    const dz_tensor *t = &w->model->tensors[pair->tensor];
    dz_matrix_view view = dz_plan_view(w->diff->plan, pair);
    size_t rows = (size_t)(view.rows < DZ_SPECTRUM_ROWS ? view.rows : DZ_SPECTRUM_ROWS);
    size_t cols = (size_t)(view.cols < MOST_COLS ? view.cols : MOST_COLS);
    int twice = strcmp(t->dtype_name, w->base->tensors[pair->base].dtype_name) != 0; /* both sides were rounded */
    float *delta = dz_alloc_raw(rows * cols, sizeof *delta, err);
    double *noise = dz_alloc(rows + cols, sizeof *noise, err);
    dz_spectrum s = {0};
    for (size_t i = 0; i < rows && err->rc == DZ_OK; i++) {
        float *d = delta + i * cols;
        if (read_both(w, pair, view.rows * i / rows * view.cols, cols, err) != DZ_OK) break;
        const float *base = (const float *)(const void *)w->wide.data;
        dz_kernels()->widen(d, w->task.data, t->dtype, cols);
        for (size_t k = 0; k < cols; k++) {
            double variance = (twice ? 2 : 1) * dz_rounding_variance(d[k], t->dtype);
            noise[i] += variance;
            noise[rows + k] += variance;
            d[k] -= base[k];
        }
    }
    if (err->rc == DZ_OK) dz_spectrum_of(delta, rows, cols, noise, noise + rows, &s, err);
    free(delta);
    free(noise);
    const double figures[RANKS] = {s.energy,           s.effective,    s.stable,      (double)s.significant,
                                   (double)s.low_rank, (double)s.rows, (double)s.cols};
    memcpy(out, figures, sizeof figures);
    return err->rc;
}

/* The tiles that a pair shares with its base; none of a tied one. */
static dz_pair_tiles tiles_of(const dz_model_diff *d, const dz_tensor_pair *pair) {
    if (pair->base < 0 || pair->policy == DZ_POLICY_TIED) return (dz_pair_tiles){0};
    const dz_tensor *t = dz_pair_tensor(d->plan, pair), *b = &d->plan->base->tensors[pair->base];
    return dz_pair_tiles_of(b->count, dz_common_elements(t, b), t->count);
}

static int has_rank(const dz_model_diff *d, const dz_tensor_pair *pair) {
    if (pair->base < 0 || pair->policy == DZ_POLICY_TIED || !dz_dtype_is_float(dz_pair_tensor(d->plan, pair)->dtype)) return 0;
    dz_matrix_view view = dz_plan_view(d->plan, pair);
    return d->plan->roles[pair->base].place == DZ_PLACE_BODY && view.rows > 1 && view.cols > 1 && view.count > 0;
}

/* Every tile is one rank's, and so is every spectrum: sums over ranks add zeros only, and what is added up afterwards is in the order of
 * the tensors. */
static dz_rc walk(work *w, double *sums, double *ranks, dz_error *err) {
    const dz_plan *plan = w->diff->plan;
    uint64_t number = 0, mine = (uint64_t)w->world->rank, size = (uint64_t)w->world->size;
    for (size_t i = 0; i < plan->npairs && err->rc == DZ_OK; i++) {
        const dz_tensor_pair *pair = &plan->pairs[i];
        dz_pair_tiles tiles = tiles_of(w->diff, pair);
        size_t bytes = dz_dtype_size(dz_pair_tensor(plan, pair)->dtype);
        for (uint32_t tile = 0; tile < tiles.ncommon && err->rc == DZ_OK; tile++, sums += SUMS) {
            if (number++ % size != mine || dz_progress_check(w->progress, err) != DZ_OK) continue;
            measure_tile(w, pair, dz_tile_first(&tiles, tile), dz_tile_count(&tiles, tile), sums, err);
            dz_progress_add(w->progress, (double)(dz_tile_count(&tiles, tile) * bytes));
        }
        if (err->rc == DZ_OK && has_rank(w->diff, pair) && number++ % size == mine) measure_rank(w, pair, ranks + i * RANKS, err);
    }
    return err->rc;
}

static void take_figures(dz_model_diff *d, const double *sums, const double *ranks) {
    for (size_t i = 0; i < d->plan->npairs; i++) {
        const dz_tensor_pair *pair = &d->plan->pairs[i];
        dz_pair_tiles tiles = tiles_of(d, pair);
        dz_tensor_diff *t = &d->tensors[i];
        t->tied = pair->policy == DZ_POLICY_TIED;
        t->common = tiles.common;
        for (uint32_t tile = 0; tile < tiles.ncommon; tile++, sums += SUMS) {
            t->changed += (uint64_t)sums[CHANGED];
            t->delta_energy += sums[DELTA];
            t->base_energy += sums[BASE];
        }
        const double *r = ranks + i * RANKS;
        t->ranked = has_rank(d, pair);
        if (t->ranked)
            t->spectrum = (dz_spectrum){.rows = (size_t)r[ROWS],
                                        .cols = (size_t)r[COLS],
                                        .energy = r[ENERGY],
                                        .effective = r[EFFECTIVE],
                                        .stable = r[STABLE],
                                        .significant = (size_t)r[SIGNIFICANT],
                                        .low_rank = (int)r[LOW]};
    }
}

static dz_rc measure(const dz_world *world, dz_model_diff *d, int quiet, dz_error *err) {
    dz_progress progress;
    work w = {.world = world, .diff = d, .base = d->zoo.base, .model = d->zoo.tasks[0], .progress = &progress};
    size_t ntiles = 0, n = d->plan->npairs;
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        dz_pair_tiles tiles = tiles_of(d, &d->plan->pairs[i]);
        ntiles += tiles.ncommon;
        total += (double)(tiles.common * dz_dtype_size(dz_pair_tensor(d->plan, &d->plan->pairs[i])->dtype));
    }
    double *sums = dz_alloc(ntiles * SUMS, sizeof *sums, err), *ranks = dz_alloc(n * RANKS, sizeof *ranks, err);
    d->tensors = dz_alloc(n, sizeof *d->tensors, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc != DZ_OK) goto out;
    dz_progress_begin(&progress, world, "diff", total, quiet);
    walk(&w, sums, ranks, err);
    dz_progress_end(&progress);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    dz_sum_f64(world, sums, ntiles * SUMS);
    dz_sum_f64(world, ranks, n * RANKS);
    take_figures(d, sums, ranks);
out:
    free(sums);
    free(ranks);
    dz_buf_free(&w.task);
    dz_buf_free(&w.raw);
    dz_buf_free(&w.same_type);
    dz_buf_free(&w.wide);
    return rc;
}

/* "math" for "models/math/" and "models/math.safetensors". */
static char *name_of(const char *path, dz_error *err) {
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    size_t from = len;
    while (from > 0 && path[from - 1] != '/') from--;
    static const char end[] = ".safetensors";
    if (len - from > strlen(end) && memcmp(path + len - strlen(end), end, strlen(end)) == 0) len -= strlen(end);
    return dz_strndup(path + from, len - from, err);
}

/* Both models are looked at before an error is reported. */
static dz_rc open_models(const dz_world *world, const char *base, const char *model, const dz_recipe_request *request, dz_model_diff *d,
                         dz_error *err) {
    dz_error other = {0};
    dz_zoo *zoo = &d->zoo;
    d->name = name_of(model, err);
    zoo->tasks = dz_alloc(1, sizeof *zoo->tasks, err);
    zoo->names = dz_alloc(1, sizeof *zoo->names, err);
    if (err->rc == DZ_OK) zoo->names[0] = d->name;
    if (err->rc == DZ_OK) zoo->ntasks = 1;
    if (dz_sync_error(world, err->rc, err) != DZ_OK) return err->rc;
    dz_checkpoint_open_all(world, base, &zoo->base, err);
    dz_checkpoint_open_all(world, model, &zoo->tasks[0], &other);
    if (other.rc != DZ_OK) dz_fail_join(err, &other);
    dz_error recipe = {0};
    dz_recipe_load(request, &zoo->recipe, &recipe);
    if (recipe.rc != DZ_OK) dz_fail_join(err, &recipe);
    return dz_sync_error(world, err->rc, err);
}

dz_rc dz_model_diff_make(const dz_world *world, const char *base, const char *model, const dz_recipe_request *request, int quiet,
                         dz_model_diff *out, dz_error *err) {
    *out = (dz_model_diff){0};
    dz_rc rc = open_models(world, base, model, request, out, err);
    if (rc != DZ_OK) return rc;
    if ((rc = dz_split_fused(world, &out->zoo, err)) != DZ_OK) return rc;
    uint8_t unmatched[1] = {0}; /* it is the result, and no error */
    rc = dz_plan_make(out->zoo.base, NULL, out->zoo.tasks, out->zoo.names, 1, out->zoo.recipe, 1, unmatched, &out->plan, err);
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK || (rc = measure(world, out, quiet, err)) != DZ_OK) return rc;
    rc = dz_diff_judge(out, err);
    if (rc == DZ_OK && world->rank == 0) rc = dz_forecast_make(&out->zoo, out->plan, NULL, &out->forecast, err);
    return dz_sync_error(world, rc, err);
}

void dz_model_diff_free(dz_model_diff *d) {
    dz_forecast_free(&d->forecast);
    dz_plan_free(d->plan);
    dz_zoo_close(&d->zoo);
    free(d->tensors);
    free(d->name);
    *d = (dz_model_diff){0};
}

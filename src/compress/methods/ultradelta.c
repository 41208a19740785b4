/* UltraDelta (arXiv 2505.13563): a uniform grid over the range, density by the spread of the levels (MSA), the same share of each level
 * kept at random (DAC), rescaled by the target density, gamma by trace norms (TNGR). */
#include <math.h>
#include <stdlib.h>

#include "compress/method.h"

/* The allocation is made of the levels, whose candidates have to reach as far as it: nearly certain by thirds, likely otherwise. */
static double most_density(const dz_recipe *r, const dz_tensor_pair *pair, double level) {
    if (!isnan(pair->sparsity)) return 1 - pair->sparsity;
    double density = level;
    if (r->allocation == DZ_ALLOCATE_THIRDS) density += r->step;
    if (r->allocation == DZ_ALLOCATE_OPTIMAL || r->target_ratio > 0) density *= 1.5;
    return density < 1 ? density : 1;
}

static double entropy_bits(const dz_method_tensor *t) { /* of an element's level */
    return (double)dz_entropy_fixed(t->histogram, (size_t)1 << t->grid->bits) / 65536 / (double)t->pair->tiles.common;
}

/* Energy of the decoded levels. */
static double level_energy(const dz_method_tensor *t) {
    double sum = 0;
    for (unsigned g = 0; g < 1U << t->grid->bits; g++) {
        double v = (double)dz_level_value(t->grid, g);
        sum += (double)t->histogram[g] * v * v;
    }
    return sum;
}

/* The error of a level is spread evenly over a step where the delta covers many; where one step is wider than the delta, nearly all
 * elements fall on the level next to zero, and the error is what this level adds. */
static dz_noise noise_of(const dz_method_tensor *t, double density, double scale) {
    double delta = t->stats->delta_energy, levels = level_energy(t), step = (double)t->grid->step;
    if (!(delta > 0)) return (dz_noise){.nsr = 0, .gain = 1};
    double even = (double)t->pair->tiles.common * step * step / 12;
    return dz_noise_sampled(density, scale, levels / delta, fmax(fabs(levels - delta), fmin(even, delta)) / delta);
}

static void code(const dz_method_tensor *t, const dz_recipe *r, double sparsity, double target) {
    dz_tensor_coding *c = t->coding;
    double n = (double)t->pair->tiles.common, bits = entropy_bits(t);
    c->kind = (uint8_t)t->grid->bits;
    c->lo = t->grid->lo;
    c->step = t->grid->step;
    c->sparsity = sparsity;
    c->scale = (float)(t->pair->factor / (1 - (r->rescale == DZ_RESCALE_TENSOR || !isnan(t->pair->sparsity) ? sparsity : target)));
    c->noise = noise_of(t, 1 - sparsity, (double)c->scale);
    c->bytes = n * (1 - sparsity) * bits / 8 * 1.02 + 24.0 * t->pair->tiles.ncommon;
}

static dz_rc allocate(const dz_method_task *task, dz_error *err) {
    const dz_recipe *r = task->recipe;
    double sparsity = 1 - task->level, step = sparsity == r->sparsity ? r->step : fmin(r->step, (1 - sparsity) / 3);
    dz_alloc_tensor *tensors = dz_alloc(task->n, sizeof *tensors, err);
    uint32_t *order = dz_alloc(task->n, sizeof *order, err), *number = dz_alloc(task->n, sizeof *number, err);
    size_t n = 0;
    for (size_t i = 0; err->rc == DZ_OK && i < task->n; i++) {
        const dz_method_tensor *t = &task->tensors[i];
        if (!isnan(t->pair->sparsity)) continue; /* its own, outside the allocation */
        number[n] = (uint32_t)i;
        tensors[n++] = (dz_alloc_tensor){.std = dz_quantised_std(t->grid, t->histogram),
                                         .count = t->pair->tiles.common,
                                         .bits_per_kept = entropy_bits(t),
                                         .sparsity = sparsity};
    }
    if (err->rc == DZ_OK && r->allocation == DZ_ALLOCATE_THIRDS) dz_allocate_thirds(tensors, n, sparsity, step, order);
    if (err->rc == DZ_OK && r->allocation == DZ_ALLOCATE_OPTIMAL) dz_allocate_optimal(tensors, n, sparsity);
    for (size_t i = 0, k = 0; err->rc == DZ_OK && i < task->n; i++) {
        int own = !isnan(task->tensors[i].pair->sparsity);
        code(&task->tensors[i], r, own ? task->tensors[i].pair->sparsity : tensors[k].sparsity, sparsity);
        k += !own;
    }
    free(tensors);
    free(order);
    free(number);
    return err->rc;
}

const dz_method DZ_ULTRADELTA = {.id = DZ_METHOD_ULTRADELTA,
                                 .name = "ultradelta",
                                 .levels = 1,
                                 .trace_norms = 1,
                                 .rates = 1,
                                 .first_level = dz_method_density_level,
                                 .most_density = most_density,
                                 .allocate = allocate,
                                 .relevel = dz_method_density_relevel};

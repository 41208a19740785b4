/* Magnitude pruning: the largest elements of each tile in fp16, not rescaled. */
#include <math.h>

#include "archive/catalog.h"
#include "codec/sparse_values.h"
#include "compress/method.h"

#define BITS_PER_VALUE 14 /* of an fp16 value after exact coding, about */

/* Share of the energy in the largest `density` of normal numbers: 2 (t phi(t) + Q(t)) with 2 Q(t) = density. */
static double normal_tail_energy(double density) {
    double low = 0, high = 40;
    if (density >= 1) return 1;
    for (int i = 0; i < 60; i++) {
        double t = (low + high) / 2;
        *(erfc(t / sqrt(2)) > density ? &low : &high) = t;
    }
    return low * sqrt(2 / acos(-1)) * exp(-low * low / 2) + density;
}

static double entropy(double p) { return p <= 0 || p >= 1 ? 0 : -p * log2(p) - (1 - p) * log2(1 - p); }

static dz_rc allocate(const dz_method_task *task, dz_error *err) {
    for (size_t i = 0; i < task->n; i++) {
        const dz_method_tensor *t = &task->tensors[i];
        dz_tensor_coding *c = t->coding;
        c->kind = DZ_BITS_VALUES;
        c->sparsity = isnan(t->pair->sparsity) ? 1 - task->level : t->pair->sparsity;
        c->scale = (float)t->pair->factor;
        double n = (double)t->pair->tiles.common, density = 1 - c->sparsity, energy = normal_tail_energy(density);
        c->noise = (dz_noise){.nsr = 0, .gain = (double)c->scale * energy}; /* what is missing is no noise: the restored delta is weaker */
        if (energy > 0) c->noise.nsr = 1 / energy - 1;
        c->bytes = n * (density * BITS_PER_VALUE + entropy(density)) / 8 + 24.0 * t->pair->tiles.ncommon;
    }
    return err->rc;
}

static dz_rc encode(dz_buf *body, const dz_method_tile *tile, uint64_t *kept, dz_error *err) {
    *kept = tile->count - (uint64_t)rint((double)tile->count * tile->coding->sparsity);
    return dz_values_encode_largest(body, tile->delta, tile->count, *kept, err);
}

const dz_method DZ_MAGNITUDE = {
    .id = DZ_METHOD_MAGNITUDE, .name = "magnitude", .first_level = dz_method_density_level, .allocate = allocate, .encode = encode};

/* Method auto: the rotated delta. At low rates the place and the sign of the largest coefficient of each section, at higher ones all
 * coefficients on a uniform grid (numeric/rate.h). Three ways to choose the rate: by a target ratio or a density (fixed rate), or by limits
 * of the noise (fixed accuracy). */
#include <math.h>

#include "archive/catalog.h"
#include "codec/sparse_signs.h"
#include "compress/method.h"
#include "numeric/gauss.h"

#define DIGITS 20 /* significant bits of a density */
#define BLOCK_BYTES 2.0
#define TILE_BYTES 9.0

/* Bits an element at which a tensor's noise weighs `weight`, for a price `price` of a bit: see METHODS.md, "Shares of the bits". The noise
 * of a normal delta at R bits is 1 / (2^(2R) - 1) of its energy at best; its slope equals -price * count / weight at the rate returned. */
static double rate_at(double price, double count, double weight) {
    double x = price * count / weight, c = 2 * log(2) / x;
    return weight > 0 ? log2(1 + c / 2 + sqrt(c + c * c / 4)) / 2 : 0;
}

/* What a tensor's noise weighs. */
static double weight_of(const dz_method_tensor *t) {
    (void)t;
    return 1;
}

static void code_signs(dz_tensor_coding *c, const dz_method_tensor *t, const dz_recipe *r, double share) {
    c->kind = DZ_BITS_SIGNS;
    c->sparsity = (double)(float)(1 - dz_significant(share, DIGITS)); /* the index holds it in f32: a reader divides a block alike */
    share = 1 - c->sparsity;
    double gain = isnan(r->gain) ? 1 : r->gain;
    c->scale = (float)dz_significant(t->pair->factor * gain / dz_gauss_mean(share), 12);
    c->noise = dz_noise_signs(share, (double)c->scale);
    c->bytes = (double)t->pair->tiles.common * dz_gauss_bits(share) / 8 + BLOCK_BYTES * ((double)t->pair->tiles.common / 65536 + 1) +
               TILE_BYTES * t->pair->tiles.ncommon;
}

static void code_at(const dz_method_tensor *t, const dz_recipe *r, double bits) {
    code_signs(t->coding, t, r, fmin(1, dz_gauss_share_of_bits(bits)));
}

/* All tensors without a rate of their own, at a price. */
static void code_all(const dz_method_task *task, double price) {
    for (size_t i = 0; i < task->n; i++) {
        const dz_method_tensor *t = &task->tensors[i];
        if (isnan(t->pair->sparsity)) code_at(t, task->recipe, rate_at(price, (double)t->pair->tiles.common, weight_of(t)));
    }
}

static double bits_of(const dz_method_task *task) { /* of the tensors without a rate of their own, an element */
    double bytes = 0, n = 0;
    for (size_t i = 0; i < task->n; i++) {
        if (!isnan(task->tensors[i].pair->sparsity)) continue;
        bytes += task->tensors[i].coding->bytes;
        n += (double)task->tensors[i].pair->tiles.common;
    }
    return n > 0 ? 8 * bytes / n : 0;
}

static int within(const dz_method_task *task, dz_noise_limits limits) {
    dz_noise_sum sum = {0};
    for (size_t i = 0; i < task->n; i++) {
        const dz_tensor_stats *s = task->tensors[i].stats;
        dz_noise noise = task->tensors[i].coding->noise;
        noise.gain = 1;
        dz_noise_add(&sum, noise, s->delta_energy, s->base_energy);
    }
    return sum.noise <= limits.to_delta * sum.delta && sum.noise <= limits.to_base * sum.base;
}

#define LOG_CHEAP 40.0   /* log2 of the price of a bit, in noise, at which next to nothing is bought, */
#define LOG_DEAR (-80.0) /* and at which all is */

static dz_rc allocate(const dz_method_task *task, dz_error *err) {
    dz_noise_limits limits = dz_recipe_limits(task->recipe);
    double low = LOG_DEAR, high = LOG_CHEAP;
    for (size_t i = 0; i < task->n; i++) {
        const dz_method_tensor *t = &task->tensors[i];
        if (!isnan(t->pair->sparsity)) code_signs(t->coding, t, task->recipe, 1 - t->pair->sparsity);
    }
    for (int i = 0; i < 40; i++) { /* the dearest price that is enough; low always is, as far as anything can be */
        double mid = (low + high) / 2;
        code_all(task, exp2(mid));
        int enough = isnan(task->level) ? within(task, limits) : bits_of(task) >= task->level;
        *(enough ? &low : &high) = mid;
    }
    code_all(task, exp2(dz_significant(low, 20)));
    return err->rc;
}

/* Bits an element; NaN: by the limits. */
static double first_level(const dz_recipe *r) {
    if (r->target_ratio > 0) return 16 / r->target_ratio; /* most models are of 16-bit numbers */
    if (r->quality != DZ_QUALITY_NONE) return (double)NAN;
    return dz_gauss_bits(1 - r->sparsity);
}

static double relevel(double level, double change) { return level * change; }

static dz_rc encode(dz_buf *body, const dz_method_tile *tile, uint64_t *kept, dz_error *err) {
    uint64_t signs[2];
    dz_signs_encode(body, tile->delta, tile->count, tile->key, 1 - tile->coding->sparsity, signs, err);
    *kept = signs[0] + signs[1];
    return err->rc;
}

const dz_method DZ_AUTO = {.id = DZ_METHOD_AUTO,
                           .name = "auto",
                           .rates = 1,
                           .first_level = first_level,
                           .allocate = allocate,
                           .relevel = relevel,
                           .encode = encode};

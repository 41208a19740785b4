/* Method auto: the rotated delta. At low rates a message for the signs of all coefficients, at higher ones all coefficients on a uniform
 * grid (numeric/rate.h). Three ways to choose the rate: by a target ratio or a density (fixed rate), or by limits
 * of the noise (fixed accuracy). */
#include <math.h>
#include <stdlib.h>

#include "archive/catalog.h"
#include "codec/prediction.h"
#include "codec/trellis.h"
#include "codec/uniform.h"
#include "compress/method.h"
#include "numeric/gauss.h"
#include "numeric/rate.h"
#include "numeric/rotate.h"
#include "numeric/trellis.h"

#define BLOCK_BYTES 2.0
#define TILE_BYTES 9.0
#define SHAPE_PAYS 0.95 /* of the noise that counts, at most, for factors by channel to be taken */

/* Bits an element at which a tensor's noise weighs `weight`, for a price `price` of a bit: see METHODS.md, "Shares of the bits". The noise
 * of a normal delta at R bits is 1 / (2^(2R) - 1) of its energy at best; its slope equals -price * count / weight at the rate returned. */
static double rate_at(double price, double count, double weight) {
    double x = price * count / weight, c = 2 * log(2) / x;
    return weight > 0 ? log2(1 + c / 2 + sqrt(c + c * c / 4)) / 2 : 0;
}

#define FLAT 24.0 /* noise to signal at which factors by kind do half of what they do where noise is small, in the exponent */

/* What a tensor's noise weighs, over that of a query projection, at a price: the squares of the factors by which more bits are worth
 * spending where noise is small. Where it is large all tensors suffer, and weights are evened out. Measured on language models, whose MLPs
 * have gates; to image models and encoders they do no good (results/choices.md). */
static double weight_of(const dz_method_tensor *t, double price) {
    static const double factors[DZ_NKINDS] = {[DZ_KIND_OTHER] = 1.5,      [DZ_KIND_Q] = 1,     [DZ_KIND_K] = 1,
                                              [DZ_KIND_V] = 2.2,          [DZ_KIND_O] = 1,     [DZ_KIND_ATTENTION_OTHER] = 1.4,
                                              [DZ_KIND_GATE] = 1.4,       [DZ_KIND_UP] = 1.7,  [DZ_KIND_DOWN] = 2.8,
                                              [DZ_KIND_MLP_OTHER] = 1.55, [DZ_KIND_CONV] = 1.5};
    if (!t->gated) return 1;
    double nsr = 1 / expm1(2 * log(2) * rate_at(price, (double)t->pair->tiles.common, 1));
    return pow(factors[t->kind], 2 / (1 + nsr / FLAT * nsr / FLAT));
}

/* The share of the delta that is restored: below 1 only where the noise is not small against the row length, over which an output averages
 * it (results/quality.md). */
static double gain_of(const dz_recipe *r, const dz_method_tensor *t, double nsr) {
    return isnan(r->gain) ? 1 / (1 + nsr / t->inputs) : r->gain;
}

static double head_bytes(const dz_method_tensor *t) {
    return BLOCK_BYTES * ((double)t->pair->tiles.common / DZ_ROTATE_BLOCK + t->pair->tiles.ncommon) + TILE_BYTES * t->pair->tiles.ncommon;
}

static void code_message(const dz_method_tensor *t, const dz_recipe *r, const dz_rate *rate) {
    dz_tensor_coding *c = t->coding;
    size_t block = t->pair->tiles.common < DZ_ROTATE_BLOCK ? (size_t)t->pair->tiles.common : DZ_ROTATE_BLOCK;
    double noise = dz_trellis_noise(rate->bits, block);
    c->kind = DZ_BITS_TRELLIS;
    c->sparsity = 0;
    c->lo = 0;
    c->step = rate->step;
    c->scale = (float)dz_significant(t->pair->factor * gain_of(r, t, noise), 12);
    c->noise = (dz_noise){.nsr = noise, .gain = (double)c->scale};
    c->bytes = head_bytes(t);
    for (uint32_t tile = 0; tile < t->pair->tiles.ncommon; tile++)
        c->bytes += (double)dz_trellis_message_bits((size_t)dz_tile_count(&t->pair->tiles, tile), rate->bits) / 8;
}

static void code_levels(const dz_method_tensor *t, const dz_recipe *r, const dz_rate *rate) {
    dz_tensor_coding *c = t->coding;
    c->kind = DZ_BITS_UNIFORM;
    c->sparsity = 0;
    c->lo = rate->shift;
    c->step = rate->step;
    c->scale = (float)dz_significant(t->pair->factor * gain_of(r, t, rate->noise) * rate->scale, 12);
    c->noise = (dz_noise){.nsr = rate->noise, .gain = (double)c->scale / rate->scale};
    c->bytes = (double)t->pair->tiles.common * rate->bits / 8 + head_bytes(t);
}

/* The share of the parent's noise that is best left as it is, where what is coded has this noise to signal: see METHODS.md, "Chains". */
static double kept_at(double nsr) { return nsr / (1 + nsr); }

/* The same of a vocabulary, whose noise goes by the rows of the reference: `nsr` is that without factors. Sets how much they make of it. */
static double kept_by_rows(const dz_method_tensor *t, double nsr, double *spread) {
    const double *q = t->shape->noise;
    double slope = q[0] - q[1], curve = q[0] - 2 * q[1] + q[2], all = nsr * curve + t->stats->old;
    double kept = all > 0 ? dz_significant(fmin(1, fmax(0, nsr * slope / all)), 12) : 0, coded = dz_chain_energy(t->stats, kept);
    double noise = (1 - kept) * (1 - kept) * q[0] + 2 * kept * (1 - kept) * q[1] + kept * kept * q[2];
    *spread = coded > 0 ? fmax(0, noise) / coded : 1;
    return kept;
}

/* At `bits` an element, without the bytes of the factors by channel. */
static void code_at(const dz_method_tensor *t, const dz_recipe *r, double bits, int shaped) {
    dz_rate rate = dz_rate_of_step(dz_rate_step_of_bits(bits));
    if (rate.uniform)
        code_levels(t, r, &rate);
    else
        code_message(t, r, &rate);
    double spread = shaped ? t->shape->spread : 1, nsr = t->coding->noise.nsr;
    t->coding->shaped = (uint8_t)shaped;
    if (t->stats->old > 0 && shaped && t->pair->vocabulary)
        t->coding->kept = (float)kept_by_rows(t, nsr, &spread);
    else
        t->coding->kept = t->stats->old > 0 ? (float)dz_significant(kept_at(nsr * spread), 12) : 0;
    t->coding->noise.nsr *= spread;
    if (!shaped) return;
    t->coding->factors = t->shape->factors;
    t->coding->bytes += t->shape->bytes + t->pair->tiles.ncommon;
}

/* A vocabulary with predictions, whose noise is known and has been held to its share of the limits. */
static void code_predicted(const dz_method_tensor *t) {
    dz_tensor_coding *c = t->coding;
    *c = (dz_tensor_coding){.kind = DZ_BITS_TRELLIS,
                            .step = (float)t->shape->rate,
                            .scale = 1,
                            .noise = {.nsr = t->shape->spread, .gain = 1},
                            .shaped = 1,
                            .factors = t->shape->factors};
    c->bytes = t->shape->rate * (double)t->pair->tiles.common / 8 + t->shape->bytes + 2 * head_bytes(t);
}

/* Fixed accuracy of an embedding or head of tokens: the least bits at which it keeps its share of the limits by itself. */
static void code_vocabulary(const dz_method_tensor *t, const dz_recipe *r, dz_noise_limits limits) {
    const dz_tensor_stats *s = t->stats;
    double whole = s->chained ? s->whole : s->delta_energy, low = -7, high = 4;
    for (int i = 0; i < 30; i++) {
        double mid = (low + high) / 2;
        code_at(t, r, exp2(mid), t->shape != NULL);
        double nsr = t->coding->noise.nsr, noise = s->chained ? dz_chain_error(s, (double)t->coding->kept, nsr, 1) : nsr * s->delta_energy;
        int within =
            noise <= DZ_VOCABULARY_SHARE * limits.to_delta * whole && noise <= DZ_VOCABULARY_SHARE * limits.to_base * s->base_energy;
        *(within ? &high : &low) = mid;
    }
    code_at(t, r, exp2(dz_significant(high, 20)), t->shape != NULL);
    if (!t->shape) t->coding->bytes += DZ_ROW_CODE_BYTES * (double)t->tensor->shape[0]; /* a forecast: they come later */
}

static void code_at_price(const dz_method_tensor *t, const dz_recipe *r, double price) {
    double n = (double)t->pair->tiles.common, weight = weight_of(t, price);
    if (t->shape && t->pair->vocabulary) {
        code_at(t, r, rate_at(price, n, weight), 1);
        return;
    }
    if (t->shape) { /* the bits of the factors come off those of the coefficients */
        double cost = 8 * t->shape->bytes / n, bits = rate_at(price, n, weight * t->shape->share);
        double left = bits > cost ? t->shape->share * bits / (bits - cost) : 1;
        if (left < SHAPE_PAYS) {
            code_at(t, r, rate_at(price, n, weight * left) - cost, 1);
            return;
        }
    }
    code_at(t, r, rate_at(price, n, weight), 0);
}

/* Tensors without a rate of their own, of one size and kind: at a price they have the same rate, noise to signal and bytes. */
typedef struct alike {
    const dz_method_tensor *one;
    size_t n;
    double delta, base; /* energies of all */
    double old, whole;  /* of the chained: of their parents' noise; of the deltas from the base, less those from the parents */
} alike;

static int by_size_and_kind(const void *x, const void *y) {
    const dz_method_tensor *a = *(const dz_method_tensor *const *)x, *b = *(const dz_method_tensor *const *)y;
    const dz_pair_tiles *ta = &a->pair->tiles, *tb = &b->pair->tiles;
    if (ta->common != tb->common) return ta->common < tb->common ? -1 : 1;
    if (ta->ncommon != tb->ncommon) return ta->ncommon < tb->ncommon ? -1 : 1;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    if (!a->shape != !b->shape) return !a->shape ? -1 : 1;
    if (a->pair->base != b->pair->base && a->shape != b->shape) return a->pair->base < b->pair->base ? -1 : 1;
    return a < b ? -1 : a > b; /* sums have one order */
}

/* Its rate is not found with those of the others. */
static int is_apart(const dz_method_task *task, const dz_method_tensor *t) {
    return !isnan(t->pair->sparsity) || (t->pair->vocabulary && isnan(task->level));
}

/* `sorted` and `groups` have room for all tensors; returns how many groups there are. */
static size_t group(const dz_method_task *task, const dz_method_tensor **sorted, alike *groups) {
    size_t n = 0, ngroups = 0;
    for (size_t i = 0; i < task->n; i++) {
        if (!is_apart(task, &task->tensors[i])) sorted[n++] = &task->tensors[i];
    }
    if (n) qsort(sorted, n, sizeof(*sorted), by_size_and_kind);
    for (size_t i = 0; i < n; i++) {
        const dz_method_tensor *t = sorted[i], *before = i ? sorted[i - 1] : NULL;
        if (!before || t->pair->tiles.common != before->pair->tiles.common || t->pair->tiles.ncommon != before->pair->tiles.ncommon ||
            t->kind != before->kind || t->shape != before->shape)
            groups[ngroups++] = (alike){.one = t};
        alike *g = &groups[ngroups - 1];
        g->n++;
        if (!(t->stats->delta_energy > 0)) continue; /* as dz_noise_add takes them */
        g->delta += t->stats->chained ? t->stats->step : t->stats->delta_energy;
        g->base += t->stats->base_energy;
        g->old += t->stats->old;
        g->whole += t->stats->chained ? t->stats->whole - t->stats->step : 0;
    }
    return ngroups;
}

/* Bits an element of the groups, as they are coded. */
static double bits_of(const alike *groups, size_t ngroups) {
    double bytes = 0, n = 0;
    for (size_t i = 0; i < ngroups; i++) {
        bytes += groups[i].one->coding->bytes * (double)groups[i].n;
        n += (double)groups[i].one->pair->tiles.common * (double)groups[i].n;
    }
    return n > 0 ? 8 * bytes / n : 0;
}

/* Whether the groups as they are coded, and `others`, keep the limits. */
static int within(const alike *groups, size_t ngroups, const dz_energies *others, dz_noise_limits limits) {
    dz_energies sum = *others;
    for (size_t i = 0; i < ngroups; i++) {
        double nsr = groups[i].one->coding->noise.nsr;
        dz_noise_add(&sum, (dz_noise){.nsr = nsr, .gain = 1}, groups[i].delta, groups[i].base);
        sum.noise += kept_at(nsr) * groups[i].old;
        sum.delta += groups[i].whole;
    }
    return sum.noise <= limits.to_delta * sum.delta && sum.noise <= limits.to_base * sum.base;
}

#define LOG_CHEAP 40.0   /* log2 of the price of a bit, in noise, at which next to nothing is bought, */
#define LOG_DEAR (-80.0) /* and at which all is */

static dz_rc allocate(const dz_method_task *task, dz_error *err) {
    dz_noise_limits limits = dz_recipe_limits(task->recipe);
    dz_energies others = {0};
    double low = LOG_DEAR, high = LOG_CHEAP;
    const dz_method_tensor **sorted = dz_alloc_raw(task->n, sizeof *sorted, err);
    alike *groups = dz_alloc_raw(task->n, sizeof *groups, err);
    if (err->rc != DZ_OK) goto out;
    for (size_t i = 0; i < task->n; i++) {
        const dz_method_tensor *t = &task->tensors[i];
        if (!is_apart(task, t)) continue;
        if (isnan(t->pair->sparsity)) {
            if (t->shape && t->shape->predicted > 0)
                code_predicted(t);
            else
                code_vocabulary(t, task->recipe, limits);
            continue;
        }
        code_at(t, task->recipe, dz_gauss_bits(1 - t->pair->sparsity), 0);
        dz_noise_add(&others, (dz_noise){.nsr = t->coding->noise.nsr, .gain = 1}, t->stats->delta_energy, t->stats->base_energy);
    }
    size_t ngroups = group(task, sorted, groups);
    for (int i = 0; i < 40; i++) { /* the dearest price that is enough; low always is, as far as anything can be */
        double mid = (low + high) / 2;
        for (size_t g = 0; g < ngroups; g++) code_at_price(groups[g].one, task->recipe, exp2(mid));
        int enough = isnan(task->level) ? within(groups, ngroups, &others, limits) : bits_of(groups, ngroups) >= task->level;
        *(enough ? &low : &high) = mid;
    }
    for (size_t i = 0; i < task->n; i++) {
        const dz_method_tensor *t = &task->tensors[i];
        if (!is_apart(task, t)) code_at_price(t, task->recipe, exp2(dz_significant(low, 20)));
    }
out:
    free(sorted);
    free(groups);
    return err->rc;
}

/* Bits an element; NaN: by the limits. */
static double first_level(const dz_recipe *r) {
    if (r->target_ratio > 0) return 16 / r->target_ratio; /* most models are of 16-bit numbers */
    if (r->quality != DZ_QUALITY_NONE) return (double)NAN;
    return dz_gauss_bits(1 - r->sparsity);
}

static double relevel(double level, double change) { return level * change; }

static int takes_fill(const dz_tensor_coding *coding) { return coding->kind == DZ_BITS_TRELLIS; }

static dz_rc encode(dz_buf *body, const dz_method_tile *tile, uint64_t *kept, dz_error *err) {
    const dz_tensor_coding *c = tile->coding;
    if (tile->channels) {
        if (tile->first == 0)
            dz_channels_put(body, tile->channels, err);
        else
            dz_buf_put(body, (uint8_t[]){DZ_BODY_CHANNELS_BEFORE}, 1, err);
        if (err->rc != DZ_OK) return err->rc;
    }
    if (tile->prediction && tile->prediction->rank) {
        dz_buf_put(body, (uint8_t[]){DZ_BODY_PREDICTED}, 1, err);
        if (dz_lowrank_put(body, tile->prediction, err) != DZ_OK) return err->rc;
    }
    if (c->kind == DZ_BITS_UNIFORM) return dz_uniform_encode(body, tile->delta, tile->count, tile->key, c->step, c->lo, kept, err);
    if (tile->noise > 0) return dz_trellis_encode_evenly(body, tile->fill, tile->source, tile->count, tile->key, tile->noise, kept, err);
    return dz_trellis_encode(body, tile->fill, tile->source, tile->count, tile->key, c->step, kept, err);
}

const dz_method DZ_AUTO = {.id = DZ_METHOD_AUTO,
                           .name = "auto",
                           .rotates = 1,
                           .rates = 1,
                           .first_level = first_level,
                           .allocate = allocate,
                           .relevel = relevel,
                           .takes_fill = takes_fill,
                           .encode = encode};

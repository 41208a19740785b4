#include "compress/settle.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "archive/catalog.h"
#include "codec/kinds.h"

#define ALLOWANCE 1.1 /* for no noise at all */

double dz_exact_allowance(const dz_recipe *r) {
    return r->method == DZ_METHOD_AUTO && r->quality != DZ_QUALITY_NONE && !(r->target_ratio > 0) ? ALLOWANCE : 0;
}

#define DOUBT 0.5 /* an estimate of the exact coding may be so much too large */

static double range_of(dz_dtype dtype) { /* largest finite value */
    return dtype == DZ_F16 ? 65504 : dtype == DZ_F8_E5M2 ? 57344 : dtype == DZ_F8_E4M3 ? 448 : (double)INFINITY;
}

#define SPREADS 6 /* standard deviations that a restored, rotated element stays within */

/* No restored delta is larger. Of a rotated delta, blocks of 65,536 elements may have all the energy of the tensor, or the largest element
 * everywhere. */
static double most_restored(const dz_tensor_pair *pair, const dz_tensor_stats *s, const dz_lossy_tensor *l, const dz_tensor_coding *c) {
    double most = fmax(fabs((double)dz_from_ordered(s->range.lo)), fabs((double)dz_from_ordered(s->range.hi)));
    double scale = fabs((double)c->scale);
    if (c->kind <= 8) {
        double top = (double)l->grid.lo + (double)l->grid.step * ((1U << l->grid.bits) - 1);
        return scale * fmax(fabs((double)l->grid.lo), l->grid.sign ? 0 : fabs(top));
    }
    if (c->kind == DZ_BITS_VALUES) return scale * most;
    double rms = sqrt(s->delta_energy / fmin(65536, (double)pair->tiles.common));
    double factors = c->shaped ? (double)c->factors : 1;
    return factors * SPREADS * c->noise.gain * sqrt(1 + c->noise.nsr) * fmin(rms, most);
}

static int may_overflow(const dz_context *ctx, const dz_tensor_pair *pair, const dz_tensor_stats *s, const dz_lossy_tensor *l,
                        const dz_tensor_coding *c) {
    double range = range_of(dz_pair_tensor(ctx->plan, pair)->dtype), sums = 2 * 65536.0; /* of a block's coefficients, in f32 */
    if (dz_kind_is_rotated(c->kind) && most_restored(pair, s, l, c) * sums > (double)FLT_MAX) return 1;
    return isfinite(range) && s->base_max + most_restored(pair, s, l, c) > range;
}

/* Codes the common tiles of the tensors that `wanted` marks exactly. This rank's bytes are added to `bytes`. */
static dz_rc code_wanted(dz_context *ctx, const uint8_t *wanted, uint64_t *bytes, dz_error *err) {
    dz_tile_reader reader;
    dz_progress progress;
    dz_buf body = {0}, scratch = {0};
    double total = 0;
    for (size_t l = 0; l < ctx->plan->nlossy; l++)
        total += wanted[l] ? (double)dz_pair_tensor(ctx->plan, dz_context_lossy_pair(ctx, l))->nbytes : 0;
    dz_tile_reader_init(&reader, &ctx->zoo, ctx->plan, &ctx->chains);
    dz_context_begin_phase(ctx, &progress, DZ_PHASE_CODE, total);
    for (size_t i = 0; i < dz_context_nitems(ctx) && dz_progress_check(&progress, err) == DZ_OK; i++) {
        size_t item = dz_context_item(ctx, i);
        const dz_work_item *u = &ctx->plan->units[item];
        if (!dz_item_is_lossy(ctx->plan, u) || !wanted[ctx->plan->pairs[u->pair].lossy]) continue;
        if (dz_encode_exact(ctx, &reader, item, &body, &scratch, err) == DZ_OK)
            bytes[ctx->plan->pairs[u->pair].lossy] += ctx->journal.length[i];
        dz_progress_add(&progress, dz_context_item_bytes(ctx, u));
    }
    ctx->secs[DZ_PHASE_CODE] += dz_progress_end(&progress);
    ctx->bytes_read += reader.bytes_read;
    dz_tile_reader_free(&reader);
    dz_buf_free(&body);
    dz_buf_free(&scratch);
    return err->rc;
}

/* Bytes of a task's tensors that are lossy, or exact because that is smaller: as they are now, and all exactly, by the trials or, before
 * them, by the estimate. */
typedef struct both {
    double now, exact;
    int untried; /* tensors without a trial */
} both;

static both bytes_of_task(const dz_context *ctx, size_t task, const dz_stats *stats, const dz_allocation *allocation,
                          const dz_lossy_plan *lossy, const dz_exact_trials *trials) {
    both sum = {0};
    for (size_t p = ctx->plan->first_pair[task]; p < ctx->plan->first_pair[task + 1]; p++) {
        int64_t i = ctx->plan->pairs[p].lossy;
        if (i < 0) continue;
        const dz_lossy_tensor *l = &lossy->tensors[i];
        if (l->policy != DZ_POLICY_ULTRADELTA && l->reason != DZ_REASON_SMALLER) continue;
        double exact = trials->bytes[i] ? (double)trials->bytes[i] : stats ? DOUBT * stats->tensors[i].exact_bits / 8 : 0;
        sum.untried += !trials->bytes[i];
        sum.exact += exact;
        sum.now += l->policy == DZ_POLICY_ULTRADELTA ? allocation->tensors[i].bytes : exact;
    }
    return sum;
}

/* Marks all tensors of a task that may be worth keeping exactly as a whole. */
static void want_task(const dz_context *ctx, size_t task, const dz_stats *stats, const dz_allocation *allocation,
                      const dz_lossy_plan *lossy, const dz_exact_trials *trials, uint8_t *wanted) {
    both sum = bytes_of_task(ctx, task, stats, allocation, lossy, trials);
    if (sum.exact > dz_exact_allowance(dz_zoo_recipe(&ctx->zoo, task)) * sum.now) return;
    for (size_t p = ctx->plan->first_pair[task]; p < ctx->plan->first_pair[task + 1]; p++) {
        int64_t i = ctx->plan->pairs[p].lossy;
        if (i >= 0 && lossy->tensors[i].policy == DZ_POLICY_ULTRADELTA && !trials->bytes[i]) wanted[i] = 1;
    }
}

/* Makes a task exact that is hardly larger so; how many tensors became exact. */
static size_t settle_task(const dz_context *ctx, size_t task, const dz_allocation *allocation, dz_lossy_plan *lossy,
                          const dz_exact_trials *trials) {
    size_t changed = 0;
    both sum = bytes_of_task(ctx, task, NULL, allocation, lossy, trials);
    if (sum.untried || sum.exact > dz_exact_allowance(dz_zoo_recipe(&ctx->zoo, task)) * sum.now) return 0;
    for (size_t p = ctx->plan->first_pair[task]; p < ctx->plan->first_pair[task + 1]; p++) {
        int64_t i = ctx->plan->pairs[p].lossy;
        if (i < 0 || lossy->tensors[i].policy != DZ_POLICY_ULTRADELTA) continue;
        lossy->tensors[i].policy = DZ_POLICY_LOSSLESS;
        lossy->tensors[i].reason = DZ_REASON_SMALLER;
        changed++;
    }
    return changed;
}

dz_rc dz_settle(dz_context *ctx, const dz_stats *stats, const dz_allocation *allocation, dz_lossy_plan *lossy, dz_exact_trials *trials,
                size_t *changed, dz_error *err) {
    size_t n = ctx->plan->nlossy, any = 0;
    *changed = 0;
    if (!trials->bytes) trials->bytes = dz_alloc(n, sizeof *trials->bytes, err);
    uint8_t *wanted = dz_alloc(n, 1, err);
    uint64_t *bytes = dz_alloc(n, sizeof *bytes, err);
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    for (size_t i = 0; rc == DZ_OK && i < n; i++) {
        dz_lossy_tensor *l = &lossy->tensors[i];
        const dz_tensor_coding *c = &allocation->tensors[i];
        if (l->policy != DZ_POLICY_ULTRADELTA) continue;
        if (may_overflow(ctx, dz_context_lossy_pair(ctx, i), &stats->tensors[i], l, c)) {
            l->policy = DZ_POLICY_LOSSLESS;
            l->reason = DZ_REASON_OVERFLOW;
            ++*changed;
        } else if (!trials->bytes[i] && stats->tensors[i].exact_bits / 8 * DOUBT <= c->bytes) {
            wanted[i] = 1;
        }
    }
    for (size_t t = 0; rc == DZ_OK && t < ctx->plan->ntasks; t++) want_task(ctx, t, stats, allocation, lossy, trials, wanted);
    for (size_t i = 0; rc == DZ_OK && i < n; i++) any |= wanted[i];
    if (rc == DZ_OK && any) {
        rc = dz_sync_error(ctx->world, code_wanted(ctx, wanted, bytes, err), err);
        dz_sum_u64(ctx->world, bytes, rc == DZ_OK ? n : 0);
    }
    for (size_t i = 0; rc == DZ_OK && i < n; i++) {
        dz_lossy_tensor *l = &lossy->tensors[i];
        if (wanted[i]) trials->bytes[i] = bytes[i];
        if (l->policy != DZ_POLICY_ULTRADELTA || !trials->bytes[i] || (double)trials->bytes[i] > allocation->tensors[i].bytes) continue;
        l->policy = DZ_POLICY_LOSSLESS;
        l->reason = DZ_REASON_SMALLER;
        ++*changed;
    }
    for (size_t t = 0; rc == DZ_OK && t < ctx->plan->ntasks; t++) *changed += settle_task(ctx, t, allocation, lossy, trials);
    free(wanted);
    free(bytes);
    return rc;
}

size_t dz_settle_encoded(const dz_context *ctx, const dz_block_table *blocks, const dz_exact_trials *trials, dz_lossy_plan *lossy) {
    size_t changed = 0;
    for (size_t i = 0; i < ctx->plan->nlossy; i++) {
        const dz_tensor_pair *pair = dz_context_lossy_pair(ctx, i);
        uint64_t bytes = 0;
        if (lossy->tensors[i].policy != DZ_POLICY_ULTRADELTA || !trials->bytes[i]) continue;
        for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) bytes += blocks->length[ctx->plan->unit_of[pair->first_tile + tile]];
        if (trials->bytes[i] > bytes) continue;
        lossy->tensors[i].policy = DZ_POLICY_LOSSLESS;
        lossy->tensors[i].reason = DZ_REASON_SMALLER;
        changed++;
    }
    return changed;
}

void dz_exact_trials_free(dz_exact_trials *trials) {
    free(trials->bytes);
    trials->bytes = NULL;
}

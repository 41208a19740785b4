#include "compress/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/tile_reader.h"

/* Sums of a tile, as the journal keeps them and ranks add them up. */
enum { SUM_ABS, SUM_DELTA, SUM_BASE, SUM_CHANGED, SUM_EXACT, SUM_BASE_MAX, NSUMS };

#define NCHAIN 3
#define NALL (2 * NSUMS + NCHAIN)

/* What the journal keeps of an item after the first pass. */
typedef struct statistics_record {
    int32_t extremes[2];
    uint64_t digest[2]; /* of the base's tile */
    uint64_t own[2];    /* of the task's */
    double sums[NSUMS];
    int32_t base_extremes[2]; /* chained: against the base, */
    double base_sums[NSUMS];
    double chain[NCHAIN]; /* and dz_tile_chain_sums */
} statistics_record;

#define NO_STATISTICS ((statistics_record){.extremes = {INT32_MIN, INT32_MIN}, .base_extremes = {INT32_MIN, INT32_MIN}})

typedef struct statistics_pass {
    dz_context *ctx;
    dz_tile_reader reader;
    dz_progress progress;
    int32_t *extremes; /* [4 * lossy] ordered integers of -min and max; of the chained, against the base */
    double *tile_sums; /* [nsums * items] */
    size_t nsums;      /* NALL, or NSUMS where no task has a parent */
    uint64_t *base_digests;
    uint64_t *digests; /* [2 * items] of the task's tiles */
    dz_buf body, scratch;
} statistics_pass;

static void put_digest(uint64_t *to, dz_digest digest) {
    to[0] = digest.hi;
    to[1] = digest.lo;
}

/* Lossy tiles over one base tile, measured together. */
typedef struct measures {
    int sizes; /* the method needs sums of |d| */
    dz_piece_measures piece[DZ_TILES_AT_ONCE];
    dz_digester *digester[DZ_TILES_AT_ONCE];
    int same_base[DZ_TILES_AT_ONCE]; /* the tile has as many elements as the first: the base's sums are the same */
} measures;

static dz_rc measure_piece(void *arg, size_t i, const dz_tile *piece, dz_error *err) {
    measures *m = arg;
    dz_piece_measure(piece, m->sizes, &m->piece[i]);
    dz_digest_add(m->digester[i], piece->task, (size_t)piece->count * dz_dtype_size(piece->task_dtype));
    if (i == 0 || !m->same_base[i]) dz_piece_measure_base(piece, &m->piece[i]);
    return err->rc;
}

static uint64_t elements_of(const dz_plan *plan, size_t item) {
    const dz_work_item *u = &plan->units[item];
    return dz_tile_count(&plan->pairs[u->pair].tiles, u->tile);
}

static void put_measures(int32_t extremes[2], double *sums, const dz_piece_measures *own, const dz_piece_measures *base) {
    extremes[0] = ~own->delta.range.lo; /* ~x mirrors the order of integers, so one maximum serves both ends */
    extremes[1] = own->delta.range.hi;
    sums[SUM_ABS] = dz_lanes_total(own->delta.sums);
    sums[SUM_DELTA] = dz_lanes_total(own->delta.sums + DZ_LANES);
    sums[SUM_BASE] = dz_lanes_total(base->base);
    sums[SUM_CHANGED] = (double)own->delta.changed;
    sums[SUM_EXACT] = dz_measures_exact_bits(own);
    sums[SUM_BASE_MAX] = (double)base->base_max;
}

/* Of a tile that is coded against another task's: the same against the base, and how the two are related. */
static dz_rc measure_chain(statistics_pass *p, size_t item, int exact, statistics_record *r, dz_error *err) {
    dz_piece_measures m = DZ_PIECE_MEASURES_NONE;
    dz_tile t;
    if (dz_tile_read(&p->reader, item, &t, err) != DZ_OK) return err->rc;
    if (!exact && dz_tile_read_parent(&p->reader, &t, err) != DZ_OK) return err->rc;
    if (!exact) dz_tile_chain_sums(&t, r->chain);
    if (dz_tile_measure_base(&p->reader, item, &t, p->ctx->method->sizes, &m, err) == DZ_OK)
        put_measures(r->base_extremes, r->base_sums, &m, &m);
    return err->rc;
}

static dz_rc measure_items(statistics_pass *p, const size_t *items, size_t n, statistics_record *const *records, dz_error *err) {
    const dz_plan *plan = p->ctx->plan;
    measures m = {.sizes = p->ctx->method->sizes};
    dz_digest digest;
    int digests = dz_item_is_first(plan, items[0]);
    dz_tile whole;
    for (size_t i = 0; i < n; i++) {
        m.piece[i] = DZ_PIECE_MEASURES_NONE;
        m.digester[i] = dz_digest_begin(err);
        m.same_base[i] = elements_of(plan, items[i]) == elements_of(plan, items[0]);
    }
    if (err->rc == DZ_OK) dz_tiles_walk(&p->reader, items, n, digests ? &digest : NULL, measure_piece, &m, err);
    if (digests && err->rc == DZ_OK) put_digest(records[0]->digest, digest);
    for (size_t i = 0; i < n; i++) {
        if (m.digester[i]) put_digest(records[i]->own, dz_digest_end(m.digester[i]));
    }
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) {
        const dz_piece_measures *own = &m.piece[i], *base = &m.piece[m.same_base[i] ? 0 : i];
        const dz_recipe *recipe = dz_zoo_recipe(&p->ctx->zoo, plan->pairs[plan->units[items[i]].pair].task);
        if (!dz_range_finite(own->delta.range) && recipe->nonfinite == DZ_NONFINITE_ERROR && recipe->quality != DZ_QUALITY_LOSSLESS)
            return dz_tile_read(&p->reader, items[i], &whole, err) == DZ_OK ? dz_tile_nonfinite(&p->reader, &whole, err) : err->rc;
        put_measures(records[i]->extremes, records[i]->sums, own, base);
        if (dz_chains_row(&p->ctx->chains, plan->units[items[i]].pair) >= 0 &&
            measure_chain(p, items[i], recipe->quality == DZ_QUALITY_LOSSLESS, records[i], err) != DZ_OK)
            break;
        dz_journal_put(&p->ctx->journal, DZ_RECORD_STATISTICS, items[i], 0, records[i], sizeof *records[i], err);
    }
    return err->rc;
}

static void take(statistics_pass *p, size_t item, const statistics_record *r) {
    const dz_plan *plan = p->ctx->plan;
    const dz_work_item *u = &plan->units[item];
    memcpy(&p->digests[2 * item], r->own, sizeof r->own);
    if (dz_item_is_first(plan, item)) memcpy(&p->base_digests[2 * (plan->base_tile[u->base] + u->tile)], r->digest, sizeof r->digest);
    if (dz_item_is_lossy(plan, u)) {
        int32_t *e = &p->extremes[4 * plan->pairs[u->pair].lossy];
        double *sums = &p->tile_sums[p->nsums * item];
        for (int k = 0; k < 2; k++) {
            e[k] = r->extremes[k] > e[k] ? r->extremes[k] : e[k];
            e[2 + k] = r->base_extremes[k] > e[2 + k] ? r->base_extremes[k] : e[2 + k];
        }
        memcpy(sums, r->sums, sizeof r->sums);
        if (p->nsums == NALL) {
            memcpy(sums + NSUMS, r->base_sums, sizeof r->base_sums);
            memcpy(sums + 2 * NSUMS, r->chain, sizeof r->chain);
        }
    }
    dz_progress_add(&p->progress, dz_context_item_bytes(p->ctx, u));
}

/* Of the n lossy items from number i on; those that an earlier run has measured are taken from its journal. */
static dz_rc statistics_of_run(statistics_pass *p, size_t i, size_t n, dz_error *err) {
    statistics_record records[DZ_TILES_AT_ONCE], *wanted[DZ_TILES_AT_ONCE];
    size_t items[DZ_TILES_AT_ONCE], unknown = 0;
    for (size_t j = 0; j < n; j++) {
        size_t item = dz_context_item(p->ctx, i + j);
        records[j] = NO_STATISTICS;
        if (dz_journal_find(&p->ctx->journal, DZ_RECORD_STATISTICS, item, 0, &records[j], sizeof records[j])) continue;
        items[unknown] = item;
        wanted[unknown++] = &records[j];
    }
    if (unknown && measure_items(p, items, unknown, wanted, err) != DZ_OK) return err->rc;
    for (size_t j = 0; j < n; j++) take(p, dz_context_item(p->ctx, i + j), &records[j]);
    return DZ_OK;
}

/* Of an item that is not lossy: digest of the base, exact coding. */
static dz_rc statistics_of_item(statistics_pass *p, size_t item, dz_error *err) {
    dz_context *ctx = p->ctx;
    statistics_record r = NO_STATISTICS;
    dz_tile t;
    int known = dz_journal_find(&ctx->journal, DZ_RECORD_STATISTICS, item, 0, &r, sizeof r);
    if (known && ctx->plan->units[item].pair != DZ_NO_PAIR) known = dz_journal_has_block(&ctx->journal, item, DZ_EXACT_KEY, NULL, 0);
    if (!known) {
        if (dz_tile_read(&p->reader, item, &t, err) != DZ_OK) return err->rc;
        if (dz_item_is_first(ctx->plan, item)) {
            const uint8_t *base;
            if (dz_tile_base(&p->reader, item, &base, err) != DZ_OK) return err->rc;
            put_digest(r.digest, dz_digest_of(base, p->reader.base_bytes.len));
        }
        if (t.pair) put_digest(r.own, dz_digest_of(t.task, (size_t)t.count * dz_dtype_size(t.task_dtype)));
        if (t.pair && dz_context_code_exact(ctx, item, &t, &p->body, &p->scratch, err) != DZ_OK) return err->rc;
        if (dz_journal_put(&ctx->journal, DZ_RECORD_STATISTICS, item, 0, &r, sizeof r, err) != DZ_OK) return err->rc;
    }
    take(p, item, &r);
    return DZ_OK;
}

static dz_tensor_stats stats_of(const int32_t extremes[2]) { return (dz_tensor_stats){.range = {.lo = ~extremes[0], .hi = extremes[1]}}; }

static void add_tile(dz_tensor_stats *s, const double *sums) {
    s->abs_sum += sums[SUM_ABS];
    s->delta_energy += sums[SUM_DELTA];
    s->base_energy += sums[SUM_BASE];
    s->changed += sums[SUM_CHANGED];
    s->exact_bits += sums[SUM_EXACT];
    s->base_max = fmax(s->base_max, sums[SUM_BASE_MAX]);
}

/* Sums over whole tensors: of the tiles' sums, in the order of the tiles. A tensor of a child for which the base is the better reference is
 * coded against that. */
static void sum_tiles(const statistics_pass *p, dz_stats *out) {
    const dz_plan *plan = p->ctx->plan;
    dz_chains *chains = &p->ctx->chains;
    for (size_t i = 0; i < plan->nlossy; i++) {
        const dz_tensor_pair *pair = &plan->pairs[plan->lossy[i]];
        dz_tensor_stats *s = &out->tensors[i], base = stats_of(&p->extremes[4 * i + 2]);
        *s = stats_of(&p->extremes[4 * i]);
        for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) {
            const double *sums = &p->tile_sums[p->nsums * (size_t)plan->unit_of[pair->first_tile + tile]];
            add_tile(s, sums);
            if (p->nsums < NALL) continue;
            add_tile(&base, sums + NSUMS);
            s->step += sums[2 * NSUMS];
            s->old += sums[2 * NSUMS + 1];
            s->cross += sums[2 * NSUMS + 2];
        }
        s->whole = s->delta_energy;
        const dz_recipe *recipe = dz_zoo_recipe(&p->ctx->zoo, pair->task);
        int exact = recipe->quality == DZ_QUALITY_LOSSLESS;
        if (dz_chains_row(chains, plan->lossy[i]) < 0 || (exact && s->exact_bits <= base.exact_bits)) continue;
        s->chained = 1;
        s->whole = base.delta_energy;
        s->base_energy = base.base_energy;
        if (!exact && dz_chain_is_better(p->ctx->method, recipe, s)) continue;
        base.whole = base.delta_energy;
        *s = base;
        chains->row[plan->lossy[i]] = -1;
    }
}

/* Of whole tensors: over the digests of their tiles, in the order of the tiles. */
static dz_rc digest_tensors(const statistics_pass *p, dz_stats *out, dz_error *err) {
    const dz_plan *plan = p->ctx->plan;
    dz_buf b = {0};
    for (size_t i = 0; i < plan->npairs && err->rc == DZ_OK; i++) {
        const dz_tensor_pair *pair = &plan->pairs[i];
        b.len = 0;
        for (uint32_t tile = 0; tile < pair->tiles.ntiles; tile++) {
            const uint64_t *own = &p->digests[2 * (size_t)plan->unit_of[pair->first_tile + tile]];
            dz_buf_put_u64(&b, own[0], err);
            dz_buf_put_u64(&b, own[1], err);
        }
        if (b.len) out->digests[i] = dz_digest_of(b.data, b.len);
    }
    dz_buf_free(&b);
    return err->rc;
}

static dz_rc walk(statistics_pass *p, dz_error *err) {
    dz_context *ctx = p->ctx;
    dz_tile_reader_init(&p->reader, &ctx->zoo, ctx->plan, &ctx->chains);
    dz_context_begin_phase(ctx, &p->progress, DZ_PHASE_STATISTICS, dz_context_pass_bytes(ctx, 0));
    for (size_t i = 0, n; i < dz_context_nitems(ctx) && dz_progress_check(&p->progress, err) == DZ_OK; i += n ? n : 1) {
        if ((n = dz_context_run(ctx, i, DZ_TILES_AT_ONCE)) > 0)
            statistics_of_run(p, i, n, err);
        else
            statistics_of_item(p, dz_context_item(ctx, i), err);
    }
    ctx->secs[DZ_PHASE_STATISTICS] += dz_progress_end(&p->progress);
    ctx->bytes_read += p->reader.bytes_read;
    dz_tile_reader_free(&p->reader);
    return err->rc;
}

dz_rc dz_statistics(dz_context *ctx, dz_stats *out, dz_error *err) {
    const dz_plan *plan = ctx->plan;
    size_t ndigests = 2 * (size_t)plan->base_tile[plan->base->ntensors];
    statistics_pass p = {.ctx = ctx, .nsums = ctx->chains.open ? NALL : NSUMS};
    p.extremes = dz_alloc_raw(4 * plan->nlossy, sizeof *p.extremes, err);
    p.tile_sums = dz_alloc(p.nsums * plan->nunits, sizeof *p.tile_sums, err);
    out->tensors = dz_alloc(plan->nlossy, sizeof *out->tensors, err);
    p.digests = dz_alloc(2 * plan->nunits, sizeof *p.digests, err);
    out->digests = dz_alloc(plan->npairs, sizeof *out->digests, err);
    out->base_digests = p.base_digests = dz_alloc(ndigests, sizeof *out->base_digests, err);
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    if (rc != DZ_OK) goto out;
    for (size_t i = 0; i < 4 * plan->nlossy; i++) p.extremes[i] = INT32_MIN;
    if ((rc = dz_sync_error(ctx->world, walk(&p, err), err)) != DZ_OK) goto out;
    dz_max_i32(ctx->world, p.extremes, 4 * plan->nlossy);
    dz_sum_u64(ctx->world, out->base_digests, ndigests);
    dz_sum_u64(ctx->world, p.digests, 2 * plan->nunits);
    dz_sum_f64(ctx->world, p.tile_sums, p.nsums * plan->nunits); /* a tile was summed by one rank: a sum with zeros is exact */
    sum_tiles(&p, out);
    rc = dz_sync_error(ctx->world, digest_tensors(&p, out, err), err);
out:
    dz_buf_free(&p.body);
    dz_buf_free(&p.scratch);
    free(p.extremes);
    free(p.tile_sums);
    free(p.digests);
    return rc;
}

void dz_stats_free(dz_stats *s) {
    free(s->tensors);
    free(s->base_digests);
    free(s->digests);
    *s = (dz_stats){0};
}

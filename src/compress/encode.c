#include "compress/encode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/prediction.h"
#include "codec/sparse_levels.h"

typedef struct encode_pass {
    dz_context *ctx;
    const dz_shapes *shapes;
    const dz_lossy_plan *lossy;
    const dz_counts *counts;
    const dz_allocation *allocation;
    dz_block_table *out;
    size_t nlevels;
    uint64_t *running; /* [lossy * nlevels] members of each level before the next tile */
    uint64_t *tally;   /* [2 * nlevels] of the tile: members of each level, kept of each level */
    dz_tile_reader reader;
    dz_progress progress;
    dz_buf levels, body, scratch;
    dz_candidates set;
    dz_selection selection;
} encode_pass;

/* The share of each group's quota that falls to this tile; 0 where the candidates do not reach far enough to tell. */
static int tile_quotas(const encode_pass *p, size_t l, const dz_candidates *set, uint64_t *quota, uint32_t *want_last) {
    const uint64_t *running = p->running + l * p->nlevels, *histogram = p->counts->histogram + l * p->nlevels;
    double density = 1 - p->allocation->tensors[l].sparsity;
    int no_groups = p->ctx->zoo.recipe->no_groups;
    uint32_t below = dz_chance_limit(density);
    memset(quota, 0, p->nlevels * sizeof *quota);
    if (no_groups && below > set->last) {
        *want_last = dz_candidates_last(density, set->count);
        return 0;
    }
    if (no_groups) dz_count_below(set, below, quota);
    for (unsigned g = 0; g < 1U << p->lossy->tensors[l].grid.bits && !no_groups; g++)
        quota[g] = dz_quota_share(p->allocation->quota[l * p->nlevels + g], histogram[g], running[g], set->members[g]);
    return 1;
}

/* From the candidates that were kept; read again where there are none, or too few. */
static dz_rc encode_levels(encode_pass *p, size_t item, size_t l, size_t count, dz_error *err) {
    uint64_t *members = p->tally, *quota = p->tally + p->nlevels;
    const dz_candidates *set = p->counts->kept[dz_context_number(p->ctx, item)];
    uint32_t last = dz_candidates_last(1 - p->allocation->tensors[l].sparsity, count), few = DZ_RARE;
    for (;;) {
        if (!set && dz_take_candidates(p->ctx, p->lossy, &p->reader, &item, 1, &last, few, &p->levels, &p->set, err) != DZ_OK)
            return err->rc;
        if (!set) set = &p->set;
        if (tile_quotas(p, l, set, quota, &last)) {
            if (dz_select(set, quota, &p->selection, err) != DZ_OK) return err->rc;
            if (p->selection.enough) break;
            last = p->selection.want_last;
            few = p->selection.want_few;
        }
        set = NULL;
    }
    memcpy(members, set->members, p->nlevels * sizeof *members);
    return dz_nonzeros_encode(&p->body, set, quota, &p->selection, p->ctx->zoo.recipe->positions == DZ_POSITIONS_GOLOMB, err);
}

/* A tile whose task's bytes are read as they are asked for, and stay in the cache until they are coded. */
typedef struct shaped_tile {
    dz_tile_reader *reader;
    const dz_tile *tile;
    const dz_channels *channels; /* NULL: none */
    uint64_t first;              /* of the tile in its tensor */
    dz_error *err;               /* of reading; elements are 0 then */
} shaped_tile;

static void fill_delta(const void *arg, size_t first, size_t count, float *delta) {
    const shaped_tile *s = arg;
    for (size_t at = 0, len; at < count; at += len) {
        dz_tile piece;
        len = count - at < DZ_PIECE ? count - at : DZ_PIECE;
        if (s->err->rc != DZ_OK || dz_tile_piece(s->reader, s->tile, first + at, len, &piece, s->err) != DZ_OK) {
            memset(delta + at, 0, len * sizeof *delta);
            continue;
        }
        dz_tile_delta(&piece, 0, len, delta + at);
        if (s->channels) dz_channels_apply(delta + at, len, s->first + first + at, s->channels, 0);
    }
}

static void fill_rest(const void *arg, size_t first, size_t count, float *delta) {
    memcpy(delta, (const float *)arg + first, count * sizeof *delta);
}

/* Takes a prediction off the whole delta, if there is one worth its bytes; the rest is then in p->scratch. */
static dz_rc predict(encode_pass *p, const shaped_tile *source, double noise, dz_method_tile *tile, dz_lowrank *found, dz_error *err) {
    uint64_t columns = source->channels->stride;
    if (dz_buf_reserve(&p->scratch, tile->count * sizeof(float), err) != DZ_OK) return err->rc;
    float *delta = (float *)(void *)p->scratch.data;
    fill_delta(source, 0, tile->count, delta);
    if (dz_prediction_find(found, delta, tile->count, columns, source->first % columns, noise, err) != DZ_OK) return err->rc;
    if (found->rank) dz_prediction_add(delta, 0, tile->count, found, -1);
    tile->fill = fill_rest;
    tile->source = delta;
    tile->prediction = found;
    tile->noise = noise;
    return err->rc;
}

/* A tile of a method without levels. */
static dz_rc encode_delta(encode_pass *p, size_t item, size_t l, dz_error *err) {
    const dz_method *method = p->ctx->method;
    dz_tile t;
    p->scratch.len = 0;
    if (dz_tile_open(&p->reader, item, &t, err) != DZ_OK) return err->rc;
    t.kept = p->allocation->tensors[l].kept;
    if (t.kept > 0 && dz_tile_read_parent(&p->reader, &t, err) != DZ_OK) return err->rc;
    dz_method_tile tile = {
        .fill = fill_delta, .count = (size_t)t.count, .key = dz_context_tile_key(p->ctx, t.unit), .coding = &p->allocation->tensors[l]};
    const dz_tensor_pair *pair = dz_context_lossy_pair(p->ctx, l);
    shaped_tile source = {.reader = &p->reader, .tile = &t, .first = dz_tile_first(&pair->tiles, t.unit->tile), .err = err};
    const dz_shape *shape = tile.coding->shaped ? dz_shape_of(p->shapes, pair) : NULL;
    dz_lowrank found = {0};
    if (shape) source.channels = tile.channels = &shape->channels;
    tile.source = &source;
    tile.first = source.first;
    if (shape && shape->predicted > 0 && predict(p, &source, shape->predicted, &tile, &found, err) != DZ_OK) return err->rc;
    if (!method->takes_fill || !method->takes_fill(tile.coding)) {
        if (dz_buf_reserve(&p->scratch, tile.count * sizeof(float), err) != DZ_OK) {
            dz_lowrank_free(&found);
            return err->rc;
        }
        tile.delta = (float *)(void *)p->scratch.data;
        if (!tile.prediction) fill_delta(&source, 0, tile.count, tile.delta);
    }
    dz_error inner = {0};
    method->encode(&p->body, &tile, p->tally + p->nlevels, &inner);
    dz_lowrank_free(&found);
    if (inner.rc == DZ_OK || err->rc != DZ_OK) return err->rc;
    return dz_fail(err, inner.rc, "task '%s': tensor '%s': %s (a rule with `policy: lossless` keeps it exactly)",
                   p->ctx->zoo.names[pair->task], dz_pair_tensor(p->ctx->plan, pair)->name, inner.text);
}

static dz_rc encode_lossy(encode_pass *p, size_t item, size_t l, dz_error *err) {
    dz_context *ctx = p->ctx;
    const dz_work_item *u = &ctx->plan->units[item];
    size_t count = (size_t)dz_tile_count(&ctx->plan->pairs[u->pair].tiles, u->tile);
    uint64_t key = dz_allocation_hash(p->allocation, p->lossy, l);
    if (!dz_journal_has_block(&ctx->journal, item, key, p->tally, 2 * p->nlevels)) {
        memset(p->tally, 0, 2 * p->nlevels * sizeof *p->tally);
        p->body.len = 0;
        if (ctx->method->levels)
            encode_levels(p, item, l, count, err);
        else
            encode_delta(p, item, l, err);
        if (err->rc == DZ_OK) dz_journal_put_block(&ctx->journal, item, key, p->tally, 2 * p->nlevels, &p->body, err);
    }
    for (size_t g = 0; g < p->nlevels; g++) {
        p->running[l * p->nlevels + g] += p->tally[g];
        p->out->kept_levels[l * p->nlevels + g] += p->tally[p->nlevels + g];
    }
    return err->rc;
}

dz_rc dz_encode_exact(dz_context *ctx, dz_tile_reader *reader, size_t item, dz_buf *body, dz_buf *scratch, dz_error *err) {
    dz_tile t;
    if (dz_journal_has_block(&ctx->journal, item, DZ_EXACT_KEY, NULL, 0) || dz_tile_read(reader, item, &t, err) != DZ_OK) return err->rc;
    return dz_context_code_exact(ctx, item, &t, body, scratch, err);
}

static dz_rc encode_items(encode_pass *p, dz_error *err) {
    dz_context *ctx = p->ctx;
    dz_tile_reader_init(&p->reader, &ctx->zoo, ctx->plan, &ctx->chains);
    dz_context_begin_phase(ctx, &p->progress, DZ_PHASE_CODE, dz_context_pass_bytes(ctx, 1));
    for (size_t i = 0; i < dz_context_nitems(ctx) && dz_progress_check(&p->progress, err) == DZ_OK; i++) {
        size_t item = dz_context_item(ctx, i);
        const dz_work_item *u = &ctx->plan->units[item];
        int64_t l = dz_lossy_of(ctx, p->lossy, u);
        if (l >= 0)
            encode_lossy(p, item, (size_t)l, err);
        else if (dz_turned_exact(ctx, p->lossy, u))
            dz_encode_exact(ctx, &p->reader, item, &p->body, &p->scratch, err);
        if (dz_item_is_lossy(ctx->plan, u)) dz_progress_add(&p->progress, dz_context_item_bytes(ctx, u));
    }
    ctx->secs[DZ_PHASE_CODE] += dz_progress_end(&p->progress);
    ctx->bytes_read += p->reader.bytes_read;
    dz_tile_reader_free(&p->reader);
    return err->rc;
}

/* Collective. Every block was coded by one rank. */
static void share_table(const encode_pass *p) {
    const dz_context *ctx = p->ctx;
    dz_block_table *out = p->out;
    memset(out->length, 0, ctx->plan->nunits * sizeof *out->length);
    for (size_t i = 0; i < dz_context_nitems(ctx); i++) out->length[dz_context_item(ctx, i)] = ctx->journal.length[i];
    dz_sum_u64(ctx->world, out->length, ctx->plan->nunits);
    dz_sum_u64(ctx->world, out->kept_levels, ctx->plan->nlossy * p->nlevels);
    for (size_t l = 0; l < ctx->plan->nlossy; l++) {
        out->kept[l] = 0;
        for (size_t g = 0; g < p->nlevels; g++) out->kept[l] += out->kept_levels[l * p->nlevels + g];
    }
}

static dz_rc make_table(const dz_context *ctx, size_t nlevels, dz_block_table *out, dz_error *err) {
    if (out->length) {
        memset(out->kept_levels, 0, ctx->plan->nlossy * nlevels * sizeof *out->kept_levels);
        return DZ_OK;
    }
    out->nlevels = nlevels;
    out->length = dz_alloc(ctx->plan->nunits, sizeof *out->length, err);
    out->kept = dz_alloc(ctx->plan->nlossy, sizeof *out->kept, err);
    out->kept_levels = dz_alloc(ctx->plan->nlossy * nlevels, sizeof *out->kept_levels, err);
    return err->rc;
}

dz_rc dz_encode(dz_context *ctx, const dz_shapes *shapes, const dz_lossy_plan *lossy, const dz_counts *counts,
                const dz_allocation *allocation, dz_block_table *out, dz_error *err) {
    size_t nlevels = lossy->nlevels, total = ctx->plan->nlossy * nlevels;
    encode_pass p = {
        .ctx = ctx, .shapes = shapes, .lossy = lossy, .counts = counts, .allocation = allocation, .out = out, .nlevels = nlevels};
    p.running = dz_alloc(total, sizeof *p.running, err);
    p.tally = dz_alloc(2 * nlevels, sizeof *p.tally, err);
    make_table(ctx, nlevels, out, err);
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    if (rc != DZ_OK) goto out;
    if (counts->before) memcpy(p.running, counts->before, total * sizeof *p.running);
    if ((rc = dz_sync_error(ctx->world, encode_items(&p, err), err)) == DZ_OK) share_table(&p);
out:
    free(p.running);
    free(p.tally);
    dz_buf_free(&p.levels);
    dz_buf_free(&p.body);
    dz_buf_free(&p.scratch);
    dz_candidates_free(&p.set);
    dz_selection_free(&p.selection);
    return rc;
}

/* Blocks that are not coded yet have equal shares of what the allocation expects of their tensor. */
dz_rc dz_expect_blocks(const dz_context *ctx, const dz_lossy_plan *lossy, const dz_allocation *allocation, dz_block_table *out,
                       dz_error *err) {
    encode_pass p = {.ctx = (dz_context *)ctx, .lossy = lossy, .out = out, .nlevels = lossy->nlevels};
    dz_rc rc = dz_sync_error(ctx->world, make_table(ctx, lossy->nlevels, out, err), err);
    if (rc != DZ_OK) return rc;
    share_table(&p);
    for (size_t l = 0; l < ctx->plan->nlossy; l++) {
        const dz_tensor_pair *pair = dz_context_lossy_pair(ctx, l);
        if (lossy->tensors[l].policy != DZ_POLICY_ULTRADELTA) continue;
        double left = fmax(0, allocation->tensors[l].bytes - (double)dz_region_table_bytes(pair->tiles.ntiles)),
               common = (double)pair->tiles.common;
        for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++)
            out->length[ctx->plan->unit_of[pair->first_tile + tile]] =
                (uint64_t)rint(left * ((double)dz_tile_count(&pair->tiles, tile) / common));
    }
    return DZ_OK;
}

void dz_block_table_free(dz_block_table *t) {
    free(t->length);
    free(t->kept);
    free(t->kept_levels);
    *t = (dz_block_table){0};
}

uint64_t dz_region_bytes(const dz_plan *plan, const dz_block_table *table, const dz_tensor_pair *pair) {
    uint64_t sum = dz_region_table_bytes(pair->tiles.ntiles);
    for (uint32_t tile = 0; tile < pair->tiles.ntiles; tile++) sum += table->length[plan->unit_of[pair->first_tile + tile]];
    return sum;
}

#include "compress/histogram.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct histogram_pass {
    dz_context *ctx;
    const dz_lossy_plan *lossy;
    dz_counts *out;
    dz_tile_reader reader;
    dz_progress progress;
    dz_buf levels;
    dz_candidates set[DZ_TILES_AT_ONCE];
} histogram_pass;

typedef struct taking {
    const dz_lossy_plan *lossy;
    dz_buf *levels;
    dz_candidates *set;
} taking;

static dz_rc take_piece(void *arg, size_t i, const dz_tile *piece, dz_error *err) {
    taking *t = arg;
    t->levels->len = 0;
    if (dz_buf_reserve(t->levels, (size_t)piece->count, err) != DZ_OK) return err->rc;
    dz_piece_levels(piece, &t->lossy->tensors[piece->pair->lossy].grid, t->levels->data);
    return dz_candidates_add(&t->set[i], t->levels->data, (size_t)piece->count, err);
}

dz_rc dz_take_candidates(dz_context *ctx, const dz_lossy_plan *lossy, dz_tile_reader *reader, const size_t *items, size_t n,
                         const uint32_t *last, uint32_t few, dz_buf *levels, dz_candidates *out, dz_error *err) {
    taking t = {.lossy = lossy, .levels = levels, .set = out};
    for (size_t i = 0; i < n; i++) {
        const dz_work_item *item = &ctx->plan->units[items[i]];
        dz_candidates_begin(&out[i], dz_context_tile_key(ctx, item), lossy->tensors[ctx->plan->pairs[item->pair].lossy].grid.bits, last[i],
                            few);
    }
    dz_tiles_walk(reader, items, n, NULL, take_piece, &t, err);
    for (size_t i = 0; i < n; i++) dz_candidates_end(&out[i]);
    return err->rc;
}

static double density_of(const dz_context *ctx, const dz_tensor_pair *pair) {
    return ctx->method->most_density(ctx->zoo.recipe, pair, ctx->method->first_level(ctx->zoo.recipe));
}

/* Adds what an earlier run has counted. */
static int known_histogram(const histogram_pass *p, size_t item, uint64_t *histogram) {
    uint64_t record[DZ_MAX_LEVELS];
    if (!dz_journal_find(&p->ctx->journal, DZ_RECORD_HISTOGRAM, item, 0, record, p->out->nlevels * sizeof *record)) return 0;
    for (size_t g = 0; g < p->out->nlevels; g++) histogram[g] += record[g];
    return 1;
}

/* Keeps the candidates for the encoding, if there is room. */
static void keep_candidates(const histogram_pass *p, size_t item, const dz_candidates *set) {
    dz_counts *c = p->out;
    size_t size = dz_candidates_size(set);
    if (size > c->cache_size - c->cache_used) return; /* the encoding will read the tile again */
    c->kept[dz_context_number(p->ctx, item)] = dz_candidates_copy(c->cache + c->cache_used, set);
    c->cache_used += size;
}

#define SETS_MAX ((uint64_t)16 << 20) /* bytes that the candidates of a run may take, unless one tile alone takes more */

/* How many of the n lossy items from number i on are taken together. */
static size_t taken_together(const dz_context *ctx, size_t i, size_t n) {
    uint64_t sum = 0;
    size_t fit = 0;
    for (; fit < n; fit++) {
        const dz_work_item *item = &ctx->plan->units[dz_context_item(ctx, i + fit)];
        const dz_tensor_pair *pair = &ctx->plan->pairs[item->pair];
        double candidates = (double)dz_tile_count(&pair->tiles, item->tile) * density_of(ctx, pair);
        sum += (uint64_t)candidates +
               ((uint64_t)sizeof(dz_rare_member) * DZ_RARE / 4 << pair->bits); /* few levels are so rare, and have so many */
        if (fit && sum > SETS_MAX) break;
    }
    return fit;
}

/* Of the n lossy items from number i on, but for those that an earlier run has counted. */
static dz_rc histogram_of_run(histogram_pass *p, size_t i, size_t n, dz_error *err) {
    dz_context *ctx = p->ctx;
    size_t items[DZ_TILES_AT_ONCE], unknown = 0, nlevels = p->out->nlevels;
    uint32_t last[DZ_TILES_AT_ONCE];
    for (size_t j = 0; j < n; j++) {
        size_t item = dz_context_item(ctx, i + j);
        const dz_work_item *u = &ctx->plan->units[item];
        const dz_tensor_pair *pair = &ctx->plan->pairs[u->pair];
        int64_t l = dz_lossy_of(ctx, p->lossy, u);
        dz_progress_add(&p->progress, dz_context_item_bytes(ctx, u));
        if (l < 0 || known_histogram(p, item, p->out->histogram + (size_t)l * nlevels)) continue;
        last[unknown] = dz_candidates_last(density_of(ctx, pair), (size_t)dz_tile_count(&pair->tiles, u->tile));
        items[unknown++] = item;
    }
    if (unknown && dz_take_candidates(ctx, p->lossy, &p->reader, items, unknown, last, DZ_RARE, &p->levels, p->set, err) != DZ_OK)
        return err->rc;
    for (size_t j = 0; j < unknown && err->rc == DZ_OK; j++) {
        const dz_candidates *set = &p->set[j];
        uint64_t *histogram = p->out->histogram + (size_t)ctx->plan->pairs[ctx->plan->units[items[j]].pair].lossy * nlevels;
        for (size_t g = 0; g < nlevels; g++) histogram[g] += set->members[g];
        keep_candidates(p, items[j], set);
        dz_journal_put(&ctx->journal, DZ_RECORD_HISTOGRAM, items[j], 0, set->members, nlevels * sizeof *set->members, err);
    }
    return err->rc;
}

static void map_cache(const dz_context *ctx, dz_counts *out) {
    uint64_t want = 0;
    for (size_t i = 0; i < dz_context_nitems(ctx); i++) {
        const dz_work_item *item = &ctx->plan->units[dz_context_item(ctx, i)];
        if (dz_item_is_lossy(ctx->plan, item)) want += dz_tile_count(&ctx->plan->pairs[item->pair].tiles, item->tile);
    }
    out->cache_size = (size_t)(want < ctx->cache_budget ? want : ctx->cache_budget);
    if (out->cache_size == 0) return;
    out->cache = mmap(NULL, out->cache_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (out->cache == MAP_FAILED) { /* the cache is a help, not a need */
        out->cache = NULL;
        out->cache_size = 0;
    } else {
        madvise(out->cache, out->cache_size, MADV_HUGEPAGE); /* page faults would cost more than the levels */
    }
}

static dz_rc count_levels(histogram_pass *p, dz_error *err) {
    dz_context *ctx = p->ctx;
    dz_tile_reader_init(&p->reader, &ctx->zoo, ctx->plan, &ctx->chains);
    dz_context_begin_phase(ctx, &p->progress, DZ_PHASE_HISTOGRAM, dz_context_pass_bytes(ctx, 1));
    for (size_t i = 0, n; i < dz_context_nitems(ctx) && dz_progress_check(&p->progress, err) == DZ_OK; i += n ? n : 1) {
        n = taken_together(ctx, i, dz_context_run(ctx, i, DZ_TILES_AT_ONCE));
        if (n) histogram_of_run(p, i, n, err);
    }
    ctx->secs[DZ_PHASE_HISTOGRAM] += dz_progress_end(&p->progress);
    ctx->bytes_read += p->reader.bytes_read;
    dz_tile_reader_free(&p->reader);
    dz_buf_free(&p->levels);
    for (size_t i = 0; i < DZ_TILES_AT_ONCE; i++) dz_candidates_free(&p->set[i]);
    return err->rc;
}

dz_rc dz_histogram(dz_context *ctx, const dz_lossy_plan *lossy, dz_counts *out, dz_error *err) {
    size_t total = ctx->plan->nlossy * lossy->nlevels;
    histogram_pass p = {.ctx = ctx, .lossy = lossy, .out = out};
    *out = (dz_counts){.nlevels = lossy->nlevels};
    if (!ctx->method->levels) return DZ_OK;
    out->histogram = dz_alloc(total, sizeof *out->histogram, err);
    out->before = dz_alloc(total, sizeof *out->before, err);
    out->kept = dz_alloc(dz_context_nitems(ctx), sizeof *out->kept, err);
    map_cache(ctx, out);
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    if (rc == DZ_OK) rc = dz_sync_error(ctx->world, count_levels(&p, err), err);
    if (rc == DZ_OK && total) {
        memcpy(out->before, out->histogram, total * sizeof *out->before);
        dz_exscan_u64(ctx->world, out->before, total);
        dz_sum_u64(ctx->world, out->histogram, total);
    }
    return rc;
}

void dz_counts_free(dz_counts *c) {
    if (c->cache) munmap(c->cache, c->cache_size);
    free(c->kept);
    free(c->histogram);
    free(c->before);
    *c = (dz_counts){0};
}

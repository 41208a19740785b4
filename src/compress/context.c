#include "compress/context.h"

#include "codec/lossless.h"
#include "codec/sparse_levels.h"
#include "compress/tile_reader.h"

const char *const DZ_PHASE_NAMES[DZ_PHASES] = {"open", "statistics", "histogram", "code", "trace norm", "write"};

void dz_context_begin_phase(const dz_context *ctx, dz_progress *progress, int phase, double total) {
    static const char *const titles[DZ_PHASES + 1] = {"open",           "1/6 statistics", "2/6 histogram", "3/6 code",
                                                      "4/6 trace norm", "5/6 write",      "6/6 read back"};
    dz_progress_begin(progress, ctx->world, titles[phase], total, ctx->opt->quiet);
}

double dz_context_pass_bytes(const dz_context *ctx, int lossy_only) {
    double sum = 0;
    for (size_t i = 0; i < ctx->plan->npairs; i++) {
        const dz_tensor_pair *pair = &ctx->plan->pairs[i];
        if (pair->tiles.ntiles && (!lossy_only || pair->lossy >= 0)) sum += (double)dz_pair_tensor(ctx->plan, pair)->nbytes;
    }
    return sum;
}

double dz_context_item_bytes(const dz_context *ctx, const dz_work_item *item) {
    if (item->pair == DZ_NO_PAIR) return 0;
    const dz_tensor_pair *pair = &ctx->plan->pairs[item->pair];
    return (double)(dz_tile_count(&pair->tiles, item->tile) * dz_dtype_size(dz_pair_tensor(ctx->plan, pair)->dtype));
}

size_t dz_context_run(const dz_context *ctx, size_t i, size_t most) {
    const dz_work_item *first = &ctx->plan->units[dz_context_item(ctx, i)];
    size_t n = 0;
    for (; n < most && i + n < dz_context_nitems(ctx); n++) {
        const dz_work_item *item = &ctx->plan->units[dz_context_item(ctx, i + n)];
        if (!dz_item_is_lossy(ctx->plan, item) || item->base != first->base || item->tile != first->tile) break;
        if (dz_chains_row(&ctx->chains, item->pair) >= 0) return n ? n : 1; /* alone */
    }
    return n;
}

uint64_t dz_context_tile_key(const dz_context *ctx, const dz_work_item *item) {
    const dz_tensor_pair *pair = &ctx->plan->pairs[item->pair];
    return dz_tile_key(ctx->task_key[pair->task], dz_pair_tensor(ctx->plan, pair)->name, item->tile);
}

/* The body of the same tile of another task, coded against the same, or NULL. */
static dz_buf *find_coded(dz_context *ctx, const dz_coded_tile *t) {
    for (size_t k = 0; k < ctx->ncoded && k < DZ_CODED_TILES; k++) {
        dz_coded_tile *c = &ctx->coded[k];
        if (c->digest.hi == t->digest.hi && c->digest.lo == t->digest.lo && c->base == t->base && c->tile == t->tile &&
            c->alone == t->alone && c->count == t->count && c->columns == t->columns && c->dtype == t->dtype)
            return &c->body;
    }
    return NULL;
}

void dz_context_forget_coded(dz_context *ctx) {
    for (size_t k = 0; k < DZ_CODED_TILES; k++) dz_buf_free(&ctx->coded[k].body);
    ctx->ncoded = 0;
}

dz_rc dz_context_code_exact(dz_context *ctx, size_t item, const dz_tile *tile, dz_buf *body, dz_buf *scratch, dz_error *err) {
    const dz_tensor *tensor = tile->pair ? dz_pair_tensor(ctx->plan, tile->pair) : NULL;
    dz_tile_rows rows = {0};
    int kept = ctx->plan->ntasks > 1 && tile->pair && dz_chains_row(&ctx->chains, ctx->plan->units[item].pair) < 0;
    dz_coded_tile t = {
        .base = tile->unit->base, .tile = tile->unit->tile, .alone = !tile->base, .count = tile->count, .dtype = tile->task_dtype};
    if (tensor) rows = dz_tile_rows_of(tensor->shape, tensor->ndim, tile->first);
    if (kept) {
        t.columns = rows.columns;
        t.digest = dz_digest_of(tile->task, (size_t)tile->count * dz_dtype_size(tile->task_dtype));
        dz_buf *known = find_coded(ctx, &t);
        if (known) known->len -= 4; /* the checksum, which the journal adds again */
        if (known) return dz_journal_put_block(&ctx->journal, item, DZ_EXACT_KEY, NULL, 0, known, err);
    }
    const void *base = dz_tile_predictor(tile, scratch, err);
    body->len = 0;
    if (err->rc != DZ_OK || dz_lossless_encode(body, tile->task, base, tile->task_dtype, (size_t)tile->count, &rows, err) != DZ_OK)
        return err->rc;
    dz_rc rc = dz_journal_put_block(&ctx->journal, item, DZ_EXACT_KEY, NULL, 0, body, err);
    if (kept && rc == DZ_OK) { /* the caller gets a buffer that is no longer needed */
        dz_coded_tile *place = &ctx->coded[ctx->ncoded++ % DZ_CODED_TILES];
        t.body = *body;
        *body = place->body;
        *place = t;
    }
    return rc;
}

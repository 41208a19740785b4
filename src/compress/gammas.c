/* Trace norms of what is really stored: the coded blocks of a matrix are brought to one rank, decoded to a sparse matrix and measured. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/sparse_levels.h"
#include "compress/gammas.h"
#include "numeric/tracenorm.h"
#include "parallel/exchange.h"

/* The stage's inputs and what it measures. */
typedef struct trace_pass {
    dz_context *ctx;
    const dz_lossy_plan *lossy;
    const dz_allocation *allocation;
    const dz_block_table *blocks;
    double *sums; /* [2 * lossy] trace norm and variance of each tensor */
} trace_pass;

static double source_bytes(const trace_pass *p, const dz_tensor_pair *pair) { return (double)dz_pair_tensor(p->ctx->plan, pair)->nbytes; }

static int is_matrix(const trace_pass *p, const dz_tensor_pair *pair) {
    return pair->lossy >= 0 && dz_policy_of(p->lossy, pair) == DZ_POLICY_ULTRADELTA && dz_pair_tensor(p->ctx->plan, pair)->ndim >= 2;
}

/* The next lossy matrix in the order of first tiles, from unit `*u` on; NULL at the end. Senders and receivers both walk in this order, so
 * that messages between two ranks match by their order alone. */
static const dz_tensor_pair *next_matrix(const trace_pass *p, size_t *u) {
    const dz_plan *plan = p->ctx->plan;
    for (; *u < plan->nunits; ++*u) {
        const dz_work_item *unit = &plan->units[*u];
        if (unit->pair == DZ_NO_PAIR || unit->tile != 0) continue;
        const dz_tensor_pair *pair = &plan->pairs[unit->pair];
        if (!is_matrix(p, pair) || pair->tiles.ncommon == 0) continue;
        ++*u;
        return pair;
    }
    return NULL;
}

/* Blocks of matrices that several ranks have coded, for the matrices' owners. */
static dz_rc gather_outgoing(trace_pass *p, dz_outbox *box, dz_error *err) {
    const dz_plan *plan = p->ctx->plan;
    size_t u = 0;
    for (const dz_tensor_pair *pair; (pair = next_matrix(p, &u)) != NULL;) {
        int owner = dz_pair_owner(plan, pair);
        if (owner == p->ctx->world->rank) continue;
        for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) {
            size_t item = plan->unit_of[pair->first_tile + tile];
            if (dz_item_rank(plan, item) != p->ctx->world->rank) continue;
            uint8_t *block = dz_outbox_add(box, owner, (size_t)p->blocks->length[item], err);
            if (!block || dz_journal_get_block(&p->ctx->journal, item, block, err) != DZ_OK) return err->rc;
        }
    }
    return err->rc;
}

typedef struct matrix {
    uint64_t *row_start;
    uint32_t *col;
    uint8_t *level;
    size_t cap, level_cap;
    dz_nonzeros kept;
    dz_buf block;
} matrix;

static void matrix_free(matrix *m) {
    free(m->row_start);
    free(m->col);
    free(m->level);
    dz_nonzeros_free(&m->kept);
    dz_buf_free(&m->block);
}

/* The block of a unit: from this rank's journal, or from the rank that coded it. */
static dz_rc fetch_block(trace_pass *p, matrix *m, size_t unit, dz_error *err) {
    size_t len = (size_t)p->blocks->length[unit];
    int from = dz_item_rank(p->ctx->plan, unit);
    m->block.len = 0;
    dz_buf_reserve(&m->block, len, err);
    if (from != p->ctx->world->rank) { /* taken even after a fault, so that the sender is not left waiting */
        dz_receive_block(p->ctx->world, from, err->rc == DZ_OK ? m->block.data : NULL, len);
    } else if (err->rc == DZ_OK) {
        dz_journal_get_block(&p->ctx->journal, unit, m->block.data, err);
    }
    m->block.len = len - 4; /* without the checksum: it has not been on a disk */
    return err->rc;
}

static dz_rc build(trace_pass *p, const dz_tensor_pair *pair, matrix *m, uint64_t rows, uint64_t cols, dz_error *err) {
    const dz_tensor *t = dz_pair_tensor(p->ctx->plan, pair);
    size_t n = 0;
    uint64_t row = 0, row_first = 0; /* element at which the row begins: kept elements ascend */
    free(m->row_start);
    m->row_start = dz_alloc(rows + 1, sizeof *m->row_start, err);
    for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) {
        uint64_t first = dz_tile_first(&pair->tiles, tile), count = dz_tile_count(&pair->tiles, tile);
        if (fetch_block(p, m, p->ctx->plan->unit_of[pair->first_tile + tile], err) != DZ_OK) continue; /* go on receiving */
        uint64_t key = dz_tile_key(p->ctx->task_key[pair->task], t->name, tile);
        if (dz_nonzeros_decode(&m->kept, m->block.data, m->block.len, key, (size_t)count, (unsigned)pair->bits, err) != DZ_OK ||
            dz_grow((void **)&m->col, &m->cap, n + m->kept.count, sizeof *m->col, err) != DZ_OK ||
            dz_grow((void **)&m->level, &m->level_cap, n + m->kept.count, 1, err) != DZ_OK)
            continue;
        for (size_t i = 0; i < m->kept.count; i++) {
            uint64_t at = first + m->kept.index[i];
            for (; at - row_first >= cols; row_first += cols) row++;
            m->row_start[row + 1]++;
            m->col[n] = (uint32_t)(at - row_first);
            m->level[n++] = m->kept.level[i];
        }
    }
    for (uint64_t r = 0; r < rows && err->rc == DZ_OK; r++) m->row_start[r + 1] += m->row_start[r];
    return err->rc;
}

/* A matrix that is known already: its blocks are under way all the same. */
static dz_rc receive(trace_pass *p, const dz_tensor_pair *pair, matrix *m, dz_error *err) {
    for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) {
        size_t unit = p->ctx->plan->unit_of[pair->first_tile + tile];
        if (dz_item_rank(p->ctx->plan, unit) != p->ctx->world->rank) fetch_block(p, m, unit, err);
    }
    return err->rc;
}

/* The trace norms of a stack's matrices, summed. */
static dz_rc measure_stack(const trace_pass *p, const matrix *m, const dz_matrix_view *view, const float *value,
                           const dz_slq_options *options, double *norm, double *variance, dz_error *err) {
    uint64_t rows = view->rows, cols = view->cols, *start = dz_alloc(rows + 1, sizeof *start, err);
    for (uint64_t k = 0; k < view->count && err->rc == DZ_OK; k++) {
        const uint64_t *first = m->row_start + k * rows;
        for (uint64_t r = 0; r <= rows; r++) start[r] = first[r] - first[0];
        dz_sparse a = {
            .rows = rows, .cols = cols, .row_start = start, .col = m->col + first[0], .level = m->level + first[0], .value = value};
        dz_slq_options mine = *options;
        mine.key -= k;
        double of_one = 0, variance_of_one = 0;
        if (p->ctx->zoo.recipe->tracenorm == DZ_TRACENORM_EXACT)
            dz_tracenorm_exact(&a, &of_one, err);
        else if ((rows < cols ? rows : cols) <= DZ_TRACENORM_SMALL)
            dz_tracenorm_small(&a, &of_one, err);
        else
            dz_tracenorm_slq(&a, &mine, &of_one, &variance_of_one, err);
        *norm += of_one;
        *variance += variance_of_one;
    }
    free(start);
    return err->rc;
}

static dz_rc measure(trace_pass *p, const dz_tensor_pair *pair, matrix *m, const dz_slq_options *options, dz_error *err) {
    const dz_tensor *t = dz_pair_tensor(p->ctx->plan, pair);
    const dz_tensor_coding *c = &p->allocation->tensors[pair->lossy];
    const dz_grid_levels *grid = &p->lossy->tensors[pair->lossy].grid;
    dz_journal *journal = &p->ctx->journal;
    dz_matrix_view view = dz_plan_view(p->ctx->plan, pair);
    float value[DZ_MAX_LEVELS] = {0};
    double *known = &p->sums[2 * pair->lossy];
    uint64_t key = dz_hash64(&c->scale, sizeof c->scale, dz_allocation_hash(p->allocation, p->lossy, (size_t)pair->lossy));
    if (err->rc == DZ_OK && dz_journal_find(journal, DZ_RECORD_TRACE, (uint64_t)pair->lossy, key, known, 2 * sizeof *known))
        return receive(p, pair, m, err);
    if (build(p, pair, m, view.count * view.rows, view.cols, err) != DZ_OK) return err->rc;
    for (unsigned g = 0; g < 1U << grid->bits; g++) value[g] = dz_level_value(grid, g);
    dz_slq_options mine = *options;
    mine.key = dz_tile_key(p->ctx->task_key[pair->task], t->name, UINT64_MAX);
    double norm = 0, variance = 0;
    if (measure_stack(p, m, &view, value, &mine, &norm, &variance, err) != DZ_OK) return err->rc;
    known[0] = (double)c->scale * norm;
    known[1] = (double)c->scale * (double)c->scale * variance;
    return dz_journal_put(journal, DZ_RECORD_TRACE, (uint64_t)pair->lossy, key, known, 2 * sizeof *known, err);
}

/* Nine digits: what differs beyond them between machines must not change a restored model. */
static double nine_digits(double x) {
    char text[32];
    snprintf(text, sizeof text, "%.8e", x);
    return strtod(text, NULL);
}

/* gamma_t = min_j T_j / T_t over the tasks compressed together (UltraDelta, TNGR), or the archive's reference where it has one; at most 1,
 * and 1 where T_t is 0. */
static void set_gammas(const trace_pass *p, dz_gammas *out) {
    const dz_plan *plan = p->ctx->plan;
    int given = out->reference > 0;
    for (size_t i = 0; i < plan->nlossy; i++) {
        size_t t = plan->pairs[plan->lossy[i]].task;
        out->trace_norm[t] += p->sums[2 * i];
        out->error[t] += p->sums[2 * i + 1]; /* variances so far */
    }
    for (size_t t = 0; t < plan->ntasks; t++) {
        out->trace_norm[t] = nine_digits(out->trace_norm[t]);
        out->error[t] = nine_digits(sqrt(out->error[t]));
        if (out->trace_norm[t] <= 0 || given || (out->reference > 0 && out->trace_norm[t] >= out->reference)) continue;
        out->reference = out->trace_norm[t];
        out->reference_task = t;
    }
    for (size_t t = 0; t < plan->ntasks; t++) out->gamma[t] = out->trace_norm[t] > out->reference ? out->reference / out->trace_norm[t] : 1;
}

/* For each task the sum over its matrices of the smaller side. */
static void sum_small_sides(const trace_pass *p, uint64_t *sides) {
    const dz_plan *plan = p->ctx->plan;
    for (size_t i = 0; i < plan->nlossy; i++) {
        const dz_tensor_pair *pair = &plan->pairs[plan->lossy[i]];
        if (!is_matrix(p, pair)) continue;
        dz_matrix_view view = dz_plan_view(plan, pair);
        sides[pair->task] += view.count * (view.rows < view.cols ? view.rows : view.cols);
    }
}

static void measure_own(trace_pass *p, matrix *m, const uint64_t *sides, dz_error *err) {
    dz_progress progress;
    double total = 0;
    size_t u = 0;
    for (const dz_tensor_pair *pair; (pair = next_matrix(p, &u)) != NULL;) total += source_bytes(p, pair);
    dz_context_begin_phase(p->ctx, &progress, DZ_PHASE_TRACE, total);
    u = 0;
    for (const dz_tensor_pair *pair; (pair = next_matrix(p, &u)) != NULL;) {
        if (dz_pair_owner(p->ctx->plan, pair) != p->ctx->world->rank) continue;
        dz_slq_options options = dz_slq_choose(sides[pair->task], 0);
        dz_progress_check(&progress, err); /* what is under way is received in any case */
        measure(p, pair, m, &options, err);
        dz_progress_add(&progress, source_bytes(p, pair));
    }
    p->ctx->secs[DZ_PHASE_TRACE] += dz_progress_end(&progress);
}

dz_rc dz_gammas_init(const dz_context *ctx, dz_gammas *out, dz_error *err) {
    size_t n = ctx->plan->ntasks;
    *out = (dz_gammas){.reference_task = SIZE_MAX};
    out->reference = ctx->copied.old ? ctx->copied.old->catalog->trace_reference : 0; /* a stored one is used */
    out->gamma = dz_alloc(n, sizeof *out->gamma, err);
    out->trace_norm = dz_alloc(n, sizeof *out->trace_norm, err);
    out->error = dz_alloc(n, sizeof *out->error, err);
    for (size_t t = 0; err->rc == DZ_OK && t < n; t++) out->gamma[t] = 1;
    return err->rc;
}

dz_rc dz_trace_norms(dz_context *ctx, const dz_lossy_plan *lossy, const dz_allocation *allocation, const dz_block_table *blocks,
                     dz_gammas *out, dz_error *err) {
    trace_pass p = {.ctx = ctx, .lossy = lossy, .allocation = allocation, .blocks = blocks};
    dz_outbox box = {0};
    matrix m = {0};
    int off = ctx->zoo.recipe->tracenorm == DZ_TRACENORM_OFF || !ctx->method->trace_norms;
    p.sums = dz_alloc(2 * ctx->plan->nlossy, sizeof *p.sums, err);
    uint64_t *sides = dz_alloc(ctx->plan->ntasks, sizeof *sides, err);
    if (err->rc == DZ_OK && !off) gather_outgoing(&p, &box, err);
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    if (rc != DZ_OK || off) goto out;
    dz_outbox_start(&box, ctx->world);
    sum_small_sides(&p, sides);
    measure_own(&p, &m, sides, err);
    dz_outbox_finish(&box);
    if ((rc = dz_sync_error(ctx->world, err->rc, err)) != DZ_OK) goto out;
    dz_sum_f64(ctx->world, p.sums, 2 * ctx->plan->nlossy); /* one owner each: a sum with zeros is exact */
    set_gammas(&p, out);
out:
    dz_outbox_finish(&box);
    matrix_free(&m);
    free(sides);
    free(p.sums);
    return rc;
}

void dz_gammas_free(dz_gammas *g) {
    free(g->gamma);
    free(g->trace_norm);
    free(g->error);
    *g = (dz_gammas){0};
}

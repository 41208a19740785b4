/* Trace norms of what is really stored: the coded blocks of a matrix are brought to one rank, decoded to a sparse matrix and measured. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/sparse_levels.h"
#include "compress/job.h"
#include "numeric/tracenorm.h"
#include "parallel/exchange.h"

static double source_bytes(const dz_job *job, const dz_tensor_pair *pair) { return (double)dz_pair_tensor(job->plan, pair)->nbytes; }

static int is_matrix(const dz_job *job, const dz_tensor_pair *pair) {
    return pair->policy == DZ_POLICY_ULTRADELTA && dz_pair_tensor(job->plan, pair)->ndim >= 2;
}

/* The next lossy matrix in the order of first tiles, from unit `*u` on; NULL at the end. Senders and receivers both walk in this order, so
 * that messages between two ranks match by their order alone. */
static const dz_tensor_pair *next_matrix(const dz_job *job, size_t *u) {
    const dz_plan *plan = job->plan;
    for (; *u < plan->nunits; ++*u) {
        const dz_work_item *unit = &plan->units[*u];
        if (unit->pair == DZ_NO_PAIR || unit->tile != 0) continue;
        const dz_tensor_pair *pair = &plan->pairs[unit->pair];
        if (!is_matrix(job, pair) || pair->tiles.ncommon == 0) continue;
        ++*u;
        return pair;
    }
    return NULL;
}

/* Blocks of matrices that several ranks have coded, for the matrices' owners. */
static dz_rc gather_outgoing(dz_job *job, dz_outbox *box, dz_error *err) {
    size_t u = 0;
    for (const dz_tensor_pair *pair; (pair = next_matrix(job, &u)) != NULL;) {
        int owner = dz_pair_owner(job->plan, pair);
        if (owner == job->world->rank) continue;
        for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) {
            size_t unit = job->plan->unit_of[pair->first_tile + tile];
            if (dz_item_rank(job->plan, unit) != job->world->rank) continue;
            uint8_t *block = dz_outbox_add(box, owner, (size_t)job->block_len[unit], err);
            if (!block || dz_journal_get_block(&job->journal, unit, block, err) != DZ_OK) return err->rc;
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
static dz_rc fetch_block(dz_job *job, matrix *m, size_t unit, dz_error *err) {
    size_t len = (size_t)job->block_len[unit];
    int from = dz_item_rank(job->plan, unit);
    m->block.len = 0;
    dz_buf_reserve(&m->block, len, err);
    if (from != job->world->rank) { /* taken even after a fault, so that the sender is not left waiting */
        dz_receive_block(job->world, from, err->rc == DZ_OK ? m->block.data : NULL, len);
    } else if (err->rc == DZ_OK) {
        dz_journal_get_block(&job->journal, unit, m->block.data, err);
    }
    m->block.len = len - 4; /* without the checksum: it has not been on a disk */
    return err->rc;
}

static dz_rc build(dz_job *job, const dz_tensor_pair *pair, matrix *m, uint64_t rows, uint64_t cols, dz_error *err) {
    const dz_tensor *t = dz_pair_tensor(job->plan, pair);
    size_t n = 0;
    uint64_t row = 0, row_first = 0; /* element at which the row begins: kept elements ascend */
    free(m->row_start);
    m->row_start = dz_alloc(rows + 1, sizeof *m->row_start, err);
    for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) {
        uint64_t first = dz_tile_first(&pair->tiles, tile), count = dz_tile_count(&pair->tiles, tile);
        if (fetch_block(job, m, job->plan->unit_of[pair->first_tile + tile], err) != DZ_OK) continue; /* go on receiving */
        uint64_t key = dz_tile_key(job->task_key[pair->task], t->name, tile);
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
static dz_rc receive(dz_job *job, const dz_tensor_pair *pair, matrix *m, dz_error *err) {
    for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) {
        size_t unit = job->plan->unit_of[pair->first_tile + tile];
        if (dz_item_rank(job->plan, unit) != job->world->rank) fetch_block(job, m, unit, err);
    }
    return err->rc;
}

static dz_rc measure(dz_job *job, const dz_tensor_pair *pair, matrix *m, const dz_slq_options *options, dz_error *err) {
    const dz_tensor *t = dz_pair_tensor(job->plan, pair);
    dz_lossy *l = &job->lossy[pair->lossy];
    uint64_t cols = t->count / t->shape[0], rows = pair->tiles.common / cols;
    float value[DZ_MAX_LEVELS] = {0};
    double known[2];
    uint64_t key = dz_hash64(&l->scale, sizeof l->scale, dz_job_block_key(job, l));
    if (err->rc == DZ_OK && dz_journal_find(&job->journal, DZ_RECORD_TRACE, (uint64_t)pair->lossy, key, known, sizeof known)) {
        l->trace_norm = known[0];
        l->trace_variance = known[1];
        return receive(job, pair, m, err);
    }
    if (build(job, pair, m, rows, cols, err) != DZ_OK) return err->rc;
    for (unsigned g = 0; g < 1U << l->grid.bits; g++) value[g] = dz_level_value(&l->grid, g);
    dz_sparse a = {.rows = rows, .cols = cols, .row_start = m->row_start, .col = m->col, .level = m->level, .value = value};
    dz_slq_options mine = *options;
    mine.key = dz_tile_key(job->task_key[pair->task], t->name, UINT64_MAX);
    double norm = 0, variance = 0;
    if (job->zoo.recipe->tracenorm == DZ_TRACENORM_EXACT)
        dz_tracenorm_exact(&a, &norm, err);
    else if ((rows < cols ? rows : cols) <= DZ_TRACENORM_SMALL)
        dz_tracenorm_small(&a, &norm, err);
    else
        dz_tracenorm_slq(&a, &mine, &norm, &variance, err);
    if (err->rc != DZ_OK) return err->rc;
    l->trace_norm = (double)l->scale * norm;
    l->trace_variance = (double)l->scale * (double)l->scale * variance;
    known[0] = l->trace_norm;
    known[1] = l->trace_variance;
    return dz_journal_put(&job->journal, DZ_RECORD_TRACE, (uint64_t)pair->lossy, key, known, sizeof known, err);
}

/* Nine digits: what differs beyond them between machines must not change a restored model. */
static double nine_digits(double x) {
    char text[32];
    snprintf(text, sizeof text, "%.8e", x);
    return strtod(text, NULL);
}

/* gamma_t = min_j T_j / T_t over the tasks compressed together (UltraDelta, TNGR), or the archive's reference where it has one; at most 1,
 * and 1 where T_t is 0. */
static void set_gammas(dz_job *job) {
    const dz_plan *plan = job->plan;
    double reference = job->copied.old ? job->copied.old->catalog->trace_reference : 0; /* a stored one is used */
    int given = reference > 0;
    memset(job->trace_error, 0, plan->ntasks * sizeof *job->trace_error);
    for (size_t i = 0; i < plan->nlossy; i++) {
        size_t t = plan->pairs[plan->lossy[i]].task;
        job->trace_norm[t] += job->lossy[i].trace_norm;
        job->trace_error[t] += job->lossy[i].trace_variance;
    }
    for (size_t t = 0; t < plan->ntasks; t++) {
        job->trace_norm[t] = nine_digits(job->trace_norm[t]);
        job->trace_error[t] = nine_digits(sqrt(job->trace_error[t]));
        if (job->trace_norm[t] > 0 && !given && (reference == 0 || job->trace_norm[t] < reference)) reference = job->trace_norm[t];
    }
    job->trace_reference = reference;
    for (size_t t = 0; t < job->plan->ntasks; t++) job->gamma[t] = job->trace_norm[t] > reference ? reference / job->trace_norm[t] : 1;
}

/* For each task the sum over its matrices of the smaller side. */
static void sum_small_sides(const dz_job *job, uint64_t *sides) {
    for (size_t i = 0; i < job->plan->nlossy; i++) {
        const dz_tensor_pair *pair = &job->plan->pairs[job->plan->lossy[i]];
        if (!is_matrix(job, pair)) continue;
        const dz_tensor *t = dz_pair_tensor(job->plan, pair);
        uint64_t cols = t->count / t->shape[0], rows = pair->tiles.common / cols;
        sides[pair->task] += rows < cols ? rows : cols;
    }
}

dz_rc dz_job_trace(dz_job *job, dz_error *err) {
    const dz_plan *plan = job->plan;
    dz_outbox box = {0};
    matrix m = {0};
    dz_progress progress;
    double *sums = dz_alloc(2 * plan->nlossy, sizeof *sums, err);
    uint64_t *sides = dz_alloc(plan->ntasks, sizeof *sides, err);
    int off = job->zoo.recipe->tracenorm == DZ_TRACENORM_OFF || job->zoo.recipe->method != DZ_METHOD_ULTRADELTA; /* TNGR is UltraDelta's */
    for (size_t t = 0; t < plan->ntasks; t++) job->gamma[t] = 1;
    if (err->rc == DZ_OK && !off) gather_outgoing(job, &box, err);
    dz_rc rc = dz_sync_error(job->world, err->rc, err);
    if (rc != DZ_OK || off) goto out;
    dz_outbox_start(&box, job->world);
    double total = 0;
    size_t u = 0;
    sum_small_sides(job, sides);
    for (const dz_tensor_pair *pair; (pair = next_matrix(job, &u)) != NULL;) total += source_bytes(job, pair);
    dz_job_begin_phase(job, &progress, DZ_PHASE_TRACE, total);
    u = 0;
    for (const dz_tensor_pair *pair; (pair = next_matrix(job, &u)) != NULL;) {
        if (dz_pair_owner(plan, pair) != job->world->rank) continue;
        dz_slq_options options = dz_slq_choose(sides[pair->task], 0);
        dz_progress_check(&progress, err); /* what is under way is received in any case */
        measure(job, pair, &m, &options, err);
        dz_progress_add(&progress, source_bytes(job, pair));
    }
    dz_outbox_finish(&box);
    job->secs[DZ_PHASE_TRACE] = dz_progress_end(&progress);
    if ((rc = dz_sync_error(job->world, err->rc, err)) != DZ_OK) goto out;
    for (size_t i = 0; i < plan->nlossy; i++) {
        sums[2 * i] = job->lossy[i].trace_norm;
        sums[2 * i + 1] = job->lossy[i].trace_variance;
    }
    dz_sum_f64(job->world, sums, 2 * plan->nlossy); /* one owner each: a sum with zeros is exact */
    for (size_t i = 0; i < plan->nlossy; i++) {
        job->lossy[i].trace_norm = sums[2 * i];
        job->lossy[i].trace_variance = sums[2 * i + 1];
    }
    set_gammas(job);
out:
    dz_outbox_finish(&box);
    matrix_free(&m);
    free(sums);
    free(sides);
    return rc;
}

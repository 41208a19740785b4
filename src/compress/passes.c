/* The passes over the data: statistics, histograms, coding. Each walks this rank's units in the plan's order. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "codec/lossless.h"
#include "codec/sparse_levels.h"
#include "codec/sparse_signs.h"
#include "codec/sparse_values.h"
#include "compress/job.h"
#include "compress/tile_reader.h"

/* Bytes of the two sides that a rank's units will read: the progress of a pass. */
static double bytes_of_pass(const dz_job *job, int lossy_only) {
    double sum = 0;
    for (size_t i = 0; i < job->plan->npairs; i++) {
        const dz_tensor_pair *pair = &job->plan->pairs[i];
        if (pair->tiles.ntiles && (!lossy_only || pair->lossy >= 0)) sum += (double)dz_pair_tensor(job->plan, pair)->nbytes;
    }
    return sum;
}

static double unit_bytes(const dz_job *job, const dz_work_item *u) {
    if (u->pair == DZ_NO_PAIR) return 0;
    const dz_tensor_pair *pair = &job->plan->pairs[u->pair];
    return (double)(dz_tile_count(&pair->tiles, u->tile) * dz_dtype_size(dz_pair_tensor(job->plan, pair)->dtype));
}

/* The tensor of a unit that goes the lossy way; NULL otherwise. */
static dz_lossy *lossy_of(const dz_job *job, const dz_work_item *u) {
    return dz_item_is_lossy(job->plan, u) ? &job->lossy[job->plan->pairs[u->pair].lossy] : NULL;
}

#define EXACT 0 /* key of the block of an exact tile: it depends on the inputs alone */

/* What the journal keeps of a unit after the first pass, and of a lossy one after the second (followed by its histogram). */
typedef struct statistics_record {
    int32_t extremes[2];
    uint64_t digest[2];
    double sums[2];
} statistics_record;

static dz_rc code_exact(dz_job *job, size_t unit, const dz_tile *t, dz_buf *body, dz_buf *scratch, dz_error *err) {
    const void *base = dz_tile_predictor(t, scratch, err);
    body->len = 0;
    if (err->rc != DZ_OK || dz_lossless_encode(body, t->task, base, t->task_dtype, (size_t)t->count, err) != DZ_OK) return err->rc;
    return dz_journal_put_block(&job->journal, unit, EXACT, NULL, 0, body, err);
}

#define AT_ONCE 8 /* tasks whose tiles are walked together: as many sieves are held at a time */

/* How many of this rank's units from number i on are lossy and lie over the same base tile, at most AT_ONCE. 0: number i is not lossy. */
static size_t run_of(const dz_job *job, size_t i) {
    const dz_work_item *first = &job->plan->units[dz_job_unit(job, i)];
    size_t n = 0;
    for (; n < AT_ONCE && i + n < dz_job_nunits(job); n++) {
        const dz_work_item *u = &job->plan->units[dz_job_unit(job, i + n)];
        if (!dz_item_is_lossy(job->plan, u) || u->base != first->base || u->tile != first->tile) break;
    }
    return n;
}

static void put_digest(statistics_record *r, dz_digest digest) {
    r->digest[0] = digest.hi;
    r->digest[1] = digest.lo;
}

/* Range, and for the method that asks for them moments, of lossy tiles. */
typedef struct measures {
    int moments;
    dz_range range[AT_ONCE];
    double lanes[AT_ONCE][2 * DZ_LANES];
} measures;

static dz_rc measure_piece(void *arg, size_t i, const dz_tile *piece, dz_error *err) {
    measures *m = arg;
    dz_piece_range(piece, &m->range[i]);
    if (m->moments) dz_piece_moments(piece, m->lanes[i]);
    return err->rc;
}

static dz_rc measure_units(dz_job *job, dz_tile_reader *reader, const size_t *units, size_t n, statistics_record *const *records,
                           dz_error *err) {
    measures m = {.moments = job->zoo.recipe->method == DZ_METHOD_BITDELTA};
    dz_digest digest;
    int digests = dz_item_is_first(job->plan, units[0]);
    dz_tile whole;
    for (size_t i = 0; i < n; i++) m.range[i] = DZ_RANGE_EMPTY;
    dz_tiles_walk(reader, units, n, digests ? &digest : NULL, measure_piece, &m, err);
    if (digests && err->rc == DZ_OK) put_digest(records[0], digest);
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) {
        if (!dz_range_finite(m.range[i]) && job->zoo.recipe->nonfinite == DZ_NONFINITE_ERROR)
            return dz_tile_read(reader, units[i], &whole, err) == DZ_OK ? dz_tile_nonfinite(reader, &whole, err) : err->rc;
        records[i]->extremes[0] = ~m.range[i].lo; /* ~x mirrors the order of integers, so one maximum serves both ends */
        records[i]->extremes[1] = m.range[i].hi;
        for (int k = 0; k < 2; k++) records[i]->sums[k] = dz_lanes_total(m.lanes[i] + k * DZ_LANES);
        dz_journal_put(&job->journal, DZ_RECORD_STATISTICS, units[i], 0, records[i], sizeof *records[i], err);
    }
    return err->rc;
}

static void take_statistics(dz_job *job, size_t unit, const statistics_record *r, int32_t *extremes, dz_progress *progress) {
    const dz_work_item *u = &job->plan->units[unit];
    if (dz_item_is_first(job->plan, unit))
        memcpy(&job->base_digests[2 * (job->plan->base_tile[u->base] + u->tile)], r->digest, sizeof r->digest);
    if (dz_item_is_lossy(job->plan, u)) {
        int32_t *e = &extremes[2 * job->plan->pairs[u->pair].lossy];
        for (int k = 0; k < 2; k++) e[k] = r->extremes[k] > e[k] ? r->extremes[k] : e[k];
        memcpy(&job->unit_sums[2 * unit], r->sums, sizeof r->sums);
    }
    dz_progress_add(progress, unit_bytes(job, u));
}

/* Of the n lossy units from number i on; those that an earlier run has measured are taken from its journal. */
static dz_rc statistics_of_run(dz_job *job, dz_tile_reader *reader, size_t i, size_t n, int32_t *extremes, dz_progress *progress,
                               dz_error *err) {
    statistics_record records[AT_ONCE], *wanted[AT_ONCE];
    size_t units[AT_ONCE], unknown = 0;
    for (size_t j = 0; j < n; j++) {
        size_t unit = dz_job_unit(job, i + j);
        records[j] = (statistics_record){.extremes = {INT32_MIN, INT32_MIN}};
        if (dz_journal_find(&job->journal, DZ_RECORD_STATISTICS, unit, 0, &records[j], sizeof records[j])) continue;
        units[unknown] = unit;
        wanted[unknown++] = &records[j];
    }
    if (unknown && measure_units(job, reader, units, unknown, wanted, err) != DZ_OK) return err->rc;
    for (size_t j = 0; j < n; j++) take_statistics(job, dz_job_unit(job, i + j), &records[j], extremes, progress);
    return DZ_OK;
}

/* Of a unit that is not lossy: digest of the base, exact coding. */
static dz_rc statistics_of_unit(dz_job *job, dz_tile_reader *reader, size_t unit, int32_t *extremes, dz_buf *body, dz_buf *scratch,
                                dz_progress *progress, dz_error *err) {
    statistics_record r = {.extremes = {INT32_MIN, INT32_MIN}};
    dz_tile t;
    int known = dz_journal_find(&job->journal, DZ_RECORD_STATISTICS, unit, 0, &r, sizeof r);
    if (known && job->plan->units[unit].pair != DZ_NO_PAIR) known = dz_journal_adopt_block(&job->journal, unit, EXACT, NULL, 0);
    if (!known) {
        if (dz_tile_read(reader, unit, &t, err) != DZ_OK) return err->rc;
        if (dz_item_is_first(job->plan, unit)) put_digest(&r, dz_digest_of(t.base, (size_t)t.base_count * dz_dtype_size(t.base_dtype)));
        if (t.pair && code_exact(job, unit, &t, body, scratch, err) != DZ_OK) return err->rc;
        if (dz_journal_put(&job->journal, DZ_RECORD_STATISTICS, unit, 0, &r, sizeof r, err) != DZ_OK) return err->rc;
    }
    take_statistics(job, unit, &r, extremes, progress);
    return DZ_OK;
}

/* Collective. Sums over whole tensors: of the tiles' sums, in the order of the tiles. */
static void sum_tiles(dz_job *job) {
    const dz_plan *plan = job->plan;
    dz_sum_f64(job->world, job->unit_sums, 2 * plan->nunits); /* a tile was summed by one rank: a sum with zeros is exact */
    for (size_t i = 0; i < plan->nlossy; i++) {
        const dz_tensor_pair *pair = &plan->pairs[plan->lossy[i]];
        for (uint32_t tile = 0; tile < pair->tiles.ncommon; tile++) {
            const double *sums = &job->unit_sums[2 * (size_t)plan->unit_of[pair->first_tile + tile]];
            for (int k = 0; k < 2; k++) job->lossy[i].sums[k] += sums[k];
        }
    }
}

dz_rc dz_job_statistics(dz_job *job, dz_error *err) {
    dz_plan *plan = job->plan;
    dz_tile_reader reader;
    dz_progress progress;
    dz_buf body = {0}, scratch = {0};
    int32_t *extremes = dz_alloc_raw(2 * plan->nlossy, sizeof *extremes, err);
    for (size_t i = 0; extremes && i < 2 * plan->nlossy; i++) extremes[i] = INT32_MIN;
    dz_tile_reader_init(&reader, job->zoo.base, job->zoo.tasks, plan);
    dz_job_begin_phase(job, &progress, DZ_PHASE_STATISTICS, bytes_of_pass(job, 0));
    for (size_t i = 0, n; i < dz_job_nunits(job) && dz_progress_check(&progress, err) == DZ_OK; i += n ? n : 1) {
        if ((n = run_of(job, i)) > 0)
            statistics_of_run(job, &reader, i, n, extremes, &progress, err);
        else
            statistics_of_unit(job, &reader, dz_job_unit(job, i), extremes, &body, &scratch, &progress, err);
    }
    job->secs[DZ_PHASE_STATISTICS] = dz_progress_end(&progress);
    job->bytes_read += reader.bytes_read;
    dz_rc rc = dz_sync_error(job->world, err->rc, err);
    if (rc == DZ_OK) {
        dz_max_i32(job->world, extremes, 2 * plan->nlossy);
        dz_sum_u64(job->world, job->base_digests, 2 * (size_t)plan->base_tile[plan->base->ntensors]);
        sum_tiles(job);
        rc = dz_job_check_base(job, err);
        if (rc == DZ_OK) rc = dz_job_set_grids(job, extremes, err);
    }
    dz_tile_reader_free(&reader);
    dz_buf_free(&body);
    dz_buf_free(&scratch);
    free(extremes);
    return rc;
}

/* Scratch of the passes that quantise. */
typedef struct coder {
    dz_buf levels, body, scratch;
    dz_candidates sieve[AT_ONCE];
    dz_selection selection;
    uint64_t counts[2 * DZ_MAX_LEVELS]; /* of the tile: members of each level [levels], kept of each level [levels] */
} coder;

static void coder_free(coder *c) {
    dz_buf_free(&c->levels);
    dz_buf_free(&c->body);
    dz_buf_free(&c->scratch);
    for (size_t i = 0; i < AT_ONCE; i++) dz_candidates_free(&c->sieve[i]);
    dz_selection_free(&c->selection);
}

typedef struct sieving {
    const dz_job *job;
    coder *c;
} sieving;

static dz_rc sieve_piece(void *arg, size_t i, const dz_tile *piece, dz_error *err) {
    sieving *s = arg;
    coder *c = s->c;
    c->levels.len = 0;
    if (dz_buf_reserve(&c->levels, (size_t)piece->count, err) != DZ_OK) return err->rc;
    dz_piece_levels(piece, &s->job->lossy[piece->pair->lossy].grid, c->levels.data);
    return dz_candidates_add(&c->sieve[i], c->levels.data, (size_t)piece->count, err);
}

/* Reads lossy tiles over one base tile and sieves their levels: candidates up to last[i]. */
static dz_rc sieve_units(dz_job *job, dz_tile_reader *reader, const size_t *units, size_t n, const uint32_t *last, uint32_t few, coder *c,
                         dz_error *err) {
    for (size_t i = 0; i < n; i++) {
        const dz_work_item *u = &job->plan->units[units[i]];
        const dz_tensor_pair *pair = &job->plan->pairs[u->pair];
        uint64_t key = dz_tile_key(job->task_key[pair->task], dz_pair_tensor(job->plan, pair)->name, u->tile);
        dz_candidates_begin(&c->sieve[i], key, job->lossy[pair->lossy].grid.bits, last[i], few);
    }
    dz_tiles_walk(reader, units, n, NULL, sieve_piece, &(sieving){.job = job, .c = c}, err);
    for (size_t i = 0; i < n; i++) dz_candidates_end(&c->sieve[i]);
    return err->rc;
}

/* Adds what an earlier run has counted. */
static int known_histogram(dz_job *job, size_t unit, dz_lossy *lossy) {
    uint64_t record[DZ_MAX_LEVELS];
    if (!dz_journal_find(&job->journal, DZ_RECORD_HISTOGRAM, unit, 0, record, job->levels * sizeof *record)) return 0;
    for (size_t g = 0; g < job->levels; g++) lossy->histogram[g] += record[g];
    return 1;
}

/* Keeps the sieve for the coding pass, if there is room. */
static void keep_sieve(dz_job *job, size_t unit, const dz_candidates *sieve) {
    size_t size = dz_candidates_size(sieve);
    if (size > job->cache_size - job->cache_used) return; /* the coding pass will read the tile again */
    job->sieved[dz_job_number(job, unit)] = dz_candidates_copy(job->cache + job->cache_used, sieve);
    job->cache_used += size;
}

#define SIEVES_MAX ((uint64_t)16 << 20) /* bytes that the sieves of a run may take, unless one alone takes more */

/* How many of the n lossy units from number i on are sieved together. */
static size_t sieved_together(const dz_job *job, size_t i, size_t n) {
    uint64_t sum = 0;
    size_t fit = 0;
    for (; fit < n; fit++) {
        const dz_work_item *u = &job->plan->units[dz_job_unit(job, i + fit)];
        const dz_tensor_pair *pair = &job->plan->pairs[u->pair];
        double candidates = (double)dz_tile_count(&pair->tiles, u->tile) * dz_job_most_density(job, pair);
        sum += (uint64_t)candidates +
               ((uint64_t)sizeof(dz_rare_member) * DZ_RARE / 4 << pair->bits); /* few levels are so rare, and have so many */
        if (fit && sum > SIEVES_MAX) break;
    }
    return fit;
}

/* Of the n lossy units from number i on, but for those that an earlier run has counted. */
static dz_rc histogram_of_run(dz_job *job, dz_tile_reader *reader, size_t i, size_t n, coder *c, dz_progress *progress, dz_error *err) {
    size_t units[AT_ONCE], unknown = 0;
    uint32_t last[AT_ONCE];
    for (size_t j = 0; j < n; j++) {
        size_t unit = dz_job_unit(job, i + j);
        const dz_work_item *u = &job->plan->units[unit];
        const dz_tensor_pair *pair = &job->plan->pairs[u->pair];
        dz_progress_add(progress, unit_bytes(job, u));
        if (!dz_job_has_levels(job) || known_histogram(job, unit, &job->lossy[pair->lossy])) continue;
        last[unknown] = dz_candidates_last(dz_job_most_density(job, pair), (size_t)dz_tile_count(&pair->tiles, u->tile));
        units[unknown++] = unit;
    }
    if (unknown && sieve_units(job, reader, units, unknown, last, DZ_RARE, c, err) != DZ_OK) return err->rc;
    for (size_t j = 0; j < unknown && err->rc == DZ_OK; j++) {
        const dz_candidates *sieve = &c->sieve[j];
        uint64_t *histogram = job->lossy[job->plan->pairs[job->plan->units[units[j]].pair].lossy].histogram;
        for (size_t g = 0; g < job->levels; g++) histogram[g] += sieve->members[g];
        keep_sieve(job, units[j], sieve);
        dz_journal_put(&job->journal, DZ_RECORD_HISTOGRAM, units[j], 0, sieve->members, job->levels * sizeof *sieve->members, err);
    }
    return err->rc;
}

/* A tile of a tensor that was to be lossy and, as it turned out, is not finite. */
static dz_rc code_nonfinite(dz_job *job, dz_tile_reader *reader, size_t unit, coder *c, dz_progress *progress, dz_error *err) {
    const dz_work_item *u = &job->plan->units[unit];
    dz_tile t;
    if (u->pair == DZ_NO_PAIR) return DZ_OK;
    const dz_tensor_pair *pair = &job->plan->pairs[u->pair];
    if (pair->lossy < 0 || pair->policy != DZ_POLICY_LOSSLESS || u->tile >= pair->tiles.ncommon) return DZ_OK;
    dz_progress_add(progress, unit_bytes(job, u));
    if (dz_journal_adopt_block(&job->journal, unit, EXACT, NULL, 0) || dz_tile_read(reader, unit, &t, err) != DZ_OK) return err->rc;
    return code_exact(job, unit, &t, &c->body, &c->scratch, err);
}

dz_rc dz_job_histograms(dz_job *job, dz_error *err) {
    dz_tile_reader reader;
    dz_progress progress;
    coder c = {0};
    size_t total = job->plan->nlossy * job->levels;
    dz_tile_reader_init(&reader, job->zoo.base, job->zoo.tasks, job->plan);
    dz_job_begin_phase(job, &progress, DZ_PHASE_HISTOGRAM, bytes_of_pass(job, 1));
    for (size_t i = 0, n; i < dz_job_nunits(job) && dz_progress_check(&progress, err) == DZ_OK; i += n ? n : 1) {
        if ((n = sieved_together(job, i, run_of(job, i))) > 0)
            histogram_of_run(job, &reader, i, n, &c, &progress, err);
        else
            code_nonfinite(job, &reader, dz_job_unit(job, i), &c, &progress, err);
    }
    job->secs[DZ_PHASE_HISTOGRAM] = dz_progress_end(&progress);
    job->bytes_read += reader.bytes_read;
    dz_rc rc = dz_sync_error(job->world, err->rc, err);
    if (rc == DZ_OK && total) {
        memcpy(job->befores, job->histograms, total * sizeof *job->befores);
        dz_exscan_u64(job->world, job->befores, total);
        dz_sum_u64(job->world, job->histograms, total);
    }
    dz_tile_reader_free(&reader);
    coder_free(&c);
    return rc;
}

dz_rc dz_job_allocate(dz_job *job, dz_error *err) {
    size_t n = job->plan->nlossy;
    for (size_t task = 0; task < job->plan->ntasks && err->rc == DZ_OK && job->world->rank == 0; task++)
        dz_job_allocate_task(job, task, err);
    double *told = dz_alloc(n, sizeof *told, err);
    dz_rc rc = dz_sync_error(job->world, err->rc, err);
    if (rc != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) told[i] = job->lossy[i].sparsity;
    dz_bcast_f64(job->world, told, n);
    for (size_t i = 0; i < n; i++) job->lossy[i].sparsity = told[i];
    dz_job_set_scales(job);
out:
    free(told);
    return rc;
}

/* A tile of a method that keeps values, or signs after a rotation, not levels. */
static dz_rc code_values(dz_job *job, dz_tile_reader *reader, size_t unit, const dz_lossy *l, uint64_t key, coder *c, dz_error *err) {
    dz_tile t;
    uint64_t kept = 0;
    c->scratch.len = 0;
    if (dz_tile_read(reader, unit, &t, err) != DZ_OK || dz_buf_reserve(&c->scratch, (size_t)t.count * sizeof(float), err) != DZ_OK)
        return err->rc;
    float *delta = (float *)(void *)c->scratch.data;
    dz_tile_delta(&t, delta);
    if (job->zoo.recipe->method == DZ_METHOD_AUTO) {
        return dz_signs_encode(&c->body, delta, (size_t)t.count, key, 1 - l->sparsity, c->counts + job->levels, err);
    }
    if (job->zoo.recipe->method == DZ_METHOD_DARE) {
        dz_values_encode_seeded(&c->body, delta, (size_t)t.count, key, dz_chance_limit(1 - l->sparsity), &kept, err);
    } else {
        kept = t.count - (uint64_t)rint((double)t.count * l->sparsity);
        dz_values_encode_largest(&c->body, delta, (size_t)t.count, kept, err);
    }
    c->counts[job->levels] = kept;
    return err->rc;
}

/* The share of each group's quota that falls to this tile; 0 where the sieve does not reach far enough to tell. */
static int tile_quotas(const dz_job *job, const dz_lossy *l, const dz_candidates *sieve, uint64_t *quota, uint32_t *want_last) {
    const uint64_t *running = job->running + (size_t)(l - job->lossy) * job->levels;
    uint32_t below = dz_chance_limit(1 - l->sparsity);
    memset(quota, 0, job->levels * sizeof *quota);
    if (job->zoo.recipe->no_groups && below > sieve->last) {
        *want_last = dz_candidates_last(1 - l->sparsity, sieve->count);
        return 0;
    }
    if (job->zoo.recipe->no_groups) dz_count_below(sieve, below, quota);
    for (unsigned g = 0; g < 1U << l->grid.bits && !job->zoo.recipe->no_groups; g++)
        quota[g] = dz_quota_share(l->quota[g], l->histogram[g], running[g], sieve->members[g]);
    return 1;
}

/* From the sieve that was kept; read again where there is none, or not enough of one. */
static dz_rc code_levels(dz_job *job, dz_tile_reader *reader, size_t unit, const dz_lossy *l, size_t count, coder *c, dz_error *err) {
    uint64_t *members = c->counts, *quota = c->counts + job->levels;
    const dz_candidates *sieve = job->sieved[dz_job_number(job, unit)];
    uint32_t last = dz_candidates_last(1 - l->sparsity, count), few = DZ_RARE;
    for (;;) {
        if (!sieve && sieve_units(job, reader, &unit, 1, &last, few, c, err) != DZ_OK) return err->rc;
        if (!sieve) sieve = &c->sieve[0];
        if (tile_quotas(job, l, sieve, quota, &last)) {
            if (dz_select(sieve, quota, &c->selection, err) != DZ_OK) return err->rc;
            if (c->selection.enough) break;
            last = c->selection.want_last;
            few = c->selection.want_few;
        }
        sieve = NULL;
    }
    memcpy(members, sieve->members, job->levels * sizeof *members);
    return dz_nonzeros_encode(&c->body, sieve, quota, &c->selection, job->zoo.recipe->positions == DZ_POSITIONS_GOLOMB, err);
}

static dz_rc code_unit(dz_job *job, dz_tile_reader *reader, size_t unit, coder *c, dz_progress *progress, dz_error *err) {
    const dz_work_item *u = &job->plan->units[unit];
    dz_lossy *l = lossy_of(job, u);
    if (!l) return DZ_OK;
    const dz_tensor_pair *pair = &job->plan->pairs[u->pair];
    const dz_tensor *tensor = dz_pair_tensor(job->plan, pair);
    size_t count = (size_t)dz_tile_count(&pair->tiles, u->tile);
    uint64_t key = dz_tile_key(job->task_key[pair->task], tensor->name, u->tile);
    uint64_t block_key = dz_job_block_key(job, l);
    if (!dz_journal_adopt_block(&job->journal, unit, block_key, c->counts, 2 * job->levels)) {
        memset(c->counts, 0, sizeof c->counts);
        c->body.len = 0;
        if (dz_job_has_levels(job))
            code_levels(job, reader, unit, l, count, c, err);
        else
            code_values(job, reader, unit, l, key, c, err);
        if (err->rc == DZ_OK) dz_journal_put_block(&job->journal, unit, block_key, c->counts, 2 * job->levels, &c->body, err);
    }
    uint64_t *running = job->running + (size_t)(l - job->lossy) * job->levels;
    for (size_t g = 0; g < job->levels; g++) {
        running[g] += c->counts[g];
        l->kept_levels[g] += c->counts[job->levels + g];
    }
    dz_progress_add(progress, unit_bytes(job, u));
    return err->rc;
}

dz_rc dz_job_code(dz_job *job, dz_error *err) {
    dz_tile_reader reader;
    dz_progress progress;
    coder c = {0};
    size_t n = job->plan->nlossy * job->levels;
    memcpy(job->running, job->befores, n * sizeof *job->running);
    memset(job->kepts, 0, n * sizeof *job->kepts);
    dz_tile_reader_init(&reader, job->zoo.base, job->zoo.tasks, job->plan);
    dz_job_begin_phase(job, &progress, DZ_PHASE_CODE, bytes_of_pass(job, 1));
    for (size_t i = 0; i < dz_job_nunits(job) && dz_progress_check(&progress, err) == DZ_OK; i++)
        code_unit(job, &reader, dz_job_unit(job, i), &c, &progress, err);
    job->secs[DZ_PHASE_CODE] += dz_progress_end(&progress);
    job->bytes_read += reader.bytes_read;
    dz_rc rc = dz_sync_error(job->world, err->rc, err);
    if (rc == DZ_OK) {
        memset(job->block_len, 0, job->plan->nunits * sizeof *job->block_len);
        for (size_t i = 0; i < dz_job_nunits(job); i++) job->block_len[dz_job_unit(job, i)] = job->journal.length[i];
        dz_sum_u64(job->world, job->block_len, job->plan->nunits); /* each block was coded by one rank */
        dz_sum_u64(job->world, job->kepts, n);
    }
    for (size_t i = 0; i < job->plan->nlossy; i++) {
        job->lossy[i].kept = 0;
        for (size_t g = 0; g < job->levels; g++) job->lossy[i].kept += job->lossy[i].kept_levels[g];
    }
    dz_tile_reader_free(&reader);
    coder_free(&c);
    return rc;
}

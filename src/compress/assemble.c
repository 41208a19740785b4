/* From coded blocks to an archive: the catalog, the layout, every rank's ranges, the rename. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive/publish.h"
#include "archive/writer.h"
#include "base/file.h"
#include "base/log.h"
#include "base/version.h"
#include "compress/assemble.h"
#include "compress/share.h"
#include "numeric/allocate.h"

/* What this stage works on; rank 0 has the catalog. */
typedef struct assembly {
    dz_context *ctx;
    const dz_results *results;
    dz_catalog **catalog;
    dz_share *share; /* rows that others may refer to */
    int apart;       /* they are not used: each task has the size that it has by itself */
} assembly;

static dz_rc add_base(const assembly *a, dz_catalog *c, dz_error *err) {
    const dz_checkpoint *base = a->ctx->zoo.base;
    c->nbase_tiles = a->ctx->plan->base_tile[base->ntensors];
    c->base = dz_alloc(base->ntensors, sizeof *c->base, err);
    c->base_tiles = dz_alloc(c->nbase_tiles, sizeof *c->base_tiles, err);
    if (err->rc != DZ_OK) return err->rc;
    c->nbase = base->ntensors;
    for (size_t i = 0; i < c->nbase; i++) {
        c->base[i].first_tile = a->ctx->plan->base_tile[i];
        if (dz_catalog_tensor(c, &base->tensors[i], &c->base[i].tensor, err) != DZ_OK) return err->rc;
    }
    for (size_t i = 0; i < c->nbase_tiles; i++)
        c->base_tiles[i] = (dz_digest){.hi = a->results->stats->base_digests[2 * i], .lo = a->results->stats->base_digests[2 * i + 1]};
    if (dz_catalog_mark_vocabulary(c, err) != DZ_OK) return err->rc;
    return dz_catalog_fingerprint(c, &c->fingerprint, err);
}

/* With tasks of an older archive: its table of the base holds, and the models' base has its row there for each tensor. */
static dz_rc map_base(const assembly *a, const dz_catalog *c, uint32_t *row_of, dz_error *err) {
    const dz_checkpoint *base = a->ctx->zoo.base;
    for (size_t b = 0; b < c->nbase; b++) {
        const char *name = c->tensors[c->base[b].tensor].name;
        int64_t i = dz_checkpoint_find(base, name);
        if (i < 0) return dz_fail(err, DZ_EFAIL, "%s: not the base of %s: it has no tensor '%s'", base->path, a->ctx->opt->archive, name);
        row_of[i] = (uint32_t)b;
    }
    return DZ_OK;
}

/* An exact tensor all of whose tiles are one-byte bodies ("equal to the base") is recorded as equal, without bytes. */
static int turned_out_equal(const assembly *a, const dz_tensor_pair *pair) {
    int chained = dz_chains_row(&a->ctx->chains, (uint32_t)(pair - a->ctx->plan->pairs)) >= 0;
    if (dz_policy_of(a->results->lossy, pair) != DZ_POLICY_LOSSLESS || pair->tiles.ntiles == 0) return 0;
    if (!chained && (pair->base < 0 || pair->tiles.extra.ntiles || pair->tiles.ncommon == 0)) return 0;
    for (uint32_t tile = 0; tile < pair->tiles.ntiles; tile++) {
        if (a->results->blocks->length[a->ctx->plan->unit_of[pair->first_tile + tile]] != 5) return 0;
    }
    return chained || dz_pair_tensor(a->ctx->plan, pair)->dtype == a->ctx->zoo.base->tensors[pair->base].dtype;
}

/* Bytes of the kept values alone, by any coding of them: what positions, tables and heads take is the rest. */
static double value_bytes(const assembly *a, const dz_tensor_pair *pair) {
    const dz_block_table *blocks = a->results->blocks;
    const dz_tensor_coding *c = &a->results->allocation->tensors[pair->lossy];
    const uint64_t *levels = blocks->kept_levels + (size_t)pair->lossy * blocks->nlevels;
    double kept = (double)blocks->kept[pair->lossy];
    if (c->kind == DZ_BITS_VALUES) return 2 * kept;
    return c->kind <= 8 ? (double)dz_entropy_fixed(levels, blocks->nlevels) / 65536 / 8 : c->bytes;
}

static void fill_lossy_row(const assembly *a, const dz_tensor_pair *pair, dz_index_row *row) {
    const dz_tensor_coding *c = &a->results->allocation->tensors[pair->lossy];
    const dz_tensor_stats *s = &a->results->stats->tensors[pair->lossy];
    double n = (double)pair->tiles.common;
    row->bits = c->kind;
    row->kept = a->results->blocks->kept[pair->lossy];
    row->lo = c->lo;
    row->step = c->step;
    row->scale = c->scale;
    row->sparsity = (float)c->sparsity;
    row->nsr = (float)c->noise.nsr;
    row->gain = (float)c->noise.gain;
    if (s->chained) { /* of the whole delta from the base, and all that the restored tensor is off */
        row->nsr = s->whole > 0 ? (float)(dz_chain_error(s, (double)c->kept, c->noise.nsr, c->noise.gain) / s->whole) : 0;
        row->gain = 1;
    }
    row->delta_rms = (float)sqrt(s->whole / n);
    row->base_rms = (float)sqrt(s->base_energy / n);
}

/* Once it is known that the row has bytes of its own. */
static void count_lossy_row(const assembly *a, const dz_tensor_pair *pair, const dz_index_row *row, dz_task_entry *t) {
    const dz_tensor_coding *c = &a->results->allocation->tensors[pair->lossy];
    t->lossy_parameters += pair->tiles.common;
    t->lossy_source_bytes += pair->tiles.common * dz_dtype_size(dz_pair_tensor(a->ctx->plan, pair)->dtype);
    t->lossy_kept += row->kept;
    t->value_bits += (double)row->kept * (c->kind == DZ_BITS_TRELLIS ? (double)c->step : c->kind == DZ_BITS_UNIFORM ? 8 : row->bits);
    t->entropy_bytes += value_bytes(a, pair);
}

/* Of a tensor that is coded against another task's. */
static dz_rc add_source(const assembly *a, const dz_tensor_pair *pair, dz_index_row *row, dz_task_entry *t, dz_error *err) {
    const dz_chains *chains = &a->ctx->chains;
    int64_t at = dz_chains_row(chains, (uint32_t)(pair - a->ctx->plan->pairs));
    if (at < 0 || (row->policy != DZ_POLICY_LOSSLESS && row->policy != DZ_POLICY_ULTRADELTA && row->policy != DZ_POLICY_EQUAL))
        return DZ_OK;
    row->reference = (uint32_t)at;
    row->depth = (uint8_t)(dz_row_source(chains->parent[pair->task], &chains->parent[pair->task]->rows[at])->depth + 1);
    return dz_task_add_source(t, chains->parent[pair->task]->name, &row->source, err);
}

static dz_rc add_rows(const assembly *a, dz_catalog *c, size_t task, const uint32_t *base_row, dz_task_entry *t, dz_error *err) {
    const dz_plan *plan = a->ctx->plan;
    size_t npairs = plan->first_pair[task + 1] - plan->first_pair[task], nbase = a->ctx->zoo.base->ntensors;
    uint8_t *seen = dz_alloc(nbase, 1, err);
    if (!seen || !(t->rows = dz_alloc(npairs + nbase, sizeof *t->rows, err))) goto out;
    for (size_t i = 0; i < npairs; i++) {
        const dz_tensor_pair *pair = &plan->pairs[plan->first_pair[task] + i];
        const dz_tensor *tensor = dz_pair_tensor(plan, pair);
        dz_index_row *row = &t->rows[t->nrows++];
        row->base = pair->base >= 0 ? base_row[pair->base] : DZ_NO_BASE;
        row->policy = (uint8_t)(turned_out_equal(a, pair) ? DZ_POLICY_EQUAL : dz_policy_of(a->results->lossy, pair));
        row->offset = t->payload_len;
        row->digest = a->results->stats->digests[plan->first_pair[task] + (pair->policy == DZ_POLICY_TIED ? pair->tied : i)];
        if (dz_catalog_tensor(c, tensor, &row->tensor, err) != DZ_OK) goto out;
        if (row->policy == DZ_POLICY_LOSSLESS || row->policy == DZ_POLICY_ULTRADELTA)
            row->length = dz_region_bytes(plan, a->results->blocks, pair);
        if (row->policy == DZ_POLICY_ULTRADELTA) fill_lossy_row(a, pair, row);
        int shared = !a->apart && a->ctx->zoo.tasks[task] != a->ctx->zoo.stored && dz_share_row(a->share, c, t, row, err);
        if (err->rc != DZ_OK || (!shared && add_source(a, pair, row, t, err) != DZ_OK)) goto out;
        if (row->policy == DZ_POLICY_ULTRADELTA) count_lossy_row(a, pair, row, t);
        t->payload_len += row->length;
        t->source_bytes += tensor->nbytes;
        if (row->policy == DZ_POLICY_TIED) row->kept = pair->tied; /* rows are numbered as the checkpoint's tensors */
        int64_t same = dz_checkpoint_find(a->ctx->zoo.base, tensor->name);
        if (same >= 0) seen[same] = 1;
        if (pair->base >= 0) seen[pair->base] = 1;
    }
    for (size_t b = 0; b < nbase; b++) {
        if (!seen[b])
            t->rows[t->nrows++] = (dz_index_row){
                .tensor = c->base[base_row[b]].tensor, .base = base_row[b], .policy = DZ_POLICY_ABSENT, .offset = t->payload_len};
    }
out:
    free(seen);
    return err->rc;
}

static dz_rc add_file(dz_catalog *c, dz_task_entry *t, const char *path, uint32_t kind, const void *bytes, size_t len, uint64_t size,
                      dz_error *err) {
    dz_file_row *f = &t->files[t->nfiles];
    *f = (dz_file_row){.kind = kind, .size = size};
    if (dz_catalog_add_blob(c, bytes, len, &f->blob, err) != DZ_OK || !(f->path = dz_strdup(path, err))) return err->rc;
    t->nfiles++;
    return DZ_OK;
}

/* The fused tensors of a shard. Rows are numbered as the checkpoint's tensors. */
static dz_rc add_fused(const dz_checkpoint *ck, size_t shard, dz_file_row *f, dz_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < ck->nfused; i++) n += ck->fused[i].whole.shard == shard;
    if (n == 0 || !(f->fused = dz_alloc(n, sizeof *f->fused, err))) return err->rc;
    for (size_t i = 0; i < ck->nfused; i++) {
        if (ck->fused[i].whole.shard != shard) continue;
        f->fused[f->nfused++] = (dz_row_range){.first = (uint32_t)ck->fused[i].first, .count = (uint32_t)ck->fused[i].nparts};
    }
    return DZ_OK;
}

/* A companion file that an earlier layout of this job has: it is not read again. 1: added. */
static int add_known(dz_catalog *c, dz_task_entry *t, const char *path, dz_error *err) {
    size_t number = c->ntasks - 1;
    const dz_task_entry *before = c->earlier && number < c->earlier->ntasks ? &c->earlier->tasks[number] : NULL;
    for (size_t i = 0; before && i < before->nfiles && err->rc == DZ_OK; i++) {
        const dz_file_row *known = &before->files[i];
        if (known->kind != DZ_FILE_SIDE || strcmp(known->path, path) != 0) continue;
        dz_file_row *f = &t->files[t->nfiles];
        *f = (dz_file_row){.kind = known->kind, .size = known->size};
        if (dz_catalog_copy_blob(c, c->earlier, known->blob, &f->blob, err) == DZ_OK && (f->path = dz_strdup(path, err))) t->nfiles++;
        return 1;
    }
    return 0;
}

static dz_rc add_files(const assembly *a, dz_catalog *c, size_t task, dz_task_entry *t, dz_error *err) {
    const dz_checkpoint *ck = a->ctx->zoo.tasks[task];
    if (!(t->files = dz_alloc(ck->nshards + ck->ncompanions, sizeof *t->files, err))) return err->rc;
    for (size_t i = 0; i < ck->nshards && err->rc == DZ_OK; i++) {
        const dz_shard *s = &ck->shards[i];
        if (add_file(c, t, s->file, DZ_FILE_SAFETENSORS, s->header, s->header_len, s->size, err) == DZ_OK)
            t->files[t->nfiles - 1].prefix = (uint32_t)s->prefix;
        if (err->rc == DZ_OK) add_fused(ck, i, &t->files[t->nfiles - 1], err);
    }
    for (size_t i = 0; i < ck->ncompanions && err->rc == DZ_OK; i++) {
        const dz_companion_file *side = &ck->companions[i];
        char *bytes = NULL;
        size_t len = 0;
        if (add_known(c, t, side->file, err))
            continue;
        else if (side->bytes)
            add_file(c, t, side->file, DZ_FILE_SIDE, side->bytes, (size_t)side->size, side->size, err);
        else if (dz_read_file(side->path, DZ_SIDE_MAX, &bytes, &len, err) == DZ_OK)
            add_file(c, t, side->file, DZ_FILE_SIDE, bytes, len, len, err);
        free(bytes);
    }
    return err->rc == DZ_OK ? dz_catalog_add_files(c, t, err) : err->rc;
}

static dz_rc add_task(const assembly *a, dz_catalog *c, size_t task, const uint32_t *base_row, dz_error *err) {
    const dz_recipe *r = dz_zoo_recipe(&a->ctx->zoo, task);
    dz_task_entry *t = &c->tasks[c->ntasks++];
    t->name = dz_strdup(a->ctx->zoo.names[task], err);
    if (a->ctx->zoo.tasks[task] == a->ctx->zoo.stored && err->rc == DZ_OK) c->stored_name = dz_strdup(t->name, err);
    t->recipe = dz_strdup(r->name, err);
    t->recipe_text = dz_recipe_text(r, err);
    if (err->rc != DZ_OK || dz_catalog_add_blob(c, t->recipe_text, strlen(t->recipe_text), &t->recipe_blob, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < a->ctx->opt->nscores; i++) {
        if (strcmp(a->ctx->opt->scores[i].task, t->name) == 0 && !t->score) t->score = dz_strdup(a->ctx->opt->scores[i].text, err);
    }
    t->bits = (uint32_t)r->bits;
    t->seed = r->seed;
    t->key = a->ctx->task_key[task];
    t->gamma = (float)a->results->gammas->gamma[task];
    t->trace_norm = a->results->gammas->trace_norm[task];
    t->trace_error = a->results->gammas->error[task];
    t->trace_reference = a->results->gammas->reference;
    if (add_rows(a, c, task, base_row, t, err) != DZ_OK) return err->rc;
    double level = a->results->allocation->task_level[task], n = (double)t->lossy_parameters;
    t->sparsity = a->ctx->method->levels || a->ctx->method->id != DZ_METHOD_AUTO ? 1 - level : n > 0 ? 1 - (double)t->lossy_kept / n : 0;
    return add_files(a, c, task, t, err);
}

/* Rank 0: everything but the payloads. */
static dz_rc make_catalog(assembly *a, dz_catalog *c, dz_error *err) {
    dz_share share = {0};
    a->share = &share;
    uint32_t *base_row = dz_alloc(a->ctx->zoo.base->ntensors, sizeof *base_row, err);
    c->format_version = DZ_FORMAT_VERSION;
    snprintf(c->generator, sizeof c->generator, "deltazoo %s", DZ_VERSION);
    if (!base_row) goto out;
    if (a->ctx->copied.old) {
        if (dz_copy_tasks_catalog(&a->ctx->copied, c, a->ctx->plan->ntasks, err) != DZ_OK || map_base(a, c, base_row, err) != DZ_OK)
            goto out;
    } else {
        if (add_base(a, c, err) != DZ_OK ||
            (a->ctx->plan->base->ntensors && dz_catalog_describe_base(c, a->ctx->zoo.base, a->ctx->opt->manifest, err) != DZ_OK) ||
            !(c->tasks = dz_alloc(a->ctx->plan->ntasks, sizeof *c->tasks, err)))
            goto out;
        for (size_t i = 0; i < c->nbase; i++) base_row[i] = (uint32_t)i;
    }
    c->trace_reference = a->results->gammas->reference;
    for (size_t t = 0; t < c->ntasks && err->rc == DZ_OK; t++) dz_share_add_task(a->share, c, t, err);
    for (size_t t = 0; t < a->ctx->plan->ntasks && err->rc == DZ_OK; t++) {
        if (add_task(a, c, t, base_row, err) == DZ_OK) dz_share_add_task(a->share, c, c->ntasks - 1, err);
    }
out:
    dz_share_free(a->share);
    free(base_row);
    return err->rc;
}

typedef struct piece { /* a block of this rank, and where it goes */
    uint64_t offset;
    size_t unit;
} piece;

static int by_offset(const void *x, const void *y) {
    const piece *a = x, *b = y;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* `where`: for each pair the file offset of its region, or 0 when it has no bytes. */
static dz_rc put_pieces(assembly *a, dz_extent_writer *w, const uint64_t *where, dz_error *err) {
    const dz_plan *plan = a->ctx->plan;
    size_t n = 0;
    dz_buf bytes = {0};
    piece *pieces = dz_alloc(dz_context_nitems(a->ctx), sizeof *pieces, err);
    for (size_t i = 0; pieces && i < dz_context_nitems(a->ctx); i++) {
        size_t u = dz_context_item(a->ctx, i);
        if (plan->units[u].pair == DZ_NO_PAIR || !a->results->blocks->length[u]) continue;
        const dz_tensor_pair *pair = &plan->pairs[plan->units[u].pair];
        uint64_t at = where[plan->units[u].pair];
        if (at == 0) continue;
        at += dz_region_table_bytes(pair->tiles.ntiles);
        for (uint32_t tile = 0; tile < plan->units[u].tile; tile++)
            at += a->results->blocks->length[plan->unit_of[pair->first_tile + tile]];
        pieces[n++] = (piece){.offset = at, .unit = u};
    }
    if (n) qsort(pieces, n, sizeof *pieces, by_offset);
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) {
        const dz_work_item *u = &plan->units[pieces[i].unit];
        const dz_tensor_pair *pair = &plan->pairs[u->pair];
        size_t len = (size_t)a->results->blocks->length[pieces[i].unit];
        if (u->tile == 0 && pair->tiles.ntiles > 1) {
            bytes.len = 0;
            for (uint32_t tile = 0; tile < pair->tiles.ntiles; tile++)
                dz_buf_put_u32(&bytes, (uint32_t)a->results->blocks->length[plan->unit_of[pair->first_tile + tile]], err);
            dz_buf_put_u32(&bytes, dz_checksum(bytes.data, bytes.len), err);
            dz_extent_put(w, where[u->pair], bytes.data, bytes.len, err);
        }
        bytes.len = 0;
        if (dz_buf_reserve(&bytes, len, err) != DZ_OK || dz_journal_get_block(&a->ctx->journal, pieces[i].unit, bytes.data, err) != DZ_OK)
            break;
        dz_extent_put(w, pieces[i].offset, bytes.data, len, err);
    }
    free(pieces);
    dz_buf_free(&bytes);
    return err->rc;
}

/* Rank 0 knows where regions lie; every rank needs it for its blocks. */
static void locate_regions(const assembly *a, const dz_catalog *c, uint64_t *where) {
    if (a->ctx->world->rank == 0) {
        for (size_t t = 0; t < a->ctx->plan->ntasks; t++) {
            const dz_task_entry *task = &c->tasks[a->ctx->copied.ntasks + t];
            for (size_t i = a->ctx->plan->first_pair[t]; i < a->ctx->plan->first_pair[t + 1]; i++) {
                const dz_index_row *row = &task->rows[i - a->ctx->plan->first_pair[t]];
                where[i] = row->length ? task->payload_offset + row->offset : 0;
            }
        }
    }
    dz_bcast_u64(a->ctx->world, where, a->ctx->plan->npairs);
}

static void make_layout(assembly *a, dz_error *err) {
    const dz_compress_options *opt = a->ctx->opt;
    const char *partial = a->ctx->staging.partial;
    dz_catalog *earlier = *a->catalog;
    if (opt->nhints && dz_io_by_mpi(opt->io, a->ctx->world)) dz_io_make_striped(partial, opt->hints, opt->nhints, err);
    *a->catalog = err->rc == DZ_OK ? dz_alloc(1, sizeof **a->catalog, err) : NULL;
    if (*a->catalog) {
        (*a->catalog)->earlier = earlier;
        make_catalog(a, *a->catalog, err);
        (*a->catalog)->earlier = NULL;
    }
    dz_catalog_free(earlier);
    if (err->rc == DZ_OK) dz_archive_layout(partial, *a->catalog, err);
}

static dz_rc lay_out(assembly *a, dz_error *err) {
    if (a->ctx->world->rank == 0) make_layout(a, err);
    return dz_sync_error(a->ctx->world, err->rc, err);
}

dz_rc dz_assemble_layout(dz_context *ctx, const dz_results *results, dz_catalog **catalog, dz_error *err) {
    double begun = dz_now();
    dz_rc rc = lay_out(&(assembly){.ctx = ctx, .results = results, .catalog = catalog, .apart = 1}, err);
    ctx->secs[DZ_PHASE_WRITE] += dz_now() - begun;
    return rc;
}

/* Rank 0 knows it. */
static double payload_bytes(const assembly *a) {
    double sum = 0;
    for (size_t t = 0; a->ctx->world->rank == 0 && t < (*a->catalog)->ntasks; t++) sum += (double)(*a->catalog)->tasks[t].payload_len;
    return sum;
}

/* Collective. */
static dz_rc write_payloads(assembly *a, dz_extent_writer *w, const uint64_t *where, dz_error *err) {
    dz_progress progress;
    dz_context_begin_phase(a->ctx, &progress, DZ_PHASE_WRITE, payload_bytes(a));
    w->progress = &progress;
    if (dz_copy_tasks_payloads(&a->ctx->copied, a->ctx->world, *a->catalog, w, err) == DZ_OK) put_pieces(a, w, where, err);
    dz_extent_finish(w, err);
    dz_progress_end(&progress);
    return dz_sync_error(a->ctx->world, err->rc, err);
}

/* Collective. */
static dz_rc read_back(const assembly *a, dz_extent_writer *w, dz_error *err) {
    dz_progress progress;
    dz_context_begin_phase(a->ctx, &progress, DZ_PHASE_READ_BACK, payload_bytes(a));
    w->progress = &progress;
    dz_extent_read_back(w, err);
    dz_progress_end(&progress);
    return dz_sync_error(a->ctx->world, err->rc, err);
}

dz_rc dz_assemble(dz_context *ctx, const dz_results *results, dz_catalog **catalog, dz_error *err) {
    assembly a = {.ctx = ctx, .results = results, .catalog = catalog};
    const dz_world *world = ctx->world;
    dz_extent_writer w = {.fd = -1};
    double begun = dz_now();
    uint64_t *where = dz_alloc(ctx->plan->npairs, sizeof *where, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) rc = lay_out(&a, err);
    if (rc == DZ_OK) {
        locate_regions(&a, *catalog, where);
        rc = dz_extent_open(&w, world, ctx->staging.partial, ctx->opt->io, ctx->opt->hints, ctx->opt->nhints, err);
        if (rc == DZ_OK) rc = write_payloads(&a, &w, where, err);
        if (rc == DZ_OK) rc = read_back(&a, &w, err);
    }
    if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? dz_archive_check_and_publish(&ctx->staging, err) : DZ_OK, err);
    ctx->secs[DZ_PHASE_WRITE] += dz_now() - begun;
    dz_extent_close(&w);
    free(where);
    return rc;
}

#include "pipeline/verify.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "parallel/progress.h"
#include "pipeline/decode.h"
#include "pipeline/zoo.h"

typedef struct verify {
    const dz_world *world;
    dz_archive *archive;
    dz_checkpoint *base;
    dz_decoder decoder;
    dz_buf problems, out;
    uint64_t nproblems, nblocks, nbytes;
    uint64_t **kept; /* [tasks][rows] */
} verify;

static void told(verify *v, dz_error *one) {
    dz_error none = {0};
    if (one->rc == DZ_OK) return;
    dz_buf_put(&v->problems, one->text, strlen(one->text), &none);
    dz_buf_put(&v->problems, "\n", 1, &none);
    v->nproblems++;
    *one = (dz_error){0};
}

/* A row's tiles of this rank: dealt round-robin, so that each rank has some of every tensor. */
static void check_row(verify *v, const dz_task_entry *task, size_t i, uint64_t *number, dz_progress *progress) {
    const dz_index_row *row = &task->rows[i];
    dz_pair_tiles tiles = dz_row_tiles(v->archive->catalog, row);
    dz_error one = {0};
    uint64_t kept = 0;
    for (uint32_t tile = 0; tile < tiles.ntiles; tile++, ++*number) {
        if (*number % (uint64_t)v->world->size != (uint64_t)v->world->rank) continue;
        dz_check_tile(&v->decoder, task, row, tile, &kept, &one);
        if (one.rc == DZ_OK && v->base) {
            dz_tensor t = dz_tensor_of_row(&v->archive->catalog->tensors[row->tensor]);
            v->out.len = 0;
            if (dz_buf_reserve(&v->out, (size_t)dz_tile_count(&tiles, tile) * dz_dtype_size(t.dtype), &one) == DZ_OK)
                dz_decode_tile(&v->decoder, task, row, tile, v->out.data, &one);
        }
        v->nblocks++;
        told(v, &one);
        dz_progress_add(progress, (double)row->length / tiles.ntiles);
    }
    v->kept[task - v->archive->catalog->tasks][i] = kept;
}

/* Blobs and what hangs on them: headers parse, side files have their size. Rank 0. */
static void check_files(verify *v, const dz_task_entry *task) {
    for (size_t i = 0; i < task->nfiles; i++) {
        dz_error one = {0};
        char *bytes = NULL;
        size_t len = 0;
        if (dz_catalog_blob(v->archive->catalog, task->files[i].blob, &bytes, &len, &one) != DZ_OK) {
            char text[DZ_ERROR_TEXT];
            memcpy(text, one.text, sizeof text);
            one = (dz_error){0};
            dz_fail(&one, DZ_EDAMAGE, "%s: task '%s': file '%s': %.900s", v->archive->path, task->name, task->files[i].path, text);
        }
        free(bytes);
        told(v, &one);
    }
}

/* Every base tile that no block made us read. */
static void check_base(verify *v) {
    const dz_catalog *c = v->archive->catalog;
    dz_buf bytes = {0};
    for (size_t i = 0; i < c->nbase; i++) {
        dz_tensor t = dz_tensor_of_row(&c->tensors[c->base[i].tensor]);
        dz_pair_tiles tiles = dz_pair_tiles_of(t.count, t.count, t.count);
        size_t size = dz_dtype_size(t.dtype);
        for (uint32_t tile = 0; tile < tiles.ntiles; tile++) {
            if ((c->base[i].first_tile + tile) % (uint32_t)v->world->size != (uint32_t)v->world->rank) continue;
            dz_error one = {0};
            size_t len = (size_t)dz_tile_count(&tiles, tile) * size;
            bytes.len = 0;
            if (dz_buf_reserve(&bytes, len, &one) == DZ_OK &&
                dz_checkpoint_read(v->base, (size_t)v->decoder.base_tensor[i], dz_tile_first(&tiles, tile) * size, len, bytes.data, &one) ==
                    DZ_OK) {
                dz_digest got = dz_digest_of(bytes.data, len), want = c->base_tiles[c->base[i].first_tile + tile];
                if (got.hi != want.hi || got.lo != want.lo) v->decoder.base_differs[i] = 1;
            }
            told(v, &one);
        }
    }
    dz_buf_free(&bytes);
}

/* Collective. What all ranks' blocks keep must be what the index says. */
static void check_kept(verify *v) {
    const dz_catalog *c = v->archive->catalog;
    uint64_t known = v->nproblems;
    dz_sum_u64(v->world, &known, 1);
    for (size_t t = 0; t < c->ntasks; t++) {
        dz_sum_u64(v->world, v->kept[t], c->tasks[t].nrows);
        for (size_t i = 0; i < c->tasks[t].nrows && v->world->rank == 0; i++) {
            dz_error one = {0};
            const dz_index_row *row = &c->tasks[t].rows[i];
            if (row->policy == DZ_POLICY_ULTRADELTA && row->kept != v->kept[t][i] && known == 0) /* a damaged block is told already */
                dz_fail(&one, DZ_EDAMAGE, "%s: task '%s': tensor '%s' keeps %llu elements, its index says %llu", v->archive->path,
                        c->tasks[t].name, c->tensors[row->tensor].name, (unsigned long long)v->kept[t][i], (unsigned long long)row->kept);
            told(v, &one);
        }
    }
}

/* Collective. All ranks' lines to rank 0. */
static dz_rc gather(verify *v, dz_verify_result *result, dz_error *err) {
    dz_buf *mine = &v->problems;
    uint64_t sums[2] = {v->nproblems, v->nblocks};
    dz_sum_u64(v->world, sums, 2);
    int len = (int)(mine->len > 1000000 ? 1000000 : mine->len), *lens = NULL, *at = NULL, total = 0;
    if (v->world->rank == 0) {
        lens = dz_alloc((size_t)v->world->size, sizeof *lens, err);
        at = dz_alloc((size_t)v->world->size, sizeof *at, err);
    }
    dz_rc rc = dz_agree(v->world, err->rc, err);
    if (rc == DZ_OK) {
        if (v->world->size > 1) MPI_Gather(&len, 1, MPI_INT, lens, 1, MPI_INT, 0, v->world->comm);
        for (int r = 0; v->world->rank == 0 && r < v->world->size; r++) {
            at[r] = total;
            total += lens[r];
        }
        if (v->world->rank == 0) dz_buf_reserve(&result->text, (size_t)total + 1, err);
        rc = dz_agree(v->world, err->rc, err);
    }
    if (rc == DZ_OK && v->world->size == 1) {
        dz_buf_put(&result->text, mine->data, (size_t)len, err);
    } else if (rc == DZ_OK) {
        MPI_Gatherv(mine->data, len, MPI_BYTE, result->text.data, lens, at, MPI_BYTE, 0, v->world->comm);
        result->text.len = (size_t)total;
    }
    result->problems = (int)sums[0];
    result->nblocks = sums[1];
    free(lens);
    free(at);
    return rc;
}

dz_rc dz_verify(const dz_world *world, const char *archive, const char *base, int quiet, dz_verify_result *result, dz_error *err) {
    double begun = dz_now();
    verify v = {.world = world};
    dz_progress progress;
    size_t ntasks = 0;
    dz_rc rc = dz_archive_open_all(world, archive, &v.archive, err);
    if (rc != DZ_OK) goto out;
    if (base && (rc = dz_checkpoint_open_all(world, base, &v.base, err)) != DZ_OK) goto out;
    if ((rc = dz_agree(world, dz_decoder_open(&v.decoder, v.archive, v.base, NULL, err), err)) != DZ_OK) goto out;
    const dz_catalog *c = v.archive->catalog;
    double total = 0;
    ntasks = c->ntasks;
    v.kept = dz_alloc(ntasks, sizeof *v.kept, err);
    for (size_t t = 0; t < ntasks && err->rc == DZ_OK; t++) {
        v.kept[t] = dz_alloc(c->tasks[t].nrows, sizeof **v.kept, err);
        total += (double)c->tasks[t].payload_len;
    }
    if ((rc = dz_agree(world, err->rc, err)) != DZ_OK) goto out;
    dz_progress_begin(&progress, world, "verify", total, quiet);
    uint64_t number = 0;
    for (size_t t = 0; t < ntasks; t++) {
        for (size_t i = 0; i < c->tasks[t].nrows; i++) check_row(&v, &c->tasks[t], i, &number, &progress);
        if (world->rank == 0) check_files(&v, &c->tasks[t]);
        result->ntensors += c->tasks[t].nrows;
        result->nbytes += c->tasks[t].payload_len;
    }
    if (v.base) check_base(&v);
    dz_progress_end(&progress);
    check_kept(&v);
    if ((rc = gather(&v, result, err)) != DZ_OK) goto out;
    result->ntasks = ntasks;
    result->secs = dz_now() - begun;
    if (result->problems)
        rc = DZ_EDAMAGE;
    else if (v.base)
        rc = dz_agree_on_base(world, v.archive, base, v.decoder.base_differs, err); /* the archive is sound, the base is another */
out:
    for (size_t t = 0; v.kept && t < ntasks; t++) free(v.kept[t]);
    free(v.kept);
    dz_buf_free(&v.problems);
    dz_buf_free(&v.out);
    dz_decoder_close(&v.decoder);
    dz_checkpoint_free(v.base);
    dz_archive_close(v.archive);
    return rc;
}

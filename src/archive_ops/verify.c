#include "archive_ops/verify.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "config/zoo.h"
#include "decode/tile_decoder.h"
#include "parallel/exchange.h"
#include "parallel/progress.h"

typedef struct verify {
    const dz_world *world;
    dz_archive *archive;
    dz_checkpoint *base;
    dz_decoder decoder;
    dz_damage damage;
    dz_buf out;
    uint64_t nblocks, nbytes;
    uint64_t **kept; /* [tasks][rows] */
    dz_buf bad;      /* damaged_tile of this rank's */
} verify;

typedef struct damaged_tile {
    uint64_t task, row, tile; /* tile UINT64_MAX: all of them */
} damaged_tile;

static void note_bad(verify *v, const dz_task_entry *task, size_t row, uint64_t tile, dz_error *err) {
    const damaged_tile bad = {(uint64_t)(task - v->archive->catalog->tasks), row, tile};
    dz_buf_put(&v->bad, &bad, sizeof bad, err);
}

static void record_damage(verify *v, const dz_task_entry *task, const char *tensor, int64_t block, dz_error *one) {
    if (one->rc != DZ_OK) dz_damage_add(&v->damage, task ? task->name : NULL, tensor, block, one->text);
    *one = (dz_error){0};
}

static void say_reference(const verify *v, const dz_task_entry *task, const char *tensor, uint32_t tile, const char *of, dz_error *one) {
    *one = (dz_error){0};
    dz_fail(one, DZ_EDAMAGE, "%s: task '%s': tensor '%s': block %u: what it is coded against, task '%s', is damaged", v->archive->path,
            task->name, tensor, tile, of);
}

/* Of a sound block that cannot be decoded: where the stored base is why, this is said of the task. */
static void name_reference(verify *v, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_error *one) {
    const dz_catalog *c = v->archive->catalog;
    const uint8_t *bytes;
    dz_dtype dtype;
    dz_error of_base = {0};
    if (one->rc != DZ_EDAMAGE || v->base || !c->stored || task == &c->tasks[c->stored - 1] || row->base == DZ_NO_BASE) return;
    if (dz_decoder_base(&v->decoder, row, tile, &bytes, &dtype, &of_base) == DZ_EDAMAGE)
        say_reference(v, task, c->tensors[row->tensor].name, tile, c->stored_name, one);
}

/* A row's tiles of this rank: dealt round-robin, so that each rank has some of every tensor. */
static void check_row(verify *v, const dz_task_entry *task, size_t i, uint64_t *number, dz_progress *progress) {
    const dz_index_row *row = &task->rows[i];
    dz_pair_tiles tiles = dz_row_tiles(v->archive->catalog, row);
    dz_tensor t = dz_tensor_of_row(&v->archive->catalog->tensors[row->tensor]);
    dz_error one = {0};
    uint64_t kept = 0, first = *number;
    *number += tiles.ntiles;
    v->damage.place = first;
    if (tiles.ntiles && dz_decoder_region(&v->decoder, task, row, &one) != DZ_OK) { /* one record for all its blocks */
        dz_error none = {0};
        if (first % (uint64_t)v->world->size != (uint64_t)v->world->rank) return;
        note_bad(v, task, i, UINT64_MAX, &none);
        record_damage(v, task, t.name, -1, &one);
        return;
    }
    for (uint32_t tile = 0; tile < tiles.ntiles; tile++) {
        if ((first + tile) % (uint64_t)v->world->size != (uint64_t)v->world->rank) continue;
        dz_check_tile(&v->decoder, task, row, tile, &kept, &one);
        if (one.rc == DZ_OK && dz_decoder_has_base(&v->decoder)) {
            v->out.len = 0;
            if (dz_buf_reserve(&v->out, (size_t)dz_tile_count(&tiles, tile) * dz_dtype_size(t.dtype), &one) == DZ_OK)
                dz_decode_tile(&v->decoder, task, row, tile, v->out.data, &one);
            name_reference(v, task, row, tile, &one);
        }
        v->nblocks++;
        v->damage.place = first + tile;
        if (one.rc != DZ_OK) note_bad(v, task, i, tile, &(dz_error){0});
        record_damage(v, task, t.name, tile, &one);
        dz_progress_add(progress, (double)row->length / tiles.ntiles);
    }
    v->kept[task - v->archive->catalog->tasks][i] = kept;
}

/* A safetensors file's header: it parses, and its tensors are those of the index. */
static void check_header(const verify *v, const dz_task_entry *task, const dz_lookup *rows, const dz_file_row *file, const char *bytes,
                         size_t len, dz_error *err) {
    const dz_catalog *c = v->archive->catalog;
    dz_tensor *tensors = NULL;
    dz_file_place *places = NULL;
    size_t n = 0, nplaces = 0;
    if (len < 8 || file->size < len)
        dz_fail(err, DZ_EDAMAGE, "%s: task '%s': the header of '%s' is cut short", v->archive->path, task->name, file->path);
    else if (dz_safetensors_parse(file->path, bytes + 8, len - 8, file->size, 0, &tensors, &n, err) == DZ_OK)
        dz_file_prefix_tensors(file, tensors, n, err);
    if (err->rc == DZ_OK) dz_file_places(c, task, file, rows, tensors, n, &places, &nplaces, err);
    free(places);
    dz_tensors_free(tensors, n);
}

/* Blobs and what hangs on them: headers parse, side files have their size, the recipe is there. Rank 0. */
static void check_files(verify *v, const dz_task_entry *task) {
    const dz_catalog *c = v->archive->catalog;
    dz_error one = {0};
    dz_lookup rows = {0};
    if (dz_task_rows(c, task, &rows, &one) != DZ_OK) record_damage(v, task, NULL, -1, &one);
    if (task->files_lost) dz_damage_add(&v->damage, task->name, NULL, -1, task->files_lost);
    for (size_t i = 0; i <= task->nfiles && !c->blobs_lost; i++) { /* the last is the recipe */
        const dz_file_row *f = i < task->nfiles ? &task->files[i] : NULL;
        char *bytes = NULL;
        size_t len = 0;
        dz_error inner = {0};
        if (dz_catalog_blob(c, f ? f->blob : task->recipe_blob, &bytes, &len, &inner) == DZ_OK && f) {
            if (f->kind == DZ_FILE_SAFETENSORS)
                check_header(v, task, &rows, f, bytes, len, &inner);
            else if (f->size != len)
                dz_fail(&inner, DZ_EDAMAGE, "it has %zu bytes, not %llu", len, (unsigned long long)f->size);
        }
        if (inner.rc != DZ_OK)
            dz_fail(&one, DZ_EDAMAGE, "%s: task '%s': file '%s': %.900s", v->archive->path, task->name, f ? f->path : "(its recipe)",
                    inner.text);
        free(bytes);
        record_damage(v, task, NULL, -1, &one);
    }
    dz_lookup_free(&rows);
}

/* Every base tile that no block made us read. `place`: of the first one. */
static void check_base(verify *v, uint64_t place) {
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
            v->damage.place = place + c->base[i].first_tile + tile;
            record_damage(v, NULL, t.name, tile, &one);
        }
    }
    dz_buf_free(&bytes);
}

static int is_bad(const dz_lookup *bad, const dz_task_entry *task, const dz_index_row *row, uint64_t tile, const dz_catalog *c) {
    damaged_tile key = {(uint64_t)(task - c->tasks), (uint64_t)(row - task->rows), tile};
    if (dz_lookup_find(bad, &key, sizeof key) >= 0) return 1;
    key.tile = UINT64_MAX;
    return dz_lookup_find(bad, &key, sizeof key) >= 0;
}

/* Tiles of a row that are sound themselves, and coded against one that is not. `place`: of the row's first tile. */
static void check_up(verify *v, const dz_task_entry *task, const dz_index_row *row, const dz_lookup *bad, uint64_t place) {
    const dz_catalog *c = v->archive->catalog;
    dz_pair_tiles tiles = dz_row_work(c, row);
    const char *name = c->tensors[row->tensor].name;
    for (uint32_t tile = 0; tile < tiles.ntiles; tile++) {
        dz_error one = {0};
        const dz_index_row *up = row;
        const dz_task_entry *of = task;
        if (is_bad(bad, task, row, tile, c)) continue;
        do {
            of = up->up_task;
            up = up->up;
        } while (up->source && !is_bad(bad, of, up, tile, c));
        if (!is_bad(bad, of, up, tile, c)) continue;
        say_reference(v, task, name, tile, of->name, &one);
        v->damage.place = place + (row->length ? tile : 0);
        record_damage(v, task, name, tile, &one);
    }
}

/* Collective. Damage goes on to all that is coded against it. */
static dz_rc check_children(verify *v, dz_error *err) {
    const dz_catalog *c = v->archive->catalog;
    dz_buf all = {0};
    dz_lookup bad = {0};
    uint64_t number = 0, any = v->bad.len;
    dz_sum_u64(v->world, &any, 1);
    if (any == 0) return DZ_OK;
    dz_rc rc = dz_gather_bufs(v->world, &v->bad, &all, err);
    for (size_t at = 0; rc == DZ_OK && at + sizeof(damaged_tile) <= all.len; at += sizeof(damaged_tile))
        dz_lookup_add(&bad, all.data + at, sizeof(damaged_tile), 0, err);
    for (size_t t = 0; t < c->ntasks && v->world->rank == 0 && err->rc == DZ_OK; t++, number++) { /* as dz_verify counts */
        for (size_t i = 0; i < c->tasks[t].nrows; i++) {
            const dz_index_row *row = &c->tasks[t].rows[i];
            if (row->source) check_up(v, &c->tasks[t], row, &bad, number);
            number += dz_row_tiles(c, row).ntiles;
        }
    }
    dz_buf_free(&all);
    dz_lookup_free(&bad);
    return dz_sync_error(v->world, err->rc, err);
}

/* Collective. What all ranks' blocks keep must be what the index says. */
static void check_kept(verify *v) {
    const dz_catalog *c = v->archive->catalog;
    uint64_t known = v->damage.count;
    v->damage.place = UINT64_MAX;
    dz_sum_u64(v->world, &known, 1);
    for (size_t t = 0; t < c->ntasks; t++) {
        dz_sum_u64(v->world, v->kept[t], c->tasks[t].nrows);
        for (size_t i = 0; i < c->tasks[t].nrows && v->world->rank == 0; i++) {
            dz_error one = {0};
            const dz_index_row *row = &c->tasks[t].rows[i];
            if (row->policy == DZ_POLICY_ULTRADELTA && row->kept != v->kept[t][i] && known == 0) /* a damaged block is recorded already */
                dz_fail(&one, DZ_EDAMAGE, "%s: task '%s': tensor '%s' keeps %llu elements, its index says %llu", v->archive->path,
                        c->tasks[t].name, c->tensors[row->tensor].name, (unsigned long long)v->kept[t][i], (unsigned long long)row->kept);
            record_damage(v, &c->tasks[t], c->tensors[row->tensor].name, -1, &one);
        }
    }
}

/* What could not be opened. Rank 0. */
static void check_lost(verify *v) {
    const dz_catalog *c = v->archive->catalog;
    if (c->blobs_lost) dz_damage_add(&v->damage, NULL, NULL, -1, c->blobs_lost);
    if (c->stored_lost) dz_damage_add(&v->damage, NULL, NULL, -1, c->stored_lost);
    for (size_t i = 0; i < c->nlost; i++) {
        if (!c->lost[i].unread) dz_damage_add(&v->damage, c->lost[i].name, NULL, -1, c->lost[i].text);
    }
}

/* Tasks that are in the archive, but are not read. Alike on every rank. */
static dz_rc check_unread(const dz_catalog *c, dz_error *err) {
    for (size_t i = 0; i < c->nlost; i++) {
        if (c->lost[i].unread) dz_fail_more(err, dz_lost_rc(&c->lost[i]), "%s", c->lost[i].text);
    }
    return err->rc;
}

/* A task that is not there is a mistake; one that is lost is damage. */
static dz_rc find_chosen(const dz_archive *a, const char *const *names, size_t n, dz_error *err) {
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) {
        const dz_task_entry *task;
        dz_error why = {0};
        if (dz_archive_task(a, names[i], &task, &why) == DZ_EUSAGE) dz_fail(err, why.rc, "%s", why.text);
    }
    return err->rc;
}

dz_rc dz_verify(const dz_world *world, const char *archive, const char *base, const char *const *tasks, size_t nchosen, int quiet,
                dz_verify_result *result, dz_error *err) {
    double begun = dz_now();
    verify v = {.world = world};
    dz_progress progress;
    size_t ntasks = 0;
    dz_rc rc = nchosen ? dz_archive_open_tasks_all(world, archive, tasks, nchosen, &v.archive, err)
                       : dz_archive_open_all(world, archive, &v.archive, err);
    if (rc != DZ_OK || (rc = dz_sync_error(world, find_chosen(v.archive, tasks, nchosen, err), err)) != DZ_OK) goto out;
    if (base && (rc = dz_base_open_all(world, v.archive, base, &v.base, err)) != DZ_OK) goto out;
    if ((rc = dz_sync_error(world, dz_decoder_open(&v.decoder, v.archive, v.base, NULL, err), err)) != DZ_OK) goto out;
    const dz_catalog *c = v.archive->catalog;
    double total = 0;
    ntasks = c->ntasks;
    v.kept = dz_alloc(ntasks, sizeof *v.kept, err);
    for (size_t t = 0; t < ntasks && err->rc == DZ_OK; t++) {
        v.kept[t] = dz_alloc(c->tasks[t].nrows, sizeof **v.kept, err);
        total += (double)c->tasks[t].payload_len;
    }
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    dz_progress_begin(&progress, world, "verify", total, quiet);
    uint64_t number = 0;
    if (world->rank == 0) check_lost(&v);
    for (size_t t = 0; t < ntasks; t++) {
        for (size_t i = 0; i < c->tasks[t].nrows; i++) check_row(&v, &c->tasks[t], i, &number, &progress);
        v.damage.place = number++; /* its files have one too */
        if (world->rank == 0) check_files(&v, &c->tasks[t]);
        result->ntensors += c->tasks[t].nrows;
        result->nbytes += c->tasks[t].payload_len;
    }
    if (v.base) check_base(&v, number);
    dz_progress_end(&progress);
    if ((rc = check_children(&v, err)) != DZ_OK) goto out;
    check_kept(&v);
    dz_sum_u64(world, &v.nblocks, 1);
    if ((rc = dz_damage_gather(world, &v.damage, err)) != DZ_OK) goto out;
    if (world->rank == 0) dz_buf_put(&result->foreign, c->foreign.data, c->foreign.len, err);
    for (size_t i = 0; i < c->nlost && world->rank == 0; i++) {
        if (!c->lost[i].unread) dz_buf_line(&result->lost, err, "%s\n", c->lost[i].name);
    }
    result->only_lost = v.damage.count == c->nlost && !c->blobs_lost && !c->stored_lost;
    result->damage = v.damage;
    v.damage = (dz_damage){0};
    result->nblocks = v.nblocks;
    result->ntasks = ntasks - (v.archive && v.archive->catalog->stored);
    result->base_stored = v.archive && v.archive->catalog->stored;
    result->secs = dz_now() - begun;
    result->finished = 1;
    if (result->damage.count)
        rc = DZ_EDAMAGE;
    else if (check_unread(c, err) != DZ_OK)
        rc = err->rc;
    else if (v.base)
        rc = dz_agree_on_base(world, v.archive, base, v.decoder.base_differs, err); /* the archive is sound, the base is another */
out:
    for (size_t t = 0; v.kept && t < ntasks; t++) free(v.kept[t]);
    free(v.kept);
    dz_damage_free(&v.damage);
    dz_buf_free(&v.out);
    dz_buf_free(&v.bad);
    dz_decoder_close(&v.decoder);
    dz_checkpoint_free(v.base);
    dz_archive_close(v.archive);
    return rc;
}

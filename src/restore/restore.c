#include "restore/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "config/zoo.h"
#include "parallel/progress.h"
#include "restore/cast.h"

dz_rc dz_archive_open_all(const dz_world *world, const char *path, dz_archive **out, dz_error *err) {
    return dz_sync_error(world, dz_archive_open_partly(path, out, err), err);
}

dz_rc dz_archive_open_tasks_all(const dz_world *world, const char *path, const char *const *names, size_t n, dz_archive **out,
                                dz_error *err) {
    return dz_sync_error(world, dz_archive_open_tasks(path, names, n, out, err), err);
}

dz_rc dz_archive_task(const dz_archive *a, const char *name, const dz_task_entry **out, dz_error *err) {
    int64_t at = dz_catalog_find(a->catalog, name);
    if (at >= 0) {
        *out = &a->catalog->tasks[at];
        return DZ_OK;
    }
    const dz_lost *lost = dz_catalog_find_lost(a->catalog, name);
    if (lost) return dz_fail(err, dz_lost_rc(lost), "%s", lost->text);
    char known[512] = "";
    for (size_t t = 0; t < a->catalog->ntasks && strlen(known) < 400; t++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", t ? ", " : "", a->catalog->tasks[t].name);
    return dz_fail(err, DZ_EUSAGE, "%s: no task '%s' (it has: %s)", a->path, name, known);
}

dz_rc dz_base_open_all(const dz_world *world, const dz_archive *a, const char *path, dz_checkpoint **out, dz_error *err) {
    const dz_catalog *c = a->catalog;
    char base[DZ_BASE_TEXT];
    if (path && c->nbase == 0) return dz_fail(err, DZ_EUSAGE, "%s: has no base: leave out --base %s", a->path, path);
    if (path) return dz_checkpoint_open_all(world, path, out, err);
    if (c->stored || c->nbase == 0) return DZ_OK;
    if (c->stored_lost) return dz_fail(err, DZ_EDAMAGE, "%s; --base PATH takes its place", c->stored_lost);
    return dz_fail(err, DZ_EUSAGE, "%s: does not hold its base: --base PATH is needed, %s", a->path, dz_catalog_base_text(c, base));
}

/* What a model that has the base's tensors and other values probably is. */
static const char *looks_like(size_t differ, size_t all) {
    if (differ < all) return "it looks like a fine-tuned model of it, or another revision";
    return "it looks like another model of this architecture, or a fine-tuned one";
}

dz_rc dz_agree_on_base(const dz_world *world, const dz_archive *a, const char *base_path, const uint8_t *differs, dz_error *err) {
    const dz_catalog *c = a->catalog;
    int32_t *any = dz_alloc(c->nbase, sizeof *any, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) {
        char names[600] = "";
        size_t n = 0;
        for (size_t i = 0; i < c->nbase; i++) any[i] = differs[i];
        dz_max_i32(world, any, c->nbase);
        for (size_t i = 0; i < c->nbase; i++) {
            if (any[i] && n++ < 3)
                snprintf(names + strlen(names), sizeof names - strlen(names), "%s'%s'", n > 1 ? ", " : "",
                         c->tensors[c->base[i].tensor].name);
        }
        char base[DZ_BASE_TEXT];
        if (n)
            rc = dz_fail(err, DZ_EFAIL, "%s: not the base of this archive, which is %s: %zu tensors differ (of %zu), the first are %s; %s",
                         base_path, dz_catalog_base_text(c, base), n, c->nbase, names, looks_like(n, c->nbase));
    }
    free(any);
    return rc;
}

/* With keep_going: what takes the place of a lost tile, and a line about it. A tensor whose table of blocks is lost has one line. */
static dz_rc substitute(dz_restore_job *r, const dz_index_row *row, uint32_t tile, int whole, void *out, const char *why, dz_error *err) {
    const dz_tensor_row *t = &r->archive->catalog->tensors[row->tensor];
    dz_pair_tiles tiles = dz_row_work(r->archive->catalog, row);
    unsigned long long first = dz_tile_first(&tiles, tile), last = first + dz_tile_count(&tiles, tile) - 1;
    const char *what = row->source ? "the values it is coded against" : tile < tiles.ncommon ? "the base's values" : "zeros";
    char *text = whole ? dz_format(err, "%s: all its elements get %s", why,
                                   row->source     ? what
                                   : tiles.ncommon ? "the base's values, zeros beyond it"
                                                   : "zeros")
                       : dz_format(err, "%s: elements %llu to %llu get %s", why, first, last, what);
    if (text && (!whole || tile == 0)) dz_damage_add(&r->damage, r->task->name, t->name, whole ? -1 : (int64_t)tile, text);
    free(text);
    if (err->rc != DZ_OK) return err->rc;
    return dz_restore_is_cast(r, row) ? dz_restore_cast_substitute(r, row, tile, out, err)
                                      : dz_decode_substitute(&r->decoder, row, tile, out, err);
}

/* Where the next bytes of a tensor go. */
typedef struct place {
    dz_restore_job *r;
    const dz_restore_tensor *tensor;
    uint64_t at; /* in the tensor */
} place;

static dz_rc write_next(void *arg, const void *bytes, size_t len, dz_error *err) {
    place *p = arg;
    dz_restore_file *f = &p->r->files[p->tensor->file];
    if (f->fd < 0 && (f->fd = dz_open(f->path, O_WRONLY)) < 0)
        return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", f->path, strerror(errno));
    if (dz_pwrite_all(f->fd, f->path, bytes, len, p->tensor->offset + p->at, err) == DZ_OK) p->at += len;
    return err->rc;
}

/* Into its place; `out` is scratch. */
static dz_rc restore_tile(dz_restore_job *r, const dz_index_row *row, uint32_t tile, place to, dz_buf *out, dz_error *err) {
    dz_error inner = {0};
    dz_pair_tiles tiles = dz_row_work(r->archive->catalog, row);
    size_t size = dz_dtype_size(dz_restore_written(r, row).dtype);
    size_t len = (size_t)dz_tile_count(&tiles, tile) * size;
    int has_region = row->policy == DZ_POLICY_LOSSLESS || row->policy == DZ_POLICY_ULTRADELTA;
    int whole = has_region && dz_decoder_region(&r->decoder, r->task, row, &inner) != DZ_OK;
    to.at = dz_tile_first(&tiles, tile) * size;
    if (inner.rc == DZ_OK && dz_restore_is_cast(r, row)) {
        out->len = 0;
        if (dz_buf_reserve(out, len, &inner) == DZ_OK && dz_restore_cast_tile(r, row, tile, out->data, &inner) == DZ_OK)
            return write_next(&to, out->data, len, err);
    } else if (inner.rc == DZ_OK && dz_merge_is_plain(&r->merge)) {
        if (dz_decode_tile_to(&r->decoder, r->task, row, tile, write_next, &to, &inner) == DZ_OK) return DZ_OK;
    } else if (inner.rc == DZ_OK) {
        out->len = 0;
        if (dz_buf_reserve(out, len, &inner) == DZ_OK && dz_merge_tile(&r->merge, &r->decoder, row, tile, out->data, &inner) == DZ_OK)
            return write_next(&to, out->data, len, err);
    }
    if (!r->opt->keep_going || inner.rc != DZ_EDAMAGE) return dz_fail(err, inner.rc, "%s", inner.text);
    out->len = 0;
    if (dz_buf_reserve(out, len, err) != DZ_OK || substitute(r, row, tile, whole, out->data, inner.text, err) != DZ_OK) return err->rc;
    return write_next(&to, out->data, len, err);
}

/* What a tile costs, in bytes that are only copied: to decode one byte of a block takes as long as to copy ten or so. */
static double tile_cost(const dz_index_row *row, const dz_pair_tiles *tiles, size_t len) {
    return (double)len + 10 * (double)row->length / tiles->ntiles;
}

static double task_cost(const dz_restore_job *r) {
    double sum = 0;
    for (size_t i = 0; i < r->ntensors; i++) {
        const dz_index_row *row = dz_row_source(r->task, &r->task->rows[r->tensors[i].row]);
        dz_pair_tiles tiles = dz_row_work(r->archive->catalog, row);
        if (tiles.ntiles) sum += tile_cost(row, &tiles, 0) * tiles.ntiles;
    }
    return sum + (double)r->nbytes;
}

/* This rank's share: a contiguous run of the task's bytes, cut at tiles. */
static dz_rc fill(dz_restore_job *r, dz_progress *progress, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    dz_buf out = {0};
    double walked = 0, total = task_cost(r);
    for (size_t i = 0; i < r->ntensors && err->rc == DZ_OK; i++) {
        const dz_index_row *row = dz_row_source(r->task, &r->task->rows[r->tensors[i].row]);
        dz_pair_tiles tiles = dz_row_work(c, row);
        size_t size = dz_dtype_size(dz_restore_written(r, row).dtype);
        for (uint32_t tile = 0; tile < tiles.ntiles && err->rc == DZ_OK; tile++) {
            size_t len = (size_t)dz_tile_count(&tiles, tile) * size;
            double cost = tile_cost(row, &tiles, len);
            int home = (int)((walked + cost / 2) / total * r->world->size);
            walked += cost;
            if (home != r->world->rank) continue;
            if (restore_tile(r, row, tile, (place){.r = r, .tensor = &r->tensors[i]}, &out, err) != DZ_OK) break;
            dz_progress_add(progress, (double)len);
        }
    }
    for (size_t i = 0; i < r->nfiles; i++) {
        if (r->files[i].fd < 0) continue;
        if (!r->opt->no_sync && dz_fsync(r->files[i].fd) != 0)
            dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", r->files[i].path, strerror(errno));
        close(r->files[i].fd);
        r->files[i].fd = -1;
    }
    dz_buf_free(&out);
    return err->rc;
}

static void restore_free(dz_restore_job *r) {
    for (size_t i = 0; i < r->nfiles; i++) {
        if (r->files[i].fd >= 0) close(r->files[i].fd);
        free(r->files[i].name);
        free(r->files[i].path);
    }
    free(r->files);
    dz_damage_free(&r->damage);
    dz_merge_free(&r->merge);
    free(r->tensors);
    for (size_t i = 0; i < r->nwholes; i++) free(r->wholes[i].tensor.name);
    free(r->wholes);
    free(r->sum);
    free(r->method);
    free(r->fingerprint);
    free(r->mark_text);
    dz_buf_free(&r->own);
    dz_buf_free(&r->wide);
    dz_staging_free(&r->staging);
    dz_decoder_close(&r->decoder);
    dz_checkpoint_free(r->base);
    dz_archive_close(r->archive);
}

/* All tasks that are to be added up; the first gives the files. Alike on every rank. */
static dz_rc choose_tasks(dz_restore_job *r, dz_error *err) {
    const dz_restore_options *opt = r->opt;
    r->merge.sign_consensus = opt->sign_consensus;
    r->merge.tasks = dz_alloc(opt->ntasks, sizeof *r->merge.tasks, err);
    r->merge.weights = dz_alloc(opt->ntasks, sizeof *r->merge.weights, err);
    for (size_t t = 0; t < opt->ntasks && err->rc == DZ_OK; t++) {
        r->merge.weights[t] = opt->weights[t];
        r->merge.ntasks++;
        dz_archive_task(r->archive, opt->tasks[t], &r->merge.tasks[t], err);
    }
    if (err->rc == DZ_OK && opt->ntasks > 1) dz_restore_order_sum(&r->merge, err);
    if (err->rc == DZ_OK) r->task = r->merge.tasks[0];
    return err->rc;
}

int dz_restore_is_chosen(const char *glob, const char *name) { return !glob || fnmatch(glob, name, 0) == 0; }

/* Base rows that the chosen tensors need. */
static dz_rc open_decoder(dz_restore_job *r, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    uint8_t *needed = dz_alloc(c->nbase, 1, err);
    for (size_t t = 0; needed && t < r->merge.ntasks; t++) {
        for (size_t i = 0; i < r->merge.tasks[t]->nrows; i++) {
            const dz_index_row *row = &r->merge.tasks[t]->rows[i], *source = dz_row_source(r->merge.tasks[t], row);
            if (source->base == DZ_NO_BASE || row->policy == DZ_POLICY_ABSENT) continue;
            needed[source->base] |= !r->opt->tensors || dz_restore_chooses(r, c->tensors[row->tensor].name);
        }
    }
    if (needed) dz_decoder_open(&r->decoder, r->archive, r->base, needed, err);
    free(needed);
    return err->rc;
}

dz_rc dz_restore(const dz_world *world, const dz_restore_options *opt, dz_restore_result *result, dz_error *err) {
    double begun = dz_now();
    dz_restore_job r = {.world = world, .opt = opt, .one = opt->one_file ? dz_path_last(opt->out) : NULL};
    dz_progress progress;
    dz_rc rc = dz_sync_error(world, world->rank == 0 ? dz_restore_check_output(opt, err) : DZ_OK, err);
    if (rc != DZ_OK || (rc = dz_archive_open_tasks_all(world, opt->archive, opt->tasks, opt->ntasks, &r.archive, err)) != DZ_OK) goto out;
    if (choose_tasks(&r, err) == DZ_OK && dz_restore_find_wholes(&r, err) == DZ_OK && dz_restore_make_mark(&r, err) == DZ_OK &&
        !dz_merge_is_plain(&r.merge))
        dz_restore_check_sum(&r, &result->notes, err);
    if (err->rc == DZ_OK && r.one && !opt->tensors) dz_restore_note_left_out(&r, &result->notes, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    if ((rc = dz_base_open_all(world, r.archive, opt->base, &r.base, err)) != DZ_OK) goto out;
    if ((rc = dz_sync_error(world, open_decoder(&r, err), err)) != DZ_OK) goto out;
    if (opt->dry_run) goto out;
    if (dz_staging_name(&r.staging, opt->out, err) == DZ_OK && world->rank == 0) dz_staging_begin_dir(&r.staging, "restore", err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    rc = dz_sync_error(world,
                       opt->tensors     ? dz_restore_plan_some(&r, err)
                       : opt->one_file  ? dz_restore_plan_one(&r, err)
                       : opt->max_shard ? dz_restore_plan_shards(&r, err)
                                        : dz_restore_plan_all(&r, err),
                       err);
    if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? dz_restore_check_replaced(&r, err) : DZ_OK, err);
    if (rc != DZ_OK) goto out;
    dz_progress_begin(&progress, world, "restore", (double)r.nbytes, opt->quiet);
    fill(&r, &progress, err);
    dz_progress_end(&progress);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    if ((rc = dz_agree_on_base(world, r.archive, opt->base, r.decoder.base_differs, err)) != DZ_OK) goto out;
    if ((rc = dz_damage_gather(world, &r.damage, err)) != DZ_OK) goto out;
    if (world->rank == 0) dz_restore_add_mark(&r, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    if ((rc = dz_sync_error(world, world->rank == 0 ? dz_restore_publish(&r, err) : DZ_OK, err)) != DZ_OK) goto out;
    double most[2] = {dz_now() - begun, dz_peak_memory()};
    dz_max_f64(world, most, 2);
    *result = (dz_restore_result){.notes = result->notes,
                                  .ntensors = dz_restore_count(&r),
                                  .nbytes = r.nbytes,
                                  .nfiles = r.nfiles,
                                  .damage = r.damage,
                                  .secs = most[0],
                                  .peak_memory = most[1]};
    r.damage = (dz_damage){0};
    if (result->damage.count) rc = DZ_EDAMAGE;
out:
    dz_staging_discard(&r.staging);
    restore_free(&r);
    return rc;
}

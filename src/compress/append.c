/* compress --append: what the archive already holds, and whether the zoo fits to it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compress/append.h"
#include "compress/update.h"

/* The name of the base that the archive holds is taken. */
static dz_rc check_names(const dz_context *ctx, dz_error *err) {
    const char *stored = ctx->copied.old->catalog->stored_name;
    for (size_t t = 0; stored && t < ctx->zoo.ntasks; t++) {
        if (strcmp(stored, ctx->zoo.names[t]) == 0)
            return dz_fail(err, DZ_EUSAGE, "%s: '%s' is the base that the archive holds: give the task another name", ctx->opt->archive,
                           stored);
    }
    return DZ_OK;
}

/* Tasks that the archive has: refused, replaced, or left to it. Alike on every rank. */
static dz_rc settle_names(dz_context *ctx, size_t *skipped, dz_error *err) {
    const dz_compress_options *opt = ctx->opt;
    dz_zoo *zoo = &ctx->zoo;
    size_t n = 0;
    for (size_t t = 0; t < zoo->ntasks; t++) {
        int has = dz_copy_tasks_has(&ctx->copied, zoo->names[t]);
        if (has && opt->skip_existing) {
            ++*skipped;
            continue;
        }
        if (has && opt->replace)
            dz_copy_tasks_leave(&ctx->copied, zoo->names[t]);
        else if (has)
            dz_fail_more(err, DZ_EUSAGE, "%s: has a task '%s' already (--replace takes the new one, --skip-existing keeps the old one)",
                         opt->archive, zoo->names[t]);
        dz_zoo_keep(zoo, t, n++);
    }
    dz_zoo_cut(zoo, n);
    return err->rc;
}

/* Names, types and shapes of the base; its values are compared when they have been read. */
static dz_rc check_headers(const dz_context *ctx, dz_error *err) {
    const dz_catalog *c = ctx->copied.old->catalog;
    dz_checkpoint *base = ctx->zoo.base;
    for (size_t b = 0; b < c->nbase; b++) {
        dz_tensor want = dz_tensor_of_row(&c->tensors[c->base[b].tensor]);
        int64_t i = dz_checkpoint_find(base, want.name);
        if (i < 0 || strcmp(base->tensors[i].dtype_name, want.dtype_name) != 0 || !dz_same_shape(&base->tensors[i], &want))
            return dz_fail(err, DZ_EFAIL, "%s: not the base of %s: tensor '%s' %s", base->path, ctx->opt->archive, want.name,
                           i < 0 ? "is missing" : "has another type or shape");
    }
    if (base->ntensors != c->nbase)
        return dz_fail(err, DZ_EFAIL, "%s: not the base of %s: it has %zu tensors instead of %zu", base->path, ctx->opt->archive,
                       base->ntensors, c->nbase);
    return DZ_OK;
}

/* --update without an archive: every task is new. Rank 0 says so. */
static dz_rc tell_new(const dz_context *ctx, dz_compress_result *result, dz_error *err) {
    for (size_t t = 0; t < ctx->zoo.ntasks && ctx->world->rank == 0 && ctx->opt->update; t++)
        dz_buf_line(&result->update, err, "%s\tadded\t\n", ctx->zoo.names[t]);
    return err->rc;
}

dz_rc dz_append_open(dz_context *ctx, dz_generations *generations, size_t *skipped, dz_compress_result *result, dz_error *err) {
    const dz_compress_options *opt = ctx->opt;
    if (generations->from) return dz_copy_tasks_open(&ctx->copied, ctx->world, generations->from, err);
    int there = access(opt->archive, F_OK) == 0;
    uint64_t all = (uint64_t)there;
    if (!opt->append) return DZ_OK;
    dz_bcast_u64(ctx->world, &all, 1);
    if (!all) return dz_sync_error(ctx->world, tell_new(ctx, result, err), err); /* the first to be appended */
    dz_rc rc = dz_copy_tasks_open(&ctx->copied, ctx->world, opt->archive, err);
    if (rc != DZ_OK || (rc = dz_sync_error(ctx->world, check_names(ctx, err), err)) != DZ_OK) return rc;
    if (opt->update) {
        if ((rc = dz_sync_error(ctx->world, check_headers(ctx, err), err)) != DZ_OK) return rc;
        if ((rc = dz_update_settle(ctx, generations, result, err)) == DZ_OK) dz_copy_tasks_check(&ctx->copied, err);
        return dz_sync_error(ctx->world, rc == DZ_OK ? err->rc : rc, err);
    }
    if (settle_names(ctx, skipped, err) == DZ_OK && dz_copy_tasks_check(&ctx->copied, err) == DZ_OK) check_headers(ctx, err);
    return dz_sync_error(ctx->world, err->rc, err);
}

dz_rc dz_append_check_base(const dz_context *ctx, const dz_stats *stats, dz_error *err) {
    const dz_catalog *c = ctx->copied.old ? ctx->copied.old->catalog : NULL;
    size_t differ = 0;
    const char *first = NULL;
    for (size_t b = 0; c && b < c->nbase; b++) {
        const char *name = c->tensors[c->base[b].tensor].name;
        size_t i = (size_t)dz_checkpoint_find(ctx->zoo.base, name), from = ctx->plan->base_tile[i], n = ctx->plan->base_tile[i + 1] - from,
               same = 0;
        const dz_digest *want = &c->base_tiles[c->base[b].first_tile];
        while (same < n && want[same].hi == stats->base_digests[2 * (from + same)] &&
               want[same].lo == stats->base_digests[2 * (from + same) + 1])
            same++;
        if (same == n) continue;
        differ++;
        if (!first) first = name;
    }
    if (differ)
        dz_fail(err, DZ_EVALUE, "%s: not the base of %s: %zu tensors differ, the first is '%s'", ctx->zoo.base->path, ctx->opt->archive,
                differ, first);
    return err->rc;
}

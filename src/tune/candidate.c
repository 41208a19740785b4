#include "tune/candidate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive/reader.h"
#include "base/file.h"
#include "restore/restore.h"

void dz_candidate_setting(double noise, char setting[64]) {
    if (noise > 0)
        snprintf(setting, 64, "noise_to_delta=%g", noise);
    else
        snprintf(setting, 64, DZ_SETTING_LOSSLESS);
}

dz_task_request dz_candidate_request(const char *task, const char *setting) {
    static const char no_other[] = "noise_to_base=1000000";
    dz_task_request own = {.task = task, .sets = {setting}, .nsets = 1};
    if (strcmp(setting, DZ_SETTING_LOSSLESS) != 0) own.sets[own.nsets++] = no_other;
    return own;
}

dz_rc dz_candidate_make(const dz_world *world, const dz_tune_options *opt, const char *task, double noise, const char *archive,
                        dz_error *err) {
    char setting[64];
    dz_compress_result result = {0};
    dz_candidate_setting(noise, setting);
    dz_task_request own = dz_candidate_request(task, setting);
    dz_compress_options c = {.manifest = opt->manifest,
                             .archive = archive,
                             .recipe = opt->recipe,
                             .mem_per_rank = opt->mem_per_rank,
                             .force = 1,
                             .quiet = 1,
                             .allow_lossy = opt->allow_lossy,
                             .watchdog = opt->watchdog};
    c.recipe.own = &own;
    c.recipe.nown = 1;
    c.recipe.only = task;
    dz_rc rc = dz_compress(world, &c, &result, err);
    dz_compress_result_free(&result);
    return rc;
}

#define PIECE ((size_t)4 << 20)

/* Of all that a restored tensor depends on beside the base; numbers of rows, which differ from archive to archive, are not in it. */
static dz_rc digest_of(const dz_archive *a, const dz_task_entry *t, char hex[33], dz_error *err) {
    const dz_catalog *c = a->catalog;
    dz_digester *d = dz_digest_begin(err);
    uint8_t *piece = dz_alloc_raw(PIECE, 1, err);
    if (d) dz_digest_add(d, &t->gamma, sizeof t->gamma);
    for (size_t i = 0; d && i < t->nrows; i++) {
        const dz_index_row *r = &t->rows[i];
        const char *name = c->tensors[r->tensor].name, *base = r->base == DZ_NO_BASE ? "" : c->tensors[c->base[r->base].tensor].name;
        const uint64_t whole[] = {r->policy, r->bits, r->length, r->policy == DZ_POLICY_TIED ? r->kept : 0};
        const float numbers[] = {r->lo, r->step, r->scale, r->sparsity};
        dz_digest_add(d, name, strlen(name) + 1);
        dz_digest_add(d, base, strlen(base) + 1);
        dz_digest_add(d, whole, sizeof whole);
        dz_digest_add(d, numbers, sizeof numbers);
    }
    for (uint64_t at = 0; d && piece && at < t->payload_len && err->rc == DZ_OK; at += PIECE) {
        size_t len = t->payload_len - at < PIECE ? (size_t)(t->payload_len - at) : PIECE;
        if (dz_pread_all(a->fd, a->path, piece, len, t->payload_offset + at, err) == DZ_OK) dz_digest_add(d, piece, len);
    }
    if (d) dz_digest_hex(dz_digest_end(d), hex);
    free(piece);
    return err->rc;
}

dz_rc dz_candidate_look(const char *archive, const char *task, dz_tune_candidate *out, dz_error *err) {
    dz_archive *a = NULL;
    const dz_task_entry *t = NULL;
    if (dz_archive_open(archive, &a, err) != DZ_OK || dz_archive_task(a, task, &t, err) != DZ_OK) goto out;
    dz_quality q = dz_task_quality(a->catalog, t);
    out->stored = (double)(t->payload_len + t->index_bytes);
    out->exact = q.verdict == DZ_VERDICT_EXACT && dz_task_dropped(a->catalog, t).ntensors == 0;
    out->measured = out->exact ? 0 : q.noise_to_delta;
    digest_of(a, t, out->content, err);
out:
    dz_archive_close(a);
    return err->rc;
}

dz_rc dz_candidate_restore(const dz_world *world, const char *archive, const char *base, const char *task, const char *out, dz_error *err) {
    const double one = 1;
    dz_restore_result result = {0};
    dz_restore_options opt = {
        .archive = archive, .base = base, .out = out, .tasks = &task, .weights = &one, .ntasks = 1, .quiet = 1, .no_sync = 1};
    dz_rc rc = dz_restore(world, &opt, &result, err);
    dz_damage_free(&result.damage);
    dz_buf_free(&result.notes);
    return rc;
}

void dz_tune_choose(dz_tuned_task *t, double noise) {
    dz_candidate_setting(noise, t->setting);
    t->chosen = noise > 0 ? dz_tune_find(&t->state, noise) : NULL;
}

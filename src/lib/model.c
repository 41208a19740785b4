#include "lib/model.h"

#include <stdio.h>

#include "archive_ops/verify.h"
#include "base/mem.h"
#include "restore/restore.h"

static int report(dz_rc rc, const dz_error *err, char *message, size_t size) {
    if (message && size) snprintf(message, size, "%s", err->text);
    return (int)rc;
}

static const dz_world ALONE = {.size = 1};

int deltazoo_restore_model(const char *archive, const char *const *tasks, const double *weights, size_t ntasks, int sign_consensus,
                           const char *base, const char *out, int force, int sync, deltazoo_made *made, char *message, size_t size) {
    dz_error err = {0};
    dz_restore_result r = {0};
    const dz_restore_options opt = {.archive = archive,
                                    .base = base,
                                    .out = out,
                                    .tasks = tasks,
                                    .weights = weights,
                                    .ntasks = ntasks,
                                    .sign_consensus = sign_consensus,
                                    .force = force,
                                    .no_sync = !sync,
                                    .quiet = 1};
    dz_rc rc = ntasks == 0 ? dz_fail(&err, DZ_EUSAGE, "%s: no task is given", archive)
               : dz_ends_with(out, ".safetensors")
                   ? dz_fail(&err, DZ_EUSAGE,
                             "%s: a model is made as a folder here: give a folder's name; the program's restore -o makes one file", out)
                   : dz_restore(&ALONE, &opt, &r, &err);
    *made = (deltazoo_made){.ntensors = r.ntensors, .nbytes = r.nbytes, .nfiles = r.nfiles};
    dz_buf_free(&r.notes);
    dz_damage_free(&r.damage);
    return report(rc, &err, message, size);
}

int deltazoo_verify(const char *archive, const char *base, deltazoo_checked *checked, char *message, size_t size) {
    dz_error err = {0};
    dz_verify_result r = {0};
    dz_damage_record first;
    size_t at = 0;
    dz_rc rc = dz_verify(&ALONE, archive, base, NULL, 0, 1, &r, &err);
    if (rc == DZ_EDAMAGE && err.rc == DZ_OK && dz_damage_next(&r.damage, &at, &first)) dz_fail(&err, rc, "%s", first.text);
    *checked = (deltazoo_checked){.ntasks = r.ntasks, .ntensors = r.ntensors, .nblocks = r.nblocks, .nproblems = r.damage.count};
    dz_buf_free(&r.foreign);
    dz_buf_free(&r.lost);
    dz_damage_free(&r.damage);
    return report(rc, &err, message, size);
}

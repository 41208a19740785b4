#include "archive_ops/repack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "archive/copy_tasks.h"
#include "archive/publish.h"
#include "archive/writer.h"
#include "archive_ops/rebase.h"
#include "base/file.h"
#include "base/lock.h"
#include "base/staging.h"
#include "base/version.h"
#include "restore/restore.h"

/* Marks the tasks to leave out; reports every unknown name. The same on every rank. */
static dz_rc choose(const dz_rewrite_options *opt, dz_copy_tasks *copied, dz_error *err) {
    const dz_task_entry *task;
    for (size_t i = 0; i < opt->nleave + opt->ntake; i++) {
        const char *name = i < opt->nleave ? opt->leave[i] : opt->take[i - opt->nleave];
        dz_error one = {0};
        if (i < opt->nleave && dz_copy_tasks_leave(copied, name)) continue;
        if (dz_archive_task(copied->old, name, &task, &one) != DZ_OK) dz_fail_more(err, one.rc, "%s", one.text);
    }
    for (size_t i = 0; i < copied->old->catalog->nlost && opt->ntake; i++) dz_copy_tasks_leave(copied, copied->old->catalog->lost[i].name);
    for (size_t t = 0; t < copied->old->catalog->ntasks && opt->ntake; t++) {
        const char *name = copied->old->catalog->tasks[t].name;
        size_t i = 0;
        while (i < opt->ntake && strcmp(opt->take[i], name) != 0) i++;
        if (i == opt->ntake && t + 1 != copied->old->catalog->stored) dz_copy_tasks_leave(copied, name);
    }
    copied->rebase = opt->rebase;
    if (err->rc == DZ_OK) dz_copy_tasks_check(copied, err);
    if (err->rc == DZ_OK && copied->ntasks == 0)
        dz_fail(err, DZ_EUSAGE, "%s: no task would be left; remove the file itself instead", opt->archive);
    return err->rc;
}

static dz_rc make_catalog(const dz_copy_tasks *copied, const char *partial, dz_catalog *c, dz_error *err) {
    snprintf(c->generator, sizeof c->generator, "deltazoo %s", DZ_VERSION);
    if (dz_copy_tasks_catalog(copied, c, 0, err) == DZ_OK) dz_archive_layout(partial, c, err);
    return err->rc;
}

static dz_rc check_output(const dz_rewrite_options *opt, dz_error *err) {
    int itself = access(opt->out, F_OK) == 0 && dz_same_file(opt->out, opt->archive);
    if (itself && opt->ntake)
        return dz_fail(err, DZ_EUSAGE, "%s: is the archive itself, whose other tasks would be lost ('remove' drops tasks)", opt->out);
    if (!itself && dz_overwrite_check(opt->out, DZ_TARGET_ARCHIVE, opt->force, err) != DZ_OK) return err->rc;
    dz_staging_check_file(opt->out, DZ_TARGET_ARCHIVE, err);
    return err->rc;
}

/* Rank 0. The output is looked at once more under the lock: the job that had it may have made the archive meanwhile. */
static dz_rc take_output(const dz_rewrite_options *opt, dz_lock *lock, dz_error *err) {
    if (check_output(opt, err) != DZ_OK || dz_archive_lock(lock, opt->out, err) != DZ_OK) return err->rc;
    return check_output(opt, err);
}

dz_rc dz_rewrite(const dz_world *world, const dz_rewrite_options *opt, dz_rewrite_result *result, dz_error *err) {
    dz_copy_tasks copied = {0};
    dz_rebase rebase = {0};
    dz_lock lock = {.fd = -1};
    dz_catalog *catalog = NULL;
    dz_extent_writer w = {.fd = -1};
    dz_staging out = {0};
    dz_rc rc = dz_staging_name(&out, opt->out, err);
    if (world->rank == 0 && rc == DZ_OK) rc = take_output(opt, &lock, err);
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) goto out;
    if ((rc = dz_copy_tasks_open(&copied, world, opt->archive, err)) != DZ_OK) goto out;
    if ((rc = dz_sync_error(world, choose(opt, &copied, err), err)) != DZ_OK) goto out;
    if (opt->rebase && (rc = dz_rebase_open(&rebase, world, &copied, opt->base, err)) != DZ_OK) goto out;
    if (world->rank == 0 && dz_staging_begin_file(&out, DZ_TARGET_ARCHIVE, err) == DZ_OK && (catalog = dz_alloc(1, sizeof *catalog, err)))
        make_catalog(&copied, out.partial, catalog, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    if ((rc = dz_extent_open(&w, world, out.partial, DZ_IO_POSIX, NULL, 0, err)) != DZ_OK) goto out;
    if (dz_copy_tasks_payloads(&copied, world, catalog, &w, err) == DZ_OK || world->size > 1)
        dz_rebase_write(&rebase, world, &copied, catalog, &w, err);
    if (dz_extent_finish(&w, err) == DZ_OK) dz_extent_read_back(&w, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    result->bytes_before = copied.old->catalog->file_size;
    result->bytes_after = world->rank == 0 ? catalog->file_size : 0;
    result->ntasks = copied.ntasks;
    if (world->rank == 0) dz_buf_put(&result->foreign, copied.old->catalog->foreign.data, copied.old->catalog->foreign.len, err);
    rc = dz_sync_error(world, world->rank == 0 ? dz_archive_check_and_publish(&out, err) : DZ_OK, err);
out:
    dz_extent_close(&w);
    if (rc != DZ_OK) dz_staging_discard(&out);
    dz_lock_drop(&lock);
    dz_catalog_free(catalog);
    dz_rebase_close(&rebase);
    dz_copy_tasks_close(&copied);
    dz_staging_free(&out);
    return rc;
}

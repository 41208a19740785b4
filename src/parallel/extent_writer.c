#include "parallel/extent_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "parallel/watchdog.h"

#define PENDING_MAX ((size_t)8 << 20)
#define PIECE ((size_t)1 << 20)            /* between two of them a job may be asked to stop */
#define UNSYNCED_MAX ((uint64_t)256 << 20) /* more would be written out by one long fsync, in which nothing can be asked */

static dz_rc mpi_fail(dz_error *err, const char *path, const char *what, int code) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int len = 0;
    MPI_Error_string(code, text, &len);
    return dz_fail(err, DZ_EFAIL, "%s: %s: MPI-IO: %.*s", path, what, len, text);
}

dz_rc dz_io_check_hints(const char *const *hints, size_t n, dz_error *err) {
    for (size_t i = 0; i < n; i++) {
        const char *equals = strchr(hints[i], '=');
        if (!equals || equals == hints[i] || equals[1] == '\0')
            dz_fail_more(err, DZ_EUSAGE, "--io-hint: '%s' is not KEY=VALUE", hints[i]);
        else if (equals - hints[i] >= MPI_MAX_INFO_KEY || strlen(equals + 1) >= MPI_MAX_INFO_VAL)
            dz_fail_more(err, DZ_EUSAGE, "--io-hint: '%s' is longer than MPI allows", hints[i]);
    }
    return err->rc;
}

/* Opens by MPI-IO with hints that have been checked. Returns MPI's code. */
static int open_with(MPI_Comm comm, const char *path, int mode, const char *const *hints, size_t nhints, MPI_File *file) {
    MPI_Info info;
    MPI_Info_create(&info);
    for (size_t i = 0; i < nhints; i++) {
        const char *equals = strchr(hints[i], '=');
        char key[MPI_MAX_INFO_KEY];
        memcpy(key, hints[i], (size_t)(equals - hints[i]));
        key[equals - hints[i]] = '\0';
        MPI_Info_set(info, key, equals + 1);
    }
    int rc = MPI_File_open(comm, path, mode, info, file);
    MPI_Info_free(&info);
    return rc;
}

dz_rc dz_io_make_striped(const char *path, const char *const *hints, size_t nhints, dz_error *err) {
    MPI_File file = MPI_FILE_NULL;
    unlink(path);
    int rc = open_with(MPI_COMM_SELF, path, MPI_MODE_CREATE | MPI_MODE_RDWR, hints, nhints, &file);
    if (rc == MPI_SUCCESS) rc = MPI_File_close(&file);
    return rc == MPI_SUCCESS ? DZ_OK : mpi_fail(err, path, "cannot create", rc);
}

static dz_rc open_collective(dz_extent_writer *w, const char *const *hints, size_t nhints, dz_error *err) {
    int rc = open_with(w->world->comm, w->path, MPI_MODE_RDWR, hints, nhints, &w->file);
    return rc == MPI_SUCCESS ? DZ_OK : mpi_fail(err, w->path, "cannot open", rc);
}

dz_rc dz_extent_open(dz_extent_writer *w, const dz_world *world, const char *path, dz_io io, const char *const *hints, size_t nhints,
                     dz_error *err) {
    *w = (dz_extent_writer){.path = dz_strdup(path, err), .fd = -1, .world = world, .file = MPI_FILE_NULL};
    if (w->path) w->fd = dz_open(path, O_RDWR);
    if (w->path && w->fd < 0) dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK && dz_io_by_mpi(io, world)) rc = dz_sync_error(world, open_collective(w, hints, nhints, err), err);
    return rc;
}

/* A piece is done. */
static dz_rc step(dz_extent_writer *w, size_t len, dz_error *err) {
    if (!w->progress) return err->rc;
    dz_progress_add(w->progress, (double)len);
    return dz_progress_check(w->progress, err);
}

static dz_rc sync_own(dz_extent_writer *w, dz_error *err) {
    w->unsynced = 0;
    return dz_fsync(w->fd) == 0 ? DZ_OK : dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", w->path, strerror(errno));
}

static dz_rc write_pending(dz_extent_writer *w, dz_error *err) {
    for (size_t at = 0, len; at < w->pending.len && err->rc == DZ_OK; at += len) {
        len = w->pending.len - at < PIECE ? w->pending.len - at : PIECE;
        if (dz_pwrite_all(w->fd, w->path, w->pending.data + at, len, w->pending_offset + at, err) != DZ_OK) break;
        w->unsynced += len;
        if (w->unsynced < UNSYNCED_MAX || sync_own(w, err) == DZ_OK) step(w, len, err);
    }
    return err->rc;
}

/* Collective. All ranks write what they have, which may be nothing; false when none has anything any more. */
static int write_round(dz_extent_writer *w, size_t len, dz_error *err) {
    int mine = len > 0, any = 0;
    MPI_Status status;
    MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_MAX, w->world->comm);
    if (!any) return 0;
    int rc = MPI_File_write_at_all(w->file, (MPI_Offset)w->pending_offset, w->pending.data, (int)len, MPI_BYTE, &status);
    if (rc != MPI_SUCCESS && err->rc == DZ_OK) mpi_fail(err, w->path, "cannot write", rc);
    dz_heartbeat();
    step(w, len, err);
    return 1;
}

static dz_rc flush(dz_extent_writer *w, dz_error *err) {
    if (w->pending.len == 0) return DZ_OK;
    if (dz_grow((void **)&w->extents, &w->cap, w->n + 1, sizeof *w->extents, err) != DZ_OK) return err->rc;
    w->extents[w->n++] =
        (dz_extent){.offset = w->pending_offset, .len = w->pending.len, .checksum = dz_checksum(w->pending.data, w->pending.len)};
    if (w->file != MPI_FILE_NULL)
        write_round(w, w->pending.len, err);
    else
        write_pending(w, err);
    w->pending.len = 0;
    return err->rc;
}

dz_rc dz_extent_put(dz_extent_writer *w, uint64_t offset, const void *bytes, size_t len, dz_error *err) {
    const uint8_t *at = bytes;
    while (len > 0) { /* in pieces, so that what MPI-IO is given at once stays small */
        size_t piece = len < PENDING_MAX ? len : PENDING_MAX;
        int follows = w->pending.len && offset == w->pending_offset + w->pending.len && w->pending.len + piece <= PENDING_MAX;
        if (!follows) {
            if (flush(w, err) != DZ_OK) return err->rc;
            w->pending_offset = offset;
        }
        if (dz_buf_put(&w->pending, at, piece, err) != DZ_OK) return err->rc;
        at += piece;
        offset += piece;
        len -= piece;
    }
    return DZ_OK;
}

dz_rc dz_extent_finish(dz_extent_writer *w, dz_error *err) {
    if (err->rc == DZ_OK) flush(w, err);
    if (w->file != MPI_FILE_NULL) {
        while (write_round(w, 0, err)) continue;
        int rc = MPI_File_sync(w->file);
        if (rc != MPI_SUCCESS && err->rc == DZ_OK) mpi_fail(err, w->path, "cannot sync", rc);
        MPI_Barrier(w->world->comm); /* what others' aggregators wrote for this rank is there */
    }
    return err->rc == DZ_OK ? sync_own(w, err) : err->rc;
}

static dz_rc read_back(dz_extent_writer *w, const dz_extent *e, dz_error *err) {
    w->pending.len = 0;
    if (dz_buf_reserve(&w->pending, e->len, err) != DZ_OK) return err->rc;
    for (size_t at = 0, len; at < e->len; at += len) {
        len = e->len - at < PIECE ? e->len - at : PIECE;
        if (dz_pread_all(w->fd, w->path, w->pending.data + at, len, e->offset + at, err) != DZ_OK || step(w, len, err) != DZ_OK)
            return err->rc;
    }
    if (dz_checksum(w->pending.data, e->len) != e->checksum)
        dz_fail(err, DZ_EFAIL, "%s: %zu bytes at %llu read back differently from what was written", w->path, e->len,
                (unsigned long long)e->offset);
    return err->rc;
}

dz_rc dz_extent_read_back(dz_extent_writer *w, dz_error *err) {
    for (size_t i = 0; i < w->n && err->rc == DZ_OK; i++) read_back(w, &w->extents[i], err);
    w->n = 0;
    return err->rc;
}

void dz_extent_close(dz_extent_writer *w) {
    if (w->path && w->file != MPI_FILE_NULL) MPI_File_close(&w->file);
    if (w->path && w->fd >= 0) close(w->fd);
    free(w->path);
    free(w->extents);
    dz_buf_free(&w->pending);
    *w = (dz_extent_writer){.fd = -1, .file = MPI_FILE_NULL};
}

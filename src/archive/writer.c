#include "archive/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/reader.h"
#include "archive/schema.h"
#include "archive/validate.h"
#include "base/fault.h"
#include "base/file.h"

#define TASK_ROOM 256    /* bytes: the header of a task is then one piece */
#define TASK_LINKS 65535 /* as many stand in the header of /tasks; a reader takes no other form (structure.h) */
#define PENDING_MAX ((size_t)8 << 20)
#define PIECE ((size_t)1 << 20)            /* between two of them a job may be asked to stop */
#define UNSYNCED_MAX ((uint64_t)256 << 20) /* more would be written out by one long fsync, in which nothing can be asked */

/* A table: one chunk, shuffled, deflated, checksummed. Types and bytes do not depend on the machine. */
static dz_rc write_typed(hid_t at, const char *path, const char *name, hid_t type, const dz_buf *rows, uint64_t *stored, dz_error *err) {
    size_t row = type < 0 ? 0 : H5Tget_size(type);
    hsize_t n = row ? rows->len / row : 0, chunk = n ? n : 1;
    hid_t space = H5Screate_simple(1, &n, NULL), props = H5Pcreate(H5P_DATASET_CREATE), set = -1;
    int bad = row == 0 || space < 0 || props < 0 || H5Pset_chunk(props, 1, &chunk) < 0 || H5Pset_shuffle(props) < 0 ||
              H5Pset_deflate(props, 9) < 0 || H5Pset_fletcher32(props) < 0 || H5Pset_obj_track_times(props, 0) < 0 ||
              H5Pset_dset_no_attrs_hint(props, 1) < 0; /* no room in its header for attributes */
    if (!bad) set = H5Dcreate2(at, name, type, space, H5P_DEFAULT, props, H5P_DEFAULT);
    bad = bad || set < 0 || (n && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows->data) < 0);
    if (bad) dz_hdf5_fail(err, DZ_EFAIL, path, name);
    if (!bad && H5Dflush(set) >= 0) *stored += H5Dget_storage_size(set);
    if (set >= 0 && H5Dclose(set) < 0 && !bad) dz_hdf5_fail(err, DZ_EFAIL, path, name);
    if (props >= 0) H5Pclose(props);
    if (space >= 0) H5Sclose(space);
    return err->rc;
}

/* A table of `n` rows. */
static dz_rc write_table(hid_t at, const char *path, const char *name, const dz_schema *schema, size_t width, const void *rows, size_t n,
                         uint64_t *stored, dz_error *err) {
    dz_buf b = {0};
    hid_t type = dz_schema_type(schema, DZ_FORMAT_VERSION, width);
    if (dz_schema_pack(schema, DZ_FORMAT_VERSION, width, rows, n, &b, err) == DZ_OK) write_typed(at, path, name, type, &b, stored, err);
    if (type >= 0) H5Tclose(type);
    dz_buf_free(&b);
    return err->rc;
}

/* A contiguous byte dataset; `bytes` NULL: space only, its offset in the file through `offset`. */
static dz_rc write_bytes(hid_t at, const char *path, const char *name, const uint8_t *bytes, uint64_t len, uint64_t *offset,
                         dz_error *err) {
    hsize_t n = len;
    hid_t space = H5Screate_simple(1, &n, NULL), props = H5Pcreate(H5P_DATASET_CREATE), set = -1;
    int bad = space < 0 || props < 0 || H5Pset_layout(props, H5D_CONTIGUOUS) < 0 || H5Pset_alloc_time(props, H5D_ALLOC_TIME_EARLY) < 0 ||
              H5Pset_fill_time(props, H5D_FILL_TIME_NEVER) < 0 || H5Pset_obj_track_times(props, 0) < 0 ||
              H5Pset_dset_no_attrs_hint(props, 1) < 0;
    if (!bad) set = H5Dcreate2(at, name, H5T_STD_U8LE, space, H5P_DEFAULT, props, H5P_DEFAULT);
    bad = bad || set < 0 || (bytes && len && H5Dwrite(set, H5T_STD_U8LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) < 0);
    if (!bad && offset) {
        haddr_t found = len ? H5Dget_offset(set) : 0;
        bad = found == HADDR_UNDEF;
        *offset = found;
    }
    if (bad) dz_hdf5_fail(err, DZ_EFAIL, path, name);
    if (set >= 0 && H5Dclose(set) < 0 && !bad) dz_hdf5_fail(err, DZ_EFAIL, path, name);
    if (props >= 0) H5Pclose(props);
    if (space >= 0) H5Sclose(space);
    return err->rc;
}

static void attribute(hid_t at, const char *path, const char *name, hid_t type, const void *value, dz_error *err) {
    hid_t space = H5Screate(H5S_SCALAR), attr = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attr < 0 || H5Awrite(attr, type, value) < 0) dz_hdf5_fail(err, DZ_EFAIL, path, name);
    if (attr >= 0) H5Aclose(attr);
    if (space >= 0) H5Sclose(space);
}

static void text_attribute(hid_t at, const char *path, const char *name, const char *text, dz_error *err) {
    hid_t type = H5Tcopy(H5T_C_S1);
    size_t len = strlen(text);
    H5Tset_size(type, len ? len : 1);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    attribute(at, path, name, type, text, err);
    H5Tclose(type);
}

static void f64_attribute(hid_t at, const char *path, const char *name, double v, dz_error *err) {
    attribute(at, path, name, H5T_IEEE_F64LE, &v, err);
}
static void u32_attribute(hid_t at, const char *path, const char *name, uint32_t v, dz_error *err) {
    attribute(at, path, name, H5T_STD_U32LE, &v, err);
}

/* A type with a name of its own, which tables and attributes then refer to, and which tells what its fields mean. Close with H5Tclose;
 * negative on failure. */
static hid_t commit_type(hid_t file, const char *path, const char *name, const dz_schema *schema, const char *meaning, dz_error *err) {
    hid_t type = dz_schema_type(schema, DZ_FORMAT_VERSION, 0), props = H5Pcreate(H5P_DATATYPE_CREATE);
    H5Pset_obj_track_times(props, 0);
    if (type < 0 || H5Tcommit2(file, name, type, H5P_DEFAULT, props, H5P_DEFAULT) < 0) dz_hdf5_fail(err, DZ_EFAIL, path, name);
    if (err->rc == DZ_OK) text_attribute(type, path, "meaning", meaning, err);
    if (props >= 0) H5Pclose(props);
    return type;
}

/* A group whose attributes and links stay in its own object header, which HDF5 guards by a checksum. */
static hid_t make_group(hid_t at, const char *name, unsigned links, unsigned room) {
    hid_t props = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_attr_phase_change(props, 64, 0);
    H5Pset_link_phase_change(props, links, links ? links / 2 : 0);
    H5Pset_est_link_info(props, 1, room);
    H5Pset_obj_track_times(props, 0);
    hid_t group = H5Gcreate2(at, name, H5P_DEFAULT, props, H5P_DEFAULT);
    H5Pclose(props);
    return group;
}

static size_t widest_tensor(const dz_catalog *c) {
    size_t width = 1;
    for (size_t i = 0; i < c->ntensors; i++) width = strlen(c->tensors[i].name) > width ? strlen(c->tensors[i].name) : width;
    return width;
}

static dz_rc write_shared(hid_t file, const char *path, dz_catalog *c, dz_error *err) {
    uint64_t *stored = &c->shared_bytes;
    write_table(file, path, "tensors", &DZ_TENSOR_TABLE, widest_tensor(c), c->tensors, c->ntensors, stored, err);

    hid_t base = err->rc == DZ_OK ? make_group(file, "base", 8, 60) : -1;
    char hex[33];
    dz_digest_hex(c->fingerprint, hex);
    if (base >= 0) text_attribute(base, path, "fingerprint", hex, err);
    if (err->rc == DZ_OK) write_table(base, path, "tensors", &DZ_BASE_TABLE, 0, c->base, c->nbase, stored, err);
    if (err->rc == DZ_OK) write_table(base, path, "tiles", &DZ_TILE_TABLE, 0, c->base_tiles, c->nbase_tiles, stored, err);
    if (base >= 0) H5Gclose(base);

    hid_t blobs = err->rc == DZ_OK ? make_group(file, "blobs", 8, 16) : -1;
    if (err->rc == DZ_OK) write_table(blobs, path, "index", &DZ_BLOB_TABLE, 0, c->blobs, c->nblobs, stored, err);
    if (err->rc == DZ_OK) write_bytes(blobs, path, "data", c->blob_data.data, c->blob_data.len, NULL, err);
    c->shared_bytes += c->blob_data.len;
    if (blobs >= 0) H5Gclose(blobs);
    return err->rc;
}

static void write_record(hid_t at, const char *path, hid_t type, const dz_task_entry *t, dz_error *err) {
    dz_buf b = {0};
    if (dz_schema_pack(&DZ_RECORD_TABLE, DZ_FORMAT_VERSION, 0, t, 1, &b, err) == DZ_OK) attribute(at, path, "record", type, b.data, err);
    dz_buf_free(&b);
}

static dz_rc write_task(hid_t tasks, const char *path, hid_t row_type, hid_t record_type, dz_task_entry *t, dz_error *err) {
    hid_t group = make_group(tasks, t->name, 8, TASK_ROOM);
    dz_buf b = {0};
    if (group < 0) return dz_hdf5_fail(err, DZ_EFAIL, path, t->name);
    text_attribute(group, path, "recipe", t->recipe, err);
    write_record(group, path, record_type, t, err);
    dz_schema_pack(&DZ_INDEX_TABLE, DZ_FORMAT_VERSION, 0, t->rows, t->nrows, &b, err);
    if (err->rc == DZ_OK) write_typed(group, path, "index", row_type, &b, &t->index_bytes, err);
    if (err->rc == DZ_OK) write_bytes(group, path, "payload", NULL, t->payload_len, &t->payload_offset, err);
    dz_buf_free(&b);
    H5Gclose(group);
    return err->rc;
}

static hid_t create_file(const char *path) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110); /* the same bytes from any later library */
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(access, 0, 1); /* the job holds a lock of its own on this file */
#endif
    H5Pset_meta_block_size(access, 2048);
    H5Pset_small_data_block_size(access, 512);
    H5Pset_attr_phase_change(create, 64, 0);
    H5Pset_obj_track_times(create, 0);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, create, access);
    H5Pclose(access);
    H5Pclose(create);
    return file;
}

/* Reserves the disk space now: a full disk is then one clear error before any payload is written. Looks at the structures as readers will.
 */
static dz_rc reserve(const char *path, dz_catalog *c, dz_error *err) {
    struct stat st;
    int fd = dz_open(path, O_RDWR);
    if (fd < 0 || fstat(fd, &st) != 0) {
        dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    } else {
        c->file_size = (uint64_t)st.st_size;
        int rc = posix_fallocate(fd, 0, st.st_size);
        if (rc != 0 && rc != EOPNOTSUPP && rc != EINVAL)
            dz_fail(err, DZ_EFAIL, "%s: no room for %llu bytes: %s", path, (unsigned long long)c->file_size, strerror(rc));
        c->path = path;
        if (err->rc == DZ_OK && dz_structure_check(fd, c, err) == DZ_OK) dz_share_structures(c);
        c->path = NULL;
    }
    if (fd >= 0) close(fd);
    return err->rc;
}

dz_rc dz_archive_layout(const char *path, dz_catalog *c, dz_error *err) {
    dz_hdf5_quiet();
    hid_t file = create_file(path);
    if (file < 0) return dz_hdf5_fail(err, DZ_EFAIL, path, "cannot create");
    text_attribute(file, path, "format", "deltazoo", err);
    u32_attribute(file, path, "format_version", DZ_FORMAT_VERSION, err);
    text_attribute(file, path, "generator", c->generator, err);
    f64_attribute(file, path, "reference_trace_norm", c->trace_reference, err);
    hid_t row_type = err->rc == DZ_OK ? commit_type(file, path, DZ_INDEX_TYPE, &DZ_INDEX_TABLE, DZ_INDEX_MEANING, err) : -1;
    hid_t record_type = err->rc == DZ_OK ? commit_type(file, path, DZ_RECORD_TYPE, &DZ_RECORD_TABLE, DZ_RECORD_MEANING, err) : -1;
    if (err->rc == DZ_OK) write_shared(file, path, c, err);
    hid_t tasks = err->rc == DZ_OK ? make_group(file, "tasks", TASK_LINKS, 200) : -1;
    if (err->rc == DZ_OK && tasks < 0) dz_hdf5_fail(err, DZ_EFAIL, path, "tasks");
    for (size_t t = 0; t < c->ntasks && err->rc == DZ_OK; t++) write_task(tasks, path, row_type, record_type, &c->tasks[t], err);
    if (row_type >= 0) H5Tclose(row_type);
    if (record_type >= 0) H5Tclose(record_type);
    if (tasks >= 0) H5Gclose(tasks);
    if (dz_fault("layout")) dz_fail(err, DZ_EFAIL, "%s: cannot write: an injected fault", path);
    if (H5Fclose(file) < 0 && err->rc == DZ_OK) dz_hdf5_fail(err, DZ_EFAIL, path, "cannot close");
    if (err->rc == DZ_OK) reserve(path, c, err);
    return err->rc;
}

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

dz_rc dz_archive_publish(const char *partial, const char *path, dz_error *err) {
    int fd = dz_open(partial, O_RDWR);
    if (fd < 0 || dz_fsync(fd) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", partial, strerror(errno));
    if (fd >= 0) close(fd);
    if (err->rc == DZ_OK && dz_rename(partial, path) != 0)
        dz_fail(err, DZ_EFAIL, "%s: cannot rename to %s: %s", partial, path, strerror(errno));
    return err->rc == DZ_OK ? dz_fsync_parent(path, err) : err->rc;
}

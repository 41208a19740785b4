#include "archive/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "archive/reader.h"
#include "archive/schema.h"
#include "archive/table.h"
#include "archive/validate.h"
#include "base/fault.h"
#include "base/file.h"

#define TASK_ROOM 256   /* bytes: the header of a task is then one piece */
#define IN_HEADER 65535 /* links, or attributes, that stay in a group's header; a reader takes no other form (validate.h) */

/* A table: one chunk, shuffled, deflated, checksummed; without rows, contiguous. We do that ourselves: to learn its size from HDF5,
 * everything that it holds would have to be flushed for each table. Types and bytes do not depend on the machine. */
static dz_rc write_typed(hid_t at, const char *path, const char *name, hid_t type, const dz_buf *rows, uint64_t *stored, dz_error *err) {
    size_t row = type < 0 ? 0 : H5Tget_size(type);
    hsize_t n = row ? rows->len / row : 0;
    hid_t space = H5Screate_simple(1, &n, NULL), props = H5Pcreate(H5P_DATASET_CREATE), set = -1;
    int bad = row == 0 || space < 0 || props < 0 || H5Pset_obj_track_times(props, 0) < 0 ||
              H5Pset_dset_no_attrs_hint(props, 1) < 0; /* no room in its header for attributes */
    if (!bad && n)
        bad = H5Pset_chunk(props, 1, &n) < 0 || H5Pset_shuffle(props) < 0 || H5Pset_deflate(props, 9) < 0 || H5Pset_fletcher32(props) < 0;
    if (!bad) set = H5Dcreate2(at, name, type, space, H5P_DEFAULT, props, H5P_DEFAULT);
    dz_buf coded = {0};
    hsize_t first = 0;
    bad = bad || set < 0;
    if (!bad && n) bad = dz_table_encode(rows->data, n, row, &coded, err) != DZ_OK;
    if (!bad && n) bad = H5Dwrite_chunk(set, H5P_DEFAULT, 0, &first, coded.len, coded.data) < 0;
    if (bad && err->rc == DZ_OK) dz_hdf5_fail(err, DZ_EFAIL, path, name);
    *stored += coded.len;
    dz_buf_free(&coded);
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
static hid_t make_group(hid_t at, const char *name, unsigned room) {
    hid_t props = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_attr_phase_change(props, IN_HEADER, IN_HEADER); /* what other tools add, too; one too large for it, until that is deleted */
    H5Pset_link_phase_change(props, IN_HEADER, 0);
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

    hid_t base = err->rc == DZ_OK ? make_group(file, "base", 60) : -1;
    char hex[33];
    dz_digest_hex(c->fingerprint, hex);
    if (base >= 0) text_attribute(base, path, "fingerprint", hex, err);
    if (base >= 0 && c->base_name && c->base_name[0]) text_attribute(base, path, "name", c->base_name, err);
    if (base >= 0 && c->base_origin && c->base_origin[0]) text_attribute(base, path, "origin", c->base_origin, err);
    if (base >= 0 && c->base_revision && c->base_revision[0]) text_attribute(base, path, "revision", c->base_revision, err);
    if (base >= 0 && c->stored_name) text_attribute(base, path, "stored", c->stored_name, err);
    if (err->rc == DZ_OK) write_table(base, path, "tensors", &DZ_BASE_TABLE, 0, c->base, c->nbase, stored, err);
    if (err->rc == DZ_OK) write_table(base, path, "tiles", &DZ_TILE_TABLE, 0, c->base_tiles, c->nbase_tiles, stored, err);
    if (base >= 0) H5Gclose(base);

    hid_t blobs = err->rc == DZ_OK ? make_group(file, "blobs", 16) : -1;
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

/* The names of the tasks that its rows refer to. */
static void write_sources(hid_t group, const char *path, const dz_task_entry *t, dz_error *err) {
    dz_buf b = {0};
    for (size_t i = 0; i < t->nsources; i++) {
        if (i) dz_buf_put(&b, "/", 1, err);
        dz_buf_put(&b, t->sources[i], strlen(t->sources[i]) + (i + 1 == t->nsources), err);
    }
    if (t->nsources && err->rc == DZ_OK) text_attribute(group, path, "sources", (const char *)b.data, err);
    dz_buf_free(&b);
}

static dz_rc write_task(hid_t tasks, const char *path, hid_t row_type, hid_t record_type, dz_task_entry *t, dz_error *err) {
    hid_t group = make_group(tasks, t->name, TASK_ROOM);
    dz_buf b = {0};
    if (group < 0) return dz_hdf5_fail(err, DZ_EFAIL, path, t->name);
    text_attribute(group, path, "recipe", t->recipe, err);
    if (t->score) text_attribute(group, path, "score", t->score, err);
    write_sources(group, path, t, err);
    write_record(group, path, record_type, t, err);
    for (size_t i = 0; i < t->nrows; i++) {
        if (t->rows[i].source == 0) t->rows[i].reference = t->rows[i].base;
    }
    dz_schema_pack(&DZ_INDEX_TABLE, DZ_FORMAT_VERSION, 0, t->rows, t->nrows, &b, err);
    if (err->rc == DZ_OK) write_typed(group, path, "index", row_type, &b, &t->index_bytes, err);
    if (err->rc == DZ_OK) write_bytes(group, path, "payload", NULL, t->payload_len, &t->payload_offset, err);
    dz_buf_free(&b);
    H5Gclose(group);
    return err->rc;
}

static hid_t create_file(const char *path) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110); /* the same bytes from 1.10 to 1.14; HDF5 2 differs (building.md) */
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(access, 0, 1); /* the job holds a lock of its own on this file */
#endif
    H5Pset_meta_block_size(access, 2048);
    H5Pset_small_data_block_size(access, 512);
    H5Pset_attr_phase_change(create, IN_HEADER, IN_HEADER);
    H5Pset_link_phase_change(create, IN_HEADER, 0);
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
        if (err->rc == DZ_OK && dz_structure_check(fd, c, err) == DZ_OK) dz_share_structures(c, 0);
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
    hid_t tasks = err->rc == DZ_OK ? make_group(file, "tasks", 200) : -1;
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

const char *dz_zstd_version(void) { return ZSTD_versionString(); }

void dz_hdf5_version(char *text, size_t size) {
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(text, size, "%u.%u.%u", major, minor, release);
}

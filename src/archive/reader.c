#include "archive/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/reader_internal.h"
#include "archive/schema.h"
#include "archive/table.h"
#include "archive/validate.h"
#include "base/file.h"
#include "numeric/uniform_quantiser.h"

#define TABLE_MAX ((uint64_t)1 << 32) /* bytes of one table: far above any real archive, far below what would exhaust a node */

void dz_archive_close(dz_archive *a) {
    if (!a) return;
    if (a->fd >= 0) close(a->fd);
    dz_catalog_free(a->catalog);
    free(a->path);
    free(a);
}

static dz_rc damaged(const dz_archive *a, const char *what, dz_error *err) { return dz_fail(err, DZ_EDAMAGE, "%s: %s", a->path, what); }

/* The width of a table's open text field: what the file's type has beyond the others. */
static size_t open_width(const dz_archive *a, const dz_schema *schema, hid_t type) {
    size_t fixed = dz_schema_size(schema, a->catalog->format_version, 0), size = H5Tget_size(type);
    return size > fixed ? size - fixed : 0;
}

/* A table's one chunk. */
static dz_rc read_chunk(const dz_archive *a, hid_t set, const char *name, uint8_t *rows, size_t nrows, size_t row, dz_error *err) {
    const hsize_t first = 0;
    hsize_t size = 0;
    uint32_t skipped = 0;
    hid_t props = H5Dget_create_plist(set);
    int filters = props >= 0 ? H5Pget_nfilters(props) : -1;
    if (props >= 0) H5Pclose(props);
    if (filters < 0 || H5Dget_chunk_storage_size(set, &first, &size) < 0 || size == 0 || size > a->catalog->file_size ||
        (filters == 0 && size != nrows * row))
        return dz_fail(err, DZ_EDAMAGE, "%s: table '%s' has no bytes", a->path, name);
    uint8_t *coded = dz_alloc_raw((size_t)size, 1, err);
    if (!coded) return err->rc;
    dz_error inner = {0};
    if (H5Dread_chunk(set, H5P_DEFAULT, &first, &skipped, coded) < 0 || skipped)
        dz_hdf5_fail(err, DZ_EDAMAGE, a->path, name);
    else if (filters == 0)
        memcpy(rows, coded, (size_t)size);
    else if (dz_table_decode(rows, nrows, row, coded, (size_t)size, &inner) != DZ_OK)
        dz_fail(err, inner.rc, "%s: table '%s': %s", a->path, name, inner.text);
    free(coded);
    return err->rc;
}

/* Reads a whole table whose type is exactly the schema's. `width` NULL: no text field of open width. `stored` adds its size in the
 * file. */
static dz_rc read_table(const dz_archive *a, hid_t at, const char *name, const dz_schema *schema, size_t *width, dz_buf *rows, size_t *n,
                        uint64_t *stored, dz_error *err) {
    uint32_t version = a->catalog->format_version;
    hid_t set = H5Dopen2(at, name, H5P_DEFAULT), type = -1, want = -1, space = -1;
    hsize_t count = 0;
    rows->len = 0;
    if (set < 0) return dz_hdf5_fail(err, DZ_EDAMAGE, a->path, name);
    type = H5Dget_type(set);
    space = H5Dget_space(set);
    size_t w = width && type >= 0 ? open_width(a, schema, type) : 0;
    want = w < 65536 ? dz_schema_type(schema, version, w) : -1;
    if (type < 0 || space < 0 || want < 0 || H5Tequal(type, want) <= 0 || H5Sget_simple_extent_ndims(space) != 1 ||
        H5Sget_simple_extent_dims(space, &count, NULL) != 1) {
        dz_fail(err, DZ_EDAMAGE, "%s: table '%s' does not have the fields of this format", a->path, name);
        goto out;
    }
    size_t row = dz_schema_size(schema, version, w);
    if (count > TABLE_MAX / row) {
        dz_fail(err, DZ_EDAMAGE, "%s: table '%s' claims %llu rows", a->path, name, (unsigned long long)count);
        goto out;
    }
    if (dz_buf_reserve(rows, (size_t)count * row, err) != DZ_OK) goto out;
    if (count && read_chunk(a, set, name, rows->data, (size_t)count, row, err) != DZ_OK) goto out;
    rows->len = (size_t)count * row;
    *n = (size_t)count;
    if (width) *width = w;
    if (stored) *stored += H5Dget_storage_size(set);
out:
    if (want >= 0) H5Tclose(want);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    H5Dclose(set);
    return err->rc;
}

/* The next row of what read_table gave. */
static dz_rc take_row(const dz_archive *a, const dz_schema *schema, size_t width, dz_view *rows, void *row, dz_error *err) {
    return dz_schema_unpack(schema, a->catalog->format_version, width, rows, row, err);
}

static dz_rc attribute(const dz_archive *a, hid_t at, const char *name, hid_t type, hssize_t count, void *value, dz_error *err) {
    hid_t attr = H5Aopen(at, name, H5P_DEFAULT);
    hid_t space = attr >= 0 ? H5Aget_space(attr) : -1;
    int bad = space < 0 || H5Sget_simple_extent_npoints(space) != count || H5Aread(attr, type, value) < 0;
    if (space >= 0) H5Sclose(space);
    if (attr >= 0) H5Aclose(attr);
    return bad ? dz_fail(err, DZ_EDAMAGE, "%s: attribute '%s' is missing or not sound", a->path, name) : DZ_OK;
}

static dz_rc text_attribute(const dz_archive *a, hid_t at, const char *name, char **out, dz_error *err) {
    hid_t attr = H5Aopen(at, name, H5P_DEFAULT), type = attr >= 0 ? H5Aget_type(attr) : -1;
    size_t size = type >= 0 && H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 ? H5Tget_size(type) : 0;
    if (attr >= 0 && H5Aget_storage_size(attr) != size) size = 0; /* an array of texts */
    char *text = size > 0 && size < 65536 ? dz_alloc(size + 1, 1, err) : NULL;
    if (!text || H5Aread(attr, type, text) < 0) {
        free(text);
        text = NULL;
        dz_fail(err, DZ_EDAMAGE, "%s: attribute '%s' is missing or not sound", a->path, name);
    }
    if (type >= 0) H5Tclose(type);
    if (attr >= 0) H5Aclose(attr);
    *out = text;
    return err->rc;
}

/* One that may be missing, or another's. */
static void optional_text(hid_t at, const char *name, char **out) {
    dz_archive none = {.path = ""};
    dz_error err = {0};
    if (H5Aexists(at, name) > 0 && text_attribute(&none, at, name, out, &err) == DZ_OK) dz_one_line(*out);
}

static dz_rc check_tensor_row(const dz_archive *a, const dz_tensor_row *row, dz_error *err) {
    uint64_t count = 1, nbytes;
    int bad = row->ndim > DZ_MAX_NDIM || !dz_tensor_name_ok(row->name) || row->dtype[0] == '\0';
    for (uint32_t d = 0; !bad && d < row->ndim; d++) bad = __builtin_mul_overflow(count, row->shape[d], &count);
    dz_dtype dtype = dz_dtype_of(row->dtype);
    if (!bad && dtype != DZ_OPAQUE) bad = __builtin_mul_overflow(count, (uint64_t)dz_dtype_size(dtype), &nbytes) || nbytes != row->nbytes;
    bad = bad || row->nbytes > (uint64_t)1 << 50;
    return bad ? dz_fail(err, DZ_EDAMAGE, "%s: tensor '%s': its shape and size do not agree", a->path, row->name) : DZ_OK;
}

static dz_rc read_tensors(dz_archive *a, hid_t file, dz_buf *b, dz_error *err) {
    dz_catalog *c = a->catalog;
    size_t width = 0, n = 0;
    if (read_table(a, file, "tensors", &DZ_TENSOR_TABLE, &width, b, &n, &c->shared_bytes, err) != DZ_OK) return err->rc;
    if (!(c->tensors = dz_alloc(n, sizeof *c->tensors, err))) return err->rc;
    dz_view v = {.data = b->data, .len = b->len};
    for (size_t i = 0; i < n; i++) {
        dz_tensor_row *row = &c->tensors[i];
        c->ntensors++;
        if (take_row(a, &DZ_TENSOR_TABLE, width, &v, row, err) != DZ_OK) return err->rc;
        if (row->dtype[DZ_DTYPE_NAME - 1] != '\0') return damaged(a, "a dtype is not a text", err);
        if (check_tensor_row(a, row, err) != DZ_OK) return err->rc;
    }
    return DZ_OK;
}

static dz_rc read_base(dz_archive *a, hid_t file, dz_buf *b, dz_error *err) {
    dz_catalog *c = a->catalog;
    hid_t base = H5Gopen2(file, "base", H5P_DEFAULT);
    char *hex = NULL, computed[33];
    if (base < 0) return dz_hdf5_fail(err, DZ_EDAMAGE, a->path, "base");
    size_t n = 0;
    if (read_table(a, base, "tensors", &DZ_BASE_TABLE, NULL, b, &n, &c->shared_bytes, err) != DZ_OK) goto out;
    if (!(c->base = dz_alloc(n, sizeof *c->base, err))) goto out;
    c->nbase = n;
    dz_view v = {.data = b->data, .len = b->len};
    uint64_t tiles = 0;
    for (size_t i = 0; i < n; i++) {
        if (take_row(a, &DZ_BASE_TABLE, 0, &v, &c->base[i], err) != DZ_OK) goto out;
        if (c->base[i].tensor >= c->ntensors || c->base[i].first_tile != tiles) {
            damaged(a, "the base's table is not sound", err);
            goto out;
        }
        tiles += dz_tiling_of(dz_tensor_of_row(&c->tensors[c->base[i].tensor]).count).ntiles;
    }
    if (dz_catalog_mark_vocabulary(c, err) != DZ_OK) goto out;
    if (read_table(a, base, "tiles", &DZ_TILE_TABLE, NULL, b, &n, &c->shared_bytes, err) != DZ_OK) goto out;
    if (n != tiles) {
        damaged(a, "the base's tiles do not match its tensors", err);
        goto out;
    }
    if (!(c->base_tiles = dz_alloc(n, sizeof *c->base_tiles, err))) goto out;
    c->nbase_tiles = n;
    v = (dz_view){.data = b->data, .len = b->len};
    for (size_t i = 0; i < n; i++) {
        if (take_row(a, &DZ_TILE_TABLE, 0, &v, &c->base_tiles[i], err) != DZ_OK) goto out;
    }
    optional_text(base, "name", &c->base_name);
    optional_text(base, "origin", &c->base_origin);
    optional_text(base, "revision", &c->base_revision);
    if (c->format_version >= 4 && H5Aexists(base, "stored") > 0 && text_attribute(a, base, "stored", &c->stored_name, err) != DZ_OK)
        goto out;
    if (text_attribute(a, base, "fingerprint", &hex, err) != DZ_OK || dz_catalog_fingerprint(c, &c->fingerprint, err) != DZ_OK) goto out;
    dz_digest_hex(c->fingerprint, computed);
    if (strcmp(hex, computed) != 0) damaged(a, "the base's fingerprint does not match its digests", err);
out:
    free(hex);
    H5Gclose(base);
    return err->rc;
}

static dz_rc read_blobs(dz_archive *a, hid_t file, dz_buf *b, dz_error *err) {
    dz_catalog *c = a->catalog;
    hid_t group = H5Gopen2(file, "blobs", H5P_DEFAULT), set = -1, space = -1, type = -1;
    size_t n = 0;
    if (group < 0) return dz_hdf5_fail(err, DZ_EDAMAGE, a->path, "blobs");
    if (read_table(a, group, "index", &DZ_BLOB_TABLE, NULL, b, &n, &c->shared_bytes, err) != DZ_OK) goto out;
    if (!(c->blobs = dz_alloc(n, sizeof *c->blobs, err))) goto out;
    c->nblobs = c->blobs_cap = n;
    dz_view v = {.data = b->data, .len = b->len};
    for (size_t i = 0; i < n; i++) {
        if (take_row(a, &DZ_BLOB_TABLE, 0, &v, &c->blobs[i], err) != DZ_OK) goto out;
    }
    set = H5Dopen2(group, "data", H5P_DEFAULT);
    space = set >= 0 ? H5Dget_space(set) : -1;
    type = set >= 0 ? H5Dget_type(set) : -1;
    hssize_t len = space >= 0 ? H5Sget_simple_extent_npoints(space) : -1;
    if (len < 0 || (uint64_t)len > c->file_size || H5Tequal(type, H5T_STD_U8LE) <= 0) {
        damaged(a, "the blobs' data is not sound", err);
        goto out;
    }
    if (dz_buf_reserve(&c->blob_data, (size_t)len, err) != DZ_OK) goto out;
    if (len) dz_pread_all(a->fd, a->path, c->blob_data.data, (size_t)len, H5Dget_offset(set), err); /* none: HADDR_UNDEF, beyond any file */
    c->blob_data.len = (size_t)len;
    c->shared_bytes += (uint64_t)len;
out:
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    if (set >= 0) H5Dclose(set);
    H5Gclose(group);
    return err->rc;
}

/* Nothing of an archive hangs on the blobs alone: without them, tensors can still be restored. */
static dz_rc try_blobs(dz_archive *a, hid_t file, dz_buf *b, dz_error *err) {
    dz_catalog *c = a->catalog;
    dz_error inner = {0};
    if (c->blobs_lost || read_blobs(a, file, b, &inner) == DZ_OK) return DZ_OK;
    if (inner.rc == DZ_ENOMEM) return dz_fail(err, inner.rc, "%s", inner.text);
    c->nblobs = 0;
    c->blobs_lost = dz_format(err, "%s: its shared files (blobs) are lost: %s", a->path, inner.text);
    return err->rc;
}

static dz_rc read_record_bytes(dz_archive *a, hid_t g, const dz_task_entry *t, dz_buf *b, dz_error *err) {
    hid_t attr = H5Aopen(g, "record", H5P_DEFAULT), type = attr >= 0 ? H5Aget_type(attr) : -1, space = attr >= 0 ? H5Aget_space(attr) : -1;
    hid_t want = dz_schema_type(&DZ_RECORD_TABLE, a->catalog->format_version, 0);
    size_t size = dz_schema_size(&DZ_RECORD_TABLE, a->catalog->format_version, 0);
    b->len = 0;
    if (dz_buf_reserve(b, size, err) == DZ_OK &&
        (type < 0 || want < 0 || H5Tequal(type, want) <= 0 || H5Sget_simple_extent_npoints(space) != 1 || H5Aread(attr, want, b->data) < 0))
        dz_fail(err, DZ_EDAMAGE, "%s: task '%s': its record is missing or not sound", a->path, t->name);
    if (want >= 0) H5Tclose(want);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (attr >= 0) H5Aclose(attr);
    b->len = size;
    return err->rc;
}

/* "a/b/c" */
static dz_rc read_sources(dz_archive *a, hid_t g, dz_task_entry *t, dz_error *err) {
    char *text = NULL, *rest = NULL;
    if (a->catalog->format_version < 4 || H5Aexists(g, "sources") <= 0 || text_attribute(a, g, "sources", &text, err) != DZ_OK)
        return err->rc;
    uint32_t number;
    for (char *name = strtok_r(text, "/", &rest); name && err->rc == DZ_OK; name = strtok_r(NULL, "/", &rest)) {
        size_t before = t->nsources;
        if (dz_task_add_source(t, name, &number, err) == DZ_OK && t->nsources == before)
            dz_fail(err, DZ_EDAMAGE, "%s: task '%s': its source '%s' is there twice", a->path, t->name, name);
    }
    free(text);
    return err->rc;
}

static dz_rc read_record(dz_archive *a, hid_t g, dz_task_entry *t, dz_buf *b, dz_error *err) {
    if (text_attribute(a, g, "recipe", &t->recipe, err) != DZ_OK || read_record_bytes(a, g, t, b, err) != DZ_OK) return err->rc;
    dz_view v = {.data = b->data, .len = b->len};
    if (take_row(a, &DZ_RECORD_TABLE, 0, &v, t, err) != DZ_OK) return err->rc;
    size_t len = 0;
    dz_error inner = {0};
    optional_text(g, "score", &t->score);
    if (read_sources(a, g, t, err) != DZ_OK) return err->rc;
    const dz_task_entry *before = a->catalog->ntasks ? &a->catalog->tasks[a->catalog->ntasks - 1] : NULL;
    if (before && before->recipe_blob == t->recipe_blob) /* as a rule, tasks have one recipe */
        t->recipe_text = dz_strdup(before->recipe_text, err);
    else if (dz_catalog_blob(a->catalog, t->recipe_blob, &t->recipe_text, &len, &inner) != DZ_OK)
        t->recipe_text = dz_strdup("", err);
    return err->rc;
}

const dz_index_row *dz_row_source(const dz_task_entry *task, const dz_index_row *row) {
    return row->policy == DZ_POLICY_TIED ? &task->rows[row->kept] : row;
}

/* A tied row is empty; its target has the same type and shape, and values of its own. */
static int tie_sound(const dz_catalog *c, const dz_task_entry *t, const dz_index_row *row) {
    if (row->kept >= t->nrows || row->length != 0) return 0;
    const dz_index_row *to = &t->rows[row->kept];
    dz_tensor a = dz_tensor_of_row(&c->tensors[row->tensor]), b = dz_tensor_of_row(&c->tensors[to->tensor]);
    return to->policy != DZ_POLICY_TIED && to->policy != DZ_POLICY_ABSENT && dz_same_kind(&a, &b);
}

dz_pair_tiles dz_row_tiles(const dz_catalog *c, const dz_index_row *row) {
    if (row->policy != DZ_POLICY_LOSSLESS && row->policy != DZ_POLICY_ULTRADELTA) return (dz_pair_tiles){0};
    uint64_t count = dz_tensor_of_row(&c->tensors[row->tensor]).count, base = 0;
    if (row->base != DZ_NO_BASE) base = dz_tensor_of_row(&c->tensors[c->base[row->base].tensor]).count;
    return dz_pair_tiles_of(base, base < count ? base : count, count);
}

static int grid_fits(const dz_index_row *r) {
    int grid = 1;
    if (r->bits == DZ_BITS_UNIFORM)
        grid = (double)r->step >= DZ_UNIFORM_STEP_LEAST && (double)r->step <= DZ_UNIFORM_STEP_MOST && r->lo >= 0 && r->lo < 1;
    if (r->bits == DZ_BITS_TRELLIS) grid = r->step > 0 && r->step <= 1;
    return dz_kind_is_known(r->bits) && grid && isfinite(r->lo) && isfinite(r->step) && isfinite(r->scale);
}

/* Of a row whose reference is another task's; that one is looked at when all tasks are read (links.c). */
static int sourced_row_fits(const dz_catalog *c, const dz_task_entry *t, const dz_index_row *r) {
    if (r->source > t->nsources) return 0;
    if (r->policy == DZ_POLICY_EQUAL) return r->length == 0;
    if (r->policy == DZ_POLICY_ULTRADELTA) return grid_fits(r) && dz_dtype_is_float(dz_dtype_of(c->tensors[r->tensor].dtype));
    return r->policy == DZ_POLICY_LOSSLESS;
}

/* Policies and types that go together, and a base that is large enough. */
static int row_fits(const dz_catalog *c, const dz_task_entry *task, const dz_index_row *r) {
    if (r->tensor >= c->ntensors || (r->base != DZ_NO_BASE && r->base >= c->nbase) || r->policy > DZ_POLICY_TIED) return 0;
    if (r->source) return sourced_row_fits(c, task, r);
    if (r->policy == DZ_POLICY_TIED) return r->length == 0; /* what it is tied to is looked at below */
    if (r->base == DZ_NO_BASE) return r->policy == DZ_POLICY_LOSSLESS;
    dz_tensor t = dz_tensor_of_row(&c->tensors[r->tensor]), b = dz_tensor_of_row(&c->tensors[c->base[r->base].tensor]);
    int floats = dz_dtype_is_float(t.dtype) && dz_dtype_is_float(b.dtype);
    if (!floats && strcmp(t.dtype_name, b.dtype_name) != 0) return 0;
    if (r->policy == DZ_POLICY_ULTRADELTA) return floats && grid_fits(r);
    return r->policy == DZ_POLICY_LOSSLESS || (r->length == 0 && t.count <= b.count);
}

static dz_rc read_index(dz_archive *a, hid_t g, dz_task_entry *t, dz_buf *b, dz_error *err) {
    const dz_catalog *c = a->catalog;
    size_t n = 0;
    if (read_table(a, g, "index", &DZ_INDEX_TABLE, NULL, b, &n, &t->index_bytes, err) != DZ_OK) return err->rc;
    if (!(t->rows = dz_alloc(n, sizeof *t->rows, err))) return err->rc;
    t->nrows = n;
    dz_view v = {.data = b->data, .len = b->len};
    uint64_t end = 0;
    for (size_t i = 0; i < n; i++) {
        dz_index_row *r = &t->rows[i];
        if (take_row(a, &DZ_INDEX_TABLE, 0, &v, r, err) != DZ_OK) return err->rc;
        r->offset = end;
        r->base = r->source ? DZ_NO_BASE : r->reference;
        if (!row_fits(c, t, r) || r->length > t->payload_len - end)
            return dz_fail(err, DZ_EDAMAGE, "%s: task '%s': row %zu of its index is not sound", a->path, t->name, i);
        end += r->length;
    }
    for (size_t i = 0; i < n; i++) {
        if (t->rows[i].policy == DZ_POLICY_TIED && !tie_sound(c, t, &t->rows[i]))
            return dz_fail(err, DZ_EDAMAGE, "%s: task '%s': row %zu of its index is tied to none", a->path, t->name, i);
    }
    return end == t->payload_len ? DZ_OK
                                 : dz_fail(err, DZ_EDAMAGE, "%s: task '%s': its payload is longer than its index", a->path, t->name);
}

/* The payload must be one contiguous run of bytes inside the file. */
static dz_rc find_payload(dz_archive *a, hid_t g, dz_task_entry *t, dz_error *err) {
    hid_t set = H5Dopen2(g, "payload", H5P_DEFAULT), space = set >= 0 ? H5Dget_space(set) : -1, type = set >= 0 ? H5Dget_type(set) : -1;
    hssize_t len = space >= 0 ? H5Sget_simple_extent_npoints(space) : -1;
    int bad = len < 0 || type < 0 || H5Tequal(type, H5T_STD_U8LE) <= 0;
    haddr_t offset = !bad && len ? H5Dget_offset(set) : 0;
    bad = bad || offset == HADDR_UNDEF || (uint64_t)len > a->catalog->file_size || offset > a->catalog->file_size - (uint64_t)len;
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    if (set >= 0) H5Dclose(set);
    if (bad) return dz_fail(err, DZ_EDAMAGE, "%s: task '%s': its payload is not sound (a truncated file?)", a->path, t->name);
    t->payload_len = (uint64_t)len;
    t->payload_offset = offset;
    return DZ_OK;
}

/* The list of files; without it, tensors can still be restored. */
static dz_rc try_files(dz_archive *a, dz_task_entry *t, dz_error *err) {
    dz_error inner = {0};
    if (dz_catalog_read_files(a->catalog, t, &inner) == DZ_OK) return DZ_OK;
    if (inner.rc == DZ_ENOMEM) return dz_fail(err, inner.rc, "%s", inner.text);
    for (size_t i = 0; i < t->nfiles; i++) dz_file_row_free(&t->files[i]);
    t->nfiles = 0;
    t->files_lost = dz_catalog_line(a->catalog, t->name, inner.text, err);
    return err->rc;
}

dz_rc dz_reader_task(dz_archive *a, hid_t g, dz_task_entry *t, dz_buf *b, dz_error *err) {
    if (find_payload(a, g, t, err) == DZ_OK && read_record(a, g, t, b, err) == DZ_OK && read_index(a, g, t, b, err) == DZ_OK)
        try_files(a, t, err);
    return err->rc;
}

static dz_rc read_all(dz_archive *a, hid_t file, const dz_task_choice *choice, dz_error *err) {
    dz_catalog *c = a->catalog;
    dz_buf b = {0};
    char *format = NULL, *generator = NULL;
    dz_error none = {0};
    if (text_attribute(a, file, "format", &format, &none) != DZ_OK || strcmp(format, "deltazoo") != 0) {
        dz_fail(err, DZ_EFAIL, "%s: an HDF5 file, but not a deltazoo archive", a->path);
        goto out;
    }
    if (attribute(a, file, "format_version", H5T_NATIVE_UINT32, 1, &c->format_version, err) != DZ_OK) goto out;
    if (c->format_version < DZ_FORMAT_OLDEST || c->format_version > DZ_FORMAT_VERSION) {
        dz_fail(err, DZ_EFAIL, "%s: format version %u; this program reads versions up to %d", a->path, c->format_version,
                DZ_FORMAT_VERSION);
        goto out;
    }
    if (text_attribute(a, file, "generator", &generator, err) != DZ_OK) goto out;
    strncpy(c->generator, generator, sizeof c->generator - 1);
    if (attribute(a, file, "reference_trace_norm", H5T_NATIVE_DOUBLE, 1, &c->trace_reference, err) != DZ_OK) goto out;
    if (read_tensors(a, file, &b, err) == DZ_OK && read_base(a, file, &b, err) == DZ_OK && try_blobs(a, file, &b, err) == DZ_OK)
        dz_reader_tasks(a, file, choice, &b, err);
out:
    free(format);
    free(generator);
    dz_buf_free(&b);
    return err->rc;
}

static dz_rc open_archive(const char *path, const dz_task_choice *choice, dz_archive **out, dz_error *err) {
    dz_hdf5_quiet();
    hid_t access = -1, file = -1;
    struct stat st;
    dz_archive *a = dz_alloc(1, sizeof *a, err);
    if (!a) return err->rc;
    a->fd = -1;
    if (!(a->path = dz_strdup(path, err)) || !(a->catalog = dz_alloc(1, sizeof *a->catalog, err))) goto out;
    a->fd = dz_open(path, O_RDONLY | O_NONBLOCK);
    if (a->fd < 0 || fstat(a->fd, &st) != 0) {
        dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        dz_fail(err, DZ_EFAIL, "%s: not a regular file", path);
        goto out;
    }
    a->catalog->path = a->path;
    a->catalog->file_size = (uint64_t)st.st_size;
    if (dz_structure_check(a->fd, a->catalog, err) != DZ_OK) goto out;
    access = H5Pcreate(H5P_FILE_ACCESS);
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(access, 0,
                        1); /* archives are never changed in place: a lock protects nothing, and parallel file systems refuse it */
#endif
    file = H5Fopen(path, H5F_ACC_RDONLY, access);
    if (file < 0)
        dz_hdf5_fail(err, DZ_EDAMAGE, path, "not an archive that can be opened");
    else
        read_all(a, file, choice, err);
    if (err->rc != DZ_OK) goto out;
    *out = a;
    a = NULL;
out:
    if (file >= 0) H5Fclose(file);
    if (access >= 0) H5Pclose(access);
    dz_archive_close(a);
    return err->rc;
}

dz_rc dz_archive_open_partly(const char *path, dz_archive **out, dz_error *err) {
    return open_archive(path, &(dz_task_choice){0}, out, err);
}

dz_rc dz_archive_open_tasks(const char *path, const char *const *names, size_t n, dz_archive **out, dz_error *err) {
    return open_archive(path, &(dz_task_choice){.names = names, .n = n}, out, err);
}

/* The first that is lost, as an error. */
static dz_rc check_whole(const dz_catalog *c, dz_error *err) {
    if (c->stored_lost) return dz_fail(err, DZ_EDAMAGE, "%s", c->stored_lost);
    if (c->blobs_lost) return dz_fail(err, DZ_EDAMAGE, "%s", c->blobs_lost);
    if (c->nlost) return dz_fail(err, dz_lost_rc(&c->lost[0]), "%s", c->lost[0].text);
    for (size_t t = 0; t < c->ntasks && err->rc == DZ_OK; t++) {
        char *text = NULL;
        size_t len = 0;
        if (c->tasks[t].files_lost) return dz_fail(err, DZ_EDAMAGE, "%s", c->tasks[t].files_lost);
        dz_catalog_blob(c, c->tasks[t].recipe_blob, &text, &len, err);
        free(text);
    }
    return err->rc;
}

dz_rc dz_archive_open(const char *path, dz_archive **out, dz_error *err) {
    dz_archive *a = NULL;
    if (dz_archive_open_partly(path, &a, err) == DZ_OK && check_whole(a->catalog, err) == DZ_OK) {
        *out = a;
        a = NULL;
    }
    dz_archive_close(a);
    return err->rc;
}

dz_rc dz_task_rows(const dz_catalog *c, const dz_task_entry *task, dz_lookup *rows, dz_error *err) {
    for (size_t i = 0; i < task->nrows && err->rc == DZ_OK; i++) {
        const char *name = c->tensors[task->rows[i].tensor].name;
        if (task->rows[i].policy != DZ_POLICY_ABSENT) dz_lookup_add(rows, name, strlen(name), (uint32_t)i, err);
    }
    return err->rc;
}

const dz_index_row *dz_task_row(const dz_catalog *c, const dz_task_entry *task, const dz_lookup *rows, const dz_tensor *tensor) {
    int64_t at = dz_lookup_find(rows, tensor->name, strlen(tensor->name));
    if (at < 0) return NULL;
    const dz_tensor_row *t = &c->tensors[task->rows[at].tensor];
    return t->nbytes == tensor->nbytes && strcmp(t->dtype, tensor->dtype_name) == 0 ? &task->rows[at] : NULL;
}

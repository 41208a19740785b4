#include "archive/schema.h"

#include <math.h>
#include <string.h>

/* The lists, in the order of the file. A column of a later format version has its place among the others. */
#define COLUMN(name, kind, m) DZ_COLUMN_SINCE(1, name, kind, m, 0)
#define END                                                                                                                                \
    { NULL, DZ_FIELD_U8, 0, 0, 0, 0 }

#define DZ_ROW dz_tensor_row
static const dz_field TENSOR_FIELDS[] = {
    COLUMN("name", TEXT, name),    COLUMN("dtype", DTYPE, dtype), COLUMN("ndim", U32, ndim),
    COLUMN("shape", SHAPE, shape), COLUMN("nbytes", U64, nbytes), END,
};
const dz_schema DZ_TENSOR_TABLE = {TENSOR_FIELDS, sizeof(DZ_ROW)};
#undef DZ_ROW

#define DZ_ROW dz_base_row
static const dz_field BASE_FIELDS[] = {
    COLUMN("tensor", U32, tensor),
    COLUMN("first_tile", U32, first_tile),
    END,
};
const dz_schema DZ_BASE_TABLE = {BASE_FIELDS, sizeof(DZ_ROW)};
#undef DZ_ROW

#define DZ_ROW dz_digest
static const dz_field TILE_FIELDS[] = {
    COLUMN("digest_hi", U64, hi),
    COLUMN("digest_lo", U64, lo),
    END,
};
const dz_schema DZ_TILE_TABLE = {TILE_FIELDS, sizeof(DZ_ROW)};
#undef DZ_ROW

#define DZ_ROW dz_blob_row
static const dz_field BLOB_FIELDS[] = {
    COLUMN("digest_hi", U64, digest.hi), COLUMN("digest_lo", U64, digest.lo), COLUMN("raw_size", U64, raw_size),
    COLUMN("offset", U64, offset),       COLUMN("length", U64, length),       END,
};
const dz_schema DZ_BLOB_TABLE = {BLOB_FIELDS, sizeof(DZ_ROW)};
#undef DZ_ROW

#define DZ_ROW dz_index_row
static const dz_field INDEX_FIELDS[] = {
    COLUMN("tensor", U32, tensor),
    COLUMN("base", U32, reference),
    COLUMN("policy", POLICY, policy),
    COLUMN("bits", U8, bits),
    COLUMN("length", U64, length),
    COLUMN("kept", U64, kept),
    COLUMN("lo", F32, lo),
    COLUMN("step", F32, step),
    COLUMN("scale", F32, scale),
    COLUMN("sparsity", F32, sparsity),
    DZ_COLUMN_SINCE(2, "nsr", F32, nsr, NAN),
    DZ_COLUMN_SINCE(2, "gain", F32, gain, NAN),
    DZ_COLUMN_SINCE(2, "delta_rms", F32, delta_rms, NAN),
    DZ_COLUMN_SINCE(2, "base_rms", F32, base_rms, NAN),
    DZ_COLUMN_SINCE(4, "source", U32, source, 0),
    DZ_COLUMN_SINCE(4, "digest_hi", U64, digest.hi, 0),
    DZ_COLUMN_SINCE(4, "digest_lo", U64, digest.lo, 0),
    END,
};
const dz_schema DZ_INDEX_TABLE = {INDEX_FIELDS, sizeof(DZ_ROW)};
#undef DZ_ROW

#define DZ_ROW dz_task_entry
static const dz_field RECORD_FIELDS[] = {
    COLUMN("recipe_blob", U32, recipe_blob),
    COLUMN("files_blob", U32, files_blob),
    COLUMN("sparsity", F64, sparsity),
    COLUMN("bits", U32, bits),
    COLUMN("seed", U64, seed),
    COLUMN("key", U64, key),
    COLUMN("gamma", F32, gamma),
    COLUMN("trace_norm", F64, trace_norm),
    COLUMN("trace_norm_error", F64, trace_error),
    COLUMN("reference_trace_norm", F64, trace_reference),
    COLUMN("source_bytes", U64, source_bytes),
    COLUMN("lossy_source_bytes", U64, lossy_source_bytes),
    COLUMN("lossy_parameters", U64, lossy_parameters),
    COLUMN("lossy_kept", U64, lossy_kept),
    COLUMN("lossy_value_bits", F64, value_bits),
    COLUMN("lossy_entropy_bytes", F64, entropy_bytes),
    END,
};
const dz_schema DZ_RECORD_TABLE = {RECORD_FIELDS, sizeof(DZ_ROW)};
#undef DZ_ROW

/* 0 for a column that the version does not have. */
static size_t field_size(const dz_field *f, uint32_t version, size_t width) {
    if (version < f->first || version > f->last) return 0;
    switch (f->kind) {
        case DZ_FIELD_U8:
        case DZ_FIELD_POLICY: return 1;
        case DZ_FIELD_U32:
        case DZ_FIELD_F32: return 4;
        case DZ_FIELD_U64:
        case DZ_FIELD_F64: return 8;
        case DZ_FIELD_SHAPE: return 8 * DZ_MAX_NDIM;
        case DZ_FIELD_DTYPE: return DZ_DTYPE_NAME;
        case DZ_FIELD_TEXT: break;
    }
    return width;
}

size_t dz_schema_size(const dz_schema *schema, uint32_t version, size_t width) {
    size_t size = 0;
    for (const dz_field *f = schema->fields; f->name; f++) size += field_size(f, version, width);
    return size;
}

static void pack_text(const char *text, size_t width, dz_buf *out, dz_error *err) {
    static const char zeros[64] = {0};
    size_t len = strnlen(text, width);
    dz_buf_put(out, text, len, err);
    for (size_t piece; len < width; len += piece) {
        piece = width - len < sizeof zeros ? width - len : sizeof zeros;
        dz_buf_put(out, zeros, piece, err);
    }
}

static void pack_field(const dz_field *f, size_t width, const uint8_t *member, dz_buf *out, dz_error *err) {
    uint32_t four;
    uint64_t eight;
    const char *text;
    switch (f->kind) {
        case DZ_FIELD_U8:
        case DZ_FIELD_POLICY: dz_buf_put(out, member, 1, err); return;
        case DZ_FIELD_U32:
        case DZ_FIELD_F32:
            memcpy(&four, member, 4);
            dz_buf_put_u32(out, four, err);
            return;
        case DZ_FIELD_U64:
        case DZ_FIELD_F64:
            memcpy(&eight, member, 8);
            dz_buf_put_u64(out, eight, err);
            return;
        case DZ_FIELD_SHAPE:
            for (size_t d = 0; d < DZ_MAX_NDIM; d++) {
                memcpy(&eight, member + 8 * d, 8);
                dz_buf_put_u64(out, eight, err);
            }
            return;
        case DZ_FIELD_DTYPE: pack_text((const char *)member, DZ_DTYPE_NAME, out, err); return;
        case DZ_FIELD_TEXT: memcpy(&text, member, sizeof text); pack_text(text, width, out, err);
    }
}

dz_rc dz_schema_pack(const dz_schema *schema, uint32_t version, size_t width, const void *rows, size_t n, dz_buf *out, dz_error *err) {
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) {
        const uint8_t *row = (const uint8_t *)rows + i * schema->row;
        for (const dz_field *f = schema->fields; f->name; f++) {
            if (field_size(f, version, width)) pack_field(f, width, row + f->member, out, err);
        }
    }
    return err->rc;
}

/* The value of a column that the file does not have. */
static void set_missing(const dz_field *f, uint8_t *member) {
    const uint64_t whole = f->missing > 0 ? (uint64_t)f->missing : 0; /* not of NaN */
    const uint32_t four = (uint32_t)whole;
    const float single = (float)f->missing;
    switch (f->kind) {
        case DZ_FIELD_U8:
        case DZ_FIELD_POLICY: *member = (uint8_t)whole; return;
        case DZ_FIELD_U32: memcpy(member, &four, 4); return;
        case DZ_FIELD_U64: memcpy(member, &whole, 8); return;
        case DZ_FIELD_F32: memcpy(member, &single, 4); return;
        case DZ_FIELD_F64: memcpy(member, &f->missing, 8); return;
        case DZ_FIELD_TEXT: memset(member, 0, sizeof(char *)); return;
        case DZ_FIELD_DTYPE: memset(member, 0, DZ_DTYPE_NAME); return;
        case DZ_FIELD_SHAPE: memset(member, 0, 8 * DZ_MAX_NDIM);
    }
}

static void unpack_text(const dz_field *f, size_t width, dz_view *v, uint8_t *member, dz_error *err) {
    const char *bytes = (const char *)dz_view_bytes(v, f->kind == DZ_FIELD_DTYPE ? DZ_DTYPE_NAME : width);
    if (f->kind == DZ_FIELD_TEXT) {
        char *text = bytes ? dz_strndup(bytes, strnlen(bytes, width), err) : NULL;
        memcpy(member, &text, sizeof text);
    } else if (bytes) {
        memcpy(member, bytes, DZ_DTYPE_NAME);
    }
}

static void unpack_field(const dz_field *f, size_t width, dz_view *v, uint8_t *member, dz_error *err) {
    uint32_t four;
    uint64_t eight;
    switch (f->kind) {
        case DZ_FIELD_U8:
        case DZ_FIELD_POLICY: *member = dz_view_u8(v); return;
        case DZ_FIELD_U32:
        case DZ_FIELD_F32:
            four = dz_view_u32(v);
            memcpy(member, &four, 4);
            return;
        case DZ_FIELD_U64:
        case DZ_FIELD_F64:
            eight = dz_view_u64(v);
            memcpy(member, &eight, 8);
            return;
        case DZ_FIELD_SHAPE:
            for (size_t d = 0; d < DZ_MAX_NDIM; d++) {
                eight = dz_view_u64(v);
                memcpy(member + 8 * d, &eight, 8);
            }
            return;
        case DZ_FIELD_DTYPE:
        case DZ_FIELD_TEXT: unpack_text(f, width, v, member, err);
    }
}

dz_rc dz_schema_unpack(const dz_schema *schema, uint32_t version, size_t width, dz_view *v, void *row, dz_error *err) {
    for (const dz_field *f = schema->fields; f->name; f++) {
        uint8_t *member = (uint8_t *)row + f->member;
        if (version < f->first || version > f->last)
            set_missing(f, member);
        else
            unpack_field(f, width, v, member, err);
    }
    return v->bad ? dz_fail(err, DZ_EDAMAGE, "a table's row is cut short") : err->rc;
}

/* An enumeration, so that HDF5's tools show names. */
static hid_t policy_type(void) {
    hid_t type = H5Tenum_create(H5T_STD_U8LE);
    for (uint8_t i = 0; type >= 0 && i < DZ_POLICIES; i++) H5Tenum_insert(type, dz_policy_name((dz_policy)i), &i);
    return type;
}

static hid_t field_type(const dz_field *f, size_t width) {
    const hsize_t dims[] = {DZ_MAX_NDIM};
    switch (f->kind) {
        case DZ_FIELD_U8: return H5Tcopy(H5T_STD_U8LE);
        case DZ_FIELD_POLICY: return policy_type();
        case DZ_FIELD_U32: return H5Tcopy(H5T_STD_U32LE);
        case DZ_FIELD_U64: return H5Tcopy(H5T_STD_U64LE);
        case DZ_FIELD_F32: return H5Tcopy(H5T_IEEE_F32LE);
        case DZ_FIELD_F64: return H5Tcopy(H5T_IEEE_F64LE);
        case DZ_FIELD_SHAPE: return H5Tarray_create2(H5T_STD_U64LE, 1, dims);
        case DZ_FIELD_DTYPE:
        case DZ_FIELD_TEXT: break;
    }
    hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, f->kind == DZ_FIELD_DTYPE ? DZ_DTYPE_NAME : width);
    H5Tset_strpad(text, H5T_STR_NULLPAD);
    H5Tset_cset(text, H5T_CSET_UTF8);
    return text;
}

hid_t dz_schema_type(const dz_schema *schema, uint32_t version, size_t width) {
    hid_t type = H5Tcreate(H5T_COMPOUND, dz_schema_size(schema, version, width));
    size_t at = 0;
    for (const dz_field *f = schema->fields; f->name && type >= 0; f++) {
        size_t size = field_size(f, version, width);
        if (size == 0) continue;
        hid_t member = field_type(f, width);
        int bad = member < 0 || H5Tinsert(type, f->name, at, member) < 0;
        if (member >= 0) H5Tclose(member);
        at += size;
        if (bad) {
            H5Tclose(type);
            return -1;
        }
    }
    return type;
}

static herr_t first_complaint(unsigned n, const H5E_error2_t *e, void *data) {
    char *text = data;
    if (n == 0 || text[0] == '\0') {
        strncpy(text, e->desc ? e->desc : "", 199);
        text[199] = '\0';
    }
    return 0;
}

dz_rc dz_hdf5_fail(dz_error *err, dz_rc rc, const char *path, const char *what) {
    char text[200] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_complaint, text);
    text[strcspn(text, "\n")] = '\0';
    return dz_fail(err, rc, "%s: %s%s%s", path, what, text[0] ? ": HDF5: " : "", text);
}

void dz_hdf5_quiet(void) { H5Eset_auto2(H5E_DEFAULT, NULL, NULL); }

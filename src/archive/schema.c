#include "archive/schema.h"

#include <string.h>

const dz_field DZ_TENSOR_FIELDS[] = {{"name", DZ_FIELD_TEXT, 0},  {"dtype", DZ_FIELD_TEXT, DZ_DTYPE_NAME},
                                     {"ndim", DZ_FIELD_U32, 0},   {"shape", DZ_FIELD_SHAPE, 0},
                                     {"nbytes", DZ_FIELD_U64, 0}, {NULL, DZ_FIELD_U8, 0}};
const dz_field DZ_BASE_FIELDS[] = {{"tensor", DZ_FIELD_U32, 0}, {"first_tile", DZ_FIELD_U32, 0}, {NULL, DZ_FIELD_U8, 0}};
const dz_field DZ_TILE_FIELDS[] = {{"digest_hi", DZ_FIELD_U64, 0}, {"digest_lo", DZ_FIELD_U64, 0}, {NULL, DZ_FIELD_U8, 0}};
const dz_field DZ_BLOB_FIELDS[] = {{"digest_hi", DZ_FIELD_U64, 0}, {"digest_lo", DZ_FIELD_U64, 0}, {"raw_size", DZ_FIELD_U64, 0},
                                   {"offset", DZ_FIELD_U64, 0},    {"length", DZ_FIELD_U64, 0},    {NULL, DZ_FIELD_U8, 0}};
const dz_field DZ_INDEX_FIELDS[] = {{"tensor", DZ_FIELD_U32, 0},   {"base", DZ_FIELD_U32, 0},   {"policy", DZ_FIELD_POLICY, 0},
                                    {"bits", DZ_FIELD_U8, 0},      {"length", DZ_FIELD_U64, 0}, {"kept", DZ_FIELD_U64, 0},
                                    {"lo", DZ_FIELD_F32, 0},       {"step", DZ_FIELD_F32, 0},   {"scale", DZ_FIELD_F32, 0},
                                    {"sparsity", DZ_FIELD_F32, 0}, {NULL, DZ_FIELD_U8, 0}};
const dz_field DZ_RECORD_FIELDS[] = {{"recipe_blob", DZ_FIELD_U32, 0},
                                     {"files_blob", DZ_FIELD_U32, 0},
                                     {"sparsity", DZ_FIELD_F64, 0},
                                     {"bits", DZ_FIELD_U32, 0},
                                     {"seed", DZ_FIELD_U64, 0},
                                     {"key", DZ_FIELD_U64, 0},
                                     {"gamma", DZ_FIELD_F32, 0},
                                     {"trace_norm", DZ_FIELD_F64, 0},
                                     {"trace_norm_error", DZ_FIELD_F64, 0},
                                     {"reference_trace_norm", DZ_FIELD_F64, 0},
                                     {"source_bytes", DZ_FIELD_U64, 0},
                                     {"lossy_source_bytes", DZ_FIELD_U64, 0},
                                     {"lossy_parameters", DZ_FIELD_U64, 0},
                                     {"lossy_kept", DZ_FIELD_U64, 0},
                                     {"lossy_value_bits", DZ_FIELD_F64, 0},
                                     {"lossy_entropy_bytes", DZ_FIELD_F64, 0},
                                     {NULL, DZ_FIELD_U8, 0}};

static size_t field_size(const dz_field *f, size_t width) {
    switch (f->kind) {
        case DZ_FIELD_U8:
        case DZ_FIELD_POLICY: return 1;
        case DZ_FIELD_U32:
        case DZ_FIELD_F32: return 4;
        case DZ_FIELD_U64:
        case DZ_FIELD_F64: return 8;
        case DZ_FIELD_SHAPE: return 8 * DZ_MAX_NDIM;
        case DZ_FIELD_TEXT: break;
    }
    return f->size ? f->size : width;
}

size_t dz_schema_size(const dz_field *fields, size_t width) {
    size_t size = 0;
    for (const dz_field *f = fields; f->name; f++) size += field_size(f, width);
    return size;
}

/* An enumeration, so that HDF5's tools show names. */
static hid_t policy_type(void) {
    static const char *const names[] = {"lossless", "ultradelta", "drop", "equal", "absent", "tied"};
    hid_t type = H5Tenum_create(H5T_STD_U8LE);
    for (uint8_t i = 0; type >= 0 && i < sizeof names / sizeof *names; i++) H5Tenum_insert(type, names[i], &i);
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
        case DZ_FIELD_TEXT: break;
    }
    hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, field_size(f, width));
    H5Tset_strpad(text, H5T_STR_NULLPAD);
    H5Tset_cset(text, H5T_CSET_UTF8);
    return text;
}

hid_t dz_schema_type(const dz_field *fields, size_t width) {
    hid_t type = H5Tcreate(H5T_COMPOUND, dz_schema_size(fields, width));
    size_t at = 0;
    for (const dz_field *f = fields; f->name && type >= 0; f++) {
        hid_t member = field_type(f, width);
        int bad = member < 0 || H5Tinsert(type, f->name, at, member) < 0;
        if (member >= 0) H5Tclose(member);
        at += field_size(f, width);
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

/* The tables of the format, each declared once (schema.c): from its list of columns come the HDF5 type, the writer's packing and the
 * reader's unpacking, for every format version that this program reads. Shared by writer.c and reader.c only.
 *
 * To add a column: add a member to the row's struct (catalog.h), one line DZ_COLUMN_SINCE to its list in schema.c, and to FORMAT.md; raise
 * DZ_FORMAT_VERSION if archives of the present version have been written. Archives of older versions then give `missing` for it. */
#ifndef DZ_ARCHIVE_SCHEMA_H
#define DZ_ARCHIVE_SCHEMA_H

#include <hdf5.h>

#include "archive/catalog.h"

typedef enum dz_field_kind {
    DZ_FIELD_U8,     /* uint8_t */
    DZ_FIELD_POLICY, /* uint8_t; an enumeration in the file */
    DZ_FIELD_U32,    /* uint32_t */
    DZ_FIELD_U64,    /* uint64_t */
    DZ_FIELD_F32,    /* float */
    DZ_FIELD_F64,    /* double */
    DZ_FIELD_TEXT,   /* char *, owned by the row; in the file NUL-padded to the table's width */
    DZ_FIELD_DTYPE,  /* char[DZ_DTYPE_NAME] */
    DZ_FIELD_SHAPE   /* uint64_t[DZ_MAX_NDIM] */
} dz_field_kind;

typedef struct dz_field {
    const char *name; /* of the column; NULL ends the list */
    dz_field_kind kind;
    size_t member;        /* offset in the row's struct */
    uint32_t first, last; /* format versions that have the column */
    double missing;       /* the member's value when it is read from a version without the column; numbers only */
} dz_field;

typedef struct dz_schema {
    const dz_field *fields; /* in the order of the file */
    size_t row;             /* bytes of the row's struct */
} dz_schema;

#define DZ_EVERY_VERSION UINT32_MAX /* as `last`: no version has dropped the column */

/* A column of a table whose rows are of type DZ_ROW. `kind` is a dz_field_kind without its prefix; a member of another C type does not
 * compile. */
#define DZ_COLUMN_IN(column, kind, m, first, last, missing)                                                                                \
    { column, DZ_FIELD_##kind, offsetof(DZ_ROW, m) + 0 * sizeof(_Generic(((DZ_ROW *)0)->m, DZ_MEMBER_##kind : 0)), first, last, missing }
#define DZ_COLUMN_SINCE(version, column, kind, m, missing) DZ_COLUMN_IN(column, kind, m, version, DZ_EVERY_VERSION, missing)
#define DZ_MEMBER_U8 uint8_t
#define DZ_MEMBER_POLICY uint8_t
#define DZ_MEMBER_U32 uint32_t
#define DZ_MEMBER_U64 uint64_t
#define DZ_MEMBER_F32 float
#define DZ_MEMBER_F64 double
#define DZ_MEMBER_TEXT char *
#define DZ_MEMBER_DTYPE char *
#define DZ_MEMBER_SHAPE uint64_t *

extern const dz_schema DZ_TENSOR_TABLE, DZ_BASE_TABLE, DZ_TILE_TABLE, DZ_BLOB_TABLE, DZ_INDEX_TABLE, DZ_RECORD_TABLE;

/* Types of all tasks, which the root group has once: of its index's rows and of its record. */
#define DZ_INDEX_TYPE "index_row"
#define DZ_RECORD_TYPE "task_record"

/* Their attribute "meaning", for who looks at an archive with HDF5's tools. */
#define DZ_INDEX_MEANING                                                                                                                   \
    "tensor: row of /tensors; base: row of /base/tensors, or of the index of the source-th of the task's sources; length: bytes of "       \
    "payload, row after row; kept: elements, of a tied tensor "                                                                            \
    "the row it is tied to; level q adds gamma * scale * (lo + q * step) to the base; sparsity: share dropped; nsr: expected noise over "  \
    "signal, gain: share of the delta restored, both without gamma; *_rms: root mean squares"
#define DZ_RECORD_MEANING                                                                                                                  \
    "*_blob: row of /blobs/index; gamma: factor of all deltas; trace_norm: of the delta before gamma, its error one sigma; "               \
    "lossy_*: of ultradelta tensors; key: XXH64 of the task's name, its seed the seed"

/* The packed compound type of a table in format `version`, whose text column (if it has one) is `width` bytes wide; its size in bytes.
 * Close with H5Tclose. Negative on failure. */
hid_t dz_schema_type(const dz_schema *schema, uint32_t version, size_t width);
size_t dz_schema_size(const dz_schema *schema, uint32_t version, size_t width);

/* Appends `n` rows to `out`, as they are in the file. Texts are at most `width` bytes. */
dz_rc dz_schema_pack(const dz_schema *schema, uint32_t version, size_t width, const void *rows, size_t n, dz_buf *out, dz_error *err);

/* One row from the bytes of the file at `view`, which is advanced. Members that are no column are left alone. On failure the text is NULL.
 */
dz_rc dz_schema_unpack(const dz_schema *schema, uint32_t version, size_t width, dz_view *view, void *row, dz_error *err);

/* DZ_EFAIL or DZ_EDAMAGE with `what` and HDF5's own first complaint. */
dz_rc dz_hdf5_fail(dz_error *err, dz_rc rc, const char *path, const char *what);

/* HDF5 prints nothing by itself: its complaints go into our errors. */
void dz_hdf5_quiet(void);

#endif

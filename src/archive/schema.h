/* The HDF5 side of the format: tables as fields, each table packed little endian in memory exactly as in the file, so that one list of
 * fields is the schema, the writer and the reader. Shared by writer.c and reader.c only. */
#ifndef DZ_ARCHIVE_SCHEMA_H
#define DZ_ARCHIVE_SCHEMA_H

#include <hdf5.h>

#include "archive/catalog.h"

typedef enum dz_field_kind {
    DZ_FIELD_U8,
    DZ_FIELD_POLICY,
    DZ_FIELD_U32,
    DZ_FIELD_U64,
    DZ_FIELD_F32,
    DZ_FIELD_F64,
    DZ_FIELD_TEXT,
    DZ_FIELD_SHAPE
} dz_field_kind;

typedef struct dz_field {
    const char *name; /* NULL ends the list */
    dz_field_kind kind;
    size_t size; /* DZ_FIELD_TEXT: bytes; 0: the width given with the table */
} dz_field;

extern const dz_field DZ_TENSOR_FIELDS[], DZ_BASE_FIELDS[], DZ_TILE_FIELDS[], DZ_BLOB_FIELDS[], DZ_INDEX_FIELDS[], DZ_RECORD_FIELDS[];

/* The types that every task has use of stand in the root group, once: of its index's rows and of its record. */
#define DZ_INDEX_TYPE "index_row"
#define DZ_RECORD_TYPE "task_record"

/* Their attribute "meaning", for who looks at an archive with HDF5's tools. */
#define DZ_INDEX_MEANING                                                                                                                   \
    "tensor: row of /tensors; base: row of /base/tensors; length: bytes of payload, row after row; kept: elements, of a tied tensor "      \
    "the row it is tied to; level q adds gamma * scale * (lo + q * step) to the base; sparsity: share dropped"
#define DZ_RECORD_MEANING                                                                                                                  \
    "*_blob: row of /blobs/index; gamma: factor of all deltas; trace_norm: of the delta before gamma, its error one sigma; "               \
    "lossy_*: of ultradelta tensors; key: XXH64 of the task's name, its seed the seed"

/* The packed compound type of a table whose open text field has `width` bytes; its size. Close with H5Tclose. Negative on failure. */
hid_t dz_schema_type(const dz_field *fields, size_t width);
size_t dz_schema_size(const dz_field *fields, size_t width);

/* DZ_EFAIL or DZ_EDAMAGE with `what` and HDF5's own first complaint. */
dz_rc dz_hdf5_fail(dz_error *err, dz_rc rc, const char *path, const char *what);

/* HDF5 prints nothing by itself: its complaints go into our errors. */
void dz_hdf5_quiet(void);

#endif

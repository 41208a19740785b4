/* Reading an archive. Every table is checked against the schema, and every number against the others, before memory is allocated from it.
 * Payload bytes are read by pread at the offset that HDF5 gives. */
#ifndef DZ_ARCHIVE_READER_H
#define DZ_ARCHIVE_READER_H

#include "archive/catalog.h"
#include "numeric/noise.h"
#include "plan/tiling.h"

typedef struct dz_archive {
    char *path;
    int fd;
    dz_catalog *catalog;
} dz_archive;

/* Opens an archive. DZ_EFAIL if the file is no archive or of another version, DZ_EDAMAGE if it is damaged. */
dz_rc dz_archive_open(const char *path, dz_archive **out, dz_error *err);

/* As dz_archive_open, but tolerates damage that leaves the rest readable: damaged tasks (listed in catalog->lost, not in catalog->tasks),
 * the blobs (blobs_lost), a task's list of files (files_lost) or recipe (its text is then empty). */
dz_rc dz_archive_open_partly(const char *path, dz_archive **out, dz_error *err);

/* As dz_archive_open_partly, but the catalog has only these tasks, the tasks that they are coded against, and a stored base: of the others
 * not even the index is read. With a name that the archive lacks, all of them are there, as a message will name them. */
dz_rc dz_archive_open_tasks(const char *path, const char *const *names, size_t n, dz_archive **out, dz_error *err);
void dz_archive_close(dz_archive *archive); /* accepts NULL */

/* The row whose region and base hold the row's values: the row itself, or for a tied tensor the row that it is tied to. */
const dz_index_row *dz_row_source(const dz_task_entry *task, const dz_index_row *row);

/* What holds the row's values: with a source and equal to its reference, that row (and so on); else the row itself. `*task` becomes its
 * task.
 */
const dz_index_row *dz_row_values(const dz_task_entry **task, const dz_index_row *row);

/* 1 if the values are the base's own. */
int dz_row_is_base(const dz_index_row *row);

/* 1 if the values are not the original's: it is lossy or dropped, or equals such a row. One that is coded exactly is exact, whatever it is
 * coded against. */
int dz_row_is_lossy(const dz_index_row *row);

/* 1 if it keeps exactly what a lossy coding had restored, before its task was rebased: nsr and what goes with it are that coding's. */
int dz_row_was_lossy(const dz_index_row *row);

/* 1 if its values have the noise of a lossy coding, its own or that of the row it equals. */
int dz_row_is_noisy(const dz_index_row *row);

/* 1 if it is an embedding or head of tokens (plan/structure.h), as the base's tensor says. */
int dz_row_is_vocabulary(const dz_catalog *catalog, const dz_index_row *row);

/* 1 if the archive holds the delta of the row's values from the base itself: lossy, and coded against the base. */
int dz_row_has_delta(const dz_index_row *row);

/* Of a task: rows that its deepest row is coded against, one over another. */
unsigned dz_task_depth(const dz_task_entry *task);

/* The task that most of its own tensors are coded against; NULL: none is. Tensors that merely equal another's do not count. */
const char *dz_task_parent(const dz_task_entry *task);

/* How many tiles are decoded for one of the task's, on average: 1 where all are coded against the base. */
double dz_task_decodings(const dz_catalog *catalog, const dz_task_entry *task);

/* Elements that are coded against something. */
uint64_t dz_row_common(const dz_catalog *catalog, const dz_index_row *row);

/* 1 if the tile is coded against something: the base's tile, or the one of the row that the source gives. */
int dz_tile_has_reference(const dz_index_row *row, const dz_pair_tiles *tiles, uint32_t tile);

/* Tiles of a row of a task's index (plan/tiling.h); none for equal, dropped, absent and tied tensors. */
dz_pair_tiles dz_row_tiles(const dz_catalog *catalog, const dz_index_row *row);

/* The task's rows by the names of their tensors, for dz_task_row; absent ones are not among them. Free with dz_lookup_free. */
dz_rc dz_task_rows(const dz_catalog *catalog, const dz_task_entry *task, dz_lookup *rows, dz_error *err);

/* Where a row's tensor is in a file. */
typedef struct dz_file_place {
    uint32_t row;
    uint32_t fused;  /* 0, or 1 + the number of the file's fused tensor of which it is a part */
    size_t tensor;   /* of the file */
    uint64_t offset; /* in the file */
} dz_file_place;

/* The places of all rows of a safetensors file whose `n` tensors are parsed from its header, with their prefix. DZ_EDAMAGE for one that the
 * index has not. The caller frees. */
dz_rc dz_file_places(const dz_catalog *catalog, const dz_task_entry *task, const dz_file_row *file, const dz_lookup *rows,
                     const dz_tensor *tensors, size_t n, dz_file_place **out, size_t *nout, dz_error *err);

/* The row of a tensor that the task has, by name, dtype and size, or NULL. `rows`: the task's, from dz_task_rows. */
const dz_index_row *dz_task_row(const dz_catalog *catalog, const dz_task_entry *task, const dz_lookup *rows, const dz_tensor *tensor);

/* The blocks of one tensor. `lengths` (checksum included) has ntiles entries. */
typedef struct dz_region {
    uint64_t first; /* offset of the first block within the payload */
    uint32_t *lengths;
    uint32_t ntiles;
} dz_region;

/* Bytes of the table of block lengths, which the region of a tensor of several tiles begins with. */
static inline uint64_t dz_region_table_bytes(uint32_t ntiles) { return ntiles > 1 ? 4 * (uint64_t)ntiles + 4 : 0; }

/* Reads and checks a tensor's region table. The caller frees region->lengths. */
dz_rc dz_region_read(const dz_archive *archive, const dz_task_entry *task, const dz_index_row *row, dz_region *region, dz_error *err);

/* Reads block `tile` into `block` (the body, without checksum) and checks it. DZ_EDAMAGE names task, tensor and block. */
dz_rc dz_block_read(const dz_archive *archive, const dz_task_entry *task, const dz_index_row *row, const dz_region *region, uint32_t tile,
                    dz_buf *block, dz_error *err);

/* The ratios of METHODS.md "Ratios", and the sizes in bytes behind them, of one task. */
typedef struct dz_size_stats {
    double source, stored;             /* tensors in their files; payload, index and this task's HDF5 structures */
    double lossy_source, lossy_stored; /* of the lossy tensors: their regions, and their rows' share of index and HDF5 structures */
    double lossy_fixed;                /* that share */
    double ratio, lossy_ratio, value_bits, positions_coded;
} dz_size_stats;

/* What a task's stored bytes are, one after another; they add up to dz_size_stats.stored. */
typedef struct dz_parts {
    double values; /* kept values at the order-0 entropy of their levels: the bound for any coding of them */
    double coding; /* the rest of the lossy blocks: positions, code tables, heads */
    double checks; /* of the lossy tensors: checksums and lengths of the blocks */
    double exact;  /* blocks of all other tensors, with theirs */
    double index;  /* index rows */
    double structures;
} dz_parts;

dz_parts dz_task_parts(const dz_catalog *catalog, const dz_task_entry *task);

/* What is stored once for several tasks: tensors beyond the first of their kind, and files (of headers, only their bytes count). */
typedef struct dz_shared {
    size_t ntensors, nfiles;
    uint64_t saved; /* bytes that the archive would have more */
} dz_shared;
dz_rc dz_shared_of(const dz_catalog *catalog, dz_shared *out, dz_error *err);

/* Tensors that a recipe has dropped from a task: the base's values replace them. Their bytes count in dz_size_stats.source, and nothing is
 * stored for them. */
typedef struct dz_dropped {
    size_t ntensors;
    double source;
    double ratio; /* of all others */
} dz_dropped;

dz_dropped dz_task_dropped(const dz_catalog *catalog, const dz_task_entry *task);

/* Distributes HDF5's structures for tasks equally over them: fills meta_bytes. `chosen`: the catalog has only some of the tasks. */
void dz_share_structures(dz_catalog *catalog, int chosen);

dz_size_stats dz_task_size_stats(const dz_task_entry *task);

/* What the coding of a lossy row, or of all of a task's, is expected to have done, gamma included. */
dz_quality dz_row_quality(const dz_catalog *catalog, const dz_task_entry *task, const dz_index_row *row);

dz_quality dz_task_quality(const dz_catalog *catalog, const dz_task_entry *task);

/* What is known to cost accuracy in a task, a line each, with the next step: a small gamma, much noise, heavy tails on a uniform grid. */
dz_rc dz_task_warnings(const dz_catalog *catalog, const dz_task_entry *task, dz_buf *lines, dz_error *err);

#endif

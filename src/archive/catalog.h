/* Everything an archive holds except the payloads: what the writer puts into HDF5 and the reader takes out of it. The bytes: FORMAT.md. */
#ifndef DZ_ARCHIVE_CATALOG_H
#define DZ_ARCHIVE_CATALOG_H

#include "base/hash.h"
#include "base/lookup.h"
#include "checkpoint/checkpoint.h"
#include "codec/kinds.h"
#include "config/policy.h"

#define DZ_FORMAT_VERSION 4 /* of archives that are written */
#define DZ_FORMAT_OLDEST 1  /* that is still read */
#define DZ_NO_BASE UINT32_MAX
#define DZ_SCORE_MAX 16384   /* bytes of a task's score */
#define DZ_DEPTH_MAX 64      /* rows that one is coded against, one over another */
#define DZ_SOURCES_MAX 60000 /* bytes of the names of a task's sources */

/* /tensors: each distinct name, type and shape once. */
typedef struct dz_tensor_row {
    char *name;
    char dtype[DZ_DTYPE_NAME];
    uint32_t ndim;
    uint64_t shape[DZ_MAX_NDIM];
    uint64_t nbytes; /* in the file */
} dz_tensor_row;

/* /base/tensors: the base's tensors in its order; the digest of tile k is base_tiles[first_tile + k]. */
typedef struct dz_base_row {
    uint32_t tensor, first_tile;
} dz_base_row;

/* /blobs/index: small files and headers, zstd-compressed; identical ones are stored once. */
typedef struct dz_blob_row {
    dz_digest digest; /* of the raw bytes */
    uint64_t raw_size, offset, length;
} dz_blob_row;

/* /tasks/NAME/index: a tensor of the task. */
typedef struct dz_index_row {
    uint32_t tensor;
    uint32_t base;                 /* row of /base/tensors, or DZ_NO_BASE; with a source that of the oldest row under this one */
    uint32_t reference;            /* on disk, its "base": as `base`, or with a source a row of that task's index */
    uint32_t source;               /* from version 4 on: 0, or the number from 1 of the task, among `sources`, whose row is the reference */
    dz_digest digest;              /* from version 4 on: of the original tensor (FORMAT.md "Index"); 0 0: not known */
    const struct dz_index_row *up; /* the reference, where there is a source; a tied one is its target. Not on disk */
    const struct dz_task_entry *up_task; /* whose row that is */
    uint8_t depth;                       /* rows under this one: 0 without a source */
    uint8_t policy, bits;
    uint64_t offset, length;   /* its region of the payload; offset: the lengths before, not on disk */
    uint64_t kept;             /* lossy: elements kept; tied: the row whose tensor this one is */
    float lo, step;            /* lossy: decoded value of level q is lo + q * step */
    float scale;               /* lossy: factor / (1 - s) for UltraDelta; a restored delta is gamma * scale * value */
    float sparsity;            /* lossy: share of the elements to be dropped */
    float nsr, gain;           /* lossy, from version 2 on: expected noise (numeric/noise.h), without gamma; NaN before */
    float delta_rms, base_rms; /* lossy, from version 2 on: root mean squares of the true delta and of the base; NaN before */
} dz_index_row;

/* What the task's directory held. On disk a blob of its own (files.c). */
enum {
    DZ_FILE_SIDE = 0,
    DZ_FILE_SAFETENSORS = 1, /* blob: its header, length prefix included */
    DZ_FILE_PART = 2,        /* on disk only: the same, of a part of a pipeline: it has a prefix */
    DZ_FILE_FUSED = 3        /* on disk only: the same with tensors that are kept as parts; a prefix or 0 */
};

/* A tensor of a file that is kept as the tensors of consecutive rows, whose bytes one after another are its own. */
typedef struct dz_row_range {
    uint32_t first, count;
} dz_row_range;

typedef struct dz_file_row {
    char *path;
    uint32_t kind, blob;
    uint64_t size;       /* of the whole file */
    uint32_t prefix;     /* letters of the path, up to a '/', that come before the names of its tensors */
    dz_row_range *fused; /* of the file's tensors that have no row, in the order of their bytes */
    size_t nfused;
} dz_file_row;

void dz_file_row_free(dz_file_row *file); /* what it holds */

/* Puts the prefix before the names of the file's tensors, which have been parsed from its header. */
dz_rc dz_file_prefix_tensors(const dz_file_row *file, dz_tensor *tensors, size_t n, dz_error *err);

typedef struct dz_lost { /* a task that cannot be read, and the reason, in a line that names the archive */
    char *name, *text;
    int unread; /* it is sound, but of a form that is not read (attributes in a heap): it is not damaged */
} dz_lost;

typedef struct dz_task_entry {
    char *name;
    char *recipe, *recipe_text;
    char *score;    /* JSON text: what an evaluation made of it (deltazoo tune); NULL: none */
    char **sources; /* names of the tasks whose rows its own refer to */
    size_t nsources;
    uint32_t recipe_blob, files_blob;
    double sparsity;
    uint32_t bits;
    uint64_t seed, key;
    float gamma;
    double trace_norm, trace_error, trace_reference; /* error: standard error, same unit */
    uint64_t source_bytes, lossy_source_bytes, lossy_parameters, lossy_kept;
    double value_bits, entropy_bytes; /* kept values times their bits; times the entropy of their levels */
    dz_index_row *rows;
    size_t nrows;
    dz_file_row *files;
    size_t nfiles;
    char *files_lost;                     /* why the list of its files cannot be read; NULL: it can */
    uint64_t payload_len, payload_offset; /* offset in the archive file */
    uint64_t index_bytes, meta_bytes;     /* stored size of its index, and its share of HDF5's structures for tasks */
} dz_task_entry;

/* Whether the task is an adapter (LoRA): all its safetensors files are called so. */
int dz_task_is_adapter(const dz_task_entry *task);

typedef struct dz_catalog {
    dz_tensor_row *tensors;
    size_t ntensors, tensors_cap;
    dz_lookup by_task;            /* once all tasks are there: their numbers */
    dz_lookup by_tensor, by_blob; /* of dz_catalog_tensor and dz_catalog_add_blob: rows that they have seen */
    dz_base_row *base;
    uint8_t *vocabulary; /* [nbase] which of them are embeddings or heads of tokens (plan/structure.h). Not on disk */
    size_t nbase;
    dz_digest *base_tiles;
    size_t nbase_tiles;
    dz_digest fingerprint;
    char *base_name, *base_origin, *base_revision; /* what it is called, its path as the manifest gave it; NULL or "": not known */
    char *stored_name;                             /* task that is the base itself; NULL: the archive does not hold it */
    size_t stored;                                 /* 1 + its number; 0: none, or it cannot be read (stored_lost) */
    const struct dz_index_row **stored_rows;       /* [nbase] rows of that task with the base's tensors */
    char *stored_lost;
    dz_blob_row *blobs;
    size_t nblobs, blobs_cap;
    dz_buf blob_data;
    struct dz_catalog *earlier; /* borrowed, or NULL: blobs that this one has are taken from it, not coded again */
    dz_task_entry *tasks;
    size_t ntasks;
    dz_lost *lost; /* tasks that are not in `tasks` because they are damaged, or not read */
    size_t nlost;
    dz_buf foreign;         /* lines on what other tools have put there */
    dz_buf foreign_tasks;   /* the names of their links in /tasks, a NUL after each */
    char *blobs_lost;       /* why no blob can be read; NULL: they can */
    double trace_reference; /* T_ref of METHODS.md "Rescaling by the trace norm"; 0: none */
    uint64_t file_size, shared_bytes;
    size_t there;         /* tasks that the file's structure has, of which a choice may have been read */
    uint64_t there_bytes; /* their payloads and index tables */
    uint32_t format_version;
    char generator[64];
    const char *path; /* borrowed, for messages; NULL while the archive is being made */
} dz_catalog;

void dz_catalog_free(dz_catalog *catalog);     /* accepts NULL */
void dz_task_entry_free(dz_task_entry *entry); /* what it holds */

/* The text as "ARCHIVE: task 'NAME': ..."; parts of it that are there already are not repeated. The caller frees. */
char *dz_catalog_line(const dz_catalog *catalog, const char *task, const char *text, dz_error *err);

/* A link of another tool has this name in /tasks. */
int dz_catalog_is_foreign(const dz_catalog *catalog, const char *name);

/* What a task that is lost fails with: DZ_EDAMAGE, DZ_EFAIL if it is only not read. */
dz_rc dz_lost_rc(const dz_lost *lost);

/* The task that cannot be read under this name, or NULL. */
dz_lost *dz_catalog_find_lost(const dz_catalog *catalog, const char *task);

/* Records a task as lost, with such a text. */
dz_rc dz_catalog_lose(dz_catalog *catalog, const char *task, const char *text, dz_error *err);

/* Adds bytes as a blob (or finds an identical one); `*number` is its row. */
dz_rc dz_catalog_add_blob(dz_catalog *catalog, const void *bytes, size_t len, uint32_t *number, dz_error *err);

/* Adds the blob `number` of another catalog as it is, without unpacking it (or finds an identical one). */
dz_rc dz_catalog_copy_blob(dz_catalog *catalog, const dz_catalog *from, uint32_t number, uint32_t *added, dz_error *err);

/* Adds the task's list of files as a blob and fills files_blob. The files' own blobs must be added before. */
dz_rc dz_catalog_add_files(dz_catalog *catalog, dz_task_entry *task, dz_error *err);

/* Reads the list back from the blob: fills files. DZ_EDAMAGE if a path leads out of the task's directory or a number is invalid. */
dz_rc dz_catalog_read_files(const dz_catalog *catalog, dz_task_entry *task, dz_error *err);

/* The raw bytes of a blob; the caller frees. Checked against size and digest (DZ_EDAMAGE). A NUL follows the bytes. */
dz_rc dz_catalog_blob(const dz_catalog *catalog, uint32_t number, char **out, size_t *len, dz_error *err);

/* Finds or adds a row of /tensors: that of the same name, type, shape and size. */
dz_rc dz_catalog_tensor(dz_catalog *catalog, const dz_tensor *tensor, uint32_t *number, dz_error *err);

/* Fills `vocabulary`, once the base's table is there. */
dz_rc dz_catalog_mark_vocabulary(dz_catalog *catalog, dz_error *err);

/* A row of /tensors as a tensor (name borrowed): dtype, count and nbytes as safetensors.h has them. */
dz_tensor dz_tensor_of_row(const dz_tensor_row *row);

/* XXH3-128 over the digests of all base tiles and the names, dtypes and shapes of their tensors: independent of how the base is sharded. */
dz_rc dz_catalog_fingerprint(const dz_catalog *catalog, dz_digest *out, dz_error *err);

/* The base's name, origin and revision, from the model and the path that the manifest gives it. Rank 0. */
dz_rc dz_catalog_describe_base(dz_catalog *catalog, const dz_checkpoint *base, const char *manifest, dz_error *err);

/* "'org/name' (fingerprint 0123...)" for messages. Returns `text`. */
#define DZ_BASE_TEXT 640
char *dz_catalog_base_text(const dz_catalog *catalog, char text[DZ_BASE_TEXT]);

uint64_t dz_catalog_base_bytes(const dz_catalog *catalog); /* of all its tensors */

/* Makes dz_catalog_find fast for the tasks that are there. */
dz_rc dz_catalog_index_tasks(dz_catalog *catalog, dz_error *err);

/* The number from 1 of `name` among the task's sources, added if it is not yet one of them. DZ_EUSAGE if there are too many. */
dz_rc dz_task_add_source(dz_task_entry *task, const char *name, uint32_t *number, dz_error *err);

/* Once all tasks are there: finds what each row is coded against (up, base, depth). Tasks that cannot be resolved become lost, with a line
 * that says why: an unknown or lost source, a cycle, a row that does not fit. Then finds the rows of the stored base. */
dz_rc dz_catalog_link(dz_catalog *catalog, dz_error *err);

/* Tasks without the base that is stored. */
static inline size_t dz_catalog_ntasks(const dz_catalog *catalog) { return catalog->ntasks - (catalog->stored != 0); }

/* 1 for the task that is the base itself. */
static inline int dz_catalog_is_stored(const dz_catalog *catalog, const dz_task_entry *task) {
    return catalog->stored && task == &catalog->tasks[catalog->stored - 1];
}

/* The task's number, or -1. */
int64_t dz_catalog_find(const dz_catalog *catalog, const char *task);

#endif

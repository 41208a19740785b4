/* A model on disk: one .safetensors file, or a directory with shards, an index and small side files, or a pipeline of such directories.
 * PyTorch files (torch/torchfile.h) are taken as the safetensors files they are restored as.
 *
 * Loading reads headers only. Data is read by pread, in the ranges that a rank needs. With many ranks, rank 0 loads and packs, and the
 * others unpack, so each header is read once from the file system.
 */
#ifndef DZ_CHECKPOINT_CHECKPOINT_H
#define DZ_CHECKPOINT_CHECKPOINT_H

#include "checkpoint/strided.h"

typedef struct dz_shard {
    char *file;    /* name within the checkpoint: "model-00001-of-00002.safetensors" */
    size_t prefix; /* letters of it, up to a '/', that come before the names of its tensors: "unet/" of a pipeline's part; 0: none do */
    char *path;    /* on this machine */
    char *header;  /* its first bytes verbatim, 8-byte length included: a restored file begins with them */
    size_t header_len;
    uint64_t size;
    dz_strided *places; /* PyTorch: location of each tensor of the header in the file `path`; NULL: as the header says */
    size_t nplaces;
    size_t first; /* the number of its first tensor */
    int fd;       /* -1 until it is read */
} dz_shard;

typedef struct dz_companion_file {
    char *file;
    char *path;
    uint64_t size;
    char *bytes; /* content of a generated file; `path` is then its source. NULL: the file `path` itself is kept */
    char *why;   /* of a file that is not kept, or NULL; only on the rank that loaded it */
} dz_companion_file;

#define DZ_READ_AHEAD ((uint64_t)2 << 20) /* bytes */

/* Read-ahead for a strided tensor that is read from front to back in pieces: its elements are far apart in the file, and a longer stretch
 * takes no more calls. */
typedef struct dz_read_ahead {
    uint8_t *bytes; /* DZ_READ_AHEAD of them; NULL until they are needed */
    size_t tensor;
    uint64_t first, len; /* the bytes of the tensor in the buffer */
    uint64_t next;       /* where the last read ended */
} dz_read_ahead;

/* A tensor of a file that is known by its parts: consecutive ones of `tensors`, whose bytes one after another are its own. */
typedef struct dz_fused {
    dz_tensor whole;
    size_t first, nparts;
} dz_fused;

typedef struct dz_checkpoint {
    char *path;
    dz_shard *shards;
    size_t nshards;
    dz_tensor *tensors; /* in the order of their bytes, shard after shard */
    size_t ntensors;
    uint32_t *by_name; /* tensor numbers sorted by name */
    uint32_t *same;    /* the first tensor known to have the same bytes, type and shape; itself, unless tied in a PyTorch file or found
                        * by dz_find_tied */
    dz_fused *fused;   /* in the order of their parts (split.c) */
    size_t nfused;
    dz_companion_file *companions; /* config, tokenizer and the like: kept in the archive */
    size_t ncompanions;
    dz_companion_file *skipped_files; /* files and folders that are not kept: reported, never silently skipped */
    size_t nskipped_files;
    dz_read_ahead read_ahead;
    char *lossy;  /* it says that it was restored from a lossy archive (checkpoint/mark.h): a line about that; where it was loaded. NULL: it
                     does not */
    dz_buf notes; /* lines about content of a PyTorch file beyond its tensors; only on the rank that loaded it */
    dz_buf warnings; /* lines that matter of a base too; likewise */
    int is_adapter;  /* LoRA and its like: not a model by itself */
} dz_checkpoint;

#define DZ_SIDE_MAX ((uint64_t)64 << 20) /* larger files are no side files */

dz_rc dz_checkpoint_load(const char *path, dz_checkpoint **out, dz_error *err);
void dz_checkpoint_free(dz_checkpoint *ck); /* accepts NULL */

/* Adds the file `path`, named `file` within the checkpoint, and reads its header. */
dz_rc dz_checkpoint_add_shard(dz_checkpoint *ck, const char *file, const char *path, dz_error *err);
void dz_side_files_free(dz_companion_file *list, size_t n);
void dz_shard_free(dz_shard *shard); /* what it holds */

/* Fills the tensors and their order by name from the shards' headers: the last step of building a checkpoint. */
dz_rc dz_checkpoint_parse(dz_checkpoint *ck, dz_error *err);

/* The same once more, when shards have been added since. */
dz_rc dz_checkpoint_parse_again(dz_checkpoint *ck, dz_error *err);

/* The order by name, and which tensors are one in a PyTorch file, after a change of the tensors. */
dz_rc dz_checkpoint_index(dz_checkpoint *ck, dz_error *err);

/* Appends to `splits` that tensor number `tensor` is to be known by parts; dz_checkpoint_split then does it for all that were added, in
 * ascending order. The parts' shapes are those of `parts`, their names too; their bytes fill the tensor. On all ranks alike. */
dz_rc dz_split_add(dz_buf *splits, size_t tensor, const dz_tensor *const *parts, size_t nparts, dz_error *err);
dz_rc dz_checkpoint_split(dz_checkpoint *ck, const dz_buf *splits, dz_error *err);

/* The same names, types and shapes, and the same bytes in a few places of a few tensors. What cannot be read looks different. */
int dz_checkpoint_looks_same(dz_checkpoint *a, dz_checkpoint *b);

/* For the other ranks (checkpoint_pack.c). */
dz_rc dz_checkpoint_pack(const dz_checkpoint *ck, dz_buf *out, dz_error *err);
dz_rc dz_checkpoint_unpack(const uint8_t *bytes, size_t len, dz_checkpoint **out, dz_error *err);

/* The tensor's number, or -1. */
int64_t dz_checkpoint_find(const dz_checkpoint *ck, const char *name);

/* Reads bytes [first, first + len) of a tensor. */
dz_rc dz_checkpoint_read(dz_checkpoint *ck, size_t tensor, uint64_t first, size_t len, void *dst, dz_error *err);

/* The same dtype, shape and size. */
int dz_same_kind(const dz_tensor *a, const dz_tensor *b);

uint64_t dz_checkpoint_nbytes(const dz_checkpoint *ck); /* of all tensors */

/* Bytes of memory that reading may take beside its destination: 0, or DZ_READ_AHEAD if a tensor is strided. */
uint64_t dz_checkpoint_memory(const dz_checkpoint *ck);

#endif

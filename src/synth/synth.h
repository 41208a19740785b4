/* A synthetic zoo: a base model and fine-tuned tasks with the true tensors of a known architecture, for tests and measurements.
 *
 * What is generated, from the seed alone (any rank can make any piece, and the files are the same for any number of ranks):
 *   base     matrices N(0, s), s in 0.014..0.028 by tensor; norm gains N(1, 0.1); biases N(0, 0.01)
 *   task     element type's rounding of (base as stored + delta), with a delta of, by the tensor's role:
 *            linear      Student's t, 4 to 8 degrees of freedom by block, 70 % of the variance, and a rank-8 part, 30 %;
 *                        scale 1e-4..2e-3, log-spread over blocks and tensors, a little over tasks.
 *                        With `gauss`: independent normal values of the same scale and nothing else, which is the hardest to code
 *                        With `df` that number of degrees of freedom in all blocks
 *            head, other Student's t, same scales, no rank-8 part
 *            norm, bias  Student's t of scale 1e-4..5e-4
 *            embedding   1 % of the rows as head; all other rows are exactly the base's
 * The scales are of the order that fine-tuning of such models gives. Nothing is tuned to the compressor (numeric/synth_delta.h).
 *
 * Within a file tensors lie in the order of their names, as the safetensors library writes tensors of one element type.
 *
 * On many ranks:  every rank dz_synth_layout_new; rank 0 dz_synth_prepare; wait for it; every rank dz_synth_fill; wait for all; rank 0
 * dz_synth_finish. There is no MPI here. A model's files end in .partial until then, and the manifest comes last: what looks complete is.
 */
#ifndef DZ_SYNTH_SYNTH_H
#define DZ_SYNTH_SYNTH_H

#include "base/dtype.h"
#include "base/mem.h"
#include "synth/shapes.h"

typedef struct dz_synth_options {
    const char *model; /* one of dz_shape_names() */
    int layers;        /* blocks; 0: all */
    int tasks;         /* 1..500 */
    dz_dtype dtype;    /* DZ_F32, DZ_F16 or DZ_BF16 */
    int gauss;         /* linear deltas: independent normal values */
    int df;            /* of all deltas but those, Student's t: 4..8, or 0: by block */
    uint64_t seed;
    const char *out_dir;
    uint64_t shard_bytes; /* largest file, bytes of tensors (a larger tensor gets its own); 0: one file */
    int force;            /* write into a directory that is not empty, over an earlier zoo */
    /* Called after each piece is written, with its bytes over all models; stops the work (DZ_EINTERRUPT) when it returns other than 0.
     * May be NULL. */
    int (*on_written)(void *arg, uint64_t nbytes);
    void *arg;
} dz_synth_options;

/* Location of a tensor, the same in every model of the zoo. */
typedef struct dz_synth_place {
    uint32_t tensor; /* in shapes.items */
    uint32_t shard;
    uint64_t offset; /* from the start of the file */
} dz_synth_place;

typedef struct dz_synth_shard {
    char *file;    /* "model.safetensors", "model-00001-of-00003.safetensors" */
    dz_buf header; /* first bytes of the file */
    uint64_t size;
} dz_synth_shard;

typedef struct dz_synth_layout {
    dz_shape_list shapes;
    dz_synth_place *places; /* shapes.count, in the order of the files */
    dz_synth_shard *shards;
    size_t nshards;
    uint64_t total_bytes; /* that all ranks together write in dz_synth_fill: tensors of base and tasks */
} dz_synth_layout;

/* Pure: touches no file. DZ_EUSAGE reports all invalid options with their values. The caller frees `*out`. */
dz_rc dz_synth_layout_new(const dz_synth_options *opt, dz_synth_layout **out, dz_error *err);
void dz_synth_layout_free(dz_synth_layout *layout); /* accepts NULL */

/* On one rank: the directories, files of full size with their headers, config.json, index. A directory that holds anything is refused
 * (DZ_EUSAGE) unless opt->force; then the manifest and model files of an earlier zoo in base and in the tasks written are removed first. */
dz_rc dz_synth_prepare(const dz_synth_options *opt, const dz_synth_layout *layout, dz_error *err);

/* On every rank, after dz_synth_prepare: writes this rank's pieces, of at most 4 MB per file, assigned in turn. About 13 MB of memory. */
dz_rc dz_synth_fill(const dz_synth_options *opt, const dz_synth_layout *layout, int rank, int nranks, dz_error *err);

/* On one rank, after all ranks have filled: renames the files and writes zoo.yaml. */
dz_rc dz_synth_finish(const dz_synth_options *opt, const dz_synth_layout *layout, dz_error *err);

/* After a failure, on one rank: removes what was made in a directory that was empty before or, if it did not exist, with it (nothing with
 * opt->force). */
void dz_synth_undo(const dz_synth_options *opt, int existed);

/* All of it in one process. */
dz_rc dz_synth(const dz_synth_options *opt, dz_error *err);

#endif

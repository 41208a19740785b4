/* Methods: how the delta of a lossy tensor is pruned, quantised and coded. Each is one file in compress/methods/ behind this interface and
 * one row in the registry (method.c). A method is pure: it sees numbers that are equal on all ranks, or one tile's elements. Formulas and
 * sources: src/METHODS.md. */
#ifndef DZ_COMPRESS_METHOD_H
#define DZ_COMPRESS_METHOD_H

#include "codec/channels.h"
#include "codec/lowrank.h"
#include "codec/trellis.h"
#include "compress/tensor_stats.h"
#include "numeric/allocate.h"
#include "numeric/noise.h"
#include "plan/plan.h"

/* How one lossy tensor is coded: what its row of the index will say. */
typedef struct dz_tensor_coding {
    uint8_t kind;    /* column `bits`: 1 to 8, DZ_BITS_VALUES, DZ_BITS_UNIFORM or DZ_BITS_TRELLIS (archive/catalog.h) */
    double sparsity; /* share of the elements, or coefficients, to be dropped */
    float lo, step;  /* grid of the levels, or quantiser of the coefficients */
    float scale;     /* a restored delta is gamma * scale * decoded value */
    double bytes;    /* expected of its coded blocks */
    dz_noise noise;  /* expected, without gamma; of what is coded */
    float kept;      /* of a chained tensor: share of the parent's noise that is left as it is (METHODS.md "Chains") */
    uint8_t shaped;  /* the noise is spread by input channels, or by rows, as the tensor's shape says */
    float factors;   /* shaped: the largest factor over the smallest */
} dz_tensor_coding;

#define DZ_ROW_CODE_BYTES 0.4 /* of the factor of a vocabulary's row, about: for forecasts */

/* How a matrix's noise is spread over its input channels (METHODS.md "Noise by input channels"), or a vocabulary's over its rows
 * ("Embeddings and heads of tokens"). */
typedef struct dz_shape {
    dz_channels channels;
    double spread;    /* noise over that without factors, at the same rate */
    double noise[3];  /* of a vocabulary: that with factors, times the energies of the delta d from the reference, of the product of d and
                       * the step from the parent's own tensor, and of the step. The last two are 0 unless it is chained */
    double share;     /* the same, each channel weighted by its activations; of a vocabulary: `spread` */
    double bytes;     /* that the factors take */
    float factors;    /* the largest over the smallest */
    double predicted; /* of a vocabulary whose rows have directions in common: energy of the noise of an element, with its factor. 0: its
                       * tiles are coded without predictions */
    double rate;      /* then: bits an element of its messages, which follow from that */
} dz_shape;

typedef struct dz_method_tensor {
    const dz_tensor_pair *pair;
    const dz_tensor *tensor;
    const dz_tensor_stats *stats;
    const dz_grid_levels *grid;
    dz_kind kind;              /* what the matrix does in its block */
    int gated;                 /* the MLPs of its model have gates */
    const dz_shape *shape;     /* NULL: none is known */
    double inputs;             /* terms that are added up to one output: its row length */
    const uint64_t *histogram; /* members of each level of the grid; NULL for methods without levels */
    dz_tensor_coding *coding;  /* out */
} dz_method_tensor;

/* The lossy tensors of one task. */
typedef struct dz_method_task {
    const dz_recipe *recipe;
    double level; /* what a target ratio tunes: the share of the elements to be kept, or for method auto bits an element */
    dz_method_tensor *tensors;
    size_t n;
} dz_method_task;

/* A tile to be coded by a method without levels. */
typedef struct dz_method_tile {
    dz_delta_fill fill; /* gives elements of the delta, from `source` */
    const void *source;
    float *delta; /* [count], may be overwritten; NULL where the method takes the delta from `fill` */
    size_t count;
    uint64_t key;
    const dz_tensor_coding *coding;
    const dz_channels *channels;  /* NULL: no factors; the delta has them already */
    const dz_lowrank *prediction; /* NULL or of rank 0: none; it is taken off the delta already */
    double noise;                 /* energy of an element's, the same in all blocks; 0: as the coding says */
    uint64_t first;               /* number of its first element in the tensor */
} dz_method_tile;

typedef struct dz_method {
    dz_method_id id;
    const char *name;
    int levels;      /* it quantises to levels: histogram and candidates are needed, and coding is done by codec/sparse_levels.h */
    int trace_norms; /* it is rescaled by gamma */
    int sizes;       /* it needs the statistics of sizes: the sum of |d|, and how many d are not 0 */
    int rotates;     /* it rotates tiles, whose elements may have factors by input channel */
    int rates;       /* a target ratio can be reached by changing the level */

    /* The level that a task starts from. */
    double (*first_level)(const dz_recipe *recipe);

    /* The grid of a tensor; `grid` comes as the uniform one over the range of the delta. NULL: none is needed. */
    void (*grid)(const dz_tensor_pair *pair, const dz_tensor_stats *stats, dz_grid_levels *grid);

    /* At most this share of a tensor will be kept at the level, by a guess: so far the candidates have to reach. Methods with levels. */
    double (*most_density)(const dz_recipe *recipe, const dz_tensor_pair *pair, double level);

    /* Fills the coding of each tensor. */
    dz_rc (*allocate)(const dz_method_task *task, dz_error *err);

    /* The level at which the variable part of a task's bytes is `change` times what it is at `level`. */
    double (*relevel)(double level, double change);

    /* Whether tiles coded in this way are taken from `fill`, and need no delta. NULL: never. */
    int (*takes_fill)(const dz_tensor_coding *coding);

    /* Appends the body of a tile; `*kept`: how many elements, or coefficients, it keeps. Methods without levels. */
    dz_rc (*encode)(dz_buf *body, const dz_method_tile *tile, uint64_t *kept, dz_error *err);
} dz_method;

const dz_method *dz_method_of(dz_method_id id);

/* 1 if a chained tensor takes fewer bits against its parent than against the base, at the noise that the recipe asks for. */
int dz_chain_is_better(const dz_method *method, const dz_recipe *recipe, const dz_tensor_stats *stats);

extern const dz_method DZ_ULTRADELTA, DZ_AUTO, DZ_DARE, DZ_MAGNITUDE, DZ_BITDELTA;

/* x with `bits` significant bits: a last bit that differs between C libraries does no harm then. */
/* Terms that are added up to one output of a pair's matrices: the row length. */
double dz_method_inputs(const dz_plan *plan, const dz_tensor_pair *pair);

double dz_significant(double x, int bits);

/* first_level and relevel of methods whose level is the share of the elements to be kept. */
double dz_method_density_level(const dz_recipe *recipe);
double dz_method_density_relevel(double level, double change);

#endif

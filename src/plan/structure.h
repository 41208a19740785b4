/* What each tensor is in its model, by shape, position and repetition; names only break ties. Pure: from names, types and shapes
 * alone.
 *
 * A *block* is a part of the model that is there several times: the children "0", "1", ... of one place in the names. The matrices of
 * blocks are a model's body. Embeddings, heads, norms, routers, tables and tiny depthwise kernels are not of the body, wherever they are.
 */
#ifndef DZ_PLAN_STRUCTURE_H
#define DZ_PLAN_STRUCTURE_H

#include "checkpoint/checkpoint.h"

/* Why a tensor is of the body, or not. */
typedef enum dz_place {
    DZ_PLACE_BODY,
    DZ_PLACE_VECTOR,    /* no matrix: fewer than two dimensions of more than 1, or no float type */
    DZ_PLACE_OUTSIDE,   /* a matrix of no repeated block */
    DZ_PLACE_EMBEDDING, /* of tokens, patches, time */
    DZ_PLACE_HEAD,
    DZ_PLACE_NORM,
    DZ_PLACE_ROUTER,
    DZ_PLACE_POSITION,
    DZ_PLACE_DEPTHWISE, /* a convolution of single channels with a small kernel */
    DZ_PLACE_TABLE,     /* a parameter that nothing is multiplied with as a matrix: biases of experts, tokens, scales */
    DZ_NPLACES
} dz_place;

/* What a matrix does in its block. `fused` q, k, v are attention_other, fused gate and up mlp_other. */
typedef enum dz_kind {
    DZ_KIND_OTHER,
    DZ_KIND_Q,
    DZ_KIND_K,
    DZ_KIND_V,
    DZ_KIND_O,
    DZ_KIND_ATTENTION_OTHER,
    DZ_KIND_GATE,
    DZ_KIND_UP,
    DZ_KIND_DOWN,
    DZ_KIND_MLP_OTHER,
    DZ_KIND_CONV,
    DZ_NKINDS
} dz_kind;

/* A tensor as `count` matrices of rows x cols, one after another, each row-major. count * rows * cols is the number of its elements. A
 * tensor that is no matrix is one row for each element. */
typedef struct dz_matrix_view {
    uint64_t count, rows, cols;
    int in_first; /* columns are outputs (Conv1D of GPT-2, experts of gpt-oss, kernels of flax); 0: rows are outputs */
} dz_matrix_view;

/* How many numbers are multiplied and added to one output: the length of its row of weights. */
static inline uint64_t dz_view_inputs(const dz_matrix_view *v) { return v->in_first ? v->rows : v->cols; }

/* The view of the first `elements` of a tensor, when they are fewer: whole rows of it, or whole matrices of a stack. */
dz_matrix_view dz_view_of_rows(const dz_matrix_view *view, uint64_t elements);

typedef struct dz_tensor_role {
    dz_place place;
    dz_kind kind;
    double depth;   /* number of its block / blocks of that place, in [0, 1); NaN outside of blocks */
    int vocabulary; /* an embedding of tokens, or the output head of the same shape: a row for each token */
    dz_matrix_view view;
} dz_tensor_role;

/* The roles of n tensors of one model; the caller frees. In O(n log n). */
dz_rc dz_roles_make(const dz_tensor *tensors, size_t n, dz_tensor_role **out, dz_error *err);

/* "embeddings", "heads", ... */
const char *dz_place_name(dz_place place);

/* "q", "attention-other", ... */
const char *dz_kind_name(dz_kind kind);

#endif

/* The tensors of well-known models: names, shapes and what each tensor is, without any values.
 *
 * Tensors are listed in the order of the model's state dict; every parameter that training changes is there, integer buffers (position ids)
 * and task heads are not. The totals are those the models are known by: 6 738 415 616 for llama2-7b.
 */
#ifndef DZ_SYNTH_SHAPES_H
#define DZ_SYNTH_SHAPES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum dz_role {
    DZ_ROLE_LINEAR,    /* matrix of a linear layer inside a transformer block, [out, in] */
    DZ_ROLE_EMBEDDING, /* table with a row per token */
    DZ_ROLE_NORM,      /* gain of a layer norm */
    DZ_ROLE_BIAS,      /* of a linear layer or a layer norm */
    DZ_ROLE_HEAD,      /* output projection of the whole model */
    DZ_ROLE_OTHER      /* positions, class tokens, patch convolution, T5's attention bias */
} dz_role;

typedef enum dz_family { DZ_FAMILY_LLAMA, DZ_FAMILY_CLIP, DZ_FAMILY_ROBERTA, DZ_FAMILY_T5, DZ_FAMILY_BEIT3 } dz_family;

/* The numbers a model is built from; 0 if the family lacks it. */
typedef struct dz_shape_spec {
    const char *name;
    dz_family family;
    int layers; /* blocks; of the encoder and of the decoder each */
    uint64_t heads, width, mlp, vocab, positions;
    uint64_t patch, out; /* pixels per side of a patch; width of the joint image and text space */
} dz_shape_spec;

#define DZ_SHAPE_NDIM 4

typedef struct dz_shape {
    char *name;
    dz_role role;
    int block; /* number of the transformer block (a decoder counts on after the encoder), -1 outside */
    uint32_t ndim;
    uint64_t shape[DZ_SHAPE_NDIM];
    uint64_t count; /* elements */
} dz_shape;

typedef struct dz_shape_list {
    const dz_shape_spec *spec;
    int layers; /* blocks really listed, of encoder and decoder each */
    dz_shape *items;
    size_t count, cap;
    uint64_t parameters;
} dz_shape_list;

/* The known names, ended by NULL. */
const char *const *dz_shape_names(void);

/* The model `model` with its first `layers` blocks (0: all). DZ_EUSAGE for an unknown name (the text lists the known ones) or more layers
 * than the model has. On success the caller frees the list with dz_shape_list_free. */
dz_rc dz_shape_build(const char *model, int layers, dz_shape_list *out, dz_error *err);
void dz_shape_list_free(dz_shape_list *list);

#endif

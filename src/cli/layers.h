/* Layers of a model by the names of its tensors: "model.layers.7" of "model.layers.7.self_attn.q_proj.weight". */
#ifndef DZ_CLI_LAYERS_H
#define DZ_CLI_LAYERS_H

#include <stddef.h>

#include "base/mem.h"

/* Length of the name up to its first part that is a number; 0 when it has no layer. */
size_t dz_layer_length(const char *name);

/* Where that number begins in the name of a layer. */
size_t dz_layer_number_at(const char *layer, size_t len);

/* Order of two layers: by name, those of one stack by number. As strcmp. */
int dz_layer_order(const char *a, size_t na, const char *b, size_t nb);

/* The layers of many tensors, in order. Names are borrowed. */
typedef struct dz_layer_list {
    const char **name; /* [n] names that begin with the layer's, which has `len` bytes */
    size_t *len;
    size_t n;
} dz_layer_list;

/* `where` [n]: the layer of each name, or SIZE_MAX. NULL names are in none. */
dz_rc dz_layer_list_make(const char *const *names, size_t n, dz_layer_list *out, size_t *where, dz_error *err);
void dz_layer_list_free(dz_layer_list *list);

#endif

/* Between structure.c (blocks and places), matrix_view.c and kind.c. */
#ifndef DZ_PLAN_ROLE_INTERNAL_H
#define DZ_PLAN_ROLE_INTERNAL_H

#include "plan/name_parts.h"
#include "plan/structure.h"

/* A tensor's name and the block that it is in. */
typedef struct dz_named {
    dz_parts_of_name name;
    size_t block;    /* the first part of its block: that which is repeated ("layers" of layers.7); SIZE_MAX: in no block */
    uint64_t family; /* the same for all tensors of the blocks of one place */
    int in_sequence; /* the block is a single layer: "layers.7.weight" */
} dz_named;

/* The last part is only what every layer calls its matrix: weight, kernel, w. */
int dz_leaf_is_weight(const dz_parts_of_name *name);

/* Number of the part that names the layer: "q_proj" of q_proj.weight, "gate_up_proj" of experts.gate_up_proj, "mlp" of mlp.0.weight. */
size_t dz_own_part(const dz_parts_of_name *name);

/* A word of a layer that multiplies: an embedding's or position's projection is a matrix like any other. */
int dz_part_projects(const dz_part *part);

/* The view by shape and name alone, rows being outputs; {0} when it is no matrix. */
dz_matrix_view dz_view_of_shape(const dz_tensor *tensor, const dz_parts_of_name *name);

/* Stacks and orientation, for all tensors of a model. `named` is [n]. */
dz_rc dz_orient_views(const dz_tensor *tensors, const dz_named *named, size_t n, dz_tensor_role *roles, dz_error *err);

dz_kind dz_kind_of(const dz_tensor *tensor, const dz_named *named, const dz_matrix_view *view);

#endif

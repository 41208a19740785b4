/* The matrices of one module: q, k, v of an attention; gate, up, down of an MLP. */
#ifndef DZ_PLAN_SIBLINGS_H
#define DZ_PLAN_SIBLINGS_H

#include "plan/plan.h"

typedef struct dz_sibling {
    uint64_t module; /* hash of the name up to the tensor's own part */
    dz_kind kind;
    size_t tensor; /* of the base */
} dz_sibling;

typedef struct dz_siblings {
    dz_sibling *of; /* [n] sorted */
    size_t n;
} dz_siblings;

/* Of the base's single matrices whose kind is known. */
dz_rc dz_siblings_make(const dz_plan *plan, dz_siblings *out, dz_error *err);
void dz_siblings_free(dz_siblings *siblings);

/* The only tensor of a kind in the module of tensor `tensor` of the base, or -1: there is none, or more than one. */
int64_t dz_sibling_of(const dz_siblings *siblings, const dz_plan *plan, size_t tensor, dz_kind kind);

#endif

/* Which tensor of the base a task's tensor is coded against. Pure: from names, types and shapes alone.
 *
 * The base's tensor of the same name; without one, the only one whose name is the same after the prefixes that trainers and wrappers put
 * before names (dz_match_prefixes) are taken off both; without one, for an output head, the base's token embedding: the head of a model
 * that was tied to it. The last two only where types and shapes can be compared.
 */
#ifndef DZ_PLAN_MATCH_H
#define DZ_PLAN_MATCH_H

#include "checkpoint/checkpoint.h"

typedef enum dz_match { DZ_MATCH_NONE, DZ_MATCH_NAME, DZ_MATCH_PREFIX, DZ_MATCH_HEAD } dz_match;

typedef struct dz_matcher {
    const dz_checkpoint *base;
    uint32_t *by_bare; /* the base's tensors sorted by bare name */
} dz_matcher;

dz_rc dz_matcher_init(dz_matcher *matcher, const dz_checkpoint *base, dz_error *err);
void dz_matcher_free(dz_matcher *matcher);

/* The number of the base's tensor, or -1. */
int64_t dz_matcher_find(const dz_matcher *matcher, const dz_tensor *task, dz_match *how);

/* The name without its leading prefixes: "module.model.norm.weight" is "norm.weight". Part of `name`. */
const char *dz_bare_name(const char *name);

/* A token embedding or an output head, by its bare name. */
int dz_is_vocabulary(const char *bare);

/* The prefixes, for people: "base_model., model., module., ...". */
extern const char DZ_MATCH_PREFIXES[];

const char *dz_match_name(dz_match how);

/* Elements of the task's tensor that lie over elements of the base's: all for the same shape, whole rows when only the first dimension
 * differs; 0 when types cannot be compared. */
uint64_t dz_common_elements(const dz_tensor *task, const dz_tensor *base);

/* The same type, or two types that can be widened to float. */
int dz_comparable(const dz_tensor *task, const dz_tensor *base);

#endif

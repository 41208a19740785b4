/* Which tensor of the base a task's tensor is coded against. Pure: from names, types and shapes alone.
 *
 * First, the base's tensor of the same name. Second, the only one with the same name after the prefixes of trainers and wrappers
 * (DZ_MATCH_PREFIXES) are removed from both. Third, for an output head, the base's token embedding, since the head may have been tied to
 * it. The second and third need comparable types and shapes.
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

/* 1 for a token embedding or an output head, by its bare name. */
int dz_is_vocabulary(const char *bare);

/* The prefixes, for people: "base_model., model., module., ...". */
extern const char DZ_MATCH_PREFIXES[];

const char *dz_match_name(dz_match how);

/* Elements that task and base share: all for the same shape, the common rows if only the first dimension differs, 0 if types cannot be
 * compared. */
uint64_t dz_common_elements(const dz_tensor *task, const dz_tensor *base);

/* The same type, or two types that can be widened to float. */
int dz_comparable(const dz_tensor *task, const dz_tensor *base);

#endif

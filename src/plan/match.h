/* Which tensor of the base a task's tensor is coded against. Pure: from names, types and shapes alone.
 *
 * The base's tensor of the same name. For what has none, names are compared in a plain form (without what wrappers put into them, norms'
 * gamma and beta as weight and bias), and the pairs of prefixes are found under which most names and shapes agree: "vit." of the task for
 * nothing, "model." for "model.language_model.". For an output head that is still left: the base's token embedding, the head of a tied
 * model.
 */
#ifndef DZ_PLAN_MATCH_H
#define DZ_PLAN_MATCH_H

#include "plan/structure.h"

typedef enum dz_match { DZ_MATCH_NONE, DZ_MATCH_NAME, DZ_MATCH_PREFIX, DZ_MATCH_HEAD } dz_match;

/* The base, ready to be asked for many tasks. */
typedef struct dz_matcher dz_matcher;

/* `roles`: of the base's tensors. Base and roles are borrowed. */
dz_rc dz_matcher_make(const dz_checkpoint *base, const dz_tensor_role *roles, dz_matcher **out, dz_error *err);
void dz_matcher_free(dz_matcher *matcher); /* accepts NULL */

/* Matches all tensors of a task: base_of[i] is the number of the base's tensor or -1, how[i] how it was found; both are [ntensors]. */
dz_rc dz_matcher_task(dz_matcher *matcher, const dz_checkpoint *task, int64_t *base_of, dz_match *how, dz_error *err);

/* The name without the leading prefixes that wrappers often put there: "module.model.norm.weight" is "norm.weight". Part of `name`. */
const char *dz_bare_name(const char *name);

/* 1 for a token embedding or an output head, by its bare name. */
int dz_is_vocabulary(const char *bare);

/* The name as it is compared: without the parts that wrappers put in (_orig_mod, base_layer, modules_to_save.default, a leading module),
 * gamma and beta of vectors as weight and bias, weight norm's parametrizations as weight_g and weight_v. */
#define DZ_PLAIN_NAME 512
const char *dz_plain_name(const dz_tensor *tensor, char text[DZ_PLAIN_NAME]);

const char *dz_match_name(dz_match how);

/* Elements that task and base share: all for the same shape, the common rows if only the first dimension differs, 0 if types cannot be
 * compared. */
uint64_t dz_common_elements(const dz_tensor *task, const dz_tensor *base);

/* The same type, or two types that can be widened to float. */
int dz_comparable(const dz_tensor *task, const dz_tensor *base);

#endif

/* Which tensor of which task meets which base tensor, under which rule of the recipe. */
#ifndef DZ_PLAN_PAIRS_H
#define DZ_PLAN_PAIRS_H

#include "plan/plan.h"

/* Fills `pairs`, `lossy` and what counts them, and the notes. All faults in one error, a line each: shapes and types that do not fit a rule
 * (DZ_EFAIL), a task of which nothing could be lossy (DZ_EUSAGE, or with `unmatched`, [tasks], marked there and noted). */
dz_rc dz_plan_pairs(dz_plan *plan, const char *const *names, const dz_recipe *recipe, uint8_t *unmatched, dz_error *err);

#endif

/* Which tensor of which task meets which base tensor, under which rule of the recipe. */
#ifndef DZ_PLAN_PAIRS_H
#define DZ_PLAN_PAIRS_H

#include "plan/plan.h"

/* Fills `pairs`, `lossy`, their counts and the notes. All problems are one error, a line each: shapes and types that do not fit a rule
 * (DZ_EFAIL), a lossy rule that matches nothing (DZ_EUSAGE). */
dz_rc dz_plan_pairs(dz_plan *plan, const char *const *names, const dz_recipe *recipe, dz_error *err);

#endif

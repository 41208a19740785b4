/* The plan of a zoo whose tasks may be left out. */
#ifndef DZ_PLAN_ZOO_PLAN_H
#define DZ_PLAN_ZOO_PLAN_H

#include "config/zoo.h"
#include "plan/plan.h"

/* dz_plan_make of all tasks. `skip_unmatched`: tasks that cannot be matched are taken out of the zoo and named in the plan's notes, instead
 * of being a fault; DZ_EUSAGE when none is left. */
dz_rc dz_zoo_plan(dz_zoo *zoo, int nranks, int skip_unmatched, dz_plan **out, dz_error *err);

#endif

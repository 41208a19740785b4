/* `parent: auto`: of the other tasks of a job, the one whose weights are nearest. */
#ifndef DZ_COMPRESS_AUTO_PARENT_H
#define DZ_COMPRESS_AUTO_PARENT_H

#include "config/zoo.h"

#define DZ_PARENT_AUTO "auto"
#define DZ_AUTO_WORTH 0.8 /* of the energy of the delta from the base: a parent's has to be less */

/* Collective. `parent`: [tasks of the manifest] names, or NULL, or DZ_PARENT_AUTO, which becomes a name or NULL. From a sample of the
 * matrices on rank 0: a tree that grows from the base, and takes in the task next that is nearest to it. So no task is its own ancestor. */
dz_rc dz_auto_parents(const dz_world *world, const dz_zoo *zoo, char **parent, dz_error *err);

#endif

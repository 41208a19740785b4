/* Long work of rank 0 alone: the others wait asleep, and what it starts may use the processors of all ranks of its host. */
#ifndef DZ_PARALLEL_SPREAD_H
#define DZ_PARALLEL_SPREAD_H

#include "parallel/world.h"

/* Collective. Returns when every rank has called it. Waiting takes no processor, unlike in MPI's own calls. */
void dz_wait_asleep(const dz_world *world);

typedef struct dz_processors dz_processors;

/* Collective. The processors that the ranks of rank 0's host are bound to, together; on rank 0, which frees them (free), else NULL. */
dz_processors *dz_processors_of_host(const dz_world *world);

/* Binds this process to them; NULL: as it is. */
void dz_processors_use(const dz_processors *processors);

/* "NAME=VALUE" is a variable of mpirun, or of srun's PMI: with it a program takes itself for one of several processes. */
int dz_is_of_launcher(const char *variable);

#endif

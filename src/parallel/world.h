/* MPI, as this program uses it: one communicator, agreement on failure before every collective step, reductions of 64-bit counts in one
 * checked place. A process that no launcher started is a world of one rank and does without MPI: no daemon beside it, nothing to go wrong.
 * MPI's own errors end the job (MPI_ERRORS_ARE_FATAL). */
#ifndef DZ_PARALLEL_WORLD_H
#define DZ_PARALLEL_WORLD_H

#include <mpi.h>

#include "base/mem.h"

typedef struct dz_world {
    MPI_Comm comm;     /* for the work */
    MPI_Comm progress; /* for progress messages, so that they never meet the work's */
    int rank, size;
} dz_world;

/* Starts MPI (settings that make Open MPI safe here are put into its environment first). Where srun has started several tasks that MPI does
 * not bring together, the process ends with exit code 2. */
void dz_world_begin(dz_world *world, int *argc, char ***argv);

/* Collective: every rank gets here, whatever happened. Ends MPI. All has been done and told, and `code` is the exit code: should
 * MPI_Finalize crash or hang, as Open MPI 4's does about once in some thousand runs (open-mpi/ompi issue 10117), the process leaves with
 * it. */
void dz_world_end(dz_world *world, int code);

/* Collective. The one agreement primitive: every rank hands in its result; if any failed, all return the code and the text of the lowest
 * failing rank. Call it before each collective step, with no return in between. */
dz_rc dz_sync_error(const dz_world *world, dz_rc rc, dz_error *err);

/* Collective. `len` bytes of each rank, in the order of the ranks, on rank 0 (`all` has room for size * len there). */
void dz_gather(const dz_world *world, const void *mine, size_t len, void *all);

/* Collective. Rank 0's bytes on every rank: `buf` is filled on the others. */
dz_rc dz_bcast_buf(const dz_world *world, dz_buf *buf, dz_error *err);

/* Collective. In place, element by element, over all ranks. */
void dz_sum_u64(const dz_world *world, uint64_t *values, size_t count);
void dz_sum_f64(const dz_world *world, double *values,
                size_t count); /* at most one rank has a nonzero in a place, or order does not matter */
void dz_min_i64(const dz_world *world, int64_t *values, size_t count);
void dz_max_i32(const dz_world *world, int32_t *values, size_t count);
void dz_max_f64(const dz_world *world, double *values, size_t count);

/* Collective. Sum over the lower ranks, in place (rank 0: zeros). */
void dz_exscan_u64(const dz_world *world, uint64_t *values, size_t count);

/* Collective. Broadcast of plain numbers from rank 0. */
void dz_bcast_f64(const dz_world *world, double *values, size_t count);
void dz_bcast_u64(const dz_world *world, uint64_t *values, size_t count);

#endif

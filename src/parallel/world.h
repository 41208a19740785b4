/* MPI, as this program uses it: one communicator, agreement on failure before every collective step, reductions of 64-bit counts. A
 * process without a launcher is a world of one rank and does not start MPI. MPI's own errors end the job (MPI_ERRORS_ARE_FATAL). */
#ifndef DZ_PARALLEL_WORLD_H
#define DZ_PARALLEL_WORLD_H

#include <mpi.h>

#include "base/mem.h"

typedef struct dz_world {
    MPI_Comm comm;     /* for the work */
    MPI_Comm progress; /* for progress messages, which must not match the work's */
    int rank, size;
} dz_world;

/* Starts MPI, after setting Open MPI's environment for this program. If srun has started several tasks that MPI does not connect, the
 * process ends with exit code 2. */
void dz_world_begin(dz_world *world, int *argc, char ***argv);

/* Collective: every rank calls it, even after a failure. Ends MPI. All work is done and reported, and `code` is the exit code. If
 * MPI_Finalize crashes or hangs, as Open MPI 4's does about once in several thousand runs (open-mpi/ompi issue 10117), the process still
 * exits with it. */
void dz_world_end(dz_world *world, int code);

/* Collective. The agreement primitive: every rank passes its result. If any failed, all return the code and text of the lowest failing
 * rank. Call it before each collective step, with no return in between. */
dz_rc dz_sync_error(const dz_world *world, dz_rc rc, dz_error *err);

/* Collective. Gathers `len` bytes of each rank on rank 0, in the order of ranks. There `all` has size * len bytes. */
void dz_gather(const dz_world *world, const void *mine, size_t len, void *all);

/* Collective. Broadcasts rank 0's bytes: fills `buf` on the other ranks. */
dz_rc dz_bcast_buf(const dz_world *world, dz_buf *buf, dz_error *err);

/* Collective. Reductions over all ranks, element by element, in place. */
void dz_sum_u64(const dz_world *world, uint64_t *values, size_t count);
void dz_sum_f64(const dz_world *world, double *values, size_t count); /* the order is not fixed: exact only if one rank has a nonzero */
void dz_min_i64(const dz_world *world, int64_t *values, size_t count);
void dz_max_i32(const dz_world *world, int32_t *values, size_t count);
void dz_max_f64(const dz_world *world, double *values, size_t count);

/* Collective. Exclusive prefix sum over the ranks, in place (rank 0: zeros). */
void dz_exscan_u64(const dz_world *world, uint64_t *values, size_t count);

/* Collective. Broadcasts numbers from rank 0. */
void dz_bcast_f64(const dz_world *world, double *values, size_t count);
void dz_bcast_u64(const dz_world *world, uint64_t *values, size_t count);

/* Version of the MPI library in use. */
void dz_mpi_version(char *text, size_t size);

#endif

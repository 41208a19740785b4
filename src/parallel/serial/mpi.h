/* Stands in for MPI's header in a build without MPI (make SERIAL=1): a world of one rank, in which none of these functions is ever called
 * (parallel/world.h). For reading archives on machines without MPI. */
#ifndef DZ_PARALLEL_SERIAL_MPI_H
#define DZ_PARALLEL_SERIAL_MPI_H

#include <stdlib.h>

typedef int MPI_Comm, MPI_Datatype, MPI_Op, MPI_Request, MPI_Info, MPI_File;
typedef long long MPI_Offset;
typedef struct MPI_Status {
    int MPI_SOURCE;
} MPI_Status;

#define MPI_SUCCESS 0
#define MPI_COMM_NULL 0
#define MPI_COMM_WORLD 0
#define MPI_COMM_SELF 0
#define MPI_REQUEST_NULL 0
#define MPI_FILE_NULL 0
#define MPI_ANY_SOURCE (-1)
#define MPI_IN_PLACE ((void *)1)
#define MPI_STATUS_IGNORE ((MPI_Status *)0)
#define MPI_MAX_ERROR_STRING 256
#define MPI_MAX_INFO_KEY 256
#define MPI_MAX_INFO_VAL 1024
#define MPI_MODE_RDWR 8
#define MPI_MODE_CREATE 1
enum { MPI_BYTE, MPI_INT, MPI_DOUBLE, MPI_INT32_T, MPI_INT64_T, MPI_UINT64_T };
enum { MPI_SUM, MPI_MIN, MPI_MAX };

static inline int dz_no_mpi(int first, ...) {
    (void)first;
    abort();
}

#define MPI_Abort(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Allgather(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Allreduce(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Barrier(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Bcast(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Comm_dup(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Comm_free(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Comm_rank(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Comm_size(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Error_string(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Exscan(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_File_close(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_File_open(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_File_sync(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_File_write_at_all(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Finalize() dz_no_mpi(0)
#define MPI_Gather(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Gatherv(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Ibarrier(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Info_create(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Info_free(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Info_set(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Init(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Iprobe(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Isend(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Recv(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Send(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Test(...) dz_no_mpi(0, __VA_ARGS__)
#define MPI_Wait(...) dz_no_mpi(0, __VA_ARGS__)

#endif

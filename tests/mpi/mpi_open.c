/* For LD_PRELOAD: tells how files are opened by MPI-IO, a line each on stderr: whether the file is made, and its stripes. */
#include <mpi.h>
#include <stdio.h>

int MPI_File_open(MPI_Comm comm, const char *path, int mode, MPI_Info info, MPI_File *file) {
    char factor[64] = "-";
    int found = 0;
    if (info != MPI_INFO_NULL) MPI_Info_get(info, "striping_factor", sizeof factor - 1, factor, &found);
    fprintf(stderr, "%s by MPI-IO, stripes %s\n", mode & MPI_MODE_CREATE ? "made" : "opened", factor);
    return PMPI_File_open(comm, path, mode, info, file);
}

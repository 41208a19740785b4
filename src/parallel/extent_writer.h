/* Writing one file from all ranks: each rank puts byte ranges, which reach the file by its own pwrite or by MPI-IO's collective writes, and
 * reads back what it has put. The file exists and has its full length before. */
#ifndef DZ_PARALLEL_EXTENT_WRITER_H
#define DZ_PARALLEL_EXTENT_WRITER_H

#include "parallel/progress.h"

/* A byte range of the file that one rank writes. */
typedef struct dz_extent {
    uint64_t offset; /* in the file */
    size_t len;
    uint32_t checksum; /* of what was put, compared by dz_extent_read_back */
} dz_extent;

/* How payload bytes reach the file. Both ways make the same file and read it back. A single rank always uses POSIX. */
typedef enum dz_io {
    DZ_IO_POSIX,     /* each rank writes its ranges by itself: pwrite and fsync */
    DZ_IO_COLLECTIVE /* MPI-IO's collective writes, for file systems where its aggregators are faster */
} dz_io;

static inline int dz_io_by_mpi(dz_io io, const dz_world *world) { return io == DZ_IO_COLLECTIVE && world->size > 1; }

/* Checks hints for MPI-IO, each KEY=VALUE. DZ_EUSAGE has a line for each malformed one. */
dz_rc dz_io_check_hints(const char *const *hints, size_t n, dz_error *err);

/* Rank 0: creates the empty file before the layout, with the hints: a file's stripes are fixed when it is created. */
dz_rc dz_io_make_striped(const char *path, const char *const *hints, size_t nhints, dz_error *err);

typedef struct dz_extent_writer {
    char *path;
    int fd;
    const dz_world *world;
    MPI_File file; /* MPI_FILE_NULL: POSIX */
    dz_extent *extents;
    size_t n, cap;
    dz_buf pending; /* ranges that follow each other are written together */
    uint64_t pending_offset, unsynced;
    dz_progress *progress; /* NULL, or the current phase: gets the bytes of each piece, and may ask to stop */
} dz_extent_writer;

/* Collective. `open` opens the laid-out file, `put` adds a range, `finish` writes and syncs, `read_back` compares checksums of this rank's
 * ranges with the file. All ranks call `finish`, even after an error: under DZ_IO_COLLECTIVE the others wait for them. `hints` are
 * MPI-IO's, KEY=VALUE each. DZ_EFAIL names the file and the cause. */
dz_rc dz_extent_open(dz_extent_writer *w, const dz_world *world, const char *path, dz_io io, const char *const *hints, size_t nhints,
                     dz_error *err);
dz_rc dz_extent_put(dz_extent_writer *w, uint64_t offset, const void *bytes, size_t len, dz_error *err);
dz_rc dz_extent_finish(dz_extent_writer *w, dz_error *err);
dz_rc dz_extent_read_back(dz_extent_writer *w, dz_error *err);
void dz_extent_close(dz_extent_writer *w); /* collective under DZ_IO_COLLECTIVE; accepts one that was never opened */

#endif

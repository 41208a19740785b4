/* Writing an archive, by the only pattern that lost nothing when disks filled and ranks died (results/): the whole layout first, into
 * NAME.partial; then every rank writes its byte ranges with its own pwrite, syncs, and reads them back; then a rename. */
#ifndef DZ_ARCHIVE_WRITER_H
#define DZ_ARCHIVE_WRITER_H

#include "archive/catalog.h"
#include "parallel/progress.h"

/* Lays the file out: all tables and attributes written, one contiguous `payload` dataset of payload_len bytes a task, space allocated.
 * Fills payload_offset of each task and file_size. One process calls it (rank 0). */
dz_rc dz_archive_layout(const char *path, dz_catalog *catalog, dz_error *err);

/* A byte range of the file that one rank writes. */
typedef struct dz_extent {
    uint64_t offset; /* in the file */
    size_t len;
    uint32_t checksum; /* filled by dz_extents_write, compared by dz_extents_check */
} dz_extent;

/* How payload bytes reach the file. Both ways make the same file and read it back. */
typedef enum dz_io {
    DZ_IO_POSIX,     /* each rank writes its ranges by itself: pwrite and fsync */
    DZ_IO_COLLECTIVE /* MPI-IO's collective writes, for file systems on which its aggregators do better */
} dz_io;

/* One rank writes by itself in any case. */
static inline int dz_io_by_mpi(dz_io io, const dz_world *world) { return io == DZ_IO_COLLECTIVE && world->size > 1; }

/* Hints for MPI-IO: KEY=VALUE each. DZ_EUSAGE has a line for each that is not. */
dz_rc dz_io_check_hints(const char *const *hints, size_t n, dz_error *err);

/* Rank 0: makes the empty file before it is laid out. A file's stripes are fixed when it is made, so that hints about them must be there.
 */
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
    dz_progress *progress; /* NULL, or the phase that is under way: told of each piece, and asked whether to go on */
} dz_extent_writer;

/* Collective. Opens the laid-out file; put ranges; finish syncs; then each rank reads back what it has put (checksums must match). All
 * ranks call finish, also after a fault of theirs: under DZ_IO_COLLECTIVE the others wait for them. `hints`: MPI-IO's, KEY=VALUE each. */
dz_rc dz_extent_open(dz_extent_writer *w, const dz_world *world, const char *path, dz_io io, const char *const *hints, size_t nhints,
                     dz_error *err);
dz_rc dz_extent_put(dz_extent_writer *w, uint64_t offset, const void *bytes, size_t len, dz_error *err);
dz_rc dz_extent_finish(dz_extent_writer *w, dz_error *err);
dz_rc dz_extent_read_back(dz_extent_writer *w, dz_error *err);
void dz_extent_close(dz_extent_writer *w); /* collective under DZ_IO_COLLECTIVE; accepts one that was never opened */

/* Syncs `partial`, renames it to `path`, syncs the directory. One process calls it. */
dz_rc dz_archive_publish(const char *partial, const char *path, dz_error *err);

#endif

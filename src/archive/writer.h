/* Writing an archive: first the whole layout, into NAME.partial; then every rank writes its byte ranges with pwrite, syncs them and reads
 * them back; then a rename. This pattern lost nothing when disks filled and ranks died (results/reliability.md). */
#ifndef DZ_ARCHIVE_WRITER_H
#define DZ_ARCHIVE_WRITER_H

#include "archive/catalog.h"
#include "parallel/progress.h"

/* Lays out the file: writes all tables and attributes, and allocates a contiguous `payload` dataset of payload_len bytes for each task.
 * Fills payload_offset of each task and file_size. One process calls it (rank 0). */
dz_rc dz_archive_layout(const char *path, dz_catalog *catalog, dz_error *err);

/* A byte range of the file that one rank writes. */
typedef struct dz_extent {
    uint64_t offset; /* in the file */
    size_t len;
    uint32_t checksum; /* filled by dz_extents_write, compared by dz_extents_check */
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

/* Syncs `partial`, renames it to `path`, syncs the directory. One process calls it. */
dz_rc dz_archive_publish(const char *partial, const char *path, dz_error *err);

#endif

/* Files: whole reads and writes at an offset, with the path and errno in the error; sizes as people write them. */
#ifndef DZ_BASE_FILE_H
#define DZ_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/error.h"

/* The system's calls, where faults can be put on purpose (base/fault.h). Close-on-exec; a file that is made has mode 0666. */
int dz_open(const char *path, int flags);
int dz_fsync(int fd);
int dz_rename(const char *from, const char *to);

/* Reads exactly `len` bytes at `offset`; a shorter file is an error. `path` is for the message. */
dz_rc dz_pread_all(int fd, const char *path, void *dst, size_t len, uint64_t offset, dz_error *err);
dz_rc dz_pwrite_all(int fd, const char *path, const void *src, size_t len, uint64_t offset, dz_error *err);

/* Counts what moves in this process: every read and write above, and what dz_heartbeat is called for. For the watchdog. */
uint64_t dz_heartbeat_count(void);
void dz_heartbeat(void);

uint64_t dz_bytes_written(void); /* by dz_pwrite_all in this process */

/* When the file was last written, in nanoseconds since 1970. */
static inline int64_t dz_mtime_ns(const struct stat *st) { return (int64_t)st->st_mtim.tv_sec * 1000000000 + (int64_t)st->st_mtim.tv_nsec; }

/* fsync of the directory that holds `path`, so that a create, rename or unlink in it is durable. */
dz_rc dz_fsync_parent(const char *path, dz_error *err);

/* A whole small file, NUL-terminated. Refused above `max` bytes. The caller frees `*out`. */
dz_rc dz_read_file(const char *path, size_t max, char **out, size_t *len, dz_error *err);

/* Makes a file that is not there yet, its space reserved, that begins with `head`; and the directories above it. */
dz_rc dz_make_file(const char *path, const void *head, size_t len, uint64_t size, dz_error *err);

/* Makes a directory and its parents. One that exists is fine. */
dz_rc dz_make_dirs(const char *path, dz_error *err);

/* Removes a directory that this program made, with everything in it; links are not followed. What cannot be removed stays. */
void dz_remove_tree(const char *path);

/* `name` against the directory that holds `file` ("a/zoo.yaml", "base" -> "a/base"); absolute names stay. The caller frees. */
char *dz_path_beside(const char *file, const char *name, dz_error *err);

/* The name of a file without its folders. */
const char *dz_path_last(const char *path);

/* The same file by both names, or, where there is none yet, the same place. */
int dz_same_file(const char *x, const char *y);

/* A relative path that stays inside its directory: no leading '/', no "..", no empty or hidden-control part. For names read from files. */
int dz_path_is_inside(const char *name);

/* A task's name becomes an HDF5 group and a directory: letters, digits and . _ + - only, at most 128, not starting with a dot. */
int dz_task_name_ok(const char *name);

/* "512M", "2G", "1.5K", "4096": powers of 1024. DZ_EUSAGE when it is not a size. */
dz_rc dz_parse_size(const char *text, uint64_t *nbytes, dz_error *err);

/* Decimal digits and nothing else, up to `most`: 1, else 0. */
int dz_parse_whole(const char *text, uint64_t most, uint64_t *value);

/* "1.23 GB" style, decimal units as disks are sold. Returns `text`. */
char *dz_format_size(double nbytes, char text[32]);

#endif

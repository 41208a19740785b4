#include "base/overwrite.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define LOOK ((size_t)64 << 10) /* bytes looked at */
#define BLOCKS_MAX 64           /* of an HDF5 object header */

static int has(const uint8_t *bytes, size_t len, const char *text) { return memmem(bytes, len, text, strlen(text)) != NULL; }

static size_t look(int fd, uint64_t at, uint8_t *bytes, size_t len) {
    ssize_t got = pread(fd, bytes, len, (off_t)at);
    return got > 0 ? (size_t)got : 0;
}

static uint64_t number(const uint8_t *at, unsigned nbytes) {
    uint64_t x = 0;
    for (unsigned i = 0; i < nbytes; i++) x |= (uint64_t)at[i] << (8 * i);
    return x;
}

/* By the attribute `format` of an HDF5 file's root group. Its messages are looked for as bytes, block after block of the root's header, so
 * that damage elsewhere, further attributes and other versions of the format do not matter. */
static dz_target hdf5_kind(int fd, const uint8_t *head, size_t len) {
    if (len < 96) return DZ_TARGET_FILE;
    int old = head[8] < 2; /* h5repack's default */
    uint64_t todo[BLOCKS_MAX] = {old ? number(head + (head[8] == 1 ? 68 : 64), 8) : number(head + 36, 8)};
    uint8_t *bytes = malloc(LOOK);
    dz_target kind = DZ_TARGET_FILE;
    for (int i = 0, n = 1; bytes && i < n && kind == DZ_TARGET_FILE; i++) {
        size_t got = look(fd, todo[i], bytes, LOOK);
        const uint8_t *format = memmem(bytes, got, "format\0", 7);
        for (; format && kind == DZ_TARGET_FILE; format = memmem(format + 1, got - (size_t)(format + 1 - bytes), "format\0", 7)) {
            size_t rest = got - (size_t)(format - bytes), most = rest < 80 ? rest : 80; /* type, space and value follow the name */
            if (has(format, most, DZ_HDF5_VECTOR))
                kind = DZ_TARGET_VECTOR;
            else if (has(format, most, "deltazoo"))
                kind = DZ_TARGET_ARCHIVE;
        }
        for (size_t at = 0; at + 24 <= got && n < BLOCKS_MAX && kind == DZ_TARGET_FILE; at++) { /* messages that lead to a further block */
            int leads = old ? bytes[at] == 0x10 && bytes[at + 1] == 0 && number(bytes + at + 2, 2) == 16
                            : bytes[at] == 0x10 && number(bytes + at + 1, 2) == 16;
            uint64_t to = leads ? number(bytes + at + (old ? 8 : 4), 8) : 0, to_order = leads && !old ? number(bytes + at + 6, 8) : 0;
            struct stat st;
            if (!leads || fstat(fd, &st) != 0) continue;
            if (to > 0 && to < (uint64_t)st.st_size) todo[n++] = to;
            if (n < BLOCKS_MAX && to_order > 0 && to_order < (uint64_t)st.st_size) todo[n++] = to_order;
        }
    }
    free(bytes);
    return kind;
}

/* The metadata come first in what we write. */
static dz_target safetensors_kind(const uint8_t *head, size_t len) {
    if (has(head, len, "\"" DZ_MARK_KEY "\":\"{\\\"kind\\\":\\\"" DZ_MARK_VECTOR)) return DZ_TARGET_VECTOR;
    return has(head, len, "\"" DZ_MARK_KEY "\":\"{\\\"kind\\\":\\\"" DZ_MARK_RESTORED) ? DZ_TARGET_MODEL : DZ_TARGET_FILE;
}

static dz_target file_kind(int fd, uint64_t size) {
    static const uint8_t hdf5[] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'}, png[] = {0x89, 'P', 'N', 'G'};
    uint8_t *head = malloc(LOOK + 1);
    size_t len = head ? look(fd, 0, head, LOOK) : 0;
    dz_target kind = DZ_TARGET_FILE;
    if (size == 0) {
        kind = DZ_TARGET_EMPTY;
    } else if (len >= sizeof hdf5 && memcmp(head, hdf5, sizeof hdf5) == 0) {
        kind = hdf5_kind(fd, head, len);
    } else if (len >= sizeof DZ_LIST_HEAD - 1 && memcmp(head, DZ_LIST_HEAD, sizeof DZ_LIST_HEAD - 1) == 0) {
        kind = DZ_TARGET_LIST;
    } else if (len >= 16 && head[8] == '{') {
        kind = safetensors_kind(head, len);
    } else if (len >= sizeof png && (memcmp(head, png, sizeof png) == 0 || memcmp(head, "<svg", 4) == 0)) {
        kind = has(head, len < 4096 ? len : 4096, DZ_PLOT_MARK) ? DZ_TARGET_PLOT : DZ_TARGET_FILE;
    } else if (len >= 2 && memcmp(head, "{\n", 2) == 0) { /* its job comes last, at the end of a long file */
        kind = has(head, len, "\n  \"job\": {\n    \"version\": \"") ? DZ_TARGET_REPORT : DZ_TARGET_FILE;
        for (uint64_t at = LOOK / 2; kind == DZ_TARGET_FILE && at < size; at += LOOK / 2) {
            len = look(fd, at, head, LOOK);
            if (has(head, len, "\n  \"job\": {\n    \"version\": \"")) kind = DZ_TARGET_REPORT;
        }
    }
    free(head);
    return kind;
}

static dz_target folder_kind(const char *path) {
    DIR *dir = opendir(path);
    int entries = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) entries += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (dir) closedir(dir);
    return dir && entries == 0 ? DZ_TARGET_EMPTY : DZ_TARGET_FOLDER;
}

dz_target dz_target_of(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return errno == ENOENT || errno == ENOTDIR ? DZ_TARGET_NONE : DZ_TARGET_FILE;
    if (S_ISDIR(st.st_mode)) return folder_kind(path);
    if (!S_ISREG(st.st_mode)) return DZ_TARGET_SPECIAL;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return DZ_TARGET_FILE;
    dz_target kind = file_kind(fd, (uint64_t)st.st_size);
    close(fd);
    return kind;
}

static const char *name_of(dz_target kind) {
    static const char *const names[] = {[DZ_TARGET_NONE] = "nothing",
                                        [DZ_TARGET_EMPTY] = "an empty file",
                                        [DZ_TARGET_ARCHIVE] = "a deltazoo archive",
                                        [DZ_TARGET_VECTOR] = "a task vector of deltazoo export",
                                        [DZ_TARGET_MODEL] = "a model of deltazoo restore",
                                        [DZ_TARGET_REPORT] = "a report of deltazoo compress",
                                        [DZ_TARGET_PLOT] = "a plot of deltazoo",
                                        [DZ_TARGET_LIST] = "a list of deltazoo scan",
                                        [DZ_TARGET_FILE] = "a file that deltazoo did not make",
                                        [DZ_TARGET_FOLDER] = "a folder",
                                        [DZ_TARGET_SPECIAL] = "a device, pipe or socket"};
    return names[kind];
}

static dz_rc check_folder(const char *path, dz_error *err) {
    char *dir = dz_path_beside(path, ".", err);
    struct stat st;
    if (!dir) return err->rc;
    if (stat(dir, &st) != 0)
        dz_fail(err, DZ_EUSAGE, "%s: no such directory: %.*s", path, (int)(strlen(dir) - 2 > 0 ? strlen(dir) - 2 : 1), dir);
    else if (!S_ISDIR(st.st_mode))
        dz_fail(err, DZ_EUSAGE, "%s: %.*s is not a directory", path, (int)(strlen(dir) - 2 > 0 ? strlen(dir) - 2 : 1), dir);
    else if (access(dir, W_OK | X_OK) != 0)
        dz_fail(err, DZ_EUSAGE, "%s: its directory cannot be written to", path);
    free(dir);
    return err->rc;
}

dz_rc dz_overwrite_check(const char *path, dz_target own, int force, dz_error *err) {
    dz_target kind = dz_target_of(path);
    struct stat st;
    int free_to_go = force || own == DZ_TARGET_REPORT || own == DZ_TARGET_PLOT;
    if (kind == DZ_TARGET_NONE) return check_folder(path, err);
    if (kind == DZ_TARGET_FOLDER || kind == DZ_TARGET_SPECIAL || (stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
        return dz_fail(err, DZ_EUSAGE, "%s: exists and is not a file", path);
    if (kind != own && kind != DZ_TARGET_EMPTY)
        return dz_fail(err, DZ_EUSAGE, "%s: exists and is %s, not %s: it is never replaced; choose another name, or move it away", path,
                       name_of(kind), name_of(own));
    if (!free_to_go) return dz_fail(err, DZ_EUSAGE, "%s: exists already (--force replaces it)", path);
    return check_folder(path, err);
}

/* An HDF5 file of the kind we write (superblock 3) that was open for writing when its process ended: its root group, which would say whose
 * it is, may not be in it yet. */
static int is_unclosed_hdf5(const char *path) {
    static const uint8_t signature[] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n', 3};
    uint8_t head[12] = {0};
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    size_t len = fd >= 0 ? look(fd, 0, head, sizeof head) : 0;
    if (fd >= 0) close(fd);
    return len == sizeof head && memcmp(head, signature, sizeof signature) == 0 && (head[11] & 1);
}

dz_rc dz_overwrite_check_partial(const char *path, dz_target own, dz_error *err) {
    dz_target kind = dz_target_of(path);
    if (kind == DZ_TARGET_NONE || kind == own) return DZ_OK;
    struct stat st;
    if (kind == DZ_TARGET_EMPTY && stat(path, &st) == 0 && S_ISREG(st.st_mode)) return DZ_OK;
    if (kind == DZ_TARGET_FILE && (own == DZ_TARGET_ARCHIVE || own == DZ_TARGET_VECTOR) && is_unclosed_hdf5(path)) return DZ_OK;
    return dz_fail(err, DZ_EUSAGE, "%s: exists and is not what a stopped job left: remove it first", path);
}

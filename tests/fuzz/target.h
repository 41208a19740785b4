/* What every fuzz target is made of: libFuzzer calls it with inputs of its own, replay.c with those of tests/broken. */
#ifndef DZ_FUZZ_TARGET_H
#define DZ_FUZZ_TARGET_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PROMISE(condition) /* what a decoder that says DZ_OK must have kept */                                                             \
    do {                                                                                                                                   \
        if (!(condition)) {                                                                                                                \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                                        \
            abort();                                                                                                                       \
        }                                                                                                                                  \
    } while (0)

/* The error of a refusal has a text of one line. */
static inline void promise_error(const dz_error *err) { PROMISE(err->rc == DZ_OK || (err->text[0] && strlen(err->text) < DZ_ERROR_TEXT)); }

/* `size` <= 1 MiB bytes that end where a page without access begins: code that no sanitizer has seen (libraries) cannot pass it either. */
static inline uint8_t *guarded(int which, size_t size) {
    enum { ROOM = 1 << 20 };
    static uint8_t *rooms[4];
    PROMISE(which < 4 && size <= ROOM);
    if (!rooms[which]) {
        rooms[which] = mmap(NULL, ROOM + 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        PROMISE(rooms[which] != MAP_FAILED && mprotect(rooms[which] + ROOM, 65536, PROT_NONE) == 0);
    }
    return rooms[which] + ROOM - size;
}

/* The bytes as a file that has this path: one at a time, in memory where there is such a place. */
static char file_path[64];
static inline void remove_file(void) { unlink(file_path); }
static inline const char *as_file(const uint8_t *data, size_t size) {
    static int fd = -1;
    if (fd < 0) {
        snprintf(file_path, sizeof file_path, "%s/deltazoo-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        fd = mkstemp(file_path);
        atexit(remove_file);
    }
    PROMISE(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    return file_path;
}

#endif

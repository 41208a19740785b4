/* Checked memory: an overflowing size or a failed allocation is an error with a text. */
#ifndef DZ_BASE_MEM_H
#define DZ_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Allocates `count` elements of `size` bytes, zeroed. NULL with `err` set (DZ_ENOMEM) if the product overflows or memory runs out. A count
 * of 0 gives a valid pointer. Release with free(). */
void *dz_alloc(size_t count, size_t size, dz_error *err);

/* As dz_alloc, but the bytes are not zeroed: for large buffers that are written before they are read. */
void *dz_alloc_raw(size_t count, size_t size, dz_error *err);

/* Grows `*ptr` to hold at least `need` elements (doubling `*cap`). On failure `*ptr` is untouched. New elements are not zeroed. */
dz_rc dz_grow(void **ptr, size_t *cap, size_t need, size_t size, dz_error *err);

char *dz_strdup(const char *text, dz_error *err);
char *dz_strndup(const char *text, size_t len, dz_error *err);
int dz_ends_with(const char *text, const char *end);
char *dz_format(dz_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A growable byte buffer. Zero-initialise; free with dz_buf_free. */
typedef struct dz_buf {
    uint8_t *data;
    size_t len, cap;
} dz_buf;

dz_rc dz_buf_reserve(dz_buf *buf, size_t more, dz_error *err);
dz_rc dz_buf_put(dz_buf *buf, const void *bytes, size_t len, dz_error *err);
dz_rc dz_buf_put_varint(dz_buf *buf, uint64_t value, dz_error *err);                                       /* LEB128 */
dz_rc dz_buf_put_u32(dz_buf *buf, uint32_t value, dz_error *err);                                          /* little endian */
dz_rc dz_buf_put_u64(dz_buf *buf, uint64_t value, dz_error *err);                                          /* little endian */
dz_rc dz_buf_line(dz_buf *buf, dz_error *err, const char *fmt, ...) __attribute__((format(printf, 3, 4))); /* text, without its NUL */
dz_rc dz_buf_note(dz_buf *buf, dz_error *err, const char *fmt, ...) __attribute__((format(printf, 3, 4))); /* one line, for the user */
void dz_buf_free(dz_buf *buf);

/* A read-only cursor over untrusted bytes. A read past the end sets `bad` and returns 0. */
typedef struct dz_view {
    const uint8_t *data;
    size_t len, pos;
    int bad;
} dz_view;

uint64_t dz_view_varint(dz_view *view);
uint32_t dz_view_u32(dz_view *view);
uint64_t dz_view_u64(dz_view *view);
uint8_t dz_view_u8(dz_view *view);
uint64_t dz_view_number(dz_view *view, unsigned nbytes);   /* of up to 8 bytes, the lowest first */
const uint8_t *dz_view_bytes(dz_view *view, uint64_t len); /* NULL if fewer are left */

#endif

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

static void *checked(size_t count, size_t size, int zero, dz_error *err) {
    size_t nbytes;
    if (__builtin_mul_overflow(count, size, &nbytes)) {
        dz_fail(err, DZ_ENOMEM, "a buffer of %zu x %zu bytes is too large", count, size);
        return NULL;
    }
    void *ptr = dz_fault("alloc") ? NULL : zero ? calloc(nbytes ? nbytes : 1, 1) : malloc(nbytes ? nbytes : 1);
    if (!ptr) dz_fail(err, DZ_ENOMEM, "out of memory: %zu bytes wanted", nbytes);
    return ptr;
}

void *dz_alloc(size_t count, size_t size, dz_error *err) { return checked(count, size, 1, err); }
void *dz_alloc_raw(size_t count, size_t size, dz_error *err) { return checked(count, size, 0, err); }

dz_rc dz_grow(void **ptr, size_t *cap, size_t need, size_t size, dz_error *err) {
    if (need <= *cap) return DZ_OK;
    size_t want = *cap ? *cap : 16, nbytes;
    while (want < need) {
        if (__builtin_mul_overflow(want, (size_t)2, &want)) want = need;
    }
    if (__builtin_mul_overflow(want, size, &nbytes)) return dz_fail(err, DZ_ENOMEM, "a buffer of %zu x %zu bytes is too large", want, size);
    void *grown = dz_fault("alloc") ? NULL : realloc(*ptr, nbytes);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "out of memory: %zu bytes wanted", nbytes);
    *ptr = grown;
    *cap = want;
    return DZ_OK;
}

char *dz_strndup(const char *text, size_t len, dz_error *err) {
    char *copy = dz_alloc_raw(len + 1, 1, err);
    if (!copy) return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *dz_strdup(const char *text, dz_error *err) { return dz_strndup(text, strlen(text), err); }

int dz_ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

char *dz_format(dz_error *err, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = len < 0 ? NULL : dz_alloc_raw((size_t)len + 1, 1, err);
    if (text) vsnprintf(text, (size_t)len + 1, fmt, again);
    va_end(again);
    return text;
}

dz_rc dz_buf_reserve(dz_buf *buf, size_t more, dz_error *err) {
    size_t need;
    if (__builtin_add_overflow(buf->len, more, &need))
        return dz_fail(err, DZ_ENOMEM, "a buffer of %zu + %zu bytes is too large", buf->len, more);
    return dz_grow((void **)&buf->data, &buf->cap, need, 1, err);
}

dz_rc dz_buf_put(dz_buf *buf, const void *bytes, size_t len, dz_error *err) {
    dz_rc rc = dz_buf_reserve(buf, len, err);
    if (rc != DZ_OK) return rc;
    if (len) memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    return DZ_OK;
}

dz_rc dz_buf_put_varint(dz_buf *buf, uint64_t value, dz_error *err) {
    uint8_t bytes[10];
    size_t n = 0;
    do {
        bytes[n] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
        n++;
    } while (value);
    return dz_buf_put(buf, bytes, n, err);
}

dz_rc dz_buf_put_u32(dz_buf *buf, uint32_t value, dz_error *err) {
    uint8_t bytes[4];
    for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    return dz_buf_put(buf, bytes, sizeof bytes, err);
}

dz_rc dz_buf_put_u64(dz_buf *buf, uint64_t value, dz_error *err) {
    dz_rc rc = dz_buf_put_u32(buf, (uint32_t)value, err);
    return rc != DZ_OK ? rc : dz_buf_put_u32(buf, (uint32_t)(value >> 32), err);
}

dz_rc dz_buf_line(dz_buf *buf, dz_error *err, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    dz_rc rc = len < 0 ? err->rc : dz_buf_reserve(buf, (size_t)len + 1, err);
    if (len >= 0 && rc == DZ_OK) {
        vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, fmt, again);
        buf->len += (size_t)len;
    }
    va_end(again);
    return rc;
}

dz_rc dz_buf_note(dz_buf *buf, dz_error *err, const char *fmt, ...) {
    char line[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n < 0) return err->rc;
    if ((size_t)n >= sizeof line) memcpy(line + sizeof line - 4, "...", 4);
    dz_buf_put(buf, dz_one_line(line), strlen(line), err);
    return dz_buf_put(buf, "\n", 1, err);
}

void dz_buf_free(dz_buf *buf) {
    free(buf->data);
    *buf = (dz_buf){0};
}

const uint8_t *dz_view_bytes(dz_view *view, uint64_t len) {
    if (view->bad || len > view->len - view->pos) {
        view->bad = 1;
        return NULL;
    }
    const uint8_t *at = view->data + view->pos;
    view->pos += (size_t)len;
    return at;
}

uint8_t dz_view_u8(dz_view *view) {
    const uint8_t *at = dz_view_bytes(view, 1);
    return at ? *at : 0;
}

uint64_t dz_view_number(dz_view *view, unsigned nbytes) {
    uint64_t x = 0;
    for (unsigned i = 0; i < nbytes; i++) x |= (uint64_t)dz_view_u8(view) << (8 * i);
    return x;
}

uint64_t dz_view_varint(dz_view *view) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = dz_view_u8(view);
        if (view->bad) return 0;
        if (shift == 63 && byte > 1) break;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return value;
    }
    view->bad = 1;
    return 0;
}

uint32_t dz_view_u32(dz_view *view) {
    const uint8_t *at = dz_view_bytes(view, 4);
    return at ? (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24 : 0;
}

uint64_t dz_view_u64(dz_view *view) {
    uint64_t low = dz_view_u32(view);
    return low | (uint64_t)dz_view_u32(view) << 32;
}

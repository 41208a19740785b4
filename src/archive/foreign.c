#include "archive/foreign.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define TYPE_DEPTH 6
#define MEMBERS 1024
#define SIZE_MAX_OF_TYPE ((uint64_t)1 << 24)
#define NDIMS_MAX 32

enum { INTEGER, FLOAT, TIME, STRING, BITS, OPAQUE, COMPOUND, REFERENCE, ENUM, VLEN, ARRAY };

/* A text and its NUL; in the older versions filled up to a multiple of 8. */
static int text_ok(dz_view *v, int padded) {
    size_t begin = v->pos;
    while (!v->bad && dz_view_u8(v) != 0 && v->pos - begin < DZ_FOREIGN_NAME) {
    }
    size_t len = v->pos - begin;
    if (padded && len % 8) dz_view_bytes(v, 8 - len % 8);
    return !v->bad && len > 1 && len < DZ_FOREIGN_NAME;
}

static int type_ok(dz_view *v, uint64_t *size, int depth);

static int compound_ok(dz_view *v, unsigned version, uint64_t members, uint64_t size, int depth) {
    unsigned nbytes = version < 3 ? 4 : size < 1 << 8 ? 1 : size < 1 << 16 ? 2 : size < 1 << 24 ? 3 : 4;
    uint64_t end = 0;
    if (members == 0 || members > MEMBERS) return 0;
    for (uint64_t i = 0; i < members; i++) {
        uint64_t inner = 0, n = 1;
        if (!text_ok(v, version < 3)) return 0;
        uint64_t at = dz_view_number(v, nbytes);
        if (version == 1) { /* members may be arrays */
            unsigned ndims = dz_view_u8(v);
            dz_view_bytes(v, 11);
            if (ndims > 4) return 0;
            for (unsigned d = 0; d < 4; d++) {
                uint64_t dim = dz_view_u32(v);
                n *= d < ndims ? dim : 1;
            }
        }
        if (v->bad || !type_ok(v, &inner, depth + 1) || n == 0 || n > SIZE_MAX_OF_TYPE || at < end || at > size || n * inner > size - at)
            return 0;
        end = at + n * inner;
    }
    return 1;
}

static int enum_ok(dz_view *v, unsigned version, uint64_t members, uint64_t size, int depth) {
    uint64_t inner = 0;
    if (members == 0 || members > MEMBERS || !type_ok(v, &inner, depth + 1) || inner != size || size > 8) return 0;
    for (uint64_t i = 0; i < members; i++) {
        if (!text_ok(v, version < 3)) return 0;
    }
    return dz_view_bytes(v, members * size) != NULL;
}

static int array_ok(dz_view *v, unsigned version, uint64_t size, int depth) {
    unsigned ndims = dz_view_u8(v);
    uint64_t n = 1, inner = 0;
    if (version == 2) dz_view_bytes(v, 3);
    if (version < 2 || ndims == 0 || ndims > NDIMS_MAX) return 0;
    for (unsigned d = 0; d < ndims; d++) {
        n *= dz_view_u32(v);
        if (n == 0 || n > SIZE_MAX_OF_TYPE) return 0;
    }
    if (version == 2) dz_view_bytes(v, 4 * (uint64_t)ndims);
    return type_ok(v, &inner, depth + 1) && n * inner == size;
}

static int type_ok(dz_view *v, uint64_t *size, int depth) {
    unsigned head = dz_view_u8(v), kind = head & 15, version = head >> 4;
    uint64_t bits = dz_view_number(v, 3), inner = 0;
    *size = dz_view_u32(v);
    if (v->bad || *size == 0 || *size > SIZE_MAX_OF_TYPE || version < 1 || version > 5 || depth >= TYPE_DEPTH) return 0;
    switch (kind) {
        case INTEGER:
        case BITS: {
            uint64_t offset = dz_view_number(v, 2), precision = dz_view_number(v, 2);
            return !v->bad && (bits & ~0xfULL) == 0 && *size <= 16 && precision > 0 && offset + precision <= 8 * *size;
        }
        case FLOAT: {
            uint64_t offset = dz_view_number(v, 2), precision = dz_view_number(v, 2), exponent_at = dz_view_number(v, 1),
                     exponent = dz_view_number(v, 1);
            uint64_t mantissa_at = dz_view_number(v, 1), mantissa = dz_view_number(v, 1);
            dz_view_u32(v);
            return !v->bad && *size <= 16 && precision > 0 && offset + precision <= 8 * *size && exponent > 0 && mantissa > 0 &&
                   exponent_at + exponent <= precision && mantissa_at + mantissa <= precision && (bits >> 8 & 0xff) < precision &&
                   (bits & ~0xff7fULL) == 0 && (bits >> 4 & 3) <= 2;
        }
        case STRING: return (bits & ~0x1fULL) == 0 && (bits & 15) <= 2;
        case OPAQUE: return bits <= 256 && bits % 8 == 0 && dz_view_bytes(v, bits) != NULL;
        case REFERENCE: return bits <= 1 && (*size == 8 || *size == 12);
        case COMPOUND: return compound_ok(v, version, bits & 0xffff, *size, depth);
        case ENUM: return enum_ok(v, version, bits & 0xffff, *size, depth);
        case VLEN: return (bits & 15) <= 1 && (bits >> 4 & 15) <= 2 && (bits >> 8) <= 1 && *size == 16 && type_ok(v, &inner, depth + 1);
        case ARRAY: return bits == 0 && array_ok(v, version, *size, depth);
        default: return 0;
    }
}

static int space_ok(dz_view *v, uint64_t *count) {
    unsigned version = dz_view_u8(v), ndims = dz_view_u8(v), flags = dz_view_u8(v), kind = dz_view_u8(v);
    *count = 1;
    if (version == 1) {
        dz_view_bytes(v, 4);
        kind = ndims ? 1 : 0;
    }
    if (version < 1 || version > 2 || ndims > NDIMS_MAX || flags > 1 || kind > 2 || (kind != 1 && ndims)) return 0;
    if (kind == 2) *count = 0;
    for (unsigned d = 0; d < ndims; d++) {
        uint64_t n = dz_view_u64(v);
        if (n > SIZE_MAX_OF_TYPE || *count * n > SIZE_MAX_OF_TYPE) return 0;
        *count *= n;
    }
    if (flags) dz_view_bytes(v, 8 * (uint64_t)ndims);
    return !v->bad;
}

static const uint8_t *part(dz_view *v, uint64_t len, unsigned version) { return dz_view_bytes(v, version == 1 ? (len + 7) / 8 * 8 : len); }

int dz_foreign_attribute_ok(dz_view *v, char name[DZ_FOREIGN_NAME]) {
    uint64_t size = 0, count = 0;
    unsigned version = dz_view_u8(v), flags = dz_view_u8(v);
    uint64_t name_len = dz_view_number(v, 2), type_len = dz_view_number(v, 2), space_len = dz_view_number(v, 2);
    if (version == 3 && dz_view_u8(v) > 1) return 0;
    const uint8_t *text = part(v, name_len, version), *type = part(v, type_len, version), *space = part(v, space_len, version);
    if (v->bad || version < 1 || version > 3 || flags != 0 || name_len < 2 || name_len > DZ_FOREIGN_NAME || text[name_len - 1] != 0 ||
        strlen((const char *)text) != name_len - 1)
        return 0;
    memcpy(name, text, (size_t)name_len);
    dz_view inner_type = {.data = type, .len = (size_t)type_len}, inner_space = {.data = space, .len = (size_t)space_len};
    return type_ok(&inner_type, &size, 0) && space_ok(&inner_space, &count) && dz_view_bytes(v, count * size) != NULL;
}

/* ---- Headers of objects ---- */

#define HEADER_MAX ((uint64_t)1 << 20)
#define BLOCKS_MAX 64
#define CONTINUED 0x10

static uint32_t turned(uint32_t x, int by) { return x << by | x >> (32 - by); }

/* HDF5's checksum of metadata: Jenkins' lookup3, from 0. */
static uint32_t checksum(const uint8_t *bytes, size_t len) {
    static const int mixed[6] = {4, 6, 8, 16, 19, 4}, last[7] = {14, 11, 25, 16, 4, 14, 24};
    uint32_t s[3];
    for (int i = 0; i < 3; i++) s[i] = 0xdeadbeefU + (uint32_t)len;
    for (size_t at = 0; at < len;) {
        size_t n = len - at < 12 ? len - at : 12;
        for (size_t i = 0; i < n; i++) s[i / 4] += (uint32_t)bytes[at + i] << (8 * (i % 4));
        at += n;
        if (at < len) {
            for (int i = 0; i < 6; i++) {
                uint32_t *x = &s[i % 3], *y = &s[(i + 1) % 3], *z = &s[(i + 2) % 3];
                *x = (*x - *z) ^ turned(*z, mixed[i]);
                *z += *y;
            }
        } else {
            for (int i = 0; i < 7; i++) {
                uint32_t *x = &s[(i + 2) % 3], *y = &s[(i + 1) % 3];
                *x = (*x ^ *y) - turned(*y, last[i]);
            }
        }
    }
    return s[2];
}

/* A block of a header, its checksum included; NULL where it is not whole. The caller frees. */
static uint8_t *whole_block(int fd, const char *path, uint64_t file_size, uint64_t at, uint64_t len) {
    dz_error none = {0};
    if (len < 8 || len > HEADER_MAX || at > file_size || len > file_size - at) return NULL;
    uint8_t *bytes = malloc((size_t)len);
    if (!bytes || dz_pread_all(fd, path, bytes, (size_t)len, at, &none) != DZ_OK) goto bad;
    dz_view v = {.data = bytes, .len = (size_t)len, .pos = (size_t)len - 4};
    if (checksum(bytes, (size_t)len - 4) == dz_view_u32(&v)) return bytes;
bad:
    free(bytes);
    return NULL;
}

#define LINK 0x06
#define ATTRIBUTE 0x0C

/* A message that tasks have: the link index or payload, or the attribute record. */
static int is_of_task(unsigned kind, dz_view v) {
    unsigned version = dz_view_u8(&v), flags = dz_view_u8(&v);
    uint64_t len = 0;
    if (kind == LINK) {
        dz_view_bytes(&v, (flags & 8 ? 1U : 0) + (flags & 4 ? 8U : 0) + (flags & 0x10 ? 1U : 0));
        len = dz_view_number(&v, 1U << (flags & 3));
    } else if (kind == ATTRIBUTE) {
        len = dz_view_number(&v, 2);
        dz_view_bytes(&v, version == 3 ? 5 : 4);
    }
    const uint8_t *name = len ? dz_view_bytes(&v, len) : NULL;
    if (!name) return 0;
    if (kind == ATTRIBUTE) return len == 7 && memcmp(name, "record", 7) == 0;
    return (len == 5 && memcmp(name, "index", 5) == 0) || (len == 7 && memcmp(name, "payload", 7) == 0);
}

int dz_foreign_object(int fd, const char *path, uint64_t file_size, uint64_t at) {
    struct {
        uint64_t at, len;
    } todo[BLOCKS_MAX];
    uint8_t head[40] = {0};
    dz_error none = {0};
    size_t have = at < file_size && file_size - at < sizeof head ? (size_t)(file_size - at) : sizeof head;
    if (at >= file_size || dz_pread_all(fd, path, head, have, at, &none) != DZ_OK || memcmp(head, "OHDR", 4) != 0 || head[4] != 2) return 0;
    unsigned flags = head[5], numbered = flags & 4 ? 2 : 0, n = 1;
    dz_view v = {.data = head, .len = have, .pos = 6 + (flags & 0x20 ? 16U : 0) + (flags & 0x10 ? 4U : 0)};
    uint64_t len = dz_view_number(&v, 1U << (flags & 3));
    if (v.bad || len > HEADER_MAX) return 0;
    todo[0].at = at;
    todo[0].len = v.pos + len + 4;
    int foreign = 1;
    for (unsigned i = 0; i < n && foreign; i++) {
        uint8_t *bytes = whole_block(fd, path, file_size, todo[i].at, todo[i].len);
        foreign = bytes && (i == 0 || memcmp(bytes, "OCHK", 4) == 0);
        dz_view block = {.data = bytes, .len = (size_t)todo[i].len - 4, .pos = i == 0 ? v.pos : 4};
        while (foreign && block.len - block.pos >= 4 + numbered) {
            unsigned kind = dz_view_u8(&block);
            uint64_t size = dz_view_number(&block, 2);
            dz_view_bytes(&block, 1 + numbered);
            dz_view inner = {.data = dz_view_bytes(&block, size), .len = (size_t)size};
            if (!inner.data) break; /* a gap */
            foreign = !is_of_task(kind, inner) && (kind != CONTINUED || n < BLOCKS_MAX);
            if (kind != CONTINUED || !foreign) continue;
            todo[n].at = dz_view_u64(&inner);
            todo[n].len = dz_view_u64(&inner);
            foreign = !inner.bad;
            n++;
        }
        free(bytes);
    }
    return foreign;
}

#include "archive/foreign.h"

#include <string.h>

#define TYPE_DEPTH 6
#define MEMBERS 1024
#define SIZE_MAX_OF_TYPE ((uint64_t)1 << 24)
#define NDIMS_MAX 32

enum { INTEGER, FLOAT, TIME, STRING, BITS, OPAQUE, COMPOUND, REFERENCE, ENUM, VLEN, ARRAY };

static uint64_t number(dz_view *v, unsigned nbytes) {
    uint64_t x = 0;
    for (unsigned i = 0; i < nbytes; i++) x |= (uint64_t)dz_view_u8(v) << (8 * i);
    return x;
}

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
        uint64_t at = number(v, nbytes);
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
    uint64_t bits = number(v, 3), inner = 0;
    *size = dz_view_u32(v);
    if (v->bad || *size == 0 || *size > SIZE_MAX_OF_TYPE || version < 1 || version > 5 || depth >= TYPE_DEPTH) return 0;
    switch (kind) {
        case INTEGER:
        case BITS: {
            uint64_t offset = number(v, 2), precision = number(v, 2);
            return !v->bad && (bits & ~0xfULL) == 0 && *size <= 16 && precision > 0 && offset + precision <= 8 * *size;
        }
        case FLOAT: {
            uint64_t offset = number(v, 2), precision = number(v, 2), exponent_at = number(v, 1), exponent = number(v, 1);
            uint64_t mantissa_at = number(v, 1), mantissa = number(v, 1);
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
    uint64_t name_len = number(v, 2), type_len = number(v, 2), space_len = number(v, 2);
    if (version == 3 && dz_view_u8(v) > 1) return 0;
    const uint8_t *text = part(v, name_len, version), *type = part(v, type_len, version), *space = part(v, space_len, version);
    if (v->bad || version < 1 || version > 3 || flags != 0 || name_len < 2 || name_len > DZ_FOREIGN_NAME || text[name_len - 1] != 0 ||
        strlen((const char *)text) != name_len - 1)
        return 0;
    memcpy(name, text, (size_t)name_len);
    dz_view inner_type = {.data = type, .len = (size_t)type_len}, inner_space = {.data = space, .len = (size_t)space_len};
    return type_ok(&inner_type, &size, 0) && space_ok(&inner_space, &count) && dz_view_bytes(v, count * size) != NULL;
}

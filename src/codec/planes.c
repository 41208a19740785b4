#include "codec/planes.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "codec/entropy.h"
#include "codec/rans.h"

enum {
    ZSTD_LEVEL = 3,
    SAMPLE = 1 << 16, /* bytes at the start and in the middle that decide between rANS and zstd in a long plane */
    FROM_BASE = 1     /* flag bit of the body: the planes are of the XOR with the base */
};

/* ---- one plane ---- */

/* Bytes zstd needs, or `count` when it does not shrink them. `scratch` holds ZSTD_compressBound(count) bytes. */
static size_t zstd_size(uint8_t *scratch, size_t room, const uint8_t *plane, size_t count) {
    size_t coded = ZSTD_compress(scratch, room, plane, count, ZSTD_LEVEL);
    return ZSTD_isError(coded) || coded > count ? count : coded;
}

/* How much zstd and rANS make of two samples of a long plane: zstd is worth its time when it is clearly smaller. */
static int zstd_wins_sample(uint8_t *scratch, size_t room, const uint8_t *plane, size_t count) {
    size_t by_zstd = 0, by_rans = 0;
    for (size_t part = 0; part < 2; part++) {
        const uint8_t *at = plane + part * (count / 2);
        uint32_t counts[256];
        dz_byte_histogram(counts, at, SAMPLE);
        size_t rans = dz_rans_estimate(counts);
        by_zstd += zstd_size(scratch, room, at, SAMPLE);
        by_rans += rans < SAMPLE ? rans : SAMPLE;
    }
    return by_zstd < by_rans - by_rans / 50;
}

static dz_rc put_coded(dz_buf *out, dz_plane_how how, const uint8_t *coded, size_t ncoded, dz_error *err) {
    uint8_t byte = (uint8_t)how;
    dz_rc rc = dz_buf_put(out, &byte, 1, err);
    if (rc == DZ_OK && how != DZ_PLANE_CONSTANT && how != DZ_PLANE_RAW) rc = dz_buf_put_varint(out, ncoded, err);
    return rc == DZ_OK ? dz_buf_put(out, coded, ncoded, err) : rc;
}

/* Codes a plane that is not constant. `zstd` and `rans` are scratch. */
static dz_rc put_best(dz_buf *out, dz_buf *zstd, dz_buf *rans, const uint8_t *plane, size_t count, const uint32_t counts[256],
                      dz_error *err) {
    size_t by_rans = dz_rans_estimate(counts), by_zstd = count;
    int is_long = count > 4 * SAMPLE;
    if (dz_buf_reserve(zstd, ZSTD_compressBound(is_long ? SAMPLE : count), err) != DZ_OK) return err->rc;
    if (!is_long || zstd_wins_sample(zstd->data, zstd->cap, plane, count)) {
        if (dz_buf_reserve(zstd, ZSTD_compressBound(count), err) != DZ_OK) return err->rc;
        by_zstd = zstd_size(zstd->data, zstd->cap, plane, count);
    }
    if (count <= DZ_RANS_MAX && by_rans < count - count / 256 && by_rans / 2 < by_zstd) {
        if (dz_rans_encode(rans, plane, count, err) != DZ_OK) return err->rc;
        by_rans = rans->len;
    } else {
        by_rans = count;
    }
    if (by_zstd < by_rans && by_zstd + 4 < count) return put_coded(out, DZ_PLANE_ZSTD, zstd->data, by_zstd, err);
    if (by_rans + 4 < count) return put_coded(out, DZ_PLANE_RANS, rans->data, by_rans, err);
    return put_coded(out, DZ_PLANE_RAW, plane, count, err);
}

dz_rc dz_plane_put(dz_buf *out, const uint8_t *plane, size_t count, dz_error *err) {
    if (plane[0] == plane[count - 1] && memcmp(plane, plane + 1, count - 1) == 0) return put_coded(out, DZ_PLANE_CONSTANT, plane, 1, err);
    dz_buf zstd = {0}, rans = {0};
    uint32_t counts[256];
    dz_byte_histogram(counts, plane, count);
    dz_rc rc = put_best(out, &zstd, &rans, plane, count, counts, err);
    dz_buf_free(&zstd);
    dz_buf_free(&rans);
    return rc;
}

dz_rc dz_plane_get(dz_view *view, uint8_t *plane, size_t count, dz_error *err) {
    uint8_t how = dz_view_u8(view);
    if (how == DZ_PLANE_CONSTANT) {
        memset(plane, dz_view_u8(view), count);
        return view->bad ? dz_fail(err, DZ_EDAMAGE, "a plane of %zu bytes is cut short", count) : DZ_OK;
    }
    uint64_t ncoded = how == DZ_PLANE_RAW ? count : dz_view_varint(view);
    const uint8_t *coded = dz_view_bytes(view, ncoded);
    if (!coded || view->bad) return dz_fail(err, DZ_EDAMAGE, "a plane of %zu bytes is cut short", count);
    switch (how) {
        case DZ_PLANE_RAW: memcpy(plane, coded, count); return DZ_OK;
        case DZ_PLANE_RANS: return dz_rans_decode(plane, count, coded, (size_t)ncoded, err);
        case DZ_PLANE_ZSTD:
            if (ZSTD_decompress(plane, count, coded, (size_t)ncoded) == count) return DZ_OK;
            return dz_fail(err, DZ_EDAMAGE, "a zstd plane does not decode to %zu bytes", count);
        default: return dz_fail(err, DZ_EDAMAGE, "a plane of unknown kind %u", how);
    }
}

/* ---- elements to planes and back ---- */

#define LOAD(type, x, words, i)                                                                                                            \
    type x;                                                                                                                                \
    memcpy(&x, (const uint8_t *)(words) + (i) * sizeof x, sizeof x)
#define STORE(x, words, i) memcpy((uint8_t *)(words) + (i) * sizeof x, &x, sizeof x)

/* Kernels for one element width: byte `p` of each element into `plane`; `plane` into byte `p` of each element (p = 0 first: it clears the
 * others); and what undoes rotation and XOR once all planes are in. */
#define PLANE_KERNELS(bits)                                                                                                                \
    static void split##bits(uint8_t *restrict plane, const void *words, const void *base, unsigned p, int rotate, size_t count) {          \
        for (size_t i = 0; i < count; i++) {                                                                                               \
            LOAD(uint##bits##_t, x, words, i);                                                                                             \
            if (base) {                                                                                                                    \
                LOAD(uint##bits##_t, b, base, i);                                                                                          \
                x ^= b;                                                                                                                    \
            }                                                                                                                              \
            if (rotate) x = (uint##bits##_t)(x << 1 | x >> (bits - 1));                                                                    \
            plane[i] = (uint8_t)(x >> (8 * p));                                                                                            \
        }                                                                                                                                  \
    }                                                                                                                                      \
    static void join##bits(void *words, const uint8_t *restrict plane, unsigned p, size_t count) {                                         \
        for (size_t i = 0; i < count; i++) {                                                                                               \
            LOAD(uint##bits##_t, x, words, i);                                                                                             \
            x = (uint##bits##_t)((p ? x : 0) | (uint##bits##_t)((uint##bits##_t)plane[i] << (8 * p)));                                     \
            STORE(x, words, i);                                                                                                            \
        }                                                                                                                                  \
    }                                                                                                                                      \
    static void finish##bits(void *restrict words, const void *restrict base, int rotate, size_t count) {                                  \
        for (size_t i = 0; i < count; i++) {                                                                                               \
            LOAD(uint##bits##_t, x, words, i);                                                                                             \
            if (rotate) x = (uint##bits##_t)(x >> 1 | x << (bits - 1));                                                                    \
            if (base) {                                                                                                                    \
                LOAD(uint##bits##_t, b, base, i);                                                                                          \
                x ^= b;                                                                                                                    \
            }                                                                                                                              \
            STORE(x, words, i);                                                                                                            \
        }                                                                                                                                  \
    }
PLANE_KERNELS(8)
PLANE_KERNELS(16)
PLANE_KERNELS(32)
PLANE_KERNELS(64)

static const struct {
    void (*split)(uint8_t *restrict, const void *, const void *, unsigned, int, size_t);
    void (*join)(void *, const uint8_t *restrict, unsigned, size_t);
    void (*finish)(void *restrict, const void *restrict, int, size_t);
} KERNELS[] = {{split8, join8, finish8}, {split16, join16, finish16}, {split32, join32, finish32}, {split64, join64, finish64}};

/* Floats whose exponent starts just below the sign; narrower ones have a single plane and gain nothing. */
static int rotated(dz_dtype dtype) { return dtype == DZ_F64 || dtype == DZ_F32 || dtype == DZ_F16 || dtype == DZ_BF16; }

static unsigned log2_size(dz_dtype dtype) { return (unsigned)__builtin_ctz((unsigned)dz_dtype_size(dtype)); }

dz_rc dz_planes_encode(dz_buf *out, const void *words, const void *base, dz_dtype dtype, size_t count, dz_error *err) {
    uint8_t flags = base ? FROM_BASE : 0;
    dz_rc rc = dz_buf_put(out, &flags, 1, err);
    if (rc != DZ_OK || count == 0) return rc;
    uint8_t *plane = dz_alloc_raw(count, 1, err);
    if (!plane) return err->rc;
    for (unsigned p = 0; p < dz_dtype_size(dtype) && rc == DZ_OK; p++) {
        KERNELS[log2_size(dtype)].split(plane, words, base, p, rotated(dtype), count);
        rc = dz_plane_put(out, plane, count, err);
    }
    free(plane);
    return rc;
}

dz_rc dz_planes_decode(void *words, const void *base, dz_dtype dtype, size_t count, dz_view *view, dz_error *err) {
    uint8_t flags = dz_view_u8(view);
    if (view->bad || (flags & ~FROM_BASE) != 0) return dz_fail(err, DZ_EDAMAGE, "planes with unknown flags 0x%02x", flags);
    if ((flags & FROM_BASE) && !base) return dz_fail(err, DZ_EDAMAGE, "planes need a base tile and there is none");
    if (count == 0) return DZ_OK;
    uint8_t *plane = dz_alloc_raw(count, 1, err);
    if (!plane) return err->rc;
    dz_rc rc = DZ_OK;
    for (unsigned p = 0; p < dz_dtype_size(dtype) && rc == DZ_OK; p++) {
        rc = dz_plane_get(view, plane, count, err);
        if (rc == DZ_OK) KERNELS[log2_size(dtype)].join(words, plane, p, count);
    }
    if (rc == DZ_OK) KERNELS[log2_size(dtype)].finish(words, flags & FROM_BASE ? base : NULL, rotated(dtype), count);
    free(plane);
    return rc;
}

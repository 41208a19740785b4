/* Part of kernels.c, which is compiled for each instruction set: vectors of bytes, and all that the steps of the search for a message
 * (kernels_trellis.h, kernels_walk.h) do with them. BYTES: the vector, of WIDTH bytes, NBYTES of them for all states; ADDS and SUBS end at
 * the limits. */
#ifndef DZ_NUMERIC_KERNELS_VECTORS_H
#define DZ_NUMERIC_KERNELS_VECTORS_H

#include <string.h>

#include "numeric/kernels_rotation.h"

#ifdef __SSE2__
#include <emmintrin.h>
#elif defined __ARM_NEON && defined __aarch64__
#include <arm_neon.h>
#endif

/* A shuffle of 16 bytes: those in places without bit k go to the places from `to` to `to` + 7; the others get 0. */
#define WITHOUT_AT(k, i, to)                                                                                                               \
    (char)((i) >= (to) && (i) < (to) + 8 ? (((i) - (to)) >> (k) << ((k) + 1)) + (((i) - (to)) & ((1 << (k)) - 1)) : -1)
#define WITHOUT(k, to)                                                                                                                     \
    _mm_setr_epi8(WITHOUT_AT(k, 0, to), WITHOUT_AT(k, 1, to), WITHOUT_AT(k, 2, to), WITHOUT_AT(k, 3, to), WITHOUT_AT(k, 4, to),            \
                  WITHOUT_AT(k, 5, to), WITHOUT_AT(k, 6, to), WITHOUT_AT(k, 7, to), WITHOUT_AT(k, 8, to), WITHOUT_AT(k, 9, to),            \
                  WITHOUT_AT(k, 10, to), WITHOUT_AT(k, 11, to), WITHOUT_AT(k, 12, to), WITHOUT_AT(k, 13, to), WITHOUT_AT(k, 14, to),       \
                  WITHOUT_AT(k, 15, to))

#if defined __AVX512F__ && defined __AVX512BW__
#define WIDTH 64
#define BYTES __m512i
#define ADDS _mm512_adds_epi8
#define SUBS _mm512_subs_epi8
#define MAX8 _mm512_max_epi8
#define ALL8(x) _mm512_set1_epi8(x)
#define LOOK_UP(table, places) _mm512_shuffle_epi8(table, places) /* a table of 16 bytes in each lane */
#define IN_LANES(x) _mm512_broadcast_i32x4(x)

typedef uint64_t bits_of_bytes;
INLINE bits_of_bytes where_larger(BYTES a, BYTES b) { return _mm512_cmpgt_epi8_mask(a, b); }

/* Each byte's partner, whose place differs in bit k. */
INLINE BYTES partner(BYTES x, unsigned k) {
    switch (k) {
        case 0: return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(_mm_setr_epi8(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)));
        case 1: return _mm512_rol_epi32(x, 16);
        case 2: return _mm512_shuffle_epi32(x, 0xb1);
        case 3: return _mm512_shuffle_epi32(x, 0x4e);
        case 4: return _mm512_shuffle_i32x4(x, x, 0xb1);
        default: return _mm512_shuffle_i32x4(x, x, 0x4e);
    }
}
#define LANE_BITS 6

/* The bytes of two vectors in places without bit k; and back: each twice, in its own place and in its partner's. */
INLINE BYTES without_partners(BYTES a, BYTES b, unsigned k) {
    if (k == 4) return _mm512_shuffle_i32x4(a, b, 0x88);
    if (k == 5) return _mm512_shuffle_i32x4(a, b, 0x44);
    return _mm512_or_si512(_mm512_shuffle_epi8(a, IN_LANES(WITHOUT(k, 0))), _mm512_shuffle_epi8(b, IN_LANES(WITHOUT(k, 8))));
}

INLINE void with_partners(BYTES out[2], BYTES x, unsigned k) {
    switch (k) {
        case 0: out[0] = _mm512_unpacklo_epi8(x, x), out[1] = _mm512_unpackhi_epi8(x, x); break;
        case 1: out[0] = _mm512_unpacklo_epi16(x, x), out[1] = _mm512_unpackhi_epi16(x, x); break;
        case 2: out[0] = _mm512_unpacklo_epi32(x, x), out[1] = _mm512_unpackhi_epi32(x, x); break;
        case 3: out[0] = _mm512_unpacklo_epi64(x, x), out[1] = _mm512_unpackhi_epi64(x, x); break;
        case 4: out[0] = _mm512_shuffle_i32x4(x, x, 0x50), out[1] = _mm512_shuffle_i32x4(x, x, 0xfa); break;
        default: out[0] = _mm512_shuffle_i32x4(x, x, 0x44), out[1] = _mm512_shuffle_i32x4(x, x, 0xee);
    }
}

/* x / 2, rounded up or down. */
INLINE BYTES halved(BYTES x, int up) {
    const __m512i sign = _mm512_set1_epi8(-128);
    return _mm512_xor_si512(_mm512_avg_epu8(_mm512_xor_si512(x, sign), _mm512_set1_epi8(up ? -128 : 127)), sign);
}
#elif defined __AVX2__
#define WIDTH 32
#define BYTES __m256i
#define ADDS _mm256_adds_epi8
#define SUBS _mm256_subs_epi8
#define MAX8 _mm256_max_epi8
#define ALL8(x) _mm256_set1_epi8(x)
#define LOOK_UP(table, places) _mm256_shuffle_epi8(table, places)
#define IN_LANES(x) _mm256_broadcastsi128_si256(x)

typedef uint32_t bits_of_bytes;
INLINE bits_of_bytes where_larger(BYTES a, BYTES b) { return (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(a, b)); }

INLINE BYTES partner(BYTES x, unsigned k) {
    switch (k) {
        case 0:
            return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(_mm_setr_epi8(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)));
        case 1:
            return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(_mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)));
        case 2: return _mm256_shuffle_epi32(x, 0xb1);
        case 3: return _mm256_shuffle_epi32(x, 0x4e);
        default: return _mm256_permute4x64_epi64(x, 0x4e);
    }
}
#define LANE_BITS 5

INLINE BYTES without_partners(BYTES a, BYTES b, unsigned k) {
    if (k == 4) return _mm256_permute2x128_si256(a, b, 0x20);
    return _mm256_or_si256(_mm256_shuffle_epi8(a, IN_LANES(WITHOUT(k, 0))), _mm256_shuffle_epi8(b, IN_LANES(WITHOUT(k, 8))));
}

INLINE void with_partners(BYTES out[2], BYTES x, unsigned k) {
    switch (k) {
        case 0: out[0] = _mm256_unpacklo_epi8(x, x), out[1] = _mm256_unpackhi_epi8(x, x); break;
        case 1: out[0] = _mm256_unpacklo_epi16(x, x), out[1] = _mm256_unpackhi_epi16(x, x); break;
        case 2: out[0] = _mm256_unpacklo_epi32(x, x), out[1] = _mm256_unpackhi_epi32(x, x); break;
        case 3: out[0] = _mm256_unpacklo_epi64(x, x), out[1] = _mm256_unpackhi_epi64(x, x); break;
        default: out[0] = _mm256_permute2x128_si256(x, x, 0), out[1] = _mm256_permute2x128_si256(x, x, 0x11);
    }
}

INLINE BYTES halved(BYTES x, int up) {
    const __m256i sign = _mm256_set1_epi8(-128);
    return _mm256_xor_si256(_mm256_avg_epu8(_mm256_xor_si256(x, sign), _mm256_set1_epi8(up ? -128 : 127)), sign);
}
#else
/* 16 bytes by the vectors of gcc and clang, whatever the processor has. */
#define WIDTH 16
#define LANE_BITS 4
typedef int8_t BYTES __attribute__((vector_size(WIDTH)));
typedef uint8_t unsigned_bytes __attribute__((vector_size(WIDTH)));
typedef uint16_t bytes_by_2 __attribute__((vector_size(WIDTH)));
typedef uint32_t bytes_by_4 __attribute__((vector_size(WIDTH)));
typedef uint64_t bytes_by_8 __attribute__((vector_size(WIDTH)));
typedef uint16_t bits_of_bytes;

INLINE BYTES ALL8(int8_t x) { return (BYTES){0} + x; }

#if defined __SSE2__
INLINE BYTES ADDS(BYTES a, BYTES b) { return (BYTES)_mm_adds_epi8((__m128i)a, (__m128i)b); }
INLINE BYTES SUBS(BYTES a, BYTES b) { return (BYTES)_mm_subs_epi8((__m128i)a, (__m128i)b); }
INLINE bits_of_bytes bits_of(BYTES mask) { return (bits_of_bytes)_mm_movemask_epi8((__m128i)mask); }
#elif defined __ARM_NEON && defined __aarch64__
INLINE BYTES ADDS(BYTES a, BYTES b) { return (BYTES)vqaddq_s8((int8x16_t)a, (int8x16_t)b); }
INLINE BYTES SUBS(BYTES a, BYTES b) { return (BYTES)vqsubq_s8((int8x16_t)a, (int8x16_t)b); }
#define LOOK_UP(table, places) ((BYTES)vqtbl1q_s8((int8x16_t)(table), (uint8x16_t)(places)))
#define BITS_BY_WORDS
#else
/* Beyond a limit where the signs of a and b are alike and that of the sum is another: 127 for a sum that looks negative, or -128. */
INLINE BYTES ADDS(BYTES a, BYTES b) {
    BYTES sum = (BYTES)((unsigned_bytes)a + (unsigned_bytes)b), beyond = ((a ^ sum) & (b ^ sum)) < 0;
    return (sum & ~beyond) | (((sum < 0) ^ -128) & beyond);
}
INLINE BYTES SUBS(BYTES a, BYTES b) {
    BYTES sum = (BYTES)((unsigned_bytes)a - (unsigned_bytes)b), beyond = ((a ^ b) & (a ^ sum)) < 0;
    return (sum & ~beyond) | (((sum < 0) ^ -128) & beyond);
}
#define BITS_BY_WORDS
#endif

#ifdef BITS_BY_WORDS
INLINE bits_of_bytes bits_of(BYTES mask) {
    static const BYTES one = {1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128};
    bytes_by_8 sums = (bytes_by_8)(mask & one) * 0x0101010101010101U >> 56; /* byte 7 is the sum of all */
    return (bits_of_bytes)(sums[0] | sums[1] << 8);
}
#endif

INLINE bits_of_bytes where_larger(BYTES a, BYTES b) { return bits_of(a > b); }

INLINE BYTES MAX8(BYTES a, BYTES b) {
    BYTES larger = a > b;
    return (a & larger) | (b & ~larger);
}

INLINE BYTES partner(BYTES x, unsigned k) {
    switch (k) {
        case 0: return (BYTES)((bytes_by_2)x << 8 | (bytes_by_2)x >> 8);
        case 1: return (BYTES)((bytes_by_4)x << 16 | (bytes_by_4)x >> 16);
        case 2: return (BYTES)((bytes_by_8)x << 32 | (bytes_by_8)x >> 32);
        default: return (BYTES)(bytes_by_8){((bytes_by_8)x)[1], ((bytes_by_8)x)[0]};
    }
}

INLINE BYTES halved(BYTES x, int up) { return (x >> 1) + (x & (int8_t)up); }
#endif

INLINE BYTES load_bytes(const void *p) {
    BYTES x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE void store_bytes(void *p, BYTES x) { memcpy(p, &x, sizeof x); }

#endif

/* Part of kernels.c, which is compiled for each instruction set: the rotation of a block, and the largest of what comes of it. */
#ifndef DZ_NUMERIC_KERNELS_ROTATION_H
#define DZ_NUMERIC_KERNELS_ROTATION_H

#include "numeric/kernels.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

static void flip(float *x, uint64_t key, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] = dz_bits_to_float(dz_float_bits(x[i]) ^ (dz_u32_at(key, (uint32_t)i) & 0x80000000U));
}

/* One stage over pairs that lie h apart. */
static void butterflies(float *x, size_t h, size_t count) {
    for (size_t at = 0; at < count; at += 2 * h) {
        float *restrict low = x + at, *restrict high = x + at + h;
        for (size_t i = 0; i < h; i++) {
            float a = low[i], b = high[i];
            low[i] = a + b;
            high[i] = a - b;
        }
    }
}

/* The four stages within 16 floats. */
static void hadamard16(float *x) {
    float a[16], b[16];
    for (size_t i = 0; i < 8; i++) {
        a[2 * i] = x[2 * i] + x[2 * i + 1];
        a[2 * i + 1] = x[2 * i] - x[2 * i + 1];
    }
    for (size_t i = 0; i < 16; i++) b[i] = i & 2 ? a[i - 2] - a[i] : a[i] + a[i + 2];
    for (size_t i = 0; i < 16; i++) a[i] = i & 4 ? b[i - 4] - b[i] : b[i] + b[i + 4];
    for (size_t i = 0; i < 16; i++) x[i] = i & 8 ? a[i - 8] - a[i] : a[i] + a[i + 8];
}

/* The six stages within 64 floats. In a register, a stage swaps the partners: x + partner below, partner - x above. */
#ifdef __AVX512F__
#define STAGE512(x, partner, above)                                                                                                        \
    do {                                                                                                                                   \
        __m512 other = (partner);                                                                                                          \
        (x) = _mm512_mask_sub_ps(_mm512_add_ps((x), other), (above), other, (x));                                                          \
    } while (0)
INLINE __m512 within16(__m512 x) {
    STAGE512(x, _mm512_permute_ps(x, 0xb1), 0xaaaa);
    STAGE512(x, _mm512_permute_ps(x, 0x4e), 0xcccc);
    STAGE512(x, _mm512_shuffle_f32x4(x, x, 0xb1), 0xf0f0);
    STAGE512(x, _mm512_shuffle_f32x4(x, x, 0x4e), 0xff00);
    return x;
}

static void hadamard64(float *x) {
    __m512 x0 = within16(_mm512_loadu_ps(x)), x1 = within16(_mm512_loadu_ps(x + 16));
    __m512 x2 = within16(_mm512_loadu_ps(x + 32)), x3 = within16(_mm512_loadu_ps(x + 48));
    __m512 a = _mm512_add_ps(x0, x1), b = _mm512_sub_ps(x0, x1), c = _mm512_add_ps(x2, x3), d = _mm512_sub_ps(x2, x3);
    _mm512_storeu_ps(x, _mm512_add_ps(a, c));
    _mm512_storeu_ps(x + 16, _mm512_add_ps(b, d));
    _mm512_storeu_ps(x + 32, _mm512_sub_ps(a, c));
    _mm512_storeu_ps(x + 48, _mm512_sub_ps(b, d));
}
#elif defined(__AVX2__)
#define STAGE256(x, partner, above)                                                                                                        \
    do {                                                                                                                                   \
        __m256 other = (partner);                                                                                                          \
        (x) = _mm256_blend_ps(_mm256_add_ps((x), other), _mm256_sub_ps(other, (x)), (above));                                              \
    } while (0)
INLINE __m256 within8(__m256 x) {
    STAGE256(x, _mm256_permute_ps(x, 0xb1), 0xaa);
    STAGE256(x, _mm256_permute_ps(x, 0x4e), 0xcc);
    STAGE256(x, _mm256_permute2f128_ps(x, x, 1), 0xf0);
    return x;
}

static void hadamard64(float *x) {
    __m256 v[8];
    for (size_t i = 0; i < 8; i++) v[i] = within8(_mm256_loadu_ps(x + 8 * i));
    for (size_t h = 1; h < 8; h *= 2) {
        for (size_t i = 0; i < 8; i++) {
            if (i & h) continue;
            __m256 a = v[i], b = v[i + h];
            v[i] = _mm256_add_ps(a, b);
            v[i + h] = _mm256_sub_ps(a, b);
        }
    }
    for (size_t i = 0; i < 8; i++) _mm256_storeu_ps(x + 8 * i, v[i]);
}
#else
static void hadamard64(float *x) {
    for (size_t i = 0; i < 64; i += 16) hadamard16(x + i);
    butterflies(x, 16, 64);
    butterflies(x, 32, 64);
}
#endif

/* Two stages at once, over pairs that lie h and 2 h apart; the results times `norm`. */
INLINE void two_stages(float *x, size_t h, float norm) {
    float *restrict x0 = x, *restrict x1 = x + h, *restrict x2 = x + 2 * h, *restrict x3 = x + 3 * h;
    for (size_t i = 0; i < h; i++) {
        float a = x0[i] + x1[i], b = x0[i] - x1[i], c = x2[i] + x3[i], d = x2[i] - x3[i];
        x0[i] = (a + c) * norm;
        x1[i] = (b + d) * norm;
        x2[i] = (a - c) * norm;
        x3[i] = (b - d) * norm;
    }
}

/* Halves first, so that all but the last stages work within the caches. */
static void stages(float *x, size_t count) {
    if (count > DZ_CHUNK) {
        for (size_t k = 0; k < 4; k++) stages(x + k * (count / 4), count / 4);
        two_stages(x, count / 4, 1);
        return;
    }
    size_t h = count < 16 ? 1 : count < 64 ? 16 : 64;
    for (; h < 16 && h < count; h *= 2) butterflies(x, h, count);
    for (size_t i = 0; h == 16 && count >= 16 && i < count; i += 16) hadamard16(x + i);
    for (size_t i = 0; h == 64 && i < count; i += 64) hadamard64(x + i);
    for (; 2 * h < count; h *= 4) {
        for (size_t i = 0; i < count; i += 4 * h) two_stages(x + i, h, 1);
    }
    if (h < count) butterflies(x, h, count);
}

static void hadamard(float *x, size_t count, float norm) {
    if (count > DZ_CHUNK) { /* a power of four times less, so that the last two stages are one */
        for (size_t k = 0; k < 4; k++) stages(x + k * (count / 4), count / 4);
        two_stages(x, count / 4, norm);
        return;
    }
    stages(x, count);
    for (size_t i = 0; i < count; i++) x[i] *= norm;
}

#define WIDEST 64 /* floats whose comparisons fit a word */

/* The largest |x| of 2^log floats, as an integer, and the first place that has it. */
#ifdef __AVX512F__
INLINE uint32_t largest_of_run(const float *x, unsigned log, uint32_t *place) {
    const __m512i mask = _mm512_set1_epi32(0x7fffffff);
    size_t n = (size_t)1 << log;
    __m512i most = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 16) most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_loadu_si512(x + i), mask));
    int32_t size = _mm512_reduce_max_epi32(most);
    const __m512i wanted = _mm512_set1_epi32(size);
    for (size_t at = 0; at < n; at += WIDEST) {
        uint64_t found = 0;
        for (size_t i = 0; i < WIDEST && at + i < n; i += 16)
            found |= (uint64_t)_mm512_cmpeq_epi32_mask(_mm512_and_si512(_mm512_loadu_si512(x + at + i), mask), wanted) << i;
        if (!found) continue;
        *place = (uint32_t)(at + (size_t)__builtin_ctzll(found));
        break;
    }
    return (uint32_t)size;
}
#define RUNS_BY_VECTORS
#elif defined(__AVX2__)
INLINE uint32_t largest_of_run(const float *x, unsigned log, uint32_t *place) {
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    size_t n = (size_t)1 << log;
    __m256i most = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 8)
        most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)(x + i)), mask));
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    int32_t size = _mm_cvtsi128_si32(half);
    const __m256i wanted = _mm256_set1_epi32(size);
    for (size_t at = 0; at < n; at += WIDEST) {
        uint64_t found = 0;
        for (size_t i = 0; i < WIDEST && at + i < n; i += 8) {
            __m256i here = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)(x + at + i)), mask);
            found |= (uint64_t)(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(here, wanted))) << i;
        }
        if (!found) continue;
        *place = (uint32_t)(at + (size_t)__builtin_ctzll(found));
        break;
    }
    return (uint32_t)size;
}
#define RUNS_BY_VECTORS
#endif

static size_t largest(const float *x, size_t count) {
    int32_t most = 0; /* as integers without the sign bit, floats have the order of their sizes */
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t size = (int32_t)(dz_float_bits(x[i]) & 0x7fffffffU);
        most = size > most ? size : most;
    }
    while ((int32_t)(dz_float_bits(x[at]) & 0x7fffffffU) != most) at++;
    return at;
}

#ifdef RUNS_BY_VECTORS
INLINE void runs_of(uint32_t *restrict size, uint32_t *restrict place, const float *restrict x, unsigned log, size_t runs) {
    for (size_t r = 0; r < runs; r++) size[r] = largest_of_run(x + (r << log), log, &place[r]);
}
#endif

/* Runs of 1, 2, 4 or 8: without a branch. */
INLINE void short_runs(uint32_t *restrict size, uint32_t *restrict place, const float *restrict x, size_t n, size_t runs) {
    for (size_t r = 0; r < runs; r++) {
        uint32_t most = dz_float_bits(x[n * r]) & 0x7fffffffU, at = 0;
        for (uint32_t j = 1; j < n; j++) {
            uint32_t here = dz_float_bits(x[n * r + j]) & 0x7fffffffU;
            at = here > most ? j : at;
            most = here > most ? here : most;
        }
        size[r] = most;
        place[r] = at;
    }
}

#ifdef __AVX512F__
/* Of the lanes and their partners the larger size; of two as large the one of the lower place. */
INLINE void keep_larger(__m512i *size, __m512i *place, __m512i other, __m512i other_place, __mmask16 above) {
    __mmask16 more = _mm512_cmpgt_epi32_mask(other, *size), as_much = _mm512_cmpge_epi32_mask(other, *size);
    __mmask16 taken = (__mmask16)((more & ~above) | (as_much & above));
    *size = _mm512_max_epi32(*size, other);
    *place = _mm512_mask_mov_epi32(*place, taken, other_place);
}

/* Runs of 1 << log floats, log from 1 to 3, as many as fill whole registers; returns how many. */
INLINE size_t runs_in_registers(uint32_t *restrict size, uint32_t *restrict place, const float *restrict x, unsigned log, size_t runs) {
    const __m512i mask = _mm512_set1_epi32(0x7fffffff), lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i first = _mm512_and_si512(lane, _mm512_set1_epi32((1 << log) - 1));
    const __mmask16 wanted = log == 1 ? 0x5555 : log == 2 ? 0x1111 : 0x0101;
    const size_t each = (size_t)16 >> log;
    size_t r = 0;
    for (; r + each <= runs; r += each) {
        __m512i s = _mm512_and_si512(_mm512_loadu_si512(x + (r << log)), mask), p = first;
        keep_larger(&s, &p, _mm512_shuffle_epi32(s, 0xb1), _mm512_shuffle_epi32(p, 0xb1), 0xaaaa);
        if (log >= 2) keep_larger(&s, &p, _mm512_shuffle_epi32(s, 0x4e), _mm512_shuffle_epi32(p, 0x4e), 0xcccc);
        if (log >= 3) keep_larger(&s, &p, _mm512_shuffle_i32x4(s, s, 0xb1), _mm512_shuffle_i32x4(p, p, 0xb1), 0xf0f0);
        _mm512_storeu_si512(size + r, _mm512_maskz_compress_epi32(wanted, s));
        _mm512_storeu_si512(place + r, _mm512_maskz_compress_epi32(wanted, p));
    }
    return r;
}
#else
INLINE size_t runs_in_registers(uint32_t *restrict size, uint32_t *restrict place, const float *restrict x, unsigned log, size_t runs) {
    (void)size, (void)place, (void)x, (void)log, (void)runs;
    return 0;
}
#endif

#define SHORT(log)                                                                                                                         \
    done = (log) ? runs_in_registers(size, place, x, log, runs) : 0;                                                                       \
    short_runs(size + done, place + done, x + (done << (log)), (size_t)1 << (log), runs - done);                                           \
    break

static void largest_of_runs(uint32_t *restrict size, uint32_t *restrict place, const float *restrict x, unsigned log, size_t runs) {
    size_t done;
    switch (log) { /* the loops within a run unrolled */
        case 0: SHORT(0);
        case 1: SHORT(1);
        case 2: SHORT(2);
        case 3: SHORT(3);
#ifdef RUNS_BY_VECTORS
        case 4: runs_of(size, place, x, 4, runs); break;
        case 5: runs_of(size, place, x, 5, runs); break;
        case 6: runs_of(size, place, x, 6, runs); break;
        default: runs_of(size, place, x, log, runs);
#else
        default:
            for (size_t r = 0; r < runs; r++) {
                place[r] = (uint32_t)largest(x + (r << log), (size_t)1 << log);
                size[r] = dz_float_bits(x[(r << log) + place[r]]) & 0x7fffffffU;
            }
#endif
    }
}

#endif

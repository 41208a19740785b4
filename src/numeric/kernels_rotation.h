/* Part of kernels.c, which is compiled for each instruction set: the rotation of a block, and the largest of what comes of it. */
#ifndef DZ_NUMERIC_KERNELS_ROTATION_H
#define DZ_NUMERIC_KERNELS_ROTATION_H

#include "numeric/kernels.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

#define PASS_MOST 3 /* stages at once, */
#define TOP_MOST 2  /* and over floats so far apart that more of them would push each other out of the first-level cache */

/* FLOATS: as many as the instruction set takes at once. */
#ifdef __AVX512F__
#define FLOATS_WIDTH 64
#elif defined(__AVX2__)
#define FLOATS_WIDTH 32
#else
#define FLOATS_WIDTH 16
#endif
typedef float FLOATS __attribute__((vector_size(FLOATS_WIDTH)));
typedef uint32_t WORDS __attribute__((vector_size(FLOATS_WIDTH)));
#define FLOATS_LANES (FLOATS_WIDTH / sizeof(float))

INLINE FLOATS load_floats(const float *x) {
    FLOATS out;
    memcpy(&out, x, sizeof out);
    return out;
}

INLINE void store_floats(float *x, FLOATS v) { memcpy(x, &v, sizeof v); }

/* Elements from number `first` of the key's on: negated where the top bit of dz_u32_at is set. */
INLINE FLOATS flipped(FLOATS v, uint64_t key, uint32_t first) {
    static const uint32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    WORDS x;
    memcpy(&x, lanes, sizeof x);
    x += first + (uint32_t)key;
    DZ_MIX(x, key);
    return (FLOATS)((WORDS)v ^ (x & 0x80000000U));
}

static void flip(float *x, uint64_t key, size_t count) {
    size_t i = 0;
    for (; i + FLOATS_LANES <= count; i += FLOATS_LANES) store_floats(x + i, flipped(load_floats(x + i), key, (uint32_t)i));
    for (; i < count; i++) x[i] = dz_bits_to_float(dz_float_bits(x[i]) ^ (dz_u32_at(key, (uint32_t)i) & 0x80000000U));
}

/* The stages within a register: x + partner below, partner - x above, which is one fused operation, rounded as the sum is. */
#ifdef __AVX512F__
INLINE FLOATS within_floats(FLOATS of) {
    __m512 x = of;
    x = _mm512_fmadd_ps(x, _mm512_setr_ps(1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1), _mm512_permute_ps(x, 0xb1));
    x = _mm512_fmadd_ps(x, _mm512_setr_ps(1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1), _mm512_permute_ps(x, 0x4e));
    x = _mm512_fmadd_ps(x, _mm512_setr_ps(1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1), _mm512_shuffle_f32x4(x, x, 0xb1));
    return _mm512_fmadd_ps(x, _mm512_setr_ps(1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1), _mm512_shuffle_f32x4(x, x, 0x4e));
}
#elif defined(__AVX2__)
INLINE FLOATS within_floats(FLOATS of) {
    __m256 x = of;
    x = _mm256_fmadd_ps(x, _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1), _mm256_permute_ps(x, 0xb1));
    x = _mm256_fmadd_ps(x, _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1), _mm256_permute_ps(x, 0x4e));
    return _mm256_fmadd_ps(x, _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1), _mm256_permute2f128_ps(x, x, 1));
}
#else
INLINE FLOATS within_floats(FLOATS x) {
    FLOATS a = {x[0] + x[1], x[0] - x[1], x[2] + x[3], x[2] - x[3]};
    return (FLOATS){a[0] + a[2], a[1] + a[3], a[0] - a[2], a[1] - a[3]};
}
#endif

/* All stages over pairs of `n` vectors: 1, 2, 4 ... of them apart. */
INLINE void stages_of_vectors(FLOATS *v, size_t n) {
    for (size_t h = 1; h < n; h *= 2) {
        for (size_t j = 0; j < n; j++) {
            if (j & h) continue;
            FLOATS a = v[j], b = v[j + h];
            v[j] = a + b;
            v[j + h] = a - b;
        }
    }
}

enum { WITHIN = 64 };

/* The six stages within 64 floats, which are negated before if `flips`. */
INLINE void hadamard64(float *x, int flips, uint64_t key) {
    enum { N = WITHIN / FLOATS_LANES };
    FLOATS v[N];
    for (size_t j = 0; j < N; j++) {
        v[j] = load_floats(x + j * FLOATS_LANES);
        v[j] = within_floats(flips ? flipped(v[j], key, (uint32_t)(j * FLOATS_LANES)) : v[j]);
    }
    stages_of_vectors(v, N);
    for (size_t j = 0; j < N; j++) store_floats(x + j * FLOATS_LANES, v[j]);
}

/* `log` stages at once, over pairs that lie h, 2 h, 4 h ... apart, in 2^log * h floats, which are read and written once. Then times `norm`,
 * and negated if `flips`. */
INLINE void pass(float *x, size_t h, unsigned log, float norm, int flips, uint64_t key) {
    const size_t n = (size_t)1 << log;
    for (size_t i = 0; i < h; i += FLOATS_LANES) {
        FLOATS v[1 << PASS_MOST];
        for (size_t j = 0; j < n; j++) v[j] = load_floats(x + j * h + i);
        stages_of_vectors(v, n);
        for (size_t j = 0; j < n; j++) {
            FLOATS y = v[j] * norm;
            store_floats(x + j * h + i, flips ? flipped(y, key, (uint32_t)(j * h + i)) : y);
        }
    }
}

static void pass_of(float *x, size_t h, unsigned log, float norm, int flips, uint64_t key) {
#define PASS(log)                                                                                                                          \
    if (flips)                                                                                                                             \
        pass(x, h, log, norm, 1, key);                                                                                                     \
    else if (norm == 1)                                                                                                                    \
        pass(x, h, log, 1, 0, 0);                                                                                                          \
    else                                                                                                                                   \
        pass(x, h, log, norm, 0, 0);                                                                                                       \
    break
    switch (log) {
        case 0: PASS(0);
        case 1: PASS(1);
        case 2: PASS(2);
        default: PASS(3);
    }
}

/* Of fewer than WITHIN floats. */
static void hadamard_few(float *x, size_t count, float norm) {
    for (size_t h = 1; h < count; h *= 2) {
        for (size_t i = 0; i < count; i++) {
            if (i & h) continue;
            float a = x[i], b = x[i + h];
            x[i] = a + b;
            x[i + h] = a - b;
        }
    }
    for (size_t i = 0; i < count; i++) x[i] *= norm;
}

/* Parts first, so that all but the last pass work within the first-level cache. */
static void hadamard(float *x, size_t count, float norm, dz_flips flips, uint64_t key) {
    int before = flips == DZ_FLIPS_BEFORE, after = flips == DZ_FLIPS_AFTER;
    if (count < WITHIN) {
        if (before) flip(x, key, count);
        hadamard_few(x, count, norm);
        if (after) flip(x, key, count);
        return;
    }
    unsigned log = (unsigned)__builtin_ctzll(count);
    if (count > DZ_CHUNK) {
        unsigned last = (unsigned)__builtin_ctzll(count / DZ_CHUNK);
        last = last < TOP_MOST ? last : TOP_MOST;
        size_t part = count >> last;
        for (size_t at = 0; at < count; at += part)
            hadamard(x + at, part, 1, before ? DZ_FLIPS_BEFORE : DZ_FLIPS_NONE, dz_key_at(key, (uint32_t)at));
        pass_of(x, part, last, norm, after, key);
        return;
    }
    if (before) {
        for (size_t i = 0; i < count; i += WITHIN) hadamard64(x + i, 1, dz_key_at(key, (uint32_t)i));
    } else {
        for (size_t i = 0; i < count; i += WITHIN) hadamard64(x + i, 0, 0);
    }
    size_t h = WITHIN;
    for (log -= 6; log > 3; log -= 3, h *= 8) {
        for (size_t i = 0; i < count; i += 8 * h) pass_of(x + i, h, 3, 1, 0, 0);
    }
    pass_of(x, h, log, norm, after, key);
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

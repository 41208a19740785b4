/* Part of kernels.c, which is compiled for each instruction set: the steps of the search for a message (numeric/trellis.h). */
#ifndef DZ_NUMERIC_KERNELS_TRELLIS_H
#define DZ_NUMERIC_KERNELS_TRELLIS_H

#include <string.h>

#include "numeric/kernels_rotation.h"

#define HALF (DZ_TRELLIS_STATES / 2)
#define STEPS DZ_TRELLIS_GROUP /* steps of a group: as many as a state has bits, so that a state is what came in during its group */
#define FLOOR (-60)            /* where the largest sum is put after each group: less than 100 below it are all that matter */
#define FOUR DZ_TRELLIS_FOUR

INLINE int8_t saturated(int x) { return (int8_t)(x > 127 ? 127 : x < -128 ? -128 : x); }

static void trellis_round(int8_t *restrict out, const float *restrict x, size_t n, float scale, float most) {
    for (size_t i = 0; i < n; i++) {
        float y = x[i] * scale;
        y = y < most ? y : most;
        y = y > -most ? y : -most;
        out[i] = (int8_t)(dz_float_bits(y + 0x1.8p23f) - dz_float_bits(0x1.8p23f)); /* to the nearest, half to even */
    }
}

INLINE uint32_t four_of(const int8_t *x, size_t left) {
    static const uint32_t some[5] = {0, 0xff, 0xffff, 0xffffff, 0xffffffff};
    uint32_t four;
    memcpy(&four, x, 4);
    return four & some[left < 4 ? left : 4];
}

static void trellis_pack(int8_t *restrict out, const int8_t *restrict x, const uint32_t *restrict starts, size_t nbits, size_t fours) {
    size_t t = 0;
#if defined __AVX512F__ && defined __AVX512BW__
    for (; fours == 1 && t + 16 <= nbits; t += 16) {
        __m512i at = _mm512_loadu_si512(starts + t), left = _mm512_sub_epi32(_mm512_loadu_si512(starts + t + 1), at);
        __m512i beyond = _mm512_sllv_epi32(_mm512_set1_epi32(-1), _mm512_slli_epi32(left, 3));
        _mm512_storeu_si512(out + 4 * t, _mm512_andnot_si512(beyond, _mm512_i32gather_epi32(at, x, 1)));
    }
#elif defined __AVX2__
    for (; fours == 1 && t + 8 <= nbits; t += 8) {
        __m256i at = _mm256_loadu_si256((const __m256i *)(const void *)(starts + t));
        __m256i left = _mm256_sub_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(starts + t + 1)), at);
        __m256i beyond = _mm256_sllv_epi32(_mm256_set1_epi32(-1), _mm256_slli_epi32(left, 3));
        _mm256_storeu_si256((__m256i *)(void *)(out + 4 * t),
                            _mm256_andnot_si256(beyond, _mm256_i32gather_epi32((const int *)(const void *)x, at, 1)));
    }
#endif
#ifdef __AVX2__
    for (; fours > 1 && t + FOUR <= nbits; t += FOUR) {
        for (size_t f = 0; f < fours; f += 4) { /* 16 elements of four steps, four by four */
            __m128i of[4];
            for (size_t i = 0; i < FOUR; i++) {
                size_t count = starts[t + i + 1] - starts[t + i], left = count > 4 * f ? count - 4 * f : 0;
                static const int8_t some[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
                of[i] = _mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)(x + starts[t + i] + 4 * f)),
                                      _mm_loadu_si128((const __m128i *)(const void *)(some + 16 - (left < 16 ? left : 16))));
            }
            __m128i a = _mm_unpacklo_epi32(of[0], of[1]), b = _mm_unpacklo_epi32(of[2], of[3]);
            __m128i c = _mm_unpackhi_epi32(of[0], of[1]), d = _mm_unpackhi_epi32(of[2], of[3]);
            __m128i put[4] = {_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b), _mm_unpacklo_epi64(c, d), _mm_unpackhi_epi64(c, d)};
            for (size_t i = 0; i < 4 && f + i < fours; i++)
                _mm_storeu_si128((__m128i *)(void *)(out + 4 * t * fours + 4 * FOUR * (f + i)), put[i]);
        }
    }
#endif
    for (; t < nbits; t++) {
        size_t count = starts[t + 1] - starts[t];
        for (size_t f = 0; f < fours; f++) {
            uint32_t four = four_of(x + starts[t] + 4 * f, count > 4 * f ? count - 4 * f : 0);
            memcpy(out + t / FOUR * 4 * FOUR * fours + 4 * FOUR * f + t % FOUR * 4, &four, 4);
        }
    }
}

/* ---- in the order of the states ---- */

/* x[j], negated where the state and middle[j] share an odd number of bits, over all j: by a Walsh-Hadamard transform. */
static void trellis_long_gains(int32_t *restrict gain, const int8_t *restrict x, const uint8_t *restrict middle, size_t count) {
    memset(gain, 0, HALF * sizeof *gain);
    for (size_t j = 0; j < count; j++) gain[middle[j]] += x[j];
    for (size_t h = 1; h < HALF; h *= 2) {
        for (size_t at = 0; at < HALF; at += 2 * h) {
            int32_t *restrict low = gain + at, *restrict high = gain + at + h;
            for (size_t i = 0; i < h; i++) {
                int32_t a = low[i], b = high[i];
                low[i] = a + b;
                high[i] = a - b;
            }
        }
    }
}

INLINE void plain_step(int8_t *restrict next, uint8_t *restrict next_from, const int8_t *restrict now, const uint8_t *restrict from,
                       const int8_t *restrict gain) {
    for (size_t m = 0; m < HALF; m++) {
        int even = now[2 * m], odd = now[2 * m + 1], g = gain[m];
        int8_t a = saturated(even + g), b = saturated(odd - g), c = saturated(even - g), d = saturated(odd + g);
        next[m] = b > a ? b : a;
        next_from[m] = b > a ? from[2 * m + 1] : from[2 * m];
        next[HALF + m] = c > d ? c : d;
        next_from[HALF + m] = c > d ? from[2 * m] : from[2 * m + 1];
    }
}

static void trellis_step(int8_t *restrict sums, uint8_t *restrict from, const int8_t *restrict gain) {
    int8_t next[DZ_TRELLIS_STATES];
    uint8_t next_from[DZ_TRELLIS_STATES];
    plain_step(next, next_from, sums, from, gain);
    memcpy(sums, next, sizeof next);
    memcpy(from, next_from, sizeof next_from);
}

/* ---- what a message makes of the elements ---- */

#define CHUNK 64 /* groups */

static int64_t trellis_product(const uint8_t *restrict message, size_t nbits, const int8_t *restrict x, const uint32_t *restrict flips,
                               size_t fours) {
    uint32_t flip[CHUNK * STEPS];
    int64_t total = 0;
    for (size_t f = 0; f < fours; f++, flips += DZ_TRELLIS_WINDOWS) {
        for (size_t first = 0; first < nbits; first += CHUNK * STEPS) {
            size_t steps = nbits - first < CHUNK * STEPS ? nbits - first : CHUNK * STEPS;
            int32_t sum = 0;
            for (size_t g = 0; g < (steps + STEPS - 1) / STEPS; g++) {
                size_t at = first / STEPS + g;
                unsigned bits = (unsigned)message[at] << STEPS | (at ? message[at - 1] : 0);
                for (unsigned k = 0; k < STEPS; k++) flip[STEPS * g + k] = flips[bits >> k & (DZ_TRELLIS_WINDOWS - 1)];
            }
            for (size_t t = 0; t < steps / FOUR * FOUR; t += FOUR) {
                const int8_t *of = x + (first + t) * 4 * fours + f * 4 * FOUR, *sign = (const int8_t *)(flip + t);
                for (size_t i = 0; i < 4 * FOUR; i++) sum += (int8_t)((of[i] ^ sign[i]) - sign[i]);
            }
            for (size_t t = steps / FOUR * FOUR; t < steps; t++) {
                const int8_t *of = x + (first + steps / FOUR * FOUR) * 4 * fours + f * 4 * FOUR + t % FOUR * 4,
                             *sign = (const int8_t *)(flip + t);
                for (size_t i = 0; i < 4; i++) sum += (int8_t)((of[i] ^ sign[i]) - sign[i]);
            }
            total += sum;
        }
    }
    return total;
}

/* ---- groups of steps in registers ---- */

#ifdef __AVX2__
INLINE int8_t largest_of_16(__m128i x) {
    x = _mm_max_epi8(x, _mm_shuffle_epi32(x, 0x4e));
    x = _mm_max_epi8(x, _mm_shuffle_epi32(x, 0xb1));
    x = _mm_max_epi8(x, _mm_srli_epi32(x, 16));
    x = _mm_max_epi8(x, _mm_srli_epi16(x, 8));
    return (int8_t)_mm_cvtsi128_si32(x);
}
#endif

/* The two states behind a pair of states stay in the pair's places: after k steps of a group bit b of a place is bit (b - k) % 8 of its
 * state, and after all 8 each state is in its own place again. In step k a place's partner is k bits off. `signs` has the elements' signs
 * for each place of each step. */
#if defined __AVX512F__ && defined __AVX512BW__
#define NBYTES 4
#define BYTES __m512i
#define LOAD(p) _mm512_loadu_si512(p)
#define ADDS _mm512_adds_epi8
#define SUBS _mm512_subs_epi8
#define MAX8 _mm512_max_epi8
#define ALL8(x) _mm512_set1_epi8(x)
#define BETTER(own, from, own_from, other, other_from)                                                                                     \
    do {                                                                                                                                   \
        __mmask64 taken = _mm512_cmpgt_epi8_mask(other, own);                                                                              \
        (from) = _mm512_mask_mov_epi8(own_from, taken, other_from);                                                                        \
    } while (0)

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
#define LANE_STEPS 6

#define HALVED(x, up)                                                                                                                      \
    _mm512_xor_si512(_mm512_avg_epu8(_mm512_xor_si512(x, _mm512_set1_epi8(-128)), _mm512_set1_epi8((up) ? -128 : 127)),                    \
                     _mm512_set1_epi8(-128))

/* The tables of four steps: 16 bytes for each. */
INLINE void tables(int8_t *restrict out, const int8_t *restrict x, int halved, int up) {
    const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
#define PLACE(b, i) ((b) + 4 * ((i) >> (b)&1))
#define PLACES(b)                                                                                                                          \
    _mm512_broadcast_i32x4(_mm_setr_epi8(PLACE(b, 0), PLACE(b, 1), PLACE(b, 2), PLACE(b, 3), PLACE(b, 4), PLACE(b, 5), PLACE(b, 6),        \
                                         PLACE(b, 7), PLACE(b, 8), PLACE(b, 9), PLACE(b, 10), PLACE(b, 11), PLACE(b, 12), PLACE(b, 13),    \
                                         PLACE(b, 14), PLACE(b, 15)))
    __m512i y = _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)x)));
    y = _mm512_mask_sub_epi8(y, 0xf0f0f0f0f0f0f0f0U, _mm512_setzero_si512(), y);
    __m512i a = _mm512_adds_epi8(_mm512_shuffle_epi8(y, PLACES(0)), _mm512_shuffle_epi8(y, PLACES(1)));
    __m512i b = _mm512_adds_epi8(_mm512_shuffle_epi8(y, PLACES(2)), _mm512_shuffle_epi8(y, PLACES(3)));
    a = _mm512_adds_epi8(a, b);
    _mm512_store_si512(out, halved ? HALVED(a, up) : a);
}
#define LOOK_UP(table, places)                                                                                                             \
    _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(const void *)(table))), LOAD(places))

INLINE int8_t largest_sum(const BYTES *sums) {
    __m512i all = MAX8(MAX8(sums[0], sums[1]), MAX8(sums[2], sums[3]));
    __m256i half = _mm256_max_epi8(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return largest_of_16(_mm_max_epi8(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}
#elif defined __AVX2__
#define NBYTES 8
#define BYTES __m256i
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define ADDS _mm256_adds_epi8
#define SUBS _mm256_subs_epi8
#define MAX8 _mm256_max_epi8
#define ALL8(x) _mm256_set1_epi8(x)
#define BETTER(own, from, own_from, other, other_from) (from) = _mm256_blendv_epi8(own_from, other_from, _mm256_cmpgt_epi8(other, own))

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
#define LANE_STEPS 5

#define HALVED(x, up)                                                                                                                      \
    _mm256_xor_si256(_mm256_avg_epu8(_mm256_xor_si256(x, _mm256_set1_epi8(-128)), _mm256_set1_epi8((up) ? -128 : 127)),                    \
                     _mm256_set1_epi8(-128))

INLINE void tables(int8_t *restrict out, const int8_t *restrict x, int halved, int up) {
    const __m256i negative = _mm256_set1_epi64x((int64_t)0xffffffff00000000U), spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
#define PLACE(b, i) ((b) + 4 * ((i) >> (b)&1))
#define PLACES(b)                                                                                                                          \
    _mm256_broadcastsi128_si256(_mm_setr_epi8(PLACE(b, 0), PLACE(b, 1), PLACE(b, 2), PLACE(b, 3), PLACE(b, 4), PLACE(b, 5), PLACE(b, 6),   \
                                              PLACE(b, 7), PLACE(b, 8), PLACE(b, 9), PLACE(b, 10), PLACE(b, 11), PLACE(b, 12),             \
                                              PLACE(b, 13), PLACE(b, 14), PLACE(b, 15)))
    for (size_t k = 0; k < 2; k++) {
        __m256i y = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(const void *)(x + 8 * k)));
        y = _mm256_permutevar8x32_epi32(y, spread);
        y = _mm256_sub_epi8(_mm256_xor_si256(y, negative), negative);
        __m256i a = _mm256_adds_epi8(_mm256_shuffle_epi8(y, PLACES(0)), _mm256_shuffle_epi8(y, PLACES(1)));
        __m256i b = _mm256_adds_epi8(_mm256_shuffle_epi8(y, PLACES(2)), _mm256_shuffle_epi8(y, PLACES(3)));
        a = _mm256_adds_epi8(a, b);
        _mm256_store_si256((__m256i *)(void *)(out + 32 * k), halved ? HALVED(a, up) : a);
    }
}
#define LOOK_UP(table, places)                                                                                                             \
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(const void *)(table))), LOAD(places))

INLINE int8_t largest_sum(const BYTES *sums) {
    __m256i all = sums[0];
    for (size_t v = 1; v < NBYTES; v++) all = MAX8(all, sums[v]);
    return largest_of_16(_mm_max_epi8(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
}
#endif

#ifdef NBYTES
#define WIDTH (DZ_TRELLIS_STATES / NBYTES)

#define APART(k) ((k) < LANE_STEPS ? 0 : (size_t)1 << ((k)-LANE_STEPS)) /* vectors between partners */

/* Gains of step k of a group, place by place; where partners are in two vectors, for the first of them. */
INLINE void gains(BYTES *gain, const int8_t *table, const uint8_t *signs, unsigned k, size_t fours, unsigned halvings) {
    const uint8_t *of = signs + k * DZ_TRELLIS_STATES;
    for (size_t v = 0; v < NBYTES; v++) {
        if (!(v & APART(k))) gain[v] = LOOK_UP(table, of + v * WIDTH);
    }
    for (size_t f = 1; f < fours; f++) {
        table += 16 * FOUR;
        of += STEPS * DZ_TRELLIS_STATES;
        for (size_t v = 0; v < NBYTES; v++) {
            if (!(v & APART(k))) gain[v] = ADDS(gain[v], LOOK_UP(table, of + v * WIDTH));
        }
    }
    for (size_t v = 0; v < NBYTES && halvings > 1; v++) {
        if (!(v & APART(k))) gain[v] = HALVED(gain[v], 1);
    }
}

INLINE void step(BYTES *sums, BYTES *from, const BYTES *gain, unsigned k) {
    if (k < LANE_STEPS) {
        for (size_t v = 0; v < NBYTES; v++) {
            BYTES own = ADDS(sums[v], gain[v]), other = SUBS(partner(sums[v], k), gain[v]);
            BETTER(own, from[v], from[v], other, partner(from[v], k));
            sums[v] = MAX8(own, other);
        }
        return;
    }
    const size_t apart = APART(k);
    for (size_t v = 0; v < NBYTES; v++) {
        if (v & apart) continue;
        BYTES g = gain[v], even = sums[v], odd = sums[v + apart], even_from = from[v], odd_from = from[v + apart];
        BYTES a = ADDS(even, g), b = SUBS(odd, g), c = SUBS(even, g), d = ADDS(odd, g);
        BETTER(a, from[v], even_from, b, odd_from);
        BETTER(d, from[v + apart], odd_from, c, even_from);
        sums[v] = MAX8(a, b);
        sums[v + apart] = MAX8(d, c);
    }
}

#define STEP(k)                                                                                                                            \
    gains(gain, table + 16 * ((k) % FOUR) + (k) / FOUR * 16 * FOUR * fours, signs, k, fours, halvings);                                    \
    step(sums, from, gain, k)

INLINE void walk(int8_t *restrict now, uint8_t *restrict from_out, const int8_t *restrict x, const uint8_t *restrict signs, size_t fours,
                 unsigned halvings, size_t groups) {
    BYTES sums[NBYTES], from[NBYTES], gain[NBYTES] = {0}, start[NBYTES];
    int8_t table[STEPS * 16 * DZ_TRELLIS_FOURS_MOST] __attribute__((aligned(64)));
    uint8_t places[DZ_TRELLIS_STATES];
    for (size_t i = 0; i < DZ_TRELLIS_STATES; i++) places[i] = (uint8_t)i;
    for (size_t v = 0; v < NBYTES; v++) {
        start[v] = LOAD(places + v * WIDTH);
        sums[v] = LOAD(now + v * WIDTH);
    }
    for (size_t g = 0; g < groups; g++) {
        for (size_t f = 0; f < STEPS / FOUR * fours; f++) tables(table + 16 * FOUR * f, x + 4 * FOUR * f, halvings > 0, f % fours % 2 == 0);
        x += STEPS * 4 * fours;
        for (size_t v = 0; v < NBYTES; v++) from[v] = start[v];
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
        BYTES less = ALL8(saturated(largest_sum(sums) - FLOOR));
        STEP(4);
        STEP(5);
        STEP(6);
        STEP(7);
        for (size_t v = 0; v < NBYTES; v++) {
            sums[v] = SUBS(sums[v], less);
            memcpy(from_out + v * WIDTH, &from[v], WIDTH);
        }
        from_out += DZ_TRELLIS_STATES;
    }
    for (size_t v = 0; v < NBYTES; v++) memcpy(now + v * WIDTH, &sums[v], WIDTH);
}

static void trellis_walk(int8_t *restrict now, uint8_t *restrict from, const int8_t *restrict x, const uint8_t *restrict signs,
                         size_t fours, unsigned halvings, size_t groups) {
    switch (fours + 4 * halvings) { /* the usual ones with loops unrolled */
        case 1: walk(now, from, x, signs, 1, 0, groups); break;
        case 1 + 4: walk(now, from, x, signs, 1, 1, groups); break;
        case 2 + 4: walk(now, from, x, signs, 2, 1, groups); break;
        case 2 + 8: walk(now, from, x, signs, 2, 2, groups); break;
        case 3 + 8: walk(now, from, x, signs, 3, 2, groups); break;
        default: walk(now, from, x, signs, fours, halvings, groups);
    }
}
#else
/* Sums of four elements for each of the 16 choices of their signs. */
INLINE void plain_table(int8_t table[16], const int8_t *x, int halved, int up) {
    for (int i = 0; i < 16; i++)
        table[i] = saturated(saturated((i & 1 ? -x[0] : x[0]) + (i & 2 ? -x[1] : x[1])) +
                             saturated((i & 4 ? -x[2] : x[2]) + (i & 8 ? -x[3] : x[3])));
    for (int i = 0; halved && i < 16; i++) table[i] = (int8_t)((table[i] + up) >> 1);
}

INLINE void plain_gains(int8_t *restrict gain, const int8_t *restrict x, const uint8_t *restrict signs, size_t fours, unsigned halvings) {
    for (size_t f = 0; f < fours; f++) {
        int8_t table[16];
        const uint8_t *of = signs + f * STEPS * DZ_TRELLIS_STATES;
        plain_table(table, x + 4 * FOUR * f, halvings > 0, f % 2 == 0);
        for (size_t m = 0; m < HALF; m++) gain[m] = f ? saturated(gain[m] + table[of[2 * m]]) : table[of[2 * m]];
    }
    for (size_t m = 0; halvings > 1 && m < HALF; m++) gain[m] = (int8_t)((gain[m] + 1) >> 1);
}

INLINE int8_t plain_top(const int8_t *sums) {
    int8_t top = sums[0];
    for (size_t i = 1; i < DZ_TRELLIS_STATES; i++) top = sums[i] > top ? sums[i] : top;
    return top;
}

static void some_steps(int8_t *restrict sums, uint8_t *restrict from, const int8_t *restrict x, const uint8_t *restrict signs, size_t fours,
                       unsigned halvings, size_t steps) {
    int8_t gain[HALF];
    for (size_t t = 0; t < steps; t++) {
        plain_gains(gain, x + t / FOUR * 4 * FOUR * fours + t % FOUR * 4, signs, fours, halvings);
        trellis_step(sums, from, gain);
    }
}

static void trellis_walk(int8_t *restrict now, uint8_t *restrict from, const int8_t *restrict x, const uint8_t *restrict signs,
                         size_t fours, unsigned halvings, size_t groups) {
    for (size_t g = 0; g < groups; g++, from += DZ_TRELLIS_STATES, x += STEPS * 4 * fours) {
        for (size_t i = 0; i < DZ_TRELLIS_STATES; i++) from[i] = (uint8_t)i;
        some_steps(now, from, x, signs, fours, halvings, STEPS / 2);
        int less = saturated(plain_top(now) - FLOOR);
        some_steps(now, from, x + STEPS / 2 * 4 * fours, signs, fours, halvings, STEPS / 2);
        for (size_t i = 0; i < DZ_TRELLIS_STATES; i++) now[i] = saturated(now[i] - less);
    }
}
#endif

#endif

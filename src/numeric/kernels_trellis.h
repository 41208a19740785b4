/* Part of kernels.c, which is compiled for each instruction set: the steps of the search for a message (numeric/trellis.h). */
#ifndef DZ_NUMERIC_KERNELS_TRELLIS_H
#define DZ_NUMERIC_KERNELS_TRELLIS_H

#include <string.h>

#include "numeric/kernels_rotation.h"

/* signs[r][l] = -1 where the integers r and l share an odd number of bits, else 0: rows of a Hadamard matrix. */
#define ROW(r)                                                                                                                             \
    {                                                                                                                                      \
        SIGN(r, 0), SIGN(r, 1), SIGN(r, 2), SIGN(r, 3), SIGN(r, 4), SIGN(r, 5), SIGN(r, 6), SIGN(r, 7), SIGN(r, 8), SIGN(r, 9),            \
            SIGN(r, 10), SIGN(r, 11), SIGN(r, 12), SIGN(r, 13), SIGN(r, 14), SIGN(r, 15)                                                   \
    }
#define SIGN(r, l) -((((r) & (l)) ^ ((r) & (l)) >> 1 ^ ((r) & (l)) >> 2 ^ ((r) & (l)) >> 3) & 1)
static const int32_t SIGNS[16][16] = {ROW(0), ROW(1), ROW(2),  ROW(3),  ROW(4),  ROW(5),  ROW(6),  ROW(7),
                                      ROW(8), ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15)};

/* gain[m] = sum over j of x[j], negated where m and middle[j] share an odd number of bits. */
INLINE void branch_gains(int32_t *restrict gain, const int16_t *restrict x, const uint16_t *restrict middle, size_t count, size_t half) {
    memset(gain, 0, half * sizeof *gain);
    for (size_t j = 0; j < count; j++) {
        int32_t *restrict at = gain + (middle[j] & ~(size_t)15), value = x[j];
        const int32_t *sign = SIGNS[middle[j] & 15];
        for (size_t l = 0; l < 16; l++) at[l] += (value ^ sign[l]) - sign[l];
    }
    for (size_t h = 16; h < half; h *= 2) {
        for (size_t at = 0; at < half; at += 2 * h) {
            int32_t *restrict low = gain + at, *restrict high = gain + at + h;
            for (size_t i = 0; i < h; i++) {
                int32_t a = low[i], b = high[i];
                low[i] = a + b;
                high[i] = a - b;
            }
        }
    }
}

INLINE void trellis_step(int32_t *restrict next, const int32_t *restrict now, uint8_t *restrict from, const int16_t *restrict x,
                         const uint16_t *restrict middle, size_t count, size_t half) {
    int32_t gain[DZ_TRELLIS_HALF_MOST];
    branch_gains(gain, x, middle, count, half);
#ifdef __AVX2__
#define INT8(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define HALVES(a, b, which)                                                                                                                \
    _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), which)), 0xd8)
    for (size_t m = 0; m < half; m += 8) {
        __m256i first = INT8(now + 2 * m), second = INT8(now + 2 * m + 8), g = INT8(gain + m);
        __m256i even = HALVES(first, second, 0x88), odd = HALVES(first, second, 0xdd);
        __m256i a = _mm256_add_epi32(even, g), b = _mm256_sub_epi32(odd, g), c = _mm256_sub_epi32(even, g), d = _mm256_add_epi32(odd, g);
        from[m / 8] = (uint8_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a)));
        from[(half + m) / 8] = (uint8_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(d, c)));
        _mm256_storeu_si256((__m256i *)(void *)(next + m), _mm256_max_epi32(a, b));
        _mm256_storeu_si256((__m256i *)(void *)(next + half + m), _mm256_max_epi32(c, d));
    }
#else
    for (size_t m = 0; m < half; m += 8) {
        uint8_t low = 0, high = 0;
        for (size_t i = 0; i < 8; i++) {
            int32_t even = now[2 * (m + i)], odd = now[2 * (m + i) + 1], g = gain[m + i];
            low = (uint8_t)(low | (odd - g > even + g) << i);
            high = (uint8_t)(high | (odd + g > even - g) << i);
            next[m + i] = odd - g > even + g ? odd - g : even + g;
            next[half + m + i] = odd + g > even - g ? odd + g : even - g;
        }
        from[m / 8] = low;
        from[(half + m) / 8] = high;
    }
#endif
}

/* The same steps with sums of 16 bits. Any state is reached from any other in 8 steps, so no two sums differ by more than 16 gains; between
 * two times that all are made small again there are 8 steps more. */
#define HALF16 128 /* states of one kind: registers of 9 bits alone */
#define STEPS16 8
#define LONGEST16 (32767 / (DZ_TRELLIS_MOST * (16 + STEPS16 + 1)))

#ifdef __AVX2__
#define ROW32(r)                                                                                                                           \
    {                                                                                                                                      \
        SIGN5(r, 0), SIGN5(r, 1), SIGN5(r, 2), SIGN5(r, 3), SIGN5(r, 4), SIGN5(r, 5), SIGN5(r, 6), SIGN5(r, 7), SIGN5(r, 8), SIGN5(r, 9),  \
            SIGN5(r, 10), SIGN5(r, 11), SIGN5(r, 12), SIGN5(r, 13), SIGN5(r, 14), SIGN5(r, 15), SIGN5(r, 16), SIGN5(r, 17), SIGN5(r, 18),  \
            SIGN5(r, 19), SIGN5(r, 20), SIGN5(r, 21), SIGN5(r, 22), SIGN5(r, 23), SIGN5(r, 24), SIGN5(r, 25), SIGN5(r, 26), SIGN5(r, 27),  \
            SIGN5(r, 28), SIGN5(r, 29), SIGN5(r, 30), SIGN5(r, 31)                                                                         \
    }
#define SIGN5(r, l) (int16_t)(SIGN(r, l) ^ -((((r) & (l)) >> 4) & 1))
#define ROWS8(r) ROW32(r), ROW32(r + 1), ROW32(r + 2), ROW32(r + 3), ROW32(r + 4), ROW32(r + 5), ROW32(r + 6), ROW32(r + 7)
static const int16_t SIGNS32[32][32] __attribute__((aligned(64))) = {ROWS8(0), ROWS8(8), ROWS8(16), ROWS8(24)};

/* gain as branch_gains, of HALF16 states, x[count] being counted only where `more` is -1 and not 0: all steps take the same branches. */
INLINE void branch_gains16(int16_t *restrict gain, const int16_t *restrict x, const uint16_t *restrict middle, size_t count, int16_t more) {
    memset(gain, 0, HALF16 * sizeof *gain);
    for (size_t j = 0; j <= count; j++) {
        int16_t *restrict at = gain + (middle[j] & ~(size_t)31), value = j < count ? x[j] : x[j] & more;
        const int16_t *sign = SIGNS32[middle[j] & 31];
        for (size_t l = 0; l < 32; l++) at[l] = (int16_t)(at[l] + (int16_t)((value ^ sign[l]) - sign[l]));
    }
    for (size_t l = 0; l < 32; l++) {
        int16_t a = (int16_t)(gain[l] + gain[32 + l]), b = (int16_t)(gain[l] - gain[32 + l]);
        int16_t c = (int16_t)(gain[64 + l] + gain[96 + l]), d = (int16_t)(gain[64 + l] - gain[96 + l]);
        gain[l] = (int16_t)(a + c);
        gain[32 + l] = (int16_t)(b + d);
        gain[64 + l] = (int16_t)(a - c);
        gain[96 + l] = (int16_t)(b - d);
    }
}

INLINE void step16(int16_t *restrict next, const int16_t *restrict now, uint8_t *restrict from, const int16_t *restrict gain) {
#if defined __AVX512F__ && defined __AVX512BW__
    int16_t place[32];
    for (int16_t i = 0; i < 32; i++) place[i] = (int16_t)(2 * i);
    const __m512i evens = _mm512_loadu_si512(place), odds = _mm512_add_epi16(evens, _mm512_set1_epi16(1));
    for (size_t m = 0; m < HALF16; m += 32) {
        __m512i first = _mm512_load_si512(now + 2 * m), second = _mm512_load_si512(now + 2 * m + 32), g = _mm512_load_si512(gain + m);
        __m512i even = _mm512_permutex2var_epi16(first, evens, second), odd = _mm512_permutex2var_epi16(first, odds, second);
        __m512i a = _mm512_add_epi16(even, g), b = _mm512_sub_epi16(odd, g), c = _mm512_sub_epi16(even, g), d = _mm512_add_epi16(odd, g);
        uint32_t low = _mm512_cmpgt_epi16_mask(b, a), high = _mm512_cmpgt_epi16_mask(d, c);
        _mm512_store_si512(next + m, _mm512_max_epi16(a, b));
        _mm512_store_si512(next + HALF16 + m, _mm512_max_epi16(c, d));
        memcpy(from + m / 8, &low, sizeof low);
        memcpy(from + (HALF16 + m) / 8, &high, sizeof high);
    }
#else
#define INT16(p) _mm256_load_si256((const __m256i *)(const void *)(p))
#define PUT16(p, v) _mm256_store_si256((__m256i *)(void *)(p), v)
#define APART(p) _mm256_permute4x64_epi64(_mm256_shuffle_epi8(INT16(p), apart), 0xd8) /* even places, then odd ones */
#define BITS16(a, b) (uint32_t) _mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8))
    const __m256i apart = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    for (size_t m = 0; m < HALF16; m += 32) {
        __m256i low[2], high[2];
        for (size_t k = 0; k < 2; k++) {
            const int16_t *at = now + 2 * m + 32 * k;
            __m256i first = APART(at), second = APART(at + 16), g = INT16(gain + m + 16 * k);
            __m256i even = _mm256_permute2x128_si256(first, second, 0x20), odd = _mm256_permute2x128_si256(first, second, 0x31);
            __m256i a = _mm256_add_epi16(even, g), b = _mm256_sub_epi16(odd, g), c = _mm256_sub_epi16(even, g),
                    d = _mm256_add_epi16(odd, g);
            low[k] = _mm256_cmpgt_epi16(b, a);
            high[k] = _mm256_cmpgt_epi16(d, c);
            PUT16(next + m + 16 * k, _mm256_max_epi16(a, b));
            PUT16(next + HALF16 + m + 16 * k, _mm256_max_epi16(c, d));
        }
        uint32_t bits = BITS16(low[0], low[1]);
        memcpy(from + m / 8, &bits, sizeof bits);
        bits = BITS16(high[0], high[1]);
        memcpy(from + (HALF16 + m) / 8, &bits, sizeof bits);
    }
#endif
}

/* Steps `first` to nbits - 1; `now` are sums that no start decides any more. */
static void walk16(int32_t *restrict now, uint8_t *restrict from, const int16_t *restrict x, const uint16_t *restrict middle, size_t n,
                   size_t nbits, size_t first) {
    int16_t sums[2][2 * HALF16] __attribute__((aligned(64))), gain[HALF16] __attribute__((aligned(64)));
    int32_t off = now[0];
    for (size_t i = 0; i < 2 * HALF16; i++) sums[first & 1][i] = (int16_t)(now[i] - off);
    const size_t least = n / nbits, rest = n % nbits;
    size_t begin = (size_t)((uint64_t)first * n / nbits), at = first, part = (size_t)((uint64_t)first * n % nbits);
    for (; at < nbits; at++) { /* a step has `least` elements or one more */
        int16_t *next = sums[~at & 1];
        part += rest;
        int longer = part >= nbits;
        part -= longer ? nbits : 0;
        branch_gains16(gain, x + begin, middle, least, (int16_t)-longer);
        step16(next, sums[at & 1], from + at * (2 * HALF16 / 8), gain);
        begin += least + (size_t)longer;
        if (at % STEPS16) continue;
        int16_t less = next[0];
        off += less;
        for (size_t i = 0; i < 2 * HALF16; i++) next[i] = (int16_t)(next[i] - less);
    }
    for (size_t i = 0; i < 2 * HALF16; i++) now[i] = sums[at & 1][i] + off;
}
#endif

static void trellis_walk(int32_t *restrict now, uint8_t *restrict from, const int16_t *restrict x, const uint16_t *restrict middle,
                         size_t n, size_t nbits, size_t half) {
    int32_t next[2 * DZ_TRELLIS_HALF_MOST];
    size_t begin = 0, last = nbits;
#ifdef __AVX2__
    int narrow_sums = half == HALF16 && n / nbits < LONGEST16 && nbits > STEPS16;
    if (narrow_sums) last = STEPS16;
#endif
    for (size_t t = 0; t < last; t++) {
        size_t end = (size_t)((uint64_t)(t + 1) * n / nbits);
        trellis_step(next, now, from + t * (half / 4), x + begin, middle, end - begin, half);
        memcpy(now, next, 2 * half * sizeof *now);
        begin = end;
    }
#ifdef __AVX2__
    if (narrow_sums) walk16(now, from, x, middle, n, nbits, last);
#endif
}

#endif

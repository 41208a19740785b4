/* Part of kernels.c, which is compiled for each instruction set: the steps of the search for a message (numeric/trellis.h). */
#ifndef DZ_NUMERIC_KERNELS_TRELLIS_H
#define DZ_NUMERIC_KERNELS_TRELLIS_H

#include <string.h>

#include "numeric/kernels_vectors.h"

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

#ifdef __AVX2__
/* Steps of at most four elements, eight at a time; returns how many. Four steps' elements are within 16 bytes. */
INLINE size_t pack_eights(int8_t *restrict out, const int8_t *restrict x, const uint32_t *restrict starts, size_t nbits) {
    const __m256i first = _mm256_set1_epi32(0x03020100), beyond = _mm256_set1_epi32(0x04030201);
    const __m256i lowest = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    size_t t = 0;
    for (; t + 8 <= nbits; t += 8) {
        __m256i at = _mm256_loadu_si256((const __m256i *)(const void *)(starts + t));
        __m256i count = _mm256_sub_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(starts + t + 1)), at);
        __m256i from = _mm256_sub_epi32(at, _mm256_shuffle_epi32(at, 0));
        from = _mm256_add_epi8(_mm256_shuffle_epi8(from, lowest), first);
        from = _mm256_or_si256(from, _mm256_cmpgt_epi8(beyond, _mm256_shuffle_epi8(count, lowest)));
        __m256i of = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(x + starts[t])));
        of = _mm256_inserti128_si256(of, _mm_loadu_si128((const __m128i *)(const void *)(x + starts[t + 4])), 1);
        _mm256_storeu_si256((__m256i *)(void *)(out + 4 * t), _mm256_shuffle_epi8(of, from));
    }
    return t;
}

/* Steps of more, four at a time: 16 elements of each, four by four. */
INLINE size_t pack_fours(int8_t *restrict out, const int8_t *restrict x, const uint32_t *restrict starts, size_t nbits, size_t fours) {
    static const int8_t some[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    size_t t = 0;
    for (; t + FOUR <= nbits; t += FOUR) {
        for (size_t f = 0; f < fours; f += 4) {
            __m128i of[4];
            for (size_t i = 0; i < FOUR; i++) {
                size_t count = starts[t + i + 1] - starts[t + i], left = count > 4 * f ? count - 4 * f : 0;
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
    return t;
}
#endif

INLINE uint64_t first_bytes(uint64_t word, size_t count) { return count < 8 ? word & (((uint64_t)1 << (8 * count)) - 1) : word; }

/* Steps of two to four fours, a word at a time. */
INLINE void pack_words(int8_t *restrict out, const int8_t *restrict x, const uint32_t *restrict starts, size_t nbits, size_t fours) {
    for (size_t t = 0; t < nbits; t++) {
        int8_t *to = out + t / FOUR * 4 * FOUR * fours + t % FOUR * 4;
        size_t left = starts[t + 1] - starts[t];
        for (size_t f = 0; f < fours; f += 2) {
            uint64_t word;
            memcpy(&word, x + starts[t] + 4 * f, sizeof word);
            word = first_bytes(word, left);
            left -= left < 8 ? left : 8;
            memcpy(to + 4 * FOUR * f, &word, 4);
            word >>= 32;
            if (f + 1 < fours) memcpy(to + 4 * FOUR * (f + 1), &word, 4);
        }
    }
}

static void trellis_pack(int8_t *restrict out, const int8_t *restrict x, const uint32_t *restrict starts, size_t nbits, size_t fours) {
    size_t t = 0;
    switch (fours) {
        case 2: pack_words(out, x, starts, nbits, 2); return;
        case 3: pack_words(out, x, starts, nbits, 3); return;
        case 4: pack_words(out, x, starts, nbits, 4); return;
        default: break;
    }
#ifdef __AVX2__
    t = fours == 1 ? pack_eights(out, x, starts, nbits) : pack_fours(out, x, starts, nbits, fours);
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

/* ---- the way back ---- */

#define TAKEN (STEPS * DZ_TRELLIS_STATES / 8) /* bytes of a group */
#define WAYS 8
#define MERGE 16 /* groups, after which the ways back from all states have almost always become one */

INLINE unsigned step_back(const uint8_t *taken, unsigned place, unsigned k) {
    uint64_t bits;
    memcpy(&bits, taken + k * DZ_TRELLIS_STATES / 8 + place / 64 * 8, 8);
    place ^= (unsigned)(bits >> place % 64 & 1) << k;
    __asm__("" : "+r"(place)); /* so that compilers do not gather the ways in vectors, which is slower */
    return place;
}

INLINE unsigned group_back(const uint8_t *taken, unsigned place) {
    for (unsigned k = STEPS; k-- > 0;) place = step_back(taken, place, k);
    return place;
}

static void trellis_trace(uint8_t *restrict message, unsigned last, const uint8_t *restrict taken, size_t groups) {
    size_t part = groups / WAYS, ahead = part < MERGE ? part : MERGE;
    unsigned place[WAYS] = {0}, begun[WAYS];
    for (size_t g = ahead; g-- > 0;) { /* all parts but the last begin with state 0 some groups beyond them */
        for (size_t w = 0; w + 1 < WAYS; w++) place[w] = group_back(taken + ((w + 1) * part + g) * TAKEN, place[w]);
    }
    message[groups] = (uint8_t)last;
    for (size_t g = groups; g-- > WAYS * part;) message[g] = (uint8_t)(last = group_back(taken + g * TAKEN, last));
    place[WAYS - 1] = last;
    memcpy(begun, place, sizeof begun);
    for (size_t g = part; g-- > 0;) {
        for (unsigned k = STEPS; k-- > 0;) {
            for (size_t w = 0; w < WAYS; w++) place[w] = step_back(taken + (w * part + g) * TAKEN, place[w], k);
        }
        for (size_t w = 0; w < WAYS; w++) message[w * part + g] = (uint8_t)place[w];
    }
    for (size_t w = WAYS - 1; part > 0 && w-- > 0;) {
        unsigned at = message[(w + 1) * part];
        if (at == begun[w]) continue;
        for (size_t g = (w + 1) * part; g-- > w * part;) { /* that was a wrong way: until it meets the right one */
            at = group_back(taken + g * TAKEN, at);
            if (message[g] == at) break;
            message[g] = (uint8_t)at;
        }
    }
}

/* ---- what a message makes of the elements ---- */

#define CHUNK 64 /* groups */

/* What the register is after step k of group `at`, in the lowest bits from k on. */
INLINE unsigned registers_of(const uint8_t *message, size_t at) { return (unsigned)message[at] << STEPS | (at ? message[at - 1] : 0U); }

#ifdef __AVX2__
INLINE int8_t signs_of(uint32_t flips) { return (int8_t)((flips & 0x08040201U) * 0x01010101U >> 24); }

/* Groups of 8 steps, one of the fours of each step; returns how many. */
INLINE size_t product_of_eights(int64_t *total, const uint8_t *restrict message, size_t groups, const int8_t *restrict x,
                                const uint32_t *restrict flips, size_t fours) {
    int8_t low[16], high[16];
    for (unsigned i = 0; i < 16; i++) {
        low[i] = signs_of(flips[i]);
        high[i] = signs_of(flips[16 * i]);
    }
    const __m256i of_low = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)low));
    const __m256i of_high = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)high));
    const __m256i of_last = _mm256_set1_epi32((int)flips[256]);
    const __m256i steps = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), four = _mm256_set1_epi8(15), each = _mm256_set1_epi32(0x08040201);
    const __m256i lowest = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    const __m256i middle = _mm256_set1_epi8(-128);
    __m256i sum = _mm256_setzero_si256();
    for (size_t g = 0; g < groups; g++) {
        __m256i window = _mm256_srlv_epi32(_mm256_set1_epi32((int)registers_of(message, g)), steps);
        __m256i last = _mm256_srai_epi32(_mm256_slli_epi32(window, 23), 31), bytes = _mm256_shuffle_epi8(window, lowest);
        __m256i sign = _mm256_xor_si256(_mm256_shuffle_epi8(of_low, _mm256_and_si256(bytes, four)),
                                        _mm256_shuffle_epi8(of_high, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), four)));
        sign = _mm256_xor_si256(_mm256_cmpeq_epi8(_mm256_and_si256(sign, each), each), _mm256_and_si256(last, of_last));
        const int8_t *at = x + g * STEPS * 4 * fours;
        __m256i y = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)at));
        y = _mm256_inserti128_si256(y, _mm_loadu_si128((const __m128i *)(const void *)(at + 4 * FOUR * fours)), 1);
        y = _mm256_sub_epi8(_mm256_xor_si256(y, sign), sign);
        sum = _mm256_add_epi64(sum, _mm256_sad_epu8(_mm256_xor_si256(y, middle), _mm256_setzero_si256()));
    }
    int64_t part[4];
    memcpy(part, &sum, sizeof part);
    *total += part[0] + part[1] + part[2] + part[3] - 128 * 32 * (int64_t)groups;
    return groups;
}
#else
INLINE size_t product_of_eights(int64_t *total, const uint8_t *restrict message, size_t groups, const int8_t *restrict x,
                                const uint32_t *restrict flips, size_t fours) {
    (void)total, (void)message, (void)groups, (void)x, (void)flips, (void)fours;
    return 0;
}
#endif

static int64_t trellis_product(const uint8_t *restrict message, size_t nbits, const int8_t *restrict x, const uint32_t *restrict flips,
                               size_t fours) {
    int64_t total = 0;
    for (size_t f = 0; f < fours; f++, flips += DZ_TRELLIS_WINDOWS) {
        const int8_t *of = x + f * 4 * FOUR;
        size_t done = STEPS * product_of_eights(&total, message, nbits / STEPS, of, flips, fours);
        for (size_t t = done; t < nbits; t++) {
            uint32_t flip = flips[registers_of(message, t / STEPS) >> t % STEPS & (DZ_TRELLIS_WINDOWS - 1)];
            for (size_t i = 0; i < 4; i++) {
                int at = of[t / FOUR * 4 * FOUR * fours + t % FOUR * 4 + i];
                total += flip >> (8 * i) & 1 ? -at : at;
            }
        }
    }
    return total;
}

#endif

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

/* ---- groups of steps in registers ---- */

/* The two states behind a pair of states stay in the pair's places: after k steps of a group bit b of a place is bit (b - k) % 8 of its
 * state, and after all 8 each state is in its own place again. In step k a place's partner is k bits off. `signs` has the elements' signs
 * for each place of each step. */
#define NBYTES (DZ_TRELLIS_STATES / WIDTH)
#define APART(k) ((k) < LANE_BITS ? 0 : (size_t)1 << ((k)-LANE_BITS)) /* vectors between partners */

/* (x0 + x1) + (x2 + x3), and half of it. */
INLINE BYTES sum_of_four(const BYTES x[4], int halve, int up) {
    BYTES sum = ADDS(ADDS(x[0], x[1]), ADDS(x[2], x[3]));
    return halve ? halved(sum, up) : sum;
}

/* What is made of four elements of each of four steps; what of that is one step's, whose signs are at `signs`; the sums of its
 * elements with the signs of a vector. */
#if defined __AVX2__
/* The sums for each of the 16 choices of signs: 16 bytes a step. */
typedef struct four_tables {
    BYTES of[FOUR * 16 / WIDTH];
} four_tables;
typedef BYTES one_table;

#define PLACE(b, i) ((b) + 4 * ((i) >> (b)&1))
#define PLACES(b)                                                                                                                          \
    _mm_setr_epi8(PLACE(b, 0), PLACE(b, 1), PLACE(b, 2), PLACE(b, 3), PLACE(b, 4), PLACE(b, 5), PLACE(b, 6), PLACE(b, 7), PLACE(b, 8),     \
                  PLACE(b, 9), PLACE(b, 10), PLACE(b, 11), PLACE(b, 12), PLACE(b, 13), PLACE(b, 14), PLACE(b, 15))

/* y: for each step its four elements, negated, negated ones ... */
INLINE BYTES table_from(BYTES y, int halve, int up) {
    const __m128i place[4] = {PLACES(0), PLACES(1), PLACES(2), PLACES(3)};
    BYTES x[4];
    for (size_t b = 0; b < 4; b++) x[b] = LOOK_UP(y, IN_LANES(place[b]));
    return sum_of_four(x, halve, up);
}

#ifdef __AVX512F__
INLINE void make_tables(four_tables *out, const int8_t *restrict x, int halve, int up) {
    const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    __m512i y = _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)x)));
    out->of[0] = table_from(_mm512_mask_sub_epi8(y, 0xf0f0f0f0f0f0f0f0U, _mm512_setzero_si512(), y), halve, up);
}

INLINE one_table table_of(const four_tables *t, unsigned step, const uint8_t *signs) {
    (void)signs;
    switch (step) {
        case 0: return _mm512_shuffle_i32x4(t->of[0], t->of[0], 0);
        case 1: return _mm512_shuffle_i32x4(t->of[0], t->of[0], 0x55);
        case 2: return _mm512_shuffle_i32x4(t->of[0], t->of[0], 0xaa);
        default: return _mm512_shuffle_i32x4(t->of[0], t->of[0], 0xff);
    }
}
#else
INLINE void make_tables(four_tables *out, const int8_t *restrict x, int halve, int up) {
    const __m256i negative = _mm256_set1_epi64x((int64_t)0xffffffff00000000U), spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    for (size_t i = 0; i < 2; i++) {
        __m256i y = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(const void *)(x + 8 * i)));
        y = _mm256_permutevar8x32_epi32(y, spread);
        out->of[i] = table_from(_mm256_sub_epi8(_mm256_xor_si256(y, negative), negative), halve, up);
    }
}

INLINE one_table table_of(const four_tables *t, unsigned step, const uint8_t *signs) {
    (void)signs;
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(const void *)t->of + step));
}
#endif

INLINE BYTES gain_of_four(const one_table *table, const uint8_t *signs) { return LOOK_UP(*table, load_bytes(signs)); }
#elif defined LOOK_UP
typedef struct four_tables {
    BYTES of[FOUR];
} four_tables;
typedef BYTES one_table;

INLINE void make_tables(four_tables *out, const int8_t *restrict x, int halve, int up) {
    const BYTES negative[4] = {{0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1},
                               {0, 0, -1, -1, 0, 0, -1, -1, 0, 0, -1, -1, 0, 0, -1, -1},
                               {0, 0, 0, 0, -1, -1, -1, -1, 0, 0, 0, 0, -1, -1, -1, -1},
                               {0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1}};
    for (size_t i = 0; i < FOUR; i++, x += 4) {
        BYTES y[4];
        for (size_t b = 0; b < 4; b++) y[b] = (ALL8(x[b]) ^ negative[b]) - negative[b];
        out->of[i] = sum_of_four(y, halve, up);
    }
}

INLINE one_table table_of(const four_tables *t, unsigned step, const uint8_t *signs) {
    (void)signs;
    return t->of[step];
}
INLINE BYTES gain_of_four(const one_table *table, const uint8_t *signs) { return LOOK_UP(*table, load_bytes(signs)); }
#else
/* Signs of a place are the XOR of those of its vector and those of its place in a vector. So for each choice of a vector's signs the sums
 * of two and two are made once. */
typedef struct four_tables {
    const int8_t *x;
    int halve, up;
} four_tables;

typedef struct one_table {
    BYTES low[4], high[4];
    int halve, up;
} one_table;

INLINE void make_tables(four_tables *out, const int8_t *restrict x, int halve, int up) { *out = (four_tables){x, halve, up}; }

INLINE void sums_of_two(BYTES sums[4], const int8_t *x, BYTES signs, int8_t bit) {
    BYTES first = ALL8(bit), second = ALL8((int8_t)(2 * bit)), a = (signs & first) == first, b = (signs & second) == second;
    BYTES y = (ALL8(x[0]) ^ a) - a, z = (ALL8(x[1]) ^ b) - b;
    sums[0] = ADDS(y, z);
    sums[1] = ADDS(-y, z);
    sums[2] = ADDS(y, -z);
    sums[3] = ADDS(-y, -z);
}

INLINE one_table table_of(const four_tables *t, unsigned step, const uint8_t *signs) {
    one_table out = {.halve = t->halve, .up = t->up};
    sums_of_two(out.low, t->x + 4 * step, load_bytes(signs), 1);
    sums_of_two(out.high, t->x + 4 * step + 2, load_bytes(signs), 4);
    return out;
}

INLINE BYTES gain_of_four(const one_table *t, const uint8_t *signs) {
    BYTES sum = ADDS(t->low[*signs % 4], t->high[*signs / 4 % 4]);
    return t->halve ? halved(sum, t->up) : sum;
}
#endif

/* Gains of step k of a group, place by place; where partners are in two vectors, for the first of them. */
INLINE void gains(BYTES *gain, const four_tables *tables, const uint8_t *signs, unsigned k, size_t fours, unsigned halvings) {
    const uint8_t *of = signs + k * DZ_TRELLIS_STATES;
    for (size_t f = 0; f < fours; f++, of += STEPS * DZ_TRELLIS_STATES) {
        one_table table = table_of(tables + f, k % FOUR, of);
        for (size_t v = 0; v < NBYTES; v++) {
            if (v & APART(k)) continue;
            BYTES sum = gain_of_four(&table, of + v * WIDTH);
            gain[v] = f ? ADDS(gain[v], sum) : sum;
        }
    }
    for (size_t v = 0; v < NBYTES && halvings > 1; v++) {
        if (!(v & APART(k))) gain[v] = halved(gain[v], 1);
    }
}

/* Steps of more than four elements: partners within a vector have the same gain, which is made once for both. */
#if WIDTH >= 32
#define PAIRS 1

/* signs[f][k][]: of the places without bit k alone. */
INLINE void pair_signs(uint8_t *restrict out, const uint8_t *restrict signs, size_t fours) {
    for (size_t f = 0; f < fours; f++) {
        for (unsigned k = 0; k < STEPS; k++, signs += DZ_TRELLIS_STATES) {
            for (size_t v = 0; v < NBYTES; v++) {
                if (APART(k) == 0 && v % 2 == 0)
                    store_bytes(out, without_partners(load_bytes(signs + v * WIDTH), load_bytes(signs + (v + 1) * WIDTH), k));
                else if (APART(k) == 0 || v & APART(k))
                    continue;
                else
                    store_bytes(out, load_bytes(signs + v * WIDTH));
                out += WIDTH;
            }
        }
    }
}

INLINE void gains_of_pairs(BYTES *sum, const four_tables *tables, const uint8_t *signs, unsigned k, size_t fours, unsigned halvings) {
    const uint8_t *of = signs + k * HALF;
    for (size_t f = 0; f < fours; f++, of += STEPS * HALF) {
        one_table table = table_of(tables + f, k % FOUR, of);
        for (size_t u = 0; u < NBYTES / 2; u++) {
            BYTES part = gain_of_four(&table, of + u * WIDTH);
            sum[u] = f ? ADDS(sum[u], part) : part;
        }
    }
    for (size_t u = 0; u < NBYTES / 2 && halvings > 1; u++) sum[u] = halved(sum[u], 1);
}
#else
#define PAIRS 0
INLINE void pair_signs(uint8_t *restrict out, const uint8_t *restrict signs, size_t fours) { (void)out, (void)signs, (void)fours; }
INLINE void gains_of_pairs(BYTES *gain, const four_tables *tables, const uint8_t *signs, unsigned k, size_t fours, unsigned halvings) {
    gains(gain, tables, signs, k, fours, halvings);
}
#endif

/* Bit v * WIDTH + i of `taken`: whether place i of vector v takes the other one of its two ways. */
INLINE void note(uint8_t *taken, size_t v, BYTES other, BYTES own) {
    bits_of_bytes bits = where_larger(other, own);
    memcpy(taken + v * sizeof bits, &bits, sizeof bits);
}

/* Partners within a vector. */
INLINE void step_within(BYTES *sum, uint8_t *taken, size_t v, BYTES gain, unsigned k) {
    BYTES own = ADDS(*sum, gain), other = SUBS(partner(*sum, k), gain);
    note(taken, v, other, own);
    *sum = MAX8(own, other);
}

/* Partners in vectors v and v + apart. */
INLINE void step_apart(BYTES *sums, uint8_t *taken, size_t v, size_t apart, BYTES gain) {
    BYTES even = sums[v], odd = sums[v + apart];
    BYTES a = ADDS(even, gain), b = SUBS(odd, gain), c = SUBS(even, gain), d = ADDS(odd, gain);
    note(taken, v, b, a);
    note(taken, v + apart, c, d);
    sums[v] = MAX8(a, b);
    sums[v + apart] = MAX8(d, c);
}

INLINE void step(BYTES *sums, uint8_t *taken, const BYTES *gain, unsigned k) {
    const size_t apart = APART(k);
    for (size_t v = 0; v < NBYTES; v++) {
        if (v & apart) continue;
        if (apart == 0)
            step_within(&sums[v], taken, v, gain[v], k);
        else
            step_apart(sums, taken, v, apart, gain[v]);
    }
}

#if PAIRS
INLINE void step_of_pairs(BYTES *sums, uint8_t *taken, const BYTES *gain, unsigned k) {
    const size_t apart = APART(k);
    for (size_t u = 0; u < NBYTES / 2; u++) {
        BYTES both[2];
        if (apart) {
            step_apart(sums, taken, u + (u & ~(apart - 1)), apart, gain[u]);
            continue;
        }
        with_partners(both, gain[u], k);
        step_within(&sums[2 * u], taken, 2 * u, both[0], k);
        step_within(&sums[2 * u + 1], taken, 2 * u + 1, both[1], k);
    }
}
#else
INLINE void step_of_pairs(BYTES *sums, uint8_t *taken, const BYTES *gain, unsigned k) { step(sums, taken, gain, k); }
#endif

/* The largest of the sums, less FLOOR, in all bytes. */
INLINE BYTES above_floor(const BYTES *sums) {
    BYTES all[NBYTES];
    for (size_t v = 0; v < NBYTES; v++) all[v] = sums[v];
    for (size_t n = NBYTES / 2; n > 0; n /= 2) {
        for (size_t v = 0; v < n; v++) all[v] = MAX8(all[v], all[v + n]);
    }
    for (unsigned k = LANE_BITS; k-- > 0;) all[0] = MAX8(all[0], partner(all[0], k));
    return ADDS(all[0], ALL8(-FLOOR));
}

/* A way through the groups; two of them take turns where there are registers enough, since each step waits for the one before. */
typedef struct way {
    BYTES sums[NBYTES];
    uint8_t *taken;
    const int8_t *x;
} way;

#if WIDTH == 64
#define TURNS 2
#else
#define TURNS 1
#endif

#define STEP(k)                                                                                                                            \
    for (size_t w = 0; w < nways; w++) {                                                                                                   \
        if (pairs) {                                                                                                                       \
            gains_of_pairs(gain, table[w] + (k) / FOUR * fours, signs, k, fours, halvings);                                                \
            step_of_pairs(ways[w].sums, ways[w].taken + (k)*DZ_TRELLIS_STATES / 8, gain, k);                                               \
        } else {                                                                                                                           \
            gains(gain, table[w] + (k) / FOUR * fours, signs, k, fours, halvings);                                                         \
            step(ways[w].sums, ways[w].taken + (k)*DZ_TRELLIS_STATES / 8, gain, k);                                                        \
        }                                                                                                                                  \
    }

INLINE void walk_group(way *ways, size_t nways, const uint8_t *restrict signs, size_t fours, unsigned halvings, int pairs) {
    BYTES gain[NBYTES] = {0}, less[TURNS];
    four_tables table[TURNS][STEPS / FOUR * DZ_TRELLIS_FOURS_MOST];
    for (size_t w = 0; w < nways; w++) {
        for (size_t f = 0; f < STEPS / FOUR * fours; f++)
            make_tables(table[w] + f, ways[w].x + 4 * FOUR * f, halvings > 0, f % fours % 2 == 0);
        ways[w].x += STEPS * 4 * fours;
    }
    STEP(0)
    STEP(1)
    STEP(2)
    STEP(3)
    for (size_t w = 0; w < nways; w++) less[w] = above_floor(ways[w].sums);
    STEP(4)
    STEP(5)
    STEP(6)
    STEP(7)
    for (size_t w = 0; w < nways; w++) {
        for (size_t v = 0; v < NBYTES; v++) ways[w].sums[v] = SUBS(ways[w].sums[v], less[w]);
        ways[w].taken += TAKEN;
    }
}

#define ALIKE 32   /* groups, after which sums that began with others are often alike */
#define MEETINGS 8 /* of the two ways, each after twice as many groups as the one before */

INLINE int are_alike(const BYTES *a, const BYTES *b) { return memcmp(a, b, NBYTES * sizeof *a) == 0; }

/* The differences of the sums come from the last steps alone. So a second way begins some groups before the middle, with any sums, and
 * goes to the end. Sooner or later the first one has the same sums at the same place, and from there on the second is right. */
INLINE void walk(int8_t *restrict now, uint8_t *restrict taken, const int8_t *restrict x, const uint8_t *restrict signs, size_t fours,
                 unsigned halvings, size_t groups, size_t nways) {
    const int pairs = PAIRS && fours > 1;
    uint8_t paired[PAIRS ? STEPS * HALF * DZ_TRELLIS_FOURS_MOST : 1];
    if (pairs) pair_signs(paired, signs, fours);
    if (pairs) signs = paired;
    way ways[TURNS];
    size_t at = 0, both = (groups + ALIKE) / 2, start = both - ALIKE; /* of the second */
    ways[0] = (way){.taken = taken, .x = x};
    for (size_t v = 0; v < NBYTES; v++) ways[0].sums[v] = load_bytes(now + v * WIDTH);
    if (nways == 2 && groups >= 4 * ALIKE) {
        BYTES met[MEETINGS][NBYTES]; /* sums of the second after ALIKE groups, 2 * ALIKE ... */
        way *second = ways + nways - 1;
        size_t meeting = 0;
        *second = (way){.taken = taken + start * TAKEN, .x = x + start * STEPS * 4 * fours};
        for (size_t v = 0; v < NBYTES; v++) second->sums[v] = ALL8(FLOOR);
        while (at < both) {
            walk_group(ways, nways, signs, fours, halvings, pairs);
            if (++at == (size_t)ALIKE << meeting && meeting < MEETINGS) memcpy(met[meeting++], second->sums, sizeof *met);
        }
        for (size_t m = 0; m < meeting; m++) {
            for (; at < start + ((size_t)ALIKE << m); at++) walk_group(ways, 1, signs, fours, halvings, pairs);
            if (!are_alike(ways[0].sums, met[m])) continue;
            ways[0] = *second;
            at = start + both;
            break;
        }
    }
    for (; at < groups; at++) walk_group(ways, 1, signs, fours, halvings, pairs);
    for (size_t v = 0; v < NBYTES; v++) store_bytes(now + v * WIDTH, ways[0].sums[v]);
}

static void trellis_walk(int8_t *restrict now, uint8_t *restrict taken, const int8_t *restrict x, const uint8_t *restrict signs,
                         size_t fours, unsigned halvings, size_t groups) {
    switch (fours + 4 * halvings) { /* the usual ones with loops unrolled */
        case 1: walk(now, taken, x, signs, 1, 0, groups, TURNS); break;
        case 1 + 4: walk(now, taken, x, signs, 1, 1, groups, TURNS); break;
        case 2 + 4: walk(now, taken, x, signs, 2, 1, groups, TURNS); break;
        case 2 + 8: walk(now, taken, x, signs, 2, 2, groups, TURNS); break;
        case 3 + 8: walk(now, taken, x, signs, 3, 2, groups, TURNS); break;
        default:
            if (halvings == 2)
                walk(now, taken, x, signs, fours, 2, groups, TURNS);
            else
                walk(now, taken, x, signs, fours, halvings, groups, 1);
    }
}

#endif

/* Part of kernels.c, which is compiled for each instruction set: the search for a message, groups of steps with all sums in registers. */
#ifndef DZ_NUMERIC_KERNELS_WALK_H
#define DZ_NUMERIC_KERNELS_WALK_H

#include "numeric/kernels_trellis.h"

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

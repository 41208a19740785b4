#include "numeric/trellis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "numeric/kernels.h"

#define GENERATORS_KEY 25 /* the best one of the first forty at rates from 1/4 to 1/2 */

#define OCTAVES 5
#define NODES 4 /* of an octave */
#define AT_ZERO 0.8035

/* rate * noise at 2^(i / NODES - OCTAVES) * (1 + i % NODES / NODES) bits, measured (results/rate.md); linear in between. */
static const double TABLE[] = {0.7856, 0.7805, 0.7765, 0.7736, 0.7709, 0.7660, 0.7549, 0.7413, 0.7305, 0.7150, 0.6985,
                               0.6818, 0.6646, 0.6348, 0.6081, 0.5824, 0.5602, 0.5298, 0.5164, 0.5282, 0.5711};

/* rate * noise of long blocks */
static double product_at(double rate) {
    int exponent;
    if (rate >= DZ_TRELLIS_RATE_MOST) return TABLE[OCTAVES * NODES];
    double at = NODES * (2 * frexp(rate, &exponent) - 1);
    int octave = exponent - 1 + OCTAVES, i = (int)at;
    if (octave < 0) return AT_ZERO + (TABLE[0] - AT_ZERO) * rate * (1 << OCTAVES);
    const double *node = TABLE + octave * NODES + i;
    return node[0] + (node[1] - node[0]) * (at - i);
}

double dz_trellis_noise(double rate, size_t n) {
    double nbits = rate * (double)n, used = (nbits - 3 * nbits / (nbits + 5)) / (double)n;
    return product_at(used) / used;
}

size_t dz_trellis_bits(size_t n, double rate) {
    double wanted = rint(rate * (double)n);
    return !(wanted >= 1) ? 1 : wanted > (double)n ? n : (size_t)wanted;
}

#define NOTHING_BELOW 64.0 /* noise to signal */

size_t dz_trellis_bits_for(size_t n, double energy, double noise, double *left) {
    size_t low = 1, high = n;
    double wanted = noise * (double)n / energy;
    *left = energy;
    if (!(energy > 0) || !(wanted < NOTHING_BELOW)) return 0;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (dz_trellis_noise((double)mid / (double)n, n) <= wanted)
            high = mid;
        else
            low = mid + 1;
    }
    *left = energy * dz_trellis_noise((double)low / (double)n, n);
    return low;
}

/* The middle bits of the generator of the coefficient `j` of a step. Its first and last bit are 1. */
static uint32_t generator(uint32_t j, unsigned memory) { return dz_u32_at(GENERATORS_KEY, j) & ((1U << (memory - 1)) - 1); }

static size_t longest_step(size_t n, size_t nbits) { return (n + nbits - 1) / nbits; }

static uint32_t parity(uint32_t x) {
    x ^= x >> 8;
    x ^= x >> 4;
    x ^= x >> 2;
    return (x ^ x >> 1) & 1;
}

/* ---- search ---- */

#define STATES DZ_TRELLIS_STATES
#define GROUP DZ_TRELLIS_GROUP
#define FOUR DZ_TRELLIS_FOUR
#define FLOOR (-60)                             /* where the largest sum begins */
#define GAIN_STD 10.0                           /* of the gain of a step, in the integers of the search */
#define MOST_STDS 4.0                           /* elements end there */
#define LONG_STEPS 8.0                          /* of a standard deviation, where gains are added up in 32 bits */
#define BEHIND (4 * DZ_TRELLIS_FOURS_MOST + 16) /* zeros */
#define AHEAD 12                                /* groups */

_Static_assert(GROUP == DZ_TRELLIS_MEMORY, "a state is what came in during its group");

/* How a step's elements become integers. */
typedef struct scaling {
    double steps; /* of a standard deviation */
    unsigned halvings;
} scaling;

static scaling scaling_of(double length) {
    unsigned halvings = length <= 1.5 ? 0 : length <= 6 ? 1 : 2;
    return (scaling){.steps = GAIN_STD * (1 << halvings) / sqrt(length), .halvings = halvings};
}

/* Signs of the elements of fours first to fours - 1, for every place of every step of a group, and for every register. */
static dz_rc extend_signs(dz_trellis_room *room, size_t fours, dz_error *err) {
    if (fours <= room->fours) return DZ_OK;
    if (dz_buf_reserve(&room->signs, fours * GROUP * STATES, err) != DZ_OK ||
        dz_buf_reserve(&room->flips, fours * DZ_TRELLIS_WINDOWS * sizeof(uint32_t), err) != DZ_OK)
        return err->rc;
    for (size_t f = room->fours; f < fours; f++) {
        uint8_t *signs = room->signs.data + f * GROUP * STATES;
        uint32_t *flips = (uint32_t *)(void *)room->flips.data + f * DZ_TRELLIS_WINDOWS;
        uint32_t of_bit[DZ_TRELLIS_MEMORY + 1] = {[0] = UINT32_MAX, [DZ_TRELLIS_MEMORY] = UINT32_MAX}; /* what a bit makes negative */
        for (uint32_t b = 0; b < 4; b++) {
            uint32_t middle = generator((uint32_t)(4 * f) + b, DZ_TRELLIS_MEMORY);
            for (unsigned i = 1; i < DZ_TRELLIS_MEMORY; i++) of_bit[i] |= (middle >> (i - 1) & 1 ? 0xffU : 0) << (8 * b);
        }
        flips[0] = 0;
        for (uint32_t w = 1; w < DZ_TRELLIS_WINDOWS; w++) flips[w] = flips[w & (w - 1)] ^ of_bit[__builtin_ctz(w)];
        for (uint32_t state = 0; state < STATES; state++) {
            uint32_t by_middle = flips[state & ~1U]; /* the bits of the four bytes side by side: */
            uint8_t bits = (uint8_t)((by_middle & 0x08040201U) * 0x01010101U >> 24);
            for (unsigned k = 0; k < GROUP; k++) signs[k * STATES + ((state << k | state >> (8 - k)) & 0xff)] = bits;
        }
    }
    room->fours = fours;
    return DZ_OK;
}

/* First elements of the steps. */
static dz_rc find_starts(dz_trellis_room *room, size_t n, size_t nbits, dz_error *err) {
    if (room->n == n && room->nbits == nbits) return DZ_OK;
    room->n = 0;
    if (dz_buf_reserve(&room->starts, (nbits + 1) * sizeof(uint32_t), err) != DZ_OK) return err->rc;
    uint32_t *starts = (uint32_t *)(void *)room->starts.data;
    for (size_t t = 0, at = 0, rest = 0; t <= nbits; t++) { /* at: t * n / nbits */
        starts[t] = (uint32_t)at;
        at += n / nbits;
        rest += n % nbits;
        if (rest < nbits) continue;
        rest -= nbits;
        at++;
    }
    room->n = n;
    room->nbits = nbits;
    return DZ_OK;
}

/* The sums of all states after the first steps, at most GROUP of them. A state has one way from 0. */
typedef struct head {
    int32_t sums[STATES];
    unsigned steps;
} head;

/* What the middle bits of the generators of a step's elements are. */
static dz_rc extend_middles(dz_trellis_room *room, size_t longest, dz_error *err) {
    if (longest <= room->middles.len) return DZ_OK;
    if (dz_buf_reserve(&room->middles, longest - room->middles.len, err) != DZ_OK) return err->rc;
    for (size_t j = room->middles.len; j < longest; j++) room->middles.data[j] = (uint8_t)generator((uint32_t)j, DZ_TRELLIS_MEMORY);
    room->middles.len = longest;
    return DZ_OK;
}

static void head_step(head *h, const int32_t *gain) {
    int32_t next[STATES];
    memcpy(next, h->sums, sizeof next);
    for (unsigned b = 0; b < 1U << h->steps; b++) {
        unsigned state = b << (GROUP - h->steps), to = state >> 1;
        next[to] = h->sums[state] + gain[to];
        next[to | STATES / 2] = h->sums[state] - gain[to];
    }
    memcpy(h->sums, next, sizeof next);
    h->steps++;
}

static unsigned best_of_head(const head *h) {
    unsigned best = 0, apart = 1U << (GROUP - h->steps);
    for (unsigned s = apart; s < STATES; s += apart) best = h->sums[s] > h->sums[best] ? s : best;
    return best;
}

static int8_t within(int64_t x) { return (int8_t)(x > 127 ? 127 : x < -128 ? -128 : x); }

static void to_sums(int8_t sums[STATES], const head *h, double scale) {
    int32_t top = h->sums[best_of_head(h)];
    for (size_t s = 0; s < STATES; s++) sums[s] = within((int64_t)rint((h->sums[s] - top) * scale) + FLOOR);
}

static size_t best_of(const int8_t *sums, size_t nstates) {
    size_t best = 0;
    for (size_t s = 1; s < nstates; s++) best = sums[s] > sums[best] ? s : best;
    return best;
}

/* The last state of a message, of whose last group only the first steps may be of the message: its other bits are 0. */
static unsigned best_last(const int8_t *sums, size_t nbits) {
    return (unsigned)best_of(sums, (size_t)1 << (nbits - (nbits - 1) / GROUP * GROUP));
}

/* The message from the sums of the last states on. `from` has a row for each group but the first. */
static void walk_back(uint8_t *message, const int8_t *sums, const uint8_t *from, size_t nbits) {
    size_t last = (nbits - 1) / GROUP, state = best_last(sums, nbits);
    for (size_t g = last; g > 0; g--) {
        const uint8_t *row = from + (g - 1) * STATES;
        for (size_t i = 0; g > AHEAD && i < STATES; i += 64) __builtin_prefetch(row - AHEAD * STATES + i);
        message[g] = (uint8_t)state;
        state = row[state];
    }
    message[0] = (uint8_t)state;
}

static dz_rc search_packed(dz_trellis_room *room, uint8_t *message, int64_t *product, size_t n, size_t nbits, unsigned halvings,
                           dz_error *err) {
    size_t fours = (longest_step(n, nbits) + 3) / 4, each = 4 * fours, groups = (nbits - 1) / GROUP;
    if (extend_signs(room, fours, err) != DZ_OK || extend_middles(room, 4 * fours, err) != DZ_OK ||
        find_starts(room, n, nbits, err) != DZ_OK || dz_buf_reserve(&room->packed, (groups + 1) * GROUP * each, err) != DZ_OK ||
        dz_buf_reserve(&room->from, (groups + 1) * STATES, err) != DZ_OK)
        return err->rc;
    const int8_t *x = (const int8_t *)room->packed.data;
    const uint8_t *signs = room->signs.data;
    const uint32_t *starts = (const uint32_t *)(const void *)room->starts.data;
    size_t whole = nbits / FOUR * FOUR; /* steps beyond the message have no elements, and gain nothing */
    memset(room->packed.data + whole * each, 0, ((groups + 1) * GROUP - whole) * each);
    dz_kernels()->trellis_pack((int8_t *)room->packed.data, (const int8_t *)room->x.data, starts, nbits, fours);

    head h = {.sums = {0}};
    for (size_t t = 0; t < GROUP && t < nbits; t++) {
        int32_t gain[STATES / 2];
        dz_kernels()->trellis_long_gains(gain, (const int8_t *)room->x.data + starts[t], room->middles.data, starts[t + 1] - starts[t]);
        head_step(&h, gain);
    }
    if (groups == 0) {
        message[0] = (uint8_t)(best_of_head(&h) >> (GROUP - h.steps));
    } else {
        int8_t sums[STATES];
        to_sums(sums, &h, 1.0 / (1 << halvings));
        dz_kernels()->trellis_walk(sums, room->from.data, x + GROUP * each, signs, fours, halvings, groups);
        dz_kernels()->trellis_trace(message, best_last(sums, nbits), room->from.data, groups);
    }
    *product = dz_kernels()->trellis_product(message, nbits, x, (const uint32_t *)(const void *)room->flips.data, fours);
    return DZ_OK;
}

/* Steps of more elements than the kernels take. */
static dz_rc search_long(dz_trellis_room *room, uint8_t *message, int64_t *product, size_t n, size_t nbits, dz_error *err) {
    size_t longest = longest_step(n, nbits), groups = (nbits - 1) / GROUP;
    if (dz_buf_reserve(&room->from, (groups + 1) * STATES, err) != DZ_OK || extend_middles(room, longest, err) != DZ_OK) return err->rc;
    const dz_kernel_table *k = dz_kernels();
    const int8_t *x = (const int8_t *)room->x.data;
    const uint8_t *middle = room->middles.data;
    double scale = GAIN_STD / (LONG_STEPS * sqrt((double)n / (double)nbits));
    int64_t times = (int64_t)rint(65536 * scale);
    int8_t sums[STATES], none[STATES / 2] = {0};
    head h = {.sums = {0}};
    for (size_t t = 0; t < nbits; t++) {
        size_t begin = (size_t)((uint64_t)t * n / nbits), end = (size_t)((uint64_t)(t + 1) * n / nbits);
        int32_t gain[STATES / 2];
        int8_t narrow[STATES / 2];
        k->trellis_long_gains(gain, x + begin, middle, end - begin);
        if (t < GROUP) {
            head_step(&h, gain);
            if (t + 1 == GROUP) to_sums(sums, &h, scale);
            continue;
        }
        uint8_t *from = room->from.data + (t / GROUP - 1) * STATES;
        for (size_t s = 0; t % GROUP == 0 && s < STATES; s++) from[s] = (uint8_t)s;
        for (size_t m = 0; m < STATES / 2; m++) narrow[m] = within((gain[m] * times + 32768) >> 16);
        k->trellis_step(sums, from, narrow);
        if (t % (GROUP / 2) != GROUP / 2 - 1) continue;
        int top = sums[best_of(sums, STATES)];
        for (size_t s = 0; s < STATES; s++) sums[s] = within(sums[s] - top + FLOOR);
    }
    if (groups == 0) message[0] = (uint8_t)(best_of_head(&h) >> (GROUP - h.steps));
    for (size_t t = nbits; groups > 0 && t < (groups + 1) * GROUP; t++)
        k->trellis_step(sums, room->from.data + (groups - 1) * STATES, none);
    if (groups > 0) walk_back(message, sums, room->from.data, nbits);
    *product = 0;
    for (size_t t = 0; t < nbits; t++) {
        size_t begin = (size_t)((uint64_t)t * n / nbits), end = (size_t)((uint64_t)(t + 1) * n / nbits), at = t / GROUP;
        unsigned window = ((unsigned)message[at] << GROUP | (at ? message[at - 1] : 0U)) >> (t % GROUP) & (DZ_TRELLIS_WINDOWS - 1);
        int32_t sum = 0;
        for (size_t j = 0; j < end - begin; j++) sum += parity(window >> 1 & middle[j]) ? -x[begin + j] : x[begin + j];
        *product += (window ^ window >> DZ_TRELLIS_MEMORY) & 1 ? -sum : sum;
    }
    return DZ_OK;
}

dz_rc dz_trellis_search(dz_trellis_room *room, uint8_t *message, double *product, const float *x, size_t n, double std, size_t nbits,
                        dz_error *err) {
    int is_long = longest_step(n, nbits) > 4 * DZ_TRELLIS_FOURS_MOST;
    scaling s = is_long ? (scaling){.steps = LONG_STEPS} : scaling_of((double)n / (double)nbits);
    int64_t found = 0;
    if (dz_buf_reserve(&room->x, n + BEHIND, err) != DZ_OK) return err->rc;
    dz_kernels()->trellis_round((int8_t *)room->x.data, x, n, (float)(s.steps / std), (float)(MOST_STDS * s.steps));
    memset(room->x.data + n, 0, BEHIND);
    if (is_long)
        search_long(room, message, &found, n, nbits, err);
    else
        search_packed(room, message, &found, n, nbits, s.halvings, err);
    /* the message also follows what rounding did, which has 1 / 12 of a step squared as its energy */
    *product = (double)found / s.steps / (1 + 1 / (12 * s.steps * s.steps));
    return err->rc;
}

void dz_trellis_room_free(dz_trellis_room *room) {
    dz_buf_free(&room->x);
    dz_buf_free(&room->packed);
    dz_buf_free(&room->from);
    dz_buf_free(&room->signs);
    dz_buf_free(&room->flips);
    dz_buf_free(&room->starts);
    dz_buf_free(&room->middles);
    *room = (dz_trellis_room){0};
}

/* ---- replay ---- */

#define TABLE_FROM 4096 /* elements from which on a table of all registers is worth its making */
#define TABLE_STEP 32   /* elements of a step that it can have */

/* Bit j: whether the j-th element of a step is negative after each register. */
static void find_negative(uint32_t *negative, const uint32_t *middles, size_t longest, unsigned memory) {
    uint32_t of_bit[DZ_TRELLIS_MEMORY_MOST + 1] = {[0] = UINT32_MAX};
    of_bit[memory] = UINT32_MAX;
    for (size_t j = 0; j < longest; j++) {
        for (unsigned i = 1; i < memory; i++) of_bit[i] |= (middles[j] >> (i - 1) & 1) << j;
    }
    negative[0] = 0;
    for (uint32_t w = 1; w < 2U << memory; w++) negative[w] = negative[w & (w - 1)] ^ of_bit[__builtin_ctz(w)];
}

/* What is replayed: `n` elements of `nbits` steps, the message's bits from `first` on. */
typedef struct replay {
    float *y;
    size_t n;
    const uint8_t *message;
    size_t first, nbits;
    unsigned memory;
    float size;
} replay;

/* Step t begins at element t * n / nbits, which is t * n 2^40 / nbits, rounded up, without its lower 40 bits: as n and t are at most 2^17.
 */
#define PLACE_BITS 40
#define PLACE_MOST ((size_t)1 << 17)

static size_t place_of(const replay *r, size_t t) { return (size_t)((uint64_t)t * r->n / r->nbits); }

/* Signs are gathered bit by bit, and eight elements are written at a time: from step `from` on, before which the register was `state`. */
static void replay_steps(const replay *r, const uint32_t *negative, float flips[256][8], size_t from, uint32_t state) {
    const size_t least = r->n / r->nbits, rest = r->n % r->nbits;
    float *y = r->y + place_of(r, from);
    uint64_t signs = 0;
    unsigned have = 0;
    for (size_t t = from, part = (size_t)((uint64_t)from * rest % r->nbits); t < r->nbits; t++) {
        part += rest;
        size_t at = r->first + t;
        unsigned count = (unsigned)(least + (part >= r->nbits));
        part -= part >= r->nbits ? r->nbits : 0;
        uint32_t window = ((uint32_t)r->message[at / 8] >> (at % 8) & 1) << r->memory | state;
        signs |= (negative[window] & ((1ULL << count) - 1)) << have;
        have += count;
        for (; have >= 8; have -= 8, signs >>= 8, y += 8) memcpy(y, flips[signs & 0xff], 8 * sizeof *y);
        state = window >> 1;
    }
    memcpy(y, flips[signs & 0xff], have * sizeof *y);
}

/* Groups of 8 steps, each of a byte: the register after a step is of the bits of two bytes, so its signs are those of the one XOR those of
 * the other. A step writes a multiple of eight elements, and the next ones write over those that are theirs. Returns how many steps were
 * replayed, and the register after them. */
static size_t replay_groups(const replay *r, const uint32_t *negative, float flips[256][8], uint32_t *state) {
    size_t longest = longest_step(r->n, r->nbits), eights = (longest + 7) / 8, groups = r->nbits / GROUP;
    uint64_t of_low[4][STATES], of_high[4][STATES], each = (((uint64_t)r->n << PLACE_BITS) + r->nbits - 1) / r->nbits;
    while (groups > 0 && place_of(r, GROUP * groups - 1) + 8 * eights > r->n) groups--;
    for (size_t e = 0; e < eights; e++) {
        for (uint32_t byte = 0; byte < STATES; byte++) {
            of_low[e][byte] = of_high[e][byte] = 0;
            for (unsigned k = 0; k < GROUP; k++) {
                of_low[e][byte] |= (uint64_t)(negative[byte >> k] >> 8 * e & 0xff) << 8 * k;
                of_high[e][byte] |= (uint64_t)(negative[byte << GROUP >> k & (DZ_TRELLIS_WINDOWS - 1)] >> 8 * e & 0xff) << 8 * k;
            }
        }
    }
    unsigned before = 0, shift = r->first % 8;
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *at = r->message + r->first / 8 + g;
        unsigned byte = shift ? (at[0] | (unsigned)at[1] << 8) >> shift & 0xff : at[0];
        uint64_t place = g * GROUP * each;
        for (unsigned k = 0; k < GROUP; k++, place += each) {
            float *y = r->y + (place >> PLACE_BITS);
            if (longest <= 4) {
                memcpy(y, flips[(of_low[0][before] ^ of_high[0][byte]) >> 8 * k & 0xf], 4 * sizeof *y);
                continue;
            }
            for (size_t e = 0; e < eights; e++)
                memcpy(y + 8 * e, flips[(of_low[e][before] ^ of_high[e][byte]) >> 8 * k & 0xff], 8 * sizeof *y);
        }
        before = byte;
    }
    *state = before;
    return groups * GROUP;
}

static void replay_by_table(const replay *r, const uint32_t *negative) {
    float flips[256][8];
    uint32_t state = 0;
    size_t from = 0;
    for (uint32_t b = 0; b < 256; b++) {
        for (uint32_t i = 0; i < 8; i++) flips[b][i] = dz_bits_to_float(dz_float_bits(r->size) ^ (b >> i & 1) << 31);
    }
    if (r->memory == DZ_TRELLIS_MEMORY && r->n <= PLACE_MOST) from = replay_groups(r, negative, flips, &state);
    replay_steps(r, negative, flips, from, state);
}

dz_rc dz_trellis_signs(float *restrict y, size_t n, const uint8_t *restrict message, size_t first, size_t nbits, unsigned memory,
                       float size, dz_error *err) {
    size_t longest = longest_step(n, nbits), begin = 0;
    uint32_t state = 0, *middles = dz_alloc_raw(longest, sizeof *middles, err);
    if (!middles) return err->rc;
    for (size_t j = 0; j < longest; j++) middles[j] = generator((uint32_t)j, memory);
    if (n >= TABLE_FROM && longest <= TABLE_STEP) {
        uint32_t *negative = dz_alloc_raw((size_t)2 << memory, sizeof *negative, err);
        if (negative) {
            find_negative(negative, middles, longest, memory);
            replay r = {.y = y, .n = n, .message = message, .first = first, .nbits = nbits, .memory = memory, .size = size};
            replay_by_table(&r, negative);
        }
        free(negative);
        free(middles);
        return err->rc;
    }
    const size_t least = n / nbits, rest = n % nbits;
    for (size_t t = 0, part = 0; t < nbits; t++) { /* a step has `least` elements or one more */
        part += rest;
        size_t end = begin + least + (part >= nbits), at = first + t;
        part -= part >= nbits ? nbits : 0;
        uint32_t window = ((uint32_t)message[at / 8] >> (at % 8) & 1) << memory | state, middle = window >> 1 & ((1U << (memory - 1)) - 1);
        float value = ((window >> memory ^ window) & 1) ? -size : size;
        for (size_t j = 0; j < end - begin; j++) y[begin + j] = dz_bits_to_float(dz_float_bits(value) ^ parity(middle & middles[j]) << 31);
        state = window >> 1;
        begin = end;
    }
    free(middles);
    return DZ_OK;
}

#include "numeric/trellis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "numeric/kernels.h"

#define GENERATORS_KEY 25    /* the best one of the first forty at rates from 1/4 to 1/2 */
#define TO_INTEGER 0x1.8p23f /* added to a small float: its lowest bits are the float rounded to the nearest integer, half to even */
#define NEVER (-0x20000000)

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

/* The middle bits of the generator of the coefficient `j` of a step. Its first and last bit are 1. */
static uint32_t generator(uint32_t j, unsigned memory) { return dz_u32_at(GENERATORS_KEY, j) & ((1U << (memory - 1)) - 1); }

static size_t longest_step(size_t n, size_t nbits) { return n / nbits + 1; }

/* ---- search ---- */

#define HALF ((size_t)1 << (DZ_TRELLIS_MEMORY - 1))
#define STATES (2 * HALF)

typedef struct search {
    int16_t *x;       /* coefficients as integers */
    uint16_t *middle; /* of the generators of a step */
    uint8_t *from;    /* which of its two predecessors each state has: a bit for each, STATES / 8 bytes a step */
    int32_t *now;     /* best inner product up to each state */
} search;

static void to_integers(int16_t *restrict out, const float *restrict x, size_t n, double std) {
    float scale = (float)(DZ_TRELLIS_STEPS / std);
    for (size_t i = 0; i < n; i++) {
        float y = x[i] * scale;
        y = y < DZ_TRELLIS_MOST ? y : DZ_TRELLIS_MOST;
        y = y > -DZ_TRELLIS_MOST ? y : -DZ_TRELLIS_MOST;
        out[i] = (int16_t)(dz_float_bits(y + TO_INTEGER) - dz_float_bits(TO_INTEGER));
    }
}

/* The product of the message. */
static int32_t walk_back(uint8_t *message, const search *s, size_t nbits) {
    size_t state = 0;
    for (size_t i = 1; i < STATES; i++) {
        if (s->now[i] > s->now[state]) state = i;
    }
    int32_t product = s->now[state];
    unsigned byte = 0;
    for (size_t t = nbits; t-- > 0;) {
        byte = byte << 1 | (unsigned)(state >> (DZ_TRELLIS_MEMORY - 1));
        if (t % 8 == 0) message[t / 8] = (uint8_t)byte;
        if (t % 8 == 0) byte = 0;
        state = (state & (HALF - 1)) << 1 | (s->from[t * (STATES / 8) + state / 8] >> (state % 8) & 1);
    }
    return product;
}

dz_rc dz_trellis_search(uint8_t *message, int32_t *product, const float *x, size_t n, double std, size_t nbits, dz_error *err) {
    size_t longest = longest_step(n, nbits);
    search s = {.x = dz_alloc_raw(n + 1, sizeof *s.x, err),
                .middle = dz_alloc_raw(longest, sizeof *s.middle, err),
                .from = dz_alloc_raw(nbits, STATES / 8, err),
                .now = dz_alloc_raw(STATES, sizeof *s.now, err)};
    if (err->rc == DZ_OK) {
        to_integers(s.x, x, n, std);
        s.x[n] = 0;
        for (size_t j = 0; j < longest; j++) s.middle[j] = (uint16_t)generator((uint32_t)j, DZ_TRELLIS_MEMORY);
        for (size_t i = 0; i < STATES; i++) s.now[i] = i ? NEVER : 0;
        dz_kernels()->trellis_walk(s.now, s.from, s.x, s.middle, n, nbits, HALF);
        *product = walk_back(message, &s, nbits);
    }
    free(s.x);
    free(s.middle);
    free(s.from);
    free(s.now);
    return err->rc;
}

/* ---- replay ---- */

static uint32_t parity(uint32_t x) {
    x ^= x >> 8;
    x ^= x >> 4;
    x ^= x >> 2;
    return (x ^ x >> 1) & 1;
}

dz_rc dz_trellis_signs(float *restrict y, size_t n, const uint8_t *restrict message, size_t first, size_t nbits, unsigned memory,
                       float size, dz_error *err) {
    size_t longest = longest_step(n, nbits), begin = 0;
    uint32_t state = 0, *middles = dz_alloc_raw(longest, sizeof *middles, err);
    if (!middles) return err->rc;
    for (size_t j = 0; j < longest; j++) middles[j] = generator((uint32_t)j, memory);
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

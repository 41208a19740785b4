/* Messages whose bits give each coefficient a sign and one of two sizes, against signs alone (numeric/trellis.h): noise on normal numbers.
 * A study for results/rate.md; nothing of it is in the program.
 *
 *   bench_amplitudes
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { COUNT = 1 << 17, MEMORY_MOST = 8, STATES_MOST = 1 << MEMORY_MOST, STEP_MOST = 16, KEYS = 30 };

/* The register after a bit has memory + 1 bits, newest first. Of the j-th coefficient of its step: the sign is the parity of the register
 * and sign[j], whose first and last bits are 1; the size that of the register and size[j], whose first and last bits are 0, so that the
 * four ways of a butterfly have one gain and one energy. */
typedef struct code {
    unsigned memory;
    uint32_t sign[STEP_MOST], size[STEP_MOST];
    double sizes[2]; /* mean energy 1 */
} code;

static unsigned parity(uint32_t x) { return (unsigned)__builtin_parity(x); }

static code make_code(unsigned memory, double ratio, uint64_t key) {
    code c = {.memory = memory, .sizes = {ratio * sqrt(2 / (1 + ratio * ratio)), sqrt(2 / (1 + ratio * ratio))}};
    uint32_t middle = (1U << (memory - 1)) - 1;
    for (uint32_t j = 0; j < STEP_MOST; j++) {
        c.sign[j] = 1U << memory | (dz_u32_at(key, j) & middle) << 1 | 1;
        c.size[j] = (dz_u32_at(key + 1000, j) & middle) << 1;
        if (c.size[j] == 0) c.size[j] = 2;
    }
    return c;
}

static double value(const code *c, uint32_t window, size_t j) {
    double size = c->sizes[parity(window & c->size[j])];
    return parity(window & c->sign[j]) ? -size : size;
}

/* Noise to signal of the estimate whose inner product with x is that of x itself, of the message that is found. `from`: room. */
static double noise_of(const code *c, const float *x, double rate, uint8_t *from) {
    size_t nbits = (size_t)rint(rate * COUNT), nstates = (size_t)1 << c->memory;
    double bound = 1 / (exp2(2 * rate) - 1), scale = sqrt(1 / (1 + 1.15 * bound)); /* of the best estimate, about */
    float now[STATES_MOST], next[STATES_MOST];
    for (size_t s = 0; s < nstates; s++) now[s] = s ? -1e9F : 0;
    for (size_t t = 0; t < nbits; t++) {
        size_t begin = t * COUNT / nbits, end = (t + 1) * COUNT / nbits;
        float best = -INFINITY;
        for (size_t m = 0; m < nstates / 2; m++) {
            double gain = 0, energy = 0;
            for (size_t j = 0; j < end - begin; j++) {
                double y = scale * value(c, (uint32_t)m << 1, j);
                gain += y * (double)x[begin + j];
                energy += y * y;
            }
            float g = (float)gain, even = now[2 * m] - (float)(energy / 2), odd = now[2 * m + 1] - (float)(energy / 2);
            from[t * nstates + m] = odd - g > even + g;
            from[t * nstates + m + nstates / 2] = odd + g >= even - g;
            next[m] = fmaxf(even + g, odd - g);
            next[m + nstates / 2] = fmaxf(odd + g, even - g);
            best = fmaxf(best, fmaxf(next[m], next[m + nstates / 2]));
        }
        for (size_t s = 0; s < nstates; s++) now[s] = next[s] - best;
    }
    size_t state = 0;
    for (size_t s = 1; s < nstates; s++) state = now[s] > now[state] ? s : state;
    double xy = 0, yy = 0, xx = 0;
    for (size_t t = nbits; t-- > 0;) {
        unsigned low = from[t * nstates + state];
        size_t begin = t * COUNT / nbits, end = (t + 1) * COUNT / nbits;
        for (size_t j = 0; j < end - begin; j++) {
            double y = value(c, (uint32_t)state << 1 | low, j), of = (double)x[begin + j];
            xy += of * y;
            yy += y * y;
            xx += of * of;
        }
        state = (state << 1 | low) & (nstates - 1);
    }
    return xx * yy / (xy * xy) - 1;
}

int main(void) {
    static const double rates[] = {0.3, 0.5, 0.64, 0.75, 0.9, 1}, ratios[] = {1, 0.7, 0.5, 0.35, 0.25};
    static float x[COUNT];
    uint8_t *from = malloc((size_t)COUNT * STATES_MOST);
    if (!from) return 1;
    for (uint64_t i = 0; i < COUNT; i++) {
        double u = ((double)(dz_u64_at(1, 2 * i) >> 11) + 0.5) * 0x1p-53, v = ((double)(dz_u64_at(1, 2 * i + 1) >> 11) + 0.5) * 0x1p-53;
        x[i] = (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
    }
    printf("| bits | memory | signs alone | sizes 0.7 to 1 | 0.5 | 0.35 | 0.25 | best of %d codes |\n|---|---|---|---|---|---|---|---|\n",
           KEYS);
    for (size_t r = 0; r < sizeof rates / sizeof *rates; r++) {
        for (unsigned memory = 7; memory <= MEMORY_MOST; memory++) {
            double over = exp2(2 * rates[r]) - 1, best = INFINITY;
            printf("| %.2f | %u |", rates[r], memory);
            for (size_t k = 0; k < sizeof ratios / sizeof *ratios; k++) {
                code c = make_code(memory, ratios[k], 25);
                printf(" %.3f |", over * noise_of(&c, x, rates[r], from));
            }
            for (uint64_t key = 0; key < KEYS; key++) {
                code c = make_code(memory, rates[r] > 0.7 ? 0.35 : 0.5, key);
                best = fmin(best, over * noise_of(&c, x, rates[r], from));
            }
            printf(" %.3f |\n", best);
        }
    }
    free(from);
    return 0;
}

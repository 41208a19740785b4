/* Dependent levels (two grids of levels, a trellis of 4 or 8 states decides which one is next) against a uniform quantiser: rate and noise
 * on normal numbers. A study for results/rate.md; nothing of it is in the program. The rate is the entropy of the levels, by grid.
 *
 *   bench_dependent
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { COUNT = 1 << 19, MOST = 24, LEVELS = 2 * MOST + 1, STATES = 8, ROUNDS = 12 };

/* States of 4 or 8: the next one for an even and an odd level (those of VVC and of ECM). The grid of a state: even multiples of the step,
 * or 0 and the odd ones. */
static const int NEXT4[4][2] = {{0, 2}, {2, 0}, {1, 3}, {3, 1}};
static const int NEXT8[8][2] = {{0, 2}, {5, 7}, {1, 3}, {6, 4}, {2, 0}, {4, 6}, {3, 1}, {7, 5}};

typedef struct scheme {
    int states;          /* 1: uniform */
    double step, weight; /* of a bit, in steps^2 */
} scheme;

static int next_of(const scheme *s, int state, int level) {
    return s->states == 1 ? 0 : s->states == 4 ? NEXT4[state][level & 1] : NEXT8[state][level & 1];
}

static int grid_of(const scheme *s, int state) { return s->states == 1 ? 0 : s->states == 4 ? state >> 1 : state & 1; }

static double value_of(const scheme *s, int grid, int level) {
    if (s->states == 1) return level * s->step;
    return (2 * level - (grid ? (level > 0) - (level < 0) : 0)) * s->step;
}

/* The cheapest level of a parity (any, if below 0) near x, and its cost. */
static double cheapest(const scheme *s, int grid, int parity, const double *bits, double x, int *level) {
    double size = fabs(x), least = 1e30;
    int near = (int)(s->states == 1 ? size / s->step : (size / s->step + grid) / 2), sign = x < 0 ? -1 : 1;
    for (int j = -2; j <= 2; j++) {
        int k = j == -2 ? 0 : near + j;
        if (k < 0 || k > MOST || (parity >= 0 && (k & 1) != parity)) continue;
        double off = x - value_of(s, grid, sign * k), cost = off * off + s->weight * s->step * s->step * bits[MOST + sign * k];
        if (cost < least) least = cost, *level = sign * k;
    }
    return least;
}

static void choose_levels(const scheme *s, const double *x, double bits[2][LEVELS], signed char *level) {
    static unsigned char from[COUNT][STATES];
    static signed char by[COUNT][STATES];
    double now[STATES], then[STATES];
    for (int q = 0; q < s->states; q++) now[q] = q ? 1e20 : 0;
    for (int i = 0; i < COUNT; i++) {
        for (int q = 0; q < s->states; q++) then[q] = 1e30;
        for (int q = 0; q < s->states; q++) {
            for (int parity = s->states == 1 ? -1 : 0; parity < (s->states == 1 ? 0 : 2); parity++) {
                int k = 0, to;
                double cost = now[q] + cheapest(s, grid_of(s, q), parity, bits[grid_of(s, q)], x[i], &k);
                to = next_of(s, q, parity < 0 ? 0 : parity);
                if (cost >= then[to]) continue;
                then[to] = cost, from[i][to] = (unsigned char)q, by[i][to] = (signed char)k;
            }
        }
        double least = then[0];
        for (int q = 1; q < s->states; q++) least = fmin(least, then[q]);
        for (int q = 0; q < s->states; q++) now[q] = then[q] - least;
    }
    int state = 0;
    for (int q = 1; q < s->states; q++) state = now[q] < now[state] ? q : state;
    for (int i = COUNT; i-- > 0; state = from[i][state]) level[i] = by[i][state];
}

/* Bits of each level, from how often it occurs; the rate, and the noise of the unbiased estimate with the mean of each level as its value.
 */
static void measure(const scheme *s, const double *x, const signed char *level, double bits[2][LEVELS], double *rate, double *noise) {
    double count[2][LEVELS] = {{0}}, sum[2][LEVELS] = {{0}}, all[2] = {0}, xr = 0, rr = 0, xx = 0;
    for (int i = 0, state = 0; i < COUNT; state = next_of(s, state, level[i++])) {
        int g = grid_of(s, state);
        count[g][MOST + level[i]]++;
        sum[g][MOST + level[i]] += x[i];
        all[g]++;
        xx += x[i] * x[i];
    }
    *rate = 0;
    for (int g = 0; g < 2; g++) {
        for (int k = -MOST; k <= MOST; k++) {
            int a = MOST + k, b = MOST - k;
            double n = count[g][a], both = n + count[g][b], mean = k && both > 0 ? (sum[g][a] - sum[g][b]) / both : 0;
            if (n > 0) *rate -= n * log2(n / all[g]) / COUNT;
            xr += mean * sum[g][a];
            rr += n * mean * mean;
            bits[g][a] = -log2((n + 0.01) / (all[g] + 0.5));
        }
    }
    *noise = xr > 0 ? xx * rr / (xr * xr) - 1 : INFINITY;
}

int main(void) {
    static const double steps[] = {2.4, 2, 1.7, 1.5, 1.32, 0.96, 0.72, 0.54, 0.36};
    static double x[COUNT];
    static signed char level[COUNT];
    for (uint64_t i = 0; i < COUNT; i++) {
        double u = ((double)(dz_u64_at(1, 2 * i) >> 11) + 0.5) * 0x1p-53, v = ((double)(dz_u64_at(1, 2 * i + 1) >> 11) + 0.5) * 0x1p-53;
        x[i] = sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
    }
    printf("| states | step | rate, bits | noise | over the bound |\n|---|---|---|---|---|\n");
    for (int states = 1; states <= 8; states += states == 1 ? 3 : 4) {
        for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
            scheme s = {.states = states, .step = states == 1 ? steps[k] / 0.6 : steps[k], .weight = states == 1 ? 0.1 : 0.2};
            double bits[2][LEVELS], rate = 0, noise = 0;
            if (states > 1 && s.step > 1.4) s.weight = 0.15;
            for (int j = -MOST; j <= MOST; j++) bits[0][MOST + j] = bits[1][MOST + j] = 1 + abs(j) * s.step * 2;
            for (int r = 0; r < ROUNDS; r++) {
                choose_levels(&s, x, bits, level);
                measure(&s, x, level, bits, &rate, &noise);
            }
            if (rate > 0) printf("| %d | %.2f | %.3f | %.4f | %.3f |\n", states, s.step, rate, noise, noise * (exp2(2 * rate) - 1));
        }
    }
    return 0;
}

/* Trellis-coded tiles: the search by trying every message, the noise that is promised, the same bytes everywhere, bodies that are none. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/trellis.h"
#include "numeric/kernels.h"
#include "numeric/rotate.h"
#include "numeric/trellis.h"
#include "numeric/uniform_quantiser.h"

#define KEY 11

/* Close to normal: a sum of twelve even ones. */
static float draw(uint64_t key, size_t i) {
    double sum = 0;
    for (size_t k = 0; k < 12; k++) sum += (double)dz_u64_at(key, 12 * i + k) / 18446744073709551616.0;
    return (float)(sum - 6);
}

static void fill(const void *tile, size_t first, size_t count, float *delta) {
    memcpy(delta, (const float *)tile + first, count * sizeof *delta);
}

static float *drawn(uint64_t key, size_t n) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = draw(key, i);
    return x;
}

/* Inner product of a message's signs with x, in standard deviations. */
static double product(const uint8_t *message, const float *x, size_t n, double std, size_t nbits) {
    dz_error err = {0};
    float y[256];
    double sum = 0;
    assert_int_equal(dz_trellis_signs(y, n, message, 0, nbits, DZ_TRELLIS_MEMORY, 1, &err), DZ_OK);
    for (size_t i = 0; i < n; i++) sum += (double)y[i] * fmax(-4, fmin(4, (double)x[i] / std));
    return sum;
}

static void test_no_message_is_much_better_than_the_one_found(void **state) {
    (void)state;
    static const struct { size_t n, nbits; } of[] = {{1, 1}, {5, 1}, {12, 12}, {40, 13}, {250, 14}, {14, 14}, {33, 11}, {30, 18}};
    dz_trellis_room room = {0};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        dz_error err = {0};
        uint8_t found[4] = {0};
        float *x = drawn(k + 1, of[k].n);
        double std = dz_std_about_zero(x, of[k].n), claimed;
        assert_int_equal(dz_trellis_search(&room, found, &claimed, x, of[k].n, std, of[k].nbits, &err), DZ_OK);
        double best = -INFINITY, ours = product(found, x, of[k].n, std, of[k].nbits);
        for (uint32_t m = 0; m < 1U << of[k].nbits; m++) {
            uint8_t message[4] = {(uint8_t)m, (uint8_t)(m >> 8), (uint8_t)(m >> 16), 0};
            double p = product(message, x, of[k].n, std, of[k].nbits);
            best = p > best ? p : best;
        }
        double rounding = 0.1 * sqrt((double)of[k].n);
        assert_true(ours > best - rounding && fabs(claimed - ours) < rounding);
        free(x);
    }
    dz_trellis_room_free(&room);
}

static int end(int x) { return x > 127 ? 127 : x < -128 ? -128 : x; }

/* One step as kernels.h has it, from the elements x of the step on. */
static void step_in_order(int *now, int *from, const int8_t *x, const uint8_t *signs, size_t fours, unsigned halvings) {
    int next[256], next_from[256];
    for (int m = 0; m < 128; m++) {
        int gain = 0;
        for (size_t f = 0; f < fours; f++) {
            int y[4], bits = signs[f * 2048 + 2 * (size_t)m];
            for (int b = 0; b < 4; b++) y[b] = bits >> b & 1 ? -x[16 * f + (size_t)b] : x[16 * f + (size_t)b];
            int sum = end(end(y[0] + y[1]) + end(y[2] + y[3]));
            gain = end(gain + (halvings ? (sum + (f % 2 == 0)) >> 1 : sum));
        }
        if (halvings == 2) gain = (gain + 1) >> 1;
        int a = end(now[2 * m] + gain), b = end(now[2 * m + 1] - gain), c = end(now[2 * m] - gain), d = end(now[2 * m + 1] + gain);
        next[m] = b > a ? b : a;
        next_from[m] = from[2 * m + (b > a)];
        next[128 + m] = c > d ? c : d;
        next_from[128 + m] = from[2 * m + (c <= d)];
    }
    memcpy(now, next, sizeof next);
    memcpy(from, next_from, sizeof next_from);
}

/* The state before a group on the way to `state` after it, from what each step took. */
static unsigned state_before(const uint8_t *taken, unsigned state) {
    for (unsigned k = 8; k-- > 0;) state ^= (unsigned)(taken[32 * k + state / 8] >> state % 8 & 1) << k;
    return state;
}

static void test_every_variant_walks_alike(void **state) {
    (void)state;
    static const struct {
        size_t fours, groups;
        unsigned halvings;
        int most;
    } of[] = {{1, 40, 0, 30},  {1, 40, 1, 60}, {2, 30, 1, 40},  {2, 30, 2, 40},  {3, 20, 2, 30}, {5, 20, 2, 30},
              {13, 10, 2, 20}, {64, 5, 2, 12}, {1, 20, 0, 127}, {4, 20, 1, 127}, {9, 9, 2, 127}, {1, 0, 0, 30}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        size_t fours = of[k].fours, groups = of[k].groups, each = 4 * fours, steps = 8 * groups;
        int8_t *x = malloc(steps * each + 1), now[256];
        uint8_t *signs = malloc(fours * 2048), *taken = malloc((groups + 1) * 256);
        int want[256], way[256];
        for (size_t i = 0; i < steps * each; i++) x[i] = (int8_t)((int)(dz_u64_at(k, i) % (uint64_t)(2 * of[k].most + 1)) - of[k].most);
        for (size_t f = 0; f < fours; f++) {
            for (size_t s = 0; s < 256; s++) {
                uint8_t of_state = 0;
                for (size_t b = 1; b < 8; b++) of_state ^= s >> b & 1 ? (uint8_t)(dz_u64_at(77 + k, f * 8 + b) % 16) : 0;
                for (size_t b = 0; b < 8; b++) signs[f * 2048 + b * 256 + ((s << b | s >> (8 - b)) & 255)] = of_state;
            }
        }
        for (const dz_kernel_table *const *kernel = dz_kernels_all(); *kernel; kernel++) {
            for (size_t s = 0; s < 256; s++) {
                now[s] = (int8_t)(-60 - (int)(dz_u64_at(5, s) % 60));
                want[s] = now[s];
            }
            (*kernel)->trellis_walk(now, taken, x, signs, fours, of[k].halvings, groups);
            for (size_t g = 0; g < groups; g++) {
                int top = -128;
                for (int s = 0; s < 256; s++) way[s] = s;
                for (size_t t = 0; t < 8; t++) {
                    size_t at = 8 * g + t;
                    step_in_order(want, way, x + at / 4 * 4 * each + at % 4 * 4, signs, fours, of[k].halvings);
                    for (int s = 0; t == 3 && s < 256; s++) top = want[s] > top ? want[s] : top;
                }
                for (int s = 0; s < 256; s++) {
                    want[s] = end(want[s] - end(top + 60));
                    assert_int_equal(state_before(taken + 256 * g, (unsigned)s), way[s]);
                }
            }
            for (int s = 0; s < 256; s++) assert_int_equal(now[s], want[s]);
        }
        free(x);
        free(signs);
        free(taken);
    }
}

/* Ways that become one soon, late, or never. */
static void test_every_variant_finds_the_way_back(void **state) {
    (void)state;
    enum { MOST = 700 };
    uint8_t *taken = malloc(MOST * 256), message[MOST + 2], want[MOST + 1];
    static const size_t of[] = {0, 1, 2, 7, 8, 9, 15, 64, 129, 135, 136, 263, 500, MOST};
    for (unsigned kind = 0; kind < 4; kind++) {
        for (size_t i = 0; i < (size_t)MOST * 256; i++) {
            uint64_t bits = dz_u64_at(kind, i);
            taken[i] = (uint8_t)(kind == 0   ? bits
                                 : kind == 1 ? bits & bits >> 8 & bits >> 16 & bits >> 24 & bits >> 32
                                 : kind == 2 ? 0
                                             : 255);
        }
        for (size_t n = 0; n < sizeof of / sizeof *of; n++) {
            size_t groups = of[n];
            want[groups] = (uint8_t)(37 * n + 5);
            for (size_t g = groups; g-- > 0;) want[g] = (uint8_t)state_before(taken + 256 * g, want[g + 1]);
            for (const dz_kernel_table *const *kernel = dz_kernels_all(); *kernel; kernel++) {
                memset(message, 0xa5, sizeof message);
                (*kernel)->trellis_trace(message, want[groups], taken, groups);
                assert_memory_equal(message, want, groups + 1);
                assert_int_equal(message[groups + 1], 0xa5);
            }
        }
    }
    free(taken);
}

static void test_every_variant_packs_and_sums_alike(void **state) {
    (void)state;
    static const struct { size_t n, nbits; } of[] = {{1, 1}, {100, 100}, {1000, 617}, {1003, 251}, {5000, 300}, {9000, 41}, {65536, 40000}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        size_t n = of[k].n, nbits = of[k].nbits, fours = ((n + nbits - 1) / nbits + 3) / 4, size = (nbits + 4) * 4 * fours;
        int8_t *x = calloc(n + 4 * DZ_TRELLIS_FOURS_MOST + 16, 1), *out = malloc(size), *want = malloc(size);
        uint32_t *starts = malloc((nbits + 1) * sizeof *starts), *flips = malloc(512 * fours * sizeof *flips);
        uint8_t *message = malloc(nbits / 8 + 1);
        float *y = drawn(k, n);
        int64_t sum = 0;
        for (size_t t = 0; t <= nbits; t++) starts[t] = (uint32_t)(t * n / nbits);
        for (size_t i = 0; i < 512 * fours; i++) {
            uint32_t w = i % 512;
            flips[i] = w & (w - 1) ? flips[i - w + (w & (w - 1))] ^ flips[i - w + (w & -w)] : 0;
            for (unsigned b = 0; b < 4 && w && !(w & (w - 1)); b++) flips[i] |= (dz_u64_at(9, 4 * i + b) & 1 ? 0xffU : 0) << (8 * b);
        }
        for (size_t i = 0; i <= nbits / 8; i++) message[i] = (uint8_t)dz_u64_at(10, i);
        for (const dz_kernel_table *const *kernel = dz_kernels_all(); *kernel; kernel++) {
            (*kernel)->trellis_round(x, y, n, 20, 60);
            for (size_t i = 0; i < n; i++) assert_int_equal(x[i], (int)rintf(fminf(60, fmaxf(-60, 20 * y[i]))));
            memset(out, 1, size);
            (*kernel)->trellis_pack(out, x, starts, nbits, fours);
            for (size_t t = 0, at; t < nbits; t++) {
                for (size_t j = 0; j < 4 * fours; j++) {
                    at = t / 4 * 16 * fours + j / 4 * 16 + t % 4 * 4 + j % 4;
                    assert_int_equal(out[at], starts[t] + j < starts[t + 1] ? x[starts[t] + j] : 0);
                }
            }
            int64_t expected = 0;
            for (size_t t = 0; t < nbits; t++) {
                unsigned w = 0;
                for (size_t b = 0; b < 9 && b <= t; b++) w |= (unsigned)(message[(t - b) / 8] >> (t - b) % 8 & 1) << (8 - b);
                for (size_t j = 0; starts[t] + j < starts[t + 1]; j++)
                    expected += flips[512 * (j / 4) + w] >> (8 * (j % 4)) & 1 ? -x[starts[t] + j] : x[starts[t] + j];
            }
            sum = (*kernel)->trellis_product(message, nbits, out, flips, fours);
            assert_int_equal(sum, expected);
        }
        free(x);
        free(out);
        free(want);
        free(starts);
        free(flips);
        free(message);
        free(y);
    }
}

/* The gains of long steps, one by one. */
static void test_every_variant_adds_up_long_steps_alike(void **state) {
    (void)state;
    int8_t x[3000];
    uint8_t middle[3000];
    int32_t gain[128];
    for (size_t i = 0; i < 3000; i++) {
        x[i] = (int8_t)dz_u64_at(1, i);
        middle[i] = (uint8_t)(dz_u64_at(2, i) % 128);
    }
    for (const dz_kernel_table *const *kernel = dz_kernels_all(); *kernel; kernel++) {
        (*kernel)->trellis_long_gains(gain, x, middle, 3000);
        for (unsigned m = 0; m < 128; m++) {
            int want = 0;
            for (size_t i = 0; i < 3000; i++) want += __builtin_parity(m & middle[i]) ? -x[i] : x[i];
            assert_int_equal(gain[m], want);
        }
    }
}

/* Against FORMAT.md's words, one element after the other: messages that begin anywhere in a byte, steps of any length, registers of any
 * size. */
static void test_signs_of_a_message_are_those_defined(void **state) {
    (void)state;
    enum { MOST = 140000, BEYOND = 16 };
    static const struct {
        size_t n, nbits;
    } of[] = {{1, 1},         {4095, 900},   {4096, 4096},    {4096, 3},        {4096, 128},    {5000, 4999},
              {65536, 400},   {65536, 5000}, {65536, 8000},   {65536, 16384},   {65536, 16385}, {65536, 21000},
              {65536, 62719}, {65543, 2049}, {131071, 30000}, {131072, 131072}, {139999, 9000}};
    uint8_t *message = malloc(MOST / 8 + 3);
    float *y = malloc((MOST + BEYOND) * sizeof *y);
    for (size_t i = 0; i < MOST / 8 + 3; i++) message[i] = (uint8_t)dz_u64_at(3, i);
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        for (unsigned memory = DZ_TRELLIS_MEMORY_LEAST; memory <= DZ_TRELLIS_MEMORY_MOST; memory++) {
            dz_error err = {0};
            size_t n = of[k].n, nbits = of[k].nbits, first = (5 * k + memory) % 11;
            uint32_t w = 0;
            for (size_t i = 0; i < n + BEYOND; i++) y[i] = 7;
            assert_int_equal(dz_trellis_signs(y, n, message, first, nbits, memory, 2.5f, &err), DZ_OK);
            for (size_t t = 0, i = 0; t < nbits; t++) {
                w = w >> 1 | (uint32_t)(message[(first + t) / 8] >> (first + t) % 8 & 1) << memory;
                for (uint32_t j = 0; i < (t + 1) * n / nbits; i++, j++) {
                    uint32_t g = (1U << memory) + 2 * (dz_u32_at(25, j) & ((1U << (memory - 1)) - 1)) + 1;
                    assert_true(y[i] == (__builtin_parity(w & g) ? -2.5f : 2.5f));
                }
            }
            for (size_t i = n; i < n + BEYOND; i++) assert_true(y[i] == 7);
        }
    }
    free(message);
    free(y);
}

/* Noise and inner product of what comes back, over those of the truth; the body's bytes. */
static size_t there_and_back(const float *delta, size_t count, float rate, double *noise, double *inner) {
    dz_error err = {0};
    dz_buf body = {0};
    uint64_t nonzeros;
    double xx = 0, xy = 0, yy = 0;
    float *x = malloc(count * sizeof *x), *y = malloc(count * sizeof *y);
    memcpy(x, delta, count * sizeof *x);
    assert_int_equal(dz_trellis_encode(&body, fill, x, count, KEY, rate, &nonzeros, &err), DZ_OK);
    assert_true(nonzeros == count);
    assert_int_equal(dz_trellis_decode(&(dz_blocks){.x = y}, body.data, body.len, count, rate, &err), DZ_OK);
    dz_unrotate(y, count, KEY);
    for (size_t i = 0; i < count; i++) {
        xx += (double)delta[i] * (double)delta[i];
        xy += (double)delta[i] * (double)y[i];
        yy += (double)y[i] * (double)y[i];
    }
    *inner = xy / xx;
    *noise = yy / xx / (*inner * *inner) - 1;
    size_t bytes = body.len;
    dz_buf_free(&body);
    free(x);
    free(y);
    return bytes;
}

static void test_noise_and_bytes_are_those_promised(void **state) {
    (void)state;
    static const float rates[] = {0.003f, 0.01f, 0.04f, 0.1f, 0.17f, 0.25f, 0.34f, 0.5f, 0.7f, 0.9f, 1};
    static const size_t counts[] = {1000, 4096, 65536, 110592, 400000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        size_t n = counts[c];
        float *x = drawn(7, n);
        for (size_t i = 0; i < n; i++) x[i] *= i % 7 == 0 ? 5 : 1; /* not normal before it is rotated */
        for (size_t r = 0; r < sizeof rates / sizeof *rates; r++) {
            double noise, inner, want = dz_trellis_noise((double)rates[r], n < DZ_ROTATE_BLOCK ? n : DZ_ROTATE_BLOCK);
            double bits = (double)rates[r] * (double)n, doubt = 0.02 + 1.5 / sqrt(bits);
            size_t bytes = there_and_back(x, n, rates[r], &noise, &inner);
            assert_true(fabs(inner - 1) < 0.003 + 0.15 * sqrt((1 + want) / (double)n)); /* coefficients are rounded to integers */
            if (bits >= 40 && fabs(noise / want - 1) > doubt)
                fail_msg("%zu elements at %g bits: noise %g, not %g", n, (double)rates[r], noise, want);
            assert_true(fabs((double)bytes - bits / 8) < 6 + 2 * (double)dz_rotate_blocks(n));
            assert_true((dz_trellis_message_bits(n, (double)rates[r]) + 7) / 8 + 2 * dz_rotate_blocks(n) + 2 == bytes);
        }
        free(x);
    }
    for (double rate = 1e-4, last = INFINITY; rate < 1; rate *= 1.01) { /* never below the bound of all codings */
        double noise = dz_trellis_noise(rate, (size_t)1 << 40);
        assert_true(noise < last && noise * (exp2(2 * rate) - 1) > 1 && (rate > 0.5 || noise * (exp2(2 * rate) - 1) < 1.125));
        last = noise;
    }
}

/* Blocks of any energy: the same noise in all of them, and the bits that were said before. */
static void test_noise_is_even(void **state) {
    (void)state;
    enum { BLOCKS = 6, COUNT = BLOCKS * 65536 + 1000 };
    static const float sizes[BLOCKS] = {1, 0, 0.4f, 3, 1e-3f, 20};
    static const double noises[] = {0.05, 0.6, 2};
    float *x = drawn(5, COUNT), *y = malloc(COUNT * sizeof *y), *z = malloc(COUNT * sizeof *z);
    for (size_t i = 0; i < COUNT; i++) x[i] *= sizes[i / 65536 < BLOCKS ? i / 65536 : BLOCKS - 1];
    for (size_t k = 0; k < sizeof noises / sizeof *noises; k++) {
        dz_error err = {0};
        dz_buf body = {0};
        uint64_t nonzeros, bits = 0;
        assert_int_equal(dz_trellis_encode_evenly(&body, fill, x, COUNT, KEY, noises[k], &nonzeros, &err), DZ_OK);
        assert_int_equal(body.data[0], DZ_BODY_TRELLIS_EVEN);
        assert_int_equal(dz_trellis_decode(&(dz_blocks){.x = y}, body.data, body.len, COUNT, 0.5f, &err), DZ_OK);
        dz_unrotate(y, COUNT, KEY);
        for (size_t b = 0; b < dz_rotate_blocks(COUNT); b++) {
            size_t first = dz_rotate_first(COUNT, b), n = dz_rotate_length(COUNT, b);
            double energy = 0, off = 0, left;
            for (size_t i = first; i < first + n; i++) {
                energy += (double)x[i] * (double)x[i];
                off += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
            }
            size_t some = dz_trellis_bits_for(n, energy, noises[k], &left);
            bits += some;
            if (energy == 0 || some == 0) {
                assert_true(off == energy && (energy == 0 || energy / (double)n < noises[k] / 60) && left == energy);
                continue;
            }
            if (fabs(off / left - 1) > 0.03) fail_msg("block %zu: noise %g, %g promised", b, off, left);
            if (some < n) assert_true(left <= noises[k] * (double)n && left > 0.99 * noises[k] * (double)n);
            if (some == n) assert_true(left > noises[k] * (double)n * 0.99);
        }
        assert_true(body.len > bits / 8 && body.len < bits / 8 + 6 * BLOCKS + 4);
        for (size_t at = 0; at < body.len; at += 1 + at / 3) { /* damage is named, or decodes to something finite */
            dz_error no = {0};
            uint8_t *copy = malloc(body.len);
            memcpy(copy, body.data, body.len);
            copy[at] ^= (uint8_t)(1 << at % 8);
            if (dz_trellis_decode(&(dz_blocks){.x = z}, copy, body.len, COUNT, 0.5f, &no) == DZ_OK)
                for (size_t i = 0; i < COUNT; i++) assert_true(isfinite(z[i]));
            else
                assert_int_equal(no.rc, DZ_EDAMAGE);
            free(copy);
        }
        for (size_t len = 0; len < 40; len++) {
            dz_error no = {0};
            assert_int_equal(dz_trellis_decode(&(dz_blocks){.x = z}, body.data, len, COUNT, 0.5f, &no), DZ_EDAMAGE);
        }
        dz_buf_free(&body);
    }
    free(x);
    free(y);
    free(z);
}

static void test_nothing_and_what_is_not_finite(void **state) {
    (void)state;
    dz_error err = {0};
    dz_buf body = {0};
    uint64_t nonzeros;
    float x[100] = {0}, y[100];
    assert_int_equal(dz_trellis_encode(&body, fill, x, 100, KEY, 0.5f, &nonzeros, &err), DZ_OK);
    assert_true(body.len == 1 && nonzeros == 0);
    memset(y, 0xff, sizeof y);
    assert_int_equal(dz_trellis_decode(&(dz_blocks){.x = y}, body.data, body.len, 100, 0.5f, &err), DZ_OK);
    assert_memory_equal(y, (float[100]){0}, sizeof y);
    x[50] = INFINITY;
    assert_int_equal(dz_trellis_encode(&body, fill, x, 100, KEY, 0.5f, &nonzeros, &err), DZ_EVALUE);
    dz_buf_free(&body);
}

static void test_bytes_are_always_the_same(void **state) {
    (void)state;
    static const struct {
        size_t count;
        float rate;
        uint64_t hash;
    } of[] = {{1, 1, 0xce356ed121c2c544},
              {777, 0.3f, 0x86229fe7f27ecb50},
              {65536, 0.04f, 0x17ad0584c3f6d9f4},
              {150000, 0.17f, 0xbbb2a8f783e1466b}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        dz_error err = {0};
        dz_buf body = {0};
        uint64_t nonzeros;
        float *x = drawn(k, of[k].count);
        assert_int_equal(dz_trellis_encode(&body, fill, x, of[k].count, KEY, of[k].rate, &nonzeros, &err), DZ_OK);
        uint64_t hash = dz_hash64(body.data, body.len, 0);
        if (hash != of[k].hash) fail_msg("body %zu of %zu bytes: 0x%016llx", k, body.len, (unsigned long long)hash);
        free(x);
        dz_buf_free(&body);
    }
}

/* Decodes from a copy that ends where it ends, so that a sanitizer sees a read beyond. */
static dz_rc decode(const uint8_t *bytes, size_t len, size_t n, float rate) {
    dz_error err = {0};
    uint8_t *copy = malloc(len ? len : 1);
    float *y = malloc(n * sizeof *y);
    memcpy(copy, bytes, len);
    dz_rc rc = dz_trellis_decode(&(dz_blocks){.x = y}, copy, len, n, rate, &err);
    assert_true(rc == DZ_OK || rc == DZ_EDAMAGE);
    free(copy);
    free(y);
    return rc;
}

static void test_bodies_that_are_none_are_refused(void **state) {
    (void)state;
    /* 10 coefficients at half a bit: 5 bits */
    static const struct {
        size_t len;
        uint8_t bytes[8];
    } bad[] = {{0, {0}},
               {2, {0, 0}},
               {1, {7}},
               {5, {6, 8, 0x80, 0x3f, 0x15}},    /* another kind */
               {5, {7, 4, 0x80, 0x3f, 0x15}},    /* a register too short, */
               {5, {7, 13, 0x80, 0x3f, 0x15}},   /* too long */
               {5, {7, 8, 0, 0, 0x15}},          /* no amplitude */
               {5, {7, 8, 0, 0xff, 0x15}},       /* an infinite one */
               {5, {7, 8, 1, 0, 0x15}},          /* one that is no normal number */
               {4, {7, 8, 0x80, 0x3f}},          /* no message */
               {6, {7, 8, 0x80, 0x3f, 0x15, 0}}, /* a longer one */
               {5, {7, 8, 0x80, 0x3f, 0x35}}};   /* a bit beyond it */
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) assert_int_equal(decode(bad[k].bytes, bad[k].len, 10, 0.5f), DZ_EDAMAGE);
    static const uint8_t good[] = {7, 8, 0x80, 0x3f, 0x15};
    assert_int_equal(decode(good, sizeof good, 10, 0.5f), DZ_OK);
    static const float rates[] = {0, -1, 1.5f, INFINITY, NAN};
    for (size_t k = 0; k < 5; k++) assert_int_equal(decode(good, sizeof good, 10, rates[k]), DZ_EDAMAGE);
    for (size_t i = 0; i < 20000; i++) {
        uint8_t bytes[24];
        for (size_t b = 0; b < sizeof bytes; b++) bytes[b] = (uint8_t)dz_u64_at(i, b);
        bytes[0] = i % 4 ? DZ_BODY_TRELLIS : bytes[0];
        bytes[1] = i % 8 ? 5 + bytes[1] % 8 : bytes[1];
        decode(bytes, i % (sizeof bytes + 1), 1 + dz_u64_at(i, 99) % 300, (float)(1 + dz_u64_at(i, 98) % 100) / 100);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_message_is_much_better_than_the_one_found),
                                       cmocka_unit_test(test_every_variant_walks_alike),
                                       cmocka_unit_test(test_every_variant_finds_the_way_back),
                                       cmocka_unit_test(test_every_variant_packs_and_sums_alike),
                                       cmocka_unit_test(test_every_variant_adds_up_long_steps_alike),
                                       cmocka_unit_test(test_signs_of_a_message_are_those_defined),
                                       cmocka_unit_test(test_noise_and_bytes_are_those_promised),
                                       cmocka_unit_test(test_noise_is_even),
                                       cmocka_unit_test(test_nothing_and_what_is_not_finite),
                                       cmocka_unit_test(test_bytes_are_always_the_same),
                                       cmocka_unit_test(test_bodies_that_are_none_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

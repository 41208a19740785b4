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

static float *drawn(uint64_t key, size_t n) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = draw(key, i);
    return x;
}

/* Inner product of a message's signs with x, in the integers of the search. */
static int64_t product(const uint8_t *message, const float *x, size_t n, double std, size_t nbits) {
    dz_error err = {0};
    float y[256];
    int64_t sum = 0;
    assert_int_equal(dz_trellis_signs(y, n, message, 0, nbits, DZ_TRELLIS_MEMORY, 1, &err), DZ_OK);
    for (size_t i = 0; i < n; i++) {
        float scaled = x[i] * (float)(DZ_TRELLIS_STEPS / std), most = DZ_TRELLIS_MOST;
        sum += (int64_t)y[i] * lrintf(scaled > most ? most : scaled < -most ? -most : scaled);
    }
    return sum;
}

static void test_no_message_is_better_than_the_one_found(void **state) {
    (void)state;
    static const struct { size_t n, nbits; } of[] = {{1, 1}, {5, 1}, {12, 12}, {40, 13}, {250, 14}, {14, 14}, {33, 11}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        dz_error err = {0};
        uint8_t found[4] = {0};
        float *x = drawn(k + 1, of[k].n);
        double std = dz_std_about_zero(x, of[k].n);
        int32_t claimed;
        assert_int_equal(dz_trellis_search(found, &claimed, x, of[k].n, std, of[k].nbits, &err), DZ_OK);
        int64_t best = INT64_MIN, ours = product(found, x, of[k].n, std, of[k].nbits);
        for (uint32_t m = 0; m < 1U << of[k].nbits; m++) {
            uint8_t message[4] = {(uint8_t)m, (uint8_t)(m >> 8), (uint8_t)(m >> 16), 0};
            int64_t p = product(message, x, of[k].n, std, of[k].nbits);
            best = p > best ? p : best;
        }
        assert_true(ours == best && claimed == best);
        free(x);
    }
}

static void test_every_variant_walks_alike(void **state) {
    (void)state;
    static const struct {
        size_t n, nbits;
    } of[] = {{1, 1}, {7, 3}, {64, 9}, {400, 10}, {2000, 60}, {3000, 60}, {5000, 60}, {900, 300}, {4096, 4096}, {20000, 7000}, {30000, 17}};
    for (size_t half = 16; half <= DZ_TRELLIS_HALF_MOST; half *= 2) {
        for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
            size_t n = of[k].n, nbits = of[k].nbits, states = 2 * half, longest = n / nbits + 1, bytes = nbits * (half / 4);
            if (half != 128 && nbits > 300) continue;
            int16_t *x = calloc(n + 1, sizeof *x);
            uint16_t *middle = malloc(longest * sizeof *middle);
            int32_t *now = malloc(states * sizeof *now), *want = malloc(states * sizeof *want), *next = malloc(states * sizeof *next);
            uint8_t *from = malloc(bytes), *want_from = calloc(bytes, 1);
            for (size_t i = 0; i < n; i++) /* the largest values of one sign, in one case */
                x[i] = (int16_t)(k % 4 == 3 ? DZ_TRELLIS_MOST : (int)(dz_u64_at(4, i) % (2 * DZ_TRELLIS_MOST + 1)) - DZ_TRELLIS_MOST);
            for (size_t j = 0; j < longest; j++) middle[j] = (uint16_t)(k % 4 == 3 ? half - 1 : dz_u64_at(5, j) % half);
            for (size_t i = 0; i < states; i++) want[i] = i ? -0x20000000 : 0;
            for (size_t t = 0; t < nbits; t++) {
                size_t begin = t * n / nbits, end = (t + 1) * n / nbits;
                for (size_t m = 0; m < half; m++) {
                    int32_t gain = 0;
                    for (size_t j = begin; j < end; j++) gain += __builtin_parity(middle[j - begin] & (unsigned)m) ? -x[j] : x[j];
                    for (size_t bit = 0; bit < 2; bit++) {
                        int32_t g = bit ? -gain : gain, first = want[2 * m] + g, second = want[2 * m + 1] - g;
                        size_t to = m + bit * half;
                        next[to] = second > first ? second : first;
                        uint8_t *at = want_from + t * (half / 4) + to / 8;
                        *at = (uint8_t)(*at | (second > first) << (to % 8));
                    }
                }
                memcpy(want, next, states * sizeof *want);
            }
            for (const dz_kernel_table *const *kernel = dz_kernels_all(); *kernel; kernel++) {
                memset(from, 0xff, bytes);
                for (size_t i = 0; i < states; i++) now[i] = i ? -0x20000000 : 0;
                (*kernel)->trellis_walk(now, from, x, middle, n, nbits, half);
                assert_memory_equal(now, want, states * sizeof *now);
                assert_memory_equal(from, want_from, bytes);
            }
            free(x);
            free(middle);
            free(now);
            free(want);
            free(next);
            free(from);
            free(want_from);
        }
    }
}

/* Noise and inner product of what comes back, over those of the truth; the body's bytes. */
static size_t there_and_back(const float *delta, size_t count, float rate, double *noise, double *inner) {
    dz_error err = {0};
    dz_buf body = {0};
    uint64_t nonzeros;
    double xx = 0, xy = 0, yy = 0;
    float *x = malloc(count * sizeof *x), *y = malloc(count * sizeof *y);
    memcpy(x, delta, count * sizeof *x);
    assert_int_equal(dz_trellis_encode(&body, x, count, KEY, rate, &nonzeros, &err), DZ_OK);
    assert_true(nonzeros == count);
    assert_int_equal(dz_trellis_decode(y, body.data, body.len, count, rate, &err), DZ_OK);
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

static void test_nothing_and_what_is_not_finite(void **state) {
    (void)state;
    dz_error err = {0};
    dz_buf body = {0};
    uint64_t nonzeros;
    float x[100] = {0}, y[100];
    assert_int_equal(dz_trellis_encode(&body, x, 100, KEY, 0.5f, &nonzeros, &err), DZ_OK);
    assert_true(body.len == 1 && nonzeros == 0);
    memset(y, 0xff, sizeof y);
    assert_int_equal(dz_trellis_decode(y, body.data, body.len, 100, 0.5f, &err), DZ_OK);
    assert_memory_equal(y, (float[100]){0}, sizeof y);
    x[50] = INFINITY;
    assert_int_equal(dz_trellis_encode(&body, x, 100, KEY, 0.5f, &nonzeros, &err), DZ_EVALUE);
    dz_buf_free(&body);
}

static void test_bytes_are_always_the_same(void **state) {
    (void)state;
    static const struct {
        size_t count;
        float rate;
        uint64_t hash;
    } of[] = {{1, 1, 0xce356ed121c2c544},
              {777, 0.3f, 0x5e557e2ac7ed198f},
              {65536, 0.04f, 0x53d09b77538f7bf0},
              {150000, 0.17f, 0x955c8089da262502}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        dz_error err = {0};
        dz_buf body = {0};
        uint64_t nonzeros;
        float *x = drawn(k, of[k].count);
        assert_int_equal(dz_trellis_encode(&body, x, of[k].count, KEY, of[k].rate, &nonzeros, &err), DZ_OK);
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
    dz_rc rc = dz_trellis_decode(y, copy, len, n, rate, &err);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_message_is_better_than_the_one_found),
                                       cmocka_unit_test(test_every_variant_walks_alike),
                                       cmocka_unit_test(test_noise_and_bytes_are_those_promised),
                                       cmocka_unit_test(test_nothing_and_what_is_not_finite),
                                       cmocka_unit_test(test_bytes_are_always_the_same),
                                       cmocka_unit_test(test_bodies_that_are_none_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Levels of rotated deltas: the figures of the quantiser, the one scale of rates with signs, and the coding. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "codec/sparse_signs.h"
#include "codec/uniform.h"
#include "numeric/gauss.h"
#include "numeric/kernels.h"
#include "numeric/rate.h"
#include "numeric/rotate.h"
#include "numeric/trellis.h"
#include "numeric/uniform_quantiser.h"

#define KEY 3

static double evenly(uint64_t key, uint64_t i) { return ((double)(dz_u64_at(key, i) >> 11) + 0.5) * 0x1p-53; }

static float normal(uint64_t key, uint64_t i) {
    return (float)(sqrt(-2 * log(evenly(key, 2 * i))) * cos(6.283185307179586 * evenly(key, 2 * i + 1)));
}

/* A draw that needs no libm: the same on every machine. */
static float draw(uint64_t key, uint64_t i) {
    int64_t sum = 0;
    for (unsigned j = 0; j < 4; j++) sum += (int64_t)(dz_u64_at(key + j, i) >> 40) - (1 << 23);
    return (float)sum / 8388608.0f;
}

static float *normals(size_t n, double std) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)std * normal(11, i);
    return x;
}

/* ---- the functions ---- */

static double density(double t) { return exp(-t * t / 2) / sqrt(6.283185307179586); }
static double beyond(double t) { return erfc(t / sqrt(2)) / 2; }

typedef struct figures {
    double bits, noise, scale;
} figures;

/* By the chance and the first moment of each cell. */
static figures integrated(double step) {
    double shift = (double)dz_uniform_shift(step), zero = 1 - 2 * beyond(step / 2), bits = -zero * log2(zero), xy = 0, yy = 0;
    for (int k = 1; ((double)k - 0.5) * step < 12; k++) {
        double low = ((double)k - 0.5) * step, high = low + step, p = beyond(low) - beyond(high), y = ((double)k - shift) * step;
        if (p > 0) bits -= 2 * p * log2(p);
        xy += 2 * y * (density(low) - density(high));
        yy += 2 * y * y * p;
    }
    return (figures){.bits = bits, .noise = yy / (xy * xy) - 1, .scale = 1 / xy};
}

static void test_figures_are_those_of_the_integral(void **state) {
    (void)state;
    double worst[3] = {0};
    for (double step = 0.01; step < 7.9; step *= 1.007) {
        figures want = integrated(step);
        worst[0] = fmax(worst[0], fabs(dz_uniform_bits(step) / want.bits - 1));
        worst[1] = fmax(worst[1], fabs(dz_uniform_noise(step) / want.noise - 1));
        worst[2] = fmax(worst[2], fabs(dz_uniform_scale(step) / want.scale - 1));
    }
    print_message("off by at most: bits %.2g, noise %.2g, scale %.2g of theirs\n", worst[0], worst[1], worst[2]);
    for (int i = 0; i < 3; i++) assert_true(worst[i] < 2e-3);
}

/* Rounding to the nearest with this shift against the best of all dead zones and shifts at the same bits. */
static void test_no_dead_zone_would_gain_much(void **state) {
    (void)state;
    for (double step = 0.25; step < 3; step *= 1.3) {
        figures ours = integrated(step);
        double best = ours.noise;
        for (double rounding = 0.35; rounding < 0.6; rounding += 0.025) {
            for (double shift = 0; shift < 0.5; shift += 0.05) {
                double low = step / 3, high = 3 * step, noise = 0;
                for (int i = 0; i < 40; i++) { /* the step that costs as much */
                    double s = (low + high) / 2, t = (1 - rounding) * s, zero = 1 - 2 * beyond(t), bits = -zero * log2(zero), xy = 0,
                           yy = 0;
                    for (int k = 1; t < 12; k++, t += s) {
                        double p = beyond(t) - beyond(t + s), y = ((double)k - shift) * s;
                        if (p > 0) bits -= 2 * p * log2(p);
                        xy += 2 * y * (density(t) - density(t + s));
                        yy += 2 * y * y * p;
                    }
                    *(bits > ours.bits ? &low : &high) = s;
                    noise = yy / (xy * xy) - 1;
                }
                best = fmin(best, noise);
            }
        }
        assert_true(0.5 * log2(ours.noise / best) < 0.0006); /* bits */
    }
}

static void test_rates_are_one_monotone_scale(void **state) {
    (void)state;
    double bits = INFINITY, noise = 0;
    for (double step = DZ_RATE_STEP_LEAST; step < DZ_RATE_STEP_MOST; step *= 1.0005) {
        assert_true(dz_rate_bits(step) < bits && dz_rate_noise(step) > noise);
        if (isfinite(bits)) assert_true(bits - dz_rate_bits(step) < 0.0025 && dz_rate_noise(step) / noise < 1.0025);
        bits = dz_rate_bits(step);
        noise = dz_rate_noise(step);
        assert_true(noise * (exp2(2 * bits) - 1) > 1); /* the bound of all codings */
        assert_true(bits - log2(1 + 1 / noise) / 2 < 0.256);
        if (bits < 1) assert_true(noise <= 1.001 * dz_trellis_noise(bits, (size_t)1 << 40)); /* the better one is used */
        if (bits < 0.9 && bits > 1e-4) assert_true(noise < 0.95 * dz_gauss_noise(dz_gauss_share_of_bits(bits)));
        if (step > 1.5 && step < 7)
            assert_true(dz_rate_noise(dz_rate_step_of_bits(dz_uniform_bits(step))) <= 1.001 * dz_uniform_noise(step));
        dz_rate r = dz_rate_of_step(dz_rate_step_of_bits(bits));
        assert_true(fabs(r.bits / bits - 1) < 5e-4 && fabs(r.noise / noise - 1) < 2e-3);
        assert_true(fabs(dz_rate_step_of_noise(noise) / step - 1) < 2.5e-4 && fabs(dz_rate_step_of_bits(bits) / step - 1) < 2.5e-4);
        if (fabs(step / DZ_RATE_CROSSING - 1) > 1e-3) assert_int_equal(r.uniform, step < DZ_RATE_CROSSING);
        double exact = dz_rate_step_of_bits(bits);
        assert_true((double)(float)exact == exact);
    }
    double before = nextafter(DZ_RATE_CROSSING, 0), after = nextafter(DZ_RATE_CROSSING, 9);
    assert_true(fabs(dz_rate_bits(before) / dz_rate_bits(after) - 1) < 1e-9 &&
                fabs(dz_rate_noise(before) / dz_rate_noise(after) - 1) < 1e-9);
    assert_true(dz_rate_step_of_bits(-1) == DZ_RATE_STEP_MOST && dz_rate_step_of_bits(99) == DZ_RATE_STEP_LEAST);
    assert_true(dz_uniform_step_of_noise(0) == DZ_UNIFORM_STEP_LEAST && dz_uniform_step_of_noise(INFINITY) == DZ_UNIFORM_STEP_MOST);
}

static void test_standard_deviations_are_kept_to_a_fifth_of_a_percent(void **state) {
    (void)state;
    for (double std = 1e-37; std < 1e38; std *= 1.37) {
        double back = (double)dz_std_of_number(dz_std_number(std));
        assert_true(fabs(back / std - 1) <= 0x1p-9);
    }
    assert_int_equal(dz_std_number(0), 0);
    assert_true(dz_std_number(NAN) > DZ_STD_NUMBER_MOST && dz_std_number(INFINITY) > DZ_STD_NUMBER_MOST &&
                dz_std_number(1e39) > DZ_STD_NUMBER_MOST);
    assert_true(dz_std_number(FLT_MAX) > DZ_STD_NUMBER_MOST); /* it rounds up */
    assert_true(isfinite(dz_std_of_number(DZ_STD_NUMBER_MOST)));
}

/* ---- the coding ---- */

/* Encodes and decodes; what comes back are exactly the quantised coefficients, by their definition. Returns the body's length. */
static size_t round_trip(const float *delta, size_t n, float step, float shift) {
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y), *want = malloc(n * sizeof *want);
    dz_error err = {0};
    dz_buf body = {0};
    uint64_t nonzeros, found = 0;
    memcpy(x, delta, n * sizeof *x);
    memcpy(want, delta, n * sizeof *x);
    dz_rotate(want, n, KEY);
    assert_int_equal(dz_uniform_encode(&body, x, n, KEY, step, shift, &nonzeros, &err), DZ_OK);
    assert_memory_equal(x, want, n * sizeof *x);
    memset(y, 0xff, n * sizeof *y);
    assert_int_equal(dz_uniform_decode(&(dz_blocks){.x = y}, body.data, body.len, n, step, shift, &err), DZ_OK);
    for (size_t b = 0; b < dz_rotate_blocks(n); b++) {
        size_t first = dz_rotate_first(n, b), end = dz_rotate_first(n, b + 1);
        float width = step * dz_std_of_number(dz_std_number(dz_std_about_zero(want + first, end - first)));
        for (size_t i = first; i < end; i++) {
            float level = width < FLT_MIN ? 0 : floorf(fabsf(want[i]) / width + 0.5f);
            float value = level > 0 ? copysignf((level - shift) * width, want[i]) : 0;
            if (dz_float_bits(value) != dz_float_bits(y[i])) fail_msg("%zu of %zu: %a is %a, not %a", i, n, want[i], y[i], value);
            found += y[i] != 0;
        }
    }
    assert_true(found == nonzeros);
    size_t len = body.len;
    free(x);
    free(y);
    free(want);
    dz_buf_free(&body);
    return len;
}

static void test_quantised_values_come_back_exactly(void **state) {
    (void)state;
    static const size_t more[] = {255, 256, 257, 4095, 4096, 4097, 16384, 16385, 65536, 131071, 131072, 200001};
    static const float steps[] = {0x1p-10f, 0.01f, 0.05f, 0.1f, 0.25f, 0.5f, 1, 2, 3, 5, 8};
    float *x = malloc(200001 * sizeof *x);
    for (size_t i = 0; i < 200001; i++) x[i] = draw(7, i) * (i % 101 ? 1 : 10) * (i > 70000 ? 1 : 1e-4f);
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        for (size_t n = 1; n <= 200; n++) round_trip(x, n, steps[s], dz_uniform_shift((double)steps[s]));
        for (size_t i = 0; i < sizeof more / sizeof *more; i++) round_trip(x, more[i], steps[s], s % 2 ? 0.3f : 0);
    }
    free(x);
}

static void test_a_whole_tile_comes_back(void **state) {
    (void)state;
    size_t n = (size_t)1 << 22;
    float *x = normals(n, 0.01);
    round_trip(x, n, 0.5f, 0);
    round_trip(x, n - 63, 0.02f, 0);
    free(x);
}

/* One coefficient takes all of the delta, the largest that is; a constant; some zeros; nothing. */
static void test_deltas_of_odd_shapes_come_back(void **state) {
    (void)state;
    static const size_t counts[] = {1, 2, 64, 1000, 65536, 131071, 200000};
    static const float steps[] = {0x1p-10f, 0.03f, 1, 8}, sizes[] = {1, FLT_MIN, 1e-44f, 1e30f, 3e-39f};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        size_t n = counts[c];
        float *x = malloc(n * sizeof *x);
        for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
            for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
                for (size_t i = 0; i < n; i++) x[i] = sizes[k];
                round_trip(x, n, steps[s], 0.1f);
                for (size_t i = 0; i < n; i++) x[i] = dz_u32_at(KEY, (uint32_t)i) >> 31 ? -sizes[k] : sizes[k];
                round_trip(x, n, steps[s], 0.1f);
            }
            memset(x, 0, n * sizeof *x);
            assert_int_equal(round_trip(x, n, steps[s], 0.1f), 1);
            for (size_t i = n / 2; i < n; i++) x[i] = draw(1, i); /* whole blocks of zeros before it */
            round_trip(x, n, steps[s], 0.1f);
        }
        free(x);
    }
}

static void test_what_is_not_finite_is_refused(void **state) {
    (void)state;
    static const float bad[] = {INFINITY, -INFINITY, NAN, FLT_MAX};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        for (size_t n = 1; n < 5000; n += 1111) {
            float x[5000];
            dz_error err = {0};
            dz_buf body = {0};
            uint64_t nonzeros;
            for (size_t i = 0; i < n; i++) x[i] = k == 3 || i == n / 2 ? bad[k] : 1;
            assert_int_equal(dz_uniform_encode(&body, x, n, KEY, 1, 0, &nonzeros, &err), DZ_EVALUE);
            assert_int_equal(body.len, 0);
            dz_buf_free(&body);
        }
    }
    static const float steps[] = {0, -1, NAN, INFINITY, 9, 0x1p-11f, 1, 1, 1}, shifts[] = {0, 0, 0, 0, 0, 0, -0.1f, 1, NAN};
    for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
        float x[4] = {1, 2, 3, 4};
        dz_error err = {0};
        dz_buf body = {0};
        uint64_t nonzeros;
        assert_int_equal(dz_uniform_encode(&body, x, 4, KEY, steps[k], shifts[k], &nonzeros, &err), DZ_EFAIL);
        err = (dz_error){0};
        assert_int_equal(dz_uniform_decode(&(dz_blocks){.x = x}, (uint8_t[]){0}, 1, 4, steps[k], shifts[k], &err), DZ_EDAMAGE);
        dz_buf_free(&body);
    }
}

/* On normal data the bytes and the noise are those promised; from 1 to 6 bits no more than 0.3 bit above the bound. */
static void test_rate_and_noise_are_those_promised(void **state) {
    (void)state;
    static const size_t counts[] = {65536, 1 << 20};
    static const double rates[] = {0.2, 0.5, 0.8, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10};
    for (size_t c = 0; c < 2; c++) {
        size_t n = counts[c];
        float *delta = normals(n, 0.0123), *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
        for (size_t r = 0; r < sizeof rates / sizeof *rates; r++) {
            double step = dz_uniform_step_of_bits(rates[r]), scale = dz_uniform_scale(step), xx = 0, xy = 0, yy = 0;
            float shift = dz_uniform_shift(step);
            dz_error err = {0};
            dz_buf body = {0};
            uint64_t nonzeros;
            memcpy(x, delta, n * sizeof *x);
            assert_int_equal(dz_uniform_encode(&body, x, n, KEY, (float)step, shift, &nonzeros, &err), DZ_OK);
            assert_int_equal(dz_uniform_decode(&(dz_blocks){.x = y}, body.data, body.len, n, (float)step, shift, &err), DZ_OK);
            dz_unrotate(y, n, KEY);
            for (size_t i = 0; i < n; i++) {
                xx += (double)delta[i] * (double)delta[i];
                xy += scale * (double)delta[i] * (double)y[i];
                yy += scale * scale * (double)y[i] * (double)y[i];
            }
            double bits = 8 * (double)body.len / (double)n, noise = (yy - 2 * xy + xx) / xx, gap = bits - log2(1 + 1 / noise) / 2;
            print_message("%7zu elements, %4.1f bits: %.4f (%+.2f %%), noise %.5g (%+.2f %%), inner product %.4f, %.3f above the bound\n",
                          n, rates[r], bits, 100 * (bits / rates[r] - 1), noise, 100 * (noise / dz_uniform_noise(step) - 1), xy / xx, gap);
            assert_true(fabs(bits / rates[r] - 1) < 0.02 && fabs(noise / dz_uniform_noise(step) - 1) < 0.02);
            assert_true(fabs(xy / xx - 1) < 0.02 && gap < 0.3);
            dz_buf_free(&body);
        }
        free(delta);
        free(x);
        free(y);
    }
}

/* Whatever the delta looks like: heavy tails, parts of other sizes, a structure. */
static void test_noise_does_not_depend_on_the_data(void **state) {
    (void)state;
    size_t n = 300000;
    float *delta = malloc(n * sizeof *delta), *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    for (size_t i = 0; i < n; i++) delta[i] = draw(11, i) * (i < n / 3 ? 0.001f : 0.02f) * (i % 97 ? 1 : 20);
    for (double rate = 1; rate <= 8; rate *= 2) {
        double step = dz_uniform_step_of_bits(rate), scale = dz_uniform_scale(step), xx = 0, xy = 0, yy = 0;
        dz_error err = {0};
        dz_buf body = {0};
        uint64_t nonzeros;
        memcpy(x, delta, n * sizeof *x);
        assert_int_equal(dz_uniform_encode(&body, x, n, KEY, (float)step, dz_uniform_shift(step), &nonzeros, &err), DZ_OK);
        assert_int_equal(dz_uniform_decode(&(dz_blocks){.x = y}, body.data, body.len, n, (float)step, dz_uniform_shift(step), &err), DZ_OK);
        dz_unrotate(y, n, KEY);
        for (size_t i = 0; i < n; i++) {
            xx += (double)delta[i] * (double)delta[i];
            xy += scale * (double)delta[i] * (double)y[i];
            yy += scale * scale * (double)y[i] * (double)y[i];
        }
        assert_true(fabs(xy / xx - 1) < 0.02 && fabs((yy - 2 * xy + xx) / xx / dz_uniform_noise(step) - 1) < 0.05);
        assert_true(fabs(8 * (double)body.len / (double)n / rate - 1) < 0.02);
        dz_buf_free(&body);
    }
    free(delta);
    free(x);
    free(y);
}

static void test_small_tiles_pay_no_tables(void **state) {
    (void)state;
    for (size_t n = 1; n <= 16384; n *= 4) {
        float *x = normals(n, 1);
        for (double rate = 1.5; rate <= 8; rate++) {
            double step = dz_uniform_step_of_bits(rate);
            double bytes = (double)round_trip(x, n, (float)step, dz_uniform_shift(step)), most = 8 + 1.08 * rate * (double)n / 8;
            if (bytes > most) fail_msg("%zu elements at %.1f bits: %.0f bytes, %.1f allowed", n, rate, bytes, most);
        }
        free(x);
    }
}

/* The same bytes on every machine, with every instruction set: run with DZ_KERNELS=portable, avx2, avx512. */
static void test_bytes_are_always_the_same(void **state) {
    (void)state;
    static const struct {
        size_t count;
        float step;
        uint64_t hash;
    } of[] = {{100, 0.5f, 0x04e17b26fe353cc9},
              {5000, 1.5f, 0x5bd7d6380679e2f2},
              {70000, 0.01f, 0x6d5e833137dcf1f7},
              {200001, 0.4f, 0x6fbd5271140af191},
              {200001, 2.5f, 0xbffc65b52c9793c4}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        float *x = malloc(of[k].count * sizeof *x);
        dz_error err = {0};
        dz_buf body = {0};
        uint64_t nonzeros;
        for (size_t i = 0; i < of[k].count; i++) x[i] = draw(21, i);
        assert_int_equal(dz_uniform_encode(&body, x, of[k].count, KEY, of[k].step, 0, &nonzeros, &err), DZ_OK);
        uint64_t hash = dz_hash64(body.data, body.len, 0);
        if (hash != of[k].hash) fail_msg("body %zu of %zu bytes: 0x%016llx", k, body.len, (unsigned long long)hash);
        free(x);
        dz_buf_free(&body);
    }
    double figure[6] = {dz_rate_bits(0.1), dz_rate_noise(1.7),        dz_rate_bits(2.3),
                        dz_rate_bits(17),  dz_rate_step_of_bits(3.3), dz_uniform_scale(3.14)};
    uint64_t hash = dz_hash64(figure, sizeof figure, 0);
    if (hash != 0xc5b0a3b15fd863da) fail_msg("figures: 0x%016llx", (unsigned long long)hash);
}

/* ---- bodies that are none ---- */

/* Decodes n elements from a copy that ends where it ends, so that a sanitizer sees a read beyond. */
static dz_rc decode(const uint8_t *bytes, size_t len, size_t n, float step) {
    uint8_t *copy = malloc(len ? len : 1);
    float *y = malloc(n * sizeof *y);
    dz_error err = {0};
    if (len) memcpy(copy, bytes, len);
    dz_rc rc = dz_uniform_decode(&(dz_blocks){.x = y}, copy, len, n, step, 0.1f, &err);
    assert_true(rc == err.rc && (rc == DZ_OK || (rc == DZ_EDAMAGE && err.text[0])));
    for (size_t i = 0; rc == DZ_OK && i < n; i++) assert_true(!isnan(y[i]));
    free(copy);
    free(y);
    return rc;
}

static dz_buf body_of(size_t n, float step) {
    float *x = malloc(n * sizeof *x);
    dz_error err = {0};
    dz_buf body = {0};
    uint64_t nonzeros;
    for (size_t i = 0; i < n; i++) x[i] = draw(1, i) + (i == 3 ? 40 : 0);
    assert_int_equal(dz_uniform_encode(&body, x, n, KEY, step, 0.1f, &nonzeros, &err), DZ_OK);
    free(x);
    return body;
}

static void test_damaged_bodies_never_crash(void **state) {
    (void)state;
    static const struct {
        size_t count;
        float step;
    } of[] = {{1, 1}, {50, 0.5f}, {50, 0.01f}, {20000, 2}, {20000, 0.02f}, {140000, 0.5f}, {140000, 0.05f}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        size_t n = of[k].count;
        dz_buf body = body_of(n, of[k].step);
        assert_int_equal(decode(body.data, body.len, n, of[k].step), DZ_OK);
        size_t stride = n > 50 ? 1 + body.len / 300 : 1;
        for (size_t len = 0; len < body.len; len += len < 40 ? 1 : stride)
            assert_int_equal(decode(body.data, len, n, of[k].step), DZ_EDAMAGE);
        uint8_t *copy = malloc(body.len + 1);
        memcpy(copy, body.data, body.len);
        copy[body.len] = 0;
        assert_int_equal(decode(copy, body.len + 1, n, of[k].step), DZ_EDAMAGE); /* a byte too many */
        for (size_t i = 0; i < 1500; i++) {
            memcpy(copy, body.data, body.len);
            copy[i % 2 ? dz_u64_at(9, i) % (body.len < 40 ? body.len : 40) : dz_u64_at(9, i) % body.len] ^=
                (uint8_t)(1 + dz_u64_at(10, i) % 255);
            decode(copy, body.len, n, of[k].step);
        }
        decode(body.data, body.len, n + 1, of[k].step);
        if (n > 1) decode(body.data, body.len, n - 1, of[k].step);
        decode(body.data, body.len, n, 0x1p-10f);
        free(copy);
        dz_buf_free(&body);
    }
}

static void test_random_bytes_never_crash(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 20000; i++) {
        uint8_t bytes[128];
        size_t len = dz_u64_at(1, i) % sizeof bytes, n = 1 + dz_u64_at(2, i) % 300;
        for (size_t j = 0; j < sizeof bytes; j++) bytes[j] = (uint8_t)dz_u64_at(i + 3, j);
        bytes[0] = i % 8 ? DZ_BODY_UNIFORM : bytes[0];
        bytes[1] = (uint8_t)(i % 3 ? bytes[1] % 9 : 32 + bytes[1] % 22);
        decode(bytes, len, n, 0.5f);
    }
}

/* Heads of 10 elements: kind, form, standard deviation 1; then what is wrong. */
static void test_absurd_heads_are_refused(void **state) {
    (void)state;
    static const struct {
        size_t len;
        uint8_t bytes[40];
    } bad[] = {
        {0, {0}},
        {1, {6}},
        {2, {0, 0}},
        {4, {6, 0, 0, 0}},                                                                          /* no block with a level */
        {4, {6, 0, 0x00, 0x7f}},                                                                    /* no core */
        {16, {6, 0, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}},          /* a core of 2^64 - 1 bytes */
        {16, {6, 0, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},       /* a varint of no end */
        {16, {6, 0, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},                           /* no count of escapes */
        {17, {6, 0, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},                        /* an escape that is missing */
        {18, {6, 0, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 7}},                     /* an escape that is not used */
        {17, {6, 0, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 255, 0}},                      /* one that is used, not there */
        {21, {6, 0, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 255, 1, 0xff, 0xff, 0xff, 1}}, /* a level of 2^21 */
        {25, {6, 0, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
        {16, {6, 0, 0x00, 0x7f, 10, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}},    /* nine symbols */
        {17, {6, 0, 0x00, 0xff, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}}, /* an infinite standard deviation */
        {17, {6, 0, 0xff, 0xff, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}}, /* one that is not a number */
        {17, {6, 0, 0x01, 0x00, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}}, /* one too small */
        {17, {6, 1, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}}, /* no low bits */
        {17, {6, 9, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}}, /* no such form */
        {6, {6, 54, 0x00, 0x7f, 0, 0}},                                      /* no such form */
        {5, {6, 32, 0x00, 0x7f, 0}},                                         /* eight codes of ten */
        {6, {6, 32, 0x00, 0x7f, 0xff, 0xff}},                                /* a code without end */
        {7, {6, 32, 0x00, 0x7f, 0, 0, 0}},                                   /* a byte too many */
        {8, {6, 53, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff}},                    /* a level beyond all */
    };
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        if (decode(bad[k].bytes, bad[k].len, 10, 0.5f) != DZ_EDAMAGE) fail_msg("head %zu is taken", k);
    }
    assert_int_equal(decode((uint8_t[]){0}, 1, 10, 0.5f), DZ_OK);
    assert_int_equal(decode((uint8_t[]){6, 0, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}, 17, 10, 0.5f), DZ_OK);
    assert_int_equal(decode((uint8_t[]){6, 0, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 255, 1, 9}, 18, 10, 0.5f), DZ_OK);
    assert_int_equal(decode((uint8_t[]){6, 1, 0x00, 0x7f, 11, 0x30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0xff, 3}, 19, 10, 0.5f), DZ_OK);
    assert_int_equal(decode((uint8_t[]){6, 32, 0x00, 0x7f, 0, 0}, 6, 10, 0.5f), DZ_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_figures_are_those_of_the_integral),
                                       cmocka_unit_test(test_no_dead_zone_would_gain_much),
                                       cmocka_unit_test(test_rates_are_one_monotone_scale),
                                       cmocka_unit_test(test_standard_deviations_are_kept_to_a_fifth_of_a_percent),
                                       cmocka_unit_test(test_quantised_values_come_back_exactly),
                                       cmocka_unit_test(test_a_whole_tile_comes_back),
                                       cmocka_unit_test(test_deltas_of_odd_shapes_come_back),
                                       cmocka_unit_test(test_what_is_not_finite_is_refused),
                                       cmocka_unit_test(test_rate_and_noise_are_those_promised),
                                       cmocka_unit_test(test_noise_does_not_depend_on_the_data),
                                       cmocka_unit_test(test_small_tiles_pay_no_tables),
                                       cmocka_unit_test(test_bytes_are_always_the_same),
                                       cmocka_unit_test(test_damaged_bodies_never_crash),
                                       cmocka_unit_test(test_random_bytes_never_crash),
                                       cmocka_unit_test(test_absurd_heads_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

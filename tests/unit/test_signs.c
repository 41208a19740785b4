/* Rotated deltas: the transform by its definition, its way back, the coding, and what the Gauss figures promise. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/sparse_signs.h"
#include "numeric/gauss.h"
#include "numeric/rotate.h"

static float draw(uint64_t key, size_t i) { return (float)((double)(int64_t)dz_u64_at(key, i) / 9.3e18); }

static void test_every_variant_has_the_bits_of_the_plain_transform(void **state) {
    (void)state;
    for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) {
        for (size_t n = 1; n <= 1 << 17; n *= 2) {
            float *x = malloc(n * sizeof *x), *want = malloc(n * sizeof *want);
            for (size_t i = 0; i < n; i++) x[i] = want[i] = draw(n, i);
            for (size_t h = 1; h < n; h *= 2) {
                for (size_t i = 0; i < n; i++) {
                    if (i & h) continue;
                    float a = want[i], b = want[i + h];
                    want[i] = a + b;
                    want[i + h] = a - b;
                }
            }
            float *scaled = malloc(n * sizeof *scaled);
            memcpy(scaled, x, n * sizeof *x);
            (*k)->hadamard(scaled, n, 0.7f, DZ_FLIPS_NONE, 0);
            for (size_t i = 0; i < n; i++) assert_true(dz_float_bits(scaled[i]) == dz_float_bits(want[i] * 0.7f));
            memcpy(scaled, x, n * sizeof *x);
            (*k)->hadamard(scaled, n, 0.7f, DZ_FLIPS_AFTER, 99);
            for (size_t i = 0; i < n; i++)
                assert_true(dz_float_bits(scaled[i]) == dz_float_bits(want[i] * (dz_u32_at(99, (uint32_t)i) >> 31 ? -0.7f : 0.7f)));
            memcpy(scaled, x, n * sizeof *x);
            (*k)->flip(scaled, 99, n);
            (*k)->hadamard(scaled, n, 1, DZ_FLIPS_BEFORE, 99);
            (*k)->hadamard(x, n, 1, DZ_FLIPS_NONE, 0);
            assert_memory_equal(scaled, x, n * sizeof *x);
            free(scaled);
            assert_memory_equal(x, want, n * sizeof *x);
            (*k)->flip(x, 99, n);
            for (size_t i = 0; i < n; i++) assert_true(x[i] == (dz_u32_at(99, (uint32_t)i) >> 31 ? -want[i] : want[i]));
            free(x);
            free(want);
        }
    }
}

static void test_rotation_is_orthogonal_and_comes_back(void **state) {
    (void)state;
    static const size_t counts[] = {0, 1, 2, 3, 64, 1000, 65536, 65537, 131071, 131072, 200001};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        size_t n = counts[c];
        float *x = malloc((n + 1) * sizeof *x);
        double before = 0, after = 0, worst = 0;
        for (size_t i = 0; i < n; i++) {
            x[i] = draw(5, i) * (i % 1000 == 0 ? 30 : 1);
            before += (double)x[i] * (double)x[i];
        }
        dz_rotate(x, n, 7);
        for (size_t i = 0; i < n; i++) after += (double)x[i] * (double)x[i];
        assert_true(fabs(after - before) <= 1e-5 * before);
        dz_unrotate(x, n, 7);
        for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)(x[i] - draw(5, i) * (i % 1000 == 0 ? 30 : 1))));
        assert_true(worst < 1e-4);
        free(x);
    }
}

/* E max |x| of `length` standard normal numbers: the integral of 1 - P(|x| < t)^length. */
static double expected_largest(double length) {
    double sum = 0.5, step = 1e-3;
    for (double t = step; t < 14; t += step) sum += 1 - exp(length * log1p(-erfc(t / sqrt(2))));
    return sum * step;
}

static void test_gauss_figures_are_those_of_the_integral(void **state) {
    (void)state;
    for (int k = 0; k <= 17; k++) {
        double share = ldexp(1, -k);
        assert_int_equal(dz_gauss_log(share), k);
        assert_true(fabs(dz_gauss_mean(share) - expected_largest(ldexp(1, k))) < 2e-4);
        assert_true(fabs(dz_gauss_bits(share) - (k + 1) * share) < 1e-12);
    }
    /* a quarter of the elements in sections of 4, the rest in sections of 8: 1/16 and 3/32 of all are kept */
    double share = 0.25 / 4 + 0.75 / 8;
    assert_true(fabs(dz_gauss_bits(share) - (0.25 / 4 * 3 + 0.75 / 8 * 4)) < 1e-12);
    assert_true(fabs(dz_gauss_mean(share) - (0.25 / 4 * expected_largest(4) + 0.75 / 8 * expected_largest(8)) / share) < 2e-4);
    assert_true(fabs(dz_gauss_share_of_bits(dz_gauss_bits(share)) - share) < 1e-12);
}

/* An estimate with the inner product of the truth, its noise and its size as numeric/gauss.h has them, whatever the values are. */
static void test_signs_keep_the_inner_product_at_the_promised_size(void **state) {
    (void)state;
    size_t n = 300000;
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    static const double shares[] = {0.0002, 0.001, 0.01, 0.1, 0.5, 1};
    for (int s = 0; s < 6; s++) {
        dz_error err = {0};
        dz_buf body = {0};
        dz_nonzeros kept = {0};
        uint64_t signs[2];
        double scale = 1 / dz_gauss_mean(shares[s]), xx = 0, xy = 0, yy = 0;
        for (size_t i = 0; i < n; i++) x[i] = draw(11, i) * (i < n / 3 ? 0.001f : 0.02f) * (i % 97 ? 1 : 20); /* heavy tails, a weak part */
        memcpy(y, x, n * sizeof *y);
        assert_int_equal(dz_signs_encode(&body, y, n, 3, shares[s], signs, &err), DZ_OK);
        assert_int_equal(dz_signs_decode(&kept, body.data, body.len, n, shares[s], &err), DZ_OK);
        assert_int_equal(kept.count, signs[0] + signs[1]);
        memset(y, 0, n * sizeof *y);
        for (size_t i = 0; i < kept.count; i++) y[kept.index[i]] = kept.value[i];
        dz_unrotate(y, n, 3);
        for (size_t i = 0; i < n; i++) {
            xx += (double)x[i] * (double)x[i];
            xy += (double)x[i] * scale * (double)y[i];
            yy += scale * scale * (double)y[i] * (double)y[i];
        }
        print_message("share %.3f: inner product %.4f, noise %.4f of what is promised\n", shares[s], xy / xx,
                      (yy - 2 * xy + xx) / xx / dz_gauss_noise(shares[s]));
        assert_true(fabs(xy / xx - 1) < 0.05);
        assert_true(fabs((yy - 2 * xy + xx) / xx / dz_gauss_noise(shares[s]) - 1) < 0.15);
        double bytes = 1 + 2 * (double)dz_rotate_blocks(n) + (double)n * dz_gauss_bits(shares[s]) / 8;
        print_message("share %.3f: %zu bytes, %.0f promised\n", shares[s], body.len, bytes);
        assert_true(fabs((double)body.len - bytes) < 16);
        assert_true(fabs((double)kept.count - shares[s] * (double)n) < 2 * (double)dz_rotate_blocks(n));
        dz_buf_free(&body);
        dz_nonzeros_free(&kept);
    }
    free(x);
    free(y);
}

/* Of every length and share the kept ones are the largest of their sections and come back from what was written. */
static void test_every_length_of_block_is_divided(void **state) {
    (void)state;
    for (size_t n = 1; n < 70; n++) {
        for (size_t wanted = 0; wanted <= n + 1; wanted++) {
            float x[70];
            dz_error err = {0};
            dz_buf body = {0};
            dz_nonzeros kept = {0};
            uint64_t signs[2];
            double share = (double)wanted / (double)n;
            for (size_t i = 0; i < n; i++) x[i] = draw(n, i);
            assert_int_equal(dz_signs_encode(&body, x, n, 3, share, signs, &err), DZ_OK);
            assert_int_equal(dz_signs_decode(&kept, body.data, body.len, n, share, &err), DZ_OK);
            assert_int_equal(kept.count, signs[0] + signs[1]);
            size_t least = wanted < 1 ? 1 : wanted > n ? n : wanted;
            assert_true(kept.count == least || kept.count + 1 == least); /* one less where a section lies past the end */
            float most = 0;
            for (size_t i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i]));
            int has_most = 0;
            for (size_t i = 0; i < kept.count; i++) {
                assert_true(kept.index[i] < n && (i == 0 || kept.index[i] > kept.index[i - 1]));
                assert_int_equal(kept.level[i], x[kept.index[i]] > 0);
                has_most |= fabsf(x[kept.index[i]]) == most;
            }
            assert_true(has_most);
            dz_buf_free(&body);
            dz_nonzeros_free(&kept);
        }
    }
}

static void test_damaged_signs_never_crash(void **state) {
    (void)state;
    size_t n = 140000;
    float *x = malloc(n * sizeof *x);
    dz_error err = {0};
    dz_buf body = {0};
    dz_nonzeros kept = {0};
    uint64_t signs[2];
    for (size_t i = 0; i < n; i++) x[i] = draw(1, i);
    assert_int_equal(dz_signs_encode(&body, x, n, 3, 0.01, signs, &err), DZ_OK);
    uint8_t *copy = malloc(body.len);
    for (size_t i = 0; i < 3000; i++) {
        size_t len = i % 3 ? body.len : dz_u64_at(8, i) % body.len;
        memcpy(copy, body.data, body.len);
        if (i % 3) copy[i % 3 == 1 ? i % 16 : dz_u64_at(9, i) % body.len] ^= (uint8_t)(1 + dz_u64_at(10, i) % 255);
        err = (dz_error){0};
        dz_signs_decode(&kept, copy, len, n, 0.01, &err);
        for (size_t k = 0; err.rc == DZ_OK && k < kept.count; k++) assert_true(kept.index[k] < n && kept.level[k] < 2);
        assert_true(err.rc == DZ_OK || err.rc == DZ_EDAMAGE);
    }
    memset(x, 0, n * sizeof *x); /* nothing to keep */
    body.len = 0;
    err = (dz_error){0};
    assert_int_equal(dz_signs_encode(&body, x, n, 3, 0.01, signs, &err), DZ_OK);
    assert_int_equal(body.len, 1);
    assert_int_equal(dz_signs_decode(&kept, body.data, body.len, n, 0.01, &err), DZ_OK);
    assert_int_equal(kept.count, 0);
    free(copy);
    free(x);
    dz_buf_free(&body);
    dz_nonzeros_free(&kept);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_variant_has_the_bits_of_the_plain_transform),
                                       cmocka_unit_test(test_rotation_is_orthogonal_and_comes_back),
                                       cmocka_unit_test(test_gauss_figures_are_those_of_the_integral),
                                       cmocka_unit_test(test_every_length_of_block_is_divided),
                                       cmocka_unit_test(test_signs_keep_the_inner_product_at_the_promised_size),
                                       cmocka_unit_test(test_damaged_signs_never_crash)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

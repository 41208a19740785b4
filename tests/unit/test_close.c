/* Bodies of 16-bit floats near the base, CLOSE and the older NEAR, whatever would be chosen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/close.h"
#include "codec/near.h"
#include "deltas.h"

#define NCOUNTS 16
#define MOST 140000

/* All of these lengths, both types; wide and narrow differences, flipped signs, equal elements. */
static void all_lengths(const size_t counts[NCOUNTS], size_t (*round_trip)(const void *, const void *, dz_dtype, size_t)) {
    static const double scales[] = {0, 2e-6, 1e-4, 5e-4, 3e-3, 0.05};
    uint16_t *words = malloc(2 * MOST), *base = malloc(2 * MOST);
    size_t made = 0, tried = 0;
    for (size_t t = 0; t < 2 * NCOUNTS * 6; t++) {
        dz_dtype dtype = t % 2 ? DZ_F16 : DZ_BF16;
        size_t n = counts[t / 12];
        fill_weights(words, base, dtype, n, scales[t / 2 % 6]);
        for (size_t i = 0; t % 3 == 0 && i < n; i += 37) words[i] ^= 0x8000; /* escapes */
        tried += n >= 4095;
        made += round_trip(words, base, dtype, n) > 0 && n >= 4095;
    }
    if (made < tried / 3) fail_msg("%zu of %zu", made, tried);
    free(words);
    free(base);
}

/* A body of differences near the base, whatever would be chosen; its length, 0 if none is made. */
static size_t near_round_trip(const void *words, const void *base, dz_dtype dtype, size_t n) {
    dz_error err = {0};
    dz_buf out = {0};
    int taken;
    assert_int_equal(dz_near_encode(&out, words, base, dtype, n, n < 4095, &taken, &err), DZ_OK);
    assert_true(taken ? out.len > 0 : out.len == 0);
    if (taken) {
        uint8_t *back = malloc(2 * n), *body = malloc(out.len);
        memcpy(body, out.data, out.len);
        dz_view view = {.data = body, .len = out.len};
        assert_int_equal(dz_near_decode(back, base, dtype, n, &view, &err), DZ_OK);
        assert_int_equal(view.pos, view.len);
        assert_memory_equal(back, words, 2 * n);
        free(back);
        free(body);
    }
    size_t len = out.len;
    dz_buf_free(&out);
    return len;
}

/* Of lengths around those of chunks, lanes and segments. */
static void test_elements_near_the_base_come_back(void **state) {
    (void)state;
    static const size_t counts[NCOUNTS] = {1, 2, 3, 7, 9, 255, 4095, 16384, 16387, 32767, 32768, 32769, 32771, 65537, 100001, MOST};
    all_lengths(counts, near_round_trip);
}

/* The same by what is written today; a damaged one does no harm. */
static size_t close_round_trip(const void *words, const void *base, dz_dtype dtype, size_t n) {
    dz_error err = {0};
    dz_buf out = {0};
    int taken;
    assert_int_equal(dz_close_encode(&out, words, base, dtype, n, n < 4095 ? DZ_CLOSE_ANYWAY : DZ_CLOSE_AFTER_CLASSES, &taken, &err),
                     DZ_OK);
    assert_true(taken ? out.len > 0 : out.len == 0);
    if (taken) {
        uint8_t *back = malloc(2 * n), *body = malloc(out.len);
        memcpy(body, out.data, out.len);
        dz_view view = {.data = body, .len = out.len};
        assert_int_equal(dz_close_decode(back, base, dtype, n, &view, &err), DZ_OK);
        assert_int_equal(view.pos, view.len);
        assert_memory_equal(back, words, 2 * n);
        for (uint64_t r = 0; r < 40; r++) {
            dz_error harm = {0};
            memcpy(body, out.data, out.len);
            size_t at = dz_u64_at(n, r) % (r % 2 ? out.len : out.len < 700 ? out.len : 700);
            body[at] ^= (uint8_t)(1U << r % 8);
            view = (dz_view){.data = body, .len = r % 5 ? out.len : at};
            dz_rc rc = dz_close_decode(back, base, dtype, n, &view, &harm);
            assert_true(rc == DZ_OK || rc == DZ_EDAMAGE);
        }
        free(back);
        free(body);
    }
    size_t len = out.len;
    dz_buf_free(&out);
    return len;
}

/* Of lengths around those of groups, steps and blocks. */
static void test_elements_close_to_the_base_come_back(void **state) {
    (void)state;
    static const size_t counts[NCOUNTS] = {1, 31, 32, 33, 127, 128, 129, 2047, 2048, 2049, 32768, 32769, 34815, 65537, 100001, MOST};
    all_lengths(counts, close_round_trip);
}

/* Random words, which are nearly all escapes or far; equal ones; one class alone. */
static void test_odd_elements_close_to_the_base_come_back(void **state) {
    (void)state;
    enum { N = 4000 };
    uint16_t words[N], base[N];
    fill_bytes((uint8_t *)base, sizeof base, 5);
    fill_bytes((uint8_t *)words, sizeof words, 6);
    for (size_t d = 0; d < 2; d++) {
        dz_dtype dtype = d ? DZ_F16 : DZ_BF16;
        close_round_trip(words, base, dtype, N);
        close_round_trip(base, base, dtype, N);
        uint16_t one[N], two[N];
        for (size_t i = 0; i < N; i++) one[i] = 0x3f80, two[i] = (uint16_t)(0x3f80 + (i % 7 == 0));
        assert_true(close_round_trip(two, one, dtype, N) > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements_near_the_base_come_back),
        cmocka_unit_test(test_elements_close_to_the_base_come_back),
        cmocka_unit_test(test_odd_elements_close_to_the_base_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

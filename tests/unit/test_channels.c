/* Factors by input channel: there and back, their length, who gets which, heads that are none. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "codec/channels.h"

static void fill(int8_t *code, size_t n, int most, uint64_t key) {
    for (size_t i = 0; i < n; i++) code[i] = (int8_t)((int)(dz_u64_at(key, i) % (uint64_t)(2 * most + 1)) - most);
}

static void test_codes_come_back(void **state) {
    (void)state;
    static const int most[] = {0, 1, 3, 8, DZ_CHANNEL_CODE_MOST};
    for (size_t j = 0; j < 2 * sizeof most / sizeof *most; j++) {
        size_t k = j / 2;
        int few = j % 2;
        for (uint32_t n = 1; n < 600; n = 3 * n + 1) {
            dz_error err = {0};
            dz_buf buf = {0};
            int8_t *code = malloc(n), *back = NULL;
            fill(code, n, most[k], n);
            for (uint32_t i = 0; few && i < n; i++) code[i] = i % 40 == 3 ? code[i] : 0; /* written as a list */
            dz_channels c = {.code = code, .count = n, .stride = k % 2 ? 1 : 300}, got;
            assert_int_equal(dz_channels_put(&buf, &c, &err), DZ_OK);
            assert_int_equal(buf.len, dz_channels_bytes(&c));
            assert_int_equal(buf.data[0], DZ_BODY_CHANNELS);
            dz_buf_put(&buf, "rest", 4, &err);
            dz_view v = {.data = buf.data, .len = buf.len, .pos = 1};
            back = malloc(n);
            assert_int_equal(dz_channels_take(&got, back, &v, n * c.stride, &err), DZ_OK);
            assert_int_equal(v.pos, buf.len - 4);
            assert_int_equal(got.count, n);
            assert_int_equal(got.stride, c.stride);
            assert_memory_equal(got.code, code, n);
            dz_error none = {0};
            v = (dz_view){.data = buf.data, .len = buf.len, .pos = 1};
            assert_int_equal(dz_channels_take(&got, back, &v, n * c.stride - 1, &none), DZ_EDAMAGE); /* more than the tensor has */
            free(code);
            free(back);
            dz_buf_free(&buf);
        }
    }
}

static void test_a_factor_is_a_power_of_the_fourth_root_of_two(void **state) {
    (void)state;
    for (int code = -DZ_CHANNEL_CODE_MOST; code <= DZ_CHANNEL_CODE_MOST; code++)
        assert_true(fabs((double)dz_channel_factor(code) / exp2(code / 4.0) - 1) < 1e-7);
}

/* Any part of a tensor, in either orientation. */
static void test_each_element_gets_its_channel(void **state) {
    (void)state;
    int8_t code[7];
    fill(code, 7, 8, 1);
    for (uint64_t stride = 1; stride < 12; stride += 5) {
        dz_channels c = {.code = code, .count = 7, .stride = stride};
        for (uint64_t first = 0; first < 100; first++) {
            for (size_t n = 1; n < 90; n += 11) {
                float x[90];
                for (size_t i = 0; i < n; i++) x[i] = (float)(i + 1);
                dz_channels_apply(x, n, first, &c, 0);
                for (size_t i = 0; i < n; i++) assert_true(x[i] == (float)(i + 1) * dz_channel_factor(code[(first + i) / stride % 7]));
                dz_channels_apply(x, n, first, &c, 1);
                for (size_t i = 0; i < n; i++) assert_true(fabsf(x[i] / (float)(i + 1) - 1) < 1e-6f);
            }
        }
    }
}

static dz_rc take(const uint8_t *bytes, size_t len, uint64_t elements) {
    dz_error err = {0};
    dz_channels c;
    int8_t codes[300];
    uint8_t *copy = malloc(len + !len); /* so that a sanitizer sees a read past the end */
    memcpy(copy, bytes, len);
    dz_view v = {.data = copy, .len = len};
    dz_rc rc = dz_channels_take(&c, codes, &v, elements, &err);
    if (rc == DZ_OK) {
        assert_true(c.count > 0 && c.count * c.stride <= elements);
        for (uint32_t i = 0; i < c.count; i++) assert_true(abs(codes[i]) <= DZ_CHANNEL_CODE_MOST);
    }
    free(copy);
    return rc;
}

static void test_heads_that_are_none_are_refused(void **state) {
    (void)state;
    static const struct {
        size_t len;
        uint8_t bytes[12];
    } bad[] = {{0, {0}},
               {1, {1}},
               {3, {1, 4, 0}},                                          /* no codes */
               {4, {0, 4, 0, 0}},                                       /* no stride */
               {4, {1, 0, 0, 0}},                                       /* no channels */
               {4, {1, 4, 7, 0}},                                       /* a parameter too large */
               {4, {1, 4, 0, 0x10}},                                    /* a bit beyond the codes */
               {5, {1, 4, 6, 1, 4}},                                    /* of a list: cut short */
               {6, {1, 4, 6, 1, 4, 2}},                                 /* beyond the last channel */
               {6, {1, 4, 6, 1, 0, 0}},                                 /* a code of 0 */
               {8, {1, 4, 6, 2, 0, 63, 0, 1}},                          /* a code too large */
               {4, {1, 9, 0, 0}},                                       /* cut short */
               {12, {1, 1, 0, 255, 255, 255, 255, 255, 255, 255, 127}}, /* a code too large */
               {4, {60, 4, 0, 0}}};                                     /* more elements than there are */
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) assert_int_equal(take(bad[k].bytes, bad[k].len, 200), DZ_EDAMAGE);
    static const uint8_t good[] = {1, 4, 0, 0};
    assert_int_equal(take(good, sizeof good, 200), DZ_OK);
    for (size_t i = 0; i < 20000; i++) {
        uint8_t bytes[24];
        for (size_t b = 0; b < sizeof bytes; b++) bytes[b] = (uint8_t)dz_u64_at(i, b);
        bytes[0] = i % 4 ? 1 : bytes[0];
        bytes[1] = i % 8 ? bytes[1] % 64 : bytes[1];
        bytes[2] = i % 8 ? bytes[2] % 7 : bytes[2];
        take(bytes, i % (sizeof bytes + 1), dz_u64_at(i, 99) % 300);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_come_back), cmocka_unit_test(test_a_factor_is_a_power_of_the_fourth_root_of_two),
        cmocka_unit_test(test_each_element_gets_its_channel), cmocka_unit_test(test_heads_that_are_none_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

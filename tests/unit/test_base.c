/* Errors, buffers, sizes, paths, and known answers of the hashes that stand in files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

static void test_names_from_files_do_not_control_the_terminal(void **state) {
    (void)state;
    dz_error err = {0};
    dz_fail(&err, DZ_EFAIL, "tensor '%s'", "a\033]0;x\007\177b\r");
    assert_string_equal(err.text, "tensor 'a?]0;x??b?'");
}

static void test_the_first_fault_is_kept_and_problems_add_up(void **state) {
    (void)state;
    dz_error err = {0};
    assert_int_equal(dz_fail(&err, DZ_EFAIL, "first %d", 1), DZ_EFAIL);
    assert_int_equal(dz_fail(&err, DZ_EUSAGE, "second"), DZ_EFAIL);
    assert_string_equal(err.text, "first 1");
    dz_error more = {0};
    dz_fail_more(&more, DZ_EUSAGE, "one");
    dz_fail_more(&more, DZ_EUSAGE, "two");
    assert_string_equal(more.text, "one\ntwo");
    assert_int_equal(more.problems, 2);
    for (int i = 0; i < 2000; i++) dz_fail_more(&more, DZ_EUSAGE, "a line of some length to fill the text");
    assert_true(strlen(more.text) < sizeof more.text);
}

static void test_joined_errors_keep_all_lines_and_a_usage_error_decides(void **state) {
    (void)state;
    dz_error all = {0}, models = {0}, recipe = {0}, none = {0};
    dz_fail_more(&models, DZ_EFAIL, "a: cannot open");
    dz_fail_more(&models, DZ_EFAIL, "b: cannot open");
    dz_fail_more(&recipe, DZ_EUSAGE, "bits");
    dz_fail_join(&all, &none);
    assert_int_equal(all.rc, DZ_OK);
    dz_fail_join(&all, &models);
    assert_int_equal(all.rc, DZ_EFAIL);
    dz_fail_join(&all, &recipe);
    dz_fail_join(&all, &none);
    assert_string_equal(all.text, "a: cannot open\nb: cannot open\nbits");
    assert_int_equal(all.rc, DZ_EUSAGE);
    assert_int_equal(all.problems, 3);
}

static void test_a_line_of_any_length_is_whole(void **state) {
    (void)state;
    dz_error err = {0};
    dz_buf b = {0};
    assert_int_equal(dz_buf_line(&b, &err, "%5000d|", 7), DZ_OK);
    assert_int_equal(dz_buf_line(&b, &err, "end\n"), DZ_OK);
    assert_int_equal(b.len, 5005);
    assert_memory_equal(b.data + 4999, "7|end\n", 6);
    dz_buf_free(&b);
}

static void test_whole_numbers_are_digits_alone(void **state) {
    (void)state;
    static const char *const bad[] = {"", " 1", "-1", " -1", "+1", "1 ", "0x1", "1e3", "18446744073709551616", "101"};
    uint64_t x = 5;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(dz_parse_whole(bad[i], i == 9 ? 100 : UINT64_MAX, &x));
    assert_true(x == 5 && dz_parse_whole("0", 0, &x) && x == 0);
    assert_true(dz_parse_whole("18446744073709551615", UINT64_MAX, &x) && x == UINT64_MAX);
}

static void test_varints_come_back_and_views_never_read_past_the_end(void **state) {
    (void)state;
    dz_error err = {0};
    dz_buf b = {0};
    static const uint64_t values[] = {0, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX};
    for (int i = 0; i < 7; i++) dz_buf_put_varint(&b, values[i], &err);
    dz_view v = {.data = b.data, .len = b.len};
    for (int i = 0; i < 7; i++) assert_true(dz_view_varint(&v) == values[i]);
    assert_int_equal(v.pos, v.len);
    dz_view_u8(&v);
    assert_true(v.bad);
    dz_view cut = {.data = b.data + 1, .len = 3};
    dz_view_u64(&cut);
    assert_true(cut.bad);
    uint8_t endless[11];
    memset(endless, 0xff, sizeof endless);
    dz_view e = {.data = endless, .len = sizeof endless};
    dz_view_varint(&e);
    assert_true(e.bad);
    dz_buf_free(&b);
    assert_null(dz_alloc(SIZE_MAX, 2, &err));
    assert_int_equal(err.rc, DZ_ENOMEM);
}

static void test_sizes_are_read_as_people_write_them(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t want;
    } good[] = {{"4096", 4096},
                {"1K", 1024},
                {"1.5M", 3 << 19},
                {"2G", (uint64_t)2 << 30},
                {"512MiB", (uint64_t)512 << 20},
                {"1GB", (uint64_t)1 << 30}};
    static const char *const bad[] = {"", "M", "-1", "1X", "1MM", "nan", "1e30"};
    for (int i = 0; i < 6; i++) {
        dz_error err = {0};
        uint64_t got = 0;
        assert_int_equal(dz_parse_size(good[i].text, &got, &err), DZ_OK);
        assert_int_equal(got, good[i].want);
    }
    for (int i = 0; i < 7; i++) {
        dz_error err = {0};
        uint64_t got = 0;
        assert_int_equal(dz_parse_size(bad[i], &got, &err), DZ_EUSAGE);
    }
}

static void test_paths_from_files_stay_inside(void **state) {
    (void)state;
    assert_true(dz_path_is_inside("model.safetensors") && dz_path_is_inside("a/b.json") && dz_path_is_inside("..a"));
    assert_false(dz_path_is_inside("/etc/passwd") || dz_path_is_inside("../x") || dz_path_is_inside("a/../b") ||
                 dz_path_is_inside("a//b") || dz_path_is_inside("") || dz_path_is_inside(".") || dz_path_is_inside("a\nb"));
}

static void test_hashes_have_known_answers(void **state) {
    (void)state;
    char hex[33];
    assert_true(dz_hash64("", 0, 0) == 0xef46db3751d8e999ULL);
    dz_digest_hex(dz_digest_of("", 0), hex);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    assert_int_equal(dz_u32_at(0, 0), 0);
    assert_int_equal(dz_u32_at(0x0123456789abcdefULL, 5), 0x15a0dda9U);
}

static void test_a_digest_in_pieces_is_that_of_the_whole(void **state) {
    (void)state;
    static uint8_t bytes[5000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t len = 0; len <= sizeof bytes; len += len < 300 ? 1 : 611) {
        for (size_t piece = 1; piece < 1500; piece = piece * 3 + 1) {
            dz_error err = {0};
            dz_digester *d = dz_digest_begin(&err);
            assert_non_null(d);
            for (size_t at = 0; at < len; at += piece) dz_digest_add(d, bytes + at, len - at < piece ? len - at : piece);
            dz_digest got = dz_digest_end(d), want = dz_digest_of(bytes, len);
            assert_true(got.hi == want.hi && got.lo == want.lo);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_from_files_do_not_control_the_terminal),
        cmocka_unit_test(test_the_first_fault_is_kept_and_problems_add_up),
        cmocka_unit_test(test_joined_errors_keep_all_lines_and_a_usage_error_decides),
        cmocka_unit_test(test_a_line_of_any_length_is_whole),
        cmocka_unit_test(test_whole_numbers_are_digits_alone),
        cmocka_unit_test(test_varints_come_back_and_views_never_read_past_the_end),
        cmocka_unit_test(test_sizes_are_read_as_people_write_them),
        cmocka_unit_test(test_paths_from_files_stay_inside),
        cmocka_unit_test(test_hashes_have_known_answers),
        cmocka_unit_test(test_a_digest_in_pieces_is_that_of_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Blobs of a catalog: small files and headers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "archive/catalog.h"
#include "base/hash.h"

/* Words, as a tokenizer has them: `len` bytes. */
static char *words(size_t len, uint64_t key) {
    char *text = malloc(len + 64);
    for (size_t at = 0, i = 0; at < len; i++)
        at += (size_t)sprintf(text + at, "\"%c%c%c\": %zu,\n", 'a' + (int)(dz_u64_at(key, 3 * i) % 26),
                              'a' + (int)(dz_u64_at(key, 3 * i + 1) % 7), 'a' + (int)(dz_u64_at(key, 3 * i + 2) % 5), i);
    return text;
}

static void test_blobs_of_any_size_come_back(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 100, (size_t)128 << 10, ((size_t)128 << 10) + 1, ((size_t)1 << 20) + 1};
    dz_catalog c = {0};
    dz_error err = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *text = words(sizes[i], i), *got = NULL;
        uint32_t number = 0, again = 0;
        size_t len = 0;
        assert_int_equal(dz_catalog_add_blob(&c, text, sizes[i], &number, &err), DZ_OK);
        assert_int_equal(dz_catalog_add_blob(&c, text, sizes[i], &again, &err), DZ_OK);
        assert_int_equal(again, number);
        assert_int_equal(dz_catalog_blob(&c, number, &got, &len, &err), DZ_OK);
        assert_int_equal(len, sizes[i]);
        assert_memory_equal(got, text, len);
        assert_true(sizes[i] < 1000 || c.blobs[number].length < sizes[i] / 2);
        free(got);
        free(text);
    }
    assert_int_equal(c.nblobs, sizeof sizes / sizeof *sizes);
    free(c.blobs);
    dz_buf_free(&c.blob_data);
    dz_lookup_free(&c.by_blob);
}

/* What an earlier catalog has coded is copied: a byte that was changed there since is changed here too. */
static void test_a_blob_is_coded_once(void **state) {
    (void)state;
    dz_catalog first = {0}, second = {.earlier = &first};
    dz_error err = {0};
    char *text = words(10000, 1);
    uint32_t number = 9;
    assert_int_equal(dz_catalog_add_blob(&first, "another", 7, &number, &err), DZ_OK);
    assert_int_equal(dz_catalog_add_blob(&first, text, 10000, &number, &err), DZ_OK);
    assert_int_equal(number, 1);
    first.blob_data.data[first.blobs[1].offset + 50] ^= 1;
    assert_int_equal(dz_catalog_add_blob(&second, text, 10000, &number, &err), DZ_OK);
    assert_int_equal(number, 0);
    assert_int_equal(second.blobs[0].offset, 0);
    assert_int_equal(second.blobs[0].length, first.blobs[1].length);
    assert_memory_equal(second.blob_data.data, first.blob_data.data + first.blobs[1].offset, second.blob_data.len);
    assert_int_equal(dz_catalog_add_blob(&second, text, 9999, &number, &err), DZ_OK); /* that one it has not */
    assert_int_equal(number, 1);
    free(text);
    free(first.blobs);
    free(second.blobs);
    dz_buf_free(&first.blob_data);
    dz_buf_free(&second.blob_data);
    dz_lookup_free(&first.by_blob);
    dz_lookup_free(&second.by_blob);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_blobs_of_any_size_come_back), cmocka_unit_test(test_a_blob_is_coded_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Tables on disk: columns come and go with the format version, and older files give defaults for what they do not have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "archive/schema.h"

typedef struct row {
    char *name;
    uint64_t kept;
    uint32_t old;
    float rms;
    double share;
    uint64_t count;
    uint8_t kind;
    int not_on_disk;
} row;

/* Version 1: name, old, kept. Version 2: also rms, share, count and kind; old is gone. */
#define DZ_ROW row
static const dz_field FIELDS[] = {
    DZ_COLUMN_IN("name", TEXT, name, 1, DZ_EVERY_VERSION, 0),
    DZ_COLUMN_IN("old", U32, old, 1, 1, 7),
    DZ_COLUMN_SINCE(2, "rms", F32, rms, NAN),
    DZ_COLUMN_SINCE(1, "kept", U64, kept, 0),
    DZ_COLUMN_SINCE(2, "share", F64, share, NAN),
    DZ_COLUMN_SINCE(2, "count", U64, count, 0),
    DZ_COLUMN_SINCE(2, "kind", U8, kind, 3),
    {NULL, DZ_FIELD_U8, 0, 0, 0, 0},
};
static const dz_schema TABLE = {FIELDS, sizeof(row)};
#undef DZ_ROW
#define WIDTH 5

static row given(void) {
    return (row){.name = (char *)(uintptr_t) "abc", .kept = 1ULL << 40, .old = 9, .rms = 0.5f, .share = -2.25, .count = 11, .kind = 200};
}

static row there_and_back(uint32_t version) {
    dz_error err = {0};
    dz_buf b = {0};
    row in[2] = {given(), given()}, out = {.not_on_disk = 5};
    in[1].kept = 77;
    assert_int_equal(dz_schema_pack(&TABLE, version, WIDTH, in, 2, &b, &err), DZ_OK);
    assert_int_equal(b.len, 2 * dz_schema_size(&TABLE, version, WIDTH));
    dz_view v = {.data = b.data, .len = b.len};
    assert_int_equal(dz_schema_unpack(&TABLE, version, WIDTH, &v, &out, &err), DZ_OK);
    assert_string_equal(out.name, "abc");
    assert_int_equal(out.kept, 1ULL << 40);
    free(out.name);
    assert_int_equal(dz_schema_unpack(&TABLE, version, WIDTH, &v, &out, &err), DZ_OK);
    assert_int_equal(out.kept, 77);
    assert_int_equal(out.not_on_disk, 5);
    assert_int_equal(v.pos, v.len);
    free(out.name);
    out.name = NULL;
    dz_buf_free(&b);
    return out;
}

static void test_a_version_2_file_has_all_its_columns(void **state) {
    (void)state;
    row r = there_and_back(2);
    assert_true(r.rms == 0.5f && r.share == -2.25);
    assert_int_equal(r.count, 11);
    assert_int_equal(r.kind, 200);
    assert_int_equal(r.old, 7); /* dropped: its default */
}

static void test_a_version_1_file_gives_defaults_for_later_columns(void **state) {
    (void)state;
    row r = there_and_back(1);
    assert_true(isnan(r.rms) && isnan(r.share));
    assert_int_equal(r.count, 0);
    assert_int_equal(r.kind, 3);
    assert_int_equal(r.old, 9);
}

static void test_bytes_are_little_endian_in_the_order_of_the_list(void **state) {
    (void)state;
    dz_error err = {0};
    dz_buf b = {0};
    row in = given();
    static const uint8_t want[] = {'a', 'b', 'c', 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0};
    assert_int_equal(dz_schema_pack(&TABLE, 1, WIDTH, &in, 1, &b, &err), DZ_OK);
    assert_int_equal(b.len, sizeof want);
    assert_memory_equal(b.data, want, sizeof want);
    dz_buf_free(&b);
}

static void test_a_row_that_is_cut_short_is_damage(void **state) {
    (void)state;
    for (size_t len = 0; len < dz_schema_size(&TABLE, 2, WIDTH); len++) {
        dz_error err = {0};
        row out = {0};
        static const uint8_t zeros[64] = {0};
        dz_view v = {.data = zeros, .len = len};
        assert_int_equal(dz_schema_unpack(&TABLE, 2, WIDTH, &v, &out, &err), DZ_EDAMAGE);
        free(out.name);
    }
}

static void test_the_type_in_the_file_has_the_columns_of_its_version(void **state) {
    (void)state;
    static const char *const names[2][7] = {{"name", "old", "kept"}, {"name", "rms", "kept", "share", "count", "kind"}};
    static const int n[] = {3, 6};
    for (uint32_t version = 1; version <= 2; version++) {
        hid_t type = dz_schema_type(&TABLE, version, WIDTH);
        assert_true(type >= 0);
        assert_int_equal(H5Tget_nmembers(type), n[version - 1]);
        assert_int_equal(H5Tget_size(type), dz_schema_size(&TABLE, version, WIDTH));
        for (unsigned i = 0; i < (unsigned)n[version - 1]; i++) {
            char *name = H5Tget_member_name(type, i);
            assert_string_equal(name, names[version - 1][i]);
            H5free_memory(name);
        }
        H5Tclose(type);
    }
}

/* What archives of version 1 have on disk; a change of these sizes is a change of the format. */
static void test_version_1_stays_as_it_is(void **state) {
    (void)state;
    assert_int_equal(dz_schema_size(&DZ_TENSOR_TABLE, 1, 10), 10 + 16 + 4 + 64 + 8);
    assert_int_equal(dz_schema_size(&DZ_BASE_TABLE, 1, 0), 8);
    assert_int_equal(dz_schema_size(&DZ_TILE_TABLE, 1, 0), 16);
    assert_int_equal(dz_schema_size(&DZ_BLOB_TABLE, 1, 0), 40);
    assert_int_equal(dz_schema_size(&DZ_INDEX_TABLE, 1, 0), 42);
    assert_int_equal(dz_schema_size(&DZ_RECORD_TABLE, 1, 0), 112);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_version_2_file_has_all_its_columns),
        cmocka_unit_test(test_a_version_1_file_gives_defaults_for_later_columns),
        cmocka_unit_test(test_bytes_are_little_endian_in_the_order_of_the_list),
        cmocka_unit_test(test_a_row_that_is_cut_short_is_damage),
        cmocka_unit_test(test_the_type_in_the_file_has_the_columns_of_its_version),
        cmocka_unit_test(test_version_1_stays_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

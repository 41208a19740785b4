/* PyTorch files made by hand, hostile and damaged: what is refused is named, and does no harm. */
#include "torch_files.h"

static void test_tensors_that_cannot_be_taken_are_named(void **state) {
    (void)state;
    dz_buf zip = {0};
#define REFUSE(pickle, want)                                                                                                               \
    pack(P("\x80\x02}(" pickle "u."), &zip);                                                                                               \
    expect_bad_file(&zip, want)
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\1K\3K\2\x86K\1K\3\x86" HOOKS "tR",
           "tensor 'w': shape [3, 2] with strides [1, 3] from number 1 leads outside the 24 bytes of data/0");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0K\2\x85K\6\x85" HOOKS "tR", "shape [2] with strides [6] from number 0 leads outside");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\6K\2\x85K\0\x85" HOOKS "tR", "shape [2] with strides [0] from number 6 leads outside");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0K\2\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85" HOOKS "tR", "leads outside");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0K\5\x85\x8a\x08\0\0\0\0\0\0\0\x40\x85" HOOKS "tR", "leads outside"); /* 4 * 2^62 is 2^64 */
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0K\2\x85\x8a\x08\0\0\0\0\0\0\0\x40\x85" HOOKS "tR", "leads outside"); /* in bytes */
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x3fK\2\x85K\2\x85" HOOKS "tR", "leads outside");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0K\x02K\x03\x86\x8a\x08\0\0\0\0\0\0\0\x60\x8a\x08\0\0\0\0\0\0\0\x50\x86" HOOKS "tR",
           "leads outside"); /* sums up to 2^64 */
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0J\1\0\0\x10\x85K\0\x85" HOOKS "tR",
           "expanded from 24 to 1073741828 bytes: with others that is more than the 1073741824 that are allowed");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0J\1\0\0\x08\x85K\0\x85" HOOKS "tR" NAME("v")
               V2 FLOATS("0", "\6") "K\0J\0\0\0\x08\x85K\0\x85" HOOKS "tR",
           "tensor 'v': expanded from 24 to 536870912 bytes");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0\x8a\x08\0\0\0\0\0\0\0\x10\x85K\0\x85" HOOKS "tR", "expanded from 24 to");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\1K\6\x85K\1\x85" HOOKS "tR", "tensor 'w': 6 elements from number 1 are outside the 24 bytes");
    REFUSE(NAME("w") V2 FLOATS("0", "\7") "K\0K\6\x85K\1\x85" HOOKS "tR", "tensor 'w': data/0 has 24 bytes, too few for 7 elements");
    REFUSE(NAME("w") V2 FLOATS("1", "\6") "K\0K\6\x85K\1\x85" HOOKS "tR", "tensor 'w': its bytes, data/1, are missing");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "J\xff\xff\xff\xffK\6\x85K\1\x85" HOOKS "tR", "REDUCE: the parts of a tensor");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0J\xff\xff\xff\xff\x85K\1\x85" HOOKS "tR", "a tensor's size or stride is no count");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0\x8a\x09\0\0\0\0\0\0\0\0\1\x85K\1\x85" HOOKS "tR", "a tensor's size or stride is no count");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0\x8a\x08\0\0\0\0\0\0\0\x40\x8a\x08\0\0\0\0\0\0\0\x40\x86K\1K\1\x86" HOOKS "tR", "overflows");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "\x8a\x08\0\0\0\0\0\0\0\x40K\6\x85K\1\x85" HOOKS "tR", "outside the 24 bytes");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0K\2K\3\x86K\1\x85" HOOKS "tR", "a tensor with too many dimensions");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1t(K\1K\1K\1K\1K\1K\1K\1K\1K\1t" HOOKS "tR",
           "too many dimensions");
    REFUSE(NAME("w") V2 FLOATS("0", "\6") "K\0K\6\x85K\1\x85" HOOKS "}tR", "tensor 'w' is a conjugated or negated view");
    REFUSE(NAME("w") V3 FLOATS("0", "\6") "K\0K\6\x85K\1\x85" HOOKS "NtR", "a tensor without a known dtype");
    REFUSE(NAME("w") V2 STORAGE("torch\nComplexFloatStorage", "0", "\4") "K\0K\2\x85K\1\x85" HOOKS "tR",
           "data/0 has 24 bytes, too few for 4 elements");
    REFUSE(NAME("w") V2 STORAGE("torch\nComplexFloatStorage", "0", "\3") "K\2K\2\x85K\1\x85" HOOKS "tR",
           "tensor 'w': 2 elements from number 2 are outside the 24 bytes");
    REFUSE(NAME("w") V2 STORAGE("torch\nComplexDoubleStorage", "0", "\1") "K\0))" HOOKS "tR",
           "tensor 'w' is complex128, which no safetensors file can hold: save its to(torch.complex64)");
    REFUSE(MATRIX MATRIX, "tensor 'w' is there twice");
    REFUSE("X\0\0\0\0" V2 FLOATS("0", "\6") "K\0))" HOOKS "tR", "'' cannot be the name of a tensor");
    REFUSE("X\2\0\0\0a\xc3" V2 FLOATS("0", "\6") "K\0))" HOOKS "tR", "'a?' cannot be the name of a tensor");
    REFUSE("X\2\0\0\0a\0" V2 FLOATS("0", "\6") "K\0))" HOOKS "tR", "'a?' cannot be the name of a tensor");
    REFUSE("X\x0c\0\0\0__metadata__" V2 FLOATS("0", "\6") "K\0))" HOOKS "tR", "'__metadata__' cannot be the name of a tensor");
    REFUSE("K\7" V2 FLOATS("0", "\6") "K\0))" HOOKS "tR", "a tensor's name is an int, not a string");
    REFUSE(NAME("a") "K\1",
           "no tensor in its dict, nor in one under 'state_dict', 'model_state_dict', 'model', 'module', 'params_ema', 'params', "
           "'ema', 'weights', 'network', 'net' or 'generator' (or under two of these); it holds 'a' (an int)");
    REFUSE("X\5\0\0\0other}" MATRIX "s", "it holds 'other' (a dict of 1 with 1 tensor)");
    REFUSE("X\5\0\0\0model}" NAME("x") "}" MATRIX "ss", "it holds 'model' (a dict of 1 with 1 tensor)");
    REFUSE(NAME("a") "NK\1]" NAME("c") ")" NAME("d") "}" NAME("e") "N" NAME("f") "N" NAME("g") "N" NAME("h") "N",
           "it holds 'a' (None), '(an int)' (a list of 0), 'c' (a tuple of 0), 'd' (a dict of 0), 'e' (None), 'f' (None) and 2 more");
    pack(P("\x80\x02}."), &zip);
    expect_bad_file(&zip, "it holds nothing");
    pack(P("\x80\x02]."), &zip);
    expect_bad_file(&zip, "holds a list, not a dict of tensors");
    dz_buf_free(&zip);
}

static void test_a_packed_stride_that_leads_nowhere_is_refused(void **state) {
    (void)state;
    dz_error err = {0}, bad = {0};
    dz_buf zip = {0}, packed = {0};
    dz_checkpoint *ck = NULL, *none = NULL;
    pack(P("\x80\x02}(" NAME("t") V2 FLOATS("0", "\6") "K\0K\3K\2\x86K\1K\3\x86" HOOKS "tRu."), &zip);
    write_path(zip.data, zip.len);
    if (dz_checkpoint_load(path, &ck, &err) != DZ_OK) fail_msg("%s", err.text);
    ck->shards[0].places[0].stride[0] = UINT64_MAX / 8;
    if (dz_checkpoint_pack(ck, &packed, &err) != DZ_OK) fail_msg("%s", err.text);
    assert_int_equal(dz_checkpoint_unpack(packed.data, packed.len, &none, &bad), DZ_EFAIL);
    assert_non_null(strstr(bad.text, "tensor 't': its place overflows"));
    dz_checkpoint_free(ck);
    dz_buf_free(&packed);
    dz_buf_free(&zip);
}

static void test_zip_files_are_distrusted(void **state) {
    (void)state;
    static const char pickle[] = "\x80\x02}(" MATRIX "u.";
    static const struct {
        part pkl, data; /* what is wrong with the two entries */
        faults f;
        const char *want;
    } cases[] = {
        {.data = {.method = 8}, .want = "zip entry 'archive/data/0' is compressed (method 8)"},
        {.pkl = {.method = 12}, .want = "zip entry 'archive/data.pkl' is compressed (method 12)"},
        {.data = {.flags = 1}, .want = "zip entry 'archive/data/0' is encrypted"},
        {.data = {.more_packed = 1}, .want = "is stored, but takes 25 bytes for 24"},
        {.data = {.more_size = 1}, .want = "zip entry 'archive/data/0': 25 bytes at byte"},
        {.data = {.more_size = 1}, .f = {.zip64 = 1}, .want = "zip entry 'archive/data/0': 25 bytes at byte"},
        {.data = {.more_size = 0x7fffffff}, .want = "reach beyond the"},
        {.data = {.more_offset = 0x7fffffff}, .want = "beyond the"},
        {.data = {.more_offset = 1}, .want = "zip entry 'archive/data/0': its header at byte"},
        {.pkl = {.more_size = 33 << 20}, .want = "reach beyond"},
        {.data = {.name = "archive/data.pkl"}, .want = "zip entry 'archive/data.pkl' is there twice"},
        {.data = {.name = "other/data.pkl"}, .want = "holds both archive/data.pkl and other/data.pkl"},
        {.pkl = {.name = "archive/code.py"}, .want = "a zip file without data.pkl"},
        {.data = {.name = "archive/byteorder"}, .want = "its byte order is not little-endian"},
        {.f = {.offset = 1}, .want = "the zip directory"},
        {.f = {.offset = 0x7fffffff}, .want = "is outside the file"},
        {.f = {.len = 0x7fffffff}, .want = "is outside the file"},
        {.f = {.count = 0xfff0}, .want = "entries do not go into a zip directory"},
        {.f = {.len = (uint32_t)-10}, .want = "the zip directory is damaged"},
        {.f = {.zip64 = 1, .offset64 = (uint64_t)1 << 60}, .want = "is outside the file"},
    };
    dz_buf zip = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        part parts[2] = {cases[i].pkl, cases[i].data};
        if (!parts[0].name) parts[0].name = "archive/data.pkl";
        if (!parts[1].name) parts[1].name = "archive/data/0";
        parts[0].bytes = pickle;
        parts[0].len = sizeof pickle - 1;
        parts[1].bytes = DATA;
        parts[1].len = sizeof DATA - 1;
        if (strstr(parts[1].name, "byteorder")) parts[1].len = 6;
        make_zip(parts, 2, &cases[i].f, &zip);
        expect_bad_file(&zip, cases[i].want);
    }
    dz_buf_free(&zip);
}

/* Any prefix, and any single changed byte, is read or refused, but does no harm (the sanitizers look on). */
static void test_damaged_files_do_no_harm(void **state) {
    (void)state;
    dz_buf zip = {0};
    size_t refused = 0;
    pack(P("\x80\x02}(" MATRIX NAME("n") "K\5u."), &zip);
    for (size_t len = 0; len < zip.len; len++) {
        dz_buf cut = {.data = zip.data, .len = len};
        expect_bad_file(&cut, "");
    }
    for (size_t i = 0; i < zip.len; i++) {
        static const uint8_t flips[] = {0x01, 0x80, 0xff};
        for (size_t k = 0; k < sizeof flips; k++) {
            dz_error err = {0};
            loaded l;
            zip.data[i] ^= flips[k];
            write_path(zip.data, zip.len);
            refused += load(&l, &err) != DZ_OK;
            for (size_t j = 0; j < l.n; j++) assert_true(l.places[j].offset + dz_strided_span(&l.places[j], &l.tensors[j]) <= zip.len);
            unload(&l);
            zip.data[i] ^= flips[k];
        }
    }
    assert_true(refused > 0);
    dz_buf_free(&zip);
}

static void test_files_that_are_no_zip_are_not_taken_for_one(void **state) {
    (void)state;
    static const uint8_t zip[] = "PK\3\4\0\0\x08\x08",
                         legacy[] = "\x80\2\x8a\nl\xfc\x9c"
                                    "F",
                         safetensors[] = "PK\3\4\0\0\0\0";
    assert_true(dz_torch_is_file(zip));
    assert_true(dz_torch_is_file(legacy));
    assert_false(dz_torch_is_file(safetensors)); /* a header of 64 MB */
    dz_error err = {0};
    dz_checkpoint *ck = NULL;
    write_path("\x80\2\x8a\nl\xfc\x9c"
               "F and more",
               17);
    assert_int_equal(dz_checkpoint_load(path, &ck, &err), DZ_EFAIL);
    assert_non_null(strstr(err.text, "files of torch before 1.6 must be saved again"));
}

int main(void) {
    snprintf(path, sizeof path, "/tmp/deltazoo-test-torch-%ld.bin", (long)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors_that_cannot_be_taken_are_named),
        cmocka_unit_test(test_a_packed_stride_that_leads_nowhere_is_refused),
        cmocka_unit_test(test_zip_files_are_distrusted),
        cmocka_unit_test(test_damaged_files_do_no_harm),
        cmocka_unit_test(test_files_that_are_no_zip_are_not_taken_for_one),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}

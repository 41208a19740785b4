/* PyTorch files made by hand: what is read is right. */
#include "torch_files.h"

static void test_tensors_are_found_where_their_bytes_stand(void **state) {
    (void)state;
    static const char pickle[] = "\x80\x02}(" MATRIX                          /* 2 x 3 */
        NAME("s") V2 FLOATS("0", "\6") "K\3K\1K\3\x86K\x63K\1\x86" HOOKS "tR" /* its second row; an odd stride of 1 row */
        NAME("e") V2 FLOATS("0", "\6") "K\6K\0K\3\x86K\3K\1\x86" HOOKS "tR"   /* no element */
        NAME("z") V2 FLOATS("0", "\6") "K\5))" HOOKS "tR"                     /* a scalar */
        NAME("p") "ctorch._utils\n_rebuild_parameter\n" V2 FLOATS(
            "0", "\6") "K\1K\2\x85K\1\x85" HOOKS "tR" /* a parameter */
                       "\x88"
                       "ccollections\nOrderedDict\n)R\x87R" NAME("8")
                           V3 STORAGE("torch.storage\nUntypedStorage", "0",
                                      "\x18") "K\7K\4\x85K\1\x85" HOOKS
                                              "ctorch\nfloat8_e4m3fn\ntR" NAME("n") "K\5" /* and what is no tensor */
        NAME("t") "K\1K\2\x86"
                  "u.";
    static const struct {
        const char *name, *dtype;
        uint32_t ndim;
        uint64_t nbytes;
        const char *first;
    } want[] = {{"w", "F32", 2, 24, "abcd"}, {"s", "F32", 2, 12, "mnop"}, {"e", "F32", 2, 0, NULL},
                {"z", "F32", 0, 4, "uvwx"},  {"p", "F32", 1, 8, "efgh"},  {"8", "F8_E4M3", 1, 4, "hijk"}};
    for (int zip64 = 0; zip64 < 2; zip64++) {
        dz_error err = {0};
        dz_buf zip = {0};
        loaded l;
        const part parts[] = {{.name = "x/data.pkl", .bytes = pickle, .len = sizeof pickle - 1},
                              {.name = "x/data/0", .bytes = DATA, .len = 24},
                              {.name = "x/byteorder", .bytes = "little", .len = 6}};
        make_zip(parts, 3, &(faults){.zip64 = zip64}, &zip);
        write_path(zip.data, zip.len);
        if (load(&l, &err) != DZ_OK) fail_msg("%s", err.text);
        assert_int_equal(l.n, 6);
        for (size_t i = 0; i < l.n; i++) {
            assert_string_equal(l.tensors[i].name, want[i].name);
            assert_string_equal(l.tensors[i].dtype_name, want[i].dtype);
            assert_int_equal(l.tensors[i].ndim, want[i].ndim);
            assert_int_equal(l.tensors[i].nbytes, want[i].nbytes);
            assert_false(l.places[i].strided);
            if (want[i].first) assert_memory_equal(zip.data + l.places[i].offset, want[i].first, 4);
        }
        dz_buf_put(&l.notes, "", 1, &err);
        assert_non_null(strstr((char *)l.notes.data, "'n' (an int) is not kept\n"));
        assert_non_null(strstr((char *)l.notes.data, "'t' (a tuple of 2) is not kept\n"));
        unload(&l);
        dz_buf_free(&zip);
    }
}

/* The row-major copy of a tensor of bytes, or of the first bytes of its elements. */
static void expect_copy(dz_checkpoint *ck, const char *name, const char *want) {
    int64_t at = dz_checkpoint_find(ck, name);
    assert_true(at >= 0);
    const dz_tensor *t = &ck->tensors[at];
    size_t n = strlen(want), size = (size_t)t->nbytes / n;
    uint8_t bytes[256];
    dz_error err = {0};
    assert_true(t->nbytes <= sizeof bytes && n * size == t->nbytes);
    for (size_t piece = 1; piece <= t->nbytes; piece++) {
        memset(bytes, 0, sizeof bytes);
        for (size_t first = 0; first < t->nbytes; first += piece) {
            size_t len = t->nbytes - first < piece ? (size_t)t->nbytes - first : piece;
            assert_int_equal(dz_checkpoint_read(ck, (size_t)at, first, len, bytes + first, &err), DZ_OK);
        }
        for (size_t i = 0; i < n; i++) {
            if (bytes[i * size] != want[i]) fail_msg("%s: element %zu is %c, not %c", name, i, bytes[i * size], want[i]);
        }
    }
}

#define BYTES(key, count) STORAGE("torch\nByteStorage", key, count)

static void test_strided_tensors_are_their_row_major_copies(void **state) {
    (void)state;
    static const char pickle[] = "\x80\x02}("                                          /* */
        NAME("w") V2 BYTES("0", "\x18") "K\0K\4K\6\x86K\6K\1\x86" HOOKS "tR"           /* 4 x 6 */
        NAME("t") V2 BYTES("0", "\x18") "K\0K\6K\4\x86K\1K\6\x86" HOOKS "tR"           /* transposed */
        NAME("c") V2 BYTES("0", "\x18") "K\1K\4K\2\x86K\6K\1\x86" HOOKS "tR"           /* columns 1 and 2 */
        NAME("s") V2 BYTES("0", "\x18") "K\1K\4K\3\x86K\6K\2\x86" HOOKS "tR"           /* every other column */
        NAME("e") V2 BYTES("0", "\x18") "K\6K\3K\1K\2\x87K\0K\x63K\1\x87" HOOKS "tR"   /* expanded */
        NAME("o") V2 BYTES("0", "\x18") "K\2K\3K\3\x86K\1K\1\x86" HOOKS "tR"           /* overlapping */
        NAME("l") V2 BYTES("0", "\x18") "K\0(K\2K\3K\2K\2t(K\x0cK\1K\6K\3t" HOOKS "tR" /* channels last */
        NAME("f") V2 FLOATS("0", "\6") "K\0K\3K\2\x86K\1K\3\x86" HOOKS "tR"            /* floats, transposed */
        NAME("a") V2 BYTES("0", "\x18") "K\0K\4K\6\x86K\1K\4\x86" HOOKS "tR"           /* at w's place, other strides */
        NAME("b") V2 BYTES("0", "\x18") "K\0K\6K\4\x86K\1K\6\x86" HOOKS "tR"           /* the same as t */
        NAME("z") V2 BYTES("0", "\x18") "K\x63K\0K\4\x86K\1K\x63\x86" HOOKS "tRu.";    /* no element */
    static const char *const want[][2] = {{"w", "abcdefghijklmnopqrstuvwx"},
                                          {"t", "agmsbhntcioudjpvekqwflrx"},
                                          {"c", "bchinotu"},
                                          {"s", "bdfhjlnprtvx"},
                                          {"e", "ghghgh"},
                                          {"o", "cdedefefg"},
                                          {"l", "adgjbehkcfilmpsvnqtworux"},
                                          {"f", "ameqiu"},
                                          {"a", "aeimqubfjnrvcgkoswdhlptx"},
                                          {"b", "agmsbhntcioudjpvekqwflrx"}};
    dz_error err = {0};
    dz_buf zip = {0}, packed = {0};
    dz_checkpoint *ck = NULL, *other = NULL;
    pack(P(pickle), &zip);
    write_path(zip.data, zip.len);
    if (dz_checkpoint_load(path, &ck, &err) != DZ_OK || dz_checkpoint_pack(ck, &packed, &err) != DZ_OK ||
        dz_checkpoint_unpack(packed.data, packed.len, &other, &err) != DZ_OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < 2; i++) { /* here, and on another rank */
        dz_checkpoint *each = i ? other : ck;
        for (size_t k = 0; k < sizeof want / sizeof *want; k++) expect_copy(each, want[k][0], want[k][1]);
        for (size_t k = 0; k < each->ntensors; k++) {
            size_t first = strcmp(each->tensors[k].name, "t") == 0 ? (size_t)dz_checkpoint_find(each, "b") : k;
            assert_int_equal(each->same[k], first);
        }
    }
    dz_buf_put(&ck->notes, "", 1, &err);
    assert_non_null(strstr((char *)ck->notes.data, "'t' and 'b' are one tensor"));
    assert_null(strstr((char *)ck->notes.data, "'w'"));
    for (size_t len = 0; len < packed.len; len++) {
        dz_error cut = {0};
        dz_checkpoint *none = NULL;
        assert_int_not_equal(dz_checkpoint_unpack(packed.data, len, &none, &cut), DZ_OK);
    }
    dz_checkpoint_free(ck);
    dz_checkpoint_free(other);
    dz_buf_free(&packed);
    dz_buf_free(&zip);
}

static void test_types_that_are_bytes_to_us_are_kept_by_their_names(void **state) {
    (void)state;
#define RAW STORAGE("torch.storage\nUntypedStorage", "0", "\x18")
    static const char pickle[] =
        "\x80\x02}(" NAME("c") V2 STORAGE("torch\nComplexFloatStorage", "0", "\3") "K\1K\2\x85K\1\x85" HOOKS "tR" NAME("t")
            V2 STORAGE("torch\nComplexFloatStorage", "0", "\3") "K\0K\3K\2\x86K\1K\0\x86" HOOKS "tR" NAME("d") V3 RAW
        "K\1K\2\x85K\1\x85" HOOKS "ctorch\ncomplex64\ntR" NAME("m") V3 RAW "K\1K\2\x85K\1\x85" HOOKS "ctorch\nfloat8_e4m3fnuz\ntR" NAME("n")
            V3 RAW "K\2K\2\x85K\3\x85" HOOKS "ctorch\nfloat8_e5m2fnuz\ntR" NAME("s") V3 RAW "K\3))" HOOKS "ctorch\nfloat8_e8m0fnu\ntRu.";
    static const struct {
        const char *name, *dtype, *bytes;
    } want[] = {{"c", "C64", "ijklmnopqrstuvwx"},
                {"d", "C64", "ijklmnopqrstuvwx"},
                {"t", "C64", "abcdefghabcdefghijklmnopijklmnopqrstuvwxqrstuvwx"},
                {"n", "F8_E5M2FNUZ", "cf"},
                {"m", "F8_E4M3FNUZ", "bc"},
                {"s", "F8_E8M0", "d"}};
    dz_error err = {0};
    dz_buf zip = {0};
    dz_checkpoint *ck = NULL;
    pack(P(pickle), &zip);
    write_path(zip.data, zip.len);
    if (dz_checkpoint_load(path, &ck, &err) != DZ_OK) fail_msg("%s", err.text);
    assert_int_equal(ck->ntensors, sizeof want / sizeof *want);
    for (size_t i = 0; i < ck->ntensors; i++) {
        assert_string_equal(ck->tensors[i].name, want[i].name);
        assert_string_equal(ck->tensors[i].dtype_name, want[i].dtype);
        assert_int_equal(ck->tensors[i].dtype, DZ_OPAQUE);
        assert_int_equal(ck->tensors[i].nbytes, strlen(want[i].bytes));
        expect_copy(ck, want[i].name, want[i].bytes);
    }
    dz_checkpoint_free(ck);
    dz_buf_free(&zip);
}

/* Pieces of two tensors in turn, forwards, backwards and again: what was read ahead is not taken for what it is not. */
static void test_pieces_of_strided_tensors_in_any_order(void **state) {
    (void)state;
    static const char pickle[] = "\x80\x02}(" NAME("t") V2 BYTES("0", "\x18") "K\0K\6K\4\x86K\1K\6\x86" HOOKS "tR" NAME("a")
        V2 BYTES("0", "\x18") "K\0K\4K\6\x86K\1K\4\x86" HOOKS "tRu.";
    static const char *const want[2] = {"agmsbhntcioudjpvekqwflrx", "aeimqubfjnrvcgkoswdhlptx"};
    static const uint8_t firsts[] = {0, 4, 8, 4, 0, 20, 12, 16, 20, 0, 4, 16, 20, 8, 12};
    dz_error err = {0};
    dz_buf zip = {0};
    dz_checkpoint *ck = NULL;
    pack(P(pickle), &zip);
    write_path(zip.data, zip.len);
    if (dz_checkpoint_load(path, &ck, &err) != DZ_OK) fail_msg("%s", err.text);
    assert_int_equal(dz_checkpoint_memory(ck), DZ_READ_AHEAD);
    for (int often = 1; often <= 7; often++) {
        for (size_t i = 0; i < 12 * sizeof firsts; i++) {
            size_t which = i / (size_t)often % 2, first = firsts[i % sizeof firsts];
            size_t tensor = (size_t)dz_checkpoint_find(ck, which ? "a" : "t");
            char bytes[4];
            assert_int_equal(dz_checkpoint_read(ck, tensor, first, 4, bytes, &err), DZ_OK);
            assert_memory_equal(bytes, want[which] + first, 4);
        }
    }
    dz_checkpoint_free(ck);
    dz_buf_free(&zip);
}

static void test_a_file_is_restored_as_the_safetensors_file_of_its_tensors(void **state) {
    (void)state;
    dz_error err = {0};
    dz_buf zip = {0}, packed = {0};
    dz_checkpoint *ck = NULL, *other = NULL;
    pack(P("\x80\x02}X\5\0\0\0model}(" MATRIX NAME("v") "h\1"
                                                        "us."),
         &zip); /* the memo is empty: refused */
    expect_bad_file(&zip, "BINGET: a memo number that was never set");
    pack(P("\x80\x02}(X\5\0\0\0model}(" MATRIX "q\1" NAME("v") "h\1uX\5\0\0\0epochK\2u."), &zip);
    write_path(zip.data, zip.len);
    if (dz_checkpoint_load(path, &ck, &err) != DZ_OK || dz_checkpoint_pack(ck, &packed, &err) != DZ_OK ||
        dz_checkpoint_unpack(packed.data, packed.len, &other, &err) != DZ_OK)
        fail_msg("%s", err.text);
    assert_string_equal(ck->shards[0].file, "model.safetensors");
    assert_int_equal(ck->shards[0].size, ck->shards[0].header_len + 48);
    dz_buf_put(&ck->notes, "", 1, &err);
    assert_non_null(strstr((char *)ck->notes.data, "'epoch' (an int) is not kept"));
    assert_non_null(strstr((char *)ck->notes.data, "'w' and 'v' are one tensor: two are restored"));
    for (int i = 0; i < 2; i++) { /* here, and on another rank */
        dz_checkpoint *each = i ? other : ck;
        char bytes[4];
        int64_t v = dz_checkpoint_find(each, "v");
        assert_true(v >= 0 && dz_checkpoint_find(each, "w") >= 0);
        assert_int_equal(each->ntensors, 2);
        assert_int_equal(dz_checkpoint_read(each, (size_t)v, 4, 4, bytes, &err), DZ_OK);
        assert_memory_equal(bytes, "efgh", 4);
    }
    for (size_t len = 0; len < packed.len; len++) {
        dz_error cut = {0};
        dz_checkpoint *none = NULL;
        assert_int_not_equal(dz_checkpoint_unpack(packed.data, len, &none, &cut), DZ_OK);
    }
    dz_checkpoint_free(ck);
    dz_checkpoint_free(other);
    dz_buf_free(&packed);
    dz_buf_free(&zip);
}

static void test_names_of_restored_files(void **state) {
    (void)state;
    static const char *const names[][2] = {{"pytorch_model.bin", "model.safetensors"},
                                           {"pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"},
                                           {"sub/pytorch_model.bin", "sub/model.safetensors"},
                                           {"weights.pt", "weights.safetensors"},
                                           {"vae/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.safetensors"},
                                           {"consolidated.00.pth", "consolidated.00.safetensors"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        dz_error err = {0};
        char *got = dz_torch_restored_name(names[i][0], &err);
        assert_string_equal(got, names[i][1]);
        free(got);
    }
}

#define KEY(len, text) "\x8c" len text
#define ONE(letter) NAME(letter) V2 FLOATS("0", "\6") "K\0K\1\x85K\1\x85" HOOKS "tR" /* a name and a tensor */

static void test_the_model_is_found_under_the_usual_names(void **state) {
    (void)state;
#define CASE(pickle) "\x80\x02}(" pickle "u.", sizeof("\x80\x02}(" pickle "u.") - 1
    static const struct {
        const char *pickle;
        size_t len;
        const char *tensors, *notes[2];
    } cases[] = {
        {CASE(ONE("a") ONE("b")), "ab", {0}},
        {CASE(KEY("\x10", "model_state_dict") "}(" ONE("a") "u"), "a", {0}},
        {CASE(KEY("\6", "module") "}(" ONE("a") "u"), "a", {0}},
        {CASE(KEY("\6", "params") "}(" ONE("a") "u"), "a", {0}},
        {CASE(KEY("\3", "ema") "}(" ONE("a") "u"), "a", {0}},
        {CASE(KEY("\7", "weights") "}(" ONE("a") "u"), "a", {0}},
        {CASE(KEY("\7", "network") "}(" ONE("a") "u"), "a", {0}},
        {CASE(KEY("\3", "net") "}(" ONE("a") "u"), "a", {0}},
        {CASE(KEY("\x09", "generator") "}(" ONE("a") "u" KEY("\x0d", "discriminator") "}(" ONE("b") ONE("c") "u"),
         "a",
         {"'discriminator' (a dict of 2 with 2 tensors) is not kept\n"}},
        /* of two the first in the order of names, whatever their order in the file */
        {CASE(KEY("\6", "params") "}(" ONE("a") "u" KEY("\x0a", "params_ema") "}(" ONE("b") "u"),
         "b",
         {"'params' (a dict of 1 with 1 tensor) is not kept: 'params_ema' is\n"}},
        {CASE(KEY("\3", "ema") "}(" ONE("b") ONE("c") "u" KEY("\5", "model") "}(" ONE("a") "u"),
         "a",
         {"'ema' (a dict of 2 with 2 tensors) is not kept: 'model' is\n"}},
        /* one in the other */
        {CASE(KEY("\5", "model") "}(" KEY("\x0a", "state_dict") "}(" ONE("a") NAME("i") "K\1uu"),
         "a",
         {"'model/state_dict/i' (an int) is not kept\n"}},
        {CASE(KEY("\x0a", "state_dict") "}(" NAME("n") "K\1" KEY("\5", "model") "}(" ONE("a") "uu" NAME("e") "N"),
         "a",
         {"'state_dict/n' (an int) is not kept\n", "'e' (None) is not kept\n"}},
        {CASE(KEY("\5", "model") "}(" ONE("a") ONE("b") KEY("\5", "model") "}(" ONE("c") ONE("d") "uu"),
         "ab",
         {"'model/model' (a dict of 2 with 2 tensors) is not kept: 'model' is\n"}},
        /* few tensors beside a model are not the model */
        {CASE(KEY("\x0a", "state_dict") "}(" ONE("s") KEY("\5", "model") "}(" ONE("a") ONE("b") ONE("c") "uu"),
         "abc",
         {"'state_dict/s' (a tensor) is not kept\n"}},
        {CASE(KEY("\5", "model") "}(" ONE("a") "u" ONE("s")), "a", {"'s' (a tensor) is not kept\n"}},
        {CASE(ONE("a") ONE("b") ONE("c") KEY("\3", "ema") "}(" ONE("d") "u"), "abc", {"'ema' (a dict of 1 with 1 tensor) is not kept\n"}},
        /* tensors deep in other values are counted, and reported before values without */
        {CASE(NAME("n") "K\1" ONE("a") KEY("\x09", "optimizer") "}(" NAME("m") "](}(" ONE("y") ONE("z") "ue" NAME("t")
                  V2 FLOATS("0", "\6") "K\0K\1\x85K\1\x85" HOOKS "tR\x85u"),
         "a",
         {"'optimizer' (a dict of 2 with 3 tensors) is not kept\n", "'n' (an int) is not kept\n"}},
        /* a key that is set twice, and one dict under two names */
        {CASE(KEY("\5", "model") "}(" ONE("a") "u" KEY("\5", "model") "}(" ONE("b") "u"),
         "b",
         {"'model' (a dict of 1 with 1 tensor) is not kept: 'model' is\n"}},
        {CASE(KEY("\5", "model") "}q\1(" ONE("a") "u" KEY("\3", "net") "h\1"), "a", {0}},
        {CASE(KEY("\5", "model") "K\1" KEY("\3", "net") "}" KEY("\6", "params") "}(" ONE("a") "u"),
         "a",
         {"'net' (a dict of 0) is not kept\n"}},
    };
    dz_buf zip = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dz_error err = {0};
        loaded l;
        pack(cases[i].pickle, cases[i].len, &zip);
        write_path(zip.data, zip.len);
        if (load(&l, &err) != DZ_OK) fail_msg("case %zu: %s", i, err.text);
        dz_buf_put(&l.notes, "", 1, &err);
        const char *notes = (const char *)l.notes.data;
        if (l.n != strlen(cases[i].tensors)) fail_msg("case %zu: %zu tensors", i, l.n);
        for (size_t k = 0; k < l.n; k++) assert_int_equal(l.tensors[k].name[0], cases[i].tensors[k]);
        for (size_t k = 0; k < 2 && cases[i].notes[k]; k++) { /* in this order */
            const char *found = strstr(notes, cases[i].notes[k]);
            if (!found) fail_msg("case %zu: '%s' does not say '%s'", i, notes, cases[i].notes[k]);
            notes = found;
        }
        if (!cases[i].notes[0]) assert_null(strstr(notes, "not kept"));
        unload(&l);
    }
    dz_buf_free(&zip);
}

int main(void) {
    snprintf(path, sizeof path, "/tmp/deltazoo-test-torch-%ld.bin", (long)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors_are_found_where_their_bytes_stand),
        cmocka_unit_test(test_strided_tensors_are_their_row_major_copies),
        cmocka_unit_test(test_types_that_are_bytes_to_us_are_kept_by_their_names),
        cmocka_unit_test(test_pieces_of_strided_tensors_in_any_order),
        cmocka_unit_test(test_a_file_is_restored_as_the_safetensors_file_of_its_tensors),
        cmocka_unit_test(test_names_of_restored_files),
        cmocka_unit_test(test_the_model_is_found_under_the_usual_names),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}

/* PyTorch files made by hand, good and hostile: what is read is right, what is refused is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/torch/torchfile.h"

/* Pickles are written as text with escapes; sizeof - 1 because they hold zero bytes. */
#define P(text) text, sizeof(text) - 1

static char path[64];

static void put_u16(dz_buf *b, unsigned value, dz_error *err) {
    uint8_t bytes[2] = {(uint8_t)value, (uint8_t)(value >> 8)};
    dz_buf_put(b, bytes, 2, err);
}

typedef struct part { /* of a zip file, and what is wrong with it */
    const char *name;
    const void *bytes;
    size_t len;
    unsigned method, flags;
    uint32_t more_size;   /* added to both sizes */
    uint32_t more_packed; /* and to this one */
    uint32_t more_offset; /* added to the local header's place */
} part;

typedef struct faults { /* of the end records */
    uint32_t offset, len, count;
    int zip64; /* write the zip64 records, and saturate the plain one */
    uint64_t offset64;
} faults;

static void make_zip(const part *parts, size_t n, const faults *f, dz_buf *out) {
    dz_error err = {0};
    size_t at[8];
    out->len = 0;
    for (size_t i = 0; i < n; i++) {
        at[i] = out->len;
        dz_buf_put(out, P("PK\3\4\0\0\x08\x08"), &err); /* sizes follow the content, as torch has it */
        put_u16(out, parts[i].method, &err);
        dz_buf_put(out, P("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), &err);
        put_u16(out, (unsigned)strlen(parts[i].name), &err);
        put_u16(out, 8, &err);
        dz_buf_put(out, parts[i].name, strlen(parts[i].name), &err);
        dz_buf_put(out, P("FB\4\0ZZZZ"), &err);
        dz_buf_put(out, parts[i].bytes, parts[i].len, &err);
    }
    size_t begin = out->len;
    for (size_t i = 0; i < n; i++) {
        dz_buf_put(out, P("PK\1\2\0\0\0\0"), &err);
        put_u16(out, 0x808 | parts[i].flags, &err);
        put_u16(out, parts[i].method, &err);
        dz_buf_put(out, P("\0\0\0\0\0\0\0\0"), &err);
        dz_buf_put_u32(out, f->zip64 ? UINT32_MAX : (uint32_t)parts[i].len + parts[i].more_size + parts[i].more_packed, &err);
        dz_buf_put_u32(out, f->zip64 ? UINT32_MAX : (uint32_t)parts[i].len + parts[i].more_size, &err);
        put_u16(out, (unsigned)strlen(parts[i].name), &err);
        put_u16(out, f->zip64 ? 28 : 0, &err);
        dz_buf_put(out, P("\0\0\0\0\0\0\0\0\0\0"), &err);
        dz_buf_put_u32(out, f->zip64 ? UINT32_MAX : (uint32_t)at[i] + parts[i].more_offset, &err);
        dz_buf_put(out, parts[i].name, strlen(parts[i].name), &err);
        if (!f->zip64) continue;
        dz_buf_put(out, P("\1\0\x18\0"), &err);
        dz_buf_put_u64(out, parts[i].len + parts[i].more_size, &err);
        dz_buf_put_u64(out, parts[i].len + parts[i].more_size + parts[i].more_packed, &err);
        dz_buf_put_u64(out, at[i] + parts[i].more_offset, &err);
    }
    size_t end = out->len;
    if (f->zip64) {
        dz_buf_put(out, P("PK\6\6\x2c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), &err);
        dz_buf_put_u64(out, n, &err);
        dz_buf_put_u64(out, n, &err);
        dz_buf_put_u64(out, end - begin, &err);
        dz_buf_put_u64(out, begin + f->offset64, &err);
        dz_buf_put(out, P("PK\6\7\0\0\0\0"), &err);
        dz_buf_put_u64(out, end, &err);
        dz_buf_put_u32(out, 1, &err);
    }
    dz_buf_put(out, P("PK\5\6\0\0\0\0"), &err);
    put_u16(out, f->zip64 ? 0xffff : (unsigned)n + f->count, &err);
    put_u16(out, f->zip64 ? 0xffff : (unsigned)n + f->count, &err);
    dz_buf_put_u32(out, f->zip64 ? UINT32_MAX : (uint32_t)(end - begin) + f->len, &err);
    dz_buf_put_u32(out, f->zip64 ? UINT32_MAX : (uint32_t)begin + f->offset, &err);
    put_u16(out, 0, &err);
    assert_int_equal(err.rc, DZ_OK);
}

static void write_path(const void *bytes, size_t len) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

typedef struct loaded {
    dz_tensor *tensors;
    dz_strided *places;
    size_t n;
    dz_buf notes;
} loaded;

static dz_rc load(loaded *l, dz_error *err) {
    *l = (loaded){0};
    return dz_torch_load(path, &l->tensors, &l->places, &l->n, &l->notes, err);
}

static void unload(loaded *l) {
    dz_tensors_free(l->tensors, l->n);
    free(l->places);
    dz_buf_free(&l->notes);
}

static void expect_bad_file(const dz_buf *zip, const char *want) {
    dz_error err = {0};
    loaded l;
    write_path(zip->data, zip->len);
    assert_int_equal(load(&l, &err), DZ_EFAIL);
    assert_null(l.tensors);
    assert_null(l.places);
    unload(&l);
    if (!strstr(err.text, want)) fail_msg("'%s' does not say '%s'", err.text, want);
    assert_memory_equal(err.text, path, strlen(path));
}

/* The pieces of a tensor's description: storage data/KEY of COUNT floats (one byte each in the text), then first element, size, stride. */
#define STORAGE(type, key, count) "((X\7\0\0\0storagec" type "\nX\1\0\0\0" key "X\3\0\0\0cpuK" count "tQ"
#define V2 "ctorch._utils\n_rebuild_tensor_v2\n"
#define V3 "ctorch._utils\n_rebuild_tensor_v3\n"
#define HOOKS                                                                                                                              \
    "\x89"                                                                                                                                 \
    "ccollections\nOrderedDict\n)R"
#define FLOATS(key, count) STORAGE("torch\nFloatStorage", key, count)
#define NAME(letter) "X\1\0\0\0" letter
#define MATRIX NAME("w") V2 FLOATS("0", "\6") "K\0K\2K\3\x86K\3K\1\x86" HOOKS "tR"

static const char DATA[24] = "abcdefghijklmnopqrstuvwx";

static void pack(const void *pickle, size_t len, dz_buf *zip) {
    const part parts[] = {{.name = "archive/data.pkl", .bytes = pickle, .len = len}, {.name = "archive/data/0", .bytes = DATA, .len = 24}};
    make_zip(parts, 2, &(faults){0}, zip);
}

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
        parts[1].len = sizeof DATA;
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
    static const uint8_t zip[8] = "PK\3\4\0\0\x08\x08",
                         legacy[8] = "\x80\2\x8a\nl\xfc\x9c"
                                     "F",
                         safetensors[8] = "PK\3\4\0\0\0\0";
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
        cmocka_unit_test(test_tensors_are_found_where_their_bytes_stand),
        cmocka_unit_test(test_strided_tensors_are_their_row_major_copies),
        cmocka_unit_test(test_types_that_are_bytes_to_us_are_kept_by_their_names),
        cmocka_unit_test(test_pieces_of_strided_tensors_in_any_order),
        cmocka_unit_test(test_a_packed_stride_that_leads_nowhere_is_refused),
        cmocka_unit_test(test_a_file_is_restored_as_the_safetensors_file_of_its_tensors),
        cmocka_unit_test(test_names_of_restored_files),
        cmocka_unit_test(test_tensors_that_cannot_be_taken_are_named),
        cmocka_unit_test(test_the_model_is_found_under_the_usual_names),
        cmocka_unit_test(test_zip_files_are_distrusted),
        cmocka_unit_test(test_damaged_files_do_no_harm),
        cmocka_unit_test(test_files_that_are_no_zip_are_not_taken_for_one),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}

/* PyTorch files made by hand, for the tests of what is read (test_torch.c) and of what is refused (test_torch_refused.c). */
#ifndef DZ_TESTS_TORCH_FILES_H
#define DZ_TESTS_TORCH_FILES_H

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

static const char DATA[] = "abcdefghijklmnopqrstuvwx"; /* 24 without its end */

static void pack(const void *pickle, size_t len, dz_buf *zip) {
    const part parts[] = {{.name = "archive/data.pkl", .bytes = pickle, .len = len}, {.name = "archive/data/0", .bytes = DATA, .len = 24}};
    make_zip(parts, 2, &(faults){0}, zip);
}

#endif

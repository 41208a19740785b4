/* The lossless codec: everything comes back, sizes keep their promise, and bodies that are not ours do no harm. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "codec/classes.h"
#include "codec/intervals.h"
#include "codec/lossless.h"
#include "codec/planes.h"
#include "deltas.h"

/* ---- checks ---- */

/* Codes behind bytes that are already there, decodes, compares; returns the length of the body. Copies are exact in size, so that a
 * sanitizer sees a byte too many. */
static size_t round_trip(const void *words, const void *base, dz_dtype dtype, size_t count, uint8_t *kind) {
    dz_error err = {0};
    dz_buf out = {0};
    size_t raw = count * dz_dtype_size(dtype);
    assert_int_equal(dz_buf_put(&out, "head", 4, &err), DZ_OK);
    assert_int_equal(dz_lossless_encode(&out, words, base, dtype, count, NULL, &err), DZ_OK);
    assert_memory_equal(out.data, "head", 4);
    size_t len = out.len - 4;
    uint8_t *body = malloc(len), *back = malloc(raw ? raw : 1);
    memcpy(body, out.data + 4, len);
    assert_int_equal(dz_lossless_decode(back, base, dtype, count, body, len, &err), DZ_OK);
    if (raw) assert_memory_equal(back, words, raw);
    assert_true(len <= raw + 1);
    if (kind) *kind = body[0];
    free(body);
    free(back);
    dz_buf_free(&out);
    return len;
}

static const size_t COUNTS[] = {0, 1, 2, 17, 255, 256, 257, 768, 4096, 40000, 100000};
#define NCOUNTS (sizeof COUNTS / sizeof COUNTS[0])
#define COUNT_MAX 100000

static void test_every_dtype_and_size_comes_back(void **state) {
    (void)state;
    uint8_t *base = malloc(COUNT_MAX * 8 + 1), *words = malloc(COUNT_MAX * 8 + 1);
    for (int d = 0; d < DZ_DTYPE_COUNT; d++) {
        dz_dtype dtype = (dz_dtype)d;
        size_t size = dz_dtype_size(dtype);
        for (size_t c = 0; c < NCOUNTS; c++) {
            uint8_t *b = base + c % 2, *w = words + (c / 2) % 2; /* also not aligned */
            fill_bytes(b, COUNTS[c] * size, 3 + c);
            fill_bytes(w, COUNTS[c] * size, 4 + c);
            round_trip(w, b, dtype, COUNTS[c], NULL); /* unrelated */
            round_trip(w, NULL, dtype, COUNTS[c], NULL);
            fill_near(w, b, COUNTS[c], size, 5, 2);
            round_trip(w, b, dtype, COUNTS[c], NULL);
            fill_near(w, b, COUNTS[c], size, 6, 900);
            round_trip(w, b, dtype, COUNTS[c], NULL);
            memset(w, 0x3f, COUNTS[c] * size);
            round_trip(w, b, dtype, COUNTS[c], NULL);
        }
    }
    free(base);
    free(words);
}

/* All pairs of words of special value: zeros, denormals, the largest, infinities, NaN payloads, of both signs. */
static void test_special_words_come_back(void **state) {
    (void)state;
    static const uint16_t halves[] = {0,      1,      2,      0x7f,   0x80,   0x3ff,  0x400,  0x3c00, 0x3f80,
                                      0x7bff, 0x7c00, 0x7c01, 0x7f7f, 0x7f80, 0x7f81, 0x7fc0, 0x7fff};
    enum { N = sizeof halves / sizeof halves[0], PAIRS = 4 * N * N };
    uint16_t words[PAIRS], base[PAIRS];
    uint32_t wide[PAIRS], wide_base[PAIRS];
    for (size_t i = 0; i < PAIRS; i++) {
        words[i] = (uint16_t)(halves[i % N] | (i / N / N & 1) << 15);
        base[i] = (uint16_t)(halves[i / N % N] | (i / N / N & 2) << 14);
        wide[i] = (uint32_t)words[i] << 16 | halves[(i + 5) % N];
        wide_base[i] = (uint32_t)base[i] << 16 | halves[(i * 7 + 3) % N];
    }
    dz_dtype narrow[] = {DZ_F16, DZ_BF16};
    for (size_t d = 0; d < 2; d++) round_trip(words, base, narrow[d], PAIRS, NULL);
    round_trip(wide, wide_base, DZ_F32, PAIRS, NULL);
    for (size_t i = 0; i < PAIRS; i++) wide[i] &= 0xffff0000U; /* and against a base with more bits */
    round_trip(wide, wide_base, DZ_F32, PAIRS, NULL);
    round_trip(wide, wide_base, DZ_F64, PAIRS / 2, NULL);
}

/* Classes themselves, whether or not they would be chosen, for every shift of the elements. */
static void test_classes_come_back_for_every_shift(void **state) {
    (void)state;
    enum { N = 3000 };
    static const dz_dtype dtypes[] = {DZ_F32, DZ_F16, DZ_BF16, DZ_F8_E4M3, DZ_F8_E5M2};
    uint32_t words[N], base[N], back[N];
    for (size_t d = 0; d < 5; d++) {
        size_t size = dz_dtype_size(dtypes[d]);
        for (unsigned shift = 0; shift < 8 * size; shift++) {
            fill_bytes((uint8_t *)base, sizeof base, 9 + shift);
            fill_bytes((uint8_t *)words, sizeof words, 10 + (shift & 1)); /* some with the same words */
            for (size_t i = 0; i < N * size; i++) {
                unsigned bit = (unsigned)(i % size) * 8;
                uint8_t mask = (uint8_t)(bit + 8 <= shift ? 0U : bit < shift ? 0xffU << (shift - bit) : 0xffU);
                ((uint8_t *)words)[i] &= mask;
            }
            dz_error err = {0};
            dz_buf out = {0};
            assert_int_equal(dz_classes_encode(&out, words, base, dtypes[d], N, &err), DZ_OK);
            dz_view view = {.data = out.data, .len = out.len};
            assert_int_equal(dz_classes_decode(back, base, dtypes[d], N, &view, &err), DZ_OK);
            assert_memory_equal(back, words, N * size);
            dz_buf_free(&out);
        }
    }
}

/* Intervals themselves, for every shift, few and many elements, whatever would be chosen. */
static void test_intervals_come_back_for_every_shift(void **state) {
    (void)state;
    enum { N = 2500 };
    static const dz_dtype dtypes[] = {DZ_F32, DZ_F16, DZ_BF16};
    static const size_t counts[] = {1, 2, 7, 8, 9, 1023, 1024, 1025, N};
    uint32_t words[N], back[N];
    for (size_t t = 0; t < 3 * 33 * 9; t++) {
        dz_dtype dtype = dtypes[t % 3];
        size_t size = dz_dtype_size(dtype), n = counts[t / 99], shift = t / 3 % 33;
        fill_bytes((uint8_t *)words, sizeof words, t);
        if (t & 1) fill_weights(words, back, dtype, n, 1e-3); /* few keys; else all of them, infinities and NaN too */
        for (size_t i = 0; i < n; i++) {
            uint64_t mask = ~(((uint64_t)1 << shift) - 1);
            for (size_t b = 0; b < size; b++) ((uint8_t *)words)[i * size + b] &= (uint8_t)(mask >> 8 * b);
        }
        dz_error err = {0};
        dz_buf out = {0};
        assert_int_equal(dz_intervals_encode(&out, words, dtype, n, &err), DZ_OK);
        dz_view view = {.data = out.data, .len = out.len};
        assert_int_equal(dz_intervals_decode(back, dtype, n, &view, &err), DZ_OK);
        assert_int_equal(view.pos, view.len);
        assert_memory_equal(back, words, n * size);
        dz_buf_free(&out);
    }
}

/* At most 2 % more than by classes, and it is what large tiles are written as; also from places that are not aligned. */
static void test_large_tiles_are_written_close_to_the_base(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    static const double scales[] = {1e-5, 1e-4, 5e-4};
    uint8_t *words = malloc(2 * N + 1), *base = malloc(2 * N + 1), kind;
    for (size_t k = 0; k < 3; k++) {
        dz_error err = {0};
        dz_buf by_classes = {0};
        fill_weights(words, base, DZ_BF16, N, scales[k]);
        assert_int_equal(dz_classes_encode(&by_classes, words, base, DZ_BF16, N, &err), DZ_OK);
        size_t len = round_trip(words, base, DZ_BF16, N, &kind);
        assert_int_equal(kind, DZ_LOSSLESS_CLOSE);
        assert_in_range(len, 1, by_classes.len + by_classes.len / 50);
        dz_buf_free(&by_classes);
        memmove(words + 1, words, 2 * N);
        memmove(base + 1, base, 2 * N);
        assert_int_equal(round_trip(words + 1, base + 1, DZ_BF16, N, &kind), len);
    }
    free(words);
    free(base);
}

/* METHODS.md "Floats by themselves": normal weights of one width, 10.46 bits; and kept as f32. */
static void test_weights_without_a_base_meet_the_size_target(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    uint16_t *words = malloc(N * 2), *base = malloc(N * 2);
    float *wide = malloc(N * 4);
    uint8_t kind;
    fill_weights(base, words, DZ_BF16, N, 1e-4); /* `words` is the base of these */
    size_t narrow = round_trip(words, NULL, DZ_BF16, N, &kind);
    assert_int_equal(kind, DZ_LOSSLESS_INTERVALS);
    assert_in_range(narrow, 1, N * 10.50 / 8);
    dz_widen(wide, words, DZ_BF16, N);
    assert_in_range(round_trip(wide, NULL, DZ_F32, N, &kind), 1, narrow);
    assert_int_equal(kind, DZ_LOSSLESS_INTERVALS);
    free(words);
    free(base);
    free(wide);
}

static void test_equal_tile_is_one_byte(void **state) {
    (void)state;
    uint8_t bytes[4096 * 4], kind;
    fill_bytes(bytes, sizeof bytes, 1);
    assert_int_equal(round_trip(bytes, bytes, DZ_F32, 4096, &kind), 1);
    assert_int_equal(kind, DZ_LOSSLESS_EQUAL);
    assert_int_equal(round_trip(bytes, bytes, DZ_OPAQUE, 17, &kind), 1);
}

static void test_one_changed_element_is_cheap(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    uint8_t *words = malloc(N * 2), *base = malloc(N * 2), kind;
    fill_bytes(base, N * 2, 1);
    memcpy(words, base, N * 2);
    words[2 * (N / 3)] ^= 5;
    assert_in_range(round_trip(words, base, DZ_BF16, N, &kind), 1, 120);
    assert_int_equal(kind, DZ_LOSSLESS_SPARSE);
    assert_in_range(round_trip(words, base, DZ_I64, N / 4, &kind), 1, 120);
    memcpy(words, base, N * 2);
    words[2 * N - 1] ^= 0x80; /* in a short last chunk */
    assert_in_range(round_trip(words + 2, base + 2, DZ_BF16, N - 1, &kind), 1, 120);
    free(words);
    free(base);
}

/* Rows of an embedding that were not trained. */
static void test_unchanged_rows_cost_nothing(void **state) {
    (void)state;
    enum { ROWS = 400, COLUMNS = 768, N = ROWS * COLUMNS };
    uint8_t *words = malloc(N * 2), *base = malloc(N * 2), kind;
    fill_weights(words, base, DZ_BF16, N, 5e-4);
    size_t all = round_trip(words, base, DZ_BF16, N, &kind);
    assert_int_equal(kind, DZ_LOSSLESS_CLOSE);
    for (size_t r = 0; r < ROWS; r++) {
        if (r % 8 != 3) memcpy(words + r * COLUMNS * 2, base + r * COLUMNS * 2, COLUMNS * 2);
    }
    assert_in_range(round_trip(words, base, DZ_BF16, N, &kind), 1, all / 8 + all / 100);
    assert_int_equal(kind, DZ_LOSSLESS_SPARSE);
    free(words);
    free(base);
}

/* METHODS.md "Classes by base exponent": bytes for 4 M bf16 weights. The share of zstd -19 is measured by the benchmark. */
static void test_student_deltas_meet_the_size_targets(void **state) {
    (void)state;
    enum { N = 4000000 };
    static const struct {
        double scale;
        size_t most;
    } targets[] = {{1e-4, 1620000}, {5e-4, 2780000}, {2e-3, 3820000}};
    uint8_t *words = malloc(N * 2), *base = malloc(N * 2), kind;
    for (size_t t = 0; t < 3; t++) {
        fill_weights(words, base, DZ_BF16, N, targets[t].scale);
        assert_in_range(round_trip(words, base, DZ_BF16, N, &kind), 1, targets[t].most);
        assert_int_equal(kind, DZ_LOSSLESS_CLOSE);
    }
    free(words);
    free(base);
}

static void test_small_tiles_cost_little_overhead(void **state) {
    (void)state;
    uint8_t words[768 * 4], base[768 * 4];
    fill_weights(words, base, DZ_BF16, 768, 5e-4);
    assert_in_range(round_trip(words, base, DZ_BF16, 768, NULL), 1, 700); /* 5.4 bits of entropy: 520 bytes */
    memset(words, 0, sizeof words);
    assert_in_range(round_trip(words, base, DZ_BF16, 768, NULL), 1, 8); /* zeros, whatever the base */
    assert_in_range(round_trip(words, NULL, DZ_F32, 768, NULL), 1, 12);
}

/* bf16 values kept as f32 cost what bf16 costs, also against a base with all its bits. */
static void test_widened_weights_cost_as_narrow_ones(void **state) {
    (void)state;
    enum { N = 100000 };
    uint16_t *words = malloc(N * 2), *base = malloc(N * 2);
    float *wide = malloc(N * 4), *wide_base = malloc(N * 4);
    fill_weights(words, base, DZ_BF16, N, 5e-4);
    dz_widen(wide, words, DZ_BF16, N);
    dz_widen(wide_base, base, DZ_BF16, N);
    size_t narrow = round_trip(words, base, DZ_BF16, N, NULL);
    assert_in_range(round_trip(wide, wide_base, DZ_F32, N, NULL), 1, narrow + narrow / 100);
    free(words);
    free(base);
    free(wide);
    free(wide_base);
}

static void test_encoding_is_deterministic(void **state) {
    (void)state;
    enum { N = 50000 };
    uint8_t *words = malloc(N * 2), *base = malloc(N * 2);
    dz_error err = {0};
    dz_buf a = {0}, b = {0};
    fill_weights(words, base, DZ_F16, N, 1e-3);
    assert_int_equal(dz_lossless_encode(&a, words, base, DZ_F16, N, NULL, &err), DZ_OK);
    assert_int_equal(dz_lossless_encode(&b, words, base, DZ_F16, N, NULL, &err), DZ_OK);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    dz_buf_free(&a);
    dz_buf_free(&b);
    free(words);
    free(base);
}

/* ---- bodies that are not ours ---- */

static dz_rc try_decode(const void *base, dz_dtype dtype, size_t count, const uint8_t *bytes, size_t nbytes) {
    dz_error err = {0};
    uint8_t *exact = malloc(nbytes ? nbytes : 1), *back = malloc(count * dz_dtype_size(dtype) + 1);
    memcpy(exact, bytes, nbytes);
    dz_rc rc = dz_lossless_decode(back, base, dtype, count, exact, nbytes, &err);
    assert_true(rc == DZ_OK || rc == DZ_EDAMAGE);
    assert_int_equal(rc, err.rc);
    free(exact);
    free(back);
    return rc;
}

/* Every truncation, and many with a byte altered. */
static void harm_body(const uint8_t *body, size_t len, const void *base, dz_dtype dtype, size_t count) {
    uint64_t tries = count < 10000 ? 1200 : 200;
    uint8_t *harmed = malloc(len + 1);
    for (size_t cut = 0; cut < len; cut += cut < 200 ? 1 : len / 64 + 1)
        assert_int_equal(try_decode(base, dtype, count, body, cut), DZ_EDAMAGE);
    memcpy(harmed, body, len);
    harmed[len] = 0;
    assert_int_equal(try_decode(base, dtype, count, harmed, len + 1), DZ_EDAMAGE);
    for (uint64_t r = 0; r < tries; r++) {
        memcpy(harmed, body, len);
        uint64_t draw = dz_u64_at(len, r);
        size_t at = r < tries / 2 ? draw % (len < 80 ? len : 80) : draw % len; /* half of them in the tables at the front */
        harmed[at] ^= (uint8_t)(r & 1 ? 1U << (draw >> 60 & 7) : (draw >> 40 & 0xff) | 1);
        try_decode(base, dtype, count, harmed, len);
    }
    free(harmed);
}

static void test_damaged_bodies_do_no_harm(void **state) {
    (void)state;
    enum { MOST = 200000, MANY = 33000 };
    static const dz_dtype dtypes[] = {DZ_BF16, DZ_F32, DZ_F8_E4M3, DZ_I64};
    uint8_t *words = malloc(MOST * 8), *base = malloc(MOST * 8);
    int seen[256] = {0};
    for (size_t d = 0; d < 4; d++) {
        for (unsigned how = 0; how < 6; how++) {
            size_t size = dz_dtype_size(dtypes[d]), n = how == 5 ? MOST : how == 2 || how == 4 ? MANY : 3000;
            fill_bytes(base, n * size, 21);
            if (dz_dtype_is_float(dtypes[d])) fill_weights(words, base, dtypes[d], n, how == 5 ? 5e-5 : how ? 5e-4 : 3e-3);
            if (!dz_dtype_is_float(dtypes[d]) || (how >= 2 && how < 5)) fill_near(words, base, n, size, 8, how >= 2 ? 6000 : 3);
            dz_error err = {0};
            dz_buf out = {0};
            const void *predictor = how == 3 || how == 4 ? NULL : base;
            assert_int_equal(dz_lossless_encode(&out, words, predictor, dtypes[d], n, NULL, &err), DZ_OK);
            seen[out.data[0]]++;
            harm_body(out.data, out.len, predictor, dtypes[d], n);
            try_decode(predictor, dtypes[d], n - 1, out.data, out.len);
            if (predictor) assert_int_equal(try_decode(NULL, dtypes[d], n, out.data, out.len), DZ_EDAMAGE);
            dz_buf_free(&out);
        }
    }
    assert_true(seen[DZ_LOSSLESS_CLOSE] && seen[DZ_LOSSLESS_INTERVALS] && seen[DZ_LOSSLESS_PLANES] && seen[DZ_LOSSLESS_CLASSES] &&
                seen[DZ_LOSSLESS_SPARSE]);
    free(words);
    free(base);
}

static void test_random_bytes_do_no_harm(void **state) {
    (void)state;
    uint8_t base[1000 * 8], body[400];
    fill_bytes(base, sizeof base, 31);
    for (uint64_t r = 0; r < 40000; r++) {
        uint64_t draw = dz_u64_at(32, r);
        size_t len = draw % sizeof body;
        fill_bytes(body, len, 33 + r);
        if (len > 0) body[0] = (uint8_t)(15 + (draw >> 32) % 12);
        if (len > 8 && r & 1) { /* likely to get past the first checks */
            body[1] &= 0x0b;
            body[2] = (uint8_t)(body[2] & 3);
            body[3] = (uint8_t)(body[3] & 0x3f);
        }
        try_decode(draw >> 40 & 1 ? base : NULL, (dz_dtype)((draw >> 48) % DZ_DTYPE_COUNT), (draw >> 52) % 1000, body, len);
    }
}

static void test_wrong_bodies_are_damage(void **state) {
    (void)state;
    uint8_t base[8] = {0};
    static const struct {
        uint8_t bytes[8];
        size_t nbytes;
    } bodies[] = {
        {{0}, 0},                                                 /* nothing */
        {{15}, 1},                                                /* unknown kinds */
        {{26, 0, 0}, 3},                                          /* */
        {{DZ_LOSSLESS_EQUAL, 0}, 2},                              /* a byte too many */
        {{DZ_LOSSLESS_RAW, 1, 2, 3}, 4},                          /* too short */
        {{DZ_LOSSLESS_PLANES, 2, 0, 0, 0, 0}, 6},                 /* unknown flag */
        {{DZ_LOSSLESS_PLANES, 0, 4, 0, 0, 0}, 6},                 /* unknown plane */
        {{DZ_LOSSLESS_PLANES, 0, DZ_PLANE_CONSTANT}, 3},          /* a plane without its value */
        {{DZ_LOSSLESS_PLANES, 0, DZ_PLANE_ZSTD, 0xff, 0xff}, 5},  /* a length that does not end */
        {{DZ_LOSSLESS_CLASSES, 15, 1, 0}, 4},                     /* a shift that leaves no magnitude */
        {{DZ_LOSSLESS_CLASSES, 0, 0}, 3},                         /* no class */
        {{DZ_LOSSLESS_CLASSES, 0, 65}, 3},                        /* too many */
        {{DZ_LOSSLESS_CLASSES, 0, 2, 0, 0, 0}, 6},                /* two that start at one context */
        {{DZ_LOSSLESS_CLASSES, 0, 2, 0x80, 0x08, 0, 0}, 7},       /* one beyond the last context */
        {{DZ_LOSSLESS_INTERVALS, 8, 0, 11, 1, 0, 0, 0}, 8},       /* a shift beyond the mantissa */
        {{DZ_LOSSLESS_INTERVALS, 0, 4, 11, 1, 0, 0, 0}, 8},       /* too many bits in a key */
        {{DZ_LOSSLESS_INTERVALS, 5, 3, 11, 1, 0, 0, 0}, 8},       /* more than are there */
        {{DZ_LOSSLESS_INTERVALS, 0, 3, 12, 1, 0, 0, 0}, 8},       /* an interval of more than all keys */
        {{DZ_LOSSLESS_INTERVALS, 0, 3, 40, 1, 0, 0, 0}, 8},       /* */
        {{DZ_LOSSLESS_INTERVALS, 0, 3, 10, 3, 0, 0, 0}, 8},       /* more intervals than keys are left */
        {{DZ_LOSSLESS_INTERVALS, 0, 3, 0, 1, 10, 1, 0}, 8},       /* one that does not begin at its length */
        {{DZ_LOSSLESS_INTERVALS, 0, 3, 10, 0, 10, 2, 0}, 8},      /* a run of none */
        {{DZ_LOSSLESS_NEAR, 0, 0, 0}, 4},                         /* no class */
        {{DZ_LOSSLESS_NEAR, 0, 16, 0, 0, 0, 0, 0}, 8},            /* too many */
        {{DZ_LOSSLESS_NEAR, 255, 2, 0, 0}, 5},                    /* classes beyond the last exponent */
        {{DZ_LOSSLESS_NEAR, 0, 1, 9, 0, 0x77}, 6},                /* too many low bits */
        {{DZ_LOSSLESS_NEAR, 0, 1, 0, 0, 0x77, 3, 0}, 8},          /* more escapes than elements */
        {{DZ_LOSSLESS_NEAR, 0, 1, 0, 0, 0xff, 0}, 7},             /* numbers of escapes without them */
        {{DZ_LOSSLESS_NEAR, 0, 1, 8, 0, 0x77, 1}, 7},             /* low bits cut short */
        {{DZ_LOSSLESS_CLOSE, 0, 0, 0}, 4},                        /* no class */
        {{DZ_LOSSLESS_CLOSE, 0, 16, 0, 0, 0, 0, 0}, 8},           /* too many */
        {{DZ_LOSSLESS_CLOSE, 255, 2, 0, 0}, 5},                   /* classes beyond the last exponent */
        {{DZ_LOSSLESS_CLOSE, 0, 1, 9, 0x77, 1, 0, 0}, 8},         /* too many low bits */
        {{DZ_LOSSLESS_CLOSE, 0, 1, 0, 0x67, 1, 0, 0}, 8},         /* numbers 7 to 6 */
        {{DZ_LOSSLESS_CLOSE, 0, 1, 0, 0xff, 1, 0, 0}, 8},         /* number 15 in the list */
        {{DZ_LOSSLESS_CLOSE, 0, 1, 0, 0x77, 0x81, 0x20, 0}, 8},   /* frequencies beyond 4096 */
        {{DZ_LOSSLESS_CLOSE, 0, 1, 0, 0x77, 1, 17, 0}, 8},        /* more low bits than elements have */
        {{DZ_LOSSLESS_CLOSE, 0, 1, 0, 0x77, 1, 0, 3}, 8},         /* more words than elements */
        {{DZ_LOSSLESS_CLOSE, 0, 1, 0, 0x77, 1, 0, 0}, 8},         /* no states */
        {{DZ_LOSSLESS_SPARSE, 21, 0, 0, DZ_LOSSLESS_RAW}, 5},     /* chunks too large */
        {{DZ_LOSSLESS_SPARSE, 8, 0, 1, DZ_LOSSLESS_SPARSE, 8}, 6} /* sparse in sparse */
    };
    for (size_t b = 0; b < sizeof bodies / sizeof bodies[0]; b++) {
        assert_int_equal(try_decode(base, DZ_BF16, 2, bodies[b].bytes, bodies[b].nbytes), DZ_EDAMAGE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_dtype_and_size_comes_back),
        cmocka_unit_test(test_special_words_come_back),
        cmocka_unit_test(test_classes_come_back_for_every_shift),
        cmocka_unit_test(test_large_tiles_are_written_close_to_the_base),
        cmocka_unit_test(test_intervals_come_back_for_every_shift),
        cmocka_unit_test(test_weights_without_a_base_meet_the_size_target),
        cmocka_unit_test(test_equal_tile_is_one_byte),
        cmocka_unit_test(test_one_changed_element_is_cheap),
        cmocka_unit_test(test_unchanged_rows_cost_nothing),
        cmocka_unit_test(test_student_deltas_meet_the_size_targets),
        cmocka_unit_test(test_small_tiles_cost_little_overhead),
        cmocka_unit_test(test_widened_weights_cost_as_narrow_ones),
        cmocka_unit_test(test_encoding_is_deterministic),
        cmocka_unit_test(test_damaged_bodies_do_no_harm),
        cmocka_unit_test(test_random_bytes_do_no_harm),
        cmocka_unit_test(test_wrong_bodies_are_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Exact bodies that know the rows of their tensor: predictions of low rank, and columns in groups. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/intervals.h"
#include "codec/lossless.h"
#include "deltas.h"

enum { COLUMNS = 96, ROWS = 500, MOST = COLUMNS * ROWS };

typedef struct pair {
    uint8_t words[MOST * 4], base[MOST * 4];
} pair;

/* A matrix of normal weights that moved by `shared` along one direction and by `own` everywhere. */
static void fill_moved(pair *p, dz_dtype dtype, double shared, double own) {
    for (size_t i = 0; i < MOST; i++) {
        double w = 0.02 * gauss(1, i), d = shared * gauss(2, i / COLUMNS) * gauss(3, i % COLUMNS) + own * gauss(4, i);
        put_float(p->base, i, dtype, w);
        put_float(p->words, i, dtype, w + d);
    }
}

/* Columns of different means and widths. */
static void fill_columns(pair *p, dz_dtype dtype, double spread) {
    for (size_t i = 0; i < MOST; i++) {
        size_t c = i % COLUMNS;
        put_float(p->words, i, dtype, 0.02 * exp2(spread * gauss(5, c)) * (gauss(6, i) + 2 * spread * gauss(7, c)));
    }
}

/* The body of the elements from `from` on, behind bytes that are already there, after checking that they come back; its length. */
static size_t round_trip(const pair *p, int with_base, dz_dtype dtype, size_t from, size_t count, const dz_tile_rows *rows, dz_buf *body) {
    dz_error err = {0};
    size_t size = dz_dtype_size(dtype);
    const uint8_t *words = p->words + from * size, *base = with_base ? p->base + from * size : NULL;
    uint8_t *back = malloc(count * size), *exact;
    body->len = 0;
    assert_int_equal(dz_buf_put(body, "head", 4, &err), DZ_OK);
    assert_int_equal(dz_lossless_encode(body, words, base, dtype, count, rows, &err), DZ_OK);
    assert_memory_equal(body->data, "head", 4);
    body->len -= 4;
    memmove(body->data, body->data + 4, body->len);
    exact = malloc(body->len);
    memcpy(exact, body->data, body->len);
    assert_int_equal(dz_lossless_decode(back, base, dtype, count, exact, body->len, &err), DZ_OK);
    assert_memory_equal(back, words, count * size);
    free(exact);
    free(back);
    return body->len;
}

static const dz_dtype DTYPES[] = {DZ_BF16, DZ_F16, DZ_F32};

/* From whole rows, and from within one row to within another; words and base with infinities and NaN. */
static void test_matrices_that_moved_one_way_are_predicted(void **state) {
    (void)state;
    pair *p = malloc(sizeof *p);
    dz_buf body = {0};
    for (size_t d = 0; d < 3; d++) {
        size_t size = dz_dtype_size(DTYPES[d]);
        fill_moved(p, DTYPES[d], 4e-3, 3e-4);
        for (size_t from = 0; from < 200; from += 107) {
            size_t count = MOST - from - (from ? 31 : 0);
            dz_tile_rows rows = {.columns = COLUMNS, .first = from % COLUMNS};
            size_t plain = round_trip(p, 1, DTYPES[d], from, count, NULL, &body);
            size_t moved = round_trip(p, 1, DTYPES[d], from, count, &rows, &body);
            assert_int_equal(body.data[0], DZ_LOSSLESS_LOWRANK);
            assert_true(moved + count * 2 / 8 < plain); /* 2 bits an element */
        }
        for (size_t i = 5; i < MOST; i += 4999) {
            memset((i & 1 ? p->base : p->words) + i * size, 0xff, size);
            put_float(i & 1 ? p->base : p->words, i + 1, DTYPES[d], INFINITY);
            put_float(p->words, i + 2, DTYPES[d], 6e4);
        }
        dz_tile_rows rows = {.columns = COLUMNS};
        round_trip(p, 1, DTYPES[d], 0, MOST, &rows, &body);
        assert_int_equal(body.data[0], DZ_LOSSLESS_LOWRANK);
    }
    dz_buf_free(&body);
    free(p);
}

/* Rows whose differences have no sum in float, beside rows that have a direction: their numbers are NaN or infinite before rounding. */
static void test_rows_beyond_the_sums_of_floats_come_back(void **state) {
    (void)state;
    pair *p = malloc(sizeof *p);
    dz_buf body = {0};
    dz_tile_rows rows = {.columns = COLUMNS};
    for (size_t d = 0; d < 3; d++) {
        fill_moved(p, DTYPES[d], 4e-3, 3e-4);
        for (size_t i = 0; i < MOST; i++) {
            if (i / COLUMNS % 11 == 3) put_float(p->words, i, DTYPES[d], dz_u64_at(8, i) & 1 ? 3e38 : -3e38);
        }
        round_trip(p, 1, DTYPES[d], 0, MOST, &rows, &body);
        if (DTYPES[d] != DZ_F16) assert_int_equal(body.data[0], DZ_LOSSLESS_LOWRANK);
    }
    dz_buf_free(&body);
    free(p);
}

/* Without a direction, with a wrong number of columns, or too small: the same body as without rows. */
static void test_others_are_not_predicted(void **state) {
    (void)state;
    pair *p = malloc(sizeof *p);
    dz_buf body = {0};
    dz_tile_rows rows = {.columns = COLUMNS}, wrong = {.columns = COLUMNS - 7}, few = {.columns = 16}, none = {0};
    fill_moved(p, DZ_BF16, 0, 1e-3);
    size_t plain = round_trip(p, 1, DZ_BF16, 0, MOST, NULL, &body);
    assert_int_equal(round_trip(p, 1, DZ_BF16, 0, MOST, &rows, &body), plain);
    assert_int_equal(round_trip(p, 1, DZ_BF16, 0, MOST, &none, &body), plain);
    fill_moved(p, DZ_BF16, 4e-3, 3e-4);
    plain = round_trip(p, 1, DZ_BF16, 0, MOST, NULL, &body);
    assert_int_equal(round_trip(p, 1, DZ_BF16, 0, MOST, &wrong, &body), plain);
    assert_int_equal(round_trip(p, 1, DZ_BF16, 0, MOST, &few, &body), plain);
    dz_buf_free(&body);
    free(p);
}

static void test_columns_that_differ_are_in_groups(void **state) {
    (void)state;
    pair *p = malloc(sizeof *p);
    dz_buf body = {0};
    for (size_t d = 0; d < 3; d++) {
        fill_columns(p, DTYPES[d], 1.5);
        for (size_t from = 0; from < 200; from += 107) {
            size_t count = MOST - from - (from ? 31 : 0);
            dz_tile_rows rows = {.columns = COLUMNS, .first = from % COLUMNS};
            size_t plain = round_trip(p, 0, DTYPES[d], from, count, NULL, &body);
            size_t grouped = round_trip(p, 0, DTYPES[d], from, count, &rows, &body);
            assert_int_equal(body.data[0], DZ_LOSSLESS_COLUMNS);
            assert_true(grouped + count / 8 < plain); /* a bit an element */
        }
    }
    fill_columns(p, DZ_BF16, 0.02);
    dz_tile_rows rows = {.columns = COLUMNS};
    size_t plain = round_trip(p, 0, DZ_BF16, 0, MOST, NULL, &body);
    assert_int_equal(round_trip(p, 0, DZ_BF16, 0, MOST, &rows, &body), plain);
    dz_buf_free(&body);
    free(p);
}

/* Signs that are nearly all the same are part of the keys, and cost next to nothing. */
static void test_uneven_signs_are_in_the_keys(void **state) {
    (void)state;
    pair *p = malloc(sizeof *p);
    dz_buf body = {0};
    for (size_t d = 0; d < 3; d++) {
        size_t sizes[2];
        for (int even = 0; even < 2; even++) {
            for (size_t i = 0; i < MOST; i++)
                put_float(p->words, i, DTYPES[d], fabs(0.02 * gauss(1, i)) * (uniform(2, i) < (even ? 0.5 : 0.003) ? -1 : 1));
            sizes[even] = round_trip(p, 0, DTYPES[d], 0, MOST, NULL, &body);
            assert_int_equal(body.data[0], DZ_LOSSLESS_INTERVALS);
            assert_int_equal(body.data[2] >> 7, !even);
        }
        assert_true(sizes[0] + MOST / 8 * 9 / 10 < sizes[1]);
    }
    dz_buf_free(&body);
    free(p);
}

static void try_decode(const uint8_t *base, size_t count, const uint8_t *bytes, size_t nbytes, int is_damage) {
    dz_error err = {0};
    uint8_t *exact = malloc(nbytes ? nbytes : 1), *back = malloc(count * 2);
    memcpy(exact, bytes, nbytes);
    dz_rc rc = dz_lossless_decode(back, base, DZ_BF16, count, exact, nbytes, &err);
    assert_true(rc == DZ_EDAMAGE || (rc == DZ_OK && !is_damage));
    assert_int_equal(rc, err.rc);
    free(exact);
    free(back);
}

/* Truncations, a byte too many, bytes altered, and another number of elements. */
static void test_damaged_bodies_do_no_harm(void **state) {
    (void)state;
    pair *p = malloc(sizeof *p);
    dz_buf body = {0};
    dz_tile_rows rows = {.columns = COLUMNS};
    for (int with_base = 0; with_base < 2; with_base++) {
        if (with_base)
            fill_moved(p, DZ_BF16, 4e-3, 3e-4);
        else
            fill_columns(p, DZ_BF16, 1.5);
        round_trip(p, with_base, DZ_BF16, 0, MOST, &rows, &body);
        assert_int_equal(body.data[0], with_base ? DZ_LOSSLESS_LOWRANK : DZ_LOSSLESS_COLUMNS);
        const uint8_t *base = with_base ? p->base : NULL;
        uint8_t *harmed = malloc(body.len + 1);
        for (size_t cut = 0; cut < body.len; cut += cut < 200 ? 1 : body.len / 64 + 1) try_decode(base, MOST, body.data, cut, 1);
        memcpy(harmed, body.data, body.len);
        harmed[body.len] = 0;
        try_decode(base, MOST, harmed, body.len + 1, 1);
        for (uint64_t r = 0; r < 400; r++) {
            uint64_t draw = dz_u64_at(9, r);
            memcpy(harmed, body.data, body.len);
            harmed[r < 200 ? draw % 80 : draw % body.len] ^= (uint8_t)((draw >> 40 & 0xff) | 1);
            try_decode(base, MOST, harmed, body.len, 0);
        }
        try_decode(base, MOST - 1, body.data, body.len, 0);
        try_decode(base, 1, body.data, body.len, 1);
        if (with_base) try_decode(NULL, MOST, body.data, body.len, 1);
        free(harmed);
    }
    dz_buf_free(&body);
    free(p);
}

static void test_wrong_bodies_are_damage(void **state) {
    (void)state;
    uint8_t base[16] = {0};
    enum { LR = DZ_LOSSLESS_LOWRANK, CG = DZ_LOSSLESS_COLUMNS, RAW = DZ_LOSSLESS_RAW };
    static const struct {
        uint8_t bytes[32];
        size_t nbytes;
    } bodies[] = {
        {{LR, 0, 0, 1, 126, 0, 0, 0, 0, 0, 0, 0, 0, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 22},                   /* no columns */
        {{LR, 5, 0, 1, 126, 0, 0, 0, 0, 0, 0, 0, 0, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 22},                   /* more than elements */
        {{LR, 2, 2, 1, 126, 0, 0, 0, 0, 0, 0, 0, 0, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 22},                   /* a first one beyond them */
        {{LR, 2, 0, 0, 126, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 14},                                           /* rank 0 */
        {{LR, 2, 0, 17, 126, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 14},                                          /* rank 17 */
        {{LR, 2, 0, 1, 191, 0, 0, 0, 0, 0, 0, 0, 0, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 22},                   /* too large a step */
        {{LR, 2, 0, 1, 126, 0, 0, 0, 0, 0, 0, 0, 0, DZ_LOSSLESS_EQUAL}, 14},                             /* inner kinds that may not be */
        {{LR, 2, 0, 1, 126, 0, 0, 0, 0, 0, 0, 0, 0, LR, 2, 0, 1, 126, 0, 0, 0, 0, 0, 0, 0, 0, RAW}, 27}, /* */
        {{CG, 0, 0, 1, 0, 0, 9, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 16},                                       /* no columns */
        {{CG, 5, 0, 1, 0, 0, 9, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 16},                                       /* more than elements */
        {{CG, 2, 0, 0, 0, 0, 9, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 16},                                       /* no group */
        {{CG, 2, 0, 1, 0, 2, 9, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 16},                                       /* a column of no group */
        {{CG, 2, 0, 2, 0, 0, 9, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 16},                                       /* a group without columns */
        {{CG, 2, 0, 65, 0, 0, 9, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 16},                                      /* too many */
        {{CG, 2, 0, 1, 0, 0, 8, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 16},                                       /* lengths that are not right */
        {{CG, 2, 0, 1, 0, 0, 10, RAW, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 17},                                   /* */
        {{CG, 2, 0, 1, 0, 0, 14, CG, 2, 0, 1, 0, 0, 9, RAW, 1, 2, 3, 4, 5, 6, 7, 8}, 23},                /* groups in a group */
    };
    for (size_t b = 0; b < sizeof bodies / sizeof bodies[0]; b++) try_decode(base, 4, bodies[b].bytes, bodies[b].nbytes, 1);
    static const uint8_t good[] = {LR, 2, 0, 1, 126, 0, 0, 0, 0, 0, 0, 0, 0, RAW, 1, 2, 3, 4, 5, 6, 7, 8};
    static const uint8_t right[] = {CG, 2, 0, 1, 0, 0, 9, RAW, 1, 2, 3, 4, 5, 6, 7, 8};
    dz_error err = {0};
    uint8_t back[8];
    assert_int_equal(dz_lossless_decode(back, base, DZ_BF16, 4, good, sizeof good, &err), DZ_OK);
    assert_int_equal(dz_lossless_decode(back, NULL, DZ_BF16, 4, right, sizeof right, &err), DZ_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matrices_that_moved_one_way_are_predicted),
        cmocka_unit_test(test_rows_beyond_the_sums_of_floats_come_back),
        cmocka_unit_test(test_others_are_not_predicted),
        cmocka_unit_test(test_columns_that_differ_are_in_groups),
        cmocka_unit_test(test_uneven_signs_are_in_the_keys),
        cmocka_unit_test(test_damaged_bodies_do_no_harm),
        cmocka_unit_test(test_wrong_bodies_are_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

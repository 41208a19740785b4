/* Predictions of low rank in front of rotated tiles: what they take off, what they cost, the same numbers everywhere. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "codec/directions.h"
#include "codec/prediction.h"
#include "numeric/kernels.h"

/* Close to normal: a sum of twelve even ones. */
static double draw(uint64_t key, size_t i) {
    double sum = 0;
    for (size_t k = 0; k < 12; k++) sum += (double)dz_u64_at(key, 12 * i + k) / 18446744073709551616.0;
    return sum - 6;
}

/* Rows of a tile that begins in column `first`: `share` of their energy, about 1 an element, in `rank` directions. */
static float *rows_along(size_t count, size_t columns, size_t first, unsigned rank, double share) {
    float *x = malloc(count * sizeof *x);
    for (size_t i = 0; i < count; i++) {
        size_t row = (first + i) / columns, column = (first + i) % columns;
        double along = 0;
        for (unsigned k = 0; k < rank; k++) along += draw(100 + k, row) * draw(200 + k, column);
        x[i] = (float)(sqrt(1 - share) * draw(1, i) + (rank ? sqrt(share / rank) * along : 0));
    }
    return x;
}

static double energy(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sum;
}

/* The prediction, if there is one, through its bytes; `noise` over the energy; what it leaves of the energy, in *left; its bytes. */
static size_t there_and_back(float *x, size_t count, size_t columns, size_t first, double noise, double *left, unsigned *rank) {
    dz_error err = {0};
    dz_lowrank found, read;
    dz_buf body = {0};
    double before = energy(x, count);
    assert_int_equal(dz_prediction_find(&found, x, count, columns, first, noise * before / (double)count, &err), DZ_OK);
    *rank = found.rank;
    *left = 1;
    if (found.rank == 0) return 0;
    assert_int_equal(dz_lowrank_put(&body, &found, &err), DZ_OK);
    dz_view v = {.data = body.data, .len = body.len};
    assert_int_equal(dz_lowrank_get(&read, DZ_F32, count, &v, &err), DZ_OK);
    assert_true(v.pos == body.len && read.columns == columns && read.first == first);
    float *y = calloc(count, sizeof *y);
    for (size_t at = 0, n; at < count; at += n) { /* in pieces of any length */
        n = count - at < 1000 + at % 777 ? count - at : 1000 + at % 777;
        dz_prediction_add(y + at, at, n, &read, 1);
    }
    dz_prediction_add(x, 0, count, &found, -1);
    *left = energy(x, count) / before;
    dz_prediction_add(y, 0, count, &found, -1);
    assert_true(energy(y, count) == 0);
    size_t bytes = body.len;
    dz_buf_free(&body);
    dz_lowrank_free(&found);
    dz_lowrank_free(&read);
    free(y);
    return bytes;
}

static void test_directions_are_taken_off(void **state) {
    (void)state;
    static const struct {
        size_t count, columns, first;
        unsigned rank;
        double share;
    } of[] = {{400000, 100, 0, 2, 0.8},
              {400000, 100, 37, 2, 0.8},
              {1 << 20, 576, 575, 5, 0.9},
              {1 << 20, 2048, 1, 1, 0.6},
              {300000, 64, 0, 1, 0.5}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        double last = 0;
        for (double noise = 0.25; noise < 3; noise *= 3) {
            float *x = rows_along(of[k].count, of[k].columns, of[k].first, of[k].rank, of[k].share);
            double left;
            unsigned rank;
            size_t bytes = there_and_back(x, of[k].count, of[k].columns, of[k].first, noise, &left, &rank);
            double rounding = rank * 8 * noise / 12 / (double)of[k].columns;
            assert_true(rank >= 1 && rank <= of[k].rank);
            if (rank == of[k].rank && fabs(left - (1 - of[k].share)) > 0.05 + rounding)
                fail_msg("case %zu: %g of the energy is left", k, left);
            assert_true((double)bytes * 8 < (double)of[k].count * log2((1 + 1.11 / noise) / (1 + 1.11 * left / noise)) / 2); /* it pays */
            assert_true(left > last - 0.02); /* more noise is worth fewer bytes */
            last = left;
            free(x);
        }
    }
}

static void test_none_where_none_is_worth_it(void **state) {
    (void)state;
    static const struct {
        size_t count, columns, first;
        unsigned rank;
        double share, noise;
    } of[] = {{400000, 100, 0, 0, 0, 1},  {400000, 100, 0, 40, 0.5, 1}, {400000, 63, 0, 1, 0.9, 1},    {400000, 40000, 0, 1, 0.9, 1},
              {20000, 100, 0, 1, 0.9, 1}, {400000, 100, 0, 1, 0.9, 0},  {400000, 100, 0, 1, 0.9, 300}, {0, 100, 0, 0, 0, 1}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        float *x = rows_along(of[k].count, of[k].columns, of[k].first, of[k].rank, of[k].share);
        double left;
        unsigned rank;
        there_and_back(x, of[k].count, of[k].columns, of[k].first, of[k].noise, &left, &rank);
        if (rank) fail_msg("case %zu has a prediction of rank %u", k, rank);
        free(x);
    }
}

/* Of a table of which a row in twenty moved, a few in common directions, nothing is known. */
static void test_rows_that_moved_alone_agree_in_nothing(void **state) {
    (void)state;
    enum { COLUMNS = 128, ROWS = 64 };
    float scratch[2 * COLUMNS];
    for (size_t moved = 0; moved <= ROWS; moved += 4) {
        for (int common = 0; common < 2; common++) {
            float *x = rows_along(ROWS * COLUMNS, COLUMNS, 0, common ? 1 : 0, common ? 0.7 : 0);
            for (size_t r = moved; r < ROWS; r++) memset(x + r * COLUMNS, 0, COLUMNS * sizeof *x);
            if (dz_prediction_likely(x, ROWS, COLUMNS, scratch) != (common && moved >= 8))
                fail_msg("%zu rows moved, %s", moved, common ? "in a common direction" : "alone");
            free(x);
        }
    }
}

static void test_sizes_of_any_order(void **state) {
    (void)state;
    for (int e = -120; e <= 120; e += 20) {
        float *x = rows_along(300000, 128, 5, 2, 0.8);
        double left;
        unsigned rank;
        for (size_t i = 0; i < 300000; i++) x[i] = ldexpf(x[i], e);
        there_and_back(x, 300000, 128, 5, 1, &left, &rank);
        for (size_t i = 0; i < 300000; i++) assert_true(isfinite(x[i]));
        if (abs(e) <= 40 && !(rank == 2 && left < 0.35)) fail_msg("times 2^%d: rank %u, %g of the energy is left", e, rank, left);
        free(x);
    }
}

static void test_a_forecast_is_near(void **state) {
    (void)state;
    dz_error err = {0};
    enum { COLUMNS = 256, ROWS = 4096, SOME = 400 };
    float *x = rows_along(ROWS * COLUMNS, COLUMNS, 0, 3, 0.85), *some = malloc(SOME * COLUMNS * sizeof *some);
    double left, expected, bits;
    unsigned rank;
    for (size_t r = 0; r < ROWS; r++) dz_row_to_one(x + r * COLUMNS, COLUMNS); /* as their factors make them, nearly */
    for (size_t r = 0; r < SOME; r++) memcpy(some + r * COLUMNS, x + r * (ROWS / SOME) * COLUMNS, COLUMNS * sizeof *some);
    assert_int_equal(dz_prediction_expect(some, SOME, COLUMNS, ROWS * COLUMNS, 1, &expected, &bits, &err), DZ_OK);
    size_t bytes = there_and_back(x, ROWS * COLUMNS, COLUMNS, 0, 1, &left, &rank);
    if (fabs(expected - left) > 0.04) fail_msg("%g of the energy is left, %g expected", left, expected);
    assert_true(fabs(bits * ROWS * COLUMNS / 8 / (double)bytes - 1) < 0.25);
    free(some);
    some = rows_along(SOME * COLUMNS, COLUMNS, 0, 0, 0);
    assert_int_equal(dz_prediction_expect(some, SOME, COLUMNS, ROWS * COLUMNS, 1, &expected, &bits, &err), DZ_OK);
    assert_true(expected == 1 && bits == 0);
    free(some);
    free(x);
}

static void test_numbers_are_always_the_same(void **state) {
    (void)state;
    dz_error err = {0};
    dz_lowrank found;
    dz_buf body = {0};
    float *x = rows_along(500000, 192, 100, 3, 0.8);
    assert_int_equal(dz_prediction_find(&found, x, 500000, 192, 100, 0.7, &err), DZ_OK);
    assert_int_equal(dz_lowrank_put(&body, &found, &err), DZ_OK);
    dz_prediction_add(x, 0, 500000, &found, -1);
    uint64_t hash = dz_hash64(body.data, body.len, dz_hash64(x, 500000 * sizeof *x, 0));
    if (hash != 0xd284e0fdf449de9d) fail_msg("rank %u, %zu bytes: 0x%016llx", found.rank, body.len, (unsigned long long)hash);
    dz_buf_free(&body);
    dz_lowrank_free(&found);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_directions_are_taken_off),
                                       cmocka_unit_test(test_none_where_none_is_worth_it),
                                       cmocka_unit_test(test_rows_that_moved_alone_agree_in_nothing),
                                       cmocka_unit_test(test_sizes_of_any_order),
                                       cmocka_unit_test(test_a_forecast_is_near),
                                       cmocka_unit_test(test_numbers_are_always_the_same)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

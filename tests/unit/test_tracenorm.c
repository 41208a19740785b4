/* Promises of numeric/tracenorm.h. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "numeric/tracenorm.h"

typedef struct matrix {
    dz_sparse a;
    uint64_t *row_start;
    uint32_t *col;
    uint8_t *level;
    float value[256];
} matrix;

static double uniform(uint64_t key, uint64_t counter) { return ((double)(dz_u64_at(key, counter) >> 11) + 0.5) * 0x1p-53; }

static double gauss(uint64_t key, uint64_t counter) {
    return sqrt(-2 * log(uniform(key, 2 * counter))) * cos(6.283185307179586 * uniform(key, 2 * counter + 1));
}

static void matrix_init(matrix *x, uint64_t rows, uint64_t cols) {
    memset(x, 0, sizeof *x);
    x->row_start = test_calloc(rows + 1, sizeof *x->row_start);
    x->col = test_calloc(rows * cols, sizeof *x->col);
    x->level = test_calloc(rows * cols, sizeof *x->level);
    x->a = (dz_sparse){.rows = rows, .cols = cols, .row_start = x->row_start, .col = x->col, .level = x->level, .value = x->value};
}

static void matrix_free(matrix *x) {
    test_free(x->row_start);
    test_free(x->col);
    test_free(x->level);
}

/* Keeps a share `density` of a Gaussian matrix plus `spike` times a rank-1 one, heavy in the tails, on a 4-bit grid over [-4, 4]. */
static void matrix_random(matrix *x, uint64_t rows, uint64_t cols, double density, double spike, uint64_t key) {
    matrix_init(x, rows, cols);
    for (int i = 0; i < 16; i++) x->value[i] = (float)((i - 7.5) * (8.0 / 15) / density * 1e-3);
    uint64_t n = 0;
    for (uint64_t r = 0; r < rows; r++) {
        x->row_start[r] = n;
        for (uint64_t c = 0; c < cols; c++) {
            if (uniform(key, r * cols + c) >= density) continue;
            double g = gauss(key + 1, r * cols + c), v = g * (0.7 + 0.1 * g * g) + spike * gauss(key + 2, r) * gauss(key + 3, c);
            x->col[n] = (uint32_t)c;
            x->level[n++] = (uint8_t)lround(fmin(fmax(v * 15 / 8 + 7.5, 0), 15));
        }
    }
    x->row_start[rows] = n;
}

static double exact(const matrix *x) {
    dz_error err = {0};
    double norm = -1;
    assert_int_equal(dz_tracenorm_exact(&x->a, &norm, &err), DZ_OK);
    return norm;
}

static double slq(const matrix *x, int probes, uint64_t key, double *variance) {
    dz_error err = {0};
    double norm = -1;
    dz_slq_options opt = dz_slq_choose(1000000, key);
    opt.probes = probes;
    assert_int_equal(dz_tracenorm_slq(&x->a, &opt, &norm, variance, &err), DZ_OK);
    return norm;
}

static void test_slq_agrees_with_exact_within_its_own_error(void **state) {
    (void)state;
    static const struct {
        uint64_t rows, cols;
        double density, spike;
    } cases[] = {
        {256, 256, 0.03, 0}, {256, 256, 0.1, 0.5}, {384, 384, 0.01, 0}, {200, 600, 0.03, 0.3}, {600, 200, 0.03, 0.3},
        {300, 300, 1, 0.3},  {64, 64, 0.2, 0},     {20, 700, 0.05, 0},  {700, 20, 0.05, 0},    {300, 280, 0.005, 0},
    };
    double square = 0, share = 0;
    int count = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        matrix x;
        matrix_random(&x, cases[i].rows, cases[i].cols, cases[i].density, cases[i].spike, 100 * i);
        double truth = exact(&x);
        for (int probes = 1; probes <= 8; probes += 7) {
            for (uint64_t key = 0; key < 20; key++) {
                double variance, error = slq(&x, probes, key, &variance) - truth;
                assert_true(fabs(error) < 5 * sqrt(variance) + 0.015 * truth); /* the share: bias when rows are nearly empty */
                assert_true(fabs(error) < 0.12 * truth);
                square += error * error / variance;
                share += sqrt(variance) / truth;
                count++;
            }
        }
        matrix_free(&x);
    }
    assert_true(square / count > 0.2 && square / count < 1.6); /* neither boasting nor timid */
    assert_true(share / count < 0.02);
}

static void test_slq_total_over_many_matrices_is_within_a_fifth_of_a_percent(void **state) {
    (void)state;
    const uint64_t side = 256, count = 50;
    dz_slq_options opt = dz_slq_choose(count * side, 7);
    double total = 0, truth = 0, variance = 0;
    for (uint64_t i = 0; i < count; i++) {
        matrix x;
        dz_error err = {0};
        double norm, v;
        matrix_random(&x, side, side, 0.03 + 0.001 * (double)i, 0.2, 1000 + 10 * i);
        opt.key = i;
        assert_int_equal(dz_tracenorm_slq(&x.a, &opt, &norm, &v, &err), DZ_OK);
        total += norm;
        variance += v;
        truth += exact(&x);
        matrix_free(&x);
    }
    assert_true(fabs(total / truth - 1) < 0.002);
    assert_true(sqrt(variance) / truth < 0.0015);
}

static double small(const matrix *x) {
    dz_error err = {0};
    double norm = -1;
    assert_int_equal(dz_tracenorm_small(&x->a, &norm, &err), DZ_OK);
    return norm;
}

static void test_small_matrices_are_exact(void **state) {
    (void)state;
    static const struct {
        uint64_t rows, cols;
        double density, spike;
    } cases[] = {
        {64, 48, 0.03, 0}, {48, 64, 0.03, 0}, {255, 255, 0.03, 0.5}, {255, 1000, 0.005, 0}, {1000, 200, 0.03, 3}, {17, 16, 1, 0},
        {2, 5, 1, 0},      {1, 200, 0.3, 0},  {200, 1, 0.3, 0},      {1, 1, 1, 0},          {90, 90, 0.001, 0},   {40, 3000, 0.5, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        matrix x;
        matrix_random(&x, cases[i].rows, cases[i].cols, cases[i].density, cases[i].spike, 7000 + 100 * i);
        double truth = exact(&x);
        assert_true(fabs(small(&x) - truth) <= 1e-6 * truth);
        matrix_free(&x);
    }
    matrix large;
    double norm;
    matrix_random(&large, 256, 256, 0.03, 0, 7);
    assert_int_equal(dz_tracenorm_small(&large.a, &norm, &(dz_error){0}), DZ_EUSAGE);
    matrix_free(&large);
    for (uint64_t seed = 0; seed < 12; seed++) {
        matrix x;
        matrix_random(&x, 64, 48, 0.03, 0, 8000 + 10 * seed);
        assert_true(fabs(small(&x) / exact(&x) - 1) < 1e-6);
        matrix_free(&x);
    }
}

static void test_one_probe_is_unbiased(void **state) {
    (void)state;
    matrix x;
    matrix_random(&x, 192, 192, 0.1, 0.5, 5);
    double truth = exact(&x), sum = 0;
    for (uint64_t key = 0; key < 1000; key++) sum += slq(&x, 1, key, NULL);
    assert_true(fabs(sum / 1000 / truth - 1) < 0.003);
    matrix_free(&x);
}

static void test_rank_one_is_exact(void **state) {
    (void)state;
    matrix x;
    matrix_init(&x, 40, 96);
    for (int i = 0; i < 256; i++) x.value[i] = (float)i;
    uint64_t n = 0;
    double left = 0, right = 0;
    for (uint64_t r = 0; r < 40; r++) {
        x.row_start[r] = n;
        uint64_t u = r % 8; /* some rows are empty */
        left += (double)(u * u);
        for (uint64_t c = 0; c < 96 && u; c++) {
            x.col[n] = (uint32_t)c;
            x.level[n++] = (uint8_t)(u * (c % 30));
        }
    }
    x.row_start[40] = n;
    for (uint64_t c = 0; c < 96; c++) right += (double)((c % 30) * (c % 30));
    double truth = sqrt(left * right);
    assert_true(fabs(exact(&x) / truth - 1) < 1e-12 && fabs(small(&x) / truth - 1) < 1e-9);
    for (uint64_t key = 0; key < 20; key++) {
        double variance, norm = slq(&x, key % 2 ? 1 : 4, key, &variance);
        assert_true(fabs(norm / truth - 1) < 1e-5);
        assert_true(variance < 1e-6 * truth * truth);
    }
    matrix_free(&x);
}

static void test_rank_one_is_exact_where_no_probe_can_see_it(void **state) {
    (void)state;
    matrix x; /* one row (1, 1): half of all sign vectors give 0 */
    matrix_init(&x, 2, 2);
    x.value[3] = 2.5F;
    const uint64_t starts[3] = {0, 2, 4};
    const uint32_t cols[4] = {0, 1, 0, 1};
    memcpy(x.row_start, starts, sizeof starts);
    memcpy(x.col, cols, sizeof cols);
    memset(x.level, 3, 4);
    for (uint64_t key = 0; key < 40; key++) assert_true(fabs(slq(&x, 1, key, NULL) - 5) < 1e-5);
    matrix_free(&x);
}

static void test_zero_and_empty_matrices_have_norm_zero(void **state) {
    (void)state;
    static const uint64_t shapes[][2] = {{0, 0}, {0, 5}, {5, 0}, {7, 3}};
    double variance = -1;
    matrix x;
    for (size_t i = 0; i < 4; i++) {
        matrix_init(&x, shapes[i][0], shapes[i][1]);
        assert_true(slq(&x, 1, 1, &variance) == 0 && variance == 0 && exact(&x) == 0 && small(&x) == 0);
        matrix_free(&x);
    }
    matrix_random(&x, 30, 20, 0.5, 0, 3);
    memset(x.value, 0, sizeof x.value);
    assert_true(slq(&x, 4, 1, &variance) == 0 && variance == 0 && exact(&x) == 0 && small(&x) == 0);
    matrix_free(&x);
}

static void test_single_row_and_column_and_entry_are_exact(void **state) {
    (void)state;
    static const uint64_t shapes[][2] = {{1, 200}, {200, 1}, {1, 1}};
    for (size_t i = 0; i < 3; i++) {
        matrix x;
        matrix_random(&x, shapes[i][0], shapes[i][1], i == 2 ? 1 : 0.3, 0, 10 + i);
        double truth = exact(&x);
        for (uint64_t key = 0; key < 8; key++) assert_true(fabs(slq(&x, 1, key, NULL) / truth - 1) < 1e-6);
        matrix_free(&x);
    }
}

static void test_equal_singular_values_are_exact(void **state) {
    (void)state;
    matrix x; /* a scaled permutation in a larger frame of zero rows and columns */
    matrix_init(&x, 60, 50);
    x.value[9] = -0.25F;
    uint64_t n = 0;
    for (uint64_t r = 0; r < 60; r++) {
        x.row_start[r] = n;
        if (r % 2) continue;
        x.col[n] = (uint32_t)(r * 7 % 30);
        x.level[n++] = 9;
        if (r >= 40) n--;
    }
    x.row_start[60] = n;
    for (uint64_t key = 0; key < 8; key++) assert_true(fabs(slq(&x, key % 2 ? 1 : 4, key, NULL) / exact(&x) - 1) < 1e-6);
    assert_true(fabs(small(&x) / exact(&x) - 1) < 1e-9);
    matrix_free(&x);
}

static void test_scale_goes_through_exactly(void **state) {
    (void)state;
    matrix x;
    double variance[2], norm[2];
    matrix_random(&x, 100, 90, 0.1, 0, 77);
    double before = small(&x);
    norm[0] = slq(&x, 4, 5, &variance[0]);
    for (int i = 0; i < 256; i++) x.value[i] = ldexpf(x.value[i], -80); /* squares would vanish in float */
    norm[1] = slq(&x, 4, 5, &variance[1]);
    assert_true(norm[1] == ldexp(norm[0], -80) && variance[1] == ldexp(variance[0], -160));
    assert_true(small(&x) == ldexp(before, -80));
    matrix_free(&x);
}

static void test_slq_is_a_function_of_its_key(void **state) {
    (void)state;
    matrix x;
    matrix_random(&x, 150, 120, 0.1, 0, 8);
    for (int probes = 1; probes <= 8; probes += 7) {
        double first = slq(&x, probes, 42, NULL);
        assert_true(first == slq(&x, probes, 42, NULL));
        assert_true(first != slq(&x, probes, 43, NULL));
    }
    matrix_free(&x);
}

/* Integers and IEEE operations only, so these are the bits on every machine and with every compiler. */
static void test_slq_gives_the_same_bits_everywhere(void **state) {
    (void)state;
    matrix x;
    matrix_init(&x, 90, 70);
    for (int i = 0; i < 16; i++) x.value[i] = (float)(2 * i - 15) / 64;
    uint64_t n = 0;
    for (uint64_t r = 0; r < 90; r++) {
        x.row_start[r] = n;
        for (uint64_t c = 0; c < 70; c++) {
            uint64_t draw = dz_u64_at(1, r * 70 + c);
            if (draw % 8) continue;
            x.col[n] = (uint32_t)c;
            x.level[n++] = (uint8_t)(draw >> 60);
        }
    }
    x.row_start[90] = n;
    static const double want[2] = {0x1.d5dd8da1918dfp+4, 0x1.d975b8103178p+4};
    for (int i = 0; i < 2; i++) {
        dz_error err = {0};
        double norm;
        dz_slq_options opt = {.steps = 8, .probes = i ? 4 : 1, .key = 1};
        assert_int_equal(dz_tracenorm_slq(&x.a, &opt, &norm, NULL, &err), DZ_OK);
        assert_true(norm == want[i]);
    }
    assert_true(small(&x) == 0x1.d4b7b6c69125dp+4);
    matrix_free(&x);
}

static void test_inconsistent_input_is_refused(void **state) {
    (void)state;
    matrix x;
    double norm;
    matrix_random(&x, 20, 20, 0.5, 0, 9);
    dz_slq_options opt = dz_slq_choose(20, 1);
    dz_error err = {0};
    x.col[3] = 20;
    assert_int_equal(dz_tracenorm_slq(&x.a, &opt, &norm, NULL, &err), DZ_EFAIL);
    assert_non_null(strstr(err.text, "column 20 of 20"));
    assert_int_equal(dz_tracenorm_small(&x.a, &norm, &(dz_error){0}), DZ_EFAIL);
    x.col[3] = 2;
    uint64_t keep = x.row_start[7];
    x.row_start[7] = x.row_start[20] + 1;
    err = (dz_error){0};
    assert_int_equal(dz_tracenorm_exact(&x.a, &norm, &err), DZ_EFAIL);
    x.row_start[7] = keep;
    x.value[x.level[0]] = NAN;
    err = (dz_error){0};
    assert_int_equal(dz_tracenorm_slq(&x.a, &opt, &norm, NULL, &err), DZ_EFAIL);
    x.value[x.level[0]] = 1;
    x.value[200] = INFINITY; /* no entry has this level */
    err = (dz_error){0};
    assert_int_equal(dz_tracenorm_slq(&x.a, &opt, &norm, NULL, &err), DZ_OK);
    opt.steps = 2;
    assert_int_equal(dz_tracenorm_slq(&x.a, &opt, &norm, NULL, &err), DZ_EUSAGE);
    matrix_free(&x);
}

static void test_exact_refuses_what_is_too_large(void **state) {
    (void)state;
    const uint64_t rows = 20000;
    uint64_t *row_start = test_calloc(rows + 1, sizeof *row_start);
    const uint32_t col[1] = {0};
    const uint8_t level[1] = {0};
    const float value[256] = {1};
    row_start[rows] = 1;
    dz_sparse a = {.rows = rows, .cols = rows, .row_start = row_start, .col = col, .level = level, .value = value};
    dz_error err = {0};
    double norm;
    assert_int_equal(dz_tracenorm_exact(&a, &norm, &err), DZ_EFAIL);
    test_free(row_start);
}

static void test_chosen_probes_follow_the_sizes(void **state) {
    (void)state;
    assert_int_equal(dz_slq_choose(72 * 768 + 36 * 3072, 1).probes, 1); /* a ViT-B/32 */
    assert_int_equal(dz_slq_choose(224 * 4096, 1).probes, 1);
    assert_true(dz_slq_choose(20 * 256, 1).probes > 16);
    assert_int_equal(dz_slq_choose(0, 1).probes, DZ_SLQ_MAX_PROBES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slq_agrees_with_exact_within_its_own_error),
        cmocka_unit_test(test_slq_total_over_many_matrices_is_within_a_fifth_of_a_percent),
        cmocka_unit_test(test_small_matrices_are_exact),
        cmocka_unit_test(test_one_probe_is_unbiased),
        cmocka_unit_test(test_rank_one_is_exact),
        cmocka_unit_test(test_rank_one_is_exact_where_no_probe_can_see_it),
        cmocka_unit_test(test_zero_and_empty_matrices_have_norm_zero),
        cmocka_unit_test(test_single_row_and_column_and_entry_are_exact),
        cmocka_unit_test(test_equal_singular_values_are_exact),
        cmocka_unit_test(test_scale_goes_through_exactly),
        cmocka_unit_test(test_slq_is_a_function_of_its_key),
        cmocka_unit_test(test_slq_gives_the_same_bits_everywhere),
        cmocka_unit_test(test_inconsistent_input_is_refused),
        cmocka_unit_test(test_exact_refuses_what_is_too_large),
        cmocka_unit_test(test_chosen_probes_follow_the_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

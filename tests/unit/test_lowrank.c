/* numeric/lowrank.h against exact low rank and against the eigenvalues of d d^T. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "numeric/eigen.h"
#include "numeric/lowrank.h"

static double uniform(uint64_t key, uint64_t i) { return (double)(dz_u64_at(key, i) >> 11) / 4503599627370496.0 - 1; }

/* A sum of `terms` outer products whose sizes fall by `fall`. */
static float *matrix(size_t rows, size_t cols, size_t terms, double fall) {
    float *d = calloc(rows * cols, sizeof *d);
    double size = 1;
    for (size_t t = 0; t < terms; t++, size *= fall) {
        for (size_t i = 0; i < rows; i++) {
            for (size_t k = 0; k < cols; k++) d[i * cols + k] += (float)(size * uniform(2 * t, i) * uniform(2 * t + 1, k));
        }
    }
    return d;
}

/* |d - left right|^2 */
static double residual(const float *d, const float *left, const float *right, size_t rows, size_t cols, size_t rank) {
    double total = 0;
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k < cols; k++) {
            double x = (double)d[i * cols + k];
            for (size_t r = 0; r < rank; r++) x -= (double)left[i * rank + r] * (double)right[r * cols + k];
            total += x * x;
        }
    }
    return total;
}

static int falling(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void check_near_best(size_t rows, size_t cols, size_t terms, double fall, size_t rank, double slack) {
    dz_error err = {0};
    float *d = matrix(rows, cols, terms, fall), *left = calloc(rows * rank, sizeof *left), *right = calloc(rank * cols, sizeof *right);
    double energy, kept, *gram = calloc(rows * rows, sizeof *gram), *values = calloc(rows, sizeof *values),
                         *scratch = calloc(3 * rows, sizeof *scratch), best = 0;
    assert_int_equal(dz_lowrank_approximate(d, rows, cols, rank, 7, left, right, &energy, &kept, &err), DZ_OK);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < rows; j++) {
            for (size_t k = 0; k < cols; k++) gram[i * rows + j] += (double)d[i * cols + k] * (double)d[j * cols + k];
        }
    }
    dz_symmetric_eigenvalues(gram, rows, values, scratch);
    qsort(values, rows, sizeof *values, falling);
    for (size_t r = 0; r < rank && r < rows; r++) best += values[r];
    assert_true(kept <= best * (1 + 1e-9) && kept >= best * (1 - slack));
    assert_true(fabs(residual(d, left, right, rows, cols, rank) - (energy - kept)) <= 1e-5 * energy); /* the product has what is said */
    free(d);
    free(left);
    free(right);
    free(gram);
    free(values);
    free(scratch);
}

static void test_low_rank_is_found_exactly(void **state) {
    (void)state;
    check_near_best(60, 90, 4, 0.5, 4, 1e-9);
    check_near_best(90, 60, 4, 0.5, 8, 1e-9);  /* of a higher rank than there is */
    check_near_best(5, 40, 20, 0.9, 16, 1e-9); /* than the matrix can have */
    check_near_best(1, 30, 1, 1, 3, 1e-9);
}

static void test_the_energy_is_near_the_best(void **state) {
    (void)state;
    check_near_best(80, 120, 80, 0.9, 8, 1e-4);
    check_near_best(80, 120, 80, 1.0, 8, 0.02); /* a flat spectrum: the hardest */
    check_near_best(120, 80, 80, 0.98, 30, 0.005);
}

static void test_nothing_gives_nothing(void **state) {
    (void)state;
    dz_error err = {0};
    float d[12] = {0}, left[8], right[6];
    double energy, kept;
    assert_int_equal(dz_lowrank_approximate(d, 4, 3, 2, 1, left, right, &energy, &kept, &err), DZ_OK);
    assert_true(energy == 0 && kept == 0);
    for (int i = 0; i < 8; i++) assert_true(left[i] == 0);
    for (int i = 0; i < 6; i++) assert_true(right[i] == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_low_rank_is_found_exactly), cmocka_unit_test(test_the_energy_is_near_the_best),
                                       cmocka_unit_test(test_nothing_gives_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Allocation and quotas: the paper's rules, exact totals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "numeric/allocate.h"

static void test_log2_is_within_its_last_place(void **state) {
    (void)state;
    for (uint64_t x = 1; x < ((uint64_t)1 << 40); x += x / 3 + 1) {
        double error = log2((double)x) * 65536 - dz_log2_fixed(x);
        assert_true(error > -0.01 && error < 1.1);
    }
}

static void test_std_is_that_of_the_decoded_values(void **state) {
    (void)state;
    uint64_t h[16] = {0};
    dz_grid_levels grid = dz_grid_levels_over(-0.01f, 0.02f, 4);
    double n = 0, sum = 0, squares = 0;
    for (unsigned g = 0; g < 16; g++) {
        h[g] = dz_u64_at(1, g) % 100000;
        double v = (double)grid.lo + g * (double)grid.step;
        n += (double)h[g];
        sum += v * (double)h[g];
        squares += v * v * (double)h[g];
    }
    double want = sqrt(squares / n - sum / n * (sum / n));
    assert_true(fabs(dz_quantised_std(&grid, h) / want - 1) < 1e-6);
}

static void test_thirds_follow_the_cumulative_count_and_keep_the_mean(void **state) {
    (void)state;
    dz_alloc_tensor t[6] = {{.std = 3, .count = 100}, {.std = 1, .count = 100}, {.std = 2, .count = 100},
                            {.std = 1, .count = 100}, {.std = 5, .count = 100}, {.std = 4, .count = 100}};
    static const double want[6] = {0.97, 0.98, 0.97, 0.98, 0.96, 0.96};
    uint32_t order[6];
    dz_allocate_thirds(t, 6, 0.97, 0.01, order);
    for (int i = 0; i < 6; i++) assert_true(fabs(t[i].sparsity - want[i]) < 1e-12);
    /* One tensor larger than everything: it is in the high group wherever it is, and the mean still holds. */
    dz_alloc_tensor big[3] = {{.std = 1, .count = 1000}, {.std = 2, .count = 10}, {.std = 0.5, .count = 10}};
    dz_allocate_thirds(big, 3, 0.97, 0.01, order);
    assert_true(fabs(big[2].sparsity - 0.98) < 1e-12 && big[0].sparsity < 0.97);
    assert_true(fabs((10 * big[2].sparsity + 1010 * big[0].sparsity) / 1020 - 0.97) < 1e-12);
    assert_true(big[1].sparsity == big[0].sparsity);
}

static void test_optimal_keeps_the_size_and_favours_spread(void **state) {
    (void)state;
    dz_alloc_tensor t[3] = {{.std = 1, .count = 1000, .bits_per_kept = 2.5},
                            {.std = 2, .count = 1000, .bits_per_kept = 2.5},
                            {.std = 50, .count = 20, .bits_per_kept = 2}};
    dz_allocate_optimal(t, 3, 0.9);
    double bits = 0;
    for (int i = 0; i < 3; i++) bits += (1 - t[i].sparsity) * (double)t[i].count * t[i].bits_per_kept;
    assert_true(fabs(bits - 0.1 * (2000 * 2.5 + 20 * 2)) < 1e-9);
    assert_true(fabs((1 - t[1].sparsity) / (1 - t[0].sparsity) - 2) < 1e-9);
    assert_true(t[2].sparsity == 0);
}

static void test_quotas_round_half_to_even_and_drop_small_groups(void **state) {
    (void)state;
    dz_grid_levels grid = dz_grid_levels_over(-0.031f, 0.02f, 2);
    uint64_t members[4] = {16, 50, 100, 17}, quota[4];
    dz_quotas(quota, members, &grid, 0.97, 0);
    assert_int_equal(quota[0], 0); /* 16 * 0.97 = 15.52 -> 16 dropped */
    assert_int_equal(quota[1], 50 - 48);
    assert_int_equal(quota[2], 3);
    assert_int_equal(quota[3], 17 - 16);
    uint64_t total = dz_quotas(quota, members, &grid, 0.97, 1);
    assert_int_equal(total, 5); /* 183 * 0.03 = 5.49 */
}

static void test_exact_zeros_count_as_dropped(void **state) {
    (void)state;
    dz_grid_levels grid = {.lo = -1, .step = 1, .bits = 2}; /* level 1 decodes to 0 */
    uint64_t members[4] = {100, 800, 100, 0}, quota[4];
    uint64_t total = dz_quotas(quota, members, &grid, 0.9, 0); /* s' = (0.9 - 0.8) / 0.2 = 0.5 */
    assert_int_equal(total, 100);
    assert_int_equal(quota[1], 0);
    total = dz_quotas(quota, members, &grid, 0.5, 0); /* more zeros than are to be dropped: all others stay */
    assert_int_equal(total, 200);
}

static void test_shares_of_a_quota_add_up_however_it_is_cut(void **state) {
    (void)state;
    for (uint64_t trial = 0; trial < 2000; trial++) {
        uint64_t members = dz_u64_at(1, trial) % 1000000, quota = members ? dz_u64_at(2, trial) % (members + 1) : 0, at = 0, sum = 0;
        for (uint64_t i = 0; at < members; i++) {
            uint64_t here = dz_u64_at(trial, i) % (members - at + 1), share = dz_quota_share(quota, members, at, here);
            assert_true(share <= here);
            sum += share;
            at += here;
        }
        assert_int_equal(sum, quota);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log2_is_within_its_last_place),
        cmocka_unit_test(test_std_is_that_of_the_decoded_values),
        cmocka_unit_test(test_thirds_follow_the_cumulative_count_and_keep_the_mean),
        cmocka_unit_test(test_optimal_keeps_the_size_and_favours_spread),
        cmocka_unit_test(test_quotas_round_half_to_even_and_drop_small_groups),
        cmocka_unit_test(test_exact_zeros_count_as_dropped),
        cmocka_unit_test(test_shares_of_a_quota_add_up_however_it_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

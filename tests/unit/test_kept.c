/* The kept set: exact quotas, exact round trip, every kind of tile. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "codec/golomb.h"
#include "codec/sparse_levels.h"

typedef struct tile {
    uint8_t *levels;
    size_t count;
    unsigned bits;
    uint64_t members[DZ_MAX_LEVELS], quota[DZ_MAX_LEVELS], key;
} tile;

/* Normal or heavy-tailed values on the min-max grid. */
static void make_tile(tile *t, size_t count, unsigned bits, double sparsity, int heavy, uint64_t key) {
    dz_error err = {0};
    float *x = malloc((count + 1) * sizeof *x), lo = 1e30f, hi = -1e30f;
    memset(t, 0, sizeof *t);
    t->levels = malloc(count + 1);
    t->count = count;
    t->bits = bits;
    for (size_t i = 0; i < count; i++) {
        double u = ((double)dz_u64_at(key, 2 * i) + 1) / 18446744073709551616.0,
               v = (double)dz_u64_at(key, 2 * i + 1) / 18446744073709551616.0;
        double n = sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
        if (heavy) n /= sqrt((double)(dz_u64_at(key ^ 77, i) % 1000 + 1) / 1000);
        x[i] = (float)n;
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    dz_grid_levels grid = dz_grid_levels_over(lo, hi, bits);
    for (size_t i = 0; i < count; i++) {
        t->levels[i] = hi > lo ? (uint8_t)rintf((x[i] - lo) / grid.step) : 0;
        t->members[t->levels[i]]++;
    }
    dz_quotas(t->quota, t->members, &grid, sparsity, 0);
    t->key = key;
    free(x);
    assert_int_equal(err.rc, DZ_OK);
}

/* The definition, by sorting: element i is kept iff fewer than quota members of its level have a smaller u. */
static void expect_selection(const tile *t, const dz_nonzeros *kept) {
    uint8_t *want = calloc(t->count + 1, 1);
    for (unsigned g = 0; g < 1U << t->bits; g++) {
        for (uint64_t k = 0; k < t->quota[g]; k++) {
            size_t best = t->count;
            for (size_t i = 0; i < t->count; i++) {
                if (t->levels[i] != g || want[i]) continue;
                if (best == t->count || dz_u32_at(t->key, (uint32_t)i) < dz_u32_at(t->key, (uint32_t)best)) best = i;
            }
            want[best] = 1;
        }
    }
    size_t n = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (!want[i]) continue;
        assert_true(n < kept->count);
        assert_int_equal(kept->index[n], i);
        assert_int_equal(kept->level[n], t->levels[i]);
        n++;
    }
    assert_int_equal(n, kept->count);
    free(want);
}

static void sieve_tile(dz_candidates *sieve, const tile *t, uint32_t last, uint32_t few, size_t piece) {
    dz_error err = {0};
    dz_candidates_begin(sieve, t->key, t->bits, last, few);
    for (size_t at = 0; at < t->count; at += piece) {
        size_t len = t->count - at < piece ? t->count - at : piece;
        assert_int_equal(dz_candidates_add(sieve, t->levels + at, len, &err), DZ_OK);
    }
    dz_candidates_end(sieve);
    assert_int_equal(sieve->count, t->count);
    assert_memory_equal(sieve->members, t->members, sizeof t->members);
}

/* As the coding pass does it, from a first sieve that is as good as none: what the selection asks for is enough. */
static void select_tile(const tile *t, dz_candidates *sieve, dz_selection *s) {
    dz_error err = {0};
    uint32_t last = 0, few = 0;
    for (int round = 0; round < 4; round++) {
        sieve_tile(sieve, t, last, few, 1000);
        if (dz_select(sieve, t->quota, s, &err) != DZ_OK) fail_msg("%s", err.text);
        if (s->enough) return;
        assert_true(s->want_last > last || s->want_few > few);
        last = s->want_last;
        few = s->want_few;
    }
    fail_msg("a sieve of %u and %u is not enough", last, few);
}

static size_t roundtrip(const tile *t, int golomb, dz_nonzeros *kept) {
    dz_error err = {0};
    dz_candidates sieve = {0};
    dz_selection s = {0};
    dz_buf body = {0};
    select_tile(t, &sieve, &s);
    if (dz_nonzeros_encode(&body, &sieve, t->quota, &s, golomb, &err) != DZ_OK ||
        dz_nonzeros_decode(kept, body.data, body.len, t->key, t->count, t->bits, &err) != DZ_OK)
        fail_msg("%s", err.text);
    assert_int_equal(kept->count, s.kept);
    uint64_t got[DZ_MAX_LEVELS] = {0};
    for (size_t i = 0; i < kept->count; i++) {
        assert_int_equal(kept->level[i], t->levels[kept->index[i]]);
        assert_true(i == 0 || kept->index[i - 1] < kept->index[i]);
        got[kept->level[i]]++;
    }
    assert_memory_equal(got, t->quota, sizeof got);
    size_t len = body.len;
    dz_selection_free(&s);
    dz_candidates_free(&sieve);
    dz_buf_free(&body);
    return len;
}

/* The body does not depend on how much the sieve has, nor on the pieces it was given, nor on its position. */
static void test_any_sieve_that_is_enough_gives_the_same_body(void **state) {
    (void)state;
    static const uint32_t lasts[] = {1U << 29, 1U << 31, UINT32_MAX}, fews[] = {20000, DZ_RARE, 100};
    for (int heavy = 0; heavy < 2; heavy++) {
        for (unsigned bits = 3; bits <= 8; bits += 5) {
            tile t;
            dz_error err = {0};
            dz_candidates sieve = {0};
            dz_selection s = {0};
            dz_buf want = {0}, got = {0};
            make_tile(&t, 100000, bits, 0.95, heavy, 11);
            select_tile(&t, &sieve, &s);
            assert_int_equal(dz_nonzeros_encode(&want, &sieve, t.quota, &s, 0, &err), DZ_OK);
            for (int i = 0; i < 3; i++) {
                sieve_tile(&sieve, &t, lasts[i], fews[i], i ? 65536 : 333);
                void *copy = malloc(dz_candidates_size(&sieve));
                const dz_candidates *stored = dz_candidates_copy(copy, &sieve);
                assert_int_equal(dz_select(stored, t.quota, &s, &err), DZ_OK);
                assert_true(s.enough);
                got.len = 0;
                assert_int_equal(dz_nonzeros_encode(&got, stored, t.quota, &s, 0, &err), DZ_OK);
                assert_int_equal(got.len, want.len);
                assert_memory_equal(got.data, want.data, want.len);
                free(copy);
            }
            free(t.levels);
            dz_candidates_free(&sieve);
            dz_selection_free(&s);
            dz_buf_free(&want);
            dz_buf_free(&got);
        }
    }
}

static void test_small_tiles_keep_the_smallest_hashes_of_each_level(void **state) {
    (void)state;
    for (unsigned bits = 1; bits <= 8; bits++) {
        for (int c = 0; c < 24; c++) {
            static const double sparsities[] = {0, 0.5, 0.9, 0.99};
            tile t;
            dz_nonzeros a = {0}, b = {0};
            make_tile(&t, (size_t)(c * 37), bits, sparsities[c % 4], c & 1, 1000 + (uint64_t)c);
            roundtrip(&t, 0, &a);
            roundtrip(&t, 1, &b);
            expect_selection(&t, &a);
            expect_selection(&t, &b);
            free(t.levels);
            dz_nonzeros_free(&a);
            dz_nonzeros_free(&b);
        }
    }
}

static void test_large_tiles_keep_every_quota(void **state) {
    (void)state;
    for (int heavy = 0; heavy < 2; heavy++) {
        static const double sparsities[] = {0, 0.9, 0.97, 0.995, 0.9999};
        for (int s = 0; s < 5; s++) {
            for (unsigned bits = 2; bits <= 8; bits += 2) {
                tile t;
                dz_nonzeros a = {0}, b = {0};
                make_tile(&t, 300000, bits, sparsities[s], heavy, 42 + (uint64_t)s);
                size_t seeded = roundtrip(&t, 0, &a), golomb = roundtrip(&t, 1, &b);
                assert_int_equal(a.count, b.count);
                assert_memory_equal(a.index, b.index, a.count * sizeof *a.index);
                assert_memory_equal(a.level, b.level, a.count);
                if (s > 0 && s < 4) assert_true(seeded < golomb);
                free(t.levels);
                dz_nonzeros_free(&a);
                dz_nonzeros_free(&b);
            }
        }
    }
}

static void test_seeded_positions_cost_little_over_the_entropy_of_the_levels(void **state) {
    (void)state;
    static const struct { double sparsity, most; } cases[] = {{0.90, 1.02}, {0.97, 1.03}, {0.99, 1.06}, {0.995, 1.10}};
    for (int c = 0; c < 4; c++) {
        tile t;
        dz_nonzeros kept = {0};
        make_tile(&t, 2304 * 768, 4, cases[c].sparsity, 0, 9);
        double bound = (double)dz_entropy_fixed(t.quota, 16) / 65536 / 8, bytes = (double)roundtrip(&t, 0, &kept);
        print_message("sparsity %.3f: %.0f bytes, %.2f %% over the entropy\n", cases[c].sparsity, bytes, 100 * (bytes / bound - 1));
        assert_true(bytes <= cases[c].most * bound);
        free(t.levels);
        dz_nonzeros_free(&kept);
    }
}

/* Of positions drawn at random: no other parameter codes them in fewer bytes, but for chance near where two are as good. */
static void test_the_rice_parameter_is_the_best(void **state) {
    (void)state;
    const size_t count = (size_t)1 << 20;
    uint32_t *positions = malloc(count * sizeof *positions);
    for (double p = 0.3; p > 0.0002; p *= 0.87) {
        dz_error err = {0};
        size_t n = 0, bytes[32] = {0};
        for (size_t i = 0; i < count; i++) {
            if ((double)(dz_u64_at(7, i) >> 11) < p * 0x1p53) positions[n++] = (uint32_t)i;
        }
        unsigned k = dz_rice_parameter(count, n);
        for (unsigned other = k ? k - 1 : 0; other <= k + 1; other++) {
            dz_buf body = {0};
            assert_int_equal(dz_rice_encode(&body, positions, n, other, &err), DZ_OK);
            bytes[other] = body.len;
            dz_buf_free(&body);
        }
        for (unsigned other = k ? k - 1 : 0; other <= k + 1; other++) assert_true((double)bytes[k] <= 1.005 * (double)bytes[other]);
    }
    free(positions);
}

/* The caller's checksum guards content; here: no crash and no write out of bounds, whatever the bytes. */
static void test_damaged_blocks_never_crash(void **state) {
    (void)state;
    tile t;
    dz_error err = {0};
    dz_candidates sieve = {0};
    dz_selection s = {0};
    make_tile(&t, 50000, 4, 0.97, 1, 5);
    select_tile(&t, &sieve, &s);
    for (int golomb = 0; golomb < 2; golomb++) {
        dz_buf body = {0};
        dz_nonzeros kept = {0};
        assert_int_equal(dz_nonzeros_encode(&body, &sieve, t.quota, &s, golomb, &err), DZ_OK);
        for (uint64_t trial = 0; trial < 4000; trial++) {
            uint8_t *copy = malloc(body.len);
            memcpy(copy, body.data, body.len);
            uint64_t r = dz_u64_at(99, trial);
            size_t len = trial % 3 == 0 ? r % body.len : body.len, at = trial % 2 ? (r >> 20) % body.len : (r >> 20) % 40;
            copy[at] ^= (uint8_t)(1 << (r >> 60 & 7));
            err = (dz_error){0};
            dz_nonzeros_decode(&kept, copy, len, t.key, t.count, t.bits, &err);
            for (size_t i = 0; err.rc == DZ_OK && i < kept.count; i++) assert_true(kept.index[i] < t.count && kept.level[i] < 16);
            free(copy);
        }
        dz_nonzeros_free(&kept);
        dz_buf_free(&body);
        err = (dz_error){0};
    }
    dz_selection_free(&s);
    dz_candidates_free(&sieve);
    free(t.levels);
}

static void test_select_and_code_speed_is_reported(void **state) {
    (void)state;
    dz_error err = {0};
    dz_candidates sieve = {0};
    dz_selection s = {0};
    tile t;
    make_tile(&t, 4 << 20, 4, 0.97, 0, 3);
    for (int r = 0; r < 3; r++) {
        dz_buf body = {0};
        dz_nonzeros kept = {0};
        double begun = dz_now();
        sieve_tile(&sieve, &t, dz_candidates_last(0.03, t.count), DZ_RARE, 65536);
        double t0 = dz_now();
        dz_select(&sieve, t.quota, &s, &err);
        assert_true(s.enough);
        double t1 = dz_now();
        dz_nonzeros_encode(&body, &sieve, t.quota, &s, 0, &err);
        double t2 = dz_now();
        dz_nonzeros_decode(&kept, body.data, body.len, t.key, t.count, t.bits, &err);
        double t3 = dz_now();
        double n = (double)t.count / 1e9;
        print_message("ns per element at 0.97: sieve %.3f, select %.3f, code %.3f, decode %.3f\n", (t0 - begun) / n, (t1 - t0) / n,
                      (t2 - t1) / n, (t3 - t2) / n);
        dz_buf_free(&body);
        dz_nonzeros_free(&kept);
    }
    dz_selection_free(&s);
    dz_candidates_free(&sieve);
    free(t.levels);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_tiles_keep_the_smallest_hashes_of_each_level),
        cmocka_unit_test(test_large_tiles_keep_every_quota),
        cmocka_unit_test(test_any_sieve_that_is_enough_gives_the_same_body),
        cmocka_unit_test(test_seeded_positions_cost_little_over_the_entropy_of_the_levels),
        cmocka_unit_test(test_the_rice_parameter_is_the_best),
        cmocka_unit_test(test_damaged_blocks_never_crash),
        cmocka_unit_test(test_select_and_code_speed_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

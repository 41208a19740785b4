/* Every variant of every kernel gives the bits of the plain definition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/dtype.h"
#include "numeric/allocate.h"
#include "numeric/kernels.h"

#define N 10007

static uint64_t draw(uint64_t key, uint64_t i) { return dz_u64_at(key, i); }

static void test_f16_and_bf16_widen_and_narrow_exactly(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) { /* every half float survives the way through float */
        float x = dz_f16_to_float((uint16_t)h), y = dz_bf16_to_float((uint16_t)h);
        if (isnan(x))
            assert_true((dz_float_to_f16(x) & 0x7c00) == 0x7c00 && (dz_float_to_f16(x) & 0x3ff));
        else
            assert_int_equal(dz_float_to_f16(x), h);
        if (isnan(y))
            assert_true(isnan(dz_bf16_to_float(dz_float_to_bf16(y))));
        else
            assert_int_equal(dz_float_to_bf16(y), h);
    }
    assert_int_equal(dz_float_to_f16(65519.996f), 0x7bff);
    assert_int_equal(dz_float_to_f16(65520.0f), 0x7c00);
    assert_int_equal(dz_float_to_f16(0x1p-25f), 0); /* half of the smallest: to even */
    assert_int_equal(dz_float_to_f16(0x1.8p-24f), 2);
    assert_int_equal(dz_float_to_bf16(dz_bits_to_float(0x3f808000)), 0x3f80);
    assert_int_equal(dz_float_to_bf16(dz_bits_to_float(0x3f818000)), 0x3f82);
}

/* The code nearest to x, by trying all: of two as near the even one. */
static uint8_t nearest_code(const float *known, int n, float x) {
    int best = 0;
    for (int c = 1; c < n; c++) {
        double mine = fabs((double)known[c] - (double)x), least = fabs((double)known[best] - (double)x);
        if (mine < least || (!(mine > least) && c % 2 == 0)) best = c;
    }
    return (uint8_t)best;
}

static void test_f8_narrows_to_the_nearest_even(void **state) {
    (void)state;
    float e4m3[127], e5m2[125];
    for (int c = 0; c < 127; c++) e4m3[c] = dz_e4m3_to_float((uint8_t)c);
    for (int c = 0; c < 125; c++) e5m2[c] = dz_f16_to_float((uint16_t)(c << 8));
    assert_true(e4m3[1] == 0x1p-9f && e4m3[8] == 0x1p-6f && e4m3[126] == 448 && e5m2[1] == 0x1p-16f && e5m2[123] == 57344 &&
                isinf(e5m2[124]));
    e5m2[124] = 65536; /* what would follow: from the middle on, infinity */
    for (int c = 0; c < 127; c++) {
        assert_int_equal(dz_float_to_e4m3(e4m3[c]), c);
        assert_int_equal(dz_float_to_e4m3(-e4m3[c]), c | 0x80);
        if (c < 124) assert_int_equal(dz_float_to_e5m2(e5m2[c]), c);
    }
    for (uint64_t i = 0; i < 20000; i++) { /* magnitudes from below the smallest to above the largest, many of them in the middle of two */
        uint64_t r = draw(7, i);
        float x = ldexpf(1 + (float)(r & (i % 2 ? 0xf : 0xfffff)) * (i % 2 ? 0x1p-4f : 0x1p-20f), (int)(r >> 40) % 36 - 19);
        assert_int_equal(dz_float_to_e4m3(x), nearest_code(e4m3, 127, x));
        assert_int_equal(dz_float_to_e5m2(x), nearest_code(e5m2, 125, x));
    }
    assert_int_equal(dz_float_to_e4m3(1e30f), 0x7e);
    assert_int_equal(dz_float_to_e4m3(-INFINITY), 0xff);
    assert_int_equal(dz_float_to_e4m3(NAN) & 0x7f, 0x7f);
    assert_int_equal(dz_float_to_e5m2(-1e30f), 0xfc);
    assert_int_equal(dz_float_to_e5m2(dz_bits_to_float(0xffa00001)), 0xff);
    assert_true(isnan(dz_e4m3_to_float(0x7f)) && isnan(dz_e4m3_to_float(0xff)) && signbit(dz_e4m3_to_float(0xff)));
}

static void test_f64_rounds_to_float_and_comes_back(void **state) {
    (void)state;
    double tricky[] = {1 + 0x1p-24, 1 + 0x3p-24, -0.0, 1e300, -INFINITY, 0x1p-149, 0x1p-150};
    float want[] = {1, 1 + 0x1p-22f, -0.0f, INFINITY, -INFINITY, 0x1p-149f, 0}, got[7];
    dz_widen(got, tricky, DZ_F64, 7);
    assert_memory_equal(got, want, sizeof want);
    uint64_t nan = 0xfff4000020000001U;
    double wide;
    memcpy(&wide, &nan, sizeof wide);
    uint32_t narrow = dz_float_bits(dz_double_to_float(wide));
    assert_int_equal(narrow, 0xffe00001U);
    wide = dz_float_to_double(dz_bits_to_float(0x7f800001U));
    memcpy(&nan, &wide, sizeof nan);
    assert_true(nan == 0x7ff8000020000000U);
}

static void test_variants_widen_and_narrow_alike(void **state) {
    (void)state;
    static const dz_dtype types[] = {DZ_F32, DZ_F16, DZ_BF16, DZ_F8_E4M3, DZ_F8_E5M2};
    uint32_t *bits = malloc(N * sizeof *bits);
    float *want = malloc(N * sizeof *want), *got = malloc(N * sizeof *got);
    for (size_t i = 0; i < N; i++) bits[i] = (uint32_t)draw(1, i) ^ (i % 3 == 0 ? 0x7c007f80U : 0);
    for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) {
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            dz_widen(want, bits, types[t], N);
            (*k)->widen(got, bits, types[t], N);
            assert_memory_equal(want, got, N * sizeof *want);
            dz_narrow(want, (const float *)bits, types[t], N);
            (*k)->narrow(got, (const float *)bits, types[t], N);
            assert_memory_equal(want, got, N * dz_dtype_size(types[t]));
        }
    }
    free(bits);
    free(want);
    free(got);
}

static void test_variants_add_changes_alike(void **state) {
    (void)state;
    static const dz_dtype types[] = {DZ_F32, DZ_F16, DZ_BF16, DZ_F8_E4M3};
    static uint32_t base[N], got[N + 1], want[N];
    static float x[N], factor[N];
    for (size_t i = 0; i < N; i++) {
        base[i] = (uint32_t)draw(21, i); /* NaN, infinity and zeros of either sign among them */
        x[i] = i % 7 ? ((float)(int16_t)draw(22, i)) * 0x1p-20f : 0;
        factor[i] = ldexpf(1 + (float)(draw(23, i) % 4) / 4, (int)(draw(24, i) % 9) - 4);
    }
    for (size_t k = 0; k < 32; k++) {
        dz_dtype from = types[k % 4], to = types[k / 4 % 4];
        const float *by = k < 16 ? NULL : factor;
        size_t in = dz_dtype_size(from), size = dz_dtype_size(to), count = N - 2 * k;
        for (size_t i = 0; i < count; i++) {
            float wide, change = by ? x[i] * by[i] : x[i];
            dz_widen(&wide, (uint8_t *)base + i * in, from, 1);
            change *= 0.3f;
            wide += change;
            dz_narrow((uint8_t *)want + i * size, &wide, to, 1);
        }
        for (const dz_kernel_table *const *v = dz_kernels_all(); *v; v++) {
            memset(got, 0x55, sizeof got);
            (*v)->add_scaled(got, to, base, from, x, by, 0.3f, count);
            assert_memory_equal(got, want, count * size);
            assert_int_equal(((uint8_t *)got)[count * size], 0x55);
        }
    }
}

static void test_variants_range_levels_and_counts_alike(void **state) {
    (void)state;
    float *task = malloc(N * sizeof *task), *base = malloc(N * sizeof *base);
    uint8_t *levels = malloc(N);
    for (size_t i = 0; i < N; i++) {
        base[i] = (float)((double)(int64_t)draw(2, i) / 9.3e18 * 0.02);
        task[i] = base[i] + (float)((double)(int64_t)draw(3, i) / 9.3e18 * (i % 101 == 0 ? 0.02 : 0.001));
    }
    float lo = INFINITY, hi = -INFINITY;
    for (size_t i = 0; i < N; i++) {
        float d = task[i] - base[i];
        lo = d < lo ? d : lo;
        hi = d > hi ? d : hi;
    }
    for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) {
        dz_measures m = DZ_MEASURES_NONE;
        (*k)->measure(&m, 0, task, DZ_F32, base, N);
        assert_true(dz_from_ordered(m.range.lo) == lo && dz_from_ordered(m.range.hi) == hi && dz_range_finite(m.range));
        for (unsigned b = 1; b <= 8; b++) {
            dz_grid_levels grid = dz_grid_levels_over(lo, hi, b);
            uint64_t want[256] = {0}, got[256] = {0};
            (*k)->levels(levels, task, DZ_F32, base, grid.lo, grid.step, (1U << b) - 1, N);
            for (size_t i = 0; i < N; i++) {
                assert_int_equal(levels[i], (int)rintf((task[i] - base[i] - lo) / grid.step));
                want[levels[i]]++;
            }
            (*k)->count(got, levels, b, N);
            assert_memory_equal(want, got, sizeof want);
        }
        float saved = task[77];
        static const float bad[] = {NAN, INFINITY, -INFINITY, -NAN};
        for (int i = 0; i < 4; i++) {
            task[77] = bad[i];
            m = DZ_MEASURES_NONE;
            (*k)->measure(&m, 0, task, DZ_F32, base, N);
            assert_false(dz_range_finite(m.range));
        }
        task[77] = saved;
    }
    free(task);
    free(base);
    free(levels);
}

/* Of every float type as of the floats that it widens to. */
static void test_variants_range_and_levels_widen_by_themselves(void **state) {
    (void)state;
    static const dz_dtype types[] = {DZ_F64, DZ_F16, DZ_BF16, DZ_F8_E4M3, DZ_F8_E5M2};
    float *x = malloc(N * sizeof *x), *base = calloc(N, sizeof *base);
    uint8_t *raw = malloc(N * 8), *got = malloc(N), *want = malloc(N);
    for (size_t i = 0; i < N; i++) {
        x[i] = (float)((double)(int64_t)draw(5, i) / 9.3e18);
        base[i] = (float)((double)(int64_t)draw(6, i) / 9.3e19);
    }
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        dz_narrow(raw, x, types[t], N);
        float *wide = malloc(N * sizeof *wide);
        dz_widen(wide, raw, types[t], N);
        for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) {
            for (int both = 0; both < 2; both++) { /* the base in float, or in the same type */
                float *d = malloc(N * sizeof *d);
                uint8_t *narrow = malloc(N * 8);
                dz_narrow(narrow, base, types[t], N);
                (*k)->difference(d, raw, types[t], both ? narrow : (uint8_t *)base, both ? types[t] : DZ_F32, N);
                float *wide_base = malloc(N * sizeof *wide_base);
                dz_widen(wide_base, narrow, types[t], N);
                for (size_t i = 0; i < N; i++)
                    assert_int_equal(dz_float_bits(d[i]), dz_float_bits(wide[i] - (both ? wide_base[i] : base[i])));
                free(wide_base);
                free(narrow);
                free(d);
            }
            for (int sizes = 0; sizes < 2; sizes++) {
                dz_measures m = DZ_MEASURES_NONE, of_floats = DZ_MEASURES_NONE;
                (*k)->measure(&m, sizes, raw, types[t], base, N);
                (*k)->measure(&of_floats, sizes, wide, DZ_F32, base, N);
                assert_memory_equal(&m, &of_floats, sizeof m);
            }
            (*k)->levels(got, raw, types[t], base, -1.2f, 0.15f, 15, N);
            (*k)->levels(want, wide, DZ_F32, base, -1.2f, 0.15f, 15, N);
            assert_memory_equal(got, want, N);
        }
        free(wide);
    }
    free(x);
    free(base);
    free(raw);
    free(got);
    free(want);
}

/* Lane by lane, and in two calls as in one. */
static void test_variants_add_up_alike(void **state) {
    (void)state;
    float *task = malloc(N * sizeof *task), *base = malloc(N * sizeof *base);
    double sums[2 * DZ_LANES] = {0}, squares[DZ_LANES] = {0};
    uint64_t changed = 0;
    for (size_t i = 0; i < N; i++) {
        base[i] = (float)((double)(int64_t)draw(7, i) / 9.3e18);
        task[i] = base[i] + (float)((double)(int64_t)draw(8, i) / 9.3e18) * (draw(9, i) % 3 == 0);
        double d = (double)(task[i] - base[i]);
        sums[i % DZ_LANES] += fabs(d);
        sums[DZ_LANES + i % DZ_LANES] += d * d;
        changed += d < 0 || d > 0;
        squares[i % DZ_LANES] += (double)base[i] * (double)base[i];
    }
    for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) {
        for (int sizes = 0; sizes < 2; sizes++) {
            dz_measures m = DZ_MEASURES_NONE;
            (*k)->measure(&m, sizes, task, DZ_F32, base, 4096);
            (*k)->measure(&m, sizes, task + 4096, DZ_F32, base + 4096, N - 4096);
            assert_memory_equal(m.sums + DZ_LANES, sums + DZ_LANES, DZ_LANES * sizeof *sums);
            if (sizes) assert_memory_equal(m.sums, sums, DZ_LANES * sizeof *sums);
            assert_int_equal(m.changed, sizes ? changed : 0);
        }
        double lanes[DZ_LANES] = {0};
        (*k)->energy(lanes, base, 4096);
        (*k)->energy(lanes, base + 4096, N - 4096);
        assert_memory_equal(lanes, squares, sizeof lanes);
    }
    free(task);
    free(base);
}

static void test_variants_measure_distances_alike(void **state) {
    (void)state;
    uint16_t word[1000], predictor[1000];
    uint8_t got[1000];
    for (size_t i = 0; i < 1000; i++) {
        word[i] = (uint16_t)draw(10, i);
        predictor[i] = (uint16_t)(i % 4 ? word[i] + draw(11, i) % 7 : draw(11, i));
    }
    word[0] = 0x7fff, predictor[0] = 0xffff; /* the widest; two zeros; two of no distance */
    word[1] = 0x8000, predictor[1] = 0;
    word[2] = predictor[2] = 0xabcd;
    for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) {
        (*k)->distances(got, word, predictor, 1000);
        for (size_t i = 0; i < 1000; i++) {
            int a = word[i] & 0x8000 ? -(word[i] & 0x7fff) : word[i], b = predictor[i] & 0x8000 ? -(predictor[i] & 0x7fff) : predictor[i];
            unsigned bits = 0;
            while (abs(a - b) >> bits) bits++;
            assert_int_equal(got[i], bits);
        }
    }
}

static void test_variants_gather_classes_alike(void **state) {
    (void)state;
    enum { LONG = 1000, CONTEXTS = 1024, CLASSES = 64 };
    static uint8_t coded[CLASSES][LONG + DZ_GATHER_ROOM];
    uint8_t class_of[CONTEXTS], got[LONG + DZ_GATHER_ROOM];
    uint16_t context[LONG], first[CLASSES];
    for (unsigned round = 0; round < 60; round++) {
        unsigned nclasses = 1 + (unsigned)(draw(20, round) % CLASSES), end = 0;
        for (unsigned k = 0; k < nclasses; k++) {
            first[k] = (uint16_t)end;
            end = k + 1 < nclasses ? end + 1 + (unsigned)(draw(21, 64 * round + k) % (CONTEXTS / nclasses - 1)) : CONTEXTS;
            memset(class_of + first[k], (int)k, end - first[k]);
            for (size_t i = 0; i < LONG; i++) coded[k][i] = (uint8_t)draw(22, LONG * k + i);
        }
        for (size_t i = 0; i < LONG; i++) context[i] = (uint16_t)(draw(23, i) % (round % 2 ? CONTEXTS : CONTEXTS / 16));
        for (const dz_kernel_table *const *v = dz_kernels_all(); *v; v++) {
            const uint8_t *next[CLASSES];
            size_t taken[CLASSES] = {0};
            for (unsigned k = 0; k < nclasses; k++) next[k] = coded[k];
            (*v)->gather_classes(got, context, class_of, first, nclasses, next, round % 3 ? LONG : round);
            for (size_t i = 0; i < (round % 3 ? LONG : round); i++) {
                unsigned k = class_of[context[i]];
                assert_int_equal(got[i], coded[k][taken[k]++]);
            }
            for (unsigned k = 0; k < nclasses; k++) assert_ptr_equal(next[k], coded[k] + taken[k]);
        }
    }
}

static void test_variants_quantise_alike(void **state) {
    (void)state;
    enum { COUNT = 1003 };
    float x[COUNT];
    int32_t level[COUNT], want[COUNT];
    uint8_t symbol[COUNT];
    for (unsigned round = 0; round < 4; round++) { /* the last: larger than any level may be */
        float width = 0.37f;
        size_t nonzeros = 0;
        for (int i = 0; i < COUNT; i++) {
            x[i] = (float)((double)(int64_t)draw(round, (uint64_t)i) / 9.3e18) * (round == 0   ? 1.0f
                                                                                  : round == 1 ? 60.0f
                                                                                  : round == 2 ? 4000.0f
                                                                                               : 1e30f);
            float size = floorf(fabsf(x[i]) / width + 0.5f);
            want[i] = size < 1e6f ? (int32_t)size : 1000000;
            want[i] = x[i] < 0 ? -want[i] : want[i];
            nonzeros += want[i] != 0;
        }
        for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) {
            assert_int_equal((*k)->uniform_levels(level, x, width, 1e6f, COUNT), nonzeros);
            assert_memory_equal(level, want, sizeof want);
            for (unsigned low = 0; low <= 8; low += 4) {
                int beyond = 0, got = (*k)->symbols(symbol, level, low, COUNT);
                for (int i = 0; i < COUNT; i++) {
                    int high = want[i] >> low, number = high < 0 ? -2 * high - 1 : 2 * high;
                    assert_int_equal(symbol[i], number < 255 ? number : 255);
                    beyond |= number >= 255;
                }
                assert_int_equal(got, beyond);
            }
        }
    }
}

static void test_variants_find_the_same_candidates(void **state) {
    (void)state;
    uint32_t *got = malloc((N + 16) * sizeof *got), *u = malloc((N + 16) * sizeof *u);
    static const uint32_t lasts[] = {0, 1U << 27, 1U << 31, UINT32_MAX};
    for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) {
        for (int l = 0; l < 4; l++) {
            for (size_t count = 0; count < 200; count += 13) {
                size_t n = (*k)->candidates(got, u, 0x9876543210abcdefULL, lasts[l], count), want = 0;
                for (uint32_t i = 0; i < count; i++) {
                    uint32_t here = dz_u32_at(0x9876543210abcdefULL, i);
                    if (here > lasts[l]) continue;
                    assert_int_equal(u[want], here);
                    assert_int_equal(got[want++], i);
                }
                assert_int_equal(n, want);
            }
        }
        assert_int_equal((*k)->candidates(got, u, 5, UINT32_MAX, N), N);
    }
    free(got);
    free(u);
}

static void test_variants_pick_the_same_levels(void **state) {
    (void)state;
    uint8_t *levels = malloc(N), wanted[256];
    uint32_t *got = malloc((N + 16) * sizeof *got);
    for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) {
        for (unsigned bits = 1; bits <= 8; bits++) {
            for (size_t i = 0; i < N; i++) levels[i] = (uint8_t)(draw(bits, i) & ((1U << bits) - 1));
            for (size_t g = 0; g < 256; g++) wanted[g] = draw(9, g) % 3 == 0;
            for (size_t count = 0; count <= N; count = count < 150 ? count + 13 : count < N ? N : N + 1) {
                size_t n = (*k)->pick(got, levels, wanted, bits, count), want = 0;
                for (uint32_t i = 0; i < count; i++) {
                    if (wanted[levels[i]]) assert_int_equal(got[want++], i);
                }
                assert_int_equal(n, want);
            }
        }
    }
    free(levels);
    free(got);
}

static void test_variants_find_the_same_largest(void **state) {
    (void)state;
    float x[300];
    for (size_t n = 1; n <= 300; n++) {
        size_t want = 0;
        for (size_t i = 0; i < n; i++) x[i] = (float)(int)(draw(n, i) % 61) - 30; /* small integers: many are as large */
        for (size_t i = 1; i < n; i++) want = fabsf(x[i]) > fabsf(x[want]) ? i : want;
        for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) assert_int_equal((*k)->largest(x, n), want);
    }
    for (size_t i = 0; i < 300; i++) x[i] = i % 2 ? 0.0f : -0.0f;
    for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) assert_int_equal((*k)->largest(x, 300), 0);
}

static void test_variants_find_the_same_largest_of_runs(void **state) {
    (void)state;
    const size_t most = 4096;
    float *x = malloc(most * sizeof *x);
    uint32_t *size = malloc((most + 16) * sizeof *size), *place = malloc((most + 16) * sizeof *place);
    for (unsigned log = 0; log <= 11; log++) {
        for (unsigned round = 0; round < 4; round++) { /* many that are as large; few; all zero; one alone, at the end */
            for (size_t i = 0; i < most; i++)
                x[i] = round == 0 ? (float)(int)(draw(log, i) % 7) - 3 : round == 1 ? (float)(int64_t)draw(log, i) : i % 2 ? 0.0f : -0.0f;
            for (size_t i = 0; round == 3 && i < most; i++) x[i] = (i + 1) % ((size_t)1 << log) ? x[i] : -1.5f;
            for (const dz_kernel_table *const *k = dz_kernels_all(); *k; k++) {
                size_t runs = (most >> log) - (round == 1 && log < 9); /* also what does not fill registers */
                (*k)->largest_of_runs(size, place, x, log, runs);
                for (size_t r = 0; r < runs; r++) {
                    size_t want = r << log;
                    for (size_t i = want; i < (r + 1) << log; i++) want = fabsf(x[i]) > fabsf(x[want]) ? i : want;
                    assert_int_equal(place[r], want - (r << log));
                    assert_int_equal(size[r], dz_float_bits(fabsf(x[want])));
                }
            }
        }
    }
    free(x);
    free(size);
    free(place);
}

/* Frequencies of 16 numbers that sum to 4096, some of them 0: of one number nearly all, with and without others; any. */
static void draw_frequencies(uint16_t f[DZ_CLOSE_NUMBERS], uint64_t key, unsigned how) {
    unsigned left = 1 << DZ_CLOSE_LOG, least = (unsigned)(draw(key, 20) % 8), most = 7 + (unsigned)(draw(key, 21) % 8);
    memset(f, 0, DZ_CLOSE_NUMBERS * sizeof *f);
    for (unsigned q = least; q <= most; q++) {
        unsigned share = how == 0 ? (q == 7 ? 4095 : 0) : how == 1 ? (q == 7 ? 4080 : 1) : 1 + (unsigned)(draw(key, q) % 272);
        f[q] = (uint16_t)(share < left ? share : left - 1);
        left -= f[q];
    }
    f[DZ_CLOSE_ESCAPE] = (uint16_t)left;
}

typedef struct close_made { /* by a variant, of one block */
    uint16_t words[DZ_CLOSE_BLOCK + DZ_CLOSE_ROOM], escapes[DZ_CLOSE_BLOCK], far[DZ_CLOSE_BLOCK], far_base[DZ_CLOSE_BLOCK];
    uint8_t bits[2 * DZ_CLOSE_BLOCK];
    size_t nwords, nescapes, nfar, nbits;
    uint32_t state[DZ_CLOSE_LANES];
} close_made;

static void close_encode_by(const dz_kernel_table *k, close_made *m, const dz_close_table *t, const uint8_t *words, const uint8_t *base,
                            size_t n) {
    static dz_close_writer w;
    memset(m, 0, sizeof *m);
    memset(&w, 0, sizeof w);
    for (size_t i = 0; i < DZ_CLOSE_LANES; i++) w.state[i] = DZ_CLOSE_LOWEST;
    w.words = m->words, w.escape = m->escapes, w.far = m->far, w.far_base = m->far_base, w.bits = m->bits;
    size_t half = n / 2 / DZ_CLOSE_LANES * DZ_CLOSE_LANES; /* two blocks: bits in between are held */
    k->close_encode(&w, t, words, base, half);
    k->close_encode(&w, t, words + 2 * half, base + 2 * half, n - half);
    m->nwords = (size_t)(w.words - m->words);
    m->nescapes = (size_t)(w.escape - m->escapes);
    m->nfar = (size_t)(w.far - m->far);
    m->nbits = 8 * (size_t)(w.bits - m->bits) + w.nheld;
    m->bits[m->nbits / 8] = (uint8_t)w.held;
    memset(m->bits + m->nbits / 8 + 1, 0, sizeof m->bits - m->nbits / 8 - 1); /* what was written beyond */
    memset(m->words + m->nwords, 0, sizeof m->words - 2 * m->nwords);
    memcpy(m->state, w.state, sizeof w.state);
}

static void test_variants_code_elements_close_to_the_base_alike(void **state) {
    (void)state;
    enum { MANY = DZ_CLOSE_BLOCK };
    static uint8_t words[2 * MANY + 1], base[2 * MANY + 1], back[2 * MANY], first_back[2 * MANY];
    static dz_close_table t;
    static dz_close_reader r;
    static close_made first, other;
    for (uint64_t round = 0; round < 300; round++) {
        unsigned mantissa = round % 2 ? 7 : 10, most = round % 2 ? 240 : 17, nclasses = 1 + (unsigned)(draw(round, 1) % 15);
        uint16_t frequency[DZ_CLOSE_CLASSES_MAX][DZ_CLOSE_NUMBERS];
        uint8_t low_bits[DZ_CLOSE_CLASSES_MAX];
        unsigned first_exponent = (unsigned)(draw(round, 2) % most);
        for (unsigned k = 0; k < nclasses; k++) {
            draw_frequencies(frequency[k], draw(round, 100 + k), (unsigned)(round / 2 % 3));
            low_bits[k] = (uint8_t)(round % 7 == 0 ? 8 : draw(round, 200 + k) % 9);
        }
        dz_close_table_make(&t, first_exponent, nclasses, mantissa, low_bits, (const uint16_t(*)[DZ_CLOSE_NUMBERS])frequency);
        size_t n = DZ_CLOSE_LANES * (2 + draw(round, 3) % (MANY / DZ_CLOSE_LANES - 1)), shift = round % 3 == 0;
        for (size_t i = 0; i < n; i++) { /* nearly all exponents have a class; an escape where the number has no frequency */
            uint64_t x = draw(round + 1000, i);
            unsigned exponent = first_exponent + (unsigned)(x % (x >> 60 ? nclasses : nclasses + 1U));
            uint16_t from = (uint16_t)(exponent << mantissa | (x >> 8 & ((1U << mantissa) - 1)) | (x >> 40 & 1) << 15);
            unsigned k = exponent - first_exponent, spread = k < nclasses ? 8U << low_bits[k] : 100;
            uint16_t to = (uint16_t)(from + (uint16_t)(x >> 20) % (2 * spread) - spread);
            if (round / 2 % 3 < 2 && x >> 56 & 7) to = from;
            memcpy(base + shift + 2 * i, &from, 2);
            memcpy(words + shift + 2 * i, &to, 2);
        }
        const dz_kernel_table *const *all = dz_kernels_all();
        for (size_t v = 0; all[v]; v++) {
            close_made *m = v ? &other : &first;
            close_encode_by(all[v], m, &t, words + shift, base + shift, n);
            if (v) assert_memory_equal(m, &first, sizeof first);
            memset(&r, 0, offsetof(dz_close_reader, slot));
            uint16_t places[MANY + DZ_CLOSE_ROOM], bases[MANY + DZ_CLOSE_ROOM];
            memcpy(r.state, m->state, sizeof r.state);
            r.first_word = (const uint8_t *)m->words;
            r.words = r.first_word + 2 * m->nwords;
            r.bits = m->bits;
            r.nbits = m->nbits;
            r.first_escape = m->escapes;
            r.escape = m->escapes + m->nescapes;
            r.far_place = places;
            r.far_base = bases;
            memset(back, 0, sizeof back);
            size_t left = all[v]->close_decode(&r, &t, back, base + shift, n);
            assert_false(r.bad);
            assert_int_equal(r.nbits, 0);
            size_t nfar = (size_t)(r.far_place - places);
            for (size_t i = 0; i < nfar; i++) {
                assert_int_equal(bases[i], m->far_base[m->nfar - 1 - i]);
                memcpy(back + 2 * (size_t)places[i], &m->far[m->nfar - 1 - i], 2);
            }
            assert_memory_equal(back + 2 * left, words + shift + 2 * left, 2 * (n - left));
            if (v) assert_memory_equal(back + 2 * left, first_back + 2 * left, 2 * (n - left));
            memcpy(first_back, back, sizeof back);
        }
    }
}

static void test_a_shifted_key_continues_the_numbers(void **state) {
    (void)state;
    uint64_t key = 0x12345678fffffff0ULL; /* the low half wraps */
    for (uint32_t i = 0; i < 100; i++) assert_int_equal(dz_u32_at(dz_key_at(key, 1000), i), dz_u32_at(key, 1000 + i));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_f16_and_bf16_widen_and_narrow_exactly),
                                       cmocka_unit_test(test_variants_widen_and_narrow_alike),
                                       cmocka_unit_test(test_variants_add_changes_alike),
                                       cmocka_unit_test(test_f8_narrows_to_the_nearest_even),
                                       cmocka_unit_test(test_f64_rounds_to_float_and_comes_back),
                                       cmocka_unit_test(test_variants_range_and_levels_widen_by_themselves),
                                       cmocka_unit_test(test_variants_range_levels_and_counts_alike),
                                       cmocka_unit_test(test_variants_add_up_alike),
                                       cmocka_unit_test(test_variants_measure_distances_alike),
                                       cmocka_unit_test(test_variants_gather_classes_alike),
                                       cmocka_unit_test(test_variants_quantise_alike),
                                       cmocka_unit_test(test_variants_find_the_same_candidates),
                                       cmocka_unit_test(test_variants_pick_the_same_levels),
                                       cmocka_unit_test(test_variants_find_the_same_largest),
                                       cmocka_unit_test(test_variants_find_the_same_largest_of_runs),
                                       cmocka_unit_test(test_variants_code_elements_close_to_the_base_alike),
                                       cmocka_unit_test(test_a_shifted_key_continues_the_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

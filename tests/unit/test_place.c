/* Tensors by strides: whatever the strides and the range, what is read is a piece of the row-major copy. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "checkpoint/strided.h"

enum { MOST = 6 << 20 }; /* bytes of the file, and of a copy */

static char path[64];
static int fd = -1;
static uint8_t file[MOST], copy[MOST], got[MOST];

static uint64_t draw(uint64_t below) {
    static uint64_t number;
    return dz_u64_at(99, number++) % below;
}

static dz_tensor tensor_of(const char *dtype, uint32_t ndim, const uint64_t *shape) {
    dz_tensor t = {.ndim = ndim, .count = 1};
    snprintf(t.dtype_name, sizeof t.dtype_name, "%s", dtype);
    for (uint32_t d = 0; d < ndim; d++) {
        t.shape[d] = shape[d];
        t.count *= shape[d];
    }
    t.nbytes = t.count * dz_element_bits(dtype) / 8;
    return t;
}

/* Element by element. */
static void make_copy(const dz_tensor *t, uint64_t offset, const uint64_t *stride) {
    uint64_t size = t->nbytes / t->count;
    for (uint64_t i = 0; i < t->count; i++) {
        uint64_t at = 0, left = i;
        for (uint32_t d = t->ndim; d-- > 0; left /= t->shape[d]) at += left % t->shape[d] * stride[d];
        memcpy(copy + i * size, file + offset + at * size, (size_t)size);
    }
}

static void expect_range(const dz_strided *p, const dz_tensor *t, uint64_t first, uint64_t len) {
    dz_error err = {0};
    memset(got, 0xee, (size_t)len + 1);
    if (dz_strided_read(p, t, fd, path, first, (size_t)len, got, &err) != DZ_OK) fail_msg("%s", err.text);
    if (memcmp(got, copy + first, (size_t)len) != 0) {
        char text[DZ_SHAPE_TEXT], strides[DZ_SHAPE_TEXT];
        dz_tensor other = {.ndim = t->ndim};
        memcpy(other.shape, p->stride, sizeof other.shape);
        fail_msg("%s %s, strides %s: bytes %llu and %llu more are wrong", t->dtype_name, dz_shape_text(t, text),
                 dz_shape_text(&other, strides), (unsigned long long)first, (unsigned long long)len);
    }
    assert_int_equal(got[len], 0xee);
}

static void expect_view(const char *dtype, uint64_t offset, uint32_t ndim, const uint64_t *shape, const uint64_t *stride) {
    dz_tensor t = tensor_of(dtype, ndim, shape);
    dz_strided p = dz_strided_of(&t, offset, stride);
    assert_true(t.nbytes <= MOST && offset + dz_strided_span(&p, &t) <= MOST);
    make_copy(&t, offset, stride);
    expect_range(&p, &t, 0, t.nbytes);
    for (int i = 0; i < 12; i++) {
        uint64_t first = draw(t.nbytes), len = 1 + draw(i % 3 ? t.nbytes - first : 40);
        expect_range(&p, &t, first, len < t.nbytes - first ? len : t.nbytes - first);
    }
    expect_range(&p, &t, t.nbytes, 0);
}

static void test_usual_views(void **state) {
    (void)state;
    static const struct {
        uint32_t ndim;
        uint64_t shape[4], stride[4];
    } views[] = {
        {2, {700, 900}, {1, 700}},                       /* transposed */
        {2, {3, 100000}, {1, 3}},                        /* few rows */
        {2, {100000, 3}, {1, 100000}},                   /* few columns */
        {2, {900, 100}, {900, 1}},                       /* a slice of columns */
        {2, {300, 300}, {900, 3}},                       /* every third column */
        {1, {1000}, {777}},                              /* a column, read element by element */
        {2, {5000, 64}, {0, 1}},                         /* expanded */
        {2, {64, 5000}, {1, 0}},                         /* expanded within */
        {3, {20, 30, 40}, {0, 0, 0}},                    /* one element */
        {4, {4, 64, 32, 32}, {65536, 1, 2048, 64}},      /* channels last */
        {4, {4, 63, 32, 32}, {65536, 1, 2048, 64}},      /* and a slice of it */
        {3, {50, 60, 70}, {1, 50, 3000}},                /* reversed */
        {3, {60, 50, 70}, {70, 4200, 1}},                /* the first two changed */
        {2, {1000, 400}, {1, 1}},                        /* overlapping windows */
        {4, {1, 700, 1, 900}, {12345678901, 1, 7, 700}}, /* strides of single elements mean nothing */
        {2, {2, 300000}, {400000, 1}},                   /* rows longer than any buffer */
        {2, {1, 1}, {9, 9}},
    };
    static const char *const dtypes[] = {"U8", "F8_E4M3FNUZ", "BF16", "F32", "F64", "C64"};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        for (size_t k = 0; k < sizeof dtypes / sizeof *dtypes; k++) {
            uint64_t size = dz_element_bits(dtypes[k]) / 8, shape[4];
            memcpy(shape, views[i].shape, sizeof shape);
            for (uint32_t d = 0; d < views[i].ndim; d++) /* so that wide elements fit as well */
                shape[d] = d == 0 && shape[0] > size ? shape[0] / size : shape[d];
            expect_view(dtypes[k], 8 * draw(100), views[i].ndim, shape, views[i].stride);
        }
    }
}

/* Dimensions in any order, each a step of the one before, with gaps and repeats. */
static void test_random_views(void **state) {
    (void)state;
    static const char *const dtypes[] = {"I8", "F16", "I32", "I64"};
    for (int round = 0; round < 3000; round++) {
        uint64_t shape[DZ_MAX_NDIM], stride[DZ_MAX_NDIM], count = 1, last = 0;
        uint32_t ndim = 1 + (uint32_t)draw(5), order[DZ_MAX_NDIM];
        const char *dtype = dtypes[draw(4)];
        for (uint32_t d = 0; d < ndim; d++) order[d] = d;
        for (uint32_t d = ndim; d-- > 1;) {
            uint32_t other = (uint32_t)draw(d + 1), kept = order[d];
            order[d] = order[other];
            order[other] = kept;
        }
        uint64_t step = 1 + (draw(4) ? 0 : draw(40));
        for (uint32_t k = 0; k < ndim; k++) {
            uint32_t d = order[k];
            shape[d] = 1 + draw(round % 7 ? 9 : 60);
            if (count * shape[d] > 20000) shape[d] = 1;
            count *= shape[d];
            stride[d] = draw(9) ? step : draw(step + 1);
            if (last + (shape[d] - 1) * stride[d] > 300000) stride[d] = 0;
            last += (shape[d] - 1) * stride[d];
            step = stride[d] * shape[d] + (draw(3) ? 0 : draw(3000)) + !stride[d];
        }
        expect_view(dtype, draw(1000), ndim, shape, stride);
    }
}

static void test_row_major_places_are_known(void **state) {
    (void)state;
    dz_tensor t = tensor_of("F32", 3, (const uint64_t[]){4, 1, 6}), none = tensor_of("F32", 2, (const uint64_t[]){0, 5});
    assert_false(dz_strided_of(&t, 7, (const uint64_t[]){6, 99, 1}).strided);
    assert_true(dz_strided_of(&t, 7, (const uint64_t[]){7, 6, 1}).strided);
    assert_false(dz_strided_of(&none, 7, (const uint64_t[]){3, 3}).strided);
}

static void test_a_file_that_ends_early_is_reported(void **state) {
    (void)state;
    dz_tensor t = tensor_of("BF16", 2, (const uint64_t[]){1000, 1000});
    dz_strided p = dz_strided_of(&t, MOST - 1999000, (const uint64_t[]){1, 1000});
    dz_error err = {0};
    assert_int_equal(dz_strided_read(&p, &t, fd, path, 0, (size_t)t.nbytes, got, &err), DZ_EFAIL);
    assert_memory_equal(err.text, path, strlen(path));
    assert_non_null(strstr(err.text, "too early"));
}

static void test_spans_that_overflow_are_none(void **state) {
    (void)state;
    static const uint64_t cases[][2] = {{UINT64_MAX, 1}, {UINT64_MAX / 2, 1}, {1, UINT64_MAX / 4}, {UINT64_MAX / 4, UINT64_MAX / 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dz_tensor t = tensor_of("F32", 2, (const uint64_t[]){4, 2});
        dz_strided p = dz_strided_of(&t, 0, cases[i]);
        assert_true(p.strided);
        assert_int_equal(dz_strided_span(&p, &t), 0);
    }
}

int main(void) {
    for (size_t i = 0; i < MOST; i++) file[i] = (uint8_t)(dz_u64_at(7, i / 8) >> (8 * (i % 8)));
    snprintf(path, sizeof path, "/tmp/deltazoo-test-place-%ld", (long)getpid());
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, file, MOST) != MOST) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usual_views),
        cmocka_unit_test(test_random_views),
        cmocka_unit_test(test_row_major_places_are_known),
        cmocka_unit_test(test_a_file_that_ends_early_is_reported),
        cmocka_unit_test(test_spans_that_overflow_are_none),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    close(fd);
    unlink(path);
    return rc;
}

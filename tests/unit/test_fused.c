/* Tensors kept as parts: a checkpoint that is split, and what an archive's list of files says of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "archive/reader.h"

#define NROWS 6

/* A task with six rows of F32 tensors "0" to "5", of 4 elements each. */
static void begin(dz_catalog *c, dz_task_entry *t) {
    dz_error err = {0};
    *c = (dz_catalog){0};
    *t = (dz_task_entry){.name = strdup("task"), .nrows = NROWS};
    t->rows = calloc(NROWS, sizeof *t->rows);
    for (uint32_t i = 0; i < NROWS; i++) {
        char name[] = {(char)('0' + i), '\0'};
        dz_tensor one = {.name = name, .dtype_name = "F32", .dtype = DZ_F32, .ndim = 1, .shape = {4}, .count = 4, .nbytes = 16};
        assert_int_equal(dz_catalog_tensor(c, &one, &t->rows[i].tensor, &err), DZ_OK);
    }
}

static void end(dz_catalog *c, dz_task_entry *t) {
    dz_task_entry_free(t);
    for (size_t i = 0; i < c->ntensors; i++) free(c->tensors[i].name);
    free(c->tensors);
    free(c->blobs);
    dz_buf_free(&c->blob_data);
    dz_lookup_free(&c->by_blob);
    dz_lookup_free(&c->by_tensor);
}

/* The list of files with one file and these ranges, written and read back. */
static dz_rc list(dz_catalog *c, dz_task_entry *t, const dz_row_range *ranges, size_t n, uint32_t prefix, const char *path) {
    dz_error err = {0};
    uint32_t blob = 0;
    dz_task_entry written = {.nfiles = 1};
    dz_file_row file = {.kind = DZ_FILE_SAFETENSORS, .size = 500, .prefix = prefix, .nfused = n};
    assert_int_equal(dz_catalog_add_blob(c, "header", 6, &blob, &err), DZ_OK);
    file.path = strdup(path);
    file.blob = blob;
    file.fused = malloc((n + 1) * sizeof *file.fused);
    if (n) memcpy(file.fused, ranges, n * sizeof *ranges);
    written.files = &file;
    assert_int_equal(dz_catalog_add_files(c, &written, &err), DZ_OK);
    dz_file_row_free(&file);
    t->files_blob = written.files_blob;
    return dz_catalog_read_files(c, t, &err);
}

static void test_ranges_come_back(void **state) {
    (void)state;
    static const dz_row_range ranges[] = {{1, 2}, {3, 3}};
    for (uint32_t prefix = 0; prefix <= 5; prefix += 5) {
        dz_catalog c;
        dz_task_entry t;
        begin(&c, &t);
        assert_int_equal(list(&c, &t, ranges, 2, prefix, "unet/model.safetensors"), DZ_OK);
        assert_int_equal(t.nfiles, 1);
        assert_int_equal(t.files[0].kind, DZ_FILE_SAFETENSORS);
        assert_int_equal(t.files[0].prefix, prefix);
        assert_int_equal(t.files[0].nfused, 2);
        assert_memory_equal(t.files[0].fused, ranges, sizeof ranges);
        end(&c, &t);
    }
}

static void test_ranges_beyond_the_index_or_over_each_other_are_damage(void **state) {
    (void)state;
    static const dz_row_range bad[][2] = {{{0, 0}, {1, 1}}, {{0, 7}, {6, 1}}, {{6, 1}, {6, 1}},         {{7, 1}, {8, 1}},
                                          {{0, 2}, {1, 2}}, {{3, 1}, {0, 1}}, {{1, UINT32_MAX}, {2, 1}}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dz_catalog c;
        dz_task_entry t;
        begin(&c, &t);
        assert_int_equal(list(&c, &t, bad[i], 2, 0, "model.safetensors"), DZ_EDAMAGE);
        end(&c, &t);
    }
}

/* Tensors of a file: "0", one of two parts, one of three. */
static dz_rc places(const dz_row_range *ranges, size_t n, uint64_t second, const char *dtype, dz_file_place **out, size_t *nout) {
    dz_catalog c;
    dz_task_entry t;
    dz_error err = {0};
    dz_lookup rows = {0};
    char zero[] = "0", two[] = "two", three[] = "three";
    dz_tensor tensors[] = {{.name = zero, .dtype_name = "F32", .nbytes = 16, .offset = 100},
                           {.name = two, .nbytes = second, .offset = 116},
                           {.name = three, .dtype_name = "F32", .nbytes = 48, .offset = 148}};
    strcpy(tensors[1].dtype_name, dtype);
    begin(&c, &t);
    assert_int_equal(list(&c, &t, ranges, n, 0, "model.safetensors"), DZ_OK);
    assert_int_equal(dz_task_rows(&c, &t, &rows, &err), DZ_OK);
    dz_rc rc = dz_file_places(&c, &t, &t.files[0], &rows, tensors, 3, out, nout, &err);
    dz_lookup_free(&rows);
    end(&c, &t);
    return rc;
}

static void test_parts_lie_one_after_another(void **state) {
    (void)state;
    static const dz_row_range good[] = {{1, 2}, {3, 3}}, one[] = {{1, 2}}, more[] = {{1, 2}, {3, 2}, {5, 1}}, large[] = {{1, 3}, {4, 2}};
    dz_file_place *found = NULL;
    size_t n = 0;
    assert_int_equal(places(good, 2, 32, "F32", &found, &n), DZ_OK);
    assert_int_equal(n, NROWS);
    for (uint32_t i = 0; i < NROWS; i++) {
        assert_int_equal(found[i].row, i);
        assert_int_equal(found[i].offset, 100 + 16 * i);
        assert_int_equal(found[i].fused, i == 0 ? 0 : i < 3 ? 1 : 2);
    }
    free(found);
    assert_int_equal(places(good, 2, 31, "F32", &found, &n), DZ_EDAMAGE);
    assert_int_equal(places(good, 2, 32, "BF16", &found, &n), DZ_EDAMAGE);
    assert_int_equal(places(one, 1, 32, "F32", &found, &n), DZ_EDAMAGE);
    assert_int_equal(places(more, 3, 32, "F32", &found, &n), DZ_EDAMAGE);
    assert_int_equal(places(large, 2, 32, "F32", &found, &n), DZ_EDAMAGE);
    assert_null(found);
}

/* A PyTorch file's tensor of shape (2, 3, 2) whose last two dimensions are exchanged in the file, and a plain one behind it. */
static dz_checkpoint *transposed(void) {
    dz_error err = {0};
    dz_checkpoint *ck = calloc(1, sizeof *ck);
    ck->path = strdup("model");
    ck->shards = calloc(1, sizeof *ck->shards);
    ck->nshards = 1;
    ck->shards[0] = (dz_shard){.fd = -1, .nplaces = 2, .places = calloc(2, sizeof(dz_strided))};
    ck->tensors = calloc(2, sizeof *ck->tensors);
    ck->ntensors = 2;
    ck->tensors[0] = (dz_tensor){
        .name = strdup("w"), .dtype_name = "F32", .dtype = DZ_F32, .ndim = 3, .shape = {2, 3, 2}, .count = 12, .nbytes = 48, .offset = 100};
    ck->tensors[1] = (dz_tensor){
        .name = strdup("v"), .dtype_name = "F32", .dtype = DZ_F32, .ndim = 1, .shape = {3}, .count = 3, .nbytes = 12, .offset = 148};
    ck->shards[0].places[0] = dz_strided_of(&ck->tensors[0], 1000, (uint64_t[]){6, 1, 3});
    ck->shards[0].places[1] = (dz_strided){.offset = 2000};
    assert_int_equal(dz_checkpoint_index(ck, &err), DZ_OK);
    return ck;
}

static dz_rc split(dz_checkpoint *ck, size_t tensor, size_t nparts, const uint64_t *rows) {
    dz_error err = {0};
    dz_buf splits = {0};
    static char names[4][4] = {"a", "b", "c", "d"};
    dz_tensor parts[4];
    const dz_tensor *list_of[4];
    for (size_t i = 0; i < nparts; i++) {
        parts[i] = (dz_tensor){.name = names[i], .ndim = 2, .shape = {rows[i], 2}};
        list_of[i] = &parts[i];
    }
    assert_int_equal(dz_split_add(&splits, tensor, list_of, nparts, &err), DZ_OK);
    dz_rc rc = dz_checkpoint_split(ck, &splits, &err);
    dz_buf_free(&splits);
    return rc;
}

static void test_a_strided_tensor_is_split(void **state) {
    (void)state;
    dz_checkpoint *ck = transposed();
    assert_int_equal(split(ck, 0, 4, (uint64_t[]){2, 1, 2, 1}), DZ_OK);
    assert_int_equal(ck->ntensors, 5);
    assert_int_equal(ck->shards[0].nplaces, 5);
    static const uint64_t first[] = {0, 2, 6, 8}, element[] = {0, 4, 6, 10};
    for (size_t i = 0; i < 4; i++) { /* row r of slice e begins at element 6 e + r of the file */
        assert_int_equal(ck->tensors[i].offset, 100 + 4 * (i == 0 ? 0 : i == 1 ? 4 : i == 2 ? 6 : 10));
        assert_int_equal(ck->shards[0].places[i].offset, 1000 + 4 * first[i]);
        assert_true(ck->shards[0].places[i].strided);
        assert_int_equal(ck->shards[0].places[i].stride[1], 3);
        assert_int_equal(ck->tensors[i].count, element[i] % 6 == 4 ? 2 : 4);
    }
    assert_int_equal(ck->shards[0].places[4].offset, 2000);
    assert_int_equal(dz_checkpoint_find(ck, "w"), -1);
    assert_int_equal(dz_checkpoint_find(ck, "c"), 2);
    assert_int_equal(ck->nfused, 1);
    assert_string_equal(ck->fused[0].whole.name, "w");
    assert_int_equal(ck->fused[0].nparts, 4);
    dz_checkpoint_free(ck);
}

static void test_parts_that_do_not_fill_are_refused(void **state) {
    (void)state;
    static const uint64_t wrong[][4] = {{2, 1, 2, 0}, {2, 1, 2, 2}, {UINT64_MAX, 1, 1, 1}, {1, 1, 1, 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dz_checkpoint *ck = transposed();
        assert_int_equal(split(ck, 0, 4, wrong[i]), DZ_EFAIL);
        assert_int_equal(ck->ntensors, 2);
        assert_int_equal(dz_checkpoint_find(ck, "w"), 0);
        dz_checkpoint_free(ck);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ranges_come_back),
                                       cmocka_unit_test(test_ranges_beyond_the_index_or_over_each_other_are_damage),
                                       cmocka_unit_test(test_parts_lie_one_after_another), cmocka_unit_test(test_a_strided_tensor_is_split),
                                       cmocka_unit_test(test_parts_that_do_not_fill_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

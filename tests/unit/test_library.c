/* include/deltazoo.h as another program uses it, on an archive made in this process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "compress/compress.h"
#include "deltazoo.h"
#include "synth/synth.h"

static char dir[] = "/tmp/deltazoo-library-XXXXXX", archive[64], base[64], manifest[64], finetuned[80];

static int make_archive(void **state) {
    (void)state;
    dz_error err = {0};
    dz_world world = {.comm = MPI_COMM_NULL, .progress = MPI_COMM_NULL, .size = 1};
    if (!mkdtemp(dir)) return -1;
    snprintf(archive, sizeof archive, "%s/a.h5", dir);
    snprintf(base, sizeof base, "%s/base", dir);
    snprintf(manifest, sizeof manifest, "%s/zoo.yaml", dir);
    snprintf(finetuned, sizeof finetuned, "%s/task-2/model.safetensors", dir);
    dz_synth_options synth = {.model = "tiny", .layers = 1, .tasks = 2, .dtype = DZ_BF16, .seed = 1, .out_dir = dir};
    dz_compress_options opt = {
        .manifest = manifest, .archive = archive, .mem_per_rank = (uint64_t)256 << 20, .quiet = 1, .recipe = {.recipe = "ultradelta"}};
    dz_compress_result result = {0};
    if (dz_synth(&synth, &err) != DZ_OK || dz_compress(&world, &opt, &result, &err) != DZ_OK) printf("%s\n", err.text);
    dz_compress_result_free(&result);
    return (int)err.rc;
}

static int remove_archive(void **state) {
    (void)state;
    dz_remove_tree(dir);
    return 0;
}

static deltazoo_archive *open_it(void) {
    deltazoo_archive *a = NULL;
    char message[256] = "";
    if (deltazoo_open(archive, &a, message, sizeof message) != DELTAZOO_OK) fail_msg("%s", message);
    return a;
}

/* Only what is asked for is there, and it restores the same. */
static void test_chosen_tasks_are_opened_alone(void **state) {
    (void)state;
    deltazoo_archive *all = open_it(), *one = NULL;
    char message[256] = "";
    const char *names[] = {"task-2", "nobody"};
    if (deltazoo_open_tasks(archive, names, 1, &one, message, sizeof message) != DELTAZOO_OK) fail_msg("%s", message);
    assert_int_equal(deltazoo_task_count(one), 1);
    assert_string_equal(deltazoo_task_name(one, 0), "task-2");
    deltazoo_task a, b;
    assert_int_equal(deltazoo_task_at(all, 1, &a), DELTAZOO_OK);
    assert_int_equal(deltazoo_task_at(one, 0, &b), DELTAZOO_OK);
    assert_true(a.stored_bytes == b.stored_bytes && a.source_bytes == b.source_bytes);
    assert_int_equal(deltazoo_tensor_count(one, 0), deltazoo_tensor_count(all, 1));
    assert_int_equal(deltazoo_set_base(all, base, message, sizeof message), DELTAZOO_OK);
    assert_int_equal(deltazoo_set_base(one, base, message, sizeof message), DELTAZOO_OK);
    for (size_t i = 0; i < deltazoo_tensor_count(one, 0); i++) {
        deltazoo_tensor t;
        assert_int_equal(deltazoo_tensor_at(one, 0, i, &t), DELTAZOO_OK);
        void *x = malloc(t.nbytes), *y = malloc(t.nbytes);
        assert_int_equal(deltazoo_restore(all, 1, i, x, message, sizeof message), DELTAZOO_OK);
        assert_int_equal(deltazoo_restore(one, 0, i, y, message, sizeof message), DELTAZOO_OK);
        assert_memory_equal(x, y, t.nbytes);
        free(x);
        free(y);
    }
    deltazoo_close(one);
    one = NULL;
    assert_int_equal(deltazoo_open_tasks(archive, names, 2, &one, message, sizeof message), DELTAZOO_EUSAGE);
    assert_true(one == NULL && strstr(message, "'nobody'") && strstr(message, archive));
    deltazoo_close(all);
}

static void test_tasks_and_tensors_are_listed(void **state) {
    (void)state;
    deltazoo_archive *a = open_it();
    deltazoo_tensor t;
    assert_int_equal(deltazoo_task_count(a), 2);
    assert_string_equal(deltazoo_task_name(a, 1), "task-2");
    assert_null(deltazoo_task_name(a, 2));
    size_t n = deltazoo_tensor_count(a, 1), lossy = 0;
    assert_true(n > 5);
    assert_int_equal(deltazoo_tensor_count(a, 9), 0);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(deltazoo_tensor_at(a, 1, i, &t), DELTAZOO_OK);
        assert_string_equal(t.dtype, "BF16");
        uint64_t count = 1;
        for (uint32_t d = 0; d < t.ndim; d++) count *= t.shape[d];
        assert_int_equal(t.nbytes, 2 * count);
        lossy += strcmp(t.policy, "ultradelta") == 0;
    }
    assert_int_equal(lossy, 7);
    assert_int_equal(deltazoo_tensor_at(a, 1, n, &t), DELTAZOO_EUSAGE);
    deltazoo_close(a);
}

static void test_exact_tensors_come_back_byte_for_byte_and_lossy_ones_near(void **state) {
    (void)state;
    deltazoo_archive *a = open_it();
    dz_checkpoint *original = NULL;
    dz_error err = {0};
    char message[256];
    assert_int_equal(deltazoo_set_base(a, base, message, sizeof message), DELTAZOO_OK);
    assert_int_equal(dz_checkpoint_load(finetuned, &original, &err), DZ_OK);
    for (size_t i = 0; i < deltazoo_tensor_count(a, 1); i++) {
        deltazoo_tensor t;
        deltazoo_tensor_at(a, 1, i, &t);
        int64_t at = dz_checkpoint_find(original, t.name);
        assert_true(at >= 0 && original->tensors[at].nbytes == t.nbytes);
        uint8_t *got = malloc(t.nbytes), *want = malloc(t.nbytes);
        if (deltazoo_restore(a, 1, i, got, message, sizeof message) != DELTAZOO_OK) fail_msg("%s", message);
        assert_int_equal(dz_checkpoint_read(original, (size_t)at, 0, t.nbytes, want, &err), DZ_OK);
        int same = memcmp(got, want, t.nbytes) == 0;
        assert_int_equal(same, strcmp(t.policy, "ultradelta") != 0);
        free(got);
        free(want);
    }
    dz_checkpoint_free(original);
    deltazoo_close(a);
}

static void test_deltas_and_a_base_in_memory(void **state) {
    (void)state;
    deltazoo_archive *a = open_it();
    dz_checkpoint *ck = NULL;
    dz_error err = {0};
    char message[256] = "";
    size_t task = 1, index = 0, lossy = 0;
    assert_int_equal(deltazoo_set_base(a, base, message, sizeof message), DELTAZOO_OK);
    assert_int_equal(dz_checkpoint_load(base, &ck, &err), DZ_OK);
    for (; index < deltazoo_tensor_count(a, task); index++) {
        deltazoo_tensor t, b;
        size_t found = SIZE_MAX;
        deltazoo_tensor_at(a, task, index, &t);
        assert_int_equal(deltazoo_tensor_find(a, task, t.name, &found), DELTAZOO_OK);
        assert_int_equal(found, index);
        assert_int_equal(deltazoo_base_of(a, task, index, &b), DELTAZOO_OK);
        size_t count = t.nbytes / 2;
        uint16_t *want = malloc(t.nbytes), *got = malloc(t.nbytes), *from = malloc(b.nbytes);
        float *dense = malloc(count * sizeof *dense), *values = malloc(count * sizeof *values);
        uint64_t *positions = malloc(count * sizeof *positions), n = 0;
        assert_int_equal(dz_checkpoint_read(ck, (size_t)dz_checkpoint_find(ck, b.name), 0, b.nbytes, from, &err), DZ_OK);
        assert_int_equal(deltazoo_restore(a, task, index, want, message, sizeof message), DELTAZOO_OK);
        if (deltazoo_restore_from(a, task, index, from, got, message, sizeof message) != DELTAZOO_OK) fail_msg("%s", message);
        assert_memory_equal(got, want, t.nbytes);
        from[0] ^= 1;
        assert_int_equal(deltazoo_restore_from(a, task, index, from, got, message, sizeof message), DELTAZOO_EFAIL);
        from[0] ^= 1;
        assert_int_equal(deltazoo_restore_from(a, task, index, NULL, got, message, sizeof message), DELTAZOO_EUSAGE);
        int rc = deltazoo_delta(a, task, index, dense, message, sizeof message);
        assert_int_equal(rc, strcmp(t.policy, "ultradelta") == 0 ? DELTAZOO_OK : DELTAZOO_EUSAGE);
        if (rc == DELTAZOO_OK) {
            assert_int_equal(deltazoo_delta_sparse(a, task, index, &n, NULL, NULL, message, sizeof message), DELTAZOO_OK);
            uint64_t room = n - 1;
            assert_int_equal(deltazoo_delta_sparse(a, task, index, &room, positions, values, message, sizeof message), DELTAZOO_EUSAGE);
            room = n;
            assert_int_equal(deltazoo_delta_sparse(a, task, index, &room, positions, values, message, sizeof message), DELTAZOO_OK);
            assert_true(n > 0 && n < count && positions[n - 1] < count);
            for (size_t i = 0, k = 0; i < count; i++) {
                float sum, x = k < n && positions[k] == i ? values[k++] : 0;
                assert_true(x == dense[i]);
                dz_widen(&sum, from + i, DZ_BF16, 1);
                sum += x;
                dz_narrow(got + i, &sum, DZ_BF16, 1);
            }
            assert_memory_equal(got, want, t.nbytes);
            lossy++;
        }
        free(want);
        free(got);
        free(from);
        free(dense);
        free(values);
        free(positions);
    }
    assert_int_equal(lossy, 7);
    deltazoo_task about;
    assert_int_equal(deltazoo_task_at(a, task, &about), DELTAZOO_OK);
    assert_true(about.source_bytes > 20 * about.stored_bytes / 10 && strcmp(about.name, "task-2") == 0);
    assert_int_equal(deltazoo_task_at(a, 2, &about), DELTAZOO_EUSAGE);
    dz_checkpoint_free(ck);
    deltazoo_close(a);
}

static void test_what_cannot_be_is_refused_with_a_text(void **state) {
    (void)state;
    deltazoo_archive *a = NULL;
    char message[256] = "", small[8], other[80];
    uint8_t byte;
    assert_int_equal(deltazoo_open("/no/such/archive", &a, message, sizeof message), DELTAZOO_EFAIL);
    assert_non_null(strstr(message, "/no/such/archive"));
    assert_int_equal(deltazoo_open("/no/such/archive", &a, small, sizeof small), DELTAZOO_EFAIL);
    assert_int_equal(strlen(small), sizeof small - 1);
    assert_int_equal(deltazoo_open("/no/such/archive", &a, NULL, 0), DELTAZOO_EFAIL);
    a = open_it();
    assert_int_equal(deltazoo_restore(a, 0, 0, &byte, message, sizeof message), DELTAZOO_EUSAGE);
    snprintf(other, sizeof other, "%s/task-1", dir); /* a model of the same shapes, but not the base */
    assert_int_equal(deltazoo_set_base(a, other, message, sizeof message), DELTAZOO_OK);
    int refused = 0;
    for (size_t i = 0; i < deltazoo_tensor_count(a, 1); i++) {
        deltazoo_tensor t;
        deltazoo_tensor_at(a, 1, i, &t);
        void *dst = malloc(t.nbytes);
        int rc = deltazoo_restore(a, 1, i, dst, message, sizeof message);
        assert_int_not_equal(rc, DELTAZOO_EDAMAGE); /* though exact tensors do not decode with it */
        refused += rc == DELTAZOO_EFAIL && strstr(message, "not the base") != NULL;
        free(dst);
    }
    assert_true(refused >= 7);
    deltazoo_close(a);
    deltazoo_close(NULL);
}

/* A byte flipped here and there: an archive that opens has all tasks, or tells which one it has lost. */
static void test_a_damaged_task_leaves_the_other(void **state) {
    (void)state;
    char damaged[80], message[256] = "";
    char *bytes = NULL;
    size_t len = 0, once = 0;
    dz_error err = {0};
    assert_int_equal(dz_read_file(archive, 1 << 24, &bytes, &len, &err), DZ_OK);
    snprintf(damaged, sizeof damaged, "%s/damaged.h5", dir);
    for (size_t at = 48; at < len; at += 127) {
        bytes[at] ^= 4;
        FILE *f = fopen(damaged, "wb");
        assert_int_equal(fwrite(bytes, 1, len, f), len);
        fclose(f);
        bytes[at] ^= 4;
        deltazoo_archive *a = NULL;
        if (deltazoo_open(damaged, &a, message, sizeof message) != DELTAZOO_OK) continue;
        size_t lost = deltazoo_lost_count(a);
        assert_int_equal(lost + deltazoo_task_count(a), 2);
        assert_null(deltazoo_lost(a, lost));
        if (lost == 1) {
            size_t other = strstr(deltazoo_lost(a, 0), "'task-1'") ? 2 : 1;
            assert_int_equal(deltazoo_task_name(a, 0)[5] - '0', other);
            if (once++ == 0) {
                deltazoo_tensor t;
                assert_int_equal(deltazoo_set_base(a, base, message, sizeof message), DELTAZOO_OK);
                assert_int_equal(deltazoo_tensor_at(a, 0, 2, &t), DELTAZOO_OK);
                void *got = malloc(t.nbytes);
                if (deltazoo_restore(a, 0, 2, got, message, sizeof message) != DELTAZOO_OK) fail_msg("%s", message);
                free(got);
            }
        }
        deltazoo_close(a);
    }
    assert_true(once > 0);
    free(bytes);
}

static void test_parts_and_base_tensors(void **state) {
    (void)state;
    deltazoo_archive *a = open_it();
    deltazoo_base b;
    deltazoo_tensor t;
    deltazoo_lossy lossy;
    deltazoo_quality whole_task, quality;
    double energy = 0;
    char message[256];
    assert_int_equal(deltazoo_quality_of(a, 0, DELTAZOO_WHOLE, &whole_task), DELTAZOO_OK);
    assert_int_equal(deltazoo_quality_of(a, 0, deltazoo_tensor_count(a, 0), &quality), DELTAZOO_EUSAGE);
    assert_int_equal(deltazoo_quality_of(a, 99, DELTAZOO_WHOLE, &quality), DELTAZOO_EUSAGE);
    assert_string_not_equal(whole_task.verdict, "exact");
    assert_int_equal(deltazoo_set_base(a, base, message, sizeof message), DELTAZOO_OK);
    deltazoo_base_info(a, &b);
    assert_int_equal(strlen(b.fingerprint), 32);
    assert_int_equal(deltazoo_base_at(a, b.ntensors, &t), DELTAZOO_EUSAGE);
    size_t nlossy = 0;
    for (size_t i = 0; i < deltazoo_tensor_count(a, 0); i++) {
        deltazoo_tensor_at(a, 0, i, &t);
        int is_lossy = strcmp(t.policy, "ultradelta") == 0;
        assert_int_equal(deltazoo_lossy_at(a, 0, i, &lossy), is_lossy ? DELTAZOO_OK : DELTAZOO_EUSAGE);
        assert_int_equal(deltazoo_quality_of(a, 0, i, &quality), DELTAZOO_OK);
        assert_int_equal(strcmp(quality.verdict, "exact") != 0, is_lossy);
        energy += quality.delta;
        nlossy += is_lossy && lossy.kept > 0 && lossy.sparsity > 0.9;
        uint64_t n = t.nbytes / 2, first = n / 3, count = n / 2;
        uint16_t *whole = malloc(t.nbytes), *part = malloc(t.nbytes);
        assert_int_equal(deltazoo_restore(a, 0, i, whole, message, sizeof message), DELTAZOO_OK);
        assert_int_equal(deltazoo_restore_part(a, 0, i, first, count, NULL, part, message, sizeof message), DELTAZOO_OK);
        assert_memory_equal(part, whole + first, count * 2);
        assert_int_equal(deltazoo_restore_part(a, 0, i, first, n, NULL, part, message, sizeof message), DELTAZOO_EUSAGE);
        free(whole);
        free(part);
    }
    assert_true(nlossy > 0 && energy > 0 && energy < whole_task.delta * 1.000001 && energy > whole_task.delta * 0.999999);
    for (size_t i = 0; i < b.ntensors; i++) { /* what is read is what tensors are restored from */
        assert_int_equal(deltazoo_base_at(a, i, &t), DELTAZOO_OK);
        uint8_t *raw = malloc(t.nbytes), *one = malloc(t.nbytes), *two = malloc(t.nbytes);
        size_t at;
        assert_int_equal(deltazoo_base_read(a, i, raw, message, sizeof message), DELTAZOO_OK);
        if (deltazoo_tensor_find(a, 0, t.name, &at) == DELTAZOO_OK) {
            assert_int_equal(deltazoo_restore_from(a, 0, at, raw, one, message, sizeof message), DELTAZOO_OK);
            assert_int_equal(deltazoo_restore(a, 0, at, two, message, sizeof message), DELTAZOO_OK);
            assert_memory_equal(one, two, t.nbytes);
        }
        free(raw);
        free(one);
        free(two);
    }
    assert_int_equal(deltazoo_base_read(a, b.ntensors, NULL, message, sizeof message), DELTAZOO_EUSAGE);
    deltazoo_close(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_damaged_task_leaves_the_other),
                                       cmocka_unit_test(test_tasks_and_tensors_are_listed),
                                       cmocka_unit_test(test_chosen_tasks_are_opened_alone),
                                       cmocka_unit_test(test_exact_tensors_come_back_byte_for_byte_and_lossy_ones_near),
                                       cmocka_unit_test(test_deltas_and_a_base_in_memory),
                                       cmocka_unit_test(test_parts_and_base_tensors),
                                       cmocka_unit_test(test_what_cannot_be_is_refused_with_a_text)};
    return cmocka_run_group_tests(tests, make_archive, remove_archive);
}

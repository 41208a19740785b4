/* Rows that are coded against rows of other tasks: archives laid out by hand, read through the reader and the decoder. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "archive/writer.h"
#include "base/file.h"
#include "codec/lossless.h"
#include "decode/merge.h"

#define COUNT 1000
static char path[] = "/tmp/deltazoo-links-XXXXXX";

static int make_file(void **state) {
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state) {
    (void)state;
    return unlink(path);
}

/* Values of task `t`: 0 is the base. A tenth of the elements changes from one to the next. */
static void fill(float *x, unsigned t) {
    for (unsigned i = 0; i < COUNT; i++) {
        x[i] = 1 + (float)i / 64;
        for (unsigned k = 1; k <= t; k++) x[i] += i % 10 == k % 10 ? (float)k / 32 : 0;
    }
}

typedef struct zoo {
    dz_catalog c;
    dz_buf payload[8];
} zoo;

static void add_block(dz_buf *out, unsigned t, const float *against, dz_error *err) {
    float x[COUNT];
    dz_buf body = {0};
    fill(x, t);
    assert_int_equal(dz_lossless_encode(&body, (uint8_t *)x, (const uint8_t *)against, DZ_F32, COUNT, NULL, err), DZ_OK);
    dz_buf_put(out, body.data, body.len, err);
    dz_buf_put_u32(out, dz_checksum(body.data, body.len), err);
    dz_buf_free(&body);
}

/* Task number `t`, coded against `parent` ("" the base, NULL nothing), a name, or equal to it. */
static dz_index_row *add_task(zoo *z, const char *name, unsigned t, const char *parent, unsigned of, int equal) {
    dz_error err = {0};
    float against[COUNT];
    dz_task_entry *e = &z->c.tasks[z->c.ntasks];
    dz_buf *payload = &z->payload[z->c.ntasks++];
    *e = (dz_task_entry){.name = dz_strdup(name, &err), .recipe = dz_strdup("none", &err), .gamma = 1, .source_bytes = 4 * COUNT};
    e->rows = dz_alloc(1, sizeof *e->rows, &err);
    e->nrows = 1;
    dz_index_row *row = e->rows;
    *row = (dz_index_row){.policy = equal ? DZ_POLICY_EQUAL : DZ_POLICY_LOSSLESS, .base = parent && !*parent ? 0 : DZ_NO_BASE};
    if (parent && *parent) assert_int_equal(dz_task_add_source(e, parent, &row->source, &err), DZ_OK);
    fill(against, of);
    if (!equal) add_block(payload, t, parent ? against : NULL, &err);
    row->length = e->payload_len = payload->len;
    assert_int_equal(dz_catalog_add_blob(&z->c, "", 0, &e->recipe_blob, &err), DZ_OK);
    assert_int_equal(dz_catalog_add_files(&z->c, e, &err), DZ_OK);
    return row;
}

static void begin(zoo *z) {
    dz_error err = {0};
    float x[COUNT];
    uint32_t tensor;
    dz_tensor t = {.name = (char *)(uintptr_t) "w",
                   .dtype = DZ_F32,
                   .dtype_name = "F32",
                   .ndim = 1,
                   .shape = {COUNT},
                   .count = COUNT,
                   .nbytes = 4 * COUNT};
    *z = (zoo){0};
    fill(x, 0);
    assert_int_equal(dz_catalog_tensor(&z->c, &t, &tensor, &err), DZ_OK);
    z->c.base = dz_alloc(1, sizeof *z->c.base, &err);
    z->c.base_tiles = dz_alloc(1, sizeof *z->c.base_tiles, &err);
    z->c.base_tiles[0] = dz_digest_of(x, sizeof x);
    z->c.nbase = z->c.nbase_tiles = 1;
    z->c.tasks = dz_alloc(8, sizeof *z->c.tasks, &err);
    assert_int_equal(dz_catalog_fingerprint(&z->c, &z->c.fingerprint, &err), DZ_OK);
    strcpy(z->c.generator, "test");
}

static void end(zoo *z) {
    dz_error err = {0};
    if (dz_archive_layout(path, &z->c, &err) != DZ_OK) fail_msg("%s", err.text);
    int fd = open(path, O_RDWR);
    for (size_t t = 0; t < z->c.ntasks; t++) {
        ssize_t n = (ssize_t)z->payload[t].len;
        assert_int_equal(pwrite(fd, z->payload[t].data, (size_t)n, (off_t)z->c.tasks[t].payload_offset), n);
        dz_buf_free(&z->payload[t]);
    }
    close(fd);
    dz_catalog *c = dz_alloc(1, sizeof *c, &err);
    *c = z->c;
    dz_catalog_free(c);
}

static dz_archive *open_partly(void) {
    dz_error err = {0};
    dz_archive *a = NULL;
    if (dz_archive_open_partly(path, &a, &err) != DZ_OK) fail_msg("%s", err.text);
    return a;
}

/* Restores every task; the base is given in memory unless the archive holds it. */
static void restores(dz_archive *a, const unsigned *expected) {
    dz_error err = {0};
    dz_decoder d;
    float base[COUNT], want[COUNT], got[COUNT];
    fill(base, 0);
    assert_int_equal(dz_decoder_open(&d, a, NULL, NULL, &err), DZ_OK);
    if (!a->catalog->stored) d.given = (const uint8_t *)base;
    for (int round = 0; round < 2; round++) {
        for (size_t k = 0; k < a->catalog->ntasks; k++) {
            size_t t = round ? a->catalog->ntasks - 1 - k : k;
            const dz_task_entry *task = &a->catalog->tasks[t];
            if (dz_decode_tile(&d, task, &task->rows[0], 0, got, &err) != DZ_OK) fail_msg("%s", err.text);
            fill(want, expected[t]);
            assert_memory_equal(got, want, sizeof got);
            assert_int_equal(d.base_differs[0], 0);
        }
    }
    dz_decoder_close(&d);
}

static void test_a_chain_restores_in_any_order(void **state) {
    (void)state;
    zoo z;
    begin(&z);
    add_task(&z, "a", 1, "", 0, 0);
    add_task(&z, "b", 2, "a", 1, 0);
    add_task(&z, "same", 2, "b", 2, 1);
    add_task(&z, "c", 3, "same", 2, 0);
    add_task(&z, "d", 4, "c", 3, 0);
    end(&z);
    dz_archive *a = open_partly();
    assert_int_equal(a->catalog->ntasks, 5);
    assert_int_equal(a->catalog->format_version, 4);
    for (size_t t = 0; t < 5; t++) assert_int_equal(a->catalog->tasks[t].rows[0].base, 0);
    assert_string_equal(a->catalog->tasks[0].name, "same"); /* it has no payload */
    assert_int_equal(a->catalog->tasks[0].rows[0].depth, 2);
    assert_int_equal(a->catalog->tasks[4].rows[0].depth, 4);
    restores(a, (unsigned[]){2, 1, 2, 3, 4});
    dz_archive_close(a);
}

static void test_a_stored_base_and_a_chain_from_nothing(void **state) {
    (void)state;
    zoo z;
    dz_error err = {0};
    begin(&z);
    z.c.stored_name = dz_strdup("the-base", &err);
    add_task(&z, "a", 1, "", 0, 0);
    add_task(&z, "the-base", 0, NULL, 0, 0);
    add_task(&z, "alone", 5, NULL, 0, 0);
    add_task(&z, "b", 6, "alone", 5, 0);
    end(&z);
    dz_archive *a = open_partly();
    assert_int_equal(a->catalog->stored, 2);
    restores(a, (unsigned[]){1, 0, 5, 6});
    dz_archive_close(a);
}

static void test_a_base_that_is_not_stored_by_itself(void **state) {
    (void)state;
    zoo z;
    dz_error err = {0};
    begin(&z);
    z.c.stored_name = dz_strdup("a", &err);
    add_task(&z, "a", 1, "", 0, 0);
    end(&z);
    dz_archive *a = open_partly();
    assert_int_equal(a->catalog->stored, 0);
    assert_non_null(strstr(a->catalog->stored_lost, "tensor 'w' is not stored by itself"));
    dz_archive_close(a);
    assert_int_equal(dz_archive_open(path, &a, &err), DZ_EDAMAGE);
}

/* Names of the tasks that are left, and a text that one that is lost has. */
static void loses(const char *left, const char *text) {
    char names[64] = "";
    dz_archive *a = open_partly();
    int found = 0;
    for (size_t t = 0; t < a->catalog->ntasks; t++) strcat(names, a->catalog->tasks[t].name);
    assert_string_equal(names, left);
    for (size_t i = 0; i < a->catalog->nlost; i++) found |= strstr(a->catalog->lost[i].text, text) != NULL;
    if (!found) fail_msg("%s", a->catalog->nlost ? a->catalog->lost[0].text : "nothing is lost");
    dz_archive_close(a);
}

static void test_circles_and_unknown_sources(void **state) {
    (void)state;
    zoo z;
    begin(&z);
    add_task(&z, "a", 1, "b", 0, 0);
    add_task(&z, "b", 2, "a", 1, 0);
    add_task(&z, "c", 2, "b", 1, 0);
    add_task(&z, "d", 2, "", 0, 0);
    end(&z);
    loses("d", "its sources refer to each other in a circle");
    begin(&z);
    add_task(&z, "a", 1, "gone", 0, 0);
    add_task(&z, "b", 2, "a", 1, 0);
    add_task(&z, "d", 2, "", 0, 0);
    end(&z);
    loses("d", "its source 'gone' is not in the archive");
    loses("d", "its source 'a' cannot be read");
    begin(&z);
    add_task(&z, "d", 2, "", 0, 0);
    add_task(&z, "a", 1, "d", 0, 0)->reference = 7;
    end(&z);
    loses("d", "row 0 of its index refers to a row that is not there");
    begin(&z);
    add_task(&z, "d", 2, "", 0, 0);
    add_task(&z, "a", 1, "d", 0, 0)->source = 2;
    end(&z);
    loses("d", "row 0 of its index is not sound");
    begin(&z);
    add_task(&z, "d", 2, "", 0, 0);
    add_task(&z, "a", 1, "d", 0, 1)->policy = DZ_POLICY_DROP;
    end(&z);
    loses("d", "row 0 of its index is not sound");
}

static void test_damage_below_is_the_tasks_own(void **state) {
    (void)state;
    zoo z;
    dz_error err = {0};
    dz_decoder d;
    float base[COUNT], got[COUNT], want[COUNT];
    begin(&z);
    add_task(&z, "a", 1, "", 0, 0);
    add_task(&z, "b", 2, "a", 1, 0);
    add_task(&z, "c", 3, "b", 2, 0);
    z.payload[1].data[3] ^= 1;
    end(&z);
    dz_archive *a = open_partly();
    fill(base, 0);
    assert_int_equal(dz_decoder_open(&d, a, NULL, NULL, &err), DZ_OK);
    d.given = (const uint8_t *)base;
    const dz_task_entry *c = &a->catalog->tasks[2];
    assert_int_equal(dz_decode_tile(&d, c, c->rows, 0, got, &err), DZ_EDAMAGE);
    assert_non_null(strstr(err.text, "task 'c': tensor 'w': block 0: what it is coded against: task 'b': tensor 'w': block 0 is damaged"));
    err = (dz_error){0};
    assert_int_equal(dz_decode_substitute(&d, c->rows, 0, got, &err), DZ_OK); /* b is lost too: what a has */
    fill(want, 1);
    assert_memory_equal(got, want, sizeof got);
    dz_decoder_close(&d);
    dz_archive_close(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_chain_restores_in_any_order),       cmocka_unit_test(test_a_stored_base_and_a_chain_from_nothing),
        cmocka_unit_test(test_a_base_that_is_not_stored_by_itself), cmocka_unit_test(test_circles_and_unknown_sources),
        cmocka_unit_test(test_damage_below_is_the_tasks_own),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}

/* Manifests and recipes as text: every problem of a file at once, each on its line; a recipe written out reads back to the same one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "config/manifest.h"
#include "config/recipe_text.h"
#include "config/yaml.h"

#define FILE_NAME "dz-test.yaml"
#define WITH_TASK "tasks: [{name: a, path: b}]\n"

static void put_file(const char *text, size_t len) {
    FILE *f = fopen(FILE_NAME, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static int go_to_scratch(void **state) {
    static char dir[] = "/tmp/dz-yaml-XXXXXX";
    *state = mkdtemp(dir);
    return *state && chdir(dir) == 0 ? 0 : -1;
}

static int leave_scratch(void **state) {
    unlink(FILE_NAME);
    return chdir("/") == 0 && rmdir(*state) == 0 ? 0 : -1;
}

/* Each line of `wanted` is how a line of the error goes on after the file's name. */
static void check_error(const dz_error *err, const char *wanted) {
    char text[DZ_ERROR_TEXT] = "";
    for (const char *at = wanted; *at;) {
        size_t len = strcspn(at, "\n");
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s:%.*s", text[0] ? "\n" : "", FILE_NAME, (int)len, at);
        at += len + (at[len] == '\n');
    }
    assert_string_equal(err->text, text);
    assert_int_equal(err->rc, wanted[0] ? DZ_EUSAGE : DZ_OK);
}

static void refused_manifest(const char *text, const char *wanted) {
    dz_error err = {0};
    dz_manifest *m = NULL;
    put_file(text, strlen(text));
    dz_manifest_load(FILE_NAME, &m, &err);
    check_error(&err, wanted);
    dz_manifest_free(m);
}

static void test_every_problem_of_a_manifest_is_reported_on_its_line(void **state) {
    (void)state;
    refused_manifest(
        "# colour: a comment is no key\nbase: b\n\"colour\": red\n" WITH_TASK "size: 1\n",
        "3: unknown key 'colour' (the keys are base, store_base, tasks)\n5: unknown key 'size' (the keys are base, store_base, tasks)");
    refused_manifest(
        "base: b\ntasks:\n  - name: a\n    path: x\n    colour: red\n  -\n    name: a\n    path: \"\"\n  - {name: a/b}\n  - z\n",
        "5: unknown key 'colour' (the keys are name, path, parent, quality, noise_to_delta, noise_to_base)\n"
        "10: an entry of 'tasks' must be a mapping with the keys name, path, parent, quality, noise_to_delta, noise_to_base\n"
        "8: 'path' is empty\n"
        "9: a task needs 'name' and 'path'\n"
        "9: 'a/b' cannot be a task's name (letters, digits, . _ + - only, at most 128, no . at the beginning)\n"
        "7: task 'a' is named twice, first on line 3");
    refused_manifest("tasks: x\n", "1: 'tasks' must be a list");
    refused_manifest("base: [b]\ntasks: []\n", "1: 'base' must be a single value\n no task");
    refused_manifest("base: ~\ntasks: null\n", " no task");
}

static void test_a_key_that_stands_twice_is_reported_on_its_second_line(void **state) {
    (void)state;
    refused_manifest("base: b\nbase: c\n" WITH_TASK, "2: 'base' is already set on line 1");
    refused_manifest("base:\nbase: c\n" WITH_TASK, "2: 'base' is already set on line 1");
    refused_manifest("base: b\nstore_base: 2\n" WITH_TASK, "2: store_base: '2' is neither true nor false");
    refused_manifest("store_base: yes\n" WITH_TASK, "1: store_base: there is no 'base' to store");
}

static void test_what_is_no_manifest_at_all_is_reported_in_plain_words(void **state) {
    (void)state;
    refused_manifest("", " is empty");
    refused_manifest("# nothing\n---\n", " is empty");
    refused_manifest("- base\n- tasks\n", "1: must be a mapping with the keys base, store_base, tasks");
    refused_manifest("\nbase: [b\n" WITH_TASK "}", "3: not YAML: did not find expected ',' or ']' (while parsing a flow sequence)");
    refused_manifest("base: b\nx: \"\x01\"\n", "2: not YAML: control characters are not allowed");
    refused_manifest("base: \"b\\0c\"\n" WITH_TASK, "1: 'base' must be a text without a zero byte");
}

static void test_a_second_document_is_refused(void **state) {
    (void)state;
    refused_manifest("base: b\n" WITH_TASK "---\nbase: c\n", "3: a second document begins: one is allowed");
    refused_manifest("base: b\n" WITH_TASK "--- [\n", "4: not YAML: did not find expected node content (while parsing a flow node)");
    refused_manifest("---\nbase: b\n" WITH_TASK "...\n", "");
}

static void test_nesting_without_end_is_refused_at_once(void **state) {
    (void)state;
    size_t len = 4000000;
    dz_error err = {0};
    dz_manifest *m = NULL;
    char *text = malloc(len);
    assert_non_null(text);
    memset(text, '[', len);
    put_file(text, len);
    free(text);
    dz_manifest_load(FILE_NAME, &m, &err);
    check_error(&err, "1: lists and mappings more than 64 deep");
}

static void test_aliases_and_quoted_nulls_are_read(void **state) {
    (void)state;
    static const char text[] = "base: &b \"~\"\ntasks:\n  - &t {name: \"null\", path: *b}\n";
    dz_error err = {0};
    dz_manifest *m = NULL;
    put_file(text, sizeof text - 1);
    assert_int_equal(dz_manifest_load(FILE_NAME, &m, &err), DZ_OK);
    assert_string_equal(m->base, "~");
    assert_string_equal(m->tasks[0].name, "null");
    assert_string_equal(m->tasks[0].path, "~");
    assert_int_equal(m->tasks[0].line, 3);
    dz_manifest_free(m);
    refused_manifest("base: b\ntasks: &all\n  - {name: a, path: b}\n  - *all\n",
                     "2: an entry of 'tasks' must be a mapping with the keys name, path, parent, quality, noise_to_delta, noise_to_base");
}

static dz_rc load_recipe(const char *text, size_t nsets, const char *const *sets, dz_recipe **out, dz_error *err) {
    dz_recipe_request request = {.recipe = FILE_NAME, .sets = sets, .nsets = nsets};
    put_file(text, strlen(text));
    return dz_recipe_load(&request, out, err);
}

#define RULES "tensors: [{match: \"*\", policy: ultradelta}]\n"

static void test_every_problem_of_a_recipe_is_reported_on_its_line(void **state) {
    (void)state;
    dz_error err = {0};
    dz_recipe *r = NULL;
    load_recipe("bits: 99\nsparsity: 0x0.8\ntensors:\n  - match: a\n    policy: lossy\n    bits: +4\n  - {match: b}\nsteps: 1\n", 0, NULL,
                &r, &err);
    assert_null(r);
    check_error(&err,
                "8: unknown key 'steps' (the keys are method, target_ratio, quality, noise_to_delta, noise_to_base, vocabulary, gain, dac, "
                "sparsity, step, bits, allocation, rescale, "
                "rounding, positions, tracenorm, nonfinite, seed, detect, tensors)\n"
                "2: sparsity: '0x0.8' is not a number in [0, 1)\n"
                "1: bits: '99' is not a whole number from 1 to 8\n"
                "5: policy: 'lossy' is not one of lossless, ultradelta, drop, structure\n"
                "6: bits: '+4' is not a whole number from 1 to 8\n"
                "7: a rule needs 'match' and 'policy'");
}

static void test_problems_of_set_are_reported_beside_those_of_the_file(void **state) {
    (void)state;
    static const char *const sets[] = {"foo=1", "bits", "seed= 1", "target_ratio=0.5"};
    dz_error err = {0};
    dz_recipe *r = NULL;
    load_recipe("bits: 99\n" RULES, 4, sets, &r, &err);
    assert_string_equal(err.text, FILE_NAME ":1: bits: '99' is not a whole number from 1 to 8\n"
                                            "--set foo=1: unknown key 'foo' (the keys are method, target_ratio, quality, noise_to_delta, "
                                            "noise_to_base, vocabulary, gain, dac, sparsity, step, bits, "
                                            "allocation, rescale, rounding, positions, tracenorm, nonfinite, seed)\n"
                                            "--set bits: KEY=VALUE is wanted\n"
                                            "--set: seed: ' 1' is not a whole number from 0 to 9223372036854775807\n"
                                            "--set: target_ratio: '0.5' is not a number in [1, 1e+06] or none");
    assert_int_equal(err.problems, 5);
    assert_null(r);
}

static void test_null_is_the_default_of_a_key(void **state) {
    (void)state;
    static const char *const words[] = {"null", "~", "", "Null", "NULL"};
    for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
        char sets[3][64], text[256];
        const char *list[3] = {sets[0], sets[1], sets[2]};
        static const char *const keys[3] = {"target_ratio", "step", "gain"};
        for (int i = 0; i < 3; i++) snprintf(sets[i], sizeof sets[i], "%s=%s", keys[i], words[w]);
        dz_error err = {0};
        dz_recipe *by_set = NULL, *by_file = NULL;
        load_recipe("target_ratio: 200\nstep: 0.001\ngain: 0.5\n" RULES, 3, list, &by_set, &err);
        snprintf(text, sizeof text, "target_ratio: %s\nstep: %s\ngain: %s\n" RULES, words[w], words[w], words[w]);
        load_recipe(text, 0, NULL, &by_file, &err);
        check_error(&err, "");
        char *a = dz_recipe_text(by_set, &err), *b = dz_recipe_text(by_file, &err);
        assert_non_null(
            strstr(a, "target_ratio: none\nquality: balanced\nnoise_to_delta: auto\nnoise_to_base: auto\nvocabulary: lossy\ngain: auto\n"));
        assert_string_equal(a, b);
        free(a);
        free(b);
        dz_recipe_free(by_set);
        dz_recipe_free(by_file);
    }
}

/* A recipe that went through PyYAML has `true` for `on` and `false` for `off`. */
static void test_booleans_are_read_in_all_of_yamls_words(void **state) {
    (void)state;
    static const char *const words[2][9] = {{"on", "On", "ON", "true", "True", "TRUE", "yes", "Yes", "YES"},
                                            {"off", "Off", "OFF", "false", "False", "FALSE", "no", "No", "NO"}};
    for (size_t i = 0; i < 18; i++) {
        char text[128], set[32];
        const char *word = words[i / 9][i % 9], *sets[1] = {set};
        dz_error err = {0};
        dz_recipe *r = NULL;
        snprintf(text, sizeof text, "dac: %s\n" RULES, word);
        load_recipe(text, 0, NULL, &r, &err);
        check_error(&err, "");
        assert_int_equal(r->no_groups, i / 9);
        dz_recipe_free(r);
        r = NULL;
        snprintf(set, sizeof set, "dac=%s", word);
        load_recipe(i < 9 ? "dac: off\n" RULES : RULES, 1, sets, &r, &err);
        assert_int_equal(r->no_groups, i / 9);
        dz_recipe_free(r);
        r = NULL;
        snprintf(text, sizeof text, "tracenorm: %s\n" RULES, word);
        load_recipe(text, 0, NULL, &r, &err);
        if (i >= 9) assert_int_equal(r->tracenorm, DZ_TRACENORM_OFF);
        snprintf(text, sizeof text, "1: tracenorm: '%s' is not one of slq, exact, off", word);
        check_error(&err, i < 9 ? text : "");
        dz_recipe_free(r);
    }
    assert_int_equal(dz_yaml_boolean("oN"), -1);
    assert_int_equal(dz_yaml_boolean(""), -1);
}

static uint64_t dice(uint64_t *state) { return *state = dz_hash64(state, sizeof *state, 1); }

/* Any double from 0 up to below `most`, simple ones and ones with all digits. */
static double any_number(uint64_t *state, double most) {
    static const double simple[] = {0, 0.97, 0.1, 1e-5, 0.995, 0.30000000000000004};
    uint64_t x = dice(state);
    return most * (x % 2 ? simple[x / 2 % 6] : (double)(x >> 11) / 9007199254740992.0);
}

static dz_recipe *any_recipe(uint64_t *state, dz_error *err) {
    static const char *const matches[] = {"*",
                                          "*\\[a\\]*",
                                          "x\"y*",
                                          "~",
                                          "null",
                                          "a: b, # c",
                                          "{%d}",
                                          "\t\n\r",
                                          "'",
                                          " a ",
                                          "\xc3\xa9*ü",
                                          "",
                                          "\xf0\x9f\x99\x82\xe2\x80\xa8\xc2\x85\xef\xbb\xbf"};
    dz_recipe *r = dz_alloc(1, sizeof *r, err);
    *r = (dz_recipe){.method = DZ_METHOD_ULTRADELTA,
                     .noise_to_delta = (double)NAN,
                     .noise_to_base = (double)NAN,
                     .sparsity = any_number(state, 0.5),
                     .step = any_number(state, 0.5),
                     .target_ratio = dice(state) % 2 ? 0 : 1 + any_number(state, 999999),
                     .gain = dice(state) % 2 ? (double)NAN : 0.01 + any_number(state, 9),
                     .bits = 1 + (int)(dice(state) % 8),
                     .no_groups = (int)(dice(state) % 2),
                     .allocation = (dz_allocation_rule)(dice(state) % 3),
                     .rescale = (dz_rescale)(dice(state) % 2),
                     .rounding = (dz_rounding)(dice(state) % 2),
                     .positions = (dz_positions)(dice(state) % 2),
                     .tracenorm = (dz_tracenorm)(dice(state) % 3),
                     .nonfinite = (dz_nonfinite)(dice(state) % 2),
                     .seed = dice(state) >> 1,
                     .nrules = 1 + dice(state) % 4};
    r->rules = dz_alloc(r->nrules, sizeof *r->rules, err);
    for (size_t i = 0; i < r->nrules; i++)
        r->rules[i] = (dz_rule){.match = dz_strdup(matches[dice(state) % (sizeof matches / sizeof *matches)], err),
                                .policy = (dz_policy)(dice(state) % 3),
                                .sparsity = dice(state) % 2 ? (double)NAN : any_number(state, 1),
                                .bits = (int)(dice(state) % 9),
                                .factor = dice(state) % 2 ? 1 : any_number(state, 100)};
    return r;
}

static int same_number(double x, double y) { return isnan(x) ? isnan(y) : x == y; }

static void test_a_recipe_written_out_reads_back_to_the_same_bits(void **state) {
    (void)state;
    uint64_t seed = 1;
    dz_error err = {0};
    for (int round = 0; round < 300; round++) {
        dz_recipe *r = any_recipe(&seed, &err), *again = NULL;
        char *text = dz_recipe_text(r, &err);
        load_recipe(text, 0, NULL, &again, &err);
        check_error(&err, "");
        char *text_again = dz_recipe_text(again, &err);
        assert_string_equal(text_again, text);
        assert_true(same_number(r->sparsity, again->sparsity) && same_number(r->step, again->step) && same_number(r->gain, again->gain));
        assert_true(same_number(r->target_ratio, again->target_ratio) && r->seed == again->seed && r->bits == again->bits);
        assert_int_equal(r->nrules, again->nrules);
        for (size_t i = 0; i < r->nrules; i++) {
            const dz_rule *x = &r->rules[i], *y = &again->rules[i];
            assert_string_equal(x->match, y->match);
            assert_true(x->policy == y->policy && x->bits == y->bits && same_number(x->sparsity, y->sparsity) &&
                        same_number(x->factor, y->factor));
        }
        free(text);
        free(text_again);
        dz_recipe_free(r);
        dz_recipe_free(again);
    }
}

static void test_numbers_of_a_recipe_are_written_as_people_do(void **state) {
    (void)state;
    static const char text[] = "target_ratio: 200\nsparsity: 0.97\nstep: 1e-5\n" RULES;
    dz_error err = {0};
    dz_recipe *r = NULL;
    load_recipe(text, 0, NULL, &r, &err);
    char *full = dz_recipe_text(r, &err);
    assert_string_equal(
        full,
        "method: auto\ntarget_ratio: 200\nquality: none\nnoise_to_delta: auto\nnoise_to_base: auto\nvocabulary: lossy\ngain: auto\ndac: "
        "on\nsparsity: 0.97\nstep: 1e-05\nbits: 4\n"
        "allocation: thirds\nrescale: global\nrounding: nearest\npositions: seeded\ntracenorm: slq\nnonfinite: error\n"
        "seed: 42\ntensors:\n  - {match: \"*\", policy: ultradelta}\n");
    free(full);
    dz_recipe_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_problem_of_a_manifest_is_reported_on_its_line),
                                       cmocka_unit_test(test_a_key_that_stands_twice_is_reported_on_its_second_line),
                                       cmocka_unit_test(test_what_is_no_manifest_at_all_is_reported_in_plain_words),
                                       cmocka_unit_test(test_a_second_document_is_refused),
                                       cmocka_unit_test(test_nesting_without_end_is_refused_at_once),
                                       cmocka_unit_test(test_aliases_and_quoted_nulls_are_read),
                                       cmocka_unit_test(test_every_problem_of_a_recipe_is_reported_on_its_line),
                                       cmocka_unit_test(test_problems_of_set_are_reported_beside_those_of_the_file),
                                       cmocka_unit_test(test_null_is_the_default_of_a_key),
                                       cmocka_unit_test(test_booleans_are_read_in_all_of_yamls_words),
                                       cmocka_unit_test(test_a_recipe_written_out_reads_back_to_the_same_bits),
                                       cmocka_unit_test(test_numbers_of_a_recipe_are_written_as_people_do)};
    return cmocka_run_group_tests(tests, go_to_scratch, leave_scratch);
}

/* The search of deltazoo tune, and how it reads a command's output. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tune/command.h"
#include "tune/search.h"

/* Searches where all noise up to `bears` is within the limit. */
static dz_tune_step find(double bears, unsigned steps, size_t *evaluations) {
    dz_tune_scored scored[DZ_TUNE_MOST_STEPS];
    dz_tune_step step;
    for (*evaluations = 0; !(step = dz_tune_next(scored, *evaluations, steps)).done; ++*evaluations) {
        assert_true(*evaluations < steps);
        scored[*evaluations] = (dz_tune_scored){.noise = step.noise, .ok = step.noise <= bears};
    }
    return step;
}

static void search_finds_the_largest_rung_within_the_limit(void **state) {
    (void)state;
    size_t n;
    for (unsigned steps = 1; steps <= 7; steps++) {
        for (unsigned k = 0; k < 1U << steps; k++) {
            double bears = dz_tune_rung(k, steps);
            dz_tune_step found = find(bears, steps, &n);
            assert_true(found.noise == bears);
            assert_int_equal(found.k, k);
            assert_int_equal(n, steps);
        }
    }
}

static void longer_search_begins_as_a_shorter_one(void **state) {
    (void)state;
    for (unsigned steps = 1; steps < DZ_TUNE_MOST_STEPS; steps++) {
        for (unsigned k = 0; k < 1U << steps; k++) assert_true(dz_tune_rung(k, steps) == dz_tune_rung(2 * k, steps + 1));
        for (unsigned k = 1; k < 1U << steps; k++) { /* three digits: neighbours of 2^11 may be equal */
            double less = dz_tune_rung(k - 1, steps), more = dz_tune_rung(k, steps);
            assert_true(steps <= 10 ? more > less : more >= less);
        }
    }
}

static void drop_is_absolute_or_relative(void **state) {
    (void)state;
    dz_drop_limit limit = {0};
    assert_true(dz_drop_limit_parse("0.01", &limit) && !limit.relative);
    assert_true(dz_drop_ok(&limit, 0.93, 0.92));
    assert_false(dz_drop_ok(&limit, 0.93, 0.9199));
    assert_true(dz_drop_ok(&limit, 0.93, 0.99));
    assert_false(dz_drop_ok(&limit, 0.93, (double)NAN));
    limit.lower_better = 1;
    assert_true(dz_drop_ok(&limit, 0.92, 0.93));
    assert_false(dz_drop_ok(&limit, 0.92, 0.9301));
    assert_true(dz_drop_limit_parse("0.5%", &limit) && limit.relative);
    assert_true(dz_drop_ok(&limit, 200, 201));
    assert_false(dz_drop_ok(&limit, 200, 201.1));
    assert_true(dz_drop_ok(&limit, -200, -199));
    static const char *const bad[] = {"", "%", "-1", "1%%", "x", "0x10", "nan", "inf", "1 %"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(dz_drop_limit_parse(bad[i], &limit));
}

static void last_number_of_an_output(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double number;
    } cases[] = {{"acc 0.5\nacc: 0.75\n", 0.75},
                 {"93.5%", 93.5},
                 {"loss=-1.25e-3 done", -1.25e-3},
                 {"0.9 (model v2)", 0.9},
                 {"|acc|0.95|", 0.95},
                 {"1 step10 x3", 1},
                 {"{\"score\": 12}", 12},
                 {".5", 0.5},
                 {"inf", (double)INFINITY},
                 {"5.", 5},
                 {"+7", 7},
                 {"3 information nanny", 3},
                 {"1e", -1},
                 {"2 of 3.4.5", 3.4}};
    double x;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        x = -1;
        int any = dz_last_number(cases[i].text, strlen(cases[i].text), &x);
        assert_true(x == cases[i].number);
        assert_int_equal(any, strcmp(cases[i].text, "1e") != 0);
    }
    assert_true(dz_last_number("score: nan", 10, &x) && isnan(x));
    assert_false(dz_last_number("", 0, &x));
    assert_false(dz_last_number("model2 is fine", 14, &x));
}

static void paths_are_words_of_the_command(void **state) {
    (void)state;
    dz_error err = {0};
    char *text = dz_command_text("eval {model} {task} {base} {} {models}", "/tmp/a b/it's", "math", "base", &err);
    assert_string_equal(text, "eval '/tmp/a b/it'\\''s' math base {} {models}");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(search_finds_the_largest_rung_within_the_limit),
        cmocka_unit_test(longer_search_begins_as_a_shorter_one),
        cmocka_unit_test(drop_is_absolute_or_relative),
        cmocka_unit_test(last_number_of_an_output),
        cmocka_unit_test(paths_are_words_of_the_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tune/state.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "archive/catalog.h"
#include "base/file.h"
#include "base/staging.h"

#define KIND "deltazoo_tune"
#define STATE_MAX ((size_t)4 << 20)

/* JSON has no word for what is not finite. */
static json_t *number_json(double x) { return isfinite(x) ? json_real(x) : json_string(isnan(x) ? "nan" : x > 0 ? "inf" : "-inf"); }

/* 1 if it is one. */
static int take_number(const json_t *json, double *x) {
    const char *word = json_string_value(json);
    if (json_is_number(json)) {
        *x = json_number_value(json);
        return 1;
    }
    if (!word) return 0;
    *x = strcmp(word, "nan") == 0 ? (double)NAN : strcmp(word, "inf") == 0 ? (double)INFINITY : -(double)INFINITY;
    return strcmp(word, "nan") == 0 || strcmp(word, "inf") == 0 || strcmp(word, "-inf") == 0;
}

static int take_candidate(const json_t *json, dz_tune_candidate *c) {
    const char *content = json_string_value(json_object_get(json, "content"));
    if (!content || strlen(content) != 32) return 0;
    memcpy(c->content, content, 33);
    c->exact = json_is_true(json_object_get(json, "exact"));
    return take_number(json_object_get(json, "noise_to_delta"), &c->noise) &&
           take_number(json_object_get(json, "stored_bytes"), &c->stored) &&
           take_number(json_object_get(json, "expected_noise"), &c->measured) && take_number(json_object_get(json, "score"), &c->score);
}

static int take_state(const json_t *root, dz_tune_state *s) {
    const json_t *list = json_object_get(root, "candidates");
    size_t n = json_array_size(list);
    s->has_original = take_number(json_object_get(root, "original"), &s->original);
    s->has_base = take_number(json_object_get(root, "base"), &s->base);
    s->evaluations = (int)json_integer_value(json_object_get(root, "evaluations"));
    if (n > sizeof s->candidates / sizeof *s->candidates) return 0;
    for (; s->ncandidates < n; s->ncandidates++) {
        if (!take_candidate(json_array_get(list, s->ncandidates), &s->candidates[s->ncandidates])) return 0;
    }
    return 1;
}

static int is(const json_t *root, const char *key, const char *wanted) {
    const char *value = json_string_value(json_object_get(root, key));
    return value && strcmp(value, wanted) == 0;
}

dz_rc dz_tune_state_read(const char *path, const char *task, const dz_tune_key *key, dz_tune_state *s, dz_error *err) {
    char *text = NULL;
    size_t len = 0;
    *s = (dz_tune_state){0};
    if (access(path, F_OK) != 0) return DZ_OK;
    if (dz_read_file(path, STATE_MAX, &text, &len, err) != DZ_OK) return err->rc;
    json_t *root = json_loadb(text, len, 0, NULL);
    const char *differs = !is(root, "task", task)              ? "task"
                          : !is(root, "models", key->models)   ? "models"
                          : !is(root, "recipe", key->recipe)   ? "recipe or program"
                          : !is(root, "command", key->command) ? "command"
                                                               : NULL;
    if (json_integer_value(json_object_get(root, KIND)) != 1)
        dz_fail(err, DZ_EUSAGE, "%s: is not a state of deltazoo tune", path);
    else if (differs)
        dz_fail(err, DZ_EUSAGE,
                "%s: scores of a job that differs from this one in its %s; remove the file to begin anew, or give another -o", path,
                differs);
    else if (!take_state(root, s))
        dz_fail(err, DZ_EUSAGE, "%s: is damaged; remove the file to begin anew", path);
    json_decref(root);
    free(text);
    return err->rc;
}

dz_rc dz_tune_state_write(const char *path, const char *task, const dz_tune_key *key, const dz_tune_state *s, dz_error *err) {
    json_t *list = json_array();
    for (size_t i = 0; i < s->ncandidates; i++) {
        const dz_tune_candidate *c = &s->candidates[i];
        json_array_append_new(list, json_pack("{s:f, s:f, s:f, s:b, s:s, s:o}", "noise_to_delta", c->noise, "stored_bytes", c->stored,
                                              "expected_noise", c->measured, "exact", c->exact, "content", c->content, "score",
                                              number_json(c->score)));
    }
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:o}", KIND, 1, "task", task, "command", key->command, "recipe",
                             key->recipe, "models", key->models, "evaluations", s->evaluations, "original",
                             s->has_original ? number_json(s->original) : json_null(), "base",
                             s->has_base ? number_json(s->base) : json_null(), "candidates", list);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (text)
        dz_replace_file(path, text, strlen(text), err);
    else
        dz_fail(err, DZ_EFAIL, "%s: cannot be written: the command is not UTF-8, or memory is out", path);
    json_decref(root);
    free(text);
    return err->rc;
}

void dz_tune_state_remove(const char *path) {
    char *text = NULL;
    size_t len = 0;
    dz_error none = {0};
    if (dz_read_file(path, STATE_MAX, &text, &len, &none) != DZ_OK) return;
    json_t *root = json_loadb(text, len, 0, NULL);
    if (json_integer_value(json_object_get(root, KIND)) == 1) unlink(path);
    json_decref(root);
    free(text);
}

const dz_tune_candidate *dz_tune_find(const dz_tune_state *s, double noise) {
    for (size_t i = 0; i < s->ncandidates; i++) {
        if (s->candidates[i].noise == noise) return &s->candidates[i];
    }
    return NULL;
}

char *dz_tune_score_text(const dz_tune_state *s, const dz_tune_candidate *chosen, const dz_drop_limit *limit, const char *command,
                         dz_error *err) {
    double tuned = chosen ? chosen->score : s->original;
    json_t *root = json_pack("{s:o, s:o, s:o, s:f, s:f, s:s, s:s, s:i, s:s}", "original", number_json(s->original), "base",
                             number_json(s->base), "tuned", number_json(tuned), "drop", dz_drop(limit, s->original, tuned), "max_drop",
                             limit->most, "drop_type", limit->relative ? "relative" : "absolute", "better",
                             limit->lower_better ? "lower" : "higher", "evaluations", s->evaluations, "command", command);
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    json_decref(root);
    if (!text) dz_fail(err, DZ_ENOMEM, "out of memory");
    if (text && strlen(text) > DZ_SCORE_MAX) {
        free(text);
        text = NULL;
        dz_fail(err, DZ_EUSAGE, "--eval: the command is too long to be kept in an archive: put it into a script");
    }
    return text;
}

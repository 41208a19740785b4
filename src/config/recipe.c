#include "config/recipe.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "config/builtin.h"
#include "config/recipe_text.h"
#include "config/yaml.h"

#define RECIPE_MAX ((size_t)1 << 20)

/* Scalars are read as text and converted afterwards, so that a file and --set share the code and all mistakes are reported at once. */
enum { RULE_POLICY, RULE_SPARSITY, RULE_BITS, RULE_FACTOR, NRULEKEYS };
static const char *const RULE_KEYS[NRULEKEYS] = {"policy", "sparsity", "bits", "factor"};

typedef struct raw_rule {
    char *match, *value[NRULEKEYS];
} raw_rule;

typedef struct raw_recipe {
    char *value[DZ_NKEYS], *detect;
    dz_yaml_list rules;
} raw_recipe;

#define RULE_TEXT(key, m)                                                                                                                  \
    { key, DZ_YAML_TEXT, offsetof(raw_rule, m), NULL }
#define KEY_TEXT(key, m)                                                                                                                   \
    { key, DZ_YAML_TEXT, offsetof(raw_recipe, m), NULL }

static const dz_yaml_field RULE_FIELDS[] = {
    RULE_TEXT("match", match),           RULE_TEXT("policy", value[RULE_POLICY]), RULE_TEXT("sparsity", value[RULE_SPARSITY]),
    RULE_TEXT("bits", value[RULE_BITS]), RULE_TEXT("factor", value[RULE_FACTOR]), {NULL, DZ_YAML_TEXT, 0, NULL},
};
static const dz_yaml_table RULE = {RULE_FIELDS, sizeof(raw_rule)};
static const dz_yaml_field RECIPE_FIELDS[] = {
    KEY_TEXT("method", value[DZ_KEY_METHOD]),
    KEY_TEXT("target_ratio", value[DZ_KEY_TARGET]),
    KEY_TEXT("quality", value[DZ_KEY_QUALITY]),
    KEY_TEXT("noise_to_delta", value[DZ_KEY_NOISE_TO_DELTA]),
    KEY_TEXT("noise_to_base", value[DZ_KEY_NOISE_TO_BASE]),
    KEY_TEXT("vocabulary", value[DZ_KEY_VOCABULARY]),
    KEY_TEXT("gain", value[DZ_KEY_GAIN]),
    KEY_TEXT("dac", value[DZ_KEY_DAC]),
    KEY_TEXT("sparsity", value[DZ_KEY_SPARSITY]),
    KEY_TEXT("step", value[DZ_KEY_STEP]),
    KEY_TEXT("bits", value[DZ_KEY_BITS]),
    KEY_TEXT("allocation", value[DZ_KEY_ALLOCATION]),
    KEY_TEXT("rescale", value[DZ_KEY_RESCALE]),
    KEY_TEXT("rounding", value[DZ_KEY_ROUNDING]),
    KEY_TEXT("positions", value[DZ_KEY_POSITIONS]),
    KEY_TEXT("tracenorm", value[DZ_KEY_TRACENORM]),
    KEY_TEXT("nonfinite", value[DZ_KEY_NONFINITE]),
    KEY_TEXT("seed", value[DZ_KEY_SEED]),
    KEY_TEXT("detect", detect),
    {"tensors", DZ_YAML_LIST, offsetof(raw_recipe, rules), &RULE},
    {NULL, DZ_YAML_TEXT, 0, NULL},
};
static const dz_yaml_table RECIPE = {RECIPE_FIELDS, sizeof(raw_recipe)};

static dz_recipe *defaults(dz_error *err) {
    dz_recipe *r = dz_alloc(1, sizeof *r, err);
    for (int k = 0; r && k < DZ_NKEYS; k++) dz_recipe_set(r, k, "", "", err);
    return r;
}

/* A text being parsed. `own`: the user's file, not a built-in recipe. */
typedef struct source {
    const char *name;
    int own;
    dz_yaml yaml;
} source;

/* "FILE:LINE" of a value, for complaints; the caller frees. */
static char *place_of(const source *s, size_t item, const char *key, dz_error *err) {
    return dz_format(err, "%s:%d", s->name, dz_yaml_line(&s->yaml, item, key));
}

static void take_rule(const source *s, const raw_rule *raw, size_t item, dz_rule *rule, dz_error *err) {
    int line = dz_yaml_line(&s->yaml, item, NULL);
    *rule = (dz_rule){.sparsity = (double)NAN, .factor = 1, .line = s->own ? line : 0};
    if (!dz_yaml_find(&s->yaml, item, "match") || !dz_yaml_find(&s->yaml, item, "policy"))
        dz_fail_more(err, DZ_EUSAGE, "%s:%d: a rule needs 'match' and 'policy'", s->name, line);
    if (raw->match) rule->match = dz_strdup(raw->match, err);
    for (int k = 0; k < NRULEKEYS; k++) {
        char *where = raw->value[k] ? place_of(s, item, RULE_KEYS[k], err) : NULL;
        if (where) dz_rule_set(rule, RULE_KEYS[k], raw->value[k], where, err);
        free(where);
    }
}

static void take_recipe(const source *s, const raw_recipe *raw, dz_recipe *r, dz_error *err) {
    for (int k = 0; k < DZ_NKEYS; k++) {
        char *where = raw->value[k] ? place_of(s, 0, dz_recipe_key_name(k), err) : NULL;
        if (where) dz_recipe_set(r, k, raw->value[k], where, err);
        free(where);
    }
    if (raw->detect && s->own) r->detect_line = dz_yaml_line(&s->yaml, 0, "detect");
    const raw_rule *rules = raw->rules.items;
    if (!(r->rules = dz_alloc(raw->rules.n, sizeof *r->rules, err))) return;
    for (size_t i = 0; i < raw->rules.n; i++) take_rule(s, &rules[i], i + 1, &r->rules[r->nrules++], err);
}

/* Into defaults. `*rules_refused`: it has rules, but they could not be read. */
static dz_rc parse_text(source s, const char *text, size_t len, dz_recipe *r, int *rules_refused, dz_error *err) {
    dz_yaml_load(s.name, text, len, &RECIPE, &s.yaml, err);
    const dz_yaml_place *rules = dz_yaml_find(&s.yaml, 0, "tensors");
    *rules_refused = !s.yaml.data || (rules && rules->refused);
    if (s.yaml.data) take_recipe(&s, s.yaml.data, r, err);
    dz_yaml_free(&s.yaml);
    return err->rc;
}

static dz_recipe *parse_builtin(const dz_builtin *b, dz_error *err) {
    int refused = 0;
    dz_recipe *r = defaults(err);
    if (r && parse_text((source){.name = b->name}, b->text, strlen(b->text), r, &refused, err) == DZ_OK &&
        (r->name = dz_strdup(b->name, err)))
        return r;
    dz_recipe_free(r);
    return NULL;
}

static int matches_any(const char *glob, const dz_checkpoint *ck) {
    for (size_t i = 0; i < ck->ntensors; i++) {
        if (fnmatch(glob, ck->tensors[i].name, 0) == 0) return 1;
    }
    return 0;
}

static const char USUAL[] = "structure"; /* the recipe of who gives none */

static const dz_builtin *builtin_named(const char *name) {
    for (const dz_builtin *b = DZ_BUILTINS; b->name; b++) {
        if (strcmp(b->name, name) == 0) return b;
    }
    return NULL;
}

static void unknown_recipe(const char *name, dz_error *err) {
    char known[512] = "";
    for (const dz_builtin *b = DZ_BUILTINS; b->name; b++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", known[0] ? ", " : "", b->name);
    dz_fail_more(err, DZ_EUSAGE, "--recipe %s: neither a file nor a built-in recipe (%s)", name, known);
}

/* The rules of the recipe structure, for one that has none. */
static void take_usual_rules(dz_recipe *r, dz_error *err) {
    dz_recipe *usual = parse_builtin(builtin_named(USUAL), err);
    if (usual) {
        dz_rule *none = r->rules;
        r->rules = usual->rules;
        r->nrules = usual->nrules;
        usual->rules = none;
        usual->nrules = 0;
    }
    dz_recipe_free(usual);
}

/* The user's file. A file without rules takes those of the recipe structure, and keeps its own numbers. */
static void read_own(const char *path, dz_recipe *r, dz_error *err) {
    char *text = NULL;
    size_t len = 0;
    dz_error of_usual = {0};
    int rules_refused = 0;
    r->name = dz_strdup(path, err);
    if (access(path, R_OK) != 0) {
        unknown_recipe(path, err);
        return;
    }
    if (dz_read_file(path, RECIPE_MAX, &text, &len, err) != DZ_OK) {
        err->rc = DZ_EUSAGE;
        return;
    }
    parse_text((source){.name = path, .own = 1}, text, len, r, &rules_refused, err);
    free(text);
    if (r->nrules == 0 && !rules_refused) take_usual_rules(r, &of_usual);
    dz_fail_join(err, &of_usual);
}

static void apply_sets(dz_recipe *r, const char *const *sets, size_t nsets, const char *where, dz_error *err) {
    for (size_t i = 0; i < nsets; i++) {
        const char *text = sets[i], *equals = strchr(text, '=');
        if (!equals || equals == text) {
            dz_fail_more(err, DZ_EUSAGE, "--set %s: KEY=VALUE is wanted", text);
            continue;
        }
        int key = dz_recipe_key(text, (size_t)(equals - text));
        if (key >= 0) {
            dz_recipe_set(r, key, equals + 1, where, err);
            continue;
        }
        char known[300] = "";
        for (int k = 0; k < DZ_NKEYS; k++)
            snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", k ? ", " : "", dz_recipe_key_name(k));
        dz_fail_more(err, DZ_EUSAGE, "--set %s: unknown key '%.*s' (the keys are %s)", text, (int)(equals - text), text, known);
    }
}

#define KEY(key) (1u << (key))
#define ONLY_ULTRADELTA                                                                                                                    \
    (KEY(DZ_KEY_SPARSITY) | KEY(DZ_KEY_DAC) | KEY(DZ_KEY_STEP) | KEY(DZ_KEY_BITS) | KEY(DZ_KEY_ALLOCATION) | KEY(DZ_KEY_RESCALE) |         \
     KEY(DZ_KEY_ROUNDING) | KEY(DZ_KEY_POSITIONS) | KEY(DZ_KEY_TRACENORM))
#define LIMITS (KEY(DZ_KEY_NOISE_TO_DELTA) | KEY(DZ_KEY_NOISE_TO_BASE))
#define FIXED_ACCURACY (KEY(DZ_KEY_QUALITY) | LIMITS)

/* How the bytes are chosen, where the user left it open. `file`: keys given before --set, `sets`: by --set, which goes before a file. */
static void settle(dz_recipe *r, uint32_t file, uint32_t sets, dz_error *err) {
    const char *name = r->name ? r->name : "the recipe";
    uint32_t given = file | sets;
    if (!(given & KEY(DZ_KEY_METHOD)) && (given & ONLY_ULTRADELTA) && !(given & (KEY(DZ_KEY_TARGET) | FIXED_ACCURACY))) {
        r->method = DZ_METHOD_ULTRADELTA;
        r->method_implied = 1;
    }
    if (r->method != DZ_METHOD_AUTO) {
        if (r->quality != DZ_QUALITY_NONE || (given & LIMITS && (!isnan(r->noise_to_delta) || !isnan(r->noise_to_base))))
            dz_fail_more(err, DZ_EUSAGE, "%s: quality and its limits go with method auto, not %s", name, dz_method_name(r->method));
        return;
    }
    if ((sets & KEY(DZ_KEY_TARGET)) && r->target_ratio > 0 && !(sets & FIXED_ACCURACY)) r->quality = DZ_QUALITY_NONE;
    if ((sets & FIXED_ACCURACY) && !(sets & KEY(DZ_KEY_TARGET))) r->target_ratio = 0;
    if ((sets & KEY(DZ_KEY_SPARSITY)) && !(sets & (KEY(DZ_KEY_TARGET) | FIXED_ACCURACY))) {
        r->quality = DZ_QUALITY_NONE;
        r->target_ratio = 0;
        return;
    }
    int limits = !isnan(r->noise_to_delta) || !isnan(r->noise_to_base);
    if (r->target_ratio > 0 && (r->quality != DZ_QUALITY_NONE || (given & LIMITS && limits)))
        dz_fail_more(err, DZ_EUSAGE, "%s: target_ratio and quality exclude each other: give one of them", name);
    int open = r->target_ratio <= 0 && r->quality == DZ_QUALITY_NONE && !(given & (KEY(DZ_KEY_SPARSITY) | KEY(DZ_KEY_QUALITY)));
    if (open || (limits && r->quality == DZ_QUALITY_NONE && r->target_ratio <= 0)) r->quality = DZ_QUALITY_BALANCED;
}

int dz_recipe_is_exact(const dz_recipe *r) {
    int exact = 1;
    for (size_t i = 0; i < r->nrules; i++) exact &= r->rules[i].policy == DZ_POLICY_LOSSLESS;
    return exact || r->quality == DZ_QUALITY_LOSSLESS;
}

int dz_recipe_codes_vocabulary(const dz_recipe *r) {
    int fixed_accuracy = r->method == DZ_METHOD_AUTO && r->quality != DZ_QUALITY_NONE && r->quality != DZ_QUALITY_LOSSLESS;
    return fixed_accuracy && r->vocabulary == DZ_VOCABULARY_LOSSY;
}

dz_noise_limits dz_recipe_limits(const dz_recipe *r) {
    static const dz_verdict verdicts[] = {DZ_VERDICT_POOR, DZ_VERDICT_HIGH, DZ_VERDICT_BALANCED, DZ_VERDICT_SMALL, DZ_VERDICT_EXACT};
    dz_noise_limits limits = dz_verdict_limits(verdicts[r->quality]);
    if (!isnan(r->noise_to_delta)) limits.to_delta = r->noise_to_delta;
    if (!isnan(r->noise_to_base)) limits.to_base = r->noise_to_base;
    return limits;
}

static void check(dz_recipe *r, dz_error *err) {
    const char *name = r->name ? r->name : "the recipe";
    if (isnan(r->step)) r->step = fmin(0.01, (1 - r->sparsity) / 3);
    if (r->target_ratio > 0 && r->method != DZ_METHOD_AUTO && r->method != DZ_METHOD_ULTRADELTA)
        dz_fail_more(err, DZ_EUSAGE, "%s: target_ratio goes with methods auto and ultradelta, not %s", name, dz_method_name(r->method));
    if (r->method == DZ_METHOD_ULTRADELTA && r->allocation == DZ_ALLOCATE_THIRDS && r->sparsity + r->step >= 1)
        dz_fail_more(err, DZ_EUSAGE, "%s: sparsity %g + step %g is not below 1 (the low-variance third would keep nothing)", name,
                     r->sparsity, r->step);
}

/* With settings of a task's own, or NULL. */
static dz_rc load(const dz_recipe_request *request, const dz_task_request *own, const char *where, dz_recipe **out, dz_error *err) {
    const dz_builtin *builtin = builtin_named(request->recipe ? request->recipe : USUAL);
    dz_recipe *r = builtin ? parse_builtin(builtin, err) : NULL;
    if (r && r->nrules == 0) take_usual_rules(r, err);
    if (!r) r = defaults(err); /* to read the rest into */
    if (!r) return err->rc;
    if (!request->recipe || !builtin) r->given = 0; /* what nobody asked for, and defaults, are not the user's */
    if (!builtin) read_own(request->recipe, r, err);
    uint32_t file = r->given;
    r->given = 0;
    apply_sets(r, request->sets, request->nsets, "--set", err);
    if (own) apply_sets(r, own->sets, own->nsets, where, err);
    settle(r, file, r->given, err);
    check(r, err);
    if (err->rc == DZ_OK && r->nrules) {
        *out = r;
        r = NULL;
    }
    dz_recipe_free(r);
    return err->rc;
}

dz_rc dz_recipe_load(const dz_recipe_request *request, dz_recipe **out, dz_error *err) { return load(request, NULL, NULL, out, err); }

dz_rc dz_recipe_load_own(const dz_recipe_request *request, const dz_task_request *own, const char *where, dz_recipe **out, dz_error *err) {
    dz_recipe *all = NULL;
    if (dz_recipe_load(request, &all, err) != DZ_OK) return err->rc;
    if (all->method != DZ_METHOD_AUTO || all->target_ratio > 0)
        dz_fail_more(err, DZ_EUSAGE, "%s: task '%s': quality and its limits go with method auto, and not with target_ratio", where,
                     own->task);
    else
        load(request, own, where, out, err);
    dz_recipe_free(all);
    return err->rc;
}

void dz_recipe_free(dz_recipe *r) {
    if (!r) return;
    for (size_t i = 0; i < r->nrules; i++) free(r->rules[i].match);
    free(r->rules);
    free(r->name);
    free(r);
}

const dz_rule *dz_recipe_rule(const dz_recipe *r, const char *tensor) {
    for (size_t i = 0; i < r->nrules; i++) {
        if (fnmatch(r->rules[i].match, tensor, 0) == 0) return &r->rules[i];
    }
    return NULL;
}

/* Why a rule decides about no tensor. "*" at the end is there for what the rules before it leave, which may be nothing. */
static void note_unused(const dz_recipe *r, const dz_rule *rule, dz_checkpoint *const *tasks, size_t ntasks, dz_buf *notes, dz_error *err) {
    int matches = 0;
    if (strcmp(rule->match, "*") == 0) return;
    for (size_t t = 0; t < ntasks && !matches; t++) matches = matches_any(rule->match, tasks[t]);
    dz_buf_note(notes, err, "%s:%d: rule '%s' (%s) %s", r->name, rule->line, rule->match, dz_policy_name(rule->policy),
                matches ? "comes too late: rules before it decide about every tensor that it matches" : "matches no tensor of any task");
}

dz_rc dz_recipe_notes(const dz_recipe *r, dz_checkpoint *const *tasks, size_t ntasks, dz_buf *notes, dz_error *err) {
    if (r->detect_line) dz_buf_note(notes, err, "%s:%d: 'detect' has no effect: a recipe is chosen with --recipe", r->name, r->detect_line);
    uint8_t *used = dz_alloc(r->nrules, 1, err);
    for (size_t t = 0; used && t < ntasks; t++) {
        for (size_t i = 0; i < tasks[t]->ntensors; i++) {
            const dz_rule *rule = dz_recipe_rule(r, tasks[t]->tensors[i].name);
            if (rule) used[rule - r->rules] = 1;
        }
    }
    for (size_t i = 0; used && i < r->nrules; i++) {
        if (r->rules[i].line && !used[i]) note_unused(r, &r->rules[i], tasks, ntasks, notes, err);
    }
    free(used);
    return err->rc;
}

#include "model/recipe.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "model/builtin.h"
#include "model/yaml.h"

#define RECIPE_MAX ((size_t)1 << 20)

/* Scalars are read as text and converted here, so that a file and --set go one way and all mistakes are told at once. */
enum {
    K_METHOD,
    K_SPARSITY,
    K_STEP,
    K_BITS,
    K_ALLOCATION,
    K_RESCALE,
    K_ROUNDING,
    K_POSITIONS,
    K_TRACENORM,
    K_NONFINITE,
    K_SEED,
    K_DAC,
    K_TARGET,
    K_GAIN,
    K_DETECT,
    NKEYS
};

static const char *const KEYS[NKEYS] = {"method",    "sparsity",  "step", "bits", "allocation",   "rescale", "rounding", "positions",
                                        "tracenorm", "nonfinite", "seed", "dac",  "target_ratio", "gain",    "detect"};

typedef struct raw_rule {
    char *match, *policy, *sparsity, *bits, *factor;
} raw_rule;

typedef struct raw_recipe {
    char *value[NKEYS];
    raw_rule *rules;
    unsigned nrules;
} raw_recipe;

#define OPTIONAL (CYAML_FLAG_POINTER_NULL_STR | CYAML_FLAG_OPTIONAL)
#define TEXT(name, type, member) CYAML_FIELD_STRING_PTR(name, OPTIONAL, type, member, 0, CYAML_UNLIMITED)

static const cyaml_schema_field_t RULE_FIELDS[] = {TEXT("match", raw_rule, match),       TEXT("policy", raw_rule, policy),
                                                   TEXT("sparsity", raw_rule, sparsity), TEXT("bits", raw_rule, bits),
                                                   TEXT("factor", raw_rule, factor),     CYAML_FIELD_END};
static const cyaml_schema_value_t RULE = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, raw_rule, RULE_FIELDS)};
static const cyaml_schema_field_t RECIPE_FIELDS[] = {TEXT("method", raw_recipe, value[K_METHOD]),
                                                     TEXT("sparsity", raw_recipe, value[K_SPARSITY]),
                                                     TEXT("step", raw_recipe, value[K_STEP]),
                                                     TEXT("bits", raw_recipe, value[K_BITS]),
                                                     TEXT("allocation", raw_recipe, value[K_ALLOCATION]),
                                                     TEXT("rescale", raw_recipe, value[K_RESCALE]),
                                                     TEXT("rounding", raw_recipe, value[K_ROUNDING]),
                                                     TEXT("positions", raw_recipe, value[K_POSITIONS]),
                                                     TEXT("tracenorm", raw_recipe, value[K_TRACENORM]),
                                                     TEXT("nonfinite", raw_recipe, value[K_NONFINITE]),
                                                     TEXT("seed", raw_recipe, value[K_SEED]),
                                                     TEXT("dac", raw_recipe, value[K_DAC]),
                                                     TEXT("target_ratio", raw_recipe, value[K_TARGET]),
                                                     TEXT("gain", raw_recipe, value[K_GAIN]),
                                                     TEXT("detect", raw_recipe, value[K_DETECT]),
                                                     {.key = "tensors",
                                                      .value = {.type = CYAML_SEQUENCE,
                                                                .flags = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                                                                .data_size = sizeof(raw_rule),
                                                                .sequence = {.entry = &RULE, .min = 0, .max = CYAML_UNLIMITED}},
                                                      .data_offset = offsetof(raw_recipe, rules),
                                                      .count_offset = offsetof(raw_recipe, nrules),
                                                      .count_size = sizeof(unsigned)},
                                                     CYAML_FIELD_END};
static const cyaml_schema_value_t RECIPE = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, raw_recipe, RECIPE_FIELDS)};

static const char *const METHODS[] = {"ultradelta", "auto", "dare", "magnitude", "bitdelta", NULL};
static const char *const SWITCHES[] = {"on", "off", NULL};
static const char *const ALLOCATIONS[] = {"uniform", "thirds", "optimal", NULL};
static const char *const RESCALES[] = {"global", "tensor", NULL};
static const char *const ROUNDINGS[] = {"nearest", "systematic", NULL};
static const char *const POSITIONS[] = {"seeded", "golomb", NULL};
static const char *const TRACENORMS[] = {"slq", "exact", "off", NULL};
static const char *const NONFINITES[] = {"error", "lossless", NULL};
static const char *const POLICIES[] = {"lossless", "ultradelta", "drop", NULL}; /* what a rule may say */

const char *dz_policy_name(dz_policy policy) {
    static const char *const names[] = {"lossless", "ultradelta", "drop", "equal", "absent", "tied"};
    return names[policy];
}

static int choose(const char *where, const char *key, const char *value, const char *const *names, dz_error *err) {
    char known[128] = "";
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], value) == 0) return i;
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", names[i]);
    }
    dz_fail_more(err, DZ_EUSAGE, "%s: %s: '%s' is not one of %s", where, key, value, known);
    return 0;
}

static double number(const char *where, const char *key, const char *value, double low, double high, int high_open, dz_error *err) {
    char *end = NULL;
    double x = strtod(value, &end);
    if (end == value || *end != '\0' || !(x >= low) || !(x <= high) || (high_open && x >= high)) {
        dz_fail_more(err, DZ_EUSAGE, "%s: %s: '%s' is not a number in [%g, %g%c", where, key, value, low, high, high_open ? ')' : ']');
        return low;
    }
    return x;
}

static uint64_t whole(const char *where, const char *key, const char *value, uint64_t low, uint64_t high, dz_error *err) {
    char *end = NULL;
    errno = 0;
    unsigned long long x = strtoull(value, &end, 10);
    if (end == value || *end != '\0' || value[0] == '-' || errno != 0 || x < low || x > high) {
        dz_fail_more(err, DZ_EUSAGE, "%s: %s: '%s' is not a whole number from %llu to %llu", where, key, value, (unsigned long long)low,
                     (unsigned long long)high);
        return low;
    }
    return x;
}

/* One scalar into the recipe. */
static void set_key(const char *where, dz_recipe *r, int key, const char *v, dz_error *err) {
    const char *name = KEYS[key];
    switch (key) {
        case K_METHOD: r->method = (dz_method)choose(where, name, v, METHODS, err); break;
        case K_SPARSITY: r->sparsity = number(where, name, v, 0, 1, 1, err); break;
        case K_STEP: r->step = strcmp(v, "auto") == 0 ? (double)NAN : number(where, name, v, 0, 1, 1, err); break;
        case K_BITS: r->bits = (int)whole(where, name, v, 1, 8, err); break;
        case K_ALLOCATION: r->allocation = (dz_allocation)choose(where, name, v, ALLOCATIONS, err); break;
        case K_RESCALE: r->rescale = (dz_rescale)choose(where, name, v, RESCALES, err); break;
        case K_ROUNDING: r->rounding = (dz_rounding)choose(where, name, v, ROUNDINGS, err); break;
        case K_POSITIONS: r->positions = (dz_positions)choose(where, name, v, POSITIONS, err); break;
        case K_TRACENORM: r->tracenorm = (dz_tracenorm)choose(where, name, v, TRACENORMS, err); break;
        case K_NONFINITE: r->nonfinite = (dz_nonfinite)choose(where, name, v, NONFINITES, err); break;
        case K_SEED: r->seed = whole(where, name, v, 0, INT64_MAX, err); break;
        case K_DAC: r->no_groups = choose(where, name, v, SWITCHES, err); break;
        case K_TARGET: r->target_ratio = strcmp(v, "none") == 0 ? 0 : number(where, name, v, 1, 1e6, 0, err); break;
        case K_GAIN: r->gain = strcmp(v, "auto") == 0 ? (double)NAN : number(where, name, v, 0.01, 10, 0, err); break;
        case K_DETECT: break; /* only built-in recipes use it: read before */
        default: break;
    }
}

static void take_rules(const char *where, dz_recipe *r, const raw_recipe *raw, dz_error *err) {
    if (raw->nrules == 0) return;
    for (size_t i = 0; i < r->nrules; i++) free(r->rules[i].match);
    free(r->rules);
    r->nrules = 0;
    if (!(r->rules = dz_alloc(raw->nrules, sizeof *r->rules, err))) return;
    for (unsigned i = 0; i < raw->nrules; i++) {
        const raw_rule *in = &raw->rules[i];
        char at[300];
        snprintf(at, sizeof at, "%s: rule %u", where, i + 1);
        dz_rule *rule = &r->rules[r->nrules++];
        *rule = (dz_rule){.sparsity = (double)NAN, .factor = 1};
        if (!in->match || !in->policy) {
            dz_fail_more(err, DZ_EUSAGE, "%s: a rule needs 'match' and 'policy'", at);
        } else {
            rule->match = dz_strdup(in->match, err);
            rule->policy = (dz_policy)choose(at, "policy", in->policy, POLICIES, err);
        }
        if (in->sparsity) rule->sparsity = number(at, "sparsity", in->sparsity, 0, 1, 1, err);
        if (in->bits) rule->bits = (int)whole(at, "bits", in->bits, 1, 8, err);
        if (in->factor) rule->factor = number(at, "factor", in->factor, 0, 100, 0, err);
    }
}

static dz_rc parse_text(const char *where, const char *text, size_t len, dz_recipe *r, dz_error *err) {
    raw_recipe *raw = NULL;
    if (dz_yaml_load(where, text, len, &RECIPE, (void **)&raw, err) != DZ_OK) return err->rc;
    for (int k = 0; k < NKEYS; k++) {
        if (raw->value[k]) set_key(where, r, k, raw->value[k], err);
    }
    if (raw->value[K_DETECT]) {
        free(r->detect);
        r->detect = dz_strdup(raw->value[K_DETECT], err);
    }
    take_rules(where, r, raw, err);
    dz_yaml_free(&RECIPE, raw);
    return err->rc;
}

static void apply_sets(dz_recipe *r, const dz_recipe_request *request, dz_error *err) {
    for (size_t i = 0; i < request->nsets; i++) {
        const char *text = request->sets[i], *eq = strchr(text, '=');
        int key = -1;
        for (int k = 0; eq && k < K_DETECT; k++) {
            if (strlen(KEYS[k]) == (size_t)(eq - text) && strncmp(KEYS[k], text, (size_t)(eq - text)) == 0) key = k;
        }
        if (key < 0) {
            char known[300] = "KEY=VALUE is wanted; the keys are";
            for (int k = 0; k < K_DETECT; k++)
                snprintf(known + strlen(known), sizeof known - strlen(known), "%s %s", k ? "," : "", KEYS[k]);
            dz_fail_more(err, DZ_EUSAGE, "--set %s: %s%s", text, eq ? "unknown key: " : "", known);
        } else {
            set_key("--set", r, key, eq + 1, err);
        }
    }
}

static void check(dz_recipe *r, dz_error *err) {
    if (isnan(r->step)) r->step = fmin(0.01, (1 - r->sparsity) / 3);
    if (r->target_ratio > 0 && r->method != DZ_METHOD_AUTO && r->method != DZ_METHOD_ULTRADELTA)
        dz_fail_more(err, DZ_EUSAGE, "%s: target_ratio goes with methods auto and ultradelta, not %s", r->name, METHODS[r->method]);
    if (r->method == DZ_METHOD_ULTRADELTA && r->allocation == DZ_ALLOCATE_THIRDS && r->sparsity + r->step >= 1)
        dz_fail_more(err, DZ_EUSAGE, "%s: sparsity %g + step %g is not below 1 (the low-variance third would keep nothing)", r->name,
                     r->sparsity, r->step);
    if (r->nrules == 0) dz_fail_more(err, DZ_EUSAGE, "%s: has no rule for any tensor", r->name);
}

static dz_recipe *defaults(dz_error *err) {
    dz_recipe *r = dz_alloc(1, sizeof *r, err);
    if (r)
        *r = (dz_recipe){.sparsity = 0.97,
                         .gain = (double)NAN,
                         .step = (double)NAN,
                         .bits = 4,
                         .seed = 42,
                         .allocation = DZ_ALLOCATE_THIRDS,
                         .rescale = DZ_RESCALE_GLOBAL};
    return r;
}

static int matches_any(const char *glob, const dz_checkpoint *base) {
    for (size_t i = 0; i < base->ntensors; i++) {
        if (fnmatch(glob, base->tensors[i].name, 0) == 0) return 1;
    }
    return 0;
}

static const dz_builtin *builtin_named(const char *name) {
    for (const dz_builtin *b = DZ_BUILTINS; b->name; b++) {
        if (strcmp(b->name, name) == 0) return b;
    }
    return NULL;
}

/* The first built-in recipe whose `detect` glob a tensor of the base matches. */
static dz_rc detect(const dz_checkpoint *base, const dz_builtin **out, dz_error *err) {
    for (const dz_builtin *b = DZ_BUILTINS; b->name && !*out; b++) {
        dz_recipe *r = defaults(err);
        if (r && parse_text(b->name, b->text, strlen(b->text), r, err) == DZ_OK && r->detect && matches_any(r->detect, base)) *out = b;
        dz_recipe_free(r);
        if (err->rc != DZ_OK) return err->rc;
    }
    if (!*out)
        return dz_fail(err, DZ_EUSAGE, "%s: no built-in recipe knows this architecture (first tensor '%s'): give --recipe", base->path,
                       base->tensors[0].name);
    return DZ_OK;
}

static void unknown_recipe(const char *name, dz_error *err) {
    char known[512] = "";
    for (const dz_builtin *b = DZ_BUILTINS; b->name; b++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", known[0] ? ", " : "", b->name);
    dz_fail(err, DZ_EUSAGE, "--recipe %s: neither a file nor a built-in recipe (%s)", name, known);
}

dz_rc dz_recipe_load(const dz_recipe_request *request, const dz_checkpoint *base, dz_recipe **out, dz_error *err) {
    char *text = NULL;
    dz_recipe *r = defaults(err);
    const dz_builtin *builtin = NULL;
    const char *name = request->recipe;
    if (!r) return err->rc;
    if (name) builtin = builtin_named(name);
    if (name && !builtin) {
        size_t len = 0;
        if (access(name, R_OK) != 0) {
            unknown_recipe(name, err);
            goto out;
        }
        if (dz_read_file(name, RECIPE_MAX, &text, &len, err) != DZ_OK || parse_text(name, text, len, r, err) != DZ_OK) goto out;
    }
    if (!builtin && r->nrules == 0 && detect(base, &builtin, err) != DZ_OK) goto out;
    if (builtin) { /* a file without rules takes those of the architecture, and keeps its own numbers */
        dz_recipe keep = *r;
        if (parse_text(builtin->name, builtin->text, strlen(builtin->text), r, err) != DZ_OK) goto out;
        if (text) {
            keep.rules = r->rules;
            keep.nrules = r->nrules;
            keep.detect = r->detect;
            *r = keep;
        }
    }
    if (!(r->name = dz_strdup(text ? name : builtin->name, err))) goto out;
    apply_sets(r, request, err);
    check(r, err);
    if (err->rc != DZ_OK) goto out;
    *out = r;
    r = NULL;
out:
    free(text);
    dz_recipe_free(r);
    return err->rc;
}

void dz_recipe_free(dz_recipe *r) {
    if (!r) return;
    for (size_t i = 0; i < r->nrules; i++) free(r->rules[i].match);
    free(r->rules);
    free(r->detect);
    free(r->name);
    free(r);
}

const dz_rule *dz_recipe_rule(const dz_recipe *r, const char *tensor) {
    for (size_t i = 0; i < r->nrules; i++) {
        if (fnmatch(r->rules[i].match, tensor, 0) == 0) return &r->rules[i];
    }
    return NULL;
}

static void put_line(dz_buf *buf, dz_error *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void put_line(dz_buf *buf, dz_error *err, const char *fmt, ...) {
    char line[512];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n > 0) dz_buf_put(buf, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1, err);
}

/* Keys that are mostly at their defaults: written when they are not. */
static void put_numbers(dz_buf *b, const dz_recipe *r, dz_error *err) {
    if (r->no_groups) put_line(b, err, "dac: off\n");
    if (r->target_ratio > 0) put_line(b, err, "target_ratio: %.17g\n", r->target_ratio);
    if (!isnan(r->gain)) put_line(b, err, "gain: %.17g\n", r->gain);
}

char *dz_recipe_text(const dz_recipe *r, dz_error *err) {
    dz_buf b = {0};
    put_line(&b, err, "method: %s\nsparsity: %.17g\nstep: %.17g\nbits: %d\nallocation: %s\nrescale: %s\n", METHODS[r->method], r->sparsity,
             r->step, r->bits, ALLOCATIONS[r->allocation], RESCALES[r->rescale]);
    put_line(&b, err, "rounding: %s\npositions: %s\ntracenorm: %s\nnonfinite: %s\nseed: %llu\n", ROUNDINGS[r->rounding],
             POSITIONS[r->positions], TRACENORMS[r->tracenorm], NONFINITES[r->nonfinite], (unsigned long long)r->seed);
    put_numbers(&b, r, err);
    put_line(&b, err, "tensors:\n");
    for (size_t i = 0; i < r->nrules; i++) {
        const dz_rule *rule = &r->rules[i];
        put_line(&b, err, "  - {match: \"%s\", policy: %s", rule->match, dz_policy_name(rule->policy));
        if (!isnan(rule->sparsity)) put_line(&b, err, ", sparsity: %.17g", rule->sparsity);
        if (rule->bits) put_line(&b, err, ", bits: %d", rule->bits);
        if (rule->factor != 1) put_line(&b, err, ", factor: %.17g", rule->factor);
        put_line(&b, err, "}\n");
    }
    dz_buf_put(&b, "", 1, err);
    if (err->rc == DZ_OK) return (char *)b.data;
    dz_buf_free(&b);
    return NULL;
}

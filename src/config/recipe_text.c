#include "config/recipe_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "config/yaml.h"

/* In the order of src/doc/recipes.md and of stored recipes, each with its default. */
static const struct {
    const char *name, *usual;
} KEYS[DZ_NKEYS] = {[DZ_KEY_METHOD] = {"method", "auto"},
                    [DZ_KEY_TARGET] = {"target_ratio", "none"},
                    [DZ_KEY_QUALITY] = {"quality", "none"},
                    [DZ_KEY_NOISE_TO_DELTA] = {"noise_to_delta", "auto"},
                    [DZ_KEY_NOISE_TO_BASE] = {"noise_to_base", "auto"},
                    [DZ_KEY_VOCABULARY] = {"vocabulary", "lossy"},
                    [DZ_KEY_GAIN] = {"gain", "auto"},
                    [DZ_KEY_DAC] = {"dac", "on"},
                    [DZ_KEY_SPARSITY] = {"sparsity", "0.97"},
                    [DZ_KEY_STEP] = {"step", "auto"},
                    [DZ_KEY_BITS] = {"bits", "4"},
                    [DZ_KEY_ALLOCATION] = {"allocation", "thirds"},
                    [DZ_KEY_RESCALE] = {"rescale", "global"},
                    [DZ_KEY_ROUNDING] = {"rounding", "nearest"},
                    [DZ_KEY_POSITIONS] = {"positions", "seeded"},
                    [DZ_KEY_TRACENORM] = {"tracenorm", "slq"},
                    [DZ_KEY_NONFINITE] = {"nonfinite", "error"},
                    [DZ_KEY_SEED] = {"seed", "42"}};

static const char *const METHODS[] = {"ultradelta", "auto", "dare", "magnitude", "bitdelta", NULL};
static const char *const QUALITIES[] = {"none", "high", "balanced", "small", "lossless", NULL};
static const char *const VOCABULARIES[] = {"lossy", "exact", NULL};
static const char *const SWITCHES[] = {"on", "off", NULL};
static const char *const ALLOCATIONS[] = {"uniform", "thirds", "optimal", NULL};
static const char *const RESCALES[] = {"global", "tensor", NULL};
static const char *const ROUNDINGS[] = {"nearest", "systematic", NULL};
static const char *const POSITIONS[] = {"seeded", "golomb", NULL};
static const char *const TRACENORMS[] = {"slq", "exact", "off", NULL};
static const char *const NONFINITES[] = {"error", "lossless", NULL};
static const char *const POLICIES[] = {"lossless", "ultradelta", "drop", "structure", NULL}; /* what a rule may say */
static const dz_policy POLICY_OF[] = {DZ_POLICY_LOSSLESS, DZ_POLICY_ULTRADELTA, DZ_POLICY_DROP, DZ_POLICY_STRUCTURE};

/* A number, or a word (if any) that means `meaning`. */
typedef struct range {
    double low, high;
    int below; /* `high` itself is too much */
    const char *word;
    double meaning;
} range;

static const range SPARSITY = {.low = 0, .high = 1, .below = 1};
static const range STEP = {.low = 0, .high = 1, .below = 1, .word = "auto", .meaning = (double)NAN};
static const range TARGET = {.low = 1, .high = 1e6, .word = "none", .meaning = 0};
static const range GAIN = {.low = 0.01, .high = 10, .word = "auto", .meaning = (double)NAN};
static const range LIMIT = {.low = 1e-9, .high = 1e6, .word = "auto", .meaning = (double)NAN};
static const range FACTOR = {.low = 0, .high = 100};

const char *dz_quality_name(dz_quality_key quality) { return QUALITIES[quality]; }

const char *dz_method_name(dz_method_id method) { return METHODS[method]; }

const char *dz_recipe_key_name(int key) { return KEYS[key].name; }

int dz_recipe_key(const char *name, size_t len) {
    for (int k = 0; k < DZ_NKEYS; k++) {
        if (strlen(KEYS[k].name) == len && memcmp(KEYS[k].name, name, len) == 0) return k;
    }
    return -1;
}

static int choose(const char *where, const char *key, const char *value, const char *const *names, dz_error *err) {
    char known[128] = "";
    int boolean = dz_yaml_boolean(value); /* on and off are booleans to YAML, whose writers may say true and false */
    const char *word = boolean < 0 ? value : boolean ? "on" : "off";
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], word) == 0) return i;
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", names[i]);
    }
    dz_fail_more(err, DZ_EUSAGE, "%s: %s: '%s' is not one of %s", where, key, value, known);
    return 0;
}

static double number(const char *where, const char *key, const char *value, const range *of, dz_error *err) {
    char *end = NULL;
    if (of->word && strcmp(value, of->word) == 0) return of->meaning;
    double x = strtod(value, &end);
    int is_number = strspn(value, "+-.0123456789eE") == strlen(value) && end != value && *end == '\0'; /* not hexadecimal, nan, inf */
    if (is_number && x >= of->low && x <= of->high && !(of->below && x >= of->high)) return x;
    dz_fail_more(err, DZ_EUSAGE, "%s: %s: '%s' is not a number in [%g, %g%c%s%s", where, key, value, of->low, of->high,
                 of->below ? ')' : ']', of->word ? " or " : "", of->word ? of->word : "");
    return of->word ? of->meaning : of->low;
}

static uint64_t whole(const char *where, const char *key, const char *value, uint64_t low, uint64_t high, dz_error *err) {
    uint64_t x = 0;
    if (dz_parse_whole(value, high, &x) && x >= low) return x;
    dz_fail_more(err, DZ_EUSAGE, "%s: %s: '%s' is not a whole number from %llu to %llu", where, key, value, (unsigned long long)low,
                 (unsigned long long)high);
    return low;
}

void dz_recipe_set(dz_recipe *r, int key, const char *value, const char *where, dz_error *err) {
    const char *name = KEYS[key].name, *v = dz_yaml_is_null(value) ? KEYS[key].usual : value;
    if (!dz_yaml_is_null(value)) r->given |= 1u << key;
    switch (key) {
        case DZ_KEY_METHOD: r->method = (dz_method_id)choose(where, name, v, METHODS, err); break;
        case DZ_KEY_TARGET: r->target_ratio = number(where, name, v, &TARGET, err); break;
        case DZ_KEY_QUALITY: r->quality = (dz_quality_key)choose(where, name, v, QUALITIES, err); break;
        case DZ_KEY_NOISE_TO_DELTA: r->noise_to_delta = number(where, name, v, &LIMIT, err); break;
        case DZ_KEY_NOISE_TO_BASE: r->noise_to_base = number(where, name, v, &LIMIT, err); break;
        case DZ_KEY_VOCABULARY: r->vocabulary = (dz_vocabulary)choose(where, name, v, VOCABULARIES, err); break;
        case DZ_KEY_GAIN: r->gain = number(where, name, v, &GAIN, err); break;
        case DZ_KEY_DAC: r->no_groups = choose(where, name, v, SWITCHES, err); break;
        case DZ_KEY_SPARSITY: r->sparsity = number(where, name, v, &SPARSITY, err); break;
        case DZ_KEY_STEP: r->step = number(where, name, v, &STEP, err); break;
        case DZ_KEY_BITS: r->bits = (int)whole(where, name, v, 1, 8, err); break;
        case DZ_KEY_ALLOCATION: r->allocation = (dz_allocation_rule)choose(where, name, v, ALLOCATIONS, err); break;
        case DZ_KEY_RESCALE: r->rescale = (dz_rescale)choose(where, name, v, RESCALES, err); break;
        case DZ_KEY_ROUNDING: r->rounding = (dz_rounding)choose(where, name, v, ROUNDINGS, err); break;
        case DZ_KEY_POSITIONS: r->positions = (dz_positions)choose(where, name, v, POSITIONS, err); break;
        case DZ_KEY_TRACENORM: r->tracenorm = (dz_tracenorm)choose(where, name, v, TRACENORMS, err); break;
        case DZ_KEY_NONFINITE: r->nonfinite = (dz_nonfinite)choose(where, name, v, NONFINITES, err); break;
        case DZ_KEY_SEED: r->seed = whole(where, name, v, 0, INT64_MAX, err); break;
        default: break;
    }
}

void dz_rule_set(dz_rule *rule, const char *key, const char *value, const char *where, dz_error *err) {
    if (strcmp(key, "policy") == 0) rule->policy = POLICY_OF[choose(where, key, value, POLICIES, err)];
    if (strcmp(key, "sparsity") == 0) rule->sparsity = number(where, key, value, &SPARSITY, err);
    if (strcmp(key, "bits") == 0) rule->bits = (int)whole(where, key, value, 1, 8, err);
    if (strcmp(key, "factor") == 0) rule->factor = number(where, key, value, &FACTOR, err);
}

/* The fewest digits that read back to the same double; without an exponent where that takes no more than 17 of them. */
static const char *number_text(double x, char text[32]) {
    char shortest[32] = "";
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, x);
        if (strtod(text, NULL) != x) continue;
        if (!strchr(text, 'e')) return text;
        if (!shortest[0]) memcpy(shortest, text, sizeof shortest);
    }
    memcpy(text, shortest, sizeof shortest);
    return text;
}

static const char *number_or_word(double x, const range *of, char text[32]) {
    int means_word = isnan(of->meaning) ? isnan(x) : x == of->meaning;
    return means_word ? of->word : number_text(x, text);
}

static const char *key_text(const dz_recipe *r, int key, char text[32]) {
    switch (key) {
        case DZ_KEY_METHOD: return METHODS[r->method];
        case DZ_KEY_TARGET: return number_or_word(r->target_ratio, &TARGET, text);
        case DZ_KEY_QUALITY: return QUALITIES[r->quality];
        case DZ_KEY_NOISE_TO_DELTA: return number_or_word(r->noise_to_delta, &LIMIT, text);
        case DZ_KEY_NOISE_TO_BASE: return number_or_word(r->noise_to_base, &LIMIT, text);
        case DZ_KEY_VOCABULARY: return VOCABULARIES[r->vocabulary];
        case DZ_KEY_GAIN: return number_or_word(r->gain, &GAIN, text);
        case DZ_KEY_DAC: return SWITCHES[r->no_groups];
        case DZ_KEY_SPARSITY: return number_text(r->sparsity, text);
        case DZ_KEY_STEP: return number_or_word(r->step, &STEP, text);
        case DZ_KEY_BITS: snprintf(text, 32, "%d", r->bits); return text;
        case DZ_KEY_ALLOCATION: return ALLOCATIONS[r->allocation];
        case DZ_KEY_RESCALE: return RESCALES[r->rescale];
        case DZ_KEY_ROUNDING: return ROUNDINGS[r->rounding];
        case DZ_KEY_POSITIONS: return POSITIONS[r->positions];
        case DZ_KEY_TRACENORM: return TRACENORMS[r->tracenorm];
        case DZ_KEY_NONFINITE: return NONFINITES[r->nonfinite];
        default: snprintf(text, 32, "%llu", (unsigned long long)r->seed); return text;
    }
}

const char *dz_recipe_setting(const dz_recipe *r, char text[DZ_SETTING_TEXT]) {
    const char *method = METHODS[r->method];
    char a[32], b[32];
    int lossy = 0;
    for (size_t i = 0; i < r->nrules; i++) lossy |= r->rules[i].policy == DZ_POLICY_ULTRADELTA || r->rules[i].policy == DZ_POLICY_STRUCTURE;
    if (!lossy) {
        snprintf(text, DZ_SETTING_TEXT, "no lossy tensor");
    } else if (r->target_ratio > 0) {
        snprintf(text, DZ_SETTING_TEXT, "method %s, target ratio %s", method, number_text(r->target_ratio, a));
    } else if (r->quality != DZ_QUALITY_NONE) {
        snprintf(text, DZ_SETTING_TEXT, "method %s, quality %s", method, QUALITIES[r->quality]);
        size_t len = strlen(text);
        if (!isnan(r->noise_to_delta) || !isnan(r->noise_to_base))
            snprintf(text + len, DZ_SETTING_TEXT - len, " (noise to delta %s, to base %s)", number_text(dz_recipe_limits(r).to_delta, a),
                     number_text(dz_recipe_limits(r).to_base, b));
    } else if (r->method == DZ_METHOD_BITDELTA) {
        snprintf(text, DZ_SETTING_TEXT, "method %s", method);
    } else if (r->method == DZ_METHOD_ULTRADELTA) {
        snprintf(text, DZ_SETTING_TEXT, "method %s, sparsity %s, %d bits", method, number_text(r->sparsity, a), r->bits);
    } else {
        snprintf(text, DZ_SETTING_TEXT, "method %s, sparsity %s", method, number_text(r->sparsity, a));
    }
    return text;
}

static const char *words_text(const char *const *names, char text[DZ_KEY_RANGE_TEXT]) {
    snprintf(text, DZ_KEY_RANGE_TEXT, "one of");
    for (int i = 0; names[i]; i++) {
        size_t len = strlen(text);
        snprintf(text + len, DZ_KEY_RANGE_TEXT - len, "%s %s", i ? "," : "", names[i]);
    }
    return text;
}

static const char *range_text(const range *of, char text[DZ_KEY_RANGE_TEXT]) {
    snprintf(text, DZ_KEY_RANGE_TEXT, "a number from %g %s %g%s%s", of->low, of->below ? "to below" : "to", of->high,
             of->word ? ", or " : "", of->word ? of->word : "");
    return text;
}

const char *dz_recipe_key_usual(int key) { return KEYS[key].usual; }

const char *dz_recipe_key_range(int key, char text[DZ_KEY_RANGE_TEXT]) {
    switch (key) {
        case DZ_KEY_METHOD: return words_text(METHODS, text);
        case DZ_KEY_TARGET: return range_text(&TARGET, text);
        case DZ_KEY_QUALITY: return words_text(QUALITIES, text);
        case DZ_KEY_NOISE_TO_DELTA:
        case DZ_KEY_NOISE_TO_BASE: return range_text(&LIMIT, text);
        case DZ_KEY_VOCABULARY: return words_text(VOCABULARIES, text);
        case DZ_KEY_GAIN: return range_text(&GAIN, text);
        case DZ_KEY_DAC: return words_text(SWITCHES, text);
        case DZ_KEY_SPARSITY: return range_text(&SPARSITY, text);
        case DZ_KEY_STEP: return range_text(&STEP, text);
        case DZ_KEY_BITS: return "a whole number from 1 to 8";
        case DZ_KEY_ALLOCATION: return words_text(ALLOCATIONS, text);
        case DZ_KEY_RESCALE: return words_text(RESCALES, text);
        case DZ_KEY_ROUNDING: return words_text(ROUNDINGS, text);
        case DZ_KEY_POSITIONS: return words_text(POSITIONS, text);
        case DZ_KEY_TRACENORM: return words_text(TRACENORMS, text);
        case DZ_KEY_NONFINITE: return words_text(NONFINITES, text);
        default: return "a whole number";
    }
}

char *dz_recipe_text(const dz_recipe *r, dz_error *err) {
    dz_buf b = {0};
    char number_of[32];
    for (int k = 0; k < DZ_NKEYS; k++) dz_buf_line(&b, err, "%s: %s\n", KEYS[k].name, key_text(r, k, number_of));
    dz_buf_line(&b, err, "tensors:\n");
    for (size_t i = 0; i < r->nrules; i++) {
        const dz_rule *rule = &r->rules[i];
        dz_buf_line(&b, err, "  - {match: ");
        dz_yaml_quote(&b, rule->match, err);
        dz_buf_line(&b, err, ", policy: %s", dz_policy_name(rule->policy));
        if (!isnan(rule->sparsity)) dz_buf_line(&b, err, ", sparsity: %s", number_text(rule->sparsity, number_of));
        if (rule->bits) dz_buf_line(&b, err, ", bits: %d", rule->bits);
        if (rule->factor != 1) dz_buf_line(&b, err, ", factor: %s", number_text(rule->factor, number_of));
        dz_buf_line(&b, err, "}\n");
    }
    dz_buf_put(&b, "", 1, err);
    if (err->rc == DZ_OK) return (char *)b.data;
    dz_buf_free(&b);
    return NULL;
}

/* A recipe's keys as text, as in a file, after --set and in an archive. dz_recipe_text (recipe.h) is here too. */
#ifndef DZ_CONFIG_RECIPE_TEXT_H
#define DZ_CONFIG_RECIPE_TEXT_H

#include "config/recipe.h"

enum {
    DZ_KEY_METHOD,
    DZ_KEY_TARGET,
    DZ_KEY_QUALITY,
    DZ_KEY_NOISE_TO_DELTA,
    DZ_KEY_NOISE_TO_BASE,
    DZ_KEY_VOCABULARY,
    DZ_KEY_GAIN,
    DZ_KEY_DAC,
    DZ_KEY_SPARSITY,
    DZ_KEY_STEP,
    DZ_KEY_BITS,
    DZ_KEY_ALLOCATION,
    DZ_KEY_RESCALE,
    DZ_KEY_ROUNDING,
    DZ_KEY_POSITIONS,
    DZ_KEY_TRACENORM,
    DZ_KEY_NONFINITE,
    DZ_KEY_SEED,
    DZ_NKEYS
};

/* The name of a key, and its number; -1 for another name. */
const char *dz_recipe_key_name(int key);

/* What a key takes: "a number from 0 up to 1", "one of on, off"; and its default. For help, manual page and completion. */
#define DZ_KEY_RANGE_TEXT 128
const char *dz_recipe_key_range(int key, char text[DZ_KEY_RANGE_TEXT]);
const char *dz_recipe_key_usual(int key);
int dz_recipe_key(const char *name, size_t len);

/* Sets a key; a null value (dz_yaml_is_null) means the key's default. An invalid value is an error that names `where` it is, and the key
 * gets a value that passes later checks of several keys. */
void dz_recipe_set(dz_recipe *recipe, int key, const char *value, const char *where, dz_error *err);

/* The same for a rule's keys: policy, sparsity, bits, factor. */
void dz_rule_set(dz_rule *rule, const char *key, const char *value, const char *where, dz_error *err);

const char *dz_method_name(dz_method_id method);

#endif

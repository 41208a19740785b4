#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "config/builtin.h"
#include "config/recipe_text.h"

/* Rank 0: names, or one recipe as in config/recipes/. */
static dz_rc print(const char *name, dz_error *err) {
    for (const dz_builtin *b = DZ_BUILTINS; b->name; b++) {
        if (!name) printf("%s\n", b->name);
        if (!name || strcmp(name, b->name) != 0) continue;
        fputs(b->text, stdout);
        return DZ_OK;
    }
    return name ? dz_fail(err, DZ_EUSAGE, "recipes: no built-in recipe '%s' (deltazoo recipes lists them)", name) : DZ_OK;
}

/* Rank 0, for completion: "bits=", and of a key that takes one of some words a line for each, "dac=on". */
static void print_keys(void) {
    static const char words[] = "one of ";
    for (int k = 0; k < DZ_NKEYS; k++) {
        char range[DZ_KEY_RANGE_TEXT];
        const char *at = dz_recipe_key_range(k, range), *name = dz_recipe_key_name(k);
        if (strncmp(at, words, strlen(words)) != 0) printf("%s=\n", name);
        for (at += strncmp(at, words, strlen(words)) == 0 ? strlen(words) : strlen(at); *at; at += strcspn(at, ","), at += strspn(at, ", "))
            printf("%s=%.*s\n", name, (int)strcspn(at, ","), at);
    }
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *name = NULL;
    int helped = 0, keys = 0;
    const dz_option options[] = {
        {"print", 'p', DZ_OPTION_TEXT, &name, "NAME", "print this recipe, as a start for your own"},
        {"keys", 0, DZ_OPTION_FLAG, &keys, NULL, "the keys of --set and their words (deltazoo help recipes has more)"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_RECIPES, argc, argv, options, NULL, 0, &helped, err) != DZ_OK || helped) return err->rc;
    if (keys && world->rank == 0) print_keys();
    if (keys) return DZ_OK;
    return dz_sync_error(world, world->rank == 0 ? print(name, err) : DZ_OK, err);
}

const dz_command DZ_CMD_RECIPES = {"recipes", "[--print NAME | --keys]", "Lists the built-in recipes, or prints one.", run,
                                   "deltazoo recipes\n"
                                   "deltazoo recipes --print llama"};

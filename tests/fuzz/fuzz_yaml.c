/* Manifests and recipes. Input: which of them (odd: a recipe), then the text. */
#include "base/file.h"
#include "config/manifest.h"
#include "config/recipe.h"
#include "target.h"

static dz_tensor tensor = {.name = (char *)(uintptr_t) "model.layers.0.self_attn.q_proj.weight"};
static dz_checkpoint base = {.path = (char *)(uintptr_t) "base", .tensors = &tensor, .ntensors = 1};

/* A recipe written out is a recipe, and the same one. */
static void read_back(const char *text) {
    dz_recipe_request request = {.recipe = as_file((const uint8_t *)text, strlen(text))};
    dz_recipe *r = NULL;
    dz_error err = {0};
    PROMISE(dz_recipe_load(&request, &r, &err) == DZ_OK && r);
    char *again = dz_recipe_text(r, &err);
    PROMISE(again && strcmp(again, text) == 0);
    free(again);
    dz_recipe_free(r);
}

static void recipe(const char *path) {
    dz_checkpoint *tasks[1] = {&base};
    dz_recipe_request request = {.recipe = path};
    dz_buf notes = {0};
    dz_recipe *r = NULL;
    dz_error err = {0};
    if (dz_recipe_load(&request, &r, &err) == DZ_OK) {
        char *text = dz_recipe_text(r, &err);
        PROMISE(text != NULL && r->nrules > 0 && r->sparsity >= 0 && r->sparsity < 1 && r->bits >= 1 && r->bits <= 8);
        dz_recipe_rule(r, tensor.name);
        PROMISE(dz_recipe_notes(r, tasks, 1, &notes, &err) == DZ_OK);
        if (strlen(text) < 1 << 20) read_back(text); /* more is no recipe file */
        free(text);
    }
    promise_error(&err);
    dz_buf_free(&notes);
    dz_recipe_free(r);
}

static void manifest(const char *path) {
    dz_manifest *m = NULL;
    dz_error err = {0};
    if (dz_manifest_load(path, &m, &err) == DZ_OK) {
        PROMISE((m->base != NULL) == !m->no_base && m->ntasks > 0);
        for (size_t i = 0; i < m->ntasks; i++) PROMISE(dz_task_name_ok(m->tasks[i].name) && m->tasks[i].path);
    }
    promise_error(&err);
    dz_manifest_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 1 << 14) return 0;
    const char *path = as_file(data + 1, size - 1);
    if (data[0] & 1)
        recipe(path);
    else
        manifest(path);
    return 0;
}

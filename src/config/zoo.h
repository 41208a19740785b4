/* Opening models on all ranks: rank 0 reads headers once and broadcasts them. */
#ifndef DZ_CONFIG_ZOO_H
#define DZ_CONFIG_ZOO_H

#include "config/manifest.h"
#include "config/recipe.h"
#include "parallel/world.h"

/* Collective. */
dz_rc dz_checkpoint_open_all(const dz_world *world, const char *path, dz_checkpoint **out, dz_error *err);

/* DZ_EUSAGE if the output `out` is one of the model's files. */
dz_rc dz_check_not_of_model(const dz_checkpoint *model, const char *out, dz_error *err);

typedef struct dz_zoo {
    dz_manifest *manifest;
    dz_checkpoint *base;
    dz_checkpoint **tasks;
    const char **names; /* borrowed from the manifest */
    size_t ntasks;
    dz_recipe *recipe;
    const dz_checkpoint *stored; /* the one of `tasks` that is the base itself (dz_zoo_store_base); NULL: none */
    dz_recipe **own;             /* NULL, or [ntasks]: of tasks with settings of their own; NULL: `recipe` */
} dz_zoo;

static inline const dz_recipe *dz_zoo_recipe(const dz_zoo *zoo, size_t task) {
    return zoo->own && zoo->own[task] ? zoo->own[task] : zoo->recipe;
}

#define DZ_NOT_IN_MANIFEST SIZE_MAX

/* The number of a task in the manifest, which its name is borrowed from; DZ_NOT_IN_MANIFEST for the base that is stored. */
size_t dz_zoo_in_manifest(const dz_zoo *zoo, size_t task);

/* Keeps task `from` as number `to`, which is no later; dz_zoo_cut then ends the lists. */
void dz_zoo_keep(dz_zoo *zoo, size_t from, size_t to);
void dz_zoo_cut(dz_zoo *zoo, size_t ntasks);

/* Collective. Opens manifest, all models' headers and the recipe. All problems are reported in one error. */
dz_rc dz_zoo_open(const dz_world *world, const char *manifest, const dz_recipe_request *request, dz_zoo *zoo, dz_error *err);
void dz_zoo_close(dz_zoo *zoo);

#define DZ_STORED_NAME "base" /* of the task that is the base itself */

/* Adds the base as a task of its own, exact and coded by itself, so that the archive holds it. Every rank by itself. */
dz_rc dz_zoo_store_base(dz_zoo *zoo, dz_error *err);

/* Rank 0: a base or task that is itself restored from a lossy archive is refused; with `allow` it is named in the notes, a line each. */
dz_rc dz_zoo_check_originals(const dz_zoo *zoo, int allow, dz_buf *notes, dz_error *err);

/* Takes the marked tasks out. */
void dz_zoo_leave_out(dz_zoo *zoo, const uint8_t *marked);

#endif

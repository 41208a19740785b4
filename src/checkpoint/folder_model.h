/* Which files of one folder are its model: those that the library it was written for loads.
 *
 * transformers (and accelerate) take model.safetensors before model.safetensors.index.json, diffusers its index before
 * diffusion_pytorch_model.safetensors; both take PyTorch's files only where there are none. Without such names: the only other index, or
 * all .safetensors files but variants (STEM.fp16.safetensors beside STEM.safetensors), or the only PyTorch file, or the adapter.
 */
#ifndef DZ_CHECKPOINT_FOLDER_MODEL_H
#define DZ_CHECKPOINT_FOLDER_MODEL_H

#include "base/listing.h"
#include "base/mem.h"

typedef struct dz_folder_model {
    char **files; /* names within the folder, or below it where an index lists such; sorted */
    size_t nfiles;
    char *index;           /* the index that lists them; NULL: none */
    const char *taken_for; /* why these and not other weights: "transformers loads model.safetensors"; for messages */
    char **stale;          /* other files of the model's own names: an older save */
    size_t nstale;
    int is_adapter; /* LoRA and its like: no model by itself */
    int torch;      /* PyTorch's files */
} dz_folder_model;

/* DZ_EFAIL says what is missing, or which files could each be the model. A folder without weights has none: `out->nfiles` is 0. On DZ_OK
 * the caller frees with dz_folder_model_free. */
dz_rc dz_folder_model_find(const char *folder, const dz_listing *list, dz_folder_model *out, dz_error *err);
void dz_folder_model_free(dz_folder_model *model);

/* What a folder without weights holds instead, and what to do: "a torch.distributed.checkpoint, ...". NULL: nothing that is known. */
const char *dz_folder_known_as(const dz_listing *list);

/* Whether any file of it is, or lists, safetensors. */
int dz_folder_has_safetensors(const dz_listing *list);

/* By a file's name. */
int dz_is_adapter(const char *file);  /* weights of LoRA and its like */
int dz_is_weights(const char *file);  /* beside a model never one of its small files */
int dz_is_training(const char *file); /* PyTorch's: the state of an optimizer and the like */
int dz_is_torch(const char *file);    /* PyTorch's */

#define DZ_SAFETENSORS ".safetensors"
#define DZ_TORCH_INDEX "pytorch_model.bin.index.json"
#define DZ_MODEL_INDEX "model" DZ_SAFETENSORS ".index.json" /* what that is restored as */

/* STEM.safetensors.index.json, and a variant's STEM.safetensors.index.fp16.json. */
int dz_is_index(const char *file);

#endif

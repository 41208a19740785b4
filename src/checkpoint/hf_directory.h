/* A model that is a directory: which of its files are the model, which are kept beside it, and which are not.
 *
 * The model is model.safetensors.index.json and its shards, the only other index, or all .safetensors files but adapters and variants;
 * where there are none, PyTorch's files. Small files beside it (config, tokenizer) are kept, those in small folders too. Hidden folders,
 * other models' weights and large files are not: they are told.
 */
#ifndef DZ_CHECKPOINT_HF_DIRECTORY_H
#define DZ_CHECKPOINT_HF_DIRECTORY_H

#include "checkpoint/checkpoint.h"

/* Fills the checkpoint, which has its path and nothing else. */
dz_rc dz_directory_load(dz_checkpoint *ck, dz_error *err);

int dz_is_adapter(const char *file); /* by its name: LoRA and its like, no model by itself */
int dz_is_weights(const char *file); /* by its name: such a file is never kept beside a model */

#endif

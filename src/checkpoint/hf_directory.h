/* A model that is a directory: which files are the model, which are kept as companions, and which are skipped.
 *
 * The model is model.safetensors.index.json and its shards, the only other index, or all .safetensors files except adapters and variants;
 * if there are none, the PyTorch files. Small files (config, tokenizer) are kept, also in small folders. Hidden folders, weights of other
 * models and large files are skipped and reported.
 */
#ifndef DZ_CHECKPOINT_HF_DIRECTORY_H
#define DZ_CHECKPOINT_HF_DIRECTORY_H

#include "checkpoint/checkpoint.h"

/* Fills the checkpoint, of which only the path is set. */
dz_rc dz_directory_load(dz_checkpoint *ck, dz_error *err);

int dz_is_adapter(const char *file); /* by its name: LoRA and similar, which are no models by themselves */
int dz_is_weights(const char *file); /* by its name: weights, never kept as a companion */

#endif

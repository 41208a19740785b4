/* A model that is a directory: which files are the model, which are kept as companions, and which are skipped.
 *
 * The model is what its library loads (folder_model.h). Of a pipeline (diffusers' model_index.json, sentence-transformers' modules.json) it
 * is the model of each part's folder. Small files beside it (config, tokenizer) are kept, those in small folders too, and so are the
 * weights of a module in a folder of its own (2_Dense). Hidden folders, other models' weights and large files are not: each is named with
 * the reason.
 */
#ifndef DZ_CHECKPOINT_HF_DIRECTORY_H
#define DZ_CHECKPOINT_HF_DIRECTORY_H

#include "checkpoint/checkpoint.h"

/* Fills the checkpoint, of which only the path is set. */
dz_rc dz_directory_load(dz_checkpoint *ck, dz_error *err);

#endif

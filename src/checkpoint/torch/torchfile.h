/* PyTorch checkpoints: the zip files of torch.save (torch 1.6 and later) that hold a state dict.
 *
 * Nothing in them is executed (checkpoint/torch/unpickle.h). data.pkl describes the tensors; the stored entries data/KEY are their bytes,
 * read in place. A PyTorch file is restored as the safetensors file of the same tensors.
 */
#ifndef DZ_CHECKPOINT_TORCH_TORCHFILE_H
#define DZ_CHECKPOINT_TORCH_TORCHFILE_H

#include "checkpoint/checkpoint.h"

/* 1 if a file with these first bytes is from torch.save: a zip, or the legacy format (which dz_torch_load refuses with a clear message). */
int dz_torch_is_file(const uint8_t head[8]);

#define DZ_TORCH_REPEATED ((uint64_t)1 << 30) /* bytes, in all, of a file's tensors that are larger than their storages */

/* The tensors of the file `path`, in the order of the model's dict (torchdict.h), each with its location, which is checked to be within its
 * storage. Skipped values, and tensors that share their bytes, get a line each in `notes`. DZ_EFAIL names the tensor, entry, opcode or
 * global that cannot be read. On DZ_OK the caller frees both arrays. */
dz_rc dz_torch_load(const char *path, dz_tensor **tensors, dz_strided **places, size_t *n, dz_buf *notes, dz_error *err);

/* Fills a shard whose `path` is a PyTorch file: header and size of the safetensors file as which it is restored, and the location of its
 * tensors. */
dz_rc dz_torch_shard(dz_shard *shard, dz_buf *notes, dz_error *err);

/* "pytorch_model-00001-of-00002.bin": "model-00001-of-00002.safetensors"; "vae/model.pt": "vae/model.safetensors". The caller frees. */
char *dz_torch_restored_name(const char *file, dz_error *err);

/* "pytorch_model.bin.index.json": "model.safetensors.index.json". The caller frees. */
char *dz_torch_restored_index(const char *index, dz_error *err);

/* The index of a checkpoint's shards from number `first` on, in their own names: without a part's prefix. Appended to `out`. */
dz_rc dz_torch_index(const dz_checkpoint *ck, size_t first, dz_buf *out, dz_error *err);

#endif

/* PyTorch checkpoints: the zip files of torch.save (torch 1.6 and later) that hold a state dict.
 *
 * Read without running anything (model/unpickle.h): data.pkl tells the tensors, the stored entries data/KEY are their bytes, read in place.
 * A PyTorch file is restored as the safetensors file of the same tensors.
 */
#ifndef DZ_CHECKPOINT_TORCH_TORCHFILE_H
#define DZ_CHECKPOINT_TORCH_TORCHFILE_H

#include "checkpoint/checkpoint.h"

/* Whether a file that begins so is torch.save's: a zip, or the legacy format (which dz_torch_load refuses with a better word). */
int dz_torch_is_file(const uint8_t head[8]);

#define DZ_TORCH_REPEATED ((uint64_t)1 << 30) /* bytes, in all, of a file's tensors that are larger than their storages */

/* The tensors of the file `path`, in the order of its dict, each with its place in the file, which is checked to lie in the storage. The
 * dict is the one that model/torchdict.h tells. Values that are not taken, and tensors that share their bytes, get a line each in `notes`.
 * DZ_EFAIL names the tensor, entry, opcode or global that cannot be taken. On DZ_OK the caller frees both arrays. */
dz_rc dz_torch_load(const char *path, dz_tensor **tensors, dz_strided **places, size_t *n, dz_buf *notes, dz_error *err);

/* Fills a shard whose `path` is a PyTorch file: the header and size of the safetensors file it is restored as, and where its tensors are.
 */
dz_rc dz_torch_shard(dz_shard *shard, dz_buf *notes, dz_error *err);

/* "pytorch_model-00001-of-00002.bin": "model-00001-of-00002.safetensors". The caller frees. */
char *dz_torch_restored_name(const char *file, dz_error *err);

/* The model.safetensors.index.json of a checkpoint's shards. Appended to `out`. */
dz_rc dz_torch_index(const dz_checkpoint *ck, dz_buf *out, dz_error *err);

#endif

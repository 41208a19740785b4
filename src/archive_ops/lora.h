/* A task as a LoRA adapter: of each linear layer's delta the best approximation of a rank (numeric/lowrank.h), in the layout that peft and
 * vLLM load. */
#ifndef DZ_ARCHIVE_OPS_LORA_H
#define DZ_ARCHIVE_OPS_LORA_H

#include "archive_ops/export.h"

#define DZ_LORA_MOST 1024 /* rank */

/* Collective. Fills the directory opt->out: adapter_config.json and adapter_model.safetensors with
 * base_model.model.MODULE.lora_A.weight [rank, inputs] and .lora_B.weight [outputs, rank], lora_alpha = rank, in the task's type if that
 * has 16 bits, else F32. What no adapter can have (embeddings, heads, norms, biases, stacks, convolutions) is in `lacks`. The same bytes
 * for any number of ranks; each holds one tensor's delta at a time. */
dz_rc dz_export_lora(const dz_world *world, const dz_export_options *opt, dz_export_result *result, dz_error *err);

#endif

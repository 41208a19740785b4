/* Which dict of a PyTorch file is the model.
 *
 * A file holds a dict of tensors, or has it under one usual name, or under two, one within the other. The names: state_dict,
 * model_state_dict, model, module, params_ema, params, ema, weights, network, net, generator. Candidates, in this order: the dicts under
 * one name, in the order of the names; those under two; the file's own dict. The model is the first that has at least half as many tensors
 * as the fullest candidate, so that counters beside a model are not taken for it.
 */
#ifndef DZ_CHECKPOINT_TORCH_TORCHDICT_H
#define DZ_CHECKPOINT_TORCH_TORCHDICT_H

#include "checkpoint/torch/unpickle.h"

typedef struct dz_torch_dict {
    uint32_t dicts[3]; /* values: the file's own, and those that lead from it; the last is the model */
    uint32_t keys[2];  /* values: keys of the second and the third dict */
    uint32_t depth;    /* 0: the file's own is the model */
    size_t ntensors;   /* directly in it */
} dz_torch_dict;

/* Finds the model. DZ_EFAIL says where a dict with tensors was looked for, and what the file holds. */
dz_rc dz_torch_dict_find(const char *path, const dz_pickle *pickle, dz_torch_dict *out, dz_error *err);

/* 1 if the value is a dict on the way to the model. */
int dz_torch_dict_has(const dz_torch_dict *dict, uint32_t value);

/* "state_dict/model": the way to dict number `depth`; empty for the file's own. Returns `text`. */
#define DZ_TORCH_WAY (2 * DZ_PICKLE_TEXT)
char *dz_torch_dict_way(const dz_pickle *pickle, const dz_torch_dict *dict, uint32_t depth, char text[DZ_TORCH_WAY]);

/* 1 if the key is one of the usual names. */
int dz_torch_dict_is_name(const dz_pickle *pickle, uint32_t key);

#endif

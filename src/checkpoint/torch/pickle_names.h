/* The names in a pickle: its opcodes, and the few globals that are known. Only unpickle.c and torchfile.c use these. */
#ifndef DZ_CHECKPOINT_TORCH_PICKLE_NAMES_H
#define DZ_CHECKPOINT_TORCH_PICKLE_NAMES_H

#include <stddef.h>
#include <stdint.h>

/* What a global means to us. */
typedef enum dz_global_role {
    DZ_GLOBAL_DICT, /* OrderedDict and its like */
    DZ_GLOBAL_TENSOR_V1,
    DZ_GLOBAL_TENSOR_V2,
    DZ_GLOBAL_TENSOR_V3,
    DZ_GLOBAL_PARAMETER,
    DZ_GLOBAL_FROM_TYPE,   /* a tensor with attributes, or of a subclass */
    DZ_GLOBAL_TENSOR_TYPE, /* the class of plain tensors, parameters, buffers */
    DZ_GLOBAL_STORAGE,     /* of a dtype */
    DZ_GLOBAL_DTYPE,
    DZ_GLOBAL_PLAIN,        /* a value that is no tensor: read over */
    DZ_GLOBAL_OTHER_TENSOR, /* a tensor that no safetensors file can hold */
} dz_global_role;

typedef struct dz_global {
    const char *name; /* "collections.OrderedDict"; "torchao.*": everything of a package */
    dz_global_role role;
    const char *dtype; /* safetensors' name of it; NULL for an untyped storage, whose elements are bytes, and where there is none */
    const char *what;  /* "a set", for a message; of a storage or dtype: safetensors has none such */
    const char *todo;  /* of a tensor that cannot be held: what to save in its place */
} dz_global;

/* The number of the known global of this module and name, or -1. There are less than 256. Python 2's __builtin__ is builtins. */
int dz_global_find(const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len);
const dz_global *dz_global_at(int number);

/* "REDUCE", as pickletools calls it; "0xff" for a byte that is no opcode. Returns a constant, or `text`. */
const char *dz_opcode_name(uint8_t opcode, char text[8]);

#endif

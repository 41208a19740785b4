/* The names in a pickle: its opcodes, and the few globals that are known. Only unpickle.c uses these. */
#ifndef DZ_CHECKPOINT_TORCH_PICKLE_NAMES_H
#define DZ_CHECKPOINT_TORCH_PICKLE_NAMES_H

#include <stddef.h>
#include <stdint.h>

/* What a global means to us. */
typedef enum dz_global_role {
    DZ_GLOBAL_ORDERED_DICT,
    DZ_GLOBAL_TENSOR_V2,
    DZ_GLOBAL_TENSOR_V3,
    DZ_GLOBAL_PARAMETER,
    DZ_GLOBAL_STORAGE, /* of a dtype */
    DZ_GLOBAL_DTYPE
} dz_global_role;

typedef struct dz_global {
    const char *name; /* "collections.OrderedDict" */
    dz_global_role role;
    const char *dtype; /* safetensors' name of it; NULL for an untyped storage, whose elements are bytes */
} dz_global;

/* The number of the known global of this module and name, or -1. There are less than 256. */
int dz_global_find(const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len);
const dz_global *dz_global_at(int number);

/* "REDUCE", as pickletools calls it; "0xff" for a byte that is no opcode. Returns a constant, or `text`. */
const char *dz_opcode_name(uint8_t opcode, char text[8]);

#endif

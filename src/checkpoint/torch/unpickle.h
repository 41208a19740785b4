/* The values of a pickle, read without running anything.
 *
 * A pickle is a program for a small stack machine. This machine has no calls: it knows dicts, strings, numbers, tuples and lists, and the
 * few functions of torch that describe a tensor, which it records instead of running them. Other values that torch.load(weights_only=True)
 * reads, and what else is of torch, are read over and recorded as what they are. Every other opcode or global is refused by its name. All
 * values are kept in flat arrays and refer to each other by number, so that no depth of nesting costs stack, and each array has a limit.
 */
#ifndef DZ_CHECKPOINT_TORCH_UNPICKLE_H
#define DZ_CHECKPOINT_TORCH_UNPICKLE_H

#include "checkpoint/safetensors.h"

#define DZ_PICKLE_MAX ((uint64_t)32 << 20)  /* bytes of a pickle */
#define DZ_PICKLE_OBJECTS ((size_t)1 << 22) /* of each kind: values, stack, memo, members, items */
#define DZ_PICKLE_TENSORS ((size_t)1 << 18)
#define DZ_PICKLE_DEPTH 64 /* containers within containers */

typedef enum dz_pickle_kind {
    DZ_PICKLE_NONE,
    DZ_PICKLE_BOOL,
    DZ_PICKLE_INT,
    DZ_PICKLE_FLOAT,
    DZ_PICKLE_STR,
    DZ_PICKLE_TUPLE,
    DZ_PICKLE_LIST,
    DZ_PICKLE_DICT,
    DZ_PICKLE_GLOBAL,
    DZ_PICKLE_STORAGE,
    DZ_PICKLE_TENSOR,
    DZ_PICKLE_OTHER_TENSOR, /* one that no safetensors file can hold: its global says what it is */
    DZ_PICKLE_OBJECT        /* read over: its global says what it is */
} dz_pickle_kind;

typedef struct dz_pickle_value {
    uint8_t kind;     /* dz_pickle_kind */
    uint8_t depth;    /* of a container: 1 more than its deepest member */
    uint8_t global;   /* which of the allowed globals; of a storage: its type; of another tensor or object: what it is */
    uint32_t count;   /* of a string: bytes; of a tuple or list: members; of a dict: times it was written to */
    uint32_t tensors; /* a tensor, and in a container when it was filled: how many */
    union {
        int64_t number; /* an int beyond 64 bits has count 1 */
        uint64_t at;    /* of a string: its offset in the pickle; of a tuple: its first member; of a tensor or storage: its number */
    } u;
} dz_pickle_value;

typedef struct dz_pickle_item { /* dict[key] = value, by number */
    uint32_t dict, key, value;
} dz_pickle_item;

typedef struct dz_pickle_storage { /* bytes kept elsewhere: the entry data/KEY */
    uint32_t key;                  /* a string value */
    const char *dtype;             /* safetensors' name of it; NULL: untyped, its elements are bytes */
    uint64_t count;                /* elements */
} dz_pickle_storage;

typedef struct dz_pickle_tensor {
    uint32_t storage;
    uint32_t ndim;
    const char *dtype; /* safetensors' name of it */
    uint64_t first;    /* element of the storage, counted in this dtype */
    uint64_t shape[DZ_MAX_NDIM];
    uint64_t stride[DZ_MAX_NDIM];
} dz_pickle_tensor;

typedef struct dz_pickle {
    const uint8_t *bytes; /* borrowed: it has the strings */
    dz_pickle_value *values;
    size_t nvalues, values_cap;
    uint32_t *members; /* of tuples */
    size_t nmembers, members_cap;
    dz_pickle_item *items; /* of all dicts, in the order they were set */
    size_t nitems, items_cap;
    dz_pickle_storage *storages;
    size_t nstorages, storages_cap;
    dz_pickle_tensor *tensors;
    size_t ntensors, tensors_cap;
    uint32_t root;
} dz_pickle;

/* Reads the pickle `bytes`, which must outlive `out`. `name` is used in messages ("task.bin: data.pkl"). DZ_EFAIL names the opcode or
 * global that is not allowed, or the byte where the pickle is wrong. On DZ_OK the caller frees with dz_pickle_free. */
dz_rc dz_unpickle(const char *name, const uint8_t *bytes, size_t len, dz_pickle *out, dz_error *err);
void dz_pickle_free(dz_pickle *pickle);

/* Text from a file that is not trusted, for a message: cut to fit, with '?' for what does not print. Returns `text`. */
#define DZ_PICKLE_TEXT 128
char *dz_pickle_text(const uint8_t *bytes, size_t len, char text[DZ_PICKLE_TEXT]);

/* "an int", "a list", "a torch.Size": what a value is, for a message. */
const char *dz_pickle_kind_name(const dz_pickle_value *value);

/* A tensor, of whatever kind. */
int dz_pickle_is_tensor(const dz_pickle_value *value);

/* "an int", "a list of 3", "a dict of 2 with 600 tensors". Returns `text`. */
char *dz_pickle_describe(const dz_pickle *pickle, uint32_t value, char text[DZ_PICKLE_TEXT]);

/* The string that a key is; "(an int)" for another one. Returns `text`. */
char *dz_pickle_key(const dz_pickle *pickle, uint32_t key, char text[DZ_PICKLE_TEXT]);

#endif

#include "checkpoint/header.h"

#include "base/overwrite.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* The order of the safetensors library's Dtype, backwards. */
static const char *const DTYPES[] = {"U64", "I64", "F64",     "C64",         "F32",         "U32",     "I32",     "BF16",
                                     "F16", "U16", "I16",     "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2",
                                     "I8",  "U8",  "F6_E3M2", "F6_E2M3",     "F4",          "BOOL"};

static size_t dtype_rank(const dz_tensor *t) {
    size_t rank = 0;
    while (rank < sizeof DTYPES / sizeof *DTYPES && strcmp(DTYPES[rank], t->dtype_name) != 0) rank++;
    return rank;
}

int dz_safetensors_order(const void *a, const void *b) {
    const dz_tensor *x = a, *y = b;
    size_t first = dtype_rank(x), second = dtype_rank(y);
    return first != second ? (first < second ? -1 : 1) : strcmp(x->name, y->name);
}

static json_t *tensor_json(const dz_tensor *tensor, uint64_t begin) {
    json_t *shape = json_array();
    for (uint32_t d = 0; d < tensor->ndim; d++) json_array_append_new(shape, json_integer((json_int_t)tensor->shape[d]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensor->dtype_name, "shape", shape, "data_offsets", (json_int_t)begin,
                     (json_int_t)(begin + tensor->nbytes));
}

/* The object under `key` of a JSON text; NULL where there is none. */
static json_t *member(const char *text, size_t len, const char *key) {
    json_t *root = text ? json_loadb(text, len, 0, NULL) : NULL, *found = json_object_get(root, key);
    json_incref(found);
    json_decref(root);
    if (json_is_object(found)) return found;
    json_decref(found);
    return NULL;
}

static json_t *file_metadata(dz_like like) {
    size_t length = sizeof(uint64_t); /* of the text, which follows */
    json_t *found = like.len > length ? member(like.text + length, like.len - length, "__metadata__") : NULL;
    if (!found) found = json_pack("{s:s}", "format", "pt");
    if (!like.mark) return found;
    json_t *marked = json_pack("{s:s}", DZ_MARK_KEY, like.mark);
    json_object_update_missing(marked, found);
    json_decref(found);
    return marked;
}

dz_rc dz_safetensors_header(const dz_tensor *tensors, size_t ntensors, dz_like like, dz_buf *out, dz_error *err) {
    json_t *root = json_pack("{s:o}", "__metadata__", file_metadata(like));
    uint64_t at = 0;
    int bad = root == NULL;
    for (size_t i = 0; i < ntensors && !bad; i++) {
        bad = json_object_set_new(root, tensors[i].name, tensor_json(&tensors[i], at)) != 0;
        at += tensors[i].nbytes;
    }
    char *text = bad ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text) return dz_fail(err, DZ_ENOMEM, "out of memory for a header of %zu tensors", ntensors);
    size_t len = strlen(text), padded = (len + 7) / 8 * 8;
    dz_buf_put_u64(out, padded, err);
    dz_buf_put(out, text, len, err);
    for (; len < padded; len++) dz_buf_put(out, " ", 1, err);
    free(text);
    return err->rc;
}

dz_rc dz_safetensors_index(const dz_tensor *tensors, const char *const *files, size_t ntensors, dz_like like, dz_buf *out, dz_error *err) {
    json_t *map = json_object();
    json_int_t total = 0;
    int bad = map == NULL;
    for (size_t i = 0; i < ntensors && !bad; i++) {
        bad = json_object_set_new(map, tensors[i].name, json_string(files[i])) != 0;
        total += (json_int_t)tensors[i].nbytes;
    }
    json_t *metadata = member(like.text, like.len, "metadata");
    if (!metadata) metadata = json_object();
    bad |= json_object_set_new(metadata, "total_size", json_integer(total)) != 0;
    json_t *root = json_pack("{s:o, s:O}", "metadata", metadata, "weight_map", map);
    char *text = root && !bad ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(map);
    json_decref(root);
    if (!text) return dz_fail(err, DZ_ENOMEM, "out of memory for an index of %zu tensors", ntensors);
    dz_buf_put(out, text, strlen(text), err);
    dz_buf_put(out, "\n", 1, err);
    free(text);
    return err->rc;
}

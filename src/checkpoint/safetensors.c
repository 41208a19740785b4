#include "checkpoint/safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void dz_tensors_free(dz_tensor *tensors, size_t ntensors) {
    for (size_t i = 0; i < ntensors; i++) free(tensors[i].name);
    free(tensors);
}

char *dz_shape_text(const dz_tensor *tensor, char text[DZ_SHAPE_TEXT]) {
    int used = snprintf(text, DZ_SHAPE_TEXT, "[");
    for (uint32_t d = 0; d < tensor->ndim; d++)
        used += snprintf(text + used, DZ_SHAPE_TEXT - (size_t)used, "%s%llu", d ? ", " : "", (unsigned long long)tensor->shape[d]);
    snprintf(text + used, DZ_SHAPE_TEXT - (size_t)used, "]");
    return text;
}

int dz_same_shape(const dz_tensor *a, const dz_tensor *b) {
    return a->ndim == b->ndim && memcmp(a->shape, b->shape, a->ndim * sizeof a->shape[0]) == 0;
}

static dz_rc parse_shape(const char *path, dz_tensor *t, const json_t *shape, dz_error *err) {
    if (!json_is_array(shape)) return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': no shape", path, t->name);
    if (json_array_size(shape) > DZ_MAX_NDIM)
        return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': %zu dimensions, at most %d are supported", path, t->name, json_array_size(shape),
                       DZ_MAX_NDIM);
    t->ndim = (uint32_t)json_array_size(shape);
    t->count = 1;
    for (uint32_t d = 0; d < t->ndim; d++) {
        const json_t *dim = json_array_get(shape, d);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': dimension %u is not a size", path, t->name, d);
        t->shape[d] = (uint64_t)json_integer_value(dim);
        if (__builtin_mul_overflow(t->count, t->shape[d], &t->count))
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': its shape overflows", path, t->name);
    }
    return DZ_OK;
}

static dz_rc parse_offsets(const char *path, dz_tensor *t, const json_t *offsets, uint64_t data_len, dz_error *err) {
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': data_offsets are not two integers", path, t->name);
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > data_len)
        return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': data_offsets [%lld, %lld] lie outside the %llu bytes of data", path, t->name,
                       (long long)begin, (long long)end, (unsigned long long)data_len);
    t->offset = (uint64_t)begin;
    t->nbytes = (uint64_t)(end - begin);
    return DZ_OK;
}

/* The format's types that are bytes to us, with the bits of an element. Any other name is made up. */
static const struct {
    const char *name;
    uint64_t bits;
} OPAQUE_TYPES[] = {{"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"C64", 64}};

uint64_t dz_element_bits(const char *dtype_name) {
    dz_dtype dtype = dz_dtype_of(dtype_name);
    if (dtype != DZ_OPAQUE) return 8 * (uint64_t)dz_dtype_size(dtype);
    for (size_t i = 0; i < sizeof OPAQUE_TYPES / sizeof *OPAQUE_TYPES; i++) {
        if (strcmp(OPAQUE_TYPES[i].name, dtype_name) == 0) return OPAQUE_TYPES[i].bits;
    }
    return 0;
}

int dz_tensor_name_ok(const char *name) {
    size_t len = 0;
    for (; name[len]; len++) {
        if ((unsigned char)name[len] < 0x20 || name[len] == 0x7f || len >= DZ_TENSOR_NAME_MAX) return 0;
    }
    return len > 0;
}

static dz_rc parse_tensor(const char *path, const char *name, const json_t *entry, uint64_t data_len, dz_tensor *t, dz_error *err) {
    if (!(t->name = dz_strdup(name, err))) return err->rc;
    if (!dz_tensor_name_ok(name))
        return dz_fail(err, DZ_EFAIL, "%s: tensor '%.200s': a name is of 1 to %d bytes, none of them a control character", path, name,
                       DZ_TENSOR_NAME_MAX);
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype || strlen(dtype) >= DZ_DTYPE_NAME || dtype[0] == '\0')
        return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': no usable dtype", path, name);
    memcpy(t->dtype_name, dtype, strlen(dtype) + 1);
    t->dtype = dz_dtype_of(dtype);
    dz_rc rc = parse_shape(path, t, json_object_get(entry, "shape"), err);
    if (rc == DZ_OK) rc = parse_offsets(path, t, json_object_get(entry, "data_offsets"), data_len, err);
    if (rc != DZ_OK) return rc;
    uint64_t want, bits = dz_element_bits(dtype);
    if (bits == 0) return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': '%s' is no dtype of safetensors", path, name, dtype);
    if (__builtin_mul_overflow(t->count, bits, &want) || want % 8 != 0 || want / 8 != t->nbytes) {
        char shape[DZ_SHAPE_TEXT];
        return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': shape %s of %s does not fill its %llu bytes", path, name, dz_shape_text(t, shape),
                       dtype, (unsigned long long)t->nbytes);
    }
    if (t->dtype == DZ_OPAQUE) t->count = t->nbytes;
    return DZ_OK;
}

static int by_offset(const void *x, const void *y) {
    const dz_tensor *a = x, *b = y;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    if (a->nbytes != b->nbytes) return a->nbytes < b->nbytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* The tensors must tile the data: sorted by offset, each begins where the last ended. */
static dz_rc check_tiling(const char *path, const dz_tensor *t, size_t n, uint64_t data_len, dz_error *err) {
    uint64_t end = 0;
    for (size_t i = 0; i < n; i++) {
        if (t[i].offset < end) return dz_fail(err, DZ_EFAIL, "%s: tensors '%s' and '%s' overlap", path, t[i - 1].name, t[i].name);
        if (t[i].offset > end)
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': %llu bytes before it belong to no tensor", path, t[i].name,
                           (unsigned long long)(t[i].offset - end));
        end = t[i].offset + t[i].nbytes;
    }
    if (end != data_len)
        return dz_fail(err, DZ_EFAIL, "%s: the last %llu bytes belong to no tensor", path, (unsigned long long)(data_len - end));
    return DZ_OK;
}

dz_rc dz_safetensors_parse(const char *path, const char *text, size_t len, uint64_t file_size, uint32_t shard, dz_tensor **tensors,
                           size_t *ntensors, dz_error *err) {
    json_error_t jerr;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &jerr);
    size_t n = 0;
    dz_tensor *list = NULL;
    if (!root || !json_is_object(root)) {
        dz_fail(err, DZ_EFAIL, "%s: its header is not a JSON object: %s", path, root ? "another kind of value" : jerr.text);
        goto out;
    }
    uint64_t data_start = 8 + (uint64_t)len, data_len = file_size - data_start;
    list = dz_alloc(json_object_size(root), sizeof *list, err);
    if (!list) goto out;
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        if (parse_tensor(path, name, entry, data_len, &list[n++], err) != DZ_OK) goto out;
    }
    qsort(list, n, sizeof *list, by_offset);
    if (check_tiling(path, list, n, data_len, err) != DZ_OK) goto out;
    dz_tensor *grown = realloc(*tensors, (*ntensors + n + 1) * sizeof *grown);
    if (!grown) {
        dz_fail(err, DZ_ENOMEM, "%s: out of memory for %zu tensors", path, n);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        list[i].offset += data_start;
        list[i].shard = shard;
        grown[*ntensors + i] = list[i];
    }
    *tensors = grown;
    *ntensors += n;
    n = 0;
out:
    dz_tensors_free(list, n);
    json_decref(root);
    return err->rc;
}

/* Tensors known by their parts: a stack of experts' matrices, or q, k and v one under another, as the tensors that another model has in its
 * place. */
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint.h"

dz_rc dz_split_add(dz_buf *splits, size_t tensor, const dz_tensor *const *parts, size_t nparts, dz_error *err) {
    dz_buf_put_u64(splits, tensor, err);
    dz_buf_put_u64(splits, nparts, err);
    for (size_t i = 0; i < nparts; i++) {
        dz_buf_put_u64(splits, strlen(parts[i]->name), err);
        dz_buf_put(splits, parts[i]->name, strlen(parts[i]->name), err);
        dz_buf_put_u64(splits, parts[i]->ndim, err);
        for (uint32_t d = 0; d < parts[i]->ndim; d++) dz_buf_put_u64(splits, parts[i]->shape[d], err);
    }
    return err->rc;
}

/* The next part of `whole`, `at` bytes into it. */
static dz_rc take_part(dz_view *v, const dz_tensor *whole, uint64_t at, dz_tensor *part, dz_error *err) {
    uint64_t len = dz_view_u64(v);
    const uint8_t *name = dz_view_bytes(v, len);
    *part = *whole;
    part->name = NULL;
    uint64_t ndim = dz_view_u64(v), count = 1;
    if (v->bad || ndim > DZ_MAX_NDIM) return dz_fail(err, DZ_EFAIL, "tensor '%s': its list of parts is cut short", whole->name);
    memset(part->shape, 0, sizeof part->shape);
    part->ndim = (uint32_t)ndim;
    for (uint32_t d = 0; d < part->ndim; d++) {
        part->shape[d] = dz_view_u64(v);
        if (__builtin_mul_overflow(count, part->shape[d], &count)) count = UINT64_MAX;
    }
    uint64_t size = dz_dtype_size(whole->dtype);
    if (count > (whole->nbytes - at) / size) return dz_fail(err, DZ_EFAIL, "tensor '%s': its parts are larger than it", whole->name);
    part->count = count;
    part->nbytes = count * size;
    part->offset = whole->offset + at;
    part->name = dz_strndup((const char *)name, (size_t)len, err);
    return err->rc;
}

/* Where a part is in the file: its first element has number `at` of the tensor, in row-major order. */
static dz_strided place_of(const dz_strided *whole, const dz_tensor *t, const dz_tensor *part, uint64_t at) {
    uint64_t size = dz_dtype_size(t->dtype), element = 0, rest = at;
    if (!whole->strided) return (dz_strided){.offset = whole->offset + at * size};
    for (uint32_t d = t->ndim; d-- > 0; rest /= t->shape[d]) element += rest % t->shape[d] * whole->stride[d];
    return dz_strided_of(part, whole->offset + element * size, whole->stride + (t->ndim - part->ndim));
}

typedef struct splitting {
    dz_tensor *parts; /* of all splits */
    size_t nparts, cap;
    dz_fused *fused; /* `first` counts in `parts`; `whole` is borrowed */
    uint32_t *tensor;
    size_t nfused, fused_cap, tensor_cap;
} splitting;

static dz_rc take_split(dz_view *v, const dz_checkpoint *ck, splitting *s, dz_error *err) {
    uint64_t tensor = dz_view_u64(v), nparts = dz_view_u64(v), at = 0;
    if (v->bad || tensor >= ck->ntensors || (s->nfused && tensor <= s->tensor[s->nfused - 1]))
        return dz_fail(err, DZ_EFAIL, "%s: a list of parts is cut short", ck->path);
    const dz_tensor *whole = &ck->tensors[tensor];
    if (dz_grow((void **)&s->fused, &s->fused_cap, s->nfused + 1, sizeof *s->fused, err) != DZ_OK ||
        dz_grow((void **)&s->tensor, &s->tensor_cap, s->nfused + 1, sizeof *s->tensor, err) != DZ_OK)
        return err->rc;
    s->tensor[s->nfused] = (uint32_t)tensor;
    s->fused[s->nfused++] = (dz_fused){.whole = *whole, .first = s->nparts, .nparts = (size_t)nparts};
    for (uint64_t i = 0; i < nparts; i++) {
        if (dz_grow((void **)&s->parts, &s->cap, s->nparts + 1, sizeof *s->parts, err) != DZ_OK) return err->rc;
        dz_tensor *part = &s->parts[s->nparts];
        if (take_part(v, whole, at, part, err) != DZ_OK) return err->rc;
        s->nparts++;
        at += part->nbytes;
        if (part->ndim > whole->ndim) return dz_fail(err, DZ_EFAIL, "tensor '%s': a part has more dimensions", whole->name);
    }
    if (at != whole->nbytes) return dz_fail(err, DZ_EFAIL, "tensor '%s': its parts do not fill it", whole->name);
    return DZ_OK;
}

/* Nothing can fail any more: tensors and places move into the new lists, which take them all. */
static void put_together(dz_checkpoint *ck, splitting *s, dz_tensor *tensors, dz_strided **places) {
    size_t n = 0, f = 0;
    for (size_t k = 0; k < ck->nshards; k++) {
        dz_shard *shard = &ck->shards[k];
        size_t first = shard->first, end = k + 1 < ck->nshards ? ck->shards[k + 1].first : ck->ntensors, begin = n;
        for (size_t i = first; i < end; i++) {
            const dz_strided *place = shard->places ? &shard->places[i - first] : NULL;
            if (f == s->nfused || s->tensor[f] != i) {
                if (place) places[k][n - begin] = *place;
                tensors[n++] = ck->tensors[i];
                continue;
            }
            uint64_t at = 0;
            dz_fused *fused = &s->fused[f++];
            const dz_tensor *parts = s->parts + fused->first;
            fused->first = n;
            for (size_t p = 0; p < fused->nparts; p++) {
                if (place) places[k][n - begin] = place_of(place, &fused->whole, &parts[p], at);
                at += parts[p].count;
                tensors[n++] = parts[p];
            }
        }
        if (shard->places) {
            free(shard->places);
            shard->places = places[k];
            shard->nplaces = n - begin;
        }
        shard->first = begin;
    }
    free(ck->tensors);
    ck->tensors = tensors;
    ck->ntensors = n;
    ck->fused = s->fused;
    ck->nfused = s->nfused;
    s->fused = NULL;
    s->nparts = 0; /* they are the checkpoint's now */
}

dz_rc dz_checkpoint_split(dz_checkpoint *ck, const dz_buf *splits, dz_error *err) {
    dz_view v = {.data = splits->data, .len = splits->len};
    splitting s = {0};
    dz_tensor *tensors = NULL;
    dz_strided **places = NULL;
    if (splits->len == 0) return DZ_OK;
    while (v.pos < v.len && take_split(&v, ck, &s, err) == DZ_OK) {
    }
    size_t n = ck->ntensors + s.nparts;
    if (err->rc == DZ_OK) tensors = dz_alloc(n, sizeof *tensors, err);
    if (err->rc == DZ_OK) places = dz_alloc(ck->nshards, sizeof *places, err);
    for (size_t k = 0; k < ck->nshards && err->rc == DZ_OK; k++) {
        if (ck->shards[k].places) places[k] = dz_alloc(ck->shards[k].nplaces + s.nparts, sizeof **places, err);
    }
    if (err->rc == DZ_OK) {
        put_together(ck, &s, tensors, places);
        dz_checkpoint_index(ck, err);
    } else {
        for (size_t k = 0; places && k < ck->nshards; k++) free(places[k]);
        free(tensors);
    }
    for (size_t i = 0; i < s.nparts; i++) free(s.parts[i].name);
    free(s.parts);
    free(s.fused);
    free(s.tensor);
    free(places);
    return err->rc;
}

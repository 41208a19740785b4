#include "codec/sparse_values.h"

#include <stdlib.h>
#include <string.h>

#include "codec/golomb.h"
#include "codec/lossless.h"

/* kind, last:u32 (seeded) or k:u8 gapslen:varint gaps (largest), n:varint, then the values as a lossless body of F16 without a base. */
static dz_rc put_values(dz_buf *out, const float *delta, const uint32_t *index, size_t n, dz_error *err) {
    uint16_t *half = dz_alloc_raw(n, sizeof *half, err);
    if (!half) return err->rc;
    for (size_t i = 0; i < n; i++) half[i] = dz_float_to_f16(delta[index[i]]);
    dz_buf_put_varint(out, n, err);
    dz_lossless_encode(out, half, NULL, DZ_F16, n, NULL, err);
    free(half);
    return err->rc;
}

static size_t find_seeded(uint32_t *index, uint64_t key, uint32_t last, size_t count, size_t most) {
    const dz_kernel_table *k = dz_kernels();
    uint32_t local[DZ_CHUNK + 16], u[DZ_CHUNK + 16];
    size_t n = 0;
    for (size_t at = 0; at < count; at += DZ_CHUNK) {
        size_t len = count - at < DZ_CHUNK ? count - at : DZ_CHUNK, hits = k->candidates(local, u, dz_key_at(key, (uint32_t)at), last, len);
        for (size_t i = 0; i < hits && n < most; i++) index[n++] = local[i] + (uint32_t)at;
    }
    return n;
}

dz_rc dz_values_encode_seeded(dz_buf *out, const float *delta, size_t count, uint64_t key, uint32_t last, uint64_t *kept, dz_error *err) {
    uint32_t *index = dz_alloc_raw(count, sizeof *index, err);
    if (!index) return err->rc;
    size_t n = find_seeded(index, key, last, count, count);
    uint8_t kind = DZ_SPARSE_VALUES_SEEDED;
    dz_buf_put(out, &kind, 1, err);
    dz_buf_put_u32(out, last, err);
    put_values(out, delta, index, n, err);
    free(index);
    *kept = n;
    return err->rc;
}

typedef struct sized {
    uint32_t size, index; /* |delta| as its bits: the same order */
} sized;

static int larger_first(const void *x, const void *y) {
    const sized *a = x, *b = y;
    if (a->size != b->size) return a->size > b->size ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static int ascending(const void *x, const void *y) {
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

dz_rc dz_values_encode_largest(dz_buf *out, const float *delta, size_t count, uint64_t keep, dz_error *err) {
    size_t n = (size_t)(keep < count ? keep : count);
    sized *all = dz_alloc_raw(count, sizeof *all, err);
    uint32_t *index = dz_alloc_raw(n, sizeof *index, err);
    dz_buf gaps = {0};
    if (err->rc != DZ_OK) goto out;
    for (size_t i = 0; i < count; i++) all[i] = (sized){dz_float_bits(delta[i]) & 0x7fffffffU, (uint32_t)i};
    qsort(all, count, sizeof *all, larger_first); /* a baseline: plain rather than fast */
    for (size_t i = 0; i < n; i++) index[i] = all[i].index;
    if (n) qsort(index, n, sizeof *index, ascending);
    unsigned parameter = dz_rice_parameter(count, n);
    uint8_t head[2] = {DZ_SPARSE_VALUES_GOLOMB, (uint8_t)parameter};
    if (dz_rice_encode(&gaps, index, n, parameter, err) != DZ_OK) goto out;
    dz_buf_put(out, head, sizeof head, err);
    dz_buf_put_varint(out, gaps.len, err);
    dz_buf_put(out, gaps.data, gaps.len, err);
    put_values(out, delta, index, n, err);
out:
    free(all);
    free(index);
    dz_buf_free(&gaps);
    return err->rc;
}

dz_rc dz_values_decode(dz_nonzeros *kept, const uint8_t *body, size_t nbytes, uint64_t key, size_t count, dz_error *err) {
    dz_view v = {.data = body, .len = nbytes};
    unsigned kind = dz_view_u8(&v), parameter = 0;
    uint32_t last = 0;
    uint64_t gaps_len = 0;
    const uint8_t *gaps = NULL;
    kept->count = 0;
    if (kind == DZ_SPARSE_VALUES_SEEDED) {
        last = dz_view_u32(&v);
    } else if (kind == DZ_SPARSE_VALUES_GOLOMB) {
        parameter = dz_view_u8(&v);
        gaps_len = dz_view_varint(&v);
        gaps = dz_view_bytes(&v, gaps_len);
    } else {
        return dz_fail(err, DZ_EDAMAGE, "a block of unknown kind %u", kind);
    }
    uint64_t n = dz_view_varint(&v);
    if (v.bad || n > count || parameter > 31) return dz_fail(err, DZ_EDAMAGE, "a block of values has an invalid head");
    if (dz_nonzeros_reserve(kept, (size_t)n, err) != DZ_OK) return err->rc;
    if (kind == DZ_SPARSE_VALUES_GOLOMB) {
        if (dz_rice_decode(kept->index, (size_t)n, parameter, count, gaps, (size_t)gaps_len, err) != DZ_OK) return err->rc;
    } else if (find_seeded(kept->index, key, last, count, (size_t)n) != n) {
        return dz_fail(err, DZ_EDAMAGE, "a block of values has too many");
    }
    uint16_t *half = dz_alloc_raw((size_t)n, sizeof *half, err);
    if (half && dz_lossless_decode(half, NULL, DZ_F16, (size_t)n, v.data + v.pos, v.len - v.pos, err) == DZ_OK) {
        for (size_t i = 0; i < n; i++) kept->value[i] = dz_f16_to_float(half[i]);
        kept->count = (size_t)n;
    }
    free(half);
    return err->rc;
}

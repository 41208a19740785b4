#include "decode/add_kept.h"

#include <string.h>

#include "numeric/kernels.h"

#define INLINE static inline __attribute__((always_inline))

INLINE float load_one(const uint8_t *at, dz_dtype dtype) {
    uint16_t half;
    float x;
    if (dtype == DZ_BF16) return memcpy(&half, at, sizeof half), dz_bf16_to_float(half);
    dz_widen(&x, at, dtype, 1);
    return x;
}

INLINE void store_one(uint8_t *at, float x, dz_dtype dtype) {
    if (dtype == DZ_BF16) {
        uint16_t half = dz_float_to_bf16(x);
        memcpy(at, &half, sizeof half);
    } else {
        dz_narrow(at, &x, dtype, 1);
    }
}

INLINE size_t add_between(const dz_nonzeros *kept, const dz_stretch *s, const float *delta, float scale, dz_dtype from, dz_dtype to,
                          int values) {
    size_t in = dz_dtype_size(from), size = dz_dtype_size(to), k = s->k;
    for (; k < kept->count && kept->index[k] < s->end; k++) {
        size_t at = kept->index[k] - s->first;
        float change = values ? scale * kept->value[k] : delta[kept->level[k]];
        store_one(s->out + at * size, load_one(s->base + at * in, from) + change, to);
    }
    return k;
}

static size_t add_to_f64(const dz_nonzeros *kept, const dz_stretch *s, const float *delta, float scale, int values) {
    size_t k = s->k;
    for (; k < kept->count && kept->index[k] < s->end; k++) { /* `out` holds the base's value already */
        double y;
        uint8_t *at = s->out + (kept->index[k] - s->first) * sizeof y;
        memcpy(&y, at, sizeof y);
        y += (double)(values ? scale * kept->value[k] : delta[kept->level[k]]);
        memcpy(at, &y, sizeof y);
    }
    return k;
}

size_t dz_add_kept(const dz_nonzeros *kept, const dz_stretch *s, const float *delta, float scale, int values) {
    if (s->to == DZ_F64) return add_to_f64(kept, s, delta, scale, values);
    if (s->to == DZ_BF16 && s->from == DZ_BF16 && !values) return add_between(kept, s, delta, scale, DZ_BF16, DZ_BF16, 0);
    return add_between(kept, s, delta, scale, s->from, s->to, values);
}

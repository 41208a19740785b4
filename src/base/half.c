#include "base/half.h"

static const struct {
    const char *name;
    size_t size;
} TYPES[DZ_DTYPE_COUNT] = {
    [DZ_OPAQUE] = {NULL, 1},       [DZ_F64] = {"F64", 8},         [DZ_F32] = {"F32", 4}, [DZ_F16] = {"F16", 2},
    [DZ_BF16] = {"BF16", 2},       [DZ_F8_E4M3] = {"F8_E4M3", 1}, [DZ_I64] = {"I64", 8}, [DZ_I32] = {"I32", 4},
    [DZ_F8_E5M2] = {"F8_E5M2", 1}, [DZ_I16] = {"I16", 2},         [DZ_I8] = {"I8", 1},   [DZ_U64] = {"U64", 8},
    [DZ_U32] = {"U32", 4},         [DZ_U16] = {"U16", 2},         [DZ_U8] = {"U8", 1},   [DZ_BOOL] = {"BOOL", 1},
};

const char *dz_dtype_name(dz_dtype dtype) { return TYPES[dtype].name; }
size_t dz_dtype_size(dz_dtype dtype) { return TYPES[dtype].size; }
int dz_dtype_is_float(dz_dtype dtype) { return dtype == DZ_F32 || dtype == DZ_F16 || dtype == DZ_BF16; }

dz_dtype dz_dtype_of(const char *name) {
    for (int i = 1; i < DZ_DTYPE_COUNT; i++) {
        if (strcmp(TYPES[i].name, name) == 0) return (dz_dtype)i;
    }
    return DZ_OPAQUE;
}

float dz_f16_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000U) << 16, exponent = (h >> 10) & 0x1fU, mantissa = h & 0x3ffU;
    if (exponent == 31) return dz_bits_to_float(sign | 0x7f800000U | mantissa << 13 | (mantissa ? 0x400000U : 0));
    if (exponent != 0) return dz_bits_to_float(sign | (exponent + 112) << 23 | mantissa << 13);
    float x = (float)mantissa * 0x1p-24f; /* subnormal: exact */
    return dz_bits_to_float(sign | dz_float_bits(x));
}

uint16_t dz_float_to_f16(float x) {
    uint32_t bits = dz_float_bits(x), sign = (bits >> 16) & 0x8000U;
    bits &= 0x7fffffffU;
    if (bits > 0x7f800000U) return (uint16_t)(sign | 0x7e00U | (bits >> 13 & 0x3ffU));
    if (bits >= 0x477ff000U) return (uint16_t)(sign | 0x7c00U); /* 65520 and above round to infinity */
    if (bits < 0x38800000U) {                                   /* below 2^-14: subnormal, ulp 2^-24 */
        float scaled = dz_bits_to_float(bits) + 0.5f;           /* ulp of 0.5 is 2^-24: the sum rounds as f16 does */
        return (uint16_t)(sign | (dz_float_bits(scaled) - 0x3f000000U));
    }
    bits += 0xfffU + ((bits >> 13) & 1);
    return (uint16_t)(sign | ((bits >> 13) - (112U << 10)));
}

void dz_widen(float *restrict dst, const void *restrict src, dz_dtype dtype, size_t count) {
    const uint8_t *bytes = src;
    if (dtype == DZ_F32) {
        memcpy(dst, bytes, 4 * count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint16_t h;
        memcpy(&h, bytes + 2 * i, 2);
        dst[i] = dtype == DZ_BF16 ? dz_bf16_to_float(h) : dz_f16_to_float(h);
    }
}

void dz_narrow(void *restrict dst, const float *restrict src, dz_dtype dtype, size_t count) {
    uint8_t *bytes = dst;
    if (dtype == DZ_F32) {
        memcpy(bytes, src, 4 * count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint16_t h = dtype == DZ_BF16 ? dz_float_to_bf16(src[i]) : dz_float_to_f16(src[i]);
        memcpy(bytes + 2 * i, &h, 2);
    }
}

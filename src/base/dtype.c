#include "base/dtype.h"

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
int dz_dtype_is_float(dz_dtype dtype) {
    return dtype == DZ_F64 || dtype == DZ_F32 || dtype == DZ_F16 || dtype == DZ_BF16 || dtype == DZ_F8_E4M3 || dtype == DZ_F8_E5M2;
}

dz_dtype dz_dtype_of(const char *name) {
    for (int i = 1; i < DZ_DTYPE_COUNT; i++) {
        if (TYPES[i].name[0] == name[0] && strcmp(TYPES[i].name, name) == 0) return (dz_dtype)i;
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

float dz_e4m3_to_float(uint8_t b) {
    uint32_t sign = (uint32_t)(b & 0x80U) << 24, exponent = (b >> 3) & 0xfU, mantissa = b & 7U;
    if ((b & 0x7fU) == 0x7fU) return dz_bits_to_float(sign | 0x7fc00000U);
    if (exponent != 0) return dz_bits_to_float(sign | (exponent + 120) << 23 | mantissa << 20);
    float x = (float)mantissa * 0x1p-9f; /* subnormal: exact */
    return dz_bits_to_float(sign | dz_float_bits(x));
}

uint8_t dz_float_to_e4m3(float x) {
    uint32_t bits = dz_float_bits(x), sign = (bits >> 24) & 0x80U;
    bits &= 0x7fffffffU;
    if (bits >= 0x7f800000U) return (uint8_t)(sign | 0x7fU);
    if (bits >= 0x43e00000U) return (uint8_t)(sign | 0x7eU); /* 448 and above */
    if (bits < 0x3c800000U) {                                /* below 2^-6: subnormal, ulp 2^-9 */
        float scaled = dz_bits_to_float(bits) + 16384.0f;    /* ulp of 2^14 is 2^-9 */
        return (uint8_t)(sign | (dz_float_bits(scaled) - 0x46800000U));
    }
    bits += 0x7ffffU + ((bits >> 20) & 1);
    return (uint8_t)(sign | ((bits >> 20) - (120U << 3)));
}

uint8_t dz_float_to_e5m2(float x) {
    uint32_t bits = dz_float_bits(x), sign = (bits >> 24) & 0x80U;
    bits &= 0x7fffffffU;
    if (bits > 0x7f800000U) return (uint8_t)(sign | 0x7eU | (bits >> 21 & 3U));
    if (bits >= 0x47700000U) return (uint8_t)(sign | 0x7cU); /* 61440 and above round to infinity */
    if (bits < 0x38800000U) {                                /* below 2^-14: subnormal, ulp 2^-16 */
        float scaled = dz_bits_to_float(bits) + 128.0f;      /* ulp of 2^7 is 2^-16 */
        return (uint8_t)(sign | (dz_float_bits(scaled) - 0x43000000U));
    }
    bits += 0xfffffU + ((bits >> 21) & 1);
    return (uint8_t)(sign | ((bits >> 21) - (112U << 2)));
}

float dz_double_to_float(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffffffffffU) <= 0x7ff0000000000000U) return (float)x;
    return dz_bits_to_float((uint32_t)(bits >> 32 & 0x80000000U) | 0x7fc00000U | (uint32_t)(bits >> 29 & 0x3fffffU));
}

double dz_float_to_double(float x) {
    uint32_t bits = dz_float_bits(x);
    double out = (double)x;
    if ((bits & 0x7fffffffU) > 0x7f800000U) {
        uint64_t wide = (uint64_t)(bits & 0x80000000U) << 32 | 0x7ff8000000000000U | (uint64_t)(bits & 0x3fffffU) << 29;
        memcpy(&out, &wide, sizeof out);
    }
    return out;
}

static float widen_one(const uint8_t *at, dz_dtype dtype) {
    uint16_t h;
    double d;
    switch (dtype) {
        case DZ_F64: memcpy(&d, at, 8); return dz_double_to_float(d);
        case DZ_F8_E4M3: return dz_e4m3_to_float(*at);
        case DZ_F8_E5M2: return dz_f16_to_float((uint16_t)(*at << 8));
        case DZ_F16: memcpy(&h, at, 2); return dz_f16_to_float(h);
        default: memcpy(&h, at, 2); return dz_bf16_to_float(h);
    }
}

static void narrow_one(uint8_t *at, float x, dz_dtype dtype) {
    uint16_t h = dtype == DZ_F16 ? dz_float_to_f16(x) : dz_float_to_bf16(x);
    double d = dz_float_to_double(x);
    switch (dtype) {
        case DZ_F64: memcpy(at, &d, 8); break;
        case DZ_F8_E4M3: *at = dz_float_to_e4m3(x); break;
        case DZ_F8_E5M2: *at = dz_float_to_e5m2(x); break;
        default: memcpy(at, &h, 2);
    }
}

void dz_widen(float *restrict dst, const void *restrict src, dz_dtype dtype, size_t count) {
    size_t size = dz_dtype_size(dtype);
    if (dtype == DZ_F32)
        memcpy(dst, src, 4 * count);
    else
        for (size_t i = 0; i < count; i++) dst[i] = widen_one((const uint8_t *)src + size * i, dtype);
}

void dz_narrow(void *restrict dst, const float *restrict src, dz_dtype dtype, size_t count) {
    size_t size = dz_dtype_size(dtype);
    if (dtype == DZ_F32)
        memcpy(dst, src, 4 * count);
    else
        for (size_t i = 0; i < count; i++) narrow_one((uint8_t *)dst + size * i, src[i], dtype);
}

/* Element types of tensors, and exact conversion between them and float (round to nearest even on the way down). */
#ifndef DZ_BASE_DTYPE_H
#define DZ_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum dz_dtype {                /* on disk as its safetensors name */
                        DZ_OPAQUE = 0, /* an unknown name: bytes, lossless only */
                        DZ_F64,
                        DZ_F32,
                        DZ_F16,
                        DZ_BF16,
                        DZ_F8_E4M3,
                        DZ_F8_E5M2,
                        DZ_I64,
                        DZ_I32,
                        DZ_I16,
                        DZ_I8,
                        DZ_U64,
                        DZ_U32,
                        DZ_U16,
                        DZ_U8,
                        DZ_BOOL,
                        DZ_DTYPE_COUNT
} dz_dtype;

/* The safetensors name ("BF16"); NULL for DZ_OPAQUE. */
const char *dz_dtype_name(dz_dtype dtype);
dz_dtype dz_dtype_of(const char *name);
size_t dz_dtype_size(dz_dtype dtype);  /* bytes of an element; 1 for DZ_OPAQUE */
int dz_dtype_is_float(dz_dtype dtype); /* the lossy path can widen it: F64 (rounded), F32, F16, BF16, F8_E4M3, F8_E5M2 */

static inline int dz_dtype_is_f8(dz_dtype dtype) { return dtype == DZ_F8_E4M3 || dtype == DZ_F8_E5M2; }

static inline float dz_bits_to_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t dz_float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float dz_bf16_to_float(uint16_t h) { return dz_bits_to_float((uint32_t)h << 16); }

static inline uint16_t dz_float_to_bf16(float x) {
    uint32_t bits = dz_float_bits(x);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return (uint16_t)((bits >> 16) | 0x40); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fffU + ((bits >> 16) & 1)) >> 16);
}

float dz_f16_to_float(uint16_t h);
uint16_t dz_float_to_f16(float x);

/* F8_E5M2 overflows to infinity, as F16 does. F8_E4M3 has no infinity: it saturates at 448, and an infinity becomes NaN. */
float dz_e4m3_to_float(uint8_t b);
uint8_t dz_float_to_e4m3(float x);
uint8_t dz_float_to_e5m2(float x);

/* To nearest even; a NaN keeps its sign and the upper bits of its payload and becomes quiet. */
float dz_double_to_float(double x);
double dz_float_to_double(float x);

/* Converts `count` elements. `dst` and `src` do not overlap, `dtype` is a float type (dz_dtype_is_float); neither need be aligned. */
void dz_widen(float *restrict dst, const void *restrict src, dz_dtype dtype, size_t count);
void dz_narrow(void *restrict dst, const float *restrict src, dz_dtype dtype, size_t count);

#endif

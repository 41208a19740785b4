#include "numeric/kernels.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifndef DZ_KERNELS
#define DZ_KERNELS dz_kernels_portable
#endif
#define STRING2(x) #x
#define STRING(x) STRING2(x)

static void widen(float *restrict dst, const void *restrict src, dz_dtype dtype, size_t count) {
    const uint16_t *h = src; /* tile buffers are aligned; tensors inside them start at element borders */
    size_t i = 0;
    if (dtype == DZ_BF16) {
        for (; i < count; i++) dst[i] = dz_bits_to_float((uint32_t)h[i] << 16);
        return;
    }
    if (dtype == DZ_F16) {
#ifdef __AVX512F__
        for (; i + 16 <= count; i += 16)
            _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(h + i))));
#endif
#ifdef __F16C__
        for (; i + 8 <= count; i += 8) _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(h + i))));
#endif
        for (; i < count; i++) dst[i] = dz_f16_to_float(h[i]);
        return;
    }
    dz_widen(dst, src, dtype, count); /* F32, and types that are seldom met */
}

static void narrow(void *restrict dst, const float *restrict src, dz_dtype dtype, size_t count) {
    uint16_t *h = dst;
    size_t i = 0;
    if (dtype == DZ_BF16) {
        for (; i < count; i++) {
            uint32_t bits = dz_float_bits(src[i]);
            uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1)) >> 16, quiet = (bits >> 16) | 0x40;
            h[i] = (uint16_t)((bits & 0x7fffffffU) > 0x7f800000U ? quiet : rounded);
        }
        return;
    }
    if (dtype == DZ_F16) {
#ifdef __F16C__
        for (; i + 8 <= count; i += 8)
            _mm_storeu_si128((__m128i *)(void *)(h + i),
                             _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#endif
        for (; i < count; i++) h[i] = dz_float_to_f16(src[i]);
        return;
    }
    dz_narrow(dst, src, dtype, count);
}

static void add_scaled(void *restrict out, dz_dtype to, const void *restrict base, dz_dtype from, const float *restrict x,
                       const float *restrict factor, float scale, size_t count) {
    enum { PIECE = 512 };
    float wide[PIECE];
    for (size_t at = 0; at < count; at += PIECE) {
        size_t len = count - at < PIECE ? count - at : PIECE;
        widen(wide, (const uint8_t *)base + at * dz_dtype_size(from), from, len);
        if (factor) {
            for (size_t i = 0; i < len; i++) wide[i] += x[at + i] * factor[at + i] * scale;
        } else {
            for (size_t i = 0; i < len; i++) wide[i] += x[at + i] * scale;
        }
        narrow((uint8_t *)out + at * dz_dtype_size(to), wide, to, len);
    }
}

#define INLINE static inline __attribute__((always_inline))
#define WIDE 1024 /* elements widened at a time where a loop does not do it itself */

/* Element i of a row of floats or, without a row of them in between, of BF16. */
INLINE float element(const void *row, size_t i, dz_dtype dtype) {
    return dtype == DZ_BF16 ? dz_bf16_to_float(((const uint16_t *)row)[i]) : ((const float *)row)[i];
}

/* Elements at .. at + len - 1 of a row in float: where they stand, or widened into `room`. */
static const float *floats(float *room, const void *row, dz_dtype dtype, size_t at, size_t len) {
    if (dtype == DZ_F32) return (const float *)row + at;
    widen(room, (const uint8_t *)row + at * dz_dtype_size(dtype), dtype, len);
    return room;
}

static void difference(float *restrict dst, const void *restrict task, dz_dtype task_dtype, const void *restrict base, dz_dtype base_dtype,
                       size_t count) {
    float wide_task[WIDE], wide_base[WIDE];
    if (task_dtype == DZ_BF16 && base_dtype == DZ_BF16) {
        for (size_t i = 0; i < count; i++) dst[i] = element(task, i, DZ_BF16) - element(base, i, DZ_BF16);
        return;
    }
    size_t at = 0;
#ifdef __AVX512F__
    const uint16_t *a = task, *b = base;
    for (; task_dtype == DZ_F16 && base_dtype == DZ_F16 && at + 16 <= count; at += 16) {
        __m512 x = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(a + at)));
        _mm512_storeu_ps(dst + at, _mm512_sub_ps(x, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(b + at)))));
    }
#elif defined(__F16C__)
    const uint16_t *a = task, *b = base;
    for (; task_dtype == DZ_F16 && base_dtype == DZ_F16 && at + 8 <= count; at += 8) {
        __m256 x = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(a + at)));
        _mm256_storeu_ps(dst + at, _mm256_sub_ps(x, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(b + at)))));
    }
#endif
    for (; at < count; at += WIDE) {
        size_t len = count - at < WIDE ? count - at : WIDE;
        const float *x = floats(wide_task, task, task_dtype, at, len), *y = floats(wide_base, base, base_dtype, at, len);
        for (size_t i = 0; i < len; i++) dst[at + i] = x[i] - y[i];
    }
}

INLINE void range_of(dz_range *out, const void *restrict task, dz_dtype dtype, const float *restrict base, size_t count) {
    int32_t lo = out->lo, hi = out->hi;
    for (size_t i = 0; i < count; i++) {
        int32_t x = dz_ordered(element(task, i, dtype) - base[i]);
        lo = x < lo ? x : lo;
        hi = x > hi ? x : hi;
    }
    out->lo = lo;
    out->hi = hi;
}

INLINE void levels_of(uint8_t *restrict dst, const void *restrict task, dz_dtype dtype, const float *restrict base, float lo, float step,
                      unsigned top, size_t count) {
    const float most = (float)top,
                magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, half to even, in the low mantissa bits */
    for (size_t i = 0; i < count; i++) {
        float q = (element(task, i, dtype) - base[i] - lo) / step;
        q = q < most ? q : most;
        dst[i] = (uint8_t)dz_float_bits(q + magic);
    }
}

static void levels(uint8_t *restrict dst, const void *restrict task, dz_dtype dtype, const float *restrict base, float lo, float step,
                   unsigned top, size_t count) {
    float room[WIDE];
    if (dtype == DZ_BF16) levels_of(dst, task, DZ_BF16, base, lo, step, top, count);
    for (size_t at = 0; dtype != DZ_BF16 && at < count; at += WIDE) {
        size_t len = count - at < WIDE ? count - at : WIDE;
        levels_of(dst + at, floats(room, task, dtype, at, len), DZ_F32, base + at, lo, step, top, len);
    }
}

/* Sums of d^2; `sizes`: also those of |d|. */
INLINE uint64_t sums_of(double *restrict sums, int sizes, const void *restrict task, dz_dtype dtype, const float *restrict base,
                        size_t count) {
    double first[DZ_LANES], second[DZ_LANES];
    uint32_t changed[DZ_LANES] = {0};
    uint64_t total = 0;
    size_t whole = count - count % DZ_LANES;
    memcpy(first, sums, sizeof first);
    memcpy(second, sums + DZ_LANES, sizeof second);
    for (size_t i = 0; i < whole; i += DZ_LANES) {
        for (size_t j = 0; j < DZ_LANES; j++) {
            float f = element(task, i + j, dtype) - base[i + j];
            double d = (double)f;
            second[j] += d * d;
            if (sizes) first[j] += d < 0 ? -d : d;
            if (sizes) changed[j] += f != 0;
        }
    }
    for (size_t i = whole; i < count; i++) {
        float f = element(task, i, dtype) - base[i];
        double d = (double)f;
        second[i - whole] += d * d;
        if (sizes) first[i - whole] += d < 0 ? -d : d;
        if (sizes) changed[i - whole] += f != 0;
    }
    memcpy(sums, first, sizeof first);
    memcpy(sums + DZ_LANES, second, sizeof second);
    for (size_t j = 0; j < DZ_LANES; j++) total += changed[j];
    return total;
}

/* Range and sums, over elements that are in the first-level cache for the second of them. */
INLINE void measure_row(dz_measures *m, int sizes, const void *restrict task, dz_dtype dtype, const float *restrict base, size_t count) {
    range_of(&m->range, task, dtype, base, count);
    if (sizes)
        m->changed += sums_of(m->sums, 1, task, dtype, base, count);
    else
        sums_of(m->sums, 0, task, dtype, base, count);
}

static void measure(dz_measures *m, int sizes, const void *restrict task, dz_dtype dtype, const float *restrict base, size_t count) {
    float room[WIDE];
    for (size_t at = 0; at < count; at += WIDE) {
        size_t len = count - at < WIDE ? count - at : WIDE;
        if (dtype == DZ_BF16)
            measure_row(m, sizes, (const uint16_t *)task + at, DZ_BF16, base + at, len);
        else
            measure_row(m, sizes, floats(room, task, dtype, at, len), DZ_F32, base + at, len);
    }
}

static void energy(double *restrict lanes, const float *restrict x, size_t count) {
    double sum[DZ_LANES];
    size_t whole = count - count % DZ_LANES;
    memcpy(sum, lanes, sizeof sum);
    for (size_t i = 0; i < whole; i += DZ_LANES) {
        for (size_t j = 0; j < DZ_LANES; j++) sum[j] += (double)x[i + j] * (double)x[i + j];
    }
    for (size_t i = whole; i < count; i++) sum[i - whole] += (double)x[i] * (double)x[i];
    memcpy(lanes, sum, sizeof sum);
}

/* A word of 16 bits as an integer in the order of the values. */
INLINE int32_t ordered16(uint16_t word) {
    int32_t sign = -(word >> 15);
    return ((word & 0x7fff) ^ sign) - sign;
}

static void distances(uint8_t *restrict bits, const uint16_t *restrict word, const uint16_t *restrict predictor, size_t count) {
    for (size_t i = 0; i < count; i++) {
        int32_t d = ordered16(word[i]) - ordered16(predictor[i]), size = d < 0 ? -d : d;
        int32_t n = (int32_t)(dz_float_bits((float)size) >> 23) - 126; /* an integer below 2^24 is a float of its own */
        bits[i] = (uint8_t)(n > 0 ? n : 0);
    }
}

static size_t uniform_levels(int32_t *restrict level, const float *restrict x, float width, float most, size_t count) {
    int32_t zeros = 0; /* a tile has fewer than 2^31 */
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = dz_float_bits(x[i]);
        float size = dz_bits_to_float(bits & 0x7fffffffU) / width + 0.5f;
        size = size < most ? size : most;
        int32_t l = (int32_t)size, sign = (int32_t)bits >> 31;
        level[i] = (l ^ sign) - sign;
        zeros += l == 0;
    }
    return count - (size_t)zeros;
}

static int symbols(uint8_t *restrict symbol, const int32_t *restrict level, unsigned k, size_t count) {
    int32_t all = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t high = level[i] >> k, number = (int32_t)((uint32_t)high << 1) ^ (high >> 31);
        all |= number;
        symbol[i] = (uint8_t)(number < 255 ? number : 255);
    }
    if (all < 255) return 0;
    int32_t most = 0; /* bits of several numbers may look like a larger one */
    for (size_t i = 0; i < count; i++) most = symbol[i] > most ? symbol[i] : most;
    return most == 255;
}

#include "numeric/kernels_close.h"
#include "numeric/kernels_rotation.h"
#include "numeric/kernels_walk.h"

/* Wider ones than AVX2's are compared into masks, which takes longer; wider ones than the registers are taken apart lane by lane. */
#ifdef __AVX2__
#define VECTOR 32
#else
#define VECTOR 16
#endif
typedef uint8_t bytes __attribute__((vector_size(VECTOR)));

#define SIDE_BY_SIDE 5 /* levels that are counted together: a load for all, and 15 of 16 in three rounds */

/* How many of `rows` vectors' elements are g, g + 1 ...; a byte lane counts at most 255. */
static void count_some(uint64_t sum[SIDE_BY_SIDE], const uint8_t *restrict level, size_t rows, unsigned g) {
    bytes acc[SIDE_BY_SIDE] = {{0}}, want[SIDE_BY_SIDE];
    for (unsigned j = 0; j < SIDE_BY_SIDE; j++) memset(&want[j], (int)(g + j), sizeof want[j]);
    for (size_t r = 0; r < rows; r++) {
        bytes x;
        memcpy(&x, level + VECTOR * r, sizeof x);
        for (unsigned j = 0; j < SIDE_BY_SIDE; j++) acc[j] -= (bytes)(x == want[j]);
    }
    for (unsigned j = 0; j < SIDE_BY_SIDE; j++) {
        uint8_t lanes[VECTOR];
        memcpy(lanes, &acc[j], sizeof lanes);
        sum[j] = 0;
        for (size_t i = 0; i < VECTOR; i++) sum[j] += lanes[i];
    }
}

/* Compare-and-count; the last level by what is left. */
static void count16(uint64_t *restrict histogram, const uint8_t *restrict level, unsigned nlevels, size_t count) {
    size_t done = 0;
    while (count - done >= VECTOR) {
        size_t rows = (count - done) / VECTOR;
        if (rows > 255) rows = 255; /* 8 KB: stays in the first-level cache for all rounds */
        uint64_t rest = VECTOR * rows, sum[SIDE_BY_SIDE];
        for (unsigned g = 0; g + 1 < nlevels; g += SIDE_BY_SIDE) {
            count_some(sum, level + done, rows, g);
            for (unsigned j = 0; j < SIDE_BY_SIDE && g + j + 1 < nlevels; j++) {
                histogram[g + j] += sum[j];
                rest -= sum[j];
            }
        }
        histogram[nlevels - 1] += rest;
        done += VECTOR * rows;
    }
    for (; done < count; done++) histogram[level[done]]++;
}

static void count256(uint64_t *restrict histogram, const uint8_t *restrict level, size_t count) {
    uint32_t part[4][256] = {{0}};
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        part[0][level[i]]++;
        part[1][level[i + 1]]++;
        part[2][level[i + 2]]++;
        part[3][level[i + 3]]++;
    }
    for (; i < count; i++) part[0][level[i]]++;
    for (int g = 0; g < 256; g++) histogram[g] += (uint64_t)part[0][g] + part[1][g] + part[2][g] + part[3][g];
}

static void count_levels(uint64_t *restrict histogram, const uint8_t *restrict level, unsigned bits, size_t count) {
    if (bits <= 4) {
        count16(histogram, level, 1U << bits, count);
        return;
    }
    const size_t most = (size_t)1 << 30; /* the parts count in 32 bits */
    for (size_t i = 0; i < count; i += most) count256(histogram, level + i, count - i < most ? count - i : most);
}

#if defined(__AVX2__) && !defined(__AVX512F__)
/* For each set of 8 lanes their numbers, a byte each, side by side. */
#define LANE(set, b) ((uint64_t)((set) >> (b)&1 ? (b) : 0) << 8 * __builtin_popcount((set) & ((1 << (b)) - 1)))
#define LANES1(set) LANE(set, 0) | LANE(set, 1) | LANE(set, 2) | LANE(set, 3) | LANE(set, 4) | LANE(set, 5) | LANE(set, 6) | LANE(set, 7)
#define LANES4(set) LANES1(set), LANES1(set + 1), LANES1(set + 2), LANES1(set + 3)
#define LANES16(set) LANES4(set), LANES4(set + 4), LANES4(set + 8), LANES4(set + 12)
#define LANES64(set) LANES16(set), LANES16(set + 16), LANES16(set + 32), LANES16(set + 48)
static const uint64_t lanes_of[256] = {LANES64(0), LANES64(64), LANES64(128), LANES64(192)};

static inline __m256i compress8(__m256i x, unsigned set) {
    return _mm256_permutevar8x32_epi32(x, _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)lanes_of[set])));
}
#endif

static size_t candidates(uint32_t *restrict index, uint32_t *restrict u, uint64_t key, uint32_t last, size_t count) {
    size_t n = 0, i = 0;
#ifdef __AVX512F__
    const __m512i k0 = _mm512_set1_epi32((int)(uint32_t)key), k1 = _mm512_set1_epi32((int)(uint32_t)(key >> 32));
    const __m512i m0 = _mm512_set1_epi32(0x7feb352d), m1 = _mm512_set1_epi32((int)0x846ca68bU),
                  limit = _mm512_set1_epi32((int)(last | 0xffff));
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    /* The last step of the hash keeps the upper half: compared without it, a few too many are found. */
    for (; i + 16 <= count; i += 16) {
        __m512i x = _mm512_add_epi32(at, k0);
        x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 16)), m0);
        x = _mm512_mullo_epi32(_mm512_ternarylogic_epi32(x, _mm512_srli_epi32(x, 15), k1, 0x96), m1); /* the XOR of three */
        __mmask16 hit = _mm512_cmple_epu32_mask(x, limit);
        _mm512_storeu_si512(index + n, _mm512_maskz_compress_epi32(hit, at)); /* no branch: a hit in 16 is a coin toss */
        n += (size_t)__builtin_popcount(hit);
        at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
    }
#elif defined(__AVX2__)
    const __m256i k0 = _mm256_set1_epi32((int)(uint32_t)key), k1 = _mm256_set1_epi32((int)(uint32_t)(key >> 32));
    const __m256i m0 = _mm256_set1_epi32(0x7feb352d), m1 = _mm256_set1_epi32((int)0x846ca68bU),
                  limit = _mm256_set1_epi32((int)(last | 0xffff));
    __m256i at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (; i + 8 <= count; i += 8) {
        __m256i x = _mm256_add_epi32(at, k0);
        x = _mm256_mullo_epi32(_mm256_xor_si256(x, _mm256_srli_epi32(x, 16)), m0);
        x = _mm256_mullo_epi32(_mm256_xor_si256(_mm256_xor_si256(x, _mm256_srli_epi32(x, 15)), k1), m1);
        __m256i hit = _mm256_cmpeq_epi32(_mm256_min_epu32(x, limit), x);
        unsigned set = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(hit));
        _mm256_storeu_si256((__m256i *)(void *)(index + n), compress8(at, set));
        n += (size_t)__builtin_popcount(set);
        at = _mm256_add_epi32(at, _mm256_set1_epi32(8));
    }
#else
    for (; i + 64 <= count; i += 64) {
        uint8_t hit[64];
        for (uint32_t j = 0; j < 64; j++) hit[j] = dz_u32_at(key, (uint32_t)i + j) <= last;
        for (uint32_t w = 0; w < 64; w += 8) {
            uint64_t word;
            memcpy(&word, hit + w, 8);
            for (; word; word &= word - 1) index[n++] = (uint32_t)i + w + (uint32_t)__builtin_ctzll(word) / 8;
        }
    }
#endif
    for (; i < count; i++) index[n++] = (uint32_t)i;
    uint32_t beyond = 0;
    for (size_t j = 0; j < n; j++) {
        u[j] = dz_u32_at(key, index[j]);
        beyond |= u[j] > last;
    }
    if (!beyond) return n;
    size_t found = 0;
    for (size_t j = 0; j < n; j++) { /* the few too many, and those of the tail */
        index[found] = index[j];
        u[found] = u[j];
        found += u[j] <= last;
    }
    return found;
}

static size_t pick(uint32_t *restrict index, const uint8_t *restrict levels, const uint8_t *restrict wanted, unsigned bits, size_t count) {
    size_t n = 0, i = 0;
#ifdef __AVX512BW__
    const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)wanted));
    for (; bits <= 4 && i + 64 <= count; i += 64) {
        __m512i x = _mm512_loadu_si512(levels + i), found = _mm512_shuffle_epi8(table, x);
        for (uint64_t hits = _mm512_test_epi8_mask(found, found); hits; hits &= hits - 1)
            index[n++] = (uint32_t)i + (uint32_t)__builtin_ctzll(hits);
    }
#elif defined(__AVX2__)
    const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)wanted));
    for (; bits <= 4 && i + 32 <= count; i += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(levels + i));
        __m256i found = _mm256_cmpgt_epi8(_mm256_shuffle_epi8(table, x), _mm256_setzero_si256());
        for (uint32_t hits = (uint32_t)_mm256_movemask_epi8(found); hits; hits &= hits - 1)
            index[n++] = (uint32_t)i + (uint32_t)__builtin_ctz(hits);
    }
#endif
    for (; i + 16 <= count; i += 16) {
        uint8_t any = 0;
        for (size_t j = 0; j < 16; j++) any |= wanted[levels[i + j]];
        for (size_t j = 0; any && j < 16; j++) {
            index[n] = (uint32_t)(i + j);
            n += wanted[levels[i + j]];
        }
    }
    for (; i < count; i++) {
        index[n] = (uint32_t)i;
        n += wanted[levels[i]];
    }
    (void)bits;
    return n;
}

static void gather_classes(uint8_t *restrict symbols, const uint16_t *restrict context, const uint8_t *restrict class_of,
                           const uint16_t *restrict first, unsigned nclasses, const uint8_t **restrict next, size_t n) {
    size_t i = 0;
#ifdef __AVX512BW__
    for (; i + 32 <= n; i += 32) {
        __m512i of = _mm512_loadu_si512(context + i), low = _mm512_setzero_si512(), high = low;
        __mmask32 left = 0xffffffff; /* of this class or a later one */
        for (unsigned k = 0; left; k++) {
            __mmask32 later = k + 1 < nclasses ? _mm512_cmpge_epu16_mask(of, _mm512_set1_epi16((short)first[k + 1])) : 0,
                      here = left & ~later;
            left = later;
            if (!here) continue;
            const uint8_t *from = next[k], *middle = from + __builtin_popcount(here & 0xffff);
            low =
                _mm512_mask_expand_epi32(low, (__mmask16)here, _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)from)));
            high = _mm512_mask_expand_epi32(high, (__mmask16)(here >> 16),
                                            _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)middle)));
            next[k] = middle + __builtin_popcount(here >> 16);
        }
        _mm_storeu_si128((__m128i *)(void *)(symbols + i), _mm512_cvtepi32_epi8(low));
        _mm_storeu_si128((__m128i *)(void *)(symbols + i + 16), _mm512_cvtepi32_epi8(high));
    }
#endif
    for (; i < n; i++) symbols[i] = *next[class_of[context[i]]]++;
    (void)first;
    (void)nclasses;
}

const dz_kernel_table DZ_KERNELS = {.name = &STRING(DZ_KERNELS)[sizeof "dz_kernels_" - 1],
                                    .widen = widen,
                                    .narrow = narrow,
                                    .add_scaled = add_scaled,
                                    .difference = difference,
                                    .measure = measure,
                                    .levels = levels,
                                    .energy = energy,
                                    .distances = distances,
                                    .uniform_levels = uniform_levels,
                                    .symbols = symbols,
                                    .flip = flip,
                                    .hadamard = hadamard,
                                    .largest = largest,
                                    .largest_of_runs = largest_of_runs,
                                    .count = count_levels,
                                    .candidates = candidates,
                                    .pick = pick,
                                    .trellis_round = trellis_round,
                                    .trellis_pack = trellis_pack,
                                    .trellis_walk = trellis_walk,
                                    .trellis_trace = trellis_trace,
                                    .trellis_step = trellis_step,
                                    .trellis_long_gains = trellis_long_gains,
                                    .trellis_product = trellis_product,
                                    .gather_classes = gather_classes,
                                    .close_encode = close_encode,
                                    .close_decode = close_decode_block};

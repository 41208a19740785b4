/* Part of kernels.c, which is compiled for each instruction set: differences of 16-bit floats from their base, and their numbers by rANS
 * (numeric/close.h). */
#ifndef DZ_NUMERIC_KERNELS_CLOSE_H
#define DZ_NUMERIC_KERNELS_CLOSE_H

#include <string.h>

#include "numeric/close.h"

#define CLOSE_GROUP 32 /* elements whose lanes lie together: first those of even place, then the others */

static inline uint16_t close_word(const uint8_t *words, size_t i) {
    uint16_t x;
    memcpy(&x, words + 2 * i, sizeof x);
    return x;
}

static inline unsigned close_class(const dz_close_table *t, uint16_t word) {
    uint16_t above = (uint16_t)(((word & 0x7fffU) >> t->mantissa) - t->first);
    return above < t->nclasses ? above : t->nclasses;
}

#ifndef __AVX512BW__
/* Ones of 2^k - 1; other bytes are not asked for. */
static const uint8_t close_ones[256] = {[1] = 1, [3] = 2, [7] = 3, [15] = 4, [31] = 5, [63] = 6, [127] = 7, [255] = 8};
#endif

/* Of 8 bytes the bits that are set in `mask`, side by side. */
static inline uint64_t close_squeeze(uint64_t x, uint64_t mask) {
#ifdef __AVX512BW__ /* with AVX2 alone there are processors that take a hundred cycles */
    return _pext_u64(x, mask);
#else
    uint64_t all = 0;
    unsigned at = 0;
    x &= mask;
    for (unsigned i = 0; i < 64; i += 8) {
        all |= (x >> i & 0xff) << at;
        at += close_ones[mask >> i & 0xff];
    }
    return all;
#endif
}

static inline uint64_t close_spread(uint64_t x, uint64_t mask) {
#ifdef __AVX512BW__
    return _pdep_u64(x, mask);
#else
    uint64_t all = 0;
    for (unsigned i = 0; i < 64; i += 8) {
        uint64_t of = mask >> i & 0xff;
        all |= (x & of) << i;
        x >>= close_ones[of];
    }
    return all;
#endif
}

static void close_pack(dz_close_writer *w, size_t n) {
    uint64_t held = w->held;
    unsigned nheld = w->nheld;
    uint8_t *to = w->bits;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t low, mask;
        memcpy(&low, w->low + i, 8);
        memcpy(&mask, w->mask + i, 8);
        uint64_t x = close_squeeze(low, mask);
        unsigned count = (unsigned)__builtin_popcountll(mask);
        uint64_t all = held | x << nheld;
        memcpy(to, &all, 8);
        unsigned now = nheld + count;
        to += now >> 3;
        /* what did not fit in 64 bits, or is in the byte begun */
        held = now >= 64 ? (nheld ? x >> (64 - nheld) : 0) : all >> (now & ~7U);
        nheld = now & 7;
    }
    w->held = held;
    w->nheld = nheld;
    w->bits = to;
}

/* Low bits of a block, of which `mask` has as many bits as an element has. */
static void close_unpack(dz_close_reader *r, const uint8_t *mask, size_t n) {
    uint64_t count = 0;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t m;
        memcpy(&m, mask + i, 8);
        count += (uint64_t)__builtin_popcountll(m);
    }
    if (count > r->nbits) {
        r->bad = 1;
        count = 0;
    }
    uint64_t bit = r->nbits -= count;
    for (size_t i = 0; i < n && !r->bad; i += 8) {
        uint64_t m, x;
        memcpy(&m, mask + i, 8);
        unsigned width = (unsigned)__builtin_popcountll(m), at = bit & 7;
        memcpy(&x, r->bits + (bit >> 3), 8);
        x >>= at;
        if (__builtin_expect(at + width > 64, 0)) x |= (uint64_t)r->bits[(bit >> 3) + 8] << (64 - at);
        x = close_spread(x, m);
        memcpy(r->low + i, &x, 8);
        bit += width;
    }
}

/* The far and the escaped ones of 32 elements, the last one first: the far ones are noted, the others have differences of their own. */
static void close_put_odd(dz_close_reader *r, uint8_t *words, const uint8_t *base, size_t i, uint32_t far, uint32_t escaped) {
#ifdef __AVX512BW__
    const __m512i backwards = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (size_t half = 2; far && half-- > 0;) {
        __m256i from = _mm256_loadu_si256((const __m256i *)(const void *)(base + 2 * (i + 16 * half)));
        __m512i place = _mm512_add_epi32(backwards, _mm512_set1_epi32((int)(i + 16 * half)));
        __mmask16 of =
            (__mmask16)_mm512_movepi32_mask(_mm512_permutexvar_epi32(backwards, _mm512_movm_epi32((__mmask16)(far >> 16 * half))));
        from = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(of, _mm512_permutexvar_epi32(backwards, _mm512_cvtepu16_epi32(from))));
        _mm256_storeu_si256((__m256i *)(void *)r->far_base, from);
        _mm256_storeu_si256((__m256i *)(void *)r->far_place, _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(of, place)));
        r->far_place += __builtin_popcount(of);
        r->far_base += __builtin_popcount(of);
    }
#else
    for (; far; far &= ~(0x80000000U >> __builtin_clz(far))) {
        size_t j = i + 31 - (size_t)__builtin_clz(far);
        *r->far_place++ = (uint16_t)j;
        *r->far_base++ = close_word(base, j);
    }
#endif
    if (__builtin_popcount(escaped) > r->escape - r->first_escape) {
        r->bad = 1;
        return;
    }
    for (; escaped; escaped &= ~(0x80000000U >> __builtin_clz(escaped))) {
        size_t j = i + 31 - (size_t)__builtin_clz(escaped);
        uint16_t word = (uint16_t)(close_word(base, j) + *--r->escape);
        memcpy(words + 2 * j, &word, 2);
    }
}

#ifdef __AVX512BW__

static inline __m512i close_load(const void *from) { return _mm512_loadu_si512(from); }

/* Of 256 words, those at the places in `at`. */
static inline __m512i close_look_up(const uint16_t table[256], __m512i at, __mmask32 bit6, __mmask32 bit7) {
    __m512i a = _mm512_permutex2var_epi16(close_load(table), at, close_load(table + 32));
    __m512i b = _mm512_permutex2var_epi16(close_load(table + 64), at, close_load(table + 96));
    __m512i c = _mm512_permutex2var_epi16(close_load(table + 128), at, close_load(table + 160));
    __m512i d = _mm512_permutex2var_epi16(close_load(table + 192), at, close_load(table + 224));
    return _mm512_mask_mov_epi16(_mm512_mask_mov_epi16(a, bit6, b), bit7, _mm512_mask_mov_epi16(c, bit6, d));
}

/* 16 states take their symbols of frequency f, c slots from the first; what no longer fits goes to `at`. */
static inline __m512i close_push(__m512i x, __m512i f, __m512i c, uint16_t **at) {
    __mmask16 full = _mm512_cmpge_epu32_mask(x, _mm512_slli_epi32(f, 31 - DZ_CLOSE_LOG));
    _mm256_storeu_si256((__m256i *)(void *)*at, _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, x)));
    *at += __builtin_popcount(full);
    x = _mm512_mask_srli_epi32(x, full, x, 16);
    /* Rounded down, the quotient is the right one or one less. */
    __m512 over = _mm512_div_round_ps(_mm512_cvt_roundepi32_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC), _mm512_cvtepi32_ps(f),
                                      _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __m512i q = _mm512_cvttps_epi32(over), rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(q, f));
    __m512i next = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(q, DZ_CLOSE_LOG), rest), c);
    __mmask16 one_more = _mm512_cmpge_epu32_mask(rest, f);
    return _mm512_mask_add_epi32(next, one_more, next, _mm512_sub_epi32(_mm512_set1_epi32(1 << DZ_CLOSE_LOG), f));
}

static void close_encode(dz_close_writer *w, const dz_close_table *t, const uint8_t *restrict words, const uint8_t *restrict base,
                         size_t n) {
    const __m512i first = _mm512_set1_epi16((short)t->first), far = _mm512_set1_epi16((short)t->nclasses);
    const __m512i low_bits = close_load(t->low_bits), least = close_load(t->least), span = close_load(t->span),
                  mask = close_load(t->low_mask);
    const __m512i even = _mm512_set1_epi32(0xffff);
    const __m128i mantissa = _mm_cvtsi32_si128((int)t->mantissa);
    uint16_t *at = w->words;
    for (size_t i = 0; i < n; i += CLOSE_GROUP) {
        uint32_t *state = w->state + i % DZ_CLOSE_LANES;
        __m512i x = close_load(words + 2 * i), b = close_load(base + 2 * i), d = _mm512_sub_epi16(x, b);
        __m512i of = _mm512_srl_epi16(_mm512_and_si512(b, _mm512_set1_epi16(0x7fff)), mantissa);
        of = _mm512_min_epu16(_mm512_sub_epi16(of, first), far);
        __m512i q = _mm512_add_epi16(_mm512_srav_epi16(d, _mm512_permutexvar_epi16(of, low_bits)), _mm512_set1_epi16(DZ_CLOSE_MIDDLE));
        __mmask32 fits =
            _mm512_cmple_epu16_mask(_mm512_sub_epi16(q, _mm512_permutexvar_epi16(of, least)), _mm512_permutexvar_epi16(of, span));
        __mmask32 is_far = _mm512_cmpeq_epi16_mask(of, far), escaped;
        fits &= ~is_far;
        escaped = ~(fits | is_far);
        _mm256_storeu_si256((__m256i *)(void *)(w->low + i), _mm512_cvtepi16_epi8(d));
        _mm256_storeu_si256((__m256i *)(void *)(w->mask + i), _mm512_cvtepi16_epi8(_mm512_permutexvar_epi16(of, mask)));
        if (is_far | escaped) {
            for (uint32_t m = escaped; m; m &= m - 1)
                *w->escape++ = (uint16_t)(close_word(words, i + (size_t)__builtin_ctz(m)) - close_word(base, i + (size_t)__builtin_ctz(m)));
            for (uint32_t m = is_far; m; m &= m - 1) {
                *w->far++ = close_word(words, i + (size_t)__builtin_ctz(m));
                *w->far_base++ = close_word(base, i + (size_t)__builtin_ctz(m));
            }
        }
        q = _mm512_mask_mov_epi16(_mm512_set1_epi16(DZ_CLOSE_ESCAPE), fits, q);
        q = _mm512_or_si512(_mm512_slli_epi16(of, 4), q);
        __mmask32 bit6 = _mm512_movepi16_mask(_mm512_slli_epi16(q, 9)), bit7 = _mm512_movepi16_mask(_mm512_slli_epi16(q, 8));
        __m512i f = close_look_up(t->frequency, q, bit6, bit7), c = close_look_up(t->start, q, bit6, bit7);
        __m512i s0 = close_push(close_load(state), _mm512_and_si512(f, even), _mm512_and_si512(c, even), &at);
        __m512i s1 = close_push(close_load(state + 16), _mm512_srli_epi32(f, 16), _mm512_srli_epi32(c, 16), &at);
        _mm512_storeu_si512(state, s0);
        _mm512_storeu_si512(state + 16, s1);
    }
    w->words = at;
    close_pack(w, n);
}

static void close_find_masks(uint8_t *restrict mask, const dz_close_table *t, const uint8_t *restrict base, size_t n) {
    const __m512i first = _mm512_set1_epi16((short)t->first), far = _mm512_set1_epi16((short)t->nclasses),
                  low_mask = close_load(t->low_mask);
    const __m128i mantissa = _mm_cvtsi32_si128((int)t->mantissa);
    for (size_t i = 0; i < n; i += CLOSE_GROUP) {
        _mm_prefetch((const char *)base + 2 * i - 2 * DZ_CLOSE_BLOCK, _MM_HINT_T0); /* what comes next lies before */
        __m512i of = _mm512_srl_epi16(_mm512_and_si512(close_load(base + 2 * i), _mm512_set1_epi16(0x7fff)), mantissa);
        of = _mm512_min_epu16(_mm512_sub_epi16(of, first), far);
        _mm256_storeu_si256((__m256i *)(void *)(mask + i), _mm512_cvtepi16_epi8(_mm512_permutexvar_epi16(of, low_mask)));
    }
}

/* 16 states are less a symbol of frequency f, `into` slots into it; words come from below `at`. */
static inline __m512i close_pop(__m512i x, __m512i f, __m512i into, const uint8_t **at) {
    x = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(x, DZ_CLOSE_LOG), f), into);
    __mmask16 takes = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(DZ_CLOSE_LOWEST));
    *at -= 2 * __builtin_popcount(takes);
    __m512i in = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)*at));
    return _mm512_mask_or_epi32(x, takes, _mm512_slli_epi32(x, 16), _mm512_maskz_expand_epi32(takes, in));
}

static size_t close_decode(dz_close_reader *r, const dz_close_table *t, uint8_t *restrict words, const uint8_t *restrict base, size_t n) {
    const __m512i first = _mm512_set1_epi16((short)t->first), far = _mm512_set1_epi16((short)t->nclasses);
    const __m512i low_bits = close_load(t->low_bits), even = _mm512_set1_epi32(0xffff), slots = _mm512_set1_epi32((1 << DZ_CLOSE_LOG) - 1);
    const __m512i one = _mm512_set1_epi16(1);
    const __m512i of2 = close_load(t->tree), of4 = close_load(t->tree + 32), of8a = close_load(t->tree + 64),
                  of8b = close_load(t->tree + 96);
    const __m512i a = close_load(t->tree + 128), b = close_load(t->tree + 160), c = close_load(t->tree + 192),
                  e = close_load(t->tree + 224);
    const __m128i mantissa = _mm_cvtsi32_si128((int)t->mantissa);
    const uint8_t *at = r->words;
    size_t i = n;
    for (; i && at - r->first_word >= 2 * DZ_CLOSE_LANES;) {
        for (size_t end = i - DZ_CLOSE_LANES; i > end;) {
            i -= CLOSE_GROUP;
            uint32_t *state = r->state + i % DZ_CLOSE_LANES;
            __m512i s0 = close_load(state), s1 = close_load(state + 16), from = close_load(base + 2 * i);
            __m512i of = _mm512_srl_epi16(_mm512_and_si512(from, _mm512_set1_epi16(0x7fff)), mantissa);
            of = _mm512_min_epu16(_mm512_sub_epi16(of, first), far);
            __m512i slot = _mm512_or_si512(_mm512_and_si512(s0, slots), _mm512_slli_epi32(_mm512_and_si512(s1, slots), 16));
            __m512i middle = _mm512_permutexvar_epi16(of, of2), lo, hi, place;
            __mmask32 above = _mm512_cmpge_epu16_mask(slot, middle);
            lo = _mm512_maskz_mov_epi16(above, middle);
            hi = _mm512_mask_mov_epi16(middle, above, _mm512_set1_epi16(1 << DZ_CLOSE_LOG));
            place = _mm512_add_epi16(of, of);
            place = _mm512_mask_add_epi16(place, above, place, one);
            middle = _mm512_permutexvar_epi16(place, of4);
            above = _mm512_cmpge_epu16_mask(slot, middle);
            lo = _mm512_mask_mov_epi16(lo, above, middle);
            hi = _mm512_mask_mov_epi16(middle, above, hi);
            place = _mm512_add_epi16(place, place);
            place = _mm512_mask_add_epi16(place, above, place, one);
            middle = _mm512_permutex2var_epi16(of8a, place, of8b);
            above = _mm512_cmpge_epu16_mask(slot, middle);
            lo = _mm512_mask_mov_epi16(lo, above, middle);
            hi = _mm512_mask_mov_epi16(middle, above, hi);
            place = _mm512_add_epi16(place, place);
            place = _mm512_mask_add_epi16(place, above, place, one);
            middle = _mm512_mask_mov_epi16(_mm512_permutex2var_epi16(a, place, b), _mm512_movepi16_mask(_mm512_slli_epi16(place, 9)),
                                           _mm512_permutex2var_epi16(c, place, e));
            above = _mm512_cmpge_epu16_mask(slot, middle);
            lo = _mm512_mask_mov_epi16(lo, above, middle);
            hi = _mm512_mask_mov_epi16(middle, above, hi);
            place = _mm512_add_epi16(place, place);
            place = _mm512_mask_add_epi16(place, above, place, one);
            __m512i f = _mm512_sub_epi16(hi, lo), into = _mm512_sub_epi16(slot, lo);
            s1 = close_pop(s1, _mm512_srli_epi32(f, 16), _mm512_srli_epi32(into, 16), &at);
            s0 = close_pop(s0, _mm512_and_si512(f, even), _mm512_and_si512(into, even), &at);
            _mm512_storeu_si512(state, s0);
            _mm512_storeu_si512(state + 16, s1);
            __m512i number = _mm512_and_si512(place, _mm512_set1_epi16(15));
            __m512i low = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(r->low + i)));
            __m512i d =
                _mm512_sllv_epi16(_mm512_sub_epi16(number, _mm512_set1_epi16(DZ_CLOSE_MIDDLE)), _mm512_permutexvar_epi16(of, low_bits));
            _mm512_storeu_si512(words + 2 * i, _mm512_add_epi16(from, _mm512_or_si512(d, low)));
            __mmask32 is_far = _mm512_cmpeq_epi16_mask(of, far),
                      escaped = _mm512_cmpeq_epi16_mask(number, _mm512_set1_epi16(DZ_CLOSE_ESCAPE));
            if (is_far | escaped) close_put_odd(r, words, base, i, is_far, escaped & ~is_far);
        }
    }
    r->words = at;
    return i;
}

#else

/* The class of each element. */
static __attribute__((noinline)) void close_find_classes(uint8_t *restrict of, const dz_close_table *t, const uint8_t *restrict base,
                                                         size_t n) {
    const uint16_t first = (uint16_t)t->first, far = (uint16_t)t->nclasses;
    const unsigned mantissa = t->mantissa;
    for (size_t i = 0; i < n; i++) {
        uint16_t above = (uint16_t)(((close_word(base, i) & 0x7fffU) >> mantissa) - first);
        of[i] = (uint8_t)(above < far ? above : far);
    }
}

/* What a table has for each class; its numbers are below 256. */
static void close_of_classes(uint8_t *restrict out, const uint8_t *restrict of, const uint16_t *restrict table, size_t n) {
    uint8_t small[16];
    for (size_t k = 0; k < 16; k++) small[k] = (uint8_t)table[k];
#ifdef __AVX2__
    const __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)small));
    for (size_t i = 0; i < n; i += 32)
        _mm256_storeu_si256((__m256i *)(void *)(out + i),
                            _mm256_shuffle_epi8(all, _mm256_loadu_si256((const __m256i *)(const void *)(of + i))));
#else
    for (size_t i = 0; i < n; i++) out[i] = small[of[i]];
#endif
}

/* Place in the tables of frequencies, 16 * class + number, of each element. */
static __attribute__((noinline)) void close_find_symbols(uint8_t *restrict symbol, uint8_t *restrict low, const uint8_t *restrict words,
                                                         const uint8_t *restrict base, const uint8_t *restrict of,
                                                         const uint8_t *restrict scale, const uint8_t *restrict least,
                                                         const uint8_t *restrict span, uint8_t far, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int32_t d = (int16_t)(close_word(words, i) - close_word(base, i)),
                number = (d * (scale[i] + 1) >> 8) + DZ_CLOSE_MIDDLE; /* d >> k */
        int32_t above = number - least[i], below = span[i] - above, beyond = (above | below | -(int32_t)(of[i] == far)) >> 31;
        symbol[i] = (uint8_t)(of[i] << 4 | (number & ~beyond) | (DZ_CLOSE_ESCAPE & beyond)); /* beyond: -1, or 0 */
        low[i] = (uint8_t)d;
    }
}

/* The elements with number 15. */
static void close_take_odd(dz_close_writer *w, const dz_close_table *t, const uint8_t *symbol, const uint8_t *words, const uint8_t *base,
                           size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        uint64_t x;
        memcpy(&x, symbol + i, 8);
        for (x &= x >> 1 & x >> 2 & x >> 3 & 0x0101010101010101U; x; x &= x - 1) {
            size_t j = i + (size_t)__builtin_ctzll(x) / 8;
            if (symbol[j] >> 4 < t->nclasses) {
                *w->escape++ = (uint16_t)(close_word(words, j) - close_word(base, j));
            } else {
                *w->far++ = close_word(words, j);
                *w->far_base++ = close_word(base, j);
            }
        }
    }
}

#ifdef __AVX2__

/* 8 states, as in the variant for AVX-512. */
static inline __m256i close_push(__m256i x, __m256i symbol, const dz_close_table *t, uint16_t **to) {
    __m256i both = _mm256_i32gather_epi32((const int *)(const void *)t->both, symbol, 4);
    __m256i f = _mm256_and_si256(both, _mm256_set1_epi32(0xffff)), c = _mm256_srli_epi32(both, 16), one = _mm256_set1_epi32(1);
    __m256i full = _mm256_cmpgt_epi32(x, _mm256_sub_epi32(_mm256_slli_epi32(f, 31 - DZ_CLOSE_LOG), one));
    unsigned lanes = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(full));
    __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)&t->together[lanes]));
    __m256i out = _mm256_permutevar8x32_epi32(x, order);
    out = _mm256_shuffle_epi8(out, _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 4, 5, 8, 9, 12, 13, -1,
                                                    -1, -1, -1, -1, -1, -1, -1));
    _mm_storeu_si128((__m128i *)(void *)*to, _mm256_castsi256_si128(_mm256_permute4x64_epi64(out, 8)));
    *to += __builtin_popcount(lanes);
    x = _mm256_blendv_epi8(x, _mm256_srli_epi32(x, 16), full);
    /* The quotient is the right one, one more or one less. */
    __m256i q = _mm256_cvttps_epi32(_mm256_div_ps(_mm256_cvtepi32_ps(x), _mm256_cvtepi32_ps(f)));
    __m256i rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(q, f)), others = _mm256_sub_epi32(_mm256_set1_epi32(1 << DZ_CLOSE_LOG), f);
    __m256i next = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(q, DZ_CLOSE_LOG), rest), c);
    __m256i less = _mm256_srai_epi32(rest, 31), more = _mm256_cmpgt_epi32(rest, _mm256_sub_epi32(f, one));
    return _mm256_sub_epi32(_mm256_add_epi32(next, _mm256_and_si256(more, others)), _mm256_and_si256(less, others));
}

static void close_push_group(uint32_t *state, const uint8_t *symbol, const dz_close_table *t, uint16_t **to) {
    for (unsigned k = 0; k < 4; k++) {
        __m128i two = _mm_loadu_si128((const __m128i *)(const void *)(symbol + 16 * (k % 2)));
        two = k < 2 ? _mm_and_si128(two, _mm_set1_epi16(0xff)) : _mm_srli_epi16(two, 8);
        __m256i *at = (__m256i *)(void *)(state + 8 * k);
        _mm256_storeu_si256(at, close_push(_mm256_loadu_si256(at), _mm256_cvtepu16_epi32(two), t, to));
    }
}

#else

static inline uint32_t close_push(uint32_t x, const dz_close_code *code, uint16_t **to) {
    uint32_t full = x >= code->limit;
    memcpy(*to, &x, 2);
    *to += full;
    x >>= full << 4;
    uint32_t q = (uint32_t)(((uint64_t)x * code->inverse) >> DZ_CLOSE_INVERSE);
    return x + q * code->others + code->start;
}

static void close_push_group(uint32_t *state, const uint8_t *symbol, const dz_close_table *t, uint16_t **to) {
    for (size_t k = 0; k < CLOSE_GROUP; k++) state[k] = close_push(state[k], &t->code[symbol[k % 16 * 2 + k / 16]], to);
}

#endif

static void close_encode(dz_close_writer *w, const dz_close_table *t, const uint8_t *restrict words, const uint8_t *restrict base,
                         size_t n) {
    uint8_t of[DZ_CLOSE_BLOCK], scale[DZ_CLOSE_BLOCK] = {0}, least[DZ_CLOSE_BLOCK] = {0}, span[DZ_CLOSE_BLOCK] = {0},
                                symbol[DZ_CLOSE_BLOCK];
    close_find_classes(of, t, base, n);
    close_of_classes(scale, of, t->scale, n);
    close_of_classes(w->mask, of, t->low_mask, n);
    close_of_classes(least, of, t->least, n);
    close_of_classes(span, of, t->span, n);
    close_find_symbols(symbol, w->low, words, base, of, scale, least, span, (uint8_t)t->nclasses, n);
    close_take_odd(w, t, symbol, words, base, n);
    close_pack(w, n);
    uint16_t *to = w->words;
    for (size_t i = 0; i < n; i += CLOSE_GROUP) close_push_group(w->state + i % DZ_CLOSE_LANES, symbol + i, t, &to);
    w->words = to;
}

static void close_find_masks(uint8_t *restrict mask, const dz_close_table *t, const uint8_t *restrict base, size_t n) {
    uint8_t of[DZ_CLOSE_BLOCK];
    close_find_classes(of, t, base, n);
    close_of_classes(mask, of, t->low_mask, n);
}

/* For each class and slot: frequency - 1 << 20 | how far the slot is into its number << 8 | number. */
static void close_make_slots(dz_close_reader *r, const dz_close_table *t) {
    for (unsigned k = 0; k <= t->nclasses; k++) {
        for (unsigned q = 0, at = 0; q < 16; q++) {
            for (unsigned i = 0; i < t->frequency[16 * k + q]; i++, at++)
                r->slot[k][at] = (uint32_t)(t->frequency[16 * k + q] - 1) << 20 | i << 8 | q;
        }
    }
    r->has_slots = 1;
}

#ifdef __AVX2__

static inline __m256i close_pop(__m256i x, __m256i slot, const dz_close_table *t, const uint8_t **at) {
    __m256i into = _mm256_and_si256(_mm256_srli_epi32(slot, 8), _mm256_set1_epi32(0xfff)), high = _mm256_srli_epi32(x, DZ_CLOSE_LOG);
    x = _mm256_add_epi32(_mm256_add_epi32(_mm256_mullo_epi32(high, _mm256_srli_epi32(slot, 20)), high), into);
    __m256i takes = _mm256_cmpgt_epi32(_mm256_set1_epi32(DZ_CLOSE_LOWEST), x);
    unsigned lanes = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(takes));
    *at -= 2 * __builtin_popcount(lanes);
    __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)&t->apart[lanes]));
    __m256i in = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)*at));
    in = _mm256_or_si256(_mm256_slli_epi32(x, 16), _mm256_permutevar8x32_epi32(in, order));
    return _mm256_blendv_epi8(x, in, takes);
}

static void close_pop_group(uint8_t *number, uint32_t *state, const uint8_t *of, const dz_close_reader *r, const dz_close_table *t,
                            const uint8_t **at) {
    __m128i of_two[2], number_two[2] = {_mm_setzero_si128(), _mm_setzero_si128()};
    for (unsigned k = 0; k < 2; k++) of_two[k] = _mm_loadu_si128((const __m128i *)(const void *)(of + 16 * k));
    for (unsigned k = 4; k-- > 0;) {
        __m128i two = of_two[k % 2];
        two = k < 2 ? _mm_and_si128(two, _mm_set1_epi16(0xff)) : _mm_srli_epi16(two, 8);
        __m256i *place = (__m256i *)(void *)(state + 8 * k), x = _mm256_loadu_si256(place);
        __m256i row = _mm256_slli_epi32(_mm256_cvtepu16_epi32(two), DZ_CLOSE_LOG);
        row = _mm256_or_si256(row, _mm256_and_si256(x, _mm256_set1_epi32((1 << DZ_CLOSE_LOG) - 1)));
        __m256i slot = _mm256_i32gather_epi32((const int *)(const void *)r->slot, row, 4),
                q = _mm256_and_si256(slot, _mm256_set1_epi32(255));
        two = _mm_packus_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
        number_two[k % 2] = _mm_or_si128(number_two[k % 2], k < 2 ? two : _mm_slli_epi16(two, 8));
        _mm256_storeu_si256(place, close_pop(x, slot, t, at));
    }
    for (unsigned k = 0; k < 2; k++) _mm_storeu_si128((__m128i *)(void *)(number + 16 * k), number_two[k]);
}

#else

static inline uint32_t close_pop(uint32_t x, uint32_t slot, const uint8_t **at) {
    uint32_t high = x >> DZ_CLOSE_LOG, next = (slot >> 20) * high + (high + (slot >> 8 & 0xfff));
    uint16_t word;
    memcpy(&word, *at - 2, 2);
#ifdef __x86_64__
    uint32_t taken = next << 16 | word;
    const uint8_t *stay = *at, *go = *at - 2;
    __asm__("cmp $0x8000, %0\n\tcmovb %2, %0\n\tcmovb %3, %1" : "+r"(next), "+r"(stay) : "r"(taken), "r"(go) : "cc");
    *at = stay;
    return next;
#else
    uint32_t takes = next < DZ_CLOSE_LOWEST;
    *at -= 2 * takes;
    return next << (takes << 4) | (word & (0 - takes));
#endif
}

static void close_pop_group(uint8_t *number, uint32_t *state, const uint8_t *of, const dz_close_reader *r, const dz_close_table *t,
                            const uint8_t **at) {
    for (size_t k = CLOSE_GROUP; k-- > 0;) {
        size_t place = k % 16 * 2 + k / 16;
        uint32_t slot = r->slot[of[place]][state[k] & ((1U << DZ_CLOSE_LOG) - 1)];
        number[place] = (uint8_t)slot;
        state[k] = close_pop(state[k], slot, at);
    }
    (void)t;
}

#endif

/* Elements from their numbers. */
static __attribute__((noinline)) void close_put_words(uint8_t *restrict words, const uint8_t *restrict base, const uint8_t *restrict number,
                                                      const uint8_t *restrict low, const uint8_t *restrict mask, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint16_t d = (uint16_t)((uint16_t)(number[i] - DZ_CLOSE_MIDDLE) * (uint16_t)(mask[i] + 1)); /* number << k */
        uint16_t to = (uint16_t)(close_word(base, i) + (d | low[i]));
        memcpy(words + 2 * i, &to, 2);
    }
}

static size_t close_decode(dz_close_reader *r, const dz_close_table *t, uint8_t *restrict words, const uint8_t *restrict base, size_t n) {
    uint8_t of[DZ_CLOSE_BLOCK], mask[DZ_CLOSE_BLOCK] = {0}, number[DZ_CLOSE_BLOCK] = {0};
    const uint8_t *at = r->words;
    size_t i = n;
    if (!r->has_slots) close_make_slots(r, t);
    close_find_classes(of, t, base, n);
    for (; i && at - r->first_word >= 2 * DZ_CLOSE_LANES;) {
        for (size_t end = i - DZ_CLOSE_LANES; i > end;) {
            i -= CLOSE_GROUP;
            close_pop_group(number + i, r->state + i % DZ_CLOSE_LANES, of + i, r, t, &at);
        }
    }
    r->words = at;
    close_of_classes(mask, of, t->low_mask, n);
    close_put_words(words + 2 * i, base + 2 * i, number + i, r->low + i, mask + i, n - i);
    for (size_t g = n; g > i;) {
        g -= CLOSE_GROUP;
        uint32_t far = 0, escaped = 0;
        for (size_t j = 0; j < CLOSE_GROUP; j++) {
            far |= (uint32_t)(of[g + j] == t->nclasses) << j;
            escaped |= (uint32_t)(number[g + j] == DZ_CLOSE_ESCAPE) << j;
        }
        if (escaped) close_put_odd(r, words, base, g, far, escaped & ~far);
    }
    return i;
}
#endif

static size_t close_decode_block(dz_close_reader *r, const dz_close_table *t, uint8_t *restrict words, const uint8_t *restrict base,
                                 size_t n) {
    uint8_t mask[DZ_CLOSE_BLOCK];
    close_find_masks(mask, t, base, n);
    close_unpack(r, mask, n);
    return close_decode(r, t, words, base, n);
}

#endif

#include "codec/near_numbers.h"

#include <string.h>

#include "codec/variants.h"

#define EVERY16 0x0001000100010001U
#define EVERY32 0x0000000100000001U

/* Eight numbers of k bits, in a byte each, to k bytes, and back. */
static inline uint64_t squeeze(uint64_t x, unsigned k) {
    x = (x & 0x00ff00ff00ff00ffU) | (x & 0xff00ff00ff00ff00U) >> (8 - k);
    x = (x & 0x0000ffff0000ffffU) | (x & 0xffff0000ffff0000U) >> (16 - 2 * k);
    return (x & 0x00000000ffffffffU) | (x & 0xffffffff00000000U) >> (32 - 4 * k);
}

static inline uint64_t spread(uint64_t x, unsigned k) {
    x = (x & ((1ULL << 4 * k) - 1)) | (x << (32 - 4 * k) & 0xffffffff00000000U);
    x = (x & ((1ULL << 2 * k) - 1) * EVERY32) | (x << (16 - 2 * k) & 0xffff0000ffff0000U);
    return (x & ((1ULL << k) - 1) * EVERY16) | (x << (8 - k) & 0xff00ff00ff00ff00U);
}

DZ_VARIANTS static void split(uint8_t *restrict number, uint8_t *restrict low, const int16_t *restrict d, unsigned k, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint16_t at = (uint16_t)((d[i] >> k) + DZ_NEAR_MIDDLE);
        number[i] = (uint8_t)(at < DZ_NEAR_ESCAPE ? at : DZ_NEAR_ESCAPE);
        low[i] = (uint8_t)(d[i] & ((1 << k) - 1));
    }
}

DZ_VARIANTS static void join(int16_t *restrict d, const uint8_t *restrict number, const uint8_t *restrict low, unsigned k, size_t n) {
    for (size_t i = 0; i < n; i++) d[i] = (int16_t)((uint16_t)((uint16_t)(number[i] - DZ_NEAR_MIDDLE) << k) | low[i]);
}

/* Two numbers a byte, the first one lowest; n even. */
DZ_VARIANTS static void pair_up(uint8_t *restrict pairs, const uint8_t *restrict number, size_t n) {
    for (size_t i = 0; i < n / 2; i++) pairs[i] = (uint8_t)(number[2 * i] | number[2 * i + 1] << 4);
}

DZ_VARIANTS static void part(uint8_t *restrict number, const uint8_t *restrict pairs, size_t n) {
    for (size_t i = 0; i < n / 2; i++) {
        number[2 * i] = pairs[i] & 15;
        number[2 * i + 1] = pairs[i] >> 4;
    }
}

static int has_escape(const uint8_t *number, size_t n) {
    uint64_t any = 0;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t x;
        memcpy(&x, number + i, 8);
        any |= x & x >> 1 & x >> 2 & x >> 3 & 0x0101010101010101U;
    }
    return any != 0;
}

dz_rc dz_near_take_apart(dz_near_sink *s, const int16_t *d, size_t n, unsigned k, dz_error *err) {
    uint8_t number[DZ_NEAR_CHUNK + 8], bits[DZ_NEAR_CHUNK + 8];
    if (dz_buf_reserve(&s->low, n * k / 8 + 16, err) != DZ_OK || dz_buf_reserve(&s->pairs, n / 2 + 1, err) != DZ_OK) return err->rc;
    for (size_t at = 0; at < n; at += DZ_NEAR_CHUNK) {
        size_t m = n - at < DZ_NEAR_CHUNK ? n - at : DZ_NEAR_CHUNK, padded = (m + 7) / 8 * 8;
        split(number, bits, d + at, k, m);
        memset(number + m, DZ_NEAR_MIDDLE, padded - m);
        memset(bits + m, 0, padded - m);
        pair_up(s->pairs.data + s->pairs.len, number, m + m % 2);
        s->pairs.len += (m + 1) / 2;
        for (size_t i = 0; k && i < padded; i += 8) {
            uint64_t x;
            memcpy(&x, bits + i, 8);
            x = squeeze(x, k);
            memcpy(s->low.data + s->low.len + i / 8 * k, &x, 8);
        }
        s->low.len += dz_near_low_bytes(m, k);
        if (!has_escape(number, padded)) continue;
        for (size_t i = 0; i < m; i++) {
            if (number[i] == DZ_NEAR_ESCAPE && dz_buf_put(&s->escapes, &d[at + i], sizeof d[at + i], err) != DZ_OK) return err->rc;
        }
    }
    s->count += n;
    return DZ_OK;
}

void dz_near_put_together(int16_t *d, dz_near_source *s, size_t n, unsigned k) {
    uint8_t number[DZ_NEAR_CHUNK + 8], bits[DZ_NEAR_CHUNK + 8] = {0};
    for (size_t at = 0; at < n; at += DZ_NEAR_CHUNK) {
        size_t m = n - at < DZ_NEAR_CHUNK ? n - at : DZ_NEAR_CHUNK, padded = (m + 7) / 8 * 8;
        part(number, s->pairs, m + m % 2);
        s->pairs += (m + 1) / 2;
        memset(number + m, DZ_NEAR_MIDDLE, padded - m);
        for (size_t i = 0; k && i < padded; i += 8) {
            uint64_t x;
            memcpy(&x, s->low + i / 8 * k, 8);
            x = spread(k < 8 ? x & ((1ULL << 8 * k) - 1) : x, k);
            memcpy(bits + i, &x, 8);
        }
        s->low += dz_near_low_bytes(m, k);
        join(d + at, number, bits, k, m);
        if (!has_escape(number, padded)) continue;
        for (size_t i = 0; i < m; i++) {
            if (number[i] != DZ_NEAR_ESCAPE) continue;
            memcpy(&d[at + i], s->escape, 2);
            s->escape += 2;
        }
    }
    s->left -= n;
}

size_t dz_near_escapes(const uint8_t *pairs, size_t n) {
    size_t found = 0;
    for (size_t i = 0; i < n / 2; i++) found += (size_t)((pairs[i] & 15) == DZ_NEAR_ESCAPE) + (pairs[i] >> 4 == DZ_NEAR_ESCAPE);
    return found + (n % 2 && (pairs[n / 2] & 15) == DZ_NEAR_ESCAPE);
}

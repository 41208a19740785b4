#include "codec/entropy.h"

#include <string.h>

/* log2(1 + i/64) * 2^16, rounded. */
static const uint32_t LOG2[65] = {
    0,     1466,  2909,  4331,  5732,  7112,  8473,  9814,  11136, 12440, 13727, 14996, 16248, 17484, 18704, 19909, 21098,
    22272, 23433, 24579, 25711, 26830, 27936, 29029, 30109, 31178, 32234, 33279, 34312, 35334, 36346, 37346, 38336, 39316,
    40286, 41246, 42196, 43137, 44068, 44990, 45904, 46809, 47705, 48593, 49472, 50344, 51207, 52063, 52911, 53751, 54584,
    55410, 56229, 57040, 57845, 58643, 59434, 60219, 60997, 61769, 62534, 63294, 64047, 64794, 65536,
};

static uint32_t log2_fixed(uint32_t n) {
    unsigned top = 31U - (unsigned)__builtin_clz(n);
    uint32_t mantissa = n << (31 - top); /* 1.31 */
    uint32_t i = (mantissa >> 25) & 63, rest = mantissa & 0x1ffffff;
    return (top << DZ_BITS_SHIFT) + LOG2[i] + (uint32_t)(((uint64_t)(LOG2[i + 1] - LOG2[i]) * rest) >> 25);
}

uint64_t dz_nlog2n(uint32_t n) { return n < 2 ? 0 : (uint64_t)n * log2_fixed(n); }

void dz_byte_histogram(uint32_t counts[256], const uint8_t *bytes, size_t nbytes) {
    uint32_t part[4][256]; /* four tables: runs of one byte do not wait for each other */
    memset(part, 0, sizeof part);
    size_t i = 0;
    for (; i + 4 <= nbytes; i += 4) {
        for (size_t k = 0; k < 4; k++) part[k][bytes[i + k]]++;
    }
    for (; i < nbytes; i++) part[0][bytes[i]]++;
    for (size_t s = 0; s < 256; s++) counts[s] = part[0][s] + part[1][s] + part[2][s] + part[3][s];
}

size_t dz_rans_estimate(const uint32_t counts[256]) {
    uint64_t bits = 0;
    uint32_t total = 0, used = 0;
    for (size_t s = 0; s < 256; s++) {
        if (counts[s] == 0) continue;
        total += counts[s];
        used++;
        bits += dz_nlog2n(counts[s]);
    }
    bits = dz_nlog2n(total) - bits;
    return (size_t)(bits >> (DZ_BITS_SHIFT + 3)) + used + used / 2 + 20;
}

#include "base/hash.h"

#include <stdio.h>
#include <xxhash.h>

dz_digest dz_digest_of(const void *bytes, size_t len) {
    XXH128_hash_t h = XXH3_128bits(bytes, len);
    return (dz_digest){.hi = h.high64, .lo = h.low64};
}

uint64_t dz_hash64(const void *bytes, size_t len, uint64_t seed) { return XXH64(bytes, len, seed); }
uint32_t dz_checksum(const void *bytes, size_t len) { return (uint32_t)XXH3_64bits(bytes, len); }

void dz_digest_hex(dz_digest digest, char text[33]) {
    snprintf(text, 33, "%016llx%016llx", (unsigned long long)digest.hi, (unsigned long long)digest.lo);
}

#include "base/hash.h"

#include <stdio.h>
#include <xxhash.h>

dz_digest dz_digest_of(const void *bytes, size_t len) {
    XXH128_hash_t h = XXH3_128bits(bytes, len);
    return (dz_digest){.hi = h.high64, .lo = h.low64};
}

/* The library's own state under our name. */
static XXH3_state_t *state_of(dz_digester *digester) { return (XXH3_state_t *)(void *)digester; }

dz_digester *dz_digest_begin(dz_error *err) {
    XXH3_state_t *state = XXH3_createState();
    if (!state) dz_fail(err, DZ_ENOMEM, "out of memory for a digest");
    if (state) XXH3_128bits_reset(state);
    return (dz_digester *)(void *)state;
}

void dz_digest_add(dz_digester *digester, const void *bytes, size_t len) { XXH3_128bits_update(state_of(digester), bytes, len); }

dz_digest dz_digest_end(dz_digester *digester) {
    XXH128_hash_t h = XXH3_128bits_digest(state_of(digester));
    XXH3_freeState(state_of(digester));
    return (dz_digest){.hi = h.high64, .lo = h.low64};
}

uint64_t dz_hash64(const void *bytes, size_t len, uint64_t seed) { return XXH64(bytes, len, seed); }
uint32_t dz_checksum(const void *bytes, size_t len) { return (uint32_t)XXH3_64bits(bytes, len); }

void dz_digest_hex(dz_digest digest, char text[33]) {
    snprintf(text, 33, "%016llx%016llx", (unsigned long long)digest.hi, (unsigned long long)digest.lo);
}

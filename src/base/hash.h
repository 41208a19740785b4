/* Hashes that are stored in files, and counter-based random numbers. Their formulas are part of the archive format. */
#ifndef DZ_BASE_HASH_H
#define DZ_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dz_digest {
    uint64_t hi, lo; /* XXH3, 128 bits */
} dz_digest;

dz_digest dz_digest_of(const void *bytes, size_t len);

/* The same for bytes that come in pieces: begin, add each, end. `dz_digest_begin` returns NULL if memory runs out; `dz_digest_end` frees.
 */
typedef struct dz_digester dz_digester;
dz_digester *dz_digest_begin(dz_error *err);
void dz_digest_add(dz_digester *digester, const void *bytes, size_t len);
dz_digest dz_digest_end(dz_digester *digester);

uint64_t dz_hash64(const void *bytes, size_t len, uint64_t seed); /* XXH64 */
uint32_t dz_checksum(const void *bytes, size_t len);              /* low 32 bits of XXH3-64: guards blocks */
void dz_digest_hex(dz_digest digest, char text[33]);

/* From index + (uint32_t)key on to the number of dz_u32_at; x: a uint32_t, or a vector of them. */
#define DZ_MIX(x, key)                                                                                                                     \
    ((x) ^= (x) >> 16, (x) *= 0x7feb352dU, (x) ^= (x) >> 15, (x) ^= (uint32_t)((key) >> 32), (x) *= 0x846ca68bU, (x) ^= (x) >> 16)

/* Uniform 32-bit number u(index) under a 64-bit key (METHODS.md "Hash mixer"): a keyed bijection of 32-bit integers, so no two elements of
 * a tile share a number. Stateless: u(i) does not need u(i-1). */
static inline uint32_t dz_u32_at(uint64_t key, uint32_t index) {
    uint32_t x = index + (uint32_t)key;
    DZ_MIX(x, key);
    return x;
}

/* The key that maps index 0 to the number of index `first` under `key`. */
static inline uint64_t dz_key_at(uint64_t key, uint32_t first) { return (key & 0xffffffff00000000ULL) | (uint32_t)((uint32_t)key + first); }

/* 64-bit mixing of a key and a counter, for streams that are not part of the format (splitmix64 finaliser). */
static inline uint64_t dz_u64_at(uint64_t key, uint64_t counter) {
    uint64_t x = key + counter * 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

#endif

/* Lossless bodies of every kind. Input: dtype (with a base: 0x80), count u16, then the body. The base follows from the count. */
#include "base/hash.h"
#include "codec/lossless.h"
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3 || size > 1 << 18) return 0;
    dz_dtype dtype = (dz_dtype)((data[0] & 0x7f) % DZ_DTYPE_COUNT);
    size_t count = (size_t)data[1] | (size_t)data[2] << 8, nbytes = count * dz_dtype_size(dtype);
    uint8_t *body = guarded(0, size - 3), *words = guarded(1, nbytes), *base = NULL;
    if (data[0] & 0x80) {
        base = guarded(2, nbytes);
        for (size_t i = 0; i < nbytes; i++) base[i] = (uint8_t)(dz_u64_at(count, i / 2) >> (8 * (i % 2)));
    }
    memcpy(body, data + 3, size - 3);
    dz_error err = {0};
    dz_lossless_decode(words, base, dtype, count, body, size - 3, &err);
    promise_error(&err);
    return 0;
}

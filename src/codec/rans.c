#include "codec/rans.h"

#include <htscodecs/rANS_static4x16.h>
#include <string.h>

dz_rc dz_rans_encode(dz_buf *out, const uint8_t *symbols, size_t count, dz_error *err) {
    if (count == 0) return DZ_OK;
    if (count > DZ_RANS_MAX) return dz_fail(err, DZ_EFAIL, "a stream of %zu symbols exceeds the coder's %zu", count, DZ_RANS_MAX);
    unsigned bound = rans_compress_bound_4x16((unsigned)count, RANS_ORDER_NOSZ), coded = bound;
    if (dz_buf_reserve(out, bound > count + 1 ? bound : count + 1, err) != DZ_OK) return err->rc;
    uint8_t *at = out->data + out->len;
    /* The library takes a non-const input and does not write to it. */
    if (!rans_compress_to_4x16((unsigned char *)(uintptr_t)symbols, (unsigned)count, at, &coded, RANS_ORDER_NOSZ))
        return dz_fail(err, DZ_EFAIL, "rANS could not code %zu symbols", count);
    if (coded > count) { /* tables cost more than they save: store */
        at[0] = RANS_ORDER_CAT | RANS_ORDER_NOSZ;
        memcpy(at + 1, symbols, count);
        coded = (unsigned)count + 1;
    }
    out->len += coded;
    return DZ_OK;
}

dz_rc dz_rans_decode(uint8_t *symbols, size_t count, const uint8_t *bytes, size_t nbytes, dz_error *err) {
    if (count == 0) return nbytes == 0 ? DZ_OK : dz_fail(err, DZ_EDAMAGE, "an empty stream has %zu bytes", nbytes);
    if (count > DZ_RANS_MAX || nbytes == 0 || nbytes > count + 8)
        return dz_fail(err, DZ_EDAMAGE, "a stream of %zu bytes cannot hold %zu symbols", nbytes, count);
    unsigned got = (unsigned)count;
    unsigned allowed = RANS_ORDER_NOSZ | RANS_ORDER_CAT;
    if ((bytes[0] & ~allowed) != 0 || !(bytes[0] & RANS_ORDER_NOSZ))
        return dz_fail(err, DZ_EDAMAGE, "a stream of unknown kind 0x%02x", bytes[0]);
    if (!rans_uncompress_to_4x16((unsigned char *)(uintptr_t)bytes, (unsigned)nbytes, symbols, &got) || got != count)
        return dz_fail(err, DZ_EDAMAGE, "a stream of %zu bytes does not decode to %zu symbols", nbytes, count);
    return DZ_OK;
}

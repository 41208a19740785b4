/* Byte planes: byte p of every element, each plane coded by the cheapest of four ways. */
#ifndef DZ_CODEC_PLANES_H
#define DZ_CODEC_PLANES_H

#include "base/dtype.h"
#include "base/mem.h"

typedef enum dz_plane_how {                        /* on disk, first byte of a plane; never renumbered */
                            DZ_PLANE_CONSTANT = 0, /* one byte value for all */
                            DZ_PLANE_RAW = 1,
                            DZ_PLANE_RANS = 2,
                            DZ_PLANE_ZSTD = 3
} dz_plane_how;

/* One plane of `count` > 0 bytes with its length, so that another plane can follow. DZ_EDAMAGE from `get` if the plane is damaged. */
dz_rc dz_plane_put(dz_buf *out, const uint8_t *plane, size_t count, dz_error *err);
dz_rc dz_plane_get(dz_view *view, uint8_t *plane, size_t count, dz_error *err);

/* The body of DZ_LOSSLESS_PLANES after its kind byte: planes of the XOR with `base`, or of the elements if `base` is NULL. Floats are
 * rotated left by one bit, so that the exponent fills the highest plane. */
dz_rc dz_planes_encode(dz_buf *out, const void *words, const void *base, dz_dtype dtype, size_t count, dz_error *err);

/* The inverse. `base` may be NULL if the body does not use it; the body says whether it does. */
dz_rc dz_planes_decode(void *words, const void *base, dz_dtype dtype, size_t count, dz_view *view, dz_error *err);

#endif

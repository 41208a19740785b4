/* Factors of a rotated tensor's input channels: before it is rotated, each element is multiplied by that of its channel, and divided by it
 * when restored, so that channels with large factors get little of the noise. Bytes: FORMAT.md "Lossy tiles". */
#ifndef DZ_CODEC_CHANNELS_H
#define DZ_CODEC_CHANNELS_H

#include "base/mem.h"

enum {                             /* on disk: first byte of a lossy body, beside those of codec/sparse_levels.h */
       DZ_BODY_CHANNELS = 8,       /* the factors of the tensor, then a body as without them */
       DZ_BODY_CHANNELS_BEFORE = 9 /* the factors are those of the tensor's first tile */
};

#define DZ_CHANNELS_MOST ((uint32_t)1 << 20) /* channels of a tensor */
#define DZ_CHANNEL_CODE_MOST 31              /* a factor is 2^(code / 4), code from -31 to 31 */

/* Element i of the tensor is of the channel i / stride mod count. */
typedef struct dz_channels {
    const int8_t *code; /* [count] */
    uint32_t count;     /* 0: no factors */
    uint64_t stride;
} dz_channels;

/* 2^(code / 4) in f32. */
float dz_channel_factor(int code);

/* The largest factor over the smallest. */
float dz_channels_range(const dz_channels *channels);

/* Appends the head that a tensor's first tile has, with the codes. */
dz_rc dz_channels_put(dz_buf *out, const dz_channels *channels, dz_error *err);

/* Its length in bytes. */
size_t dz_channels_bytes(const dz_channels *channels);

/* Reads a head from behind its first byte. `codes` has room for as many as the tensor has elements, at most DZ_CHANNELS_MOST; DZ_EDAMAGE
 * when it is none of a tensor of `elements` elements. */
dz_rc dz_channels_take(dz_channels *channels, int8_t *codes, dz_view *view, uint64_t elements, dz_error *err);

/* Multiplies elements first .. first + count - 1 of the tensor by their factors, or with `back` by the factor of the code with the other
 * sign. */
void dz_channels_apply(float *x, size_t count, uint64_t first, const dz_channels *channels, int back);

#endif

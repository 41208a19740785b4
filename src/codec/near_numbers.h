/* The differences of one class of a NEAR body (FORMAT.md "NEAR"): numbers of 4 bits, two a byte, low bits as they are, and escapes for what
 * no number stands for. */
#ifndef DZ_CODEC_NEAR_NUMBERS_H
#define DZ_CODEC_NEAR_NUMBERS_H

#include "base/mem.h"

enum {
    DZ_NEAR_CHUNK = 4096, /* differences worked on at a time */
    DZ_NEAR_ESCAPE = 15,
    DZ_NEAR_MIDDLE = 7 /* number of the differences from 0 on */
};

static inline size_t dz_near_low_bytes(size_t n, unsigned k) { return (n * k + 7) / 8; }

/* What is written of a class. */
typedef struct dz_near_sink {
    dz_buf pairs, low, escapes;
    size_t count;
} dz_near_sink;

/* Adds n differences with k low bits; n is a multiple of 8, but for the last ones of the class. */
dz_rc dz_near_take_apart(dz_near_sink *s, const int16_t *d, size_t n, unsigned k, dz_error *err);

/* What is read of a class. */
typedef struct dz_near_source {
    const uint8_t *pairs, *low; /* 8 bytes more than are needed */
    const uint8_t *escape;
    size_t left; /* elements */
} dz_near_source;

/* The next n differences; n is a multiple of 8, or all that are left. */
void dz_near_put_together(int16_t *d, dz_near_source *s, size_t n, unsigned k);

/* Escapes among n numbers in pairs; the second one of the last pair may be none. */
size_t dz_near_escapes(const uint8_t *pairs, size_t n);

#endif

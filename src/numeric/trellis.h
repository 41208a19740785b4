/* Trellis-coded quantisation of rotated tiles at low rates: each bit of a message moves a shift register, and each state of the register
 * gives the signs of the next coefficients, a binary convolutional code. The search finds, by the Viterbi algorithm, the message whose
 * signs have the largest inner product with the block. METHODS.md "Trellis-coded quantisation" has the formulas and their sources.
 *
 * All of the search is in integers: the same message on every machine. */
#ifndef DZ_NUMERIC_TRELLIS_H
#define DZ_NUMERIC_TRELLIS_H

#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

#define DZ_TRELLIS_MEMORY 8       /* bits of the register that a writer uses: 2^8 states */
#define DZ_TRELLIS_MEMORY_LEAST 5 /* and those that a reader takes */
#define DZ_TRELLIS_MEMORY_MOST 12
#define DZ_TRELLIS_RATE_LEAST 0x1p-12 /* bits a coefficient */
#define DZ_TRELLIS_RATE_MOST 1.0

/* Bits of the message of a block of n coefficients: rate * n, rounded, at least 1 and at most n. */
size_t dz_trellis_bits(size_t n, double rate);

/* Noise to signal, E(y - x)^2 / E x^2, of the estimate y of n normal numbers whose inner product with x is that of x itself, at
 * DZ_TRELLIS_MEMORY. Falls with the rate and with n, since a register that starts empty chooses among fewer signs; from a table and basic
 * arithmetic. */
double dz_trellis_noise(double rate, size_t n);

/* Bits of the message of a block of n coefficients with this energy, at which its noise is `noise` an element, or with n bits as little as
 * can be; 0 where that is so much that no message is worth it. `*left`: energy of the noise, that of the block without a message. */
size_t dz_trellis_bits_for(size_t n, double energy, double noise, double *left);

/* Room for searches, which may be used for one after the other; {0} to begin with. */
typedef struct dz_trellis_room {
    dz_buf x, packed; /* coefficients as integers, and step by step */
    dz_buf from;      /* for each group of 8 steps the state before it on the way to each state */
    dz_buf starts, signs, flips, middles;
    size_t fours;    /* of elements, whose signs are known */
    size_t n, nbits; /* whose starts are known */
} dz_trellis_room;

/* The message of the n > 0 coefficients x, which are finite, `std` > 0 their standard deviation about 0: `nbits` of dz_trellis_bits, lowest
 * bit of a byte first, padded with zeros. product: of its signs with the coefficients in standard deviations, as expected from rounded ones
 * that end at four. */
dz_rc dz_trellis_search(dz_trellis_room *room, uint8_t *message, double *product, const float *x, size_t n, double std, size_t nbits,
                        dz_error *err);
void dz_trellis_room_free(dz_trellis_room *room);

/* The signs of a message: y[i] is size or -size. Bits are taken from bit `first` of `message` on. Fails only for want of memory. */
dz_rc dz_trellis_signs(float *restrict y, size_t n, const uint8_t *restrict message, size_t first, size_t nbits, unsigned memory,
                       float size, dz_error *err);

#endif

/* Sizes predicted from histograms in integers, so that every machine makes the same choice. */
#ifndef DZ_CODEC_ENTROPY_H
#define DZ_CODEC_ENTROPY_H

#include <stddef.h>
#include <stdint.h>

#define DZ_BITS_SHIFT 16 /* bits are counted in units of 2^-16 bit */

/* n * log2(n) in units of 2^-16 bit, 0 for 0; n < 2^32. Linear between 64 points an octave: the error is at most 0.0001 bit. */
uint64_t dz_nlog2n(uint32_t n);

void dz_byte_histogram(uint32_t counts[256], const uint8_t *bytes, size_t nbytes);

/* Predicted bytes of dz_rans_encode for symbols with these counts, table and states included. */
size_t dz_rans_estimate(const uint32_t counts[256]);

#endif

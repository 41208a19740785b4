/* Which exponents of the base have a class, and how many low bits each class's differences have: the plan of NEAR and CLOSE bodies, of
 * 16-bit floats (METHODS.md "Near the base").
 *
 * It is made from a sample: the differences of the words, as tokens, by the base's exponent. A class gives a difference a number from 0 to
 * 15, of which DZ_RUN_ESCAPE stands for what no other does, and plain low bits.
 */
#ifndef DZ_CODEC_CLASS_RUN_H
#define DZ_CODEC_CLASS_RUN_H

#include <string.h>

#include "base/dtype.h"
#include "base/mem.h"
#include "numeric/close.h"

enum {
    DZ_RUN_EXPONENTS = 256,
    DZ_RUN_CLASSES_MAX = DZ_CLOSE_CLASSES_MAX,
    DZ_RUN_LOW_BITS_MAX = DZ_CLOSE_LOW_BITS_MAX,
    DZ_RUN_NUMBERS = DZ_CLOSE_NUMBERS,
    DZ_RUN_ESCAPE = DZ_CLOSE_ESCAPE,
    DZ_RUN_MIDDLE = DZ_CLOSE_MIDDLE,
    DZ_RUN_TOKENS = 56 /* of a difference without its sign: itself below 8, then four an octave */
};

/* Numbers of each token; of d < 0 the token is that of ~d. */
typedef uint32_t dz_token_counts[2][DZ_RUN_TOKENS];

typedef struct dz_census {
    dz_token_counts of[DZ_RUN_EXPONENTS];
    size_t stride; /* it is of one in so many elements */
} dz_census;

typedef struct dz_class_run {
    unsigned first, nclasses; /* exponents; 0 classes: none is worth it */
    uint8_t low_bits[DZ_RUN_CLASSES_MAX];
    int64_t extra, without; /* of the sample, in 2^-16 bits: more than without classes; without classes */
    uint64_t sampled;       /* elements */
} dz_class_run;

/* 1 if so many elements of `dtype` can be coded in classes; fewer are no faster. */
int dz_run_fits(dz_dtype dtype, size_t count);

/* Bits of an element below its exponent. */
static inline unsigned dz_run_mantissa(dz_dtype dtype) { return dtype == DZ_BF16 ? 7 : 10; }

/* Element i of words that need not be aligned. */
static inline uint16_t dz_word_at(const uint8_t *words, size_t i) {
    uint16_t x;
    memcpy(&x, words + 2 * i, sizeof x);
    return x;
}

/* Counts the differences of a sample of about 2^15 elements. The census is empty before. */
void dz_census_take(dz_census *census, const uint8_t *words, const uint8_t *base, size_t count, unsigned mantissa);

/* How many differences have each number, with `low_bits` low bits. Returns their sum. */
uint32_t dz_census_numbers(uint32_t count[DZ_RUN_NUMBERS], const dz_token_counts of, unsigned low_bits);

/* The run of exponents for which classes are worth most. `table_bits`: what a class takes beside its elements, with so many numbers that
 * occur; NULL: nothing. */
void dz_class_run_choose(dz_class_run *run, const dz_census *census, unsigned (*table_bits)(unsigned distinct));

/* 1 if the body is expected to be at most 2 % larger than without classes. `more_bits`: what else it takes. */
int dz_class_run_is_small(const dz_class_run *run, const dz_census *census, int64_t more_bits);

#endif

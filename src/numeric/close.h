/* 16-bit floats close to their base: numbers of 4 bits by rANS with DZ_CLOSE_LANES states, low bits as they are (FORMAT.md "CLOSE").
 *
 * The kernels work on blocks of up to DZ_CLOSE_BLOCK elements, a multiple of DZ_CLOSE_LANES; blocks are encoded from the first to the last,
 * and decoded from the last to the first. Element i is in lane i % DZ_CLOSE_LANES. Of 32 lanes those of even place come first, then the
 * others: in this order they write the words that they have to give up.
 */
#ifndef DZ_NUMERIC_CLOSE_H
#define DZ_NUMERIC_CLOSE_H

#include <stddef.h>
#include <stdint.h>

enum {
    DZ_CLOSE_LANES = 128,
    DZ_CLOSE_BLOCK = 2048,
    DZ_CLOSE_CLASSES_MAX = 15,
    DZ_CLOSE_LOG = 12,         /* frequencies of a class sum to 2^12 */
    DZ_CLOSE_LOWEST = 1 << 15, /* states below take 16 bits; where every state starts */
    DZ_CLOSE_NUMBERS = 16,
    DZ_CLOSE_MIDDLE = 7,  /* number of the differences from 0 on */
    DZ_CLOSE_ESCAPE = 15, /* number of what no other stands for */
    DZ_CLOSE_LOW_BITS_MAX = 8,
    DZ_CLOSE_INVERSE = 43, /* inverses are rounded up from 2^43 / f: exact for states below 2^31 */
    DZ_CLOSE_ROOM = 32     /* words that kernels may write or read beyond the last */
};

/* What rANS needs of a number of a class. */
typedef struct dz_close_code {
    uint64_t inverse;       /* 2^DZ_CLOSE_INVERSE / frequency */
    uint32_t limit;         /* states from here on give up 16 bits first */
    uint16_t others, start; /* 2^12 - frequency; sum of the frequencies before */
} dz_close_code;

/* Class `nclasses` is that of the elements without one, which are far: number 15 has all of its slots, which changes no state. */
typedef struct dz_close_table {
    unsigned first, nclasses, mantissa;  /* class: exponent of the base's element - first; mantissa: bits below the exponent */
    _Alignas(64) uint16_t low_bits[32];  /* of each class */
    uint16_t low_mask[32];               /* 2^low_bits - 1 */
    uint16_t scale[32];                  /* 2^(8 - low_bits) - 1 */
    uint16_t least[32], span[32];        /* numbers from least to least + span have a frequency, and 15; others are written as 15 */
    uint16_t frequency[256], start[256]; /* of 16 * class + number */
    uint16_t tree[256]; /* starts, for a search: of number 8 of each class; from 32 on of 4 and 12; from 64 on of 2, 6, 10, 14;
                           from 128 on of the odd ones */
    dz_close_code code[256];
    uint32_t both[256];                 /* frequency | start << 16 */
    uint64_t together[256], apart[256]; /* for 8 lanes, a byte each: of the set bits of a number their places; and the way back */
} dz_close_table;

/* The table of `nclasses` classes; frequencies of each sum to 2^12. For encoding, numbers 7 and 15 have some, and all between
 * two that have. */
void dz_close_table_make(dz_close_table *t, unsigned first, unsigned nclasses, unsigned mantissa, const uint8_t *low_bits,
                         const uint16_t (*frequency)[DZ_CLOSE_NUMBERS]);

typedef struct dz_close_writer {
    _Alignas(64) uint32_t state[DZ_CLOSE_LANES];
    uint16_t *words;          /* where the next goes; there is room for DZ_CLOSE_BLOCK + DZ_CLOSE_ROOM */
    uint16_t *escape;         /* differences; room for a block */
    uint16_t *far, *far_base; /* elements; room for a block */
    uint8_t *bits;            /* low bits; room for a block and 8 more */
    uint64_t held;            /* the nheld < 8 bits before */
    unsigned nheld;
    uint8_t low[DZ_CLOSE_BLOCK], mask[DZ_CLOSE_BLOCK]; /* of a block */
} dz_close_writer;

typedef struct dz_close_reader {
    _Alignas(64) uint32_t state[DZ_CLOSE_LANES];
    const uint8_t *words, *first_word;     /* `words` is behind the next; 2 * DZ_CLOSE_ROOM bytes can be read there */
    const uint8_t *bits;                   /* 9 bytes more than there are */
    uint64_t nbits;                        /* left */
    const uint16_t *escape, *first_escape; /* `escape` is behind the next */
    uint16_t *far_place, *far_base;        /* of a block: where they are in it, and the base's; room for a block and DZ_CLOSE_ROOM */
    int bad;                               /* escapes or bits are too few */
    int has_slots;                         /* `slot` is made, by variants that use it */
    uint8_t low[DZ_CLOSE_BLOCK];           /* of a block */
    uint32_t slot[DZ_CLOSE_CLASSES_MAX + 1][1 << DZ_CLOSE_LOG];
} dz_close_reader;

#endif

/* The loops that touch every element, compiled once for each instruction set and chosen at run time. Every variant gives the same bits:
 * only elementwise float operations, integer reductions, no contraction (tests/unit/test_kernels.c compares them all).
 *
 * Callers guarantee: counts are in elements, buffers do not overlap, dtype is a float type (dz_dtype_is_float).
 */
#ifndef DZ_NUMERIC_KERNELS_H
#define DZ_NUMERIC_KERNELS_H

#include "base/dtype.h"
#include "base/hash.h"
#include "numeric/close.h"

/* Elements worked on at a time: two float buffers of this stay in the first-level cache. */
#define DZ_CHUNK 4096

/* Elements read at a time in passes that do all their work on a piece: base and task, as floats, stay in the second-level cache. */
#define DZ_PIECE 131072

#define DZ_GATHER_ROOM 32 /* bytes that gather_classes may touch beyond the last */

typedef struct dz_range { /* smallest and largest delta as ordered integers (dz_ordered) */
    int32_t lo, hi;
} dz_range;

#define DZ_LANES 16 /* sums of floats are kept in so many lanes, so that the order of addition is the same in every variant */

/* Of the delta d of a tensor; start from DZ_MEASURES_NONE. Lane i % DZ_LANES has element i (dz_lanes_total adds the lanes up). */
typedef struct dz_measures {
    dz_range range;
    double sums[2 * DZ_LANES]; /* of |d|, if asked for, then of d^2 */
    uint64_t changed;          /* how many d are not 0, if asked for */
} dz_measures;

typedef enum dz_flips { DZ_FLIPS_NONE, DZ_FLIPS_BEFORE, DZ_FLIPS_AFTER } dz_flips;

typedef struct dz_kernel_table {
    const char *name;
    void (*widen)(float *restrict dst, const void *restrict src, dz_dtype dtype, size_t count);
    void (*narrow)(void *restrict dst, const float *restrict src, dz_dtype dtype, size_t count);

    /* out = base + x * scale, or base + x * factor * scale, every operation rounded to float; factor may be NULL. Neither type is F64. */
    void (*add_scaled)(void *restrict out, dz_dtype to, const void *restrict base, dz_dtype from, const float *restrict x,
                       const float *restrict factor, float scale, size_t count);

    /* dst = task - base, both widened to float. */
    void (*difference)(float *restrict dst, const void *restrict task, dz_dtype task_dtype, const void *restrict base, dz_dtype base_dtype,
                       size_t count);

    /* Adds d = task - base; `dtype` is the task's; `sizes`: also the sums of |d| and the number of d != 0. NaN and infinity end up
     * outside the finite range (dz_range_finite). A call before the last of a tensor has a multiple of DZ_LANES elements. */
    void (*measure)(dz_measures *measures, int sizes, const void *restrict task, dz_dtype dtype, const float *restrict base, size_t count);

    /* Adds x^2 to the lanes, in the same order. */
    void (*energy)(double *restrict lanes, const float *restrict x, size_t count);

    /* level = round_half_even((task - base - lo) / step), at most `top`; step > 0. METHODS.md "Quantise" */
    void (*levels)(uint8_t *restrict dst, const void *restrict task, dz_dtype dtype, const float *restrict base, float lo, float step,
                   unsigned top, size_t count);

    /* bits[i] = the bits of the distance of two 16-bit floats in steps from float to float: 0 for equal ones, 1 for neighbours. */
    void (*distances)(uint8_t *restrict bits, const uint16_t *restrict word, const uint16_t *restrict predictor, size_t count);

    /* level = sign(x) floor(|x| / width + 1/2), at most `most` in size; returns how many are not 0. */
    size_t (*uniform_levels)(int32_t *restrict level, const float *restrict x, float width, float most, size_t count);

    /* Levels without their k low bits as numbers (0, -1, 1, -2 ... are 0, 1, 2, 3 ...), at most 255; whether any is 255. Levels are below
     * 2^30 in size. */
    int (*symbols)(uint8_t *restrict symbol, const int32_t *restrict level, unsigned k, size_t count);

    /* Negates x[i] if the top bit of dz_u32_at(key, i) is set. */
    void (*flip)(float *x, uint64_t key, size_t count);

    /* Walsh-Hadamard transform of `count` floats, a power of two: for h = 1, 2, 4, ... count / 2 each pair (x[i], x[i + h]), i without bit
     * h, becomes (x[i] + x[i + h], x[i] - x[i + h]). Then each is multiplied by `norm`. Before, or after all of it, x is flipped as above.
     */
    void (*hadamard)(float *x, size_t count, float norm, dz_flips flips, uint64_t key);

    /* Index of the first element of largest |x|; none is NaN, count > 0. */
    size_t (*largest)(const float *x, size_t count);

    /* The same of each of `runs` runs of 2^log floats: the first place of the largest |x| in the run, and its bits without the sign.
     * Both have room for runs + 16. */
    void (*largest_of_runs)(uint32_t *restrict size, uint32_t *restrict place, const float *restrict x, unsigned log, size_t runs);

    /* Adds to histogram[level] for levels below 2^bits. */
    void (*count)(uint64_t *restrict histogram, const uint8_t *restrict levels, unsigned bits, size_t count);

    /* Writes, in order, each index i in [0, count) with u = dz_u32_at(key, i) <= last, and its u; returns how many. Both have room for
     * count + 16. */
    size_t (*candidates)(uint32_t *restrict index, uint32_t *restrict u, uint64_t key, uint32_t last, size_t count);

    /* Writes, in order, each index i in [0, count) with wanted[levels[i]] = 1 (a table of 256 entries, 0 or 1); returns how many. Levels
     * are below 2^bits. `index` has room for count + 16. */
    size_t (*pick)(uint32_t *restrict index, const uint8_t *restrict levels, const uint8_t *restrict wanted, unsigned bits, size_t count);

    /* x * scale, to the nearest integer, at most `most` (up to 127) in size. */
    void (*trellis_round)(int8_t *restrict out, const float *restrict x, size_t n, float scale, float most);

    /* The x of each step in the form of trellis_walk: step t has those from starts[t] on, up to starts[t + 1], at most 4 * fours of them.
     * There are 4 * DZ_TRELLIS_FOURS_MOST + 16 more behind the last. */
    void (*trellis_pack)(int8_t *restrict out, const int8_t *restrict x, const uint32_t *restrict starts, size_t nbits, size_t fours);

    /* The search for a message (numeric/trellis.h), whose sums are of 8 bits and end at their limits. With gain(m) of a step, now[m]
     * becomes the larger one of now[2m] + gain(m) and now[2m+1] - gain(m), and now[128 + m] that of now[2m] - gain(m) and now[2m+1] +
     * gain(m); of two as large now[m] takes the first, now[128 + m] the second.
     *
     * A step has 4 * fours elements x, zeros behind the last; x has, for each four steps, the first four elements of each step, then the
     * next four of each, and so on. Their sum with signs is gain(m): four by four, (x0 + x1) + (x2 + x3), then the fours in their order,
     * each sum ending at the limits; the sum of a four is halved, if `halvings` is not 0 (rounded up and down by
     * turns), and gain(m) too if it is 2 (rounded up). Bit b of
     * signs[f][k][p]: the sign of element 4f + b in step k of a group of 8, where state (p >> k | p << (8 - k)) % 256 has the place p; m is
     * the state without its lowest bit. Signs of a place are the XOR of those of its bits.
     *
     * trellis_walk: `groups` of 8 steps; after the fourth of each the largest sum is found, and after the eighth taken off all but for 60
     * that it is left below 0. taken[g][k], 32 bytes, bit p: whether place p took, in step k of group g, the state that was in
     * the place p ^ 1 << k. trellis_trace: message[g], the state before group g on the way to state `last` after all of them, and
     * message[groups] = last. trellis_step: one step with gains that are known; `from` goes along. */
    void (*trellis_walk)(int8_t *restrict now, uint8_t *restrict taken, const int8_t *restrict x, const uint8_t *restrict signs,
                         size_t fours, unsigned halvings, size_t groups);
    void (*trellis_trace)(uint8_t *restrict message, unsigned last, const uint8_t *restrict taken, size_t groups);
    void (*trellis_step)(int8_t *restrict now, uint8_t *restrict from, const int8_t *restrict gain);

    /* gain[m] = sum of x[j], negated where m and middle[j] (below 128) share an odd number of bits. */
    void (*trellis_long_gains)(int32_t *restrict gain, const int8_t *restrict x, const uint8_t *restrict middle, size_t count);

    /* The sum of x (as above) with the signs of a message: byte b of flips[f][w] is 0xff where w, the register after a step, makes element
     * 4f + b negative. Those of a register are the XOR of those of its bits. */
    int64_t (*trellis_product)(const uint8_t *restrict message, size_t nbits, const int8_t *restrict x, const uint32_t *restrict flips,
                               size_t fours);

    /* symbols[i] = the next one of its element's class: of *next[class_of[context[i]]], which moves on. Class k has the contexts from
     * first[k] up to first[k + 1]; first[0] is 0. `symbols` and each class have DZ_GATHER_ROOM bytes more that can be written, or read. */
    void (*gather_classes)(uint8_t *restrict symbols, const uint16_t *restrict context, const uint8_t *restrict class_of,
                           const uint16_t *restrict first, unsigned nclasses, const uint8_t **restrict next, size_t n);

    /* Of a block (numeric/close.h). close_decode stops where fewer than DZ_CLOSE_LANES words are left, and returns how many elements it
     * left: the first ones. Their low bits are in the reader. */
    void (*close_encode)(dz_close_writer *w, const dz_close_table *t, const uint8_t *restrict words, const uint8_t *restrict base,
                         size_t n);
    size_t (*close_decode)(dz_close_reader *r, const dz_close_table *t, uint8_t *restrict words, const uint8_t *restrict base, size_t n);
} dz_kernel_table;

#define DZ_TRELLIS_STATES 256
#define DZ_TRELLIS_WINDOWS (2 * DZ_TRELLIS_STATES)
#define DZ_TRELLIS_GROUP 8       /* steps */
#define DZ_TRELLIS_FOUR 4        /* steps whose elements lie together */
#define DZ_TRELLIS_FOURS_MOST 64 /* fours of elements in a step */

/* The fastest variant that this processor runs, or the one that DZ_KERNELS=portable|avx2|avx512 names (for tests and benchmarks). */
const dz_kernel_table *dz_kernels(void);

/* All variants this processor runs, NULL-terminated. */
const dz_kernel_table *const *dz_kernels_all(void);

extern const dz_kernel_table dz_kernels_portable, dz_kernels_avx2, dz_kernels_avx512;

static inline double dz_lanes_total(const double *lanes) {
    double total = 0;
    for (int i = 0; i < DZ_LANES; i++) total += lanes[i];
    return total;
}

/* Floats as integers in the same order: -0 directly below +0, NaNs beyond the infinities. */
static inline int32_t dz_ordered(float x) {
    int32_t bits = (int32_t)dz_float_bits(x);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

static inline float dz_from_ordered(int32_t ordered) { return dz_bits_to_float((uint32_t)(ordered ^ ((ordered >> 31) & 0x7fffffff))); }

#define DZ_RANGE_EMPTY ((dz_range){.lo = INT32_MAX, .hi = INT32_MIN})
#define DZ_MEASURES_NONE ((dz_measures){.range = DZ_RANGE_EMPTY})

static inline int dz_range_finite(dz_range range) { return range.hi < 0x7f800000 && range.lo >= -0x7f800000; }

#endif

/* A random rotation of a tile's delta: signs drawn from the tile's key, then a fast Walsh-Hadamard transform of each block. What comes out
 * of a block is close to Gaussian, whatever structure the delta has, so few large coefficients can stand for it (numeric/gauss.h says how
 * well), and what they miss becomes white noise within the block when turned back. Every machine gets the same bits. */
#ifndef DZ_NUMERIC_ROTATE_H
#define DZ_NUMERIC_ROTATE_H

#include <stddef.h>
#include <stdint.h>

/* Blocks of a tile: each of this many elements but the last, which takes the rest too (fewer than twice as many); at least one. Rows that
 * lie together often matter alike: blocks keep the noise of a strong part out of a weak one. */
#define DZ_ROTATE_BLOCK ((size_t)65536)

static inline size_t dz_rotate_blocks(size_t count) { return count < 2 * DZ_ROTATE_BLOCK ? 1 : count / DZ_ROTATE_BLOCK; }

/* Elements before block `block` of dz_rotate_blocks(count), which may be the one past the last. */
static inline size_t dz_rotate_first(size_t count, size_t block) {
    return block < dz_rotate_blocks(count) ? block * DZ_ROTATE_BLOCK : count;
}

/* In place, `count` floats, below 2^32. x[i] is negated where dz_u32_at(key, i) has its top bit set; then, with P the largest power of two
 * up to a block's length, its first P elements are transformed and, where P is less, its last P with signs of their own (~key); each time
 * times 1 / sqrt(P). Orthogonal up to rounding. */
void dz_rotate(float *x, size_t count, uint64_t key);

/* The way back. */
void dz_unrotate(float *x, size_t count, uint64_t key);

#endif

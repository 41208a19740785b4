/* A random rotation of a tile's delta: signs drawn from the tile's key, then a fast Walsh-Hadamard transform of each block (METHODS.md
 * "Walsh-Hadamard rotation"). The coefficients of a block are close to normal whatever the delta's structure. Every machine gets the same
 * bits. */
#ifndef DZ_NUMERIC_ROTATE_H
#define DZ_NUMERIC_ROTATE_H

#include <stddef.h>
#include <stdint.h>

/* Elements of a block. A tile has at least one block; the last one also takes the rest, and has fewer than twice as many elements. Blocks
 * keep the noise of a strong part of a tensor out of a weak one. */
#define DZ_ROTATE_BLOCK ((size_t)65536)

static inline size_t dz_rotate_blocks(size_t count) { return count < 2 * DZ_ROTATE_BLOCK ? 1 : count / DZ_ROTATE_BLOCK; }

/* First element of block `block`; `count` for the block past the last. */
static inline size_t dz_rotate_first(size_t count, size_t block) {
    return block < dz_rotate_blocks(count) ? block * DZ_ROTATE_BLOCK : count;
}

static inline size_t dz_rotate_length(size_t count, size_t block) {
    return dz_rotate_first(count, block + 1) - dz_rotate_first(count, block);
}

/* Rotates `count` floats (below 2^32) in place. x[i] is negated if the top bit of dz_u32_at(key, i) is set. Then the first P elements of
 * each block are transformed, P being the largest power of two up to its length; if P is smaller, so are the last P, with signs of their
 * own
 * (~key). Each transform is scaled by 1 / sqrt(P). Orthogonal up to rounding. */
void dz_rotate(float *x, size_t count, uint64_t key);

/* One block of the `count` floats alone; `x` is where it begins. */
void dz_rotate_block(float *x, size_t count, uint64_t key, size_t block);

/* The inverse. */
void dz_unrotate(float *x, size_t count, uint64_t key);
void dz_unrotate_block(float *x, size_t count, uint64_t key, size_t block);

/* Where the coefficients of a tile go. take NULL: x has a place for all of them. Else x has places for the longest block (dz_rotate_most);
 * `take` is given one block of n after the other, in order, and may change them. */
typedef struct dz_blocks {
    float *x;
    void (*take)(void *arg, float *x, size_t block, size_t n);
    void *arg;
} dz_blocks;

/* Elements of the longest block. */
static inline size_t dz_rotate_most(size_t count) { return dz_rotate_length(count, dz_rotate_blocks(count) - 1); }

/* Where a block's coefficients are to be put, and that they are there. */
static inline float *dz_block_place(const dz_blocks *to, size_t count, size_t block) {
    return to->take ? to->x : to->x + dz_rotate_first(count, block);
}
static inline void dz_block_done(const dz_blocks *to, size_t count, size_t block) {
    if (to->take) to->take(to->arg, to->x, block, dz_rotate_length(count, block));
}
void dz_block_zero(const dz_blocks *to, size_t count, size_t block); /* places zeros there */

#endif

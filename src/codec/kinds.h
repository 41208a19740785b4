/* What the values of a lossy tensor are: the numbers of the index's column `bits` (FORMAT.md, "Lossy tiles"). On disk; never renumbered. */
#ifndef DZ_CODEC_KINDS_H
#define DZ_CODEC_KINDS_H

enum {
    DZ_BITS_LEVELS = 8,   /* 1 to 8: levels of that many bits (codec/sparse_levels.h) */
    DZ_BITS_VALUES = 16,  /* kept elements have fp16 values of their own (codec/sparse_values.h) */
    DZ_BITS_SIGNS = 17,   /* kept coefficients of a rotated tile have a sign each (codec/sparse_signs.h) */
    DZ_BITS_UNIFORM = 18, /* all coefficients of a rotated tile lie on a uniform grid (codec/uniform.h) */
    DZ_BITS_TRELLIS = 19  /* all coefficients of a rotated block have one size, a message has their signs (codec/trellis.h) */
};

static inline int dz_kind_is_levels(unsigned bits) { return bits >= 1 && bits <= DZ_BITS_LEVELS; }
static inline int dz_kind_is_rotated(unsigned bits) { return bits >= DZ_BITS_SIGNS && bits <= DZ_BITS_TRELLIS; }

/* The body has all coefficients of a rotated tile, not only those that are kept. */
static inline int dz_kind_is_dense(unsigned bits) { return bits == DZ_BITS_UNIFORM || bits == DZ_BITS_TRELLIS; }

static inline int dz_kind_is_known(unsigned bits) { return dz_kind_is_levels(bits) || (bits >= DZ_BITS_VALUES && bits <= DZ_BITS_TRELLIS); }

#endif

/* Kernels compiled for each instruction set and picked when the program starts. Only for functions whose results do not depend on it:
 * integers, and floats that hold them exactly. */
#ifndef DZ_CODEC_VARIANTS_H
#define DZ_CODEC_VARIANTS_H

#define DZ_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#if __GNUC__ >= 12
#define DZ_VARIANTS __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define DZ_VARIANTS __attribute__((target_clones("default", "avx2")))
#endif
#else
#define DZ_VARIANTS
#endif

#endif

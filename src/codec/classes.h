/* Floats against a base: differences in value order, coded in classes of the base's exponent (METHODS.md "Lossless coding").
 *
 * The context of an element is the highest bits of the base's magnitude. Runs of contexts with similar statistics form a class with a rANS
 * table of its own. A difference is a symbol (sign flip, direction, coarse logarithm of the number of steps) and low bits that are nearly
 * uniform and stored as they are.
 */
#ifndef DZ_CODEC_CLASSES_H
#define DZ_CODEC_CLASSES_H

#include "base/dtype.h"
#include "base/mem.h"

#define DZ_CLASSES_MAX 64U    /* classes in a body */
#define DZ_CONTEXTS_MAX 1024U /* contexts of any dtype */
#define DZ_SYMBOL_ESCAPE 255U /* a symbol too rare for the class's table: its 8 bits are in the bit stream */

/* 1 if elements of `dtype` can be coded this way. */
int dz_classes_fit(dz_dtype dtype);

/* The body of DZ_LOSSLESS_CLASSES after its kind byte. `base` is not NULL, 0 < count <= DZ_RANS_MAX. */
dz_rc dz_classes_encode(dz_buf *out, const void *words, const void *base, dz_dtype dtype, size_t count, dz_error *err);
dz_rc dz_classes_decode(void *words, const void *base, dz_dtype dtype, size_t count, dz_view *view, dz_error *err);

/* ---- which contexts share a table (codec/classplan.c) ---- */

typedef struct dz_class_plan {
    unsigned nclasses;
    uint16_t first[DZ_CLASSES_MAX];       /* first context of each class, ascending from 0 */
    uint8_t class_of[DZ_CONTEXTS_MAX];    /* of each context */
    uint8_t code_of[DZ_CLASSES_MAX][256]; /* what a symbol is coded as in each class: itself or DZ_SYMBOL_ESCAPE */
} dz_class_plan;

/* Fills class_of from nclasses and first. */
void dz_class_plan_spread(dz_class_plan *plan, unsigned ncontexts);

/* Merges neighbouring contexts while the predicted size falls. Row r of `counts` has the number of each symbol (below 255) in context
 * contexts[r]; these ascend, and contexts without a row do not occur. At least one count is not 0. `counts` is overwritten. */
void dz_class_plan_make(dz_class_plan *plan, uint32_t (*counts)[256], const uint16_t *contexts, unsigned nrows, unsigned ncontexts);

#endif

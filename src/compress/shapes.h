/* Between statistics and allocation, for methods that rotate: which input channels of each matrix of the base see large activations,
 * estimated from the base's weights alone (METHODS.md "Noise by input channels"); and how much each row of a vocabulary has moved. */
#ifndef DZ_COMPRESS_SHAPES_H
#define DZ_COMPRESS_SHAPES_H

#include "compress/context.h"
#include "compress/statistics.h"

typedef struct dz_shapes {
    dz_shape *of; /* [base tensors]; channels.count is 0 where nothing is known */
    int8_t *codes;
    dz_shape *tokens; /* [lossy] of embeddings and heads of tokens; count is 0 of all others */
    int8_t *token_codes;
} dz_shapes;

/* Collective. Reads the value, up and gate matrices of the base once or twice. */
dz_rc dz_shapes_make(dz_context *ctx, const dz_stats *stats, dz_shapes *out, dz_error *err);

/* Collective. The second half of dz_shapes_make: reads the vocabularies of the tasks once, and those whose rows have directions in common
 * twice. */
dz_rc dz_token_rows_make(dz_context *ctx, const dz_stats *stats, dz_shapes *out, dz_error *err);

/* Of a vocabulary's limits, with predictions: a byte then takes twice as much noise away (results/choices.md). */
#define DZ_PREDICTED_SHARE 0.5

/* The noise that a vocabulary is held to, over the energy of its delta; INFINITY where it has no limit, or a factor or
 * gain that predictions do not go with. */
double dz_vocabulary_noise(const dz_recipe *recipe, const dz_tensor_pair *pair, const dz_tensor_stats *stats);

/* From a sample of rows, for a forecast; without those of down and of vocabularies. Not collective. */
dz_rc dz_shapes_sample(const dz_zoo *zoo, const dz_plan *plan, const dz_method *method, dz_shapes *out, dz_error *err);
void dz_shapes_free(dz_shapes *shapes);

/* The shape of a pair, or NULL. */
const dz_shape *dz_shape_of(const dz_shapes *shapes, const dz_tensor_pair *pair);

#endif

/* Rotated tiles of matrices whose rows moved along few directions: a prediction of low rank is taken off before the rotation and added
 * after it, so that only the rest is coded (METHODS.md "Predictions of embeddings"). Bytes: FORMAT.md "Lossy tiles". */
#ifndef DZ_CODEC_PREDICTION_H
#define DZ_CODEC_PREDICTION_H

#include "codec/lowrank.h"

enum { DZ_BODY_PREDICTED = 10 }; /* on disk: behind the factors of a tile's rows; the factors of the prediction, and the rest */

/* Whether rows of which these `n` are a few may be worth a prediction: they have a direction in common. They are scaled to energy 1.
 * `scratch`: room for 2 * columns numbers. */
int dz_prediction_likely(float *rows, size_t n, size_t columns, float *scratch);

/* Of a tile's deltas x in rows of `columns`, the first one in column `first` of its row: found->rank is 0 where none is worth its bytes.
 * `noise`: energy of an element's noise that the rest will be coded with; it decides how many directions are worth theirs.
 * Rows that the tile has a part of are predicted too. */
dz_rc dz_prediction_find(dz_lowrank *found, const float *x, size_t count, uint64_t columns, uint64_t first, double noise, dz_error *err);

/* Of a few whole rows of a tile of `count` elements, for a forecast: how much energy a prediction that is found on the first three quarters
 * leaves of the others, and its bits an element. `noise`: over the deltas' energy. 1 and 0 where none is worth its bytes. The rows are
 * scaled to energy 1. */
dz_rc dz_prediction_expect(float *rows, size_t nrows, size_t columns, size_t count, double noise, double *left, double *bits,
                           dz_error *err);

/* Adds `sign` (1 or -1) times the predictions of the tile's elements from .. from + n - 1 to x. */
void dz_prediction_add(float *x, size_t from, size_t n, const dz_lowrank *p, float sign);

#define DZ_PREDICTION_ROWS_MIN 256 /* whole rows in a tile */

#endif

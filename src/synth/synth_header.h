/* The JSON that goes with generated tensors: safetensors headers, the index of a sharded model, a config.json. */
#ifndef DZ_SYNTH_SYNTH_HEADER_H
#define DZ_SYNTH_SYNTH_HEADER_H

#include "base/dtype.h"
#include "base/mem.h"
#include "synth/shapes.h"

#define DZ_SYNTH_MARK "deltazoo" /* a key of the config.json of what synth has made */

/* The first bytes of a safetensors file that holds `tensors` end to end in this order: 8-byte little-endian length, JSON padded with spaces
 * to a multiple of 8. Appended to `out`. */
dz_rc dz_synth_header(const dz_shape *const *tensors, size_t ntensors, dz_dtype dtype, dz_buf *out, dz_error *err);

/* model.safetensors.index.json: tensor i of the list is in the file `files[i]`. Appended to `out`. */
dz_rc dz_synth_index(const dz_shape_list *list, const char *const *files, dz_dtype dtype, dz_buf *out, dz_error *err);

/* config.json as Hugging Face's transformers would write it for this model. Appended to `out`. */
dz_rc dz_synth_config(const dz_shape_list *list, dz_dtype dtype, dz_buf *out, dz_error *err);

#endif

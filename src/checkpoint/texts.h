/* JSON texts of a model that are read or edited in place: side files that name its type or its size, headers. */
#ifndef DZ_CHECKPOINT_TEXTS_H
#define DZ_CHECKPOINT_TEXTS_H

#include "base/dtype.h"
#include "base/mem.h"

/* A config.json whose model is written in `dtype` (F32, F16, BF16): the values of all keys `torch_dtype` and `dtype` that name a float
 * type. Appended to `out`, as all below. */
dz_rc dz_text_set_dtype(const char *text, size_t len, dz_dtype dtype, dz_buf *out, dz_error *err);

/* An index of shards whose tensors have `more` bytes in all than it says. */
dz_rc dz_text_add_total_size(const char *text, size_t len, int64_t more, dz_buf *out, dz_error *err);

/* Past the JSON string whose quotation mark is at `at`; `end` where it does not end. */
const char *dz_text_past_string(const char *at, const char *end);

#endif

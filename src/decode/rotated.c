#include "decode/rotated.h"

#include <string.h>

#include "codec/prediction.h"
#include "codec/sparse_signs.h"
#include "codec/trellis.h"
#include "codec/uniform.h"
#include "numeric/kernels.h"
#include "numeric/rotate.h"

static float *factors_of(const dz_decoder *d) { return (float *)(void *)d->factors.data; }

/* The factors that a block begins with, or those of the tensor's first block, into d->channels; where the rest begins. */
static dz_rc take_channels(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, size_t *begin, dz_error *err) {
    unsigned kind = d->block.len ? d->block.data[0] : 0;
    uint64_t elements = dz_tensor_of_row(&d->archive->catalog->tensors[row->tensor]).count;
    *begin = 0;
    d->channels.count = 0;
    if (kind != DZ_BODY_CHANNELS && kind != DZ_BODY_CHANNELS_BEFORE) return DZ_OK;
    if ((kind == DZ_BODY_CHANNELS) != (tile == 0)) return dz_fail(err, DZ_EDAMAGE, "factors of channels are not where they belong");
    *begin = 1;
    if (kind == DZ_BODY_CHANNELS_BEFORE && d->channels_of == row) { /* dz_channels_take has made d->codes */
        d->channels = d->known;
        return DZ_OK;
    }
    dz_buf *block = tile == 0 ? &d->block : &d->first_block;
    d->channels_of = NULL;
    if (tile && dz_block_read(d->archive, task, row, &d->region, 0, block, err) != DZ_OK) return err->rc;
    dz_view v = {.data = block->data, .len = block->len, .pos = 1};
    if (block->len == 0 || block->data[0] != DZ_BODY_CHANNELS)
        return dz_fail(err, DZ_EDAMAGE, "the first block has no factors of channels");
    d->codes.len = d->factors.len = 0;
    if (dz_buf_reserve(&d->codes, (size_t)(elements < DZ_CHANNELS_MOST ? elements : DZ_CHANNELS_MOST), err) != DZ_OK ||
        dz_channels_take(&d->known, (int8_t *)d->codes.data, &v, elements, err) != DZ_OK ||
        dz_buf_reserve(&d->factors, d->known.count * sizeof(float), err) != DZ_OK)
        return err->rc;
    for (uint32_t i = 0; i < d->known.count; i++) factors_of(d)[i] = dz_channel_factor(-d->known.code[i]);
    d->channels = d->known;
    d->channels_of = row;
    if (tile == 0) *begin = v.pos;
    return DZ_OK;
}

/* The prediction that the rest of a block begins with, if it does, into d->prediction; *begin moves behind it. `first`: element of the
 * tensor that the tile begins with. */
static dz_rc take_prediction(dz_decoder *d, uint64_t first, size_t count, size_t *begin, dz_error *err) {
    const dz_channels *c = &d->channels;
    dz_lowrank_free(&d->prediction);
    if (c->count == 0 || d->block.len <= *begin || d->block.data[*begin] != DZ_BODY_PREDICTED) return DZ_OK;
    dz_view v = {.data = d->block.data, .len = d->block.len, .pos = *begin + 1};
    if (dz_lowrank_get(&d->prediction, DZ_F32, count, &v, err) != DZ_OK) return err->rc;
    if (d->prediction.columns != c->stride || d->prediction.first != first % c->stride)
        return dz_fail(err, DZ_EDAMAGE, "a prediction is of other rows than the factors");
    *begin = v.pos;
    return DZ_OK;
}

/* The coefficients of a kind that has a value for each. */
static dz_rc decode_dense(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, size_t count,
                          const dz_blocks *to, dz_error *err) {
    size_t begin;
    dz_pair_tiles tiles = dz_row_tiles(d->archive->catalog, row);
    if (take_channels(d, task, row, tile, &begin, err) != DZ_OK ||
        take_prediction(d, dz_tile_first(&tiles, tile), count, &begin, err) != DZ_OK)
        return err->rc;
    const uint8_t *body = d->block.data + begin;
    size_t len = d->block.len - begin;
    return row->bits == DZ_BITS_TRELLIS ? dz_trellis_decode(to, body, len, count, row->step, err)
                                        : dz_uniform_decode(to, body, len, count, row->step, row->lo, err);
}

static dz_rc decode_signs(dz_decoder *d, const dz_index_row *row, size_t count, dz_error *err) {
    d->channels.count = 0;
    dz_lowrank_free(&d->prediction);
    return dz_signs_decode(&d->kept, d->block.data, d->block.len, count, 1 - (double)row->sparsity, err);
}

/* Room for the coefficients of one block; NULL with an error. */
static float *block_room(dz_decoder *d, size_t count, dz_error *err) {
    d->delta.len = 0;
    return dz_buf_reserve(&d->delta, dz_rotate_most(count) * sizeof(float), err) == DZ_OK ? (float *)(void *)d->delta.data : NULL;
}

static void count_nonzeros(void *arg, float *x, size_t block, size_t n) {
    size_t *kept = arg;
    (void)block;
    for (size_t i = 0; i < n; i++) *kept += x[i] != 0;
}

dz_rc dz_rotated_count(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, size_t count, dz_error *err) {
    dz_blocks counted = {.take = count_nonzeros, .arg = &d->kept.count};
    if (!dz_kind_is_dense(row->bits)) return decode_signs(d, row, count, err);
    d->kept.count = 0;
    return (counted.x = block_room(d, count, err)) ? decode_dense(d, task, row, tile, count, &counted, err) : err->rc;
}

typedef struct work {
    dz_rotated *tile;
    const dz_decoder *decoder;
    uint64_t key, first; /* of the tile; its first element in the tensor */
    float scale;
} work;

/* To f64: the change is f32, the sum is not. */
static void add_to_f64(const dz_rotated *t, const float *x, float scale, size_t first, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double y;
        uint8_t *at = t->out + (first + i) * sizeof y;
        memcpy(&y, at, sizeof y);
        y += (double)(x[i] * scale);
        memcpy(at, &y, sizeof y);
    }
}

/* `factors` of the channels, which are a row's: NULL: there are none, or they are applied already. */
static void add_change(const work *w, const float *x, const float *factors, float scale, size_t first, size_t n) {
    const dz_rotated *t = w->tile;
    size_t channel = factors ? (size_t)((w->first + first) % w->decoder->channels.count) : 0;
    for (size_t i = 0; i < n;) {
        size_t run = factors && w->decoder->channels.count - channel < n - i ? w->decoder->channels.count - channel : n - i;
        dz_kernels()->add_scaled(t->out + (first + i) * dz_dtype_size(t->to), t->to, t->base + (first + i) * dz_dtype_size(t->from),
                                 t->from, x + i, factors ? factors + channel : NULL, scale, run);
        channel = 0;
        i += run;
    }
}

static void restore_block(void *arg, float *x, size_t block, size_t n) {
    const work *w = arg;
    dz_rotated *t = w->tile;
    const dz_lowrank *predicted = &w->decoder->prediction;
    size_t first = dz_rotate_first(t->count, block);
    int fused = w->decoder->channels.count && w->decoder->channels.stride == 1 && t->base && t->to != DZ_F64;
    float scale = predicted->rank ? 1 : w->scale;
    t->any |= predicted->rank > 0;
    for (size_t i = 0; !t->any && i < n; i++) t->any = x[i] != 0;
    dz_unrotate_block(x, t->count, w->key, block);
    if (predicted->rank) {
        for (size_t i = 0; i < n; i++) x[i] *= w->scale;
        dz_prediction_add(x, first, n, predicted, 1);
    }
    if (w->decoder->channels.count && !fused) dz_channels_apply(x, n, w->first + first, &w->decoder->channels, 1);
    if (t->base && t->to == DZ_F64) add_to_f64(t, x, scale, first, n);
    if (t->base && t->to != DZ_F64) add_change(w, x, fused ? factors_of(w->decoder) : NULL, scale, first, n);
    for (size_t i = 0; !t->base && i < n; i++) t->delta[first + i] = x[i] * scale;
}

/* Blocks with a few coefficients: those, and zeros. */
static void restore_signs(const dz_nonzeros *kept, work *w, float *x) {
    size_t count = w->tile->count, k = 0;
    w->tile->any = 1;
    for (size_t b = 0; b < dz_rotate_blocks(count); b++) {
        size_t first = dz_rotate_first(count, b), n = dz_rotate_length(count, b);
        memset(x, 0, n * sizeof *x);
        for (; k < kept->count && kept->index[k] < first + n; k++) x[kept->index[k] - first] = kept->value[k];
        restore_block(w, x, b, n);
    }
}

dz_rc dz_rotated_restore(dz_decoder *d, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_rotated *to, dz_error *err) {
    const dz_catalog *c = d->archive->catalog;
    dz_pair_tiles tiles = dz_row_tiles(c, row);
    work w = {.tile = to,
              .decoder = d,
              .key = dz_tile_key(task->key, c->tensors[row->tensor].name, tile),
              .first = dz_tile_first(&tiles, tile),
              .scale = task->gamma * row->scale};
    dz_blocks blocks = {.x = block_room(d, to->count, err), .take = restore_block, .arg = &w};
    to->any = 0;
    if (!blocks.x) return err->rc;
    if (dz_kind_is_dense(row->bits))
        decode_dense(d, task, row, tile, to->count, &blocks, err);
    else if (decode_signs(d, row, to->count, err) == DZ_OK && d->kept.count)
        restore_signs(&d->kept, &w, blocks.x);
    if (err->rc == DZ_OK && !to->any && !to->base) memset(to->delta, 0, to->count * sizeof *to->delta);
    return err->rc;
}

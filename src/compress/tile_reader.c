#include "compress/tile_reader.h"

#include <math.h>
#include <string.h>

#define WIDE 1024 /* elements widened at a time: two float buffers of this leave room in the first-level cache */

void dz_tile_reader_init(dz_tile_reader *r, const dz_zoo *zoo, const dz_plan *plan, dz_chains *chains) {
    *r = (dz_tile_reader){.base = zoo->base, .tasks = zoo->tasks, .plan = plan, .chains = chains, .have_base = -1};
}

void dz_tile_reader_free(dz_tile_reader *r) {
    dz_buf_free(&r->base_bytes);
    dz_buf_free(&r->task_bytes);
    dz_buf_free(&r->parent_bytes);
    dz_buf_free(&r->wide);
}

static dz_rc read_into(dz_tile_reader *r, dz_checkpoint *ck, size_t tensor, uint64_t first, uint64_t count, dz_buf *out, dz_error *err) {
    size_t size = dz_dtype_size(ck->tensors[tensor].dtype), len = (size_t)count * size;
    out->len = 0;
    if (dz_buf_reserve(out, len, err) != DZ_OK || dz_checkpoint_read(ck, tensor, first * size, len, out->data, err) != DZ_OK)
        return err->rc;
    out->len = len;
    r->bytes_read += (double)len;
    return DZ_OK;
}

/* Everything about a unit's tile but its bytes. */
static dz_tile tile_of(const dz_tile_reader *r, size_t unit) {
    const dz_work_item *u = &r->plan->units[unit];
    dz_tile tile = {.unit = u};
    if (u->base >= 0) {
        const dz_tensor *b = &r->base->tensors[u->base];
        dz_pair_tiles grid = dz_pair_tiles_of(b->count, b->count, b->count);
        tile.base_first = dz_tile_first(&grid, u->tile);
        tile.base_count = dz_tile_count(&grid, u->tile);
        tile.base_dtype = b->dtype;
    }
    if (u->pair == DZ_NO_PAIR) return tile;
    tile.pair = &r->plan->pairs[u->pair];
    tile.first = dz_tile_first(&tile.pair->tiles, u->tile);
    tile.count = dz_tile_count(&tile.pair->tiles, u->tile);
    tile.task_dtype = dz_pair_tensor(r->plan, tile.pair)->dtype;
    return tile;
}

dz_rc dz_tile_base(dz_tile_reader *r, size_t unit, const uint8_t **base, dz_error *err) {
    const dz_work_item *u = &r->plan->units[unit];
    dz_tile tile = tile_of(r, unit);
    if (r->have_base != u->base || r->have_tile != u->tile) {
        r->have_base = -1;
        if (read_into(r, r->base, (size_t)u->base, tile.base_first, tile.base_count, &r->base_bytes, err) != DZ_OK) return err->rc;
        r->have_base = u->base;
        r->have_tile = u->tile;
    }
    *base = r->base_bytes.data;
    return DZ_OK;
}

static int is_chained(const dz_tile_reader *r, const dz_work_item *u) {
    return u->pair != DZ_NO_PAIR && dz_chains_row(r->chains, u->pair) >= 0;
}

dz_rc dz_tile_open(dz_tile_reader *r, size_t unit, dz_tile *tile, dz_error *err) {
    const dz_work_item *u = &r->plan->units[unit];
    *tile = tile_of(r, unit);
    if (is_chained(r, u)) {
        if (dz_chains_tile(r->chains, r->plan, u, &tile->base, err) != DZ_OK) return err->rc;
        tile->base_dtype = tile->task_dtype;
    } else if (u->base >= 0 && dz_tile_base(r, unit, &tile->base, err) != DZ_OK) {
        return err->rc;
    }
    return DZ_OK;
}

dz_rc dz_tile_piece(dz_tile_reader *r, const dz_tile *tile, uint64_t first, uint64_t count, dz_tile *piece, dz_error *err) {
    dz_checkpoint *ck = r->tasks[tile->pair->task];
    *piece = *tile;
    piece->first += first;
    piece->count = count;
    if (tile->base) piece->base += first * dz_dtype_size(tile->base_dtype);
    if (tile->parent) piece->parent += first * dz_dtype_size(tile->task_dtype);
    if (read_into(r, ck, tile->pair->tensor, piece->first, count, &r->task_bytes, err) != DZ_OK) return err->rc;
    piece->task = r->task_bytes.data;
    return DZ_OK;
}

dz_rc dz_tile_read(dz_tile_reader *r, size_t unit, dz_tile *tile, dz_error *err) {
    if (dz_tile_open(r, unit, tile, err) != DZ_OK || !tile->pair) return err->rc;
    dz_tile whole;
    if (dz_tile_piece(r, tile, 0, tile->count, &whole, err) == DZ_OK) *tile = whole;
    return err->rc;
}

/* A piece of the base in float. */
static dz_rc widen_base(dz_tile_reader *r, const uint8_t *base, dz_dtype dtype, size_t count, dz_error *err) {
    r->wide.len = 0;
    if (dz_buf_reserve(&r->wide, count * sizeof(float), err) == DZ_OK)
        dz_kernels()->widen((float *)(void *)r->wide.data, base, dtype, count);
    return err->rc;
}

/* The piece from `at` on of one unit, over the piece of the base that has been read and widened. */
static dz_rc visit_piece(dz_tile_reader *r, size_t unit, size_t i, uint64_t at, dz_piece_visit visit, void *arg, dz_error *err) {
    dz_tile tile = tile_of(r, unit), piece;
    if (at >= tile.count) return DZ_OK; /* the task has fewer rows than the base */
    if (dz_tile_piece(r, &tile, at, tile.count - at < DZ_PIECE ? tile.count - at : DZ_PIECE, &piece, err) != DZ_OK) return err->rc;
    piece.base = r->wide.data;
    piece.base_dtype = DZ_F32;
    return visit(arg, i, &piece, err);
}

dz_rc dz_tile_read_parent(dz_tile_reader *r, dz_tile *tile, dz_error *err) {
    dz_checkpoint *model = r->chains->model[tile->pair->task];
    const dz_tensor *t = dz_pair_tensor(r->plan, tile->pair);
    int64_t at = model ? dz_checkpoint_find(model, t->name) : -1;
    tile->parent = NULL;
    if (at < 0 || !dz_same_kind(&model->tensors[at], t)) return DZ_OK;
    if (read_into(r, model, (size_t)at, tile->first, tile->count, &r->parent_bytes, err) == DZ_OK) tile->parent = r->parent_bytes.data;
    return err->rc;
}

dz_rc dz_tile_measure_base(dz_tile_reader *r, size_t unit, const dz_tile *tile, int sizes, dz_piece_measures *m, dz_error *err) {
    const uint8_t *base;
    dz_tile whole = tile_of(r, unit), piece = *tile;
    size_t size = dz_dtype_size(tile->task_dtype), base_size = dz_dtype_size(whole.base_dtype);
    if (dz_tile_base(r, unit, &base, err) != DZ_OK) return err->rc;
    for (uint64_t at = 0; at < tile->count && err->rc == DZ_OK; at += DZ_PIECE) {
        piece.count = tile->count - at < DZ_PIECE ? tile->count - at : DZ_PIECE;
        if (widen_base(r, base + at * base_size, whole.base_dtype, (size_t)piece.count, err) != DZ_OK) break;
        piece.base = r->wide.data;
        piece.base_dtype = DZ_F32;
        piece.task = tile->task + at * size;
        dz_piece_measure(&piece, sizes, m);
        dz_piece_measure_base(&piece, m);
    }
    return err->rc;
}

void dz_tile_chain_sums(const dz_tile *t, double sums[3]) {
    const dz_kernel_table *k = dz_kernels();
    size_t size = dz_dtype_size(t->task_dtype);
    float task[WIDE], restored[WIDE], parent[WIDE];
    memset(sums, 0, 3 * sizeof *sums);
    for (uint64_t at = 0; at < t->count; at += WIDE) {
        size_t len = t->count - at < WIDE ? (size_t)(t->count - at) : WIDE;
        k->widen(task, t->task + at * size, t->task_dtype, len);
        k->widen(restored, t->base + at * size, t->task_dtype, len);
        if (t->parent) k->widen(parent, t->parent + at * size, t->task_dtype, len);
        const float *from = t->parent ? parent : restored;
        for (size_t i = 0; i < len; i++) { /* in this order on every machine */
            double step = (double)task[i] - (double)from[i], old = (double)restored[i] - (double)from[i];
            sums[0] += step * step;
            sums[1] += old * old;
            sums[2] += step * old;
        }
    }
}

/* One unit that is coded against another task's tensor: from a whole tile of that. */
static dz_rc walk_chained(dz_tile_reader *r, size_t unit, dz_digest *base, dz_piece_visit visit, void *arg, dz_error *err) {
    dz_tile tile, piece;
    const uint8_t *bytes;
    if (base) {
        if (dz_tile_base(r, unit, &bytes, err) != DZ_OK) return err->rc;
        *base = dz_digest_of(bytes, r->base_bytes.len);
    }
    if (dz_tile_read(r, unit, &tile, err) != DZ_OK) return err->rc;
    size_t size = dz_dtype_size(tile.task_dtype), base_size = dz_dtype_size(tile.base_dtype);
    for (uint64_t at = 0; at < tile.count && err->rc == DZ_OK; at += DZ_PIECE) {
        piece = tile;
        piece.first += at;
        piece.count = tile.count - at < DZ_PIECE ? tile.count - at : DZ_PIECE;
        if (widen_base(r, tile.base + at * base_size, tile.base_dtype, (size_t)piece.count, err) != DZ_OK) break;
        piece.base = r->wide.data;
        piece.base_dtype = DZ_F32;
        piece.task = tile.task + at * size;
        visit(arg, 0, &piece, err);
    }
    return err->rc;
}

dz_rc dz_tiles_walk(dz_tile_reader *r, const size_t *units, size_t n, dz_digest *base, dz_piece_visit visit, void *arg, dz_error *err) {
    if (is_chained(r, &r->plan->units[units[0]])) return walk_chained(r, units[0], base, visit, arg, err);
    dz_tile tile = tile_of(r, units[0]);
    dz_digester *digester = base ? dz_digest_begin(err) : NULL;
    uint64_t count = base ? tile.base_count : 0;
    r->have_base = -1;
    for (size_t i = 0; i < n; i++) {
        uint64_t mine = tile_of(r, units[i]).count;
        count = mine > count ? mine : count;
    }
    for (uint64_t at = 0; at < count && err->rc == DZ_OK; at += DZ_PIECE) {
        uint64_t len = tile.base_count - at < DZ_PIECE ? tile.base_count - at : DZ_PIECE;
        if (read_into(r, r->base, (size_t)tile.unit->base, tile.base_first + at, len, &r->base_bytes, err) != DZ_OK) break;
        if (digester) dz_digest_add(digester, r->base_bytes.data, r->base_bytes.len);
        if (widen_base(r, r->base_bytes.data, tile.base_dtype, (size_t)len, err) != DZ_OK) break;
        for (size_t i = 0; i < n && err->rc == DZ_OK; i++) visit_piece(r, units[i], i, at, visit, arg, err);
    }
    if (digester) *base = dz_digest_end(digester);
    return err->rc;
}

/* The next elements of both sides in float: the tile's own where it has floats, otherwise widened into `room`. */
typedef struct chunk {
    const float *task, *base;
    size_t len;
} chunk;

typedef struct chunk_room {
    float task[WIDE], base[WIDE];
} chunk_room;

static const float *floats(const dz_kernel_table *k, const uint8_t *bytes, dz_dtype dtype, size_t len, float *room) {
    if (dtype == DZ_F32) return (const float *)(const void *)bytes; /* tile buffers are aligned, and pieces begin at elements */
    k->widen(room, bytes, dtype, len);
    return room;
}

static chunk next_chunk(const dz_tile *t, const dz_kernel_table *k, uint64_t at, chunk_room *room) {
    size_t len = t->count - at < WIDE ? (size_t)(t->count - at) : WIDE;
    return (chunk){.task = floats(k, t->task + at * dz_dtype_size(t->task_dtype), t->task_dtype, len, room->task),
                   .base = floats(k, t->base + at * dz_dtype_size(t->base_dtype), t->base_dtype, len, room->base),
                   .len = len};
}

/* A piece's base is in float. */
static const float *wide_base(const dz_tile *piece) { return (const float *)(const void *)piece->base; }

/* 0 below, 1 above 0; 0 itself is level 1 on a grid of one bit, and on one of two bits level 2, which is never kept. */
static uint8_t level_of_sign(float d, unsigned bits) { return d > 0 || (d == 0 && bits == 1) ? 1 : d < 0 ? 0 : 2; }

void dz_piece_levels(const dz_tile *piece, const dz_grid_levels *grid, uint8_t *levels) {
    const dz_kernel_table *k = dz_kernels();
    size_t count = (size_t)piece->count;
    if (grid->sign) {
        chunk_room room;
        for (uint64_t at = 0; at < count; at += WIDE) {
            chunk c = next_chunk(piece, k, at, &room);
            for (size_t i = 0; i < c.len; i++) levels[at + i] = level_of_sign(c.task[i] - c.base[i], grid->bits);
        }
    } else if (grid->step > 0) {
        k->levels(levels, piece->task, piece->task_dtype, wide_base(piece), grid->lo, grid->step, (1U << grid->bits) - 1, count);
    } else {
        memset(levels, 0, count);
    }
}

#define SAMPLE 64       /* elements of a sample, */
#define SAMPLES_BY 1024 /* one in so many; of a small piece all elements */

/* A value as an integer in the order of the values: neighbours differ by 1. */
static int64_t ordered_at(const uint8_t *at, size_t size) {
    uint64_t bits = 0;
    memcpy(&bits, at, size); /* little endian */
    uint64_t sign = (uint64_t)1 << (8 * size - 1);
    return bits & sign ? -(int64_t)(bits & ~sign) : (int64_t)bits;
}

/* Bits of the distance of each word from its predictor. */
static void distances(uint8_t *bits, const uint8_t *word, const uint8_t *predictor, size_t size, size_t count) {
    for (size_t i = 0; i < count; i++) {
        int64_t a = ordered_at(word + i * size, size), b = ordered_at(predictor + i * size, size);
        uint64_t distance = a > b ? (uint64_t)a - (uint64_t)b : (uint64_t)b - (uint64_t)a;
        bits[i] = (uint8_t)(distance ? 64 - __builtin_clzll(distance) : 0);
    }
}

static void sample_distances(const dz_tile *t, dz_piece_measures *m) {
    uint8_t bits[128 * SAMPLE];
    _Alignas(8) uint8_t predictor[SAMPLE * sizeof(double)];
    size_t size = dz_dtype_size(t->task_dtype), n = 0;
    uint64_t by = t->count > 4 * SAMPLES_BY ? SAMPLES_BY : SAMPLE;
    for (uint64_t at = 0; at < t->count; at += by) {
        size_t len = t->count - at < SAMPLE ? (size_t)(t->count - at) : SAMPLE;
        const uint8_t *word = t->task + at * size;
        dz_kernels()->narrow(predictor, wide_base(t) + at, t->task_dtype, len);
        if (size == 2)
            dz_kernels()->distances(bits + n, (const uint16_t *)(const void *)word, (const uint16_t *)(const void *)predictor, len);
        else
            distances(bits + n, word, predictor, size, len);
        n += len;
        if (n + SAMPLE <= sizeof bits && at + by < t->count) continue;
        dz_kernels()->count(m->distance, bits, 8, n);
        m->sampled += n;
        n = 0;
    }
}

void dz_piece_measure(const dz_tile *t, int sizes, dz_piece_measures *m) {
    dz_kernels()->measure(&m->delta, sizes, t->task, t->task_dtype, wide_base(t), (size_t)t->count);
    sample_distances(t, m);
    m->count += t->count;
}

void dz_piece_measure_base(const dz_tile *t, dz_piece_measures *m) {
    const float *base = wide_base(t);
    if (t->count == 0) return;
    dz_kernels()->energy(m->base, base, (size_t)t->count);
    m->base_max = fmaxf(m->base_max, fabsf(base[dz_kernels()->largest(base, (size_t)t->count)]));
}

double dz_measures_exact_bits(const dz_piece_measures *m) {
    if (m->sampled == 0) return 0;
    double bits = (double)dz_entropy_fixed(m->distance, 65) / 65536;
    for (unsigned len = 1; len < 65; len++) bits += (double)m->distance[len] * len; /* its lower bits, and the sign */
    return bits * (double)m->count / (double)m->sampled;
}

/* Adds the share of the parent's noise that is to stay. */
static void leave_old(const dz_tile *t, size_t first, size_t count, float *delta) {
    const dz_kernel_table *k = dz_kernels();
    size_t size = dz_dtype_size(t->task_dtype);
    float restored[WIDE], parent[WIDE];
    for (size_t at = 0; at < count; at += WIDE) {
        size_t len = count - at < WIDE ? count - at : WIDE;
        k->widen(restored, t->base + (first + at) * size, t->task_dtype, len);
        k->widen(parent, t->parent + (first + at) * size, t->task_dtype, len);
        for (size_t i = 0; i < len; i++) delta[at + i] += t->kept * (restored[i] - parent[i]);
    }
}

void dz_tile_delta(const dz_tile *t, size_t first, size_t count, float *delta) {
    dz_kernels()->difference(delta, t->task + first * dz_dtype_size(t->task_dtype), t->task_dtype,
                             t->base + first * dz_dtype_size(t->base_dtype), t->base_dtype, count);
    if (t->parent && t->kept > 0) leave_old(t, first, count, delta);
}

dz_rc dz_tile_nonfinite(const dz_tile_reader *r, const dz_tile *t, dz_error *err) {
    const dz_kernel_table *k = dz_kernels();
    chunk_room room;
    const dz_tensor *tensor = dz_pair_tensor(r->plan, t->pair);
    const dz_checkpoint *ck = r->tasks[t->pair->task];
    for (uint64_t at = 0; at < t->count; at += WIDE) {
        chunk c = next_chunk(t, k, at, &room);
        for (size_t i = 0; i < c.len; i++) {
            if (isfinite(c.task[i] - c.base[i])) continue;
            int own = !isfinite(c.task[i]);
            const char *path = own ? ck->shards[tensor->shard].path : isfinite(c.base[i]) ? ck->path : r->base->path;
            return dz_fail(err, DZ_EVALUE, "%s: tensor '%s': element %llu is %g%s (nonfinite: lossless keeps such tensors exactly)", path,
                           tensor->name, (unsigned long long)(t->first + at + i),
                           own                   ? (double)c.task[i]
                           : isfinite(c.base[i]) ? (double)(c.task[i] - c.base[i])
                                                 : (double)c.base[i],
                           own || !isfinite(c.base[i]) ? "" : " as a difference from the base");
        }
    }
    return DZ_OK;
}

const void *dz_tile_predictor(const dz_tile *t, dz_buf *scratch, dz_error *err) {
    if (!t->base || t->task_dtype == t->base_dtype) return t->base;
    const dz_kernel_table *k = dz_kernels();
    float wide[WIDE];
    size_t from = dz_dtype_size(t->base_dtype), to = dz_dtype_size(t->task_dtype);
    scratch->len = 0;
    if (dz_buf_reserve(scratch, (size_t)t->count * to, err) != DZ_OK) return NULL;
    for (uint64_t at = 0; at < t->count; at += WIDE) {
        size_t len = t->count - at < WIDE ? (size_t)(t->count - at) : WIDE;
        k->widen(wide, t->base + at * from, t->base_dtype, len);
        k->narrow(scratch->data + at * to, wide, t->task_dtype, len);
    }
    return scratch->data;
}

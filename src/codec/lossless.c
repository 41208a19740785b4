#include "codec/lossless.h"

#include <stdlib.h>
#include <string.h>

#include "codec/class_run.h"
#include "codec/classes.h"
#include "codec/close.h"
#include "codec/columns.h"
#include "codec/intervals.h"
#include "codec/near.h"
#include "codec/planes.h"
#include "codec/rans.h"

enum {
    SMALL = 1 << 15,  /* elements up to which every kind is tried */
    SAMPLE_RUNS = 16, /* what larger tiles choose by: so many runs, spread evenly, of so many elements */
    SAMPLE_RUN = 1024,
    CHUNK_LOG = 8, /* elements in a chunk of a sparse body, as a power of two */
    CHUNK = 1 << CHUNK_LOG,
    CHUNK_LOG_MAX = 20
};

/* A tile and its predictor. */
typedef struct tile {
    const uint8_t *words, *base; /* base may be NULL */
    dz_dtype dtype;
    size_t count, size; /* elements; bytes of one */
} tile;

/* ---- dense bodies: the cheapest of raw, planes (of the XOR or of the elements), classes and intervals ---- */

typedef enum dense { RAW, PLANES_OWN, PLANES_XOR, CLASSES, INTERVALS, DENSE_COUNT } dense;

static dz_rc put_kind(dz_buf *out, dz_lossless_kind kind, dz_error *err) {
    uint8_t byte = (uint8_t)kind;
    return dz_buf_put(out, &byte, 1, err);
}

static int dense_fits(dense how, const tile *t) {
    if (how == PLANES_XOR) return t->base != NULL;
    if (how == CLASSES) return t->base && dz_classes_fit(t->dtype) && t->count <= DZ_RANS_MAX;
    if (how == INTERVALS) return dz_intervals_fit(t->dtype) && t->count <= DZ_RANS_MAX;
    return 1;
}

static dz_rc put_dense(dz_buf *out, dense how, const tile *t, dz_error *err) {
    static const dz_lossless_kind kinds[] = {DZ_LOSSLESS_RAW, DZ_LOSSLESS_PLANES, DZ_LOSSLESS_PLANES, DZ_LOSSLESS_CLASSES,
                                             DZ_LOSSLESS_INTERVALS};
    dz_rc rc = put_kind(out, kinds[how], err);
    if (rc != DZ_OK) return rc;
    if (how == RAW) return dz_buf_put(out, t->words, t->count * t->size, err);
    if (how == CLASSES) return dz_classes_encode(out, t->words, t->base, t->dtype, t->count, err);
    if (how == INTERVALS) return dz_intervals_encode(out, t->words, t->dtype, t->count, err);
    return dz_planes_encode(out, t->words, how == PLANES_XOR ? t->base : NULL, t->dtype, t->count, err);
}

/* Appends the smallest of the bodies whose bit is set in `allowed`, or a raw one when that is smaller still. */
static dz_rc put_smallest(dz_buf *out, const tile *t, unsigned allowed, dz_error *err) {
    dz_buf best = {0};
    dense best_how = RAW;
    size_t least = 1 + t->count * t->size;
    dz_rc rc = DZ_OK;
    for (dense how = DENSE_COUNT; how-- > PLANES_OWN && rc == DZ_OK;) {
        if (!(allowed & 1U << how)) continue;
        dz_buf body = {0};
        rc = put_dense(&body, how, t, err);
        if (rc == DZ_OK && body.len < least) {
            dz_buf swap = best;
            best = body, body = swap;
            best_how = how, least = best.len;
        }
        dz_buf_free(&body);
    }
    if (rc == DZ_OK) rc = best_how == RAW ? put_dense(out, RAW, t, err) : dz_buf_put(out, best.data, best.len, err);
    dz_buf_free(&best);
    return rc;
}

/* Evenly spread runs of a large tile; the caller frees words and base. */
static dz_rc take_sample(tile *sample, const tile *t, dz_error *err) {
    size_t run = SAMPLE_RUN * t->size;
    uint8_t *words = dz_alloc_raw(SAMPLE_RUNS, run, err), *base = t->base && words ? dz_alloc_raw(SAMPLE_RUNS, run, err) : NULL;
    *sample = (tile){.words = words, .base = base, .dtype = t->dtype, .count = SAMPLE_RUNS * SAMPLE_RUN, .size = t->size};
    if (!words || (t->base && !base)) return err->rc;
    for (size_t r = 0; r < SAMPLE_RUNS; r++) {
        size_t from = (t->count - SAMPLE_RUN) / (SAMPLE_RUNS - 1) * r * t->size;
        memcpy(words + r * run, t->words + from, run);
        if (base) memcpy(base + r * run, t->base + from, run);
    }
    return DZ_OK;
}

/* The kinds worth trying on a large tile, as bits: the best one on a sample, and those nearly as good there. */
static dz_rc choose(unsigned *allowed, const tile *t, dz_error *err) {
    size_t sizes[DENSE_COUNT], least = SIZE_MAX;
    tile sample;
    dz_buf body = {0};
    dz_rc rc = take_sample(&sample, t, err);
    for (dense how = PLANES_OWN; how < DENSE_COUNT && rc == DZ_OK; how++) {
        sizes[how] = SIZE_MAX;
        if (!dense_fits(how, t)) continue;
        body.len = 0;
        rc = put_dense(&body, how, &sample, err);
        sizes[how] = body.len;
        if (body.len < least) least = body.len;
    }
    /* Planes rarely beat intervals where both are close, and a sample shows the cost of the intervals' list too large. */
    if (rc == DZ_OK && sizes[INTERVALS] != SIZE_MAX && sizes[INTERVALS] <= sizes[PLANES_OWN] + sizes[PLANES_OWN] / 64)
        sizes[PLANES_OWN] = SIZE_MAX;
    *allowed = 0;
    for (dense how = PLANES_OWN; how < DENSE_COUNT && rc == DZ_OK; how++) {
        if (sizes[how] != SIZE_MAX && sizes[how] - least <= least / 32) *allowed |= 1U << how;
    }
    dz_buf_free(&body);
    free((void *)(uintptr_t)sample.words);
    free((void *)(uintptr_t)sample.base);
    return rc;
}

/* A third of the time of classes, for up to 2 % more bytes. */
static dz_rc put_close(dz_buf *out, const tile *t, dz_close_when when, int *taken, dz_error *err) {
    size_t before = out->len;
    *taken = 0;
    if (put_kind(out, DZ_LOSSLESS_CLOSE, err) != DZ_OK) return err->rc;
    if (dz_close_encode(out, t->words, t->base, t->dtype, t->count, when, taken, err) != DZ_OK) return err->rc;
    if (out->len - before > t->count * t->size) *taken = 0;
    if (!*taken) out->len = before;
    return DZ_OK;
}

static dz_rc encode_dense(dz_buf *out, const tile *t, dz_error *err) {
    unsigned allowed = 0;
    int taken, close = t->base && dz_run_fits(t->dtype, t->count);
    if (close && (put_close(out, t, DZ_CLOSE_IF_SURE, &taken, err) != DZ_OK || taken)) return err->rc;
    if (t->count > SMALL) {
        if (choose(&allowed, t, err) != DZ_OK) return err->rc;
    } else {
        for (dense how = PLANES_OWN; how < DENSE_COUNT; how++) allowed |= dense_fits(how, t) ? 1U << how : 0;
    }
    if (close && allowed & 1U << CLASSES && (put_close(out, t, DZ_CLOSE_AFTER_CLASSES, &taken, err) != DZ_OK || taken)) return err->rc;
    if (t->count > SMALL && (allowed & (allowed - 1)) == 0) { /* one kind: straight into the output */
        size_t before = out->len;
        dz_rc rc = put_dense(out, (dense)__builtin_ctz(allowed), t, err);
        if (rc != DZ_OK || out->len - before <= t->count * t->size) return rc;
        out->len = before;
        allowed = 0;
    }
    return put_smallest(out, t, allowed, err);
}

/* ---- bodies with a prediction of low rank ---- */

/* The smaller one of a body with a prediction and one without, as a sample shows it. */
static dz_rc encode_moved(dz_buf *out, const tile *t, const dz_tile_rows *rows, dz_error *err) {
    dz_lowrank p = {0};
    size_t before = out->len, limit = t->count * t->size;
    dz_rc rc = rows && t->count > SMALL ? dz_lowrank_find(&p, t->words, t->base, t->dtype, t->count, rows, err) : DZ_OK;
    if (rc == DZ_OK && p.rank) {
        uint8_t *base = dz_alloc_raw(t->count, t->size, err);
        tile moved = *t;
        moved.base = base;
        rc = base ? dz_lowrank_add(base, t->base, t->dtype, t->count, &p, err) : err->rc;
        if (rc == DZ_OK) rc = put_kind(out, DZ_LOSSLESS_LOWRANK, err);
        if (rc == DZ_OK) rc = dz_lowrank_put(out, &p, err);
        if (rc == DZ_OK) rc = encode_dense(out, &moved, err);
        free(base);
    }
    if (rc == DZ_OK && (out->len == before || out->len - before > limit)) {
        out->len = before;
        rc = encode_dense(out, t, err);
    }
    dz_lowrank_free(&p);
    return rc;
}

/* ---- bodies in groups of columns ---- */

static dz_rc encode_groups(dz_buf *out, const tile *t, const dz_columns *c, dz_error *err) {
    uint8_t *groups = dz_alloc_raw(t->count, t->size, err);
    dz_buf body = {0};
    dz_rc rc = groups ? put_kind(out, DZ_LOSSLESS_COLUMNS, err) : err->rc;
    if (rc == DZ_OK) rc = dz_columns_put(out, c, err);
    if (rc == DZ_OK) dz_columns_gather(groups, t->words, t->size, t->count, c);
    for (unsigned g = 0; g < c->ngroups && rc == DZ_OK; g++) {
        tile part = *t;
        part.words = groups + c->at[g] * t->size, part.count = c->at[g + 1] - c->at[g];
        body.len = 0;
        rc = encode_dense(&body, &part, err);
        if (rc == DZ_OK) rc = dz_buf_put_varint(out, body.len, err);
        if (rc == DZ_OK) rc = dz_buf_put(out, body.data, body.len, err);
    }
    dz_buf_free(&body);
    free(groups);
    return rc;
}

/* In groups of columns where that is smaller. */
static dz_rc encode_without_base(dz_buf *out, const tile *t, const dz_tile_rows *rows, dz_error *err) {
    size_t before = out->len, plain = 0;
    dz_columns c = {0};
    dz_rc rc = rows && t->count > SMALL ? dz_columns_find(&c, t->words, t->dtype, t->count, rows, err) : DZ_OK;
    if (rc == DZ_OK && c.ngroups) rc = dz_intervals_estimate(&plain, t->words, t->dtype, t->count, err);
    if (rc == DZ_OK && c.ngroups) rc = encode_groups(out, t, &c, err);
    if (rc == DZ_OK && (out->len == before || out->len - before > plain)) {
        out->len = before;
        rc = encode_dense(out, t, err);
    }
    dz_columns_free(&c);
    return rc;
}

/* ---- sparse bodies ---- */

static size_t chunk_length(const tile *t, size_t chunk, size_t elements) {
    size_t left = t->count - chunk * elements;
    return left < elements ? left : elements;
}

static size_t chunks_of(size_t count, size_t elements) { return count / elements + (count % elements != 0); }

/* Sets a bit in `map` for each chunk that differs from the base; returns their number. */
static size_t map_changes(uint8_t *map, const tile *t) {
    size_t changed = 0;
    for (size_t c = 0; c < chunks_of(t->count, CHUNK); c++) {
        size_t from = c * CHUNK * t->size;
        if (memcmp(t->words + from, t->base + from, chunk_length(t, c, CHUNK) * t->size) == 0) continue;
        map[c / 8] |= (uint8_t)(1U << c % 8);
        changed++;
    }
    return changed;
}

/* Copies the chunks that are set in `map` between a whole tile and a gathered row of them. Returns the gathered elements; with both
 * pointers NULL it only counts. */
static size_t copy_chunks(uint8_t *whole, uint8_t *gathered, const uint8_t *map, const tile *t, size_t elements, int to_whole) {
    size_t n = 0;
    for (size_t c = 0; c < chunks_of(t->count, elements); c++) {
        if (!(map[c / 8] >> c % 8 & 1)) continue;
        size_t length = chunk_length(t, c, elements);
        if (whole && to_whole) memcpy(whole + c * elements * t->size, gathered + n * t->size, length * t->size);
        if (whole && !to_whole) memcpy(gathered + n * t->size, whole + c * elements * t->size, length * t->size);
        n += length;
    }
    return n;
}

static dz_rc encode_sparse(dz_buf *out, const tile *t, const uint8_t *map, dz_error *err) {
    uint8_t chunk_log = CHUNK_LOG;
    size_t nmap = (chunks_of(t->count, CHUNK) + 7) / 8, n = copy_chunks(NULL, NULL, map, t, CHUNK, 0);
    uint8_t *words = dz_alloc_raw(n, t->size, err), *base = words ? dz_alloc_raw(n, t->size, err) : NULL;
    dz_rc rc = base ? put_kind(out, DZ_LOSSLESS_SPARSE, err) : err->rc;
    if (rc == DZ_OK) rc = dz_buf_put(out, &chunk_log, 1, err);
    if (rc == DZ_OK) rc = dz_plane_put(out, map, nmap, err);
    if (rc == DZ_OK) {
        copy_chunks((uint8_t *)(uintptr_t)t->words, words, map, t, CHUNK, 0);
        copy_chunks((uint8_t *)(uintptr_t)t->base, base, map, t, CHUNK, 0);
        tile changed = {.words = words, .base = base, .dtype = t->dtype, .count = n, .size = t->size};
        rc = encode_dense(out, &changed, err);
    }
    free(words);
    free(base);
    return rc;
}

static dz_rc encode_with_base(dz_buf *out, const tile *t, const dz_tile_rows *rows, dz_error *err) {
    size_t before = out->len, nchunks = chunks_of(t->count, CHUNK);
    uint8_t *map = dz_alloc((nchunks + 7) / 8, 1, err);
    if (!map) return err->rc;
    size_t changed = map_changes(map, t);
    dz_rc rc = DZ_OK;
    if (changed == 0) {
        rc = put_kind(out, DZ_LOSSLESS_EQUAL, err);
    } else if (changed > nchunks - nchunks / 16 || changed == nchunks) {
        rc = encode_moved(out, t, rows, err);
    } else if (t->count > SMALL) {
        rc = encode_sparse(out, t, map, err);
    } else { /* both, the smaller one stays */
        dz_buf dense_body = {0};
        rc = encode_sparse(out, t, map, err);
        if (rc == DZ_OK) rc = encode_dense(&dense_body, t, err);
        if (rc == DZ_OK && dense_body.len <= out->len - before) {
            out->len = before;
            rc = dz_buf_put(out, dense_body.data, dense_body.len, err);
        }
        dz_buf_free(&dense_body);
    }
    free(map);
    return rc;
}

dz_rc dz_lossless_encode(dz_buf *out, const void *words, const void *base, dz_dtype dtype, size_t count, const dz_tile_rows *rows,
                         dz_error *err) {
    size_t size = dz_dtype_size(dtype), nbytes;
    if (__builtin_mul_overflow(count, size, &nbytes) || nbytes > SIZE_MAX / 8)
        return dz_fail(err, DZ_ENOMEM, "a tile of %zu elements of %zu bytes is too large", count, size);
    tile t = {.words = words, .base = base, .dtype = dtype, .count = count, .size = size};
    if (count == 0) return put_kind(out, DZ_LOSSLESS_RAW, err);
    return base ? encode_with_base(out, &t, rows, err) : encode_without_base(out, &t, rows, err);
}

/* ---- decoding ---- */

static dz_rc decode_dense(uint8_t *words, const tile *t, uint8_t kind, dz_view *view, dz_error *err) {
    size_t nbytes = t->count * t->size;
    switch (kind) {
        case DZ_LOSSLESS_RAW: {
            const uint8_t *bytes = dz_view_bytes(view, nbytes);
            if (!bytes) return dz_fail(err, DZ_EDAMAGE, "a raw tile has %zu bytes, not %zu", view->len - view->pos, nbytes);
            if (nbytes) memcpy(words, bytes, nbytes);
            return DZ_OK;
        }
        case DZ_LOSSLESS_PLANES: return dz_planes_decode(words, t->base, t->dtype, t->count, view, err);
        case DZ_LOSSLESS_INTERVALS: return dz_intervals_decode(words, t->dtype, t->count, view, err);
        case DZ_LOSSLESS_CLOSE: return dz_close_decode(words, t->base, t->dtype, t->count, view, err);
        case DZ_LOSSLESS_NEAR: return dz_near_decode(words, t->base, t->dtype, t->count, view, err);
        case DZ_LOSSLESS_CLASSES: return dz_classes_decode(words, t->base, t->dtype, t->count, view, err);
        default: return dz_fail(err, DZ_EDAMAGE, "a lossless tile of unknown kind %u", kind);
    }
}

static dz_rc decode_equal(uint8_t *words, const tile *t, dz_error *err) {
    if (!t->base) return dz_fail(err, DZ_EDAMAGE, "a tile is said to equal its base and there is none");
    if (t->count) memcpy(words, t->base, t->count * t->size);
    return DZ_OK;
}

/* The changed elements behind the map: decoded into a row of their own, then put in their places. */
static dz_rc decode_changes(uint8_t *words, const tile *t, const uint8_t *map, size_t elements, dz_view *view, dz_error *err) {
    size_t n = copy_chunks(NULL, NULL, map, t, elements, 0);
    uint8_t *row = dz_alloc_raw(n, t->size, err), *base = row ? dz_alloc_raw(n, t->size, err) : NULL;
    dz_rc rc = base ? DZ_OK : err->rc;
    if (rc == DZ_OK) {
        copy_chunks((uint8_t *)(uintptr_t)t->base, base, map, t, elements, 0);
        tile changed = {.base = base, .dtype = t->dtype, .count = n, .size = t->size};
        rc = decode_dense(row, &changed, dz_view_u8(view), view, err);
    }
    if (rc == DZ_OK) {
        memcpy(words, t->base, t->count * t->size);
        copy_chunks(words, row, map, t, elements, 1);
    }
    free(row);
    free(base);
    return rc;
}

static dz_rc decode_lowrank(uint8_t *words, const tile *t, dz_view *view, dz_error *err) {
    dz_lowrank p;
    if (!t->base) return dz_fail(err, DZ_EDAMAGE, "a tile is said to be near its base and there is none");
    if (dz_lowrank_get(&p, t->dtype, t->count, view, err) != DZ_OK) return err->rc;
    uint8_t *base = dz_alloc_raw(t->count, t->size, err);
    tile moved = *t;
    moved.base = base;
    dz_rc rc = base ? dz_lowrank_add(base, t->base, t->dtype, t->count, &p, err) : err->rc;
    dz_lowrank_free(&p);
    if (rc == DZ_OK) rc = decode_dense(words, &moved, dz_view_u8(view), view, err);
    free(base);
    return rc;
}

static dz_rc decode_groups(uint8_t *words, const tile *t, dz_view *view, dz_error *err) {
    dz_columns c;
    if (dz_columns_get(&c, t->dtype, t->count, view, err) != DZ_OK) return err->rc;
    uint8_t *groups = dz_alloc_raw(t->count, t->size, err);
    dz_rc rc = groups ? DZ_OK : err->rc;
    for (unsigned g = 0; g < c.ngroups && rc == DZ_OK; g++) {
        uint64_t nbytes = dz_view_varint(view);
        dz_view part = {.data = dz_view_bytes(view, nbytes), .len = (size_t)nbytes};
        tile own = {.dtype = t->dtype, .count = c.at[g + 1] - c.at[g], .size = t->size};
        if (!part.data || view->bad) {
            rc = dz_fail(err, DZ_EDAMAGE, "groups of columns are cut short");
            break;
        }
        rc = decode_dense(groups + c.at[g] * t->size, &own, dz_view_u8(&part), &part, err);
        if (rc == DZ_OK && part.pos != part.len)
            rc = dz_fail(err, DZ_EDAMAGE, "%zu bytes are left over behind a group", part.len - part.pos);
    }
    if (rc == DZ_OK) dz_columns_scatter(words, groups, t->size, t->count, &c);
    free(groups);
    dz_columns_free(&c);
    return rc;
}

static dz_rc decode_sparse(uint8_t *words, const tile *t, dz_view *view, dz_error *err) {
    uint8_t chunk_log = dz_view_u8(view);
    if (!t->base || t->count == 0) return dz_fail(err, DZ_EDAMAGE, "a tile is said to differ from its base and there is none");
    if (view->bad || chunk_log > CHUNK_LOG_MAX) return dz_fail(err, DZ_EDAMAGE, "chunks of 2^%u elements", chunk_log);
    size_t nmap = (chunks_of(t->count, (size_t)1 << chunk_log) + 7) / 8;
    uint8_t *map = dz_alloc_raw(nmap, 1, err);
    if (!map) return err->rc;
    dz_rc rc = dz_plane_get(view, map, nmap, err);
    if (rc == DZ_OK) rc = decode_changes(words, t, map, (size_t)1 << chunk_log, view, err);
    free(map);
    return rc;
}

dz_rc dz_lossless_decode(void *words, const void *base, dz_dtype dtype, size_t count, const uint8_t *bytes, size_t nbytes, dz_error *err) {
    size_t size = dz_dtype_size(dtype), total;
    if (__builtin_mul_overflow(count, size, &total) || total > SIZE_MAX / 8)
        return dz_fail(err, DZ_EDAMAGE, "a tile of %zu elements of %zu bytes is too large", count, size);
    tile t = {.base = base, .dtype = dtype, .count = count, .size = size};
    dz_view view = {.data = bytes, .len = nbytes};
    uint8_t kind = dz_view_u8(&view);
    if (view.bad) return dz_fail(err, DZ_EDAMAGE, "a lossless tile of no bytes");
    dz_rc rc = kind == DZ_LOSSLESS_EQUAL     ? decode_equal(words, &t, err)
               : kind == DZ_LOSSLESS_SPARSE  ? decode_sparse(words, &t, &view, err)
               : kind == DZ_LOSSLESS_LOWRANK ? decode_lowrank(words, &t, &view, err)
               : kind == DZ_LOSSLESS_COLUMNS ? decode_groups(words, &t, &view, err)
                                             : decode_dense(words, &t, kind, &view, err);
    if (rc == DZ_OK && view.pos != view.len) return dz_fail(err, DZ_EDAMAGE, "%zu bytes are left over behind a tile", view.len - view.pos);
    return rc;
}

#include "codec/lowrank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/classes.h"
#include "codec/directions.h"
#include "codec/entropy.h"
#include "codec/planes.h"
#include "codec/rans.h"
#include "codec/variants.h"

enum {
    K = DZ_DIRECTIONS,
    COLUMNS_MIN = 64,
    COLUMNS_MAX = 1 << 15,
    ROWS_MIN = 256,      /* whole rows in a tile */
    PROBE_ROWS = 64,     /* that show whether there is a common direction */
    PROBE_ROWS_MIN = 16, /* of wide matrices */
    PROBE = 1 << 16,     /* elements in them, about */
    SHARE_MIN = 8,       /* 1 / SHARE_MIN of the energy has to be in one direction */
    TEST_ROWS = 64,      /* that the ranks are compared on */
    TRAIN_ROWS = 512,    /* that the directions are found on */
    TRAIN = 1 << 19,     /* elements in them, at most */
    V_BITS = DZ_DIRECTION_BITS,
    EXPONENT_MIN = -126, /* so that no product is subnormal */
    EXPONENT_MAX = DZ_LOWRANK_EXPONENT_MOST,
    WORTH = 128 /* 1 / WORTH of the bytes have to be saved, by the sample */
};

/* ---- the prediction ---- */

DZ_VARIANTS static void sum_products(uint32_t *restrict sum, const int16_t *restrict u, const int16_t *restrict v, size_t stride,
                                     unsigned rank, size_t n) {
    memset(sum, 0, n * sizeof *sum);
    for (unsigned k = 0; k < rank; k++) {
        const int32_t factor = u[k];
        const int16_t *row = v + k * stride;
        for (size_t c = 0; c < n; c++) sum[c] += (uint32_t)(factor * row[c]);
    }
}

void dz_lowrank_sums(uint32_t *sum, const dz_lowrank *p, size_t row, size_t column, size_t n) {
    sum_products(sum, p->u + row * p->rank, p->v + column, p->columns, p->rank, n);
}

DZ_VARIANTS static void add_to_bf16(uint8_t *restrict out, const uint8_t *restrict base, const uint32_t *restrict sum, float scale,
                                    size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint16_t word, moved;
        memcpy(&word, base + 2 * i, 2);
        float x = dz_bf16_to_float(word) + (float)(int32_t)sum[i] * scale;
        uint32_t bits = dz_float_bits(x);
        moved = (uint16_t)((bits + 0x7fffU + ((bits >> 16) & 1)) >> 16);
        if ((word & 0x7f80U) == 0x7f80U) moved = word;
        memcpy(out + 2 * i, &moved, 2);
    }
}

/* F16 and F32. */
static void add_to_other(uint8_t *out, const uint8_t *base, dz_dtype dtype, const uint32_t *sum, float scale, size_t n) {
    size_t size = dz_dtype_size(dtype);
    for (size_t i = 0; i < n; i++) {
        float x;
        dz_widen(&x, base + i * size, dtype, 1);
        if (isfinite(x)) {
            x += (float)(int32_t)sum[i] * scale;
            dz_narrow(out + i * size, &x, dtype, 1);
        } else {
            memcpy(out + i * size, base + i * size, size);
        }
    }
}

dz_rc dz_lowrank_add(void *out, const void *base, dz_dtype dtype, size_t count, const dz_lowrank *p, dz_error *err) {
    size_t size = dz_dtype_size(dtype), column = p->first, at = 0;
    uint32_t *sum = dz_alloc_raw(p->columns, sizeof *sum, err);
    if (!sum) return err->rc;
    float scale = dz_bits_to_float((uint32_t)(127 + p->exponent) << 23);
    for (size_t row = 0; at < count; row++, column = 0) {
        size_t n = p->columns - column < count - at ? p->columns - column : count - at;
        dz_lowrank_sums(sum, p, row, column, n);
        if (dtype == DZ_BF16) {
            add_to_bf16((uint8_t *)out + at * size, (const uint8_t *)base + at * size, sum, scale, n);
        } else {
            add_to_other((uint8_t *)out + at * size, (const uint8_t *)base + at * size, dtype, sum, scale, n);
        }
        at += n;
    }
    free(sum);
    return DZ_OK;
}

/* ---- bytes ---- */

/* n numbers, `stride` apart: planes of the low and the high bytes of 2 |x|, less 1 where x < 0. */
static dz_rc put_numbers(dz_buf *out, const int16_t *x, size_t stride, size_t n, uint8_t *bytes, dz_error *err) {
    for (unsigned p = 0; p < 2; p++) {
        for (size_t i = 0; i < n; i++) {
            int32_t value = x[i * stride];
            bytes[i] = (uint8_t)((value < 0 ? -2 * value - 1 : 2 * value) >> 8 * p);
        }
        if (dz_plane_put(out, bytes, n, err) != DZ_OK) return err->rc;
    }
    return DZ_OK;
}

static dz_rc get_numbers(dz_view *view, int16_t *x, size_t stride, size_t n, uint8_t *bytes, dz_error *err) {
    if (dz_plane_get(view, bytes, n, err) != DZ_OK || dz_plane_get(view, bytes + n, n, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < n; i++) {
        uint32_t z = bytes[i] | (uint32_t)bytes[n + i] << 8;
        x[i * stride] = (int16_t)(z & 1 ? -(int32_t)(z >> 1) - 1 : (int32_t)(z >> 1));
    }
    return DZ_OK;
}

static size_t rows_of(size_t count, size_t columns, size_t first) { return (first + count - 1) / columns + 1; }

dz_rc dz_lowrank_put(dz_buf *out, const dz_lowrank *p, dz_error *err) {
    uint8_t head[2] = {(uint8_t)p->rank, (uint8_t)(p->exponent - EXPONENT_MIN)};
    uint8_t *bytes = dz_alloc_raw(p->rows > p->columns ? p->rows : p->columns, 1, err);
    if (!bytes) return err->rc;
    dz_rc rc = dz_buf_put_varint(out, p->columns, err);
    if (rc == DZ_OK) rc = dz_buf_put_varint(out, p->first, err);
    if (rc == DZ_OK) rc = dz_buf_put(out, head, sizeof head, err);
    for (unsigned k = 0; k < p->rank && rc == DZ_OK; k++) {
        rc = put_numbers(out, p->v + k * p->columns, 1, p->columns, bytes, err);
        if (rc == DZ_OK) rc = put_numbers(out, p->u + k, p->rank, p->rows, bytes, err);
    }
    free(bytes);
    return rc;
}

static int dtype_fits(dz_dtype dtype) { return dtype == DZ_BF16 || dtype == DZ_F16 || dtype == DZ_F32; }

dz_rc dz_lowrank_get(dz_lowrank *p, dz_dtype dtype, size_t count, dz_view *view, dz_error *err) {
    uint64_t columns = dz_view_varint(view), first = dz_view_varint(view);
    unsigned rank = dz_view_u8(view), exponent = dz_view_u8(view);
    *p = (dz_lowrank){0};
    if (view->bad || !dtype_fits(dtype) || columns == 0 || columns > count || first >= columns || rank == 0 || rank > K ||
        exponent > EXPONENT_MAX - EXPONENT_MIN)
        return dz_fail(err, DZ_EDAMAGE, "a prediction of rank %u for %zu elements is not possible", rank, count);
    *p = (dz_lowrank){.columns = (size_t)columns,
                      .first = (size_t)first,
                      .rows = rows_of(count, (size_t)columns, (size_t)first),
                      .rank = rank,
                      .exponent = (int)exponent + EXPONENT_MIN};
    uint8_t *bytes = dz_alloc_raw(2 * (p->rows > p->columns ? p->rows : p->columns), 1, err);
    p->u = bytes ? dz_alloc_raw(p->rows * rank, sizeof *p->u, err) : NULL;
    p->v = p->u ? dz_alloc_raw(p->columns * rank, sizeof *p->v, err) : NULL;
    dz_rc rc = p->v ? DZ_OK : err->rc;
    for (unsigned k = 0; k < rank && rc == DZ_OK; k++) {
        rc = get_numbers(view, p->v + k * p->columns, 1, p->columns, bytes, err);
        if (rc == DZ_OK) rc = get_numbers(view, p->u + k, rank, p->rows, bytes, err);
    }
    free(bytes);
    if (rc != DZ_OK) dz_lowrank_free(p);
    return rc;
}

void dz_lowrank_free(dz_lowrank *p) {
    free(p->u);
    free(p->v);
    *p = (dz_lowrank){0};
}

/* ---- finding one ---- */

/* A tile, and how it lies in its rows. */
typedef struct matrix {
    const uint8_t *words, *base;
    dz_dtype dtype;
    size_t size, count, columns, lead, nrows; /* lead: elements before the first whole row; nrows: whole rows */
} matrix;

/* Differences of n elements; those that are not finite count as 0. `more`: room for n numbers. */
static void get_differences(float *d, float *more, const matrix *m, size_t from, size_t n) {
    dz_widen(d, m->words + from * m->size, m->dtype, n);
    dz_widen(more, m->base + from * m->size, m->dtype, n);
    for (size_t i = 0; i < n; i++) {
        float x = d[i] - more[i];
        d[i] = isfinite(x) ? x : 0;
    }
}

/* Whole row number i of n that are spread evenly. */
static size_t nth_row(const matrix *m, size_t i, size_t n) { return n > 1 ? (m->nrows - 1) * i / (n - 1) : 0; }

static size_t at_most(size_t n, size_t limit) { return n < limit ? n : limit; }

/* 1 if a few rows, each with energy 1, have a common direction. */
static dz_rc probe(int *common, const matrix *m, dz_error *err) {
    size_t n = at_most(PROBE_ROWS, PROBE / m->columns);
    if (n < PROBE_ROWS_MIN) n = PROBE_ROWS_MIN;
    float *d = dz_alloc_raw((n + 2) * m->columns, sizeof *d, err);
    if (!d) return err->rc;
    for (size_t r = 0; r < n; r++) {
        float *row = d + r * m->columns;
        get_differences(row, d + n * m->columns, m, m->lead + nth_row(m, r, n) * m->columns, m->columns);
        dz_row_to_one(row, m->columns);
    }
    float energy, along = dz_rows_along(d, n, m->columns, d + n * m->columns, &energy);
    *common = along * SHARE_MIN > energy;
    free(d);
    return DZ_OK;
}

/* v[columns][K]: the directions of most energy in a sample of rows. */
static dz_rc find_directions(float *v, const matrix *m, dz_error *err) {
    size_t n = at_most(at_most(TRAIN_ROWS, TRAIN / m->columns), m->nrows);
    float *d = dz_alloc_raw((n + 1) * m->columns, sizeof *d, err);
    if (!d) return err->rc;
    for (size_t r = 0; r < n; r++) {
        get_differences(d + r * m->columns, d + n * m->columns, m, m->lead + nth_row(m, r, n) * m->columns, m->columns);
        dz_row_to_one(d + r * m->columns, m->columns);
    }
    dz_directions_find(v, d, n, m->columns, err);
    free(d);
    return err->rc;
}

/* What the ranks are compared on: rows side by side, as a tile of its own. */
typedef struct test {
    matrix m;
    uint8_t *words, *base, *moved; /* moved: room for the base with a prediction */
    float *d, *u;                  /* differences; [rows][K] */
} test;

static void free_test(test *t) {
    free(t->words);
    free(t->base);
    free(t->moved);
    free(t->d);
    free(t->u);
}

static dz_rc take_test(test *t, const matrix *m, const float *v, dz_error *err) {
    size_t n = at_most(TEST_ROWS, PROBE / m->columns), line = m->columns * m->size;
    if (n < PROBE_ROWS_MIN) n = PROBE_ROWS_MIN;
    t->m = *m, t->m.nrows = n, t->m.lead = 0, t->m.count = n * m->columns;
    if (!(t->words = dz_alloc_raw(n, line, err)) || !(t->base = dz_alloc_raw(n, line, err)) || !(t->moved = dz_alloc_raw(n, line, err)) ||
        !(t->d = dz_alloc_raw((n + 1) * m->columns, sizeof *t->d, err)) || !(t->u = dz_alloc_raw(n, K * sizeof *t->u, err)))
        return err->rc;
    t->m.words = t->words, t->m.base = t->base;
    for (size_t r = 0; r < n; r++) { /* not the rows that the directions are found on, mostly */
        size_t row = (m->nrows - 1) * (2 * r + 1) / (2 * n);
        memcpy(t->words + r * line, m->words + m->lead * m->size + row * line, line);
        memcpy(t->base + r * line, m->base + m->lead * m->size + row * line, line);
        get_differences(t->d + r * m->columns, t->d + n * m->columns, &t->m, r * m->columns, m->columns);
        dz_row_project(t->u + r * K, t->d + r * m->columns, v, m->columns);
    }
    return DZ_OK;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The largest power of two up to twice the width of what a prediction of `rank` leaves in most rows: a coarser step would cost more than it
 * saves. Its exponent. */
static int step_exponent(const test *t, unsigned rank) {
    double left[TEST_ROWS];
    int exponent;
    for (size_t r = 0; r < t->m.nrows; r++) {
        left[r] = dz_rows_dot(t->d + r * t->m.columns, t->d + r * t->m.columns, t->m.columns);
        for (unsigned k = 0; k < rank; k++) left[r] -= (double)t->u[r * K + k] * t->u[r * K + k];
    }
    qsort(left, t->m.nrows, sizeof *left, ascending);
    double square = 4 * left[t->m.nrows / 2] / (double)t->m.columns;
    if (!(square > 0x1p-200) || !isfinite(square)) return EXPONENT_MIN + V_BITS;
    frexp(square, &exponent);                             /* square < 2^exponent */
    exponent = (exponent - 1 - ((exponent - 1) & 1)) / 2; /* the square of 2 to it is at most `square` */
    if (exponent < EXPONENT_MIN + V_BITS) exponent = EXPONENT_MIN + V_BITS;
    return exponent > EXPONENT_MAX ? EXPONENT_MAX : exponent;
}

/* Of NaN too, which sums of numbers beyond f32 are. */
static int16_t to_step(float u, float scale) {
    float q = rintf(u * scale);
    return (int16_t)(q > 32767 ? 32767 : q > -32767 ? q : -32767);
}

/* Bits of the numbers u of all rows, in 2^-16 bit for each row: by their sizes' octaves in the test. */
static uint64_t bits_of_u(const int16_t *u, size_t n, unsigned rank) {
    uint64_t bits = 0;
    for (unsigned k = 0; k < rank; k++) {
        uint32_t counts[17] = {0};
        for (size_t r = 0; r < n; r++) {
            unsigned size = (unsigned)abs(u[r * rank + k]), octave = size ? 32U - (unsigned)__builtin_clz(size) : 0;
            counts[octave]++;
            bits += (uint64_t)octave << DZ_BITS_SHIFT; /* the sign, and what is below the first bit */
        }
        bits += dz_nlog2n((uint32_t)n);
        for (unsigned o = 0; o < 17; o++) bits -= dz_nlog2n(counts[o]);
    }
    return bits / n;
}

static void fill_v(int16_t *to, const float *v, unsigned rank, size_t columns) {
    for (unsigned k = 0; k < rank; k++) {
        for (size_t c = 0; c < columns; c++) to[k * columns + c] = (int16_t)(v[c * K + k] * (1 << V_BITS));
    }
}

/* Bytes that the test takes with a prediction of `rank`, its share of the factors included. rank 0: without one. */
static dz_rc try_rank(size_t *nbytes, test *t, const matrix *m, const float *v, unsigned rank, int *step, dz_error *err) {
    dz_buf body = {0};
    const void *base = t->base;
    uint64_t more = 0;
    if (rank) {
        dz_lowrank p = {.columns = m->columns, .rows = t->m.nrows, .rank = rank};
        p.u = dz_alloc_raw(p.rows * rank, sizeof *p.u, err);
        p.v = p.u ? dz_alloc_raw(p.columns * rank, sizeof *p.v, err) : NULL;
        if (p.v) {
            *step = step_exponent(t, rank);
            p.exponent = *step - V_BITS;
            fill_v(p.v, v, rank, m->columns);
            for (size_t r = 0; r < p.rows; r++) {
                for (unsigned k = 0; k < rank; k++) p.u[r * rank + k] = to_step(t->u[r * K + k], ldexpf(1, -*step));
            }
            dz_lowrank_add(t->moved, t->base, m->dtype, t->m.count, &p, err);
            base = t->moved;
            more = bits_of_u(p.u, p.rows, rank) * p.rows >> (DZ_BITS_SHIFT + 3);
            more += (uint64_t)rank * m->columns * 9 / 8 * t->m.count / m->count;
        }
        dz_lowrank_free(&p);
    }
    if (err->rc == DZ_OK) dz_classes_encode(&body, t->words, base, m->dtype, t->m.count, err);
    *nbytes = body.len + more;
    dz_buf_free(&body);
    return err->rc;
}

static dz_rc choose_rank(unsigned *rank, int *step, const matrix *m, const float *v, dz_error *err) {
    test t = {0};
    size_t least = 0;
    *rank = 0;
    dz_rc rc = take_test(&t, m, v, err);
    if (rc == DZ_OK) rc = try_rank(&least, &t, m, v, 0, step, err);
    least -= least / WORTH;
    for (unsigned r = 1; r <= K && rc == DZ_OK; r *= 2) {
        size_t nbytes;
        int s = 0;
        rc = try_rank(&nbytes, &t, m, v, r, &s, err);
        if (rc == DZ_OK && nbytes < least) *rank = r, *step = s, least = nbytes;
    }
    free_test(&t);
    return rc;
}

/* All rows' numbers. Rows that the tile has a part of count where it has them. */
static dz_rc fill_u(dz_lowrank *p, const matrix *m, const float *v, int step, dz_error *err) {
    float *d = dz_alloc_raw(2 * m->columns, sizeof *d, err), u[K], scale = ldexpf(1, -step);
    if (!d) return err->rc;
    size_t column = p->first, at = 0;
    for (size_t row = 0; row < p->rows; row++, column = 0) {
        size_t n = at_most(m->columns - column, m->count - at);
        get_differences(d, d + m->columns, m, at, n);
        dz_row_project(u, d, v + column * K, n);
        for (unsigned k = 0; k < p->rank; k++) p->u[row * p->rank + k] = to_step(u[k], scale);
        at += n;
    }
    free(d);
    return DZ_OK;
}

dz_rc dz_lowrank_find(dz_lowrank *found, const void *words, const void *base, dz_dtype dtype, size_t count, const dz_tile_rows *rows,
                      dz_error *err) {
    *found = (dz_lowrank){0};
    if (!dtype_fits(dtype) || rows->columns < COLUMNS_MIN || rows->columns > COLUMNS_MAX || rows->first >= rows->columns ||
        count > DZ_RANS_MAX)
        return DZ_OK;
    matrix m = {
        .words = words, .base = base, .dtype = dtype, .size = dz_dtype_size(dtype), .count = count, .columns = (size_t)rows->columns};
    m.lead = (m.columns - (size_t)rows->first) % m.columns;
    m.nrows = count > m.lead ? (count - m.lead) / m.columns : 0;
    if (m.nrows < ROWS_MIN) return DZ_OK;
    int common = 0, step = 0;
    unsigned rank = 0;
    if (probe(&common, &m, err) != DZ_OK || !common) return err->rc;
    float *v = dz_alloc_raw(m.columns, K * sizeof *v, err);
    dz_rc rc = v ? find_directions(v, &m, err) : err->rc;
    if (rc == DZ_OK) rc = choose_rank(&rank, &step, &m, v, err);
    if (rc == DZ_OK && rank) {
        *found = (dz_lowrank){.columns = m.columns, .first = (size_t)rows->first, .rank = rank, .exponent = step - V_BITS};
        found->rows = rows_of(count, m.columns, found->first);
        found->u = dz_alloc_raw(found->rows * rank, sizeof *found->u, err);
        found->v = found->u ? dz_alloc_raw(m.columns * rank, sizeof *found->v, err) : NULL;
        if (found->v) fill_v(found->v, v, rank, m.columns);
        rc = found->v ? fill_u(found, &m, v, step, err) : err->rc;
    }
    free(v);
    if (rc != DZ_OK) dz_lowrank_free(found);
    return rc;
}

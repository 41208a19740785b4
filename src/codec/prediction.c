#include "codec/prediction.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/directions.h"
#include "codec/variants.h"
#include "numeric/allocate.h"
#include "numeric/kernels.h"

enum {
    K = DZ_DIRECTIONS,
    COLUMNS_MIN = 64,
    COLUMNS_MAX = 1 << 15,
    PROBE_ROWS = 64,    /* that show whether there is a common direction */
    TRAIN_ROWS = 512,   /* that the directions are found on */
    TRAIN = 1 << 19,    /* elements in them, at most */
    TEST_ROWS = 256,    /* that show how many directions are worth their bits */
    V_COST = 9,         /* bits of an element of a direction, about */
    EXPONENT_MIN = -126 /* so that no product is subnormal */
};

#define SHARE 0.125F        /* of the energy of a few rows, at least, in one direction */
#define ALONE 2.0F          /* rows: so much of it is in one direction where rows have none in common, at most */
#define STEP 8.0            /* of the numbers u: its square over the noise of an element */
#define OF_BOUND 1.11       /* noise of the messages over the least that any code has (METHODS.md "Trellis-coded quantisation") */
#define NOISE_LEAST 0x1p-16 /* energy of the noise over that of the deltas */
#define NOISE_MOST 0x1p8
#define WORTH 0.98 /* of the bits that are left, for a prediction to be taken */

int dz_prediction_likely(float *rows, size_t n, size_t columns, float *scratch) {
    float energy;
    for (size_t r = 0; r < n; r++) dz_row_to_one(rows + r * columns, columns);
    return dz_rows_along(rows, n, columns, scratch, &energy) > ALONE + energy * SHARE;
}

/* How a tile lies in its rows. */
typedef struct matrix {
    const float *x;
    size_t count, columns, first, lead, nrows; /* lead: elements before the first whole row; nrows: whole rows */
} matrix;

static size_t at_most(size_t n, size_t limit) { return n < limit ? n : limit; }

/* Whole rows of the tile, `n` of them spread evenly. */
static void take_rows(float *rows, const matrix *m, size_t n) {
    for (size_t r = 0; r < n; r++) {
        size_t at = n > 1 ? (m->nrows - 1) * r / (n - 1) : 0;
        memcpy(rows + r * m->columns, m->x + m->lead + at * m->columns, m->columns * sizeof *rows);
    }
}

/* Times a power of two, so that no product of theirs is lost or infinite: directions do not change with it. */
static void to_size_one(float *x, size_t n) {
    float most = 0;
    int exponent;
    for (size_t i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i]));
    frexpf(most, &exponent);
    if (!(most >= 0x1p-126F) || !isfinite(most)) return;
    float scale = ldexpf(1, -exponent);
    for (size_t i = 0; i < n; i++) x[i] *= scale;
}

/* v[columns][K], or nothing: *common is 0 where a few rows have no direction in common. */
static dz_rc directions_of(const matrix *m, float *v, int *common, dz_error *err) {
    size_t few = at_most(PROBE_ROWS, m->nrows), n = at_most(at_most(TRAIN_ROWS, TRAIN / m->columns), m->nrows);
    float *rows = dz_alloc_raw(((n > few ? n : few) + 2) * m->columns, sizeof *rows, err);
    *common = 0;
    if (!rows) return err->rc;
    take_rows(rows, m, few);
    *common = dz_prediction_likely(rows, few, m->columns, rows + few * m->columns);
    if (*common) {
        take_rows(rows, m, n);
        to_size_one(rows, n * m->columns);
        dz_directions_find(v, rows, n, m->columns, err);
    }
    free(rows);
    return err->rc;
}

/* log2(x) of x from 1 to 2^40, from integers: the same on every machine. */
static double log2_of(double x) { return (double)dz_log2_fixed((uint64_t)(x * 0x1p20)) / 65536 - 20; }

/* Bits of n numbers u, in steps of 1 / scale, by their octaves. */
static double bits_of_numbers(const float *u, size_t stride, size_t n, float scale) {
    double counts[18] = {0}, bits = 0;
    for (size_t r = 0; r < n; r++) {
        float size = rintf(fabsf(u[r * stride] * scale));
        int octave = 0;
        if (size >= 1) frexpf(size < 65536 ? size : 65536, &octave);
        counts[octave]++;
        bits += octave; /* the sign, and what is below the first bit */
    }
    for (int o = 0; o < 18; o++) bits += counts[o] > 0 ? counts[o] * log2_of((double)n / counts[o]) : 0;
    return bits;
}

/* The step of the numbers u, a power of two: its exponent. Its square over an element's noise is from STEP / 4 to STEP. What rounding
 * leaves is in the rest, and coded with it. */
static int step_exponent(double noise) {
    int exponent;
    double square = STEP * noise;
    frexp(square, &exponent);                             /* square < 2^exponent */
    exponent = (exponent - 1 - ((exponent - 1) & 1)) / 2; /* the square of 2 to it is at most `square` */
    return exponent < EXPONENT_MIN + DZ_DIRECTION_BITS ? EXPONENT_MIN + DZ_DIRECTION_BITS : exponent;
}

/* The rank at which the bits are fewest, of a tile of `count` elements whose `n` rows have the numbers u[n][K] and this energy. *left: the
 * share of it that stays, *bits: of the prediction, of all rows. */
static unsigned choose_rank(const float *u, size_t n, size_t columns, double energy, double count, double noise, int step, double *left,
                            double *bits) {
    double removed = 0, more = 0, rows = count / (double)columns;
    double rounding = ldexp(1, 2 * step) / 12 * (double)n;
    unsigned best = 0;
    *left = 1;
    *bits = 0;
    if (!(noise > NOISE_LEAST && noise < NOISE_MOST)) return 0;
    double least = WORTH * count * log2_of(1 + OF_BOUND / noise) / 2;
    for (unsigned k = 0; k < K; k++) {
        double along = 0;
        for (size_t r = 0; r < n; r++) along += (double)u[r * K + k] * (double)u[r * K + k];
        removed += along - fmin(along, rounding);
        more += bits_of_numbers(u + k, K, n, ldexpf(1, -step)) * rows / (double)n + V_COST * (double)columns;
        double stays = fmax(0, 1 - removed / energy), all = count * log2_of(1 + OF_BOUND * stays / noise) / 2 + more;
        if (!(all < least)) continue;
        least = all;
        best = k + 1;
        *left = stays;
        *bits = more;
    }
    return best;
}

static int16_t to_step(float u, float scale) {
    float q = rintf(u * scale);
    return (int16_t)(q > 32767 ? 32767 : q > -32767 ? q : -32767);
}

/* The rank, from whole rows most of which the directions were not found on. u: room for TEST_ROWS * K numbers. */
static unsigned rank_of(const matrix *m, float *u, const float *v, double energy, double noise, int step) {
    size_t n = at_most(TEST_ROWS, m->nrows);
    double here = 0, left, bits;
    for (size_t r = 0; r < n; r++) {
        const float *row = m->x + m->lead + (m->nrows * r + m->nrows / 2) / n * m->columns;
        here += (double)dz_rows_dot(row, row, m->columns);
        dz_row_project(u + r * K, row, v, m->columns);
    }
    if (!(here > 0) || !isfinite(here)) return 0;
    return choose_rank(u, n, m->columns, here, (double)m->count, noise * (double)m->count / energy, step, &left, &bits);
}

/* Directions one after the other, and the inner products of all rows with them, of whole ones and parts. */
static dz_rc make(dz_lowrank *found, const matrix *m, const float *v, size_t nrows, unsigned rank, int step, dz_error *err) {
    *found = (dz_lowrank){.columns = m->columns, .first = m->first, .rows = nrows, .rank = rank, .exponent = step - DZ_DIRECTION_BITS};
    found->u = dz_alloc_raw(nrows * rank, sizeof *found->u, err);
    found->v = dz_alloc_raw(m->columns * rank, sizeof *found->v, err);
    float *along = dz_alloc_raw(m->columns * rank, sizeof *along, err), scale = ldexpf(1, -step);
    for (unsigned k = 0; k < rank && err->rc == DZ_OK; k++) {
        for (size_t c = 0; c < m->columns; c++) {
            along[k * m->columns + c] = v[c * K + k];
            found->v[k * m->columns + c] = (int16_t)(v[c * K + k] * (1 << DZ_DIRECTION_BITS));
        }
    }
    size_t column = m->first, at = 0;
    for (size_t row = 0; row < nrows && err->rc == DZ_OK; row++, column = 0) {
        size_t n = at_most(m->columns - column, m->count - at);
        for (unsigned k = 0; k < rank; k++)
            found->u[row * rank + k] = to_step(dz_rows_dot(m->x + at, along + k * m->columns + column, n), scale);
        at += n;
    }
    free(along);
    if (err->rc != DZ_OK) dz_lowrank_free(found);
    return err->rc;
}

static double energy_of(const matrix *m) {
    double energy[DZ_LANES] = {0};
    dz_kernels()->energy(energy, m->x, m->count);
    return dz_lanes_total(energy);
}

dz_rc dz_prediction_find(dz_lowrank *found, const float *x, size_t count, uint64_t columns, uint64_t first, double noise, dz_error *err) {
    *found = (dz_lowrank){0};
    if (columns < COLUMNS_MIN || columns > COLUMNS_MAX || first >= columns || !(noise > 0)) return DZ_OK;
    matrix m = {.x = x, .count = count, .columns = (size_t)columns, .first = (size_t)first};
    m.lead = (m.columns - m.first) % m.columns;
    m.nrows = count > m.lead ? (count - m.lead) / m.columns : 0;
    if (m.nrows < DZ_PREDICTION_ROWS_MIN) return DZ_OK;
    size_t nrows = (m.first + count - 1) / m.columns + 1;
    int common;
    float *v = dz_alloc_raw(m.columns, K * sizeof *v, err), *u = dz_alloc_raw(TEST_ROWS, K * sizeof *u, err);
    if (err->rc == DZ_OK && directions_of(&m, v, &common, err) == DZ_OK && common) {
        double energy = energy_of(&m);
        if (energy > 0x1p-100 && isfinite(energy)) {
            int step = step_exponent(noise);
            unsigned rank = rank_of(&m, u, v, energy, noise, step);
            if (rank && step - DZ_DIRECTION_BITS <= DZ_LOWRANK_EXPONENT_MOST) make(found, &m, v, nrows, rank, step, err);
        }
    }
    free(v);
    free(u);
    return err->rc;
}

dz_rc dz_prediction_expect(float *rows, size_t nrows, size_t columns, size_t count, double noise, double *left, double *bits,
                           dz_error *err) {
    size_t train = nrows * 3 / 4;
    float *v = dz_alloc_raw(columns, K * sizeof *v, err), *u = dz_alloc_raw(nrows, K * sizeof *u, err),
          *room = dz_alloc_raw(2 * columns, sizeof *room, err);
    *left = 1;
    *bits = 0;
    if (err->rc == DZ_OK && columns >= COLUMNS_MIN && columns <= COLUMNS_MAX && train && count / columns >= DZ_PREDICTION_ROWS_MIN) {
        for (size_t r = train; r < nrows; r++) dz_row_to_one(rows + r * columns, columns); /* as their factors make them, nearly */
        if (dz_prediction_likely(rows, train, columns, room) && dz_directions_find(v, rows, train, columns, err) == DZ_OK) {
            double energy = 0;
            for (size_t r = train; r < nrows; r++) {
                energy += (double)dz_rows_dot(rows + r * columns, rows + r * columns, columns);
                dz_row_project(u + r * K, rows + r * columns, v, columns);
            }
            int step = step_exponent(noise * energy / (double)((nrows - train) * columns));
            if (energy > 0) choose_rank(u + train * K, nrows - train, columns, energy, (double)count, noise, step, left, bits);
            *bits /= (double)count;
        }
    }
    free(v);
    free(u);
    free(room);
    return err->rc;
}

DZ_VARIANTS static void add_scaled(float *restrict x, const uint32_t *restrict sum, float scale, size_t n) {
    for (size_t c = 0; c < n; c++) x[c] += (float)(int32_t)sum[c] * scale;
}

#define PIECE 1024

void dz_prediction_add(float *x, size_t from, size_t n, const dz_lowrank *p, float sign) {
    uint32_t sum[PIECE];
    float scale = sign * dz_bits_to_float((uint32_t)(127 + p->exponent) << 23);
    size_t row = (p->first + from) / p->columns, column = (p->first + from) % p->columns;
    for (size_t at = 0; at < n;) {
        size_t len = at_most(at_most(p->columns - column, n - at), PIECE);
        dz_lowrank_sums(sum, p, row, column, len);
        add_scaled(x + at, sum, scale, len);
        at += len;
        column += len;
        if (column == p->columns) column = 0, row++;
    }
}

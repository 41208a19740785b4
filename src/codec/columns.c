#include "codec/columns.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/intervals.h"
#include "codec/planes.h"
#include "codec/rans.h"
#include "codec/variants.h"

enum {
    COLUMNS_MIN = 64,
    COLUMNS_MAX = 1 << 15,
    ROWS_MIN = 256,     /* whole rows in a tile */
    SAMPLE_ROWS = 256,  /* that show what the columns are like */
    WIDTHS = 16,        /* steps of half an octave */
    MEANS = 4,          /* kinds of means */
    WORTH_BITS_LOG = 4, /* 2^-4 bit an element have to be saved, by the columns' widths */
};

/* ---- what the columns are like ---- */

typedef struct moments {
    float *sum, *squares; /* [columns] */
    size_t rows;
} moments;

static dz_rc measure(moments *m, const uint8_t *words, dz_dtype dtype, size_t columns, size_t nrows, dz_error *err) {
    size_t line = columns * dz_dtype_size(dtype);
    float *row = dz_alloc_raw(columns, sizeof *row, err);
    m->rows = nrows < SAMPLE_ROWS ? nrows : SAMPLE_ROWS;
    if (!row) return err->rc;
    for (size_t r = 0; r < m->rows; r++) {
        dz_widen(row, words + (nrows - 1) * r / (m->rows - 1) * line, dtype, columns);
        for (size_t c = 0; c < columns; c++) {
            float x = isfinite(row[c]) ? row[c] : 0;
            m->sum[c] += x;
            m->squares[c] += x * x;
        }
    }
    free(row);
    return DZ_OK;
}

/* About log2(x) of x > 0, within 0.01. */
static double log2_of(double x) {
    int exponent;
    double m = 2 * frexp(x, &exponent);
    return exponent - 1 + (-m * m / 3 + 2 * m - 5.0 / 3);
}

/* 1 if normal densities of the columns' widths and means save enough over one density for all. */
static int worth_it(const moments *m, size_t columns) {
    double all = 0, saved = 0;
    for (size_t c = 0; c < columns; c++) all += m->squares[c];
    all /= (double)columns;
    if (!(all > 0x1p-120) || !isfinite(all)) return 0;
    for (size_t c = 0; c < columns; c++) {
        double variance = m->squares[c] - (double)m->sum[c] * m->sum[c] / (double)m->rows;
        saved += (log2_of(all) - log2_of(variance > all * 0x1p-40 ? variance : all * 0x1p-40)) / 2;
    }
    return saved * (1 << WORTH_BITS_LOG) > (double)columns;
}

/* Of the mean in widths, rounded: 0, 1, 2, or more. */
static unsigned kind_of_mean(double sum, double squares, double rows) {
    double square = sum * sum / rows, variance = squares - square;
    return square < 0.25 * variance ? 0 : square < 2.25 * variance ? 1 : square < 6.25 * variance ? 2 : MEANS - 1;
}

static void choose_groups(dz_columns *c, const moments *m) {
    int exponent, highest = -1000, seen[WIDTHS * MEANS] = {0};
    unsigned number[WIDTHS * MEANS];
    for (size_t i = 0; i < c->columns; i++) {
        frexp(m->squares[i], &exponent);
        if (m->squares[i] > 0 && exponent > highest) highest = exponent;
    }
    for (size_t i = 0; i < c->columns; i++) {
        frexp(m->squares[i], &exponent);
        int width = m->squares[i] > 0 ? exponent - highest + WIDTHS - 1 : 0;
        unsigned group = (unsigned)(width < 0 ? 0 : width) * MEANS + kind_of_mean(m->sum[i], m->squares[i], (double)m->rows);
        c->group[i] = (uint8_t)(2 * group + (m->sum[i] < 0));
        seen[group] = 1;
    }
    for (unsigned g = 0; g < WIDTHS * MEANS; g++) {
        number[g] = c->ngroups;
        c->ngroups += (unsigned)seen[g];
    }
    for (size_t i = 0; i < c->columns; i++) c->group[i] = (uint8_t)(2 * number[c->group[i] / 2] + c->group[i] % 2);
}

/* `order`, `start` and `at` from `group`. */
static dz_rc list_groups(dz_columns *c, size_t count, dz_error *err) {
    size_t last = (c->first + count - 1) % c->columns, n = 0, at = 0; /* last: column of the last element */
    c->rows = (c->first + count - 1) / c->columns + 1;
    c->order = dz_alloc_raw(c->columns, sizeof *c->order, err);
    if (!c->order) return err->rc;
    for (unsigned g = 0; g < c->ngroups; g++) {
        c->start[g] = n, c->at[g] = at;
        for (size_t i = 0; i < c->columns; i++) {
            if (c->group[i] / 2 != g) continue;
            c->order[n++] = (uint32_t)i;
            at += c->rows - (i < c->first) - (i > last);
        }
    }
    c->start[c->ngroups] = n, c->at[c->ngroups] = at;
    return DZ_OK;
}

dz_rc dz_columns_find(dz_columns *found, const void *words, dz_dtype dtype, size_t count, const dz_tile_rows *rows, dz_error *err) {
    *found = (dz_columns){0};
    if (!dz_intervals_fit(dtype) || rows->columns < COLUMNS_MIN || rows->columns > COLUMNS_MAX || rows->first >= rows->columns ||
        count > DZ_RANS_MAX)
        return DZ_OK;
    size_t columns = (size_t)rows->columns, first = (size_t)rows->first, lead = (columns - first) % columns;
    size_t nrows = count > lead ? (count - lead) / columns : 0;
    if (nrows < ROWS_MIN) return DZ_OK;
    moments m = {.sum = dz_alloc(2 * columns, sizeof *m.sum, err)};
    if (!m.sum) return err->rc;
    m.squares = m.sum + columns;
    dz_rc rc = measure(&m, (const uint8_t *)words + lead * dz_dtype_size(dtype), dtype, columns, nrows, err);
    if (rc == DZ_OK && worth_it(&m, columns)) {
        found->columns = columns, found->first = first;
        found->group = dz_alloc_raw(columns, 1, err);
        if (found->group) choose_groups(found, &m);
        rc = found->group ? list_groups(found, count, err) : err->rc;
    }
    free(m.sum);
    if (rc != DZ_OK || found->ngroups < 2) dz_columns_free(found);
    return rc;
}

void dz_columns_free(dz_columns *c) {
    free(c->group);
    free(c->order);
    *c = (dz_columns){0};
}

/* ---- bytes ---- */

dz_rc dz_columns_put(dz_buf *out, const dz_columns *c, dz_error *err) {
    uint8_t n = (uint8_t)c->ngroups;
    dz_rc rc = dz_buf_put_varint(out, c->columns, err);
    if (rc == DZ_OK) rc = dz_buf_put_varint(out, c->first, err);
    if (rc == DZ_OK) rc = dz_buf_put(out, &n, 1, err);
    return rc == DZ_OK ? dz_plane_put(out, c->group, c->columns, err) : rc;
}

dz_rc dz_columns_get(dz_columns *c, dz_dtype dtype, size_t count, dz_view *view, dz_error *err) {
    uint64_t columns = dz_view_varint(view), first = dz_view_varint(view);
    unsigned ngroups = dz_view_u8(view);
    *c = (dz_columns){0};
    if (view->bad || !dz_intervals_fit(dtype) || columns == 0 || columns > count || first >= columns || ngroups == 0 ||
        ngroups > DZ_COLUMNS_GROUPS)
        return dz_fail(err, DZ_EDAMAGE, "%u groups of columns of %zu elements are not possible", ngroups, count);
    *c = (dz_columns){.columns = (size_t)columns, .first = (size_t)first, .ngroups = ngroups};
    c->group = dz_alloc_raw(c->columns, 1, err);
    dz_rc rc = c->group ? dz_plane_get(view, c->group, c->columns, err) : err->rc;
    for (size_t i = 0; i < c->columns && rc == DZ_OK; i++) {
        if (c->group[i] / 2 >= ngroups) rc = dz_fail(err, DZ_EDAMAGE, "column %zu is in group %u of %u", i, c->group[i] / 2U, ngroups);
    }
    if (rc == DZ_OK) rc = list_groups(c, count, err);
    for (unsigned g = 0; g < ngroups && rc == DZ_OK; g++) {
        if (c->at[g] == c->at[g + 1]) rc = dz_fail(err, DZ_EDAMAGE, "group %u of columns has no elements", g);
    }
    if (rc != DZ_OK) dz_columns_free(c);
    return rc;
}

/* ---- elements ---- */

/* Copies an element, its sign inverted where `inverted` is odd. */
DZ_INLINE void copy_element(uint8_t *to, const uint8_t *from, unsigned inverted, size_t size) {
    uint16_t half;
    uint32_t word;
    if (size == 2) {
        memcpy(&half, from, 2);
        half ^= (uint16_t)(inverted << 15);
        memcpy(to, &half, 2);
    } else {
        memcpy(&word, from, 4);
        word ^= (uint32_t)inverted << 31;
        memcpy(to, &word, 4);
    }
}

/* The elements of one row, from column `from` to `end`, to or from the places at[] of their groups, which move on. `whole`: all columns. */
DZ_INLINE void copy_row(uint8_t *restrict row, uint8_t *restrict groups, size_t at[DZ_COLUMNS_GROUPS], const dz_columns *c, size_t from,
                        size_t end, size_t size, int to_groups, int whole) {
    const uint32_t *order = c->order;
    const uint8_t *inverted = c->group;
    for (unsigned g = 0; g < c->ngroups; g++) {
        uint8_t *place = groups + at[g] * size;
        for (size_t j = c->start[g], last = c->start[g + 1]; j < last; j++) {
            size_t column = order[j];
            if (!whole && (column < from || column >= end)) continue;
            uint8_t *element = row + (column - from) * size;
            if (to_groups) {
                copy_element(place, element, inverted[column], size);
            } else {
                copy_element(element, place, inverted[column], size);
            }
            place += size;
        }
        at[g] = (size_t)(place - groups) / size;
    }
}

DZ_INLINE void copy_all(uint8_t *words, uint8_t *groups, size_t size, size_t count, const dz_columns *c, int to_groups) {
    size_t at[DZ_COLUMNS_GROUPS], column = c->first;
    memcpy(at, c->at, sizeof at);
    for (size_t done = 0; done < count; column = 0) {
        size_t n = c->columns - column < count - done ? c->columns - column : count - done;
        if (n == c->columns) {
            copy_row(words + done * size, groups, at, c, 0, n, size, to_groups, 1);
        } else {
            copy_row(words + done * size, groups, at, c, column, column + n, size, to_groups, 0);
        }
        done += n;
    }
}

void dz_columns_gather(void *groups, const void *words, size_t size, size_t count, const dz_columns *c) {
    uint8_t *from = (uint8_t *)(uintptr_t)words;
    size == 2 ? copy_all(from, groups, 2, count, c, 1) : copy_all(from, groups, 4, count, c, 1);
}

void dz_columns_scatter(void *words, const void *groups, size_t size, size_t count, const dz_columns *c) {
    uint8_t *from = (uint8_t *)(uintptr_t)groups;
    size == 2 ? copy_all(words, from, 2, count, c, 0) : copy_all(words, from, 4, count, c, 0);
}

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "numeric/slq_quadrature.h"
#include "numeric/tracenorm.h"

/* Stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017) by Golub-Kahan bidiagonalisation. Vectors are float, every reduction over a
 * vector is double in a fixed order of 8 lanes, so that compilers, vector units and machines agree on the bits.
 *
 * A block is 1 or 4 probes, stored with the probe as the fastest index: an entry's index and level are loaded once for all, and 4 floats
 * are one vector register on every machine we know. (2 probes would cost nearly what 4 do.) The transposed product scatters over the same
 * CSR. Measured on an EPYC: 0.6 ns per entry, against 0.5 ns for the gather of a CSC copy that takes 1.3 ns per entry to build. */

#define WIDE 4
#define LANES 8
#define FIRST_CHECK 4  /* steps before the estimate is looked at; also the least allowed */
#define BREAKDOWN 2e-6 /* a coefficient below this share of the largest is rounding: floats end the recurrence here */

typedef float wide __attribute__((vector_size(4 * WIDE), may_alias));
typedef double wide_double __attribute__((vector_size(8 * WIDE)));
typedef float single __attribute__((may_alias));

/* y = A x (rows from columns) and y = A^T x, for one vector or for four. Four sums per row hide the latency of addition. */
#define DEFINE_PRODUCTS(type)                                                                                                              \
    static void gather_##type(const dz_sparse *a, const float *value, const float *restrict from, float *restrict to) {                    \
        const type *restrict x = (const type *)from;                                                                                       \
        type *restrict y = (type *)to;                                                                                                     \
        for (uint64_t row = 0; row < a->rows; row++) {                                                                                     \
            uint64_t k = a->row_start[row], end = a->row_start[row + 1];                                                                   \
            const uint32_t *col = a->col;                                                                                                  \
            const uint8_t *level = a->level;                                                                                               \
            type s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                                                                                   \
            for (; k + 4 <= end; k += 4) {                                                                                                 \
                s0 += value[level[k]] * x[col[k]];                                                                                         \
                s1 += value[level[k + 1]] * x[col[k + 1]];                                                                                 \
                s2 += value[level[k + 2]] * x[col[k + 2]];                                                                                 \
                s3 += value[level[k + 3]] * x[col[k + 3]];                                                                                 \
            }                                                                                                                              \
            for (; k < end; k++) s0 += value[level[k]] * x[col[k]];                                                                        \
            y[row] = (s0 + s1) + (s2 + s3);                                                                                                \
        }                                                                                                                                  \
    }                                                                                                                                      \
    static void scatter_##type(const dz_sparse *a, const float *value, const float *restrict from, float *restrict to) {                   \
        const type *restrict x = (const type *)from;                                                                                       \
        type *restrict y = (type *)to;                                                                                                     \
        for (uint64_t row = 0; row < a->rows; row++) {                                                                                     \
            const type t = x[row];                                                                                                         \
            for (uint64_t k = a->row_start[row]; k < a->row_start[row + 1]; k++) y[a->col[k]] += value[a->level[k]] * t;                   \
        }                                                                                                                                  \
    }

DEFINE_PRODUCTS(single)
DEFINE_PRODUCTS(wide)

/* A block of probes on its way. "Small" is the shorter side of the matrix in use, where the probes live; "large" is the other. Lengths are
 * in floats, all probes together, padded with zeros to a multiple of LANES. */
typedef struct block {
    const dz_sparse *a;
    const float *value; /* scaled table */
    int width;          /* 1 or WIDE */
    int by_rows;        /* the small side is the rows */
    size_t small_len, large_len;
    float *basis; /* v_1 .. v_steps+1, each small_len: kept for reorthogonalisation */
    float *u;     /* large_len */
    float *next;  /* large_len: the next u before it is normalised */
    double beta[WIDE];
    dz_slq_probe *probe; /* width of them */
    int steps_done;
} block;

static size_t padded(uint64_t count, int width) { return ((size_t)count * (size_t)width + LANES - 1) / LANES * LANES; }

/* Products into a cleared vector. */
static void to_large(const block *b, const float *restrict x, float *restrict y) {
    if (!b->by_rows) {
        (b->width == 1 ? gather_single : gather_wide)(b->a, b->value, x, y);
        return;
    }
    memset(y, 0, b->large_len * sizeof *y);
    (b->width == 1 ? scatter_single : scatter_wide)(b->a, b->value, x, y);
}

static void to_small(const block *b, const float *restrict x, float *restrict y) {
    if (b->by_rows) {
        (b->width == 1 ? gather_single : gather_wide)(b->a, b->value, x, y);
        return;
    }
    memset(y, 0, b->small_len * sizeof *y);
    (b->width == 1 ? scatter_single : scatter_wide)(b->a, b->value, x, y);
}

/* Inner products of each probe's vectors: lane t % 8 belongs to probe t % width. */
static void dots(const float *restrict x, const float *restrict y, size_t len, int width, double *restrict out) {
    const wide *restrict p = (const wide *)x, *restrict q = (const wide *)y;
    wide_double low = {0}, high = {0};
    for (size_t i = 0; i < len / WIDE; i += 2) {
        low += __builtin_convertvector(p[i], wide_double) * __builtin_convertvector(q[i], wide_double);
        high += __builtin_convertvector(p[i + 1], wide_double) * __builtin_convertvector(q[i + 1], wide_double);
    }
    low += high;
    if (width == 1) {
        out[0] = (low[0] + low[2]) + (low[1] + low[3]);
    } else {
        for (int j = 0; j < WIDE; j++) out[j] = low[j];
    }
}

/* The factors of the probes, as the lanes of a vector need them. */
static wide spread(const double *factor, int width) {
    wide f;
    for (int t = 0; t < WIDE; t++) f[t] = (float)factor[t % width];
    return f;
}

/* y -= x * factor, per probe. */
static void subtract(float *restrict y, const float *restrict x, const double *factor, size_t len, int width) {
    wide *restrict p = (wide *)y;
    const wide *restrict q = (const wide *)x;
    const wide f = spread(factor, width);
    for (size_t i = 0; i < len / WIDE; i++) p[i] -= q[i] * f;
}

static void rescale(float *y, const double *factor, size_t len, int width) {
    wide *p = (wide *)y;
    const wide f = spread(factor, width);
    for (size_t i = 0; i < len / WIDE; i++) p[i] *= f;
}

/* Normalises each probe's vector and takes its length as the next coefficient. A probe whose vector is rounding has ended: it becomes 0. */
static void take_coefficient(block *b, float *y, size_t len, double *coef) {
    double square[WIDE], scale[WIDE];
    dots(y, y, len, b->width, square);
    for (int j = 0; j < b->width; j++) {
        dz_slq_probe *p = &b->probe[j];
        double largest = 0;
        for (int i = 0; i < p->count; i++) largest = p->coef[i] > largest ? p->coef[i] : largest;
        coef[j] = sqrt(square[j]);
        if (coef[j] <= BREAKDOWN * largest || coef[j] == 0) p->ended = 1;
        if (p->ended) coef[j] = 0;
        scale[j] = p->ended ? 0 : 1 / coef[j];
        if (!p->ended) p->coef[p->count++] = coef[j];
    }
    rescale(y, scale, len, b->width);
}

/* One step: u_k = A v_k - beta_(k-1) u_(k-1), v_(k+1) = A^T u_k - alpha_k v_k, both normalised. v is made orthogonal to all before it; u
 * then needs no such care (Simon and Zha 2000). */
static void bidiagonalise_step(block *b) {
    double alpha[WIDE], overlap[WIDE];
    float *v = b->basis + (size_t)b->steps_done * b->small_len, *v_next = v + b->small_len;
    to_large(b, v, b->next);
    if (b->steps_done > 0) subtract(b->next, b->u, b->beta, b->large_len, b->width);
    float *swap = b->u;
    b->u = b->next;
    b->next = swap;
    take_coefficient(b, b->u, b->large_len, alpha);

    to_small(b, b->u, v_next);
    subtract(v_next, v, alpha, b->small_len, b->width);
    for (int i = 0; i <= b->steps_done; i++) {
        const float *old = b->basis + (size_t)i * b->small_len;
        dots(v_next, old, b->small_len, b->width, overlap);
        subtract(v_next, old, overlap, b->small_len, b->width);
    }
    take_coefficient(b, v_next, b->small_len, b->beta);
    b->steps_done++;
}

/* Random signs where the matrix has entries, of unit length. Probe `first + j` of the matrix; 64 signs from each draw. */
static void draw_signs(block *b, const uint8_t *used, uint64_t count, uint64_t dim, uint64_t key, uint64_t first) {
    const float size = (float)(1 / sqrt((double)dim)), sign[2] = {-size, size};
    for (int j = 0; j < b->width; j++) {
        uint64_t bits = 0, stream = dz_u64_at(key, first + (uint64_t)j);
        for (uint64_t i = 0; i < count; i++, bits >>= 1) {
            if (i % 64 == 0) bits = dz_u64_at(stream, i / 64);
            b->basis[i * (size_t)b->width + (size_t)j] = sign[bits & 1] * (float)used[i];
        }
    }
}

static int all_ended(const dz_slq_probe *probe, int probes) {
    for (int j = 0; j < probes; j++) {
        if (!probe[j].ended) return 0;
    }
    return 1;
}

typedef struct side {
    uint8_t *row_used, *col_used;
    uint64_t dim; /* used rows or columns, whichever are fewer */
    int by_rows;
} side;

static uint64_t count_used(const uint8_t *used, uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) sum += used[i];
    return sum;
}

static dz_rc look_at_sides(const dz_sparse *a, side *s, double *square_sum, dz_error *err) {
    s->row_used = dz_alloc(a->rows, 1, err);
    s->col_used = s->row_used ? dz_alloc(a->cols, 1, err) : NULL;
    if (!s->col_used) return DZ_ENOMEM;
    dz_rc rc = dz_sparse_check(a, square_sum, s->row_used, s->col_used, err);
    if (rc != DZ_OK) return rc;
    uint64_t rows = count_used(s->row_used, a->rows), cols = count_used(s->col_used, a->cols);
    s->by_rows = rows < cols;
    s->dim = s->by_rows ? rows : cols;
    return DZ_OK;
}

static dz_rc block_init(block *b, const dz_sparse *a, const side *s, const dz_slq_options *opt, dz_error *err) {
    b->a = a;
    b->by_rows = s->by_rows;
    b->width = opt->probes == 1 ? 1 : WIDE;
    b->small_len = padded(s->by_rows ? a->rows : a->cols, b->width);
    b->large_len = padded(s->by_rows ? a->cols : a->rows, b->width);
    b->basis = dz_alloc(b->small_len * (size_t)(opt->steps + 1), sizeof *b->basis, err);
    b->u = b->basis ? dz_alloc(b->large_len, sizeof *b->u, err) : NULL;
    b->next = b->u ? dz_alloc(b->large_len, sizeof *b->next, err) : NULL;
    return b->next ? DZ_OK : DZ_ENOMEM;
}

/* Runs the first block until the estimate settles. Returns its last change. */
static double run_until_settled(block *b, double dim, double square_sum, const dz_slq_options *opt, dz_slq_estimate *estimate) {
    double change = 0;
    while (b->steps_done < opt->steps && !all_ended(b->probe, b->width)) {
        bidiagonalise_step(b);
        if (b->steps_done < FIRST_CHECK - 1) continue;
        const dz_slq_estimate *before = b->steps_done == FIRST_CHECK - 1 ? NULL : estimate;
        double last = estimate->norm;
        *estimate = dz_slq_evaluate(b->probe, b->width, 2 * b->steps_done, dim, square_sum, before);
        change = fabs(estimate->norm - last);
        if (b->steps_done >= FIRST_CHECK && change <= opt->tolerance * estimate->norm) break;
    }
    return all_ended(b->probe, b->width) ? 0 : change;
}

/* A value scaled by a power of two such that the entries' root mean square is near 1: no float overflows or vanishes on the way. */
static int scale_values(const dz_sparse *a, double *square_sum, float *scaled) {
    int exponent;
    frexp(sqrt(*square_sum / (double)a->row_start[a->rows]), &exponent);
    for (int i = 0; i < 256; i++) scaled[i] = (float)ldexp((double)a->value[i], -exponent);
    *square_sum = ldexp(*square_sum, -2 * exponent);
    return exponent;
}

static dz_rc check_options(const dz_slq_options *opt, dz_error *err) {
    if (opt->steps < FIRST_CHECK || opt->steps > DZ_SLQ_MAX_STEPS)
        return dz_fail(err, DZ_EUSAGE, "trace norm: %d Lanczos steps (want %d .. %d)", opt->steps, FIRST_CHECK, DZ_SLQ_MAX_STEPS);
    if (opt->probes < 1 || opt->probes > DZ_SLQ_MAX_PROBES)
        return dz_fail(err, DZ_EUSAGE, "trace norm: %d probes (want 1 .. %d)", opt->probes, DZ_SLQ_MAX_PROBES);
    if (!(opt->tolerance >= 0 && opt->tolerance < 1))
        return dz_fail(err, DZ_EUSAGE, "trace norm: tolerance %g (want 0 .. 1)", opt->tolerance);
    return DZ_OK;
}

dz_rc dz_tracenorm_slq(const dz_sparse *a, const dz_slq_options *opt, double *norm, double *variance, dz_error *err) {
    side s = {0};
    block b = {0};
    dz_slq_probe probe[DZ_SLQ_MAX_PROBES];
    dz_slq_estimate estimate = {0};
    float scaled[256];
    double square_sum = 0, change = 0;
    int exponent = 0, steps = 0;

    dz_rc rc = check_options(opt, err);
    if (rc == DZ_OK) rc = look_at_sides(a, &s, &square_sum, err);
    if (rc != DZ_OK || square_sum == 0) goto out;
    if ((rc = block_init(&b, a, &s, opt, err)) != DZ_OK) goto out;
    exponent = scale_values(a, &square_sum, scaled);
    b.value = scaled;
    memset(probe, 0, sizeof probe);

    int probes = opt->probes == 1 ? 1 : (opt->probes + WIDE - 1) / WIDE * WIDE;
    for (int first = 0; first < probes; first += b.width) {
        b.probe = probe + first;
        b.steps_done = 0;
        draw_signs(&b, s.by_rows ? s.row_used : s.col_used, s.by_rows ? a->rows : a->cols, s.dim, opt->key, (uint64_t)first);
        if (first == 0) {
            change = run_until_settled(&b, (double)s.dim, square_sum, opt, &estimate);
            steps = b.steps_done > FIRST_CHECK ? b.steps_done : FIRST_CHECK;
        } else {
            while (b.steps_done < steps && !all_ended(b.probe, b.width)) bidiagonalise_step(&b);
        }
    }
    if (probes > b.width || all_ended(probe, probes)) estimate = dz_slq_evaluate(probe, probes, 2 * steps, (double)s.dim, square_sum, NULL);
    estimate.variance += change * change;

    /* ||A||_F <= trace norm <= sqrt(rank) ||A||_F: exact for a single row or column, and for rank 1 when every probe missed it. */
    double low = sqrt(square_sum), high = sqrt((double)s.dim) * low;
    estimate.norm = estimate.norm < low ? low : estimate.norm > high ? high : estimate.norm;
out:
    if (rc == DZ_OK) {
        *norm = ldexp(estimate.norm, exponent);
        if (variance) *variance = ldexp(estimate.variance, 2 * exponent);
    }
    free(s.row_used);
    free(s.col_used);
    free(b.basis);
    free(b.u);
    free(b.next);
    return rc;
}

#include "synth/synth_delta.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "base/hash.h"
#include "base/mem.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* gcc -std=c11 does not contract: the same values from both, with or without fused multiply-add */
#endif

/* A draw takes 64 random bits: the lowest is the sign, the upper 53 are an integer m, and u = m / 2^54 in (0, 1/2) is the tail probability
 * beyond the drawn magnitude. m as a double IS the table index: its exponent is the octave, its first 8 mantissa bits the cell, the rest
 * the place within the cell. */
#define FLOOR_BITS 12 /* m is at least 2^12, u at least 2^-42 */
#define FLOOR ((uint64_t)1 << FLOOR_BITS)
#define CELL_BITS 8
#define OCTAVES (53 - FLOOR_BITS)
#define CELLS (OCTAVES << CELL_BITS)
#define FIRST_CELL ((uint64_t)(1023 + FLOOR_BITS) << CELL_BITS)
#define NLAWS (DZ_SYNTH_DF_MAX - DZ_SYNTH_DF_MIN + 2)
#define RUN_IN 16 /* octaves integrated before the first cell */

#define LEFT_SALT 0x6c6566746c656674ULL
#define RIGHT_SALT 0x7269676874726967ULL
#define ROW_SALT 0x726f77726f77726fULL

typedef struct cell {
    float at, slope; /* magnitude at the cell's lower u, and its change over the cell (negative) */
} cell;

struct dz_synth_tables {
    cell laws[NLAWS][CELLS]; /* 0: normal, then t of 4, 5, .. degrees of freedom */
};

static size_t law_index(int df) { return df == 0 ? 0 : (size_t)(df - DZ_SYNTH_DF_MIN + 1); }

static double density(int df, double x) {
    if (df == 0) return exp(-0.5 * x * x) / sqrt(2 * M_PI);
    double scale = tgamma(0.5 * (df + 1)) / (tgamma(0.5 * df) * sqrt(df * M_PI));
    return scale * pow(1 + x * x / df, -0.5 * (df + 1));
}

/* Leading terms of P(X > x) for large x. */
static double far_tail(int df, double x) { return df == 0 ? density(0, x) / x * (1 - 1 / (x * x)) : density(df, x) * x / df; }

static double far_quantile(int df, double u) {
    double low = 2, high = 1e9;
    for (int i = 0; i < 200; i++) {
        double middle = sqrt(low * high);
        if (far_tail(df, middle) > u)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* One Runge-Kutta step of dx/du = -1/f(x) over [u, u + h]. Upwards in u errors shrink as 1/u, so the asymptotic start does not show. */
static double quantile_step(int df, double x, double h) {
    double k1 = -1 / density(df, x);
    double k2 = -1 / density(df, x + 0.5 * h * k1);
    double k3 = -1 / density(df, x + 0.5 * h * k2);
    double k4 = -1 / density(df, x + h * k3);
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4);
}

static void fill_cells(int df, cell *cells) {
    double unit = df == 0 ? 1 : sqrt((df - 2.0) / df); /* to unit variance */
    double x = far_quantile(df, ldexp(1, FLOOR_BITS - RUN_IN - 54));
    for (int octave = -RUN_IN; octave < OCTAVES; octave++) {
        double h = ldexp(1, FLOOR_BITS + octave - 54 - CELL_BITS);
        for (int i = 0; i < 1 << CELL_BITS; i++) {
            double next = quantile_step(df, x, h);
            if (octave == OCTAVES - 1 && i == (1 << CELL_BITS) - 1) next = 0; /* the median; reached to 1e-12 */
            if (octave >= 0) cells[(octave << CELL_BITS) + i] = (cell){(float)(unit * x), (float)(unit * (next - x))};
            x = next;
        }
    }
}

dz_rc dz_synth_tables_new(dz_synth_tables **out, dz_error *err) {
    dz_synth_tables *tables = dz_alloc_raw(1, sizeof *tables, err);
    if (!tables) return err->rc;
    fill_cells(0, tables->laws[0]);
    for (int df = DZ_SYNTH_DF_MIN; df <= DZ_SYNTH_DF_MAX; df++) fill_cells(df, tables->laws[law_index(df)]);
    *out = tables;
    return DZ_OK;
}

static inline float magnitude(const cell *cells, uint64_t m) {
    double value = (double)(int64_t)(m > FLOOR ? m : FLOOR);
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const cell *c = &cells[(bits >> (52 - CELL_BITS)) - FIRST_CELL];
    float within = (float)(int32_t)((bits >> (52 - CELL_BITS - 24)) & 0xffffff) * 0x1p-24f;
    return c->at + within * c->slope;
}

static inline float draw(const cell *cells, uint64_t bits) {
    float x = magnitude(cells, bits >> 11);
    return dz_bits_to_float(dz_float_bits(x) ^ (uint32_t)(bits & 1) << 31);
}

double dz_synth_quantile(const dz_synth_tables *tables, int df, double upper) {
    if (upper >= 0.5) return 0;
    return (double)magnitude(tables->laws[law_index(df)], (uint64_t)(upper * 0x1p54));
}

size_t dz_synth_factor_size(const dz_synth_law *law) { return law->low_rank > 0 ? DZ_SYNTH_RANK * (size_t)law->cols : 0; }

void dz_synth_factor(const dz_synth_tables *tables, const dz_synth_law *law, float *restrict factor) {
    size_t count = dz_synth_factor_size(law);
    for (size_t i = 0; i < count; i++) factor[i] = draw(tables->laws[0], dz_u64_at(law->key ^ RIGHT_SALT, i));
}

/* dst[j] += sum_k left[k] * right[k * stride + j]. Sixteen columns at a time stay in registers; every element is summed in the order of k,
 * so that where a piece begins does not show. */
static void add_low_rank(float *restrict dst, const float *restrict left, const float *restrict right, size_t stride, size_t count) {
    enum { BLOCK = 16 };
    size_t j = 0;
    for (; j + BLOCK <= count; j += BLOCK) {
        float sum[BLOCK];
        memcpy(sum, dst + j, sizeof sum);
        for (size_t k = 0; k < DZ_SYNTH_RANK; k++) {
            for (size_t i = 0; i < BLOCK; i++) sum[i] += left[k] * right[k * stride + j + i];
        }
        memcpy(dst + j, sum, sizeof sum);
    }
    for (; j < count; j++) {
        for (size_t k = 0; k < DZ_SYNTH_RANK; k++) dst[j] += left[k] * right[k * stride + j];
    }
}

static int row_moves(const dz_synth_law *law, uint64_t row) {
    return law->moved_rows >= 1 || (double)(dz_u64_at(law->key ^ ROW_SALT, row) >> 11) * 0x1p-53 < law->moved_rows;
}

void dz_synth_values(const dz_synth_tables *tables, const dz_synth_law *law, const float *restrict factor, uint64_t first, size_t count,
                     float *restrict dst) {
    assert(law->cols > 0 && (law->df == 0 || (law->df >= DZ_SYNTH_DF_MIN && law->df <= DZ_SYNTH_DF_MAX)));
    assert(factor || dz_synth_factor_size(law) == 0);
    const cell *cells = tables->laws[law_index(law->df)];
    float mean = (float)law->mean, scale = (float)(law->std * sqrt(1 - law->low_rank));
    float left_scale = (float)(law->std * sqrt(law->low_rank / DZ_SYNTH_RANK));
    uint64_t row = first / law->cols, col = first % law->cols;
    for (size_t done = 0; done < count; row++, col = 0) {
        size_t n = law->cols - col < count - done ? (size_t)(law->cols - col) : count - done;
        float *at = dst + done;
        done += n;
        if (!row_moves(law, row)) {
            memset(at, 0, n * sizeof *at);
            continue;
        }
        uint64_t index = row * law->cols + col;
        for (size_t i = 0; i < n; i++) at[i] = mean + scale * draw(cells, dz_u64_at(law->key, index + i));
        if (law->low_rank <= 0) continue;
        float left[DZ_SYNTH_RANK];
        for (size_t k = 0; k < DZ_SYNTH_RANK; k++)
            left[k] = left_scale * draw(tables->laws[0], dz_u64_at(law->key ^ LEFT_SALT, row * DZ_SYNTH_RANK + k));
        add_low_rank(at, left, factor + col, (size_t)law->cols, n);
    }
}

/* Rate and noise of the codings of rotated tiles on normal numbers, against the functions that promise them and the bound that no
 * coding passes; processor time of one core, without the rotation. Results: results/rate.md.
 *
 *   bench_rate [ELEMENTS]      default 4,194,304
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec/sparse_signs.h"
#include "codec/trellis.h"
#include "codec/uniform.h"
#include "numeric/gauss.h"
#include "numeric/rate.h"
#include "numeric/rotate.h"
#include "numeric/trellis.h"
#include "numeric/uniform_quantiser.h"

enum { REPEATS = 3, KEY = 3 };

static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double uniform(uint64_t key, uint64_t i) { return ((double)(dz_u64_at(key, i) >> 11) + 0.5) * 0x1p-53; }

static double gauss(uint64_t key, uint64_t i) {
    return sqrt(-2 * log(uniform(key, 2 * i))) * cos(6.283185307179586 * uniform(key, 2 * i + 1));
}

typedef struct figure {
    double bits, noise, product, encode, decode; /* an element; product: inner product with the truth over its square */
} figure;

typedef struct tile {
    size_t count;
    float *delta, *x, *y; /* the delta; rotated; decoded */
    double rotate;        /* seconds */
} tile;

static void check(dz_rc rc, const dz_error *err) {
    if (rc == DZ_OK) return;
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void measure(figure *f, const tile *t, double scale) {
    double xx = 0, xy = 0, yy = 0;
    for (size_t i = 0; i < t->count; i++) {
        double x = (double)t->x[i], y = scale * (double)t->y[i];
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    f->noise = yy * xx / (xy * xy) - 1; /* what is left of the blocks' rounded standard deviations is no noise */
    f->product = xy / xx;
}

/* A coding: t->x, which comes back rotated, into a body; the body into t->y. `rate`: its parameter. */
typedef void coder(dz_buf *body, tile *t, double rate, dz_error *err);

static void fill(const void *from, size_t first, size_t count, float *delta) {
    memcpy(delta, (const float *)from + first, count * sizeof *delta);
}

static void put_levels(dz_buf *body, tile *t, double step, dz_error *err) {
    uint64_t nonzeros;
    dz_uniform_encode(body, t->x, t->count, KEY, (float)step, dz_uniform_shift(step), &nonzeros, err);
}

static void take_levels(dz_buf *body, tile *t, double step, dz_error *err) {
    dz_uniform_decode(&(dz_blocks){.x = t->y}, body->data, body->len, t->count, (float)step, dz_uniform_shift(step), err);
}

static void put_message(dz_buf *body, tile *t, double rate, dz_error *err) {
    uint64_t nonzeros;
    dz_trellis_encode(body, fill, t->x, t->count, KEY, (float)rate, &nonzeros, err);
}

static void take_message(dz_buf *body, tile *t, double rate, dz_error *err) {
    dz_trellis_decode(&(dz_blocks){.x = t->y}, body->data, body->len, t->count, (float)rate, err);
}

static void put_signs(dz_buf *body, tile *t, double share, dz_error *err) {
    uint64_t signs[2];
    dz_signs_encode(body, t->x, t->count, KEY, share, signs, err);
}

static void take_signs(dz_buf *body, tile *t, double share, dz_error *err) {
    dz_nonzeros kept = {0};
    dz_signs_decode(&kept, body->data, body->len, t->count, share, err);
    memset(t->y, 0, t->count * sizeof *t->y);
    for (size_t i = 0; i < kept.count; i++) t->y[kept.index[i]] = kept.value[i];
    dz_nonzeros_free(&kept);
}

static figure of(tile *t, coder *put, coder *take, double rate, double scale) {
    figure f = {.encode = INFINITY, .decode = INFINITY};
    dz_error err = {0};
    dz_buf body = {0};
    for (int r = 0; r < REPEATS; r++) {
        memcpy(t->x, t->delta, t->count * sizeof *t->x);
        body.len = 0;
        double start = cpu_now();
        put(&body, t, rate, &err);
        double encoded = cpu_now();
        take(&body, t, rate, &err);
        f.encode = fmin(f.encode, encoded - start - t->rotate);
        f.decode = fmin(f.decode, cpu_now() - encoded);
        if (put == put_message) dz_rotate(t->x, t->count, KEY); /* it takes the delta from elsewhere */
        check(err.rc, &err);
    }
    f.bits = 8 * (double)body.len / (double)t->count;
    measure(&f, t, scale);
    dz_buf_free(&body);
    return f;
}

static double gap(figure f) { return f.bits - log2(1 + 1 / f.noise) / 2; }

int main(int argc, char **argv) {
    static const double rates[] = {0.02, 0.05, 0.1,  0.2, 0.3, 0.4,  0.5, 0.6, 0.7, 0.75, 0.76, 0.77, 0.775, 0.78, 0.8,
                                   0.9,  1,    1.25, 1.5, 2,   2.25, 2.5, 3,   3.5, 4,    4.5,  5,    6,     7,    8};
    tile t = {.count = argc > 1 ? strtoull(argv[1], NULL, 10) : (size_t)1 << 22, .rotate = INFINITY};
    t.delta = malloc(t.count * sizeof(float));
    t.x = malloc(t.count * sizeof(float));
    t.y = malloc(t.count * sizeof(float));
    if (!t.delta || !t.x || !t.y) return 1;
    for (size_t i = 0; i < t.count; i++) t.delta[i] = (float)(0.001 * gauss(11, i));
    for (int r = 0; r < REPEATS; r++) {
        memcpy(t.x, t.delta, t.count * sizeof *t.x);
        double start = cpu_now();
        dz_rotate(t.x, t.count, KEY);
        t.rotate = fmin(t.rotate, cpu_now() - start);
    }
    double ns = 1e9 / (double)t.count;
    printf("%zu normal elements; bits counted on the bodies; noise: of the unbiased estimate; bound: least noise of any coding; gap: bits\n"
           "above the bound. Times in ns an element without the rotation (%.1f); kernels %s.\n\n",
           t.count, t.rotate * ns, dz_kernels()->name);
    printf("| used | asked | bound | levels: bits | of promised | noise | of promised | gap | encode | decode | message: bits | noise | of "
           "promised | inner product | gap | encode | decode | signs: bits | noise | gap |\n|");
    for (int i = 0; i < 20; i++) printf("---|");
    printf("\n");
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        double step = dz_uniform_step_of_bits(rates[i]);
        figure f = of(&t, put_levels, take_levels, step, dz_uniform_scale(step));
        int uniform_used = dz_rate_of_step(dz_rate_step_of_bits(rates[i])).uniform;
        printf("| %s | %.3g | %.5g | %.4f | %+.2f %% | %.5g | %+.2f %% | %.3f | %.1f | %.1f |", uniform_used ? "levels" : "message",
               rates[i], 1 / (exp2(2 * rates[i]) - 1), f.bits, 100 * (f.bits / dz_uniform_bits(step) - 1), f.noise,
               100 * (f.noise / dz_uniform_noise(step) - 1), gap(f), f.encode * ns, f.decode * ns);
        if (rates[i] <= 1) {
            double share = dz_gauss_share_of_bits(rates[i]);
            figure m = of(&t, put_message, take_message, rates[i], 1), s = of(&t, put_signs, take_signs, share, 1 / dz_gauss_mean(share));
            printf(" %.4f | %.5g | %+.2f %% | %.4f | %.3f | %.1f | %.1f | %.4f | %.5g | %.3f |\n", m.bits, m.noise,
                   100 * (m.noise / dz_trellis_noise(rates[i], DZ_ROTATE_BLOCK) - 1), m.product, gap(m), m.encode * ns, m.decode * ns,
                   s.bits, s.noise, gap(s));
        } else {
            printf(" | | | | | | | | | |\n");
        }
    }
    free(t.delta);
    free(t.x);
    free(t.y);
    return 0;
}

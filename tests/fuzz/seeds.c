/* First inputs of the codecs' fuzz targets: seeds DIR writes DIR/lossless/... and DIR/kept/..., bodies of every kind from small tiles. */
#include <math.h>

#include "base/file.h"
#include "base/hash.h"
#include "codec/channels.h"
#include "codec/close.h"
#include "codec/intervals.h"
#include "codec/lossless.h"
#include "codec/near.h"
#include "codec/planes.h"
#include "codec/prediction.h"
#include "codec/sparse_signs.h"
#include "codec/sparse_values.h"
#include "codec/trellis.h"
#include "codec/uniform.h"
#include "target.h"

static const char *root;
static unsigned number, kinds; /* kinds: a bit for each kind of lossless body that was written */

static void put(const char *target, const uint8_t *head, size_t nhead, const dz_buf *body) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/seed-%03u", root, target, number++);
    if (strcmp(target, "lossless") == 0) kinds |= 1U << body->data[0];
    FILE *f = fopen(path, "wb");
    PROMISE(f && fwrite(head, 1, nhead, f) == nhead && fwrite(body->data, 1, body->len, f) == body->len && fclose(f) == 0);
}

/* The base of fuzz_lossless.c. */
static void fill_base(uint8_t *base, size_t nbytes, size_t count) {
    for (size_t i = 0; i < nbytes; i++) base[i] = (uint8_t)(dz_u64_at(count, i / 2) >> (8 * (i % 2)));
}

/* `how`: 0 as the base, 1 a few changed, 2 all moved a little, 3 noise, 4 one value, 5 few exponents. */
static void lossless(dz_dtype dtype, size_t count, int with_base, int how) {
    size_t nbytes = count * dz_dtype_size(dtype);
    uint8_t *base = malloc(nbytes + 1), *words = malloc(nbytes + 1);
    dz_buf body = {0};
    dz_error err = {0};
    PROMISE(base && words);
    fill_base(base, nbytes, count);
    memcpy(words, base, nbytes);
    for (size_t i = 0; i < nbytes; i++) {
        uint64_t r = dz_u64_at(77, i);
        if (how == 1 && r % 900 == 0) words[i] ^= (uint8_t)(r >> 20);
        if (how == 2 && i % dz_dtype_size(dtype) == 0) words[i] = (uint8_t)(words[i] + r % 7);
        if (how == 3) words[i] = (uint8_t)(r >> 9);
        if (how == 4) words[i] = 0x3c;
        if (how == 5 && (i + 1) % dz_dtype_size(dtype) == 0) words[i] = (uint8_t)(0x3b + (r % 7) / 3 + (r >> 40 & 0x80));
    }
    PROMISE(dz_lossless_encode(&body, words, with_base ? base : NULL, dtype, count, NULL, &err) == DZ_OK);
    put("lossless", (uint8_t[]){(uint8_t)((unsigned)dtype | (with_base ? 0x80U : 0)), (uint8_t)count, (uint8_t)(count >> 8)}, 3, &body);
    dz_buf_free(&body);
    free(base);
    free(words);
}

/* What only large tiles are written as, of a small one. */
static void near(dz_dtype dtype, size_t count) {
    uint16_t *base = malloc(2 * count), *words = malloc(2 * count);
    dz_buf body = {0};
    dz_error err = {0};
    int taken;
    PROMISE(base && words);
    fill_base((uint8_t *)base, 2 * count, count);
    for (size_t i = 0; i < count; i++) {
        uint64_t r = dz_u64_at(78, i);
        words[i] = (uint16_t)(base[i] + r % 9 + (r % 50 == 0 ? 3000 : 0));
    }
    PROMISE(dz_buf_put(&body, (uint8_t[]){DZ_LOSSLESS_NEAR}, 1, &err) == DZ_OK);
    PROMISE(dz_near_encode(&body, words, base, dtype, count, 1, &taken, &err) == DZ_OK && taken);
    put("lossless", (uint8_t[]){(uint8_t)((unsigned)dtype | 0x80U), (uint8_t)count, (uint8_t)(count >> 8)}, 3, &body);
    body.len = 0;
    PROMISE(dz_buf_put(&body, (uint8_t[]){DZ_LOSSLESS_CLOSE}, 1, &err) == DZ_OK);
    PROMISE(dz_close_encode(&body, words, base, dtype, count, DZ_CLOSE_ANYWAY, &taken, &err) == DZ_OK && taken);
    put("lossless", (uint8_t[]){(uint8_t)((unsigned)dtype | 0x80U), (uint8_t)count, (uint8_t)(count >> 8)}, 3, &body);
    dz_buf_free(&body);
    free(base);
    free(words);
}

/* What only large matrices are written as, of small ones: 300 elements in rows of 10, from the fourth one on. */
static void lowrank(dz_dtype dtype) {
    enum { COUNT = 300, COLUMNS = 10, ROWS = 31, RANK = 2 };
    int16_t u[ROWS * RANK], v[RANK * COLUMNS];
    dz_lowrank p = {.columns = COLUMNS, .first = 3, .rows = ROWS, .rank = RANK, .exponent = -12, .u = u, .v = v};
    uint8_t base[4 * COUNT], words[4 * COUNT], moved[4 * COUNT];
    dz_buf body = {0};
    dz_error err = {0};
    for (int i = 0; i < ROWS * RANK; i++) u[i] = (int16_t)(i * 37 - 900);
    for (int i = 0; i < RANK * COLUMNS; i++) v[i] = (int16_t)(i * 5 - 40);
    fill_base(base, COUNT * dz_dtype_size(dtype), COUNT);
    PROMISE(dz_lowrank_add(moved, base, dtype, COUNT, &p, &err) == DZ_OK);
    memcpy(words, moved, sizeof words);
    for (size_t i = 0; i < COUNT; i++) words[i * dz_dtype_size(dtype)] ^= (uint8_t)(i % 5);
    PROMISE(dz_buf_put(&body, (uint8_t[]){DZ_LOSSLESS_LOWRANK}, 1, &err) == DZ_OK && dz_lowrank_put(&body, &p, &err) == DZ_OK);
    PROMISE(dz_lossless_encode(&body, words, moved, dtype, COUNT, NULL, &err) == DZ_OK);
    put("lossless", (uint8_t[]){(uint8_t)((unsigned)dtype | 0x80U), COUNT & 255, COUNT >> 8}, 3, &body);
    dz_buf_free(&body);
}

/* 300 elements in rows of 4, from the second one on: two groups of columns, of 150 elements. */
static void columns(dz_dtype dtype) {
    enum { COUNT = 300, HALF = COUNT / 2 };
    uint8_t words[4 * HALF];
    dz_buf body = {0}, inner = {0};
    dz_error err = {0};
    PROMISE(dz_buf_put(&body, (uint8_t[]){DZ_LOSSLESS_COLUMNS, 4, 1, 2, DZ_PLANE_RAW, 0, 3, 2, 1}, 9, &err) == DZ_OK);
    for (uint64_t g = 0; g < 2; g++) {
        for (size_t i = 0; i < sizeof words; i++) words[i] = (uint8_t)((i & 1 ? 0x3b : dz_u64_at(80, i)) + g);
        inner.len = 0;
        PROMISE(dz_lossless_encode(&inner, words, NULL, dtype, HALF, NULL, &err) == DZ_OK);
        PROMISE(dz_buf_put_varint(&body, inner.len, &err) == DZ_OK && dz_buf_put(&body, inner.data, inner.len, &err) == DZ_OK);
    }
    put("lossless", (uint8_t[]){(uint8_t)dtype, COUNT & 255, COUNT >> 8}, 3, &body);
    dz_buf_free(&body);
    dz_buf_free(&inner);
}

/* Floats by themselves: exponents of a few octaves, signs even or nearly all alike, and mantissas with all of their bits or with 3, so that
 * nothing is below the keys. */
static void intervals(dz_dtype dtype, int alike, int coarse) {
    enum { COUNT = 1000 };
    float values[COUNT];
    uint8_t words[4 * COUNT];
    dz_buf body = {0};
    dz_error err = {0};
    for (uint64_t i = 0; i < COUNT; i++) {
        uint64_t r = dz_u64_at(81, i);
        float x = ldexpf(8 + (float)(coarse ? r & 7 : r % 8000) / (coarse ? 1 : 1000), -9 - (int)(r >> 20) % 5);
        values[i] = alike ? x : r >> 40 & 1 ? -x : x;
    }
    dz_narrow(words, values, dtype, COUNT);
    PROMISE(dz_buf_put(&body, (uint8_t[]){DZ_LOSSLESS_INTERVALS}, 1, &err) == DZ_OK);
    PROMISE(dz_intervals_encode(&body, words, dtype, COUNT, &err) == DZ_OK && body.data[2] >> 7 == alike);
    put("lossless", (uint8_t[]){(uint8_t)dtype, COUNT & 255, COUNT >> 8}, 3, &body);
    dz_buf_free(&body);
}

/* What only large tiles are written as: the base's elements but for the second and the last of four chunks, which are `inner`. */
static void sparse(dz_dtype dtype, int close) {
    enum { CHUNK = 256, COUNT = 4 * CHUNK - 100, CHANGED = 2 * CHUNK - 100 };
    uint8_t base[2 * COUNT], words[2 * CHANGED], from[2 * CHANGED];
    dz_buf body = {0};
    dz_error err = {0};
    int taken = 1;
    fill_base(base, sizeof base, COUNT);
    memcpy(from, base + 2 * CHUNK, 2 * CHUNK);
    memcpy(from + 2 * CHUNK, base + 6 * CHUNK, sizeof from - 2 * CHUNK);
    memcpy(words, from, sizeof words);
    for (size_t i = 0; i < sizeof words; i += 2) words[i] ^= (uint8_t)(i % 3);
    PROMISE(dz_buf_put(&body, (uint8_t[]){DZ_LOSSLESS_SPARSE, 8, DZ_PLANE_RAW, 0x0a}, 4, &err) == DZ_OK);
    if (close) {
        PROMISE(dz_buf_put(&body, (uint8_t[]){DZ_LOSSLESS_CLOSE}, 1, &err) == DZ_OK);
        PROMISE(dz_close_encode(&body, words, from, dtype, CHANGED, DZ_CLOSE_ANYWAY, &taken, &err) == DZ_OK && taken);
    } else {
        PROMISE(dz_buf_put(&body, (uint8_t[]){DZ_LOSSLESS_RAW}, 1, &err) == DZ_OK && dz_buf_put(&body, words, sizeof words, &err) == DZ_OK);
    }
    uint8_t back[2 * COUNT];
    PROMISE(dz_lossless_decode(back, base, dtype, COUNT, body.data, body.len, &err) == DZ_OK);
    put("lossless", (uint8_t[]){(uint8_t)((unsigned)dtype | 0x80U), COUNT & 255, COUNT >> 8}, 3, &body);
    dz_buf_free(&body);
}

enum { MOST = 4096 };

static void kept_head(uint8_t head[11], unsigned bits, size_t count, uint64_t key) {
    head[0] = (uint8_t)bits;
    head[1] = (uint8_t)count;
    head[2] = (uint8_t)(count >> 8);
    for (int i = 0; i < 8; i++) head[3 + i] = (uint8_t)(key >> (8 * i));
}

static void kept(unsigned bits, size_t count, double sparsity, int golomb, uint64_t key) {
    static uint8_t levels[MOST];
    uint64_t members[DZ_MAX_LEVELS] = {0}, quota[DZ_MAX_LEVELS] = {0};
    dz_grid_levels grid = dz_grid_levels_over(-1, 1.5f, bits);
    for (size_t i = 0; i < count; i++) {
        double u = ((double)(dz_u64_at(key, i) >> 32) - 2147483648.0) / 2147483648.0;
        levels[i] = (uint8_t)((u * u * u + 1) / 2 * ((1 << bits) - 1) + 0.5);
        members[levels[i]]++;
    }
    dz_quotas(quota, members, &grid, sparsity, 0);
    dz_candidates sieve = {0};
    dz_selection s = {0};
    dz_buf body = {0};
    dz_error err = {0};
    uint8_t head[11];
    dz_candidates_begin(&sieve, key, bits, UINT32_MAX, DZ_RARE);
    PROMISE(dz_candidates_add(&sieve, levels, count, &err) == DZ_OK);
    dz_candidates_end(&sieve);
    PROMISE(dz_select(&sieve, quota, &s, &err) == DZ_OK && dz_nonzeros_encode(&body, &sieve, quota, &s, golomb, &err) == DZ_OK);
    kept_head(head, bits, count, key);
    put("kept", head, sizeof head, &body);
    dz_candidates_free(&sieve);
    dz_selection_free(&s);
    dz_buf_free(&body);
}

static void values(size_t count, int seeded, uint64_t key) {
    static float delta[MOST];
    for (size_t i = 0; i < count; i++) delta[i] = (float)((double)dz_u64_at(key, i) / 1.8446744e19 - 0.5);
    dz_buf body = {0};
    dz_error err = {0};
    uint8_t head[11];
    uint64_t n = 0;
    if (seeded)
        dz_values_encode_seeded(&body, delta, count, key, UINT32_MAX / 20, &n, &err);
    else
        dz_values_encode_largest(&body, delta, count, count / 20, &err);
    PROMISE(err.rc == DZ_OK);
    kept_head(head, 16, count, key);
    put("kept", head, sizeof head, &body);
    dz_buf_free(&body);
}

static void signs(size_t count, double share, uint64_t key) {
    static float delta[MOST];
    uint8_t head[11];
    uint64_t kept[2], share24 = (uint64_t)(share * (1 << 24));
    dz_buf body = {0};
    dz_error err = {0};
    for (size_t i = 0; i < count; i++) delta[i] = (float)((double)dz_u64_at(key, i) / 1.8446744e19 - 0.5);
    PROMISE(dz_signs_encode(&body, delta, count, key, (double)share24 / (1 << 24), kept, &err) == DZ_OK);
    kept_head(head, 17, count - 1, share24 << 40);
    put("kept", head, sizeof head, &body);
    dz_buf_free(&body);
}

static void uniform(size_t count, float step, uint64_t key) {
    static float delta[MOST];
    uint8_t head[11];
    uint64_t nonzeros;
    dz_buf body = {0};
    dz_error err = {0};
    for (size_t i = 0; i < count; i++) delta[i] = (float)((double)dz_u64_at(key, i) / 1.8446744e19 - 0.5) * (i % 500 ? 1 : 50);
    PROMISE(dz_uniform_encode(&body, delta, count, key, step, 0.25f, &nonzeros, &err) == DZ_OK);
    kept_head(head, DZ_BITS_UNIFORM, count - 1, (uint64_t)1 << 46 | dz_float_bits(step));
    put("kept", head, sizeof head, &body);
    dz_buf_free(&body);
}

static void fill(const void *tile, size_t first, size_t count, float *delta) {
    memcpy(delta, (const float *)tile + first, count * sizeof *delta);
}

static void trellis(size_t count, float rate, int channels, uint64_t key) {
    static float delta[MOST];
    uint8_t head[11];
    uint64_t nonzeros;
    dz_buf body = {0};
    dz_error err = {0};
    for (size_t i = 0; i < count; i++) delta[i] = (float)((double)dz_u64_at(key, i) / 1.8446744e19 - 0.5);
    const dz_channels four = {.code = (const int8_t[]){-3, 0, 2, 8}, .count = 4, .stride = 1};
    if (channels) PROMISE(dz_channels_put(&body, &four, &err) == DZ_OK);
    if (channels == 2) { /* with a prediction, and bits of each block */
        int16_t u[MOST], v[] = {-1000, 17};
        dz_lowrank p = {.columns = 2, .first = 1, .rows = count / 2 + 1, .rank = 1, .exponent = -14, .u = u, .v = v};
        for (size_t i = 0; i < p.rows; i++) u[i] = (int16_t)(dz_u64_at(key, i) % 300 - 150);
        dz_buf_put(&body, (uint8_t[]){DZ_BODY_PREDICTED}, 1, &err);
        PROMISE(dz_lowrank_put(&body, &p, &err) == DZ_OK);
        PROMISE(dz_trellis_encode_evenly(&body, fill, delta, count, key, 0.02, &nonzeros, &err) == DZ_OK);
    } else {
        PROMISE(dz_trellis_encode(&body, fill, delta, count, key, rate, &nonzeros, &err) == DZ_OK);
    }
    kept_head(head, DZ_BITS_TRELLIS, count - 1, dz_float_bits(rate));
    put("kept", head, sizeof head, &body);
    dz_buf_free(&body);
}

int main(int argc, char **argv) {
    PROMISE(argc == 2);
    root = argv[1];
    static const dz_dtype dtypes[] = {DZ_BF16, DZ_F16, DZ_F32, DZ_F64, DZ_I8, DZ_OPAQUE};
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        for (int how = 0; how < 6; how++) {
            lossless(dtypes[d], how == 3 ? 40 : 1500, 0, how);
            lossless(dtypes[d], how == 3 ? 40 : 3000, 1, how);
        }
    }
    lossless(DZ_F32, 0, 0, 0);
    near(DZ_BF16, 3000);
    near(DZ_F16, 3001);
    for (size_t d = 0; d < 3; d++) {
        lowrank(dtypes[d]);
        columns(dtypes[d]);
        for (int how = 0; how < 4; how++) intervals(dtypes[d], how & 1, how >> 1);
    }
    for (size_t d = 0; d < 4; d++) sparse(dtypes[d / 2], d % 2);
    for (unsigned kind = DZ_LOSSLESS_EQUAL; kind <= DZ_LOSSLESS_CLOSE; kind++) PROMISE(kinds >> kind & 1); /* of each kind a seed */
    for (unsigned bits = 1; bits <= 8; bits++) {
        kept(bits, 2000, 0.9, 0, 1000 + bits);
        kept(bits, 600, 0.97, 1, 2000 + bits);
    }
    kept(4, 4000, 0.3, 0, 5);
    kept(2, 4000, 1, 0, 6);
    values(2000, 1, 7);
    values(2000, 0, 8);
    signs(3000, 0.01, 9);
    signs(777, 0.3, 10);
    signs(1, 0.5, 11);
    uniform(4000, 2, 12);
    uniform(3000, 0.01f, 13);
    uniform(300, 0.5f, 14);
    uniform(1, 1, 15);
    trellis(1501, 0.04f, 2, 20);
    trellis(4000, 0.04f, 0, 16);
    trellis(4000, 0.04f, 1, 19);
    trellis(500, 0.6f, 0, 17);
    trellis(1, 1, 0, 18);
    return 0;
}

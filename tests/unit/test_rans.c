/* Streams of rANS: whatever was coded comes back; a stream that has bytes left over, ends too early or does not end in its first states is
 * damage, as FORMAT.md "Lossy tiles" wants it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "codec/rans.h"

static uint32_t draw(uint64_t *state) {
    *state = dz_hash64(state, sizeof *state, 7);
    return (uint32_t)(*state >> 32);
}

/* `skew` small values more often than large ones; below `most`. */
static void fill(uint8_t *symbols, size_t count, unsigned most, int skew, uint64_t *state) {
    for (size_t i = 0; i < count; i++) {
        uint32_t x = draw(state) % most;
        for (int k = 0; k < skew; k++) x = (uint32_t)((uint64_t)x * (draw(state) >> 8) >> 24);
        symbols[i] = (uint8_t)x;
    }
}

static void streams_come_back(void **unused) {
    (void)unused;
    static const size_t counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 64, 1000, 4099, 100000};
    uint64_t state = 1;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        for (unsigned most = 1; most <= 256; most = most * 3 + 1) {
            for (int skew = 0; skew < 4; skew++) {
                size_t n = counts[i];
                dz_error err = {0};
                dz_buf coded = {0};
                uint8_t *in = malloc(n), *out = calloc(n, 1);
                assert_non_null(in);
                assert_non_null(out);
                fill(in, n, most, skew, &state);
                assert_int_equal(dz_rans_encode(&coded, in, n, &err), DZ_OK);
                assert_int_equal(dz_rans_decode(out, n, coded.data, coded.len, &err), DZ_OK);
                assert_memory_equal(in, out, n);
                dz_buf_free(&coded);
                free(in);
                free(out);
            }
        }
    }
}

/* Long and short ones, empty ones, stored ones, some of a fraction of a bit a symbol: together they give what each gives alone, and one
 * that is damaged among them is found. */
static void several_streams_come_back_together(void **unused) {
    (void)unused;
    enum { N = 11 };
    static const size_t counts[N] = {60000, 3, 0, 50000, 1, 200, 4, 100001, 5, 0, 31};
    uint64_t state = 11;
    for (unsigned round = 0; round < 40; round++) {
        dz_rans_stream streams[N] = {{0}};
        uint8_t *in[N];
        dz_error err = {0};
        for (size_t k = 0; k < N; k++) {
            size_t n = counts[(k + round) % N];
            dz_buf coded = {0};
            in[k] = calloc(n + 1, 1);
            assert_non_null(in[k]);
            if ((k + round) % 3 == 0)
                for (size_t i = 0; i < n; i += 1 + draw(&state) % 60) in[k][i] = (uint8_t)(draw(&state) % 9);
            else
                fill(in[k], n, round % 2 ? 256 : 7, (int)(k % 4), &state);
            assert_int_equal(dz_rans_encode(&coded, in[k], n, &err), DZ_OK);
            streams[k] = (dz_rans_stream){calloc(n + 1, 1), n, coded.len ? coded.data : NULL, coded.len};
        }
        assert_int_equal(dz_rans_decode_streams(streams, N, &err), DZ_OK);
        for (size_t k = 0; k < N; k++) assert_memory_equal(streams[k].symbols, in[k], streams[k].count + 1);
        for (size_t k = 0; k < N; k++) {
            if (streams[k].count < 1000) continue;
            dz_error harm = {0};
            streams[k].nbytes -= 1 + draw(&state) % 20;
            assert_int_equal(dz_rans_decode_streams(streams, N, &harm), DZ_EDAMAGE);
            assert_int_equal(streams[k].symbols[streams[k].count], 0);
            break;
        }
        for (size_t k = 0; k < N; k++) {
            free(in[k]);
            free(streams[k].symbols);
            free((void *)(uintptr_t)streams[k].bytes);
        }
    }
}

/* A coded stream of 5000 symbols, in memory of exactly its size, for the address sanitizer. */
static uint8_t *some_stream(uint8_t symbols[5000], size_t *len) {
    uint64_t state = 3;
    dz_error err = {0};
    dz_buf coded = {0};
    fill(symbols, 5000, 200, 3, &state);
    assert_int_equal(dz_rans_encode(&coded, symbols, 5000, &err), DZ_OK);
    assert_int_equal(coded.data[0], 0x10);
    uint8_t *exact = malloc(coded.len);
    assert_non_null(exact);
    memcpy(exact, coded.data, *len = coded.len);
    dz_buf_free(&coded);
    return exact;
}

static void leftover_bytes_are_damage(void **unused) {
    (void)unused;
    uint8_t symbols[5000], out[5000];
    size_t len;
    uint8_t *stream = some_stream(symbols, &len);
    for (size_t more = 1; more < 6; more++) {
        dz_error err = {0};
        uint8_t *longer = calloc(len + more, 1);
        assert_non_null(longer);
        memcpy(longer, stream, len);
        assert_int_equal(dz_rans_decode(out, 5000, longer, len + more, &err), DZ_EDAMAGE);
        assert_non_null(strstr(err.text, "leaves"));
        free(longer);
    }
    free(stream);
}

static void cut_streams_are_damage(void **unused) {
    (void)unused;
    uint8_t symbols[5000], out[5000];
    size_t len;
    uint8_t *stream = some_stream(symbols, &len);
    for (size_t n = 0; n < len; n++) {
        dz_error err = {0};
        uint8_t *cut = malloc(n ? n : 1);
        assert_non_null(cut);
        memcpy(cut, stream, n);
        assert_int_equal(dz_rans_decode(out, 5000, cut, n, &err), DZ_EDAMAGE);
        free(cut);
    }
    free(stream);
}

/* Nearly every flipped bit of the states and the words behind them is found: in 165 of 24,000 a wrong way through the symbols meets the
 * right last state. The checksum of the block finds those. */
static void flipped_bits_are_damage(void **unused) {
    (void)unused;
    uint8_t symbols[5000], out[5000];
    size_t len, head = 0, missed = 0;
    uint8_t *stream = some_stream(symbols, &len);
    uint32_t distinct[256] = {0};
    for (size_t i = 0; i < 5000; i++) distinct[symbols[i]] = 1;
    for (size_t s = 0; s < 256; s++) head += 3 * distinct[s]; /* the table has at most so many bytes: a symbol, a run, two of a frequency */
    for (size_t bit = 8 * (head + 2); bit < 8 * len; bit++) {
        dz_error err = {0};
        stream[bit / 8] ^= (uint8_t)(1U << bit % 8);
        missed += dz_rans_decode(out, 5000, stream, len, &err) == DZ_OK;
        stream[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    assert_true(missed < len / 10);                     /* of 8 len */
    for (size_t bit = 0; bit < 8 * (head + 2); bit++) { /* no crash, and nothing beyond the buffers */
        dz_error err = {0};
        stream[bit / 8] ^= (uint8_t)(1U << bit % 8);
        dz_rans_decode(out, 5000, stream, len, &err);
        stream[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    free(stream);
}

static void plain_and_empty_streams(void **unused) {
    (void)unused;
    uint8_t plain[] = {0x30, 5, 6, 7}, out[4];
    dz_error err = {0};
    assert_int_equal(dz_rans_decode(out, 3, plain, 4, &err), DZ_OK);
    assert_memory_equal(out, plain + 1, 3);
    assert_int_equal(dz_rans_decode(out, 2, plain, 4, &err), DZ_EDAMAGE);
    err = (dz_error){0};
    assert_int_equal(dz_rans_decode(out, 4, plain, 4, &err), DZ_EDAMAGE);
    err = (dz_error){0};
    assert_int_equal(dz_rans_decode(out, 0, plain, 0, &err), DZ_OK);
    assert_int_equal(dz_rans_decode(out, 0, plain, 1, &err), DZ_EDAMAGE);
    for (unsigned kind = 0; kind < 256; kind++) {
        err = (dz_error){0};
        plain[0] = (uint8_t)kind;
        if (kind != 0x30) assert_int_equal(dz_rans_decode(out, 3, plain, 4, &err), DZ_EDAMAGE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(streams_come_back),         cmocka_unit_test(several_streams_come_back_together),
                                       cmocka_unit_test(leftover_bytes_are_damage), cmocka_unit_test(cut_streams_are_damage),
                                       cmocka_unit_test(flipped_bits_are_damage),   cmocka_unit_test(plain_and_empty_streams)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

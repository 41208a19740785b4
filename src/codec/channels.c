#include "codec/channels.h"

#include <math.h>
#include <string.h>

#include "codec/bits.h"

enum { RICE_MOST = 5, LIST = 6 };

static const float QUARTERS[4] = {1, 0x1.306fep+0f, 0x1.6a09e6p+0f, 0x1.ae89fap+0f}; /* 2^(j / 4) */

float dz_channel_factor(int code) { return ldexpf(QUARTERS[code & 3], (code - (code & 3)) / 4); }

/* 0, -1, 1, -2, 2 .. */
static uint32_t number_of(int code) { return (uint32_t)(code < 0 ? -2 * code - 1 : 2 * code); }
static int code_of(uint32_t number) { return number & 1 ? -(int)(number / 2) - 1 : (int)(number / 2); }

static uint64_t rice_bits(const dz_channels *c, unsigned k) {
    uint64_t bits = (uint64_t)c->count * (k + 1);
    for (uint32_t i = 0; i < c->count; i++) bits += number_of(c->code[i]) >> k;
    return bits;
}

static unsigned best_parameter(const dz_channels *c) {
    unsigned best = 0;
    for (unsigned k = 1; k <= RICE_MOST; k++) best = rice_bits(c, k) < rice_bits(c, best) ? k : best;
    return best;
}

static size_t varint_bytes(uint64_t value) {
    size_t n = 1;
    while (value >>= 7) n++;
    return n;
}

/* Bytes of the codes that are not 0, each with its distance from the one before; `*n`: how many there are. */
static size_t list_bytes(const dz_channels *c, uint32_t *n) {
    size_t bytes = 0;
    uint32_t next = 0;
    *n = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        if (!c->code[i]) continue;
        bytes += varint_bytes(i - next) + 1;
        next = i + 1;
        ++*n;
    }
    return varint_bytes(*n) + bytes;
}

static size_t rice_bytes(const dz_channels *c) { return (size_t)((rice_bits(c, best_parameter(c)) + 7) / 8); }

static dz_rc put_list(dz_buf *out, const dz_channels *c, uint32_t n, dz_error *err) {
    uint32_t next = 0;
    dz_buf_put_varint(out, n, err);
    for (uint32_t i = 0; i < c->count; i++) {
        if (!c->code[i]) continue;
        dz_buf_put_varint(out, i - next, err);
        dz_buf_put(out, (uint8_t[]){(uint8_t)number_of(c->code[i])}, 1, err);
        next = i + 1;
    }
    return err->rc;
}

static dz_rc put_rice(dz_buf *out, const dz_channels *c, unsigned k, dz_error *err) {
    dz_bit_writer w = {.out = out, .err = err};
    for (uint32_t i = 0; i < c->count && err->rc == DZ_OK; i++) dz_put_rice(&w, number_of(c->code[i]), k);
    return dz_end_bits(&w);
}

float dz_channels_range(const dz_channels *c) {
    int least = DZ_CHANNEL_CODE_MOST, most = -DZ_CHANNEL_CODE_MOST;
    for (uint32_t i = 0; i < c->count; i++) {
        least = c->code[i] < least ? c->code[i] : least;
        most = c->code[i] > most ? c->code[i] : most;
    }
    return most > least ? dz_channel_factor(most - least) : 1;
}

dz_rc dz_channels_put(dz_buf *out, const dz_channels *c, dz_error *err) {
    uint32_t n;
    int list = list_bytes(c, &n) < rice_bytes(c);
    unsigned k = list ? LIST : best_parameter(c);
    dz_buf_put(out, (uint8_t[]){DZ_BODY_CHANNELS}, 1, err);
    dz_buf_put_varint(out, c->stride, err);
    dz_buf_put_varint(out, c->count, err);
    dz_buf_put(out, (uint8_t[]){(uint8_t)k}, 1, err);
    return list ? put_list(out, c, n, err) : put_rice(out, c, k, err);
}

size_t dz_channels_bytes(const dz_channels *c) {
    uint32_t n;
    size_t list = list_bytes(c, &n), rice = rice_bytes(c);
    return 2 + varint_bytes(c->stride) + varint_bytes(c->count) + (list < rice ? list : rice);
}

static dz_rc bad(dz_error *err) { return dz_fail(err, DZ_EDAMAGE, "a block has factors of channels that cannot be"); }

static dz_rc take_list(int8_t *codes, uint64_t count, dz_view *v, dz_error *err) {
    uint64_t n = dz_view_varint(v), at = 0;
    memset(codes, 0, (size_t)count);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t gap = dz_view_varint(v);
        unsigned number = dz_view_u8(v);
        if (v->bad || at >= count || gap >= count - at || number == 0 || number > 2 * DZ_CHANNEL_CODE_MOST) return bad(err);
        codes[at + gap] = (int8_t)code_of(number);
        at += gap + 1;
    }
    return v->bad ? bad(err) : DZ_OK;
}

static dz_rc take_rice(int8_t *codes, uint64_t count, unsigned k, dz_view *v, dz_error *err) {
    dz_bit_reader r = {.bytes = v->data + v->pos, .end = 8 * (uint64_t)(v->len - v->pos)};
    for (uint64_t i = 0; i < count; i++) {
        uint32_t ones = 0;
        while (dz_get_bit(&r) && ones <= 2 * DZ_CHANNEL_CODE_MOST) ones++;
        uint32_t number = ones << k | dz_get_bits(&r, k);
        if (r.pos > r.end || number > 2 * DZ_CHANNEL_CODE_MOST) return bad(err);
        codes[i] = (int8_t)code_of(number);
    }
    size_t used = (size_t)((r.pos + 7) / 8);
    while (r.pos % 8) {
        if (dz_get_bit(&r)) return bad(err);
    }
    v->pos += used;
    return DZ_OK;
}

dz_rc dz_channels_take(dz_channels *c, int8_t *codes, dz_view *v, uint64_t elements, dz_error *err) {
    uint64_t stride = dz_view_varint(v), count = dz_view_varint(v);
    unsigned k = dz_view_u8(v);
    if (v->bad || k > LIST || stride == 0 || count == 0 || count > DZ_CHANNELS_MOST || count > elements || stride > elements / count)
        return bad(err);
    if ((k == LIST ? take_list(codes, count, v, err) : take_rice(codes, count, k, v, err)) != DZ_OK) return err->rc;
    *c = (dz_channels){.code = codes, .count = (uint32_t)count, .stride = stride};
    return DZ_OK;
}

void dz_channels_apply(float *x, size_t count, uint64_t first, const dz_channels *c, int back) {
    float factors[2 * DZ_CHANNEL_CODE_MOST + 1], *of = factors + DZ_CHANNEL_CODE_MOST;
    for (int code = -DZ_CHANNEL_CODE_MOST; code <= DZ_CHANNEL_CODE_MOST; code++) of[code] = dz_channel_factor(back ? -code : code);
    uint64_t channel = first / c->stride % c->count, done = first % c->stride;
    for (size_t i = 0; i < count;) {
        size_t run = count - i < c->stride - done ? count - i : (size_t)(c->stride - done);
        if (c->stride == 1) { /* a row of channels */
            run = count - i < c->count - channel ? count - i : (size_t)(c->count - channel);
            for (size_t j = 0; j < run; j++) x[i + j] *= of[c->code[channel + j]];
            channel += run - 1;
        } else {
            float factor = of[c->code[channel]];
            for (size_t j = 0; j < run; j++) x[i + j] *= factor;
        }
        i += run;
        done = 0;
        channel = channel + 1 == c->count ? 0 : channel + 1;
    }
}

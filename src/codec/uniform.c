#include "codec/uniform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/bits.h"
#include "codec/rans.h"
#include "numeric/kernels.h"
#include "numeric/rotate.h"
#include "numeric/uniform_quantiser.h"

#define NOTHING 0 /* the whole body of a tile without a level: DZ_SPARSE_NONE */

/* The form, second byte of a body: rANS with so many low bits apart, or RICE and its parameter. */
enum { LOW_MOST = 8, RICE = 32, RICE_MOST = 21 };

#define COARSE 0.25 /* width of the cells that rANS tells apart, at most: within one, numbers are as good as evenly spread (0.004 bit) */
#define ESCAPE 255  /* symbol of a level whose number follows elsewhere, less this */
#define RICE_TRIED 16384 /* elements; in more, rANS is always smaller, or as good */

static unsigned low_bits(float step) {
    unsigned k = 0;
    while (k < LOW_MOST && step * (float)(2U << k) <= (float)COARSE) k++;
    return k;
}

/* Signed levels as numbers: 0, -1, 1, -2, 2 ... */
static uint32_t number_of(int32_t level) { return (uint32_t)level << 1 ^ (uint32_t)(level >> 31); }
static int32_t level_of(uint32_t number) { return (int32_t)(number >> 1) ^ -(int32_t)(number & 1); }

static int is_sound(float step, float shift) {
    return step >= (float)DZ_UNIFORM_STEP_LEAST && step <= (float)DZ_UNIFORM_STEP_MOST && shift >= 0 && shift < 1;
}

static int is_normal(float width) { return width >= 0x1p-126f && width < INFINITY; }

/* ---- low bits: fields of k bits, eight at a time ---- */

static size_t low_bytes(size_t count, unsigned k) { return (count * k + 7) / 8; }

#define INLINE static inline __attribute__((always_inline))

/* `len` up to 8 fields; `bytes` is written up to the last one's. */
INLINE void pack_some(uint8_t *bytes, const int32_t *level, unsigned k, size_t len) {
    uint64_t word = 0;
    for (size_t j = 0; j < len; j++) word |= (uint64_t)((uint32_t)level[j] & ((1U << k) - 1)) << (j * k);
    for (size_t j = 0; j < (len * k + 7) / 8; j++) bytes[j] = (uint8_t)(word >> (8 * j));
}

INLINE void add_some(int32_t *level, const uint8_t *bytes, unsigned k, size_t len) {
    uint64_t word = 0;
    for (size_t j = 0; j < (len * k + 7) / 8; j++) word |= (uint64_t)bytes[j] << (8 * j);
    for (size_t j = 0; j < len; j++) level[j] = (int32_t)((uint32_t)level[j] << k | ((uint32_t)(word >> (j * k)) & ((1U << k) - 1)));
}

INLINE void pack_eights(uint8_t *bytes, const int32_t *level, unsigned k, size_t eights) {
    for (size_t i = 0; i < eights; i++) pack_some(bytes + i * k, level + 8 * i, k, 8);
}

INLINE void add_eights(int32_t *level, const uint8_t *bytes, unsigned k, size_t eights) {
    for (size_t i = 0; i < eights; i++) add_some(level + 8 * i, bytes + i * k, k, 8);
}

#define EACH_K(call)                                                                                                                       \
    switch (k) {                                                                                                                           \
        case 1: call(1); break;                                                                                                            \
        case 2: call(2); break;                                                                                                            \
        case 3: call(3); break;                                                                                                            \
        case 4: call(4); break;                                                                                                            \
        case 5: call(5); break;                                                                                                            \
        case 6: call(6); break;                                                                                                            \
        case 7: call(7); break;                                                                                                            \
        case 8: call(8); break;                                                                                                            \
        default: break;                                                                                                                    \
    }

static void pack_low(uint8_t *restrict bytes, const int32_t *restrict level, unsigned k, size_t count) {
#define PACK(n) pack_eights(bytes, level, n, count / 8)
    EACH_K(PACK)
    pack_some(bytes + count / 8 * k, level + count / 8 * 8, k, count % 8);
}

static void add_low(int32_t *restrict level, const uint8_t *restrict bytes, unsigned k, size_t count) {
#define ADD(n) add_eights(level, bytes, n, count / 8)
    EACH_K(ADD)
    add_some(level + count / 8 * 8, bytes + count / 8 * k, k, count % 8);
}

/* ---- encode ---- */

typedef struct sink {
    uint8_t *symbols, *low;
    int32_t *levels; /* all of them, of small tiles */
    dz_buf escapes;
    size_t count, nescapes;
    unsigned k;
} sink;

static void put_chunk(sink *s, const int32_t *level, size_t count, dz_error *err) {
    uint8_t *symbol = s->symbols + s->count;
    int beyond = dz_kernels()->symbols(symbol, level, s->k, count);
    for (size_t i = 0; beyond && i < count; i++) {
        if (symbol[i] != ESCAPE) continue;
        dz_buf_put_varint(&s->escapes, number_of(level[i] >> s->k) - ESCAPE, err);
        s->nescapes++;
    }
    if (s->k) pack_low(s->low + s->count * s->k / 8, level, s->k, count); /* chunks begin at bytes: all but the last are of 4096 */
    if (s->levels) memcpy(s->levels + s->count, level, count * sizeof *level);
    s->count += count;
}

static uint64_t rice_bits(const int32_t *level, size_t count, unsigned parameter) {
    uint64_t bits = (uint64_t)count * (parameter + 1);
    for (size_t i = 0; i < count; i++) bits += number_of(level[i]) >> parameter;
    return bits;
}

/* The better one of the two next to the numbers' mean. */
static unsigned rice_parameter(const int32_t *level, size_t count) {
    uint64_t sum = 0;
    unsigned parameter = 0;
    for (size_t i = 0; i < count; i++) sum += number_of(level[i]);
    while (parameter < RICE_MOST - 1 && sum >> (parameter + 1) >= count) parameter++;
    return parameter + (rice_bits(level, count, parameter + 1) < rice_bits(level, count, parameter));
}

static void put_rice(dz_buf *out, const int32_t *level, size_t count, unsigned parameter, dz_error *err) {
    dz_bit_writer w = {.out = out, .err = err};
    for (size_t i = 0; i < count && err->rc == DZ_OK; i++) dz_put_rice(&w, number_of(level[i]), parameter);
    dz_end_bits(&w);
}

static void put_rans(dz_buf *out, const sink *s, dz_error *err) {
    dz_buf core = {0};
    dz_rans_encode(&core, s->symbols, s->count, err);
    dz_buf_put_varint(out, core.len, err);
    dz_buf_put(out, core.data, core.len, err);
    dz_buf_put_varint(out, s->nescapes, err);
    dz_buf_put(out, s->escapes.data, s->escapes.len, err);
    dz_buf_put(out, s->low, low_bytes(s->count, s->k), err);
    dz_buf_free(&core);
}

/* The form and what follows the standard deviations; `form` is the place of the former. */
static void put_levels(dz_buf *out, size_t form, const sink *s, dz_error *err) {
    size_t start = out->len;
    put_rans(out, s, err);
    if (!s->levels || err->rc != DZ_OK) return;
    unsigned parameter = rice_parameter(s->levels, s->count);
    if ((rice_bits(s->levels, s->count, parameter) + 7) / 8 >= out->len - start) return;
    out->len = start;
    out->data[form] = (uint8_t)(RICE + parameter);
    put_rice(out, s->levels, s->count, parameter, err);
}

/* The numbers of the blocks' standard deviations, 0 where the levels' width is too small for a float, in which nothing is kept. */
static dz_rc rotate_and_measure(uint8_t *number, float *delta, size_t count, uint64_t key, float step, size_t *elements, dz_error *err) {
    *elements = 0;
    for (size_t b = 0; b < dz_rotate_blocks(count); b++) {
        size_t first = dz_rotate_first(count, b), n = dz_rotate_first(count, b + 1) - first;
        dz_rotate_block(delta + first, count, key, b);
        unsigned e = dz_std_number(dz_std_about_zero(delta + first, n));
        float width = step * dz_std_of_number(e);
        if (e > DZ_STD_NUMBER_MOST || width == INFINITY) return dz_fail(err, DZ_EVALUE, "differences are not finite, or too large");
        if (!is_normal(width)) e = 0;
        if (e) *elements += n;
        number[2 * b] = (uint8_t)e;
        number[2 * b + 1] = (uint8_t)(e >> 8);
    }
    return DZ_OK;
}

static unsigned number_at(const uint8_t *numbers, size_t block) { return numbers[2 * block] | (unsigned)numbers[2 * block + 1] << 8; }

dz_rc dz_uniform_encode(dz_buf *out, float *delta, size_t count, uint64_t key, float step, float shift, uint64_t *nonzeros, dz_error *err) {
    size_t nblocks = dz_rotate_blocks(count), elements = 0;
    sink s = {.k = low_bits(step)};
    *nonzeros = 0;
    if (!is_sound(step, shift)) return dz_fail(err, DZ_EFAIL, "a step of %g with a shift of %g", (double)step, (double)shift);
    uint8_t *numbers = dz_alloc(nblocks, 2, err);
    if (!numbers) return err->rc;
    if (rotate_and_measure(numbers, delta, count, key, step, &elements, err) != DZ_OK) goto out;
    s.symbols = dz_alloc_raw(elements, 1, err);
    s.low = dz_alloc_raw(low_bytes(elements, s.k), 1, err);
    if (elements <= RICE_TRIED) s.levels = dz_alloc_raw(elements, sizeof *s.levels, err);
    for (size_t b = 0; b < nblocks && err->rc == DZ_OK; b++) {
        int32_t level[DZ_CHUNK];
        size_t end = dz_rotate_first(count, b + 1);
        float width = step * dz_std_of_number(number_at(numbers, b));
        for (size_t at = dz_rotate_first(count, b); at < end && width > 0; at += DZ_CHUNK) {
            size_t len = end - at < DZ_CHUNK ? end - at : DZ_CHUNK;
            *nonzeros += dz_uniform_levels(level, delta + at, width, len);
            put_chunk(&s, level, len, err);
        }
    }
    if (err->rc != DZ_OK) goto out;
    if (*nonzeros == 0) {
        dz_buf_put(out, (uint8_t[]){NOTHING}, 1, err);
        goto out;
    }
    dz_buf_put(out, (uint8_t[]){DZ_BODY_UNIFORM, (uint8_t)s.k}, 2, err);
    dz_buf_put(out, numbers, 2 * nblocks, err);
    put_levels(out, out->len - 2 * nblocks - 1, &s, err);
out:
    free(numbers);
    free(s.symbols);
    free(s.low);
    free(s.levels);
    dz_buf_free(&s.escapes);
    return err->rc;
}

/* ---- decode ---- */

typedef struct source {
    const uint8_t *numbers; /* of the blocks */
    size_t elements;        /* of blocks whose number is not 0: so many levels there are */
    int rice;
    unsigned k; /* low bits, or Rice's parameter */
    uint8_t *symbols;
    const uint8_t *low;
    size_t done; /* levels taken */
    dz_view escapes;
    uint64_t nescapes;
    dz_bit_reader bits;
} source;

static dz_rc bad_escape(dz_error *err) { return dz_fail(err, DZ_EDAMAGE, "a uniform block has a level that cannot be"); }

static dz_rc take_rans(source *s, int32_t *level, size_t count, dz_error *err) {
    const uint8_t *symbol = s->symbols + s->done;
    for (size_t i = 0; i < count; i++) level[i] = level_of(symbol[i]);
    for (const uint8_t *at = symbol; (at = memchr(at, ESCAPE, (size_t)(symbol + count - at))) != NULL; at++) {
        uint64_t number = s->nescapes ? dz_view_varint(&s->escapes) : UINT64_MAX;
        if (s->escapes.bad || number > (2 * (uint64_t)DZ_UNIFORM_LEVEL_MOST >> s->k)) return bad_escape(err);
        s->nescapes--;
        level[at - symbol] = level_of((uint32_t)number + ESCAPE);
    }
    if (s->k) add_low(level, s->low + s->done * s->k / 8, s->k, count);
    return DZ_OK;
}

static dz_rc take_rice(source *s, int32_t *level, size_t count, dz_error *err) {
    for (size_t i = 0; i < count; i++) {
        uint64_t number = 0;
        while (dz_get_bit(&s->bits)) number++;
        number = number << s->k | dz_get_bits(&s->bits, s->k);
        if (s->bits.pos > s->bits.end || number > 2 * (uint64_t)DZ_UNIFORM_LEVEL_MOST) return bad_escape(err);
        level[i] = level_of((uint32_t)number);
    }
    return DZ_OK;
}

/* Everything up to the levels. */
static dz_rc open_source(source *s, dz_view *v, size_t count, float step, dz_error *err) {
    size_t nblocks = dz_rotate_blocks(count);
    unsigned kind = dz_view_u8(v), form = dz_view_u8(v);
    s->numbers = dz_view_bytes(v, 2 * (uint64_t)nblocks);
    s->rice = form >= RICE;
    s->k = form - (s->rice ? RICE : 0);
    if (kind != DZ_BODY_UNIFORM || v->bad || !s->numbers || s->k > (s->rice ? RICE_MOST : LOW_MOST))
        return dz_fail(err, DZ_EDAMAGE, "a uniform block has no sound head");
    for (size_t b = 0; b < nblocks; b++) {
        unsigned e = number_at(s->numbers, b);
        if (e == 0) continue;
        s->elements += dz_rotate_first(count, b + 1) - dz_rotate_first(count, b);
        if (e > DZ_STD_NUMBER_MOST || !is_normal(step * dz_std_of_number(e)))
            return dz_fail(err, DZ_EDAMAGE, "a uniform block has a standard deviation that cannot be");
    }
    if (s->elements == 0) return dz_fail(err, DZ_EDAMAGE, "a uniform block has no level");
    if (s->rice) {
        s->bits = (dz_bit_reader){.bytes = v->data + v->pos, .end = 8 * (uint64_t)(v->len - v->pos)};
        return DZ_OK;
    }
    uint64_t length = dz_view_varint(v);
    const uint8_t *core = dz_view_bytes(v, length);
    s->nescapes = dz_view_varint(v);
    size_t rest = v->bad ? 0 : v->len - v->pos, low = low_bytes(s->elements, s->k);
    if (v->bad || !core || rest < low || s->nescapes > rest - low) return dz_fail(err, DZ_EDAMAGE, "a uniform block is cut short");
    s->escapes = (dz_view){.data = v->data + v->pos, .len = rest - low};
    s->low = v->data + v->len - low;
    s->symbols = dz_alloc_raw(s->elements, 1, err);
    if (!s->symbols) return err->rc;
    return dz_rans_decode(s->symbols, s->elements, core, (size_t)length, err);
}

static dz_rc take_block(source *s, float *y, size_t count, float width, float shift, dz_error *err) {
    int32_t level[DZ_CHUNK];
    for (size_t at = 0; at < count; at += DZ_CHUNK) {
        size_t len = count - at < DZ_CHUNK ? count - at : DZ_CHUNK;
        if ((s->rice ? take_rice(s, level, len, err) : take_rans(s, level, len, err)) != DZ_OK) return err->rc;
        dz_uniform_values(y + at, level, width, shift, len);
        s->done += len;
    }
    return DZ_OK;
}

dz_rc dz_uniform_decode(const dz_blocks *to, const uint8_t *body, size_t nbytes, size_t count, float step, float shift, dz_error *err) {
    dz_view v = {.data = body, .len = nbytes};
    source s = {0};
    if (!is_sound(step, shift)) return dz_fail(err, DZ_EDAMAGE, "a step of %g with a shift of %g", (double)step, (double)shift);
    if (nbytes == 1 && body[0] == NOTHING) {
        for (size_t b = 0; b < dz_rotate_blocks(count); b++) dz_block_zero(to, count, b);
        return DZ_OK;
    }
    if (open_source(&s, &v, count, step, err) != DZ_OK) goto out;
    for (size_t b = 0; b < dz_rotate_blocks(count) && err->rc == DZ_OK; b++) {
        unsigned e = number_at(s.numbers, b);
        float *x = dz_block_place(to, count, b);
        if (e == 0)
            dz_block_zero(to, count, b);
        else if (take_block(&s, x, dz_rotate_length(count, b), step * dz_std_of_number(e), shift, err) == DZ_OK)
            dz_block_done(to, count, b);
    }
    int used = s.rice ? dz_bits_at_end(&s.bits) : s.nescapes == 0 && s.escapes.pos == s.escapes.len;
    if (err->rc == DZ_OK && !used) dz_fail(err, DZ_EDAMAGE, "a uniform block leaves bytes over");
out:
    free(s.symbols);
    return err->rc;
}

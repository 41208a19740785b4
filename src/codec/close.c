#include "codec/close.h"

#include <stdlib.h>
#include <string.h>

#include "codec/class_run.h"
#include "codec/classes.h"
#include "codec/entropy.h"
#include "codec/planes.h"
#include "codec/rans.h"
#include "numeric/kernels.h"

#define SURE_BITS(mantissa) ((mantissa) == 7 ? 8U : 10U) /* of an element: no other body is likely to need fewer */

enum {
    TOTAL = 1 << DZ_CLOSE_LOG,
    BODY_BITS = 32 * DZ_CLOSE_LANES + 200,       /* of a body, beside its classes */
    CLASSES_BITS = 1000,                         /* of the same elements by classes: their tables */
    TAIL_WORDS = DZ_CLOSE_BLOCK + DZ_CLOSE_LANES /* a block with so many words or more in front of it needs no care */
};

/* Room for the kernels' structures, which are aligned. */
static void *aligned_new(size_t nbytes, dz_error *err) {
    void *p = aligned_alloc(64, nbytes);
    if (!p) dz_fail(err, DZ_ENOMEM, "cannot allocate %zu bytes", nbytes);
    return p;
}

/* Which exponents have a class; each class's low bits, and the frequencies of its numbers. */
typedef struct plan {
    unsigned first, nclasses, mantissa;
    uint8_t low_bits[DZ_CLOSE_CLASSES_MAX];
    uint16_t frequency[DZ_CLOSE_CLASSES_MAX][DZ_RUN_NUMBERS];
} plan;

/* ---- plan ---- */

/* Of the numbers of a class, and of the class beside them. */
static unsigned table_bits(unsigned distinct) { return 16 + 10 * distinct; }

/* Frequencies that sum to TOTAL, of the numbers of a sample: those between numbers that it has have at least 1, and so have escapes. */
static void make_frequencies(uint16_t frequency[DZ_RUN_NUMBERS], const dz_token_counts of, unsigned low_bits) {
    uint32_t count[DZ_RUN_NUMBERS], total = dz_census_numbers(count, of, low_bits);
    unsigned least = DZ_CLOSE_MIDDLE, most = DZ_CLOSE_MIDDLE, largest = DZ_CLOSE_MIDDLE, sum = 0;
    for (unsigned q = 0; q < DZ_CLOSE_ESCAPE; q++) {
        if (!count[q]) continue;
        if (q < least) least = q;
        if (q > most) most = q;
        if (count[q] > count[largest]) largest = q;
    }
    memset(frequency, 0, DZ_RUN_NUMBERS * sizeof *frequency);
    for (unsigned q = 0; q < DZ_RUN_NUMBERS; q++) {
        if (q != DZ_CLOSE_ESCAPE && (q < least || q > most)) continue;
        uint64_t share = ((uint64_t)count[q] * TOTAL + total / 2) / (total ? total : 1);
        frequency[q] = (uint16_t)(share ? share : 1);
        sum += frequency[q];
    }
    /* Off by 16 at most, and the largest of 16 has 256 at least; or it is the escape's. */
    if (frequency[largest] < frequency[DZ_CLOSE_ESCAPE]) largest = DZ_CLOSE_ESCAPE;
    frequency[largest] = (uint16_t)(frequency[largest] + TOTAL - sum);
}

/* 0: the body is not to be made. */
static int make_plan(plan *p, const dz_census *c, dz_close_when when) {
    dz_class_run run;
    dz_class_run_choose(&run, c, when == DZ_CLOSE_ANYWAY ? NULL : table_bits);
    p->first = run.first;
    p->nclasses = run.nclasses;
    memcpy(p->low_bits, run.low_bits, run.nclasses);
    for (unsigned k = 0; k < p->nclasses; k++) make_frequencies(p->frequency[k], c->of[p->first + k], p->low_bits[k]);
    if (p->nclasses == 0 || when == DZ_CLOSE_ANYWAY) return p->nclasses > 0;
    int64_t more = BODY_BITS - CLASSES_BITS, bits = run.without + run.extra + (more << DZ_BITS_SHIFT) / (int64_t)c->stride;
    if (when == DZ_CLOSE_IF_SURE && bits > (int64_t)(run.sampled * SURE_BITS(p->mantissa)) << DZ_BITS_SHIFT) return 0;
    return dz_class_run_is_small(&run, c, more);
}

/* ---- encoding ---- */

/* What the kernels need of a plan. */
static dz_close_table *table_new(const plan *p, dz_error *err) {
    dz_close_table *t = aligned_new(sizeof *t, err);
    if (t) dz_close_table_make(t, p->first, p->nclasses, p->mantissa, p->low_bits, p->frequency);
    return t;
}

/* A group of lanes that are not all there is filled with far elements. */
static uint16_t far_word(const plan *p) {
    unsigned exponent = p->first + p->nclasses < 1U << (15 - p->mantissa) ? p->first + p->nclasses : p->first - 1;
    return (uint16_t)(exponent << p->mantissa);
}

static size_t padding(size_t count) { return (DZ_CLOSE_LANES - count % DZ_CLOSE_LANES) % DZ_CLOSE_LANES; }

static void fill_up(uint8_t *words, uint16_t with, size_t n) {
    for (size_t i = 0; i < n; i++) memcpy(words + 2 * i, &with, 2);
}

typedef struct encoder {
    plan plan;
    dz_close_table *table;
    dz_close_writer *writer;
    dz_buf words, bits, escapes, far, far_base;
} encoder;

static dz_rc encode_block(encoder *e, const uint8_t *words, const uint8_t *base, size_t n, dz_error *err) {
    dz_close_writer *w = e->writer;
    if (dz_buf_reserve(&e->words, 2 * (DZ_CLOSE_BLOCK + DZ_CLOSE_ROOM), err) != DZ_OK ||
        dz_buf_reserve(&e->bits, DZ_CLOSE_BLOCK + 16, err) != DZ_OK || dz_buf_reserve(&e->escapes, 2 * DZ_CLOSE_BLOCK, err) != DZ_OK ||
        dz_buf_reserve(&e->far, 2 * DZ_CLOSE_BLOCK, err) != DZ_OK || dz_buf_reserve(&e->far_base, 2 * DZ_CLOSE_BLOCK, err) != DZ_OK)
        return err->rc;
    w->words = (uint16_t *)(void *)(e->words.data + e->words.len);
    w->escape = (uint16_t *)(void *)(e->escapes.data + e->escapes.len);
    w->far = (uint16_t *)(void *)(e->far.data + e->far.len);
    w->far_base = (uint16_t *)(void *)(e->far_base.data + e->far_base.len);
    w->bits = e->bits.data + e->bits.len;
    dz_kernels()->close_encode(w, e->table, words, base, n);
    e->words.len = (size_t)((uint8_t *)w->words - e->words.data);
    e->escapes.len = (size_t)((uint8_t *)w->escape - e->escapes.data);
    e->far.len = (size_t)((uint8_t *)w->far - e->far.data);
    e->far_base.len = (size_t)((uint8_t *)w->far_base - e->far_base.data);
    e->bits.len = (size_t)(w->bits - e->bits.data);
    return DZ_OK;
}

static dz_rc encode_all(encoder *e, const uint8_t *words, const uint8_t *base, size_t count, dz_error *err) {
    size_t full = count / DZ_CLOSE_BLOCK * DZ_CLOSE_BLOCK, left = count - full, pad = padding(count);
    for (size_t at = 0; at < full; at += DZ_CLOSE_BLOCK) {
        if (encode_block(e, words + 2 * at, base + 2 * at, DZ_CLOSE_BLOCK, err) != DZ_OK) return err->rc;
    }
    if (left) {
        uint8_t last[2 * DZ_CLOSE_BLOCK], last_base[2 * DZ_CLOSE_BLOCK];
        memcpy(last, words + 2 * full, 2 * left);
        memcpy(last_base, base + 2 * full, 2 * left);
        fill_up(last + 2 * left, 0, pad);
        fill_up(last_base + 2 * left, far_word(&e->plan), pad);
        if (encode_block(e, last, last_base, left + pad, err) != DZ_OK) return err->rc;
        e->far.len -= 2 * pad;
        e->far_base.len -= 2 * pad;
    }
    return DZ_OK;
}

/* A plane (FORMAT.md "Lossless bodies") that is constant, by rANS or as it is: zstd would take longer than all the rest. */
static dz_rc put_plane(dz_buf *out, const uint8_t *bytes, size_t n, dz_error *err) {
    dz_buf coded = {0};
    if (memcmp(bytes, bytes + 1, n - 1) == 0) return dz_buf_put(out, (uint8_t[]){DZ_PLANE_CONSTANT, bytes[0]}, 2, err);
    if (dz_rans_encode(&coded, bytes, n, err) == DZ_OK) {
        uint8_t how = coded.len + 4 < n ? DZ_PLANE_RANS : DZ_PLANE_RAW;
        dz_buf_put(out, &how, 1, err);
        if (how == DZ_PLANE_RANS) dz_buf_put_varint(out, coded.len, err);
        dz_buf_put(out, how == DZ_PLANE_RANS ? coded.data : bytes, how == DZ_PLANE_RANS ? coded.len : n, err);
    }
    dz_buf_free(&coded);
    return err->rc;
}

static dz_rc put_escapes(dz_buf *out, const dz_buf *escapes, dz_error *err) {
    size_t n = escapes->len / 2;
    uint8_t *plane = dz_alloc_raw(n, 1, err);
    if (plane) dz_buf_put_varint(out, n, err);
    for (size_t p = 0; n && p < 2 && err->rc == DZ_OK; p++) {
        for (size_t i = 0; i < n; i++) plane[i] = escapes->data[2 * i + p];
        put_plane(out, plane, n, err);
    }
    free(plane);
    return err->rc;
}

static dz_rc put_plan(dz_buf *out, const plan *p, dz_error *err) {
    dz_buf_put(out, (uint8_t[]){(uint8_t)p->first, (uint8_t)p->nclasses}, 2, err);
    dz_buf_put(out, p->low_bits, p->nclasses, err);
    for (unsigned k = 0; k < p->nclasses && err->rc == DZ_OK; k++) {
        unsigned least = 0, most = DZ_CLOSE_ESCAPE - 1;
        while (least < most && !p->frequency[k][least]) least++;
        while (least < most && !p->frequency[k][most]) most--;
        dz_buf_put(out, (uint8_t[]){(uint8_t)(least | most << 4)}, 1, err);
        for (unsigned q = least; q <= most && err->rc == DZ_OK; q++) dz_buf_put_varint(out, p->frequency[k][q], err);
    }
    return err->rc;
}

static dz_rc put_body(dz_buf *out, encoder *e, dz_dtype dtype, dz_error *err) {
    const dz_close_writer *w = e->writer;
    uint8_t last = (uint8_t)w->held;
    uint64_t nbits = 8 * (uint64_t)e->bits.len + w->nheld;
    if (w->nheld && dz_buf_put(&e->bits, &last, 1, err) != DZ_OK) return err->rc;
    if (put_plan(out, &e->plan, err) != DZ_OK || dz_buf_put_varint(out, nbits, err) != DZ_OK ||
        dz_buf_put_varint(out, e->words.len / 2, err) != DZ_OK ||
        dz_buf_reserve(out, e->words.len + sizeof w->state + e->bits.len + 20, err) != DZ_OK)
        return err->rc;
    if (e->bits.len) dz_buf_put(out, e->bits.data, e->bits.len, err);
    if (e->words.len) dz_buf_put(out, e->words.data, e->words.len, err);
    dz_buf_put(out, w->state, sizeof w->state, err);
    if (err->rc == DZ_OK && put_escapes(out, &e->escapes, err) == DZ_OK && e->far.len)
        dz_classes_encode(out, e->far.data, e->far_base.data, dtype, e->far.len / 2, err);
    return err->rc;
}

dz_rc dz_close_encode(dz_buf *out, const void *words, const void *base, dz_dtype dtype, size_t count, dz_close_when when, int *taken,
                      dz_error *err) {
    encoder e = {.plan = {.mantissa = dz_run_mantissa(dtype)}};
    dz_census *c = dz_alloc(1, sizeof *c, err);
    *taken = 0;
    if (!c) return err->rc;
    dz_census_take(c, words, base, count, e.plan.mantissa);
    *taken = make_plan(&e.plan, c, when);
    free(c);
    if (!*taken) return DZ_OK;
    e.table = table_new(&e.plan, err);
    e.writer = e.table ? aligned_new(sizeof *e.writer, err) : NULL;
    if (e.writer) {
        memset(e.writer, 0, sizeof *e.writer);
        for (size_t k = 0; k < DZ_CLOSE_LANES; k++) e.writer->state[k] = DZ_CLOSE_LOWEST;
        if (encode_all(&e, words, base, count, err) == DZ_OK) put_body(out, &e, dtype, err);
    }
    free(e.table);
    free(e.writer);
    dz_buf_free(&e.words);
    dz_buf_free(&e.bits);
    dz_buf_free(&e.escapes);
    dz_buf_free(&e.far);
    dz_buf_free(&e.far_base);
    return err->rc;
}

/* ---- decoding ---- */

static dz_rc get_plan(plan *p, dz_dtype dtype, dz_view *view, dz_error *err) {
    unsigned exponents = 1U << (15 - dz_run_mantissa(dtype));
    *p = (plan){.mantissa = dz_run_mantissa(dtype), .first = dz_view_u8(view)};
    p->nclasses = dz_view_u8(view);
    if (view->bad || p->nclasses == 0 || p->nclasses > DZ_CLOSE_CLASSES_MAX || p->first + p->nclasses > exponents)
        return dz_fail(err, DZ_EDAMAGE, "%u classes from exponent %u on", p->nclasses, p->first);
    const uint8_t *bits = dz_view_bytes(view, p->nclasses);
    if (!bits) return dz_fail(err, DZ_EDAMAGE, "a list of %u classes is cut short", p->nclasses);
    memcpy(p->low_bits, bits, p->nclasses);
    for (unsigned k = 0; k < p->nclasses; k++) {
        if (bits[k] > DZ_CLOSE_LOW_BITS_MAX) return dz_fail(err, DZ_EDAMAGE, "%u low bits in a class", bits[k]);
        unsigned range = dz_view_u8(view), least = range & 15, most = range >> 4, sum = 0;
        for (unsigned q = least; q <= most && q < DZ_CLOSE_ESCAPE && !view->bad; q++) {
            uint64_t f = dz_view_varint(view);
            if (f > TOTAL - sum) return dz_fail(err, DZ_EDAMAGE, "frequencies of class %u beyond %d", k, TOTAL);
            p->frequency[k][q] = (uint16_t)f;
            sum += (unsigned)f;
        }
        if (view->bad || least > most || most >= DZ_CLOSE_ESCAPE)
            return dz_fail(err, DZ_EDAMAGE, "numbers %u to %u in a class", least, most);
        p->frequency[k][DZ_CLOSE_ESCAPE] = (uint16_t)(TOTAL - sum);
    }
    return DZ_OK;
}

/* The escapes' differences. */
static dz_rc get_escapes(dz_buf *escapes, size_t most, dz_view *view, dz_error *err) {
    uint64_t n = dz_view_varint(view);
    if (view->bad || n > most) return dz_fail(err, DZ_EDAMAGE, "%llu escapes of %zu elements", (unsigned long long)n, most);
    uint8_t *plane = dz_alloc_raw((size_t)n, 1, err);
    if (plane && dz_buf_reserve(escapes, 2 * (size_t)n + 1, err) == DZ_OK) {
        for (size_t p = 0; n && p < 2 && dz_plane_get(view, plane, (size_t)n, err) == DZ_OK; p++) {
            for (size_t i = 0; i < n; i++) escapes->data[2 * i + p] = plane[i];
        }
        escapes->len = 2 * (size_t)n;
    }
    free(plane);
    return err->rc;
}

typedef struct decoder {
    plan plan;
    dz_close_table *table;
    dz_close_reader *reader;
    dz_buf escapes, far_places, far_base; /* far ones: where they are, u32, and the base's elements; the last one first */
    int has_tail;
    uint8_t tail[2 * (DZ_CLOSE_LANES + TAIL_WORDS + DZ_CLOSE_ROOM)]; /* the words that are read last, behind zeros */
} decoder;

/* The low bits, the words that the states gave up, and the states: kernels may read beyond bits and words, where the states are. */
static dz_rc get_numbers(decoder *d, size_t count, dz_view *view, dz_error *err) {
    dz_close_reader *r = d->reader;
    uint64_t nbits = dz_view_varint(view), nwords = dz_view_varint(view);
    if (view->bad || nbits > DZ_CLOSE_LOW_BITS_MAX * (uint64_t)count || nwords > count)
        return dz_fail(err, DZ_EDAMAGE, "%llu low bits and %llu words of %zu elements", (unsigned long long)nbits,
                       (unsigned long long)nwords, count);
    r->bits = dz_view_bytes(view, (size_t)((nbits + 7) / 8));
    r->first_word = dz_view_bytes(view, 2 * (size_t)nwords);
    const uint8_t *states = dz_view_bytes(view, sizeof r->state);
    if (!r->bits || !r->first_word || !states) return dz_fail(err, DZ_EDAMAGE, "the numbers of %zu elements are cut short", count);
    if (nbits % 8 && r->bits[nbits / 8] >> nbits % 8) return dz_fail(err, DZ_EDAMAGE, "bits behind the low ones");
    r->words = r->first_word + 2 * nwords;
    r->nbits = nbits;
    memcpy(r->state, states, sizeof r->state);
    for (size_t k = 0; k < DZ_CLOSE_LANES; k++) {
        if (r->state[k] < DZ_CLOSE_LOWEST || r->state[k] >> 31)
            return dz_fail(err, DZ_EDAMAGE, "lane %zu ends in state %u", k, r->state[k]);
    }
    return DZ_OK;
}

/* The kernels stop where a turn of all lanes could read before the first word. So the last words to be read, those of a block and more,
 * move behind as many others as a turn can read: what then stops has too few words. */
static void bring_tail(decoder *d) {
    dz_close_reader *r = d->reader;
    size_t left = (size_t)(r->words - r->first_word);
    if (d->has_tail || left > TAIL_WORDS * 2) return;
    memset(d->tail, 0, sizeof d->tail);
    memcpy(d->tail + 2 * DZ_CLOSE_LANES, r->first_word, left);
    r->first_word = d->tail;
    r->words = d->tail + 2 * DZ_CLOSE_LANES + left;
    d->has_tail = 1;
}

/* n elements from `at` on, of which `pad` more are none of the tile. */
static dz_rc decode_block(decoder *d, uint8_t *words, const uint8_t *base, size_t at, size_t n, size_t pad, dz_error *err) {
    uint16_t places[DZ_CLOSE_BLOCK + DZ_CLOSE_ROOM], bases[DZ_CLOSE_BLOCK + DZ_CLOSE_ROOM];
    dz_close_reader *r = d->reader;
    r->far_place = places;
    r->far_base = bases;
    bring_tail(d);
    if (dz_kernels()->close_decode(r, d->table, words, base, n + pad) || r->bad)
        return dz_fail(err, DZ_EDAMAGE, "numbers of the elements from %zu on are cut short", at);
    size_t nfar = (size_t)(r->far_place - places) - pad; /* the padding comes first */
    if (nfar == 0) return DZ_OK;
    if (dz_buf_reserve(&d->far_places, nfar * sizeof(uint32_t), err) != DZ_OK) return err->rc;
    uint32_t *to = (uint32_t *)(void *)(d->far_places.data + d->far_places.len);
    for (size_t i = 0; i < nfar; i++) to[i] = (uint32_t)at + places[pad + i];
    d->far_places.len += nfar * sizeof *to;
    return dz_buf_put(&d->far_base, bases + pad, nfar * sizeof *bases, err);
}

/* From the last element to the first. */
static dz_rc decode_all(decoder *d, uint8_t *words, const uint8_t *base, size_t count, dz_error *err) {
    size_t full = count / DZ_CLOSE_BLOCK * DZ_CLOSE_BLOCK, left = count - full, pad = padding(count);
    dz_close_reader *r = d->reader;
    if (left) {
        uint8_t last[2 * DZ_CLOSE_BLOCK], last_base[2 * DZ_CLOSE_BLOCK];
        memcpy(last_base, base + 2 * full, 2 * left);
        fill_up(last_base + 2 * left, far_word(&d->plan), pad);
        if (decode_block(d, last, last_base, full, left, pad, err) != DZ_OK) return err->rc;
        memcpy(words + 2 * full, last, 2 * left);
    }
    for (size_t at = full; at > 0;) {
        at -= DZ_CLOSE_BLOCK;
        if (decode_block(d, words + 2 * at, base + 2 * at, at, DZ_CLOSE_BLOCK, 0, err) != DZ_OK) return err->rc;
    }
    for (size_t k = 0; k < DZ_CLOSE_LANES; k++) r->bad |= r->state[k] != DZ_CLOSE_LOWEST;
    bring_tail(d);
    if (r->bad || r->words != r->first_word + 2 * DZ_CLOSE_LANES || r->escape != r->first_escape || r->nbits)
        return dz_fail(err, DZ_EDAMAGE, "numbers do not decode to %zu elements", count);
    return DZ_OK;
}

/* The far elements, which follow all others in the body. */
static dz_rc put_far(decoder *d, uint8_t *words, dz_dtype dtype, dz_view *view, dz_error *err) {
    size_t n = d->far_base.len / 2;
    if (n == 0) return DZ_OK;
    uint16_t *base = (uint16_t *)(void *)d->far_base.data, *far = dz_alloc_raw(n, sizeof *far, err);
    for (size_t i = 0; i < n / 2; i++) {
        uint16_t swap = base[i];
        base[i] = base[n - 1 - i];
        base[n - 1 - i] = swap;
    }
    if (far && dz_classes_decode(far, base, dtype, n, view, err) == DZ_OK) {
        const uint32_t *place = (const uint32_t *)(const void *)d->far_places.data;
        for (size_t i = 0; i < n; i++) memcpy(words + 2 * (size_t)place[n - 1 - i], &far[i], 2);
    }
    free(far);
    return err->rc;
}

dz_rc dz_close_decode(void *words, const void *base, dz_dtype dtype, size_t count, dz_view *view, dz_error *err) {
    decoder d = {.table = NULL};
    if (!base || (dtype != DZ_BF16 && dtype != DZ_F16) || count == 0 || count > DZ_RANS_MAX)
        return dz_fail(err, DZ_EDAMAGE, "%zu elements without a base or of a wrong type cannot be close to it", count);
    d.reader = aligned_new(sizeof *d.reader, err);
    if (!d.reader) return err->rc;
    d.reader->bad = d.reader->has_slots = 0;
    if (get_plan(&d.plan, dtype, view, err) == DZ_OK && (d.table = table_new(&d.plan, err)) && get_numbers(&d, count, view, err) == DZ_OK &&
        get_escapes(&d.escapes, count, view, err) == DZ_OK) {
        d.reader->first_escape = (const uint16_t *)(void *)d.escapes.data;
        d.reader->escape = d.reader->first_escape + d.escapes.len / 2;
        if (decode_all(&d, words, base, count, err) == DZ_OK) put_far(&d, words, dtype, view, err);
    }
    dz_buf_free(&d.escapes);
    dz_buf_free(&d.far_places);
    dz_buf_free(&d.far_base);
    free(d.table);
    free(d.reader);
    return err->rc;
}

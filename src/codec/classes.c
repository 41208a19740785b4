#include "codec/classes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "codec/rans.h"
#include "numeric/kernels.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the bit stream is read and written in little-endian words"
#endif

#define INLINE static inline __attribute__((always_inline))

/* Compiled for each instruction set and picked when the program starts. Integers, and floats that hold them exactly: all give the same. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#if __GNUC__ >= 12
#define VARIANTS __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define VARIANTS __attribute__((target_clones("default", "avx2")))
#endif
#else
#define VARIANTS
#endif

enum {
    LONG = 1 << 20,                         /* elements from which on a part of them is enough to plan by */
    BLOCK = 1024,                           /* elements handled at a time: kernels that vectorise work on arrays of this length */
    ELEMENT_BITS_MAX = 40,                  /* plain bits of one element: 29 of a difference and 8 of an escape, rounded up */
    ROOM = BLOCK * ELEMENT_BITS_MAX / 8 + 8 /* bytes that a block of the bit stream may touch */
};

/* How elements of one dtype become contexts and symbols. Derived, not stored. */
typedef struct layout {
    unsigned size;          /* bytes of an element */
    unsigned shift;         /* low bits that are 0 in every element, and not coded */
    unsigned magnitude;     /* bits of a magnitude: all but the sign and the shifted ones */
    unsigned context_shift; /* a context is a base magnitude without so many low bits */
    unsigned fine;          /* bits kept below the leading one of a difference */
    unsigned ntokens;       /* of the magnitude of a difference; a symbol is 2 flags and a token */
    unsigned ncontexts;
} layout;

int dz_classes_fit(dz_dtype dtype) { return dz_dtype_is_float(dtype) && dtype != DZ_F64; }

static layout layout_of(dz_dtype dtype, unsigned shift) {
    unsigned bits = (unsigned)dz_dtype_size(dtype) * 8 - 1 - shift;
    unsigned context_bits = dtype == DZ_F16 ? 7 : 10; /* the exponent and two bits of the mantissa */
    layout form = {.size = (unsigned)dz_dtype_size(dtype), .shift = shift, .magnitude = bits};
    form.context_shift = bits > context_bits ? bits - context_bits : 0;
    form.fine = bits <= 15 ? 2 : 1;
    form.ntokens = bits <= 15 ? 56 : 62; /* tokens below 2^15 with 2 fine bits, below 2^31 with 1 */
    form.ncontexts = 1U << (bits - form.context_shift);
    return form;
}

/* ---- kernels; `size` and `fine` are constants where they are inlined ---- */

INLINE uint32_t load_word(const void *words, size_t i, unsigned size) {
    const uint8_t *at = (const uint8_t *)words + i * size;
    uint32_t wide;
    uint16_t half;
    if (size == 4) return memcpy(&wide, at, 4), wide;
    if (size == 2) return memcpy(&half, at, 2), half;
    return *at;
}

INLINE void store_word(void *words, size_t i, unsigned size, uint32_t x) {
    uint8_t *at = (uint8_t *)words + i * size;
    uint16_t half = (uint16_t)x;
    if (size == 4) {
        memcpy(at, &x, 4);
    } else if (size == 2) {
        memcpy(at, &half, 2);
    } else {
        *at = (uint8_t)x;
    }
}

/* Magnitude of a base element in units of the last coded bit, rounded half up and kept inside the format. */
INLINE uint32_t base_magnitude(uint32_t word, const layout *form) {
    uint32_t all = (1U << (form->magnitude + form->shift)) - 1, half = (1U << form->shift) >> 1;
    uint32_t mag = ((word & all) + half) >> form->shift;
    return mag - (mag >> form->magnitude); /* one too many at most */
}

/* All ones when a < b, both below 2^31. Masks in place of branches, so that loops vectorise. */
INLINE uint32_t below(uint32_t a, uint32_t b) { return 0 - ((a - b) >> 31); }

/* A distance x < 2^31 as a token, x itself below 2^(fine + 1), then the exponent and `fine` bits, which a float has side by side; and the
 * bits below these, as good as uniform. No shift by a variable: SSE2 has none for vectors. */
typedef struct parts {
    uint32_t token, nbits, bits;
} parts;

INLINE parts parts_of(uint32_t x, unsigned fine) {
    uint32_t exact = x & ~(below(0xffffff, x) & 0xff); /* 24 leading bits: the conversion does not round */
    uint32_t wide = dz_float_bits((float)(int32_t)exact), small = below(x, 2U << fine);
    uint32_t token = (wide >> (23 - fine)) - ((126 + fine) << fine);
    uint32_t least = (uint32_t)(int32_t)dz_bits_to_float(wide & ~((1U << (23 - fine)) - 1));
    return (parts){.token = (x & small) | (token & ~small), .nbits = ((token >> fine) - 1) & ~small, .bits = (x - least) & ~small};
}

/* 2^n, n < 31. */
INLINE uint32_t power(uint32_t n) { return (uint32_t)(int32_t)dz_bits_to_float((n + 127) << 23); }

#define ESCAPED 0x80 /* in nbits: the symbol, 8 bits, comes before them */

typedef struct block {
    uint16_t context[BLOCK];
    uint8_t symbol[BLOCK], nbits[BLOCK];
    uint32_t bits[BLOCK];
} block;

INLINE void analyse_block(block *restrict b, const void *restrict words, const void *restrict base, const layout *whose, size_t n,
                          unsigned size, unsigned fine) {
    const layout copy = *whose, *form = &copy; /* a local: no store to a byte can change it */
    uint32_t mask = (1U << form->magnitude) - 1, ntokens = form->ntokens;
    unsigned sign = form->magnitude + form->shift;
    for (size_t i = 0; i < n; i++) {
        uint32_t w = load_word(words, i, size), v = load_word(base, i, size);
        uint32_t from = base_magnitude(v, form), to = (w >> form->shift) & mask;
        uint32_t flip = (w ^ v) >> sign, less = below(to, from);
        parts distance = parts_of(((to - from) ^ less) - less, fine);
        b->context[i] = (uint16_t)(from >> form->context_shift);
        b->symbol[i] = (uint8_t)((flip * 2 - less) * ntokens + distance.token);
        b->nbits[i] = (uint8_t)distance.nbits;
        b->bits[i] = distance.bits;
    }
}

VARIANTS static void analyse(block *b, const void *words, const void *base, const layout *form, size_t start, size_t n) {
    words = (const uint8_t *)words + start * form->size;
    base = (const uint8_t *)base + start * form->size;
    if (form->size == 1) {
        analyse_block(b, words, base, form, n, 1, 2);
    } else if (form->size == 2) {
        analyse_block(b, words, base, form, n, 2, 2);
    } else if (form->fine == 2) {
        analyse_block(b, words, base, form, n, 4, 2);
    } else {
        analyse_block(b, words, base, form, n, 4, 1);
    }
}

/* Contexts of base elements. */
VARIANTS static void find_contexts(uint16_t *restrict context, const void *base, const layout *form, size_t start, size_t n) {
    base = (const uint8_t *)base + start * form->size;
    if (form->size == 1) {
        for (size_t i = 0; i < n; i++) context[i] = (uint16_t)(base_magnitude(load_word(base, i, 1), form) >> form->context_shift);
    } else if (form->size == 2) {
        for (size_t i = 0; i < n; i++) context[i] = (uint16_t)(base_magnitude(load_word(base, i, 2), form) >> form->context_shift);
    } else {
        for (size_t i = 0; i < n; i++) context[i] = (uint16_t)(base_magnitude(load_word(base, i, 4), form) >> form->context_shift);
    }
}

/* How many elements have each context. Neighbours often have the same: four tables, so that one count does not wait for the other. */
static void count_contexts(uint32_t *counts, const void *base, const layout *form, size_t count) {
    uint32_t part[4][DZ_CONTEXTS_MAX] = {{0}};
    uint16_t context[BLOCK];
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t n = count - at < BLOCK ? count - at : BLOCK, i = 0;
        find_contexts(context, base, form, at, n);
        for (; i + 4 <= n; i += 4) {
            for (size_t j = 0; j < 4; j++) part[j][context[i + j]]++;
        }
        for (; i < n; i++) part[0][context[i]]++;
    }
    for (unsigned k = 0; k < form->ncontexts; k++) counts[k] = part[0][k] + part[1][k] + part[2][k] + part[3][k];
}

/* Elements from the base, symbols and the words that begin with their plain bits. Symbols that no encoder writes mean no step. */
INLINE void apply_block(void *restrict words, const void *restrict base, const uint8_t *restrict symbol, const uint32_t *restrict plain,
                        const layout *whose, size_t n, unsigned size, unsigned fine) {
    const layout copy = *whose, *form = &copy;
    const uint32_t mask = (1U << form->magnitude) - 1, ntokens = form->ntokens, leading = 1U << fine;
    const unsigned sign = form->magnitude + form->shift;
    for (size_t i = 0; i < n; i++) {
        uint32_t v = load_word(base, i, size), s = symbol[i];
        uint32_t flags = -below(ntokens - 1, s) - below(2 * ntokens - 1, s) - below(3 * ntokens - 1, s), token = s - flags * ntokens;
        uint32_t known = below(s, 4 * ntokens), small = below(token, 2 * leading);
        uint32_t scale = power(((token >> fine) - 1) & ~small & known);
        uint32_t least = (token & small) | (((leading | (token & (leading - 1))) * scale) & ~small);
        uint32_t distance = (least + (plain[i] & (scale - 1))) & known, minus = 0 - (flags & 1 & known);
        uint32_t mag = (base_magnitude(v, form) + ((distance ^ minus) - minus)) & mask;
        store_word(words, i, size, mag << form->shift | ((v >> sign) ^ (flags >> 1 & known)) << sign);
    }
}

VARIANTS static void apply(void *words, const void *base, const uint8_t *symbol, const uint32_t *plain, const layout *form, size_t start,
                           size_t n) {
    words = (uint8_t *)words + start * form->size;
    base = (const uint8_t *)base + start * form->size;
    if (form->size == 1) {
        apply_block(words, base, symbol, plain, form, n, 1, 2);
    } else if (form->size == 2) {
        apply_block(words, base, symbol, plain, form, n, 2, 2);
    } else if (form->fine == 2) {
        apply_block(words, base, symbol, plain, form, n, 4, 2);
    } else {
        apply_block(words, base, symbol, plain, form, n, 4, 1);
    }
}

/* Plain bits of each symbol. */
static void find_nbits(uint8_t nbits[256], const layout *form) {
    memset(nbits, 0, 256);
    for (uint32_t s = 0; s < 4 * form->ntokens; s++) {
        uint32_t token = s % form->ntokens;
        nbits[s] = (uint8_t)(token < 2U << form->fine ? 0 : (token >> form->fine) - 1);
    }
}

/* ---- encoding ---- */

static unsigned common_shift(const void *words, dz_dtype dtype, size_t count) {
    unsigned size = (unsigned)dz_dtype_size(dtype);
    uint32_t all = 0;
    for (size_t i = 0; i < count && !(all & 1); i++) all |= load_word(words, i, size);
    unsigned shift = all ? (unsigned)__builtin_ctz(all) : 0, most = size * 8 - 2;
    return shift < most ? shift : most;
}

typedef struct encoder {
    layout form;
    dz_class_plan plan;
    size_t start[DZ_CLASSES_MAX + 1]; /* where each class's symbols begin in `coded`; the last one is their number */
    uint8_t *coded;                   /* symbols, gathered by class */
    dz_buf plain;                     /* the bit stream */
} encoder;

/* What the plan is made from: how often each symbol occurs in each context that occurs. */
typedef struct census {
    uint32_t in_context[DZ_CONTEXTS_MAX]; /* elements */
    uint16_t row_of[DZ_CONTEXTS_MAX];     /* where a context's counts are */
    uint16_t contexts[DZ_CONTEXTS_MAX];   /* of each row, ascending */
    unsigned nrows;
    uint32_t (*counts)[256];
} census;

static void find_rows(census *c, const layout *form) {
    for (unsigned k = 0; k < form->ncontexts; k++) {
        if (c->in_context[k] == 0) continue;
        c->row_of[k] = (uint16_t)c->nrows;
        c->contexts[c->nrows++] = (uint16_t)k;
    }
}

/* Long tiles are planned from every fourth block. */
static size_t plan_stride(size_t count) { return count > LONG ? 4 : 1; }

static void count_symbols(census *c, const void *words, const void *base, const layout *form, size_t count) {
    block b;
    for (size_t at = 0; at < count; at += BLOCK * plan_stride(count)) {
        size_t n = count - at < BLOCK ? count - at : BLOCK;
        analyse(&b, words, base, form, at, n);
        for (size_t i = 0; i < n; i++) c->counts[c->row_of[b.context[i]]][b.symbol[i]]++;
    }
}

static uint64_t plain_bits(const census *c, const layout *form) {
    uint8_t nbits[256];
    find_nbits(nbits, form);
    uint64_t bits = 0;
    for (unsigned row = 0; row < c->nrows; row++) {
        for (size_t s = 0; s < 256; s++) bits += (uint64_t)c->counts[row][s] * nbits[s];
    }
    return bits;
}

static dz_rc make_plan(encoder *e, const void *words, const void *base, size_t count, dz_error *err) {
    census c = {0};
    count_contexts(c.in_context, base, &e->form, count);
    find_rows(&c, &e->form);
    c.counts = dz_alloc(c.nrows, sizeof *c.counts, err);
    if (!c.counts) return err->rc;
    count_symbols(&c, words, base, &e->form, count);
    size_t nplain = (size_t)(plain_bits(&c, &e->form) / 8) * plan_stride(count);
    dz_class_plan_make(&e->plan, c.counts, c.contexts, c.nrows, e->form.ncontexts);
    for (unsigned context = 0; context < e->form.ncontexts; context++) e->start[e->plan.class_of[context] + 1] += c.in_context[context];
    for (unsigned k = 0; k < e->plan.nclasses; k++) e->start[k + 1] += e->start[k];
    free(c.counts);
    return dz_buf_reserve(&e->plain, nplain + nplain / 64 + ROOM, err); /* about what is needed, to grow once */
}

/* The bit stream being written: `count` < 8 bits between elements. */
typedef struct bit_sink {
    uint8_t *to;
    uint64_t held;
    unsigned count;
} bit_sink;

/* Up to 56 bits. */
INLINE void put_bits(bit_sink *s, uint64_t bits, unsigned n) {
    s->held |= bits << s->count;
    s->count += n;
    memcpy(s->to, &s->held, 8);
    s->to += s->count >> 3;
    s->held >>= s->count & ~7U;
    s->count &= 7;
}

/* The symbols of a block, each to its class. */
static void gather_block(const dz_class_plan *plan, block *b, uint8_t **next, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t symbol = b->symbol[i], k = plan->class_of[b->context[i]], code = plan->code_of[k][symbol];
        *next[k]++ = code;
        if (__builtin_expect(code == DZ_SYMBOL_ESCAPE, 0)) b->nbits[i] |= ESCAPED;
    }
}

/* The plain bits of a block. Four elements at a time where they fit: what has to wait for the bits before is done once for them. */
static void pack_block(bit_sink *sink, const block *b, size_t n) {
    bit_sink s = *sink;
    const uint8_t *nbits = b->nbits;
    for (size_t i = 0; i < n; i += 4) {
        unsigned low = 0, all = 64;
        if (i + 4 <= n) {
            low = nbits[i] + nbits[i + 1];
            all = low + nbits[i + 2] + nbits[i + 3];
        }
        if (__builtin_expect(all <= 56, 1)) {
            uint64_t first = b->bits[i] | (uint64_t)b->bits[i + 1] << nbits[i];
            uint64_t second = b->bits[i + 2] | (uint64_t)b->bits[i + 3] << nbits[i + 2];
            put_bits(&s, first | second << low, all);
            continue;
        }
        for (size_t j = i; j < i + 4 && j < n; j++) {
            if (nbits[j] & ESCAPED) put_bits(&s, b->symbol[j], 8);
            put_bits(&s, b->bits[j], nbits[j] & 0x7fU);
        }
    }
    *sink = s;
}

/* Gathers the symbols of all elements by class, and writes their plain bits in element order. */
static dz_rc gather(encoder *e, const void *words, const void *base, size_t count, dz_error *err) {
    uint8_t *next[DZ_CLASSES_MAX];
    for (unsigned k = 0; k < e->plan.nclasses; k++) next[k] = e->coded + e->start[k];
    block b;
    bit_sink sink = {0};
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t n = count - at < BLOCK ? count - at : BLOCK;
        if (dz_buf_reserve(&e->plain, ROOM, err) != DZ_OK) return err->rc;
        sink.to = e->plain.data + e->plain.len;
        analyse(&b, words, base, &e->form, at, n);
        gather_block(&e->plan, &b, next, n);
        pack_block(&sink, &b, n);
        e->plain.len = (size_t)(sink.to - e->plain.data);
    }
    uint8_t last = (uint8_t)sink.held;
    return sink.count ? dz_buf_put(&e->plain, &last, 1, err) : DZ_OK;
}

static dz_rc put_body(dz_buf *out, const encoder *e, dz_error *err) {
    const dz_class_plan *plan = &e->plan;
    uint8_t shift = (uint8_t)e->form.shift;
    dz_buf streams = {0};
    dz_rc rc = dz_buf_put(out, &shift, 1, err);
    if (rc == DZ_OK) rc = dz_buf_put_varint(out, plan->nclasses, err);
    for (unsigned k = 1; k < plan->nclasses && rc == DZ_OK; k++) rc = dz_buf_put_varint(out, plan->first[k] - plan->first[k - 1], err);
    for (unsigned k = 0; k < plan->nclasses && rc == DZ_OK; k++) {
        size_t before = streams.len;
        rc = dz_rans_encode(&streams, e->coded + e->start[k], e->start[k + 1] - e->start[k], err);
        if (rc == DZ_OK) rc = dz_buf_put_varint(out, streams.len - before, err);
    }
    if (rc == DZ_OK) rc = dz_buf_reserve(out, streams.len + e->plain.len, err);
    if (rc == DZ_OK) rc = dz_buf_put(out, streams.data, streams.len, err);
    if (rc == DZ_OK) rc = dz_buf_put(out, e->plain.data, e->plain.len, err);
    dz_buf_free(&streams);
    return rc;
}

dz_rc dz_classes_encode(dz_buf *out, const void *words, const void *base, dz_dtype dtype, size_t count, dz_error *err) {
    assert(base && count > 0 && count <= DZ_RANS_MAX);
    encoder *e = dz_alloc(1, sizeof *e, err);
    if (!e) return err->rc;
    e->form = layout_of(dtype, common_shift(words, dtype, count));
    e->coded = dz_alloc_raw(count, 1, err);
    dz_rc rc = e->coded ? make_plan(e, words, base, count, err) : err->rc;
    if (rc == DZ_OK) rc = gather(e, words, base, count, err);
    if (rc == DZ_OK) rc = put_body(out, e, err);
    dz_buf_free(&e->plain);
    free(e->coded);
    free(e);
    return rc;
}

/* ---- decoding ---- */

typedef struct decoder {
    layout form;
    uint8_t nbits[256]; /* of each symbol */
    dz_class_plan plan;
    size_t start[DZ_CLASSES_MAX + 1];
    uint64_t ncoded[DZ_CLASSES_MAX]; /* bytes of each class's stream */
    uint8_t *coded;                  /* symbols, class by class */
    const uint8_t *plain;            /* the bit stream: what is left of the body */
    size_t nplain;
} decoder;

static dz_rc get_classes(decoder *d, dz_dtype dtype, dz_view *view, dz_error *err) {
    unsigned shift = dz_view_u8(view);
    uint64_t nclasses = dz_view_varint(view), context = 0;
    if (view->bad || shift > dz_dtype_size(dtype) * 8 - 2) return dz_fail(err, DZ_EDAMAGE, "classes with a shift of %u", shift);
    d->form = layout_of(dtype, shift);
    if (nclasses == 0 || nclasses > DZ_CLASSES_MAX) return dz_fail(err, DZ_EDAMAGE, "%llu classes", (unsigned long long)nclasses);
    d->plan.nclasses = (unsigned)nclasses;
    d->plan.first[0] = 0;
    for (unsigned k = 1; k < nclasses; k++) {
        uint64_t more = dz_view_varint(view);
        if (more == 0 || more >= d->form.ncontexts - context) return dz_fail(err, DZ_EDAMAGE, "class %u starts beyond the last context", k);
        context += more;
        d->plan.first[k] = (uint16_t)context;
    }
    for (unsigned k = 0; k < nclasses; k++) d->ncoded[k] = dz_view_varint(view);
    if (view->bad) return dz_fail(err, DZ_EDAMAGE, "a list of %llu classes is cut short", (unsigned long long)nclasses);
    dz_class_plan_spread(&d->plan, d->form.ncontexts);
    return DZ_OK;
}

/* The number of symbols in each class follows from the base. */
static void count_classes(decoder *d, const void *base, size_t count) {
    uint32_t in_context[DZ_CONTEXTS_MAX];
    count_contexts(in_context, base, &d->form, count);
    memset(d->start, 0, sizeof d->start);
    for (unsigned context = 0; context < d->form.ncontexts; context++) d->start[d->plan.class_of[context] + 1] += in_context[context];
    for (unsigned k = 0; k < d->plan.nclasses; k++) d->start[k + 1] += d->start[k];
}

static dz_rc get_streams(decoder *d, size_t count, dz_view *view, dz_error *err) {
    dz_rans_stream streams[DZ_CLASSES_MAX];
    d->coded = dz_alloc_raw(count + DZ_GATHER_ROOM, 1, err);
    if (!d->coded) return err->rc;
    for (unsigned k = 0; k < d->plan.nclasses; k++) {
        const uint8_t *bytes = dz_view_bytes(view, d->ncoded[k]);
        if (!bytes) return dz_fail(err, DZ_EDAMAGE, "the stream of class %u is cut short", k);
        streams[k] = (dz_rans_stream){d->coded + d->start[k], d->start[k + 1] - d->start[k], bytes, (size_t)d->ncoded[k]};
    }
    if (dz_rans_decode_streams(streams, d->plan.nclasses, err) != DZ_OK) return err->rc;
    d->nplain = view->len - view->pos;
    if (d->nplain > (count * ELEMENT_BITS_MAX + 7) / 8) return dz_fail(err, DZ_EDAMAGE, "%zu bytes behind the classes", d->nplain);
    d->plain = dz_view_bytes(view, d->nplain);
    return DZ_OK;
}

/* What begins with the plain bits of each of `n` <= BLOCK elements; escapes become the symbols that they stand for. `bit` is the place in
 * the bit stream `from`, which has ROOM bytes from there on. Returns the place behind the block. */
static uint64_t get_plain(uint32_t *restrict plain, uint8_t *restrict symbols, const uint8_t *restrict nbits, const uint8_t *from,
                          uint64_t bit, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t held;
        if (i % 8 == 0 && i + 8 <= n) { /* most runs of equal elements */
            memcpy(&held, symbols + i, 8);
            if (held == 0) {
                i += 7;
                continue;
            }
        }
        uint8_t symbol = symbols[i];
        memcpy(&held, from + (bit >> 3), 8);
        held >>= bit & 7;
        if (__builtin_expect(symbol == DZ_SYMBOL_ESCAPE, 0)) {
            symbols[i] = symbol = held & 0xff;
            held >>= 8;
            bit += 8;
        }
        plain[i] = (uint32_t)held;
        bit += nbits[symbol];
    }
    return bit;
}

static dz_rc rebuild(void *words, const void *base, const decoder *d, size_t count, dz_error *err) {
    const uint8_t *next[DZ_CLASSES_MAX];
    for (unsigned k = 0; k < d->plan.nclasses; k++) next[k] = d->coded + d->start[k];
    uint16_t context[BLOCK];
    uint8_t symbols[BLOCK];
    uint32_t words_of_bits[BLOCK] = {0}; /* those of equal elements are not asked for */
    uint8_t tail[2 * ROOM];              /* the end of the bit stream and zeros: enough for the block that runs over it */
    const uint8_t *plain = d->plain;
    uint64_t bit = 0, end = (uint64_t)d->nplain * 8;
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t n = count - at < BLOCK ? count - at : BLOCK;
        find_contexts(context, base, &d->form, at, n);
        if (plain != tail && (end - bit) / 8 < ROOM) {
            size_t left = d->nplain - (size_t)(bit >> 3);
            memset(tail, 0, sizeof tail);
            if (left) memcpy(tail, plain + (bit >> 3), left);
            plain = tail;
            bit &= 7;
            end = (uint64_t)left * 8;
        }
        dz_kernels()->gather_classes(symbols, context, d->plan.class_of, d->plan.first, d->plan.nclasses, next, n);
        bit = get_plain(words_of_bits, symbols, d->nbits, plain, bit, n);
        if (bit > end) return dz_fail(err, DZ_EDAMAGE, "the bits of the classes are cut short: %zu bytes", d->nplain);
        apply(words, base, symbols, words_of_bits, &d->form, at, n);
    }
    if (end - bit >= 8) return dz_fail(err, DZ_EDAMAGE, "%zu bytes are left over behind the classes", (size_t)(end - bit) / 8);
    return DZ_OK;
}

dz_rc dz_classes_decode(void *words, const void *base, dz_dtype dtype, size_t count, dz_view *view, dz_error *err) {
    if (!base || !dz_classes_fit(dtype) || count == 0 || count > DZ_RANS_MAX)
        return dz_fail(err, DZ_EDAMAGE, "%zu elements without a base or of a wrong type cannot be in classes", count);
    decoder *d = dz_alloc(1, sizeof *d, err);
    if (!d) return err->rc;
    dz_rc rc = get_classes(d, dtype, view, err);
    if (rc == DZ_OK) {
        find_nbits(d->nbits, &d->form);
        count_classes(d, base, count);
        rc = get_streams(d, count, view, err);
    }
    if (rc == DZ_OK) rc = rebuild(words, base, d, count, err);
    free(d->coded);
    free(d);
    return rc;
}

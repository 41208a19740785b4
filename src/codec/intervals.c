#include "codec/intervals.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "codec/bits.h"
#include "codec/entropy.h"
#include "codec/rans.h"
#include "codec/variants.h"

enum {
    FINE = 3,          /* bits of the mantissa in a key, where there are so many */
    SIGNED = 0x80,     /* set in `fine`: the key's highest bit is the sign */
    KEY_BITS_MAX = 12, /* the sign, 8 of an exponent and FINE */
    KEYS_MAX = 1 << KEY_BITS_MAX,
    SYMBOLS_MAX = 256,
    ENTRY_BITS = 14,      /* what a symbol costs in the list of intervals and in the table of rANS */
    SHARES_LOG = 12,      /* rANS gives no symbol less than 2^-12 of its code space */
    GROUP = 8,            /* elements whose low fields fill whole bytes */
    GROUP_BYTES_MAX = 24, /* of low fields: at most 24 bits an element */
    BLOCK = 1024          /* elements handled at a time: kernels that vectorise work on arrays of this length */
};

/* How elements become keys and low fields. Derived from dtype, shift and fine. */
typedef struct layout {
    unsigned size;     /* bytes of an element */
    unsigned shift;    /* low bits that are 0 in every element, and not coded */
    unsigned low_bits; /* of the magnitude, below the key */
    unsigned key_bits;
    unsigned sign_in_key; /* 1: the highest bit of the key is the sign; 0: the sign is above the low bits */
    unsigned width;       /* of a low field */
    unsigned sign;        /* place of the sign bit */
} layout;

/* Intervals in ascending order; each begins at a multiple of its length. */
typedef struct intervals {
    unsigned n;
    uint16_t first[SYMBOLS_MAX]; /* key that an interval begins with */
    uint8_t more[SYMBOLS_MAX];   /* x: it has 2^x keys */
} intervals;

int dz_intervals_fit(dz_dtype dtype) { return dtype == DZ_F32 || dtype == DZ_F16 || dtype == DZ_BF16; }

static unsigned mantissa_bits(dz_dtype dtype) { return dtype == DZ_F32 ? 23 : dtype == DZ_F16 ? 10 : 7; }

static layout layout_of(dz_dtype dtype, unsigned shift, unsigned fine, unsigned sign_in_key) {
    layout form = {.size = (unsigned)dz_dtype_size(dtype), .shift = shift, .sign_in_key = sign_in_key};
    form.sign = 8 * form.size - 1;
    form.low_bits = mantissa_bits(dtype) - shift - fine;
    form.key_bits = form.sign - mantissa_bits(dtype) + fine + sign_in_key;
    form.width = form.low_bits + 1 - sign_in_key;
    return form;
}

static inline uint32_t load_word(const void *words, size_t i, unsigned size) {
    const uint8_t *at = (const uint8_t *)words + i * size;
    uint32_t wide;
    uint16_t half;
    if (size == 4) return memcpy(&wide, at, 4), wide;
    return memcpy(&half, at, 2), half;
}

static inline void store_word(void *words, size_t i, unsigned size, uint32_t x) {
    uint8_t *at = (uint8_t *)words + i * size;
    uint16_t half = (uint16_t)x;
    if (size == 4) {
        memcpy(at, &x, 4);
    } else {
        memcpy(at, &half, 2);
    }
}

static size_t low_bytes(size_t count, const layout *form) { return (count * form->width + 7) / 8; }

/* ---- encoding ---- */

static unsigned common_shift(const void *words, dz_dtype dtype, size_t count) {
    unsigned size = (unsigned)dz_dtype_size(dtype), most = mantissa_bits(dtype);
    uint32_t all = (uint32_t)1 << most;
    for (size_t i = 0; i < count && !(all & 1); i++) all |= load_word(words, i, size);
    return (unsigned)__builtin_ctz(all);
}

/* 1 if signs are far from even: fewer than 7 / 16 of them are one of the two. */
DZ_VARIANTS static unsigned signs_are_uneven(const void *words, dz_dtype dtype, size_t count) {
    uint32_t negative = 0; /* count <= DZ_RANS_MAX */
    if (dz_dtype_size(dtype) == 2) {
        for (size_t i = 0; i < count; i++) negative += load_word(words, i, 2) >> 15;
    } else {
        for (size_t i = 0; i < count; i++) negative += load_word(words, i, 4) >> 31;
    }
    size_t fewer = negative < count - negative ? negative : count - negative;
    return fewer < count / 16 * 7;
}

static inline uint32_t key_of(uint32_t word, const layout *form) {
    uint32_t magnitude = (word & ~((uint32_t)1 << form->sign)) >> (form->shift + form->low_bits);
    return magnitude | (form->sign_in_key ? word >> form->sign << (form->key_bits - 1) : 0);
}

static void count_keys(uint32_t counts[KEYS_MAX], const void *words, const layout *form, size_t count) {
    static const unsigned PARTS = 2; /* neighbours often have the same key: one count does not wait for the other */
    uint32_t part[2][KEYS_MAX] = {{0}};
    size_t i = 0;
    for (; i + PARTS <= count; i += PARTS) {
        part[0][key_of(load_word(words, i, form->size), form)]++;
        part[1][key_of(load_word(words, i + 1, form->size), form)]++;
    }
    for (; i < count; i++) part[0][key_of(load_word(words, i, form->size), form)]++;
    for (unsigned k = 0; k < KEYS_MAX; k++) counts[k] = part[0][k] + part[1][k];
}

/* Predicted size of `n` of `total` elements as one symbol with x plain bits, in 2^-16 bit. What is rarer than rANS's least share costs as
 * much as that share, and takes the space from all others. */
static int64_t cost_of(uint32_t n, uint32_t total, unsigned x, unsigned entry_bits) {
    if (n == 0) return 0;
    int64_t fixed = ((int64_t)n * x + entry_bits) * (1 << DZ_BITS_SHIFT), log_total = (int64_t)(dz_nlog2n(total) / total);
    uint32_t least = total >> SHARES_LOG;
    if (n >= least) return (int64_t)n * log_total - (int64_t)dz_nlog2n(n) + fixed;
    int64_t others = ((int64_t)(least - n) * 94548); /* log2(e) in 2^-16 */
    return (int64_t)n * SHARES_LOG * (1 << DZ_BITS_SHIFT) + others + fixed;
}

typedef struct tree { /* of all aligned intervals: nodes 1, 2 3, 4 5 6 7, ..; the leaves are keys */
    uint32_t counts[2 * KEYS_MAX];
    int64_t cost[2 * KEYS_MAX];  /* of the best division */
    uint8_t whole[2 * KEYS_MAX]; /* 1: the best division is none */
} tree;

static void divide(tree *t, unsigned key_bits, uint32_t total, unsigned entry_bits) {
    for (unsigned node = (2U << key_bits) - 1; node >= 1; node--) {
        unsigned depth = 31U - (unsigned)__builtin_clz(node);
        int is_leaf = depth == key_bits;
        if (!is_leaf) t->counts[node] = t->counts[2 * node] + t->counts[2 * node + 1];
        int64_t whole = cost_of(t->counts[node], total, key_bits - depth, entry_bits);
        int64_t parts = is_leaf ? whole : t->cost[2 * node] + t->cost[2 * node + 1];
        t->whole[node] = whole <= parts;
        t->cost[node] = whole <= parts ? whole : parts;
    }
}

/* Lists the undivided nodes in order of their keys. Returns how many there are; only SYMBOLS_MAX of them are listed. */
static unsigned list_intervals(intervals *found, const tree *t, unsigned key_bits) {
    unsigned n = 0;
    for (uint32_t key = 0; key < (uint32_t)1 << key_bits;) {
        unsigned node = 1, depth = 0;
        for (; !t->whole[node]; depth++) node = 2 * node + (key >> (key_bits - depth - 1) & 1);
        if (n < SYMBOLS_MAX) found->first[n] = (uint16_t)key, found->more[n] = (uint8_t)(key_bits - depth);
        key += (uint32_t)1 << (key_bits - depth);
        n++;
    }
    return n;
}

/* The cheapest division of the keys into aligned intervals of 2^x, at most SYMBOLS_MAX. `cost`, if not NULL, in 2^-16 bit. */
static dz_rc make_intervals(intervals *found, int64_t *cost, const void *words, const layout *form, size_t count, dz_error *err) {
    tree *t = dz_alloc(1, sizeof *t, err);
    if (!t) return err->rc;
    uint32_t counts[KEYS_MAX];
    count_keys(counts, words, form, count);
    memcpy(t->counts + ((size_t)1 << form->key_bits), counts, sizeof *counts << form->key_bits);
    for (unsigned entry_bits = ENTRY_BITS;; entry_bits *= 2) {
        divide(t, form->key_bits, (uint32_t)count, entry_bits);
        found->n = list_intervals(found, t, form->key_bits);
        if (found->n <= SYMBOLS_MAX) break;
    }
    if (cost) *cost = t->cost[1];
    free(t);
    return DZ_OK;
}

/* For each key: the symbol, and x << 8. */
static void spread(uint16_t symbol_of[KEYS_MAX], const intervals *found) {
    for (unsigned s = 0; s < found->n; s++) {
        for (unsigned k = 0; k < 1U << found->more[s]; k++) symbol_of[found->first[s] + k] = (uint16_t)((unsigned)found->more[s] << 8 | s);
    }
}

DZ_INLINE void split_words(uint16_t *restrict keys, uint32_t *restrict low, const void *restrict words, const layout *whose, unsigned size,
                           size_t n) {
    const layout form = *whose; /* a local: no store can change it */
    const uint32_t low_mask = ((uint32_t)1 << form.low_bits) - 1;
    const unsigned sign = 8 * size - 1, above_key = form.key_bits - 1;
    const uint32_t in_key = form.sign_in_key, in_low = 1 - in_key;
    for (size_t i = 0; i < n; i++) {
        uint32_t word = load_word(words, i, size);
        keys[i] = (uint16_t)((word & ~((uint32_t)1 << sign)) >> (form.shift + form.low_bits) | (word >> sign & in_key) << above_key);
        low[i] = (word >> form.shift & low_mask) | (word >> sign & in_low) << form.low_bits;
    }
}

/* Keys and low fields of n <= BLOCK elements: a low field is what is below the key, and the sign above it. */
DZ_VARIANTS static void split(uint16_t *keys, uint32_t *low, const void *words, const layout *form, size_t start, size_t n) {
    words = (const uint8_t *)words + start * form->size;
    if (form->size == 2) {
        split_words(keys, low, words, form, 2, n);
    } else {
        split_words(keys, low, words, form, 4, n);
    }
}

/* Symbols of a block, and the keys' bits inside their intervals. */
static void put_symbols(uint8_t *symbols, dz_bit_writer *extra, const uint16_t *keys, const uint16_t *symbol_of, size_t n) {
    uint16_t inside[BLOCK]; /* elements whose interval has several keys */
    size_t ninside = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t symbol = symbol_of[keys[i]];
        symbols[i] = (uint8_t)symbol;
        inside[ninside] = (uint16_t)i;
        ninside += symbol >> 8 != 0;
    }
    for (size_t k = 0; k < ninside; k++) {
        unsigned key = keys[inside[k]], x = symbol_of[key] >> 8;
        dz_put_bits(extra, key & ((1U << x) - 1), x);
    }
}

/* Low fields, which begin at a byte; what is behind the last one is zero. Writes up to 8 bytes too many. */
static void put_low(uint8_t *at, const uint32_t *low, unsigned width, size_t n) {
    size_t i = 0;
    for (; width <= 8 && i + GROUP <= n; i += GROUP, at += width) {
        uint64_t held = 0;
        for (unsigned j = 0; j < GROUP; j++) held |= (uint64_t)low[i + j] << j * width;
        memcpy(at, &held, sizeof held);
    }
    uint64_t held = 0;
    for (unsigned used = 0; i < n; i++) {
        held |= (uint64_t)low[i] << used;
        used += width;
        memcpy(at, &held, sizeof held);
        at += used / 8;
        held >>= used & ~7U;
        used &= 7;
    }
}

/* What an encoder makes of a tile. */
typedef struct parts {
    uint8_t *symbols;
    dz_buf extra, low; /* bit streams */
} parts;

static dz_rc make_parts(parts *p, const void *words, const layout *form, const intervals *found, size_t count, dz_error *err) {
    uint16_t symbol_of[KEYS_MAX], keys[BLOCK];
    uint32_t low[BLOCK];
    dz_bit_writer extra = {.out = &p->extra, .err = err};
    p->low.len = low_bytes(count, form);
    if (!(p->symbols = dz_alloc_raw(count, 1, err)) || !(p->low.data = dz_alloc_raw(p->low.len + 8, 1, err))) return err->rc;
    spread(symbol_of, found);
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t n = count - at < BLOCK ? count - at : BLOCK;
        split(keys, low, words, form, at, n);
        put_symbols(p->symbols + at, &extra, keys, symbol_of, n);
        put_low(p->low.data + at / 8 * form->width, low, form->width, n);
    }
    return dz_end_bits(&extra);
}

static dz_rc put_head(dz_buf *out, const layout *form, unsigned fine, const intervals *found, dz_error *err) {
    uint8_t head[2] = {(uint8_t)form->shift, (uint8_t)(fine | (form->sign_in_key ? SIGNED : 0))};
    dz_rc rc = dz_buf_put(out, head, sizeof head, err);
    for (unsigned s = 0, run; s < found->n && rc == DZ_OK; s += run) {
        for (run = 1; s + run < found->n && found->more[s + run] == found->more[s];) run++;
        rc = dz_buf_put(out, &found->more[s], 1, err);
        if (rc == DZ_OK) rc = dz_buf_put_varint(out, run, err);
    }
    return rc;
}

static dz_rc put_parts(dz_buf *out, const parts *p, size_t count, dz_error *err) {
    dz_buf stream = {0};
    dz_rc rc = dz_rans_encode(&stream, p->symbols, count, err);
    if (rc == DZ_OK) rc = dz_buf_put_varint(out, stream.len, err);
    if (rc == DZ_OK) rc = dz_buf_reserve(out, stream.len + p->extra.len + p->low.len, err);
    if (rc == DZ_OK) rc = dz_buf_put(out, stream.data, stream.len, err);
    if (rc == DZ_OK) rc = dz_buf_put_varint(out, p->extra.len, err);
    if (rc == DZ_OK && p->extra.len) rc = dz_buf_put(out, p->extra.data, p->extra.len, err);
    if (rc == DZ_OK) rc = dz_buf_put(out, p->low.data, p->low.len, err);
    dz_buf_free(&stream);
    return rc;
}

/* How a tile is divided into keys and low fields. */
static unsigned choose_layout(layout *form, const void *words, dz_dtype dtype, size_t count) {
    unsigned shift = common_shift(words, dtype, count), left = mantissa_bits(dtype) - shift, fine = left < FINE ? left : FINE;
    *form = layout_of(dtype, shift, fine, signs_are_uneven(words, dtype, count));
    return fine;
}

dz_rc dz_intervals_estimate(size_t *nbytes, const void *words, dz_dtype dtype, size_t count, dz_error *err) {
    layout form;
    intervals found;
    int64_t cost;
    choose_layout(&form, words, dtype, count);
    if (make_intervals(&found, &cost, words, &form, count, err) != DZ_OK) return err->rc;
    *nbytes = (size_t)(cost >> (DZ_BITS_SHIFT + 3)) + low_bytes(count, &form);
    return DZ_OK;
}

dz_rc dz_intervals_encode(dz_buf *out, const void *words, dz_dtype dtype, size_t count, dz_error *err) {
    assert(dz_intervals_fit(dtype) && count > 0 && count <= DZ_RANS_MAX);
    layout form;
    unsigned fine = choose_layout(&form, words, dtype, count);
    intervals found;
    parts p = {0};
    dz_rc rc = make_intervals(&found, NULL, words, &form, count, err);
    if (rc == DZ_OK) rc = make_parts(&p, words, &form, &found, count, err);
    if (rc == DZ_OK) rc = put_head(out, &form, fine, &found, err);
    if (rc == DZ_OK) rc = put_parts(out, &p, count, err);
    dz_buf_free(&p.extra);
    dz_buf_free(&p.low);
    free(p.symbols);
    return rc;
}

/* ---- decoding ---- */

static dz_rc get_layout(layout *form, dz_dtype dtype, dz_view *view, dz_error *err) {
    unsigned shift = dz_view_u8(view), byte = dz_view_u8(view), fine = byte & ~(unsigned)SIGNED;
    if (view->bad || shift > mantissa_bits(dtype) || fine > FINE || fine > mantissa_bits(dtype) - shift)
        return dz_fail(err, DZ_EDAMAGE, "intervals with a shift of %u and %u bits", shift, fine);
    *form = layout_of(dtype, shift, fine, byte >> 7);
    return DZ_OK;
}

static dz_rc get_intervals(intervals *found, const layout *form, dz_view *view, dz_error *err) {
    uint32_t key = 0, end = (uint32_t)1 << form->key_bits;
    found->n = 0;
    while (key < end) {
        unsigned x = dz_view_u8(view);
        uint64_t run = dz_view_varint(view);
        if (view->bad || x > form->key_bits || run == 0 || run > SYMBOLS_MAX - found->n || run > (end - key) >> x ||
            key % ((uint32_t)1 << x) != 0)
            return dz_fail(err, DZ_EDAMAGE, "intervals of 2^%u keys do not fit from key %u on", x, (unsigned)key);
        for (uint64_t r = 0; r < run; r++, key += (uint32_t)1 << x) {
            found->first[found->n] = (uint16_t)key;
            found->more[found->n++] = (uint8_t)x;
        }
    }
    return DZ_OK;
}

/* Keys of a block of symbols; `entry` has, for each symbol, its interval's first key << 8 | x. */
static void get_keys(uint16_t *keys, const uint8_t *symbols, const uint32_t *entry, dz_bit_reader *extra, size_t n) {
    uint16_t inside[BLOCK];
    size_t ninside = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t e = entry[symbols[i]];
        keys[i] = (uint16_t)(e >> 8);
        inside[ninside] = (uint16_t)i;
        ninside += (e & 0xff) != 0;
    }
    for (size_t k = 0; k < ninside; k++) {
        unsigned i = inside[k];
        keys[i] |= (uint16_t)dz_get_bits(extra, entry[symbols[i]] & 0xff);
    }
}

/* Low fields of a block, which begin at a byte; `nbytes` are left. Bits above a field are another's. */
DZ_VARIANTS static void get_low(uint32_t *restrict low, const uint8_t *from, size_t nbytes, unsigned width, size_t n) {
    size_t i = 0;
    for (size_t at = 0; width <= 8 && i + GROUP <= n && nbytes - at >= 8; i += GROUP, at += width) {
        uint64_t held;
        memcpy(&held, from + at, sizeof held);
        for (unsigned k = 0; k < GROUP; k++) low[i + k] = (uint32_t)(held >> k * width);
    }
    for (; i < n; i++) {
        uint64_t bit = (uint64_t)i * width, held = 0;
        size_t at = (size_t)(bit / 8);
        memcpy(&held, from + at, nbytes - at < 8 ? nbytes - at : 8);
        low[i] = (uint32_t)(held >> bit % 8);
    }
}

DZ_INLINE void join_words(void *restrict words, const uint16_t *restrict keys, const uint32_t *restrict low, const layout *whose,
                          unsigned size, size_t n) {
    const layout form = *whose;
    const uint32_t low_mask = ((uint32_t)1 << form.low_bits) - 1, in_key = form.sign_in_key, in_low = 1 - in_key;
    const uint32_t key_mask = ((uint32_t)1 << (form.key_bits - form.sign_in_key)) - 1;
    const unsigned above_key = form.key_bits - 1;
    for (size_t i = 0; i < n; i++) {
        uint32_t magnitude = ((keys[i] & key_mask) << form.low_bits | (low[i] & low_mask)) << form.shift;
        uint32_t sign = (low[i] >> form.low_bits & in_low) | (keys[i] >> above_key & in_key);
        store_word(words, i, size, magnitude | sign << (8 * size - 1));
    }
}

DZ_VARIANTS static void join(void *words, const uint16_t *keys, const uint32_t *low, const layout *form, size_t start, size_t n) {
    words = (uint8_t *)words + start * form->size;
    if (form->size == 2) {
        join_words(words, keys, low, form, 2, n);
    } else {
        join_words(words, keys, low, form, 4, n);
    }
}

/* All elements. 0: the keys' bits are not exactly used up. */
static int get_words(void *words, const uint8_t *symbols, const uint8_t *low, const layout *form, const intervals *found,
                     dz_bit_reader *extra, size_t count) {
    uint16_t keys[BLOCK];
    uint32_t fields[BLOCK], entry[SYMBOLS_MAX] = {0}; /* symbols of no interval are key 0 */
    for (unsigned s = 0; s < found->n; s++) entry[s] = (uint32_t)found->first[s] << 8 | found->more[s];
    size_t nbytes = low_bytes(count, form);
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t n = count - at < BLOCK ? count - at : BLOCK, byte = at / 8 * form->width;
        get_keys(keys, symbols + at, entry, extra, n);
        get_low(fields, low + byte, nbytes - byte, form->width, n);
        join(words, keys, fields, form, at, n);
    }
    return dz_bits_at_end(extra);
}

dz_rc dz_intervals_decode(void *words, dz_dtype dtype, size_t count, dz_view *view, dz_error *err) {
    if (!dz_intervals_fit(dtype) || count == 0 || count > DZ_RANS_MAX)
        return dz_fail(err, DZ_EDAMAGE, "%zu elements of a wrong type cannot be in intervals", count);
    layout form;
    intervals found;
    if (get_layout(&form, dtype, view, err) != DZ_OK || get_intervals(&found, &form, view, err) != DZ_OK) return err->rc;
    uint64_t nstream = dz_view_varint(view);
    const uint8_t *stream = dz_view_bytes(view, nstream);
    uint64_t nextra = dz_view_varint(view);
    const uint8_t *extra = dz_view_bytes(view, nextra), *low = dz_view_bytes(view, low_bytes(count, &form));
    if (!stream || !extra || !low || view->bad) return dz_fail(err, DZ_EDAMAGE, "%zu elements in intervals are cut short", count);
    uint8_t *symbols = dz_alloc_raw(count, 1, err);
    if (!symbols) return err->rc;
    dz_bit_reader inside = {.bytes = extra, .end = nextra * 8};
    dz_rc rc = dz_rans_decode(symbols, count, stream, (size_t)nstream, err);
    if (rc == DZ_OK && !get_words(words, symbols, low, &form, &found, &inside, count))
        rc = dz_fail(err, DZ_EDAMAGE, "the keys of %zu elements do not take %llu bytes", count, (unsigned long long)nextra);
    free(symbols);
    return rc;
}

#include "codec/rans.h"

#include <htscodecs/rANS_static4x16.h>
#include <string.h>

dz_rc dz_rans_encode(dz_buf *out, const uint8_t *symbols, size_t count, dz_error *err) {
    if (count == 0) return DZ_OK;
    if (count > DZ_RANS_MAX) return dz_fail(err, DZ_EFAIL, "a stream of %zu symbols exceeds the coder's %zu", count, DZ_RANS_MAX);
    unsigned bound = rans_compress_bound_4x16((unsigned)count, RANS_ORDER_NOSZ), coded = bound;
    if (dz_buf_reserve(out, bound > count + 1 ? bound : count + 1, err) != DZ_OK) return err->rc;
    uint8_t *at = out->data + out->len;
    /* The library takes a non-const input and does not write to it. */
    if (!rans_compress_to_4x16((unsigned char *)(uintptr_t)symbols, (unsigned)count, at, &coded, RANS_ORDER_NOSZ))
        return dz_fail(err, DZ_EFAIL, "rANS could not code %zu symbols", count);
    if (coded > count) { /* tables cost more than they save: store */
        at[0] = RANS_ORDER_CAT | RANS_ORDER_NOSZ;
        memcpy(at + 1, symbols, count);
        coded = (unsigned)count + 1;
    }
    out->len += coded;
    return DZ_OK;
}

#define TOTAL 4096                 /* of the frequencies */
#define LOWEST ((uint32_t)1 << 15) /* states below take 16 bits; where every state ends */
#define LANES 4

/* A slot of the table: the symbol's frequency - 1 << 20 | how far it is into the symbol's slots << 8 | symbol. */
static uint32_t slot_of(unsigned symbol, unsigned into, uint64_t frequency) {
    return (uint32_t)(frequency - 1) << 20 | (uint32_t)into << 8 | symbol;
}

/* CRAM 3.1's run-length coded list of symbols. How many; 0: it is damaged, or has a symbol twice. */
static unsigned read_alphabet(dz_view *v, uint8_t symbols[256]) {
    uint8_t seen[256] = {0};
    unsigned n = 0, run = 0, symbol = dz_view_u8(v), last = symbol;
    do {
        if (v->bad || symbol > 255 || seen[symbol]++) return 0;
        symbols[n++] = (uint8_t)symbol;
        if (run) {
            run--;
            symbol++;
        } else if ((symbol = dz_view_u8(v)) == last + 1) {
            run = dz_view_u8(v);
        }
        last = symbol;
    } while (symbol != 0);
    return v->bad ? 0 : n;
}

/* CRAM 3.1's number: 7 bits a byte, the highest first. */
static uint64_t read_number(dz_view *v) {
    uint64_t x = 0;
    for (uint8_t byte = 0x80; byte & 0x80 && x < (uint64_t)1 << 32 && !v->bad;) {
        byte = dz_view_u8(v);
        x = x << 7 | (byte & 0x7f);
    }
    return x;
}

/* 1 when the frequencies sum up to TOTAL after doubling, and none is 0. */
static int read_table(dz_view *v, uint32_t table[TOTAL]) {
    uint8_t symbols[256];
    uint64_t frequency[256], total = 0;
    unsigned n = read_alphabet(v, symbols), at = 0;
    for (unsigned i = 0; i < n; i++) total += frequency[i] = read_number(v);
    if (v->bad || total == 0 || total > TOTAL || TOTAL % total != 0) return 0;
    for (unsigned i = 0; i < n; i++) {
        if (frequency[i] == 0) return 0;
        frequency[i] *= TOTAL / total;
        for (unsigned k = 0; k < frequency[i]; k++) table[at++] = slot_of(symbols[i], k, frequency[i]);
    }
    return 1;
}

/* The state behind a symbol whose slot is `slot`. A state that is too low takes 16 bits from `*at`, without a branch, which could not be
 * foreseen: compilers make one of every choice written in C. */
static inline uint32_t advance(uint32_t state, uint32_t slot, const uint8_t **at) {
    uint32_t high = state >> 12, next = (slot >> 20) * high + (high + (slot >> 8 & 0xfff));
    uint16_t word;
    memcpy(&word, *at, sizeof word); /* little endian */
#ifdef __x86_64__
    uint32_t taken = next << 16 | word;
    const uint8_t *stay = *at, *go = *at + sizeof word;
    __asm__("cmp $0x8000, %0\n\tcmovb %2, %0\n\tcmovb %3, %1" : "+r"(next), "+r"(stay) : "r"(taken), "r"(go) : "cc");
    *at = stay;
    return next;
#else
    uint32_t takes = next < LOWEST;
    *at += 2 * takes;
    return next << (takes << 4) | (word & (0 - takes));
#endif
}

/* The symbols from the states on. NULL when the bytes end too early, otherwise the place behind what was taken. */
static const uint8_t *read_symbols(uint8_t *restrict symbols, size_t count, uint32_t state[LANES], const uint32_t *restrict table,
                                   const uint8_t *at, const uint8_t *end) {
    size_t i = 0;
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    for (; i + LANES <= count && end - at >= 2 * LANES; i += LANES) {
        uint32_t in_a = table[a & 0xfff], in_b = table[b & 0xfff], in_c = table[c & 0xfff], in_d = table[d & 0xfff];
        symbols[i] = (uint8_t)in_a;
        symbols[i + 1] = (uint8_t)in_b;
        symbols[i + 2] = (uint8_t)in_c;
        symbols[i + 3] = (uint8_t)in_d;
        a = advance(a, in_a, &at);
        b = advance(b, in_b, &at);
        c = advance(c, in_c, &at);
        d = advance(d, in_d, &at);
    }
    state[0] = a;
    state[1] = b;
    state[2] = c;
    state[3] = d;
    for (; i < count; i++) { /* near the end each word is looked for */
        static const uint8_t none[2] = {0, 0};
        uint32_t slot = table[state[i % LANES] & 0xfff];
        const uint8_t *from = end - at >= 2 ? at : none, *behind = from;
        symbols[i] = (uint8_t)slot;
        state[i % LANES] = advance(state[i % LANES], slot, &behind);
        if (from == none && behind != from) return NULL;
        at += behind - from;
    }
    return at;
}

dz_rc dz_rans_decode(uint8_t *symbols, size_t count, const uint8_t *bytes, size_t nbytes, dz_error *err) {
    if (count == 0) return nbytes == 0 ? DZ_OK : dz_fail(err, DZ_EDAMAGE, "an empty stream has %zu bytes", nbytes);
    if (count > DZ_RANS_MAX || nbytes == 0 || nbytes > count + 8)
        return dz_fail(err, DZ_EDAMAGE, "a stream of %zu bytes cannot hold %zu symbols", nbytes, count);
    if (bytes[0] == (RANS_ORDER_NOSZ | RANS_ORDER_CAT)) {
        if (nbytes != count + 1)
            return dz_fail(err, DZ_EDAMAGE, "a stream of %zu bytes does not hold %zu symbols as they are", nbytes, count);
        memcpy(symbols, bytes + 1, count);
        return DZ_OK;
    }
    if (bytes[0] != RANS_ORDER_NOSZ) return dz_fail(err, DZ_EDAMAGE, "a stream of unknown kind 0x%02x", bytes[0]);
    dz_view view = {.data = bytes, .len = nbytes, .pos = 1};
    uint32_t table[TOTAL], state[LANES];
    if (!read_table(&view, table)) return dz_fail(err, DZ_EDAMAGE, "a stream's frequencies do not sum up to %d", TOTAL);
    for (int i = 0; i < LANES; i++) state[i] = dz_view_u32(&view);
    if (view.bad) return dz_fail(err, DZ_EDAMAGE, "a stream of %zu bytes ends in its head", nbytes);
    const uint8_t *end = bytes + nbytes, *at = read_symbols(symbols, count, state, table, bytes + view.pos, end);
    if (!at) return dz_fail(err, DZ_EDAMAGE, "a stream of %zu bytes does not decode to %zu symbols", nbytes, count);
    if (at != end) return dz_fail(err, DZ_EDAMAGE, "a stream of %zu symbols leaves %zu bytes over", count, (size_t)(end - at));
    for (int i = 0; i < LANES; i++) {
        if (state[i] != LOWEST)
            return dz_fail(err, DZ_EDAMAGE, "a stream of %zu symbols ends in state %u, not %u", count, (unsigned)state[i],
                           (unsigned)LOWEST);
    }
    return DZ_OK;
}

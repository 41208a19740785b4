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

/* The same with a branch: for streams that have so few bits that it can be foreseen. */
static inline uint32_t advance_seldom(uint32_t state, uint32_t slot, const uint8_t **at) {
    uint32_t high = state >> 12, next = (slot >> 20) * high + (high + (slot >> 8 & 0xfff));
    uint16_t word;
    if (__builtin_expect(next >= LOWEST, 1)) return next;
    memcpy(&word, *at, sizeof word);
    *at += sizeof word;
    return next << 16 | word;
}

/* A stream that is being read. */
typedef struct reader {
    uint8_t *symbols;
    size_t i, count;          /* next symbol */
    const uint8_t *at, *end;  /* next byte, and behind the last */
    const uint8_t *last_turn; /* a turn of all lanes can begin up to here */
    uint8_t tail[4 * LANES];  /* the last bytes and zeros, once fewer are left than a turn can take */
    int seldom;               /* a state seldom takes bits: half a bit a symbol, or less */
    uint32_t state[LANES], table[TOTAL];
} reader;

static dz_rc cut_short(const reader *r, dz_error *err) {
    return dz_fail(err, DZ_EDAMAGE, "a stream does not decode to %zu symbols", r->count);
}

/* Symbols that are stored as they are are read at once. */
static dz_rc reader_open(reader *r, const dz_rans_stream *s, dz_error *err) {
    *r = (reader){.symbols = s->symbols, .count = s->count};
    if (s->count == 0) return s->nbytes == 0 ? DZ_OK : dz_fail(err, DZ_EDAMAGE, "an empty stream has %zu bytes", s->nbytes);
    if (s->count > DZ_RANS_MAX || s->nbytes == 0 || s->nbytes > s->count + 8)
        return dz_fail(err, DZ_EDAMAGE, "a stream of %zu bytes cannot hold %zu symbols", s->nbytes, s->count);
    if (s->bytes[0] == (RANS_ORDER_NOSZ | RANS_ORDER_CAT)) {
        if (s->nbytes != s->count + 1)
            return dz_fail(err, DZ_EDAMAGE, "a stream of %zu bytes does not hold %zu symbols as they are", s->nbytes, s->count);
        memcpy(s->symbols, s->bytes + 1, s->count);
        r->i = s->count;
        return DZ_OK;
    }
    if (s->bytes[0] != RANS_ORDER_NOSZ) return dz_fail(err, DZ_EDAMAGE, "a stream of unknown kind 0x%02x", s->bytes[0]);
    dz_view view = {.data = s->bytes, .len = s->nbytes, .pos = 1};
    if (!read_table(&view, r->table)) return dz_fail(err, DZ_EDAMAGE, "a stream's frequencies do not sum up to %d", TOTAL);
    for (int i = 0; i < LANES; i++) r->state[i] = dz_view_u32(&view);
    if (view.bad) return dz_fail(err, DZ_EDAMAGE, "a stream of %zu bytes ends in its head", s->nbytes);
    r->at = s->bytes + view.pos;
    r->end = s->bytes + s->nbytes;
    r->seldom = (s->nbytes - view.pos) * 16 <= s->count;
    return DZ_OK;
}

/* Makes sure that a turn can begin; DZ_EDAMAGE if the bytes are behind already. */
static dz_rc reader_bring(reader *r, dz_error *err) {
    if (r->at > r->end) return cut_short(r, err);
    size_t left = (size_t)(r->end - r->at);
    if (left < 2 * LANES && r->last_turn != r->end) {
        memcpy(r->tail, r->at, left);
        r->at = r->tail;
        r->end = r->last_turn = r->tail + left;
    } else if (r->last_turn != r->end) {
        r->last_turn = r->end - 2 * LANES;
    }
    return DZ_OK;
}

/* The states and the place of a stream, in registers. */
typedef struct lanes {
    uint32_t a, b, c, d;
    const uint8_t *at;
} lanes;

static inline lanes lanes_of(const reader *r) { return (lanes){r->state[0], r->state[1], r->state[2], r->state[3], r->at}; }

static inline void lanes_back(reader *r, const lanes *l, size_t turns) {
    r->state[0] = l->a;
    r->state[1] = l->b;
    r->state[2] = l->c;
    r->state[3] = l->d;
    r->at = l->at;
    r->i += LANES * turns;
}

/* `next`: advance or advance_seldom. */
#define TURN(next, lanes, table, symbols)                                                                                                  \
    do {                                                                                                                                   \
        uint32_t in_a = (table)[(lanes).a & 0xfff], in_b = (table)[(lanes).b & 0xfff], in_c = (table)[(lanes).c & 0xfff],                  \
                 in_d = (table)[(lanes).d & 0xfff];                                                                                        \
        (symbols)[0] = (uint8_t)in_a;                                                                                                      \
        (symbols)[1] = (uint8_t)in_b;                                                                                                      \
        (symbols)[2] = (uint8_t)in_c;                                                                                                      \
        (symbols)[3] = (uint8_t)in_d;                                                                                                      \
        (lanes).a = next((lanes).a, in_a, &(lanes).at);                                                                                    \
        (lanes).b = next((lanes).b, in_b, &(lanes).at);                                                                                    \
        (lanes).c = next((lanes).c, in_c, &(lanes).at);                                                                                    \
        (lanes).d = next((lanes).d, in_d, &(lanes).at);                                                                                    \
    } while (0)

static void read_one(reader *r) {
    lanes l = lanes_of(r);
    size_t most = (r->count - r->i) / LANES, n = 0;
    uint8_t *to = r->symbols + r->i;
    for (; r->seldom && n < most && l.at <= r->last_turn; n++) TURN(advance_seldom, l, r->table, to + LANES * n);
    for (; n < most && l.at <= r->last_turn; n++) TURN(advance, l, r->table, to + LANES * n);
    lanes_back(r, &l, n);
}

/* Two streams in turns: each waits for itself only. */
static void read_two(reader *r, reader *s) {
    lanes l = lanes_of(r), m = lanes_of(s);
    size_t most = (r->count - r->i) / LANES, other = (s->count - s->i) / LANES, n = 0;
    if (other < most) most = other;
    uint8_t *to = r->symbols + r->i, *to_other = s->symbols + s->i;
    const uint8_t *last = r->last_turn, *last_other = s->last_turn;
    for (; r->seldom && s->seldom && n < most && l.at <= last && m.at <= last_other; n++) {
        TURN(advance_seldom, l, r->table, to + LANES * n);
        TURN(advance_seldom, m, s->table, to_other + LANES * n);
    }
    for (; n < most && l.at <= last && m.at <= last_other; n++) {
        TURN(advance, l, r->table, to + LANES * n);
        TURN(advance, m, s->table, to_other + LANES * n);
    }
    lanes_back(r, &l, n);
    lanes_back(s, &m, n);
}

/* The symbols behind the last whole turn, and the end. */
static dz_rc reader_close(reader *r, dz_error *err) {
    if (reader_bring(r, err) != DZ_OK) return err->rc;
    for (int i = 0; r->i < r->count; i++, r->i++) {
        uint32_t slot = r->table[r->state[i] & 0xfff];
        r->symbols[r->i] = (uint8_t)slot;
        r->state[i] = advance(r->state[i], slot, &r->at);
    }
    if (r->at > r->end) return cut_short(r, err);
    if (r->at != r->end)
        return dz_fail(err, DZ_EDAMAGE, "a stream of %zu symbols leaves %zu bytes over", r->count, (size_t)(r->end - r->at));
    for (int i = 0; i < LANES; i++) {
        if (r->state[i] != LOWEST)
            return dz_fail(err, DZ_EDAMAGE, "a stream of %zu symbols ends in state %u, not %u", r->count, (unsigned)r->state[i],
                           (unsigned)LOWEST);
    }
    return DZ_OK;
}

/* The next stream that is to be read, if there is one: 1. */
static int reader_next(reader *r, const dz_rans_stream *streams, size_t n, size_t *next, dz_error *err) {
    while (*next < n && reader_open(r, &streams[(*next)++], err) == DZ_OK) {
        if (r->i < r->count) return 1;
    }
    return 0;
}

dz_rc dz_rans_decode_streams(const dz_rans_stream *streams, size_t n, dz_error *err) {
    reader both[2];
    int open[2] = {0, 0};
    size_t next = 0;
    for (;;) {
        for (int k = 0; k < 2; k++) {
            if (open[k] && both[k].count - both[k].i < LANES) {
                if (reader_close(&both[k], err) != DZ_OK) return err->rc;
                open[k] = 0;
            }
            if (!open[k]) open[k] = reader_next(&both[k], streams, n, &next, err);
            if (err->rc == DZ_OK && open[k]) reader_bring(&both[k], err);
            if (err->rc != DZ_OK) return err->rc;
        }
        if (open[0] && open[1])
            read_two(&both[0], &both[1]);
        else if (open[0] || open[1])
            read_one(&both[open[1]]);
        else
            return DZ_OK;
    }
}

dz_rc dz_rans_decode(uint8_t *symbols, size_t count, const uint8_t *bytes, size_t nbytes, dz_error *err) {
    return dz_rans_decode_streams(&(dz_rans_stream){.symbols = symbols, .count = count, .bytes = bytes, .nbytes = nbytes}, 1, err);
}

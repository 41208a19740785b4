#include "codec/class_run.h"

#include "codec/entropy.h"
#include "codec/rans.h"

enum {
    ESCAPE_BITS = 13, /* expected, beside its number */
    TIME_BITS = 100,  /* an element in a class is worth 1 / 100 bit more, for the time that it saves */
    FEWEST = 1 << 15, /* elements */
    SAMPLE_LOG = 15,  /* of the elements of a sample, about, */
    RUN = 512         /* so many side by side */
};

int dz_run_fits(dz_dtype dtype, size_t count) { return (dtype == DZ_BF16 || dtype == DZ_F16) && count >= FEWEST && count <= DZ_RANS_MAX; }

static unsigned token_of(unsigned x) {
    if (x < 8) return x;
    unsigned e = 31 - (unsigned)__builtin_clz(x);
    return 4 * e - 4 + (x >> (e - 2) & 3);
}

/* The least x of a token, and the bits below it. */
static unsigned token_bits(unsigned token) { return token < 8 ? 0 : token / 4 - 1; }
static unsigned token_start(unsigned token) { return token < 8 ? token : (4 + token % 4) << token_bits(token); }

void dz_census_take(dz_census *c, const uint8_t *words, const uint8_t *base, size_t count, unsigned mantissa) {
    c->stride = (count >> SAMPLE_LOG) + 1;
    for (size_t at = 0; at < count; at += RUN * c->stride) {
        size_t n = count - at < RUN ? count - at : RUN;
        for (size_t i = at; i < at + n; i++) {
            uint16_t from = dz_word_at(base, i);
            int d = (int16_t)(dz_word_at(words, i) - from);
            c->of[(from & 0x7fff) >> mantissa][d < 0][token_of((unsigned)(d < 0 ? ~d : d))]++;
        }
    }
}

uint32_t dz_census_numbers(uint32_t count[DZ_RUN_NUMBERS], const dz_token_counts of, unsigned low_bits) {
    uint32_t total = 0;
    memset(count, 0, DZ_RUN_NUMBERS * sizeof *count);
    for (unsigned t = 0; t < DZ_RUN_TOKENS; t++) {
        unsigned q = token_start(t) >> low_bits;
        count[q < DZ_RUN_ESCAPE - DZ_RUN_MIDDLE ? DZ_RUN_MIDDLE + q : DZ_RUN_ESCAPE] += of[0][t];
        count[q < DZ_RUN_MIDDLE ? DZ_RUN_MIDDLE - 1 - q : DZ_RUN_ESCAPE] += of[1][t];
        total += of[0][t] + of[1][t];
    }
    return total;
}

/* In 2^-16 bits, as are the costs below. */
static int64_t cost_without(const dz_token_counts of) {
    uint32_t total = 0;
    uint64_t known = 0, plain = 0;
    for (unsigned t = 0; t < 2 * DZ_RUN_TOKENS; t++) {
        uint32_t n = of[t / DZ_RUN_TOKENS][t % DZ_RUN_TOKENS];
        total += n;
        known += dz_nlog2n(n);
        plain += (uint64_t)n * token_bits(t % DZ_RUN_TOKENS);
    }
    return (int64_t)(dz_nlog2n(total) - known + (plain << DZ_BITS_SHIFT));
}

static int64_t cost_in_class(const dz_token_counts of, unsigned low_bits, size_t stride, unsigned (*table_bits)(unsigned)) {
    uint32_t count[DZ_RUN_NUMBERS], total = dz_census_numbers(count, of, low_bits);
    uint64_t known = 0;
    unsigned distinct = 0;
    for (unsigned q = 0; q < DZ_RUN_NUMBERS; q++) {
        known += dz_nlog2n(count[q]);
        distinct += count[q] > 0;
    }
    uint64_t plain = (uint64_t)total * low_bits + (uint64_t)count[DZ_RUN_ESCAPE] * ESCAPE_BITS;
    if (table_bits) plain += table_bits(distinct) / stride;
    return (int64_t)(dz_nlog2n(total) - known + (plain << DZ_BITS_SHIFT));
}

void dz_class_run_choose(dz_class_run *run, const dz_census *c, unsigned (*table_bits)(unsigned distinct)) {
    int64_t within[DZ_RUN_EXPONENTS] = {0}, outside[DZ_RUN_EXPONENTS] = {0}, time[DZ_RUN_EXPONENTS], best = 0;
    uint8_t low_bits[DZ_RUN_EXPONENTS] = {0};
    *run = (dz_class_run){0};
    for (unsigned e = 0; e < DZ_RUN_EXPONENTS; e++) {
        uint64_t elements = 0;
        for (unsigned t = 0; t < 2 * DZ_RUN_TOKENS; t++) elements += c->of[e][t / DZ_RUN_TOKENS][t % DZ_RUN_TOKENS];
        run->sampled += elements;
        time[e] = (int64_t)((elements << DZ_BITS_SHIFT) / TIME_BITS);
        if (elements == 0) continue;
        outside[e] = cost_without(c->of[e]);
        within[e] = INT64_MAX;
        run->without += outside[e];
        for (unsigned k = 0; k <= DZ_RUN_LOW_BITS_MAX; k++) {
            int64_t cost = cost_in_class(c->of[e], k, c->stride, table_bits);
            if (cost >= within[e]) continue;
            within[e] = cost;
            low_bits[e] = (uint8_t)k;
        }
    }
    for (unsigned first = 0; first < DZ_RUN_EXPONENTS; first++) {
        int64_t gain = 0, more = 0;
        for (unsigned n = 1; n <= DZ_RUN_CLASSES_MAX && first + n <= DZ_RUN_EXPONENTS; n++) {
            unsigned e = first + n - 1;
            gain += outside[e] + outside[e] / 64 + time[e] - within[e];
            more += within[e] - outside[e];
            if (gain <= best) continue;
            best = gain;
            run->extra = more;
            run->first = first;
            run->nclasses = n;
        }
    }
    memcpy(run->low_bits, low_bits + run->first, run->nclasses);
}

int dz_class_run_is_small(const dz_class_run *run, const dz_census *c, int64_t more_bits) {
    return run->extra + more_bits * (1 << DZ_BITS_SHIFT) / (int64_t)c->stride <= run->without / 50;
}

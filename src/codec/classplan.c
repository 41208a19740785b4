#include <assert.h>
#include <string.h>

#include "codec/classes.h"
#include "codec/entropy.h"

/* Bits a class costs beyond its entropy: rANS states, length and first context; and each symbol's entry in its table. */
enum { CLASS_BITS = 160, ENTRY_BITS = 10 };

static uint32_t total_of(const uint32_t counts[256]) {
    uint32_t total = 0;
    for (size_t s = 0; s < 256; s++) total += counts[s];
    return total;
}

/* Too rare to stand in the table: an entry costs more than 8 plain bits now and then, and the table's least share is 1/4096
 * of the code space, which all other symbols pay for. */
static int escapes(uint32_t count, uint32_t total) { return count <= 2 || count < total >> 14; }

/* Predicted size of a class with the symbols of `a` and `b`, in 2^-16 bit, without the plain bits of the symbols. */
static int64_t cost_of(const uint32_t a[256], const uint32_t b[256], uint32_t total) {
    uint32_t escaped = 0, entries = 0;
    uint64_t known = 0;
    for (size_t s = 0; s < 256; s++) {
        uint32_t count = a[s] + b[s];
        if (count == 0) continue;
        if (escapes(count, total)) {
            escaped += count;
        } else {
            known += dz_nlog2n(count);
            entries++;
        }
    }
    known += dz_nlog2n(escaped);
    entries += escaped != 0;
    uint64_t fixed = ((uint64_t)8 * escaped + (uint64_t)ENTRY_BITS * entries + CLASS_BITS) << DZ_BITS_SHIFT;
    return (int64_t)(dz_nlog2n(total) + fixed) - (int64_t)known;
}

void dz_class_plan_spread(dz_class_plan *plan, unsigned ncontexts) {
    for (unsigned k = 0; k < plan->nclasses; k++) {
        unsigned end = k + 1 < plan->nclasses ? plan->first[k + 1] : ncontexts;
        for (unsigned context = plan->first[k]; context < end; context++) plan->class_of[context] = (uint8_t)k;
    }
}

/* A run of contexts, in a list in ascending order. */
typedef struct run {
    uint16_t row, next; /* of its first context, where the run's counts are; the next run in the list, NONE at the end */
    uint32_t total;
    int64_t cost, gain; /* predicted size; what merging with the next run saves */
} run;

enum { NONE = 0xffff };

static void price_merge(run *runs, unsigned at, uint32_t (*counts)[256]) {
    const run *a = &runs[at];
    if (a->next == NONE) {
        runs[at].gain = INT64_MIN;
        return;
    }
    const run *b = &runs[a->next];
    runs[at].gain = a->cost + b->cost - cost_of(counts[a->row], counts[b->row], a->total + b->total);
}

static unsigned collect_runs(run *runs, uint32_t (*counts)[256], unsigned nrows) {
    static const uint32_t nothing[256];
    unsigned n = 0;
    for (unsigned row = 0; row < nrows; row++) {
        uint32_t total = total_of(counts[row]);
        if (total == 0) continue;
        runs[n] = (run){.row = (uint16_t)row, .next = (uint16_t)(n + 1), .total = total};
        runs[n].cost = cost_of(counts[row], nothing, total);
        n++;
    }
    if (n) runs[n - 1].next = NONE;
    for (unsigned at = 0; at < n; at++) price_merge(runs, at, counts);
    return n;
}

/* Merges a run with the next one; `before` is the run before it, NONE for the first. */
static void merge_next(run *runs, unsigned at, unsigned before, uint32_t (*counts)[256]) {
    run *a = &runs[at];
    const run *b = &runs[a->next];
    for (size_t s = 0; s < 256; s++) counts[a->row][s] += counts[b->row][s];
    a->cost += b->cost - a->gain;
    a->total += b->total;
    a->next = b->next;
    price_merge(runs, at, counts);
    if (before != NONE) price_merge(runs, before, counts);
}

void dz_class_plan_make(dz_class_plan *plan, uint32_t (*counts)[256], const uint16_t *contexts, unsigned nrows, unsigned ncontexts) {
    assert(nrows <= ncontexts && ncontexts <= DZ_CONTEXTS_MAX);
    run runs[DZ_CONTEXTS_MAX];
    unsigned n = collect_runs(runs, counts, nrows);
    while (n > 1) {
        unsigned best = 0, best_before = NONE;
        for (unsigned before = NONE, at = 0; at != NONE; before = at, at = runs[at].next) {
            if (runs[at].gain > runs[best].gain) best = at, best_before = before;
        }
        if (runs[best].gain <= 0 && n <= DZ_CLASSES_MAX) break;
        merge_next(runs, best, best_before, counts);
        n--;
    }
    plan->nclasses = 0;
    for (unsigned at = n ? 0 : NONE; at != NONE; at = runs[at].next) {
        unsigned k = plan->nclasses++;
        plan->first[k] = k ? contexts[runs[at].row] : 0;
        for (unsigned s = 0; s < 256; s++) {
            plan->code_of[k][s] = (uint8_t)(escapes(counts[runs[at].row][s], runs[at].total) ? DZ_SYMBOL_ESCAPE : s);
        }
    }
    dz_class_plan_spread(plan, ncontexts);
}

#include "codec/near.h"

#include <stdlib.h>
#include <string.h>

#include "codec/class_run.h"
#include "codec/classes.h"
#include "codec/near_numbers.h"
#include "codec/planes.h"
#include "codec/rans.h"
#include "codec/variants.h"

enum {
    GROUPS = DZ_RUN_CLASSES_MAX + 1, /* the classes and, behind the last, the elements without one */
    LANES = 4,                       /* quarters of a tile that are worked on by turns: what waits for one does not wait for the others */
    SEGMENT = 8 * DZ_NEAR_CHUNK,     /* elements worked on at a time: what is made of them stays in the second-level cache */
    ROOM = SEGMENT + 64              /* differences of a class */
};

typedef struct plan {
    unsigned first, nclasses, mantissa;
    uint8_t low_bits[DZ_RUN_CLASSES_MAX];
} plan;

/* The group of each element of the base: its class, or `nclasses` where it has none. n is at most DZ_NEAR_CHUNK. */
DZ_VARIANTS static void find_groups(uint8_t *restrict group, const uint8_t *restrict base, const plan *p, size_t n) {
    const uint16_t first = (uint16_t)p->first, far = (uint16_t)p->nclasses;
    const unsigned mantissa = p->mantissa;
    for (size_t i = 0; i < n; i++) {
        uint16_t above = (uint16_t)(((dz_word_at(base, i) & 0x7fffU) >> mantissa) - first);
        group[i] = (uint8_t)(above < far ? above : far);
    }
}

DZ_VARIANTS static void find_differences(int16_t *restrict d, const uint8_t *restrict words, const uint8_t *restrict base, size_t n) {
    for (size_t i = 0; i < n; i++) d[i] = (int16_t)(dz_word_at(words, i) - dz_word_at(base, i));
}

DZ_VARIANTS static void add_differences(uint8_t *restrict words, const int16_t *restrict d, const uint8_t *restrict base, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint16_t to = (uint16_t)(dz_word_at(base, i) + d[i]);
        memcpy(words + 2 * i, &to, sizeof to);
    }
}

typedef uint8_t bytes64 __attribute__((vector_size(64)));

/* Adds how many of the n elements are of each group; n is at most DZ_NEAR_CHUNK. */
DZ_VARIANTS static void count_groups(uint32_t *count, const uint8_t *group, unsigned ngroups, size_t n) {
    for (unsigned g = 0; g < ngroups; g++) {
        bytes64 part = {0}, wanted = part + (uint8_t)g; /* parts are at most DZ_NEAR_CHUNK / 64 */
        size_t i = 0;
        uint32_t sum = 0;
        for (; i + 64 <= n; i += 64) {
            bytes64 x;
            memcpy(&x, group + i, sizeof x);
            part -= (bytes64)(x == wanted);
        }
        for (size_t j = 0; j < 64; j++) sum += part[j];
        for (; i < n; i++) sum += group[i] == g;
        count[g] += sum;
    }
}

/* Of pairs of numbers; and of the class beside them. */
static unsigned table_bits(unsigned distinct) { return 64 + (distinct > 1 ? 10 * distinct * distinct : 0); }

/* ---- elements by class ---- */

/* The differences of a segment, each class by itself; those that could not be worked on eight by eight stay for the next segment. */
typedef struct stage {
    int16_t *d[GROUPS];
    size_t held[GROUPS];
    uint8_t group[SEGMENT + 8];
    int16_t in_order[SEGMENT];
    uint32_t of_lane[LANES][GROUPS]; /* elements */
} stage;

static stage *stage_new(unsigned ngroups, dz_error *err) {
    stage *s = dz_alloc_raw(1, sizeof *s, err);
    int16_t *all = s ? dz_alloc_raw(ngroups * (size_t)ROOM, sizeof *all, err) : NULL;
    if (!all) {
        free(s);
        return NULL;
    }
    for (unsigned g = 0; g < GROUPS; g++) {
        s->d[g] = g < ngroups ? all + g * (size_t)ROOM : NULL;
        s->held[g] = 0;
    }
    memset(s->group + SEGMENT, 0, 8);
    return s;
}

static void stage_free(stage *s) {
    if (s) free(s->d[0]);
    free(s);
}

/* Groups of a segment's elements, and how many of each are in each lane: a quarter of the segment, the last one up to three more. */
static void take_groups(stage *s, const plan *p, const uint8_t *base, size_t n) {
    size_t length = n / LANES;
    for (size_t at = 0; at < n; at += DZ_NEAR_CHUNK)
        find_groups(s->group + at, base + 2 * at, p, n - at < DZ_NEAR_CHUNK ? n - at : DZ_NEAR_CHUNK);
    memset(s->of_lane, 0, sizeof s->of_lane);
    for (size_t lane = 0; lane < LANES; lane++) {
        size_t end = lane + 1 < LANES ? (lane + 1) * length : n;
        for (size_t at = lane * length; at < end; at += DZ_NEAR_CHUNK)
            count_groups(s->of_lane[lane], s->group + at, p->nclasses + 1, end - at < DZ_NEAR_CHUNK ? end - at : DZ_NEAR_CHUNK);
    }
}

/* Where each lane's differences begin; `total` of each group. */
static void find_lanes(const stage *s, unsigned ngroups, const size_t *held, int16_t *next[LANES][GROUPS], size_t total[GROUPS]) {
    for (unsigned g = 0; g < ngroups; g++) {
        total[g] = 0;
        for (size_t lane = 0; lane < LANES; lane++) {
            next[lane][g] = s->d[g] + held[g] + total[g];
            total[g] += s->of_lane[lane][g];
        }
    }
}

/* From the order of the elements into that of the groups. */
static void scatter(const stage *s, int16_t *next[LANES][GROUPS], size_t n) {
    const uint8_t *group = s->group;
    const int16_t *d = s->in_order;
    size_t length = n / LANES;
    for (size_t i = 0; i < length; i++) {
        *next[0][group[i]]++ = d[i];
        *next[1][group[length + i]]++ = d[length + i];
        *next[2][group[2 * length + i]]++ = d[2 * length + i];
        *next[3][group[3 * length + i]]++ = d[3 * length + i];
    }
    for (size_t i = LANES * length; i < n; i++) *next[3][group[i]]++ = d[i];
}

/* And back. */
static void gather(stage *s, int16_t *next[LANES][GROUPS], size_t n) {
    const uint8_t *group = s->group;
    int16_t *d = s->in_order;
    size_t length = n / LANES;
    for (size_t i = 0; i < length; i++) {
        d[i] = *next[0][group[i]]++;
        d[length + i] = *next[1][group[length + i]]++;
        d[2 * length + i] = *next[2][group[2 * length + i]]++;
        d[3 * length + i] = *next[3][group[3 * length + i]]++;
    }
    for (size_t i = LANES * length; i < n; i++) d[i] = *next[3][group[i]]++;
}

/* Appends the elements of the base without a class, those of group `far`; `group` has 8 bytes more. */
static dz_rc take_far(dz_buf *out, const uint8_t *base, const uint8_t *group, unsigned far, size_t n, dz_error *err) {
    const uint64_t ones = 0x0101010101010101U, tops = ones * 0x80;
    if (dz_buf_reserve(out, 2 * n, err) != DZ_OK) return err->rc;
    uint8_t *at = out->data + out->len;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t eight;
        memcpy(&eight, group + i, 8); /* groups are below 128: no byte carries into the next one */
        for (uint64_t hits = ~((eight ^ ones * far) + ones * 0x7f) & tops; hits; hits &= hits - 1) {
            size_t j = i + (size_t)__builtin_ctzll(hits) / 8;
            if (j >= n) break;
            memcpy(at, base + 2 * j, 2);
            at += 2;
        }
    }
    out->len = (size_t)(at - out->data);
    return DZ_OK;
}

/* ---- bodies ---- */

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

typedef struct encoder {
    plan plan;
    stage *stage;
    dz_near_sink sinks[DZ_RUN_CLASSES_MAX];
    dz_buf far_words, far_base;
} encoder;

static dz_rc put_escapes(dz_buf *out, const encoder *e, dz_error *err) {
    size_t n = 0;
    for (unsigned k = 0; k < e->plan.nclasses; k++) n += e->sinks[k].escapes.len / 2;
    uint8_t *plane = dz_alloc_raw(n, 1, err);
    if (plane) dz_buf_put_varint(out, n, err);
    for (size_t p = 0; n && p < 2 && err->rc == DZ_OK; p++) {
        size_t at = 0;
        for (unsigned k = 0; k < e->plan.nclasses; k++) {
            const dz_buf *own = &e->sinks[k].escapes;
            for (size_t i = 0; i < own->len / 2; i++) plane[at++] = own->data[2 * i + p];
        }
        put_plane(out, plane, n, err);
    }
    free(plane);
    return err->rc;
}

static dz_rc put_body(dz_buf *out, const encoder *e, dz_dtype dtype, dz_error *err) {
    const plan *p = &e->plan;
    dz_buf_put(out, (uint8_t[]){(uint8_t)p->first, (uint8_t)p->nclasses}, 2, err);
    dz_buf_put(out, p->low_bits, p->nclasses, err);
    for (unsigned k = 0; k < p->nclasses && err->rc == DZ_OK; k++) {
        if (e->sinks[k].count) put_plane(out, e->sinks[k].pairs.data, e->sinks[k].pairs.len, err);
    }
    for (unsigned k = 0; k < p->nclasses && err->rc == DZ_OK; k++) dz_buf_put(out, e->sinks[k].low.data, e->sinks[k].low.len, err);
    if (err->rc == DZ_OK && put_escapes(out, e, err) == DZ_OK && e->far_words.len)
        dz_classes_encode(out, e->far_words.data, e->far_base.data, dtype, e->far_words.len / 2, err);
    return err->rc;
}

/* The far elements' words, from their base and differences. */
static dz_rc put_far(encoder *e, size_t n, dz_error *err) {
    const int16_t *d = e->stage->d[e->plan.nclasses];
    if (dz_buf_reserve(&e->far_words, 2 * n, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < n; i++) {
        uint16_t word = (uint16_t)(dz_word_at(e->far_base.data + e->far_words.len, i) + d[i]);
        memcpy(e->far_words.data + e->far_words.len + 2 * i, &word, 2);
    }
    e->far_words.len += 2 * n;
    return DZ_OK;
}

static dz_rc encode_segment(encoder *e, const uint8_t *words, const uint8_t *base, size_t n, int last, dz_error *err) {
    stage *s = e->stage;
    unsigned nclasses = e->plan.nclasses;
    int16_t *next[LANES][GROUPS];
    size_t total[GROUPS];
    take_groups(s, &e->plan, base, n);
    find_differences(s->in_order, words, base, n);
    find_lanes(s, nclasses + 1, s->held, next, total);
    scatter(s, next, n);
    for (unsigned k = 0; k < nclasses; k++) {
        size_t have = s->held[k] + total[k], now = last ? have : have / 8 * 8;
        if (dz_near_take_apart(&e->sinks[k], s->d[k], now, e->plan.low_bits[k], err) != DZ_OK) return err->rc;
        s->held[k] = have - now;
        memmove(s->d[k], s->d[k] + now, s->held[k] * sizeof(int16_t));
    }
    if (take_far(&e->far_base, base, s->group, nclasses, n, err) != DZ_OK) return err->rc;
    return put_far(e, total[nclasses], err);
}

dz_rc dz_near_encode(dz_buf *out, const void *words, const void *base, dz_dtype dtype, size_t count, int anyway, int *taken,
                     dz_error *err) {
    encoder e = {.plan = {.mantissa = dz_run_mantissa(dtype)}};
    dz_census *c = dz_alloc(1, sizeof *c, err);
    dz_class_run run;
    *taken = 0;
    if (!c) return err->rc;
    dz_census_take(c, words, base, count, e.plan.mantissa);
    dz_class_run_choose(&run, c, anyway ? NULL : table_bits);
    *taken = run.nclasses > 0 && (anyway || dz_class_run_is_small(&run, c, -1000));
    e.plan.first = run.first;
    e.plan.nclasses = run.nclasses;
    memcpy(e.plan.low_bits, run.low_bits, run.nclasses);
    free(c);
    if (!*taken || !(e.stage = stage_new(e.plan.nclasses + 1, err))) return err->rc;
    for (size_t at = 0; at < count && err->rc == DZ_OK; at += SEGMENT) {
        size_t n = count - at < SEGMENT ? count - at : SEGMENT;
        encode_segment(&e, (const uint8_t *)words + 2 * at, (const uint8_t *)base + 2 * at, n, at + n == count, err);
    }
    if (err->rc == DZ_OK) put_body(out, &e, dtype, err);
    for (unsigned k = 0; k < e.plan.nclasses; k++) {
        dz_buf_free(&e.sinks[k].pairs);
        dz_buf_free(&e.sinks[k].low);
        dz_buf_free(&e.sinks[k].escapes);
    }
    dz_buf_free(&e.far_words);
    dz_buf_free(&e.far_base);
    stage_free(e.stage);
    return err->rc;
}

static dz_rc get_plan(plan *p, dz_dtype dtype, dz_view *view, dz_error *err) {
    unsigned exponents = 1U << (15 - dz_run_mantissa(dtype));
    *p = (plan){.mantissa = dz_run_mantissa(dtype), .first = dz_view_u8(view)};
    p->nclasses = dz_view_u8(view);
    if (view->bad || p->nclasses == 0 || p->nclasses > DZ_RUN_CLASSES_MAX || p->first + p->nclasses > exponents)
        return dz_fail(err, DZ_EDAMAGE, "%u classes from exponent %u on", p->nclasses, p->first);
    const uint8_t *bits = dz_view_bytes(view, p->nclasses);
    if (!bits) return dz_fail(err, DZ_EDAMAGE, "a list of %u classes is cut short", p->nclasses);
    for (unsigned k = 0; k < p->nclasses; k++) {
        p->low_bits[k] = bits[k];
        if (bits[k] > DZ_RUN_LOW_BITS_MAX) return dz_fail(err, DZ_EDAMAGE, "%u low bits in a class", bits[k]);
    }
    return DZ_OK;
}

/* The escapes' differences: low bytes and high bytes by turns. */
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
    size_t count[GROUPS];
    dz_buf pairs, low, escapes, far_base;
    dz_near_source sources[DZ_RUN_CLASSES_MAX];
    int16_t *far; /* differences */
    stage *stage;
} decoder;

/* How many elements each group has, and those of the base without a class. */
static dz_rc look_at_base(decoder *d, const uint8_t *base, size_t count, dz_error *err) {
    uint8_t group[DZ_NEAR_CHUNK + 8] = {0};
    for (size_t at = 0; at < count; at += DZ_NEAR_CHUNK) {
        size_t n = count - at < DZ_NEAR_CHUNK ? count - at : DZ_NEAR_CHUNK;
        uint32_t counts[GROUPS] = {0};
        find_groups(group, base + 2 * at, &d->plan, n);
        count_groups(counts, group, d->plan.nclasses + 1, n);
        for (unsigned g = 0; g <= d->plan.nclasses; g++) d->count[g] += counts[g];
        if (counts[d->plan.nclasses] && take_far(&d->far_base, base + 2 * at, group, d->plan.nclasses, n, err) != DZ_OK) return err->rc;
    }
    return DZ_OK;
}

static dz_rc get_sources(decoder *d, size_t near, dz_view *view, dz_error *err) {
    size_t npairs = 0, nlow = 0, found = 0;
    if (dz_buf_reserve(&d->pairs, near / 2 + DZ_RUN_CLASSES_MAX + 8, err) != DZ_OK) return err->rc;
    for (unsigned k = 0; k < d->plan.nclasses; k++) {
        size_t n = (d->count[k] + 1) / 2;
        d->sources[k] = (dz_near_source){.pairs = d->pairs.data + npairs, .left = d->count[k]};
        nlow += dz_near_low_bytes(d->count[k], d->plan.low_bits[k]);
        if (n && dz_plane_get(view, d->pairs.data + npairs, n, err) != DZ_OK) return err->rc;
        npairs += n;
    }
    const uint8_t *low = dz_view_bytes(view, nlow);
    if (!low) return dz_fail(err, DZ_EDAMAGE, "the low bits of the classes are cut short");
    if (dz_buf_reserve(&d->low, nlow + 8, err) != DZ_OK || get_escapes(&d->escapes, near, view, err) != DZ_OK) return err->rc;
    memcpy(d->low.data, low, nlow);
    memset(d->low.data + nlow, 0, 8);
    for (size_t k = 0, at = 0; k < d->plan.nclasses; k++) {
        d->sources[k].low = d->low.data + at;
        d->sources[k].escape = d->escapes.data + 2 * found;
        at += dz_near_low_bytes(d->count[k], d->plan.low_bits[k]);
        found += dz_near_escapes(d->sources[k].pairs, d->count[k]);
    }
    if (2 * found != d->escapes.len) return dz_fail(err, DZ_EDAMAGE, "%zu escapes, and differences of %zu", found, d->escapes.len / 2);
    return DZ_OK;
}

static dz_rc get_far(decoder *d, dz_dtype dtype, dz_view *view, dz_error *err) {
    size_t n = d->count[d->plan.nclasses];
    if (n == 0) return DZ_OK;
    uint16_t *words = dz_alloc_raw(n, sizeof *words, err);
    d->far = dz_alloc_raw(n, sizeof *d->far, err);
    if (words && d->far && dz_classes_decode(words, d->far_base.data, dtype, n, view, err) == DZ_OK) {
        for (size_t i = 0; i < n; i++) d->far[i] = (int16_t)(words[i] - dz_word_at(d->far_base.data, i));
    }
    free(words);
    return err->rc;
}

static void decode_segment(decoder *d, uint8_t *words, const uint8_t *base, size_t *far, size_t n) {
    stage *s = d->stage;
    unsigned nclasses = d->plan.nclasses;
    int16_t *next[LANES][GROUPS];
    size_t total[GROUPS], none[GROUPS] = {0};
    take_groups(s, &d->plan, base, n);
    find_lanes(s, nclasses + 1, none, next, total);
    for (unsigned k = 0; k < nclasses; k++) {
        size_t want = total[k] > s->held[k] ? (total[k] - s->held[k] + 7) / 8 * 8 : 0;
        if (want > d->sources[k].left) want = d->sources[k].left;
        dz_near_put_together(s->d[k] + s->held[k], &d->sources[k], want, d->plan.low_bits[k]);
        s->held[k] += want;
    }
    if (total[nclasses]) memcpy(s->d[nclasses], d->far + *far, total[nclasses] * sizeof(int16_t));
    *far += total[nclasses];
    gather(s, next, n);
    add_differences(words, s->in_order, base, n);
    for (unsigned k = 0; k < nclasses; k++) {
        s->held[k] -= total[k];
        memmove(s->d[k], s->d[k] + total[k], s->held[k] * sizeof(int16_t));
    }
}

dz_rc dz_near_decode(void *words, const void *base, dz_dtype dtype, size_t count, dz_view *view, dz_error *err) {
    decoder d = {.far = NULL};
    size_t far = 0;
    if (!base || (dtype != DZ_BF16 && dtype != DZ_F16) || count == 0 || count > DZ_RANS_MAX)
        return dz_fail(err, DZ_EDAMAGE, "%zu elements without a base or of a wrong type cannot be near it", count);
    if (get_plan(&d.plan, dtype, view, err) == DZ_OK && look_at_base(&d, base, count, err) == DZ_OK &&
        get_sources(&d, count - d.count[d.plan.nclasses], view, err) == DZ_OK && get_far(&d, dtype, view, err) == DZ_OK &&
        (d.stage = stage_new(d.plan.nclasses + 1, err))) {
        for (size_t at = 0; at < count; at += SEGMENT)
            decode_segment(&d, (uint8_t *)words + 2 * at, (const uint8_t *)base + 2 * at, &far,
                           count - at < SEGMENT ? count - at : SEGMENT);
    }
    dz_buf_free(&d.pairs);
    dz_buf_free(&d.low);
    dz_buf_free(&d.escapes);
    dz_buf_free(&d.far_base);
    free(d.far);
    stage_free(d.stage);
    return err->rc;
}

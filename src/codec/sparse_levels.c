#include "codec/sparse_levels.h"

#include <stdlib.h>
#include <string.h>

#include "codec/golomb.h"
#include "codec/rans.h"

#define MOST_BORDERS 24

void dz_nonzeros_free(dz_nonzeros *kept) {
    free(kept->index);
    free(kept->level);
    free(kept->value);
    dz_buf_free(&kept->scratch);
    *kept = (dz_nonzeros){0};
}

uint64_t dz_tile_key(uint64_t task_key, const char *tensor, uint64_t tile) {
    uint8_t number[8];
    for (int i = 0; i < 8; i++) number[i] = (uint8_t)(tile >> (8 * i));
    return dz_hash64(number, sizeof number, dz_hash64(tensor, strlen(tensor), task_key));
}

/* Borders of u between zones: limits of the groups that matter, sorted. Zone z holds candidates with border[z-1] <= u < border[z]. */
typedef struct zones {
    uint64_t border[MOST_BORDERS];
    size_t n;
    uint64_t kept[MOST_BORDERS + 1][DZ_MAX_LEVELS], skip[MOST_BORDERS + 1];
} zones;

typedef struct split { /* core: u < low; fringe: low <= u < high */
    uint64_t low, high;
} split;

static int by_value(const void *x, const void *y) {
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
    return a < b ? -1 : a > b;
}

static void find_borders(const dz_candidates *in, const uint64_t *quota, const dz_selection *s, zones *z) {
    uint64_t all[DZ_MAX_LEVELS];
    size_t n = 0, distinct = 0;
    for (unsigned g = 0; g < 1U << in->bits; g++) { /* a group with under half a percent of the kept elements does not set a border */
        if (quota[g] && 200 * quota[g] >= s->kept && s->limit[g] <= (uint64_t)s->last + 1) all[n++] = s->limit[g];
    }
    if (n == 0) all[n++] = (uint64_t)s->last + 1;
    qsort(all, n, sizeof *all, by_value);
    for (size_t i = 0; i < n; i++) {
        if (distinct == 0 || all[distinct - 1] != all[i]) all[distinct++] = all[i];
    }
    z->n = distinct < MOST_BORDERS ? distinct : MOST_BORDERS;
    for (size_t i = 0; i < z->n; i++) z->border[i] = all[z->n == 1 ? distinct - 1 : i * (distinct - 1) / (z->n - 1)];
}

/* Counts per zone and level. Most candidates lie below the first border: they take one comparison. */
static void count_zones(const dz_selection *s, zones *z) {
    uint64_t count[MOST_BORDERS + 1][DZ_MAX_LEVELS + 1]; /* the last: skipped ones */
    const uint64_t first = z->border[0];
    memset(count, 0, sizeof count);
    for (size_t i = 0; i < s->ncandidates; i++) {
        size_t zone = 0;
        uint32_t u = s->u[i];
        if (u >= first)
            for (zone = 1; zone < z->n && u >= z->border[zone]; zone++) continue;
        count[zone][u < s->limit[s->level[i]] ? s->level[i] : DZ_MAX_LEVELS]++;
    }
    for (size_t zone = 0; zone <= z->n; zone++) {
        memcpy(z->kept[zone], count[zone], sizeof z->kept[zone]);
        z->skip[zone] = count[zone][DZ_MAX_LEVELS];
    }
}

/* Bits (2^-16 units) of one rANS stream with these counts: entropy, states and tables as htscodecs writes them, near enough to choose by.
 */
static uint64_t stream_cost(const uint64_t *counts, unsigned n) {
    uint64_t used = 0, total = 0;
    for (unsigned i = 0; i < n; i++) {
        used += counts[i] != 0;
        total += counts[i];
    }
    return total == 0 ? 0 : dz_entropy_fixed(counts, n) + ((18 + 2 * used + used / 3) * 8 << 16);
}

static uint64_t exception_cost(uint64_t n, uint64_t count) {
    if (n == 0) return 0;
    uint64_t gap = count / n, bytes = 2;
    for (; gap > 0x7f; gap >>= 7) bytes++;
    return n * bytes * 8 << 16;
}

/* The cheapest pair of borders, by the estimated size of core, fringe and exceptions. */
static split choose_split(const dz_candidates *in, const dz_selection *s, const zones *z) {
    unsigned nlevels = 1U << in->bits;
    uint64_t best = UINT64_MAX, core[DZ_MAX_LEVELS + 1] = {0};
    split found = {0, 0};
    for (size_t low = 0; low < z->n; low++) {
        for (unsigned g = 0; g < nlevels; g++) core[g] += z->kept[low][g];
        core[nlevels] += z->skip[low];
        uint64_t core_cost = stream_cost(core, nlevels + 1), fringe[DZ_MAX_LEVELS + 1] = {0};
        for (size_t high = low; high < z->n; high++) {
            for (unsigned g = 0; high > low && g < nlevels; g++) fringe[g] += z->kept[high][g];
            if (high > low) fringe[nlevels] += z->skip[high];
            uint64_t left = s->kept;
            for (unsigned g = 0; g < nlevels; g++) left -= core[g] + fringe[g];
            uint64_t cost = core_cost + stream_cost(fringe, nlevels + 1) + exception_cost(left, in->count);
            if (cost < best) {
                best = cost;
                found = (split){z->border[low], z->border[high]};
            }
        }
    }
    return found;
}

/* The symbol that says "not kept": one past the levels, or with 256 of them the level that is kept least, whose kept elements then go to
 * the exceptions. */
static unsigned skip_symbol(const dz_candidates *in, const uint64_t *quota) {
    unsigned nlevels = 1U << in->bits, rarest = 0;
    if (nlevels < DZ_MAX_LEVELS) return nlevels;
    for (unsigned g = 1; g < nlevels; g++) {
        if (quota[g] < quota[rarest]) rarest = g;
    }
    return rarest;
}

typedef struct streams {
    uint8_t *core, *fringe;
    size_t ncore, nfringe;
    dz_buf exceptions; /* varint gap, level; each */
    uint64_t nexceptions;
    uint32_t next; /* first index the next exception may have */
} streams;

static dz_rc put_exception(streams *st, uint32_t index, uint8_t level, dz_error *err) {
    dz_buf_put_varint(&st->exceptions, index - st->next, err);
    st->next = index + 1;
    st->nexceptions++;
    return dz_buf_put(&st->exceptions, &level, 1, err);
}

static dz_rc fill_streams(const dz_selection *s, split cut, unsigned skip, streams *st, dz_error *err) {
    size_t rare = 0;
    size_t ncore = 0, nfringe = 0;
    for (size_t i = 0; i < s->ncandidates; i++) {
        uint32_t u = s->u[i];
        uint8_t level = s->level[i];
        int kept = u < s->limit[level];
        for (; rare < s->nrare && s->rare[rare].index < s->index[i]; rare++)
            put_exception(st, s->rare[rare].index, s->rare[rare].level, err);
        if (kept && (u >= cut.high || level == skip)) put_exception(st, s->index[i], level, err);
        uint8_t symbol = kept ? level : (uint8_t)skip;
        st->core[ncore] = st->fringe[nfringe] = symbol; /* no branch: which it is, is chance */
        ncore += u < cut.low;
        nfringe += u >= cut.low && u < cut.high;
    }
    st->ncore = ncore;
    st->nfringe = nfringe;
    for (; rare < s->nrare; rare++) put_exception(st, s->rare[rare].index, s->rare[rare].level, err);
    return err->rc;
}

static dz_rc encode_seeded(dz_buf *out, const dz_candidates *in, const uint64_t *quota, const dz_selection *s, dz_error *err) {
    streams st = {0};
    dz_buf core = {0}, fringe = {0};
    zones *z = dz_alloc(1, sizeof *z, err);
    st.core = dz_alloc_raw(s->ncandidates + 1, 1, err);
    st.fringe = dz_alloc_raw(s->ncandidates + 1, 1, err);
    if (err->rc != DZ_OK) goto out;
    find_borders(in, quota, s, z);
    count_zones(s, z);
    split cut = choose_split(in, s, z);
    unsigned skip = skip_symbol(in, quota);
    if (fill_streams(s, cut, skip, &st, err) != DZ_OK) goto out;
    if (dz_rans_encode(&core, st.core, st.ncore, err) != DZ_OK || dz_rans_encode(&fringe, st.fringe, st.nfringe, err) != DZ_OK) goto out;
    uint8_t head[2] = {DZ_SPARSE_SEEDED, (uint8_t)skip};
    dz_buf_put(out, head, sizeof head, err);
    dz_buf_put_u32(out, (uint32_t)(cut.low - 1), err); /* a limit is at least 1, at most 2^32 */
    dz_buf_put_varint(out, cut.high - cut.low, err);
    dz_buf_put_varint(out, st.ncore, err);
    dz_buf_put_varint(out, core.len, err);
    dz_buf_put_varint(out, st.nfringe, err);
    if (st.nfringe) dz_buf_put_varint(out, fringe.len, err);
    dz_buf_put_varint(out, st.nexceptions, err);
    dz_buf_put(out, core.data, core.len, err);
    dz_buf_put(out, fringe.data, fringe.len, err);
    dz_buf_put(out, st.exceptions.data, st.exceptions.len, err);
out:
    free(z);
    free(st.core);
    free(st.fringe);
    dz_buf_free(&st.exceptions);
    dz_buf_free(&core);
    dz_buf_free(&fringe);
    return err->rc;
}

dz_rc dz_nonzeros_reserve(dz_nonzeros *kept, size_t count, dz_error *err) {
    if (count <= kept->cap) return DZ_OK;
    free(kept->index);
    free(kept->level);
    free(kept->value);
    kept->cap = 0;
    kept->index = dz_alloc_raw(count, sizeof *kept->index, err);
    kept->level = dz_alloc_raw(count, 1, err);
    kept->value = dz_alloc_raw(count, sizeof *kept->value, err);
    if (err->rc == DZ_OK) kept->cap = count;
    return err->rc;
}

/* All kept elements of a selection in index order: candidates and rare ones merged. */
static dz_rc list_kept(dz_nonzeros *kept, const dz_selection *s, dz_error *err) {
    size_t rare = 0, n = 0;
    if (dz_nonzeros_reserve(kept, (size_t)s->kept, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i <= s->ncandidates; i++) {
        int end = i == s->ncandidates;
        for (; rare < s->nrare && (end || s->rare[rare].index < s->index[i]); rare++, n++) {
            kept->index[n] = s->rare[rare].index;
            kept->level[n] = s->rare[rare].level;
        }
        if (end || s->u[i] >= s->limit[s->level[i]]) continue;
        kept->index[n] = s->index[i];
        kept->level[n++] = s->level[i];
    }
    kept->count = n;
    return DZ_OK;
}

static dz_rc encode_golomb(dz_buf *out, const dz_candidates *in, const dz_selection *s, dz_error *err) {
    dz_nonzeros kept = {0};
    dz_buf gaps = {0}, levels = {0};
    if (list_kept(&kept, s, err) != DZ_OK) goto out;
    unsigned parameter = dz_rice_parameter(in->count, kept.count);
    if (dz_rice_encode(&gaps, kept.index, kept.count, parameter, err) != DZ_OK) goto out;
    if (dz_rans_encode(&levels, kept.level, kept.count, err) != DZ_OK) goto out;
    uint8_t head[2] = {DZ_SPARSE_GOLOMB, (uint8_t)parameter};
    dz_buf_put(out, head, sizeof head, err);
    dz_buf_put_varint(out, kept.count, err);
    dz_buf_put_varint(out, gaps.len, err);
    dz_buf_put(out, gaps.data, gaps.len, err);
    dz_buf_put(out, levels.data, levels.len, err);
out:
    dz_nonzeros_free(&kept);
    dz_buf_free(&gaps);
    dz_buf_free(&levels);
    return err->rc;
}

dz_rc dz_nonzeros_encode(dz_buf *out, const dz_candidates *in, const uint64_t *quota, const dz_selection *s, int golomb, dz_error *err) {
    if (s->kept == 0) return dz_buf_put(out, (uint8_t[]){DZ_SPARSE_NONE}, 1, err);
    return golomb ? encode_golomb(out, in, s, err) : encode_seeded(out, in, quota, s, err);
}

typedef struct seeded_head {
    unsigned skip;
    uint64_t low, high, ncore, core_len, nfringe, fringe_len, nexceptions;
} seeded_head;

static dz_rc read_head(dz_view *view, seeded_head *h, size_t count, unsigned bits, dz_error *err) {
    h->skip = dz_view_u8(view);
    h->low = (uint64_t)dz_view_u32(view) + 1;
    h->high = h->low + dz_view_varint(view);
    h->ncore = dz_view_varint(view);
    h->core_len = dz_view_varint(view);
    h->nfringe = dz_view_varint(view);
    h->fringe_len = h->nfringe ? dz_view_varint(view) : 0;
    h->nexceptions = dz_view_varint(view);
    int bad = view->bad || h->high < h->low || h->high > (uint64_t)1 << 32 || (bits < 8 && h->skip != 1U << bits);
    bad = bad || h->ncore > count || h->nfringe > count - h->ncore || h->nexceptions > count;
    return bad ? dz_fail(err, DZ_EDAMAGE, "a seeded block's head is not sound") : DZ_OK;
}

/* Takes the next exception, if its index is below `end`. */
static int next_exception(dz_view *view, uint64_t *left, uint64_t *next, uint64_t *index, uint8_t *level, int *pending) {
    if (!*pending) {
        if (*left == 0) return 0;
        uint64_t gap = dz_view_varint(view);
        *index = gap > UINT32_MAX ? UINT64_MAX / 2 : *next + gap;
        *level = dz_view_u8(view);
        *next = *index + 1;
        --*left;
        *pending = 1;
    }
    return 1;
}

static dz_rc decode_seeded(dz_nonzeros *kept, dz_view *view, uint64_t key, size_t count, unsigned bits, dz_error *err) {
    seeded_head h;
    if (read_head(view, &h, count, bits, err) != DZ_OK) return err->rc;
    const uint8_t *core = dz_view_bytes(view, h.core_len), *fringe = dz_view_bytes(view, h.fringe_len);
    if (!core || !fringe || h.nexceptions > view->len - view->pos) return dz_fail(err, DZ_EDAMAGE, "a seeded block is cut short");
    size_t total = (size_t)(h.ncore + h.nfringe);
    kept->scratch.len = 0;
    if (dz_buf_reserve(&kept->scratch, total + 1, err) != DZ_OK || dz_nonzeros_reserve(kept, total + (size_t)h.nexceptions, err) != DZ_OK)
        return err->rc;
    uint8_t *core_symbols = kept->scratch.data, *fringe_symbols = core_symbols + h.ncore;
    if (dz_rans_decode(core_symbols, (size_t)h.ncore, core, (size_t)h.core_len, err) != DZ_OK ||
        dz_rans_decode(fringe_symbols, (size_t)h.nfringe, fringe, (size_t)h.fringe_len, err) != DZ_OK)
        return err->rc;

    const dz_kernel_table *k = dz_kernels();
    uint32_t local[DZ_CHUNK + 16], u[DZ_CHUNK + 16];
    size_t n = 0, c = 0, f = 0;
    uint64_t left = h.nexceptions, next = 0, index = 0;
    uint8_t level = 0;
    int pending = 0;
    unsigned nlevels = 1U << bits;
    for (size_t at = 0; at < count; at += DZ_CHUNK) {
        size_t len = count - at < DZ_CHUNK ? count - at : DZ_CHUNK;
        size_t hits = k->candidates(local, u, dz_key_at(key, (uint32_t)at), (uint32_t)(h.high - 1), len);
        for (size_t i = 0; i < hits; i++) {
            uint32_t here = local[i] + (uint32_t)at;
            int in_core = u[i] < h.low;
            if (in_core ? c == h.ncore : f == h.nfringe) return dz_fail(err, DZ_EDAMAGE, "a seeded block has too few symbols");
            uint8_t symbol = in_core ? core_symbols[c++] : fringe_symbols[f++];
            while (next_exception(view, &left, &next, &index, &level, &pending) && index < here) {
                if (view->bad || level >= nlevels) return dz_fail(err, DZ_EDAMAGE, "a seeded block's exceptions are not sound");
                kept->index[n] = (uint32_t)index;
                kept->level[n++] = level;
                pending = 0;
            }
            if (symbol == h.skip) continue;
            if (symbol >= nlevels) return dz_fail(err, DZ_EDAMAGE, "a seeded block has a level of %u", symbol);
            if (pending && index == here) return dz_fail(err, DZ_EDAMAGE, "a seeded block keeps element %u twice", here);
            kept->index[n] = here;
            kept->level[n++] = symbol;
        }
    }
    while (next_exception(view, &left, &next, &index, &level, &pending)) {
        if (view->bad || index >= count || level >= nlevels) return dz_fail(err, DZ_EDAMAGE, "a seeded block's exceptions are not sound");
        kept->index[n] = (uint32_t)index;
        kept->level[n++] = level;
        pending = 0;
    }
    if (c != h.ncore || f != h.nfringe) return dz_fail(err, DZ_EDAMAGE, "a seeded block has too many symbols");
    kept->count = n;
    return DZ_OK;
}

static dz_rc decode_golomb(dz_nonzeros *kept, dz_view *view, size_t count, unsigned bits, dz_error *err) {
    unsigned parameter = dz_view_u8(view);
    uint64_t n = dz_view_varint(view), gaps_len = dz_view_varint(view);
    const uint8_t *gaps = dz_view_bytes(view, gaps_len);
    if (!gaps || n > count || parameter > 31) return dz_fail(err, DZ_EDAMAGE, "a Golomb block's head is not sound");
    if (dz_nonzeros_reserve(kept, (size_t)n, err) != DZ_OK) return err->rc;
    if (dz_rice_decode(kept->index, (size_t)n, parameter, count, gaps, (size_t)gaps_len, err) != DZ_OK) return err->rc;
    size_t rest = view->len - view->pos;
    if (dz_rans_decode(kept->level, (size_t)n, dz_view_bytes(view, rest), rest, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < n; i++) {
        if (kept->level[i] >= 1U << bits) return dz_fail(err, DZ_EDAMAGE, "a Golomb block has a level of %u", kept->level[i]);
    }
    kept->count = (size_t)n;
    return DZ_OK;
}

dz_rc dz_nonzeros_decode(dz_nonzeros *kept, const uint8_t *body, size_t nbytes, uint64_t key, size_t count, unsigned bits, dz_error *err) {
    dz_view view = {.data = body, .len = nbytes};
    kept->count = 0;
    unsigned kind = dz_view_u8(&view);
    dz_rc rc = DZ_OK;
    if (view.bad || bits < 1 || bits > 8 || count > UINT32_MAX) return dz_fail(err, DZ_EDAMAGE, "an empty block");
    if (kind == DZ_SPARSE_SEEDED)
        rc = decode_seeded(kept, &view, key, count, bits, err);
    else if (kind == DZ_SPARSE_GOLOMB)
        rc = decode_golomb(kept, &view, count, bits, err);
    else if (kind != DZ_SPARSE_NONE)
        rc = dz_fail(err, DZ_EDAMAGE, "a block of unknown kind %u", kind);
    if (rc == DZ_OK && view.pos != view.len) rc = dz_fail(err, DZ_EDAMAGE, "a block has %zu bytes too many", view.len - view.pos);
    return rc;
}

#include "checkpoint/strided.h"

#include <string.h>

#include "base/file.h"

#define SCRATCH 32768 /* bytes, which stay in the first-level cache */
#define GAP 2048      /* bytes that are read along rather than left out by a call of their own */
#define MOST_SIZE 8   /* bytes of an element */

static uint64_t element_size(const dz_tensor *t) { return dz_element_bits(t->dtype_name) / 8; }

dz_strided dz_strided_of(const dz_tensor *t, uint64_t offset, const uint64_t *stride) {
    dz_strided place = {.offset = offset};
    uint64_t want = 1;
    for (uint32_t d = t->ndim; d-- > 0;) {
        if (t->shape[d] == 1) continue;
        place.stride[d] = stride[d];
        place.strided |= stride[d] != want;
        want *= t->shape[d]; /* the product is known not to overflow */
    }
    if (t->nbytes > 0 && place.strided) return place;
    return (dz_strided){.offset = offset};
}

uint64_t dz_strided_span(const dz_strided *p, const dz_tensor *t) {
    uint64_t last = 0, more, span;
    if (!p->strided) return t->nbytes;
    for (uint32_t d = 0; d < t->ndim; d++) {
        if (__builtin_mul_overflow(t->shape[d] - 1, p->stride[d], &more) || __builtin_add_overflow(last, more, &last)) return 0;
    }
    if (__builtin_add_overflow(last, 1, &last) || __builtin_mul_overflow(last, element_size(t), &span)) return 0;
    return span;
}

int dz_compare_places(const dz_strided *a, const dz_tensor *t, const dz_strided *b, const dz_tensor *u) {
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    if (t->nbytes != u->nbytes) return t->nbytes < u->nbytes ? -1 : 1;
    int order = memcmp(a->stride, b->stride, sizeof a->stride);
    if (order != 0) return order;
    if (t->ndim != u->ndim) return t->ndim < u->ndim ? -1 : 1;
    return memcmp(t->shape, u->shape, t->ndim * sizeof t->shape[0]);
}

/* A strided tensor, its dimensions of one dropped and those that are one in the file merged; and what is wanted of it. */
typedef struct view {
    int fd;
    const char *path;
    uint64_t offset, size; /* of the first element; bytes of one */
    uint32_t ndim;
    uint64_t shape[DZ_MAX_NDIM];
    uint64_t stride[DZ_MAX_NDIM]; /* in the file, bytes */
    uint64_t inner[DZ_MAX_NDIM];  /* in the row-major copy, elements */
    uint32_t order[DZ_MAX_NDIM];  /* dimensions by stride, the smallest first */
    uint64_t first, last;         /* elements wanted: first .. last - 1 of the row-major copy */
    uint8_t *dst;                 /* for the first of them */
    uint8_t *scratch;
} view;

typedef struct box { /* indexes lo .. lo + n - 1 in each dimension */
    uint64_t lo[DZ_MAX_NDIM], n[DZ_MAX_NDIM];
} box;

static view view_of(const dz_strided *p, const dz_tensor *t, int fd, const char *path) {
    view v = {.fd = fd, .path = path, .offset = p->offset, .size = element_size(t)};
    for (uint32_t d = 0; d < t->ndim; d++) {
        uint64_t stride = p->stride[d] * v.size;
        if (t->shape[d] == 1) continue;
        if (v.ndim > 0 && v.stride[v.ndim - 1] == stride * t->shape[d]) {
            v.shape[v.ndim - 1] *= t->shape[d];
            v.stride[v.ndim - 1] = stride;
            continue;
        }
        v.shape[v.ndim] = t->shape[d];
        v.stride[v.ndim++] = stride;
    }
    for (uint32_t d = v.ndim; d-- > 0;) v.inner[d] = d + 1 < v.ndim ? v.inner[d + 1] * v.shape[d + 1] : 1;
    for (uint32_t d = 0; d < v.ndim; d++) {
        uint32_t at = d;
        for (; at > 0 && v.stride[v.order[at - 1]] > v.stride[d]; at--) v.order[at] = v.order[at - 1];
        v.order[at] = d;
    }
    return v;
}

/* How a box is read: `calls` times `span` bytes, one after the other in the scratch. A dimension lies within a call or between calls. */
typedef struct layout {
    uint64_t span, calls;
    uint64_t step[DZ_MAX_NDIM]; /* bytes in the scratch from one index to the next */
    int between[DZ_MAX_NDIM];
} layout;

static layout lay_out(const view *v, const box *b) {
    layout l = {.span = v->size, .calls = 1};
    for (uint32_t k = 0; k < v->ndim; k++) {
        uint32_t d = v->order[k];
        if (b->n[d] == 1) continue;
        l.between[d] = v->stride[d] > l.span + GAP; /* then so are those that follow: their strides are larger */
        if (l.between[d]) continue;
        l.step[d] = v->stride[d];
        l.span += (b->n[d] - 1) * v->stride[d];
    }
    for (uint32_t d = v->ndim; d-- > 0;) {
        if (!l.between[d]) continue;
        l.step[d] = l.calls * l.span;
        l.calls *= b->n[d];
    }
    return l;
}

/* The next index of the dimensions below `ndim` for which `only` is set (all if NULL), the last of them fastest; 0 when all had their turn.
 */
static int next_index(uint64_t *index, const box *b, uint32_t ndim, const int *only) {
    for (uint32_t d = ndim; d-- > 0;) {
        if (only && !only[d]) continue;
        if (++index[d] < b->n[d]) return 1;
        index[d] = 0;
    }
    return 0;
}

static dz_rc gather(const view *v, const box *b, const layout *l, dz_error *err) {
    uint64_t index[DZ_MAX_NDIM] = {0};
    uint8_t *scratch = v->scratch;
    do {
        uint64_t at = v->offset;
        for (uint32_t d = 0; d < v->ndim; d++) at += (b->lo[d] + index[d]) * v->stride[d];
        if (dz_pread_all(v->fd, v->path, scratch, (size_t)l->span, at, err) != DZ_OK) return err->rc;
        scratch += l->span;
    } while (next_index(index, b, v->ndim, l->between));
    return DZ_OK;
}

#define COPY_EACH(type)                                                                                                                    \
    for (uint64_t i = 0; i < n; i++) memcpy(dst + i * sizeof(type), src + i * step, sizeof(type))

static void copy_row(uint8_t *restrict dst, const uint8_t *restrict src, uint64_t n, uint64_t step, uint64_t size) {
    if (step == size)
        memcpy(dst, src, (size_t)(n * size));
    else if (size == 1)
        COPY_EACH(uint8_t);
    else if (size == 2)
        COPY_EACH(uint16_t);
    else if (size == 4)
        COPY_EACH(uint32_t);
    else
        COPY_EACH(uint64_t);
}

/* Row by row of the copy; only what is wanted. */
static void scatter(const view *v, const box *b, const layout *l) {
    uint64_t index[DZ_MAX_NDIM] = {0};
    uint32_t row = v->ndim - 1;
    do {
        uint64_t from = 0, to = b->lo[row], skip = 0, n = b->n[row];
        for (uint32_t d = 0; d < row; d++) {
            from += index[d] * l->step[d];
            to += (b->lo[d] + index[d]) * v->inner[d];
        }
        if (to < v->first) skip = v->first - to;
        if (to + n > v->last) n = to < v->last ? v->last - to : 0;
        if (skip < n)
            copy_row(v->dst + (to + skip - v->first) * v->size, v->scratch + from + skip * l->step[row], n - skip, l->step[row], v->size);
    } while (next_index(index, b, row, NULL));
}

static int is_wanted(const view *v, const box *b) {
    uint64_t low = 0, high = 0;
    for (uint32_t d = 0; d < v->ndim; d++) {
        low += b->lo[d] * v->inner[d];
        high += (b->lo[d] + b->n[d] - 1) * v->inner[d];
    }
    return low < v->last && high >= v->first;
}

/* A box that does not go into the scratch is halved where its parts are farthest from each other in the file. */
static dz_rc read_box(const view *v, const box *b, dz_error *err) {
    if (!is_wanted(v, b)) return DZ_OK;
    layout l = lay_out(v, b);
    if (l.calls <= SCRATCH / l.span) {
        if (gather(v, b, &l, err) == DZ_OK) scatter(v, b, &l);
        return err->rc;
    }
    uint32_t k = v->ndim - 1;
    while (b->n[v->order[k]] == 1) k--;
    uint32_t d = v->order[k];
    box half = *b;
    half.n[d] = b->n[d] / 2;
    if (read_box(v, &half, err) != DZ_OK) return err->rc;
    half.lo[d] += half.n[d];
    half.n[d] = b->n[d] - half.n[d];
    return read_box(v, &half, err);
}

/* Elements first .. last - 1 of the part of the copy in which the indexes of the dimensions before `d` are those of `b`. They are read as
 * whole slices of a dimension, and what is not wanted of these is left out; unless that is most of them, at a border between two. */
static dz_rc read_range(const view *v, box b, uint32_t d, uint64_t first, uint64_t last, dz_error *err) {
    uint64_t inner = v->inner[d], from = first / inner, to = (last - 1) / inner;
    b.lo[d] = from;
    b.n[d] = to - from + 1;
    if (b.n[d] == 1 && d + 1 < v->ndim) return read_range(v, b, d + 1, first - from * inner, last - from * inner, err);
    if (b.n[d] == 2 && last - first < inner / 2) {
        if (read_range(v, b, d, first, to * inner, err) != DZ_OK) return err->rc;
        return read_range(v, b, d, to * inner, last, err);
    }
    for (uint32_t k = d + 1; k < v->ndim; k++) {
        b.lo[k] = 0;
        b.n[k] = v->shape[k];
    }
    return read_box(v, &b, err);
}

static dz_rc read_elements(view *v, uint64_t first, uint64_t count, uint8_t *dst, dz_error *err) {
    v->first = first;
    v->last = first + count;
    v->dst = dst;
    return read_range(v, (box){0}, 0, v->first, v->last, err);
}

/* A range of bytes may begin and end within an element. */
dz_rc dz_strided_read(const dz_strided *p, const dz_tensor *t, int fd, const char *path, uint64_t first, size_t len, void *dst,
                      dz_error *err) {
    if (!p->strided) return dz_pread_all(fd, path, dst, len, p->offset + first, err);
    uint8_t *at = dst, scratch[SCRATCH];
    view v = view_of(p, t, fd, path);
    v.scratch = scratch;
    while (len > 0) {
        uint64_t skip = first % v.size, count = len / v.size;
        size_t took = (size_t)(count * v.size);
        if (skip > 0 || count == 0) {
            uint8_t element[MOST_SIZE];
            took = v.size - skip < len ? (size_t)(v.size - skip) : len;
            if (read_elements(&v, first / v.size, 1, element, err) == DZ_OK) memcpy(at, element + skip, took);
        } else {
            read_elements(&v, first / v.size, count, at, err);
        }
        if (err->rc != DZ_OK) return err->rc;
        first += took;
        at += took;
        len -= took;
    }
    return DZ_OK;
}

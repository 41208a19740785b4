#include "archive/validate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive/foreign.h"
#include "archive/schema.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/overwrite.h"

/* Names and numbers of the HDF5 file format specification, version 3.0. */
#define SUPERBLOCK_LEN 48
#define NOWHERE UINT64_MAX
#define NAME_MAX_LEN 256
#define DEPTH_MAX 3 /* /tasks/NAME/index */
#define HEADER_MAX ((uint64_t)64 << 20)
#define TYPE_DEPTH_MAX 3 /* a table's array of numbers */
#define TYPE_SIZE_MAX ((uint64_t)1 << 17)
#define MEMBERS_MAX 32
#define ATTRIBUTE_MAX 256              /* elements */
#define ROOT_MAX 8                     /* links of the root group that are ours */
#define NAMED_MAX 2                    /* types among what they lead to, for all tasks */
#define FOREIGN_MAX ((size_t)64 << 10) /* bytes of lines about what is not ours */
#define DEFLATE_MOST 1100              /* bytes that one deflated byte can stand for: 1032 */

enum {
    MESSAGE_NIL = 0x00,
    MESSAGE_SPACE = 0x01,
    MESSAGE_LINKS = 0x02,
    MESSAGE_TYPE = 0x03,
    MESSAGE_FILL = 0x05,
    MESSAGE_LINK = 0x06,
    MESSAGE_LAYOUT = 0x08,
    MESSAGE_GROUP = 0x0A,
    MESSAGE_FILTERS = 0x0B,
    MESSAGE_ATTRIBUTE = 0x0C,
    MESSAGE_CONTINUED = 0x10,
    MESSAGE_ATTRIBUTES = 0x15,
    MESSAGE_REFERENCES = 0x16,
    MESSAGE_KINDS = 0x17
};
enum { TYPE_INTEGER = 0, TYPE_FLOAT = 1, TYPE_STRING = 3, TYPE_COMPOUND = 6, TYPE_ENUM = 8, TYPE_ARRAY = 10 };
enum { FILTER_DEFLATE = 1, FILTER_SHUFFLE = 2, FILTER_FLETCHER32 = 3 };

typedef struct extent {
    uint64_t at, len;
} extent;

typedef struct walk {
    int fd;
    const char *path;
    uint64_t file_size;
    dz_catalog *catalog;
    extent *seen; /* the headers' blocks: HDF5 keeps them by place, and takes one for what it was first */
    size_t nseen, seen_cap;
    uint64_t sum, tasks; /* of their lengths: no more than the file, if none lies over another; of those of tasks */
    struct {
        char name[NAME_MAX_LEN + 1];
        uint64_t at;
    } root[ROOT_MAX]; /* the root group's links */
    struct {
        uint64_t at, size;
    } named[NAMED_MAX];
    size_t nroot, nnamed;
    int unread; /* the object that failed is sound, but not read */
    dz_error *err;
} walk;

typedef struct object { /* what an object header's messages say */
    uint64_t at;
    const char *name;
    uint32_t has[MESSAGE_KINDS];
    uint64_t count, type_size, element; /* of a dataset: elements, bytes of one, also as its chunk has it */
    uint64_t nfilters, shuffled;
    int chunked, shared;        /* shared: its type is a committed one */
    int dense;                  /* its attributes are in a heap */
    uint64_t heap_at, index_at; /* of these: the heap, and their index by name */
    int ours;                   /* below /tasks: it has a link or an attribute that only tasks have */
    uint64_t data_at, data_len, chunk;
} object;

static dz_rc wrong(walk *w, uint64_t at, const char *what) {
    return dz_fail(w->err, DZ_EDAMAGE, "%s: its structure is not an archive's: at byte %llu: %s", w->path, (unsigned long long)at, what);
}

static dz_rc claim(walk *w, uint64_t at, uint64_t len) {
    if (at > w->file_size || len > w->file_size - at) return wrong(w, at, "reaches beyond the end of the file");
    if (len == 0) return DZ_OK;
    if (len > w->file_size - w->sum) return wrong(w, at, "lies over something else");
    if (dz_grow((void **)&w->seen, &w->seen_cap, w->nseen + 1, sizeof *w->seen, w->err) != DZ_OK) return w->err->rc;
    w->seen[w->nseen++] = (extent){at, len};
    w->sum += len;
    return DZ_OK;
}

static int by_place(const void *x, const void *y) {
    const extent *a = x, *b = y;
    return a->at < b->at ? -1 : a->at > b->at;
}

static dz_rc check_overlap(walk *w) {
    qsort(w->seen, w->nseen, sizeof *w->seen, by_place);
    for (size_t i = 1; i < w->nseen; i++) {
        if (w->seen[i].at - w->seen[i - 1].at < w->seen[i - 1].len) return wrong(w, w->seen[i].at, "lies over something else");
    }
    return DZ_OK;
}

/* Scalar, or one dimension that does not grow. */
static int space_ok(dz_view *v, uint64_t *count) {
    unsigned version = dz_view_u8(v), ndims = dz_view_u8(v), flags = dz_view_u8(v), kind = dz_view_u8(v);
    *count = 1;
    if (version != 2 || ndims > 1 || kind != ndims || flags > ndims) return 0;
    if (ndims) *count = dz_view_u64(v);
    if (flags && dz_view_u64(v) != *count) return 0;
    return !v->bad;
}

static int type_ok(dz_view *v, uint64_t *size, unsigned depth);

static int member_name_ok(dz_view *v) {
    uint64_t len = 0;
    while (!v->bad && dz_view_u8(v) != 0 && len < NAME_MAX_LEN) len++;
    return !v->bad && len > 0 && len < NAME_MAX_LEN;
}

/* Members lie in a compound without overlap, in order and without gap. */
static int compound_ok(dz_view *v, uint64_t bits, uint64_t size, unsigned depth) {
    uint64_t members = bits & 0xffff, end = 0;
    unsigned nbytes = size < 1 << 8 ? 1 : size < 1 << 16 ? 2 : size < 1 << 24 ? 3 : 4;
    if (members == 0 || members > MEMBERS_MAX || depth + 1 >= TYPE_DEPTH_MAX) return 0;
    for (uint64_t i = 0; i < members; i++) {
        uint64_t inner = 0;
        if (!member_name_ok(v) || dz_view_number(v, nbytes) != end || !type_ok(v, &inner, depth + 1)) return 0;
        end += inner;
    }
    return end == size;
}

/* Names of small numbers. */
static int enum_ok(dz_view *v, uint64_t bits, uint64_t size, unsigned depth) {
    uint64_t members = bits & 0xffff, inner = 0;
    if (members == 0 || members > MEMBERS_MAX || size != 1 || depth + 1 > TYPE_DEPTH_MAX || !type_ok(v, &inner, depth + 1) || inner != size)
        return 0;
    for (uint64_t i = 0; i < members; i++) {
        if (!member_name_ok(v)) return 0;
    }
    return dz_view_bytes(v, members) != NULL;
}

/* Plain numbers and texts of fixed length, arrays of one dimension of them, and compounds of all that. */
static int type_ok(dz_view *v, uint64_t *size, unsigned depth) {
    unsigned head = dz_view_u8(v), kind = head & 15, version = head >> 4;
    uint64_t bits = dz_view_number(v, 3), inner = 0;
    *size = dz_view_u32(v);
    if (v->bad || *size == 0 || *size > TYPE_SIZE_MAX || version < 1 || version > 3 || depth >= TYPE_DEPTH_MAX) return 0;
    switch (kind) {
        case TYPE_INTEGER: { /* little endian, no padding */
            uint64_t offset = dz_view_number(v, 2), precision = dz_view_number(v, 2);
            return !v->bad && (bits & ~8ULL) == 0 && *size <= 8 && (*size & (*size - 1)) == 0 && offset == 0 && precision == 8 * *size;
        }
        case TYPE_FLOAT: { /* IEEE 754 */
            uint64_t offset = dz_view_number(v, 2), precision = dz_view_number(v, 2), exponent_at = dz_view_number(v, 1),
                     exponent = dz_view_number(v, 1);
            uint64_t mantissa_at = dz_view_number(v, 1), mantissa = dz_view_number(v, 1), bias = dz_view_number(v, 4);
            int single = *size == 4 && bits == 0x1f20 && exponent_at == 23 && exponent == 8 && mantissa == 23 && bias == 127;
            int twice = *size == 8 && bits == 0x3f20 && exponent_at == 52 && exponent == 11 && mantissa == 52 && bias == 1023;
            return !v->bad && offset == 0 && precision == 8 * *size && mantissa_at == 0 && (single || twice);
        }
        case TYPE_STRING: return (bits & ~0x1fULL) == 0 && (bits & 15) <= 2;
        case TYPE_COMPOUND: return version == 3 && compound_ok(v, bits, *size, depth);
        case TYPE_ENUM: return version == 3 && enum_ok(v, bits, *size, depth);
        case TYPE_ARRAY: {
            unsigned ndims = dz_view_u8(v);
            uint64_t n = dz_view_u32(v);
            return version == 3 && bits == 0 && ndims == 1 && type_ok(v, &inner, depth + 1) && n > 0 && n <= 64 && n * inner == *size;
        }
        default: return 0;
    }
}

static int fill_ok(dz_view *v) {
    unsigned version = dz_view_u8(v), flags = dz_view_u8(v);
    if (version != 3 || (flags & ~0x3fU) != 0 || (flags & 0x30) == 0x30) return 0;
    return !(flags & 0x20) || dz_view_bytes(v, dz_view_u32(v)) != NULL;
}

/* One run of bytes, or one chunk. */
static int layout_ok(dz_view *v, object *o) {
    unsigned version = dz_view_u8(v), kind = dz_view_u8(v);
    if ((version == 3 || version == 4) && kind == 1) {
        o->data_at = dz_view_u64(v);
        o->data_len = dz_view_u64(v);
        return !v->bad;
    }
    if (version != 4 || kind != 2) return 0;
    unsigned flags = dz_view_u8(v), ndims = dz_view_u8(v), nbytes = dz_view_u8(v);
    if (v->bad || (flags & ~2U) != 0 || ndims != 2 || nbytes < 1 || nbytes > 8) return 0;
    o->chunked = 1;
    o->chunk = dz_view_number(v, nbytes);
    o->element = dz_view_number(v, nbytes);
    unsigned index = dz_view_u8(v);
    o->data_len = NOWHERE; /* not filtered: as long as the table */
    if (flags & 2) {
        o->data_len = dz_view_u64(v);
        if (dz_view_u32(v) != 0) return 0; /* a filter left out */
    }
    o->data_at = dz_view_u64(v);
    return !v->bad && index == 1 && o->chunk > 0;
}

static int filters_ok(dz_view *v, object *o) {
    unsigned version = dz_view_u8(v), n = dz_view_u8(v);
    static const unsigned filters[3] = {FILTER_SHUFFLE, FILTER_DEFLATE, FILTER_FLETCHER32};
    if (version != 2 || n != 3) return 0;
    o->nfilters = n;
    for (unsigned i = 0; i < n; i++) {
        uint64_t id = dz_view_number(v, 2), flags = dz_view_number(v, 2), values = dz_view_number(v, 2);
        if (id != filters[i] || flags > 1 || values != (id == FILTER_FLETCHER32 ? 0 : 1)) return 0;
        uint64_t value = values ? dz_view_u32(v) : 0;
        if (id == FILTER_SHUFFLE) o->shuffled = value;
    }
    return !v->bad;
}

/* A committed type of the root group. */
static int shared_type_ok(const walk *w, dz_view *v, uint64_t *size) {
    unsigned version = dz_view_u8(v), kind = dz_view_u8(v);
    uint64_t at = dz_view_u64(v);
    if (v->bad || (version != 2 && version != 3) || kind != 2) return 0;
    for (size_t i = 0; i < w->nnamed; i++) {
        *size = w->named[i].size;
        if (w->named[i].at == at) return 1;
    }
    return 0;
}

static int own_attribute_ok(const walk *w, dz_view *v) {
    uint64_t size = 0, count = 0;
    unsigned version = dz_view_u8(v), flags = dz_view_u8(v);
    uint64_t name_len = dz_view_number(v, 2), type_len = dz_view_number(v, 2), space_len = dz_view_number(v, 2);
    unsigned text = dz_view_u8(v);
    const uint8_t *name = dz_view_bytes(v, name_len), *type = dz_view_bytes(v, type_len), *space = dz_view_bytes(v, space_len);
    if (v->bad || version != 3 || flags > 1 || text > 1 || name_len < 2 || name_len > NAME_MAX_LEN) return 0;
    dz_view inner_type = {.data = type, .len = (size_t)type_len}, inner_space = {.data = space, .len = (size_t)space_len};
    int typed = flags ? shared_type_ok(w, &inner_type, &size) : type_ok(&inner_type, &size, TYPE_DEPTH_MAX - 1);
    return typed && name[name_len - 1] == 0 && strlen((const char *)name) == name_len - 1 && inner_type.pos == type_len &&
           space_ok(&inner_space, &count) && inner_space.pos == space_len && count <= ATTRIBUTE_MAX &&
           dz_view_bytes(v, count * size) != NULL;
}

static int is_among(const char *name, const char *const *names) {
    for (; *names; names++) {
        if (strcmp(name, *names) == 0) return 1;
    }
    return 0;
}

/* Notes an object or attribute that other tools have put there. */
static int note_foreign(walk *w, const object *o, unsigned depth, const char *what, const char *name) {
    char *line = dz_format(w->err, "%s '%s' of /%s%s", what, name, depth == 2 ? "tasks/" : "", o->name);
    int in_tasks = depth == 1 && strcmp(o->name, "tasks") == 0;
    if (line && (in_tasks || w->catalog->foreign.len < FOREIGN_MAX)) dz_buf_line(&w->catalog->foreign, w->err, "%s\n", dz_one_line(line));
    if (in_tasks && strcmp(what, "attribute") != 0) dz_buf_put(&w->catalog->foreign_tasks, name, strlen(name) + 1, w->err);
    free(line);
    return w->err->rc == DZ_OK;
}

/* Ours, or one of a kind that other tools write. */
static int attribute_ok(walk *w, object *o, dz_view *v, unsigned depth) {
    static const char *const own[] = {"format", "format_version", "generator", "reference_trace_norm", "fingerprint", "recipe",
                                      "record", "meaning",        NULL},
                             *const known[] = {"name", "origin", "revision", "stored", NULL};
    char name[DZ_FOREIGN_NAME] = "";
    dz_view again = *v, third = *v;
    if (own_attribute_ok(w, v)) {
        unsigned version = dz_view_u8(&third);
        dz_view_bytes(&third, version == 3 ? 8 : 7);
        snprintf(name, sizeof name, "%s", (const char *)third.data + third.pos);
        o->ours |= depth == 2 && strcmp(name, "record") == 0;
        return is_among(name, own) || (is_among(name, known) && strcmp(o->name, "base") == 0) ||
               (depth == 2 && (strcmp(name, "score") == 0 || strcmp(name, "sources") == 0)) || note_foreign(w, o, depth, "attribute", name);
    }
    return dz_foreign_attribute_ok(&again, name) && !is_among(name, own) && note_foreign(w, o, depth, "attribute", name);
}

/* Of a header that has more attributes than it holds, or one of more than 64 KiB, HDF5 keeps them in a heap, which is read only when one of
 * them is. Of tables and some groups we read none. */
static int attributes_ok(object *o, dz_view *v) {
    unsigned version = dz_view_u8(v), flags = dz_view_u8(v);
    if (version != 0 || flags > 3) return 0;
    if (flags & 1) dz_view_bytes(v, 2);
    o->heap_at = dz_view_u64(v);
    o->dense = o->heap_at != NOWHERE;
    o->index_at = dz_view_u64(v);
    if (flags & 2) dz_view_u64(v);
    return !v->bad;
}

/* Links are in the header itself, not in a heap of their own. */
static int compact_ok(dz_view *v) {
    unsigned version = dz_view_u8(v), flags = dz_view_u8(v);
    if (version != 0 || flags > 3) return 0;
    if (flags & 1) dz_view_bytes(v, 8);
    return dz_view_u64(v) == NOWHERE && dz_view_u64(v) == NOWHERE && (!(flags & 2) || dz_view_u64(v) == NOWHERE) && !v->bad;
}

static dz_rc walk_object(walk *w, const char *name, uint64_t at, unsigned depth, int *ours);

/* What a link leads to. A task, or the blobs, can be lost without the rest. */
static int target_ok(walk *w, const object *from, const char *name, uint64_t at, unsigned depth) {
    int task = depth == 1 && strcmp(from->name, "tasks") == 0, blobs = depth == 0 && strcmp(name, "blobs") == 0;
    size_t nseen = w->nseen;
    uint64_t sum = w->sum, there_bytes = w->catalog->there_bytes;
    int ours = 0;
    dz_error inner = {0}, *outer = w->err;
    if (depth >= DEPTH_MAX) return 0;
    if (!task && !blobs) return walk_object(w, name, at, depth + 1, &ours) == DZ_OK;
    w->err = &inner;
    walk_object(w, name, at, depth + 1, &ours);
    w->err = outer;
    int unread = w->unread;
    w->unread = 0;
    if (task && !ours && inner.rc != DZ_ENOMEM && (inner.rc == DZ_OK || unread || dz_foreign_object(w->fd, w->path, w->file_size, at))) {
        /* of other tools, by HDF5's newer version */
        w->nseen = nseen;
        w->sum = sum;
        w->catalog->there_bytes = there_bytes;
        return note_foreign(w, from, depth, "object", name);
    }
    if (inner.rc == DZ_OK) {
        w->tasks += task ? w->sum - sum : 0;
        w->catalog->there += (size_t)task;
        return 1;
    }
    w->nseen = nseen;
    w->sum = sum;
    w->catalog->there_bytes = there_bytes;
    if (inner.rc == DZ_ENOMEM)
        dz_fail(outer, inner.rc, "%s", inner.text);
    else if (task && dz_catalog_lose(w->catalog, name, inner.text, outer) == DZ_OK)
        w->catalog->lost[w->catalog->nlost - 1].unread = unread;
    else if (!task)
        w->catalog->blobs_lost = dz_format(outer, "%s: its shared files (blobs) are lost: %s", w->path, inner.text);
    return outer->rc == DZ_OK;
}

/* A link of an archive's own, by the folder it is in; of /tasks any may be. */
static int is_own_link(const object *o, unsigned depth, const char *name) {
    static const char *const root[] = {"tensors", "base", "blobs", "tasks", DZ_INDEX_TYPE, DZ_RECORD_TYPE, NULL},
                             *const base[] = {"tensors", "tiles", NULL}, *const blobs[] = {"index", "data", NULL},
                             *const task[] = {"index", "payload", NULL};
    if (depth == 0) return is_among(name, root);
    if (depth == 2) return is_among(name, task);
    return strcmp(o->name, "base") == 0    ? is_among(name, base)
           : strcmp(o->name, "blobs") == 0 ? is_among(name, blobs)
                                           : dz_task_name_ok(name);
}

/* A header of HDF5's older version, which other tools write and we do not. */
static int is_old_header(const walk *w, uint64_t at) {
    uint8_t head[16] = {0};
    dz_error none = {0};
    if (at > w->file_size || w->file_size - at < sizeof head || dz_pread_all(w->fd, w->path, head, sizeof head, at, &none) != DZ_OK)
        return 0;
    return head[0] == 1 && head[1] == 0 && head[12] == 0 && head[13] == 0 && head[14] == 0 && head[15] == 0 && (head[4] | head[5]) != 0;
}

static int link_ok(walk *w, object *o, dz_view *v, unsigned depth) {
    unsigned version = dz_view_u8(v), flags = dz_view_u8(v), kind = 0;
    if (version != 1 || (flags & ~0x1fU) != 0) return 0;
    if (flags & 8) kind = dz_view_u8(v);
    if (flags & 4) dz_view_u64(v);
    if (flags & 0x10 && dz_view_u8(v) > 1) return 0;
    uint64_t len = dz_view_number(v, 1U << (flags & 3));
    const uint8_t *bytes = dz_view_bytes(v, len);
    char name[NAME_MAX_LEN + 1] = "";
    if (v->bad || len == 0 || len > NAME_MAX_LEN || memchr(bytes, 0, (size_t)len) || memchr(bytes, '/', (size_t)len)) return 0;
    memcpy(name, bytes, (size_t)len);
    int own = is_own_link(o, depth, name);
    if (kind != 0) { /* soft, or into another file: of other tools */
        const uint8_t *to = dz_view_bytes(v, dz_view_number(v, 2));
        return to && !v->bad && (kind == 1 || kind == 64) && (!own || (depth == 1 && strcmp(o->name, "tasks") == 0)) &&
               note_foreign(w, o, depth, "link", name);
    }
    uint64_t target = dz_view_u64(v);
    if (v->bad) return 0;
    if (!own || (depth == 1 && strcmp(o->name, "tasks") == 0 && is_old_header(w, target))) return note_foreign(w, o, depth, "object", name);
    o->ours |= depth == 2;
    if (depth == 0) {
        for (size_t i = 0; i < w->nroot; i++) {
            if (strcmp(w->root[i].name, name) == 0) return 0;
        }
        if (w->nroot == ROOT_MAX) return 0;
        memcpy(w->root[w->nroot].name, name, sizeof name);
        w->root[w->nroot++].at = target;
        return 1;
    }
    return target_ok(w, o, name, target, depth);
}

static dz_rc walk_messages(walk *w, object *o, const uint8_t *bytes, uint64_t len, uint64_t at, unsigned numbered, unsigned depth);

/* A further block of the header. */
static dz_rc walk_continued(walk *w, object *o, dz_view *v, unsigned numbered, unsigned depth) {
    uint64_t at = dz_view_u64(v), len = dz_view_u64(v);
    if (v->bad || len < 8 || len > HEADER_MAX) return wrong(w, o->at, "a header continues nowhere");
    if (claim(w, at, len) != DZ_OK) return w->err->rc;
    uint8_t *bytes = dz_alloc_raw((size_t)len, 1, w->err);
    if (bytes && dz_pread_all(w->fd, w->path, bytes, (size_t)len, at, w->err) == DZ_OK) {
        if (memcmp(bytes, "OCHK", 4) != 0)
            wrong(w, at, "not the rest of a header");
        else
            walk_messages(w, o, bytes + 4, len - 8, at, numbered, depth);
    }
    free(bytes);
    return w->err->rc;
}

static dz_rc walk_message(walk *w, object *o, unsigned kind, int shared, dz_view *v, uint64_t at, unsigned numbered, unsigned depth) {
    int good = 0;
    switch (kind) {
        case MESSAGE_NIL: return DZ_OK;
        case MESSAGE_SPACE: good = space_ok(v, &o->count); break;
        case MESSAGE_LINKS: good = compact_ok(v); break;
        case MESSAGE_TYPE: good = shared ? shared_type_ok(w, v, &o->type_size) : type_ok(v, &o->type_size, 0); break;
        case MESSAGE_REFERENCES: good = dz_view_u8(v) == 0 && dz_view_bytes(v, 4) != NULL; break;
        case MESSAGE_FILL: good = fill_ok(v); break;
        case MESSAGE_LINK: good = link_ok(w, o, v, depth); break;
        case MESSAGE_LAYOUT: good = layout_ok(v, o); break;
        case MESSAGE_FILTERS: good = filters_ok(v, o); break;
        case MESSAGE_ATTRIBUTE: good = attribute_ok(w, o, v, depth); break;
        case MESSAGE_ATTRIBUTES: good = attributes_ok(o, v); break;
        case MESSAGE_CONTINUED: return walk_continued(w, o, v, numbered, depth);
        case MESSAGE_GROUP: {
            unsigned version = dz_view_u8(v), flags = dz_view_u8(v);
            good = version == 0 && flags <= 3 && dz_view_bytes(v, (flags & 1 ? 4 : 0) + (flags & 2 ? 4 : 0)) != NULL;
            break;
        }
        default: break;
    }
    if (w->err->rc != DZ_OK) return w->err->rc;
    return good ? DZ_OK : wrong(w, at, "a message of a kind that archives do not use");
}

static dz_rc walk_messages(walk *w, object *o, const uint8_t *bytes, uint64_t len, uint64_t at, unsigned numbered, unsigned depth) {
    dz_view v = {.data = bytes, .len = (size_t)len};
    while (w->err->rc == DZ_OK && v.len - v.pos >= 4 + numbered) { /* fewer are a gap */
        unsigned kind = dz_view_u8(&v);
        uint64_t size = dz_view_number(&v, 2);
        unsigned flags = dz_view_u8(&v);
        dz_view_bytes(&v, numbered);
        const uint8_t *body = dz_view_bytes(&v, size);
        int shared = flags & 2 && kind == MESSAGE_TYPE;
        if (!body || (flags & ~(shared ? 7U : 5U)) != 0 || kind >= MESSAGE_KINDS)
            return wrong(w, at + v.pos, "a message of a kind that archives do not use");
        int one = kind != MESSAGE_NIL && kind != MESSAGE_LINK && kind != MESSAGE_ATTRIBUTE && kind != MESSAGE_CONTINUED;
        if (o->has[kind]++ && one) return wrong(w, at + v.pos, "a message is there twice");
        dz_view inner = {.data = body, .len = (size_t)size};
        o->shared |= shared;
        walk_message(w, o, kind, shared, &inner, at + v.pos, numbered, depth);
    }
    return w->err->rc;
}

static dz_rc check_dataset(walk *w, const object *o, unsigned depth) {
    uint64_t raw = 0;
    if (!o->has[MESSAGE_SPACE] || !o->has[MESSAGE_TYPE] || !o->has[MESSAGE_LAYOUT] || o->has[MESSAGE_LINK] || o->has[MESSAGE_LINKS] ||
        __builtin_mul_overflow(o->count, o->type_size, &raw))
        return wrong(w, o->at, "neither a group nor a table");
    if (!o->chunked && (o->nfilters || o->data_len != raw)) return wrong(w, o->at, "its bytes are not its elements'");
    if (o->chunked && (o->element != o->type_size || o->chunk != (o->count ? o->count : 1) ||
                       (o->data_len == NOWHERE) != (o->nfilters == 0) || (o->nfilters && o->shuffled != o->type_size)))
        return wrong(w, o->at, "not one chunk");
    uint64_t stored = o->data_len == NOWHERE ? raw : o->data_len;
    if (depth == 3 && o->data_at != NOWHERE && (strcmp(o->name, "payload") == 0 || strcmp(o->name, "index") == 0))
        w->catalog->there_bytes += stored < w->file_size ? stored : w->file_size;
    if (o->data_at == NOWHERE) return raw == 0 ? DZ_OK : wrong(w, o->at, "its bytes are not in the file");
    if (o->nfilters && (stored < 8 || raw / DEFLATE_MOST > stored)) return wrong(w, o->at, "its bytes are too few");
    return o->data_at <= w->file_size && stored <= w->file_size - o->data_at
               ? DZ_OK
               : wrong(w, o->at, "its bytes reach beyond the end of the file");
}

/* A type with a name. Not of another named type. */
static dz_rc name_type(walk *w, const object *o) {
    if (o->has[MESSAGE_LAYOUT] || o->has[MESSAGE_LINK] || o->has[MESSAGE_FILTERS] || o->has[MESSAGE_FILL] || o->shared ||
        w->nnamed == NAMED_MAX)
        return wrong(w, o->at, "neither a table nor a type");
    w->named[w->nnamed].at = o->at;
    w->named[w->nnamed++].size = o->type_size;
    return DZ_OK;
}

/* Types first: tables and attributes refer to them. */
static dz_rc walk_root(walk *w, const object *root) {
    for (int types = 1; types >= 0; types--) {
        for (size_t i = 0; i < w->nroot && w->err->rc == DZ_OK; i++) {
            const char *name = w->root[i].name;
            int is_type = strcmp(name, DZ_INDEX_TYPE) == 0 || strcmp(name, DZ_RECORD_TYPE) == 0;
            if (is_type == types && !target_ok(w, root, name, w->root[i].at, 0) && w->err->rc == DZ_OK)
                wrong(w, root->at, "a link that archives do not use");
        }
    }
    return w->err->rc;
}

/* `len` bytes of the file, at least 4. */
static int begins_with(const walk *w, uint64_t at, const char *signature, uint8_t *bytes, size_t len) {
    dz_error none = {0};
    return at < w->file_size && w->file_size - at >= len && dz_pread_all(w->fd, w->path, bytes, len, at, &none) == DZ_OK &&
           memcmp(bytes, signature, 4) == 0;
}

/* A group with attributes of ours in a heap. The message has to serve for the object's name in h5py too. */
static dz_rc refuse_heap(walk *w, const object *o, unsigned depth) {
    uint8_t head[34] = {0}; /* of a B-tree: how many records are in it comes last */
    dz_view v = {.data = head, .len = sizeof head, .pos = 26};
    uint64_t n =
        begins_with(w, o->heap_at, "FRHP", head, 4) && begins_with(w, o->index_at, "BTHD", head, sizeof head) ? dz_view_u64(&v) : 0;
    if (n == 0) return wrong(w, o->at, "its attributes are neither in its header nor in a heap");
    w->unread = 1;
    return dz_fail(
        w->err, DZ_EFAIL,
        "%s: '/%s%s' has %llu attributes, too many or one too large (64 KiB) for its header: HDF5 has moved all into a heap, which "
        "is not read. Nothing is damaged: delete the large ones (h5py: del f['/%s%s'].attrs[...]); as it is, 'python3 -m deltazoo "
        "restore' reads it",
        w->path, depth == 2 ? "tasks/" : "", o->name, (unsigned long long)n, depth == 2 ? "tasks/" : "", o->name);
}

static dz_rc walk_object(walk *w, const char *name, uint64_t at, unsigned depth, int *ours) {
    uint8_t head[40] = {0};
    if (at > w->file_size || w->file_size - at < 16) return wrong(w, at, "an object beyond the end of the file");
    size_t have = w->file_size - at < sizeof head ? (size_t)(w->file_size - at) : sizeof head;
    if (dz_pread_all(w->fd, w->path, head, have, at, w->err) != DZ_OK) return w->err->rc;
    unsigned flags = head[5];
    if (memcmp(head, "OHDR", 4) != 0 || head[4] != 2 || (flags & ~0x3fU) != 0) return wrong(w, at, "not a header of this format");
    dz_view v = {.data = head, .len = have, .pos = 6 + (flags & 0x20 ? 16U : 0) + (flags & 0x10 ? 4U : 0)};
    uint64_t len = dz_view_number(&v, 1U << (flags & 3));
    if (v.bad || len > HEADER_MAX) return wrong(w, at, "not a header of this format");
    object o = {.at = at, .name = name};
    if (claim(w, at, v.pos + len + 4) != DZ_OK) return w->err->rc;
    uint8_t *bytes = dz_alloc_raw((size_t)len, 1, w->err);
    if (bytes && dz_pread_all(w->fd, w->path, bytes, (size_t)len, at + v.pos, w->err) == DZ_OK)
        walk_messages(w, &o, bytes, len, at + v.pos, flags & 4 ? 2 : 0, depth);
    free(bytes);
    *ours = o.ours;
    if (w->err->rc == DZ_OK && o.dense) {
        int read = o.has[MESSAGE_LINKS] && (depth != 1 || strcmp(name, "base") == 0);
        if (read) return refuse_heap(w, &o, depth);
        if (!note_foreign(w, &o, depth, "attribute", "(several, in a heap)")) return w->err->rc;
    }
    if (w->err->rc == DZ_OK && depth == 0) return walk_root(w, &o);
    if (w->err->rc != DZ_OK || o.has[MESSAGE_LINKS]) return w->err->rc;
    return depth == 1 && o.has[MESSAGE_TYPE] && !o.has[MESSAGE_SPACE] ? name_type(w, &o) : check_dataset(w, &o, depth);
}

dz_rc dz_structure_check(int fd, dz_catalog *catalog, dz_error *err) {
    static const uint8_t signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    uint8_t head[SUPERBLOCK_LEN];
    const char *path = catalog->path;
    uint64_t file_size = catalog->file_size;
    walk w = {.fd = fd, .path = path, .file_size = file_size, .catalog = catalog, .err = err};
    if (file_size < sizeof signature || dz_pread_all(fd, path, head, sizeof signature, 0, err) != DZ_OK ||
        memcmp(head, signature, sizeof signature) != 0)
        return dz_fail(err, DZ_EFAIL, "%s: not an archive (not an HDF5 file)", path);
    if (file_size < sizeof head) return wrong(&w, file_size, "cut short");
    if (dz_pread_all(fd, path, head, sizeof head, 0, err) != DZ_OK) return err->rc;
    if (head[8] < 2)
        return dz_target_of(path) == DZ_TARGET_ARCHIVE
                   ? dz_fail(err, DZ_EFAIL,
                             "%s: a copy of a deltazoo archive that another tool (h5repack, h5copy) has written anew: use the original, or "
                             "make the copy with 'cp' or 'deltazoo repack'; what is in this one 'python3 -m deltazoo restore' reads",
                             path)
                   : dz_fail(err, DZ_EFAIL, "%s: an HDF5 file, but not a deltazoo archive", path);
    dz_view v = {.data = head, .len = sizeof head, .pos = 9};
    unsigned offsets = dz_view_u8(&v), lengths = dz_view_u8(&v), flags = dz_view_u8(&v);
    uint64_t first = dz_view_u64(&v), extension = dz_view_u64(&v), end = dz_view_u64(&v), root = dz_view_u64(&v);
    if (head[8] > 3 || offsets != 8 || lengths != 8 || flags != 0 || first != 0 || extension != NOWHERE)
        return wrong(&w, 8, "a superblock of another kind, or of a file that was not closed");
    int ours = 0;
    if (end > file_size) return wrong(&w, file_size, "cut short");
    if (claim(&w, 0, SUPERBLOCK_LEN) == DZ_OK && walk_object(&w, "", root, 0, &ours) == DZ_OK) check_overlap(&w);
    catalog->shared_bytes += w.sum - w.tasks;
    free(w.seen);
    return err->rc;
}

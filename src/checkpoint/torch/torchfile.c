#include "checkpoint/torch/torchfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "checkpoint/header.h"
#include "checkpoint/torch/pickle_names.h"
#include "checkpoint/torch/torchdict.h"
#include "checkpoint/torch/zip.h"

#define PICKLE_ENTRY "/data.pkl"
#define PLAIN_SHOWN 3 /* of the values without tensors, when there are more */
#define MOST_NOTES 20 /* of a file: a training checkpoint may hold thousands of other values */

typedef struct torch_file {
    const char *path;
    char *prefix; /* of the entries' names: "archive" */
    dz_zip zip;
    dz_pickle pickle;
    uint8_t *bytes; /* of data.pkl */
    dz_buf *notes;
    size_t nnotes;
    uint64_t repeated; /* bytes of tensors that are larger than their storages */
} torch_file;

int dz_torch_is_file(const uint8_t head[8]) {
    static const uint8_t zip[] = {'P', 'K', 3, 4}, legacy[] = {0x80, 2, 0x8a, 10}; /* a pickled magic number */
    dz_view view = {.data = head, .len = 8};
    if (dz_view_u64(&view) <= DZ_HEADER_MAX) return 0; /* then it may well be a safetensors header's length */
    return memcmp(head, zip, sizeof zip) == 0 || memcmp(head, legacy, sizeof legacy) == 0;
}

static const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static dz_rc add_note(torch_file *f, const char *text, dz_error *err) {
    if (f->nnotes++ < MOST_NOTES) {
        dz_buf_put(f->notes, file_name(f->path), strlen(file_name(f->path)), err);
        dz_buf_put(f->notes, ": ", 2, err);
        dz_buf_put(f->notes, text, strlen(text), err);
        dz_buf_put(f->notes, "\n", 1, err);
    }
    return err->rc;
}

/* All of a small entry; NULL with the error set. The caller frees. */
static uint8_t *read_entry(const torch_file *f, const dz_zip_entry *e, uint64_t most, dz_error *err) {
    uint64_t at;
    if (dz_zip_locate(&f->zip, e, &at, err) != DZ_OK) return NULL;
    if (e->size > most) {
        dz_fail(err, DZ_EFAIL, "%s: zip entry '%s' of %" PRIu64 " bytes is larger than the %" PRIu64 " allowed", f->path, e->name, e->size,
                most);
        return NULL;
    }
    uint8_t *bytes = dz_alloc_raw((size_t)e->size, 1, err);
    if (bytes && dz_pread_all(f->zip.fd, f->path, bytes, (size_t)e->size, at, err) == DZ_OK) return bytes;
    free(bytes);
    return NULL;
}

/* Beside PREFIX/data.pkl, torch.jit.save writes PREFIX/constants.pkl. */
static int is_script(const torch_file *f, const dz_zip_entry *pickle) {
    static const char constants[] = "/constants.pkl";
    size_t prefix = strlen(pickle->name) - strlen(PICKLE_ENTRY);
    for (size_t i = 0; i < f->zip.nentries; i++) {
        const char *name = f->zip.entries[i].name;
        if (strncmp(name, pickle->name, prefix) == 0 && strcmp(name + prefix, constants) == 0) return 1;
    }
    return 0;
}

/* The entry PREFIX/data.pkl: the only one of its kind gives the prefix. */
static const dz_zip_entry *find_pickle(torch_file *f, dz_error *err) {
    const dz_zip_entry *found = NULL;
    for (size_t i = 0; i < f->zip.nentries; i++) {
        const char *name = f->zip.entries[i].name, *slash = strchr(name, '/');
        if (!slash || strcmp(slash, PICKLE_ENTRY) != 0) continue;
        if (found) {
            dz_fail(err, DZ_EFAIL, "%s: holds both %s and %s", f->path, found->name, name);
            return NULL;
        }
        found = &f->zip.entries[i];
    }
    if (!found)
        dz_fail(err, DZ_EFAIL, "%s: a zip file without data.pkl: not a PyTorch checkpoint", f->path);
    else if (is_script(f, found))
        dz_fail(err, DZ_EFAIL, "%s: is a TorchScript program: torch.jit.load it and save its state_dict()", f->path);
    else
        f->prefix = dz_strndup(found->name, (size_t)(strchr(found->name, '/') - found->name), err);
    return f->prefix ? found : NULL;
}

/* Newer files tell their byte order; older ones were always written on little-endian machines. */
static dz_rc check_byte_order(const torch_file *f, dz_error *err) {
    char *name = dz_format(err, "%s/byteorder", f->prefix);
    const dz_zip_entry *e = name ? dz_zip_find(&f->zip, name) : NULL;
    uint8_t *bytes = e ? read_entry(f, e, 16, err) : NULL;
    if (bytes && (e->size != strlen("little") || memcmp(bytes, "little", strlen("little")) != 0))
        dz_fail(err, DZ_EFAIL, "%s: its byte order is not little-endian", f->path);
    free(bytes);
    free(name);
    return err->rc;
}

static dz_rc open_file(torch_file *f, dz_error *err) {
    struct stat st;
    int fd = dz_open(f->path, O_RDONLY | O_NONBLOCK); /* no FIFO holds us up */
    if (fd < 0 || fstat(fd, &st) != 0) {
        dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", f->path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        dz_fail(err, DZ_EFAIL, "%s: not a regular file", f->path);
    } else if (dz_zip_open(fd, f->path, (uint64_t)st.st_size, &f->zip, err) == DZ_OK) {
        const dz_zip_entry *e = find_pickle(f, err);
        char *name = dz_format(err, "%s: data.pkl", f->path);
        if (e && name && check_byte_order(f, err) == DZ_OK && (f->bytes = read_entry(f, e, DZ_PICKLE_MAX, err)))
            dz_unpickle(name, f->bytes, (size_t)e->size, &f->pickle, err);
        free(name);
        return err->rc;
    }
    if (fd >= 0) close(fd);
    return err->rc;
}

static void close_file(torch_file *f) {
    if (f->zip.fd >= 0) close(f->zip.fd);
    dz_zip_free(&f->zip);
    dz_pickle_free(&f->pickle);
    free(f->bytes);
    free(f->prefix);
}

static const dz_pickle_value *value_of(const torch_file *f, uint32_t value) { return &f->pickle.values[value]; }

/* A value of one of the dicts on the way to the model that is not kept. */
static dz_rc note_skipped(torch_file *f, const dz_torch_dict *d, uint32_t depth, const dz_pickle_item *item, dz_error *err) {
    char key[DZ_PICKLE_TEXT], what[DZ_PICKLE_TEXT], way[DZ_TORCH_WAY], taken[DZ_TORCH_WAY];
    if (f->nnotes >= MOST_NOTES) {
        f->nnotes++; /* it is only counted */
        return DZ_OK;
    }
    int rival = d->depth > 0 && dz_torch_dict_is_name(&f->pickle, item->key) && value_of(f, item->value)->tensors > 0;
    char *text = dz_format(err, "'%s%s%s' (%s) is not kept%s%s%s", dz_torch_dict_way(&f->pickle, d, depth, way), depth ? "/" : "",
                           dz_pickle_key(&f->pickle, item->key, key), dz_pickle_describe(&f->pickle, item->value, what), rival ? ": '" : "",
                           rival ? dz_torch_dict_way(&f->pickle, d, d->depth, taken) : "", rival ? "' is" : "");
    if (text) add_note(f, text, err);
    free(text);
    return err->rc;
}

/* How many dicts lead to the one that holds the item, which is not kept; UINT32_MAX for what is kept, or of no such dict. */
static uint32_t skipped_at(const torch_file *f, const dz_torch_dict *d, const dz_pickle_item *item) {
    uint32_t depth = 0;
    while (depth < d->depth && d->dicts[depth] != item->dict) depth++;
    if (d->dicts[depth] != item->dict || dz_torch_dict_has(d, item->value)) return UINT32_MAX;
    return depth < d->depth || !dz_pickle_is_tensor(value_of(f, item->value)) ? depth : UINT32_MAX;
}

/* Many values without tensors, in one line. */
static dz_rc note_plain(torch_file *f, const dz_torch_dict *d, size_t n, dz_error *err) {
    char key[DZ_PICKLE_TEXT], what[DZ_PICKLE_TEXT], way[DZ_TORCH_WAY];
    dz_buf line = {0};
    size_t shown = 0;
    for (size_t i = 0; i < f->pickle.nitems && shown < PLAIN_SHOWN && err->rc == DZ_OK; i++) {
        const dz_pickle_item *item = &f->pickle.items[i];
        uint32_t depth = skipped_at(f, d, item);
        if (depth == UINT32_MAX || value_of(f, item->value)->tensors > 0) continue;
        dz_buf_line(&line, err, "%s'%s%s%s' (%s)", shown++ ? ", " : "", dz_torch_dict_way(&f->pickle, d, depth, way), depth ? "/" : "",
                    dz_pickle_key(&f->pickle, item->key, key), dz_pickle_describe(&f->pickle, item->value, what));
    }
    dz_buf_line(&line, err, " and %zu more values are not kept", n - shown);
    dz_buf_put(&line, "", 1, err);
    if (err->rc == DZ_OK) add_note(f, (const char *)line.data, err);
    dz_buf_free(&line);
    return err->rc;
}

/* Values with tensors come first, since there is a limit to notes. */
static dz_rc note_all_skipped(torch_file *f, const dz_torch_dict *d, dz_error *err) {
    size_t nplain = 0;
    for (int with = 1; with >= 0; with--) {
        for (size_t i = 0; i < f->pickle.nitems && err->rc == DZ_OK; i++) {
            const dz_pickle_item *item = &f->pickle.items[i];
            uint32_t depth = skipped_at(f, d, item);
            int plain = value_of(f, item->value)->tensors == 0;
            if (depth == UINT32_MAX) continue;
            if (with) nplain += (size_t)plain;
            if (plain != with && (!plain || nplain <= PLAIN_SHOWN)) note_skipped(f, d, depth, item, err);
        }
    }
    return nplain > PLAIN_SHOWN ? note_plain(f, d, nplain, err) : err->rc;
}

/* A name that a safetensors header can have. */
static dz_rc take_name(const torch_file *f, uint32_t key, dz_tensor *t, dz_error *err) {
    char text[DZ_PICKLE_TEXT];
    const dz_pickle_value *v = value_of(f, key);
    if (v->kind != DZ_PICKLE_STR)
        return dz_fail(err, DZ_EFAIL, "%s: data.pkl: a tensor's name is %s, not a string", f->path, dz_pickle_kind_name(v));
    const char *name = (const char *)f->bytes + v->u.at;
    json_t *json = json_stringn(name, v->count); /* NULL unless it is UTF-8 */
    int bad = !json || v->count == 0;
    json_decref(json);
    for (uint32_t i = 0; i < v->count && !bad; i++) bad = (unsigned char)name[i] < 0x20;
    if (bad || (v->count == strlen("__metadata__") && memcmp(name, "__metadata__", v->count) == 0))
        return dz_fail(err, DZ_EFAIL, "%s: data.pkl: '%s' cannot be the name of a tensor", f->path, dz_pickle_key(&f->pickle, key, text));
    t->name = dz_strndup(name, v->count, err);
    return err->rc;
}

static uint64_t size_of(const char *dtype) {
    uint64_t size = dtype ? dz_element_bits(dtype) / 8 : 1;
    return size ? size : 1; /* torch's float4_e2m1fn_x2: a byte has two */
}

static int is_packed(const char *dtype) { return dz_element_bits(dtype) < 8; }

/* The elements by `place`, which begins at element `first` of the storage of `held` bytes, are all inside it. `name` is the storage's. */
static dz_rc check_range(const torch_file *f, const dz_tensor *t, const dz_strided *place, uint64_t first, uint64_t held, const char *name,
                         dz_error *err) {
    char shape[DZ_SHAPE_TEXT], strides[DZ_SHAPE_TEXT] = "";
    uint64_t begin, end, span = dz_strided_span(place, t);
    if (t->nbytes == 0 || (span > 0 && !__builtin_mul_overflow(first, size_of(t->dtype_name), &begin) &&
                           !__builtin_add_overflow(begin, span, &end) && end <= held))
        return DZ_OK;
    if (!place->strided)
        return dz_fail(err, DZ_EFAIL,
                       "%s: tensor '%s': %" PRIu64 " elements from number %" PRIu64 " are outside the %" PRIu64 " bytes of data/%s",
                       f->path, t->name, t->nbytes / size_of(t->dtype_name), first, held, name);
    dz_tensor other = {.ndim = t->ndim};
    memcpy(other.shape, place->stride, sizeof other.shape);
    return dz_fail(err, DZ_EFAIL,
                   "%s: tensor '%s': shape %s with strides %s from number %" PRIu64 " leads outside the %" PRIu64 " bytes of data/%s",
                   f->path, t->name, dz_shape_text(t, shape), dz_shape_text(&other, strides), first, held, name);
}

/* Where the tensor's elements are in the file. */
static dz_rc find_place(torch_file *f, const dz_pickle_tensor *p, const dz_tensor *t, dz_strided *place, dz_error *err) {
    const dz_pickle_storage *s = &f->pickle.storages[p->storage];
    const dz_pickle_value *key = value_of(f, s->key);
    char text[DZ_PICKLE_TEXT];
    uint64_t held, entry_at;
    dz_pickle_text(f->bytes + key->u.at, key->count, text);
    char *name = dz_format(err, "%s/data/%.*s", f->prefix, (int)key->count, (const char *)f->bytes + key->u.at);
    if (!name) return err->rc;
    const dz_zip_entry *e = dz_zip_find(&f->zip, name);
    free(name);
    if (!e) return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': its bytes, data/%s, are missing", f->path, t->name, text);
    if (dz_zip_locate(&f->zip, e, &entry_at, err) != DZ_OK) return err->rc;
    if (__builtin_mul_overflow(s->count, size_of(s->dtype), &held) || held > e->size)
        return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': data/%s has %" PRIu64 " bytes, too few for %" PRIu64 " elements", f->path, t->name,
                       text, e->size, s->count);
    *place = dz_strided_of(t, entry_at, p->stride);
    if (check_range(f, t, place, p->first, held, text, err) != DZ_OK) return err->rc;
    if (t->nbytes > 0) place->offset += p->first * size_of(p->dtype);
    if (t->nbytes <= held) return DZ_OK;
    f->repeated = t->nbytes > UINT64_MAX - f->repeated ? UINT64_MAX : f->repeated + t->nbytes;
    if (f->repeated > DZ_TORCH_REPEATED)
        return dz_fail(err, DZ_EFAIL,
                       "%s: tensor '%s': expanded from %" PRIu64 " to %" PRIu64 " bytes: with others that is more than the %" PRIu64
                       " that are allowed",
                       f->path, t->name, held, t->nbytes, DZ_TORCH_REPEATED);
    return DZ_OK;
}

/* A byte of the file has two elements of the last dimension, as a safetensors header counts them. */
static dz_rc unpack_shape(const torch_file *f, dz_tensor *t, const dz_strided *place, dz_error *err) {
    uint64_t *last = t->ndim ? &t->shape[t->ndim - 1] : NULL;
    if (!last || place->strided)
        return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': %s: save its contiguous()", f->path, t->name,
                       last ? "float4 elements that do not follow each other" : "a float4 scalar");
    if (__builtin_mul_overflow(*last, 2, last)) return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': its shape overflows", f->path, t->name);
    return DZ_OK;
}

/* A tensor of the model that no safetensors file can hold. */
static dz_rc refuse_other(const torch_file *f, const dz_pickle_item *item, dz_error *err) {
    char key[DZ_PICKLE_TEXT], others[48] = "";
    const dz_global *g = dz_global_at(value_of(f, item->value)->global);
    size_t more = 0;
    for (const dz_pickle_item *i = item + 1; i < f->pickle.items + f->pickle.nitems; i++)
        more += i->dict == item->dict && value_of(f, i->value)->kind == DZ_PICKLE_OTHER_TENSOR;
    if (more) snprintf(others, sizeof others, " (and %zu more)", more);
    return dz_fail(err, DZ_EFAIL, "%s: tensor '%s' is %s%s, which no safetensors file can hold: save %s in its place", f->path,
                   dz_pickle_key(&f->pickle, item->key, key), g->what, others, g->todo);
}

static dz_rc take_tensor(torch_file *f, const dz_pickle_item *item, dz_tensor *t, dz_strided *place, dz_error *err) {
    const dz_pickle_tensor *p = &f->pickle.tensors[value_of(f, item->value)->u.at];
    if (take_name(f, item->key, t, err) != DZ_OK) return err->rc;
    t->dtype = dz_dtype_of(p->dtype);
    t->ndim = p->ndim;
    t->count = 1;
    snprintf(t->dtype_name, sizeof t->dtype_name, "%s", p->dtype);
    int zero = 0, over = 0;
    for (uint32_t d = 0; d < p->ndim; d++) {
        t->shape[d] = p->shape[d];
        zero |= p->shape[d] == 0;
        over |= __builtin_mul_overflow(t->count, p->shape[d], &t->count);
    }
    over |= __builtin_mul_overflow(t->count, size_of(p->dtype), &t->nbytes);
    if (over && !zero) {
        char shape[DZ_SHAPE_TEXT];
        return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': shape %s overflows", f->path, t->name, dz_shape_text(t, shape));
    }
    if (zero) t->count = t->nbytes = 0;
    if (t->dtype == DZ_OPAQUE) t->count = t->nbytes;
    if (find_place(f, p, t, place, err) != DZ_OK) return err->rc;
    return is_packed(p->dtype) ? unpack_shape(f, t, place, err) : DZ_OK;
}

static int by_name(const void *x, const void *y, void *arg) {
    const dz_tensor *t = arg;
    return strcmp(t[*(const uint32_t *)x].name, t[*(const uint32_t *)y].name);
}

typedef struct taken { /* the tensors of a file */
    dz_tensor *tensors;
    dz_strided *places;
    size_t n;
} taken;

static int by_place(const void *x, const void *y, void *arg) {
    const taken *k = arg;
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    int order = dz_compare_places(&k->places[a], &k->tensors[a], &k->places[b], &k->tensors[b]);
    return order != 0 ? order : a < b ? -1 : a > b;
}

/* The same elements in the same order. */
static int are_one(const taken *k, uint32_t a, uint32_t b) {
    const dz_strided *pa = &k->places[a], *pb = &k->places[b];
    const dz_tensor *ta = &k->tensors[a], *tb = &k->tensors[b];
    if (ta->nbytes == 0) return 0;
    if (!pa->strided && !pb->strided) return pa->offset == pb->offset && ta->nbytes == tb->nbytes;
    return dz_compare_places(pa, ta, pb, tb) == 0;
}

/* No name occurs twice. Tensors that share bytes in the file are noted, since each becomes a tensor of its own. */
static dz_rc check_twins(torch_file *f, taken *k, dz_error *err) {
    const dz_tensor *t = k->tensors;
    uint32_t *order = dz_alloc(k->n, sizeof *order, err);
    if (!order) return err->rc;
    for (size_t i = 0; i < k->n; i++) order[i] = (uint32_t)i;
    qsort_r(order, k->n, sizeof *order, by_name, k->tensors);
    for (size_t i = 1; i < k->n && err->rc == DZ_OK; i++) {
        if (strcmp(t[order[i - 1]].name, t[order[i]].name) == 0)
            dz_fail(err, DZ_EFAIL, "%s: data.pkl: tensor '%s' is there twice", f->path, t[order[i]].name);
    }
    qsort_r(order, k->n, sizeof *order, by_place, k);
    for (size_t i = 1; i < k->n && err->rc == DZ_OK; i++) {
        if (!are_one(k, order[i - 1], order[i])) continue;
        char *text = dz_format(err, "'%s' and '%s' are one tensor: two are restored", t[order[i - 1]].name, t[order[i]].name);
        if (text) add_note(f, text, err);
        free(text);
    }
    free(order);
    return err->rc;
}

static dz_rc take_all(torch_file *f, uint32_t dict, taken *k, dz_error *err) {
    for (size_t i = 0; i < f->pickle.nitems && err->rc == DZ_OK; i++) {
        const dz_pickle_item *item = &f->pickle.items[i];
        if (item->dict != dict || !dz_pickle_is_tensor(value_of(f, item->value))) continue;
        if (value_of(f, item->value)->kind == DZ_PICKLE_OTHER_TENSOR) return refuse_other(f, item, err);
        take_tensor(f, item, &k->tensors[k->n], &k->places[k->n], err);
        k->n++;
    }
    return err->rc;
}

static dz_rc end_notes(torch_file *f, dz_error *err) {
    char text[64];
    if (f->nnotes <= MOST_NOTES) return DZ_OK;
    snprintf(text, sizeof text, "and %zu more such values", f->nnotes - MOST_NOTES);
    f->nnotes = 0;
    return add_note(f, text, err);
}

dz_rc dz_torch_load(const char *path, dz_tensor **tensors, dz_strided **places, size_t *n, dz_buf *notes, dz_error *err) {
    torch_file f = {.path = path, .zip = {.fd = -1}, .notes = notes};
    dz_torch_dict d = {0};
    taken k = {0};
    if (open_file(&f, err) != DZ_OK || dz_torch_dict_find(path, &f.pickle, &d, err) != DZ_OK) goto out;
    k.tensors = dz_alloc(d.ntensors, sizeof *k.tensors, err);
    k.places = dz_alloc(d.ntensors, sizeof *k.places, err);
    if (err->rc != DZ_OK || take_all(&f, d.dicts[d.depth], &k, err) != DZ_OK || note_all_skipped(&f, &d, err) != DZ_OK ||
        check_twins(&f, &k, err) != DZ_OK || end_notes(&f, err) != DZ_OK)
        goto out;
    *tensors = k.tensors;
    *places = k.places;
    *n = k.n;
    k = (taken){0};
out:
    dz_tensors_free(k.tensors, k.n);
    free(k.places);
    close_file(&f);
    return err->rc;
}

typedef struct placed { /* a tensor and where it is in the file */
    dz_tensor tensor;
    dz_strided place;
} placed;

static int by_layout(const void *x, const void *y) {
    return dz_safetensors_order(&((const placed *)x)->tensor, &((const placed *)y)->tensor);
}

/* As the parser of headers has them: among tensors at one offset, of which all but the last are empty, by name. */
static int by_offset(const void *x, const void *y) {
    const dz_tensor *a = &((const placed *)x)->tensor, *b = &((const placed *)y)->tensor;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    if (a->nbytes != b->nbytes) return a->nbytes < b->nbytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Header and size of the file with these tensors, laid out as the safetensors library does. */
static dz_rc lay_out(dz_shard *shard, placed *list, dz_tensor *tensors, size_t n, dz_buf *header, dz_error *err) {
    for (size_t i = 0; i < n; i++) list[i] = (placed){tensors[i], shard->places[i]};
    if (n) qsort(list, n, sizeof *list, by_layout);
    for (size_t i = 0; i < n; i++) tensors[i] = list[i].tensor;
    if (dz_safetensors_header(tensors, n, (dz_like){0}, header, err) != DZ_OK) return err->rc;
    shard->size = header->len;
    for (size_t i = 0; i < n; i++) {
        list[i].tensor.offset = shard->size;
        if (__builtin_add_overflow(shard->size, tensors[i].nbytes, &shard->size) || shard->size > INT64_MAX)
            return dz_fail(err, DZ_EFAIL, "%s: its tensors are too large for a file", shard->path);
    }
    if (n) qsort(list, n, sizeof *list, by_offset);
    for (size_t i = 0; i < n; i++) shard->places[i] = list[i].place;
    return DZ_OK;
}

dz_rc dz_torch_shard(dz_shard *shard, dz_buf *notes, dz_error *err) {
    dz_tensor *tensors = NULL;
    size_t n = 0;
    dz_buf header = {0};
    if (dz_torch_load(shard->path, &tensors, &shard->places, &shard->nplaces, notes, err) != DZ_OK) return err->rc;
    n = shard->nplaces;
    placed *list = dz_alloc(n, sizeof *list, err);
    if (!list || lay_out(shard, list, tensors, n, &header, err) != DZ_OK) goto out;
    shard->header = (char *)header.data;
    shard->header_len = header.len;
    header = (dz_buf){0};
out:
    free(list);
    dz_buf_free(&header);
    dz_tensors_free(tensors, n);
    return err->rc;
}

char *dz_torch_restored_name(const char *file, dz_error *err) {
    static const char prefix[] = "pytorch_";
    static const char *const suffixes[] = {".bin", ".pt", ".pth", ".ckpt"};
    const char *name = file_name(file);
    int dir = (int)(name - file);
    if (strncmp(name, prefix, strlen(prefix)) == 0 && strlen(name) > strlen(prefix)) name += strlen(prefix);
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        if (len <= strlen(suffixes[i]) || !dz_ends_with(name, suffixes[i])) continue;
        len -= strlen(suffixes[i]);
        break;
    }
    return dz_format(err, "%.*s%.*s.safetensors", dir, file, (int)len, name);
}

char *dz_torch_restored_index(const char *index, dz_error *err) {
    static const char suffix[] = ".index.json";
    char *weights = dz_strndup(index, strlen(index) - (sizeof suffix - 1), err);
    char *restored = weights ? dz_torch_restored_name(weights, err) : NULL,
         *out = restored ? dz_format(err, "%s%s", restored, suffix) : NULL;
    free(weights);
    free(restored);
    return out;
}

dz_rc dz_torch_index(const dz_checkpoint *ck, size_t first, dz_buf *out, dz_error *err) {
    dz_tensor *tensors = NULL;
    size_t n = 0;
    const char **files = NULL;
    for (size_t i = first; i < ck->nshards && err->rc == DZ_OK; i++) {
        const dz_shard *s = &ck->shards[i];
        dz_safetensors_parse(s->path, s->header + 8, s->header_len - 8, s->size, (uint32_t)i, &tensors, &n, err);
    }
    if (err->rc == DZ_OK) files = dz_alloc(n, sizeof *files, err);
    for (size_t i = 0; files && i < n; i++) {
        const dz_shard *s = &ck->shards[tensors[i].shard];
        files[i] = s->file + s->prefix;
    }
    if (files) dz_safetensors_index(tensors, files, n, (dz_like){0}, out, err);
    free(files);
    dz_tensors_free(tensors, n);
    return err->rc;
}

#include "model/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "model/torchfile.h"

#define SUFFIX ".safetensors"
#define TORCH_SUFFIX ".bin"
#define INDEX_SUFFIX SUFFIX ".index.json"
#define TORCH_FILE "pytorch_model" TORCH_SUFFIX
#define TORCH_INDEX TORCH_FILE ".index.json"
#define RESTORED_FILE "model" SUFFIX /* what a PyTorch file and its index become */
#define RESTORED_INDEX "model" INDEX_SUFFIX

static void free_sides(dz_side_file *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(list[i].file);
        free(list[i].path);
        free(list[i].bytes);
    }
    free(list);
}

void dz_checkpoint_free(dz_checkpoint *ck) {
    if (!ck) return;
    for (size_t i = 0; i < ck->nshards; i++) {
        if (ck->shards[i].fd >= 0) close(ck->shards[i].fd);
        free(ck->shards[i].file);
        free(ck->shards[i].path);
        free(ck->shards[i].header);
        free(ck->shards[i].places);
    }
    free(ck->shards);
    dz_tensors_free(ck->tensors, ck->ntensors);
    free_sides(ck->sides, ck->nsides);
    free_sides(ck->others, ck->nothers);
    free(ck->by_name);
    free(ck->same);
    free(ck->strip.bytes);
    dz_buf_free(&ck->notes);
    free(ck->path);
    free(ck);
}

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The shard just added is a PyTorch file: it takes the name under which it is restored. */
static dz_rc add_torch_shard(dz_checkpoint *ck, dz_shard *s, dz_error *err) {
    char *restored = dz_torch_restored_name(s->file, err);
    if (!restored) return err->rc;
    free(s->file);
    s->file = restored;
    for (const dz_shard *other = ck->shards; other < s; other++) {
        if (strcmp(other->file, restored) == 0)
            return dz_fail(err, DZ_EFAIL, "%s and %s would both be restored as %s", other->path, s->path, restored);
    }
    return dz_torch_shard(s, &ck->notes, err);
}

/* Adds a shard and reads its header bytes. */
static dz_rc add_shard(dz_checkpoint *ck, const char *file, const char *path, dz_error *err) {
    dz_shard *grown = realloc(ck->shards, (ck->nshards + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "%s: out of memory", path);
    ck->shards = grown;
    dz_shard *s = &grown[ck->nshards++];
    *s = (dz_shard){.fd = -1};
    uint8_t raw[8];
    struct stat st;
    s->file = dz_strdup(file, err);
    s->path = dz_strdup(path, err);
    if (!s->file || !s->path) return err->rc;
    s->fd = dz_open(path, O_RDONLY | O_NONBLOCK); /* a FIFO must not hold us up: it is refused below */
    if (s->fd < 0 || fstat(s->fd, &st) != 0) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return dz_fail(err, DZ_EFAIL, "%s: not a regular file", path);
    s->size = (uint64_t)st.st_size;
    if (s->size < 8)
        return dz_fail(err, DZ_EFAIL, "%s: %llu bytes are too few for a .safetensors or PyTorch file", path, (unsigned long long)s->size);
    if (dz_pread_all(s->fd, path, raw, 8, 0, err) != DZ_OK) return err->rc;
    if (!ends_with(file, SUFFIX) && dz_torch_is_file(raw)) return add_torch_shard(ck, s, err);
    dz_view view = {.data = raw, .len = 8};
    uint64_t len = dz_view_u64(&view);
    if (len > DZ_HEADER_MAX || len > s->size - 8)
        return dz_fail(
            err, DZ_EFAIL,
            "%s: header of %llu bytes exceeds the file's %llu or the limit of %llu (truncated, or neither .safetensors nor a PyTorch zip)",
            path, (unsigned long long)len, (unsigned long long)s->size, (unsigned long long)DZ_HEADER_MAX);
    s->header_len = (size_t)len + 8;
    if (!(s->header = dz_alloc_raw(s->header_len, 1, err))) return err->rc;
    return dz_pread_all(s->fd, path, s->header, s->header_len, 0, err);
}

static dz_rc add_file(dz_side_file **list, size_t *n, const char *file, const char *path, uint64_t size, dz_error *err) {
    dz_side_file *grown = realloc(*list, (*n + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "%s: out of memory", path);
    *list = grown;
    grown[*n] = (dz_side_file){.file = dz_strdup(file, err), .path = dz_strdup(path, err), .size = size};
    (*n)++;
    return err->rc;
}

static int compare_tensor_names(const void *x, const void *y, void *arg) {
    const dz_tensor *t = arg;
    return strcmp(t[*(const uint32_t *)x].name, t[*(const uint32_t *)y].name);
}

int dz_same_kind(const dz_tensor *a, const dz_tensor *b) {
    return a->nbytes == b->nbytes && strcmp(a->dtype_name, b->dtype_name) == 0 && dz_same_shape(a, b);
}

typedef struct placed { /* a shard's tensors and their places */
    const dz_tensor *tensors;
    const dz_place *places;
} placed;

static int by_place(const void *x, const void *y, void *arg) {
    const placed *p = arg;
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    int order = dz_compare_places(&p->places[a], &p->tensors[a], &p->places[b], &p->tensors[b]);
    return order != 0 ? order : a < b ? -1 : a > b;
}

/* Tensors that are one in the file: tied weights of a PyTorch file. */
static dz_rc find_shared(dz_checkpoint *ck, const dz_shard *s, dz_error *err) {
    placed p = {.tensors = ck->tensors + s->first, .places = s->places};
    uint32_t *order = dz_alloc_raw(s->nplaces, sizeof *order, err);
    if (!order) return err->rc;
    for (uint32_t i = 0; i < s->nplaces; i++) order[i] = i;
    qsort_r(order, s->nplaces, sizeof *order, by_place, &p);
    for (size_t i = 1; i < s->nplaces; i++) {
        uint32_t a = order[i - 1], b = order[i];
        if (p.tensors[b].nbytes == 0 || dz_compare_places(&p.places[a], &p.tensors[a], &p.places[b], &p.tensors[b]) != 0) continue;
        if (dz_same_kind(&p.tensors[a], &p.tensors[b])) ck->same[s->first + b] = ck->same[s->first + a];
    }
    free(order);
    return DZ_OK;
}

static dz_rc find_all_shared(dz_checkpoint *ck, dz_error *err) {
    if (!(ck->same = dz_alloc_raw(ck->ntensors, sizeof *ck->same, err))) return err->rc;
    for (uint32_t i = 0; i < ck->ntensors; i++) ck->same[i] = i;
    for (size_t i = 0; i < ck->nshards && err->rc == DZ_OK; i++) {
        if (ck->shards[i].places) find_shared(ck, &ck->shards[i], err);
    }
    return err->rc;
}

/* Each tensor of the header has a place, whose last byte has a number. */
static dz_rc check_places(const dz_checkpoint *ck, dz_shard *s, dz_error *err) {
    const dz_tensor *t = ck->tensors + s->first;
    if (s->nplaces != ck->ntensors - s->first)
        return dz_fail(err, DZ_EFAIL, "%s: %zu places for %zu tensors", s->path, s->nplaces, ck->ntensors - s->first);
    for (size_t i = 0; i < s->nplaces; i++) {
        dz_place *p = &s->places[i];
        if (p->strided) *p = dz_place_of(&t[i], p->offset, p->stride);
        uint64_t span = dz_place_span(p, &t[i]);
        if ((span == 0 && t[i].nbytes > 0) || p->offset > INT64_MAX || span > INT64_MAX - p->offset)
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': its place overflows", s->path, t[i].name);
    }
    return DZ_OK;
}

dz_rc dz_checkpoint_parse(dz_checkpoint *ck, dz_error *err) {
    for (size_t i = 0; i < ck->nshards; i++) {
        dz_shard *s = &ck->shards[i];
        s->first = ck->ntensors;
        if (s->header_len < 8) return dz_fail(err, DZ_EFAIL, "%s: no header", s->path);
        if (dz_safetensors_parse(s->path, s->header + 8, s->header_len - 8, s->size, (uint32_t)i, &ck->tensors, &ck->ntensors, err) !=
            DZ_OK)
            return err->rc;
        if (s->places && check_places(ck, s, err) != DZ_OK) return err->rc;
    }
    if (!(ck->by_name = dz_alloc(ck->ntensors, sizeof *ck->by_name, err))) return err->rc;
    for (size_t i = 0; i < ck->ntensors; i++) ck->by_name[i] = (uint32_t)i;
    qsort_r(ck->by_name, ck->ntensors, sizeof *ck->by_name, compare_tensor_names, ck->tensors);
    for (size_t i = 1; i < ck->ntensors; i++) {
        const dz_tensor *a = &ck->tensors[ck->by_name[i - 1]], *b = &ck->tensors[ck->by_name[i]];
        if (strcmp(a->name, b->name) == 0)
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s' is in both %s and %s", ck->path, a->name, ck->shards[a->shard].file,
                           ck->shards[b->shard].file);
    }
    return find_all_shared(ck, err);
}

static int compare_text(const void *x, const void *y) { return strcmp(*(char *const *)x, *(char *const *)y); }

/* Distinct shard names of an index's weight_map, sorted. */
static dz_rc index_shards(const char *path, const json_t *map, const char *suffix, char ***out, size_t *n, dz_error *err) {
    const char *tensor;
    json_t *value;
    char **list = dz_alloc(json_object_size(map), sizeof *list, err);
    if (!list) return err->rc;
    *out = list;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
        const char *file = json_string_value(value);
        if (!file || !dz_path_is_inside(file) || !ends_with(file, suffix))
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s' is mapped to '%s', which is not a %s file of this directory", path, tensor,
                           file ? file : "(no text)", suffix);
        if (!(list[*n] = dz_strdup(file, err))) return err->rc;
        (*n)++;
    }
    qsort(list, *n, sizeof *list, compare_text);
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++) {
        if (kept && strcmp(list[kept - 1], list[i]) == 0)
            free(list[i]);
        else
            list[kept++] = list[i];
    }
    *n = kept;
    return DZ_OK;
}

/* The name by which an index knows the tensor's shard. */
static const char *indexed_name(const dz_checkpoint *ck, const dz_tensor *t) { return ck->shards[t->shard].path + strlen(ck->path) + 1; }

/* Every tensor of the index stands in the shard it names, and every tensor of a shard in the index. */
static dz_rc check_index(const dz_checkpoint *ck, const char *path, const json_t *map, dz_error *err) {
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
        int64_t at = dz_checkpoint_find(ck, tensor);
        const char *file = json_string_value(value);
        if (at < 0) return dz_fail(err, DZ_EFAIL, "%s: tensor '%s' is not in %s", path, tensor, file);
        const char *found = indexed_name(ck, &ck->tensors[at]);
        if (strcmp(found, file) != 0) return dz_fail(err, DZ_EFAIL, "%s: tensor '%s' is in %s, not in %s", path, tensor, found, file);
    }
    for (size_t i = 0; i < ck->ntensors; i++) {
        if (!json_object_get(map, ck->tensors[i].name))
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s' of %s is missing from the index", path, ck->tensors[i].name,
                           indexed_name(ck, &ck->tensors[i]));
    }
    return DZ_OK;
}

/* `suffix`: of the shards. */
static dz_rc load_indexed(dz_checkpoint *ck, const char *index_file, const char *suffix, dz_error *err) {
    char *path = dz_format(err, "%s/%s", ck->path, index_file), *text = NULL, **files = NULL;
    size_t len = 0, nfiles = 0;
    json_t *root = NULL;
    json_error_t jerr;
    if (!path || dz_read_file(path, DZ_HEADER_MAX, &text, &len, err) != DZ_OK) goto out;
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &jerr);
    const json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        dz_fail(err, DZ_EFAIL, "%s: not an index with a weight_map: %s", path, root ? "no such key" : jerr.text);
        goto out;
    }
    if (index_shards(path, map, suffix, &files, &nfiles, err) != DZ_OK) goto out;
    for (size_t i = 0; i < nfiles; i++) {
        char *shard = dz_format(err, "%s/%s", ck->path, files[i]);
        if (shard && access(shard, F_OK) != 0) dz_fail(err, DZ_EFAIL, "%s: shard %s is missing", path, files[i]);
        if (shard && err->rc == DZ_OK) add_shard(ck, files[i], shard, err);
        free(shard);
        if (err->rc != DZ_OK) goto out;
    }
    if (dz_checkpoint_parse(ck, err) != DZ_OK) goto out;
    check_index(ck, path, map, err);
out:
    for (size_t i = 0; i < nfiles; i++) free(files[i]);
    free(files);
    json_decref(root);
    free(text);
    free(path);
    return err->rc;
}

static int is_side_file(const char *name, uint64_t size) {
    static const char *const weights[] = {".bin",  ".pt",   ".pth",         ".ckpt", ".h5", ".msgpack",
                                          ".onnx", ".gguf", ".safetensors", ".npz",  ".ot"};
    if (size > DZ_SIDE_MAX) return 0;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        if (ends_with(name, weights[i])) return 0;
    }
    return 1;
}

/* Sorts a directory's entries into shards named by no index, side files, and what is left out. */
static dz_rc scan_directory(dz_checkpoint *ck, char ***names, size_t *n, char **index_file, dz_error *err) {
    DIR *dir = opendir(ck->path);
    if (!dir) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", ck->path, strerror(errno));
    size_t cap = 0;
    for (struct dirent *entry; err->rc == DZ_OK && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (dz_grow((void **)names, &cap, *n + 1, sizeof **names, err) != DZ_OK) break;
        if ((((*names)[*n] = dz_strdup(entry->d_name, err)))) (*n)++;
    }
    closedir(dir);
    if (err->rc != DZ_OK) return err->rc;
    if (*n) qsort(*names, *n, sizeof **names, compare_text);
    for (size_t i = 0; i < *n && err->rc == DZ_OK; i++) {
        const char *name = (*names)[i];
        char *path = dz_format(err, "%s/%s", ck->path, name);
        struct stat st;
        if (!path) break;
        if (stat(path, &st) != 0) {
            dz_fail(err, DZ_EFAIL, "%s: cannot look at it: %s", path, strerror(errno));
        } else if (ends_with(name, INDEX_SUFFIX) && S_ISREG(st.st_mode) && !*index_file) {
            *index_file = dz_strdup(name, err);
        }
        if (err->rc == DZ_OK && S_ISREG(st.st_mode) && is_side_file(name, (uint64_t)st.st_size))
            add_file(&ck->sides, &ck->nsides, name, path, (uint64_t)st.st_size, err);
        else if (err->rc == DZ_OK && !(S_ISREG(st.st_mode) && ends_with(name, ".safetensors")))
            add_file(&ck->others, &ck->nothers, name, path, S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0, err);
        free(path);
    }
    return err->rc;
}

static void forget(dz_side_file *list, size_t *n, const char *path) {
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++) {
        if (strcmp(list[i].path, path) == 0) {
            free(list[i].file);
            free(list[i].path);
        } else {
            list[kept++] = list[i];
        }
    }
    *n = kept;
}

/* The PyTorch index among the side files becomes the index of the shards' new names. */
static dz_rc replace_index(dz_checkpoint *ck, dz_error *err) {
    dz_buf text = {0};
    for (size_t i = 0; i < ck->nsides; i++) {
        dz_side_file *side = &ck->sides[i];
        if (strcmp(side->file, TORCH_INDEX) != 0) continue;
        if (dz_torch_index(ck, &text, err) != DZ_OK) break;
        free(side->file);
        side->file = dz_strdup(RESTORED_INDEX, err);
        side->size = text.len;
        side->bytes = (char *)text.data;
        text = (dz_buf){0};
    }
    dz_buf_free(&text);
    return err->rc;
}

/* A directory without safetensors files: pytorch_model.bin, or the shards of its index. */
static dz_rc load_torch_directory(dz_checkpoint *ck, dz_error *err) {
    char *index = dz_format(err, "%s/" TORCH_INDEX, ck->path), *file = dz_format(err, "%s/" TORCH_FILE, ck->path);
    if (err->rc != DZ_OK) goto out;
    if (access(index, F_OK) == 0) {
        if (load_indexed(ck, TORCH_INDEX, TORCH_SUFFIX, err) == DZ_OK) replace_index(ck, err);
    } else if (access(file, F_OK) == 0) {
        if (add_shard(ck, TORCH_FILE, file, err) == DZ_OK) dz_checkpoint_parse(ck, err);
    } else {
        dz_fail(err, DZ_EFAIL, "%s: no " SUFFIX " file and no " TORCH_FILE " in this directory", ck->path);
    }
    for (size_t i = 0; i < ck->nshards; i++) forget(ck->others, &ck->nothers, ck->shards[i].path);
out:
    free(index);
    free(file);
    return err->rc;
}

static dz_rc load_directory(dz_checkpoint *ck, dz_error *err) {
    char **names = NULL, *index_file = NULL;
    size_t n = 0;
    if (scan_directory(ck, &names, &n, &index_file, err) != DZ_OK) goto out;
    if (index_file) {
        load_indexed(ck, index_file, SUFFIX, err);
        for (size_t i = 0; i < n && err->rc == DZ_OK; i++) { /* a stray .safetensors file beside the indexed ones is named, not taken */
            int known = !ends_with(names[i], ".safetensors");
            for (size_t s = 0; s < ck->nshards && !known; s++) known = strcmp(ck->shards[s].file, names[i]) == 0;
            if (!known) add_file(&ck->others, &ck->nothers, names[i], names[i], 0, err);
        }
        goto out;
    }
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) {
        if (!ends_with(names[i], ".safetensors")) continue;
        char *path = dz_format(err, "%s/%s", ck->path, names[i]);
        if (path) add_shard(ck, names[i], path, err);
        free(path);
    }
    if (err->rc == DZ_OK && ck->nshards == 0)
        load_torch_directory(ck, err);
    else if (err->rc == DZ_OK)
        dz_checkpoint_parse(ck, err);
out:
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
    free(index_file);
    return err->rc;
}

dz_rc dz_checkpoint_load(const char *path, dz_checkpoint **out, dz_error *err) {
    dz_checkpoint *ck = dz_alloc(1, sizeof *ck, err);
    struct stat st;
    if (!ck || !(ck->path = dz_strdup(path, err))) goto out;
    if (stat(path, &st) != 0) {
        dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        load_directory(ck, err);
    } else {
        const char *slash = strrchr(path, '/');
        if (add_shard(ck, slash ? slash + 1 : path, path, err) == DZ_OK) dz_checkpoint_parse(ck, err);
        if (err->rc == DZ_OK && ck->shards[0].places) { /* any name: it is the whole model */
            free(ck->shards[0].file);
            ck->shards[0].file = dz_strdup(RESTORED_FILE, err);
        }
    }
    if (err->rc != DZ_OK) goto out;
    if (ck->ntensors == 0) {
        dz_fail(err, DZ_EFAIL, "%s: holds no tensor", path);
        goto out;
    }
    *out = ck;
    ck = NULL;
out:
    dz_checkpoint_free(ck);
    return err->rc;
}

int64_t dz_checkpoint_find(const dz_checkpoint *ck, const char *name) {
    size_t low = 0, high = ck->ntensors;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(name, ck->tensors[ck->by_name[mid]].name);
        if (order == 0) return ck->by_name[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return -1;
}

static int open_shard(dz_checkpoint *ck, dz_shard *s) {
    s->fd = dz_open(s->path, O_RDONLY);
    if (s->fd < 0 && errno == EMFILE) { /* a zoo of many shards: let go of the others and try again */
        for (size_t i = 0; i < ck->nshards; i++) {
            if (ck->shards[i].fd >= 0) close(ck->shards[i].fd);
            ck->shards[i].fd = -1;
        }
        s->fd = dz_open(s->path, O_RDONLY);
    }
    return s->fd;
}

static dz_rc read_strided(dz_checkpoint *ck, const dz_shard *s, size_t tensor, uint64_t first, size_t len, void *dst, dz_error *err) {
    const dz_tensor *t = &ck->tensors[tensor];
    const dz_place *p = &s->places[tensor - s->first];
    dz_strip *strip = &ck->strip;
    uint64_t ahead = t->nbytes - first < DZ_STRIP ? t->nbytes - first : DZ_STRIP;
    int known = strip->tensor == tensor, goes_on = known && first > 0 && first == strip->next;
    strip->tensor = tensor;
    strip->next = first + len;
    if (!known || first < strip->first || first + len > strip->first + strip->len) {
        strip->len = 0;
        if (!goes_on || len >= ahead) return dz_place_read(p, t, s->fd, s->path, first, len, dst, err);
        if (!strip->bytes && !(strip->bytes = dz_alloc_raw(DZ_STRIP, 1, err))) return err->rc;
        if (dz_place_read(p, t, s->fd, s->path, first, (size_t)ahead, strip->bytes, err) != DZ_OK) return err->rc;
        strip->first = first;
        strip->len = ahead;
    }
    memcpy(dst, strip->bytes + (first - strip->first), len);
    return DZ_OK;
}

dz_rc dz_checkpoint_read(dz_checkpoint *ck, size_t tensor, uint64_t first, size_t len, void *dst, dz_error *err) {
    const dz_tensor *t = &ck->tensors[tensor];
    dz_shard *s = &ck->shards[t->shard];
    if (first > t->nbytes || len > t->nbytes - first)
        return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': bytes %llu to %llu are outside its %llu", s->path, t->name,
                       (unsigned long long)first, (unsigned long long)(first + len), (unsigned long long)t->nbytes);
    if (s->fd < 0 && open_shard(ck, s) < 0) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", s->path, strerror(errno));
    if (!s->places) return dz_pread_all(s->fd, s->path, dst, len, t->offset + first, err);
    if (s->places[tensor - s->first].strided) return read_strided(ck, s, tensor, first, len, dst, err);
    return dz_place_read(&s->places[tensor - s->first], t, s->fd, s->path, first, len, dst, err);
}

uint64_t dz_checkpoint_nbytes(const dz_checkpoint *ck) {
    uint64_t sum = 0;
    for (size_t i = 0; i < ck->ntensors; i++) sum += ck->tensors[i].nbytes;
    return sum;
}

uint64_t dz_checkpoint_memory(const dz_checkpoint *ck) {
    for (size_t i = 0; i < ck->nshards; i++) {
        for (size_t k = 0; k < ck->shards[i].nplaces; k++) {
            if (ck->shards[i].places[k].strided) return DZ_STRIP;
        }
    }
    return 0;
}

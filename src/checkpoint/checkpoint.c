#include "checkpoint/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "checkpoint/hf_directory.h"
#include "checkpoint/hub_cache.h"
#include "checkpoint/mark.h"
#include "checkpoint/torch/torchfile.h"

#define SUFFIX ".safetensors"
#define SLICES "DCP_SHARDING_INFO"   /* metadata of torch.distributed's HuggingFaceStorageWriter */
#define RESTORED_FILE "model" SUFFIX /* what a PyTorch file of any name becomes */

void dz_side_files_free(dz_companion_file *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(list[i].file);
        free(list[i].path);
        free(list[i].bytes);
        free(list[i].why);
    }
    free(list);
}

void dz_shard_free(dz_shard *s) {
    if (s->fd >= 0) close(s->fd);
    free(s->file);
    free(s->path);
    free(s->header);
    free(s->places);
}

void dz_checkpoint_free(dz_checkpoint *ck) {
    if (!ck) return;
    for (size_t i = 0; i < ck->nshards; i++) dz_shard_free(&ck->shards[i]);
    free(ck->shards);
    dz_tensors_free(ck->tensors, ck->ntensors);
    dz_side_files_free(ck->companions, ck->ncompanions);
    dz_side_files_free(ck->skipped_files, ck->nskipped_files);
    for (size_t i = 0; i < ck->nfused; i++) free(ck->fused[i].whole.name);
    free(ck->fused);
    free(ck->by_name);
    free(ck->same);
    free(ck->read_ahead.bytes);
    dz_buf_free(&ck->notes);
    free(ck->lossy);
    dz_buf_free(&ck->warnings);
    free(ck->path);
    free(ck);
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

/* Some other kind of file under a safetensors name; NULL: not one that is known. */
static const char *known_kind(const uint8_t head[8]) {
    if (memcmp(head, "version ", 8) == 0) return "a git-lfs pointer, not the file: fetch it with 'git lfs pull'";
    if (dz_torch_is_file(head)) return "a PyTorch file: its name should end in .bin or .pt";
    if (memcmp(head, "GGUF", 4) == 0) return "a GGUF file, which is not read";
    return NULL;
}

static dz_rc read_header(dz_checkpoint *ck, dz_shard *s, dz_error *err) {
    uint8_t raw[8];
    struct stat st;
    if (fstat(s->fd, &st) != 0 || !S_ISREG(st.st_mode)) return dz_fail(err, DZ_EFAIL, "%s: not a regular file", s->path);
    s->size = (uint64_t)st.st_size;
    if (s->size < 8)
        return dz_fail(err, DZ_EFAIL, "%s: %llu bytes are too few for a .safetensors or PyTorch file", s->path,
                       (unsigned long long)s->size);
    if (dz_pread_all(s->fd, s->path, raw, 8, 0, err) != DZ_OK) return err->rc;
    if (!dz_ends_with(s->file, SUFFIX) && dz_torch_is_file(raw)) return add_torch_shard(ck, s, err);
    dz_view view = {.data = raw, .len = 8};
    uint64_t len = dz_view_u64(&view);
    if (len > DZ_HEADER_MAX || len > s->size - 8) {
        if (known_kind(raw)) return dz_fail(err, DZ_EFAIL, "%s: is %s", s->path, known_kind(raw));
        return dz_fail(
            err, DZ_EFAIL,
            "%s: header of %llu bytes exceeds the file's %llu or the limit of %llu (truncated, or neither .safetensors nor a PyTorch zip)",
            s->path, (unsigned long long)len, (unsigned long long)s->size, (unsigned long long)DZ_HEADER_MAX);
    }
    s->header_len = (size_t)len + 8;
    if (!(s->header = dz_alloc_raw(s->header_len, 1, err)) || dz_pread_all(s->fd, s->path, s->header, s->header_len, 0, err) != DZ_OK)
        return err->rc;
    if (memmem(s->header, s->header_len, SLICES, sizeof SLICES - 1))
        return dz_fail(err, DZ_EFAIL,
                       "%s: holds one rank's slices of tensors (" SLICES "): join them with consolidate_safetensors_files of "
                       "torch.distributed.checkpoint._consolidate_hf_safetensors",
                       s->path);
    return DZ_OK;
}

/* The file is not kept open: a zoo may have more of them than a process may open. */
dz_rc dz_checkpoint_add_shard(dz_checkpoint *ck, const char *file, const char *path, dz_error *err) {
    dz_shard *grown = realloc(ck->shards, (ck->nshards + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "%s: out of memory", path);
    ck->shards = grown;
    dz_shard *s = &grown[ck->nshards++];
    *s = (dz_shard){.fd = -1};
    s->file = dz_strdup(file, err);
    s->path = dz_strdup(path, err);
    if (!s->file || !s->path) return err->rc;
    s->fd = dz_open(path, O_RDONLY | O_NONBLOCK); /* a FIFO must not hold us up: it is refused below */
    if (s->fd < 0) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    read_header(ck, s, err);
    close(s->fd);
    s->fd = -1;
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
    const dz_strided *places;
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
        dz_strided *p = &s->places[i];
        if (p->strided) *p = dz_strided_of(&t[i], p->offset, p->stride);
        uint64_t span = dz_strided_span(p, &t[i]);
        if ((span == 0 && t[i].nbytes > 0) || p->offset > INT64_MAX || span > INT64_MAX - p->offset)
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s': its place overflows", s->path, t[i].name);
    }
    return DZ_OK;
}

/* The tensors of a pipeline's part are known by its folder too. */
static dz_rc add_prefix(dz_checkpoint *ck, const dz_shard *s, dz_error *err) {
    for (size_t i = s->first; i < ck->ntensors && s->prefix && err->rc == DZ_OK; i++) {
        char *name = dz_format(err, "%.*s%s", (int)s->prefix, s->file, ck->tensors[i].name);
        if (!name) break;
        free(ck->tensors[i].name);
        ck->tensors[i].name = name;
        if (!dz_tensor_name_ok(name)) dz_fail(err, DZ_EFAIL, "%s: tensor '%.200s': its name with its folder is too long", s->path, name);
    }
    return err->rc;
}

/* ZeRO-3 keeps each parameter in pieces, and saves an empty tensor in its place unless it is asked to gather them. */
static dz_rc note_empty(dz_checkpoint *ck, dz_error *err) {
    static const char how[] = "saved without gathering (DeepSpeed's stage3_gather_16bit_weights_on_model_save, or its zero_to_fp32.py)";
    size_t n = 0, with = 0;
    for (size_t i = 0; i < ck->ntensors; i++) {
        n += ck->tensors[i].ndim == 1 && ck->tensors[i].shape[0] == 0;
        with += ck->tensors[i].nbytes > 0;
    }
    if (n > 0 && with == 0) return dz_fail(err, DZ_EFAIL, "%s: all its %zu tensors are empty: %s", ck->path, ck->ntensors, how);
    if (n > 0 && 2 * n >= ck->ntensors) dz_buf_note(&ck->warnings, err, "%zu of its %zu tensors are empty: %s?", n, ck->ntensors, how);
    return err->rc;
}

dz_rc dz_checkpoint_parse_again(dz_checkpoint *ck, dz_error *err) {
    dz_tensors_free(ck->tensors, ck->ntensors);
    free(ck->by_name);
    free(ck->same);
    ck->tensors = NULL;
    ck->ntensors = 0;
    ck->by_name = ck->same = NULL;
    ck->warnings.len = 0;
    return dz_checkpoint_parse(ck, err);
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
        if (add_prefix(ck, s, err) != DZ_OK) return err->rc;
    }
    return dz_checkpoint_index(ck, err) == DZ_OK ? note_empty(ck, err) : err->rc;
}

dz_rc dz_checkpoint_index(dz_checkpoint *ck, dz_error *err) {
    free(ck->by_name);
    free(ck->same);
    ck->same = NULL;
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

#define LOOKED_AT 64 /* tensors, and bytes of each in its middle */
int dz_checkpoint_looks_same(dz_checkpoint *a, dz_checkpoint *b) {
    size_t step = a->ntensors / LOOKED_AT + 1;
    if (a->ntensors != b->ntensors) return 0;
    for (size_t i = 0; i < a->ntensors; i++) {
        dz_error none = {0};
        uint8_t x[LOOKED_AT], y[LOOKED_AT];
        size_t ta = a->by_name[i], tb = b->by_name[i];
        const dz_tensor *t = &a->tensors[ta];
        size_t len = t->nbytes < LOOKED_AT ? (size_t)t->nbytes : LOOKED_AT;
        if (strcmp(t->name, b->tensors[tb].name) != 0 || !dz_same_kind(t, &b->tensors[tb])) return 0;
        if (i % step != 0) continue;
        uint64_t at = (t->nbytes - len) / 2;
        if (dz_checkpoint_read(a, ta, at, len, x, &none) != DZ_OK || dz_checkpoint_read(b, tb, at, len, y, &none) != DZ_OK ||
            memcmp(x, y, len) != 0)
            return 0;
    }
    return 1;
}

/* deltazoo.json counts where it lists a file of the model: one that was left in the folder of a later model does not. */
static dz_rc find_mark(dz_checkpoint *ck, int is_folder, dz_error *err) {
    dz_folder_mark mark = {0};
    if (is_folder) mark = dz_folder_mark_load(ck->path);
    for (size_t i = 0; i < ck->nshards && !ck->lossy && err->rc == DZ_OK; i++) {
        const dz_shard *s = &ck->shards[i];
        if (s->places) continue;
        ck->lossy = dz_mark_of_header(s->header, s->header_len, err);
        if (!ck->lossy && dz_folder_mark_lists(&mark, s->file, s->size)) ck->lossy = dz_folder_mark_line(&mark, err);
    }
    dz_folder_mark_free(&mark);
    return err->rc;
}

dz_rc dz_checkpoint_load(const char *path, dz_checkpoint **out, dz_error *err) {
    dz_checkpoint *ck = dz_alloc(1, sizeof *ck, err);
    struct stat st;
    if (!ck || !(ck->path = dz_hub_snapshot(path, err))) goto out;
    path = ck->path;
    if (stat(path, &st) != 0) {
        dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        dz_directory_load(ck, err);
    } else {
        const char *slash = strrchr(path, '/');
        if (dz_checkpoint_add_shard(ck, slash ? slash + 1 : path, path, err) == DZ_OK) dz_checkpoint_parse(ck, err);
        if (err->rc == DZ_OK && ck->shards[0].places) { /* any name: it is the whole model */
            free(ck->shards[0].file);
            ck->shards[0].file = dz_strdup(RESTORED_FILE, err);
        }
    }
    if (err->rc != DZ_OK || find_mark(ck, S_ISDIR(st.st_mode), err) != DZ_OK) goto out;
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
    const dz_strided *p = &s->places[tensor - s->first];
    dz_read_ahead *strip = &ck->read_ahead;
    uint64_t ahead = t->nbytes - first < DZ_READ_AHEAD ? t->nbytes - first : DZ_READ_AHEAD;
    int known = strip->tensor == tensor, goes_on = known && first > 0 && first == strip->next;
    strip->tensor = tensor;
    strip->next = first + len;
    if (!known || first < strip->first || first + len > strip->first + strip->len) {
        strip->len = 0;
        if (!goes_on || len >= ahead) return dz_strided_read(p, t, s->fd, s->path, first, len, dst, err);
        if (!strip->bytes && !(strip->bytes = dz_alloc_raw(DZ_READ_AHEAD, 1, err))) return err->rc;
        if (dz_strided_read(p, t, s->fd, s->path, first, (size_t)ahead, strip->bytes, err) != DZ_OK) return err->rc;
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
    return dz_strided_read(&s->places[tensor - s->first], t, s->fd, s->path, first, len, dst, err);
}

uint64_t dz_checkpoint_nbytes(const dz_checkpoint *ck) {
    uint64_t sum = 0;
    for (size_t i = 0; i < ck->ntensors; i++) sum += ck->tensors[i].nbytes;
    return sum;
}

uint64_t dz_checkpoint_memory(const dz_checkpoint *ck) {
    for (size_t i = 0; i < ck->nshards; i++) {
        for (size_t k = 0; k < ck->shards[i].nplaces; k++) {
            if (ck->shards[i].places[k].strided) return DZ_READ_AHEAD;
        }
    }
    return 0;
}

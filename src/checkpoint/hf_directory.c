#include "checkpoint/hf_directory.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/listing.h"
#include "checkpoint/torch/torchfile.h"

#define SUFFIX ".safetensors"
#define TORCH_SUFFIX ".bin"
#define INDEX_SUFFIX SUFFIX ".index.json"
#define TORCH_FILE "pytorch_model" TORCH_SUFFIX
#define TORCH_INDEX TORCH_FILE ".index.json"
#define RESTORED_FILE "model" SUFFIX /* what a PyTorch file and its index become */
#define RESTORED_INDEX "model" INDEX_SUFFIX

static dz_rc add_file(dz_companion_file **list, size_t *n, const char *file, const char *path, uint64_t size, dz_error *err) {
    dz_companion_file *grown = realloc(*list, (*n + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "%s: out of memory", path);
    *list = grown;
    grown[*n] = (dz_companion_file){.file = dz_strdup(file, err), .path = dz_strdup(path, err), .size = size};
    (*n)++;
    return err->rc;
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
        if (!file || !dz_path_is_inside(file) || !dz_ends_with(file, suffix))
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

/* The name by which an index knows the shard. */
static const char *indexed_name(const dz_shard *shard, const dz_checkpoint *ck) { return shard->path + strlen(ck->path) + 1; }

/* Every tensor of the index is in the shard it names, and every tensor of a shard is in the index. */
static dz_rc check_index(const dz_checkpoint *ck, const char *path, const json_t *map, dz_error *err) {
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
        int64_t at = dz_checkpoint_find(ck, tensor);
        const char *file = json_string_value(value);
        if (at < 0) return dz_fail(err, DZ_EFAIL, "%s: tensor '%s' is not in %s", path, tensor, file);
        const char *found = indexed_name(&ck->shards[ck->tensors[at].shard], ck);
        if (strcmp(found, file) != 0) return dz_fail(err, DZ_EFAIL, "%s: tensor '%s' is in %s, not in %s", path, tensor, found, file);
    }
    for (size_t i = 0; i < ck->ntensors; i++) {
        if (!json_object_get(map, ck->tensors[i].name))
            return dz_fail(err, DZ_EFAIL, "%s: tensor '%s' of %s is missing from the index", path, ck->tensors[i].name,
                           indexed_name(&ck->shards[ck->tensors[i].shard], ck));
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
        if (shard && err->rc == DZ_OK) dz_checkpoint_add_shard(ck, files[i], shard, err);
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

int dz_is_adapter(const char *file) {
    static const char *const begins[] = {"adapter_model", "adapters.", "pytorch_lora_weights"};
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
        if (strncmp(file, begins[i], strlen(begins[i])) == 0) return 1;
    }
    return 0;
}

int dz_is_weights(const char *file) {
    static const char *const ends[] = {".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", SUFFIX, ".npz", ".ot"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (dz_ends_with(file, ends[i])) return 1;
    }
    return 0;
}

static dz_rc list_names(const char *path, dz_listing *list, dz_error *err) {
    int failed = dz_listing_read(path, list, err);
    return failed ? dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(failed)) : err->rc;
}

static int by_entry_name(const void *name, const void *entry) { return strcmp(name, ((const dz_entry *)entry)->name); }

static int is_listed(const dz_listing *list, const char *name) {
    return list->n && bsearch(name, list->entries, list->n, sizeof *list->entries, by_entry_name);
}

static const dz_shard *shard_at(const dz_checkpoint *ck, const char *path) {
    for (size_t i = 0; i < ck->nshards; i++) {
        if (strcmp(ck->shards[i].path, path) == 0) return &ck->shards[i];
    }
    return NULL;
}

/* A link to this file is a shard: it lies among the blobs of a hub's cache. */
static int is_behind_shard(const dz_checkpoint *ck, const char *path) {
    size_t i = 0;
    while (i < ck->nshards && !dz_same_file(ck->shards[i].path, path)) i++;
    return i < ck->nshards;
}

/* ---- which files are the model ---- */

/* STEM-00002-of-00003SUFFIX: the length of STEM, and 3; 0 for other names. */
static size_t numbered(const char *name, const char *suffix, unsigned long *of) {
    static const char middle[] = "-of-", digits[] = "0123456789";
    size_t len = strlen(name), tail = strlen(suffix);
    size_t most = strlen("-00002-of-00003");
    if (!dz_ends_with(name, suffix) || len <= tail + most) return 0;
    const char *at = name + len - tail - most, *total = at + 6 + strlen(middle);
    if (at[0] != '-' || strspn(at + 1, digits) != 5 || strncmp(at + 6, middle, strlen(middle)) != 0 || strspn(total, digits) != 5) return 0;
    *of = strtoul(total, NULL, 10);
    return (size_t)(at - name);
}

/* Without an index, no shard of a model may be missing. */
static dz_rc check_numbered(const dz_checkpoint *ck, const char *suffix, const dz_listing *list, dz_error *err) {
    for (size_t i = 0; i < ck->nshards; i++) {
        const char *name = indexed_name(&ck->shards[i], ck);
        unsigned long of;
        size_t stem = numbered(name, suffix, &of);
        for (unsigned long k = 1; stem && k <= of; k++) {
            char *want = dz_format(err, "%.*s-%05lu-of-%05lu%s", (int)stem, name, k, of, suffix);
            if (want && !is_listed(list, want)) dz_fail(err, DZ_EFAIL, "%s: shard %s is missing", ck->path, want);
            free(want);
            if (err->rc != DZ_OK) return err->rc;
        }
    }
    return DZ_OK;
}

/* A file that is numbered as the shards of the index are, and not among them. */
static dz_rc check_unindexed(const dz_checkpoint *ck, const char *index_file, const char *suffix, const dz_listing *list, dz_error *err) {
    for (size_t i = 0; i < list->n; i++) {
        unsigned long of, other;
        size_t stem = numbered(list->entries[i].name, suffix, &of);
        for (size_t k = 0; k < ck->nshards && stem; k++) {
            const char *shard = indexed_name(&ck->shards[k], ck);
            if (strcmp(shard, list->entries[i].name) == 0) break;
            if (k + 1 < ck->nshards) continue;
            if (numbered(shard, suffix, &other) == stem && other == of && strncmp(shard, list->entries[i].name, stem) == 0)
                return dz_fail(err, DZ_EFAIL, "%s/%s: shard %s is missing from the index", ck->path, index_file, list->entries[i].name);
        }
    }
    return DZ_OK;
}

static dz_rc load_index(dz_checkpoint *ck, const char *index_file, const char *suffix, const dz_listing *list, dz_error *err) {
    return load_indexed(ck, index_file, suffix, err) == DZ_OK ? check_unindexed(ck, index_file, suffix, list, err) : err->rc;
}

/* The index of the safetensors shards, "" for none; NULL when there are several and none has the usual name. An adapter's is not the
 * model's. */
static const char *choose_index(const dz_checkpoint *ck, const dz_listing *list, dz_error *err) {
    const char *found = "";
    if (is_listed(list, RESTORED_INDEX)) return RESTORED_INDEX;
    for (size_t i = 0; i < list->n; i++) {
        if (!dz_ends_with(list->entries[i].name, INDEX_SUFFIX) || dz_is_adapter(list->entries[i].name)) continue;
        if (found[0]) {
            dz_fail(err, DZ_EFAIL, "%s: has both %s and %s: leave one, so that it is known which is the model", ck->path, found,
                    list->entries[i].name);
            return NULL;
        }
        found = list->entries[i].name;
    }
    return found;
}

/* model.fp16.safetensors beside model.safetensors: the same tensors in another type. */
static int is_variant(const dz_listing *list, const char *name) {
    static const char stem[] = "model.";
    return is_listed(list, RESTORED_FILE) && strncmp(name, stem, strlen(stem)) == 0 && strcmp(name, RESTORED_FILE) != 0;
}

static size_t count_safetensors(const dz_listing *list, int adapters) {
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++)
        n += dz_ends_with(list->entries[i].name, SUFFIX) && dz_is_adapter(list->entries[i].name) == adapters;
    return n;
}

/* All safetensors files, but variants; adapters only where there is nothing else. */
static dz_rc load_files(dz_checkpoint *ck, const dz_listing *list, int adapters, dz_error *err) {
    for (size_t i = 0; i < list->n && err->rc == DZ_OK; i++) {
        const char *name = list->entries[i].name;
        if (!dz_ends_with(name, SUFFIX) || dz_is_adapter(name) != adapters || is_variant(list, name)) continue;
        char *path = dz_format(err, "%s/%s", ck->path, name);
        if (path) dz_checkpoint_add_shard(ck, name, path, err);
        free(path);
    }
    if (err->rc != DZ_OK || check_numbered(ck, SUFFIX, list, err) != DZ_OK) return err->rc;
    return dz_checkpoint_parse(ck, err);
}

static dz_rc load_shards(dz_checkpoint *ck, const dz_listing *list, dz_error *err) {
    const char *index = choose_index(ck, list, err);
    if (!index) return err->rc;
    if (index[0]) return load_index(ck, index, SUFFIX, list, err);
    if (count_safetensors(list, 0)) return load_files(ck, list, 0, err);
    if (is_listed(list, TORCH_INDEX)) return load_index(ck, TORCH_INDEX, TORCH_SUFFIX, list, err);
    if (is_listed(list, TORCH_FILE)) {
        char *path = dz_format(err, "%s/" TORCH_FILE, ck->path);
        if (path && dz_checkpoint_add_shard(ck, TORCH_FILE, path, err) == DZ_OK) dz_checkpoint_parse(ck, err);
        free(path);
        return err->rc;
    }
    if (count_safetensors(list, 1)) return load_files(ck, list, 1, err);
    return dz_fail(err, DZ_EFAIL, "%s: no " SUFFIX " file and no " TORCH_FILE " in this directory", ck->path);
}

/* ---- the files beside it ---- */

#define FOLDER_DEPTH 3   /* folders within folders */
#define FOLDER_FILES 256 /* a folder with more files, or more bytes than DZ_SIDE_MAX, is no part of a model */

typedef struct found {
    dz_companion_file *companions, *skipped_files;
    size_t ncompanions, nskipped_files;
    uint64_t bytes;
    int shards, weights; /* of the model; of another one */
} found;

/* A name that comes back as it was: inside the directory, and text. */
static int can_keep(const char *name) {
    json_t *text = json_string(name); /* NULL unless it is UTF-8 */
    int ok = text && dz_path_is_inside(name);
    json_decref(text);
    return ok;
}

static dz_rc find_beside(const dz_checkpoint *ck, const char *folder, int depth, found *f, dz_buf *notes, dz_error *err);

/* A folder of small files belongs to the model (1_Pooling/config.json, original/params.json); one with weights is another model. */
static dz_rc take_folder(const dz_checkpoint *ck, const char *name, const char *path, int depth, found *f, dz_buf *notes, dz_error *err) {
    found in = {0};
    const char *slash = strrchr(name, '/');
    size_t notes_before = notes->len;
    int hidden = (slash ? slash[1] : name[0]) == '.';
    if (!hidden && depth > 0) find_beside(ck, name, depth - 1, &in, notes, err);
    int whole =
        hidden || depth == 0 || (in.weights && !in.shards) || in.ncompanions + in.nskipped_files > FOLDER_FILES || in.bytes > DZ_SIDE_MAX;
    if (whole) notes->len = notes_before;
    for (size_t i = 0; i < in.ncompanions && !whole && err->rc == DZ_OK; i++)
        add_file(&f->companions, &f->ncompanions, in.companions[i].file, in.companions[i].path, in.companions[i].size, err);
    for (size_t i = 0; i < in.nskipped_files && !whole && err->rc == DZ_OK; i++)
        add_file(&f->skipped_files, &f->nskipped_files, in.skipped_files[i].file, in.skipped_files[i].path, in.skipped_files[i].size, err);
    f->bytes += in.bytes;
    f->shards |= in.shards;
    f->weights |= in.weights;
    if (whole && err->rc == DZ_OK) add_file(&f->skipped_files, &f->nskipped_files, name, path, 0, err);
    dz_side_files_free(in.companions, in.ncompanions);
    dz_side_files_free(in.skipped_files, in.nskipped_files);
    return err->rc;
}

static dz_rc take_entry(const dz_checkpoint *ck, const char *name, const char *path, int depth, found *f, dz_buf *notes, dz_error *err) {
    struct stat st;
    if (stat(path, &st) != 0) {
        if (errno == ENOENT || errno == ELOOP) return dz_buf_note(notes, err, "%s is a link that leads nowhere: it is not kept", name);
        return dz_fail(err, DZ_EFAIL, "%s: cannot look at it: %s", path, strerror(errno));
    }
    uint64_t size = (uint64_t)st.st_size;
    if (S_ISDIR(st.st_mode)) return take_folder(ck, name, path, depth, f, notes, err);
    if (shard_at(ck, path)) return f->shards = 1, DZ_OK;
    int weights = dz_is_weights(name) || (strchr(name, '/') && is_behind_shard(ck, path)); /* blobs are in a folder */
    if (!S_ISREG(st.st_mode) || size > DZ_SIDE_MAX || weights || !can_keep(name)) {
        f->weights |= weights;
        return add_file(&f->skipped_files, &f->nskipped_files, name, path, S_ISREG(st.st_mode) ? size : 0, err);
    }
    if (access(path, R_OK) != 0) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    f->bytes += size;
    return add_file(&f->companions, &f->ncompanions, name, path, size, err);
}

/* What is in the folder beside the model's shards. */
static dz_rc find_beside(const dz_checkpoint *ck, const char *folder, int depth, found *f, dz_buf *notes, dz_error *err) {
    dz_listing list = {0};
    char *dir = folder[0] ? dz_format(err, "%s/%s", ck->path, folder) : dz_strdup(ck->path, err);
    int failed = dir ? dz_listing_read(dir, &list, err) : 0;
    if (failed) dz_buf_note(notes, err, "%s cannot be read (%s): it is not kept", folder, strerror(failed));
    for (size_t i = 0; i < list.n && err->rc == DZ_OK; i++) {
        if (folder[0] && f->ncompanions + f->nskipped_files > FOLDER_FILES) break; /* it is not kept, whatever the rest is */
        char *name = folder[0] ? dz_format(err, "%s/%s", folder, list.entries[i].name) : dz_strdup(list.entries[i].name, err);
        char *path = name ? dz_format(err, "%s/%s", ck->path, name) : NULL;
        if (path) take_entry(ck, name, path, depth, f, notes, err);
        free(name);
        free(path);
    }
    dz_listing_free(&list);
    free(dir);
    return err->rc;
}

/* The PyTorch index among the side files becomes the index of the shards' new names. */
static dz_rc replace_index(dz_checkpoint *ck, dz_error *err) {
    dz_buf text = {0};
    for (size_t i = 0; i < ck->ncompanions; i++) {
        dz_companion_file *side = &ck->companions[i];
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

dz_rc dz_directory_load(dz_checkpoint *ck, dz_error *err) {
    dz_listing list = {0};
    found f = {0};
    if (list_names(ck->path, &list, err) == DZ_OK && load_shards(ck, &list, err) == DZ_OK)
        find_beside(ck, "", FOLDER_DEPTH, &f, &ck->notes, err);
    ck->companions = f.companions;
    ck->ncompanions = f.ncompanions;
    ck->skipped_files = f.skipped_files;
    ck->nskipped_files = f.nskipped_files;
    if (err->rc == DZ_OK && ck->nshards && ck->shards[0].places) replace_index(ck, err);
    dz_listing_free(&list);
    return err->rc;
}

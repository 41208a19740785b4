#include "checkpoint/hf_directory.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/listing.h"
#include "checkpoint/folder_model.h"
#include "checkpoint/torch/torchfile.h"

#define FOLDER_DEPTH 3   /* folders within folders */
#define FOLDER_FILES 256 /* a folder with more files, or more bytes than DZ_SIDE_MAX, is no part of a model */
#define JSON_MAX ((uint64_t)4 << 20)

static const char OTHER[] = "other weights";
static const char BEYOND[] = "more than %d files or %llu MiB";

typedef struct walk {
    dz_checkpoint *ck;
    json_t *parts; /* of a pipeline: its folders' names as keys; NULL: it is none */
    dz_error *err;
} walk;

/* What is in a folder, to be taken as a whole or not at all. */
typedef struct found {
    dz_companion_file *companions, *skipped_files;
    size_t ncompanions, nskipped_files;
    uint64_t bytes;
    size_t nshards; /* of the checkpoint, when it was begun */
    int shards;     /* files of the model are in it */
} found;

static dz_rc add_file(dz_companion_file **list, size_t *n, const char *file, const char *path, uint64_t size, const char *why,
                      dz_error *err) {
    dz_companion_file *grown = realloc(*list, (*n + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "%s: out of memory", path);
    *list = grown;
    grown[*n] = (dz_companion_file){.file = dz_strdup(file, err), .path = dz_strdup(path, err), .size = size};
    if (why) grown[*n].why = dz_strdup(why, err);
    (*n)++;
    return err->rc;
}

static dz_rc skip(walk *w, found *f, const char *file, const char *path, uint64_t size, const char *why) {
    return add_file(&f->skipped_files, &f->nskipped_files, file, path, size, why, w->err);
}

static char *join(const char *folder, const char *name, dz_error *err) {
    return folder[0] ? dz_format(err, "%s/%s", folder, name) : dz_strdup(name, err);
}

/* ---- pipelines ---------------------------------------------------------------------------------------------------------------------- */

static json_t *read_json(const char *folder, const char *file, dz_error *err) {
    dz_error none = {0};
    char *path = dz_format(err, "%s/%s", folder, file), *text = NULL;
    size_t len = 0;
    json_t *root = NULL;
    if (path && access(path, F_OK) == 0 && dz_read_file(path, JSON_MAX, &text, &len, &none) == DZ_OK) root = json_loadb(text, len, 0, NULL);
    free(text);
    free(path);
    return root;
}

/* The folders of a pipeline: diffusers' model_index.json names a class for each, sentence-transformers' modules.json a path. NULL where
 * there is none. */
static json_t *find_parts(const char *path, int *root_too, dz_error *err) {
    json_t *index = read_json(path, "model_index.json", err), *modules = read_json(path, "modules.json", err), *parts = NULL, *value;
    const char *key;
    size_t i;
    *root_too = 1;
    if (json_is_object(index)) {
        parts = json_object();
        *root_too = 0;
        json_object_foreach(index, key, value) {
            if (key[0] != '_' && json_is_array(value)) json_object_set_new(parts, key, json_true());
        }
    } else if (json_is_array(modules)) {
        parts = json_object();
        json_array_foreach(modules, i, value) {
            const char *folder = json_string_value(json_object_get(value, "path"));
            if (folder && folder[0]) json_object_set_new(parts, folder, json_true());
        }
    }
    json_decref(index);
    json_decref(modules);
    return parts;
}

/* ---- weights ------------------------------------------------------------------------------------------------------------------------ */

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

static void drop_shards(dz_checkpoint *ck, size_t from) {
    while (ck->nshards > from) dz_shard_free(&ck->shards[--ck->nshards]);
}

/* PyTorch's index becomes one of the restored files' names. */
static dz_rc replace_index(walk *w, const char *folder, const dz_folder_model *m, size_t first, found *f) {
    dz_error *err = w->err;
    dz_buf text = {0};
    char *name = join(folder, m->index, err), *restored = name ? dz_torch_restored_index(name, err) : NULL;
    char *path = name ? dz_format(err, "%s/%s", w->ck->path, name) : NULL;
    if (path && restored && dz_torch_index(w->ck, first, &text, err) == DZ_OK &&
        add_file(&f->companions, &f->ncompanions, restored, path, text.len, NULL, err) == DZ_OK) {
        f->companions[f->ncompanions - 1].bytes = (char *)text.data;
        f->bytes += text.len;
        text = (dz_buf){0};
    }
    dz_buf_free(&text);
    free(name);
    free(restored);
    free(path);
    return err->rc;
}

/* The files of a folder's model. In a folder of the checkpoint its path comes before the names of its tensors. */
static dz_rc add_model(walk *w, const char *folder, const dz_folder_model *m, found *f) {
    dz_error *err = w->err;
    size_t first = w->ck->nshards;
    for (size_t i = 0; i < m->nfiles && err->rc == DZ_OK; i++) {
        char *file = join(folder, m->files[i], err), *path = file ? dz_format(err, "%s/%s", w->ck->path, file) : NULL;
        if (path && dz_checkpoint_add_shard(w->ck, file, path, err) == DZ_OK && folder[0])
            w->ck->shards[w->ck->nshards - 1].prefix = strlen(folder) + 1;
        free(file);
        free(path);
    }
    if (err->rc == DZ_OK && m->torch && m->index) replace_index(w, folder, m, first, f);
    if (err->rc == DZ_OK) f->shards |= m->nfiles > 0;
    return err->rc;
}

/* What the weights of a folder differ from those that are taken in: names or types, or bytes here and there. */
static int differs(const dz_checkpoint *ck, const char *folder, const dz_folder_model *m) {
    dz_error none = {0};
    dz_checkpoint *other = dz_alloc(1, sizeof *other, &none);
    int same = other && (other->path = dz_strdup(folder, &none)) != NULL;
    for (size_t i = 0; i < m->nstale && same; i++) {
        char *path = dz_format(&none, "%s/%s", folder, m->stale[i]);
        same = path && (!dz_ends_with(path, DZ_SAFETENSORS) || dz_checkpoint_add_shard(other, m->stale[i], path, &none) == DZ_OK);
        free(path);
    }
    same = same && dz_checkpoint_parse(other, &none) == DZ_OK && dz_checkpoint_looks_same((dz_checkpoint *)(uintptr_t)ck, other);
    dz_checkpoint_free(other);
    return !same;
}

/* An older save of the same model, sharded where this one is whole or the other way round. */
static dz_rc skip_stale(walk *w, const dz_folder_model *m, found *f) {
    dz_error *err = w->err;
    if (m->nstale == 0) return DZ_OK;
    const char *how = differs(w->ck, w->ck->path, m) ? "it differs from it" : "it seems to be the same";
    char *why = dz_format(err, "%s, and this is another save of the model: %s", m->taken_for, how);
    for (size_t i = 0; i < m->nstale && why && err->rc == DZ_OK; i++) {
        char *path = dz_format(err, "%s/%s", w->ck->path, m->stale[i]);
        if (path) skip(w, f, m->stale[i], path, 0, why);
        free(path);
    }
    free(why);
    return err->rc;
}

/* ---- the files beside it ------------------------------------------------------------------------------------------------------------ */

/* A name that comes back as it was: inside the directory, and text. */
static int can_keep(const char *name) {
    json_t *text = json_string(name); /* NULL unless it is UTF-8 */
    int ok = text && dz_path_is_inside(name);
    json_decref(text);
    return ok;
}

static int is_skipped(const found *f, const char *name) {
    for (size_t i = 0; i < f->nskipped_files; i++) {
        if (strcmp(f->skipped_files[i].file, name) == 0) return 1;
    }
    return 0;
}

/* Why the weights in this folder are none of the model's; NULL: they may be. */
static const char *why_not(const char *name) {
    static const struct {
        const char *begin, *why;
    } known[] = {{"checkpoint-", "an earlier state of the training"}, {"global_step", "the state of a training"},
                 {"epoch", "an earlier state of the training"},       {"original", "the same model in another format"},
                 {"onnx", "the same model in another format"},        {"openvino", "the same model in another format"},
                 {"coreml", "the same model in another format"},      {"tflite", "the same model in another format"},
                 {"gguf", "the same model in another format"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strncmp(name, known[i].begin, strlen(known[i].begin)) == 0) return known[i].why;
    }
    return NULL;
}

/* Most of the tensors of the shards from `first` on are in the model too. */
static int is_another(const dz_checkpoint *ck, size_t first) {
    size_t n = 0, known = 0;
    dz_error none = {0};
    for (size_t i = first; i < ck->nshards; i++) {
        dz_tensor *tensors = NULL;
        size_t count = 0;
        const dz_shard *s = &ck->shards[i];
        dz_safetensors_parse(s->path, s->header + 8, s->header_len - 8, s->size, 0, &tensors, &count, &none);
        for (size_t k = 0; k < count; k++) {
            int64_t at = ck->by_name ? dz_checkpoint_find(ck, tensors[k].name) : -1;
            known += at >= 0 && dz_same_shape(&ck->tensors[at], &tensors[k]);
        }
        n += count;
        dz_tensors_free(tensors, count);
    }
    return n > 0 && 2 * known > n;
}

/* The weights of a folder of the checkpoint: part of a pipeline, or a module of its own. `*why`: they are not taken. */
static dz_rc take_weights(walk *w, const char *folder, const dz_listing *list, found *f, char **why) {
    dz_error inner = {0}, *outer = w->err;
    dz_folder_model m;
    const char *slash = strrchr(folder, '/');
    int part = json_object_get(w->parts, folder) != NULL;
    const char *not = part ? NULL : why_not(slash ? slash + 1 : folder);
    char *path = dz_format(outer, "%s/%s", w->ck->path, folder);
    size_t first = w->ck->nshards;
    if (!path || dz_folder_model_find(path, list, &m, &inner) != DZ_OK) {
        if (!part && !dz_folder_has_safetensors(list) && inner.rc == DZ_EFAIL) inner = (dz_error){0}; /* files of other kinds */
        goto out;
    }
    size_t nfiles = m.nfiles;
    for (size_t i = 0; i < m.nfiles; i++) { /* the index of the folder above lists them */
        char *file = dz_format(outer, "%s/%s", path, m.files[i]);
        if (file && shard_at(w->ck, file)) m.nfiles = 0;
        free(file);
    }
    /* PyTorch's files of other names are read by code of their own: they are kept as they are */
    if (!not &&!part && m.torch && (!m.taken_for || !dz_listing_find(list, "config.json"))) m.nfiles = 0;
    if (m.nfiles > 0 && !not &&m.is_adapter && !part) not = "an adapter of its own";
    if (m.nfiles > 0 && !not ) {
        w->err = &inner;
        add_model(w, folder, &m, f);
        w->err = outer;
        if (inner.rc == DZ_OK && !part && is_another(w->ck, first)) not = "another model";
    }
    if (not &&m.nfiles > 0) *why = dz_strdup(not, outer);
    m.nfiles = nfiles;
    dz_folder_model_free(&m);
out:
    if (inner.rc == DZ_ENOMEM || (part && inner.rc != DZ_OK))
        dz_fail(outer, inner.rc, "%s", inner.text);
    else if (inner.rc != DZ_OK && !*why)
        *why = dz_strdup(inner.text, outer);
    if (*why || outer->rc != DZ_OK) drop_shards(w->ck, first);
    free(path);
    return outer->rc;
}

static dz_rc find_beside(walk *w, const char *folder, int depth, const dz_listing *list, found *f);

/* A folder of small files belongs to the model (1_Pooling/config.json, original/params.json), and so do the weights of a module
 * (2_Dense/model.safetensors). */
static dz_rc take_folder(walk *w, const char *name, const char *path, int depth, found *f) {
    found in = {.nshards = w->ck->nshards};
    dz_error *err = w->err;
    dz_listing list = {0};
    const char *slash = strrchr(name, '/');
    size_t notes_before = w->ck->notes.len;
    char *why = NULL;
    int hidden = (slash ? slash[1] : name[0]) == '.', whole = hidden || depth == 0;
    int failed = whole ? 0 : dz_listing_read(path, &list, err);
    if (failed) dz_buf_note(&w->ck->notes, err, "%s cannot be read (%s): it is not kept", name, strerror(failed));
    if (!whole && !failed && err->rc == DZ_OK && take_weights(w, name, &list, &in, &why) == DZ_OK && !why)
        find_beside(w, name, depth - 1, &list, &in);
    if (!whole && in.ncompanions + in.nskipped_files > FOLDER_FILES + (size_t)in.shards)
        why = why ? why : dz_format(err, BEYOND, FOLDER_FILES, (unsigned long long)(DZ_SIDE_MAX >> 20));
    if (!whole && !why && in.bytes > DZ_SIDE_MAX) why = dz_format(err, BEYOND, FOLDER_FILES, (unsigned long long)(DZ_SIDE_MAX >> 20));
    whole |= why != NULL;
    if (whole) {
        w->ck->notes.len = notes_before;
        drop_shards(w->ck, in.nshards);
    }
    for (size_t i = 0; i < in.ncompanions && !whole && err->rc == DZ_OK; i++) {
        if (add_file(&f->companions, &f->ncompanions, in.companions[i].file, in.companions[i].path, in.companions[i].size, NULL, err) !=
            DZ_OK)
            break;
        f->companions[f->ncompanions - 1].bytes = in.companions[i].bytes;
        in.companions[i].bytes = NULL;
    }
    for (size_t i = 0; i < in.nskipped_files && !whole && err->rc == DZ_OK; i++)
        skip(w, f, in.skipped_files[i].file, in.skipped_files[i].path, in.skipped_files[i].size, in.skipped_files[i].why);
    f->bytes += whole ? 0 : in.bytes;
    f->shards |= in.shards && !whole;
    if (whole && err->rc == DZ_OK) skip(w, f, name, path, 0, why);
    dz_side_files_free(in.companions, in.ncompanions);
    dz_side_files_free(in.skipped_files, in.nskipped_files);
    dz_listing_free(&list);
    free(why);
    return err->rc;
}

/* Why a file beside the model is not kept; NULL: it is. `alone`: the folder's own model is not in it. */
static const char *why_no_companion(const walk *w, const char *name, const char *path, const struct stat *st, int alone) {
    int weights = dz_is_weights(name);
    if (!S_ISREG(st->st_mode)) return "not a regular file";
    if (!can_keep(name)) return "its name cannot be kept";
    if (strchr(name, '/') && is_behind_shard(w->ck, path)) return "a link to it is kept"; /* blobs of a hub's cache */
    if (weights && dz_is_training(name)) return "the state of a training";
    if (weights && dz_is_adapter(name)) return "an adapter beside the model";
    if (weights && !(alone && strchr(name, '/'))) return OTHER;
    return (uint64_t)st->st_size > DZ_SIDE_MAX ? "larger than a small file may be" : NULL;
}

static dz_rc take_entry(walk *w, const char *name, const char *path, int depth, found *f) {
    struct stat st;
    dz_error *err = w->err;
    if (is_skipped(f, name)) return DZ_OK;
    if (stat(path, &st) != 0) {
        if (errno == ENOENT || errno == ELOOP)
            return dz_buf_note(&w->ck->notes, err, "%s is a link that leads nowhere: it is not kept", name);
        return dz_fail(err, DZ_EFAIL, "%s: cannot look at it: %s", path, strerror(errno));
    }
    uint64_t size = (uint64_t)st.st_size;
    if (S_ISDIR(st.st_mode)) return take_folder(w, name, path, depth, f);
    if (shard_at(w->ck, path)) return f->shards = 1, DZ_OK;
    for (size_t i = 0; i < f->ncompanions; i++) { /* PyTorch's index: another takes its place */
        if (strcmp(f->companions[i].path, path) == 0) return DZ_OK;
    }
    const char *why = why_no_companion(w, name, path, &st, f->nshards == w->ck->nshards);
    if (why) return skip(w, f, name, path, S_ISREG(st.st_mode) ? size : 0, why);
    if (access(path, R_OK) != 0) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    f->bytes += size;
    return add_file(&f->companions, &f->ncompanions, name, path, size, NULL, err);
}

/* What is in the folder beside the model's shards. */
static dz_rc find_beside(walk *w, const char *folder, int depth, const dz_listing *list, found *f) {
    dz_error *err = w->err;
    for (size_t i = 0; i < list->n && err->rc == DZ_OK; i++) {
        if (folder[0] && f->ncompanions + f->nskipped_files > FOLDER_FILES) break; /* it is not kept, whatever the rest is */
        char *name = join(folder, list->entries[i].name, err), *path = name ? dz_format(err, "%s/%s", w->ck->path, name) : NULL;
        if (path) take_entry(w, name, path, depth, f);
        free(name);
        free(path);
    }
    return err->rc;
}

/* ---- the whole of it ---------------------------------------------------------------------------------------------------------------- */

static dz_rc find_none(const dz_checkpoint *ck, const dz_listing *list, dz_error *err) {
    const char *known = dz_folder_known_as(list);
    if (known) return dz_fail(err, DZ_EFAIL, "%s: holds %s", ck->path, known);
    return dz_fail(err, DZ_EFAIL, "%s: no " DZ_SAFETENSORS " file and no pytorch_model.bin in this directory", ck->path);
}

dz_rc dz_directory_load(dz_checkpoint *ck, dz_error *err) {
    dz_listing list = {0};
    dz_folder_model m = {0};
    found f = {0};
    int root_too, failed = dz_listing_read(ck->path, &list, err);
    walk w = {.ck = ck, .err = err};
    if (failed) dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", ck->path, strerror(failed));
    if (err->rc != DZ_OK) goto out;
    w.parts = find_parts(ck->path, &root_too, err);
    if (root_too && dz_folder_model_find(ck->path, &list, &m, err) != DZ_OK) goto out;
    if (!w.parts && m.nfiles == 0) {
        find_none(ck, &list, err);
        goto out;
    }
    ck->is_adapter = m.is_adapter;
    if (add_model(&w, "", &m, &f) != DZ_OK || (m.nfiles > 0 && dz_checkpoint_parse(ck, err) != DZ_OK)) goto out;
    size_t nshards = ck->nshards;
    if (skip_stale(&w, &m, &f) == DZ_OK && find_beside(&w, "", FOLDER_DEPTH, &list, &f) == DZ_OK && ck->nshards > nshards)
        dz_checkpoint_parse_again(ck, err);
    if (err->rc == DZ_OK && ck->nshards == 0) find_none(ck, &list, err);
out:
    ck->companions = f.companions;
    ck->ncompanions = f.ncompanions;
    ck->skipped_files = f.skipped_files;
    ck->nskipped_files = f.nskipped_files;
    dz_folder_model_free(&m);
    json_decref(w.parts);
    dz_listing_free(&list);
    return err->rc;
}

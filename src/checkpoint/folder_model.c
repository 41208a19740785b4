#include "checkpoint/folder_model.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

#define INDEX_MAX ((uint64_t)100 << 20) /* bytes */
#define CONFIG_MAX ((uint64_t)4 << 20)
#define NUMBERED_LEN (sizeof "-00002-of-00003" - 1)

#define ANY(list, test, name) any(list, sizeof(list) / sizeof *(list), test, name)
static int any(const char *const *list, size_t n, int (*test)(const char *, const char *), const char *name) {
    for (size_t i = 0; i < n; i++) {
        if (test(name, list[i])) return 1;
    }
    return 0;
}

static int begins_with(const char *text, const char *begin) { return strncmp(text, begin, strlen(begin)) == 0; }
int dz_is_adapter(const char *file) {
    static const char *const begins[] = {"adapter_model", "adapters.", "pytorch_lora_weights"};
    return ANY(begins, begins_with, dz_path_last(file));
}

int dz_is_torch(const char *file) {
    static const char *const ends[] = {".bin", ".pt", ".pth", ".ckpt"};
    return ANY(ends, dz_ends_with, file);
}

int dz_is_weights(const char *file) {
    static const char *const ends[] = {".h5", ".msgpack", ".onnx", ".gguf", DZ_SAFETENSORS, ".npz", ".ot", ".distcp"};
    return dz_is_torch(file) || ANY(ends, dz_ends_with, file);
}

int dz_is_training(const char *file) {
    static const char *const begins[] = {"optimizer", "scheduler", "rng_state", "training_args", "scaler", "bf16_zero_pp", "zero_pp"};
    static const char *const ends[] = {"_optim_states.pt", "_optim_rng.pt"};
    const char *name = dz_path_last(file);
    return dz_is_torch(name) && (ANY(begins, begins_with, name) || ANY(ends, dz_ends_with, name));
}

int dz_is_index(const char *file) {
    static const char middle[] = DZ_SAFETENSORS ".index.";
    const char *at = strstr(file, middle);
    if (!at || !dz_ends_with(file, ".json")) return 0;
    at += sizeof middle - 1;
    return strcmp(at, "json") == 0 || strchr(at, '.') == strrchr(at, '.'); /* one part for a variant */
}

static int is_variant_index(const char *file) { return dz_is_index(file) && !dz_ends_with(file, ".index.json"); }

const char *dz_folder_known_as(const dz_listing *list) {
    static const struct {
        const char *end, *what;
    } known[] = {
        {".distcp", "a checkpoint of torch.distributed: convert it with python -m torch.distributed.checkpoint.format_utils dcp_to_torch"},
        {"_optim_states.pt", "one state of a training with DeepSpeed: gather its parts with the zero_to_fp32.py beside it"},
        {"zero_to_fp32.py", "a checkpoint of DeepSpeed: gather its parts with python zero_to_fp32.py"},
        {".gguf", "a GGUF file, which is not read"},
        {"tf_model.h5", "weights of TensorFlow, which are not read"},
        {".msgpack", "weights of Flax, which are not read"},
        {".onnx", "an ONNX file, which is not read"},
    };
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        for (size_t i = 0; i < list->n; i++) {
            if (dz_ends_with(list->entries[i].name, known[k].end)) return known[k].what;
        }
    }
    return NULL;
}

int dz_folder_has_safetensors(const dz_listing *list) {
    for (size_t i = 0; i < list->n; i++) {
        const dz_entry *e = &list->entries[i];
        if (!e->is_dir && (dz_ends_with(e->name, DZ_SAFETENSORS) || dz_is_index(e->name))) return 1;
    }
    return 0;
}

void dz_folder_model_free(dz_folder_model *m) {
    for (size_t i = 0; i < m->nfiles; i++) free(m->files[i]);
    for (size_t i = 0; i < m->nstale; i++) free(m->stale[i]);
    free(m->files);
    free(m->stale);
    free(m->index);
    *m = (dz_folder_model){0};
}

static dz_rc add_name(char ***list, size_t *n, const char *name, dz_error *err) {
    char **grown = realloc(*list, (*n + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "%s: out of memory", name);
    *list = grown;
    grown[*n] = dz_strdup(name, err);
    *n += grown[*n] != NULL;
    return err->rc;
}

static int is_listed(const dz_listing *list, const char *name) {
    const dz_entry *e = dz_listing_find(list, name);
    return e && !e->is_dir;
}

/* ---- indexes ------------------------------------------------------------------------------------------------------------------------ */

static int compare_text(const void *x, const void *y) { return strcmp(*(char *const *)x, *(char *const *)y); }

static void sort_once(char **list, size_t *n) {
    size_t kept = 0;
    if (*n) qsort(list, *n, sizeof *list, compare_text);
    for (size_t i = 0; i < *n; i++) {
        if (kept && strcmp(list[kept - 1], list[i]) == 0)
            free(list[i]);
        else
            list[kept++] = list[i];
    }
    *n = kept;
}

/* The files that a weight_map lists. That is all it is good for: the libraries take every tensor of every file in it. */
static dz_rc read_index(const char *folder, const char *index, const char *suffix, char ***files, size_t *n, dz_error *err) {
    const char *tensor;
    json_t *value, *root = NULL;
    json_error_t jerr;
    char *path = dz_format(err, "%s/%s", folder, index), *text = NULL;
    size_t len = 0;
    if (!path || dz_read_file(path, INDEX_MAX, &text, &len, err) != DZ_OK) goto out;
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &jerr);
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        dz_fail(err, DZ_EFAIL, "%s: not an index with a weight_map: %s", path, root ? "no such key" : jerr.text);
        goto out;
    }
    if (!(*files = dz_alloc(json_object_size(map), sizeof **files, err))) goto out;
    json_object_foreach(map, tensor, value) {
        const char *file = json_string_value(value);
        if (!file || !dz_path_is_inside(file) || !dz_ends_with(file, suffix)) {
            dz_fail(err, DZ_EFAIL, "%s: tensor '%s' is mapped to '%s', which is not a %s file of this directory", path, tensor,
                    file ? file : "(no text)", suffix);
            goto out;
        }
        if (!((*files)[*n] = dz_strdup(file, err))) goto out;
        (*n)++;
    }
    sort_once(*files, n);
out:
    json_decref(root);
    free(text);
    free(path);
    return err->rc;
}

/* STEM-00002-of-00003SUFFIX: the length of STEM, and 3; 0 for other names. */
static size_t numbered(const char *name, const char *suffix, unsigned long *of) {
    static const char middle[] = "-of-", digits[] = "0123456789";
    size_t len = strlen(name), tail = strlen(suffix);
    if (!dz_ends_with(name, suffix) || len <= tail + NUMBERED_LEN) return 0;
    const char *at = name + len - tail - NUMBERED_LEN, *total = at + 6 + strlen(middle);
    if (at[0] != '-' || strspn(at + 1, digits) != 5 || strncmp(at + 6, middle, strlen(middle)) != 0 || strspn(total, digits) != 5) return 0;
    *of = strtoul(total, NULL, 10);
    return (size_t)(at - name);
}

/* A file that is numbered as the shards of the index are, and not among them. */
static dz_rc check_unindexed(const char *folder, const dz_folder_model *m, const char *suffix, const dz_listing *list, dz_error *err) {
    for (size_t i = 0; i < list->n; i++) {
        unsigned long of, other;
        size_t stem = numbered(list->entries[i].name, suffix, &of);
        for (size_t k = 0; k < m->nfiles && stem; k++) {
            if (strcmp(m->files[k], list->entries[i].name) == 0) break;
            if (k + 1 < m->nfiles) continue;
            if (numbered(m->files[k], suffix, &other) == stem && other == of && strncmp(m->files[k], list->entries[i].name, stem) == 0)
                return dz_fail(err, DZ_EFAIL, "%s/%s: shard %s is missing from the index", folder, m->index, list->entries[i].name);
        }
    }
    return DZ_OK;
}

static dz_rc take_index(const char *folder, const char *index, const dz_listing *list, dz_folder_model *m, dz_error *err) {
    const char *suffix = dz_is_index(index) ? DZ_SAFETENSORS : ".bin";
    m->torch = !dz_is_index(index);
    if (!(m->index = dz_strdup(index, err)) || read_index(folder, index, suffix, &m->files, &m->nfiles, err) != DZ_OK) return err->rc;
    if (m->nfiles == 0) return dz_fail(err, DZ_EFAIL, "%s/%s: lists no tensor", folder, index);
    for (size_t i = 0; i < m->nfiles; i++) {
        char *path = dz_format(err, "%s/%s", folder, m->files[i]);
        if (path && access(path, F_OK) != 0) dz_fail(err, DZ_EFAIL, "%s/%s: shard %s is missing", folder, index, m->files[i]);
        free(path);
        if (err->rc != DZ_OK) return err->rc;
    }
    return check_unindexed(folder, m, suffix, list, err);
}

/* ---- usual names -------------------------------------------------------------------------------------------------------------------- */

typedef struct usual { /* in the order in which its library takes them */
    const char *file, *taken_for;
    int stem; /* of how many letters: what else begins so is the same model, saved at another time */
} usual;

#define TRANSFORMERS "transformers loads "
#define DIFFUSERS "diffusers loads "
#define USUAL(library, name, stem)                                                                                                         \
    { name, library name " first", (int)sizeof stem - 1 }
static const usual OF_TRANSFORMERS[] = {USUAL(TRANSFORMERS, "model.safetensors", "model"), USUAL(TRANSFORMERS, DZ_MODEL_INDEX, "model"),
                                        USUAL(TRANSFORMERS, "pytorch_model.bin", "pytorch_model"),
                                        USUAL(TRANSFORMERS, DZ_TORCH_INDEX, "pytorch_model")};
static const usual OF_DIFFUSERS[] = {USUAL(DIFFUSERS, "diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model"),
                                     USUAL(DIFFUSERS, "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model"),
                                     USUAL(DIFFUSERS, "diffusion_pytorch_model.bin", "diffusion_pytorch_model"),
                                     USUAL(DIFFUSERS, "diffusion_pytorch_model.bin.index.json", "diffusion_pytorch_model")};
enum { NUSUAL = sizeof OF_TRANSFORMERS / sizeof *OF_TRANSFORMERS };

/* Whether the folder's config.json is of diffusers. */
static int is_of_diffusers(const char *folder, const dz_listing *list) {
    dz_error none = {0};
    char *path = is_listed(list, "config.json") ? dz_format(&none, "%s/config.json", folder) : NULL, *text = NULL;
    size_t len = 0;
    json_t *root = NULL;
    if (path && dz_read_file(path, CONFIG_MAX, &text, &len, &none) == DZ_OK) root = json_loadb(text, len, 0, NULL);
    int is = json_object_get(root, "_class_name") != NULL;
    json_decref(root);
    free(text);
    free(path);
    return is;
}

static const usual *find_usual(const char *folder, const dz_listing *list) {
    int diffusers = is_of_diffusers(folder, list);
    const usual *lists[2] = {diffusers ? OF_DIFFUSERS : OF_TRANSFORMERS, diffusers ? OF_TRANSFORMERS : OF_DIFFUSERS};
    for (int half = 0; half < NUSUAL; half += NUSUAL / 2) { /* safetensors, then PyTorch's */
        for (int l = 0; l < 2; l++) {
            for (int i = half; i < half + NUSUAL / 2; i++) {
                if (is_listed(list, lists[l][i].file)) return &lists[l][i];
            }
        }
    }
    return NULL;
}

/* Of the same name, and not taken: STEM-00001-of-00002.safetensors and its index beside STEM.safetensors, or the other way round. */
static dz_rc find_stale(const usual *u, const dz_listing *list, dz_folder_model *m, dz_error *err) {
    for (size_t i = 0; i < list->n && err->rc == DZ_OK; i++) {
        const char *name = list->entries[i].name;
        unsigned long of;
        int taken = strcmp(name, u->file) == 0;
        for (size_t k = 0; k < m->nfiles; k++) taken |= strcmp(m->files[k], name) == 0;
        if (taken || strncmp(name, u->file, (size_t)u->stem) != 0) continue;
        const char *rest = name + u->stem;
        if (strcmp(rest, DZ_SAFETENSORS) == 0 || strcmp(rest, DZ_SAFETENSORS ".index.json") == 0 ||
            numbered(name, DZ_SAFETENSORS, &of) == (size_t)u->stem)
            add_name(&m->stale, &m->nstale, name, err);
    }
    return err->rc;
}

static dz_rc take_usual(const char *folder, const usual *u, const dz_listing *list, dz_folder_model *m, dz_error *err) {
    m->taken_for = u->taken_for;
    if (dz_ends_with(u->file, ".json")) {
        if (take_index(folder, u->file, list, m, err) != DZ_OK) return err->rc;
    } else {
        m->torch = dz_is_torch(u->file);
        if (add_name(&m->files, &m->nfiles, u->file, err) != DZ_OK) return err->rc;
    }
    return m->torch ? DZ_OK : find_stale(u, list, m, err);
}

/* ---- other names -------------------------------------------------------------------------------------------------------------------- */

/* STEM.VARIANT.safetensors where STEM.safetensors is there too: the same tensors in another type. Shards have the variant before their
 * number, or after it. */
static int is_variant(const dz_listing *list, const char *name) {
    char plain[512];
    unsigned long of;
    size_t len = strlen(name) - (sizeof DZ_SAFETENSORS - 1), number = numbered(name, DZ_SAFETENSORS, &of) ? NUMBERED_LEN : 0;
    size_t stem = len - number, begin = stem;
    if (len >= sizeof plain) return 0;
    while (begin > 0 && name[begin - 1] != '.') begin--;
    if (begin < 2) return 0;
    snprintf(plain, sizeof plain, "%.*s%.*s" DZ_SAFETENSORS, (int)(begin - 1), name, (int)number, name + stem);
    return is_listed(list, plain);
}

/* The only index of another name; a variant's only where there is no other. */
static dz_rc find_index(const char *folder, const dz_listing *list, const char **found, dz_error *err) {
    for (int variants = 0; variants < 2 && !*found; variants++) {
        for (size_t i = 0; i < list->n; i++) {
            const char *name = list->entries[i].name;
            if (list->entries[i].is_dir || !dz_is_index(name) || is_variant_index(name) != variants || dz_is_adapter(name)) continue;
            if (*found)
                return dz_fail(err, DZ_EFAIL, "%s: has both %s and %s: leave one, so that it is known which is the model", folder, *found,
                               name);
            *found = name;
        }
    }
    return DZ_OK;
}

typedef int name_test(const dz_listing *list, const char *name);

static int is_other_safetensors(const dz_listing *list, const char *name) {
    return dz_ends_with(name, DZ_SAFETENSORS) && !dz_is_adapter(name) && !is_variant(list, name);
}
static int is_other_torch(const dz_listing *list, const char *name) {
    (void)list;
    return dz_is_torch(name) && !dz_is_adapter(name) && !dz_is_training(name);
}
/* peft takes safetensors first. */
static int is_adapter_file(const dz_listing *list, const char *name) {
    static const char safe[] = "adapter_model" DZ_SAFETENSORS;
    return dz_is_adapter(name) && ((dz_is_torch(name) && !is_listed(list, safe)) || dz_ends_with(name, DZ_SAFETENSORS));
}

/* All files that pass. */
static dz_rc take_all(const dz_listing *list, name_test *wanted, dz_folder_model *m, dz_error *err) {
    for (size_t i = 0; i < list->n && err->rc == DZ_OK; i++) {
        const dz_entry *e = &list->entries[i];
        if (!e->is_dir && e->name[0] != '.' && wanted(list, e->name)) add_name(&m->files, &m->nfiles, e->name, err);
    }
    return err->rc;
}

/* Of the shards of a model that has no index none may be missing. */
static dz_rc check_numbered(const char *folder, const dz_folder_model *m, const char *suffix, const dz_listing *list, dz_error *err) {
    for (size_t i = 0; i < m->nfiles; i++) {
        unsigned long of;
        size_t stem = numbered(m->files[i], suffix, &of);
        for (unsigned long k = 1; stem && k <= of; k++) {
            char *want = dz_format(err, "%.*s-%05lu-of-%05lu%s", (int)stem, m->files[i], k, of, suffix);
            if (want && !is_listed(list, want)) dz_fail(err, DZ_EFAIL, "%s: shard %s is missing", folder, want);
            free(want);
            if (err->rc != DZ_OK) return err->rc;
        }
    }
    return DZ_OK;
}

/* consolidated.safetensors is the whole model in the names of its makers: beside other files it is another model. */
static void drop_consolidated(dz_folder_model *m) {
    for (size_t i = 0; i < m->nfiles && m->nfiles > 1; i++) {
        if (strcmp(m->files[i], "consolidated" DZ_SAFETENSORS) != 0) continue;
        free(m->files[i]);
        memmove(&m->files[i], &m->files[i + 1], (--m->nfiles - i) * sizeof *m->files);
        m->taken_for = "the model is in the other files";
        return;
    }
}

/* Several PyTorch files are one model only as numbered shards. */
static dz_rc check_torch(const char *folder, const dz_folder_model *m, dz_error *err) {
    unsigned long of;
    if (m->nfiles < 2 || numbered(m->files[0], ".bin", &of)) return DZ_OK;
    if (begins_with(m->files[0], "consolidated.0") && begins_with(m->files[1], "consolidated.0"))
        return dz_fail(
            err, DZ_EFAIL,
            "%s: %s and %s%s are slices of one model: merge them first (transformers has a convert_..._weights_to_hf.py for each)", folder,
            m->files[0], m->files[1], m->nfiles > 2 ? ", ..." : "");
    return dz_fail(err, DZ_EFAIL, "%s: %s and %s%s could each be the model: name one of them instead of the folder", folder, m->files[0],
                   m->files[1], m->nfiles > 2 ? ", ..." : "");
}

dz_rc dz_folder_model_find(const char *folder, const dz_listing *list, dz_folder_model *m, dz_error *err) {
    const char *index = NULL;
    *m = (dz_folder_model){0};
    const usual *u = find_usual(folder, list);
    if (u) {
        take_usual(folder, u, list, m, err);
    } else if (find_index(folder, list, &index, err) == DZ_OK && index) {
        m->taken_for = "the index lists the model's files";
        take_index(folder, index, list, m, err);
    } else if (err->rc == DZ_OK && take_all(list, is_other_safetensors, m, err) == DZ_OK && m->nfiles > 0) {
        drop_consolidated(m);
        check_numbered(folder, m, DZ_SAFETENSORS, list, err);
    } else if (err->rc == DZ_OK && take_all(list, is_other_torch, m, err) == DZ_OK && m->nfiles > 0) {
        m->torch = 1;
        if (check_torch(folder, m, err) == DZ_OK) check_numbered(folder, m, ".bin", list, err);
    } else if (err->rc == DZ_OK && take_all(list, is_adapter_file, m, err) == DZ_OK && m->nfiles > 0) {
        m->is_adapter = 1;
    }
    if (err->rc != DZ_OK) dz_folder_model_free(m);
    return err->rc;
}

#include "scan/find_models.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/listing.h"
#include "checkpoint/folder_model.h"
#include "config/manifest.h"

#define NAME_MAX_LEN 120

static const char HIDDEN[] = "is hidden or in a hidden folder: left out";
static const char NOT_UTF8[] = "its path is not UTF-8, which a manifest cannot hold: left out";
static const char ORIGINAL[] = "the model above it in another format: left out";
static const char UNFINISHED[] = "an unfinished restore or import: left out";
static const char UNREADABLE[] = "cannot be looked at: left out";
static const char LOOP[] = "a link to a folder above it: not followed";
static const char ONE_MODEL[] = "are one model, or one folder of models";
static const char PARTS[] = "several PyTorch files, which may be parts of one model: left out; a manifest can name one of them";
static const char ADAPTER[] = "an adapter (LoRA) outside of a folder of its own: left out";
static const char TRAINING[] = "only the state of a training, no model: left out";
static const char FOREIGN[] = "a format that cannot be read: left out";

/* What a file's name says of it. */
typedef enum kind {
    NO_MODEL,
    WEIGHTS, /* makes its directory a model */
    TORCH_FILE,
    ADAPTER_FILE,
    TRAINING_FILE,
    FOREIGN_FILE,
    NKINDS
} kind;

/* A directory to be looked at. */
typedef struct place {
    char *path, *relative; /* below the scanned folder, "" for itself */
    int linked;            /* a link was followed on the way */
    int inside;            /* of a model's directory */
    int is_adapter;        /* its directory has an adapter, and no model */
    const char *why;       /* no model from here on is taken, and this is what is said of it */
} place;

typedef struct places {
    place *list;
    size_t n, cap;
} places;

/* A directory that was looked at. */
typedef struct visit {
    dev_t dev;
    ino_t ino;
    char *path;
} visit;

/* Two paths to one directory. */
typedef struct twin {
    const char *path; /* a visit's */
    char *other;
} twin;

typedef struct search {
    const char *dir;
    char *real; /* the scanned folder, resolved */
    dz_scan_result *result;
    dz_notes *notes;
    places next;      /* one level deeper than what is being looked at */
    places not_taken; /* looked at last: a path whose models can be taken comes before one whose models cannot */
    void *visits;     /* tree */
    twin *twins;
    size_t ntwins, twins_cap;
    char *model_mark; /* the file that says that the scanned folder itself is a model */
} search;

static int begins_with(const char *text, const char *begin) { return strncmp(text, begin, strlen(begin)) == 0; }

#define ANY(list, test, name) any(list, sizeof(list) / sizeof *(list), test, name)
static int any(const char *const *list, size_t n, int (*test)(const char *, const char *), const char *name) {
    for (size_t i = 0; i < n; i++) {
        if (test(name, list[i])) return 1;
    }
    return 0;
}

static int is(const char *a, const char *b) { return strcmp(a, b) == 0; }

static kind kind_of(const char *name) {
    static const char *const pipelines[] = {"model_index.json", "modules.json"}; /* their parts are in folders */
    static const char *const torch[] = {".bin", ".pt", ".pth", ".ckpt"};
    static const char *const training[] = {"optimizer", "scheduler", "rng_state", "training_args", "scaler"};
    static const char *const training_ends[] = {"_states.pt", "_optim_rng.pt"};
    static const char *const foreign[] = {".gguf", ".onnx", ".msgpack", ".distcp", ".ot", ".npz"};
    int is_torch = ANY(torch, dz_ends_with, name), is_safe = dz_ends_with(name, ".safetensors");
    if ((is_torch || is_safe) && dz_is_adapter(name)) return ADAPTER_FILE;
    if (is_safe || dz_ends_with(name, ".safetensors.index.json") || ANY(pipelines, is, name)) return WEIGHTS;
    if (strcmp(name, "pytorch_model.bin") == 0 || strcmp(name, "pytorch_model.bin.index.json") == 0) return WEIGHTS;
    if (is_torch) return ANY(training, begins_with, name) || ANY(training_ends, dz_ends_with, name) ? TRAINING_FILE : TORCH_FILE;
    return ANY(foreign, dz_ends_with, name) || strcmp(name, "tf_model.h5") == 0 ? FOREIGN_FILE : NO_MODEL;
}

/* A file that cannot be looked at counts as what its name says: whoever loads the model will tell. */
static kind kind_of_entry(const dz_entry *e) { return (e->is_file || e->error) && e->name[0] != '.' ? kind_of(e->name) : NO_MODEL; }

/* ---- models ------------------------------------------------------------------------------------------------------------------------- */

/* A task's name for a path below the folder: a hub's snapshot has its repository's. */
static char *name_of(const char *relative, dz_error *err) {
    static const char hub[] = "models--", snapshots[] = "/snapshots/";
    const char *cut = strstr(relative, snapshots), *begin = relative, *rest = NULL;
    while (cut && memchr(begin, '/', (size_t)(cut - begin))) begin++;
    if (begins_with(begin, hub)) begin += strlen(hub);
    size_t len = cut ? (size_t)(cut - begin) : strlen(begin);
    if (cut)
        rest = strchr(cut + strlen(snapshots), '/');
    else if (!strchr(begin, '/') && kind_of(begin) != NO_MODEL)
        len = (size_t)(strrchr(begin, '.') - begin);
    char *name = dz_format(err, "%.*s%s", (int)len, begin, rest ? rest : "");
    if (name && strlen(name) > NAME_MAX_LEN) name[NAME_MAX_LEN] = '\0';
    for (char *at = name; at && *at; at++) {
        char one[2] = {*at, 0};
        if (at == name ? !dz_task_name_ok(one) : *at != '.' && !dz_task_name_ok(one)) *at = '-';
    }
    if (!name || name[0]) return name;
    free(name);
    return dz_strdup("model", err);
}

dz_rc dz_scan_name_unique(const dz_scan_result *r, dz_scan_model *m, dz_error *err) {
    char *stem = dz_strdup(m->name, err);
    for (unsigned number = 2; stem && err->rc == DZ_OK; number++) {
        size_t i = 0;
        while (i < r->nmodels && strcmp(r->models[i].name, m->name) != 0) i++;
        if (i == r->nmodels) break;
        free(m->name);
        m->name = dz_format(err, "%s-%u", stem, number);
    }
    free(stem);
    return err->rc;
}

/* `path` is swallowed. `identity`: of its files, 0 when they are not known. */
static dz_rc add_model_take(search *s, const place *p, char *path, const char *relative, uint64_t identity, dz_error *err) {
    dz_scan_result *r = s->result;
    const dz_scan_model *same = NULL;
    for (size_t i = 0; i < r->nmodels && identity; i++) same = r->models[i].identity == identity ? &r->models[i] : same;
    dz_scan_model m = {.path = path, .identity = identity, .is_adapter = p->is_adapter};
    if (!path) goto out;
    if (p->why || same) {
        if (!same)
            dz_notes_add(s->notes, err, p->why, "%s", path);
        else if (!p->why)
            dz_notes_add(s->notes, err, ONE_MODEL, "%s and %s", same->path, path);
        goto out;
    }
    if (!(m.name = name_of(relative, err)) || dz_scan_name_unique(r, &m, err) != DZ_OK) goto out;
    dz_scan_model *grown = realloc(r->models, (r->nmodels + 1) * sizeof *grown);
    if (!grown) {
        dz_fail(err, DZ_ENOMEM, "out of memory for a model");
        goto out;
    }
    r->models = grown;
    grown[r->nmodels++] = m;
    m = (dz_scan_model){0};
out:
    free(m.path);
    free(m.name);
    return err->rc;
}

/* Two paths to the same files, as in two snapshots of a hub's cache, are one model. A directory is never the same as a file, since it has
 * more. */
static uint64_t identify(const place *p, const dz_entry *entries, size_t n, int as_directory, dz_error *err) {
    uint64_t identity = (uint64_t)as_directory;
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) {
        struct stat st;
        if (as_directory && kind_of_entry(&entries[i]) != (p->is_adapter ? ADAPTER_FILE : WEIGHTS)) continue;
        char *path = dz_format(err, "%s/%s", p->path, entries[i].name);
        int known = path && stat(path, &st) == 0;
        free(path);
        if (!known) return 0;
        uint64_t of[2] = {(uint64_t)st.st_dev, (uint64_t)st.st_ino};
        identity = dz_hash64(of, sizeof of, identity);
    }
    return identity;
}

/* A single file that is a model. `name`: what the model is called after. */
static dz_rc add_file(search *s, const place *p, const dz_entry *e, const char *name, dz_error *err) {
    place holder = *p;
    if (!holder.why && !dz_manifest_path_ok(e->name)) holder.why = NOT_UTF8;
    uint64_t identity = identify(p, e, 1, 0, err);
    return add_model_take(s, &holder, dz_format(err, "%s/%s", p->path, e->name), name, identity, err);
}

/* ---- looking at a directory --------------------------------------------------------------------------------------------------------- */

/* What the names of a directory's files come to. */
typedef struct contents {
    size_t n[NKINDS];
    const dz_entry *first[NKINDS];
} contents;

static contents survey(const dz_listing *l) {
    contents c = {{0}, {NULL}};
    for (size_t i = 0; i < l->n; i++) {
        kind k = kind_of_entry(&l->entries[i]);
        if (l->entries[i].is_dir) continue;
        if (c.n[k]++ == 0) c.first[k] = &l->entries[i];
    }
    return c;
}

static dz_rc take_single_files(search *s, const place *p, const dz_listing *l, dz_error *err) {
    for (size_t i = 0; i < l->n && err->rc == DZ_OK; i++) {
        const dz_entry *e = &l->entries[i];
        kind k = kind_of_entry(e);
        if (k == WEIGHTS || k == TORCH_FILE) add_file(s, p, e, e->name, err);
        if (k == ADAPTER_FILE) dz_notes_add(s->notes, err, ADAPTER, "%s/%s", p->path, e->name);
        if (k == TRAINING_FILE) dz_notes_add(s->notes, err, TRAINING, "%s/%s", p->path, e->name);
        if (k == FOREIGN_FILE) dz_notes_add(s->notes, err, FOREIGN, "%s/%s", p->path, e->name);
    }
    return err->rc;
}

static dz_rc take_directory(search *s, place *p, const dz_listing *l, const contents *c, dz_error *err) {
    const char *slash = strrchr(s->real, '/'), *name = p->relative[0] ? p->relative : slash[1] ? slash + 1 : "model";
    size_t others = c->n[NO_MODEL] + c->n[FOREIGN_FILE];
    if (c->n[WEIGHTS] > 0) {
        p->inside = 1;
        return add_model_take(s, p, dz_strdup(p->path, err), name, identify(p, l->entries, l->n, 1, err), err);
    }
    if (c->n[TORCH_FILE] == 1 && c->n[ADAPTER_FILE] == 0) {
        p->inside = 1;
        if (!others) return add_file(s, p, c->first[TORCH_FILE], name, err);
        return add_model_take(s, p, dz_strdup(p->path, err), name, identify(p, c->first[TORCH_FILE], 1, 0, err), err);
    }
    if (p->why) return err->rc;
    if (c->n[ADAPTER_FILE] > 0) {
        p->inside = p->is_adapter = 1;
        return add_model_take(s, p, dz_strdup(p->path, err), name, identify(p, l->entries, l->n, 1, err), err);
    }
    if (c->n[TORCH_FILE] > 1) return dz_notes_add(s->notes, err, PARTS, "%s", p->path);
    if (p->inside) return err->rc;
    if (c->n[FOREIGN_FILE] > 0) return dz_notes_add(s->notes, err, FOREIGN, "%s/%s", p->path, c->first[FOREIGN_FILE]->name);
    if (c->n[TRAINING_FILE] > 0) return dz_notes_add(s->notes, err, TRAINING, "%s", p->path);
    return err->rc;
}

/* The scanned folder is itself a model if it has a configuration or an index beside weights. */
static const char *find_mark(const dz_listing *l, const contents *c) {
    for (size_t i = 0; i < l->n && c->n[WEIGHTS] + c->n[TORCH_FILE] > 0; i++) {
        const char *name = l->entries[i].name;
        if (strcmp(name, "config.json") == 0 || strcmp(name, "model_index.json") == 0 || strcmp(name, "modules.json") == 0 ||
            (name[0] != '.' && dz_ends_with(name, ".index.json")))
            return name;
    }
    return NULL;
}

static int is_at_or_below(const char *path, const char *above) {
    size_t len = strlen(above);
    while (len > 0 && above[len - 1] == '/') len--;
    return strncmp(path, above, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* A link that leads to the folder it is in, to one above it, or above the scanned folder: there are no further models. */
static int leads_back(const search *s, const place *p, const char *link) {
    char *target = realpath(link, NULL), *here = realpath(p->path, NULL);
    int back = target && here && (is_at_or_below(here, target) || is_at_or_below(s->real, target));
    free(target);
    free(here);
    return back;
}

static const char *why_not(const place *p, const char *name) {
    if (p->why) return p->why;
    if (name[0] == '.') return HIDDEN;
    if (!dz_manifest_path_ok(name)) return NOT_UTF8;
    if (dz_ends_with(name, ".partial")) return UNFINISHED;
    return p->inside && strcmp(name, "original") == 0 ? ORIGINAL : NULL; /* Meta's: beside the same weights as safetensors */
}

static dz_rc add_place(search *s, const place *p, const dz_entry *e, dz_error *err) {
    place below = {.path = dz_format(err, "%s/%s", p->path, e->name),
                   .relative = dz_format(err, "%s%s%s", p->relative, p->relative[0] ? "/" : "", e->name),
                   .linked = p->linked || e->is_link,
                   .inside = p->inside,
                   .why = why_not(p, e->name)};
    if (err->rc != DZ_OK) goto out;
    if (e->is_link && leads_back(s, p, below.path)) {
        if (!below.why) dz_notes_add(s->notes, err, LOOP, "%s", below.path);
        goto out;
    }
    places *list = below.why ? &s->not_taken : &s->next;
    if (dz_grow((void **)&list->list, &list->cap, list->n + 1, sizeof *list->list, err) != DZ_OK) goto out;
    list->list[list->n++] = below;
    below = (place){0};
out:
    free(below.path);
    free(below.relative);
    return err->rc;
}

/* A folder of a pipeline's part: no model by itself. */
static int is_part(const dz_listing *l, const char *name) {
    if (begins_with(name, "checkpoint-")) return 0;
    return dz_listing_find(l, "model_index.json") != NULL ||
           (dz_listing_find(l, "modules.json") && name[0] >= '0' && name[0] <= '9' && strchr(name, '_'));
}

static dz_rc look_at(search *s, place *p, dz_error *err) {
    dz_listing l = {0};
    int top = p->relative[0] == '\0', failed = dz_listing_read(p->path, &l, err);
    if (err->rc != DZ_OK) goto out;
    if (failed && top) {
        dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", p->path, strerror(failed));
        goto out;
    }
    if (failed) dz_notes_add(s->notes, err, UNREADABLE, "%s (%s)", p->path, strerror(failed));
    contents c = survey(&l);
    const char *mark = top ? find_mark(&l, &c) : NULL;
    if (mark) s->model_mark = dz_strdup(mark, err);
    if (top && !mark)
        take_single_files(s, p, &l, err);
    else
        take_directory(s, p, &l, &c, err);
    for (size_t i = 0; i < l.n && err->rc == DZ_OK; i++) {
        const dz_entry *e = &l.entries[i];
        if (e->is_dir && !is_part(&l, e->name)) add_place(s, p, e, err);
        if (e->is_dir || p->why) continue;
        if (e->name[0] == '.' && kind_of(e->name) != NO_MODEL) dz_notes_add(s->notes, err, HIDDEN, "%s/%s", p->path, e->name);
        if (e->error && !p->inside && kind_of_entry(e) == NO_MODEL)
            dz_notes_add(s->notes, err, UNREADABLE, "%s/%s (%s)", p->path, e->name, strerror(e->error));
    }
out:
    dz_listing_free(&l);
    return err->rc;
}

/* ---- the walk ----------------------------------------------------------------------------------------------------------------------- */

static int by_file(const void *x, const void *y) {
    const visit *a = x, *b = y;
    if (a->dev != b->dev) return a->dev < b->dev ? -1 : 1;
    return a->ino < b->ino ? -1 : a->ino > b->ino;
}

static void free_visit(void *node) {
    visit *v = node;
    free(v->path);
    free(v);
}

static dz_rc add_twin(search *s, const char *path, const char *other, dz_error *err) {
    if (dz_grow((void **)&s->twins, &s->twins_cap, s->ntwins + 1, sizeof *s->twins, err) != DZ_OK) return err->rc;
    s->twins[s->ntwins] = (twin){.path = path, .other = dz_strdup(other, err)};
    s->ntwins += s->twins[s->ntwins].other != NULL;
    return err->rc;
}

/* Looks at a directory, unless it was looked at by another path. */
static dz_rc visit_place(search *s, place *p, dz_error *err) {
    struct stat st;
    if (stat(p->path, &st) != 0) {
        if (p->relative[0]) return dz_notes_add(s->notes, err, UNREADABLE, "%s (%s)", p->path, strerror(errno));
        return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", p->path, strerror(errno));
    }
    visit *v = dz_alloc(1, sizeof *v, err);
    if (!v) return err->rc;
    *v = (visit){.dev = st.st_dev, .ino = st.st_ino, .path = dz_strdup(p->path, err)};
    visit **found = v->path ? tsearch(v, &s->visits, by_file) : NULL;
    if (!found) dz_fail(err, DZ_ENOMEM, "out of memory for a directory");
    if (found && *found == v) return look_at(s, p, err);
    if (found && !p->why) add_twin(s, (*found)->path, p->path, err);
    free_visit(v);
    return err->rc;
}

/* Those that a link leads to come last: a model is called by its own path where that is as short. */
static int by_link_and_path(const void *x, const void *y) {
    const place *a = x, *b = y;
    return a->linked != b->linked ? a->linked - b->linked : strcmp(a->relative, b->relative);
}

static void free_places(places *p) {
    for (size_t i = 0; i < p->n; i++) {
        free(p->list[i].path);
        free(p->list[i].relative);
    }
    free(p->list);
}

/* Level by level, so that a model is known by its shortest path. */
static dz_rc walk(search *s, dz_error *err) {
    if (dz_grow((void **)&s->next.list, &s->next.cap, 1, sizeof *s->next.list, err) != DZ_OK) return err->rc;
    s->next.list[s->next.n++] = (place){.path = dz_strdup(s->dir, err), .relative = dz_strdup("", err)};
    while (s->next.n + s->not_taken.n > 0 && err->rc == DZ_OK) {
        places *from = s->next.n > 0 ? &s->next : &s->not_taken, level = *from;
        *from = (places){0};
        qsort(level.list, level.n, sizeof *level.list, by_link_and_path);
        for (size_t i = 0; i < level.n && err->rc == DZ_OK; i++) visit_place(s, &level.list[i], err);
        free_places(&level);
    }
    return err->rc;
}

/* Of the directories that were found twice, those with models. */
static void note_twins(search *s, dz_error *err) {
    const dz_scan_result *r = s->result;
    for (size_t i = 0; i < s->ntwins; i++) {
        size_t k = 0;
        while (k < r->nmodels && !is_at_or_below(r->models[k].path, s->twins[i].path)) k++;
        if (k < r->nmodels) dz_notes_add(s->notes, err, ONE_MODEL, "%s and %s", s->twins[i].path, s->twins[i].other);
    }
}

dz_rc dz_find_models(const char *dir, dz_scan_result *r, dz_notes *notes, dz_error *err) {
    search s = {.dir = dir, .real = realpath(dir, NULL), .result = r, .notes = notes};
    if (!s.real) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", dir, strerror(errno));
    if (walk(&s, err) == DZ_OK) note_twins(&s, err);
    if (err->rc == DZ_OK && s.model_mark && r->nmodels <= 1)
        dz_fail(err, DZ_EUSAGE, "%s: has '%s': it is a model, not a folder of models", dir, s.model_mark);
    if (err->rc == DZ_OK && r->nmodels == 0) dz_fail(err, DZ_EFAIL, "%s: no model in it", dir);
    for (size_t i = 0; i < s.ntwins; i++) free(s.twins[i].other);
    free(s.twins);
    tdestroy(s.visits, free_visit);
    free_places(&s.next);
    free_places(&s.not_taken);
    free(s.model_mark);
    free(s.real);
    return err->rc;
}

#include "pipeline/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "model/checkpoint.h"
#include "model/manifest.h"
#include "pipeline/sketch.h"
#include "plan/groups.h"

#define DEPTH 4 /* directories below: models--ORG--NAME/snapshots/HASH are three */
#define NAME_MAX_LEN 120

void dz_scan_result_free(dz_scan_result *r) {
    for (size_t i = 0; i < r->nmodels; i++) {
        free(r->models[i].name);
        free(r->models[i].path);
        free(r->models[i].manifest);
    }
    free(r->models);
    dz_buf_free(&r->notes);
    *r = (dz_scan_result){0};
}

static void note(dz_scan_result *r, dz_error *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void note(dz_scan_result *r, dz_error *err, const char *fmt, ...) {
    char line[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n > 0) dz_buf_put(&r->notes, line, strlen(line), err);
    dz_buf_put(&r->notes, "\n", 1, err);
}

/* ---- finding models ----------------------------------------------------------------------------------------------------------------- */

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

/* A file that is a model by itself. */
static int is_weights(const char *name) {
    static const char *const ends[] = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (ends_with(name, ends[i])) return 1;
    }
    return 0;
}

/* A file that makes its directory a model. */
static int marks_model(const char *name) {
    return ends_with(name, ".safetensors") || strcmp(name, "pytorch_model.bin") == 0 || strcmp(name, "pytorch_model.bin.index.json") == 0;
}

static int compare_text(const void *x, const void *y) { return strcmp(*(char *const *)x, *(char *const *)y); }

static void free_names(char **names, size_t n) {
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
}

/* Entries but hidden ones, sorted. */
static dz_rc list_directory(const char *path, char ***out, size_t *n, dz_error *err) {
    size_t cap = 0;
    DIR *dir = opendir(path);
    if (!dir) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    for (struct dirent *e; err->rc == DZ_OK && (e = readdir(dir));) {
        if (e->d_name[0] == '.' || dz_grow((void **)out, &cap, *n + 1, sizeof **out, err) != DZ_OK) continue;
        if ((((*out)[*n] = dz_strdup(e->d_name, err)))) (*n)++;
    }
    closedir(dir);
    if (*n) qsort(*out, *n, sizeof **out, compare_text);
    return err->rc;
}

/* A task's name for a path below the folder: a hub's snapshot has its repository's. */
static char *name_of(const char *relative, dz_error *err) {
    static const char hub[] = "models--", snapshots[] = "/snapshots/";
    const char *cut = strstr(relative, snapshots), *end = cut ? cut : relative + strlen(relative);
    const char *begin = relative;
    for (const char *at = relative; cut && at < cut; at++) begin = *at == '/' ? at + 1 : begin;
    if (strncmp(begin, hub, strlen(hub)) == 0) begin += strlen(hub);
    if (!cut) {
        const char *dot = strrchr(begin, '.');
        if (dot && is_weights(begin)) end = dot;
    }
    size_t len = (size_t)(end - begin) < NAME_MAX_LEN ? (size_t)(end - begin) : NAME_MAX_LEN;
    char *name = dz_strndup(begin, len, err);
    for (char *at = name; at && *at; at++) {
        char one[2] = {*at, 0};
        if (*at != '.' && !dz_task_name_ok(one)) *at = '-';
    }
    if (name && name[0] == '.') name[0] = '-';
    return name;
}

static dz_rc add_model(dz_scan_result *r, const char *path, const char *relative, dz_error *err) {
    dz_scan_model *grown = realloc(r->models, (r->nmodels + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "out of memory for a model");
    r->models = grown;
    dz_scan_model *m = &grown[r->nmodels++];
    *m = (dz_scan_model){.path = dz_strdup(path, err), .name = name_of(relative, err)};
    if (err->rc != DZ_OK) return err->rc;
    char *stem = dz_strdup(m->name, err);
    for (unsigned number = 2; stem && err->rc == DZ_OK; number++) {
        size_t i = 0;
        while (i + 1 < r->nmodels && strcmp(r->models[i].name, m->name) != 0) i++;
        if (i + 1 == r->nmodels) break;
        free(m->name);
        m->name = dz_format(err, "%s-%u", stem, number);
    }
    free(stem);
    return err->rc;
}

/* `relative`: the path below the scanned folder, "" for itself. */
static dz_rc find_models(dz_scan_result *r, const char *path, const char *relative, int depth, dz_error *err) {
    char **names = NULL;
    size_t n = 0;
    int top = relative[0] == '\0', model = 0;
    if (list_directory(path, &names, &n, err) != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) {
        model |= !top && marks_model(names[i]);
        if (top && (ends_with(names[i], ".index.json") || strcmp(names[i], "config.json") == 0)) {
            dz_fail(err, DZ_EUSAGE, "%s: has '%s': it is a model, not a folder of models", path, names[i]);
            goto out;
        }
    }
    if (model) {
        add_model(r, path, relative, err);
        goto out;
    }
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) {
        struct stat st;
        char *below = dz_format(err, "%s/%s", path, names[i]), *name = dz_format(err, "%s%s%s", relative, top ? "" : "/", names[i]);
        if (below && name && stat(below, &st) == 0) {
            if (S_ISDIR(st.st_mode) && depth > 0) find_models(r, below, name, depth - 1, err);
            if (S_ISREG(st.st_mode) && top && is_weights(names[i])) add_model(r, below, name, err);
        }
        free(below);
        free(name);
    }
out:
    free_names(names, n);
    return err->rc;
}

/* Two paths to one file or directory are one model. */
static void drop_doubles(dz_scan_result *r, dz_error *err) {
    size_t kept = 0;
    for (size_t i = 0; i < r->nmodels; i++) {
        struct stat mine, other;
        size_t k = 0;
        int known = stat(r->models[i].path, &mine) == 0;
        while (k < kept && !(known && stat(r->models[k].path, &other) == 0 && other.st_dev == mine.st_dev && other.st_ino == mine.st_ino))
            k++;
        if (k == kept) {
            dz_scan_model moved = r->models[i];
            r->models[i] = (dz_scan_model){0};
            r->models[kept++] = moved;
        } else {
            note(r, err, "%s and %s are one model", r->models[k].path, r->models[i].path);
            free(r->models[i].name);
            free(r->models[i].path);
        }
    }
    r->nmodels = kept;
}

/* Collective. The models of rank 0 on every rank. */
static dz_rc share_models(const dz_world *world, dz_scan_result *r, dz_error *err) {
    dz_buf packed = {0};
    for (size_t i = 0; world->rank == 0 && i < r->nmodels; i++) {
        dz_buf_put(&packed, r->models[i].name, strlen(r->models[i].name) + 1, err);
        dz_buf_put(&packed, r->models[i].path, strlen(r->models[i].path) + 1, err);
    }
    dz_rc rc = dz_agree(world, err->rc, err);
    if (rc == DZ_OK) rc = dz_bcast_buf(world, &packed, err);
    for (size_t at = 0; rc == DZ_OK && world->rank != 0 && at < packed.len && err->rc == DZ_OK;) {
        dz_scan_model *grown = realloc(r->models, (r->nmodels + 1) * sizeof *grown);
        if (!grown) {
            dz_fail(err, DZ_ENOMEM, "out of memory for a model");
            break;
        }
        r->models = grown;
        const char *name = (const char *)packed.data + at, *path = name + strlen(name) + 1;
        grown[r->nmodels++] = (dz_scan_model){.name = dz_strdup(name, err), .path = dz_strdup(path, err)};
        at += strlen(name) + strlen(path) + 2;
    }
    dz_buf_free(&packed);
    return rc == DZ_OK ? dz_agree(world, err->rc, err) : rc;
}

/* ---- comparing ---------------------------------------------------------------------------------------------------------------------- */

/* This rank's models. One that cannot be read is marked and left out. */
static dz_rc sketch_mine(const dz_world *world, const dz_scan_result *r, dz_sketch *sketches, uint64_t *facts, dz_error *err) {
    for (size_t i = 0; i < r->nmodels; i++) {
        dz_error one = {0};
        dz_checkpoint *ck = NULL;
        if (i % (size_t)world->size != (size_t)world->rank) continue;
        if (dz_checkpoint_load(r->models[i].path, &ck, &one) == DZ_OK && dz_sketch_take(ck, &sketches[i], &one) == DZ_OK)
            facts[2 * i] = dz_checkpoint_nbytes(ck);
        dz_checkpoint_free(ck);
        if (one.rc == DZ_ENOMEM) return dz_fail(err, one.rc, "%s", one.text);
        facts[2 * i + 1] = one.rc != DZ_OK;
        if (one.rc != DZ_OK) memset(&sketches[i], 0, sizeof sketches[i]);
    }
    return err->rc;
}

/* Collective. All models' sketches on every rank: each was taken by one rank, and bits of zero are zero. */
static dz_rc sketch_all(const dz_world *world, dz_scan_result *r, dz_sketch *sketches, dz_error *err) {
    uint64_t *facts = dz_alloc(2 * r->nmodels, sizeof *facts, err);
    dz_rc rc = dz_agree(world, err->rc, err);
    if (rc == DZ_OK) rc = dz_agree(world, sketch_mine(world, r, sketches, facts, err), err);
    if (rc == DZ_OK) {
        _Static_assert(sizeof(dz_sketch) % sizeof(uint64_t) == 0, "a sketch is summed as 64-bit numbers");
        dz_sum_u64(world, (uint64_t *)(void *)sketches, r->nmodels * sizeof *sketches / sizeof(uint64_t));
        dz_sum_u64(world, facts, 2 * r->nmodels);
        for (size_t i = 0; i < r->nmodels; i++) {
            r->models[i].nbytes = facts[2 * i];
            r->models[i].bad = facts[2 * i + 1] != 0;
        }
    }
    free(facts);
    return rc;
}

/* Rank 0: why a model could not be read. */
static void note_bad(dz_scan_result *r, dz_error *err) {
    for (size_t i = 0; i < r->nmodels; i++) {
        dz_error one = {0};
        dz_checkpoint *ck = NULL;
        if (!r->models[i].bad) continue;
        dz_checkpoint_load(r->models[i].path, &ck, &one);
        note(r, err, "left out: %.900s", one.rc != DZ_OK ? one.text : r->models[i].path);
        dz_checkpoint_free(ck);
    }
}

static int names_base(const char *name) {
    for (; *name; name++) {
        if (strncasecmp(name, "base", 4) == 0) return 1;
    }
    return 0;
}

/* Of two models either could be the other's base: one that is called so, then the smaller (fine-tuning adds rows), then the first. */
static int is_preferred(const dz_scan_model *a, const dz_scan_model *b) {
    int base_a = names_base(a->name), base_b = names_base(b->name);
    if (base_a != base_b) return base_a;
    if (a->nbytes != b->nbytes) return a->nbytes < b->nbytes;
    return strcmp(a->name, b->name) < 0;
}

static void rank_by_preference(const dz_scan_result *r, uint32_t *preference) {
    for (size_t i = 0; i < r->nmodels; i++) {
        for (size_t k = 0; k < r->nmodels; k++) preference[i] += k != i && is_preferred(&r->models[k], &r->models[i]);
    }
}

/* Models that --base names. */
static dz_rc find_forced(const dz_scan_options *opt, const dz_scan_result *r, uint8_t *forced, dz_error *err) {
    for (size_t b = 0; b < opt->nbases; b++) {
        struct stat want, have;
        int is_path = stat(opt->bases[b], &want) == 0;
        size_t found = r->nmodels;
        for (size_t i = 0; i < r->nmodels; i++) {
            int same = is_path && stat(r->models[i].path, &have) == 0 && have.st_dev == want.st_dev && have.st_ino == want.st_ino;
            if (strcmp(opt->bases[b], r->models[i].name) == 0 || same) found = i;
        }
        if (found == r->nmodels || r->models[found].bad)
            dz_fail_more(err, DZ_EUSAGE, "--base %s: no model of %s has this name or path", opt->bases[b], opt->dir);
        else
            forced[found] = 1;
    }
    return err->rc;
}

/* Rank 0: the distances of all pairs, and what they say. */
static dz_rc group(const dz_scan_options *opt, dz_scan_result *r, const dz_sketch *sketches, dz_error *err) {
    size_t n = r->nmodels;
    double *distance = dz_alloc(n * n, sizeof *distance, err);
    uint8_t *forced = dz_alloc(n, 1, err);
    uint32_t *preference = dz_alloc(n, sizeof *preference, err), *base_of = dz_alloc(n, sizeof *base_of, err);
    if (err->rc != DZ_OK || find_forced(opt, r, forced, err) != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            int bad = r->models[i].bad || r->models[k].bad;
            distance[i * n + k] = distance[k * n + i] = bad ? (double)INFINITY : dz_sketch_distance(&sketches[i], &sketches[k]);
        }
    }
    rank_by_preference(r, preference);
    if (dz_group_models(distance, n, forced, preference, base_of, err) != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) {
        dz_scan_model *m = &r->models[i];
        m->base = base_of[i];
        m->distance = distance[i * n + base_of[i]];
        if (base_of[i] != i) r->models[base_of[i]].ntasks++;
        for (size_t k = 0; k < n; k++) m->sum += k != i && base_of[k] == base_of[i] ? distance[i * n + k] : 0;
    }
    for (size_t i = 0; i < n; i++) {
        const dz_scan_model *m = &r->models[i];
        if (m->base == i && m->ntasks == 0 && !m->bad) note(r, err, "%s: shares its base with no other model", m->name);
        if (m->base == i && m->ntasks == 1 && !forced[i])
            note(r, err, "%s: of two models each could be the base: this is called so, smaller or first; --base NAME decides", m->name);
        if (m->base != i && m->distance > DZ_NEAR) note(r, err, "%s: is far from its base (%.2g)", m->name, m->distance);
    }
out:
    free(distance);
    free(forced);
    free(preference);
    free(base_of);
    return err->rc;
}

/* ---- manifests ---------------------------------------------------------------------------------------------------------------------- */

/* Where the manifests are written. */
typedef struct place {
    char *dir, *scanned; /* the manifests' directory and the scanned one, resolved */
} place;

/* The path as the manifest has it: relative where the model lies beside or below the manifest. */
static char *manifest_path(const dz_scan_options *opt, const place *at, const char *model, dz_error *err) {
    char *full = dz_format(err, "%s%s", at->scanned, model + strlen(opt->dir));
    size_t len = strlen(at->dir);
    if (!full || strncmp(full, at->dir, len) != 0 || full[len] != '/') return full;
    char *relative = dz_strdup(full + len + 1, err);
    free(full);
    return relative;
}

static dz_rc write_manifest(const dz_scan_options *opt, const dz_scan_result *r, size_t base, const place *at, dz_error *err) {
    const char *path = r->models[base].manifest;
    dz_buf text = {0};
    dz_manifest m = {.base = manifest_path(opt, at, r->models[base].path, err), .tasks = dz_alloc(r->nmodels, sizeof *m.tasks, err)};
    for (size_t i = 0; i < r->nmodels && err->rc == DZ_OK; i++) {
        if (i == base || r->models[i].base != base) continue;
        m.tasks[m.ntasks++] = (dz_manifest_task){.name = r->models[i].name, .path = manifest_path(opt, at, r->models[i].path, err)};
    }
    if (err->rc == DZ_OK) dz_manifest_text(&m, &text, err);
    int fd = err->rc == DZ_OK ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (opt->force ? O_TRUNC : O_EXCL), 0666) : -1;
    if (err->rc == DZ_OK && fd < 0) dz_fail(err, DZ_EFAIL, "%s: cannot create: %s", path, strerror(errno));
    if (fd >= 0) {
        dz_pwrite_all(fd, path, text.data, text.len, 0, err);
        if (close(fd) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot close: %s", path, strerror(errno));
    }
    for (size_t i = 0; i < m.ntasks; i++) free(m.tasks[i].path); /* names are borrowed */
    free(m.tasks);
    free(m.base);
    dz_buf_free(&text);
    return err->rc;
}

/* zoo.yaml, or zoo-BASE.yaml when there are several. */
static dz_rc name_manifests(const dz_scan_options *opt, dz_scan_result *r, dz_error *err) {
    const char *slash = strrchr(opt->out, '/'), *dot = strrchr(slash ? slash : opt->out, '.');
    int stem = (int)(dot ? dot - opt->out : (ptrdiff_t)strlen(opt->out));
    for (size_t i = 0; i < r->nmodels; i++) r->nmanifests += r->models[i].ntasks > 0;
    if (r->nmanifests == 0) return dz_fail(err, DZ_EFAIL, "%s: no two of its %zu models share a base", opt->dir, r->nmodels);
    for (size_t i = 0; i < r->nmodels; i++) {
        dz_scan_model *m = &r->models[i];
        if (m->ntasks == 0) continue;
        m->manifest = r->nmanifests == 1 ? dz_strdup(opt->out, err) : dz_format(err, "%.*s-%s%s", stem, opt->out, m->name, dot ? dot : "");
        if (m->manifest && !opt->force && access(m->manifest, F_OK) == 0)
            dz_fail_more(err, DZ_EUSAGE, "%s: exists already (--force replaces it)", m->manifest);
    }
    return err->rc;
}

static dz_rc write_manifests(const dz_scan_options *opt, dz_scan_result *r, dz_error *err) {
    char *beside = dz_path_beside(opt->out, ".", err);
    place at = {.dir = beside ? realpath(beside, NULL) : NULL, .scanned = realpath(opt->dir, NULL)};
    if (!at.dir || !at.scanned) dz_fail(err, DZ_EUSAGE, "%s: its directory cannot be written to: %s", opt->out, strerror(errno));
    if (err->rc == DZ_OK) name_manifests(opt, r, err);
    size_t written = 0;
    for (; written < r->nmodels && err->rc == DZ_OK; written++) {
        if (r->models[written].ntasks) write_manifest(opt, r, written, &at, err);
    }
    for (size_t i = 0; i < written && err->rc != DZ_OK; i++) {
        if (r->models[i].manifest) unlink(r->models[i].manifest);
    }
    free(beside);
    free(at.dir);
    free(at.scanned);
    return err->rc;
}

/* --force replaces manifests, nothing else: a model's file least of all. */
static dz_rc check_output(const dz_scan_options *opt, dz_error *err) {
    dz_manifest *old = NULL;
    dz_error none = {0};
    if (!opt->force || access(opt->out, F_OK) != 0) return DZ_OK;
    if (dz_manifest_load(opt->out, &old, &none) != DZ_OK)
        dz_fail(err, DZ_EUSAGE, "%s: exists and is no manifest: it is not replaced", opt->out);
    dz_manifest_free(old);
    return err->rc;
}

dz_rc dz_scan(const dz_world *world, const dz_scan_options *opt, dz_scan_result *r, dz_error *err) {
    dz_sketch *sketches = NULL;
    if (world->rank == 0 && check_output(opt, err) == DZ_OK && find_models(r, opt->dir, "", DEPTH, err) == DZ_OK) {
        drop_doubles(r, err);
        if (r->nmodels == 0) dz_fail(err, DZ_EFAIL, "%s: no model in it", opt->dir);
    }
    dz_rc rc = dz_agree(world, err->rc, err);
    if (rc != DZ_OK || (rc = share_models(world, r, err)) != DZ_OK) return rc;
    sketches = dz_alloc(r->nmodels, sizeof *sketches, err);
    if ((rc = dz_agree(world, err->rc, err)) != DZ_OK || (rc = sketch_all(world, r, sketches, err)) != DZ_OK) goto out;
    if (world->rank == 0) {
        note_bad(r, err);
        if (group(opt, r, sketches, err) == DZ_OK) write_manifests(opt, r, err);
    }
    rc = dz_agree(world, err->rc, err);
out:
    free(sketches);
    return rc;
}

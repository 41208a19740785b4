#include "scan/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/notes.h"
#include "base/overwrite.h"
#include "base/staging.h"
#include "checkpoint/checkpoint.h"
#include "config/manifest.h"
#include "config/zoo_list.h"
#include "scan/base_claims.h"
#include "scan/base_clusters.h"
#include "scan/find_models.h"
#include "scan/weight_fingerprint.h"

void dz_scan_result_free(dz_scan_result *r) {
    for (size_t i = 0; i < r->nmodels; i++) {
        free(r->models[i].name);
        free(r->models[i].path);
        free(r->models[i].manifest);
        free(r->models[i].claim);
    }
    free(r->models);
    dz_buf_free(&r->notes);
    dz_buf_free(&r->left);
    *r = (dz_scan_result){0};
}

static const char LEFT_OUT[] = "left out";
static const char RESTORED[] = "restored from a lossy archive, not an original: left out (--allow-lossy-input takes it)";
static const char ALONE[] = "shares its base with no other model";
static const char QUANTISED[] = "most of its layers are integers or scaled F8 where others have floats: neither a base nor a task";
static const char PAIR[] = "of two models each could be the base: this is called so, smaller or first; --base NAME decides";
static const char CLOSE[] = "could be the base as well: the least sum of distances decided; --base NAME decides otherwise";
static const char EQUAL[] = "is equal to another task: left out";
static const char NO_BASE[] =
    "an adapter (LoRA) whose base is not among the models (base_model_name_or_path of its adapter_config.json): left out";
static const char FAR[] = "is far from its base";

/* Collective. The models of rank 0 on every rank. */
static dz_rc share_models(const dz_world *world, dz_scan_result *r, dz_error *err) {
    dz_buf packed = {0};
    for (size_t i = 0; world->rank == 0 && i < r->nmodels; i++) {
        dz_buf_put(&packed, r->models[i].name, strlen(r->models[i].name) + 1, err);
        dz_buf_put(&packed, r->models[i].path, strlen(r->models[i].path) + 1, err);
    }
    dz_rc rc = dz_sync_error(world, err->rc, err);
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
    return rc == DZ_OK ? dz_sync_error(world, err->rc, err) : rc;
}

/* ---- comparing ---------------------------------------------------------------------------------------------------------------------- */

/* This rank's models. One that cannot be read is marked and left out. */
static dz_rc sketch_mine(const dz_world *world, const dz_scan_options *opt, const dz_scan_result *r, dz_weight_fingerprint *sketches,
                         uint64_t *facts, dz_error *err) {
    for (size_t i = 0; i < r->nmodels; i++) {
        dz_error one = {0};
        dz_checkpoint *ck = NULL;
        if (i % (size_t)world->size != (size_t)world->rank) continue;
        if (dz_checkpoint_load(r->models[i].path, &ck, &one) == DZ_OK &&
            (ck->is_adapter || dz_weight_fingerprint_take(ck, &sketches[i], &one) == DZ_OK)) /* an adapter is compared with no model */
            facts[2 * i] = dz_checkpoint_nbytes(ck);
        int lossy = ck && ck->lossy && !opt->allow_lossy;
        dz_checkpoint_free(ck);
        if (one.rc == DZ_ENOMEM) return dz_fail(err, one.rc, "%s", one.text);
        facts[2 * i + 1] = one.rc != DZ_OK || lossy;
        if (facts[2 * i + 1]) memset(&sketches[i], 0, sizeof sketches[i]);
    }
    return err->rc;
}

/* Collective. All models' sketches on every rank: each was taken by one rank, and bits of zero are zero. */
static dz_rc sketch_all(const dz_world *world, const dz_scan_options *opt, dz_scan_result *r, dz_weight_fingerprint *sketches,
                        dz_error *err) {
    uint64_t *facts = dz_alloc(2 * r->nmodels, sizeof *facts, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) rc = dz_sync_error(world, sketch_mine(world, opt, r, sketches, facts, err), err);
    if (rc == DZ_OK) {
        _Static_assert(sizeof(dz_weight_fingerprint) % sizeof(uint64_t) == 0, "a sketch is summed as 64-bit numbers");
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
static void note_bad(const dz_scan_result *r, dz_notes *notes, dz_error *err) {
    for (size_t i = 0; i < r->nmodels; i++) {
        dz_error one = {0};
        dz_checkpoint *ck = NULL;
        if (!r->models[i].bad) continue;
        dz_checkpoint_load(r->models[i].path, &ck, &one);
        if (ck && ck->lossy)
            dz_notes_add(notes, err, RESTORED, "%s (%.600s)", r->models[i].path, ck->lossy);
        else
            dz_notes_add(notes, err, LEFT_OUT, "%.900s", one.rc != DZ_OK ? one.text : r->models[i].path);
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

/* A model that --base names by its path is one of the models, wherever it lies. */
static dz_rc add_outside(const dz_scan_options *opt, dz_scan_result *r, dz_error *err) {
    for (size_t b = 0; b < opt->nbases; b++) {
        struct stat want, have;
        int known = stat(opt->bases[b], &want) != 0;
        for (size_t i = 0; i < r->nmodels; i++)
            known |= strcmp(opt->bases[b], r->models[i].name) == 0 ||
                     (stat(r->models[i].path, &have) == 0 && have.st_dev == want.st_dev && have.st_ino == want.st_ino);
        if (known) continue;
        dz_scan_model *grown = realloc(r->models, (r->nmodels + 1) * sizeof *grown);
        if (!grown) return dz_fail(err, DZ_ENOMEM, "out of memory for a model");
        r->models = grown;
        const char *slash = strrchr(opt->bases[b], '/'), *name = slash && slash[1] ? slash + 1 : opt->bases[b];
        dz_scan_model *m = &grown[r->nmodels];
        *m = (dz_scan_model){.name = dz_strdup(name, err), .path = dz_strdup(opt->bases[b], err), .outside = 1};
        for (char *at = m->name; at && *at; at++) *at = *at == '/' ? '-' : *at;
        if (m->name) dz_scan_name_unique(r, m, err);
        r->nmodels++;
    }
    return err->rc;
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

/* Marks quantised copies of others: they are compared with none. */
static void find_quantised(const dz_scan_result *r, const dz_weight_fingerprint *sketches, uint8_t *quantised) {
    for (size_t i = 0; i < r->nmodels; i++) {
        for (size_t k = 0; k < r->nmodels && !quantised[i]; k++)
            quantised[i] = k != i && dz_weight_fingerprint_is_quantised(&sketches[i], &sketches[k]);
    }
}

static void measure(const dz_scan_result *r, const dz_weight_fingerprint *sketches, const uint8_t *quantised, double *distance) {
    size_t n = r->nmodels;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            int apart = r->models[i].bad || r->models[k].bad || quantised[i] || quantised[k];
            distance[i * n + k] = distance[k * n + i] =
                apart ? (double)INFINITY : dz_weight_fingerprint_distance(&sketches[i], &sketches[k]);
        }
    }
}

#define PIECE ((size_t)1 << 20) /* bytes */

static dz_rc compare_tensors(dz_checkpoint *a, dz_checkpoint *b, uint8_t *bytes, int *same, dz_error *err) {
    for (size_t i = 0; i < a->ntensors && *same; i++) {
        size_t ta = a->by_name[i], tb = b->by_name[i];
        for (uint64_t at = 0; at < a->tensors[ta].nbytes && *same; at += PIECE) {
            uint64_t rest = a->tensors[ta].nbytes - at;
            size_t len = rest < PIECE ? (size_t)rest : PIECE;
            if (dz_checkpoint_read(a, ta, at, len, bytes, err) != DZ_OK || dz_checkpoint_read(b, tb, at, len, bytes + PIECE, err) != DZ_OK)
                return err->rc;
            *same = memcmp(bytes, bytes + PIECE, len) == 0;
        }
    }
    return err->rc;
}

/* All tensors to the last bit. What cannot be read is not the same. */
static dz_rc are_equal(const char *x, const char *y, int *same, dz_error *err) {
    dz_error one = {0};
    dz_checkpoint *a = NULL, *b = NULL;
    uint8_t *bytes = dz_alloc_raw(2 * PIECE, 1, err);
    *same = bytes && dz_checkpoint_load(x, &a, &one) == DZ_OK && dz_checkpoint_load(y, &b, &one) == DZ_OK && dz_checkpoint_looks_same(a, b);
    if (*same && compare_tensors(a, b, bytes, same, &one) != DZ_OK) *same = 0;
    dz_checkpoint_free(a);
    dz_checkpoint_free(b);
    free(bytes);
    return err->rc;
}

/* Of equal tasks of one base the one that is no state of a training stays, of such the first. */
static dz_rc find_equal(dz_scan_result *r, const double *distance, const uint8_t *tier, dz_notes *notes, dz_error *err) {
    for (size_t i = 0; i < r->nmodels && err->rc == DZ_OK; i++) {
        for (size_t k = 0; k < r->nmodels && err->rc == DZ_OK && !r->models[i].equal; k++) {
            const dz_scan_model *a = &r->models[i], *b = &r->models[k];
            int same = 0, after = tier[i] != tier[k] ? tier[i] > tier[k] : i > k;
            if (i == k || !after || a->base != b->base || a->base == i || b->base == k || b->equal) continue;
            if (a->is_adapter != b->is_adapter || a->nbytes != b->nbytes) continue;
            if ((!a->is_adapter && distance[i * r->nmodels + k] > 0) || are_equal(a->path, b->path, &same, err) != DZ_OK || !same) continue;
            r->models[i].equal = 1;
            r->models[a->base].ntasks--;
            r->models[a->base].nadapters -= (size_t)a->is_adapter;
            dz_notes_add(notes, err, EQUAL, "%s (%s)", a->name, b->name);
        }
    }
    return err->rc;
}

static void note_alone(const dz_scan_result *r, const uint8_t *quantised, dz_notes *notes, dz_error *err) {
    for (size_t i = 0; i < r->nmodels; i++) {
        const dz_scan_model *m = &r->models[i];
        if (m->is_adapter || m->base != i || m->ntasks > 0 || m->bad) continue;
        dz_notes_add(notes, err, quantised[i] ? QUANTISED : ALONE, "%s", m->name);
    }
}

/* What may be wrong with the groups. */
static void note_groups(const dz_scan_result *r, const uint8_t *forced, const uint32_t *close, dz_notes *notes, dz_error *err) {
    for (size_t i = 0; i < r->nmodels; i++) {
        const dz_scan_model *m = &r->models[i];
        int is_base = m->base == i;
        size_t whole = m->ntasks - m->nadapters;
        if (m->is_adapter) continue;
        if (is_base && whole == 1 && !forced[i] && close[i] < r->nmodels) dz_notes_add(notes, err, PAIR, "%s", m->name);
        int named = close[i] < r->nmodels && names_base(m->name) && !names_base(r->models[close[i]].name);
        if (is_base && whole > 1 && close[i] < r->nmodels && !named) dz_notes_add(notes, err, CLOSE, "%s", r->models[close[i]].name);
        if (!is_base && m->distance > DZ_NEAR) dz_notes_add(notes, err, FAR, "%s (%.2g)", m->name, m->distance);
    }
}

static void note_lost(const dz_scan_model *m, dz_notes *notes, dz_error *err) {
    dz_notes_add(notes, err, NO_BASE, m->claim[0] ? "%s (of %s)" : "%s", m->path, m->claim);
}

/* Adapters are tasks of the base that they name, or of the base of a task that they name. */
static dz_rc place_adapters(dz_scan_result *r, dz_notes *notes, dz_error *err) {
    for (size_t i = 0; i < r->nmodels && err->rc == DZ_OK; i++) {
        dz_scan_model *m = &r->models[i];
        if (!m->is_adapter || m->bad) continue;
        size_t base = dz_adapter_base(r, i);
        if (base == r->nmodels) { /* which could not be read */
            m->bad = 1;
            note_lost(m, notes, err);
            continue;
        }
        m->base = r->models[base].base;
        r->models[m->base].ntasks++;
        r->models[m->base].nadapters++;
    }
    return err->rc;
}

/* Rank 0, before the models are read: adapters of no model here are left out. */
static dz_rc drop_adapters(dz_scan_result *r, dz_notes *notes, dz_error *err) {
    size_t kept = 0;
    uint8_t *lost = dz_alloc(r->nmodels, 1, err);
    for (size_t i = 0; lost && i < r->nmodels && err->rc == DZ_OK; i++) {
        if (!r->models[i].is_adapter || dz_adapter_base(r, i) < r->nmodels) continue;
        lost[i] = 1;
        note_lost(&r->models[i], notes, err);
    }
    for (size_t i = 0; lost && i < r->nmodels; i++) {
        if (lost[i]) {
            free(r->models[i].name);
            free(r->models[i].path);
            free(r->models[i].claim);
        } else {
            r->models[kept++] = r->models[i];
        }
    }
    if (lost) r->nmodels = kept;
    free(lost);
    return err->rc;
}

/* Rank 0: the distances of all pairs, and what they say. */
static dz_rc group(const dz_scan_options *opt, dz_scan_result *r, const dz_weight_fingerprint *sketches, dz_notes *notes, dz_error *err) {
    size_t n = r->nmodels;
    double *distance = dz_alloc(n * n, sizeof *distance, err);
    uint8_t *forced = dz_alloc(n, 1, err), *quantised = dz_alloc(n, 1, err);
    uint8_t *tier = dz_alloc(n, 1, err);
    uint32_t *preference = dz_alloc(n, sizeof *preference, err), *base_of = dz_alloc(n, sizeof *base_of, err);
    uint32_t *close = dz_alloc(n, sizeof *close, err);
    if (err->rc != DZ_OK || find_forced(opt, r, forced, err) != DZ_OK) goto out;
    find_quantised(r, sketches, quantised);
    measure(r, sketches, quantised, distance);
    rank_by_preference(r, preference);
    dz_base_claims(r, tier);
    if (dz_cluster_models(distance, n, forced, tier, preference, base_of, close, err) != DZ_OK) goto out;
    for (size_t i = 0; i < n; i++) { /* at the end of a chain, with nothing in common */
        if (!isfinite(distance[i * n + base_of[i]])) base_of[i] = (uint32_t)i;
    }
    for (size_t i = 0; i < n; i++) {
        dz_scan_model *m = &r->models[i];
        m->base = base_of[i];
        m->distance = distance[i * n + base_of[i]];
        if (base_of[i] != i) r->models[base_of[i]].ntasks++;
        for (size_t k = 0; k < n; k++) m->sum += k != i && base_of[k] == base_of[i] ? distance[i * n + k] : 0;
    }
    if (place_adapters(r, notes, err) != DZ_OK) goto out;
    if (find_equal(r, distance, tier, notes, err) == DZ_OK) {
        note_alone(r, quantised, notes, err);
        notes->every = NULL; /* from here on of models that are in a manifest */
        note_groups(r, forced, close, notes, err);
    }
out:
    free(tier);
    free(close);
    free(distance);
    free(forced);
    free(quantised);
    free(preference);
    free(base_of);
    return err->rc;
}

/* ---- manifests ---------------------------------------------------------------------------------------------------------------------- */

/* Where the manifests are written. */
typedef struct place {
    char *dir, *scanned; /* the manifests' directory and the scanned one, resolved */
    char *archives;      /* of the list, resolved; NULL: beside the manifests */
} place;

static void free_place(place *at) {
    free(at->dir);
    free(at->scanned);
    free(at->archives);
}

/* Before the work: a manifest that cannot be written must not cost a scan. */
static dz_rc find_place(const dz_scan_options *opt, place *at, dz_error *err) {
    if (!opt->out) return DZ_OK;
    char *beside = dz_path_beside(opt->out, ".", err);
    if (!beside) return err->rc;
    if (!(at->dir = realpath(beside, NULL)))
        dz_fail(err, DZ_EUSAGE, "%s: its directory cannot be opened: %s", opt->out, strerror(errno));
    else if (!(at->scanned = realpath(opt->dir, NULL)))
        dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", opt->dir, strerror(errno));
    else if (access(at->dir, W_OK | X_OK) != 0)
        dz_fail(err, DZ_EFAIL, "%s: its directory cannot be written to: %s", opt->out, strerror(errno));
    else if (opt->archives && !(at->archives = realpath(opt->archives, NULL)))
        dz_fail(err, DZ_EUSAGE, "--archives %s: cannot be opened: %s", opt->archives, strerror(errno));
    free(beside);
    return err->rc;
}

/* The path as the manifest has it: relative where the model lies beside or below the manifest. */
static char *manifest_path(const dz_scan_options *opt, const place *at, const dz_scan_model *m, dz_error *err) {
    char *full = m->outside ? realpath(m->path, NULL) : dz_format(err, "%s%s", at->scanned, m->path + strlen(opt->dir));
    if (!full) dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", m->path, strerror(errno));
    size_t len = strlen(at->dir);
    if (!full || strncmp(full, at->dir, len) != 0 || (full[len] != '/' && full[len] != '\0')) return full;
    char *relative = dz_strdup(full[len] ? full + len + 1 : ".", err);
    free(full);
    return relative;
}

/* "run/checkpoint-", and 100, of "run/checkpoint-100" or "run/checkpoint-100.safetensors". Returns 0 if there is no number. */
static size_t step_of(const char *path, uint64_t *step) {
    size_t end = strlen(path), dot = end;
    while (dot > 0 && path[dot - 1] != '.' && path[dot - 1] != '/') dot--;
    if (dot > 1 && path[dot - 1] == '.' && strspn(path + dot, "0123456789") < strlen(path + dot)) end = dot - 1;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] >= '0' && path[begin - 1] <= '9') begin--;
    if (begin == end || end - begin > 18 || begin == 0 || path[begin - 1] == '/') return 0;
    *step = strtoull(path + begin, NULL, 10);
    return begin;
}

/* Of the tasks of one run, the one before each is its parent. */
static dz_rc find_chains(dz_manifest *m, dz_error *err) {
    for (size_t i = 0; i < m->ntasks; i++) {
        uint64_t mine = 0, other = 0, before = 0;
        size_t len = step_of(m->tasks[i].path, &mine), at = m->ntasks;
        for (size_t k = 0; len && k < m->ntasks; k++) {
            if (k == i || step_of(m->tasks[k].path, &other) != len || strncmp(m->tasks[k].path, m->tasks[i].path, len) != 0) continue;
            if (other >= mine || (at < m->ntasks && other <= before)) continue;
            at = k;
            before = other;
        }
        if (at < m->ntasks && !(m->tasks[i].parent = dz_strdup(m->tasks[at].name, err))) return err->rc;
    }
    return DZ_OK;
}

static dz_rc manifest_text(const dz_scan_options *opt, const dz_scan_result *r, size_t base, const place *at, dz_buf *text, dz_error *err) {
    dz_manifest m = {.base = manifest_path(opt, at, &r->models[base], err), .tasks = dz_alloc(r->nmodels, sizeof *m.tasks, err)};
    for (size_t i = 0; i < r->nmodels && err->rc == DZ_OK; i++) {
        if (i == base || r->models[i].base != base || r->models[i].equal) continue;
        m.tasks[m.ntasks++] = (dz_manifest_task){.name = r->models[i].name, .path = manifest_path(opt, at, &r->models[i], err)};
    }
    if (err->rc == DZ_OK && opt->chains) find_chains(&m, err);
    if (err->rc == DZ_OK) dz_manifest_text(&m, text, err);
    for (size_t i = 0; i < m.ntasks; i++) { /* names are borrowed */
        free(m.tasks[i].path);
        free(m.tasks[i].parent);
    }
    free(m.tasks);
    free(m.base);
    return err->rc;
}

/* zoo.yaml, or zoo-BASE.yaml when there are several. */
static dz_rc name_manifests(const dz_scan_options *opt, dz_scan_result *r, dz_error *err) {
    for (size_t i = 0; i < r->nmodels; i++) r->nmanifests += r->models[i].ntasks > 0;
    if (r->nmanifests == 0) return dz_fail(err, DZ_EFAIL, "%s: no two of its %zu models share a base", opt->dir, r->nmodels);
    if (!opt->out) return DZ_OK;
    const char *slash = strrchr(opt->out, '/'), *dot = strrchr(slash ? slash : opt->out, '.');
    int stem = (int)(dot ? dot - opt->out : (ptrdiff_t)strlen(opt->out));
    for (size_t i = 0; i < r->nmodels; i++) {
        dz_scan_model *m = &r->models[i];
        struct stat st;
        dz_manifest *old = NULL;
        dz_error none = {0};
        if (m->ntasks == 0) continue;
        m->manifest = r->nmanifests == 1 && !opt->list ? dz_strdup(opt->out, err)
                                                       : dz_format(err, "%.*s-%s%s", stem, opt->out, m->name, dot ? dot : "");
        if (m->manifest && opt->list && strcmp(m->manifest, opt->list) == 0)
            dz_fail_more(err, DZ_EUSAGE, "--list %s: is the name of a manifest; choose another", opt->list);
        if (!m->manifest || stat(m->manifest, &st) != 0) continue;
        if (!opt->force)
            dz_fail_more(err, DZ_EUSAGE, "%s: exists already (--force replaces it)", m->manifest);
        else if (!S_ISREG(st.st_mode))
            dz_fail_more(err, DZ_EUSAGE, "%s: exists and is not a regular file", m->manifest);
        else if (st.st_size > 0 && dz_manifest_load(m->manifest, &old, &none) != DZ_OK)
            dz_fail_more(err, DZ_EUSAGE, "%s: exists and is not a manifest: it is never replaced", m->manifest);
        dz_manifest_free(old);
    }
    return err->rc;
}

/* Of a scan that was killed: the beginning of a manifest. */
static int is_draft(const char *partial, const dz_buf *text) {
    char *old = NULL;
    size_t len = 0;
    dz_error none = {0};
    if (dz_read_file(partial, 1 << 20, &old, &len, &none) != DZ_OK) return 0;
    int is = len == 0 || (len >= 6 && text->len >= 6 && memcmp(old, text->data, 6) == 0);
    free(old);
    return is;
}

/* A link to a manifest stays one. */
static dz_rc write_draft(dz_staging *d, const char *manifest, const dz_buf *text, dz_error *err) {
    char *file = realpath(manifest, NULL);
    if (dz_staging_name(d, file ? file : manifest, err) == DZ_OK) {
        if (is_draft(d->partial, text)) unlink(d->partial);
        dz_staging_write(d, text->data, text->len, err);
    }
    free(file);
    return err->rc;
}

/* A path from a result's text for a program that runs elsewhere. */
static char *full_path(const char *dir, const char *file, dz_error *err) { return dz_format(err, "%s/%s", dir, dz_path_last(file)); }

/* Manifests and archives, and as comments how to submit them and what is in none. */
static dz_rc list_text(const dz_scan_options *opt, const dz_scan_result *r, const place *at, dz_buf *text, dz_error *err) {
    char *beside = dz_path_beside(opt->list, ".", err), *dir = beside ? realpath(beside, NULL) : NULL;
    dz_buf_put(text, DZ_LIST_HEAD, sizeof DZ_LIST_HEAD - 1, err);
    dz_buf_line(text, err, "# ZOOS='%s/%s' sbatch --array=1-%zu jobs/array.sbatch\n", dir ? dir : ".", dz_path_last(opt->list),
                r->nmanifests);
    for (size_t i = 0; i < r->nmodels && err->rc == DZ_OK; i++) {
        if (!r->models[i].manifest) continue;
        char *manifest = full_path(at->dir, r->models[i].manifest, err), *stem = dz_strdup(dz_path_last(r->models[i].manifest), err);
        char *dot = stem ? strrchr(stem, '.') : NULL, *archive = NULL;
        if (dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0)) *dot = '\0';
        if (stem) archive = dz_format(err, "%s/%s.h5", at->archives ? at->archives : at->dir, stem);
        if (manifest && archive) dz_zoo_list_put(text, manifest, archive, err);
        free(archive);
        free(stem);
        free(manifest);
    }
    for (size_t from = 0; from < r->left.len; from += strcspn((const char *)r->left.data + from, "\n") + 1) {
        const char *line = (const char *)r->left.data + from;
        int name = (int)strcspn(line, "\t"), all = (int)strcspn(line, "\n");
        dz_buf_line(text, err, "# in no zoo: %.*s: %.*s\n", name, line, all - name - 1, line + name + 1);
    }
    free(dir);
    free(beside);
    return err->rc;
}

static void write_list(const dz_scan_options *opt, const dz_scan_result *r, const place *at, dz_staging *draft, dz_error *err) {
    dz_buf text = {0};
    if (list_text(opt, r, at, &text, err) == DZ_OK && dz_staging_name(draft, opt->list, err) == DZ_OK &&
        dz_staging_begin_file(draft, DZ_TARGET_LIST, err) == DZ_OK)
        dz_staging_write(draft, text.data, text.len, err);
    dz_buf_free(&text);
}

/* All are written before the first gets its name: older ones stay until then. The list comes last. */
static dz_rc write_manifests(const dz_scan_options *opt, dz_scan_result *r, const place *at, dz_error *err) {
    dz_staging *drafts = dz_alloc(r->nmodels + 1, sizeof *drafts, err);
    if (!drafts || name_manifests(opt, r, err) != DZ_OK) goto out;
    for (size_t i = 0; i < r->nmodels && err->rc == DZ_OK; i++) {
        dz_buf text = {0};
        if (r->models[i].manifest && manifest_text(opt, r, i, at, &text, err) == DZ_OK)
            write_draft(&drafts[i], r->models[i].manifest, &text, err);
        dz_buf_free(&text);
    }
    if (opt->list && err->rc == DZ_OK) write_list(opt, r, at, &drafts[r->nmodels], err);
    for (size_t i = 0; i <= r->nmodels && err->rc == DZ_OK; i++) {
        if (drafts[i].made) dz_staging_publish(&drafts[i], 1, err);
    }
out:
    for (size_t i = 0; drafts && i <= r->nmodels; i++) {
        dz_staging_discard(&drafts[i]);
        dz_staging_free(&drafts[i]);
    }
    free(drafts);
    return err->rc;
}

/* --force replaces manifests and lists, nothing else: a model's file least of all. */
static dz_rc check_output(const dz_scan_options *opt, dz_error *err) {
    dz_manifest *old = NULL;
    dz_error none = {0};
    if (opt->list && dz_overwrite_check(opt->list, DZ_TARGET_LIST, opt->force, err) != DZ_OK) return err->rc;
    if (opt->list && dz_staging_check_file(opt->list, DZ_TARGET_LIST, err) != DZ_OK) return err->rc;
    if (!opt->force || dz_target_of(opt->out) == DZ_TARGET_NONE || dz_target_of(opt->out) == DZ_TARGET_EMPTY) return DZ_OK;
    if (dz_manifest_load(opt->out, &old, &none) != DZ_OK)
        dz_fail(err, DZ_EUSAGE, "%s: exists and is not a manifest: it is never replaced", opt->out);
    dz_manifest_free(old);
    return err->rc;
}

dz_rc dz_scan(const dz_world *world, const dz_scan_options *opt, dz_scan_result *r, dz_error *err) {
    dz_weight_fingerprint *sketches = NULL;
    dz_notes notes = {.every = &r->left}; /* on rank 0 */
    place at = {0};
    if (world->rank == 0 && check_output(opt, err) == DZ_OK && find_place(opt, &at, err) == DZ_OK &&
        dz_find_models(opt->dir, r, &notes, err) == DZ_OK && add_outside(opt, r, err) == DZ_OK && dz_base_claims_read(r, err) == DZ_OK)
        drop_adapters(r, &notes, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc != DZ_OK || (rc = share_models(world, r, err)) != DZ_OK) goto out;
    sketches = dz_alloc(r->nmodels, sizeof *sketches, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK || (rc = sketch_all(world, opt, r, sketches, err)) != DZ_OK) goto out;
    if (world->rank == 0) {
        note_bad(r, &notes, err);
        if (group(opt, r, sketches, &notes, err) == DZ_OK) write_manifests(opt, r, &at, err);
    }
    rc = dz_sync_error(world, err->rc, err);
out:
    dz_notes_flush(&notes, &r->notes);
    free_place(&at);
    free(sketches);
    return rc;
}

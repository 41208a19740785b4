#include "synth/synth.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/staging.h"
#include "synth/synth_delta.h"
#include "synth/synth_header.h"

#define PIECE ((size_t)1 << 20) /* elements: 4 MB of F32, the widest type there is */
#define MAX_TASKS 500           /* their files are open together */
#define LAW_SALT 0x6c61776c61776c61ULL
#define INDEX_FILE "model.safetensors.index.json"

/* ---- layout ------------------------------------------------------------------------------------------------------------------------- */

static dz_rc check_options(const dz_synth_options *opt, dz_error *err) {
    if (opt->tasks < 1 || opt->tasks > MAX_TASKS) dz_fail_more(err, DZ_EUSAGE, "%d tasks cannot be had: 1 to %d", opt->tasks, MAX_TASKS);
    if (opt->dtype != DZ_F32 && opt->dtype != DZ_F16 && opt->dtype != DZ_BF16)
        dz_fail_more(err, DZ_EUSAGE, "the element type must be f32, f16 or bf16");
    if (!opt->out_dir || !opt->out_dir[0]) dz_fail_more(err, DZ_EUSAGE, "no directory to write to");
    return err->rc;
}

/* Shards are cut in the order of the model, each as full as it may be. Returns their number. */
static uint32_t cut_shards(const dz_synth_options *opt, dz_synth_layout *layout) {
    uint32_t shard = 0;
    uint64_t used = 0;
    for (size_t i = 0; i < layout->shapes.count; i++) {
        uint64_t nbytes = layout->shapes.items[i].count * dz_dtype_size(opt->dtype);
        if (opt->shard_bytes && used > 0 && used + nbytes > opt->shard_bytes) {
            shard++;
            used = 0;
        }
        used += nbytes;
        layout->places[i] = (dz_synth_place){.tensor = (uint32_t)i, .shard = shard};
    }
    return shard + 1;
}

static int by_shard_and_name(const void *x, const void *y, void *arg) {
    const dz_synth_place *a = x, *b = y;
    const dz_shape *items = arg;
    if (a->shard != b->shard) return a->shard < b->shard ? -1 : 1;
    return strcmp(items[a->tensor].name, items[b->tensor].name);
}

/* Names, header and offsets of shard `s`, whose places begin at `first`. Returns the place after its last, or SIZE_MAX with `err` set. */
static size_t lay_out_shard(const dz_synth_options *opt, dz_synth_layout *layout, size_t s, size_t first, dz_error *err) {
    dz_synth_shard *shard = &layout->shards[s];
    size_t end = first;
    while (end < layout->shapes.count && layout->places[end].shard == s) end++;
    shard->file = layout->nshards == 1 ? dz_strdup("model.safetensors", err)
                                       : dz_format(err, "model-%05zu-of-%05zu.safetensors", s + 1, layout->nshards);
    const dz_shape **tensors = dz_alloc(end - first, sizeof *tensors, err);
    if (!shard->file || !tensors) goto out;
    for (size_t i = first; i < end; i++) tensors[i - first] = &layout->shapes.items[layout->places[i].tensor];
    if (dz_synth_header(tensors, end - first, opt->dtype, &shard->header, err) != DZ_OK) goto out;
    shard->size = shard->header.len;
    for (size_t i = first; i < end; i++) {
        layout->places[i].offset = shard->size;
        shard->size += tensors[i - first]->count * dz_dtype_size(opt->dtype);
    }
out:
    free(tensors);
    return err->rc == DZ_OK ? end : SIZE_MAX;
}

dz_rc dz_synth_layout_new(const dz_synth_options *opt, dz_synth_layout **out, dz_error *err) {
    if (check_options(opt, err) != DZ_OK) return err->rc;
    dz_synth_layout *layout = dz_alloc(1, sizeof *layout, err);
    if (!layout || dz_shape_build(opt->model, opt->layers, &layout->shapes, err) != DZ_OK) goto out;
    layout->places = dz_alloc(layout->shapes.count, sizeof *layout->places, err);
    if (!layout->places) goto out;
    size_t nshards = cut_shards(opt, layout);
    qsort_r(layout->places, layout->shapes.count, sizeof *layout->places, by_shard_and_name, layout->shapes.items);
    if (!(layout->shards = dz_alloc(nshards, sizeof *layout->shards, err))) goto out;
    layout->nshards = nshards;
    for (size_t s = 0, first = 0; s < nshards; s++) {
        if ((first = lay_out_shard(opt, layout, s, first, err)) == SIZE_MAX) goto out;
    }
    layout->total_bytes = layout->shapes.parameters * dz_dtype_size(opt->dtype) * ((uint64_t)opt->tasks + 1);
    *out = layout;
    layout = NULL;
out:
    dz_synth_layout_free(layout);
    return err->rc;
}

void dz_synth_layout_free(dz_synth_layout *layout) {
    if (!layout) return;
    for (size_t s = 0; s < layout->nshards; s++) {
        free(layout->shards[s].file);
        dz_buf_free(&layout->shards[s].header);
    }
    free(layout->shards);
    free(layout->places);
    dz_shape_list_free(&layout->shapes);
    free(layout);
}

/* ---- prepare ------------------------------------------------------------------------------------------------------------------------ */

/* DIR/base for part 0, DIR/task-N for part N; with `file` inside it unless that is NULL. */
static char *part_path(const dz_synth_options *opt, int part, const char *file, dz_error *err) {
    const char *slash = file ? "/" : "", *name = file ? file : "";
    if (part == 0) return dz_format(err, "%s/base%s%s", opt->out_dir, slash, name);
    return dz_format(err, "%s/task-%d%s%s", opt->out_dir, part, slash, name);
}

/* A shard of a part as it is written, before it has its name. */
static char *partial_path(const dz_synth_options *opt, int part, const dz_synth_shard *shard, dz_error *err) {
    char *name = dz_format(err, "%s" DZ_PARTIAL, shard->file), *path = name ? part_path(opt, part, name, err) : NULL;
    free(name);
    return path;
}

static char *manifest_path(const dz_synth_options *opt, dz_error *err) { return dz_format(err, "%s/zoo.yaml", opt->out_dir); }

static int is_dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

static dz_rc refuse_used_dir(const char *path, dz_error *err) {
    DIR *dir = opendir(path);
    if (!dir && errno == ENOENT) return DZ_OK;
    if (!dir) return dz_fail(err, DZ_EFAIL, "%s: cannot open the directory: %s", path, strerror(errno));
    const struct dirent *entry;
    dz_rc rc = DZ_OK;
    while (rc == DZ_OK && (entry = readdir(dir))) {
        if (!is_dots(entry->d_name))
            rc = dz_fail(err, DZ_EUSAGE, "%s: is not empty ('%s'); nothing is written (--force replaces the models in it)", path,
                         entry->d_name);
    }
    closedir(dir);
    return rc;
}

/* Removes model*.safetensors, what a killed run left of such files, and the index: an earlier zoo may have been cut otherwise, and its
 * shards would pass for ours. */
static dz_rc remove_model_files(const char *path, dz_error *err) {
    DIR *dir = opendir(path);
    if (!dir) return dz_fail(err, DZ_EFAIL, "%s: cannot open the directory: %s", path, strerror(errno));
    const struct dirent *entry;
    dz_rc rc = DZ_OK;
    while (rc == DZ_OK && (entry = readdir(dir))) {
        const char *name = entry->d_name;
        int shard = strncmp(name, "model", 5) == 0 && (dz_ends_with(name, ".safetensors") || dz_ends_with(name, ".safetensors" DZ_PARTIAL));
        if (!shard && strcmp(entry->d_name, INDEX_FILE) != 0) continue;
        if (unlinkat(dirfd(dir), entry->d_name, 0) != 0)
            rc = dz_fail(err, DZ_EFAIL, "%s/%s: cannot remove: %s", path, entry->d_name, strerror(errno));
    }
    closedir(dir);
    return rc;
}

/* A file of `size` bytes that begins with `head`. Space is reserved where the file system can, so that a full disk shows at once. */
static dz_rc write_head(const char *path, const void *head, size_t len, uint64_t size, dz_error *err) {
    int fd = dz_open(path, O_WRONLY | O_CREAT | O_TRUNC);
    if (fd < 0) return dz_fail(err, DZ_EFAIL, "%s: cannot create: %s", path, strerror(errno));
    dz_rc rc = dz_pwrite_all(fd, path, head, len, 0, err);
    if (rc == DZ_OK && size > len && fallocate(fd, 0, 0, (off_t)size) != 0) {
        int missing = errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL;
        if (!missing || ftruncate(fd, (off_t)size) != 0)
            rc = dz_fail(err, DZ_EFAIL, "%s: cannot reserve %llu bytes: %s", path, (unsigned long long)size, strerror(errno));
    }
    if (close(fd) != 0 && rc == DZ_OK) rc = dz_fail(err, DZ_EFAIL, "%s: cannot close: %s", path, strerror(errno));
    return rc;
}

static dz_rc write_in_part(const dz_synth_options *opt, int part, const char *file, const dz_buf *bytes, dz_error *err) {
    char *path = part_path(opt, part, file, err);
    dz_rc rc = path ? write_head(path, bytes->data, bytes->len, 0, err) : err->rc;
    free(path);
    return rc;
}

static dz_rc begin_shard(const dz_synth_options *opt, int part, const dz_synth_shard *shard, dz_error *err) {
    char *path = partial_path(opt, part, shard, err);
    dz_rc rc = path ? write_head(path, shard->header.data, shard->header.len, shard->size, err) : err->rc;
    free(path);
    return rc;
}

static dz_rc prepare_part(const dz_synth_options *opt, const dz_synth_layout *layout, int part, const dz_buf *config, const dz_buf *index,
                          dz_error *err) {
    char *path = part_path(opt, part, NULL, err);
    dz_rc rc = path ? dz_make_dirs(path, err) : err->rc;
    if (rc == DZ_OK) rc = remove_model_files(path, err);
    if (rc == DZ_OK) rc = write_in_part(opt, part, "config.json", config, err);
    if (rc == DZ_OK && index->len) rc = write_in_part(opt, part, INDEX_FILE, index, err);
    for (size_t s = 0; s < layout->nshards && rc == DZ_OK; s++) rc = begin_shard(opt, part, &layout->shards[s], err);
    free(path);
    return rc;
}

static dz_rc build_index(const dz_synth_options *opt, const dz_synth_layout *layout, dz_buf *out, dz_error *err) {
    if (layout->nshards == 1) return DZ_OK;
    const char **files = dz_alloc(layout->shapes.count, sizeof *files, err);
    if (!files) return err->rc;
    for (size_t i = 0; i < layout->shapes.count; i++) files[layout->places[i].tensor] = layout->shards[layout->places[i].shard].file;
    dz_rc rc = dz_synth_index(&layout->shapes, files, opt->dtype, out, err);
    free(files);
    return rc;
}

static dz_rc write_manifest(const dz_synth_options *opt, dz_error *err) {
    char line[64], *path = manifest_path(opt, err);
    dz_buf text = {0};
    dz_rc rc = path ? DZ_OK : err->rc;
    snprintf(line, sizeof line, "base: base\ntasks:\n");
    for (int task = 0; task <= opt->tasks && rc == DZ_OK; task++) {
        if (task > 0) snprintf(line, sizeof line, "  - {name: task-%d, path: task-%d}\n", task, task);
        rc = dz_buf_put(&text, line, strlen(line), err);
    }
    if (rc == DZ_OK) rc = write_head(path, text.data, text.len, 0, err);
    dz_buf_free(&text);
    free(path);
    return rc;
}

/* `text` is in the first bytes of the file. */
static int file_has(const char *path, const char *text) {
    char head[4096] = "";
    int fd = dz_open(path, O_RDONLY | O_NONBLOCK);
    ssize_t got = fd >= 0 ? pread(fd, head, sizeof head - 1, 0) : -1;
    if (fd >= 0) close(fd);
    return got > 0 && strstr(head, text) != NULL;
}

/* --force replaces what an earlier synth has made, known by its config.json and the beginning of its manifest, and nothing else. */
static dz_rc check_ours(const dz_synth_options *opt, dz_error *err) {
    char *manifest = manifest_path(opt, err);
    if (manifest && access(manifest, F_OK) == 0 && !file_has(manifest, "base: base\ntasks:\n  - {name: task-1, path: task-1}\n"))
        dz_fail_more(err, DZ_EUSAGE, "%s: exists and is not of deltazoo synth: it is never replaced", manifest);
    for (int part = 0; part <= opt->tasks && manifest; part++) {
        dz_error why = {0};
        char *dir = part_path(opt, part, NULL, err), *config = part_path(opt, part, "config.json", err);
        if (dir && config && refuse_used_dir(dir, &why) == DZ_EUSAGE && !file_has(config, "\"" DZ_SYNTH_MARK "\""))
            dz_fail_more(err, DZ_EUSAGE, "%s: exists and is not a model of deltazoo synth: it is never replaced", dir);
        free(dir);
        free(config);
    }
    free(manifest);
    return err->rc;
}

/* An earlier zoo's, before its models go. */
static dz_rc remove_manifest(const dz_synth_options *opt, dz_error *err) {
    char *path = manifest_path(opt, err);
    if (path && unlink(path) != 0 && errno != ENOENT && errno != ENOTDIR)
        dz_fail(err, DZ_EFAIL, "%s: cannot remove: %s", path, strerror(errno));
    free(path);
    return err->rc;
}

dz_rc dz_synth_prepare(const dz_synth_options *opt, const dz_synth_layout *layout, dz_error *err) {
    dz_buf config = {0}, index = {0};
    dz_rc rc = opt->force ? check_ours(opt, err) : refuse_used_dir(opt->out_dir, err);
    if (rc == DZ_OK && opt->force) rc = remove_manifest(opt, err);
    if (rc == DZ_OK) rc = dz_make_dirs(opt->out_dir, err);
    if (rc == DZ_OK) rc = dz_synth_config(&layout->shapes, opt->dtype, &config, err);
    if (rc == DZ_OK) rc = build_index(opt, layout, &index, err);
    for (int part = 0; part <= opt->tasks && rc == DZ_OK; part++) rc = prepare_part(opt, layout, part, &config, &index, err);
    dz_buf_free(&config);
    dz_buf_free(&index);
    return rc;
}

/* ---- laws --------------------------------------------------------------------------------------------------------------------------- */

enum { SALT_BASE_STD = 1, SALT_DF, SALT_BLOCK, SALT_TENSOR, SALT_TASK, SALT_SMALL };

static double unit(uint64_t key, uint64_t salt) { return (double)(dz_u64_at(key ^ LAW_SALT, salt) >> 11) * 0x1p-53; }

static double log_spread(double low, double high, double where) { return low * pow(high / low, where); }

/* A key of its own for every tensor of every part. */
static uint64_t tensor_key(uint64_t seed, int part, const char *name) {
    return dz_hash64(name, strlen(name), dz_u64_at(seed, (uint64_t)part));
}

static dz_synth_law base_law(const dz_synth_options *opt, const dz_shape *t) {
    uint64_t key = tensor_key(opt->seed, 0, t->name);
    dz_synth_law law = {.key = key, .cols = t->count / t->shape[0], .moved_rows = 1};
    law.mean = t->role == DZ_ROLE_NORM ? 1 : 0;
    law.std = t->role == DZ_ROLE_NORM ? 0.1 : t->role == DZ_ROLE_BIAS ? 0.01 : log_spread(0.014, 0.028, unit(key, SALT_BASE_STD));
    return law;
}

static dz_synth_law delta_law(const dz_synth_options *opt, int task, const dz_shape *t) {
    uint64_t key = tensor_key(opt->seed, task, t->name), zoo_key = tensor_key(opt->seed, 0, t->name);
    uint64_t block_key = dz_u64_at(opt->seed, (uint64_t)(MAX_TASKS + 2 + t->block)); /* shared by a block's tensors and by the tasks */
    int linear = t->role == DZ_ROLE_LINEAR, small = t->role == DZ_ROLE_NORM || t->role == DZ_ROLE_BIAS;
    dz_synth_law law = {.key = key, .cols = t->count / t->shape[0], .moved_rows = t->role == DZ_ROLE_EMBEDDING ? 0.01 : 1};
    law.df = DZ_SYNTH_DF_MIN + (int)(dz_u64_at(block_key ^ LAW_SALT, SALT_DF) % (DZ_SYNTH_DF_MAX - DZ_SYNTH_DF_MIN + 1));
    if (opt->df) law.df = opt->df;
    double where = 0.45 * unit(block_key, SALT_BLOCK) + 0.45 * unit(zoo_key, SALT_TENSOR) + 0.1 * unit(key, SALT_TASK);
    law.std = small ? log_spread(1e-4, 5e-4, unit(key, SALT_SMALL)) : log_spread(1e-4, 2e-3, where);
    law.low_rank = linear ? 0.3 : 0;
    if (linear && opt->gauss) {
        law.df = 0;
        law.low_rank = 0;
    }
    return law;
}

/* ---- fill --------------------------------------------------------------------------------------------------------------------------- */

typedef struct filler {
    const dz_synth_options *opt;
    const dz_synth_layout *layout;
    dz_synth_tables *tables;
    float *base, *task; /* PIECE elements */
    uint8_t *bytes;     /* PIECE elements of the target type */
    float *factor;      /* of the widest matrix */
    int *fds;           /* of base and tasks, in shard `shard`; -1: not open */
    uint32_t shard;
} filler;

static dz_rc filler_init(filler *f, dz_error *err) {
    size_t nparts = (size_t)f->opt->tasks + 1, widest = 0;
    for (size_t i = 0; i < f->layout->shapes.count; i++) {
        dz_synth_law law = delta_law(f->opt, 1, &f->layout->shapes.items[i]);
        if (dz_synth_factor_size(&law) > widest) widest = dz_synth_factor_size(&law);
    }
    f->fds = dz_alloc(nparts, sizeof *f->fds, err);
    for (size_t part = 0; f->fds && part < nparts; part++) f->fds[part] = -1;
    f->base = dz_alloc_raw(PIECE, sizeof *f->base, err);
    f->task = dz_alloc_raw(PIECE, sizeof *f->task, err);
    f->bytes = dz_alloc_raw(PIECE, dz_dtype_size(f->opt->dtype), err);
    f->factor = dz_alloc_raw(widest, sizeof *f->factor, err);
    if (err->rc == DZ_OK) dz_synth_tables_new(&f->tables, err);
    return err->rc;
}

static dz_rc close_files(filler *f, dz_error *err) {
    dz_rc rc = DZ_OK;
    for (int part = 0; f->fds && part <= f->opt->tasks; part++) {
        if (f->fds[part] >= 0 && close(f->fds[part]) != 0)
            rc = dz_fail(err, DZ_EFAIL, "%s: part %d, %s: cannot close: %s", f->opt->out_dir, part, f->layout->shards[f->shard].file,
                         strerror(errno));
        f->fds[part] = -1;
    }
    return rc;
}

static dz_rc filler_done(filler *f, dz_error *err) {
    close_files(f, err);
    free(f->fds);
    free(f->base);
    free(f->task);
    free(f->bytes);
    free(f->factor);
    free(f->tables);
    return err->rc;
}

/* Rounds `values` to the target type, writes them as elements from `first` of the tensor, and leaves the rounded bytes in f->bytes. */
static dz_rc write_values(filler *f, int part, const dz_synth_place *place, const float *values, uint64_t first, size_t count,
                          dz_error *err) {
    size_t width = dz_dtype_size(f->opt->dtype);
    dz_rc rc = DZ_OK;
    char *path = partial_path(f->opt, part, &f->layout->shards[place->shard], err);
    if (!path) return err->rc;
    if (f->fds[part] < 0 && (f->fds[part] = dz_open(path, O_WRONLY)) < 0)
        rc = dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    if (rc == DZ_OK) {
        dz_narrow(f->bytes, values, f->opt->dtype, count);
        rc = dz_pwrite_all(f->fds[part], path, f->bytes, count * width, place->offset + first * width, err);
    }
    free(path);
    return rc;
}

static dz_rc fill_piece(filler *f, const dz_synth_place *place, uint64_t first, size_t count, dz_error *err) {
    const dz_shape *tensor = &f->layout->shapes.items[place->tensor];
    dz_synth_law law = base_law(f->opt, tensor);
    if (place->shard != f->shard && close_files(f, err) != DZ_OK) return err->rc;
    f->shard = place->shard;
    dz_synth_values(f->tables, &law, NULL, first, count, f->base);
    dz_rc rc = write_values(f, 0, place, f->base, first, count, err);
    dz_widen(f->base, f->bytes, f->opt->dtype, count);
    for (int task = 1; task <= f->opt->tasks && rc == DZ_OK; task++) {
        law = delta_law(f->opt, task, tensor);
        dz_synth_factor(f->tables, &law, f->factor);
        dz_synth_values(f->tables, &law, f->factor, first, count, f->task);
        for (size_t i = 0; i < count; i++) f->task[i] = f->task[i] != 0 ? f->base[i] + f->task[i] : f->base[i]; /* -0.0 stays -0.0 */
        rc = write_values(f, task, place, f->task, first, count, err);
    }
    if (rc != DZ_OK || !f->opt->on_written) return rc;
    uint64_t nbytes = count * dz_dtype_size(f->opt->dtype) * ((uint64_t)f->opt->tasks + 1);
    return f->opt->on_written(f->opt->arg, nbytes) == 0
               ? DZ_OK
               : dz_fail(err, DZ_EINTERRUPT, "%s: stopped; the zoo is not complete", f->opt->out_dir);
}

dz_rc dz_synth_fill(const dz_synth_options *opt, const dz_synth_layout *layout, int rank, int nranks, dz_error *err) {
    filler f = {.opt = opt, .layout = layout};
    uint64_t piece = 0; /* over all tensors, so that ranks share small tensors too */
    if (filler_init(&f, err) != DZ_OK) goto out;
    for (size_t i = 0; i < layout->shapes.count; i++) {
        uint64_t count = layout->shapes.items[layout->places[i].tensor].count;
        for (uint64_t first = 0; first < count; first += PIECE, piece++) {
            if (piece % (uint64_t)nranks != (uint64_t)rank) continue;
            size_t n = count - first < PIECE ? (size_t)(count - first) : PIECE;
            if (fill_piece(&f, &layout->places[i], first, n, err) != DZ_OK) goto out;
        }
    }
out:
    return filler_done(&f, err);
}

dz_rc dz_synth_finish(const dz_synth_options *opt, const dz_synth_layout *layout, dz_error *err) {
    for (int part = 0; part <= opt->tasks; part++) {
        for (size_t s = 0; s < layout->nshards && err->rc == DZ_OK; s++) {
            char *from = partial_path(opt, part, &layout->shards[s], err), *to = part_path(opt, part, layout->shards[s].file, err);
            if (from && to) dz_staging_rename(from, to, 0, err);
            free(from);
            free(to);
        }
    }
    return err->rc == DZ_OK ? write_manifest(opt, err) : err->rc;
}

dz_rc dz_synth(const dz_synth_options *opt, dz_error *err) {
    dz_synth_layout *layout = NULL;
    dz_rc rc = dz_synth_layout_new(opt, &layout, err);
    if (rc == DZ_OK) rc = dz_synth_prepare(opt, layout, err);
    if (rc == DZ_OK) rc = dz_synth_fill(opt, layout, 0, 1, err);
    if (rc == DZ_OK) rc = dz_synth_finish(opt, layout, err);
    dz_synth_layout_free(layout);
    return rc;
}

void dz_synth_undo(const dz_synth_options *opt, int existed) {
    dz_error none = {0};
    for (int t = 0; t <= opt->tasks + 1 && !opt->force; t++) {
        char *path = t == 0            ? dz_format(&none, "%s/base", opt->out_dir)
                     : t <= opt->tasks ? dz_format(&none, "%s/task-%d", opt->out_dir, t)
                                       : dz_format(&none, "%s/zoo.yaml", opt->out_dir);
        if (path) dz_remove_tree(path);
        free(path);
    }
    if (!existed && !opt->force) rmdir(opt->out_dir);
}

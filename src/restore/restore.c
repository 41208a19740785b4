#include "restore/restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/overwrite.h"
#include "checkpoint/header.h"
#include "config/zoo.h"
#include "decode/merge.h"
#include "decode/tile_decoder.h"
#include "parallel/progress.h"

dz_rc dz_archive_open_all(const dz_world *world, const char *path, dz_archive **out, dz_error *err) {
    return dz_sync_error(world, dz_archive_open_partly(path, out, err), err);
}

dz_rc dz_archive_task(const dz_archive *a, const char *name, const dz_task_entry **out, dz_error *err) {
    int64_t at = dz_catalog_find(a->catalog, name);
    if (at >= 0) {
        *out = &a->catalog->tasks[at];
        return DZ_OK;
    }
    for (size_t i = 0; i < a->catalog->nlost; i++) {
        if (strcmp(a->catalog->lost[i].name, name) == 0) return dz_fail(err, DZ_EDAMAGE, "%s", a->catalog->lost[i].text);
    }
    char known[512] = "";
    for (size_t t = 0; t < a->catalog->ntasks && strlen(known) < 400; t++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", t ? ", " : "", a->catalog->tasks[t].name);
    return dz_fail(err, DZ_EUSAGE, "%s: no task '%s' (it has: %s)", a->path, name, known);
}

dz_rc dz_agree_on_base(const dz_world *world, const dz_archive *a, const char *base_path, const uint8_t *differs, dz_error *err) {
    const dz_catalog *c = a->catalog;
    int32_t *any = dz_alloc(c->nbase, sizeof *any, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) {
        char names[600] = "";
        size_t n = 0;
        for (size_t i = 0; i < c->nbase; i++) any[i] = differs[i];
        dz_max_i32(world, any, c->nbase);
        for (size_t i = 0; i < c->nbase; i++) {
            if (any[i] && n++ < 3)
                snprintf(names + strlen(names), sizeof names - strlen(names), "%s'%s'", n > 1 ? ", " : "",
                         c->tensors[c->base[i].tensor].name);
        }
        if (n)
            rc = dz_fail(err, DZ_EFAIL,
                         "%s: not the base of this archive (the `base` of its manifest): %zu tensors differ, the first are %s", base_path,
                         n, names);
    }
    free(any);
    return rc;
}

typedef struct out_file {
    char *name, *path; /* within the directory; where it is made */
    int fd;
    int must_equal; /* rank 0: a file of this name that is not known to be ours is there; it is replaced only by its own bytes */
} out_file;

typedef struct out_tensor {
    uint32_t row, file;
    uint64_t offset; /* in the file */
} out_tensor;

typedef struct restore {
    const dz_world *world;
    const dz_restore_options *opt;
    dz_archive *archive;
    const dz_task_entry *task; /* the first one: its files are made */
    dz_merge merge;
    dz_checkpoint *base;
    char *partial;
    out_file *files; /* all that are made */
    size_t nfiles;
    dz_damage damage;
    out_tensor *tensors;
    size_t ntensors;
    dz_decoder decoder;
    uint64_t nbytes;
    size_t kept_prefix; /* of `partial`: the part that existed before */
    int made;
} restore;

#define INDEX_SUFFIX ".safetensors.index.json"

/* The tensors of one restored safetensors file, by its header. */
static dz_rc place_tensors(restore *r, const dz_file_row *file, const char *header, size_t len, const dz_lookup *rows, dz_error *err) {
    dz_tensor *tensors = NULL;
    size_t n = 0, before = r->ntensors;
    if (len < 8 || file->size < len)
        return dz_fail(err, DZ_EDAMAGE, "%s: task '%s': the header of '%s' is cut short", r->archive->path, r->task->name, file->path);
    if (dz_safetensors_parse(file->path, header + 8, len - 8, file->size, 0, &tensors, &n, err) != DZ_OK ||
        dz_file_prefix_tensors(file, tensors, n, err) != DZ_OK)
        goto out;
    out_tensor *grown = realloc(r->tensors, (r->ntensors + n + 1) * sizeof *grown);
    if (!grown) {
        dz_fail(err, DZ_ENOMEM, "out of memory for %zu tensors", n);
        goto out;
    }
    r->tensors = grown;
    for (size_t i = 0; i < n; i++) {
        const dz_tensor *t = &tensors[i];
        const dz_index_row *row = dz_task_row(r->archive->catalog, r->task, rows, t);
        if (!row) {
            dz_fail(err, DZ_EDAMAGE, "%s: task '%s': tensor '%s' of '%s' is not in its index", r->archive->path, r->task->name, t->name,
                    file->path);
            r->ntensors = before;
            goto out;
        }
        grown[r->ntensors++] = (out_tensor){.row = (uint32_t)(row - r->task->rows), .file = (uint32_t)r->nfiles, .offset = t->offset};
    }
    for (size_t i = 0; i < n; i++) r->nbytes += tensors[i].nbytes;
out:
    dz_tensors_free(tensors, n);
    return err->rc;
}

static dz_rc add_out_file(restore *r, const char *path, dz_error *err) {
    out_file *grown = realloc(r->files, (r->nfiles + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "out of memory");
    r->files = grown;
    grown[r->nfiles] = (out_file){.fd = -1, .name = dz_strdup(path, err), .path = dz_format(err, "%s/%s", r->partial, path)};
    r->nfiles++;
    return err->rc;
}

/* Rank 0: makes a file of the given size that begins with `head`. */
static dz_rc make_file(const restore *r, const char *name, const void *head, size_t len, uint64_t size, dz_error *err) {
    char *path = dz_format(err, "%s/%s", r->partial, name);
    if (path) dz_make_file(path, head, len, size, err);
    free(path);
    return err->rc;
}

/* The file whose places are known: noted by all ranks, made by rank 0. */
static dz_rc add_file(restore *r, const char *name, const void *head, size_t len, uint64_t size, dz_error *err) {
    if (add_out_file(r, name, err) == DZ_OK && r->world->rank == 0) make_file(r, name, head, len, size, err);
    return err->rc;
}

/* The task's first safetensors file or index, whose metadata new ones take over. NULL where there is none, or it is damaged. The caller
 * frees. */
static char *first_file(const restore *r, uint32_t kind, const char *suffix, size_t *len) {
    char *bytes = NULL;
    for (size_t i = 0; i < r->task->nfiles && !bytes; i++) {
        dz_error none = {0};
        const dz_file_row *f = &r->task->files[i];
        if (f->kind == kind && dz_ends_with(f->path, suffix)) dz_catalog_blob(r->archive->catalog, f->blob, &bytes, len, &none);
    }
    return bytes;
}

/* A safetensors file of tensors whose rows are given, with a header of our own. */
static dz_rc add_rows(restore *r, const char *name, const uint32_t *rows, size_t n, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    dz_buf header = {0};
    dz_tensor *list = dz_alloc(n, sizeof *list, err);
    out_tensor *grown = list ? realloc(r->tensors, (r->ntensors + n + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(list);
        return dz_fail(err, DZ_ENOMEM, "out of memory for %zu tensors", n);
    }
    r->tensors = grown;
    size_t like_len = 0;
    char *like = first_file(r, DZ_FILE_SAFETENSORS, "", &like_len);
    for (size_t i = 0; i < n; i++) list[i] = dz_tensor_of_row(&c->tensors[r->task->rows[rows[i]].tensor]);
    if (dz_safetensors_header(list, n, (dz_like){.text = like, .len = like_len}, &header, err) == DZ_OK) {
        uint64_t at = header.len;
        for (size_t i = 0; i < n; i++) {
            grown[r->ntensors++] = (out_tensor){.row = rows[i], .file = (uint32_t)r->nfiles, .offset = at};
            at += list[i].nbytes;
            r->nbytes += list[i].nbytes;
        }
        add_file(r, name, header.data, header.len, at, err);
    }
    free(list);
    free(like);
    dz_buf_free(&header);
    return err->rc;
}

/* One file of the task. With keep_going, a damaged one is recorded and left out, and `*headless` (unless it has one) is its name if it
 * has tensors. */
static dz_rc plan_file(restore *r, const dz_file_row *f, const dz_lookup *rows, const char **headless, dz_error *err) {
    dz_error inner = {0};
    char *bytes = NULL;
    size_t len = 0;
    if (dz_catalog_blob(r->archive->catalog, f->blob, &bytes, &len, &inner) == DZ_OK) {
        if (f->kind == DZ_FILE_SIDE && f->size != len)
            dz_fail(&inner, DZ_EDAMAGE, "%s: file '%s' has another size", r->archive->path, f->path);
        if (f->kind == DZ_FILE_SAFETENSORS) place_tensors(r, f, bytes, len, rows, &inner);
    }
    if (inner.rc == DZ_OK) {
        add_file(r, f->path, bytes, len, f->size, err);
    } else if (!r->opt->keep_going || inner.rc == DZ_ENOMEM) {
        dz_fail(err, inner.rc == DZ_EFAIL ? DZ_EDAMAGE : inner.rc, "%s", inner.text);
    } else {
        char *text = dz_format(err, "%s: file '%s' %s", inner.text, f->path,
                               f->kind == DZ_FILE_SIDE ? "is left out" : "has lost its header: its tensors get one made anew");
        if (text && r->world->rank == 0) dz_damage_add(&r->damage, r->task->name, NULL, -1, text);
        free(text);
        if (f->kind == DZ_FILE_SAFETENSORS && !*headless) *headless = f->path;
    }
    free(bytes);
    return err->rc;
}

/* The tensors that no header claims: into one file. */
static dz_rc plan_headless(restore *r, const char *name, dz_error *err) {
    size_t n = 0;
    uint8_t *claimed = dz_alloc(r->task->nrows, 1, err);
    uint32_t *rows = dz_alloc(r->task->nrows, sizeof *rows, err);
    for (size_t i = 0; claimed && i < r->ntensors; i++) claimed[r->tensors[i].row] = 1;
    for (size_t i = 0; claimed && rows && i < r->task->nrows; i++) {
        if (!claimed[i] && r->task->rows[i].policy != DZ_POLICY_ABSENT) rows[n++] = (uint32_t)i;
    }
    if (n) add_rows(r, name, rows, n, err);
    free(claimed);
    free(rows);
    return err->rc;
}

/* The table of files is damaged. */
static dz_rc tell_lost_files(restore *r, const char *what, dz_error *err) {
    if (!r->opt->keep_going) return dz_fail(err, DZ_EDAMAGE, "%s", r->task->files_lost);
    char *text = dz_format(err, "%s: %sside files are left out", r->task->files_lost, what);
    if (text && r->world->rank == 0) dz_damage_add(&r->damage, r->task->name, NULL, -1, text);
    free(text);
    return err->rc;
}

static dz_rc plan_whole_task(restore *r, dz_error *err) {
    const char *headless = NULL;
    dz_lookup rows = {0};
    if (r->task->files_lost) {
        if (tell_lost_files(r, "all tensors go into one file, ", err) != DZ_OK) return err->rc;
        headless = "model.safetensors";
    }
    dz_task_rows(r->archive->catalog, r->task, &rows, err);
    for (size_t i = 0; i < r->task->nfiles && err->rc == DZ_OK; i++) plan_file(r, &r->task->files[i], &rows, &headless, err);
    dz_lookup_free(&rows);
    if (headless && err->rc == DZ_OK) plan_headless(r, headless, err);
    return err->rc;
}

static dz_rc plan_some_tensors(restore *r, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    size_t n = 0;
    uint32_t *rows = dz_alloc(r->task->nrows, sizeof *rows, err);
    for (size_t i = 0; rows && i < r->task->nrows; i++) {
        const dz_index_row *row = &r->task->rows[i];
        if (row->policy != DZ_POLICY_ABSENT && fnmatch(r->opt->tensors, c->tensors[row->tensor].name, 0) == 0) rows[n++] = (uint32_t)i;
    }
    if (rows && n == 0)
        dz_fail(err, DZ_EUSAGE, "%s: task '%s' has no tensor that matches '%s' (deltazoo info --task lists them)", r->archive->path,
                r->task->name, r->opt->tensors);
    else if (rows)
        add_rows(r, "model.safetensors", rows, n, err);
    free(rows);
    return err->rc;
}

/* The side files, but for an index: the shards it tells of are not made. */
static dz_rc plan_side_files(restore *r, dz_error *err) {
    for (size_t i = 0; i < r->task->nfiles && err->rc == DZ_OK; i++) {
        const dz_file_row *f = &r->task->files[i];
        int is_index = dz_ends_with(f->path, INDEX_SUFFIX) && !strchr(f->path, '/'); /* a part keeps its own */
        if (f->kind == DZ_FILE_SIDE && !is_index) plan_file(r, f, NULL, NULL, err);
    }
    return err->rc;
}

/* Where shards of at most max_shard bytes of tensors begin among `rows`, each as full as it may be; how many. first[n] is the end. */
static size_t cut_shards(const restore *r, const uint32_t *rows, size_t n, size_t *first) {
    size_t nshards = 0;
    uint64_t held = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t nbytes = r->archive->catalog->tensors[r->task->rows[rows[i]].tensor].nbytes;
        if (i == 0 || held + nbytes > r->opt->max_shard) {
            first[nshards++] = i;
            held = 0;
        }
        held += nbytes;
    }
    first[nshards] = n;
    return nshards;
}

/* The files of a pipeline's parts stay as they are. `claimed`: of each row, whether its tensor is in one of them. */
static dz_rc plan_parts(restore *r, uint8_t *claimed, dz_error *err) {
    const char *headless = NULL;
    dz_lookup rows = {0};
    dz_task_rows(r->archive->catalog, r->task, &rows, err);
    for (size_t i = 0; i < r->task->nfiles && err->rc == DZ_OK; i++) {
        if (r->task->files[i].prefix) plan_file(r, &r->task->files[i], &rows, &headless, err);
    }
    dz_lookup_free(&rows);
    for (size_t i = 0; i < r->ntensors; i++) claimed[r->tensors[i].row] = 1;
    return err->rc;
}

/* The tensors in their order in new shards, with an index where there are several, and the side files. */
static dz_rc plan_new_shards(restore *r, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    size_t n = 0, nrows = r->task->nrows, nshards = 0;
    uint32_t *rows = dz_alloc(nrows, sizeof *rows, err);
    size_t *first = dz_alloc(nrows + 1, sizeof *first, err);
    dz_tensor *tensors = dz_alloc(nrows, sizeof *tensors, err);
    const char **files = dz_alloc(nrows, sizeof *files, err);
    dz_buf index = {0};
    char *like = NULL;
    size_t like_len = 0;
    uint8_t *claimed = dz_alloc(nrows, 1, err);
    if (r->task->files_lost) tell_lost_files(r, "", err);
    if (err->rc != DZ_OK || plan_parts(r, claimed, err) != DZ_OK) goto out;
    size_t before = r->nfiles; /* of the parts */
    for (size_t i = 0; i < nrows; i++) {
        if (r->task->rows[i].policy == DZ_POLICY_ABSENT || claimed[i]) continue;
        tensors[n] = dz_tensor_of_row(&c->tensors[r->task->rows[i].tensor]);
        rows[n++] = (uint32_t)i;
    }
    nshards = n ? cut_shards(r, rows, n, first) : 0;
    for (size_t s = 0; s < nshards && err->rc == DZ_OK; s++) {
        char *name =
            nshards == 1 ? dz_strdup("model.safetensors", err) : dz_format(err, "model-%05zu-of-%05zu.safetensors", s + 1, nshards);
        if (name) add_rows(r, name, rows + first[s], first[s + 1] - first[s], err);
        free(name);
    }
    for (size_t s = 0; s < nshards && err->rc == DZ_OK; s++) {
        for (size_t i = first[s]; i < first[s + 1]; i++) files[i] = r->files[before + s].name;
    }
    like = first_file(r, DZ_FILE_SIDE, INDEX_SUFFIX, &like_len);
    if (nshards > 1 && err->rc == DZ_OK &&
        dz_safetensors_index(tensors, files, n, (dz_like){.text = like, .len = like_len}, &index, err) == DZ_OK)
        add_file(r, "model.safetensors.index.json", index.data, index.len, index.len, err);
    plan_side_files(r, err);
out:
    dz_buf_free(&index);
    free(claimed);
    free(like);
    free(rows);
    free(first);
    free(tensors);
    free(files);
    return err->rc;
}

/* With keep_going: what takes the place of a lost tile, and a line about it. A tensor whose table of blocks is lost has one line. */
static dz_rc substitute(restore *r, const dz_index_row *row, uint32_t tile, int whole, void *out, const char *why, dz_error *err) {
    const dz_tensor_row *t = &r->archive->catalog->tensors[row->tensor];
    dz_pair_tiles tiles = dz_row_work(r->archive->catalog, row);
    unsigned long long first = dz_tile_first(&tiles, tile), last = first + dz_tile_count(&tiles, tile) - 1;
    const char *what = tile < tiles.ncommon ? "the base's values" : "zeros";
    char *text = whole ? dz_format(err, "%s: all its elements get %s", why, tiles.ncommon ? "the base's values, zeros beyond it" : "zeros")
                       : dz_format(err, "%s: elements %llu to %llu get %s", why, first, last, what);
    if (text && (!whole || tile == 0)) dz_damage_add(&r->damage, r->task->name, t->name, whole ? -1 : (int64_t)tile, text);
    free(text);
    return err->rc == DZ_OK ? dz_decode_substitute(&r->decoder, row, tile, out, err) : err->rc;
}

/* Where the next bytes of a tensor go. */
typedef struct place {
    restore *r;
    const out_tensor *tensor;
    uint64_t at; /* in the tensor */
} place;

static dz_rc write_next(void *arg, const void *bytes, size_t len, dz_error *err) {
    place *p = arg;
    out_file *f = &p->r->files[p->tensor->file];
    if (f->fd < 0 && (f->fd = dz_open(f->path, O_WRONLY)) < 0)
        return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", f->path, strerror(errno));
    if (dz_pwrite_all(f->fd, f->path, bytes, len, p->tensor->offset + p->at, err) == DZ_OK) p->at += len;
    return err->rc;
}

/* Into its place; `out` is scratch. */
static dz_rc restore_tile(restore *r, const dz_index_row *row, uint32_t tile, place to, dz_buf *out, dz_error *err) {
    dz_error inner = {0};
    dz_pair_tiles tiles = dz_row_work(r->archive->catalog, row);
    size_t size = dz_dtype_size(dz_tensor_of_row(&r->archive->catalog->tensors[row->tensor]).dtype);
    size_t len = (size_t)dz_tile_count(&tiles, tile) * size;
    int has_region = row->policy == DZ_POLICY_LOSSLESS || row->policy == DZ_POLICY_ULTRADELTA;
    int whole = has_region && dz_decoder_region(&r->decoder, r->task, row, &inner) != DZ_OK;
    to.at = dz_tile_first(&tiles, tile) * size;
    if (inner.rc == DZ_OK && dz_merge_is_plain(&r->merge)) {
        if (dz_decode_tile_to(&r->decoder, r->task, row, tile, write_next, &to, &inner) == DZ_OK) return DZ_OK;
    } else if (inner.rc == DZ_OK) {
        out->len = 0;
        if (dz_buf_reserve(out, len, &inner) == DZ_OK && dz_merge_tile(&r->merge, &r->decoder, row, tile, out->data, &inner) == DZ_OK)
            return write_next(&to, out->data, len, err);
    }
    if (!r->opt->keep_going || inner.rc != DZ_EDAMAGE) return dz_fail(err, inner.rc, "%s", inner.text);
    out->len = 0;
    if (dz_buf_reserve(out, len, err) != DZ_OK || substitute(r, row, tile, whole, out->data, inner.text, err) != DZ_OK) return err->rc;
    return write_next(&to, out->data, len, err);
}

/* What a tile costs, in bytes that are only copied: to decode one byte of a block takes as long as to copy ten or so. */
static double tile_cost(const dz_index_row *row, const dz_pair_tiles *tiles, size_t len) {
    return (double)len + 10 * (double)row->length / tiles->ntiles;
}

static double task_cost(const restore *r) {
    double sum = 0;
    for (size_t i = 0; i < r->ntensors; i++) {
        const dz_index_row *row = dz_row_source(r->task, &r->task->rows[r->tensors[i].row]);
        dz_pair_tiles tiles = dz_row_work(r->archive->catalog, row);
        if (tiles.ntiles) sum += tile_cost(row, &tiles, 0) * tiles.ntiles;
    }
    return sum + (double)r->nbytes;
}

/* This rank's share: a contiguous run of the task's bytes, cut at tiles. */
static dz_rc fill(restore *r, dz_progress *progress, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    dz_buf out = {0};
    double walked = 0, total = task_cost(r);
    for (size_t i = 0; i < r->ntensors && err->rc == DZ_OK; i++) {
        const dz_index_row *row = dz_row_source(r->task, &r->task->rows[r->tensors[i].row]);
        dz_pair_tiles tiles = dz_row_work(c, row);
        size_t size = dz_dtype_size(dz_tensor_of_row(&c->tensors[row->tensor]).dtype);
        for (uint32_t tile = 0; tile < tiles.ntiles && err->rc == DZ_OK; tile++) {
            size_t len = (size_t)dz_tile_count(&tiles, tile) * size;
            double cost = tile_cost(row, &tiles, len);
            int home = (int)((walked + cost / 2) / total * r->world->size);
            walked += cost;
            if (home != r->world->rank) continue;
            if (restore_tile(r, row, tile, (place){.r = r, .tensor = &r->tensors[i]}, &out, err) != DZ_OK) break;
            dz_progress_add(progress, (double)len);
        }
    }
    for (size_t i = 0; i < r->nfiles; i++) {
        if (r->files[i].fd < 0) continue;
        if (!r->opt->no_sync && dz_fsync(r->files[i].fd) != 0)
            dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", r->files[i].path, strerror(errno));
        close(r->files[i].fd);
        r->files[i].fd = -1;
    }
    dz_buf_free(&out);
    return err->rc;
}

static dz_rc check_output(const dz_restore_options *opt, dz_error *err) {
    DIR *dir = opendir(opt->out);
    int entries = 0;
    if (!dir && errno != ENOENT) return dz_fail(err, DZ_EUSAGE, "%s: exists and is not a directory that can be read", opt->out);
    for (struct dirent *e; dir && (e = readdir(dir));) entries += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (dir) closedir(dir);
    if (entries && !opt->force)
        return dz_fail(err, DZ_EUSAGE, "%s: exists and is not empty (--force replaces an earlier restore's files)", opt->out);
    return DZ_OK;
}

static dz_rc cannot_replace(const char *path, dz_error *err) {
    return dz_fail(err, DZ_EUSAGE, "%s: exists and is not of deltazoo restore: it is never replaced; restore into another folder", path);
}

/* Rank 0: --force replaces what an earlier restore has made, and nothing else: not what this one is made from, not an original. A file that
 * carries no mark may be an exact model's: it is replaced if it has the same bytes, which is looked at in the end. */
static dz_rc check_replaced(restore *r, dz_error *err) {
    for (size_t i = 0; i < r->nfiles && err->rc == DZ_OK; i++) {
        struct stat old, new;
        char *path = dz_format(err, "%s/%s", r->opt->out, r->files[i].name);
        if (path && stat(path, &old) == 0) {
            dz_target kind = dz_target_of(path);
            if (dz_same_file(path, r->archive->path))
                dz_fail(err, DZ_EUSAGE, "%s: is the archive: nothing is written over it", path);
            else if (dz_check_not_of_model(r->base, path, err) == DZ_OK && kind != DZ_TARGET_MODEL && kind != DZ_TARGET_EMPTY)
                r->files[i].must_equal = 1;
            if (r->files[i].must_equal && (!S_ISREG(old.st_mode) || stat(r->files[i].path, &new) != 0 || old.st_size != new.st_size))
                cannot_replace(path, err);
        }
        free(path);
    }
    return err->rc;
}

#define COMPARED ((size_t)1 << 20)

static dz_rc check_equal(const char *old, const char *new, dz_error *err) {
    struct stat st;
    uint8_t *a = dz_alloc_raw(COMPARED, 1, err), *b = dz_alloc_raw(COMPARED, 1, err);
    int x = dz_open(old, O_RDONLY), y = dz_open(new, O_RDONLY);
    if (x < 0 || y < 0 || fstat(x, &st) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", old, strerror(errno));
    for (uint64_t at = 0; err->rc == DZ_OK && at < (uint64_t)st.st_size; at += COMPARED) {
        size_t len = (uint64_t)st.st_size - at < COMPARED ? (size_t)((uint64_t)st.st_size - at) : COMPARED;
        if (dz_pread_all(x, old, a, len, at, err) == DZ_OK && dz_pread_all(y, new, b, len, at, err) == DZ_OK && memcmp(a, b, len) != 0)
            cannot_replace(old, err);
    }
    if (x >= 0) close(x);
    if (y >= 0) close(y);
    free(a);
    free(b);
    return err->rc;
}

/* Rank 0: before the first file takes its place. */
static dz_rc check_all_equal(const restore *r, dz_error *err) {
    for (size_t i = 0; i < r->nfiles && err->rc == DZ_OK; i++) {
        char *path = r->files[i].must_equal ? dz_format(err, "%s/%s", r->opt->out, r->files[i].name) : NULL;
        if (path) check_equal(path, r->files[i].path, err);
        free(path);
    }
    return err->rc;
}

#define MARKER ".deltazoo-restore" /* in a directory that a restore is filling: what has it may be removed */

static char *marker_path(const restore *r, dz_error *err) { return dz_format(err, "%s/%s", r->partial, MARKER); }

/* A directory that is new, and so nobody else's: its name can be guessed. */
static dz_rc make_own_dir(char *path, dz_error *err) {
    char *slash = strrchr(path, '/');
    if (slash && slash != path) {
        *slash = '\0';
        dz_make_dirs(path, err);
        *slash = '/';
    }
    if (err->rc == DZ_OK && mkdir(path, 0777) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot make the directory: %s", path, strerror(errno));
    return err->rc;
}

/* Rank 0: an empty, marked DIR.partial. One left by a killed restore is removed; anything else of that name is refused. */
static dz_rc make_partial(restore *r, dz_error *err) {
    char *marker = marker_path(r, err);
    if (!marker) return err->rc;
    for (size_t len = strlen(r->partial); len > 0; len--) { /* the first ancestor that exists: what is below it is ours to remove again */
        if (r->partial[len] != '/') continue;
        r->partial[len] = '\0';
        int exists = access(r->partial, F_OK) == 0;
        r->partial[len] = '/';
        r->kept_prefix = len;
        if (exists) break;
        r->kept_prefix = 0;
    }
    if (access(r->partial, F_OK) == 0 && access(marker, F_OK) != 0) {
        dz_fail(err, DZ_EUSAGE, "%s: exists and is not a restore's leftover; remove it first", r->partial);
    } else {
        dz_remove_tree(r->partial);
        r->made = 1;
        if (make_own_dir(r->partial, err) == DZ_OK) {
            int fd = dz_open(marker, O_WRONLY | O_CREAT | O_EXCL);
            if (fd < 0)
                dz_fail(err, DZ_EFAIL, "%s: cannot create: %s", marker, strerror(errno));
            else
                close(fd);
        }
    }
    free(marker);
    return err->rc;
}

/* Rank 0: removes what a failed restore made, and the directories above it that were not there before. */
static void remove_partial(restore *r) {
    dz_remove_tree(r->partial);
    for (size_t len = strlen(r->partial); len > r->kept_prefix; len--) {
        if (r->partial[len] != '/') continue;
        r->partial[len] = '\0';
        int rc = rmdir(r->partial);
        r->partial[len] = '/';
        if (rc != 0) return;
    }
}

/* Rank 0: DIR.partial becomes DIR; into a directory that has files, file by file. */
static dz_rc publish(restore *r, dz_error *err) {
    char *marker = marker_path(r, err);
    if (check_all_equal(r, err) == DZ_OK && marker) unlink(marker);
    free(marker);
    if (err->rc != DZ_OK) return err->rc;
    if (dz_rename(r->partial, r->opt->out) == 0) return r->opt->no_sync ? DZ_OK : dz_fsync_parent(r->opt->out, err);
    for (size_t i = 0; i < r->nfiles && err->rc == DZ_OK; i++) {
        const char *name = r->files[i].name;
        char *from = dz_format(err, "%s/%s", r->partial, name), *to = dz_format(err, "%s/%s", r->opt->out, name),
             *slash = to ? strrchr(to, '/') : NULL;
        if (slash) {
            *slash = '\0';
            dz_make_dirs(to, err);
            *slash = '/';
        }
        if (err->rc == DZ_OK && dz_rename(from, to) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot rename to %s: %s", from, to, strerror(errno));
        free(from);
        free(to);
    }
    if (err->rc == DZ_OK) dz_remove_tree(r->partial);
    return err->rc;
}

static void restore_free(restore *r) {
    for (size_t i = 0; i < r->nfiles; i++) {
        if (r->files[i].fd >= 0) close(r->files[i].fd);
        free(r->files[i].name);
        free(r->files[i].path);
    }
    free(r->files);
    dz_damage_free(&r->damage);
    dz_merge_free(&r->merge);
    free(r->tensors);
    free(r->partial);
    dz_decoder_close(&r->decoder);
    dz_checkpoint_free(r->base);
    dz_archive_close(r->archive);
}

/* All tasks that are to be added up; the first gives the files. Alike on every rank. */
static dz_rc choose_tasks(restore *r, dz_error *err) {
    const dz_restore_options *opt = r->opt;
    r->merge.sign_consensus = opt->sign_consensus;
    r->merge.tasks = dz_alloc(opt->ntasks, sizeof *r->merge.tasks, err);
    r->merge.weights = dz_alloc(opt->ntasks, sizeof *r->merge.weights, err);
    for (size_t t = 0; t < opt->ntasks && err->rc == DZ_OK; t++) {
        r->merge.weights[t] = opt->weights[t];
        r->merge.ntasks++;
        dz_archive_task(r->archive, opt->tasks[t], &r->merge.tasks[t], err);
    }
    if (err->rc == DZ_OK) r->task = r->merge.tasks[0];
    return err->rc;
}

/* Base rows that the chosen tensors need. */
static dz_rc open_decoder(restore *r, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    uint8_t *needed = dz_alloc(c->nbase, 1, err);
    for (size_t t = 0; needed && t < r->merge.ntasks; t++) {
        for (size_t i = 0; i < r->merge.tasks[t]->nrows; i++) {
            const dz_index_row *row = &r->merge.tasks[t]->rows[i], *source = dz_row_source(r->merge.tasks[t], row);
            if (source->base == DZ_NO_BASE || row->policy == DZ_POLICY_ABSENT) continue;
            needed[source->base] |= !r->opt->tensors || fnmatch(r->opt->tensors, c->tensors[row->tensor].name, 0) == 0;
        }
    }
    if (needed) dz_decoder_open(&r->decoder, r->archive, r->base, needed, err);
    free(needed);
    return err->rc;
}

dz_rc dz_restore(const dz_world *world, const dz_restore_options *opt, dz_restore_result *result, dz_error *err) {
    double begun = dz_now();
    restore r = {.world = world, .opt = opt};
    dz_progress progress;
    dz_rc rc = dz_sync_error(world, world->rank == 0 ? check_output(opt, err) : DZ_OK, err);
    if (rc != DZ_OK || (rc = dz_archive_open_all(world, opt->archive, &r.archive, err)) != DZ_OK) goto out;
    if ((rc = dz_sync_error(world, choose_tasks(&r, err), err)) != DZ_OK) goto out;
    if ((rc = dz_checkpoint_open_all(world, opt->base, &r.base, err)) != DZ_OK) goto out;
    if ((rc = dz_sync_error(world, open_decoder(&r, err), err)) != DZ_OK) goto out;
    size_t name_len = strlen(opt->out);
    while (name_len > 1 && opt->out[name_len - 1] == '/') name_len--; /* "r/" and "r" are one place */
    r.partial = dz_format(err, "%.*s.partial", (int)name_len, opt->out);
    if (r.partial && world->rank == 0) make_partial(&r, err);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    rc = dz_sync_error(world,
                       opt->tensors     ? plan_some_tensors(&r, err)
                       : opt->max_shard ? plan_new_shards(&r, err)
                                        : plan_whole_task(&r, err),
                       err);
    if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? check_replaced(&r, err) : DZ_OK, err);
    if (rc != DZ_OK) goto out;
    dz_progress_begin(&progress, world, "restore", (double)r.nbytes, opt->quiet);
    fill(&r, &progress, err);
    dz_progress_end(&progress);
    if ((rc = dz_sync_error(world, err->rc, err)) != DZ_OK) goto out;
    if ((rc = dz_agree_on_base(world, r.archive, opt->base, r.decoder.base_differs, err)) != DZ_OK) goto out;
    if ((rc = dz_damage_gather(world, &r.damage, err)) != DZ_OK) goto out;
    if ((rc = dz_sync_error(world, world->rank == 0 ? publish(&r, err) : DZ_OK, err)) != DZ_OK) goto out;
    r.made = 0;
    double most[2] = {dz_now() - begun, dz_peak_memory()};
    dz_max_f64(world, most, 2);
    *result = (dz_restore_result){
        .ntensors = r.ntensors, .nbytes = r.nbytes, .nfiles = r.nfiles, .damage = r.damage, .secs = most[0], .peak_memory = most[1]};
    r.damage = (dz_damage){0};
    if (result->damage.count) rc = DZ_EDAMAGE;
out:
    if (rc != DZ_OK && r.made) remove_partial(&r);
    restore_free(&r);
    return rc;
}

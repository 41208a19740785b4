/* The files of a restored model. */
#include "restore/cast.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/header.h"
#include "checkpoint/texts.h"

#define INDEX_SUFFIX ".safetensors.index.json"

/* 1 + the number of a file's fused tensor among all. */
static uint32_t whole_of(const dz_restore_job *r, const dz_file_row *file, uint32_t number) {
    for (size_t k = 0; k < r->nwholes; k++) {
        if (&r->task->files[r->wholes[k].file] == file && r->wholes[k].number == number) return (uint32_t)k + 1;
    }
    return 0;
}

/* The tensors of one restored safetensors file, by its header. */
static dz_rc place_tensors(dz_restore_job *r, const dz_file_row *file, const char *header, size_t len, const dz_lookup *rows,
                           dz_error *err) {
    dz_tensor *tensors = NULL;
    dz_file_place *places = NULL;
    size_t n = 0, nplaces = 0;
    if (len < 8 || file->size < len)
        return dz_fail(err, DZ_EDAMAGE, "%s: task '%s': the header of '%s' is cut short", r->archive->path, r->task->name, file->path);
    if (dz_safetensors_parse(file->path, header + 8, len - 8, file->size, 0, &tensors, &n, err) != DZ_OK ||
        dz_file_prefix_tensors(file, tensors, n, err) != DZ_OK)
        goto out;
    if (dz_file_places(r->archive->catalog, r->task, file, rows, tensors, n, &places, &nplaces, err) != DZ_OK) goto out;
    dz_restore_tensor *grown = realloc(r->tensors, (r->ntensors + nplaces + 1) * sizeof *grown);
    if (!grown) {
        dz_fail(err, DZ_ENOMEM, "out of memory for %zu tensors", n);
        goto out;
    }
    r->tensors = grown;
    for (size_t i = 0; i < nplaces; i++)
        grown[r->ntensors++] = (dz_restore_tensor){.row = places[i].row,
                                                   .file = (uint32_t)r->nfiles,
                                                   .whole = places[i].fused ? whole_of(r, file, places[i].fused - 1) : 0,
                                                   .offset = places[i].offset};
    for (size_t i = 0; i < n; i++) r->nbytes += tensors[i].nbytes;
out:
    free(places);
    dz_tensors_free(tensors, n);
    return err->rc;
}

/* The fused tensors of one file. One that is damaged is reported when it is made. */
static dz_rc find_wholes_of(dz_restore_job *r, uint32_t number, const dz_lookup *rows, dz_error *err) {
    const dz_file_row *file = &r->task->files[number];
    dz_error inner = {0};
    dz_tensor *tensors = NULL;
    dz_file_place *places = NULL;
    char *bytes = NULL;
    size_t len = 0, n = 0, nplaces = 0;
    if (dz_catalog_blob(r->archive->catalog, file->blob, &bytes, &len, &inner) == DZ_OK && len >= 8 && file->size >= len &&
        dz_safetensors_parse(file->path, bytes + 8, len - 8, file->size, 0, &tensors, &n, &inner) == DZ_OK &&
        dz_file_prefix_tensors(file, tensors, n, &inner) == DZ_OK)
        dz_file_places(r->archive->catalog, r->task, file, rows, tensors, n, &places, &nplaces, &inner);
    dz_restore_whole *grown = places ? realloc(r->wholes, (r->nwholes + file->nfused) * sizeof *grown) : NULL;
    if (places && !grown) dz_fail(&inner, DZ_ENOMEM, "out of memory for %zu tensors", n);
    if (grown) r->wholes = grown;
    for (size_t i = 0; grown && i < nplaces; i++) {
        if (!places[i].fused || (i && places[i].fused == places[i - 1].fused)) continue;
        dz_tensor *t = &tensors[places[i].tensor];
        const dz_row_range *range = &file->fused[places[i].fused - 1];
        grown[r->nwholes++] =
            (dz_restore_whole){.tensor = *t, .first = range->first, .count = range->count, .file = number, .number = places[i].fused - 1};
        t->name = NULL;
    }
    if (inner.rc == DZ_ENOMEM) dz_fail(err, inner.rc, "%s", inner.text);
    free(places);
    free(bytes);
    dz_tensors_free(tensors, n);
    return err->rc;
}

dz_rc dz_restore_find_wholes(dz_restore_job *r, dz_error *err) {
    dz_lookup rows = {0};
    size_t n = 0;
    for (size_t i = 0; i < r->task->nfiles; i++) n += r->task->files[i].nfused;
    if (n == 0) return DZ_OK;
    dz_task_rows(r->archive->catalog, r->task, &rows, err);
    for (uint32_t i = 0; i < r->task->nfiles && err->rc == DZ_OK; i++) {
        if (r->task->files[i].nfused) find_wholes_of(r, i, &rows, err);
    }
    dz_lookup_free(&rows);
    return err->rc;
}

int dz_restore_chooses(const dz_restore_job *r, const char *name) {
    const dz_catalog *c = r->archive->catalog;
    if (dz_restore_is_chosen(r->opt->tensors, name)) return 1;
    for (size_t k = 0; k < r->nwholes; k++) {
        const dz_restore_whole *w = &r->wholes[k];
        if (!dz_restore_is_chosen(r->opt->tensors, w->tensor.name)) continue;
        for (uint32_t i = 0; i < w->count; i++) {
            if (strcmp(c->tensors[r->task->rows[w->first + i].tensor].name, name) == 0) return 1;
        }
    }
    return 0;
}

size_t dz_restore_count(const dz_restore_job *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->ntensors; i++) n += i == 0 || !r->tensors[i].whole || r->tensors[i].whole != r->tensors[i - 1].whole;
    return n;
}

/* A tensor to be written: a row, or from nrows on a fused tensor. */
static dz_tensor written(const dz_restore_job *r, uint32_t unit) {
    if (unit < r->task->nrows) return dz_restore_written(r, &r->task->rows[unit]);
    const dz_restore_whole *w = &r->wholes[unit - r->task->nrows];
    dz_tensor t = w->tensor, part = dz_restore_written(r, &r->task->rows[w->first]);
    t.dtype = part.dtype;
    memcpy(t.dtype_name, part.dtype_name, sizeof t.dtype_name);
    t.nbytes = t.count * dz_dtype_size(t.dtype);
    return t;
}

/* The rows of such a tensor. */
static dz_row_range rows_of(const dz_restore_job *r, uint32_t unit) {
    if (unit < r->task->nrows) return (dz_row_range){.first = unit, .count = 1};
    const dz_restore_whole *w = &r->wholes[unit - r->task->nrows];
    return (dz_row_range){.first = w->first, .count = w->count};
}

/* The tensors to be written of the rows that are wanted (not 0): parts of a fused tensor become it. How many. */
static size_t units_of(const dz_restore_job *r, const uint8_t *wanted, const uint8_t *whole, uint32_t *units) {
    size_t n = 0;
    for (uint32_t i = 0; i < r->task->nrows; i++) {
        if (!wanted[i]) continue;
        size_t k = 0;
        while (k < r->nwholes && !(whole[k] && r->wholes[k].first == i)) k++;
        units[n++] = k < r->nwholes ? (uint32_t)(r->task->nrows + k) : i;
        if (k < r->nwholes) i += r->wholes[k].count - 1;
    }
    return n;
}

static dz_rc add_out_file(dz_restore_job *r, const char *path, dz_error *err) {
    dz_restore_file *grown = realloc(r->files, (r->nfiles + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "out of memory");
    r->files = grown;
    grown[r->nfiles] = (dz_restore_file){.fd = -1, .name = dz_strdup(path, err), .path = dz_format(err, "%s/%s", r->staging.partial, path)};
    r->nfiles++;
    return err->rc;
}

/* Rank 0: makes a file of the given size that begins with `head`. */
static dz_rc make_file(const dz_restore_job *r, const char *name, const void *head, size_t len, uint64_t size, dz_error *err) {
    char *path = dz_format(err, "%s/%s", r->staging.partial, name);
    if (path) dz_make_file(path, head, len, size, err);
    free(path);
    return err->rc;
}

/* The file whose places are known: noted by all ranks, made by rank 0. */
dz_rc dz_restore_add_file(dz_restore_job *r, const char *name, const void *head, size_t len, uint64_t size, dz_error *err) {
    if (add_out_file(r, name, err) == DZ_OK && r->world->rank == 0) make_file(r, name, head, len, size, err);
    return err->rc;
}

/* The task's first safetensors file or index, whose metadata new ones take over. NULL where there is none, or it is damaged. The caller
 * frees. */
static char *first_file(const dz_restore_job *r, uint32_t kind, const char *suffix, size_t *len) {
    char *bytes = NULL;
    for (size_t i = 0; i < r->task->nfiles && !bytes; i++) {
        dz_error none = {0};
        const dz_file_row *f = &r->task->files[i];
        if (f->kind == kind && dz_ends_with(f->path, suffix)) dz_catalog_blob(r->archive->catalog, f->blob, &bytes, len, &none);
    }
    return bytes;
}

typedef struct laid_out {
    dz_tensor tensor; /* first, for dz_safetensors_order */
    uint32_t row;
} laid_out;

/* A safetensors file of tensors that are given (see `written`), with a header of our own and the metadata of another. `prefix` letters of
 * their names are not in it. */
static dz_rc add_rows_like(dz_restore_job *r, const char *name, size_t prefix, dz_like like, const uint32_t *rows, size_t n,
                           dz_error *err) {
    dz_buf header = {0};
    dz_tensor *list = dz_alloc(n, sizeof *list, err);
    laid_out *order = list ? dz_alloc(n, sizeof *order, err) : NULL;
    size_t nrows = 0;
    for (size_t i = 0; i < n; i++) nrows += rows_of(r, rows[i]).count;
    dz_restore_tensor *grown = order ? realloc(r->tensors, (r->ntensors + nrows + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(list);
        free(order);
        return dz_fail(err, DZ_ENOMEM, "out of memory for %zu tensors", n);
    }
    r->tensors = grown;
    int lossy = 0;
    for (size_t i = 0; i < n; i++) {
        order[i] = (laid_out){written(r, rows[i]), rows[i]};
        order[i].tensor.name += prefix;
    }
    qsort(order, n, sizeof *order, dz_safetensors_order);
    for (size_t i = 0; i < n; i++) list[i] = order[i].tensor;
    for (size_t i = 0; i < n; i++) {
        dz_row_range range = rows_of(r, rows[i]);
        for (uint32_t k = 0; k < range.count; k++) lossy |= dz_restore_is_lossy_row(r, range.first + k);
    }
    like.mark = lossy ? r->mark_text : NULL;
    if (dz_safetensors_header(list, n, like, &header, err) == DZ_OK) {
        uint64_t at = header.len;
        for (size_t i = 0; i < n; i++) {
            dz_row_range range = rows_of(r, order[i].row);
            uint32_t whole = order[i].row < r->task->nrows ? 0 : (uint32_t)(order[i].row - r->task->nrows) + 1;
            for (uint32_t k = 0; k < range.count; k++) {
                grown[r->ntensors++] =
                    (dz_restore_tensor){.row = range.first + k, .file = (uint32_t)r->nfiles, .whole = whole, .offset = at};
                at += dz_restore_written(r, &r->task->rows[range.first + k]).nbytes;
            }
            r->nbytes += list[i].nbytes;
        }
        dz_restore_add_file(r, name, header.data, header.len, at, err);
    }
    free(order);
    free(list);
    dz_buf_free(&header);
    return err->rc;
}

/* The same with the metadata of the task's first file. */
static dz_rc add_rows(dz_restore_job *r, const char *name, const uint32_t *rows, size_t n, dz_error *err) {
    size_t len = 0;
    char *like = first_file(r, DZ_FILE_SAFETENSORS, "", &len);
    add_rows_like(r, name, 0, (dz_like){.text = like, .len = len}, rows, n, err);
    free(like);
    return err->rc;
}

/* A file some of whose tensors, those from `first` on, are written in another type: laid out anew. */
static dz_rc add_cast(dz_restore_job *r, const dz_file_row *f, const char *bytes, size_t len, size_t first, dz_error *err) {
    size_t n = r->ntensors - first;
    uint32_t *rows = dz_alloc(n, sizeof *rows, err);
    size_t nunits = 0;
    for (size_t i = first; rows && i < first + n; i++) {
        const dz_restore_tensor *t = &r->tensors[i];
        if (!t->whole || i == first || t->whole != t[-1].whole)
            rows[nunits++] = t->whole ? (uint32_t)r->task->nrows + t->whole - 1 : t->row;
        r->nbytes -= r->archive->catalog->tensors[r->task->rows[t->row].tensor].nbytes;
    }
    r->ntensors = first;
    if (rows) add_rows_like(r, f->path, f->prefix, (dz_like){.text = bytes, .len = len}, rows, nunits, err);
    free(rows);
    return err->rc;
}

static int any_is_cast(const dz_restore_job *r, size_t first) {
    size_t i = first;
    while (i < r->ntensors && !dz_restore_is_cast(r, &r->task->rows[r->tensors[i].row])) i++;
    return i < r->ntensors;
}

static size_t folder_len(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* Bytes that the tensors in files of this file's folder take more than in the original's. */
static int64_t more_bytes(const dz_restore_job *r, const char *path) {
    size_t len = folder_len(path);
    int64_t more = 0;
    for (size_t i = 0; i < r->ntensors; i++) {
        const char *name = r->files[r->tensors[i].file].name;
        const dz_index_row *row = &r->task->rows[r->tensors[i].row];
        if (folder_len(name) != len || memcmp(name, path, len) != 0) continue;
        more += (int64_t)dz_restore_written(r, row).nbytes - (int64_t)r->archive->catalog->tensors[row->tensor].nbytes;
    }
    return more;
}

/* A side file that names types or sizes, which are others now. */
static dz_rc add_edited(dz_restore_job *r, const dz_file_row *f, const char *bytes, size_t len, dz_error *err) {
    dz_buf text = {0};
    if (dz_ends_with(f->path, INDEX_SUFFIX))
        dz_text_add_total_size(bytes, len, more_bytes(r, f->path), &text, err);
    else
        dz_text_set_dtype(bytes, len, r->opt->dtype, &text, err);
    if (err->rc == DZ_OK) dz_restore_add_file(r, f->path, text.data, text.len, text.len, err);
    dz_buf_free(&text);
    return err->rc;
}

static int is_edited(const dz_restore_job *r, const dz_file_row *f) {
    const char *name = f->path + folder_len(f->path);
    return r->opt->dtype != DZ_OPAQUE && f->kind == DZ_FILE_SIDE && (strcmp(name, "config.json") == 0 || dz_ends_with(name, INDEX_SUFFIX));
}

/* A file with lossy tensors, those from `first` on: its header says so, and they move on by what that takes. */
static dz_rc add_marked(dz_restore_job *r, const dz_file_row *f, const char *bytes, size_t len, size_t first, dz_error *err) {
    dz_buf header = {0};
    if (dz_mark_header(bytes, len, r->mark_text, &header, err) == DZ_OK) {
        for (size_t i = first; i < r->ntensors; i++) r->tensors[i].offset += header.len - len;
        dz_restore_add_file(r, f->path, header.data, header.len, f->size + header.len - len, err);
    }
    dz_buf_free(&header);
    return err->rc;
}

/* One file of the task. With keep_going, one that is damaged is reported and left out, and `*headless` (unless it has one) is its name if
 * it has tensors. */
static dz_rc plan_file(dz_restore_job *r, const dz_file_row *f, const dz_lookup *rows, const char **headless, dz_error *err) {
    dz_error inner = {0};
    char *bytes = NULL;
    size_t len = 0, first = r->ntensors;
    if (dz_catalog_blob(r->archive->catalog, f->blob, &bytes, &len, &inner) == DZ_OK) {
        if (f->kind == DZ_FILE_SIDE && f->size != len)
            dz_fail(&inner, DZ_EDAMAGE, "%s: file '%s' has another size", r->archive->path, f->path);
        if (f->kind == DZ_FILE_SAFETENSORS) place_tensors(r, f, bytes, len, rows, &inner);
    }
    if (inner.rc == DZ_OK && f->kind == DZ_FILE_SAFETENSORS && any_is_cast(r, first)) {
        add_cast(r, f, bytes, len, first, err);
    } else if (inner.rc == DZ_OK && is_edited(r, f)) {
        add_edited(r, f, bytes, len, err);
    } else if (inner.rc == DZ_OK && f->kind == DZ_FILE_SAFETENSORS && dz_restore_has_lossy(r, first)) {
        add_marked(r, f, bytes, len, first, err);
    } else if (inner.rc == DZ_OK && strcmp(f->path, DZ_MARK_FILE) == 0 && r->mark.lossy) {
        free(bytes); /* of a lossy model that was compressed again: this one's takes its place */
        return err->rc;
    } else if (inner.rc == DZ_OK) {
        dz_restore_add_file(r, f->path, bytes, len, f->size, err);
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
static dz_rc plan_headless(dz_restore_job *r, const char *name, dz_error *err) {
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
static dz_rc tell_lost_files(dz_restore_job *r, const char *what, dz_error *err) {
    if (!r->opt->keep_going) return dz_fail(err, DZ_EDAMAGE, "%s", r->task->files_lost);
    char *text = dz_format(err, "%s: %sside files are left out", r->task->files_lost, what);
    if (text && r->world->rank == 0) dz_damage_add(&r->damage, r->task->name, NULL, -1, text);
    free(text);
    return err->rc;
}

dz_rc dz_restore_plan_all(dz_restore_job *r, dz_error *err) {
    const char *headless = NULL;
    dz_lookup rows = {0};
    if (r->task->files_lost) {
        if (tell_lost_files(r, "all tensors go into one file, ", err) != DZ_OK) return err->rc;
        headless = "model.safetensors";
    }
    dz_task_rows(r->archive->catalog, r->task, &rows, err);
    for (int edited = 0; edited < 2; edited++) { /* their sizes follow from the tensors' files */
        for (size_t i = 0; i < r->task->nfiles && err->rc == DZ_OK; i++) {
            if (is_edited(r, &r->task->files[i]) == edited) plan_file(r, &r->task->files[i], &rows, &headless, err);
        }
    }
    dz_lookup_free(&rows);
    if (headless && err->rc == DZ_OK) plan_headless(r, headless, err);
    return err->rc;
}

dz_rc dz_restore_plan_some(dz_restore_job *r, dz_error *err) {
    const dz_catalog *c = r->archive->catalog;
    size_t n = 0;
    uint32_t *rows = dz_alloc(r->task->nrows, sizeof *rows, err);
    uint8_t *wanted = dz_alloc(r->task->nrows, 1, err), *whole = dz_alloc(r->nwholes, 1, err);
    if (err->rc != DZ_OK) goto out;
    for (size_t i = 0; i < r->task->nrows; i++) {
        const dz_index_row *row = &r->task->rows[i];
        wanted[i] = row->policy != DZ_POLICY_ABSENT && dz_restore_is_chosen(r->opt->tensors, c->tensors[row->tensor].name);
    }
    for (size_t k = 0; k < r->nwholes; k++) {
        whole[k] = (uint8_t)dz_restore_is_chosen(r->opt->tensors, r->wholes[k].tensor.name);
        if (whole[k]) memset(wanted + r->wholes[k].first, 1, r->wholes[k].count);
    }
    n = units_of(r, wanted, whole, rows);
    if (n == 0)
        dz_fail(err, DZ_EUSAGE, "%s: task '%s' has no tensor that matches '%s' (deltazoo info --task lists them)", r->archive->path,
                r->task->name, r->opt->tensors ? r->opt->tensors : "*");
    else
        add_rows(r, r->one ? r->one : "model.safetensors", rows, n, err);
out:
    free(wanted);
    free(whole);
    free(rows);
    return err->rc;
}

static size_t count_files(const dz_restore_job *r, int *parts) {
    size_t n = 0;
    *parts = 0;
    for (size_t i = 0; i < r->task->nfiles; i++) {
        n += r->task->files[i].kind == DZ_FILE_SAFETENSORS;
        *parts |= r->task->files[i].prefix > 0;
    }
    return n;
}

/* The task's one file under another name, or all its shards as one. */
dz_rc dz_restore_plan_one(dz_restore_job *r, dz_error *err) {
    int parts = 0;
    size_t nfiles = count_files(r, &parts);
    if (r->task->files_lost) return dz_fail(err, DZ_EDAMAGE, "%s", r->task->files_lost);
    if (parts)
        return dz_fail(err, DZ_EUSAGE, "%s: task '%s' is a pipeline of several models, each with files of its own: give a folder's name",
                       r->opt->out, r->task->name);
    if (nfiles != 1) return dz_restore_plan_some(r, err);
    dz_lookup rows = {0};
    dz_task_rows(r->archive->catalog, r->task, &rows, err);
    for (size_t i = 0; i < r->task->nfiles && err->rc == DZ_OK; i++) {
        dz_file_row file = r->task->files[i];
        file.path = (char *)r->one;
        if (file.kind == DZ_FILE_SAFETENSORS) plan_file(r, &file, &rows, NULL, err);
    }
    dz_lookup_free(&rows);
    return err->rc;
}

#define NAMED_FILES 6

dz_rc dz_restore_note_left_out(const dz_restore_job *r, dz_buf *lines, dz_error *err) {
    dz_buf names = {0};
    size_t n = 0;
    for (size_t i = 0; i < r->task->nfiles && err->rc == DZ_OK; i++) {
        const dz_file_row *f = &r->task->files[i];
        if (f->kind == DZ_FILE_SAFETENSORS || dz_ends_with(f->path, INDEX_SUFFIX)) continue;
        if (n++ < NAMED_FILES) dz_buf_line(&names, err, "%s%s", n > 1 ? ", " : "", f->path);
    }
    if (n > NAMED_FILES) dz_buf_line(&names, err, " and %zu more", n - NAMED_FILES);
    if (n && dz_buf_put(&names, "", 1, err) == DZ_OK)
        dz_buf_line(lines, err, "task '%s': %zu file%s not written: %s (-o with a folder's name gets all)\n", r->task->name, n,
                    n == 1 ? " is" : "s are", (const char *)names.data);
    dz_buf_free(&names);
    return err->rc;
}

/* The side files, but for an index: the shards it tells of are not made. */
static dz_rc plan_side_files(dz_restore_job *r, dz_error *err) {
    for (size_t i = 0; i < r->task->nfiles && err->rc == DZ_OK; i++) {
        const dz_file_row *f = &r->task->files[i];
        int is_index = dz_ends_with(f->path, INDEX_SUFFIX) && !strchr(f->path, '/'); /* a part keeps its own */
        if (f->kind == DZ_FILE_SIDE && !is_index) plan_file(r, f, NULL, NULL, err);
    }
    return err->rc;
}

/* Where shards of at most max_shard bytes of tensors begin among `rows`, each as full as it may be; how many. first[n] is the end. */
static size_t cut_shards(const dz_restore_job *r, const uint32_t *rows, size_t n, size_t *first) {
    size_t nshards = 0;
    uint64_t held = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t nbytes = written(r, rows[i]).nbytes;
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
static dz_rc plan_parts(dz_restore_job *r, uint8_t *claimed, dz_error *err) {
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

/* The tensors in new shards, cut in their order and laid out anew within each, with an index where there are several, and the side files.
 */
dz_rc dz_restore_plan_shards(dz_restore_job *r, dz_error *err) {
    size_t n = 0, nrows = r->task->nrows, nshards = 0;
    uint32_t *rows = dz_alloc(nrows, sizeof *rows, err);
    size_t *first = dz_alloc(nrows + 1, sizeof *first, err);
    dz_tensor *tensors = dz_alloc(nrows, sizeof *tensors, err);
    const char **files = dz_alloc(nrows, sizeof *files, err);
    uint8_t *claimed = dz_alloc(nrows, 1, err), *whole = dz_alloc(r->nwholes, 1, err);
    dz_buf index = {0};
    char *like = NULL;
    size_t like_len = 0;
    if (r->task->files_lost) tell_lost_files(r, "", err);
    if (err->rc != DZ_OK || plan_parts(r, claimed, err) != DZ_OK) goto out;
    size_t before = r->nfiles;                                                                                  /* of the parts */
    for (size_t i = 0; i < nrows; i++) claimed[i] = r->task->rows[i].policy != DZ_POLICY_ABSENT && !claimed[i]; /* from here on: not yet */
    memset(whole, 1, r->nwholes);
    n = units_of(r, claimed, whole, rows);
    for (size_t i = 0; i < n; i++) tensors[i] = written(r, rows[i]);
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
        dz_restore_add_file(r, "model.safetensors.index.json", index.data, index.len, index.len, err);
    plan_side_files(r, err);
out:
    dz_buf_free(&index);
    free(like);
    free(claimed);
    free(whole);
    free(rows);
    free(first);
    free(tensors);
    free(files);
    return err->rc;
}

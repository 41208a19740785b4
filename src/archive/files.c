/* What a task's directory held, as a blob: path NUL kind:u8 blob:varint size:varint [prefix:varint for kinds 2 and 3]
 * [nfused:varint [first:varint count:varint]*nfused for kind 3], file after file. */
#include <stdlib.h>
#include <string.h>

#include "archive/reader.h"
#include "base/file.h"
#include "checkpoint/folder_model.h"

#define ENTRY_MIN 5 /* bytes: a name of one letter */

dz_rc dz_catalog_add_files(dz_catalog *c, dz_task_entry *t, dz_error *err) {
    dz_buf b = {0};
    for (size_t i = 0; i < t->nfiles; i++) {
        const dz_file_row *f = &t->files[i];
        const uint8_t kind = (uint8_t)(f->nfused ? DZ_FILE_FUSED : f->prefix ? DZ_FILE_PART : f->kind);
        dz_buf_put(&b, f->path, strlen(f->path) + 1, err);
        dz_buf_put(&b, &kind, 1, err);
        dz_buf_put_varint(&b, f->blob, err);
        dz_buf_put_varint(&b, f->size, err);
        if (kind >= DZ_FILE_PART) dz_buf_put_varint(&b, f->prefix, err);
        if (kind == DZ_FILE_FUSED) dz_buf_put_varint(&b, f->nfused, err);
        for (size_t k = 0; k < f->nfused; k++) {
            dz_buf_put_varint(&b, f->fused[k].first, err);
            dz_buf_put_varint(&b, f->fused[k].count, err);
        }
    }
    if (err->rc == DZ_OK) dz_catalog_add_blob(c, b.data, b.len, &t->files_blob, err);
    dz_buf_free(&b);
    return err->rc;
}

void dz_file_row_free(dz_file_row *f) {
    free(f->path);
    free(f->fused);
}

/* The ranges of rows of a file of kind 3. */
static dz_rc take_fused(const dz_task_entry *t, dz_view *v, dz_file_row *f, dz_error *err) {
    uint64_t n = dz_view_varint(v), free_from = 0;
    if (v->bad || n == 0 || n > (v->len - v->pos) / 2)
        return dz_fail(err, DZ_EDAMAGE, "task '%s': its list of files is cut short", t->name);
    if (!(f->fused = dz_alloc((size_t)n, sizeof *f->fused, err))) return err->rc;
    for (; f->nfused < n; f->nfused++) {
        uint64_t first = dz_view_varint(v), count = dz_view_varint(v);
        if (v->bad || first < free_from || first > t->nrows || count == 0 || count > t->nrows - first)
            return dz_fail(err, DZ_EDAMAGE, "task '%s': a tensor in its list of files has parts that are not in its index", t->name);
        free_from = first + count;
        f->fused[f->nfused] = (dz_row_range){.first = (uint32_t)first, .count = (uint32_t)count};
    }
    return DZ_OK;
}

static dz_rc take_file(const dz_catalog *c, const dz_task_entry *t, dz_view *v, dz_file_row *f, dz_error *err) {
    const char *path = (const char *)v->data + v->pos;
    size_t len = strnlen(path, v->len - v->pos);
    dz_view_bytes(v, len + 1);
    if (v->bad) return dz_fail(err, DZ_EDAMAGE, "task '%s': its list of files is cut short", t->name);
    f->kind = dz_view_u8(v);
    uint64_t blob = dz_view_varint(v);
    f->size = dz_view_varint(v);
    uint64_t prefix = f->kind == DZ_FILE_PART || f->kind == DZ_FILE_FUSED ? dz_view_varint(v) : 0;
    int sound = f->kind <= DZ_FILE_FUSED && (prefix > 0 ? prefix < len && path[prefix - 1] == '/' : f->kind != DZ_FILE_PART);
    if (v->bad || !dz_path_is_inside(path) || !sound || blob >= c->nblobs)
        return dz_fail(err, DZ_EDAMAGE, "task '%s': file '%s' of its list is not sound", t->name, path);
    f->blob = (uint32_t)blob;
    f->prefix = (uint32_t)prefix;
    if (f->kind == DZ_FILE_FUSED && take_fused(t, v, f, err) != DZ_OK) return err->rc;
    if (f->kind >= DZ_FILE_PART) f->kind = DZ_FILE_SAFETENSORS;
    f->path = dz_strdup(path, err);
    return err->rc;
}

dz_rc dz_catalog_read_files(const dz_catalog *c, dz_task_entry *t, dz_error *err) {
    char *bytes = NULL;
    size_t len = 0;
    if (dz_catalog_blob(c, t->files_blob, &bytes, &len, err) != DZ_OK) return err->rc;
    dz_view v = {.data = (const uint8_t *)bytes, .len = len};
    t->files = dz_alloc(len / ENTRY_MIN + 1, sizeof *t->files, err);
    while (err->rc == DZ_OK && v.pos < v.len) {
        if (take_file(c, t, &v, &t->files[t->nfiles], err) == DZ_OK)
            t->nfiles++;
        else
            dz_file_row_free(&t->files[t->nfiles]);
    }
    free(bytes);
    return err->rc;
}

dz_rc dz_file_prefix_tensors(const dz_file_row *f, dz_tensor *tensors, size_t n, dz_error *err) {
    for (size_t i = 0; i < n && f->prefix; i++) {
        char *name = dz_format(err, "%.*s%s", (int)f->prefix, f->path, tensors[i].name);
        if (!name) return err->rc;
        free(tensors[i].name);
        tensors[i].name = name;
    }
    return DZ_OK;
}

/* The rows are parts of the tensor: of its type, and together of its size. */
static int are_parts(const dz_catalog *c, const dz_task_entry *task, const dz_row_range *range, const dz_tensor *t) {
    uint64_t nbytes = 0;
    for (uint32_t i = 0; i < range->count; i++) {
        const dz_index_row *row = &task->rows[range->first + i];
        const dz_tensor_row *part = &c->tensors[row->tensor];
        if (row->policy == DZ_POLICY_ABSENT || strcmp(part->dtype, t->dtype_name) != 0 || part->nbytes > t->nbytes - nbytes) return 0;
        nbytes += part->nbytes;
    }
    return nbytes == t->nbytes;
}

dz_rc dz_file_places(const dz_catalog *c, const dz_task_entry *task, const dz_file_row *file, const dz_lookup *rows,
                     const dz_tensor *tensors, size_t n, dz_file_place **out, size_t *nout, dz_error *err) {
    size_t fused = 0, most = n;
    for (size_t k = 0; k < file->nfused; k++) most += file->fused[k].count;
    dz_file_place *places = dz_alloc(most, sizeof *places, err);
    *nout = 0;
    for (size_t i = 0; places && i < n; i++) {
        const dz_index_row *row = dz_task_row(c, task, rows, &tensors[i]);
        const dz_row_range *range = &file->fused[fused];
        uint64_t at = tensors[i].offset;
        if (row) {
            places[(*nout)++] = (dz_file_place){.row = (uint32_t)(row - task->rows), .tensor = i, .offset = at};
            continue;
        }
        if (fused == file->nfused || !are_parts(c, task, range, &tensors[i])) {
            dz_fail(err, DZ_EDAMAGE, "%s: task '%s': tensor '%s' of '%s' is not in its index", c->path ? c->path : "archive", task->name,
                    tensors[i].name, file->path);
            break;
        }
        for (uint32_t k = 0; k < range->count; k++) {
            places[(*nout)++] = (dz_file_place){.row = range->first + k, .tensor = i, .offset = at, .fused = (uint32_t)fused + 1};
            at += c->tensors[task->rows[range->first + k].tensor].nbytes;
        }
        fused++;
    }
    if (err->rc == DZ_OK && fused < file->nfused)
        dz_fail(err, DZ_EDAMAGE, "%s: task '%s': the header of '%s' lacks a tensor", c->path ? c->path : "archive", task->name, file->path);
    if (err->rc != DZ_OK) {
        free(places);
        places = NULL;
    }
    *out = places;
    return err->rc;
}

int dz_task_is_adapter(const dz_task_entry *t) {
    size_t n = 0;
    for (size_t i = 0; i < t->nfiles; i++) {
        if (t->files[i].kind != DZ_FILE_SAFETENSORS) continue;
        if (t->files[i].prefix || !dz_is_adapter(t->files[i].path)) return 0;
        n++;
    }
    return n > 0;
}

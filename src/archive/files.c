/* What a task's directory held, as a blob: path NUL kind:u8 blob:varint size:varint [prefix:varint for kind 2], file after file. */
#include <stdlib.h>
#include <string.h>

#include "archive/catalog.h"
#include "base/file.h"
#include "checkpoint/folder_model.h"

#define ENTRY_MIN 5 /* bytes: a name of one letter */

dz_rc dz_catalog_add_files(dz_catalog *c, dz_task_entry *t, dz_error *err) {
    dz_buf b = {0};
    for (size_t i = 0; i < t->nfiles; i++) {
        const dz_file_row *f = &t->files[i];
        const uint8_t kind = (uint8_t)(f->prefix ? DZ_FILE_PART : f->kind);
        dz_buf_put(&b, f->path, strlen(f->path) + 1, err);
        dz_buf_put(&b, &kind, 1, err);
        dz_buf_put_varint(&b, f->blob, err);
        dz_buf_put_varint(&b, f->size, err);
        if (f->prefix) dz_buf_put_varint(&b, f->prefix, err);
    }
    if (err->rc == DZ_OK) dz_catalog_add_blob(c, b.data, b.len, &t->files_blob, err);
    dz_buf_free(&b);
    return err->rc;
}

static dz_rc take_file(const dz_catalog *c, const dz_task_entry *t, dz_view *v, dz_file_row *f, dz_error *err) {
    const char *path = (const char *)v->data + v->pos;
    size_t len = strnlen(path, v->len - v->pos);
    dz_view_bytes(v, len + 1);
    if (v->bad) return dz_fail(err, DZ_EDAMAGE, "task '%s': its list of files is cut short", t->name);
    f->kind = dz_view_u8(v);
    uint64_t blob = dz_view_varint(v);
    f->size = dz_view_varint(v);
    uint64_t prefix = f->kind == DZ_FILE_PART ? dz_view_varint(v) : 0;
    int sound = f->kind == DZ_FILE_PART ? prefix > 0 && prefix < len && path[prefix - 1] == '/' : f->kind <= DZ_FILE_SAFETENSORS;
    if (v->bad || !dz_path_is_inside(path) || !sound || blob >= c->nblobs)
        return dz_fail(err, DZ_EDAMAGE, "task '%s': file '%s' of its list is not sound", t->name, path);
    f->blob = (uint32_t)blob;
    f->prefix = (uint32_t)prefix;
    if (f->kind == DZ_FILE_PART) f->kind = DZ_FILE_SAFETENSORS;
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
        if (take_file(c, t, &v, &t->files[t->nfiles], err) == DZ_OK) t->nfiles++;
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

int dz_task_is_adapter(const dz_task_entry *t) {
    size_t n = 0;
    for (size_t i = 0; i < t->nfiles; i++) {
        if (t->files[i].kind != DZ_FILE_SAFETENSORS) continue;
        if (t->files[i].prefix || !dz_is_adapter(t->files[i].path)) return 0;
        n++;
    }
    return n > 0;
}

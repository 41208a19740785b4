/* include/deltazoo.h over the reader and the decoder. */
#include "deltazoo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/decode.h"

struct deltazoo_archive {
    dz_archive *archive;
    dz_checkpoint *base;
    dz_decoder decoder;
    int has_decoder;
};

static int told(const dz_error *err, char *message, size_t size) {
    if (message && size) snprintf(message, size, "%s", err->text);
    return (int)err->rc;
}

int deltazoo_open(const char *path, deltazoo_archive **out, char *message, size_t size) {
    dz_error err = {0};
    deltazoo_archive *a = dz_alloc(1, sizeof *a, &err);
    if (a && dz_archive_open(path, &a->archive, &err) == DZ_OK) {
        *out = a;
        a = NULL;
    }
    free(a);
    return told(&err, message, size);
}

static void drop_base(deltazoo_archive *a) {
    if (a->has_decoder) dz_decoder_close(&a->decoder);
    dz_checkpoint_free(a->base);
    a->base = NULL;
    a->has_decoder = 0;
}

void deltazoo_close(deltazoo_archive *a) {
    if (!a) return;
    drop_base(a);
    dz_archive_close(a->archive);
    free(a);
}

size_t deltazoo_task_count(const deltazoo_archive *a) { return a->archive->catalog->ntasks; }

const char *deltazoo_task_name(const deltazoo_archive *a, size_t task) {
    return task < a->archive->catalog->ntasks ? a->archive->catalog->tasks[task].name : NULL;
}

/* Absent tensors stand at the end of the index and are no tensors of the task. */
size_t deltazoo_tensor_count(const deltazoo_archive *a, size_t task) {
    size_t n = 0;
    if (task >= a->archive->catalog->ntasks) return 0;
    const dz_task_entry *t = &a->archive->catalog->tasks[task];
    while (n < t->nrows && t->rows[n].policy != DZ_POLICY_ABSENT) n++;
    return n;
}

int deltazoo_tensor_at(const deltazoo_archive *a, size_t task, size_t index, deltazoo_tensor *out) {
    if (index >= deltazoo_tensor_count(a, task)) return DELTAZOO_EUSAGE;
    const dz_index_row *row = &a->archive->catalog->tasks[task].rows[index];
    const dz_tensor_row *t = &a->archive->catalog->tensors[row->tensor];
    *out = (deltazoo_tensor){.name = t->name,
                             .dtype = t->dtype,
                             .policy = dz_policy_name((dz_policy)row->policy),
                             .ndim = t->ndim,
                             .nbytes = t->nbytes,
                             .stored_bytes = row->length};
    memcpy(out->shape, t->shape, sizeof out->shape);
    return DELTAZOO_OK;
}

int deltazoo_set_base(deltazoo_archive *a, const char *path, char *message, size_t size) {
    dz_error err = {0};
    drop_base(a);
    if (dz_checkpoint_load(path, &a->base, &err) == DZ_OK) {
        dz_decoder_open(&a->decoder, a->archive, a->base, NULL, &err);
        a->has_decoder = 1;
        if (err.rc != DZ_OK) drop_base(a);
    }
    return told(&err, message, size);
}

int deltazoo_restore(deltazoo_archive *a, size_t task, size_t index, void *dst, char *message, size_t size) {
    dz_error err = {0};
    const dz_catalog *c = a->archive->catalog;
    if (index >= deltazoo_tensor_count(a, task)) {
        dz_fail(&err, DZ_EUSAGE, "task %zu has no tensor %zu", task, index);
    } else if (!a->has_decoder) {
        dz_fail(&err, DZ_EUSAGE, "deltazoo_set_base comes before deltazoo_restore");
    } else {
        const dz_index_row *row = dz_row_source(&c->tasks[task], &c->tasks[task].rows[index]);
        dz_pair_tiles tiles = dz_row_work(c, row);
        dz_tensor t = dz_tensor_of_row(&c->tensors[row->tensor]);
        for (uint32_t tile = 0; tile < tiles.ntiles && err.rc == DZ_OK; tile++)
            dz_decode_tile(&a->decoder, &c->tasks[task], row, tile, (uint8_t *)dst + dz_tile_first(&tiles, tile) * dz_dtype_size(t.dtype),
                           &err);
        if (err.rc == DZ_OK && row->base != DZ_NO_BASE && a->decoder.base_differs[row->base])
            dz_fail(&err, DZ_EFAIL, "%s: not the base of this archive: tensor '%s' differs", a->base->path,
                    c->tensors[c->base[row->base].tensor].name);
    }
    return told(&err, message, size);
}

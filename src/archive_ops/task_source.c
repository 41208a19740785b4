#include "archive_ops/task_source.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "base/overwrite.h"
#include "config/zoo.h"
#include "decode/merge.h"
#include "restore/restore.h"

dz_rc dz_task_source_open(const dz_world *world, const char *archive, const char *task, const char *base, dz_task_source *s,
                          dz_error *err) {
    dz_rc rc = dz_archive_open_tasks_all(world, archive, &task, 1, &s->archive, err);
    if (rc != DZ_OK || (rc = dz_sync_error(world, dz_archive_task(s->archive, task, &s->task, err), err)) != DZ_OK) return rc;
    if (s->archive->catalog->nbase == 0)
        return dz_fail(err, DZ_EUSAGE, "%s: has no base, so there are no deltas to export: 'deltazoo restore' makes task '%s'", archive,
                       task);
    if (base && (rc = dz_base_open_all(world, s->archive, base, &s->base, err)) != DZ_OK) return rc;
    return dz_sync_error(world, dz_decoder_open(&s->decoder, s->archive, s->base, NULL, err), err);
}

void dz_task_source_close(dz_task_source *s) {
    if (s->archive) dz_decoder_close(&s->decoder);
    dz_checkpoint_free(s->base);
    dz_archive_close(s->archive);
    dz_buf_free(&s->scratch);
}

dz_rc dz_task_source_tensor(dz_task_source *s, const dz_index_row *row, uint8_t *out, dz_error *err) {
    const dz_catalog *c = s->archive->catalog;
    dz_pair_tiles tiles = dz_row_work(c, row);
    size_t size = dz_dtype_size(dz_tensor_of_row(&c->tensors[row->tensor]).dtype);
    for (uint32_t tile = 0; tile < tiles.ntiles && err->rc == DZ_OK; tile++)
        dz_decode_tile(&s->decoder, s->task, row, tile, out + dz_tile_first(&tiles, tile) * size, err);
    return err->rc;
}

dz_rc dz_task_source_delta(dz_task_source *s, const dz_index_row *row, float *out, dz_error *err) {
    dz_pair_tiles tiles = dz_row_work(s->archive->catalog, row);
    double *wide = NULL;
    size_t room = 0;
    for (uint32_t tile = 0; tile < tiles.ntiles && err->rc == DZ_OK; tile++) {
        size_t count = (size_t)dz_tile_count(&tiles, tile);
        float *to = out + dz_tile_first(&tiles, tile);
        if (count > room) {
            free(wide);
            room = count;
            wide = dz_alloc_raw(room, sizeof *wide, err);
        }
        if (!wide || dz_tile_difference(&s->decoder, s->task, row, tile, &s->scratch, wide, err) != DZ_OK) break;
        for (size_t i = 0; i < count; i++) to[i] = (float)wide[i];
    }
    free(wide);
    return err->rc;
}

dz_rc dz_task_source_check_folder(const char *dir, const char *file, int force, dz_error *err) {
    struct stat st;
    dz_target kind = stat(dir, &st) == 0 ? dz_target_of(dir) : DZ_TARGET_NONE;
    if (kind == DZ_TARGET_NONE || kind == DZ_TARGET_EMPTY) return DZ_OK;
    if (kind != DZ_TARGET_FOLDER) return dz_fail(err, DZ_EUSAGE, "%s: exists and is no directory: choose another", dir);
    char *path = dz_format(err, "%s/%s", dir, file);
    if (path && stat(path, &st) != 0)
        dz_fail(err, DZ_EUSAGE, "%s: exists, and has no %s of deltazoo export: it is never filled; choose another", dir, file);
    else if (path)
        dz_overwrite_check(path, DZ_TARGET_VECTOR, force, err);
    free(path);
    return err->rc;
}

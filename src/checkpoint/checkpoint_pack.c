/* A checkpoint as bytes, so that one rank reads the headers from the file system and the others get them from it. */
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint.h"

static void put_text(dz_buf *out, const char *text, size_t len, dz_error *err) {
    dz_buf_put_u64(out, len, err);
    dz_buf_put(out, text, len, err);
}

static void put_places(dz_buf *out, const dz_strided *places, size_t n, dz_error *err) {
    dz_buf_put_u64(out, n, err);
    for (size_t i = 0; i < n; i++) {
        dz_buf_put_u64(out, places[i].offset, err);
        dz_buf_put_u64(out, (uint64_t)places[i].strided, err);
        for (uint32_t d = 0; places[i].strided && d < DZ_MAX_NDIM; d++) dz_buf_put_u64(out, places[i].stride[d], err);
    }
}

static void put_sides(dz_buf *out, const dz_companion_file *list, size_t n, dz_error *err) {
    dz_buf_put_u64(out, n, err);
    for (size_t i = 0; i < n; i++) {
        put_text(out, list[i].file, strlen(list[i].file), err);
        put_text(out, list[i].path, strlen(list[i].path), err);
        dz_buf_put_u64(out, list[i].size, err);
        put_text(out, list[i].bytes, list[i].bytes ? list[i].size : 0, err);
    }
}

dz_rc dz_checkpoint_pack(const dz_checkpoint *ck, dz_buf *out, dz_error *err) {
    put_text(out, ck->path, strlen(ck->path), err);
    dz_buf_put_u64(out, (uint64_t)ck->is_adapter, err);
    dz_buf_put_u64(out, ck->nshards, err);
    for (size_t i = 0; i < ck->nshards; i++) {
        const dz_shard *s = &ck->shards[i];
        put_text(out, s->file, strlen(s->file), err);
        put_text(out, s->path, strlen(s->path), err);
        put_text(out, s->header, s->header_len, err);
        dz_buf_put_u64(out, s->size, err);
        dz_buf_put_u64(out, s->prefix, err);
        put_places(out, s->places, s->nplaces, err);
    }
    put_sides(out, ck->companions, ck->ncompanions, err);
    put_sides(out, ck->skipped_files, ck->nskipped_files, err);
    return err->rc;
}

static char *get_text(dz_view *view, size_t *len, dz_error *err) {
    uint64_t n = dz_view_u64(view);
    const uint8_t *bytes = dz_view_bytes(view, n);
    if (len) *len = (size_t)n;
    if (!bytes) {
        dz_fail(err, DZ_EFAIL, "a packed checkpoint is cut short");
        return NULL;
    }
    return dz_strndup((const char *)bytes, (size_t)n, err);
}

/* How many things of at least `least` bytes follow; more than there is room for is an error. */
static size_t get_count(dz_view *view, size_t least, dz_error *err) {
    uint64_t n = dz_view_u64(view);
    if (!view->bad && n <= (view->len - view->pos) / least) return (size_t)n;
    dz_fail(err, DZ_EFAIL, "a packed checkpoint is cut short");
    return 0;
}

static dz_rc get_sides(dz_view *view, dz_companion_file **list, size_t *n, dz_error *err) {
    size_t count = get_count(view, 32, err);
    if (err->rc != DZ_OK || !(*list = dz_alloc(count, sizeof **list, err))) return err->rc;
    while (*n < count) {
        dz_companion_file *side = &(*list)[(*n)++];
        size_t len = 0;
        if (!(side->file = get_text(view, NULL, err)) || !(side->path = get_text(view, NULL, err))) return err->rc;
        side->size = dz_view_u64(view);
        if (!(side->bytes = get_text(view, &len, err))) return err->rc;
        if (len > 0) continue;
        free(side->bytes);
        side->bytes = NULL;
    }
    return DZ_OK;
}

static dz_rc get_places(dz_view *view, dz_shard *s, dz_error *err) {
    size_t n = get_count(view, 16, err);
    if (n == 0 || !(s->places = dz_alloc(n, sizeof *s->places, err))) return err->rc;
    while (s->nplaces < n) {
        dz_strided *p = &s->places[s->nplaces++];
        p->offset = dz_view_u64(view);
        p->strided = dz_view_u64(view) != 0;
        for (uint32_t d = 0; p->strided && d < DZ_MAX_NDIM; d++) p->stride[d] = dz_view_u64(view);
    }
    return view->bad ? dz_fail(err, DZ_EFAIL, "a packed checkpoint is cut short") : DZ_OK;
}

dz_rc dz_checkpoint_unpack(const uint8_t *bytes, size_t len, dz_checkpoint **out, dz_error *err) {
    dz_view view = {.data = bytes, .len = len};
    dz_checkpoint *ck = dz_alloc(1, sizeof *ck, err);
    if (!ck || !(ck->path = get_text(&view, NULL, err))) goto out;
    ck->is_adapter = dz_view_u64(&view) != 0;
    size_t nshards = get_count(&view, 48, err);
    if (err->rc != DZ_OK || !(ck->shards = dz_alloc(nshards, sizeof *ck->shards, err))) goto out;
    for (size_t i = 0; i < nshards; i++) {
        dz_shard *s = &ck->shards[ck->nshards++];
        s->fd = -1;
        if (!(s->file = get_text(&view, NULL, err)) || !(s->path = get_text(&view, NULL, err)) ||
            !(s->header = get_text(&view, &s->header_len, err)))
            goto out;
        s->size = dz_view_u64(&view);
        s->prefix = (size_t)dz_view_u64(&view);
        if (s->prefix > strlen(s->file)) {
            dz_fail(err, DZ_EFAIL, "a packed checkpoint is cut short");
            goto out;
        }
        if (get_places(&view, s, err) != DZ_OK) goto out;
    }
    get_sides(&view, &ck->companions, &ck->ncompanions, err);
    get_sides(&view, &ck->skipped_files, &ck->nskipped_files, err);
    if (err->rc != DZ_OK || dz_checkpoint_parse(ck, err) != DZ_OK) goto out;
    *out = ck;
    ck = NULL;
out:
    dz_checkpoint_free(ck);
    return err->rc;
}

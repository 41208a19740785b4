#include "archive/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"

dz_rc dz_spool_open(dz_spool *s, const char *archive_path, uint64_t budget, size_t nblocks, dz_error *err) {
    *s = (dz_spool){.budget = budget, .fd = -1, .nblocks = nblocks};
    s->dir = dz_path_beside(archive_path, ".", err);
    s->offset = dz_alloc(nblocks, sizeof *s->offset, err);
    s->length = dz_alloc(nblocks, sizeof *s->length, err);
    return err->rc;
}

void dz_spool_close(dz_spool *s) {
    if (s->fd >= 0) close(s->fd);
    free(s->dir);
    free(s->offset);
    free(s->length);
    dz_buf_free(&s->memory);
    *s = (dz_spool){.fd = -1};
}

/* Moves what is in memory to the temporary file, which has no name that anyone could guess or find. */
static dz_rc flush(dz_spool *s, dz_error *err) {
    if (s->fd < 0) s->fd = open(s->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (s->fd < 0) { /* a file system without O_TMPFILE */
        char *name = dz_format(err, "%s/.deltazoo-XXXXXX", s->dir);
        if (!name) return err->rc;
        s->fd = mkstemp(name);
        if (s->fd >= 0) unlink(name);
        free(name);
    }
    if (s->fd < 0) return dz_fail(err, DZ_EFAIL, "%s: cannot make a temporary file: %s", s->dir, strerror(errno));
    if (dz_pwrite_all(s->fd, s->dir, s->memory.data, s->memory.len, s->flushed, err) != DZ_OK) return err->rc;
    s->flushed += s->memory.len;
    s->memory.len = 0;
    return DZ_OK;
}

dz_rc dz_spool_put(dz_spool *s, size_t block, const uint8_t *body, size_t len, dz_error *err) {
    if (len > UINT32_MAX - 4) return dz_fail(err, DZ_EFAIL, "a coded block of %zu bytes is too large", len);
    if (s->memory.len && s->memory.len + len + 4 > s->budget && flush(s, err) != DZ_OK) return err->rc;
    s->offset[block] = s->flushed + s->memory.len;
    s->length[block] = (uint32_t)len + 4;
    dz_buf_put(&s->memory, body, len, err);
    return dz_buf_put_u32(&s->memory, dz_checksum(body, len), err);
}

dz_rc dz_spool_get(const dz_spool *s, size_t block, uint8_t *out, dz_error *err) {
    uint64_t at = s->offset[block];
    size_t len = s->length[block];
    if (at < s->flushed) return dz_pread_all(s->fd, s->dir, out, len, at, err);
    memcpy(out, s->memory.data + (at - s->flushed), len);
    return DZ_OK;
}

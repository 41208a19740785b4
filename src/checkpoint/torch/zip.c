#include "checkpoint/torch/zip.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define LOCAL_LEN ((uint64_t)30)
#define CENTRAL_LEN ((uint64_t)46)
#define END_LEN ((uint64_t)22)
#define END64_LEN ((uint64_t)56)
#define LOCATOR_LEN ((uint64_t)20)
#define COMMENT_MAX ((uint64_t)0xffff)
#define DIRECTORY_MAX ((uint64_t)64 << 20) /* a million tensors take less */

enum { LOCAL_MAGIC = 0x04034b50, CENTRAL_MAGIC = 0x02014b50, END_MAGIC = 0x06054b50, END64_MAGIC = 0x06064b50, LOCATOR_MAGIC = 0x07064b50 };
enum { FLAG_ENCRYPTED = 1, EXTRA_ZIP64 = 1 };

typedef struct directory { /* as the end records tell it */
    uint64_t offset, len, count;
} directory;

void dz_zip_free(dz_zip *zip) {
    for (size_t i = 0; i < zip->nentries; i++) free(zip->entries[i].name);
    free(zip->entries);
    *zip = (dz_zip){.fd = -1};
}

static uint16_t get_u16(dz_view *view) {
    uint16_t low = dz_view_u8(view);
    return (uint16_t)(low | dz_view_u8(view) << 8);
}

static void skip(dz_view *view, uint64_t len) { dz_view_bytes(view, len); }

/* The zip64 record that ends before `end` (the offset of the plain end record), if there is one. What both records tell must agree. */
static dz_rc read_end64(const dz_zip *zip, uint64_t end, directory *dir, dz_error *err) {
    uint8_t raw[END64_LEN];
    dz_view view = {.data = raw, .len = LOCATOR_LEN};
    if (end < LOCATOR_LEN) return DZ_OK;
    if (dz_pread_all(zip->fd, zip->path, raw, LOCATOR_LEN, end - LOCATOR_LEN, err) != DZ_OK) return err->rc;
    if (dz_view_u32(&view) != LOCATOR_MAGIC) return DZ_OK;
    uint32_t disk = dz_view_u32(&view);
    uint64_t at = dz_view_u64(&view);
    if (disk != 0 || dz_view_u32(&view) > 1) return dz_fail(err, DZ_EFAIL, "%s: a zip file in several parts", zip->path);
    if (at > end - LOCATOR_LEN || end - LOCATOR_LEN - at < END64_LEN)
        return dz_fail(err, DZ_EFAIL, "%s: its zip64 end record at byte %llu is outside the file", zip->path, (unsigned long long)at);
    if (dz_pread_all(zip->fd, zip->path, raw, END64_LEN, at, err) != DZ_OK) return err->rc;
    view = (dz_view){.data = raw, .len = END64_LEN};
    uint32_t magic = dz_view_u32(&view);
    skip(&view, 8 + 2 + 2 + 4 + 4); /* length, versions, this part, the directory's part */
    uint64_t here = dz_view_u64(&view), count = dz_view_u64(&view), len = dz_view_u64(&view), offset = dz_view_u64(&view);
    if (magic != END64_MAGIC || here != count || (dir->count != 0xffff && dir->count != count) ||
        (dir->len != 0xffffffffU && dir->len != len) || (dir->offset != 0xffffffffU && dir->offset != offset))
        return dz_fail(err, DZ_EFAIL, "%s: the zip file's two end records disagree", zip->path);
    *dir = (directory){.offset = offset, .len = len, .count = count};
    return DZ_OK;
}

/* Looks for the end record: the last one whose comment fills the rest of the file. */
static dz_rc read_end(const dz_zip *zip, uint64_t file_size, directory *dir, dz_error *err) {
    uint64_t tail = file_size < END_LEN + COMMENT_MAX ? file_size : END_LEN + COMMENT_MAX, end = 0;
    uint8_t *raw = dz_alloc_raw((size_t)tail, 1, err);
    int found = 0;
    if (!raw || dz_pread_all(zip->fd, zip->path, raw, (size_t)tail, file_size - tail, err) != DZ_OK) goto out;
    for (uint64_t left = END_LEN; left <= tail && !found; left++) {
        dz_view view = {.data = raw + (tail - left), .len = (size_t)left};
        if (dz_view_u32(&view) != END_MAGIC) continue;
        uint16_t part = get_u16(&view), directory_part = get_u16(&view), here = get_u16(&view);
        *dir = (directory){.count = get_u16(&view)};
        dir->len = dz_view_u32(&view);
        dir->offset = dz_view_u32(&view);
        if (get_u16(&view) != left - END_LEN) continue;
        if (part != 0 || directory_part != 0 || here != dir->count) {
            dz_fail(err, DZ_EFAIL, "%s: a zip file in several parts", zip->path);
            goto out;
        }
        end = file_size - left;
        found = 1;
    }
    if (!found) {
        dz_fail(err, DZ_EFAIL, "%s: not a zip file, or cut short: no end record (files of torch before 1.6 must be saved again)",
                zip->path);
        goto out;
    }
    if (read_end64(zip, end, dir, err) != DZ_OK) goto out;
    if (dir->offset > end || dir->len > end - dir->offset)
        dz_fail(err, DZ_EFAIL, "%s: the zip directory (%llu bytes at byte %llu) is outside the file", zip->path,
                (unsigned long long)dir->len, (unsigned long long)dir->offset);
    else if (dir->len > DIRECTORY_MAX || dir->count > dir->len / CENTRAL_LEN)
        dz_fail(err, DZ_EFAIL, "%s: %llu entries do not go into a zip directory of %llu bytes (at most %llu)", zip->path,
                (unsigned long long)dir->count, (unsigned long long)dir->len, (unsigned long long)DIRECTORY_MAX);
out:
    free(raw);
    return err->rc;
}

/* Sizes that do not fit in 32 bits are in an extra field, in this order, each only if the plain field is saturated. */
static void read_extra(dz_view extra, dz_zip_entry *e) {
    while (!extra.bad && extra.pos < extra.len) {
        uint16_t id = get_u16(&extra), len = get_u16(&extra);
        const uint8_t *bytes = dz_view_bytes(&extra, len);
        if (!bytes || id != EXTRA_ZIP64) continue;
        dz_view field = {.data = bytes, .len = len};
        if (e->size == 0xffffffffU) e->size = dz_view_u64(&field);
        if (e->packed == 0xffffffffU) e->packed = dz_view_u64(&field);
        if (e->header == 0xffffffffU) e->header = dz_view_u64(&field);
        return;
    }
}

static dz_rc read_entry(const dz_zip *zip, dz_view *view, dz_zip_entry *e, dz_error *err) {
    uint32_t magic = dz_view_u32(view);
    skip(view, 2 + 2); /* versions */
    e->flags = get_u16(view);
    e->method = get_u16(view);
    skip(view, 4 + 4); /* time, checksum */
    e->packed = dz_view_u32(view);
    e->size = dz_view_u32(view);
    uint16_t name_len = get_u16(view), extra_len = get_u16(view), comment_len = get_u16(view), part = get_u16(view);
    skip(view, 2 + 4); /* attributes */
    e->header = dz_view_u32(view);
    const uint8_t *name = dz_view_bytes(view, name_len), *extra = dz_view_bytes(view, extra_len);
    skip(view, comment_len);
    if (magic != CENTRAL_MAGIC || view->bad || part != 0)
        return dz_fail(err, DZ_EFAIL, "%s: the zip directory is damaged at its byte %zu", zip->path, view->pos);
    if (name_len == 0 || memchr(name, '\0', name_len)) return dz_fail(err, DZ_EFAIL, "%s: a zip entry without a usable name", zip->path);
    read_extra((dz_view){.data = extra, .len = extra_len}, e);
    e->name = dz_strndup((const char *)name, name_len, err);
    return err->rc;
}

static int compare_entries(const void *x, const void *y) {
    return strcmp(((const dz_zip_entry *)x)->name, ((const dz_zip_entry *)y)->name);
}

dz_rc dz_zip_open(int fd, const char *path, uint64_t file_size, dz_zip *out, dz_error *err) {
    dz_zip zip = {.fd = fd, .path = path};
    directory dir = {0};
    uint8_t *raw = NULL;
    if (read_end(&zip, file_size, &dir, err) != DZ_OK) goto out;
    zip.end = dir.offset;
    raw = dz_alloc_raw((size_t)dir.len, 1, err);
    zip.entries = dz_alloc((size_t)dir.count, sizeof *zip.entries, err);
    if (err->rc != DZ_OK || dz_pread_all(fd, path, raw, (size_t)dir.len, dir.offset, err) != DZ_OK) goto out;
    dz_view view = {.data = raw, .len = (size_t)dir.len};
    for (uint64_t i = 0; i < dir.count; i++) {
        if (read_entry(&zip, &view, &zip.entries[zip.nentries++], err) != DZ_OK) goto out;
    }
    qsort(zip.entries, zip.nentries, sizeof *zip.entries, compare_entries);
    for (size_t i = 1; i < zip.nentries; i++) {
        if (strcmp(zip.entries[i - 1].name, zip.entries[i].name) != 0) continue;
        dz_fail(err, DZ_EFAIL, "%s: zip entry '%s' is there twice", path, zip.entries[i].name);
        goto out;
    }
    *out = zip;
    zip = (dz_zip){.fd = -1};
out:
    dz_zip_free(&zip);
    free(raw);
    return err->rc;
}

const dz_zip_entry *dz_zip_find(const dz_zip *zip, const char *name) {
    const dz_zip_entry want = {.name = (char *)(uintptr_t)name};
    return zip->nentries ? bsearch(&want, zip->entries, zip->nentries, sizeof want, compare_entries) : NULL;
}

dz_rc dz_zip_locate(const dz_zip *zip, const dz_zip_entry *e, uint64_t *offset, dz_error *err) {
    uint8_t raw[LOCAL_LEN];
    dz_view view = {.data = raw, .len = LOCAL_LEN};
    if (e->method != 0)
        return dz_fail(err, DZ_EFAIL, "%s: zip entry '%s' is compressed (method %u): only stored ones are read", zip->path, e->name,
                       e->method);
    if (e->flags & FLAG_ENCRYPTED) return dz_fail(err, DZ_EFAIL, "%s: zip entry '%s' is encrypted", zip->path, e->name);
    if (e->packed != e->size)
        return dz_fail(err, DZ_EFAIL, "%s: zip entry '%s' is stored, but takes %llu bytes for %llu", zip->path, e->name,
                       (unsigned long long)e->packed, (unsigned long long)e->size);
    if (e->header > zip->end || zip->end - e->header < LOCAL_LEN)
        return dz_fail(err, DZ_EFAIL, "%s: zip entry '%s' begins at byte %llu, beyond the %llu bytes of entries", zip->path, e->name,
                       (unsigned long long)e->header, (unsigned long long)zip->end);
    if (dz_pread_all(zip->fd, zip->path, raw, LOCAL_LEN, e->header, err) != DZ_OK) return err->rc;
    uint32_t magic = dz_view_u32(&view);
    skip(&view, 2 + 2); /* version, flags */
    uint16_t method = get_u16(&view);
    skip(&view, 2 + 2 + 4 + 4 + 4); /* time, checksum and sizes: the directory has them, here they may be zero */
    uint16_t name_len = get_u16(&view), extra_len = get_u16(&view);
    uint64_t room = zip->end - e->header - LOCAL_LEN, names = (uint64_t)name_len + extra_len;
    if (magic != LOCAL_MAGIC || method != 0 || name_len != strlen(e->name))
        return dz_fail(err, DZ_EFAIL, "%s: zip entry '%s': its header at byte %llu is not the directory's", zip->path, e->name,
                       (unsigned long long)e->header);
    if (names > room || e->size > room - names)
        return dz_fail(err, DZ_EFAIL, "%s: zip entry '%s': %llu bytes at byte %llu reach beyond the %llu bytes of entries", zip->path,
                       e->name, (unsigned long long)e->size, (unsigned long long)(e->header + LOCAL_LEN + names),
                       (unsigned long long)zip->end);
    *offset = e->header + LOCAL_LEN + names;
    return DZ_OK;
}

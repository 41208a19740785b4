#include "compress/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

#define MAGIC "DZJOURN1"
#define HEAD 32    /* magic, identity, checksum */
#define RECORD 40  /* kind, len, id, key, checksum of the bytes, checksum of these */
#define AFTER 10.0 /* seconds from which on records go to the file */
#define SYNC_EVERY 30.0

static char *part_path(const char *dir, uint64_t part, dz_error *err) {
    return dz_format(err, "%s/part-%06" PRIu32 "-%06" PRIu32, dir, (uint32_t)(part >> 32), (uint32_t)part);
}

static int parse_part(const char *name, uint64_t *part) {
    uint32_t run = 0, rank = 0;
    int end = 0;
    if (sscanf(name, "part-%6" SCNu32 "-%6" SCNu32 "%n", &run, &rank, &end) != 2 || name[end] != '\0') return 0;
    *part = (uint64_t)run << 32 | rank;
    return 1;
}

static void remove_dir(const char *dir) {
    DIR *d = opendir(dir);
    uint64_t part = 0;
    dz_error none = {0};
    for (struct dirent *e; d && (e = readdir(d));) {
        char *path = parse_part(e->d_name, &part) ? dz_format(&none, "%s/%s", dir, e->d_name) : NULL;
        if (path) unlink(path);
        free(path);
    }
    if (d) closedir(d);
    rmdir(dir);
}

void dz_journal_remove(const char *archive) {
    dz_error none = {0};
    char *dir = dz_format(&none, "%s.journal", archive);
    if (dir) remove_dir(dir);
    free(dir);
}

static int by_number(const void *x, const void *y) {
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
    return a < b ? -1 : a > b;
}

static int by_key(const void *x, const void *y) {
    const dz_journal_entry *a = x, *b = y;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    if (a->id != b->id) return a->id < b->id ? -1 : 1;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    if (a->part != b->part) return a->part < b->part ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static void put_head(uint8_t head[HEAD], dz_digest identity) {
    memcpy(head, MAGIC, 8);
    memcpy(head + 8, &identity.hi, 8);
    memcpy(head + 16, &identity.lo, 8);
    uint64_t sum = dz_hash64(head, 24, 0);
    memcpy(head + 24, &sum, 8);
}

/* Headers of a part's records up to its end or to the first that is not whole. 0: a part of another job. */
static int scan_part(const char *path, uint32_t number, dz_digest identity, dz_buf *found, dz_error *err) {
    uint8_t want[HEAD], head[HEAD];
    struct stat st;
    int fd = dz_open(path, O_RDONLY | O_NOFOLLOW), ours = 1;
    put_head(want, identity);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || pread(fd, head, HEAD, 0) != HEAD)
        goto out; /* cut before its first record */
    ours = memcmp(head, want, HEAD) == 0;
    for (uint64_t at = HEAD; ours && at + RECORD <= (uint64_t)st.st_size && err->rc == DZ_OK;) {
        uint8_t r[RECORD];
        uint64_t sum = 0;
        dz_journal_entry e = {.part = number, .offset = at + RECORD};
        if (pread(fd, r, RECORD, (off_t)at) != RECORD) break;
        memcpy(&sum, r + 32, 8);
        if (sum != dz_hash64(r, 32, 0)) break;
        memcpy(&e.kind, r, 4);
        memcpy(&e.len, r + 4, 4);
        memcpy(&e.id, r + 8, 8);
        memcpy(&e.key, r + 16, 8);
        memcpy(&e.checksum, r + 24, 8);
        if (e.len > (uint64_t)st.st_size - e.offset) break;
        dz_buf_put(found, &e, sizeof e, err);
        at = e.offset + e.len;
    }
out:
    if (fd >= 0) close(fd);
    return ours;
}

/* Rank 0: parts of earlier runs and their records, or an empty directory. `parts` gets the numbers, `found` the entries. */
static dz_rc scan(const char *dir, dz_digest identity, dz_buf *parts, dz_buf *found, int *foreign, dz_error *err) {
    if (mkdir(dir, 0777) == 0) return DZ_OK;
    if (errno != EEXIST) return dz_fail(err, DZ_EFAIL, "%s: cannot make the directory: %s", dir, strerror(errno));
    DIR *d = opendir(dir);
    if (!d) return dz_fail(err, DZ_EFAIL, "%s: exists and is not a directory that can be read: %s", dir, strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        uint64_t part = 0;
        if (parse_part(e->d_name, &part)) dz_buf_put(parts, &part, sizeof part, err);
    }
    closedir(d);
    size_t n = parts->len / sizeof(uint64_t);
    if (err->rc == DZ_OK && n) qsort(parts->data, n, sizeof(uint64_t), by_number);
    for (size_t i = 0; i < n && err->rc == DZ_OK && !*foreign; i++) {
        uint64_t part = 0;
        memcpy(&part, parts->data + i * sizeof part, sizeof part);
        char *path = part_path(dir, part, err);
        if (path && !scan_part(path, (uint32_t)i, identity, found, err)) *foreign = 1;
        free(path);
    }
    if (*foreign) {
        parts->len = found->len = 0;
        remove_dir(dir);
        if (mkdir(dir, 0777) != 0 && errno != EEXIST) dz_fail(err, DZ_EFAIL, "%s: cannot make the directory: %s", dir, strerror(errno));
    }
    return err->rc;
}

/* A unit's number among this rank's; mine.count when it is another's. */
static size_t number_of(const dz_journal *j, uint64_t unit) {
    if (unit >= j->mine.nunits) return j->mine.count;
    size_t place = j->mine.place[unit];
    return place >= j->mine.first && place - j->mine.first < j->mine.count ? place - j->mine.first : j->mine.count;
}

/* What of all entries concerns this rank. */
static dz_rc take_entries(dz_journal *j, const dz_buf *found, dz_error *err) {
    size_t n = found->len / sizeof(dz_journal_entry);
    j->entries = dz_alloc(n, sizeof *j->entries, err);
    for (size_t i = 0; j->entries && i < n; i++) {
        dz_journal_entry e;
        memcpy(&e, found->data + i * sizeof e, sizeof e);
        if (e.kind == DZ_RECORD_TRACE || number_of(j, e.id) < j->mine.count) j->entries[j->nentries++] = e;
    }
    if (j->nentries) qsort(j->entries, j->nentries, sizeof *j->entries, by_key);
    return err->rc;
}

static dz_rc make_part(dz_journal *j, dz_digest identity, dz_error *err) {
    uint8_t head[HEAD];
    char *path = part_path(j->dir, j->parts[j->nparts - 1], err);
    if (!path) return err->rc;
    put_head(head, identity);
    j->fd = dz_open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW);
    if (j->fd < 0)
        dz_fail(err, DZ_EFAIL, "%s: cannot create: %s", path, strerror(errno));
    else
        dz_pwrite_all(j->fd, path, head, HEAD, 0, err);
    j->flushed = HEAD;
    free(path);
    return err->rc;
}

dz_rc dz_journal_open(dz_journal *j, const dz_world *world, const char *archive, dz_digest identity, dz_journal_units mine, uint64_t budget,
                      int *foreign, dz_error *err) {
    const char *after = getenv("DZ_JOURNAL_AFTER");
    dz_buf parts = {0}, found = {0};
    *j = (dz_journal){.fd = -1, .other_fd = -1, .mine = mine, .budget = budget};
    j->begun = j->synced = dz_now();
    j->after = after ? atof(after) : AFTER;
    j->dir = dz_format(err, "%s.journal", archive);
    j->offset = dz_alloc(mine.count, sizeof *j->offset, err);
    j->length = dz_alloc(mine.count, sizeof *j->length, err);
    j->part = dz_alloc(mine.count, sizeof *j->part, err);
    *foreign = 0;
    if (err->rc == DZ_OK && world->rank == 0) scan(j->dir, identity, &parts, &found, foreign, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc == DZ_OK) rc = dz_bcast_buf(world, &parts, err);
    if (rc == DZ_OK) rc = dz_bcast_buf(world, &found, err);
    if (rc == DZ_OK) {
        size_t n = parts.len / sizeof(uint64_t);
        uint64_t run = 0;
        if ((j->parts = dz_alloc(n + 1, sizeof *j->parts, err))) {
            if (n) memcpy(j->parts, parts.data, n * sizeof *j->parts);
            if (n) run = (j->parts[n - 1] >> 32) + 1;
            j->parts[n] = run << 32 | (uint32_t)world->rank;
            j->nparts = n + 1;
            if (take_entries(j, &found, err) == DZ_OK) make_part(j, identity, err);
        }
        rc = dz_sync_error(world, err->rc, err);
    }
    dz_buf_free(&parts);
    dz_buf_free(&found);
    return rc;
}

void dz_journal_close(dz_journal *j) {
    if (j->dir && j->fd >= 0) close(j->fd);
    if (j->dir && j->other_fd >= 0) close(j->other_fd);
    dz_buf_free(&j->memory);
    free(j->dir);
    free(j->parts);
    free(j->entries);
    free(j->offset);
    free(j->length);
    free(j->part);
    *j = (dz_journal){.fd = -1, .other_fd = -1};
}

int dz_journal_worth_keeping(const dz_journal *j) { return j->dir && dz_now() - j->begun >= j->after; }

dz_rc dz_journal_flush(dz_journal *j, dz_error *err) {
    if (j->memory.len == 0) return err->rc;
    if (dz_pwrite_all(j->fd, j->dir, j->memory.data, j->memory.len, j->flushed, err) != DZ_OK) return err->rc;
    j->flushed += j->memory.len;
    j->memory.len = 0;
    return DZ_OK;
}

/* Adds a record: `n` bytes at `a`, `m` at `b`. */
static dz_rc append(dz_journal *j, dz_record kind, uint64_t id, uint64_t key, const void *a, size_t n, const void *b, size_t m,
                    dz_error *err) {
    uint32_t k = kind, len = (uint32_t)(n + m);
    uint8_t r[RECORD];
    double now = dz_now();
    if (dz_buf_reserve(&j->memory, RECORD + n + m, err) != DZ_OK) return err->rc;
    uint8_t *bytes = j->memory.data + j->memory.len + RECORD;
    if (n) memcpy(bytes, a, n);
    if (m) memcpy(bytes + n, b, m);
    uint64_t sum = dz_hash64(bytes, len, 0);
    memcpy(r, &k, 4);
    memcpy(r + 4, &len, 4);
    memcpy(r + 8, &id, 8);
    memcpy(r + 16, &key, 8);
    memcpy(r + 24, &sum, 8);
    sum = dz_hash64(r, 32, 0);
    memcpy(r + 32, &sum, 8);
    memcpy(j->memory.data + j->memory.len, r, RECORD);
    j->memory.len += RECORD + n + m;
    int due = dz_journal_worth_keeping(j);
    if ((due || j->memory.len > j->budget) && dz_journal_flush(j, err) != DZ_OK) return err->rc;
    if (due && now - j->synced > SYNC_EVERY) { /* for a lost node; a killed process loses nothing that is written */
        j->synced = now;
        if (dz_fsync(j->fd) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", j->dir, strerror(errno));
    }
    return err->rc;
}

dz_rc dz_journal_put(dz_journal *j, dz_record kind, uint64_t id, uint64_t key, const void *bytes, size_t len, dz_error *err) {
    return append(j, kind, id, key, bytes, len, NULL, 0, err);
}

/* The latest record of this name. */
static const dz_journal_entry *find(const dz_journal *j, dz_record kind, uint64_t id, uint64_t key) {
    size_t lo = 0, hi = j->nentries;
    dz_journal_entry want = {.kind = kind, .id = id, .key = key, .part = UINT32_MAX, .offset = UINT64_MAX};
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (by_key(&j->entries[mid], &want) <= 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    const dz_journal_entry *e = lo ? &j->entries[lo - 1] : NULL;
    return e && e->kind == (uint32_t)kind && e->id == id && e->key == key ? e : NULL;
}

static int part_fd(dz_journal *j, uint32_t part) {
    if (part == j->nparts - 1) return j->fd;
    if (j->other_fd >= 0 && j->other == part) return j->other_fd;
    if (j->other_fd >= 0) close(j->other_fd);
    dz_error none = {0};
    char *path = part_path(j->dir, j->parts[part], &none);
    j->other_fd = path ? dz_open(path, O_RDONLY | O_NOFOLLOW) : -1;
    j->other = part;
    free(path);
    return j->other_fd;
}

/* The bytes of an entry, whole and unspoilt; the caller frees. */
static uint8_t *bytes_of(dz_journal *j, const dz_journal_entry *e) {
    dz_error none = {0};
    uint8_t *bytes = dz_alloc_raw(e->len, 1, &none);
    int fd = bytes ? part_fd(j, e->part) : -1;
    if (fd >= 0 && dz_pread_all(fd, j->dir, bytes, e->len, e->offset, &none) == DZ_OK && dz_hash64(bytes, e->len, 0) == e->checksum)
        return bytes;
    free(bytes);
    return NULL;
}

int dz_journal_find(dz_journal *j, dz_record kind, uint64_t id, uint64_t key, void *out, size_t len) {
    const dz_journal_entry *e = find(j, kind, id, key);
    uint8_t *bytes = e && e->len == len ? bytes_of(j, e) : NULL;
    if (bytes) memcpy(out, bytes, len);
    free(bytes);
    return bytes != NULL;
}

dz_rc dz_journal_put_block(dz_journal *j, uint64_t unit, uint64_t key, const uint64_t *counts, size_t n, dz_buf *body, dz_error *err) {
    size_t i = number_of(j, unit);
    if (body->len > UINT32_MAX - 4 - RECORD - 8 * n) return dz_fail(err, DZ_EFAIL, "a coded block of %zu bytes is too large", body->len);
    uint64_t at = j->flushed + j->memory.len + RECORD + 8 * n;
    if (dz_buf_put_u32(body, dz_checksum(body->data, body->len), err) != DZ_OK ||
        append(j, DZ_RECORD_BLOCK, unit, key, counts, 8 * n, body->data, body->len, err) != DZ_OK)
        return err->rc;
    j->offset[i] = at;
    j->length[i] = (uint32_t)body->len;
    j->part[i] = (uint32_t)j->nparts - 1;
    return DZ_OK;
}

int dz_journal_adopt_block(dz_journal *j, uint64_t unit, uint64_t key, uint64_t *counts, size_t n) {
    const dz_journal_entry *e = find(j, DZ_RECORD_BLOCK, unit, key);
    uint8_t *bytes = e && e->len >= 8 * n + 5 ? bytes_of(j, e) : NULL;
    if (!bytes) return 0;
    if (n) memcpy(counts, bytes, 8 * n);
    free(bytes);
    size_t i = number_of(j, unit);
    j->offset[i] = e->offset + 8 * n;
    j->length[i] = (uint32_t)(e->len - 8 * n);
    j->part[i] = e->part;
    j->adopted++;
    return 1;
}

dz_rc dz_journal_get_block(dz_journal *j, uint64_t unit, uint8_t *out, dz_error *err) {
    size_t i = number_of(j, unit);
    if (j->part[i] == j->nparts - 1 && j->offset[i] >= j->flushed) {
        memcpy(out, j->memory.data + (j->offset[i] - j->flushed), j->length[i]);
        return DZ_OK;
    }
    int fd = part_fd(j, j->part[i]);
    if (fd < 0) return dz_fail(err, DZ_EFAIL, "%s: a part of it cannot be opened: %s", j->dir, strerror(errno));
    return dz_pread_all(fd, j->dir, out, j->length[i], j->offset[i], err);
}

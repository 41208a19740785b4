/* Single bits of an archive flipped, one at a time: flips ARCHIVE BASE (every N | random N). Each flip must be detected (verify or opening
 * fails with a text) or harmless (verify is content and everything restores to the same bytes). Prints a row of counts for each area of the
 * file, and every place that was neither. Exit 1 if there is one.
 *
 * Processes try; each has a copy of the archive in memory. One that crashes or hangs is counted, and another goes on behind the place. */
#include <fcntl.h>
#include <hdf5.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "archive_ops/verify.h"
#include "base/file.h"
#include "decode/tile_decoder.h"

enum { WORKERS = 2, MOST_SECS = 30 };
enum { SUPERBLOCK, METADATA, BLOBS, PAYLOAD, AREAS };
static const char *const AREA[AREAS] = {"superblock", "tables, attributes and HDF5's structures", "blobs", "payloads"};

typedef struct count {
    uint64_t tried, detected, harmless, wrong, crashed, hung;
} count;

typedef struct shared { /* between the processes */
    uint64_t next[WORKERS];
    count counts[WORKERS][AREAS];
} shared;

typedef struct places { /* which bits: number i of n */
    uint64_t nbits, every, n;
    int random;
} places;

static const dz_world ALONE = {.comm = MPI_COMM_NULL, .progress = MPI_COMM_NULL, .size = 1};

static uint64_t place_at(const places *p, uint64_t i) { return p->random ? dz_u64_at(2026, i) % p->nbits : i * p->every; }

/* The digest of all that can be restored, names included. */
static dz_rc restore_all(const char *path, dz_checkpoint *base, dz_digest *digest, dz_error *err) {
    dz_archive *a = NULL;
    dz_decoder d = {0};
    dz_buf all = {0}, out = {0};
    if (dz_archive_open(path, &a, err) != DZ_OK || dz_decoder_open(&d, a, base, NULL, err) != DZ_OK) goto out;
    for (size_t t = 0; t < a->catalog->ntasks && err->rc == DZ_OK; t++) {
        const dz_task_entry *task = &a->catalog->tasks[t];
        dz_buf_put(&all, task->name, strlen(task->name) + 1, err);
        dz_buf_put(&all, task->recipe_text, strlen(task->recipe_text) + 1, err);
        for (size_t i = 0; i < task->nfiles && err->rc == DZ_OK; i++) {
            char *bytes = NULL;
            size_t len = 0;
            if (dz_catalog_blob(a->catalog, task->files[i].blob, &bytes, &len, err) != DZ_OK) break;
            dz_buf_put(&all, task->files[i].path, strlen(task->files[i].path) + 1, err);
            dz_buf_put_u64(&all, task->files[i].kind, err);
            dz_buf_put_u64(&all, task->files[i].size, err);
            dz_buf_put(&all, bytes, len, err);
            free(bytes);
        }
        for (size_t i = 0; i < task->nrows && err->rc == DZ_OK; i++) {
            const dz_index_row *row = &task->rows[i];
            const dz_tensor_row *tensor = &a->catalog->tensors[row->tensor];
            dz_pair_tiles tiles = dz_row_work(a->catalog, row);
            dz_buf_put(&all, tensor->name, strlen(tensor->name) + 1, err);
            dz_buf_put(&all, tensor->dtype, sizeof tensor->dtype, err);
            dz_buf_put(&all, tensor->shape, tensor->ndim * sizeof tensor->shape[0], err);
            for (uint32_t k = 0; k < tiles.ntiles && err->rc == DZ_OK; k++) {
                size_t len = (size_t)dz_tile_count(&tiles, k) * dz_dtype_size(dz_tensor_of_row(tensor).dtype);
                out.len = 0;
                if (dz_buf_reserve(&out, len, err) != DZ_OK || dz_decode_tile(&d, task, row, k, out.data, err) != DZ_OK) break;
                dz_digest one = dz_digest_of(out.data, len);
                dz_buf_put(&all, &one, sizeof one, err);
            }
        }
    }
    *digest = dz_digest_of(all.data, all.len);
out:
    dz_decoder_close(&d);
    dz_buf_free(&all);
    dz_buf_free(&out);
    dz_archive_close(a);
    return err->rc;
}

/* 1: found, with a text. 0: content. -1: failed without a word, or not as damage. */
static int verify_finds(const char *path) {
    dz_error err = {0};
    dz_verify_result r = {0};
    dz_rc rc = dz_verify(&ALONE, path, NULL, NULL, 0, 1, &r, &err);
    int reported = (r.damage.count > 0 && r.damage.records.len > 0) || (err.text[0] && !strchr(err.text, '\n'));
    dz_damage_free(&r.damage);
    return rc == DZ_OK ? 0 : reported && (rc == DZ_EDAMAGE || rc == DZ_EFAIL) ? 1 : -1;
}

typedef struct extent {
    uint64_t offset, len;
} extent;

static extent blobs_at, payloads[16];
static size_t npayloads;

static void find_areas(const char *path) {
    dz_error err = {0};
    dz_archive *a = NULL;
    if (dz_archive_open(path, &a, &err) != DZ_OK || a->catalog->ntasks > 16) {
        printf("%s\n", err.text);
        exit(1);
    }
    for (size_t t = 0; t < a->catalog->ntasks; t++)
        payloads[npayloads++] = (extent){a->catalog->tasks[t].payload_offset, a->catalog->tasks[t].payload_len};
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, "blobs/data", H5P_DEFAULT);
    blobs_at = (extent){H5Dget_offset(set), a->catalog->blob_data.len};
    H5Dclose(set);
    H5Fclose(file);
    dz_archive_close(a);
}

static int area_of(uint64_t byte) {
    if (byte < 48) return SUPERBLOCK;
    if (byte - blobs_at.offset < blobs_at.len) return BLOBS;
    for (size_t t = 0; t < npayloads; t++) {
        if (byte - payloads[t].offset < payloads[t].len) return PAYLOAD;
    }
    return METADATA;
}

static void try_one(const char *path, int fd, uint64_t bit, uint8_t was, dz_checkpoint *base, const dz_digest *want, count *c) {
    uint8_t now = (uint8_t)(was ^ 1U << bit % 8);
    dz_error err = {0};
    dz_digest got = {0};
    if (pwrite(fd, &now, 1, (off_t)(bit / 8)) != 1) abort();
    int found = verify_finds(path);
    if (found == 1) {
        c->detected++;
    } else if (found == 0 && restore_all(path, base, &got, &err) == DZ_OK && got.hi == want->hi && got.lo == want->lo) {
        c->harmless++;
    } else {
        c->wrong++;
        printf("byte %llu bit %llu (%s): verify %s, restored %s\n", (unsigned long long)(bit / 8), (unsigned long long)(bit % 8),
               AREA[area_of(bit / 8)], found ? "fails without a text" : "is content", err.rc ? err.text : "other bytes");
        fflush(stdout);
    }
    c->tried++;
    if (pwrite(fd, &was, 1, (off_t)(bit / 8)) != 1) abort();
}

static void work(const uint8_t *bytes, size_t size, const char *base_path, const places *p, const dz_digest *want, shared *s, int worker,
                 const char *path) {
    dz_error err = {0};
    dz_checkpoint *base = NULL;
    dz_digest got;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || dz_pwrite_all(fd, "memory", bytes, size, 0, &err) != DZ_OK || dz_checkpoint_load(base_path, &base, &err) != DZ_OK) {
        printf("%s\n", err.text);
        exit(2);
    }
    if (verify_finds(path) != 0 || restore_all(path, base, &got, &err) != DZ_OK || got.hi != want->hi || got.lo != want->lo) {
        printf("the copy is not sound to begin with: %s\n", err.text);
        exit(2);
    }
    while (s->next[worker] < p->n) {
        uint64_t i = s->next[worker], bit = place_at(p, i);
        alarm(MOST_SECS);
        try_one(path, fd, bit, bytes[bit / 8], base, want, &s->counts[worker][area_of(bit / 8)]);
        s->next[worker] = i + WORKERS;
    }
    exit(0);
}

/* Keeps a process at work on this share until it is done; what ends it early is counted. */
static void share(const uint8_t *bytes, size_t size, const char *base, const places *p, const dz_digest *want, shared *s, int worker) {
    char path[64];
    int left = 2;
    snprintf(path, sizeof path, "%s/deltazoo-flips-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkstemp(path) < 0) exit(2);
    for (;;) {
        fflush(stdout);
        pid_t pid = fork();
        int status = 0;
        if (pid == 0) work(bytes, size, base, p, want, s, worker, path);
        if (pid < 0 || waitpid(pid, &status, 0) != pid || (WIFEXITED(status) && WEXITSTATUS(status) == 2)) break;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            left = 0;
            break;
        }
        uint64_t bit = place_at(p, s->next[worker]);
        count *c = &s->counts[worker][area_of(bit / 8)];
        int hung = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
        c->tried++;
        c->hung += (uint64_t)hung;
        c->crashed += (uint64_t)!hung;
        printf("byte %llu bit %llu: %s\n", (unsigned long long)(bit / 8), (unsigned long long)(bit % 8), hung ? "hangs" : "crashes");
        s->next[worker] += WORKERS;
    }
    unlink(path);
    exit(left);
}

static uint64_t print_counts(const shared *s) {
    count all[AREAS + 1] = {0};
    uint64_t bad = 0;
    printf("| area | tried | detected | harmless | wrong | crashed | hung |\n|---|---|---|---|---|---|---|\n");
    for (int i = 0; i <= AREAS; i++) {
        for (int w = 0; w < WORKERS && i < AREAS; w++) {
            const uint64_t *from = &s->counts[w][i].tried;
            for (size_t k = 0; k < sizeof(count) / 8; k++) {
                (&all[i].tried)[k] += from[k];
                (&all[AREAS].tried)[k] += from[k];
            }
        }
        const count *c = &all[i];
        printf("| %s | %llu | %llu | %llu | %llu | %llu | %llu |\n", i < AREAS ? AREA[i] : "all", (unsigned long long)c->tried,
               (unsigned long long)c->detected, (unsigned long long)c->harmless, (unsigned long long)c->wrong,
               (unsigned long long)c->crashed, (unsigned long long)c->hung);
        bad += c->wrong + c->crashed + c->hung;
    }
    return bad / 2; /* counted by area and in all */
}

int main(int argc, char **argv) {
    dz_error err = {0};
    char *bytes = NULL;
    size_t size = 0;
    dz_checkpoint *base = NULL;
    dz_digest want;
    if (argc != 5) return 2;
    uint64_t n = strtoull(argv[4], NULL, 10);
    if (n == 0 || dz_read_file(argv[1], (size_t)1 << 30, &bytes, &size, &err) != DZ_OK ||
        dz_checkpoint_load(argv[2], &base, &err) != DZ_OK || verify_finds(argv[1]) != 0 ||
        restore_all(argv[1], base, &want, &err) != DZ_OK) {
        printf("%s: the archive is not sound to begin with: %s\n", argv[1], err.text);
        return 1;
    }
    dz_checkpoint_free(base);
    find_areas(argv[1]);
    places p = {.nbits = 8 * (uint64_t)size, .every = n, .random = strcmp(argv[3], "random") == 0};
    p.n = p.random ? n : (p.nbits + n - 1) / n;
    shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED) return 2;
    fflush(stdout);
    for (int w = 0; w < WORKERS; w++) {
        s->next[w] = (uint64_t)w;
        if (fork() == 0) share((const uint8_t *)bytes, size, argv[2], &p, &want, s, w);
    }
    int status, failed = 0;
    while (wait(&status) > 0) failed |= status;
    free(bytes);
    return print_counts(s) != 0 || failed;
}

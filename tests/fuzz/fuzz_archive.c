/* A whole archive: structures, tables, blobs, regions and blocks. libFuzzer's changes get right checksums of HDF5's structures (seeds.py
 * also makes tables without filters), so that they reach what lies behind. */
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "decode/tile_decoder.h"
#include "target.h"

#define MOST ((uint64_t)1 << 16) /* elements of a tile that is decoded */

static void decode_all(const dz_archive *a) {
    const dz_catalog *c = a->catalog;
    dz_decoder d;
    dz_error err = {0};
    PROMISE(dz_decoder_open(&d, a, NULL, NULL, &err) == DZ_OK);
    for (size_t t = 0; t < c->ntasks; t++) {
        for (size_t i = 0; i < c->tasks[t].nrows; i++) {
            const dz_index_row *row = &c->tasks[t].rows[i];
            dz_pair_tiles tiles = dz_row_tiles(c, row);
            size_t size = dz_dtype_size(dz_tensor_of_row(&c->tensors[row->tensor]).dtype);
            for (uint32_t k = 0; k < tiles.ntiles && k < 4; k++) {
                uint64_t count = dz_tile_count(&tiles, k), kept = 0;
                dz_error one = {0};
                if (count > MOST) continue;
                dz_check_tile(&d, &c->tasks[t], row, k, &kept, &one);
                PROMISE(kept <= count);
                promise_error(&one);
                one = (dz_error){0};
                if (k >= tiles.ncommon || row->source || dz_decoder_has_base(&d))
                    dz_decode_tile(&d, &c->tasks[t], row, k, guarded(1, (size_t)count * size), &one);
                promise_error(&one);
            }
        }
    }
    dz_decoder_close(&d);
}

static void read_files(const dz_archive *a) {
    const dz_catalog *c = a->catalog;
    for (size_t t = 0; t < c->ntasks; t++) {
        dz_lookup rows = {0};
        PROMISE(dz_task_rows(c, &c->tasks[t], &rows, &(dz_error){0}) == DZ_OK);
        for (size_t i = 0; i < c->tasks[t].nfiles; i++) {
            const dz_file_row *f = &c->tasks[t].files[i];
            char *bytes = NULL;
            size_t len = 0, n = 0;
            dz_tensor *tensors = NULL;
            dz_error one = {0};
            PROMISE(dz_path_is_inside(f->path));
            if (dz_catalog_blob(c, f->blob, &bytes, &len, &one) == DZ_OK && f->kind == DZ_FILE_SAFETENSORS && len >= 8 && f->size >= len &&
                dz_safetensors_parse(f->path, bytes + 8, len - 8, f->size, 0, &tensors, &n, &one) == DZ_OK) {
                for (size_t k = 0; k < n; k++) dz_task_row(c, &c->tasks[t], &rows, &tensors[k]);
            }
            promise_error(&one);
            dz_tensors_free(tensors, n);
            free(bytes);
        }
        dz_lookup_free(&rows);
    }
}

/* Its last task alone: it is there as in the whole archive. */
static void open_one(const dz_archive *whole, const char *path) {
    if (whole->catalog->ntasks == 0) return;
    dz_archive *a = NULL;
    dz_error err = {0};
    const char *name = whole->catalog->tasks[whole->catalog->ntasks - 1].name;
    dz_archive_open_tasks(path, &name, 1, &a, &err);
    promise_error(&err);
    PROMISE(a && dz_catalog_find(a->catalog, name) >= 0);
    dz_archive_close(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 1 << 18) return 0;
    dz_archive *a = NULL, *whole = NULL;
    dz_error err = {0}, strict = {0};
    const char *path = as_file(data, size);
    dz_archive_open_partly(path, &a, &err);
    promise_error(&err);
    dz_archive_open(path, &whole, &strict);
    promise_error(&strict);
    PROMISE(!whole || (a && a->catalog->nlost == 0));
    if (a) {
        decode_all(a);
        read_files(a);
        open_one(a, path);
    }
    dz_archive_close(a);
    dz_archive_close(whole);
    return 0;
}

#if defined __clang__ && defined FUZZ_MUTATOR
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
uint32_t H5_checksum_lookup3(const void *data, size_t len, uint32_t initval); /* HDF5's own, not in its headers */

static void put_u32(uint8_t *at, uint32_t x) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(x >> (8 * i));
}

static uint64_t get(const uint8_t *at, unsigned nbytes) {
    uint64_t x = 0;
    for (unsigned i = 0; i < nbytes; i++) x |= (uint64_t)at[i] << (8 * i);
    return x;
}

/* Right checksums for the superblock and all headers; those of the continuations that the headers tell of. */
static void mend(uint8_t *data, size_t size) {
    if (size < 48) return;
    put_u32(data + 44, H5_checksum_lookup3(data, 44, 0));
    for (size_t at = 48; at + 24 < size; at++) {
        if (memcmp(data + at, "OHDR", 4) != 0) continue;
        unsigned flags = data[at + 5], width = 1U << (flags & 3), numbered = flags & 4 ? 2 : 0;
        size_t begin = at + 6 + (flags & 0x20 ? 16 : 0) + (flags & 0x10 ? 4 : 0);
        if (begin + width > size) continue;
        uint64_t len = get(data + begin, width);
        begin += width;
        size_t from = at;
        for (int blocks = 0; blocks < 20 && len <= size && begin <= size - len && size - len - begin >= 4; blocks++) {
            uint64_t next = 0, next_len = 0;
            for (size_t m = begin; m + 4 + numbered <= begin + len;) {
                uint64_t body = get(data + m + 1, 2);
                if (data[m] == 0x10 && m + 4 + numbered + 16 <= begin + len) {
                    next = get(data + m + 4 + numbered, 8);
                    next_len = get(data + m + 12 + numbered, 8);
                }
                m += 4 + numbered + (size_t)body;
            }
            put_u32(data + begin + len, H5_checksum_lookup3(data + from, begin + (size_t)len - from, 0));
            if (next == 0 || next_len < 8 || next > size || next_len > size - next) break;
            from = (size_t)next;
            begin = from + 4;
            len = next_len - 8;
        }
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    size_t changed = size;
    if (seed % 8 == 0) {
        changed = LLVMFuzzerMutate(data, size, max_size); /* may grow or shrink */
    } else if (size > 0) {                                /* a few bytes in place, so that offsets stay right */
        for (unsigned k = 0; k <= seed % 3; k++) {
            size_t at = dz_u64_at(seed, k) % size, len = 1 + dz_u64_at(seed, k + 9) % 8;
            if (len > size - at) len = size - at;
            LLVMFuzzerMutate(data + at, len, len);
        }
    }
    mend(data, changed);
    return changed;
}
#endif

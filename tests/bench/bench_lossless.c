/* The lossless codec against general compressors on the same tile: bytes and speed, processor time of one core. Results:
 * results/lossless.md.
 *
 *   bench_lossless [ELEMENTS]      default 4,000,000 weights of bf16, f16 and f32, and small tiles; xz when it is installed
 *   BENCH_OURS=1 bench_lossless    no other compressor
 *   bench_lossless WORDS BASE DTYPE    elements and those of the base from files, 4 Mi at a time: bytes and ns an element
 */
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "base/hash.h"
#include "base/log.h"
#include "codec/lossless.h"

enum { REPEATS = 7 };

/* Seconds of processor time of this process: other users of the machine do not count. */
static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- data: Gaussian base of std 0.02, Student-t (5 degrees of freedom) deltas of a scale ---- */

static double uniform(uint64_t key, uint64_t i) { return ((double)(dz_u64_at(key, i) >> 11) + 0.5) * 0x1p-53; }

static double gauss(uint64_t key, uint64_t i) {
    return sqrt(-2 * log(uniform(key, 2 * i))) * cos(6.283185307179586 * uniform(key, 2 * i + 1));
}

/* Student-t of 5 degrees of freedom; a chi-square of 4 is the logarithm of two uniform numbers. */
static double student5(uint64_t key, uint64_t i) {
    double g = gauss(key + 1, i), chi2 = g * g - 2 * log(uniform(key + 2, 2 * i) * uniform(key + 2, 2 * i + 1));
    return gauss(key, i) / sqrt(chi2 / 5);
}

static void put_float(void *words, size_t i, dz_dtype dtype, float x) {
    uint16_t half = dtype == DZ_BF16 ? dz_float_to_bf16(x) : dz_float_to_f16(x);
    if (dtype == DZ_F32) {
        memcpy((float *)words + i, &x, 4);
    } else {
        memcpy((uint16_t *)words + i, &half, 2);
    }
}

static void make(void *words, void *base, dz_dtype dtype, size_t count, double scale) {
    for (size_t i = 0; i < count; i++) {
        float x;
        put_float(base, i, dtype, (float)(0.02 * gauss(11, i)));
        dz_widen(&x, (const uint8_t *)base + i * dz_dtype_size(dtype), dtype, 1);
        put_float(words, i, dtype, x + (float)(scale * student5(77, i)));
    }
}

/* ---- what is compared ---- */

typedef struct figure {
    size_t nbytes;
    double encode, decode; /* seconds, best of the repeats */
} figure;

static void print_figure(const char *name, figure f, size_t raw) {
    printf("  %-26s %10zu  %6.3f", name, f.nbytes, (double)raw / (double)f.nbytes);
    printf("  %8.1f", (double)raw / f.encode / 1e6);
    if (f.decode > 0) {
        printf("  %8.1f\n", (double)raw / f.decode / 1e6);
    } else {
        printf("  %8s\n", "-"); /* not measured */
    }
}

static figure ours(const void *words, const void *base, dz_dtype dtype, size_t count) {
    figure f = {.encode = 1e9, .decode = 1e9};
    dz_error err = {0};
    size_t raw = count * dz_dtype_size(dtype);
    void *back = malloc(raw);
    for (int r = 0; r < REPEATS; r++) {
        dz_buf body = {0};
        double t0 = cpu_now();
        if (dz_lossless_encode(&body, words, base, dtype, count, NULL, &err) != DZ_OK) exit(1);
        double t1 = cpu_now();
        if (dz_lossless_decode(back, base, dtype, count, body.data, body.len, &err) != DZ_OK) exit(1);
        double t2 = cpu_now();
        if (memcmp(back, words, raw) != 0) exit(1);
        f.nbytes = body.len;
        if (t1 - t0 < f.encode) f.encode = t1 - t0;
        if (t2 - t1 < f.decode) f.decode = t2 - t1;
        dz_buf_free(&body);
    }
    free(back);
    return f;
}

static figure by_zstd(const uint8_t *bytes, size_t raw, int level) {
    size_t room = ZSTD_compressBound(raw);
    uint8_t *coded = malloc(room), *back = malloc(raw);
    double t0 = cpu_now();
    size_t n = ZSTD_compress(coded, room, bytes, raw, level);
    double t1 = cpu_now();
    ZSTD_decompress(back, raw, coded, n);
    double t2 = cpu_now();
    free(coded);
    free(back);
    return (figure){n, t1 - t0, t2 - t1};
}

static figure by_xz(const uint8_t *bytes, size_t raw) {
    figure f = {0};
    char path[] = "/tmp/bench-lossless-XXXXXX", command[128];
    int fd = mkstemp(path);
    if (fd < 0) return f;
    if (write(fd, bytes, raw) == (ssize_t)raw) {
        snprintf(command, sizeof command, "xz -6 -c %s 2>/dev/null | wc -c", path);
        double t0 = dz_now();
        FILE *pipe = popen(command, "r");
        if (pipe && fscanf(pipe, "%zu", &f.nbytes) == 1) f.encode = dz_now() - t0;
        if (pipe) pclose(pipe);
    }
    close(fd);
    unlink(path);
    return f;
}

static void compare(const char *title, const void *words, const void *base, dz_dtype dtype, size_t count) {
    size_t size = dz_dtype_size(dtype), raw = count * size;
    uint8_t *mixed = malloc(raw), *split = malloc(raw);
    for (size_t i = 0; i < raw; i++) mixed[i] = ((const uint8_t *)words)[i] ^ ((const uint8_t *)base)[i];
    for (size_t i = 0; i < raw; i++) split[i % size * count + i / size] = mixed[i];
    printf("%s: %zu bytes\n  %-26s %10s  %6s  %8s  %8s\n", title, raw, "", "bytes", "ratio", "enc MB/s", "dec MB/s");
    print_figure("deltazoo", ours(words, base, dtype, count), raw);
    print_figure("deltazoo without a base", ours(words, NULL, dtype, count), raw);
    print_figure("zstd -19, XOR", by_zstd(mixed, raw, 19), raw);
    print_figure("zstd -19, XOR, bytes split", by_zstd(split, raw, 19), raw);
    print_figure("zstd -3,  XOR", by_zstd(mixed, raw, 3), raw);
    print_figure("zstd -3,  XOR, bytes split", by_zstd(split, raw, 3), raw);
    figure xz = by_xz(mixed, raw);
    if (xz.nbytes) print_figure("xz -6,    XOR", xz, raw);
    free(mixed);
    free(split);
}

static int of_files(const char *words_path, const char *base_path, dz_dtype dtype) {
    enum { TILE = 1 << 22 };
    size_t size = dz_dtype_size(dtype), n, nelements = 0, nbytes = 0;
    void *words = malloc(TILE * size), *base = malloc(TILE * size);
    FILE *from = fopen(words_path, "rb"), *from_base = fopen(base_path, "rb");
    double encode = 0, decode = 0;
    if (!words || !base || !from || !from_base) return 1;
    while ((n = fread(words, size, TILE, from)) > 0 && fread(base, size, n, from_base) == n) {
        figure f = ours(words, base, dtype, n);
        nelements += n;
        nbytes += f.nbytes;
        encode += f.encode;
        decode += f.decode;
    }
    double each = nelements ? (double)nelements : 1;
    printf("%zu elements: %.4f bytes, %.2f ns in, %.2f ns out, each\n", nelements, (double)nbytes / each, 1e9 * encode / each,
           1e9 * decode / each);
    return fclose(from) || fclose(from_base);
}

int main(int argc, char **argv) {
    static const struct {
        dz_dtype dtype;
        double scale;
        size_t count; /* 0: the command line's */
    } runs[] = {{DZ_BF16, 1e-4, 0}, {DZ_BF16, 5e-4, 0},   {DZ_BF16, 2e-3, 0},  {DZ_F16, 5e-4, 0},     {DZ_F32, 5e-4, 0},
                {DZ_BF16, 1e-5, 0}, {DZ_BF16, 5e-4, 768}, {DZ_F32, 5e-4, 768}, {DZ_BF16, 5e-4, 4096}, {DZ_BF16, 5e-4, 65536}};
    size_t most = argc > 1 ? strtoul(argv[1], NULL, 10) : 4000000;
    mallopt(M_MMAP_THRESHOLD, 1 << 30); /* freed buffers are used again, not returned to the system and cleared by it */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 1 << 28);
    if (argc == 4) return of_files(argv[1], argv[2], dz_dtype_of(argv[3]));
    void *words = malloc(most * 4 + 1048576), *base = malloc(most * 4 + 1048576);
    for (size_t r = 0; r < sizeof runs / sizeof runs[0]; r++) {
        size_t count = runs[r].count ? runs[r].count : most;
        char title[128];
        snprintf(title, sizeof title, "%zu weights of %s, delta of scale %g", count, dz_dtype_name(runs[r].dtype), runs[r].scale);
        make(words, base, runs[r].dtype, count, runs[r].scale);
        if (getenv("BENCH_OURS")) {
            printf("%s\n", title);
            print_figure("deltazoo", ours(words, base, runs[r].dtype, count), count * dz_dtype_size(runs[r].dtype));
        } else {
            compare(title, words, base, runs[r].dtype, count);
        }
        fflush(stdout);
    }
    free(words);
    free(base);
    return 0;
}

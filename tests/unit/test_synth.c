/* The synthetic zoo: true tensor lists, values that do not depend on who makes them, distributions as promised, files that parse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "checkpoint/checkpoint.h"
#include "config/manifest.h"
#include "synth/shapes.h"
#include "synth/synth.h"
#include "synth/synth_delta.h"

static dz_synth_tables *TABLES;
static char DIR_NAME[64];

static int make_tables(void **state) {
    (void)state;
    dz_error err = {0};
    snprintf(DIR_NAME, sizeof DIR_NAME, "/tmp/dz-test-synth-XXXXXX");
    return !mkdtemp(DIR_NAME) || dz_synth_tables_new(&TABLES, &err) != DZ_OK;
}

static int free_tables(void **state) {
    (void)state;
    char command[128];
    free(TABLES);
    snprintf(command, sizeof command, "rm -rf %s", DIR_NAME);
    return system(command) != 0;
}

/* DIR/name; a few live at once. */
static const char *in_dir(const char *name) {
    static char paths[8][160];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", DIR_NAME, name);
    return path;
}

/* ---- shapes ---- */

static void test_shapes_have_the_known_parameter_counts(void **state) {
    (void)state;
    static const struct {
        const char *model;
        uint64_t parameters;
    } known[] = {
        {"tiny", 3676416},      {"vit-b-32", 87849216},    {"vit-l-14", 303966208},      {"roberta-base", 124697433},
        {"t5-base", 222903552}, {"beit3-base", 220987392}, {"llama2-7b", 6738415616ULL}, {"llama2-13b", 13015864320ULL},
    };
    size_t nknown = sizeof known / sizeof known[0];
    for (size_t i = 0; i < nknown; i++) {
        dz_error err = {0};
        dz_shape_list list;
        assert_string_equal(dz_shape_names()[i], known[i].model);
        assert_int_equal(dz_shape_build(known[i].model, 0, &list, &err), DZ_OK);
        assert_int_equal(list.parameters, known[i].parameters);
        dz_shape_list_free(&list);
    }
    assert_null(dz_shape_names()[nknown]);
}

static void test_shapes_names_are_unique_and_linear_means_matrix(void **state) {
    (void)state;
    for (const char *const *name = dz_shape_names(); *name; name++) {
        dz_error err = {0};
        dz_shape_list list;
        assert_int_equal(dz_shape_build(*name, 0, &list, &err), DZ_OK);
        for (size_t i = 0; i < list.count; i++) {
            assert_null(strchr(list.items[i].name, '#'));
            if (list.items[i].role == DZ_ROLE_LINEAR) assert_true(list.items[i].ndim == 2 && list.items[i].block >= 0);
            for (size_t j = 0; j < i; j++) assert_string_not_equal(list.items[i].name, list.items[j].name);
        }
        dz_shape_list_free(&list);
    }
}

static void test_shapes_layers_cut_both_stacks_of_t5(void **state) {
    (void)state;
    dz_error err = {0};
    dz_shape_list list;
    int encoder = 0, decoder = 0;
    assert_int_equal(dz_shape_build("t5-base", 2, &list, &err), DZ_OK);
    for (size_t i = 0; i < list.count; i++) {
        encoder += strncmp(list.items[i].name, "encoder.block.1.", 16) == 0;
        decoder += strncmp(list.items[i].name, "decoder.block.1.", 16) == 0;
        assert_null(strstr(list.items[i].name, "block.2."));
    }
    assert_int_equal(encoder, 8);
    assert_int_equal(decoder, 13);
    dz_shape_list_free(&list);
}

static void test_shapes_refuse_an_unknown_model_and_name_the_known(void **state) {
    (void)state;
    dz_error err = {0}, more = {0};
    dz_shape_list list;
    assert_int_equal(dz_shape_build("gpt5", 0, &list, &err), DZ_EUSAGE);
    assert_non_null(strstr(err.text, "gpt5"));
    assert_non_null(strstr(err.text, "llama2-13b"));
    assert_int_equal(dz_shape_build("tiny", 5, &list, &more), DZ_EUSAGE);
}

/* ---- values ---- */

static void test_quantiles_are_exact_far_into_the_tails(void **state) {
    (void)state;
    for (double upper = 0.4; upper > 1e-12; upper *= 0.37) {
        double x = dz_synth_quantile(TABLES, 0, upper);
        assert_true(fabs(0.5 * erfc(x / sqrt(2)) / upper - 1) < 2e-5 + 1e-15 / upper * 64);
        double t = dz_synth_quantile(TABLES, 4, upper) * sqrt(2), s = t / sqrt(4 + t * t), w = 4 / ((4 + t * t) * (1 + s));
        assert_true(fabs(w * w * (2 + s) / 4 / upper - 1) < 2e-5 + 1e-15 / upper * 64); /* closed form for 4 degrees of freedom */
    }
}

static dz_synth_law matrix_law(int df, double low_rank) {
    return (dz_synth_law){.key = 0x1234567, .cols = 1000, .df = df, .std = 1e-3, .low_rank = low_rank, .moved_rows = 1};
}

static float *make_values(const dz_synth_law *law, size_t count) {
    dz_error err = {0};
    float *values = dz_alloc_raw(count, sizeof *values, &err), *factor = dz_alloc_raw(dz_synth_factor_size(law), sizeof *factor, &err);
    assert_true(values && factor);
    dz_synth_factor(TABLES, law, factor);
    dz_synth_values(TABLES, law, factor, 0, count, values);
    free(factor);
    return values;
}

static void test_a_piece_has_the_values_of_the_whole(void **state) {
    (void)state;
    dz_synth_law laws[] = {matrix_law(0, 0), matrix_law(5, 0.3), matrix_law(4, 0)};
    laws[2].moved_rows = 0.3;
    for (size_t l = 0; l < 3; l++) {
        size_t count = 50 * 1000;
        float *whole = make_values(&laws[l], count), piece[2500], factor[DZ_SYNTH_RANK * 1000];
        dz_synth_factor(TABLES, &laws[l], factor);
        for (size_t first = 0, n = 1; first < count; first += n, n = n * 7 % 2500) {
            if (n > count - first) n = count - first;
            dz_synth_values(TABLES, &laws[l], factor, first, n, piece);
            assert_memory_equal(piece, whole + first, n * sizeof *piece);
        }
        free(whole);
    }
}

typedef struct moments {
    double mean, variance, kurtosis, largest; /* `largest` in standard deviations */
} moments;

static moments moments_of(const float *x, size_t count) {
    moments m = {0};
    double s1 = 0, s2 = 0, s4 = 0;
    for (size_t i = 0; i < count; i++) {
        double v = (double)x[i];
        s1 += v;
        s2 += v * v;
        s4 += v * v * v * v;
        m.largest = fmax(m.largest, fabs(v));
    }
    double n = (double)count;
    m.mean = s1 / n;
    m.variance = s2 / n;
    m.kurtosis = s4 / n / (m.variance * m.variance);
    m.largest /= sqrt(m.variance);
    return m;
}

static void test_normal_values_are_normal_to_five_sigma(void **state) {
    (void)state;
    size_t count = 4000 * 1000, beyond3 = 0, beyond4 = 0;
    dz_synth_law law = matrix_law(0, 0);
    float *values = make_values(&law, count);
    moments m = moments_of(values, count);
    for (size_t i = 0; i < count; i++) {
        beyond3 += fabsf(values[i]) > 3e-3F;
        beyond4 += fabsf(values[i]) > 4e-3F;
    }
    assert_true(fabs(m.mean) < 2e-6);
    assert_true(fabs(m.variance / 1e-6 - 1) < 0.005);
    assert_true(fabs(m.kurtosis - 3) < 0.02);
    assert_true(m.largest > 4.6 && m.largest < 6);
    assert_true(fabs((double)beyond3 - 10799) < 500); /* 4e6 * 2.6998e-3, five standard deviations */
    assert_true(fabs((double)beyond4 - 253.4) < 80);
    free(values);
}

static void test_t_values_have_unit_variance_and_heavy_tails(void **state) {
    (void)state;
    size_t count = 4000 * 1000;
    for (int df = DZ_SYNTH_DF_MIN; df <= DZ_SYNTH_DF_MAX; df++) {
        dz_synth_law law = matrix_law(df, 0);
        float *values = make_values(&law, count);
        moments m = moments_of(values, count);
        assert_true(fabs(m.variance / 1e-6 - 1) < 0.03);
        assert_true(m.kurtosis > 4 && m.largest > 8);
        if (df == 8) assert_true(fabs(m.kurtosis - 4.5) < 0.3); /* 3 + 6 / (df - 4) */
        free(values);
    }
}

/* Projects the rows on the span of the right factor (Gram-Schmidt) and compares energies. */
static void test_low_rank_part_has_its_share_of_the_energy(void **state) {
    (void)state;
    enum { ROWS = 2000, COLS = 1000 };
    dz_synth_law law = matrix_law(5, 0.3);
    float *values = make_values(&law, (size_t)ROWS * COLS), factor[DZ_SYNTH_RANK * COLS];
    double inside = 0, all = 0;
    dz_synth_factor(TABLES, &law, factor);
    for (int k = 0; k < DZ_SYNTH_RANK; k++) {
        float *v = factor + k * COLS;
        double norm = 0;
        for (int j = 0; j < k; j++) {
            double dot = 0;
            for (int c = 0; c < COLS; c++) dot += (double)v[c] * (double)factor[j * COLS + c];
            for (int c = 0; c < COLS; c++) v[c] -= (float)dot * factor[j * COLS + c];
        }
        for (int c = 0; c < COLS; c++) norm += (double)v[c] * (double)v[c];
        for (int c = 0; c < COLS; c++) v[c] /= (float)sqrt(norm);
    }
    for (int r = 0; r < ROWS; r++) {
        const float *row = values + r * COLS;
        for (int c = 0; c < COLS; c++) all += (double)row[c] * (double)row[c];
        for (int k = 0; k < DZ_SYNTH_RANK; k++) {
            double dot = 0;
            for (int c = 0; c < COLS; c++) dot += (double)row[c] * (double)factor[k * COLS + c];
            inside += dot * dot;
        }
    }
    assert_true(fabs(all / ROWS / COLS / 1e-6 - 1) < 0.1);
    assert_true(fabs(inside / all - (0.3 + 0.7 * DZ_SYNTH_RANK / COLS)) < 0.03);
    free(values);
}

/* ---- files ---- */

static dz_synth_options tiny_options(const char *name, dz_dtype dtype) {
    return (dz_synth_options){.model = "tiny", .layers = 2, .tasks = 2, .dtype = dtype, .seed = 7, .out_dir = in_dir(name)};
}

static void must_synth(const dz_synth_options *opt, int nranks) {
    dz_error err = {0};
    dz_synth_layout *layout = NULL;
    if (dz_synth_layout_new(opt, &layout, &err) != DZ_OK || dz_synth_prepare(opt, layout, &err) != DZ_OK) fail_msg("%s", err.text);
    for (int rank = nranks - 1; rank >= 0; rank--) {
        if (dz_synth_fill(opt, layout, rank, nranks, &err) != DZ_OK) fail_msg("%s", err.text);
    }
    if (dz_synth_finish(opt, layout, &err) != DZ_OK) fail_msg("%s", err.text);
    dz_synth_layout_free(layout);
}

static dz_digest digest_of_file(const char *dir, const char *file) {
    dz_error err = {0};
    char path[256], *bytes = NULL;
    size_t len = 0;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    if (dz_read_file(path, (size_t)1 << 30, &bytes, &len, &err) != DZ_OK) fail_msg("%s", err.text);
    dz_digest digest = dz_digest_of(bytes, len);
    free(bytes);
    return digest;
}

static void test_one_and_three_ranks_make_the_same_files(void **state) {
    (void)state;
    static const char *const files[] = {"base/model.safetensors", "task-1/model.safetensors", "task-2/model.safetensors",
                                        "base/config.json",       "task-1/config.json",       "zoo.yaml"};
    dz_synth_options one = tiny_options("one", DZ_BF16), three = tiny_options("three", DZ_BF16), other = tiny_options("other", DZ_BF16);
    other.seed = 8;
    must_synth(&one, 1);
    must_synth(&three, 3);
    must_synth(&other, 1);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        dz_digest a = digest_of_file(one.out_dir, files[i]), b = digest_of_file(three.out_dir, files[i]),
                  c = digest_of_file(other.out_dir, files[i]);
        assert_true(a.hi == b.hi && a.lo == b.lo);
        assert_true((a.lo == c.lo) == (i >= 3));
    }
    dz_digest a = digest_of_file(one.out_dir, files[1]), b = digest_of_file(one.out_dir, files[2]);
    assert_true(a.lo != b.lo);
}

static dz_checkpoint *must_load(const char *dir, const char *part) {
    dz_error err = {0};
    dz_checkpoint *ck = NULL;
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, part);
    if (dz_checkpoint_load(path, &ck, &err) != DZ_OK) fail_msg("%s", err.text);
    return ck;
}

static float *read_tensor(dz_checkpoint *ck, const char *name, size_t *count) {
    dz_error err = {0};
    int64_t at = dz_checkpoint_find(ck, name);
    if (at < 0) fail_msg("no tensor %s", name);
    const dz_tensor *t = &ck->tensors[at];
    *count = (size_t)t->count;
    uint8_t *bytes = dz_alloc_raw((size_t)t->nbytes, 1, &err);
    float *values = dz_alloc_raw(*count, sizeof *values, &err);
    if (!bytes || !values || dz_checkpoint_read(ck, (size_t)at, 0, (size_t)t->nbytes, bytes, &err) != DZ_OK) fail_msg("%s", err.text);
    dz_widen(values, bytes, t->dtype, *count);
    free(bytes);
    return values;
}

static float *read_delta(const char *dir, const char *name, size_t *count) {
    dz_checkpoint *base = must_load(dir, "base"), *task = must_load(dir, "task-1");
    float *delta = read_tensor(task, name, count), *from = read_tensor(base, name, count);
    for (size_t i = 0; i < *count; i++) delta[i] -= from[i];
    free(from);
    dz_checkpoint_free(base);
    dz_checkpoint_free(task);
    return delta;
}

static void test_files_parse_and_hold_the_model(void **state) {
    (void)state;
    dz_synth_options opt = tiny_options("sharded", DZ_F16);
    opt.shard_bytes = 1 << 20;
    must_synth(&opt, 2);
    dz_error err = {0};
    dz_shape_list list;
    dz_manifest *zoo = NULL;
    assert_int_equal(dz_shape_build("tiny", 2, &list, &err), DZ_OK);
    dz_checkpoint *base = must_load(opt.out_dir, "base"), *task = must_load(opt.out_dir, "task-2");
    assert_true(base->nshards > 2 && base->nshards == task->nshards);
    assert_int_equal(base->ntensors, list.count);
    for (size_t i = 0; i < list.count; i++) {
        int64_t at = dz_checkpoint_find(task, list.items[i].name);
        assert_true(at >= 0);
        assert_int_equal(task->tensors[at].count, list.items[i].count);
        assert_int_equal(task->tensors[at].dtype, DZ_F16);
    }
    if (dz_manifest_load(in_dir("sharded/zoo.yaml"), &zoo, &err) != DZ_OK) fail_msg("%s", err.text);
    assert_int_equal(zoo->ntasks, 2);
    dz_manifest_free(zoo);
    dz_checkpoint_free(base);
    dz_checkpoint_free(task);
    dz_shape_list_free(&list);
}

static void test_deltas_in_files_are_as_promised(void **state) {
    (void)state;
    dz_synth_options t = tiny_options("t", DZ_F32), gauss = tiny_options("gauss", DZ_F32);
    gauss.gauss = 1;
    must_synth(&t, 1);
    must_synth(&gauss, 1);
    size_t count, moved_rows = 0;
    static const char linear[] = "model.layers.1.mlp.up_proj.weight";
    float *heavy = read_delta(t.out_dir, linear, &count), *normal = read_delta(gauss.out_dir, linear, &count);
    moments h = moments_of(heavy, count), n = moments_of(normal, count);
    assert_true(h.variance > 1e-8 && h.variance < 4e-6 && fabs(n.variance / h.variance - 1) < 0.15);
    assert_true(h.kurtosis > 3.3);
    assert_true(fabs(n.kurtosis - 3) < 0.08);
    float *norm = read_delta(t.out_dir, "model.norm.weight", &count);
    moments small = moments_of(norm, count);
    assert_true(small.variance > 0.5e-8 && small.variance < 50e-8);
    float *table = read_delta(t.out_dir, "model.embed_tokens.weight", &count);
    for (size_t row = 0; row < 1000; row++) {
        size_t moved = 0;
        for (size_t c = 0; c < 256; c++) moved += table[row * 256 + c] != 0;
        assert_true(moved == 0 || moved > 200);
        moved_rows += moved > 0;
    }
    assert_true(moved_rows >= 1 && moved_rows <= 25);
    free(heavy);
    free(normal);
    free(norm);
    free(table);
}

static void test_degrees_of_freedom_set_the_tails_of_every_block(void **state) {
    (void)state;
    static const char *const linear[] = {"model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"};
    dz_synth_options light = tiny_options("t8", DZ_F32), heavy = tiny_options("t4", DZ_F32);
    light.df = 8;
    heavy.df = 4;
    must_synth(&light, 1);
    must_synth(&heavy, 1);
    for (size_t i = 0; i < 2; i++) {
        size_t count;
        float *a = read_delta(light.out_dir, linear[i], &count), *b = read_delta(heavy.out_dir, linear[i], &count);
        double least = moments_of(a, count).kurtosis, most = moments_of(b, count).kurtosis;
        assert_true(least > 3.3 && least < 4.5); /* 3 + 0.7^2 * 6/(8-4), and a little of the rank-8 part */
        assert_true(most > least + 1);           /* without bound for 4 */
        free(a);
        free(b);
    }
}

static void test_rows_that_do_not_move_are_the_bytes_of_the_base(void **state) {
    (void)state;
    dz_error err = {0};
    dz_synth_options opt = tiny_options("rows", DZ_F16);
    must_synth(&opt, 1);
    dz_checkpoint *base = must_load(opt.out_dir, "base"), *task = must_load(opt.out_dir, "task-1");
    size_t at = (size_t)dz_checkpoint_find(base, "model.embed_tokens.weight"), different = 0;
    for (uint64_t row = 0; row < 1000; row++) {
        uint16_t a[256], b[256];
        assert_int_equal(dz_checkpoint_read(base, at, row * sizeof a, sizeof a, a, &err), DZ_OK);
        assert_int_equal(dz_checkpoint_read(task, at, row * sizeof b, sizeof b, b, &err), DZ_OK);
        different += memcmp(a, b, sizeof a) != 0;
    }
    assert_true(different >= 1 && different <= 25);
    dz_checkpoint_free(base);
    dz_checkpoint_free(task);
}

static void test_a_used_directory_is_refused_and_force_replaces_it(void **state) {
    (void)state;
    dz_error err = {0};
    dz_synth_options opt = tiny_options("used", DZ_BF16);
    opt.shard_bytes = 1 << 20;
    must_synth(&opt, 1);
    opt.shard_bytes = 0;
    assert_int_equal(dz_synth(&opt, &err), DZ_EUSAGE);
    assert_non_null(strstr(err.text, opt.out_dir));
    assert_non_null(strstr(err.text, "--force"));
    opt.force = 1;
    must_synth(&opt, 1);
    dz_checkpoint *base = must_load(opt.out_dir, "base");
    assert_int_equal(base->nshards, 1); /* the old shards are gone */
    dz_checkpoint_free(base);
}

static int stop_at_once(void *arg, uint64_t nbytes) {
    *(uint64_t *)arg += nbytes;
    return 1;
}

static void test_options_are_checked_and_work_can_be_stopped(void **state) {
    (void)state;
    dz_error err = {0}, stopped = {0};
    dz_synth_layout *layout = NULL;
    dz_synth_options bad = tiny_options("bad", DZ_I32), opt = tiny_options("stop", DZ_BF16);
    uint64_t nbytes = 0;
    bad.tasks = 0;
    assert_int_equal(dz_synth_layout_new(&bad, &layout, &err), DZ_EUSAGE);
    assert_int_equal(err.problems, 2);
    assert_null(layout);
    opt.on_written = stop_at_once;
    opt.arg = &nbytes;
    assert_int_equal(dz_synth(&opt, &stopped), DZ_EINTERRUPT);
    assert_true(nbytes > 0);
}

static int exists(const dz_synth_options *opt, const char *file) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", opt->out_dir, file);
    return access(path, F_OK) == 0;
}

/* A killed run leaves what a stopped one does here. */
static void test_what_is_not_complete_does_not_look_it(void **state) {
    (void)state;
    dz_error stopped = {0};
    uint64_t nbytes = 0;
    dz_synth_options opt = tiny_options("killed", DZ_BF16);
    must_synth(&opt, 1);
    opt.on_written = stop_at_once;
    opt.arg = &nbytes;
    opt.force = 1;
    opt.shard_bytes = 1 << 20;
    assert_int_equal(dz_synth(&opt, &stopped), DZ_EINTERRUPT);
    assert_false(exists(&opt, "zoo.yaml"));
    for (int part = 0; part <= opt.tasks; part++) {
        dz_checkpoint *ck = NULL;
        dz_error err = {0};
        char path[256];
        snprintf(path, sizeof path, part ? "%s/task-%d" : "%s/base", opt.out_dir, part);
        assert_int_not_equal(dz_checkpoint_load(path, &ck, &err), DZ_OK);
    }
    opt.on_written = NULL;
    opt.shard_bytes = 0;
    must_synth(&opt, 1);
    assert_true(exists(&opt, "zoo.yaml") && exists(&opt, "base/model.safetensors"));
    dz_checkpoint *base = must_load(opt.out_dir, "base");
    assert_int_equal(base->nskipped_files, 0); /* nothing of the stopped run is left */
    dz_checkpoint_free(base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes_have_the_known_parameter_counts),
        cmocka_unit_test(test_shapes_names_are_unique_and_linear_means_matrix),
        cmocka_unit_test(test_shapes_layers_cut_both_stacks_of_t5),
        cmocka_unit_test(test_shapes_refuse_an_unknown_model_and_name_the_known),
        cmocka_unit_test(test_quantiles_are_exact_far_into_the_tails),
        cmocka_unit_test(test_a_piece_has_the_values_of_the_whole),
        cmocka_unit_test(test_normal_values_are_normal_to_five_sigma),
        cmocka_unit_test(test_t_values_have_unit_variance_and_heavy_tails),
        cmocka_unit_test(test_low_rank_part_has_its_share_of_the_energy),
        cmocka_unit_test(test_one_and_three_ranks_make_the_same_files),
        cmocka_unit_test(test_files_parse_and_hold_the_model),
        cmocka_unit_test(test_deltas_in_files_are_as_promised),
        cmocka_unit_test(test_degrees_of_freedom_set_the_tails_of_every_block),
        cmocka_unit_test(test_rows_that_do_not_move_are_the_bytes_of_the_base),
        cmocka_unit_test(test_a_used_directory_is_refused_and_force_replaces_it),
        cmocka_unit_test(test_what_is_not_complete_does_not_look_it),
        cmocka_unit_test(test_options_are_checked_and_work_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, make_tables, free_tables);
}

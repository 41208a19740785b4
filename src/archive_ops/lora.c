#include "archive_ops/lora.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive_ops/task_source.h"
#include "base/file.h"
#include "base/log.h"
#include "base/staging.h"
#include "checkpoint/header.h"
#include "checkpoint/mark.h"
#include "numeric/lowrank.h"
#include "parallel/progress.h"
#include "plan/structure.h"
#include "restore/restore.h"

#define WEIGHTS "adapter_model.safetensors"
#define CONFIG "adapter_config.json"
#define LACKS_MOST 100 /* names */
#define EXPERT_KINDS 16

typedef struct module {
    const dz_index_row *row; /* the one that has the bytes */
    dz_tensor tensor;        /* name borrowed */
    int in_first, in_adapter;
    int by_last_part;    /* the last part of its name says that it is meant */
    dz_dtype dtype;      /* of the factors */
    uint64_t at_a, at_b; /* in the file */
} module;

typedef struct lora {
    const dz_world *world;
    const dz_export_options *opt;
    dz_task_source source;
    module *modules; /* those in the adapter, and others that have a delta */
    size_t nmodules, nlinear, left_out, without_base;
    double *energy; /* [2 nmodules]: of the delta, then kept; each filled by one rank */
    dz_buf lacks;
    dz_staging staging;
    uint64_t file_size;
} lora;

static int is_linear(const dz_tensor *t, const dz_tensor_role *role) {
    return role->place == DZ_PLACE_BODY && role->view.count == 1 && t->ndim == 2 && dz_dtype_is_float(t->dtype) &&
           dz_ends_with(t->name, ".weight");
}

static dz_dtype factor_type(dz_dtype dtype) { return dtype == DZ_BF16 || dtype == DZ_F16 ? dtype : DZ_F32; }

/* Which tensors are linear layers with a delta, and which others have one. */
static dz_rc choose(lora *x, dz_error *err) {
    const dz_task_entry *task = x->source.task;
    const dz_catalog *c = x->source.archive->catalog;
    dz_tensor *tensors = dz_alloc(task->nrows, sizeof *tensors, err);
    dz_tensor_role *roles = NULL;
    size_t n = 0;
    x->modules = dz_alloc(task->nrows, sizeof *x->modules, err);
    while (tensors && n < task->nrows && task->rows[n].policy != DZ_POLICY_ABSENT) {
        tensors[n] = dz_tensor_of_row(&c->tensors[task->rows[n].tensor]);
        n++;
    }
    if (err->rc == DZ_OK) dz_roles_make(tensors, n, &roles, err);
    for (size_t i = 0; err->rc == DZ_OK && i < n; i++) {
        const dz_index_row *row = dz_row_source(task, &task->rows[i]);
        const dz_tensor *t = &tensors[i];
        int chosen = !x->opt->tensors || fnmatch(x->opt->tensors, t->name, 0) == 0, linear = is_linear(t, &roles[i]);
        int has_delta =
            dz_row_has_delta(row) || (dz_decoder_has_base(&x->source.decoder) && row->base != DZ_NO_BASE && dz_dtype_is_float(t->dtype));
        if (dz_row_is_base(row)) continue; /* as the base's: nothing to adapt */
        int in_adapter = linear && has_delta && chosen;
        if (!in_adapter && x->left_out++ < LACKS_MOST) dz_buf_line(&x->lacks, err, "%s\n", t->name);
        x->without_base += linear && chosen && !has_delta;
        if (has_delta)
            x->modules[x->nmodules++] = (module){
                .row = row, .tensor = *t, .in_first = roles[i].view.in_first, .in_adapter = in_adapter, .dtype = factor_type(t->dtype)};
        x->nlinear += (size_t)in_adapter;
    }
    if (err->rc == DZ_OK && x->nlinear == 0)
        dz_fail(err, DZ_EUSAGE, "%s: task '%s' has no linear layer with a delta%s%s%s", x->source.archive->path, task->name,
                x->opt->tensors ? " that matches '" : "", x->opt->tensors ? x->opt->tensors : "",
                x->opt->tensors       ? "'"
                : x->without_base > 0 ? " without its base (--base)"
                                      : "");
    x->energy = dz_alloc(2 * x->nmodules, sizeof *x->energy, err);
    free(roles);
    free(tensors);
    return err->rc;
}

static uint64_t inputs_of(const module *m) { return m->tensor.shape[m->in_first ? 0 : 1]; }
static uint64_t outputs_of(const module *m) { return m->tensor.shape[m->in_first ? 1 : 0]; }

static char *factor_name(const module *m, const char *end, dz_error *err) {
    return dz_format(err, "base_model.model.%.*s.%s", (int)(strlen(m->tensor.name) - strlen(".weight")), m->tensor.name, end);
}

static dz_tensor factor(const module *m, const char *end, uint64_t rows, uint64_t cols, dz_error *err) {
    dz_tensor t = {.name = factor_name(m, end, err), .ndim = 2, .shape = {rows, cols}, .nbytes = rows * cols * dz_dtype_size(m->dtype)};
    strcpy(t.dtype_name, m->dtype == DZ_BF16 ? "BF16" : m->dtype == DZ_F16 ? "F16" : "F32");
    return t;
}

/* Header of the weights and all places. Alike on every rank. */
static dz_rc lay_out(lora *x, dz_buf *header, dz_error *err) {
    uint64_t rank = x->opt->rank, at;
    size_t n = 0;
    dz_tensor *list = dz_alloc(2 * x->nlinear, sizeof *list, err);
    dz_buf mark = {0};
    for (size_t i = 0; list && i < x->nmodules; i++) {
        const module *m = &x->modules[i];
        if (!m->in_adapter) continue;
        list[n++] = factor(m, "lora_A.weight", rank, inputs_of(m), err);
        list[n++] = factor(m, "lora_B.weight", outputs_of(m), rank, err);
    }
    dz_buf_line(&mark, err, "{\"kind\":\"" DZ_MARK_VECTOR "\",\"form\":\"lora\",\"rank\":%llu,\"task\":", (unsigned long long)rank);
    dz_mark_put_quoted(&mark, x->source.task->name, err);
    dz_buf_put(&mark, "}", 2, err);
    if (err->rc == DZ_OK && dz_safetensors_header(list, n, (dz_like){.mark = (char *)mark.data}, header, err) == DZ_OK) {
        at = header->len;
        for (size_t i = 0, k = 0; i < x->nmodules; i++) {
            if (!x->modules[i].in_adapter) continue;
            x->modules[i].at_a = at;
            x->modules[i].at_b = at += list[k].nbytes;
            at += list[k + 1].nbytes;
            k += 2;
        }
        x->file_size = at;
    }
    for (size_t i = 0; list && i < n; i++) free(list[i].name);
    free(list);
    dz_buf_free(&mark);
    return err->rc;
}

/* "q_proj" of "model.layers.0.self_attn.q_proj.weight": where it begins, and its length. */
static const char *last_part(const char *name, size_t *len) {
    const char *end = name + strlen(name) - strlen(".weight"), *at = end;
    while (at > name && at[-1] != '.') at--;
    *len = (size_t)(end - at);
    return at;
}

static int same_last_part(const char *a, const char *b) {
    size_t n, k;
    const char *x = last_part(a, &n), *y = last_part(b, &k);
    return n == k && memcmp(x, y, n) == 0;
}

/* One of a list of experts: "model.layers.0.mlp.experts.7.up_proj.weight". */
static int is_expert(const char *name) {
    const char *at = strstr(name, ".experts.");
    size_t digits = at ? strspn(at += strlen(".experts."), "0123456789") : 0;
    return digits > 0 && at[digits] == '.';
}

/* Layers of the adapter that are no expert of a list and have the last name of one. peft, which loads experts of a list as one tensor into
 * models of transformers 5, tells the two apart by that name, and leaves one of them out. */
static uint64_t beside_experts(const lora *x) {
    const dz_catalog *c = x->source.archive->catalog;
    const char *kinds[EXPERT_KINDS];
    size_t nkinds = 0;
    uint64_t n = 0;
    for (size_t i = 0; i < x->source.task->nrows && nkinds < EXPERT_KINDS; i++) {
        const char *name = c->tensors[x->source.task->rows[i].tensor].name;
        size_t k = 0;
        if (!is_expert(name) || !dz_ends_with(name, ".weight")) continue;
        while (k < nkinds && !same_last_part(kinds[k], name)) k++;
        if (k == nkinds) kinds[nkinds++] = name;
    }
    for (size_t i = 0; i < x->nmodules; i++) {
        const char *name = x->modules[i].tensor.name;
        if (!x->modules[i].in_adapter || is_expert(name)) continue;
        for (size_t k = 0; k < nkinds; k++) n += same_last_part(kinds[k], name) ? 1 : 0;
    }
    return n;
}

/* Every module of this last name is in the adapter, so that the last name alone says which are meant. */
static int all_in_adapter(const lora *x, const char *name) {
    const dz_catalog *c = x->source.archive->catalog;
    size_t named = 0, in = 0;
    for (size_t i = 0; i < x->source.task->nrows; i++) {
        const char *other = c->tensors[x->source.task->rows[i].tensor].name;
        named += dz_ends_with(other, ".weight") && same_last_part(other, name);
    }
    for (size_t i = 0; i < x->nmodules; i++) in += x->modules[i].in_adapter && same_last_part(x->modules[i].tensor.name, name);
    return named == in;
}

static void put_targets(const lora *x, dz_buf *b, dz_error *err) {
    for (size_t i = 0, n = 0; i < x->nmodules; i++) {
        module *m = &x->modules[i];
        size_t len, k = 0;
        if (!m->in_adapter) continue;
        const char *name = m->tensor.name, *last = last_part(name, &len);
        while (k < i && !(x->modules[k].in_adapter && same_last_part(x->modules[k].tensor.name, name))) k++;
        m->by_last_part = k < i ? x->modules[k].by_last_part : all_in_adapter(x, name);
        if (m->by_last_part && k < i) continue;
        if (!m->by_last_part) {
            len += (size_t)(last - name);
            last = name;
        }
        char *text = dz_strndup(last, len, err);
        dz_buf_line(b, err, "%s\n    ", n++ ? "," : "");
        if (text) dz_mark_put_quoted(b, text, err);
        free(text);
    }
}

/* adapter_config.json */
static dz_rc config_text(const lora *x, dz_buf *b, dz_error *err) {
    const dz_catalog *c = x->source.archive->catalog;
    int in_first = 1;
    for (size_t i = 0; i < x->nmodules; i++) in_first &= !x->modules[i].in_adapter || x->modules[i].in_first;
    dz_buf_line(b, err, "{\n  \"peft_type\": \"LORA\",\n  \"task_type\": null,\n  \"base_model_name_or_path\": ");
    dz_mark_put_quoted(b, c->base_name ? c->base_name : "", err);
    dz_buf_line(b, err,
                ",\n  \"r\": %u,\n  \"lora_alpha\": %u,\n  \"lora_dropout\": 0.0,\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": %s,\n",
                x->opt->rank, x->opt->rank, in_first ? "true" : "false");
    dz_buf_line(b, err, "  \"inference_mode\": true,\n  \"modules_to_save\": null,\n  \"use_dora\": false,\n  \"use_rslora\": false,\n");
    dz_buf_line(b, err, "  \"target_modules\": [");
    put_targets(x, b, err);
    dz_buf_line(b, err, "\n  ]\n}\n");
    return err->rc;
}

static char *path_of(const lora *x, const char *name, dz_error *err) { return dz_format(err, "%s/%s", x->staging.partial, name); }

/* Rank 0. */
static dz_rc make_files(lora *x, const dz_buf *header, dz_error *err) {
    dz_buf config = {0};
    if (dz_staging_begin_dir(&x->staging, "export", err) != DZ_OK || config_text(x, &config, err) != DZ_OK) goto out;
    char *weights = path_of(x, WEIGHTS, err), *text = path_of(x, CONFIG, err);
    if (err->rc == DZ_OK && dz_make_file(weights, header->data, header->len, x->file_size, err) == DZ_OK)
        dz_make_file(text, config.data, config.len, config.len, err);
    free(weights);
    free(text);
out:
    dz_buf_free(&config);
    return err->rc;
}

static dz_rc put_factor(const module *m, int fd, const char *path, const float *values, size_t count, uint64_t at, dz_error *err) {
    size_t size = dz_dtype_size(m->dtype);
    uint8_t *bytes = dz_alloc_raw(count, size, err);
    if (!bytes) return err->rc;
    dz_narrow(bytes, values, m->dtype, count);
    dz_pwrite_all(fd, path, bytes, count * size, at, err);
    free(bytes);
    return err->rc;
}

/* rows x cols to cols x rows */
static float *transposed(const float *x, size_t rows, size_t cols, dz_error *err) {
    float *y = dz_alloc_raw(rows * cols, sizeof *y, err);
    for (size_t i = 0; y && i < rows; i++) {
        for (size_t k = 0; k < cols; k++) y[k * rows + i] = x[i * cols + k];
    }
    return y;
}

/* The delta is [outputs, inputs] = B A, or of a layer with inputs first [inputs, outputs] = A^T B^T. */
static dz_rc put_factors(const lora *x, const module *m, const float *left, const float *right, int fd, const char *path, dz_error *err) {
    size_t rank = x->opt->rank, rows = (size_t)m->tensor.shape[0], cols = (size_t)m->tensor.shape[1];
    float *a = m->in_first ? transposed(left, rows, rank, err) : NULL, *b = m->in_first ? transposed(right, rank, cols, err) : NULL;
    if (err->rc == DZ_OK && put_factor(m, fd, path, a ? a : right, rank * inputs_of(m), m->at_a, err) == DZ_OK)
        put_factor(m, fd, path, b ? b : left, rank * outputs_of(m), m->at_b, err);
    free(a);
    free(b);
    return err->rc;
}

static dz_rc do_module(lora *x, size_t i, int fd, const char *path, dz_error *err) {
    const module *m = &x->modules[i];
    size_t count = (size_t)m->tensor.count, rank = x->opt->rank;
    float *delta = dz_alloc_raw(count, sizeof *delta, err), *left = NULL, *right = NULL;
    double *energy = &x->energy[2 * i];
    if (!delta || dz_task_source_delta(&x->source, m->row, delta, err) != DZ_OK) goto out;
    for (size_t k = 0; k < count; k++) energy[0] += (double)delta[k] * (double)delta[k];
    if (!m->in_adapter) goto out;
    if (!isfinite(energy[0])) {
        dz_fail(err, DZ_EFAIL, "%s: task '%s': tensor '%s' has a delta that is not finite: leave it out with --tensor",
                x->source.archive->path, x->source.task->name, m->tensor.name);
        goto out;
    }
    size_t rows = (size_t)m->tensor.shape[0], cols = (size_t)m->tensor.shape[1];
    left = dz_alloc_raw(rows * rank, sizeof *left, err);
    right = dz_alloc_raw(rank * cols, sizeof *right, err);
    uint64_t key = dz_hash64(m->tensor.name, strlen(m->tensor.name), x->source.task->key);
    if (err->rc == DZ_OK && dz_lowrank_approximate(delta, rows, cols, rank, key, left, right, &energy[0], &energy[1], err) == DZ_OK)
        put_factors(x, m, left, right, fd, path, err);
out:
    free(delta);
    free(left);
    free(right);
    return err->rc;
}

static dz_rc fill(lora *x, dz_progress *progress, dz_error *err) {
    char *path = path_of(x, WEIGHTS, err);
    int fd = path ? dz_open(path, O_WRONLY) : -1;
    if (path && fd < 0) dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    for (size_t i = 0; i < x->nmodules && err->rc == DZ_OK; i++) {
        if (i % (size_t)x->world->size != (size_t)x->world->rank) continue;
        do_module(x, i, fd, path, err);
        dz_progress_add(progress, (double)x->modules[i].tensor.count);
    }
    if (err->rc == DZ_OK && dz_fsync(fd) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    free(path);
    return err->rc;
}

static void sum_up(const lora *x, dz_export_result *r) {
    r->least = 1;
    for (size_t i = 0; i < x->nmodules; i++) {
        double energy = x->energy[2 * i], kept = x->energy[2 * i + 1];
        r->energy += energy;
        if (!x->modules[i].in_adapter) continue;
        r->energy_in += energy;
        r->energy_kept += kept;
        if (energy > 0 && kept / energy < r->least) r->least = kept / energy;
    }
}

static dz_rc publish(lora *x, dz_error *err) {
    static const char *const names[] = {CONFIG, WEIGHTS};
    struct stat st;
    if (stat(x->opt->out, &st) == 0 && dz_target_of(x->opt->out) == DZ_TARGET_FOLDER)
        return dz_staging_publish_into(&x->staging, names, 2, err);
    return dz_staging_publish(&x->staging, 1, err);
}

dz_rc dz_export_lora(const dz_world *world, const dz_export_options *opt, dz_export_result *result, dz_error *err) {
    double begun = dz_now(), total = 0;
    lora x = {.world = world, .opt = opt};
    dz_progress progress;
    dz_buf header = {0};
    dz_rc rc = dz_sync_error(world, world->rank == 0 ? dz_task_source_check_folder(opt->out, WEIGHTS, opt->force, err) : DZ_OK, err);
    if (rc == DZ_OK) rc = dz_task_source_open(world, opt->archive, opt->task, opt->base, &x.source, err);
    if (rc == DZ_OK) {
        if (choose(&x, err) == DZ_OK && lay_out(&x, &header, err) == DZ_OK) dz_staging_name(&x.staging, opt->out, err);
        if (err->rc == DZ_OK && world->rank == 0) make_files(&x, &header, err);
        rc = dz_sync_error(world, err->rc, err);
    }
    if (rc == DZ_OK) {
        for (size_t i = 0; i < x.nmodules; i++) total += (double)x.modules[i].tensor.count;
        dz_progress_begin(&progress, world, "export", total, opt->quiet);
        fill(&x, &progress, err);
        dz_progress_end(&progress);
        rc = dz_sync_error(world, err->rc, err);
    }
    if (rc == DZ_OK && x.source.base) rc = dz_agree_on_base(world, x.source.archive, opt->base, x.source.decoder.base_differs, err);
    if (rc == DZ_OK) {
        dz_sum_f64(world, x.energy, 2 * x.nmodules);
        rc = dz_sync_error(world, world->rank == 0 ? publish(&x, err) : DZ_OK, err);
    }
    dz_staging_discard(&x.staging);
    *result = (dz_export_result){.ntensors = x.nlinear,
                                 .left_out = x.left_out,
                                 .without_base = x.without_base,
                                 .beside_experts = rc == DZ_OK ? beside_experts(&x) : 0,
                                 .lacks = x.lacks,
                                 .nbytes = x.file_size,
                                 .secs = dz_now() - begun};
    if (rc == DZ_OK) sum_up(&x, result);
    dz_buf_free(&header);
    dz_staging_free(&x.staging);
    free(x.modules);
    free(x.energy);
    dz_task_source_close(&x.source);
    return rc;
}

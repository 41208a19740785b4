#include "compress/shapes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "numeric/kernels.h"
#include "plan/siblings.h"

#define SAMPLE 128              /* rows of a matrix that its columns are estimated from, for a forecast */
#define PIECE ((size_t)1 << 17) /* elements read at a time */
#define MOST 8        /* of a code, so that a channel whose weights mislead costs the others little: four octaves between all factors */
#define MASSIVE 8     /* times the median energy: hidden units that a few tokens make huge */
#define LEAST 0x1p-30 /* of the largest energy: what is taken of a channel without any */
#define WORTH 0.97    /* of the noise that is left, for factors to be kept */

/* Matrices of the base whose input channels are the same, or that another's are estimated from. */
typedef struct module {
    int64_t source, gate; /* the matrix that is measured; gate: for down, beside up */
    size_t target;        /* the matrix that is shaped */
} module;

typedef struct pass {
    dz_checkpoint *base;
    const dz_plan *plan;
    uint64_t sample; /* about so many rows of each matrix; 0: all */
    double bytes_read;
    dz_buf raw, wide;
} pass;

/* Adds the squares of a matrix, times `weight` of its input channel (NULL: 1), to `in` and `out`, of its inputs and outputs (NULL: none).
 */
static dz_rc add_energies(pass *p, size_t tensor, const double *weight, double *in, double *out, dz_error *err) {
    dz_checkpoint *base = p->base;
    const dz_tensor *t = &base->tensors[tensor];
    const dz_matrix_view *v = &p->plan->roles[tensor].view;
    uint64_t skip = p->sample && v->rows > p->sample && v->cols <= PIECE ? v->rows / p->sample : 0; /* of so many rows one is read */
    size_t size = dz_dtype_size(t->dtype);
    p->raw.len = p->wide.len = 0;
    if (dz_buf_reserve(&p->raw, PIECE * size, err) != DZ_OK || dz_buf_reserve(&p->wide, PIECE * sizeof(float), err) != DZ_OK)
        return err->rc;
    const float *w = (const float *)(const void *)p->wide.data;
    uint64_t row = 0, col = 0, total = v->rows * v->cols;
    for (uint64_t at = 0, step = skip ? skip * v->cols : PIECE; at < total; at += step) {
        size_t len = skip ? (size_t)v->cols : total - at < PIECE ? (size_t)(total - at) : PIECE;
        if (dz_checkpoint_read(base, tensor, at * size, len * size, p->raw.data, err) != DZ_OK) return err->rc;
        p->bytes_read += (double)(len * size);
        dz_kernels()->widen((float *)(void *)p->wide.data, p->raw.data, t->dtype, len);
        for (size_t i = 0; i < len;) {
            size_t run = len - i < v->cols - col ? len - i : (size_t)(v->cols - col);
            for (size_t j = 0; j < run; j++) {
                double e = (double)w[i + j] * (double)w[i + j];
                uint64_t channel = v->in_first ? row : col + j;
                if (weight) e *= weight[channel];
                if (in) in[channel] += e;
                if (out) out[v->in_first ? col + j : row] += e;
            }
            i += run;
            col += run;
            if (col == v->cols) col = 0, row += skip ? skip : 1;
        }
    }
    return err->rc;
}

static double floor_of(const double *x, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
    return most * LEAST;
}

static int8_t code_of(double log_factor) { return (int8_t)fmax(-MOST, fmin(MOST, rint(4 * dz_significant(log_factor, 30)))); }

/* Codes of factors in proportion to 1 / sqrt(x), about 1 in the geometric mean; 0 where x is not finite. */
static void put_inverse(int8_t *code, const double *x, size_t n) {
    double least = floor_of(x, n), mean = 0;
    if (!(least > 0) || !isfinite(least)) return;
    for (size_t i = 0; i < n; i++) mean += log2(fmax(x[i], least)) / (double)n;
    for (size_t i = 0; i < n; i++) code[i] = code_of((mean - log2(fmax(x[i], least))) / 2);
}

static int ascending(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Codes of factors in proportion to sqrt(x) where x is far above its median; 0 elsewhere. `sorted` is [n]. */
static void put_massive(int8_t *code, const double *x, double *sorted, size_t n) {
    memcpy(sorted, x, n * sizeof *x);
    qsort(sorted, n, sizeof *sorted, ascending);
    double median = sorted[n / 2];
    for (size_t i = 0; i < n && median > 0 && isfinite(sorted[n - 1]); i++) {
        if (x[i] > MASSIVE * median) code[i] = code_of(log2(x[i] / median) / 2);
    }
}

/* The energies of the hidden units of an MLP by its up and gate matrices, all inputs being as strong: into `x`, [n]. */
static dz_rc read_hidden(pass *p, const module *m, double *x, double *gate, size_t n, dz_error *err) {
    size_t inputs = (size_t)dz_view_inputs(&p->plan->roles[m->source].view);
    double *in = dz_alloc(inputs, sizeof *in, err);
    if (in && add_energies(p, (size_t)m->source, NULL, in, NULL, err) == DZ_OK) {
        double least = floor_of(in, inputs);
        for (size_t i = 0; i < inputs; i++) in[i] = least > 0 ? least / LEAST / fmax(in[i], least) : 1;
        add_energies(p, (size_t)m->source, in, NULL, x, err);
        add_energies(p, (size_t)m->gate, in, NULL, gate, err);
        for (size_t i = 0; i < n; i++) x[i] *= gate[i];
    }
    free(in);
    return err->rc;
}

static dz_rc code_module(pass *p, const module *m, int8_t *code, size_t n, dz_error *err) {
    double *x = dz_alloc(n, sizeof *x, err), *more = dz_alloc(n, sizeof *more, err);
    if (err->rc == DZ_OK && m->gate < 0 && add_energies(p, (size_t)m->source, NULL, x, NULL, err) == DZ_OK) put_inverse(code, x, n);
    if (err->rc == DZ_OK && m->gate >= 0 && read_hidden(p, m, x, more, n, err) == DZ_OK) put_massive(code, x, more, n);
    free(x);
    free(more);
    return err->rc;
}

static uint64_t outputs(const dz_matrix_view *v) { return v->in_first ? v->cols : v->rows; }

/* What the input channels of a tensor are estimated from; 0: nothing. */
static int find_module(const dz_plan *plan, const dz_siblings *s, size_t tensor, module *m) {
    const dz_tensor_role *r = &plan->roles[tensor];
    *m = (module){.source = -1, .gate = -1, .target = tensor};
    if (r->view.count != 1 || dz_view_inputs(&r->view) > DZ_CHANNELS_MOST) return 0;
    if (r->kind == DZ_KIND_Q || r->kind == DZ_KIND_K || r->kind == DZ_KIND_V) m->source = dz_sibling_of(s, plan, tensor, DZ_KIND_V);
    if (r->kind == DZ_KIND_GATE || r->kind == DZ_KIND_UP || r->kind == DZ_KIND_DOWN) m->source = dz_sibling_of(s, plan, tensor, DZ_KIND_UP);
    if (m->source < 0) return 0;
    const dz_matrix_view *from = &plan->roles[m->source].view;
    if (r->kind != DZ_KIND_DOWN) return dz_view_inputs(from) == dz_view_inputs(&r->view);
    m->gate = dz_sibling_of(s, plan, tensor, DZ_KIND_GATE);
    if (m->gate < 0) return 0;
    const dz_matrix_view *gate = &plan->roles[m->gate].view;
    return outputs(from) == dz_view_inputs(&r->view) && outputs(gate) == outputs(from) && dz_view_inputs(gate) == dz_view_inputs(from);
}

/* What the codes do to the noise, the energy of a channel's activations being taken for its factor to the power of 3 or 4: see METHODS.md.
 */
static void measure(dz_shape *s, int cubes) {
    double square = 0, inverse = 0, weighted = 0, energy = 0, n = (double)s->channels.count;
    s->factors = dz_channels_range(&s->channels);
    for (uint32_t i = 0; i < s->channels.count; i++) {
        double f = (double)dz_channel_factor(s->channels.code[i]), a = f * f * f * (cubes ? 1 : f);
        square += f * f / n;
        inverse += 1 / (f * f) / n;
        weighted += a / (f * f) / n;
        energy += a / n;
    }
    s->spread = square * inverse;
    s->share = square * weighted / energy;
    s->bytes = (double)dz_channels_bytes(&s->channels);
    if (s->share > WORTH) s->channels.count = 0;
}

/* Codes of modules number `first`, `first` + `step` and on; those of the others are left at 0. */
static dz_rc make_codes(pass *p, const module *modules, size_t n, size_t first, size_t step, const dz_shapes *out, dz_error *err) {
    for (size_t i = first; i < n && err->rc == DZ_OK; i += step) {
        const module *m = &modules[i];
        const dz_channels *c = &out->of[m->target].channels;
        code_module(p, m, out->codes + (c->code - out->codes), c->count, err);
    }
    dz_buf_free(&p->raw);
    dz_buf_free(&p->wide);
    return err->rc;
}

/* Every rank's codes on all ranks. */
static dz_rc share_codes(const dz_context *ctx, int8_t *codes, size_t n, dz_error *err) {
    uint64_t *sum = dz_alloc(n, sizeof *sum, err);
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    for (size_t i = 0; rc == DZ_OK && i < n; i++) sum[i] = (uint64_t)(int64_t)codes[i];
    if (rc == DZ_OK) dz_sum_u64(ctx->world, sum, n);
    for (size_t i = 0; rc == DZ_OK && i < n; i++) codes[i] = (int8_t)(int64_t)sum[i];
    free(sum);
    return rc;
}

/* The modules of all lossy tensors, [base tensors] with room for as many, and room for their codes. */
static dz_rc find_modules(const dz_plan *plan, const dz_method *method, module *modules, size_t *n, size_t *ncodes, dz_shapes *out,
                          dz_error *err) {
    dz_siblings siblings = {0};
    size_t at = 0;
    uint8_t *wanted = dz_alloc(plan->base->ntensors, 1, err);
    *n = *ncodes = 0;
    out->of = dz_alloc(plan->base->ntensors, sizeof *out->of, err);
    if (err->rc == DZ_OK && method->rotates) dz_siblings_make(plan, &siblings, err);
    for (size_t i = 0; err->rc == DZ_OK && i < plan->nlossy; i++) wanted[plan->pairs[plan->lossy[i]].base] = 1;
    for (size_t i = 0; err->rc == DZ_OK && i < plan->base->ntensors; i++) {
        if (!wanted[i] || !find_module(plan, &siblings, i, &modules[*n])) continue;
        *ncodes += (size_t)dz_view_inputs(&plan->roles[i].view);
        ++*n;
    }
    out->codes = dz_alloc(*ncodes, sizeof *out->codes, err);
    for (size_t i = 0; err->rc == DZ_OK && i < *n; i++) {
        const dz_matrix_view *v = &plan->roles[modules[i].target].view;
        out->of[modules[i].target].channels =
            (dz_channels){.code = out->codes + at, .count = (uint32_t)dz_view_inputs(v), .stride = v->in_first ? v->cols : 1};
        at += (size_t)dz_view_inputs(v);
    }
    dz_siblings_free(&siblings);
    free(wanted);
    return err->rc;
}

static void measure_modules(const dz_plan *plan, const module *modules, size_t n, const dz_shapes *out) {
    for (size_t i = 0; i < n; i++) measure(&out->of[modules[i].target], plan->roles[modules[i].source].kind == DZ_KIND_V);
}

dz_rc dz_shapes_make(dz_context *ctx, const dz_stats *stats, dz_shapes *out, dz_error *err) {
    size_t n = 0, ncodes = 0;
    double begun = dz_now();
    pass p = {.base = ctx->zoo.base, .plan = ctx->plan};
    module *modules = dz_alloc(ctx->plan->base->ntensors, sizeof *modules, err);
    if (modules && find_modules(ctx->plan, ctx->method, modules, &n, &ncodes, out, err) == DZ_OK)
        make_codes(&p, modules, n, (size_t)ctx->world->rank, (size_t)ctx->world->size, out, err);
    ctx->bytes_read += p.bytes_read;
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    if (rc == DZ_OK && n) rc = share_codes(ctx, out->codes, ncodes, err);
    if (rc == DZ_OK) measure_modules(ctx->plan, modules, n, out);
    free(modules);
    if (rc == DZ_OK && ctx->method->rotates) rc = dz_token_rows_make(ctx, stats, out, err);
    ctx->secs[DZ_PHASE_STATISTICS] += dz_now() - begun;
    return rc;
}

dz_rc dz_shapes_sample(const dz_zoo *zoo, const dz_plan *plan, const dz_method *method, dz_shapes *out, dz_error *err) {
    size_t n = 0, ncodes = 0;
    pass p = {.base = zoo->base, .plan = plan, .sample = SAMPLE};
    module *modules = dz_alloc(plan->base->ntensors, sizeof *modules, err);
    if (modules && find_modules(plan, method, modules, &n, &ncodes, out, err) == DZ_OK) {
        size_t kept = 0;
        for (size_t i = 0; i < n; i++) { /* single units, and inputs that are rows, are not in a sample of rows */
            if (modules[i].gate < 0 && !plan->roles[modules[i].source].view.in_first)
                modules[kept++] = modules[i];
            else
                out->of[modules[i].target].channels.count = 0;
        }
        if (make_codes(&p, modules, kept, 0, 1, out, err) == DZ_OK) measure_modules(plan, modules, kept, out);
    }
    free(modules);
    return err->rc;
}

void dz_shapes_free(dz_shapes *s) {
    free(s->of);
    free(s->codes);
    free(s->tokens);
    free(s->token_codes);
    *s = (dz_shapes){0};
}

const dz_shape *dz_shape_of(const dz_shapes *s, const dz_tensor_pair *pair) {
    if (s->tokens && pair->lossy >= 0 && s->tokens[pair->lossy].channels.count) return &s->tokens[pair->lossy];
    return pair->base >= 0 && s->of && s->of[pair->base].channels.count ? &s->of[pair->base] : NULL;
}

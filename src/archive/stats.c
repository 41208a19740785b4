/* What an archive's numbers say of size and quality. */
#include <math.h>
#include <stdlib.h>

#include "archive/reader.h"

void dz_share_structures(dz_catalog *c, int chosen) {
    uint64_t named = c->shared_bytes + (chosen ? c->there_bytes : 0);
    size_t n = chosen ? c->there : c->ntasks;
    for (size_t i = 0; !chosen && i < c->ntasks; i++) named += c->tasks[i].payload_len + c->tasks[i].index_bytes;
    for (size_t i = 0; i < c->ntasks; i++) c->tasks[i].meta_bytes = named < c->file_size ? (c->file_size - named) / n : 0;
}

static double entropy_of_share(double p) { return p <= 0 || p >= 1 ? 0 : -p * log2(p) - (1 - p) * log2(1 - p); }

dz_size_stats dz_task_size_stats(const dz_task_entry *t) {
    dz_size_stats s = {.source = (double)t->source_bytes, .lossy_source = (double)t->lossy_source_bytes};
    uint64_t lossy_rows = 0, lossy_payload = 0;
    for (size_t i = 0; i < t->nrows; i++) {
        if (t->rows[i].policy != DZ_POLICY_ULTRADELTA) continue;
        lossy_rows++;
        lossy_payload += t->rows[i].length;
    }
    s.stored = (double)(t->payload_len + t->index_bytes + t->meta_bytes);
    double share = t->nrows ? (double)lossy_rows / (double)t->nrows : 0;
    s.lossy_fixed = share * (double)(t->index_bytes + t->meta_bytes);
    s.lossy_stored = lossy_rows ? (double)lossy_payload + s.lossy_fixed : 0;
    s.ratio = s.stored > 0 ? s.source / s.stored : 0;
    s.lossy_ratio = s.lossy_stored > 0 ? s.lossy_source / s.lossy_stored : 0;
    double n = (double)t->lossy_parameters, p = n > 0 ? (double)t->lossy_kept / n : 0;
    if (p > 0) {
        s.value_bits = 16 * n / t->value_bits;
        s.positions_coded = 16 * n / (n * entropy_of_share(p) + t->value_bits);
    }
    return s;
}

dz_rc dz_shared_of(const dz_catalog *c, dz_shared *out, dz_error *err) {
    uint32_t *uses = dz_alloc(c->nblobs, sizeof *uses, err);
    *out = (dz_shared){0};
    for (size_t t = 0; uses && t < c->ntasks; t++) {
        const dz_task_entry *task = &c->tasks[t];
        for (size_t i = 0; i < task->nrows; i++) {
            const dz_task_entry *holder = task;
            const dz_index_row *row = &task->rows[i], *held = dz_row_values(&holder, row);
            if (held == row || held->length == 0) continue;
            out->ntensors++;
            out->saved += held->length;
        }
        for (size_t i = 0; i < task->nfiles; i++) {
            uint32_t blob = task->files[i].blob;
            if (blob >= c->nblobs || uses[blob]++ == 0) continue;
            out->nfiles += task->files[i].kind == DZ_FILE_SIDE;
            out->saved += c->blobs[blob].length;
        }
    }
    free(uses);
    return err->rc;
}

dz_dropped dz_task_dropped(const dz_catalog *c, const dz_task_entry *t) {
    dz_dropped d = {0};
    dz_size_stats s = dz_task_size_stats(t);
    for (size_t i = 0; i < t->nrows; i++) {
        if (t->rows[i].policy != DZ_POLICY_DROP) continue;
        d.ntensors++;
        d.source += (double)c->tensors[t->rows[i].tensor].nbytes;
    }
    d.ratio = s.stored > 0 ? (s.source - d.source) / s.stored : 0;
    return d;
}

dz_parts dz_task_parts(const dz_catalog *c, const dz_task_entry *t) {
    dz_parts p = {.values = t->entropy_bytes, .index = (double)t->index_bytes, .structures = (double)t->meta_bytes};
    double lossy = 0;
    for (size_t i = 0; i < t->nrows; i++) {
        const dz_index_row *row = &t->rows[i];
        uint32_t ntiles = row->policy == DZ_POLICY_ULTRADELTA ? dz_row_tiles(c, row).ntiles : 0;
        if (row->policy != DZ_POLICY_ULTRADELTA) p.exact += (double)row->length;
        if (ntiles) lossy += (double)row->length;
        if (ntiles) p.checks += 4.0 * ntiles + (ntiles > 1 ? 4.0 * ntiles + 4 : 0); /* FORMAT.md "Index" */
    }
    p.coding = lossy - p.checks - p.values;
    return p;
}

/* Of an archive of format version 1, which does not tell: from density and scale. */
static dz_noise guess_noise(const dz_index_row *row, double common) {
    double density = common > 0 ? (double)row->kept / common : 0, scale = (double)row->scale;
    if (row->bits == DZ_BITS_SIGNS) return dz_noise_signs(1 - (double)row->sparsity, scale);
    if (row->bits == 1 && density == 1) return dz_noise_all_signs(2 / acos(-1), scale); /* every sign: bitdelta */
    return dz_noise_sampled(density, scale, 1, 0);
}

static void add_row(const dz_catalog *c, const dz_task_entry *task, const dz_index_row *row, dz_noise_sum *sum) {
    double n = (double)dz_row_common(c, row), delta = (double)row->delta_rms, base = (double)row->base_rms;
    int known = isfinite(row->delta_rms) && isfinite(row->gain);
    dz_noise noise = known ? (dz_noise){.nsr = (double)row->nsr, .gain = (double)row->gain} : guess_noise(row, n);
    noise.gain *= (double)task->gamma;
    dz_energies *part = dz_row_is_vocabulary(c, row) ? &sum->vocabulary : &sum->body;
    dz_noise_add(part, noise, known ? n * delta * delta : n, known ? n * base * base : 0);
}

dz_quality dz_row_quality(const dz_catalog *c, const dz_task_entry *task, const dz_index_row *row) {
    dz_noise_sum sum = {0};
    add_row(c, task, row, &sum);
    return dz_quality_of(&sum);
}

dz_quality dz_task_quality(const dz_catalog *c, const dz_task_entry *task) {
    dz_noise_sum sum = {0};
    for (size_t i = 0; i < task->nrows; i++) {
        const dz_task_entry *holder = task;
        const dz_index_row *row = dz_row_values(&holder, &task->rows[i]);
        if (dz_row_is_noisy(row)) add_row(c, holder, row, &sum);
    }
    return dz_quality_of(&sum);
}

/* Entropy of a normal number's level on a grid of 2^bits levels over about +-5.2 standard deviations. */
static double normal_entropy(unsigned bits) { return 2.047 - log2(10.4 / ((1U << bits) - 1)); }

#define WEAK_GAMMA 0.9

/* The task whose trace norm is the reference of the others' gamma; NULL: it is not in the archive any more. */
static const dz_task_entry *reference_task(const dz_catalog *c, const dz_task_entry *task) {
    for (size_t i = 0; i < c->ntasks; i++) {
        if (c->tasks[i].trace_norm == task->trace_reference) return &c->tasks[i];
    }
    return NULL;
}

static void warn_of_gamma(const dz_catalog *c, const dz_task_entry *t, dz_buf *lines, dz_error *err) {
    const dz_task_entry *cause = reference_task(c, t);
    if (!((double)t->gamma < WEAK_GAMMA)) return;
    dz_buf_line(
        lines, err,
        "task '%s': gamma %.3g: only %.0f %% of its change is restored, because %s%s%s the smallest trace norm (UltraDelta's TNGR); "
        "--method auto, or --set tracenorm=off, restores it all\n",
        t->name, (double)t->gamma, 100 * (double)t->gamma, cause ? "task '" : "an earlier task", cause ? cause->name : "",
        cause ? "' has" : " had");
}

static void warn_of_noise(const dz_catalog *c, const dz_task_entry *t, dz_buf *lines, dz_error *err) {
    dz_quality q = dz_task_quality(c, t);
    if (q.verdict != DZ_VERDICT_POOR) return;
    dz_buf_line(lines, err, "task '%s': quality poor: ", t->name);
    if (q.gain < DZ_LEAST_GAIN) dz_buf_line(lines, err, "%.2g %% of the change is restored; ", 100 * q.gain);
    dz_buf_line(lines, err, "noise is %.3g times the energy of the delta", q.noise_to_delta);
    if (isfinite(q.noise_to_base)) dz_buf_line(lines, err, " and %.2g %% of the base's", 100 * q.noise_to_base);
    dz_buf_line(lines, err, "; compress again with --quality small, balanced or high\n");
}

dz_rc dz_task_warnings(const dz_catalog *c, const dz_task_entry *t, dz_buf *lines, dz_error *err) {
    double grid = 0;
    for (size_t i = 0; i < t->nrows; i++) {
        const dz_index_row *row = &t->rows[i];
        if (row->policy == DZ_POLICY_ULTRADELTA && row->bits > 2 && row->bits <= 8) grid += (double)row->kept * normal_entropy(row->bits);
    }
    warn_of_gamma(c, t, lines, err);
    warn_of_noise(c, t, lines, err);
    if (grid > 0 && 8 * t->entropy_bytes < grid / 2)
        dz_buf_line(lines, err, "task '%s': %.2f bits in a kept level where a normal delta has %.2f: heavy tails stretch the grid\n",
                    t->name, 8 * t->entropy_bytes / (double)t->lossy_kept, grid / (double)t->lossy_kept);
    return err->rc;
}

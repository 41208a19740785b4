/* What an archive's numbers say of size and quality. */
#include <math.h>

#include "archive/reader.h"
#include "numeric/gauss.h"

void dz_share_structures(dz_catalog *c) {
    uint64_t named = c->shared_bytes;
    for (size_t i = 0; i < c->ntasks; i++) named += c->tasks[i].payload_len + c->tasks[i].index_bytes;
    for (size_t i = 0; i < c->ntasks; i++) c->tasks[i].meta_bytes = named < c->file_size ? (c->file_size - named) / c->ntasks : 0;
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

static double columns_of(const dz_catalog *c, const dz_index_row *row) {
    dz_tensor t = dz_tensor_of_row(&c->tensors[row->tensor]);
    return t.ndim >= 2 && t.shape[0] ? (double)(t.count / t.shape[0]) : 1;
}

dz_quality dz_row_quality(const dz_catalog *c, const dz_task_entry *task, const dz_index_row *row) {
    dz_tensor t = dz_tensor_of_row(&c->tensors[row->tensor]), b = dz_tensor_of_row(&c->tensors[c->base[row->base].tensor]);
    double common = (double)(t.count < b.count ? t.count : b.count), density = common > 0 ? (double)row->kept / common : 0;
    double scale = (double)task->gamma * (double)row->scale, columns = columns_of(c, row);
    if (row->bits == DZ_BITS_SIGNS) return dz_quality_signs(density, scale * dz_gauss_mean(1 - (double)row->sparsity), columns);
    if (row->bits == 1 && density == 1) return dz_quality_signs(1, scale * DZ_QUALITY_MEAN_GAIN, columns); /* every sign: bitdelta */
    return dz_quality_sampled(density, scale, columns);
}

/* Entropy of a normal number's level on a grid of 2^bits levels over about +-5.2 standard deviations. */
static double normal_entropy(unsigned bits) { return 2.047 - log2(10.4 / ((1U << bits) - 1)); }

dz_rc dz_task_warnings(const dz_catalog *c, const dz_task_entry *t, dz_buf *lines, dz_error *err) {
    size_t lossy = 0, noisy = 0, worst = 0;
    double most = 0, grid = 0;
    for (size_t i = 0; i < t->nrows; i++) {
        const dz_index_row *row = &t->rows[i];
        if (row->policy != DZ_POLICY_ULTRADELTA) continue;
        double noise = dz_row_quality(c, t, row).row;
        lossy++;
        noisy += noise > DZ_QUALITY_LIMIT;
        if (noise > most) {
            most = noise;
            worst = i;
        }
        if (row->bits > 2 && row->bits <= 8) grid += (double)row->kept * normal_entropy(row->bits);
    }
    if (noisy)
        dz_buf_line(
            lines, err,
            "task '%s': in %zu of %zu lossy tensors the noise is more than %g of the row length (%.2g in '%s'): accuracy will suffer\n",
            t->name, noisy, lossy, DZ_QUALITY_LIMIT, most, c->tensors[t->rows[worst].tensor].name);
    if (grid > 0 && 8 * t->entropy_bytes < grid / 2)
        dz_buf_line(lines, err, "task '%s': %.2f bits in a kept level where a normal delta has %.2f: heavy tails stretch the grid\n",
                    t->name, 8 * t->entropy_bytes / (double)t->lossy_kept, grid / (double)t->lossy_kept);
    return err->rc;
}

/* BitDelta (arXiv 2402.10193): the sign of each element times the mean size. Where most elements did not change, they keep the base's
 * value: they have a level of their own, which is never kept, and the mean is that of the others. Where few did not, the map of them would
 * cost more than the noise that it saves. */
#include <math.h>

#include "compress/method.h"

static void grid(const dz_tensor_pair *pair, const dz_tensor_stats *stats, dz_grid_levels *grid) {
    double n = (double)pair->tiles.common;
    int all = 2 * stats->changed > n;
    float mean = stats->changed > 0 ? (float)(stats->abs_sum / (all ? n : stats->changed)) : 0;
    *grid = (dz_grid_levels){.lo = -mean, .step = 2 * mean, .bits = all ? 1 : 2, .sign = 1};
}

static double most_density(const dz_recipe *r, const dz_tensor_pair *pair, double level) {
    (void)r;
    (void)pair;
    (void)level;
    return 1;
}

static dz_rc allocate(const dz_method_task *task, dz_error *err) {
    for (size_t i = 0; i < task->n; i++) {
        const dz_method_tensor *t = &task->tensors[i];
        dz_tensor_coding *c = t->coding;
        double n = (double)t->pair->tiles.common, signs = t->grid->bits == 1 ? n : t->stats->changed, share = signs / n;
        double energy = signs * t->stats->delta_energy;
        c->kind = (uint8_t)t->grid->bits;
        c->lo = t->grid->lo;
        c->step = t->grid->step;
        c->sparsity = 0;
        c->scale = (float)t->pair->factor;
        c->noise = dz_noise_all_signs(energy > 0 ? t->stats->abs_sum * t->stats->abs_sum / energy : 1, (double)c->scale);
        double map = share <= 0 || share >= 1 ? 0 : -share * log2(share) - (1 - share) * log2(1 - share);
        c->bytes = n * (share + map) / 8 + 24.0 * t->pair->tiles.ncommon;
    }
    return err->rc;
}

static double first_level(const dz_recipe *r) {
    (void)r;
    return 1;
}

const dz_method DZ_BITDELTA = {.id = DZ_METHOD_BITDELTA,
                               .name = "bitdelta",
                               .levels = 1,
                               .sizes = 1,
                               .first_level = first_level,
                               .grid = grid,
                               .most_density = most_density,
                               .allocate = allocate};

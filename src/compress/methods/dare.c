/* DARE (arXiv 2311.03099): elements dropped at random, the others kept in fp16 and rescaled by 1 / density. */
#include <math.h>

#include "archive/catalog.h"
#include "codec/sparse_values.h"
#include "compress/method.h"

#define BITS_PER_VALUE 14 /* of an fp16 value after exact coding, about */

static dz_rc allocate(const dz_method_task *task, dz_error *err) {
    for (size_t i = 0; i < task->n; i++) {
        const dz_method_tensor *t = &task->tensors[i];
        dz_tensor_coding *c = t->coding;
        int own = !isnan(t->pair->sparsity);
        c->kind = DZ_BITS_VALUES;
        c->sparsity = own ? t->pair->sparsity : 1 - task->level;
        c->scale = (float)(t->pair->factor / (1 - c->sparsity));
        c->noise = dz_noise_sampled(1 - c->sparsity, (double)c->scale, 1, 0);
        c->bytes = (double)t->pair->tiles.common * (1 - c->sparsity) * BITS_PER_VALUE / 8 + 24.0 * t->pair->tiles.ncommon;
    }
    return err->rc;
}

static dz_rc encode(dz_buf *body, const dz_method_tile *tile, uint64_t *kept, dz_error *err) {
    return dz_values_encode_seeded(body, tile->delta, tile->count, tile->key, dz_chance_limit(1 - tile->coding->sparsity), kept, err);
}

const dz_method DZ_DARE = {
    .id = DZ_METHOD_DARE, .name = "dare", .first_level = dz_method_density_level, .allocate = allocate, .encode = encode};

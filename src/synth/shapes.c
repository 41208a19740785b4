#include "synth/shapes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static const dz_shape_spec SPECS[] = {
    {"tiny", DZ_FAMILY_LLAMA, .layers = 4, .heads = 8, .width = 256, .mlp = 688, .vocab = 1000, .positions = 512},
    {"vit-b-32", DZ_FAMILY_CLIP, .layers = 12, .heads = 12, .width = 768, .mlp = 3072, .positions = 50, .patch = 32, .out = 512},
    {"vit-l-14", DZ_FAMILY_CLIP, .layers = 24, .heads = 16, .width = 1024, .mlp = 4096, .positions = 257, .patch = 14, .out = 768},
    {"roberta-base", DZ_FAMILY_ROBERTA, .layers = 12, .heads = 12, .width = 768, .mlp = 3072, .vocab = 50265, .positions = 514},
    {"t5-base", DZ_FAMILY_T5, .layers = 12, .heads = 12, .width = 768, .mlp = 3072, .vocab = 32128, .positions = 512},
    {"beit3-base", DZ_FAMILY_BEIT3, .layers = 12, .heads = 12, .width = 768, .mlp = 3072, .vocab = 64010, .positions = 199, .patch = 16},
    {"llama2-7b", DZ_FAMILY_LLAMA, .layers = 32, .heads = 32, .width = 4096, .mlp = 11008, .vocab = 32000, .positions = 4096},
    {"llama2-13b", DZ_FAMILY_LLAMA, .layers = 40, .heads = 40, .width = 5120, .mlp = 13824, .vocab = 32000, .positions = 4096},
};

#define NSPECS (sizeof SPECS / sizeof SPECS[0])

/* One tensor. `dims` has a letter per dimension (see dim_of); in a block's row, '#' in the name is the block's number. */
typedef struct row {
    const char *name;
    dz_role role;
    const char *dims;
    int first_only; /* only the first block of a stack has it */
} row;

/* Rows that are listed once, or once for every block. */
typedef struct section {
    const row *rows;
    size_t nrows;
    int per_block;
} section;

#define ROWS(rows) rows, sizeof(rows) / sizeof((rows)[0])
#define LINEAR DZ_ROLE_LINEAR
#define EMBEDDING DZ_ROLE_EMBEDDING
#define NORM DZ_ROLE_NORM
#define BIAS DZ_ROLE_BIAS
#define HEAD DZ_ROLE_HEAD
#define OTHER DZ_ROLE_OTHER

/* clang-format off */
static const row LLAMA_FIRST[] = {{"model.embed_tokens.weight", EMBEDDING, "vw", 0}};
static const row LLAMA_BLOCK[] = {
    {"model.layers.#.self_attn.q_proj.weight", LINEAR, "ww", 0},
    {"model.layers.#.self_attn.k_proj.weight", LINEAR, "ww", 0},
    {"model.layers.#.self_attn.v_proj.weight", LINEAR, "ww", 0},
    {"model.layers.#.self_attn.o_proj.weight", LINEAR, "ww", 0},
    {"model.layers.#.mlp.gate_proj.weight", LINEAR, "mw", 0},
    {"model.layers.#.mlp.up_proj.weight", LINEAR, "mw", 0},
    {"model.layers.#.mlp.down_proj.weight", LINEAR, "wm", 0},
    {"model.layers.#.input_layernorm.weight", NORM, "w", 0},
    {"model.layers.#.post_attention_layernorm.weight", NORM, "w", 0},
};
static const row LLAMA_LAST[] = {{"model.norm.weight", NORM, "w", 0}, {"lm_head.weight", HEAD, "vw", 0}};

static const row CLIP_FIRST[] = {
    {"model.visual.class_embedding", OTHER, "w", 0},
    {"model.visual.positional_embedding", OTHER, "pw", 0},
    {"model.visual.proj", HEAD, "wo", 0},
    {"model.visual.conv1.weight", OTHER, "wctt", 0},
    {"model.visual.ln_pre.weight", NORM, "w", 0},
    {"model.visual.ln_pre.bias", BIAS, "w", 0},
};
static const row CLIP_BLOCK[] = {
    {"model.visual.transformer.resblocks.#.ln_1.weight", NORM, "w", 0},
    {"model.visual.transformer.resblocks.#.ln_1.bias", BIAS, "w", 0},
    {"model.visual.transformer.resblocks.#.attn.in_proj_weight", LINEAR, "qw", 0},
    {"model.visual.transformer.resblocks.#.attn.in_proj_bias", BIAS, "q", 0},
    {"model.visual.transformer.resblocks.#.attn.out_proj.weight", LINEAR, "ww", 0},
    {"model.visual.transformer.resblocks.#.attn.out_proj.bias", BIAS, "w", 0},
    {"model.visual.transformer.resblocks.#.ln_2.weight", NORM, "w", 0},
    {"model.visual.transformer.resblocks.#.ln_2.bias", BIAS, "w", 0},
    {"model.visual.transformer.resblocks.#.mlp.c_fc.weight", LINEAR, "mw", 0},
    {"model.visual.transformer.resblocks.#.mlp.c_fc.bias", BIAS, "m", 0},
    {"model.visual.transformer.resblocks.#.mlp.c_proj.weight", LINEAR, "wm", 0},
    {"model.visual.transformer.resblocks.#.mlp.c_proj.bias", BIAS, "w", 0},
};
static const row CLIP_LAST[] = {{"model.visual.ln_post.weight", NORM, "w", 0}, {"model.visual.ln_post.bias", BIAS, "w", 0}};

static const row ROBERTA_FIRST[] = {
    {"roberta.embeddings.word_embeddings.weight", EMBEDDING, "vw", 0},
    {"roberta.embeddings.position_embeddings.weight", OTHER, "pw", 0},
    {"roberta.embeddings.token_type_embeddings.weight", OTHER, "1w", 0},
    {"roberta.embeddings.LayerNorm.weight", NORM, "w", 0},
    {"roberta.embeddings.LayerNorm.bias", BIAS, "w", 0},
};
static const row ROBERTA_BLOCK[] = {
    {"roberta.encoder.layer.#.attention.self.query.weight", LINEAR, "ww", 0},
    {"roberta.encoder.layer.#.attention.self.query.bias", BIAS, "w", 0},
    {"roberta.encoder.layer.#.attention.self.key.weight", LINEAR, "ww", 0},
    {"roberta.encoder.layer.#.attention.self.key.bias", BIAS, "w", 0},
    {"roberta.encoder.layer.#.attention.self.value.weight", LINEAR, "ww", 0},
    {"roberta.encoder.layer.#.attention.self.value.bias", BIAS, "w", 0},
    {"roberta.encoder.layer.#.attention.output.dense.weight", LINEAR, "ww", 0},
    {"roberta.encoder.layer.#.attention.output.dense.bias", BIAS, "w", 0},
    {"roberta.encoder.layer.#.attention.output.LayerNorm.weight", NORM, "w", 0},
    {"roberta.encoder.layer.#.attention.output.LayerNorm.bias", BIAS, "w", 0},
    {"roberta.encoder.layer.#.intermediate.dense.weight", LINEAR, "mw", 0},
    {"roberta.encoder.layer.#.intermediate.dense.bias", BIAS, "m", 0},
    {"roberta.encoder.layer.#.output.dense.weight", LINEAR, "wm", 0},
    {"roberta.encoder.layer.#.output.dense.bias", BIAS, "w", 0},
    {"roberta.encoder.layer.#.output.LayerNorm.weight", NORM, "w", 0},
    {"roberta.encoder.layer.#.output.LayerNorm.bias", BIAS, "w", 0},
};
static const row ROBERTA_LAST[] = {
    {"lm_head.bias", BIAS, "v", 0},
    {"lm_head.dense.weight", HEAD, "ww", 0},
    {"lm_head.dense.bias", BIAS, "w", 0},
    {"lm_head.layer_norm.weight", NORM, "w", 0},
    {"lm_head.layer_norm.bias", BIAS, "w", 0},
};

static const row T5_FIRST[] = {{"shared.weight", EMBEDDING, "vw", 0}};
static const row T5_ENCODER_BLOCK[] = {
    {"encoder.block.#.layer.0.SelfAttention.q.weight", LINEAR, "ww", 0},
    {"encoder.block.#.layer.0.SelfAttention.k.weight", LINEAR, "ww", 0},
    {"encoder.block.#.layer.0.SelfAttention.v.weight", LINEAR, "ww", 0},
    {"encoder.block.#.layer.0.SelfAttention.o.weight", LINEAR, "ww", 0},
    {"encoder.block.#.layer.0.SelfAttention.relative_attention_bias.weight", OTHER, "bh", 1},
    {"encoder.block.#.layer.0.layer_norm.weight", NORM, "w", 0},
    {"encoder.block.#.layer.1.DenseReluDense.wi.weight", LINEAR, "mw", 0},
    {"encoder.block.#.layer.1.DenseReluDense.wo.weight", LINEAR, "wm", 0},
    {"encoder.block.#.layer.1.layer_norm.weight", NORM, "w", 0},
};
static const row T5_MIDDLE[] = {{"encoder.final_layer_norm.weight", NORM, "w", 0}};
static const row T5_DECODER_BLOCK[] = {
    {"decoder.block.#.layer.0.SelfAttention.q.weight", LINEAR, "ww", 0},
    {"decoder.block.#.layer.0.SelfAttention.k.weight", LINEAR, "ww", 0},
    {"decoder.block.#.layer.0.SelfAttention.v.weight", LINEAR, "ww", 0},
    {"decoder.block.#.layer.0.SelfAttention.o.weight", LINEAR, "ww", 0},
    {"decoder.block.#.layer.0.SelfAttention.relative_attention_bias.weight", OTHER, "bh", 1},
    {"decoder.block.#.layer.0.layer_norm.weight", NORM, "w", 0},
    {"decoder.block.#.layer.1.EncDecAttention.q.weight", LINEAR, "ww", 0},
    {"decoder.block.#.layer.1.EncDecAttention.k.weight", LINEAR, "ww", 0},
    {"decoder.block.#.layer.1.EncDecAttention.v.weight", LINEAR, "ww", 0},
    {"decoder.block.#.layer.1.EncDecAttention.o.weight", LINEAR, "ww", 0},
    {"decoder.block.#.layer.1.layer_norm.weight", NORM, "w", 0},
    {"decoder.block.#.layer.2.DenseReluDense.wi.weight", LINEAR, "mw", 0},
    {"decoder.block.#.layer.2.DenseReluDense.wo.weight", LINEAR, "wm", 0},
    {"decoder.block.#.layer.2.layer_norm.weight", NORM, "w", 0},
};
static const row T5_LAST[] = {{"decoder.final_layer_norm.weight", NORM, "w", 0}};

static const row BEIT3_FIRST[] = {
    {"beit3.text_embed.weight", EMBEDDING, "vw", 0},
    {"beit3.vision_embed.mask_token", OTHER, "11w", 0},
    {"beit3.vision_embed.cls_token", OTHER, "11w", 0},
    {"beit3.vision_embed.proj.weight", OTHER, "wctt", 0},
    {"beit3.vision_embed.proj.bias", BIAS, "w", 0},
    {"beit3.encoder.embed_positions.A.weight", OTHER, "pw", 0},
    {"beit3.encoder.embed_positions.B.weight", OTHER, "sw", 0},
};
#define BEIT3(name, role, dims) {"beit3.encoder.layers.#." name, role, dims, 0}
#define BEIT3_BOTH(name, weight_role, weight_dims, bias_dims) \
    BEIT3(name ".A.weight", weight_role, weight_dims), BEIT3(name ".A.bias", BIAS, bias_dims), \
    BEIT3(name ".B.weight", weight_role, weight_dims), BEIT3(name ".B.bias", BIAS, bias_dims)
#define BEIT3_FFN(branch) \
    BEIT3("ffn." branch ".fc1.weight", LINEAR, "mw"), BEIT3("ffn." branch ".fc1.bias", BIAS, "m"), \
    BEIT3("ffn." branch ".fc2.weight", LINEAR, "wm"), BEIT3("ffn." branch ".fc2.bias", BIAS, "w"), \
    BEIT3("ffn." branch ".ffn_layernorm.weight", NORM, "m"), BEIT3("ffn." branch ".ffn_layernorm.bias", BIAS, "m")
static const row BEIT3_BLOCK[] = {
    BEIT3_BOTH("self_attn.k_proj", LINEAR, "ww", "w"),
    BEIT3_BOTH("self_attn.v_proj", LINEAR, "ww", "w"),
    BEIT3_BOTH("self_attn.q_proj", LINEAR, "ww", "w"),
    BEIT3_BOTH("self_attn.out_proj", LINEAR, "ww", "w"),
    BEIT3_BOTH("self_attn.inner_attn_ln", NORM, "w", "w"),
    BEIT3_BOTH("self_attn_layer_norm", NORM, "w", "w"),
    BEIT3_FFN("A"),
    BEIT3_FFN("B"),
    BEIT3_BOTH("final_layer_norm", NORM, "w", "w"),
};
static const row BEIT3_LAST[] = {
    {"beit3.encoder.layer_norm.A.weight", NORM, "w", 0},
    {"beit3.encoder.layer_norm.A.bias", BIAS, "w", 0},
    {"beit3.encoder.layer_norm.B.weight", NORM, "w", 0},
    {"beit3.encoder.layer_norm.B.bias", BIAS, "w", 0},
};

/* Five sections at most; an empty one ends the family. */
static const section FAMILIES[][6] = {
    [DZ_FAMILY_LLAMA] = {{ROWS(LLAMA_FIRST), 0}, {ROWS(LLAMA_BLOCK), 1}, {ROWS(LLAMA_LAST), 0}},
    [DZ_FAMILY_CLIP] = {{ROWS(CLIP_FIRST), 0}, {ROWS(CLIP_BLOCK), 1}, {ROWS(CLIP_LAST), 0}},
    [DZ_FAMILY_ROBERTA] = {{ROWS(ROBERTA_FIRST), 0}, {ROWS(ROBERTA_BLOCK), 1}, {ROWS(ROBERTA_LAST), 0}},
    [DZ_FAMILY_T5] = {{ROWS(T5_FIRST), 0}, {ROWS(T5_ENCODER_BLOCK), 1}, {ROWS(T5_MIDDLE), 0},
                      {ROWS(T5_DECODER_BLOCK), 1}, {ROWS(T5_LAST), 0}},
    [DZ_FAMILY_BEIT3] = {{ROWS(BEIT3_FIRST), 0}, {ROWS(BEIT3_BLOCK), 1}, {ROWS(BEIT3_LAST), 0}},
};
/* clang-format on */

static uint64_t dim_of(const dz_shape_spec *spec, char letter) {
    switch (letter) {
        case 'w': return spec->width;
        case 'q': return 3 * spec->width; /* query, key and value in one matrix */
        case 'm': return spec->mlp;
        case 'v': return spec->vocab;
        case 'p': return spec->positions;
        case 's': return 1024; /* text positions of BEiT-3 */
        case 't': return spec->patch;
        case 'c': return 3; /* colours */
        case 'o': return spec->out;
        case 'h': return spec->heads;
        case 'b': return 32; /* distance buckets of T5's attention bias */
        default: return 1;
    }
}

static dz_rc add_row(dz_shape_list *list, const row *r, int number, int block, dz_error *err) {
    if (dz_grow((void **)&list->items, &list->cap, list->count + 1, sizeof *list->items, err) != DZ_OK) return err->rc;
    dz_shape shape = {.role = r->role, .block = block, .count = 1};
    const char *mark = strchr(r->name, '#');
    shape.name = mark ? dz_format(err, "%.*s%d%s", (int)(mark - r->name), r->name, number, mark + 1) : dz_strdup(r->name, err);
    if (!shape.name) return err->rc;
    for (const char *letter = r->dims; *letter; letter++) {
        shape.shape[shape.ndim] = dim_of(list->spec, *letter);
        shape.count *= shape.shape[shape.ndim++];
    }
    list->items[list->count++] = shape;
    list->parameters += shape.count;
    return DZ_OK;
}

static dz_rc add_section(dz_shape_list *list, const section *part, int first_block, dz_error *err) {
    int blocks = part->per_block ? list->layers : 1;
    for (int number = 0; number < blocks; number++) {
        for (size_t i = 0; i < part->nrows; i++) {
            if (part->rows[i].first_only && number > 0) continue;
            if (add_row(list, &part->rows[i], number, part->per_block ? first_block + number : -1, err) != DZ_OK) return err->rc;
        }
    }
    return DZ_OK;
}

const char *const *dz_shape_names(void) {
    static const char *const names[] = {"tiny",      "vit-b-32",   "vit-l-14", "roberta-base", "t5-base", "beit3-base",
                                        "llama2-7b", "llama2-13b", NULL};
    return names;
}

static const dz_shape_spec *find_spec(const char *model, dz_error *err) {
    char known[256];
    size_t used = 0;
    for (size_t i = 0; i < NSPECS; i++) {
        if (strcmp(SPECS[i].name, model) == 0) return &SPECS[i];
        int n = snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", SPECS[i].name);
        if (n > 0 && (size_t)n < sizeof known - used) used += (size_t)n;
    }
    dz_fail(err, DZ_EUSAGE, "no model is called '%s'; known: %s", model, known);
    return NULL;
}

dz_rc dz_shape_build(const char *model, int layers, dz_shape_list *out, dz_error *err) {
    dz_shape_list list = {.spec = find_spec(model, err)};
    if (!list.spec) return err->rc;
    if (layers < 0 || layers > list.spec->layers)
        return dz_fail(err, DZ_EUSAGE, "%s has %d layers; %d cannot be had", model, list.spec->layers, layers);
    list.layers = layers ? layers : list.spec->layers;
    dz_rc rc = DZ_OK;
    int first_block = 0;
    for (const section *part = FAMILIES[list.spec->family]; part->rows && rc == DZ_OK; part++) {
        rc = add_section(&list, part, first_block, err);
        if (part->per_block) first_block += list.layers;
    }
    if (rc == DZ_OK) {
        *out = list;
        list = (dz_shape_list){0};
    }
    dz_shape_list_free(&list);
    return rc;
}

void dz_shape_list_free(dz_shape_list *list) {
    for (size_t i = 0; i < list->count; i++) free(list->items[i].name);
    free(list->items);
    *list = (dz_shape_list){0};
}

#include "synth/synth_header.h"

#include "checkpoint/header.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static dz_rc no_json(dz_error *err) { return dz_fail(err, DZ_ENOMEM, "out of memory for a JSON text"); }

/* Appends `root` as text; takes the reference, accepts NULL (a failed json_pack). */
static dz_rc put_json_take(json_t *root, size_t flags, dz_buf *out, dz_error *err) {
    char *text = root ? json_dumps(root, flags) : NULL;
    dz_rc rc = text ? dz_buf_put(out, text, strlen(text), err) : no_json(err);
    free(text);
    json_decref(root);
    return rc;
}

dz_rc dz_synth_header(const dz_shape *const *tensors, size_t ntensors, dz_dtype dtype, dz_buf *out, dz_error *err) {
    dz_tensor *list = dz_alloc(ntensors, sizeof *list, err);
    for (size_t i = 0; list && i < ntensors; i++) {
        dz_tensor *t = &list[i];
        t->name = tensors[i]->name;
        strcpy(t->dtype_name, dz_dtype_name(dtype));
        t->ndim = (uint32_t)tensors[i]->ndim;
        memcpy(t->shape, tensors[i]->shape, t->ndim * sizeof t->shape[0]);
        t->nbytes = tensors[i]->count * dz_dtype_size(dtype);
    }
    if (list) dz_safetensors_header(list, ntensors, (dz_like){0}, out, err);
    free(list);
    return err->rc;
}

dz_rc dz_synth_index(const dz_shape_list *list, const char *const *files, dz_dtype dtype, dz_buf *out, dz_error *err) {
    json_t *map = json_object();
    for (size_t i = 0; i < list->count; i++) {
        if (json_object_set_new(map, list->items[i].name, json_string(files[i])) != 0) {
            json_decref(map);
            return no_json(err);
        }
    }
    json_int_t nbytes = (json_int_t)(list->parameters * dz_dtype_size(dtype));
    json_t *root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", nbytes, "weight_map", map);
    return put_json_take(root, JSON_INDENT(2) | JSON_SORT_KEYS, out, err);
}

static json_t *family_json(const dz_shape_spec *s) {
    json_int_t mlp = (json_int_t)s->mlp, positions = (json_int_t)s->positions, patch = (json_int_t)s->patch, heads = (json_int_t)s->heads;
    switch (s->family) {
        case DZ_FAMILY_LLAMA:
            return json_pack("{s:[s], s:s, s:s, s:I, s:I, s:I, s:f, s:I, s:I, s:b}", "architectures", "LlamaForCausalLM", "model_type",
                             "llama", "hidden_act", "silu", "intermediate_size", mlp, "max_position_embeddings", positions,
                             "num_key_value_heads", heads, "rms_norm_eps", 1e-5, "bos_token_id", (json_int_t)1, "eos_token_id",
                             (json_int_t)2, "tie_word_embeddings", 0);
        case DZ_FAMILY_CLIP:
            return json_pack("{s:[s], s:s, s:s, s:I, s:I, s:I, s:I}", "architectures", "CLIPVisionModelWithProjection", "model_type",
                             "clip_vision_model", "hidden_act", "quick_gelu", "intermediate_size", mlp, "image_size", (json_int_t)224,
                             "patch_size", patch, "projection_dim", (json_int_t)s->out);
        case DZ_FAMILY_ROBERTA:
            return json_pack("{s:[s], s:s, s:s, s:I, s:I, s:f, s:I, s:I, s:I, s:I}", "architectures", "RobertaForMaskedLM", "model_type",
                             "roberta", "hidden_act", "gelu", "intermediate_size", mlp, "max_position_embeddings", positions,
                             "layer_norm_eps", 1e-5, "type_vocab_size", (json_int_t)1, "bos_token_id", (json_int_t)0, "pad_token_id",
                             (json_int_t)1, "eos_token_id", (json_int_t)2);
        case DZ_FAMILY_T5:
            return json_pack("{s:[s], s:s, s:b, s:I, s:I, s:I, s:I, s:I}", "architectures", "T5ForConditionalGeneration", "model_type",
                             "t5", "is_encoder_decoder", 1, "d_model", (json_int_t)s->width, "d_ff", mlp, "d_kv",
                             (json_int_t)(s->width / s->heads), "relative_attention_num_buckets", (json_int_t)32, "pad_token_id",
                             (json_int_t)0);
        case DZ_FAMILY_BEIT3:
            return json_pack("{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:b}", "architectures", "Beit3Model", "model_type", "beit3",
                             "activation_fn", "gelu", "intermediate_size", mlp, "max_position_embeddings", (json_int_t)1024, "image_size",
                             (json_int_t)224, "patch_size", patch, "sub_layernorm", 1);
    }
    return NULL;
}

dz_rc dz_synth_config(const dz_shape_list *list, dz_dtype dtype, dz_buf *out, dz_error *err) {
    const dz_shape_spec *s = list->spec;
    int t5 = s->family == DZ_FAMILY_T5;
    const char *type = dtype == DZ_F32 ? "float32" : dtype == DZ_F16 ? "float16" : "bfloat16";
    json_t *root = family_json(s);
    int bad = json_object_set_new(root, t5 ? "num_layers" : "num_hidden_layers", json_integer(list->layers));
    bad |= t5 ? json_object_set_new(root, "num_decoder_layers", json_integer(list->layers)) : 0;
    bad |= json_object_set_new(root, t5 ? "num_heads" : "num_attention_heads", json_integer((json_int_t)s->heads));
    bad |= t5 ? 0 : json_object_set_new(root, "hidden_size", json_integer((json_int_t)s->width));
    bad |= s->vocab ? json_object_set_new(root, "vocab_size", json_integer((json_int_t)s->vocab)) : 0;
    bad |= json_object_set_new(root, "torch_dtype", json_string(type));
    bad |= json_object_set_new(root, DZ_SYNTH_MARK, json_string("synth: random weights"));
    if (bad) {
        json_decref(root);
        return no_json(err);
    }
    dz_rc rc = put_json_take(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(15), out, err);
    return rc != DZ_OK ? rc : dz_buf_put(out, "\n", 1, err);
}

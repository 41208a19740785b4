/* plan/structure.h on names and shapes as model libraries write them: what is of the body, kinds, depth, views. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan/structure.h"

/* A tensor and what is expected of it. */
typedef struct expected {
    const char *name;
    uint64_t shape[4]; /* up to the first 0 */
    dz_place place;
    dz_kind kind;
    dz_matrix_view view; /* count 0: not looked at */
} expected;

static dz_tensor tensor_of(const expected *e) {
    dz_tensor t = {.name = (char *)(uintptr_t)e->name, .dtype = DZ_F32, .count = 1};
    while (t.ndim < 4 && e->shape[t.ndim]) {
        t.shape[t.ndim] = e->shape[t.ndim];
        t.count *= e->shape[t.ndim++];
    }
    t.nbytes = 4 * t.count;
    return t;
}

static dz_tensor_role *roles_of(const expected *list, size_t n) {
    dz_error err = {0};
    dz_tensor *tensors = calloc(n, sizeof *tensors);
    dz_tensor_role *roles = NULL;
    assert_non_null(tensors);
    for (size_t i = 0; i < n; i++) tensors[i] = tensor_of(&list[i]);
    assert_int_equal(dz_roles_make(tensors, n, &roles, &err), DZ_OK);
    free(tensors);
    return roles;
}

static void check_roles(const expected *list, size_t n) {
    dz_tensor_role *roles = roles_of(list, n);
    for (size_t i = 0; i < n; i++) {
        const dz_matrix_view *want = &list[i].view, *got = &roles[i].view;
        if (roles[i].place != list[i].place || roles[i].kind != list[i].kind)
            fail_msg("%s: %s, kind %s; not %s, kind %s", list[i].name, dz_place_name(roles[i].place), dz_kind_name(roles[i].kind),
                     dz_place_name(list[i].place), dz_kind_name(list[i].kind));
        if (want->count &&
            (want->count != got->count || want->rows != got->rows || want->cols != got->cols || want->in_first != got->in_first))
            fail_msg("%s: %llu matrices of %llu x %llu, in_first %d", list[i].name, (unsigned long long)got->count,
                     (unsigned long long)got->rows, (unsigned long long)got->cols, got->in_first);
    }
    free(roles);
}

#define CHECK(...)                                                                                                                         \
    do {                                                                                                                                   \
        const expected list[] = {__VA_ARGS__};                                                                                             \
        check_roles(list, sizeof list / sizeof *list);                                                                                     \
    } while (0)
#define BODY DZ_PLACE_BODY
#define K(kind) DZ_KIND_##kind

static void test_kinds_of_a_language_model(void **state) {
    (void)state;
    CHECK({"model.embed_tokens.weight", {320, 64}, DZ_PLACE_EMBEDDING, K(OTHER), {0}},
          {"model.layers.0.self_attn.q_proj.weight", {64, 64}, BODY, K(Q), {1, 64, 64, 0}},
          {"model.layers.0.self_attn.k_proj.weight", {16, 64}, BODY, K(K), {1, 16, 64, 0}},
          {"model.layers.0.self_attn.v_proj.weight", {16, 64}, BODY, K(V), {0}},
          {"model.layers.0.self_attn.o_proj.weight", {64, 64}, BODY, K(O), {0}},
          {"model.layers.0.mlp.gate_proj.weight", {96, 64}, BODY, K(GATE), {0}},
          {"model.layers.0.mlp.up_proj.weight", {96, 64}, BODY, K(UP), {0}},
          {"model.layers.0.mlp.down_proj.weight", {64, 96}, BODY, K(DOWN), {0}},
          {"model.layers.0.input_layernorm.weight", {64}, DZ_PLACE_VECTOR, K(OTHER), {1, 64, 1, 0}},
          {"model.layers.1.self_attn.qkv_proj.weight", {96, 64}, BODY, K(ATTENTION_OTHER), {0}},
          {"model.layers.1.mlp.gate_up_proj.weight", {192, 64}, BODY, K(MLP_OTHER), {0}},
          {"lm_head.weight", {320, 64}, DZ_PLACE_HEAD, K(OTHER), {0}},
          {"model.layers.1.self_attn.q_norm.weight", {4, 16}, DZ_PLACE_NORM, K(OTHER), {0}});
}

static void test_gpt2_matrices_have_their_inputs_first(void **state) {
    (void)state;
    CHECK({"wte.weight", {300, 8}, DZ_PLACE_EMBEDDING, K(OTHER), {0}}, {"wpe.weight", {32, 8}, DZ_PLACE_EMBEDDING, K(OTHER), {0}},
          {"h.0.attn.c_attn.weight", {8, 24}, BODY, K(ATTENTION_OTHER), {1, 8, 24, 1}},
          {"h.0.attn.c_attn.bias", {24}, DZ_PLACE_VECTOR, K(OTHER), {0}}, {"h.0.attn.c_proj.weight", {8, 8}, BODY, K(O), {1, 8, 8, 1}},
          {"h.0.attn.c_proj.bias", {8}, DZ_PLACE_VECTOR, K(OTHER), {0}}, {"h.0.mlp.c_fc.weight", {8, 32}, BODY, K(UP), {1, 8, 32, 1}},
          {"h.0.mlp.c_fc.bias", {32}, DZ_PLACE_VECTOR, K(OTHER), {0}}, {"h.1.mlp.c_proj.weight", {32, 8}, BODY, K(DOWN), {1, 32, 8, 1}},
          {"h.1.mlp.c_proj.bias", {8}, DZ_PLACE_VECTOR, K(OTHER), {0}});
}

static void test_fused_experts_are_stacks(void **state) {
    (void)state;
    CHECK({"a.layers.0.norm.weight", {40}, DZ_PLACE_VECTOR, K(OTHER), {0}}, /* Qwen3-MoE in memory: (E, 2I, H), (E, H, I) */
          {"a.layers.0.mlp.gate.weight", {4, 40}, DZ_PLACE_ROUTER, K(OTHER), {0}},
          {"a.layers.0.mlp.experts.gate_up_proj", {4, 48, 40}, BODY, K(MLP_OTHER), {4, 48, 40, 0}},
          {"a.layers.0.mlp.experts.down_proj", {4, 40, 24}, BODY, K(DOWN), {4, 40, 24, 0}},
          {"b.layers.0.norm.weight", {40}, DZ_PLACE_VECTOR, K(OTHER), {0}}, /* gpt-oss: (E, H, 2I), (E, I, H), I = H */
          {"b.layers.0.mlp.router.weight", {4, 40}, DZ_PLACE_ROUTER, K(OTHER), {0}},
          {"b.layers.0.mlp.experts.gate_up_proj", {4, 40, 80}, BODY, K(MLP_OTHER), {4, 40, 80, 1}},
          {"b.layers.0.mlp.experts.gate_up_proj_bias", {4, 80}, DZ_PLACE_TABLE, K(OTHER), {0}},
          {"b.layers.0.mlp.experts.down_proj", {4, 40, 40}, BODY, K(DOWN), {4, 40, 40, 1}},
          {"b.layers.0.mlp.experts.down_proj_bias", {4, 40}, DZ_PLACE_TABLE, K(OTHER), {0}},
          {"c.layers.0.norm.weight", {40}, DZ_PLACE_VECTOR, K(OTHER), {0}}, /* Llama 4: as gpt-oss, without biases */
          {"c.layers.0.feed_forward.router.weight", {4, 40}, DZ_PLACE_ROUTER, K(OTHER), {0}},
          {"c.layers.0.feed_forward.experts.gate_up_proj", {4, 40, 64}, BODY, K(MLP_OTHER), {4, 40, 64, 1}},
          {"c.layers.0.feed_forward.experts.down_proj", {4, 32, 40}, BODY, K(DOWN), {4, 32, 40, 1}});
}

static void test_convolutions_are_out_by_all_inputs(void **state) {
    (void)state;
    CHECK({"down_blocks.0.resnets.0.conv1.weight", {32, 16, 3, 3}, BODY, K(CONV), {1, 32, 144, 0}},
          {"down_blocks.0.resnets.0.conv_shortcut.weight", {32, 16, 1, 1}, BODY, K(CONV), {1, 32, 16, 0}},
          {"down_blocks.1.resnets.0.conv1.weight", {64, 32, 3, 3}, BODY, K(CONV), {1, 64, 288, 0}},
          {"mid_block.resnets.0.conv1.weight", {64, 64, 3, 3}, BODY, K(CONV), {0}},
          {"down_blocks.0.resnets.0.time_emb_proj.weight", {32, 64}, BODY, K(OTHER), {0}},
          {"conv_in.weight", {16, 4, 3, 3}, DZ_PLACE_OUTSIDE, K(OTHER), {0}},
          {"stages.0.blocks.0.dwconv.weight", {32, 1, 7, 7}, DZ_PLACE_DEPTHWISE, K(OTHER), {0}},
          {"stages.0.blocks.1.dwconv.weight", {32, 1, 7, 7}, DZ_PLACE_DEPTHWISE, K(OTHER), {0}},
          {"stages.0.blocks.1.pwconv1.weight", {128, 32}, BODY, K(OTHER), {0}},
          {"layer1.0.conv1.weight", {64, 64, 3, 3}, BODY, K(CONV), {0}}, {"layer1.1.conv1.weight", {64, 64, 3, 3}, BODY, K(CONV), {0}},
          {"layer2.0.downsample.0.weight", {128, 64, 1, 1}, BODY, K(CONV), {0}},
          {"layer2.0.conv1.weight", {128, 64, 3, 3}, BODY, K(CONV), {0}}, {"fc.weight", {1000, 512}, DZ_PLACE_OUTSIDE, K(OTHER), {0}},
          {"up.0.upsample.weight", {64, 32, 4, 4}, BODY, K(CONV), {1, 64, 512, 1}},
          {"up.0.upsample.bias", {32}, DZ_PLACE_VECTOR, K(OTHER), {0}}, {"up.1.upsample.weight", {32, 16, 4, 4}, BODY, K(CONV), {0}});
}

static void test_what_is_not_of_the_body(void **state) {
    (void)state;
    CHECK({"encoder.layer.0.attention.self.query.weight", {64, 64}, BODY, K(Q), {0}},
          {"encoder.layer.0.attention.self.relative_position_bias_table", {169, 4}, DZ_PLACE_POSITION, K(OTHER), {0}},
          {"encoder.layer.0.attention.output.dense.weight", {64, 64}, BODY, K(O), {0}},
          {"encoder.layer.1.attention.self.query.weight", {64, 64}, BODY, K(Q), {0}},
          {"encoder.layer.1.mixer.A_log", {128, 16}, DZ_PLACE_TABLE, K(OTHER), {0}},
          {"encoder.layer.1.norm1.linear.weight", {384, 64}, BODY, K(OTHER), {0}},
          {"encoder.layer.1.patch_embed.proj.weight", {64, 3, 2, 2}, DZ_PLACE_EMBEDDING, K(OTHER), {0}},
          {"embeddings.position_embeddings.weight", {512, 64}, DZ_PLACE_POSITION, K(OTHER), {0}},
          {"pooler.dense.weight", {64, 64}, DZ_PLACE_OUTSIDE, K(OTHER), {0}},
          {"lm_heads.0.weight", {300, 64}, DZ_PLACE_HEAD, K(OTHER), {0}}, {"lm_heads.1.weight", {300, 64}, DZ_PLACE_HEAD, K(OTHER), {0}},
          {"projector.mlp.0.weight", {96, 64}, DZ_PLACE_OUTSIDE, K(OTHER), {0}},
          {"projector.mlp.2.weight", {64, 96}, DZ_PLACE_OUTSIDE, K(OTHER), {0}},
          {"embed_tokens.0.weight", {300, 64}, DZ_PLACE_EMBEDDING, K(OTHER), {0}},
          {"embed_tokens.1.weight", {300, 64}, DZ_PLACE_EMBEDDING, K(OTHER), {0}});
}

static void test_a_model_of_one_block_and_layers_in_words(void **state) {
    (void)state;
    CHECK({"0.auto_model.encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight", {64, 64}, BODY, K(Q), {0}},
          {"0.auto_model.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight", {256, 64}, BODY, K(UP), {0}},
          {"0.auto_model.pooler.dense.weight", {64, 64}, DZ_PLACE_OUTSIDE, K(OTHER), {0}});
    CHECK({"encoder/layers_0/attention/query/kernel", {64, 96}, BODY, K(Q), {1, 64, 96, 1}},
          {"encoder/layers_1/attention/query/kernel", {64, 96}, BODY, K(Q), {1, 64, 96, 1}},
          {"fc1.weight", {64, 64}, DZ_PLACE_OUTSIDE, K(OTHER), {0}}, {"fc2.weight", {64, 64}, DZ_PLACE_OUTSIDE, K(OTHER), {0}});
    CHECK({"lstm.weight_ih_l0", {64, 16}, BODY, K(OTHER), {0}}, {"lstm.weight_hh_l0", {64, 16}, BODY, K(OTHER), {0}});
    CHECK({"in.weight", {64, 16}, DZ_PLACE_OUTSIDE, K(OTHER), {0}}, {"out.weight", {64, 16}, DZ_PLACE_OUTSIDE, K(OTHER), {0}});
}

static void test_convolutions_between_stages_are_no_embeddings(void **state) {
    (void)state;
    CHECK({"encoder.patch_embeddings.0.proj.weight", {32, 3, 7, 7}, DZ_PLACE_EMBEDDING, K(OTHER), {0}},
          {"encoder.patch_embeddings.1.proj.weight", {64, 32, 3, 3}, BODY, K(CONV), {1, 64, 288, 0}},
          {"resblocks.0.kernel_predictor.kernel_conv.weight", {96, 64, 3}, BODY, K(CONV), {0}},
          {"resblocks.1.kernel_predictor.kernel_conv.weight", {96, 64, 3}, BODY, K(CONV), {0}},
          {"bbox_predictor.layers.0.weight", {64, 64}, DZ_PLACE_HEAD, K(OTHER), {0}},
          {"bbox_predictor.layers.1.weight", {64, 64}, DZ_PLACE_HEAD, K(OTHER), {0}});
}

static void test_depth_counts_blocks_and_blocks_of_stages(void **state) {
    (void)state;
    const expected list[] = {{"layers.0.blocks.0.attn.qkv.weight", {9, 3}, BODY, 0, {0}},
                             {"layers.0.blocks.1.attn.qkv.weight", {9, 3}, BODY, 0, {0}},
                             {"layers.1.blocks.1.attn.qkv.weight", {9, 3}, BODY, 0, {0}},
                             {"layers.1.blocks.0.mlp.fc.weight", {9, 3}, BODY, 0, {0}},
                             {"head.weight", {9, 3}, BODY, 0, {0}}};
    const double depth[] = {0, 0.25, 0.75, 0.5};
    dz_tensor_role *roles = roles_of(list, 5);
    for (size_t i = 0; i < 4; i++) assert_true(roles[i].depth == depth[i]);
    assert_true(isnan(roles[4].depth));
    free(roles);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_of_a_language_model),
        cmocka_unit_test(test_gpt2_matrices_have_their_inputs_first),
        cmocka_unit_test(test_fused_experts_are_stacks),
        cmocka_unit_test(test_convolutions_are_out_by_all_inputs),
        cmocka_unit_test(test_what_is_not_of_the_body),
        cmocka_unit_test(test_a_model_of_one_block_and_layers_in_words),
        cmocka_unit_test(test_convolutions_between_stages_are_no_embeddings),
        cmocka_unit_test(test_depth_counts_blocks_and_blocks_of_stages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

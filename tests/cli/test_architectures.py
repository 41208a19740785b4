"""The built-in recipes against the tensor names of the models people fine-tune: which recipe is chosen, what it makes lossy, what it leaves exact."""
import json

import numpy as np

from common import SmallZoo, check, equal, good, st_bytes, with_scratch, write

# recipe, lossy names, exact names; of each kind of layer one
MODELS = {
    "llama": ("llama", ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj", "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj"],
              ["model.embed_tokens", "lm_head", "model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"]),
    "qwen3-moe": ("llama", ["model.layers.3.self_attn.v_proj", "model.layers.3.mlp.experts.12.up_proj", "model.layers.3.mlp.shared_expert.down_proj"],
                  ["model.layers.3.mlp.gate", "model.layers.3.mlp.shared_expert_gate", "model.layers.3.self_attn.q_norm", "model.embed_tokens"]),
    "mixtral": ("llama", ["model.layers.0.self_attn.k_proj", "model.layers.0.block_sparse_moe.experts.7.w1", "model.layers.0.block_sparse_moe.experts.7.w3"],
                ["model.layers.0.block_sparse_moe.gate", "lm_head"]),
    "phi-3": ("llama", ["model.layers.0.self_attn.qkv_proj", "model.layers.0.self_attn.o_proj", "model.layers.0.mlp.gate_up_proj", "model.layers.0.mlp.down_proj"],
              ["model.embed_tokens", "model.layers.0.input_layernorm"]),
    "phi-2": ("llama", ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.dense", "model.layers.0.mlp.fc1", "model.layers.0.mlp.fc2"],
              ["model.final_layernorm", "lm_head"]),
    "deepseek-v2": ("llama", ["model.layers.0.self_attn.q_a_proj", "model.layers.0.self_attn.kv_a_proj_with_mqa", "model.layers.0.self_attn.kv_b_proj",
                              "model.layers.1.mlp.experts.3.gate_proj", "model.layers.1.mlp.shared_experts.up_proj"],
                    ["model.layers.0.self_attn.kv_a_layernorm", "model.layers.1.mlp.gate"]),
    "clip": ("llama", ["vision_model.encoder.layers.0.self_attn.q_proj", "vision_model.encoder.layers.0.self_attn.out_proj", "vision_model.encoder.layers.0.mlp.fc1",
                       "text_model.encoder.layers.11.mlp.fc2"],
             ["vision_model.embeddings.patch_embedding", "visual_projection", "text_model.embeddings.token_embedding", "vision_model.encoder.layers.0.layer_norm1"]),
    "opt": ("llama", ["model.decoder.layers.0.self_attn.out_proj", "model.decoder.layers.0.fc1", "model.decoder.layers.0.fc2"],
            ["model.decoder.embed_tokens", "model.decoder.embed_positions", "model.decoder.layers.0.final_layer_norm"]),
    "whisper": ("llama", ["model.encoder.layers.0.self_attn.k_proj", "model.decoder.layers.0.encoder_attn.q_proj", "model.decoder.layers.0.encoder_attn.out_proj",
                          "model.decoder.layers.0.fc1", "model.encoder.layers.0.fc2"],
                ["model.encoder.conv1", "model.decoder.embed_tokens", "model.decoder.layers.0.encoder_attn_layer_norm", "proj_out"]),
    "bert": ("roberta", ["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.0.attention.output.dense", "bert.encoder.layer.0.intermediate.dense"],
             ["bert.embeddings.word_embeddings", "bert.pooler.dense", "bert.encoder.layer.0.attention.output.LayerNorm", "classifier"]),
    "vit-hf": ("hf-vit", ["vit.encoder.layer.0.attention.attention.query", "vit.encoder.layer.0.attention.output.dense", "vit.encoder.layer.0.intermediate.dense"],
               ["vit.embeddings.patch_embeddings.projection", "vit.encoder.layer.0.layernorm_before", "classifier"]),
    "dinov2": ("hf-vit", ["encoder.layer.0.attention.attention.query", "encoder.layer.0.attention.output.dense", "encoder.layer.0.mlp.fc1", "encoder.layer.0.mlp.fc2"],
               ["encoder.layer.0.norm1", "layernorm"]),
    "distilbert": ("distilbert", ["distilbert.transformer.layer.0.attention.q_lin", "distilbert.transformer.layer.0.attention.out_lin", "distilbert.transformer.layer.0.ffn.lin2"],
                   ["distilbert.embeddings.word_embeddings", "distilbert.transformer.layer.0.sa_layer_norm", "pre_classifier"]),
    "t5": ("t5", ["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.1.EncDecAttention.o", "decoder.block.0.layer.2.DenseReluDense.wi_0"],
           ["shared", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "encoder.block.0.layer.0.layer_norm"]),
    "timm": ("timm", ["blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2"], ["patch_embed.proj", "head", "blocks.0.norm1", "blocks.0.attn.q_norm"]),
    "swin": ("timm", ["layers.0.blocks.1.attn.qkv", "layers.0.blocks.1.mlp.fc2"], ["layers.1.downsample.reduction", "layers.0.blocks.1.norm2"]),
    "open-clip": ("vit", ["visual.transformer.resblocks.0.attn.in_proj_weight", "visual.transformer.resblocks.0.attn.out_proj", "transformer.resblocks.0.mlp.c_fc"], ["token_embedding", "visual.transformer.resblocks.0.ln_1"]),
    "gpt2": ("gpt", ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj"], ["wte", "wpe", "h.0.ln_1", "ln_f"]),
    "gpt-j": ("gpt", ["transformer.h.0.attn.q_proj", "transformer.h.0.attn.out_proj", "transformer.h.0.mlp.fc_in", "transformer.h.0.mlp.fc_out"],
              ["transformer.wte", "transformer.h.0.ln_1", "lm_head"]),
    "pythia": ("neox", ["gpt_neox.layers.0.attention.query_key_value", "gpt_neox.layers.0.attention.dense", "gpt_neox.layers.0.mlp.dense_h_to_4h"],
               ["gpt_neox.embed_in", "embed_out", "gpt_neox.layers.0.input_layernorm"]),
    "falcon": ("neox", ["transformer.h.0.self_attention.query_key_value", "transformer.h.0.self_attention.dense", "transformer.h.0.mlp.dense_4h_to_h"],
               ["transformer.word_embeddings", "lm_head", "transformer.h.0.input_layernorm"]),
    "mpt": ("mpt", ["transformer.blocks.0.attn.Wqkv", "transformer.blocks.0.attn.out_proj", "transformer.blocks.0.ffn.up_proj"], ["transformer.wte", "transformer.blocks.0.norm_1"]),
    "sdxl-unet": ("diffusers", ["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
                                "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj", "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2"],
                  ["conv_in", "down_blocks.1.resnets.0.conv1", "down_blocks.1.attentions.0.proj_in", "time_embedding.linear_1"]),
    "flux": ("diffusers", ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_q_proj", "transformer_blocks.0.attn.to_add_out", "transformer_blocks.0.ff_context.net.2",
                           "single_transformer_blocks.0.attn.to_v"],
             ["x_embedder", "transformer_blocks.0.norm1.linear", "proj_out"]),
}
EMBEDDINGS = ("model.embed_tokens", "lm_head", "wte", "transformer.wte", "shared", "embed_out", "gpt_neox.embed_in", "transformer.word_embeddings", "bert.embeddings.word_embeddings",
              "distilbert.embeddings.word_embeddings", "model.decoder.embed_tokens")  # recipe "whole" makes these lossy too


def architecture(name):
    recipe, lossy, exact = MODELS[name]

    def test(folder):
        rng = np.random.default_rng(5)
        zoo = SmallZoo(folder)
        norm = [n for n in exact if "norm" in n.lower() or "ln_" in n]
        full = {n: n if n.endswith("_weight") else n + ".weight" for n in lossy + exact}
        shapes = {full[n]: (16,) if n in norm else (16, 24) for n in full}
        for model in "base", "one":
            zoo.put(model, [(n, "F32", s, rng.standard_normal(int(np.prod(s))).astype(np.float32).tobytes()) for n, s in shapes.items()])
        zoo.manifest("one")
        told = json.loads(good(["plan", "zoo.yaml", "--json"], cwd=folder).out)
        equal(told["recipe"], recipe, "recipe")
        policies = {t["name"]: t["policy"] for t in told["tasks"][0]["tensors"]}
        equal(policies, {full[n]: "ultradelta" if n in lossy else "lossless" for n in full}, "policies")
        whole = json.loads(good(["plan", "zoo.yaml", "--json", "--recipe", "whole"], cwd=folder).out)
        policies = {t["name"]: t["policy"] for t in whole["tasks"][0]["tensors"]}
        known = [n for n in full if n in lossy or n in norm or n in EMBEDDINGS]
        equal([policies[full[n]] for n in known], ["lossless" if n in norm else "ultradelta" for n in known], f"policies of recipe whole for {known}")

    return with_scratch(test)


for name in MODELS:
    globals()["test_names_of_" + name.replace("-", "_").replace(".", "_")] = architecture(name)


@with_scratch
def test_layers_that_a_recipe_leaves_exact_are_told(folder):
    zoo = SmallZoo(folder)
    more = [(f"model.layers.{i}.mixer.in_map.weight", "F32", (64, 64), bytes([i]) * 16384) for i in range(3)]
    zoo.put("base", zoo.base + more)
    zoo.put("one", zoo.tasks["one"] + [(n, d, s, bytes(b[::-1])) for n, d, s, b in more])
    write(f"{folder}/base/model.safetensors", st_bytes(zoo.base + more))
    r = good(["plan", "zoo.yaml"], cwd=folder)
    check(any("recipe 'llama' leaves 3 tensors ('model.layers.0.mixer.in_map.weight', ...) exact" in n for n in r.lines("note")), f"{r}")

"""What is made lossy and what stays exact, without any recipe, in models as libraries lay them out: decided by structure, not by lists of names."""
import json
import re

import numpy as np

from common import SmallZoo, check, equal, good, st_bytes, with_scratch, write

# lossy names, exact names; of each kind of layer one, of each numbered block a second one is made
MODELS = {
    "llama": (["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj", "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj"],
              ["model.embed_tokens", "lm_head", "model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"]),
    "qwen3-moe": (["model.layers.3.self_attn.v_proj", "model.layers.3.mlp.experts.12.up_proj", "model.layers.3.mlp.shared_expert.down_proj"],
                  ["model.layers.3.mlp.gate", "model.layers.3.mlp.shared_expert_gate", "model.layers.3.self_attn.q_norm", "model.embed_tokens"]),
    "mixtral": (["model.layers.0.self_attn.k_proj", "model.layers.0.block_sparse_moe.experts.7.w1", "model.layers.0.block_sparse_moe.experts.7.w3"],
                ["model.layers.0.block_sparse_moe.gate", "lm_head"]),
    "phi-3": (["model.layers.0.self_attn.qkv_proj", "model.layers.0.self_attn.o_proj", "model.layers.0.mlp.gate_up_proj", "model.layers.0.mlp.down_proj"],
              ["model.embed_tokens", "model.layers.0.input_layernorm"]),
    "phi-2": (["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.dense", "model.layers.0.mlp.fc1", "model.layers.0.mlp.fc2"],
              ["model.final_layernorm", "lm_head"]),
    "deepseek-v2": (["model.layers.0.self_attn.q_a_proj", "model.layers.0.self_attn.kv_a_proj_with_mqa", "model.layers.0.self_attn.kv_b_proj",
                              "model.layers.1.mlp.experts.3.gate_proj", "model.layers.1.mlp.shared_experts.up_proj"],
                    ["model.layers.0.self_attn.kv_a_layernorm", "model.layers.1.mlp.gate"]),
    "clip": (["vision_model.encoder.layers.0.self_attn.q_proj", "vision_model.encoder.layers.0.self_attn.out_proj", "vision_model.encoder.layers.0.mlp.fc1",
                       "text_model.encoder.layers.11.mlp.fc2"],
             ["vision_model.embeddings.patch_embedding", "visual_projection", "text_model.embeddings.token_embedding", "vision_model.encoder.layers.0.layer_norm1"]),
    "opt": (["model.decoder.layers.0.self_attn.out_proj", "model.decoder.layers.0.fc1", "model.decoder.layers.0.fc2"],
            ["model.decoder.embed_tokens", "model.decoder.embed_positions", "model.decoder.layers.0.final_layer_norm"]),
    "whisper": (["model.encoder.layers.0.self_attn.k_proj", "model.decoder.layers.0.encoder_attn.q_proj", "model.decoder.layers.0.encoder_attn.out_proj",
                          "model.decoder.layers.0.fc1", "model.encoder.layers.0.fc2"],
                ["model.encoder.conv1", "model.decoder.embed_tokens", "model.decoder.layers.0.encoder_attn_layer_norm", "proj_out"]),
    "bert": (["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.0.attention.output.dense", "bert.encoder.layer.0.intermediate.dense"],
             ["bert.embeddings.word_embeddings", "bert.pooler.dense", "bert.encoder.layer.0.attention.output.LayerNorm", "classifier"]),
    "vit-hf": (["vit.encoder.layer.0.attention.attention.query", "vit.encoder.layer.0.attention.output.dense", "vit.encoder.layer.0.intermediate.dense"],
               ["vit.embeddings.patch_embeddings.projection", "vit.encoder.layer.0.layernorm_before", "classifier"]),
    "dinov2": (["encoder.layer.0.attention.attention.query", "encoder.layer.0.attention.output.dense", "encoder.layer.0.mlp.fc1", "encoder.layer.0.mlp.fc2"],
               ["encoder.layer.0.norm1", "layernorm"]),
    "distilbert": (["distilbert.transformer.layer.0.attention.q_lin", "distilbert.transformer.layer.0.attention.out_lin", "distilbert.transformer.layer.0.ffn.lin2"],
                   ["distilbert.embeddings.word_embeddings", "distilbert.transformer.layer.0.sa_layer_norm", "pre_classifier"]),
    "t5": (["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.1.EncDecAttention.o", "decoder.block.0.layer.2.DenseReluDense.wi_0"],
           ["shared", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "encoder.block.0.layer.0.layer_norm"]),
    "timm": (["blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2"], ["patch_embed.proj", "head", "blocks.0.norm1", "blocks.0.attn.q_norm"]),
    "swin": (["layers.0.blocks.1.attn.qkv", "layers.0.blocks.1.mlp.fc2"], ["patch_embed.proj", "layers.0.blocks.1.norm2", "head"]),
    "open-clip": (["visual.transformer.resblocks.0.attn.in_proj_weight", "visual.transformer.resblocks.0.attn.out_proj", "transformer.resblocks.0.mlp.c_fc"], ["token_embedding", "visual.transformer.resblocks.0.ln_1"]),
    "gpt2": (["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj"], ["wte", "wpe", "h.0.ln_1", "ln_f"]),
    "gpt-j": (["transformer.h.0.attn.q_proj", "transformer.h.0.attn.out_proj", "transformer.h.0.mlp.fc_in", "transformer.h.0.mlp.fc_out"],
              ["transformer.wte", "transformer.h.0.ln_1", "lm_head"]),
    "pythia": (["gpt_neox.layers.0.attention.query_key_value", "gpt_neox.layers.0.attention.dense", "gpt_neox.layers.0.mlp.dense_h_to_4h"],
               ["gpt_neox.embed_in", "embed_out", "gpt_neox.layers.0.input_layernorm"]),
    "falcon": (["transformer.h.0.self_attention.query_key_value", "transformer.h.0.self_attention.dense", "transformer.h.0.mlp.dense_4h_to_h"],
               ["transformer.word_embeddings", "lm_head", "transformer.h.0.input_layernorm"]),
    "mpt": (["transformer.blocks.0.attn.Wqkv", "transformer.blocks.0.attn.out_proj", "transformer.blocks.0.ffn.up_proj"], ["transformer.wte", "transformer.blocks.0.norm_1"]),
    "sdxl-unet": (["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
                                "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj", "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2",
                   "down_blocks.1.resnets.0.conv1", "down_blocks.1.attentions.0.proj_in", "mid_block.resnets.0.conv2", "down_blocks.1.resnets.0.time_emb_proj"],
                  ["conv_in", "conv_out", "time_embedding.linear_1"]),
    "flux": (["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_q_proj", "transformer_blocks.0.attn.to_add_out", "transformer_blocks.0.ff_context.net.2",
                           "single_transformer_blocks.0.attn.to_v", "transformer_blocks.0.norm1.linear"],
             ["x_embedder", "context_embedder", "proj_out"]),
    "sd-single-file": (["model.diffusion_model.input_blocks.1.0.in_layers.2", "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q",
                        "model.diffusion_model.middle_block.0.in_layers.2", "first_stage_model.encoder.down.0.block.0.conv1",
                        "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj", "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1"],
                       ["model.diffusion_model.time_embed.0", "first_stage_model.quant_conv", "cond_stage_model.transformer.text_model.embeddings.token_embedding"]),
    "qwen3-vl": (["model.language_model.layers.0.self_attn.q_proj", "model.language_model.layers.0.mlp.down_proj", "model.visual.blocks.0.attn.qkv",
                  "model.visual.blocks.0.mlp.linear_fc1"], ["model.language_model.embed_tokens", "model.visual.patch_embed.proj", "model.visual.pos_embed", "lm_head",
                                                            "model.visual.merger.linear_fc1"]),
    "jamba": (["model.layers.0.mamba.in_proj", "model.layers.0.mamba.x_proj", "model.layers.0.feed_forward.experts.0.up_proj", "model.layers.0.self_attn.q_proj"],
              ["model.layers.0.feed_forward.router", "model.layers.0.mamba.dt_layernorm", "model.embed_tokens"]),
    "deberta-v2": (["encoder.layer.0.attention.self.query_proj", "encoder.layer.0.attention.self.pos_key_proj", "encoder.layer.0.intermediate.dense"],
                   ["encoder.rel_embeddings", "encoder.LayerNorm", "embeddings.word_embeddings"]),
    "modernbert": (["layers.0.attn.Wqkv", "layers.0.attn.Wo", "layers.0.mlp.Wi", "layers.0.mlp.Wo"], ["embeddings.tok_embeddings", "layers.0.attn_norm", "head.dense"]),
    "wav2vec2": (["encoder.layers.0.attention.q_proj", "encoder.layers.0.feed_forward.intermediate_dense", "feature_extractor.conv_layers.1.conv"],
                 ["encoder.pos_conv_embed.conv", "feature_projection.projection", "masked_spec_embed"]),
    "resnet-hf": (["encoder.stages.0.layers.0.layer.0.convolution", "encoder.stages.0.layers.0.shortcut.convolution"], ["embedder.embedder.convolution", "classifier.1"]),
    "segformer": (["encoder.block.0.0.attention.self.query", "encoder.block.0.0.mlp.dense1"], ["encoder.patch_embeddings.0.proj", "decode_head.classifier"]),
    "mamba": (["layers.0.mixer.in_proj", "layers.0.mixer.x_proj", "layers.0.mixer.out_proj"], ["embeddings", "norm_f"]),
    "flux-original": (["double_blocks.0.img_attn.qkv", "double_blocks.0.img_mod.lin", "single_blocks.0.linear1"], ["img_in", "time_in.in_layer", "final_layer.linear"]),
}
EMBEDDINGS = ("model.embed_tokens", "lm_head", "wte", "transformer.wte", "shared", "embed_out", "gpt_neox.embed_in", "transformer.word_embeddings", "bert.embeddings.word_embeddings",
              "distilbert.embeddings.word_embeddings", "model.decoder.embed_tokens")  # recipe "whole" makes these lossy too


def another_block(name):
    """The same tensor of the next block."""
    return re.sub(r"(?<=\.)\d+(?=\.)", lambda n: str(int(n[0]) + 1), name, count=1)


def architecture(name):
    lossy, exact = MODELS[name]

    def test(folder):
        rng = np.random.default_rng(5)
        zoo = SmallZoo(folder)
        full = {n: n if n.endswith("_weight") else n + ".weight" for n in lossy + exact}
        shapes = {}
        for n in lossy + exact:
            norm = "norm" in n.lower() or "ln_" in n
            for one in full[n], another_block(full[n]):
                if not (n in ("mid_block.resnets.0.conv2", "classifier.1") and one != full[n]):
                    shapes[one] = (16,) if norm and "linear" not in n else (16, 24, 3, 3) if "conv" in n else (16, 24)
        for model in "base", "one":
            zoo.put(model, [(n, "F32", s, rng.standard_normal(int(np.prod(s))).astype(np.float32).tobytes()) for n, s in shapes.items()])
        zoo.manifest("one")
        reported = json.loads(good(["plan", "zoo.yaml", "--json"], cwd=folder).out)
        equal(reported["recipe"], "structure", "recipe")
        wanted = {full[n] for n in lossy} | {another_block(full[n]) for n in lossy}
        policies = {t["name"]: t["policy"] for t in reported["tasks"][0]["tensors"]}
        equal(policies, {n: "ultradelta" if n in wanted else "lossless" for n in shapes}, "policies")
        whole = json.loads(good(["plan", "zoo.yaml", "--json", "--recipe", "whole"], cwd=folder).out)
        policies = {t["name"]: t["policy"] for t in whole["tasks"][0]["tensors"]}
        known = [n for n in full if n in lossy or n in EMBEDDINGS]
        equal([policies[full[n]] for n in known], ["ultradelta"] * len(known), f"policies of recipe whole for {known}")

    return with_scratch(test)


for name in MODELS:
    globals()["test_names_of_" + name.replace("-", "_").replace(".", "_")] = architecture(name)


def plan_of(folder, tensors, *more):
    """What `plan` says of a model that is base and task."""
    zoo = SmallZoo(folder)
    for model in "base", "one":
        zoo.put(model, [(n, "F32", s, bytes(4 * int(np.prod(s)))) for n, s in tensors.items()])
    zoo.manifest("one")
    r = good(["plan", "zoo.yaml", "--json", *more], cwd=folder)
    return {t["name"]: t for t in json.loads(r.out)["tasks"][0]["tensors"]}, r


@with_scratch
def test_what_stays_exact_and_is_much_is_named_once(folder):
    tensors = {f"model.layers.{i}.self_attn.q_proj.weight": (64, 64) for i in range(4)}
    _, r = plan_of(folder, dict(tensors, **{"model.embed_tokens.weight": (640, 64), "projector.weight": (64, 64), "model.norm.weight": (64,)}))
    equal([n for n in r.lines("note") if "kept exactly" in n],
          ["kept exactly, of all bytes: matrices outside of repeated blocks 6.66 % ('projector.weight'), embeddings 66.6 % ('model.embed_tokens.weight')"], "notes")


@with_scratch
def test_an_unknown_model_is_kept_exactly_with_one_note(folder):
    planned, r = plan_of(folder, {"first.weight": (64, 32), "second.weight": (16, 64), "third.weight": (16,)})
    equal({t["policy"] for t in planned.values()}, {"lossless"}, "policies")
    equal(len([n for n in r.lines("note") if "no repeated blocks" in n]), 1, f"notes of {r}")
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)


@with_scratch
def test_stacks_and_transposed_matrices_have_their_shape(folder):
    moe = "model.layers.{}.mlp."
    tensors = {}
    for i in range(2):
        tensors.update({moe.format(i) + n: s for n, s in {"router.weight": (4, 40), "experts.gate_up_proj": (4, 40, 48), "experts.down_proj": (4, 24, 40)}.items()})
        tensors.update({f"h.{i}.attn.c_attn.weight": (8, 24), f"h.{i}.attn.c_attn.bias": (24,), f"h.{i}.attn.c_proj.weight": (8, 8),
                        f"layer1.{i}.conv1.weight": (32, 16, 3, 3), f"model.layers.{i}.input_layernorm.weight": (40,)})
    planned, _ = plan_of(folder, tensors)
    seen = {n: (t["matrices"], t["inputs_first"], t["kind"]) for n, t in planned.items() if "matrices" in t and ".0." in n}
    equal(seen, {moe.format(0) + "experts.gate_up_proj": ([4, 40, 48], True, "mlp-other"), moe.format(0) + "experts.down_proj": ([4, 24, 40], True, "down"),
                 "h.0.attn.c_attn.weight": ([1, 8, 24], True, "attention-other"), "h.0.attn.c_proj.weight": ([1, 8, 8], True, "o"),
                 "layer1.0.conv1.weight": ([1, 32, 144], False, "conv")}, "matrices")


@with_scratch
def test_depthwise_kernels_stay_exact(folder):
    tensors = {f"stages.{s}.blocks.{b}.{n}": shape for s in range(2) for b in range(2) for n, shape in
               {"conv_dw.weight": (32, 1, 7, 7), "mlp.fc1.weight": (128, 32), "mlp.fc2.weight": (32, 128)}.items()}
    planned, _ = plan_of(folder, tensors)
    equal({n for n, t in planned.items() if t["policy"] == "lossless"}, {n for n in tensors if "conv_dw" in n}, "exact tensors")

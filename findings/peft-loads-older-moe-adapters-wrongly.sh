#!/usr/bin/env bash
# peft 0.21.2 with transformers 5.24.0; the adapters made by peft 0.18.1 with transformers 4.57.6; torch 2.13.0.
#
# One would believe: a LoRA adapter trained with transformers 4 loads in transformers 5. There the experts of a layer are one tensor instead of
# one module each, and peft converts adapters for that: loaded, the model answers as it did when it was trained.
#
# Seen: it does if every target is an expert and the adapter is plain LoRA (OLMoE, Qwen3-MoE). Two kinds go wrong without an error, and
# without a warning that the right ones do not have as well.
# - "gate_proj", "up_proj" and "down_proj" are also names in shared experts and in dense layers. There the trained tensors are dropped (DeepSeek-V3,
#   GLM-4-MoE, Qwen3-MoE with a dense layer). For Qwen2-MoE it is the other way round: the shared experts load, all others are dropped.
# - Gate and up become one tensor of twice the rank, and peft doubles lora_alpha to keep alpha/rank. With use_rslora the scale is
#   alpha/sqrt(rank), so for every expert of every model the delta of gate and up is 1.41 times what was trained, that of down is right.
# A model that was merged with its adapter in transformers 4 loads rightly: merge there.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip() { "$dir/venv/bin/python" -m pip install -q --disable-pip-version-check "$@"; }
pip torch==2.13.0 transformers==5.24.0 peft==0.21.2 safetensors==0.8.0 numpy==2.4.6 requests==2.34.2
pip --no-deps --target "$dir/older" transformers==4.57.6 peft==0.18.1 huggingface_hub==0.36.0 tokenizers==0.22.1
cd "$dir"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cat >train.py <<'PY'
import peft
import torch
import transformers as t

small = dict(hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=2, vocab_size=64, num_hidden_layers=2, num_experts_per_tok=2)
shared = dict(moe_intermediate_size=16, n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=1, n_group=1, topk_group=1)
configs = {
    "OLMoE": t.OlmoeConfig(**small, num_experts=4, eos_token_id=1),
    "Qwen3-MoE": t.Qwen3MoeConfig(**small, moe_intermediate_size=16, num_experts=4, head_dim=16),
    "Qwen3-MoE, a dense layer": t.Qwen3MoeConfig(**small, moe_intermediate_size=16, num_experts=4, head_dim=16, mlp_only_layers=[0]),
    "Qwen2-MoE": t.Qwen2MoeConfig(**small, moe_intermediate_size=16, num_experts=4, shared_expert_intermediate_size=24),
    "DeepSeek-V3": t.DeepseekV3Config(**small, **shared, q_lora_rank=None, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8),
    "GLM-4-MoE": t.Glm4MoeConfig(**small, **shared, head_dim=16),
}
configs["Qwen3-MoE, rsLoRA"] = configs["Qwen3-MoE"]
for name, config in configs.items():
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(f"{name}/base")
    targets = ["gate_proj", "up_proj", "down_proj"]
    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_rslora=name.endswith("rsLoRA"), task_type="CAUSAL_LM")
    tuned = peft.get_peft_model(model, lora).eval()
    with torch.no_grad():
        for key, tensor in tuned.named_parameters():
            if "lora_B" in key:
                tensor.normal_(0, 0.3)
        torch.save(tuned(torch.arange(64)[None]).logits, f"{name}/answer.pt")
    tuned.save_pretrained(f"{name}/adapter")
    tuned.merge_and_unload().save_pretrained(f"{name}/merged")
PY
cat >load.py <<'PY'
import glob
import warnings

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
x = torch.arange(64)[None]


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def numbers(tensors):
    return {float(v) for key, tensor in tensors if "lora_B" in key for v in tensor.flatten()}


seen, said = {}, {}
for name in sorted(path.split("/")[0] for path in glob.glob("*/base")):
    answer = torch.load(f"{name}/answer.pt")
    base, merged, model = load(f"{name}/base"), load(f"{name}/merged"), load(f"{name}/base")
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(model, f"{name}/adapter").eval()
        moved, off, off_merged = ((m(x).logits - answer).abs().max().item() for m in (base, model, merged))
    said[name] = sorted({str(w.message).split(":")[0] for w in caught if not issubclass(w.category, DeprecationWarning) and "deprecated" not in str(w.message)})
    trained = numbers(load_file(f"{name}/adapter/adapter_model.safetensors").items())
    lost = len(trained - numbers(model.named_parameters())) / len(trained)
    seen[name] = off, lost
    print(f"{name}: {lost:.0%} of the trained numbers are dropped; the adapter moved the logits by {moved:.2f}, loaded they are off by {off:.1g} "
          f"(merged before: {off_merged:.1g}); warnings: {len(said[name])}")
    assert off_merged < 1e-4 < 0.1 < moved
    if name.endswith("rsLoRA"):
        with torch.no_grad():
            own, base, merged = (m.state_dict() for m in (model.merge_and_unload(), base, merged))
        experts = "model.layers.0.mlp.experts."
        scale = {key: ((own[experts + key] - base[experts + key]).norm() / (merged[experts + key] - base[experts + key]).norm()).item()
                 for key in ("gate_up_proj", "down_proj")}
        print("    size of its delta against the one that was trained:", ", ".join(f"{key} {value:.3f}" for key, value in scale.items()))
        assert abs(scale["gate_up_proj"] - 2**0.5) < 1e-3 and abs(scale["down_proj"] - 1) < 1e-3

assert {name for name, (off, lost) in seen.items() if off < 1e-4 and lost == 0} == {"OLMoE", "Qwen3-MoE"}, seen
dropped = {name for name, (off, lost) in seen.items() if off > 0.1 and lost > 0.25}
assert dropped == {"DeepSeek-V3", "GLM-4-MoE", "Qwen2-MoE", "Qwen3-MoE, a dense layer"}, seen
assert seen["Qwen3-MoE, rsLoRA"][0] > 0.1 and seen["Qwen3-MoE, rsLoRA"][1] == 0, seen
assert said["Qwen2-MoE"] == [] and all(what in ([], said["Qwen3-MoE"]) for what in said.values()), said
PY
PYTHONPATH="$dir/older" "$dir/venv/bin/python" -W ignore train.py
"$dir/venv/bin/python" load.py

#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0.
#
# One would believe: from_pretrained takes None as the name when config and state_dict are given, as its documentation says, whichever class
# it is called on; the Auto classes only choose the model's class by the config.
#
# Seen: the model's own class does so, and its weights are those of the state dict. The Auto class for the same config looks at the name
# before it chooses, and fails with a TypeError about a path, which names neither argument. So code that is to work for any architecture
# must look the class up itself, through the mapping of the Auto class.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 numpy
cd "$dir"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$dir/venv/bin/python" -W ignore - <<'PY'
import torch
import transformers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
config = transformers.LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=16)
source = transformers.LlamaForCausalLM(config)
state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
key = "model.layers.0.mlp.up_proj.weight"

def try_with(cls):
    try:
        model = cls.from_pretrained(None, config=config, state_dict=dict(state))
        return "same weights" if torch.equal(model.state_dict()[key], state[key]) else "other weights"
    except (TypeError, ValueError, OSError) as e:
        return f"{type(e).__name__}: {e}"

mapped = transformers.AutoModelForCausalLM._model_mapping[type(config)]
seen = {"LlamaForCausalLM": try_with(transformers.LlamaForCausalLM), "AutoModelForCausalLM": try_with(transformers.AutoModelForCausalLM),
        "class from the Auto class's mapping": try_with(mapped)}
for who, what in seen.items():
    print(f"{who}: {what}")
assert seen["LlamaForCausalLM"] == seen["class from the Auto class's mapping"] == "same weights"
assert seen["AutoModelForCausalLM"].startswith("TypeError") and "state_dict" not in seen["AutoModelForCausalLM"]
PY

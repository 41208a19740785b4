#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.13.0, and transformers 5.24.0.
#
# One would believe: a tensor that save_file accepts can be read in every way the library offers, and its shape in the file is its shape in
# torch. torch's float4_e2m1fn_x2, which packs two numbers in a byte, is among the dtypes that save_file and load_file know.
#
# Seen: the header counts numbers, torch counts bytes: (4, 8) in torch is [4, 16] of F4 in the file. load_file halves the last dimension
# again. get_slice does not: any slice, even all of the tensor, raises a RuntimeError about the shape that names no tensor. transformers
# reads every weight through get_slice, so from_pretrained raises the same error for a model with one float4 weight.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 numpy
cd "$dir"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$dir/venv/bin/python" - <<'PY'
import json
import struct

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

packed = torch.arange(32, dtype=torch.uint8).view(4, 8).view(torch.float4_e2m1fn_x2)
save_file({"w": packed}, "w.safetensors")
with open("w.safetensors", "rb") as f:
    header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
loaded = load_file("w.safetensors")["w"]
same = bool(torch.equal(loaded.view(torch.uint8), packed.view(torch.uint8)))
print("torch", tuple(packed.shape), "file", header["w"]["dtype"], header["w"]["shape"], "load_file", tuple(loaded.shape), "same bytes" if same else "other bytes")

slices = {}
with safe_open("w.safetensors", "pt") as f:
    whole = tuple(f.get_tensor("w").shape)
    view = f.get_slice("w")
    for name, index in {"[:]": slice(None), "[1:3]": slice(1, 3)}.items():
        try:
            slices[name] = str(tuple(view[index].shape))
        except RuntimeError as e:
            slices[name] = f"RuntimeError: {e}"
print("get_tensor", whole, "get_shape", view.get_shape())
for name, what in slices.items():
    print(f"get_slice{name}: {what}")

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
config = transformers.LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=32)
transformers.LlamaForCausalLM(config).save_pretrained("model")
name = "model.layers.0.mlp.up_proj.weight"
weights = load_file("model/model.safetensors")
weights[name] = torch.zeros(64, 32, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
save_file(weights, "model/model.safetensors", metadata={"format": "pt"})
try:
    transformers.LlamaForCausalLM.from_pretrained("model")
    client = "loads"
except RuntimeError as e:
    client = f"RuntimeError: {e}"
print("from_pretrained:", client)

assert header["w"] == {"dtype": "F4", "shape": [4, 16], "data_offsets": [0, 32]} and same and whole == (4, 8)
assert all("is invalid for input of size" in what for what in slices.values()), slices
assert "is invalid for input of size" in client and name not in client, client
PY

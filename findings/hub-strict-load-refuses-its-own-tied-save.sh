#!/usr/bin/env bash
# huggingface_hub 2.4.0 with torch 2.13.0 and safetensors 0.8.0.
#
# One would believe: what save_torch_model writes, load_torch_model(strict=True) loads into a model of the same class: the two are a
# pair, and safetensors' own pair, save_model and load_model, works so.
#
# Seen: of tensors that share memory save_torch_model writes one, and notes in the file's metadata which name stands for which. load_torch_model
# does not read that note. With strict=True a model with tied weights raises "Missing key(s)", for the file that was made of it a line before.
# safetensors' load_model loads the same file strictly. The other way round, a file of safetensors' save_model is refused by
# load_torch_model, for want of a "format" in its metadata. Without strict the weight that is missing is only in what is returned; a model that
# does not tie it itself keeps its random one there.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -q --disable-pip-version-check torch==2.13.0 huggingface_hub==2.4.0 safetensors==0.8.0 numpy==2.4.6
cd "$dir"
HF_HUB_OFFLINE=1 "$dir/venv/bin/python" - <<'PY'
import os

import torch
from huggingface_hub import load_torch_model, save_torch_model
from safetensors import safe_open
from safetensors.torch import load_model, save_model


class Model(torch.nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.embed = torch.nn.Embedding(50, 8)
        self.head = torch.nn.Linear(8, 50, bias=False)
        if tied:
            self.head.weight = self.embed.weight


def attempt(load):
    try:
        return str(load())
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:140]}"


torch.manual_seed(0)
model = Model()
os.mkdir("hub")
save_torch_model(model, "hub")
with safe_open("hub/model.safetensors", "pt") as file:
    print("in the file:", list(file.keys()), file.metadata())
    assert file.metadata()["head.weight"] == "embed.weight"

strict = attempt(lambda: load_torch_model(Model(), "hub", strict=True))
print("load_torch_model, strict, the same class:", strict)
assert "Missing key" in strict and "head.weight" in strict
print("safetensors' load_model, strict, the same file:", attempt(lambda: load_model(Model(), "hub/model.safetensors", strict=True)))

loose = Model(tied=False)
print("load_torch_model, not strict, a model that does not tie:", attempt(lambda: load_torch_model(loose, "hub")))
right = torch.equal(loose.head.weight, model.head.weight)
print("its head is what was saved:", right)
assert not right and torch.equal(loose.embed.weight, model.embed.weight)

save_model(model, "own.safetensors")
refused = attempt(lambda: load_torch_model(Model(), "own.safetensors"))
print("load_torch_model on save_model's file:", refused)
assert refused.startswith("OSError")
PY

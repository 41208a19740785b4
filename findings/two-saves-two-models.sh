#!/usr/bin/env bash
# transformers 5.24.0 and diffusers 0.42.1, with safetensors 0.8.0 and torch 2.13.0.
#
# One would believe: a folder that has both `model.safetensors` and an index with its shards means the same model to every library of the
# family, since both layouts come from the same saving code.
#
# Seen: a model is saved whole and later saved again in shards, or the other way round, into one folder. The earlier save stays beside the
# later one, in whole or in part. transformers loads the single file first, diffusers its index first. So the same history of saves gives
# the older weights in one library and the newer ones in the other, without a warning; and diffusers, saved in shards and then whole, removes
# the shards but not their index, and raises when it loads the folder.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.24.0 diffusers==0.42.1 safetensors==0.8.0 numpy
cd "$dir"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$dir/venv/bin/python" - <<'PY'
import os, warnings
warnings.filterwarnings("ignore")
import torch
import diffusers
import transformers

def value(model):
    return float(next(p for p in model.parameters()).flatten()[0])

def fill(model, x):
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(x)
    return model

def bert():
    return transformers.BertModel(transformers.BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=64))

def unet():
    return diffusers.UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(32, 32), layers_per_block=1, norm_num_groups=8,
                                 down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"))

def load(kind, folder):
    return transformers.BertModel.from_pretrained(folder) if kind == "transformers" else diffusers.UNet2DModel.from_pretrained(folder)

seen = {}
for kind, make in (("transformers", bert), ("diffusers", unet)):
    for order in ("whole, then shards", "shards, then whole"):
        folder = f"{kind}-{order.split(',')[0]}"
        sizes = ["50GB", "40KB"] if order.startswith("whole") else ["40KB", "50GB"]
        for x, size in zip((1.0, 2.0), sizes):
            fill(make(), x).save_pretrained(folder, max_shard_size=size)
        files = sorted(f for f in os.listdir(folder) if "safetensors" in f)
        single = any(f.endswith("model.safetensors") for f in files)
        index = any(f.endswith(".index.json") for f in files)
        try:
            what = "the newer weights" if value(load(kind, folder)) == 2.0 else "the older weights"
        except OSError as e:
            what = f"nothing, {type(e).__name__}"
        seen[kind, order] = (single, index, what)
        print(f"{kind}: {order}: single file {'there' if single else 'gone'}, index {'there' if index else 'gone'}: loads {what}")
want = {("transformers", "whole, then shards"): (True, True, "the older weights"), ("transformers", "shards, then whole"): (True, True, "the newer weights"),
        ("diffusers", "whole, then shards"): (True, True, "the newer weights"), ("diffusers", "shards, then whole"): (True, True, "nothing, FileNotFoundError")}
raise SystemExit(0 if seen == want else f"changed: {seen}")
PY

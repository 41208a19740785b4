#!/usr/bin/env bash
# peft 0.21.2 with torch 2.13.0.
#
# One would believe: merge_and_unload leaves a plain model that answers as the adapted one did, whichever adapters are active. For several at
# once, most methods of peft do so.
#
# Seen: for two OFT adapters it leaves another model. Each adapter is a rotation, and rotations do not commute. Unmerged, the input goes through
# the first adapter's rotation first; merging multiplies the weight by the first, then by the second, which is the input through the second first.
# The outputs differ by about as much as the adapters change them. No order is documented, nothing warns, and each adapter alone merges
# rightly, so that a test with one shows nothing. BOFT and HRA, which rotate too, merge two as they run them. Named in reverse,
# merge_and_unload(adapter_names=["second", "first"]), OFT is right.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -q --disable-pip-version-check torch==2.13.0 transformers==5.24.0 peft==0.21.2 numpy==2.4.6
cd "$dir"
HF_HUB_OFFLINE=1 "$dir/venv/bin/python" -W ignore - <<'PY'
import copy

import torch
from peft import BOFTConfig, HRAConfig, LoraConfig, OFTConfig, get_peft_model

x = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))


def adapted(config):
    torch.manual_seed(0)
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16)), config, adapter_name="first")
    model.add_adapter("second", config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".first" in name or ".second" in name:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model.eval()


@torch.no_grad()
def apart(config, active, order=None):
    model = adapted(config)
    with model.disable_adapter():
        base = model(x)
    model.base_model.set_adapter(active)
    answer = model(x)
    merged = copy.deepcopy(model).merge_and_unload(adapter_names=order)(x)
    return (answer - base).norm().item(), (merged - answer).norm().item()


seen = {}
layers = dict(target_modules=["0", "2"])
for name, config in {"LoRA": LoraConfig(r=4, **layers), "BOFT": BOFTConfig(boft_block_size=4, **layers), "HRA": HRAConfig(r=4, **layers), "OFT": OFTConfig(oft_block_size=16, **layers)}.items():
    both = ["first", "second"]
    for what, active, order in (("first alone", "first", None), ("both", both, None), ("both, named in reverse", both, both[::-1])):
        change, seen[name, what] = apart(config, active, order)
        print(f"{name}, {what}: the adapters change the output by {change:.2f}, merging by another {seen[name, what]:.2g}")

assert all(seen[name, "first alone"] < 1e-3 for name in ("LoRA", "BOFT", "HRA", "OFT"))
assert all(seen[name, "both"] < 1e-3 for name in ("LoRA", "BOFT", "HRA"))
assert seen["OFT", "both"] > 1 and seen["OFT", "both, named in reverse"] < 1e-3
PY

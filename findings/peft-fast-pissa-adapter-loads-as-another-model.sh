#!/usr/bin/env bash
# peft 0.21.2 with torch 2.13.0.
#
# One would believe: a trained adapter that save_pretrained wrote gives, loaded on the same base, the model that was trained. PiSSA takes the
# largest singular values out of the base and starts the adapter with them; "pissa_niter_16" does so by a fast SVD, which the documentation
# says is about as good.
#
# Seen: what was taken out of the base is not saved, but taken out once more at loading, and the fast SVD is a random one. With another state
# of the random number generator than in training, it takes out another part, while the trained adapter holds the first. The loaded model is
# off by as much as training changed it, or more; each load gives another model; no error, no warning. A script that seeds before both
# steps sees nothing. init_lora_weights="pissa", the exact SVD, loads rightly. For a fast one, keep a copy of the adapter from before training and save
# with path_initial_model_for_weight_conversion: that file is plain LoRA, and loads rightly.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -q --disable-pip-version-check torch==2.13.0 transformers==5.24.0 peft==0.21.2 numpy==2.4.6
cd "$dir"
HF_HUB_OFFLINE=1 "$dir/venv/bin/python" -W ignore - <<'PY'
import torch
from peft import LoraConfig, PeftModel, get_peft_model

x = torch.randn(16, 512, generator=torch.Generator().manual_seed(1))


def base():
    """Two layers whose singular values fall as 1/sqrt(k)."""
    random = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            u, _, v = torch.linalg.svd(torch.randn(512, 512, generator=random))
            layer.weight.copy_(u @ torch.diag(torch.arange(1, 513) ** -0.5) @ v)
            layer.bias.zero_()
    return model.eval()


@torch.no_grad()
def load(folder, seed):
    model = base()
    torch.manual_seed(seed)
    return PeftModel.from_pretrained(model, folder).eval()(x)


@torch.no_grad()
def run(init):
    model = base()
    torch.manual_seed(2)
    model = get_peft_model(model, LoraConfig(r=16, target_modules=["0", "2"], init_lora_weights=init)).eval()
    model.save_pretrained(f"{init}-before")
    before = model(x)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.add_(torch.randn_like(parameter) * 0.003)
    trained = model(x)
    model.save_pretrained(init)
    model.save_pretrained(f"{init}-converted", path_initial_model_for_weight_conversion=f"{init}-before")
    apart = {"training changed the output": (before, trained), "loaded, off": (load(init, 3), trained), "two loads apart": (load(init, 3), load(init, 4)),
             "loaded with the seed of training, off": (load(init, 2), trained), "converted, off": (load(f"{init}-converted", 3), trained)}
    seen = {what: ((a - b).norm() / before.norm()).item() for what, (a, b) in apart.items()}
    print(f"{init}:", ", ".join(f"{what} {value:.1%}" for what, value in seen.items()))
    return seen.values()


exact, fast, faster = (list(run(init)) for init in ("pissa", "pissa_niter_16", "pissa_niter_4"))
assert max(exact[1:]) < 1e-4
for change, off, apart, seeded, converted in (fast, faster):
    assert off > change and apart > change and seeded < 1e-4 and converted < 1e-4
PY

#!/usr/bin/env python3
"""Held-out loss of one model.

usage: evaluate.py OUT FAMILY/TASK MODEL_DIR      prints "FAMILY/TASK: share S +- E, loss L"; OUT as zoo.py

Share: part of the fine-tuning gain that the model keeps; 1 is the fine-tuned model, 0 the base (with the fine-tuned head, where there is one)."""
import functools
import hashlib
import json
import os
import sys

import networks
import numpy as np
import settings
import torch


def conditions(family, task):
    """What else than the model a loss depends on, for names of files that keep losses."""
    return f"{settings.EVAL_TOKENS if family == 'lm' else settings.ENCODER_EVAL}" + ("" if networks.in_bf16(task) else ".float32")


@functools.lru_cache(1)
def empty_model(family, task, out):
    model = networks.build(family, out, settings.ENCODER_CLASSES if task == "package" else 0).eval()
    if family == "lm" and networks.in_bf16(task):  # bf16 files: nothing is lost
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module is not model.lm_head:
                module.to(torch.bfloat16)
    return model


def losses_of(out, family, task, state):
    """Held-out loss of each batch of a model given as a state dict; a base takes the fine-tuned model's head."""
    model = empty_model(family, task, out)
    if family == "encoder" and task == "package" and "head.weight" not in state:
        tuned = networks.load(os.path.join(out, family, task))
        state = {**state, **{n: t for n, t in tuned.items() if n.startswith("head.")}}
    networks.put(model, state)
    return networks.losses(family, model, out, task)


def reference(out, family, task):
    """(losses of the base, of the fine-tuned model), kept in a file."""
    cache = os.path.join(out, family, f"{task}.losses.{conditions(family, task)}.npz")
    if not os.path.exists(cache):
        before, after = (losses_of(out, family, task, networks.load(os.path.join(out, family, who))) for who in ("base", task))
        np.savez(cache + ".new.npz", base=before, tuned=after)
        os.rename(cache + ".new.npz", cache)
    data = np.load(cache)
    return data["base"], data["tuned"]


def gain(out, family, task):
    """What fine-tuning gained, its standard error from the held-out text, and both losses."""
    base, tuned = reference(out, family, task)
    return {"base": base.mean(), "tuned": tuned.mean(), "gain": (base - tuned).mean(), "gain_error": (base - tuned).std(ddof=1) / len(tuned) ** 0.5}


def share_of(out, family, task, values):
    """(share, its standard error from the held-out text alone: batches are paired)."""
    base, tuned = reference(out, family, task)
    gain = (base - tuned).mean()
    left = (values - tuned) / gain
    return 1 - left.mean(), left.std(ddof=1) / len(left) ** 0.5


def digest(state):
    """Of a model's values, whatever file they come from."""
    total = hashlib.sha256()
    for name in sorted(state):
        total.update(f"{name} {state[name].dtype} {tuple(state[name].shape)}\n".encode())
        total.update(state[name].contiguous().numpy().reshape(-1))
    return total.hexdigest()[:24]


def measure(out, family, task, state):
    """Share, its error and the loss of a state dict. A model that was measured before is not measured again: OUT/measured/ has them by content."""
    path = os.path.join(out, "measured", f"{family}.{task}.{conditions(family, task)}.{digest(state)}.json")
    if os.path.exists(path):
        return json.load(open(path))
    values = losses_of(out, family, task, state)
    share, error = share_of(out, family, task, values)
    row = {"share": share, "error": error, "loss": float(values.mean())}
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.{os.getpid()}"
    json.dump(row, open(new, "w"))
    os.rename(new, path)
    return row


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    out, (family, task) = os.path.abspath(sys.argv[1]), sys.argv[2].split("/")
    row = measure(out, family, task, networks.load(sys.argv[3]))
    print(f"{family}/{task}: share {row['share']:.3f} +- {row['error']:.3f}, loss {row['loss']:.5f}")


if __name__ == "__main__":
    main()

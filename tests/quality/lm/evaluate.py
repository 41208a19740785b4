#!/usr/bin/env python3
"""Held-out loss of one model.

usage: evaluate.py OUT FAMILY/TASK MODEL_DIR      prints "FAMILY/TASK: loss L, share S"; OUT as zoo.py

Share: part of the fine-tuning gain that the model keeps; 1 is the fine-tuned model, 0 the base (with the fine-tuned head, where there is one)."""
import functools
import os
import sys

import networks
import numpy as np
import settings
import torch


@functools.lru_cache(1)
def empty_model(family, task, out):
    model = networks.build(family, out, settings.ENCODER_CLASSES if task == "package" else 0).eval()
    if family == "lm":  # bf16 files: nothing is lost
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
    cache = os.path.join(out, family, f"{task}.losses.{settings.EVAL_TOKENS if family == 'lm' else settings.ENCODER_EVAL}.npz")
    if not os.path.exists(cache):
        before, after = (losses_of(out, family, task, networks.load(os.path.join(out, family, who))) for who in ("base", task))
        np.savez(cache + ".new.npz", base=before, tuned=after)
        os.rename(cache + ".new.npz", cache)
    data = np.load(cache)
    return data["base"], data["tuned"]


def share_of(out, family, task, values):
    """(share, its standard error from the held-out text alone: batches are paired)."""
    base, tuned = reference(out, family, task)
    gain = (base - tuned).mean()
    left = (values - tuned) / gain
    return 1 - left.mean(), left.std(ddof=1) / len(left) ** 0.5


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    out, (family, task) = os.path.abspath(sys.argv[1]), sys.argv[2].split("/")
    values = losses_of(out, family, task, networks.load(sys.argv[3]))
    share, error = share_of(out, family, task, values)
    print(f"{family}/{task}: loss {values.mean():.4f}, share {share:.3f} +- {error:.3f}")


if __name__ == "__main__":
    main()

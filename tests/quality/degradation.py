#!/usr/bin/python3
"""Checks that a trained zoo can tell methods apart: accuracy against sparsity for the simplest lossy coding.

usage: degradation.py DIR FAMILY [SEEDS]      validation split; DIR as train.py --out

Coding: 4-bit min-max quantised delta, each element kept with probability 1-s and scaled by 1/(1-s), in the linear
layers of the blocks; everything else is taken exactly from the fine-tuned model. Independent of the program under test."""
import os
import sys

import common
import torch
from evaluate import accuracy, accuracy_of

SPARSITIES = (0.0, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
BITS = 4


def is_lossy(name, tensor):
    return tensor.dim() == 2 and ("blocks." in name or "layers." in name)


def quantise(delta):
    low, high = delta.min(), delta.max()
    step = (high - low) / (2 ** BITS - 1)
    return low + torch.round((delta - low) / step) * step


def restore(base, tuned, sparsity, rng):
    out = dict(tuned)
    for name, tensor in tuned.items():
        if is_lossy(name, tensor):
            kept = torch.from_numpy(rng.random(tensor.shape) >= sparsity)
            out[name] = base[name] + quantise(tensor - base[name]) * kept / (1 - sparsity)
    return out


def relative_delta(base, tuned):
    """Norm of the lossy deltas against the norm of the base's weights."""
    names = [name for name, tensor in tuned.items() if is_lossy(name, tensor)]
    return (sum((tuned[n] - base[n]).square().sum() for n in names) / sum(base[n].square().sum() for n in names)).sqrt()


def main():
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    root, family = os.path.join(sys.argv[1], sys.argv[2]), sys.argv[2]
    seeds = range(int(sys.argv[3]) if len(sys.argv) == 4 else 1)
    tasks = common.family_module(family).TASKS
    base = common.read_safetensors(os.path.join(root, "base"))
    rows = []
    print(f"{family:<12}{'|D|/|W|':>9}{'base':>7}{'tuned':>7}" + "".join(f"{s:7.3f}" for s in SPARSITIES))
    for task in tasks:
        path = os.path.join(root, task)
        tuned = common.read_safetensors(path)
        row = [100 * relative_delta(base, tuned), *(accuracy(family, os.path.join(root, who), task) for who in ("base", task))]
        for s in SPARSITIES:
            runs = [accuracy_of(family, restore(base, tuned, s, common.rng_for(seed, family, task, s)), task) for seed in seeds]
            row.append(sum(runs) / len(runs))
        rows.append(row)
        print(f"{task:<12}{row[0]:8.2f}%" + "".join(f"{v:7.1f}" for v in row[1:]), flush=True)
    mean = [sum(column) / len(rows) for column in zip(*rows)]
    print(f"{'mean':<12}{mean[0]:8.2f}%" + "".join(f"{v:7.1f}" for v in mean[1:]))


if __name__ == "__main__":
    main()

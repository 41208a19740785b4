#!/usr/bin/python3
"""Accuracy against real bytes on the trained zoos, through the program itself: compress, restore, evaluate.

usage: experiment.py DIR FAMILY [--split test] [--seeds 3] [--out FILE.json]       DIR as train.py --out

Each row: method, setting, seed, mean accuracy over the tasks, bits per parameter on disk (lossy tensors, everything counted)."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import common
from evaluate import accuracy

DELTAZOO = os.environ.get("DELTAZOO", os.path.join(os.path.dirname(__file__), "../../build/deltazoo"))
SPARSITIES = (0.90, 0.97, 0.98, 0.99, 0.995)
BEYOND = (0.998, 0.999, 0.9995)  # for the sizes that method auto is compared at
RATIOS = (50, 100, 200, 400, 800)
# The paper's run: thirds, global rescale, gamma from exact company; positions coded as gaps, as its final version counts them.
PAPER = ("allocation=thirds", "rescale=global", "rounding=nearest", "tracenorm=slq")
ABLATION = {
    "dare": ("method=dare",),
    "+dac": ("allocation=uniform", "tracenorm=off"),
    "+msa": ("allocation=thirds", "tracenorm=off"),
    "+tngr": PAPER,
}
VARIANTS = {
    "ultradelta, positions coded": PAPER + ("positions=golomb",),
    "ultradelta, dac off": PAPER + ("dac=off",),
    "ultradelta, rescale tensor": ("rescale=tensor",),
    "ultradelta, systematic": ("rounding=systematic", "rescale=tensor"),
    "ultradelta, optimal": ("allocation=optimal", "rescale=tensor"),
    "magnitude": ("method=magnitude",),
}


def settings(seeds):
    """(label, sets, seed) of every run."""
    for seed in range(seeds):
        for s in SPARSITIES:
            for name, sets in ABLATION.items():
                yield name, (*sets, f"sparsity={s}"), seed
        for s in (*SPARSITIES, *BEYOND):
            yield "ultradelta, positions coded", (*VARIANTS["ultradelta, positions coded"], f"sparsity={s}"), seed
        yield "+tngr", (*PAPER, f"sparsity={BEYOND[0]}"), seed
        for ratio in RATIOS:
            yield "auto", ("method=auto", f"target_ratio={ratio}"), seed
    for s in SPARSITIES[1:]:
        for name, sets in VARIANTS.items():
            if name != "ultradelta, positions coded":
                yield name, (*sets, f"sparsity={s}"), 0
    yield "bitdelta", ("method=bitdelta",), 0


def call(*args):
    return subprocess.run([DELTAZOO, *args], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout


def measure(root, family, sets, seed, split):
    """One archive of the whole zoo: accuracies, bits per lossy parameter, ratio on disk."""
    work = tempfile.mkdtemp()
    try:
        archive = os.path.join(work, "a.h5")
        call("compress", os.path.join(root, "zoo.yaml"), "-q", "-o", archive, *(x for s in (*sets, f"seed={seed + 42}") for x in ("--set", s)))
        tasks = json.loads(call("info", archive, "--json"))["tasks"]
        accuracies = {}
        for task in tasks:
            out = os.path.join(work, task["name"])
            call("restore", archive, "-q", "--task", task["name"], "--base", os.path.join(root, "base"), "-o", out)
            accuracies[task["name"]] = accuracy(family, out, task["name"], split)
            shutil.rmtree(out)
        lossy = [task["lossy"] for task in tasks]
        bits = 8 * sum(x["stored_bytes"] for x in lossy) / sum(x["parameters"] for x in lossy)
        return accuracies, bits, sum(x["source_bytes"] for x in lossy) / sum(x["stored_bytes"] for x in lossy)
    finally:
        shutil.rmtree(work)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("family")
    parser.add_argument("--split", default="test", choices=common.SPLITS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out")
    options = parser.parse_args()
    root = os.path.join(options.dir, options.family)
    tasks = common.family_module(options.family).TASKS
    mean = lambda values: sum(values) / len(values)
    rows = [{"method": who, "sets": [], "seed": 0, "bits": 16 if who == "fine-tuned" else 0, "ratio": None,
             "accuracy": mean([accuracy(options.family, os.path.join(root, path or t), t, options.split) for t in tasks])}
            for who, path in (("base", "base"), ("fine-tuned", None))]
    for method, sets, seed in settings(options.seeds):
        accuracies, bits, ratio = measure(root, options.family, sets, seed, options.split)
        rows.append({"method": method, "sets": list(sets), "seed": seed, "bits": bits, "ratio": ratio, "accuracy": mean(accuracies.values()),
                     "tasks": accuracies})
        print(f"{options.family} {method:<30} {sets[-1]:<18} seed {seed}  {rows[-1]['accuracy']:6.2f}  {bits:.4f} bits  {ratio:7.1f}x", flush=True)
    if options.out:
        with open(options.out, "w") as f:
            json.dump({"family": options.family, "split": options.split, "rows": rows}, f, indent=1)


if __name__ == "__main__":
    sys.exit(main())

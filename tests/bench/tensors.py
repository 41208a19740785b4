"""How `plan` and `compress` grow with the number of tensors: tensors.py PROGRAM [PROGRAM]... prints a table in Markdown, for results/scale.md.

Models of 5,000, 10,000 and 20,000 tensors of 16 x 16 numbers, two tasks, one of them with its tensors in another order than the base. The least of
three runs of each, programs in turns; processor seconds of one rank.
"""
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np

COUNTS = (5000, 10000, 20000)
ROUNDS = int(os.environ.get("ROUNDS", 3))
SIDE = 16


def name(i):
    return f"model.layers.{i // 50}.mlp.experts.{i % 50}.up_proj.weight"


def model(path, names, seed, base=None):
    """A .safetensors file; returns its values by name."""
    rng = np.random.default_rng(seed)
    values, head, at = {}, {}, 0
    for n in names:
        x = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
        values[n] = x * np.float32(0.02) if base is None else base[n] + x * np.float32(1e-3)
        head[n] = {"dtype": "F32", "shape": [SIDE, SIDE], "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(head, separators=(",", ":")).encode()
    os.makedirs(path)
    with open(f"{path}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for n in names:
            f.write(values[n].tobytes())
    return values


def zoo(folder, count):
    names = [name(i) for i in range(count)]
    base = model(f"{folder}/base", names, 1)
    model(f"{folder}/same", names, 2, base)
    model(f"{folder}/turned", [names[i] for i in np.random.default_rng(5).permutation(count)], 3, base)
    with open(f"{folder}/zoo.yaml", "w") as f:
        f.write("base: base\ntasks:\n  - {name: same, path: same}\n  - {name: turned, path: turned}\n")
    with open(f"{folder}/recipe.yaml", "w") as f:
        f.write('method: ultradelta\ntensors:\n  - {match: "*", policy: ultradelta}\n')


def seconds(command):
    """Processor seconds of a command that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(programs):
    found = {}
    with tempfile.TemporaryDirectory(prefix="dz-tensors-") as folder:
        for count in COUNTS:
            zoo(f"{folder}/{count}", count)
            for _ in range(ROUNDS):
                for p in programs:
                    for what in ("plan", "compress"):
                        command = [p, what, f"{folder}/{count}/zoo.yaml", "--recipe", f"{folder}/{count}/recipe.yaml"] + (["-o", f"{folder}/a.h5", "-q", "--force"] if what == "compress" else [])
                        s = seconds(command)
                        found[p, what, count] = min(s, found.get((p, what, count), s))
                        print(f"{count} {what} {p}: {s:.2f} s", file=sys.stderr, flush=True)
            shutil.rmtree(f"{folder}/{count}")
    print("| program | command | " + " | ".join(f"{c:,} tensors" for c in COUNTS) + " | " + " | ".join(f"{b:,} / {a:,}" for a, b in zip(COUNTS, COUNTS[1:])) + " |")
    print("|---|---|" + "---|" * (2 * len(COUNTS) - 1))
    for p in programs:
        for what in ("plan", "compress"):
            s = [found[p, what, c] for c in COUNTS]
            print(f"| {p} | {what} | " + " | ".join(f"{x:.2f} s" for x in s) + " | " + " | ".join(f"{b / a:.1f}" for a, b in zip(s, s[1:])) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or [os.environ.get("DELTAZOO", "build/deltazoo")])

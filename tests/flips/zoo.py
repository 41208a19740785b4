"""Zoos whose archives hold every kind of content: zoo.py DIR small|tiles. Two tasks, lossy and lossless tensors, equal, dropped, absent and grown ones,
several types, side files; `tiles`: also tensors of two tiles, each kind of them."""
import json
import os
import struct
import sys

import numpy as np

out, kind = sys.argv[1:]
rng = np.random.default_rng(11)
RECIPE = "sparsity: 0.9\ntensors:\n" + "".join(f'  - {{match: "{m}", policy: {p}}}\n' for m, p in (
    ("*.weight", "ultradelta"), ("*.dropped", "drop"), ("*.wide", "ultradelta, sparsity: 0.9995"), ("*", "lossless")))


def bf16(x):
    return (np.asarray(x, np.float32).view(np.uint32) >> 16).astype("<u2")


def write(name, tensors, sides=()):
    os.makedirs(f"{out}/{name}", exist_ok=True)
    head, at = {"__metadata__": {"format": "pt"}}, 0
    for t, (dtype, values) in tensors.items():
        head[t] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(head).encode()
    with open(f"{out}/{name}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(v.tobytes() for _, v in tensors.values()))
    for file, content in sides:
        with open(f"{out}/{name}/{file}", "w") as f:
            f.write(content)


def normal(*shape):
    return (rng.standard_normal(shape) * 0.02).astype(np.float32)


def moved(values):
    return values + normal(*values.shape) * np.float32(0.05)


def models():
    q, w32, norm, same, old, gone, embed = normal(32, 24), normal(20, 12), normal(64), normal(48), normal(30), normal(9), normal(16, 8)
    base = {"q.weight": ("BF16", bf16(q)), "w.weight": ("F32", w32), "norm": ("BF16", bf16(norm)), "same": ("F16", same.astype("<f2")),
            "x.dropped": ("F32", old), "gone": ("F32", gone), "embed": ("F32", embed), "ids": ("I64", np.arange(40))}
    zoo = [base]
    for _ in range(2):
        zoo.append({"q.weight": ("BF16", bf16(moved(q))), "w.weight": ("F32", moved(w32)), "norm": ("BF16", bf16(moved(norm))),
                    "same": base["same"], "x.dropped": ("F32", moved(old)), "embed": ("F32", np.concatenate([moved(embed), normal(2, 8)])),
                    "ids": ("I64", np.arange(40)), "new": ("U8", rng.integers(0, 9, 50).astype(np.uint8))})
    if kind == "tiles":
        n = 6600000  # of up to 6291456 elements a tensor is one tile
        wide, bytes_ = bf16(normal(n)), np.zeros(n, np.uint8)
        base.update({"a.wide": ("BF16", wide), "bytes": ("U8", bytes_)})
        for task in zoo[1:]:
            other, moved_wide = bytes_.copy(), wide.copy()
            other[rng.integers(0, n, 50)] = 3
            moved_wide[rng.integers(0, n, 200000)] ^= 5
            task.update({"a.wide": ("BF16", moved_wide), "bytes": ("U8", other)})
    return zoo


base, one, two = models()
write("base", base)
write("one", one, [("config.json", '{"task": 1}\n'), ("tokenizer.json", '{"a": 1}\n' * 50)])
write("two", two, [("config.json", '{"task": 2}\n'), ("tokenizer.json", '{"a": 1}\n' * 50)])
for file, content in (("zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n  - {name: two, path: two}\n"), ("recipe.yaml", RECIPE)):
    with open(f"{out}/{file}", "w") as f:
        f.write(content)

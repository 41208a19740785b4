#!/usr/bin/python3
"""Makes small zoos by hand in which base and task differ in every way the format allows.

  edge_zoo.py KIND DIR      KIND: shapes, dtypes, values, drop, tiles, files, channels

DIR gets base/, task-1/, zoo.yaml and recipe.yaml.
"""

import json
import os
import struct
import sys

import numpy as np

rng = np.random.default_rng(7)
RECIPE = 'tensors:\n  - {match: "*.weight", policy: ultradelta}\n  - {match: "*.dropped", policy: drop}\n  - {match: "*", policy: lossless}\n'


def bf16(values):
    bits = np.atleast_1d(np.asarray(values, np.float32)).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype("<u2")


def encode(values, dtype):
    values = np.asarray(values)
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "U16": "<u2",
             "U32": "<u4", "U64": "<u8", "BOOL": "?"}
    with np.errstate(over="ignore", invalid="ignore"):
        return (bf16(values) if dtype == "BF16" else values.astype(kinds.get(dtype, "u1"))).tobytes()


def write(path, tensors, metadata=None, pad=0):
    """tensors: name -> (dtype, shape, bytes)"""
    header, at = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    raw = json.dumps(header).encode() + b" " * pad
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw + b"".join(t[2] for t in tensors.values()))


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32) * np.float32(0.02)


class Zoo:
    def __init__(self):
        self.base, self.task = {}, {}

    def add(self, name, base=None, task=None, base_dtype="BF16", task_dtype=None):
        for place, values, dtype in ((self.base, base, base_dtype), (self.task, task, task_dtype or base_dtype)):
            if values is not None:
                place[name] = (dtype, np.shape(values), encode(values, dtype))

    def pair(self, name, shape, base_dtype="BF16", task_dtype=None, spread=0.02, rows=None):
        """A base and a task near it; rows: the task's number of rows."""
        base = normal(*shape)
        task = base + normal(*shape) * np.float32(spread)
        if rows is not None:
            task = np.concatenate([task, normal(max(0, rows - shape[0]), *shape[1:])])[:rows]
        self.add(name, base, task, base_dtype, task_dtype)

    def raw(self, name, dtype, shape, base, task, task_dtype=None):
        self.base[name] = (dtype, shape, base)
        self.task[name] = (task_dtype or dtype, shape, task)


def shapes(z):
    for kind in ("weight", "exact"):
        z.pair(f"same.{kind}", (40, 64))
        z.pair(f"more.{kind}", (100, 64), rows=107)
        z.pair(f"fewer.{kind}", (100, 64), rows=90)
        z.pair(f"scalar.{kind}", ())
        z.pair(f"one.{kind}", (1,))
        z.pair(f"odd.{kind}", (7, 11, 1, 3))
        z.pair(f"eight.{kind}", (2, 1, 3, 1, 2, 1, 5, 2))
        z.add(f"empty.{kind}", np.zeros((0, 4)), np.zeros((0, 4)))
        z.add(f"emptied.{kind}", normal(5, 4), np.zeros((0, 4)))
        z.add(f"added.{kind}", None, normal(30, 20))
        z.add(f"removed.{kind}", normal(30, 20), None)
        same = normal(33, 44)
        z.add(f"equal.{kind}", same, same)
        z.add(f"shifted.{kind}", np.zeros((50, 50)), np.full((50, 50), 0.5))
        z.add(f"constant.{kind}", np.full((50, 50), 1.5), np.full((50, 50), 1.5))
        few = same.copy()
        few[3, 4] += 1
        z.add(f"few.{kind}", same, few)
    # what a lossy rule refuses
    z.add("filled.exact", np.zeros((0, 4)), normal(5, 4))
    z.add("wider.exact", normal(20, 30), normal(20, 31))
    z.add("flatter.exact", normal(20, 30), normal(600))
    z.add("scalar_grown.exact", normal(), normal(3))


def dtypes(z):
    for kind in ("weight", "exact"):
        for base in ("F32", "F16", "BF16"):
            for task in ("F32", "F16", "BF16"):
                z.pair(f"{base}.{task}.{kind}", (60, 64), base, task)
                z.pair(f"{base}.{task}.more.{kind}", (60, 64), base, task, rows=63)
                z.pair(f"{base}.{task}.fewer.{kind}", (60, 64), base, task, rows=51)
                same = normal(30, 30)
                z.add(f"{base}.{task}.equal.{kind}", same, same, base, task)
    for dtype in ("F64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"):
        base = rng.integers(0, 2 if dtype == "BOOL" else 100, (30, 33))
        task = base.copy()
        task[::7] = 1
        z.add(f"{dtype}.same", base, base, dtype)
        z.add(f"{dtype}.other", base, task, dtype)
        z.add(f"{dtype}.dense", base, rng.integers(0, 2, (30, 33)), dtype)
        z.add(f"{dtype}.more", base, rng.integers(0, 2, (35, 33)), dtype)
    z.add("F64.real", rng.standard_normal((20, 20)), rng.standard_normal((20, 20)), "F64")
    for dtype in ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ"):
        base = rng.integers(0, 256, (30, 33))
        near = base + rng.integers(-1, 2, (30, 33)) & 255
        z.add(f"{dtype}.near", base, near, dtype)
        z.add(f"{dtype}.same", base, base, dtype)
        z.add(f"{dtype}.more", base, np.concatenate([near, near[:2]]), dtype)
    z.add("from.F32.to.F64", normal(20, 20), normal(20, 20), "F32", "F64")
    z.add("from.I32.to.I64", normal(20, 20), normal(20, 20), "I32", "I64")
    z.add("from.I64.to.F32", normal(20, 20), normal(20, 20), "I64", "F32")
    z.add("position_ids", np.arange(77)[None], np.arange(77)[None], "I64")


def special(dtype, n):
    """Bit patterns of every kind: NaNs quiet and signalling, infinities, zeros of both signs, subnormals, the largest."""
    if dtype == "F32":
        edge = [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F800001, 0xFF812345, 0x7F80FFFF, 1, 0x80000001, 0x7FFFFF, 0x7F7FFFFF,
                0xFF7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x3F808000, 0x3F818000, 0x477FE000, 0x477FF000, 0x477FEFFF, 0x33000000, 0x33000001, 0x32FFFFFF,
                0x387FC000, 0x387FE000, 0x7FFFFFFF, 0x7F801FFF, 0x7F802000]
        return np.resize(np.concatenate([np.array(edge, np.uint32), rng.integers(0, 1 << 32, 4000).astype(np.uint32)]), n).astype("<u4").tobytes()
    return np.resize(rng.permutation(65536).astype("<u2"), n).tobytes()


def values(z):
    n = 65536
    for base in ("F32", "F16", "BF16"):
        for task in ("F32", "F16", "BF16"):
            z.raw(f"{base}.{task}.exact", base, (n,), special(base, n), special(task, n), task)
            z.raw(f"{base}.{task}.dropped", base, (n,), special(base, n), special(task, n), task)
    for dtype in ("F32", "F16", "BF16"):
        raw = special(dtype, n)
        z.raw(f"{dtype}.equal.exact", dtype, (n,), raw, raw)
        flipped = np.frombuffer(raw, "u1").copy()
        flipped[::64] ^= 1
        z.raw(f"{dtype}.near.exact", dtype, (n,), raw, flipped.tobytes())
        # a lossy tensor whose sums leave the range, and ones whose results are subnormal or zero
        top = {"F32": 3.3e38, "F16": 65000, "BF16": 3.3e38}[dtype]
        big = np.full((64, 64), top, np.float32) * np.sign(normal(64, 64))
        tiny = np.ldexp(normal(64, 64), {"F32": -130, "F16": -16, "BF16": -126}[dtype]).astype(np.float32)
        z.add(f"{dtype}.tiny.weight", tiny, tiny * np.float32(1.3), dtype)
        z.add(f"{dtype}.zero.weight", -np.zeros((64, 64), np.float32), normal(64, 64), dtype)
        z.add(f"{dtype}.big.weight", big, big + np.abs(big) * np.float32(0.005) * (rng.random((64, 64)) < 0.5), dtype)
        z.add(f"{dtype}.outlier.weight", normal(64, 64), normal(64, 64) + (rng.random((64, 64)) < 0.001) * np.float32(100), dtype)


def drop(z):
    for base in ("F32", "F16", "BF16"):
        for task in ("F32", "F16", "BF16"):
            z.pair(f"{base}.{task}.dropped", (30, 20), base, task)
    z.pair("fewer.dropped", (30, 20), rows=25)
    z.pair("scalar.dropped", ())
    z.pair("I32.dropped", (30, 20), "I32")
    z.pair("other.weight", (30, 20))


def tiles(z):
    noise = normal(9000, 1000)
    moved = noise + noise[::-1] * np.float32(0.02)
    z.add("nine.weight", noise, moved)
    z.add("fewer.weight", noise[:6400], moved[:4400], "F32", "BF16")
    z.add("more.weight", noise[:5000], np.concatenate([moved[:5000], np.full((6400, 1000), 0.5, np.float32)]))
    task = noise[:6400].copy()
    task[17, 5] += 1
    task[6399, :7] += 1
    z.add("sparse.exact", noise[:6400], task, "F32")
    task = noise[:6401].copy()
    task[::50] = moved[:6401:50]
    z.add("more.exact", noise[:6400], task)
    # predictions of low rank, and columns in groups; tiles that begin within a row
    for dtype in ("F32", "F16", "BF16"):
        base = noise[:2000, :96]
        z.add(f"{dtype}.moved.exact", base, base + normal(2000, 1) * normal(1, 96) * 10 + normal(2000, 96) * np.float32(0.01), dtype)
        z.add(f"{dtype}.columns.exact", None, noise[:2000, :96] * np.exp2(normal(1, 96) * 80) + normal(1, 96), dtype)
    base = normal(6100, 1001)
    z.add("rows.moved.exact", base, base + normal(6100, 1) * normal(1, 1001) * 10 + base[::-1] * np.float32(0.01))
    z.add("rows.columns.exact", None, base * np.exp2(normal(1, 1001) * 80) + normal(1, 1001))


def channels(z):
    """As training leaves them: an input's weights are the smaller the larger it is. Noise then has factors by channels."""
    activations = np.exp(rng.standard_normal(256).astype(np.float32))
    for i in range(2):
        for name, rows, inputs in (("self_attn.q", 256, activations), ("self_attn.k", 256, activations), ("self_attn.v", 256, activations), ("mlp.gate", 512, activations),
                                   ("mlp.up", 512, activations), ("mlp.down", 256, np.ones(512, np.float32))):
            base = normal(rows, len(inputs)) / inputs
            if name in ("mlp.gate", "mlp.up"):
                base[7] *= 5
            z.add(f"model.layers.{i}.{name}_proj.weight", base, base + normal(rows, len(inputs)) * np.float32(0.05), task_dtype="F32")


KINDS = {"shapes": shapes, "dtypes": dtypes, "values": values, "drop": drop, "tiles": tiles, "files": shapes, "channels": channels}


def main():
    kind, place = sys.argv[1:]
    z = Zoo()
    KINDS[kind](z)
    write(f"{place}/base/model.safetensors", z.base, {"format": "pt"})
    if kind == "files":
        # the task in three shards with other names, an order of its own and a padded header, and side files
        names = sorted(z.task, key=lambda n: n[::-1])
        for k in range(3):
            write(f"{place}/task-1/part{k}.safetensors", {n: z.task[n] for n in names[k::3]}, {"shard": str(k), "café": "\u2713"}, pad=k * 5)
        write(f"{place}/task-1/nothing.safetensors", {})
        for name, content in (("config.json", b"{}"), ("empty", b""), ("bytes.bin", bytes(range(256)) * 999), ("café.txt", b"\xff\x00\n")):
            with open(f"{place}/task-1/{name}", "wb") as file:
                file.write(content)
    else:
        write(f"{place}/task-1/model.safetensors", z.task)
    with open(f"{place}/zoo.yaml", "w") as file:
        file.write("base: base\ntasks:\n  - {name: task-1, path: task-1}\n")
    with open(f"{place}/recipe.yaml", "w") as file:
        file.write(RECIPE)


if __name__ == "__main__":
    main()

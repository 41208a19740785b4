"""A file that deltazoo lays out itself is the one that the safetensors library writes: each tensor is aligned. A file that was there before keeps its layout."""
import json
import os
import struct

import torch
from safetensors.torch import save, save_file

import torch_files
from common import check, equal, good, read, with_scratch, write

TYPES = ("bool", "float4_e2m1fn_x2", "uint8", "int8", "float8_e5m2", "float8_e4m3fn", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz", "int16", "uint16", "float16",
         "bfloat16", "int32", "uint32", "float32", "complex64", "float64", "int64", "uint64")


def model(seed):
    """Every dtype of safetensors, in an order that leaves all of them unaligned."""
    torch.manual_seed(seed)
    tensors = {f"layers.{i}.weight": torch.randn(33, 17) for i in range(4)}
    for i, name in enumerate(TYPES):
        one = torch.randint(0, 2, (3,), dtype=torch.uint8)
        tensors[f"{'zyx'[i % 3]}.{name}"] = one.bool() if name == "bool" else one.repeat(8).view(getattr(torch, name))
    return tensors


def zoo(folder, put):
    for i, name in enumerate(("base", "one")):
        os.mkdir(f"{folder}/{name}")
        write(f"{folder}/{name}/config.json", "{}")
        put(f"{folder}/{name}", model(i))
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n")
    good(["compress", "zoo.yaml", "-o", "a.h5", "--recipe", "lossless", "-q"], cwd=folder)


def restore(folder, out, *more, ranks=1):
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", out, "-q", *more], ranks, cwd=folder)
    return f"{folder}/{out}"


def aligned(path):
    raw = read(path)
    n = struct.unpack("<Q", raw[:8])[0]
    equal(n % 8, 0, f"length of the header of {path}")
    header = json.loads(raw[8:8 + n])
    header.pop("__metadata__", None)
    for name, t in header.items():
        size = {"64": 8, "32": 4, "16": 2}.get(t["dtype"].lstrip("CFIUB")[:2], 1)
        check(t["data_offsets"][0] % size == 0, f"{path}: {name} ({t['dtype']}) begins at {t['data_offsets'][0]}")


@with_scratch
def test_restored_pytorch_file_is_what_safetensors_would_write(folder):
    zoo(folder, lambda path, tensors: torch.save(tensors, f"{path}/pytorch_model.bin"))
    check(read(restore(folder, "r", ranks=3) + "/model.safetensors") == save(model(1), {"format": "pt"}), "other bytes than safetensors.torch.save writes")


@with_scratch
def test_empty_tensors_of_a_pytorch_file_keep_their_neighbours_places(folder):
    parts = {"a": torch.zeros(0), "b": torch.arange(3), "c": torch.zeros(2, 0, dtype=torch.int64), "d": torch.randn(4, 6).t(), "e": torch.zeros(0, dtype=torch.int8)}
    zoo(folder, lambda path, tensors: torch.save(parts, f"{path}/pytorch_model.bin"))
    want = {n: t.contiguous() for n, t in parts.items()}
    check(read(restore(folder, "r") + "/model.safetensors") == save(want, {"format": "pt"}), "other bytes than safetensors.torch.save writes")


@with_scratch
def test_new_shards_are_aligned(folder):
    zoo(folder, lambda path, tensors: save_file(tensors, f"{path}/model.safetensors", {"format": "pt"}))
    want, seen = model(1), {}
    out = restore(folder, "r", "--max-shard-size", "2K", ranks=3)
    shards = [f for f in os.listdir(out) if f.endswith(".safetensors")]
    check(len(shards) > 3, f"shards: {shards}")
    for file in shards:
        names = list(torch_files.read_safetensors(f"{out}/{file}"))
        check(read(f"{out}/{file}") == save({n: want[n] for n in names}, {"format": "pt"}), f"{file}: other bytes than safetensors.torch.save writes")
        seen.update(dict.fromkeys(names))
    equal(sorted(seen), sorted(want), "tensors of all shards")
    picked = restore(folder, "s", "--tensor", "z.*") + "/model.safetensors"
    check(read(picked) == save({n: t for n, t in want.items() if n.startswith("z.")}, {"format": "pt"}), "--tensor: other bytes than safetensors.torch.save writes")


@with_scratch
def test_vectors_are_aligned(folder):
    zoo(folder, lambda path, tensors: save_file(tensors, f"{path}/model.safetensors", {"format": "pt"}))
    write(f"{folder}/lossy.yaml", "method: ultradelta\nsparsity: 0.9\ntensors:\n  - {match: '*.weight', policy: ultradelta}\n  - {match: '*', policy: lossless}\n")
    good(["compress", "zoo.yaml", "-o", "a.h5", "--force", "--recipe", "lossy.yaml", "-q"], cwd=folder)
    for form in (["sparse"], ["dense", "--base", "base"]):
        good(["export", "a.h5", "--task", "one", "-o", f"{form[0]}.safetensors", "--format", *form, "-q"], 3, cwd=folder)
        aligned(f"{folder}/{form[0]}.safetensors")
        names = list(torch_files.read_safetensors(f"{folder}/{form[0]}.safetensors"))
        kinds = [n.rsplit(".", 1)[-1] for n in names]
        equal(names, sorted(names, key=lambda n: (n.endswith(".values"), n)), "order")
        check(form[0] != "sparse" or kinds.count("positions") == kinds.count("values") == 4, f"{names}")


@with_scratch
def test_file_of_another_layout_comes_back_as_it_was(folder):
    plain = [n for n in TYPES if getattr(torch, n) in torch_files.NAMES]
    zoo(folder, lambda path, tensors: torch_files.write_safetensors(f"{path}/model.safetensors", {n: t for n, t in tensors.items() if n.rsplit(".", 1)[-1] in plain + ["weight"]}))
    before = read(f"{folder}/one/model.safetensors")
    check(read(restore(folder, "r", ranks=3) + "/model.safetensors") == before, "the file's layout is another")

"""restore --dtype: lossy tensors are base + delta in float, rounded once to the type asked for; exact ones are converted, codes and integers stay."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from common import (EMBED, ENV, K, MARK_FILE, NORM, Q, RANKS, ROOT, UP, SmallZoo, check, equal, good, hashes, read, refused, replaced, run, small_model, st_bytes,
                    st_head, st_parse, to_dtype, to_float, with_scratch, write)

LOSSY = (Q, K, UP)
TYPES = ("f32", "bf16", "f16")


def zoo_of(folder, dtype="BF16"):
    zoo = SmallZoo(folder, dtype)
    for task in zoo.tasks:
        write(f"{folder}/{task}/config.json", '{\n  "torch_dtype": "bfloat16",\n  "text_config": {"dtype" : "bfloat16", "note": "\\"dtype\\": \\"bfloat16\\""},\n'
              '  "quantization_config": {"dtype": "nf4"}\n}\n')
    zoo.compress("a.h5", "--quality", "small")
    return zoo


def restore(folder, out, *more, tasks=("one",), ranks=1):
    return good(["restore", "a.h5", *[x for t in tasks for x in ("--task", t)], "--base", "base", "-o", out, "-q", *more], ranks, cwd=folder)


def deltas(folder, task):
    """Restored deltas of the lossy tensors in f32, by the independent reader."""
    code = ("import deltazoo, numpy, sys\nz = deltazoo.open('a.h5')\n"
            f"numpy.savez('d-{task}.npz', **{{t.name: z.delta({task!r}, t.name) for t in z.tensors({task!r}) if t.policy == 'ultradelta'}})\n")
    p = subprocess.run([sys.executable, "-c", code], cwd=folder, env=dict(ENV, PYTHONPATH=f"{ROOT}/src/python"), capture_output=True, text=True)
    check(p.returncode == 0, p.stderr)
    return dict(np.load(f"{folder}/d-{task}.npz"))


def wide(model):
    return {n: to_float(data, d) for n, d, _, data in model}


@with_scratch
def test_values(folder):
    """Byte for byte; a step that bfloat16 swallows is in f32."""
    zoo = SmallZoo(folder, "BF16")
    zoo.tasks["one"] = small_model(2, "BF16", None, zoo.base, 1e-4)
    zoo.put("one", zoo.tasks["one"])
    zoo.compress("a.h5", "--quality", "high")
    base, exact, delta = wide(zoo.base), wide(zoo.tasks["one"]), deltas(folder, "one")
    equal(sorted(delta), sorted(LOSSY), "lossy tensors")
    for dtype in TYPES:
        restore(folder, dtype, "--dtype", dtype)
        for name, (kind, shape, data) in st_parse(f"{folder}/{dtype}").items():
            equal(kind, dtype.upper(), f"{name}: type")
            x = base[name] + delta[name].ravel() if name in delta else exact[name]
            check(data == to_dtype(x, kind), f"{dtype}: {name}: other values")
    restore(folder, "as-it-was")
    check(hashes(f"{folder}/bf16") != hashes(f"{folder}/f32"), "types")
    for name in LOSSY:
        x, y = (to_float(st_parse(f"{folder}/{f}")[name][2], k) for f, k in (("f32", "F32"), ("as-it-was", "BF16")))
        check(np.array_equal(to_float(to_dtype(x, "BF16"), "BF16"), y), f"{name}: not the same model")
        check(np.mean(y == base[name]) > np.mean(x == base[name]) + 0.01, f"{name}: no small step is kept")


@with_scratch
def test_the_same_type_changes_nothing(folder):
    zoo_of(folder)
    restore(folder, "plain")
    restore(folder, "same", "--dtype", "bf16")
    equal(st_parse(f"{folder}/same"), st_parse(f"{folder}/plain"), "tensors")
    equal(read(f"{folder}/same/config.json"), read(f"{folder}/plain/config.json"), "config.json")


@with_scratch
def test_side_files_and_mark(folder):
    zoo = zoo_of(folder)
    restore(folder, "r", "--dtype", "f32")
    equal(read(f"{folder}/r/config.json").decode(), read(f"{folder}/one/config.json").decode().replace('"torch_dtype": "bfloat16"', '"torch_dtype": "float32"').replace(
        '"dtype" : "bfloat16"', '"dtype" : "float32"'), "config.json")
    mark = json.loads(read(f"{folder}/r/{MARK_FILE}"))
    equal((mark["dtype"], mark["lossy"], mark["task"]), ("F32", True, "one"), "mark")
    equal(mark["files"]["model.safetensors"], os.path.getsize(f"{folder}/r/model.safetensors"), "size")
    check(b'\\"dtype\\":\\"F32\\"' in st_head(f"{folder}/r/model.safetensors"), "no mark in the header")
    check(b'"format":"pt"' in st_head(f"{folder}/r/model.safetensors"), "the metadata is not the original's")
    restore(folder, "r", "--dtype", "f32", "--force")
    restore(folder, "plain")
    check("dtype" not in json.loads(read(f"{folder}/plain/{MARK_FILE}")), "a mark without a type")
    good(["compress", "--allow-lossy-input", write(f"{folder}/again.yaml", "base: base\ntasks:\n  - {name: one, path: r}\n"), "-o", "b.h5", "-q"], cwd=folder)
    refused(folder, ["compress", "again.yaml", "-o", "c.h5"], 2, "not an original")


@with_scratch
def test_exact_models(folder):
    """Widened without a mark, since no bit is lost; narrowed with one."""
    zoo = zoo_of(folder)
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--force", "--recipe", "lossless"], cwd=folder)
    restore(folder, "f32", "--dtype", "f32")
    check(not os.path.exists(f"{folder}/f32/{MARK_FILE}"), "a mark of what is exact")
    for n, d, _, data in zoo.tasks["one"]:
        check(st_parse(f"{folder}/f32")[n][2] == to_float(data, d).tobytes(), f"{n}: other values")
    restore(folder, "f16", "--dtype", "f16")
    equal(json.loads(read(f"{folder}/f16/{MARK_FILE}"))["dtype"], "F16", "mark")
    for n, d, _, data in zoo.tasks["one"]:
        check(st_parse(f"{folder}/f16")[n][2] == to_dtype(to_float(data, d), "F16"), f"{n}: other values")


@with_scratch
def test_integers_and_f8_stay(folder):
    zoo = SmallZoo(folder, "BF16", ("one",))
    ids, codes = np.arange(40, dtype=np.int64).tobytes(), bytes(range(64)) * 2
    for name, tensors in (("base", zoo.base), ("one", zoo.tasks["one"])):
        zoo.put(name, tensors + [("position_ids", "I64", (40,), ids), ("model.layers.0.x.weight", "F8_E4M3", (4, 32), codes),
                                 ("model.layers.0.x.weight_scale", "F32", (4,), to_dtype(np.ones(4), "F32")), ("flag", "BOOL", (3,), b"\1\0\1")])
    zoo.compress()
    restore(folder, "r", "--dtype", "f16")
    got = st_parse(f"{folder}/r")
    equal((got["position_ids"], got["model.layers.0.x.weight"], got["flag"][0]), (("I64", (40,), ids), ("F8_E4M3", (4, 32), codes), "BOOL"), "what stays")
    equal((got["model.layers.0.x.weight_scale"][0], got[Q][0]), ("F16", "F16"), "floats")


@with_scratch
def test_same_bytes_for_any_number_of_ranks(folder):
    zoo_of(folder)
    for ranks in RANKS:
        for dtype in TYPES:
            restore(folder, f"{dtype}-{ranks}", "--dtype", dtype, ranks=ranks)
            restore(folder, f"sum-{dtype}-{ranks}", "--dtype", dtype, tasks=("one=0.6", "two=0.4"), ranks=ranks)
            for kind in ("", "sum-"):
                equal(hashes(f"{folder}/{kind}{dtype}-{ranks}"), hashes(f"{folder}/{kind}{dtype}-1"), f"{ranks} ranks, {kind}{dtype}")


@with_scratch
def test_sums_of_tasks(folder):
    """In double, rounded once to the type asked for."""
    zoo = zoo_of(folder)
    base = wide(zoo.base)
    parts = [(0.6, wide(zoo.tasks["one"]), deltas(folder, "one")), (0.4, wide(zoo.tasks["two"]), deltas(folder, "two"))]
    for dtype in TYPES:
        restore(folder, dtype, "--dtype", dtype, tasks=("one=0.6", "two=0.4"))
        for name, (kind, _, data) in st_parse(f"{folder}/{dtype}").items():
            total = np.zeros(len(base[name]))
            for w, exact, delta in parts:
                total += w * (delta[name].ravel().astype(np.float64) if name in delta else exact[name].astype(np.float64) - base[name])
            want = (total + base[name]).astype(np.float32)
            check(data == to_dtype(want, kind), f"{dtype}: {name}: other values")


@with_scratch
def test_beyond_the_range(folder):
    zoo = SmallZoo(folder, "F32", ("one",))
    zoo.put("one", replaced(zoo.tasks["one"], NORM, edit=lambda x: x.__setitem__(3, 70000.0)))
    zoo.compress()
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "--dtype", "f16"], 1, "'one'", NORM, "70000", "F16", "bf16 or f32")
    restore(folder, "r", "--dtype", "bf16")
    equal(to_float(st_parse(f"{folder}/r")[NORM][2], "BF16")[3], np.float32(70144), "the value in bf16")
    zoo.put("one", replaced(zoo.tasks["one"], NORM, edit=lambda x: x.__setitem__(3, np.inf)))
    zoo.compress("a.h5", "--force")
    restore(folder, "inf", "--dtype", "f16")
    check(np.isinf(to_float(st_parse(f"{folder}/inf")[NORM][2], "F16")[3]), "an infinity of the original's")


@with_scratch
def test_shards_and_single_tensors(folder):
    zoo = SmallZoo(folder, "BF16", ("one",))
    tensors = zoo.tasks["one"]
    os.remove(f"{folder}/one/model.safetensors")
    for i, part in enumerate((tensors[:2], tensors[2:])):
        write(f"{folder}/one/model-{i + 1:05}-of-00002.safetensors", st_bytes(part, {"format": "pt"}))
    names = {t[0]: f"model-{1 + (i > 1):05}-of-00002.safetensors" for i, t in enumerate(tensors)}
    total = sum(len(t[3]) for t in tensors)
    write(f"{folder}/one/model.safetensors.index.json", json.dumps({"metadata": {"total_size": total}, "weight_map": names}, indent=2) + "\n")
    zoo.compress()
    restore(folder, "r", "--dtype", "f32")
    index = json.loads(read(f"{folder}/r/model.safetensors.index.json"))
    equal(index, {"metadata": {"total_size": 2 * total}, "weight_map": names}, "index")
    restore(folder, "cut", "--dtype", "f32", "--max-shard-size", "8K")
    index = json.loads(read(f"{folder}/cut/model.safetensors.index.json"))
    equal(index["metadata"]["total_size"], 2 * total, "total_size of new shards")
    restore(folder, "some", "--dtype", "f32", "--tensor", "*q_proj*")
    all_of_it = st_parse(f"{folder}/r")
    equal(st_parse(f"{folder}/cut"), all_of_it, "new shards") if sorted(st_parse(f"{folder}/cut")) == sorted(all_of_it) else check(False, "names")
    equal(st_parse(f"{folder}/some"), {Q: all_of_it[Q]}, "one tensor")


@with_scratch
def test_parts_of_a_pipeline(folder):
    """Their tensors' names do not have the folder."""
    shapes = {"blocks.0.q.weight": (48, 32), "blocks.1.q.weight": (48, 32), "norm.weight": (32,)}
    base = small_model(1, "BF16", shapes)
    for name, model in (("base", base), ("one", small_model(2, "BF16", shapes, base))):
        write(f"{folder}/{name}/model_index.json", json.dumps({"_class_name": "X", "unet": ["diffusers", "U"]}))
        write(f"{folder}/{name}/unet/config.json", '{"_class_name": "U", "dtype": "bfloat16"}')
        write(f"{folder}/{name}/unet/diffusion_pytorch_model.safetensors", st_bytes(model))
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n")
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    restore(folder, "r", "--dtype", "f32")
    got = st_parse(f"{folder}/r/unet")
    equal({n: t[:2] for n, t in got.items()}, {n: ("F32", s) for n, s in shapes.items()}, "tensors")
    equal(json.loads(read(f"{folder}/r/unet/config.json"))["dtype"], "float32", "config.json")


@with_scratch
def test_damage(folder):
    """--keep-going: the base's values, in the type asked for."""
    zoo = zoo_of(folder)
    raw = bytearray(read(f"{folder}/a.h5"))
    good(["export", "a.h5", "--task", "one", "-o", "v.safetensors"], cwd=folder)
    import h5py
    with h5py.File(f"{folder}/a.h5") as f:
        at = f["tasks/one/payload"].id.get_offset()
    raw[at + f_len(folder) // 2] ^= 1
    write(f"{folder}/a.h5", bytes(raw))
    r = run(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "--dtype", "f32", "--keep-going", "-q"], 3, cwd=folder)
    equal(r.code, 3, f"exit code: {r}")
    equal({t[0] for t in st_parse(f"{folder}/r").values()}, {"F32"}, "types")
    equal(json.loads(read(f"{folder}/r/{MARK_FILE}"))["damaged"], 1, "damage")


def f_len(folder):
    import h5py
    with h5py.File(f"{folder}/a.h5") as f:
        return f["tasks/one/payload"].shape[0]


@with_scratch
def test_what_is_refused(folder):
    zoo_of(folder)
    for word in ("float32", "i8", "f64"):
        refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "--dtype", word], 2, "--dtype", word, "bf16")
    p = subprocess.run([sys.executable, "-m", "deltazoo", "restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "--dtype", "f32"], cwd=folder,
                       env=dict(ENV, PYTHONPATH=f"{ROOT}/src/python"), capture_output=True, text=True)
    check(p.returncode != 0 and "deltazoo restore --dtype" in p.stderr and not os.path.exists(f"{folder}/r"), f"the Python reader: {p}")

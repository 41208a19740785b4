"""A task in which tensors of the base are one: experts as a stack, q, k and v or gate and up one under another. They are compared part by part, and restored as they were."""
import json
import os
import sys

import numpy as np
import pytest

from common import ROOT, SmallZoo, check, equal, good, hashes, info, read, refused, st_bytes, st_parse, to_dtype, to_float, turns, with_scratch, write

sys.path.insert(0, os.path.join(ROOT, "src", "python"))
import deltazoo  # noqa: E402

WIDTH, INNER, EXPERTS, BLOCKS = 32, 24, 5, 2
MOE = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
QKV = ("q_proj", "k_proj", "v_proj")


def shapes_of(kind, names):
    """Of the base, in which all are separate."""
    shapes = {"model.embed_tokens.weight": (40, WIDTH)}
    for i in range(BLOCKS):
        where = f"model.layers.{i}."
        for n, rows in (("q_proj", WIDTH), ("k_proj", WIDTH // 2), ("v_proj", WIDTH // 2)):
            shapes[f"{where}self_attn.{n}.weight"] = (rows, WIDTH)
            shapes[f"{where}self_attn.{n}.bias"] = (rows,)
        shapes[f"{where}self_attn.o_proj.weight"] = (WIDTH, WIDTH)
        shapes[f"{where}input_layernorm.weight"] = (WIDTH,)
        blocks = [f"{where}mlp."] if kind == "dense" else [f"{where}{names[0]}.experts.{e}." for e in range(EXPERTS)]
        for at in blocks:
            shapes[f"{at}{names[1]}.weight"] = shapes[f"{at}{names[2]}.weight"] = (INNER, WIDTH)
            shapes[f"{at}{names[3]}.weight"] = (WIDTH, INNER)
    return shapes


USUAL = ("mlp", "gate_proj", "up_proj", "down_proj")
MIXTRAL = ("block_sparse_moe", "w1", "w3", "w2")


def values(shapes, seed, dtype="F32", over=None, share=0.02):
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in shapes.items():
        x = rng.standard_normal(shape).astype(np.float32) * np.float32(0.02)
        out[name] = x if over is None else over[name] + x * np.float32(share)
    return {n: to_float(to_dtype(x.reshape(-1), dtype), dtype).astype(np.float32).reshape(x.shape) for n, x in out.items()}


def fuse(kind, model, names, interleaved=False):
    """The model as a library has it in memory."""
    model, out = dict(model), {}
    for i in range(BLOCKS):
        where = f"model.layers.{i}."
        if kind == "qkv":
            for end in ("weight", "bias"):
                out[f"{where}self_attn.qkv_proj.{end}"] = np.concatenate([model.pop(f"{where}self_attn.{n}.{end}") for n in QKV])
        elif kind == "dense":
            out[f"{where}mlp.gate_up_proj.weight"] = np.concatenate([model.pop(f"{where}mlp.{n}.weight") for n in names[1:3]])
        else:
            parts = [[model.pop(f"{where}{names[0]}.experts.{e}.{n}.weight") for e in range(EXPERTS)] for n in names[1:]]
            both = [np.stack([g, u], 1).reshape(-1, WIDTH) if interleaved else np.concatenate([g, u]) for g, u in zip(*parts[:2])]
            out[f"{where}mlp.experts.gate_up_proj"] = np.stack(both)
            out[f"{where}mlp.experts.down_proj"] = np.stack(parts[2])
    return {**out, **model}


def tensors(model, dtype):
    return [(n, dtype, x.shape, to_dtype(x.reshape(-1), dtype)) for n, x in model.items()]


class Zoo(SmallZoo):
    """base and separate/one: a model and its fine-tune; one: the same fine-tune, fused; two: another fine-tune, separate."""

    def __init__(self, folder, kind, names=USUAL, dtype="F32", base_dtype=None, interleaved=False, related=True):
        self.folder = folder
        shapes = shapes_of("moe" if kind == "moe" else "dense", names)
        base = values(shapes, 1, base_dtype or dtype)
        one, two = (values(shapes, seed, dtype, base if related else None) for seed in (2, 3))
        self.fused = fuse(kind, one, names, interleaved)
        self.put("base", tensors(base, base_dtype or dtype))
        self.put("one", tensors(self.fused, dtype))
        self.put("two", tensors(two, dtype))
        self.put("separate/one", tensors(one, dtype))
        for task in ("one", "two"):
            write(f"{folder}/{task}/config.json", "{}\n")
        self.manifest("one", "two")
        self.manifest("separate/one", "two", file="separate.yaml")

    def restored(self, archive, out, *more, ranks=1):
        good(["restore", archive, "--base", "base", "-o", out, "-q", *more], ranks, cwd=self.folder)
        return st_parse(f"{self.folder}/{out}/model.safetensors")


def raw(model):
    """Each tensor as its bytes, in its shape."""
    return {n: np.frombuffer(b, np.uint8).reshape(*s, -1) for n, (_, s, b) in model.items()}


def case(kind, turn, **how):
    def test(folder):
        zoo = Zoo(folder, kind, **how)
        names, dtype = how.get("names", USUAL), how.get("dtype", "F32")
        for out, recipe in (("exact", ["--recipe", "lossless"]), ("lossy", [])):
            zoo.compress("a.h5", "--force", *recipe)
            good(["compress", "separate.yaml", "-o", "s.h5", "-q", "--force", *recipe], cwd=folder)
            for ranks in (2, 3):
                zoo.compress("b.h5", "--force", *recipe, ranks=ranks)
                equal(read(f"{folder}/b.h5"), read(f"{folder}/a.h5"), f"archive of {ranks} ranks")
            good(["verify", "a.h5", "--base", "base"], cwd=folder)
            mine, theirs = (info(a, "one", cwd=folder)["tasks"][0]["tensors"] for a in ("a.h5", "s.h5"))
            mine, theirs = (sorted(([t for t in ts if t["policy"] != "absent"]), key=lambda t: t["name"]) for ts in (mine, theirs))
            equal(mine, theirs, "what is stored of the parts")
            want = fuse(kind, raw(zoo.restored("s.h5", f"s-{out}", "--task", "one")), names)
            whole = zoo.restored("a.h5", f"r-{out}", "--task", "one", ranks=turns(turn)[-1])
            equal({n: s for n, (_, s, _) in whole.items()}, {n: x.shape for n, x in zoo.fused.items()}, "names and shapes")
            equal({n: b for n, (_, _, b) in whole.items()}, {n: x.tobytes() for n, x in want.items()}, "bytes, beside the separate model's")
            if recipe:
                equal(hashes(f"{folder}/r-{out}"), hashes(f"{folder}/one"), "restored files")
            with deltazoo.open(f"{folder}/a.h5") as archive:
                archive.check()
                archive.restore_model("one", f"{folder}/base", f"{folder}/p-{out}")
                equal(read(f"{folder}/p-{out}/model.safetensors"), read(f"{folder}/r-{out}/model.safetensors"), "the Python reader's file")
                for n in zoo.fused:
                    equal(archive.restore_bytes("one", n, f"{folder}/base").tobytes(), whole[n][2], f"{n} of the Python reader")
        lossy = [t["name"] for t in mine if t["policy"] == "ultradelta"]
        wanted = [n for n, s in shapes_of("moe" if kind == "moe" else "dense", names).items() if len(s) == 2 and "embed" not in n]
        equal(sorted(lossy), sorted(wanted), f"lossy tensors ({dtype})")

    return with_scratch(test)


test_experts_in_a_stack = case("moe", 0)
test_experts_in_a_stack_in_bf16 = case("moe", 1, dtype="BF16")
test_experts_in_a_stack_of_another_type = case("moe", 0, dtype="F32", base_dtype="BF16")
test_experts_under_other_names = case("moe", 1, names=MIXTRAL, dtype="BF16")
test_qkv = case("qkv", 0)
test_gate_and_up = case("dense", 1, dtype="BF16")


def left_alone(what, **how):
    """Stored as new, with a note."""

    def test(folder):
        zoo = Zoo(folder, "moe", **how)
        zoo.manifest("one")
        planned = json.loads(good(["plan", "zoo.yaml", "--json"], cwd=folder).out)["tasks"][0]["tensors"]
        fused = {t["name"]: t["base"] for t in planned if "experts" in t["name"]}
        equal(fused, {n: None for n in zoo.fused if what in n} | {n: b for n, b in fused.items() if what not in n}, "bases")
        r = good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--recipe", "lossless"], cwd=folder)
        check(any("fused on one side and separate on the other" in n and what in n and "kept exactly, without the base" in n for n in r.lines("note")), f"no note: {r}")
        zoo.restored("a.h5", "r", "--task", "one")
        equal(hashes(f"{folder}/r"), hashes(f"{folder}/one"), "restored files")

    return with_scratch(test)


test_a_stack_of_another_model_is_left = left_alone("experts", related=False)
test_an_interleaved_stack_is_left = left_alone("gate_up_proj", interleaved=True)


@with_scratch
def test_plan_and_compress_say_it(folder):
    zoo = Zoo(folder, "moe")
    for command in (["plan", "zoo.yaml"], ["compress", "zoo.yaml", "-o", "a.h5"]):
        notes = [n for n in good(command, cwd=folder).lines("note") if "compared one by one" in n]
        check(len(notes) == 1 and "task 'one': 4 tensors" in notes[0] and "gate_up_proj' of 10" in notes[0], f"{notes}")
    r = good(["diff", "base", "one", "--json"], cwd=folder)
    same = json.loads(good(["diff", "base", "separate/one", "--json"], cwd=folder).out)
    mine = json.loads(r.out)
    check(mine["tensors"] and {k: v for k, v in mine.items() if isinstance(v, (int, float))} == {k: v for k, v in same.items() if isinstance(v, (int, float))}, f"{r}")
    del zoo


@with_scratch
def test_append_repack_and_other_commands(folder):
    zoo = Zoo(folder, "moe")
    zoo.manifest("two", file="two.yaml")
    good(["compress", "two.yaml", "-o", "a.h5", "-q"], cwd=folder)
    zoo.manifest("one", file="one.yaml")
    good(["compress", "one.yaml", "-o", "a.h5", "-q", "--append"], cwd=folder)
    whole = zoo.restored("a.h5", "r", "--task", "one")
    equal({n: s for n, (_, s, _) in whole.items()}, {n: x.shape for n, x in zoo.fused.items()}, "names and shapes")
    good(["repack", "a.h5", "-o", "b.h5", "--task", "one"], cwd=folder)
    good(["verify", "b.h5"], cwd=folder)
    zoo.restored("b.h5", "q", "--task", "one")
    equal(read(f"{folder}/q/model.safetensors"), read(f"{folder}/r/model.safetensors"), "after repack")
    good(["remove", "a.h5", "--task", "two"], cwd=folder)
    zoo.restored("a.h5", "q2", "--task", "one")
    equal(read(f"{folder}/q2/model.safetensors"), read(f"{folder}/r/model.safetensors"), "after remove")
    for command in (["info", "a.h5", "--task", "one"], ["export", "a.h5", "--task", "one", "-o", "e.safetensors"]):
        good(command, cwd=folder)
    # parts of a restore
    some = zoo.restored("a.h5", "some", "--task", "one", "--tensor", "*0.mlp.experts.gate_up_proj")
    equal(some, {n: whole[n] for n in some}, "one tensor")
    equal(sorted(some), ["model.layers.0.mlp.experts.gate_up_proj"], "one tensor")
    part = zoo.restored("a.h5", "part", "--task", "one", "--tensor", "*0.mlp.experts.1.up_proj.weight")
    at = 2 * INNER * WIDTH * 4
    equal([b for _, _, b in part.values()], [whole["model.layers.0.mlp.experts.gate_up_proj"][2][at + at // 2:2 * at]], "a part alone")
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "none", "--tensor", "*nothing*"], 2, "has no tensor that matches")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "sh", "-q", "--max-shard-size", "20KB"], cwd=folder)
    shards = {n: t for f in sorted(os.listdir(f"{folder}/sh")) if f.endswith(".safetensors") for n, t in st_parse(f"{folder}/sh/{f}").items()}
    equal(shards, whole, "tensors in new shards")
    half = zoo.restored("a.h5", "half", "--task", "one", "--dtype", "bf16")
    equal({n: (d, s) for n, (d, s, _) in half.items()}, {n: ("BF16", s) for n, (_, s, _) in whole.items()}, "in another type")
    for n, (_, _, b) in half.items():
        check(np.allclose(to_float(b, "BF16"), to_float(whole[n][2], "F32"), rtol=0.01, atol=1e-6), f"{n} in bf16")


@with_scratch
def test_sums_of_fused_and_separate_tasks(folder):
    zoo = Zoo(folder, "moe")
    zoo.compress("a.h5", "--recipe", "lossless")
    good(["compress", "separate.yaml", "-o", "s.h5", "-q", "--recipe", "lossless"], cwd=folder)
    for first, second in (("one", "two"), ("two", "one")):
        what = ["--task", f"{first}=0.6", "--task", f"{second}=0.4"]
        mine = zoo.restored("a.h5", f"a-{first}", *what, ranks=2)
        plain = {n: np.frombuffer(b, np.float32).reshape(s) for n, (_, s, b) in zoo.restored("s.h5", f"s-{first}", *what).items()}
        want = fuse("moe", plain, USUAL) if first == "one" else plain
        equal({n: b for n, (_, _, b) in mine.items()}, {n: x.tobytes() for n, x in want.items()}, f"sum led by {first}")


@pytest.mark.torch
@with_scratch
def test_torch_files_and_shards(folder):
    import torch
    zoo = Zoo(folder, "moe")
    state = {n: torch.from_numpy(x.copy()) for n, x in zoo.fused.items()}
    for n in state:  # a view whose elements are not in row-major order
        if n.endswith("gate_up_proj"):
            state[n] = state[n].transpose(1, 2).contiguous().transpose(1, 2)
    os.remove(f"{folder}/one/model.safetensors")
    torch.save(state, f"{folder}/one/pytorch_model.bin")
    zoo.compress("a.h5", "--recipe", "lossless")
    zoo.compress("b.h5", "--recipe", "lossless", ranks=3)
    equal(read(f"{folder}/a.h5"), read(f"{folder}/b.h5"), "archives")
    whole = zoo.restored("a.h5", "r", "--task", "one")
    equal({n: b for n, (_, _, b) in whole.items()}, {n: x.tobytes() for n, x in zoo.fused.items()}, "from a .bin file")
    planned = json.loads(good(["plan", "zoo.yaml", "--json"], cwd=folder).out)["tasks"][0]["tensors"]
    check(all(t["base"] == t["name"] for t in planned) and len([t for t in planned if "experts" in t["name"]]) == 3 * EXPERTS * BLOCKS, f"parts have bases: {planned}")
    # two shards, each with fused tensors
    os.remove(f"{folder}/one/pytorch_model.bin")
    items = tensors(zoo.fused, "F32")
    cut = {"model-00001-of-00002.safetensors": items[:2], "model-00002-of-00002.safetensors": items[2:]}
    for name, part in cut.items():
        write(f"{folder}/one/{name}", st_bytes(part))
    weight_map = {n: f for f, part in cut.items() for n, *_ in part}
    write(f"{folder}/one/model.safetensors.index.json", json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    zoo.compress("a.h5", "--recipe", "lossless", "--force")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r2", "-q"], 2, cwd=folder)
    equal(hashes(f"{folder}/r2"), hashes(f"{folder}/one"), "restored shards")


@with_scratch
def test_a_part_of_a_pipeline(folder):
    zoo = Zoo(folder, "qkv")
    for name in ("base", "one"):
        data = read(f"{folder}/{name}/model.safetensors")
        os.remove(f"{folder}/{name}/model.safetensors")
        write(f"{folder}/{name}/unet/diffusion_pytorch_model.safetensors", data)
        write(f"{folder}/{name}/unet/config.json", "{}")
        write(f"{folder}/{name}/model_index.json", '{"_class_name": "P", "unet": ["diffusers", "U"]}')
    zoo.manifest("one")
    zoo.compress("a.h5", "--recipe", "lossless")
    planned = json.loads(good(["plan", "zoo.yaml", "--json"], cwd=folder).out)["tasks"][0]["tensors"]
    check(planned and all(t["base"] == t["name"] and t["name"].startswith("unet/") for t in planned), f"{planned}")
    for out, more in (("r", []), ("r2", ["--max-shard-size", "1KB"])):
        good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", out, "-q", *more], cwd=folder)
        equal(hashes(f"{folder}/{out}"), hashes(f"{folder}/one"), f"restored files {more}")
    half = good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "h", "-q", "--dtype", "bf16"], cwd=folder)
    names = {n: s for n, (_, s, _) in st_parse(f"{folder}/h/unet/diffusion_pytorch_model.safetensors").items()}
    equal(names, {n: x.shape for n, x in zoo.fused.items()}, f"in another type: {half}")
    with deltazoo.open(f"{folder}/a.h5") as archive:
        archive.check()
        archive.restore_model("one", f"{folder}/base", f"{folder}/p")
    equal(hashes(f"{folder}/p"), hashes(f"{folder}/one"), "the Python reader's files")

"""What servers load: adapters, patches, recipes of mergekit."""
import json
import os
import sys

import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(__file__))
from common import EMBED, NORM, Q, SmallZoo, call, check, equal, good, hashes, read, refused, run, st_bytes, st_parse, tiny_zoo, to_float, with_scratch, write
from live_models import is_like, model_of
from package import load, site
from test_package import TINY_Q, fails, raw, zoo_of


@pytest.fixture(scope="module")
def dz():
    return load()


# -------------------------------------------------------------------------------------------------------------------------------------- adapters


def adapter(folder, zoo, rank, *more, ranks=1, out="l", archive="a.h5", task="task-1"):
    return good(["export", archive, "--task", task, "--base", f"{zoo}/base", "--format", "lora", "--rank", rank, "-o", out, "-q", *more], ranks, cwd=folder)


def deltas_of(dz, archive, zoo, task="task-1"):
    with dz.open(archive) as z:
        return {t.name: z.delta(task, t.name, f"{zoo}/base") for t in z.tensors(task) if t.policy not in ("equal", "drop", "tied") and z.base_of(task, t.name)}


@pytest.mark.parametrize("recipe,dtype", [("ultradelta", "bf16"), ("lossless", "f32"), ("auto", "f16")])
def test_an_adapter_is_the_best_of_its_rank(dz, folder, recipe, dtype):
    zoo, archive, _ = zoo_of(recipe, dtype, 2)
    rank = 8
    r = adapter(folder, zoo, rank, archive=archive)
    weights, deltas = st_parse(f"{folder}/l"), deltas_of(dz, archive, zoo)
    config = json.loads(read(f"{folder}/l/adapter_config.json"))
    equal((config["peft_type"], config["r"], config["lora_alpha"], config["bias"], config["fan_in_fan_out"]), ("LORA", rank, rank, "none", False), "config")
    equal(sorted(config["target_modules"]), ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"], "modules")
    kept = energy = everything = 0
    modules = {name[len("base_model.model."):-len(".lora_A.weight")] for name in weights if name.endswith("lora_A.weight")}
    equal(modules, {name[:-len(".weight")] for name in deltas if "layers" in name and name.endswith("_proj.weight")}, "linear layers")
    for name, delta in deltas.items():
        everything += (delta.astype(np.float64) ** 2).sum()
        if name[:-len(".weight")] not in modules:
            continue
        (kind, (r_, inputs), a), (_, (outputs, r2), b) = (weights[f"base_model.model.{name[:-len('.weight')]}.lora_{x}.weight"] for x in "AB")
        equal((r_, r2, outputs, inputs, kind), (rank, rank, *delta.shape, {"bf16": "BF16", "f16": "F16", "f32": "F32"}[dtype]), name)
        product = to_float(b, kind).reshape(outputs, rank).astype(np.float64) @ to_float(a, kind).reshape(rank, inputs)
        s = np.linalg.svd(delta.astype(np.float64), compute_uv=False) ** 2
        left = ((delta - product) ** 2).sum()
        check(left <= (s[rank:].sum() * 1.04 + s.sum() * 1e-4), f"{name}: {left} is left, at best {s[rank:].sum()} of {s.sum()}")
        kept += s.sum() - left
        energy += s.sum()
    first, second = (float(x) for x in (r.out.split("energy kept: ")[1].split(" %")[0], r.out.split(",\n")[-1].split(" %")[0]))
    check(abs(first - 100 * kept / energy) < 0.3 and abs(second - 100 * kept / everything) < 0.3, f"{first}, {second}: {100 * kept / energy}, {100 * kept / everything}")
    check(any(EMBED.split(".")[-2] in n or "lm_head" in n for n in r.lines("note")) and any("linear layers only" in n for n in r.lines("note")), f"{r}")


def test_an_adapter_has_the_same_bytes_for_any_ranks_and_instruction_set(folder):
    zoo, archive, _ = zoo_of()
    for k, (ranks, kernels) in enumerate([(1, "portable"), (3, ""), (7, "avx2")]):
        good(["export", archive, "--task", "task-1", "--base", f"{zoo}/base", "--format", "lora", "--rank", 4, "-o", f"l{k}", "-q"], ranks, cwd=folder,
             env={"DZ_KERNELS": kernels} if kernels else None)
    equal(hashes(f"{folder}/l1"), hashes(f"{folder}/l0"), "3 ranks")
    equal(hashes(f"{folder}/l2"), hashes(f"{folder}/l0"), "7 ranks")


def test_a_true_low_rank_change_is_kept_whole(dz, folder):
    """A merged adapter comes back: rank 2, exact, in f32; only two of the layers changed, which are named in full."""
    zoo = tiny_zoo("f32")
    base = st_parse(f"{zoo}/base")
    rng = np.random.default_rng(5)
    tensors = {name: (kind, shape, data) for name, (kind, shape, data) in base.items()}
    up = TINY_Q.replace("self_attn.q_proj", "mlp.up_proj")
    for name in (TINY_Q, up):
        kind, shape, data = base[name]
        change = rng.normal(0, 0.02, (shape[0], 2)) @ rng.normal(0, 1, (2, shape[1]))
        tensors[name] = (kind, shape, (np.frombuffer(data, "<f4").reshape(shape) + change).astype("<f4").tobytes())
    write(f"{folder}/tuned/model.safetensors", st_bytes([(n, *t) for n, t in tensors.items()], {"format": "pt"}))
    write(f"{folder}/zoo.yaml", f"base: {zoo}/base\ntasks:\n  - {{name: tuned, path: tuned}}\n")
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--recipe", "lossless"], cwd=folder)
    r = adapter(folder, zoo, 4, task="tuned")
    check("energy kept: 100.0 %" in r.out and not r.lines("note"), f"{r}")
    equal(sorted(json.loads(read(f"{folder}/l/adapter_config.json"))["target_modules"]), sorted([TINY_Q[:-7], up[:-7]]), "modules, in full")
    weights = st_parse(f"{folder}/l")
    for name in (TINY_Q, up):
        a, b, old, new = (np.frombuffer(data, "<f4").reshape(shape) for _, shape, data in (
            weights[f"base_model.model.{name[:-7]}.lora_A.weight"], weights[f"base_model.model.{name[:-7]}.lora_B.weight"], base[name], tensors[name]))
        error = new - old - b @ a
        check(np.abs(error).max() < 1e-5, f"{name}: {np.abs(error).max()}")


@with_scratch
def test_layers_named_as_experts_are_warned_of(folder):
    """peft leaves them or the experts out when it converts an adapter for transformers 5: the dense first layer and shared experts."""
    rng = np.random.default_rng(6)
    layers = {f"model.layers.{k}.{part}.weight" for k in (0, 1) for part in ("self_attn.q_proj",)}
    experts = {f"model.layers.1.mlp.experts.{k}.up_proj.weight" for k in (0, 1)}
    beside = {"model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.shared_experts.up_proj.weight"}

    def export(names, *more):
        base = {n: rng.standard_normal((16, 12), dtype=np.float32) for n in sorted(names)}
        tuned = {n: x + rng.standard_normal((16, 1), dtype=np.float32) @ rng.standard_normal((1, 12), dtype=np.float32) for n, x in base.items()}
        for folder_, model in (("base", base), ("tuned", tuned)):
            write(f"{folder}/{folder_}/model.safetensors", st_bytes([(n, "F32", x.shape, x.tobytes()) for n, x in model.items()], {"format": "pt"}))
        write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: tuned, path: tuned}\n")
        good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--recipe", "lossless", "--force"], cwd=folder)
        return good(["export", "a.h5", "--task", "tuned", "--base", "base", "--format", "lora", "--rank", 2, "-o", "l", "-q", "--force", *more], 2, cwd=folder)

    for names in (layers | experts, layers | beside):
        check(not export(names).lines("warning"), f"{names}")
    for n, more in ((2, []), (1, ["--tensor", "*shared_experts*"])):
        warned = export(layers | experts | beside, *more).lines("warning")
        check(len(warned) == 1 and f"{n} layer" in warned[0] and "transformers 5" in warned[0], f"{warned}")


@with_scratch
def test_adapters_refused(folder):
    zoo, archive, _ = zoo_of()
    export = ["export", archive, "--task", "task-1"]
    refused(folder, [*export, "--format", "lora", "-o", "l"], 2, "--rank")
    refused(folder, [*export, "--format", "lora", "--rank", "0", "-o", "l"], 2, "--rank")
    refused(folder, [*export, "--format", "lora", "--rank", "4000", "-o", "l"], 2, "4000", "1024")
    refused(folder, [*export, "--rank", "4", "-o", "l"], 2, "--rank")
    refused(folder, [*export, "--format", "lora", "--rank", "4", "--tensor", "*norm*", "-o", "l"], 2, "*norm*", "no linear layer")
    os.mkdir(f"{folder}/full")
    write(f"{folder}/full/notes", "mine")
    refused(folder, [*export, "--format", "lora", "--rank", "4", "-o", "full"], 2, "full", "adapter_model.safetensors")
    adapter(folder, zoo, 4, archive=archive)
    refused(folder, [*export, "--format", "lora", "--rank", "4", "-o", "l"], 2, "--force")
    before = hashes(f"{folder}/l")
    adapter(folder, zoo, 8, "--force", archive=archive)
    check(hashes(f"{folder}/l") != before and sorted(os.listdir(f"{folder}/l")) == ["adapter_config.json", "adapter_model.safetensors"], "not replaced")
    r = run([*export, "--format", "lora", "--rank", "4", "-o", "w", "--base", f"{zoo}/task-2"], 3, cwd=folder)
    check(r.code == 1 and "not the base" in r.err and not os.path.exists(f"{folder}/w"), f"{r}")


# --------------------------------------------------------------------------------------------------------------------------------------- patches


def tensors_of(path):
    from safetensors.torch import load_file
    return load_file(f"{path}/model.safetensors")


@pytest.mark.torch
@pytest.mark.parametrize("recipe,dtype", [("ultradelta", "bf16"), ("lossless", "bf16"), ("ultradelta", "f32"), ("auto", "f16")])
def test_a_patched_base_is_the_restored_model(dz, folder, recipe, dtype):
    zoo, archive, restored = zoo_of(recipe, dtype, 2)
    r = good(["export", archive, "--task", "task-2", "--base", f"{zoo}/base", "--format", "patch", "-o", "p.safetensors", "-q"], 3, cwd=folder)
    patch = dz.open_patch(f"{folder}/p.safetensors")
    equal(patch.task, "task-2", "task")
    base, theirs = tensors_of(f"{zoo}/base"), tensors_of(restored["task-2"])
    equal((patch.base_fingerprint, patch.target_fingerprint), (dz.fingerprint(base), dz.fingerprint(theirs)), "fingerprints")
    with dz.open(archive) as z:
        equal(patch.base_fingerprint, z.base.fingerprint, "the archive's base")
    for t in patch:
        old, new = (np.frombuffer(raw(x[t.name]), t.values.dtype) for x in (base, theirs))
        equal(t.shape, tuple(theirs[t.name].shape), "shape")
        if t.indices is not None:
            check(t.indices.dtype == np.int32 and np.array_equal(t.indices, np.flatnonzero(old != new)) and np.array_equal(t.values, new[old != new]), t.name)
    changed = sum(np.count_nonzero(np.frombuffer(raw(base[n]), np.uint8).reshape(-1, base[n].element_size()) != np.frombuffer(raw(t), np.uint8).reshape(-1, t.element_size()))
                  > 0 for n, t in theirs.items())
    equal(len(patch), changed, "tensors that change")
    if recipe == "ultradelta":
        check(os.path.getsize(f"{folder}/p.safetensors") < 0.5 * os.path.getsize(f"{restored['task-2']}/model.safetensors"), "not small")
    model = model_of(f"{zoo}/base")
    patch.apply(model)
    check(is_like(model, restored["task-2"]), "a live model")
    patch.apply(base)
    check(all(raw(base[n]) == raw(theirs[n]) for n in theirs), "a dict")
    fails(dz, lambda: patch.apply(model), "not the base of this patch", patch.base_fingerprint)
    wrong = tensors_of(f"{zoo}/task-1")
    before = {n: raw(t) for n, t in wrong.items()}
    fails(dz, lambda: patch.apply(wrong), "not the base of this patch")
    equal({n: raw(t) for n, t in wrong.items()}, before, "the wrong base")
    check("% of the elements differ" in r.out, r.out)


def test_a_patch_has_the_same_bytes_for_any_ranks(folder):
    zoo, archive, _ = zoo_of()
    for ranks in (1, 3, 7):
        good(["export", archive, "--task", "task-1", "--base", f"{zoo}/base", "--format", "patch", "-o", f"p{ranks}.safetensors", "-q"], ranks, cwd=folder)
    equal(read(f"{folder}/p3.safetensors"), read(f"{folder}/p1.safetensors"), "3 ranks")
    equal(read(f"{folder}/p7.safetensors"), read(f"{folder}/p1.safetensors"), "7 ranks")


@pytest.mark.torch
def test_patches_of_models_with_other_tensors(dz, folder):
    """A tensor more, one less, a longer one; a few elements that change, NaN and signs of zero among them."""
    import torch
    from safetensors.torch import load_file, save_file
    zoo = SmallZoo(folder)
    base = load_file(f"{folder}/base/model.safetensors")
    task = {n: t.clone() for n, t in base.items()}
    q = task[Q].reshape(-1)
    q[3], q[5], q[8] = float("nan"), -0.0, 7.0
    base[Q].reshape(-1)[5] = 0.0
    task["more.weight"] = torch.arange(6.0).reshape(2, 3)
    task[EMBED] = torch.cat([task[EMBED], torch.ones(2, task[EMBED].shape[1])])
    del task[NORM]
    save_file(base, f"{folder}/base/model.safetensors")
    save_file(task, f"{folder}/one/model.safetensors")
    zoo.manifest("one")
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--recipe", "lossless"], cwd=folder)
    good(["export", "a.h5", "--task", "one", "--base", "base", "--format", "patch", "-o", "p.safetensors", "-q"], 2, cwd=folder)
    patch = dz.open_patch(f"{folder}/p.safetensors")
    listed = {t.name: t for t in patch}
    equal(sorted(listed), sorted([Q, "more.weight", EMBED]), "tensors")
    equal(listed[Q].indices.tolist(), [3, 5, 8], "positions")
    check(listed[EMBED].indices is None and listed["more.weight"].indices is None, "whole ones")
    equal(patch.removed, [NORM], "removed")
    model = {n: t.clone() for n, t in base.items()}
    del model[EMBED]
    fails(dz, lambda: patch.apply(model), "not the base")
    model = {n: t.clone() for n, t in base.items()}
    patch.apply(model)
    equal({n: raw(t) for n, t in model.items()}, {n: raw(t) for n, t in task.items()}, "the task")
    arrays = {n: t.numpy().copy() for n, t in base.items()}
    patch.apply(arrays)
    equal({n: t.tobytes() for n, t in arrays.items()}, {n: raw(t) for n, t in task.items()}, "as numpy arrays")


@with_scratch
def test_patches_refused(folder):
    dz = load()
    zoo, archive, _ = zoo_of()
    export = ["export", archive, "--task", "task-1", "--format", "patch", "-o", "p"]
    refused(folder, export, 2, "--base")
    refused(folder, [*export, "--base", f"{zoo}/base", "--tensor", "*"], 2, "--tensor")
    r = run([*export, "--base", f"{zoo}/task-2"], 3, cwd=folder)
    check(r.code == 1 and "not the base" in r.err and not os.listdir(folder), f"{r} {os.listdir(folder)}")
    good([*export, "--base", f"{zoo}/base", "-q"], cwd=folder)
    refused(folder, [*export, "--base", f"{zoo}/base"], 2, "p", "--force")
    data = read(f"{folder}/p")
    for text in (b"", data[:100], data[:-5], b"x" * 1000, data.replace(b'\\"form\\":\\"patch\\"', b'\\"form\\":\\"other\\"')):
        write(f"{folder}/bad", text)
        fails(dz, lambda: dz.open_patch(f"{folder}/bad"), "bad")
    fails(dz, lambda: dz.open_patch(f"{zoo}/base/model.safetensors"), "not a patch")


# -------------------------------------------------------------------------------------------------------------------------------------- mergekit


def test_recipes_of_mergekit(dz, folder):
    """The folders of a recipe are the originals byte for byte where lossless, so that any merge of them is the originals'."""
    zoo, archive, restored = zoo_of("lossless", "bf16", 2)
    os.symlink(archive, f"{folder}/zoo.h5")
    write(f"{folder}/recipe.yaml", f"""merge_method: linear
models:
  - model: zoo.h5:task-1
    parameters: {{weight: 0.7}}
  - model: "zoo.h5:task-2"  # the other
    parameters: {{weight: 0.3}}
base_model: {zoo}/base
dtype: bfloat16
""")
    code, out, err = call([sys.executable, "-m", "deltazoo", "mergekit", "zoo.h5", "recipe.yaml", "--base", f"{zoo}/base", "-o", "work"], cwd=folder, env={"PYTHONPATH": site()})
    check(code == 0 and "task-1, task-2 restored" in out, out + err)
    text = read(f"{folder}/work/recipe.yaml").decode()
    paths = [f"{folder}/work/task-{k}" for k in (1, 2)]
    check(f"model: {paths[0]}\n" in text and f'model: "{paths[1]}"  # the other' in text and "zoo.h5" not in text and f"base_model: {zoo}/base" in text, text)

    def merged(folders):
        a, b = (st_parse(path) for path in folders)
        return {n: (np.float32(0.7) * to_float(a[n][2], a[n][0]) + np.float32(0.3) * to_float(b[n][2], b[n][0])).tobytes() for n in a}

    equal(merged(paths), merged([f"{zoo}/task-1", f"{zoo}/task-2"]), "a linear merge")
    for path, original in zip(paths, (f"{zoo}/task-1", f"{zoo}/task-2")):
        equal(hashes(path), hashes(original), "files")
    code, out, err = call([sys.executable, "-m", "deltazoo", "mergekit", "zoo.h5", "recipe.yaml", "--base", f"{zoo}/base", "-o", "work"], cwd=folder, env={"PYTHONPATH": site()})
    check(code == 0, "once more: " + out + err)
    write(f"{folder}/bad.yaml", "models:\n  - model: zoo.h5:task-9\n")
    code, out, err = call([sys.executable, "-m", "deltazoo", "mergekit", "zoo.h5", "bad.yaml", "--base", f"{zoo}/base", "-o", "x"], cwd=folder, env={"PYTHONPATH": site()})
    check(code == 1 and "zoo.h5:task-9" in err and "task-1, task-2" in err and not os.path.exists(f"{folder}/x"), out + err)

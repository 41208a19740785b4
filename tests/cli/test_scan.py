"""scan: which models of a folder share a base."""
import json
import os
import shutil

import numpy as np

from common import (EMBED, Q, check, equal, good, read, refused, small_model, st_bytes, to_dtype, to_float, with_scratch, write)

SHAPES = {EMBED: (300, 32), Q: (48, 32), "model.layers.0.mlp.up_proj.weight": (64, 32), "model.norm.weight": (32,)}


def put(folder, name, model):
    write(f"{folder}/{name}/model.safetensors", st_bytes(model, {"format": "pt"}))
    write(f"{folder}/{name}/config.json", "{}")


def tune(base, seed, scale=1e-3, dtype=None, prefix="", rows=0):
    """A fine-tuned model: other values, and what else fine-tuning changes."""
    model = small_model(seed, base[0][1], SHAPES, base, scale)
    if dtype:
        model = [(n, dtype, s, to_dtype(to_float(b, d), dtype)) for n, d, s, b in model]
    if rows:
        n, d, s, b = model[0]
        model[0] = (n, d, (s[0] + rows, s[1]), b + bytes(len(b) // s[0] * rows))
    return [(prefix + n, *rest) for n, *rest in model]


def family(folder, names, seed):
    base = small_model(seed, "F32", SHAPES)
    put(folder, names[0], base)
    for i, name in enumerate(names[1:]):
        put(folder, name, tune(base, 100 * seed + i, 1e-3 * (1 + i), *((None, "", 0), ("BF16", "", 1), (None, "module.", 0))[i % 3]))


def manifest(path):
    """The base and {name: path} of a manifest that scan wrote."""
    lines = read(path).decode().splitlines()
    base = [line.split(": ", 1)[1] for line in lines if line.startswith("base: ")]
    tasks = [line.strip()[3:-1].split(", ", 1) for line in lines if line.startswith("  - {")]
    return json.loads(base[0]), {json.loads(n.split(": ", 1)[1]): json.loads(p.split(": ", 1)[1]) for n, p in tasks}


@with_scratch
def test_two_bases_and_five_fine_tuned_models_give_two_manifests(folder):
    family(f"{folder}/zoo", ["alpha", "a-one", "a-two", "a-three"], 1)
    family(f"{folder}/zoo", ["omega", "o-one", "o-two"], 2)
    outs = []
    for ranks in (1, 3):
        outs.append(good(["scan", "zoo", "-o", "z.yaml", "--force"], ranks, cwd=folder).out)
        equal(sorted(f for f in os.listdir(folder) if f != "zoo"), ["z-alpha.yaml", "z-omega.yaml"], "files")
        equal(manifest(f"{folder}/z-alpha.yaml"), ("zoo/alpha", {n: f"zoo/{n}" for n in ("a-one", "a-three", "a-two")}), "first manifest")
        equal(manifest(f"{folder}/z-omega.yaml"), ("zoo/omega", {n: f"zoo/{n}" for n in ("o-one", "o-two")}), "second manifest")
    equal(outs[0], outs[1], "what 1 and 3 ranks say")
    check("z-alpha.yaml: base alpha, 3 tasks" in outs[0] and "z-omega.yaml: base omega, 2 tasks" in outs[0], outs[0])
    for name in "alpha", "omega":
        good(["compress", f"z-{name}.yaml", "-o", f"{name}.h5", "-q", "--set", "sparsity=0.5"], 3, cwd=folder)
    refused(folder, ["scan", "zoo", "-o", "z.yaml"], 2, "z-alpha.yaml", "z-omega.yaml", lines=2)
    told = json.loads(good(["scan", "zoo", "-o", "w.yaml", "--json"], cwd=folder).out)
    equal([(z["manifest"], z["base"]["name"], [t["name"] for t in z["tasks"]]) for z in told["zoos"]],
          [("w-alpha.yaml", "alpha", ["a-one", "a-three", "a-two"]), ("w-omega.yaml", "omega", ["o-one", "o-two"])], "JSON")
    check(all(0.01 < t["distance"] < 0.4 for z in told["zoos"] for t in z["tasks"]), f"distances: {told}")


@with_scratch
def test_one_base_gives_the_manifest_itself_and_strangers_are_told(folder):
    family(f"{folder}/zoo", ["base", "one", "two"], 1)
    put(f"{folder}/zoo", "stranger", small_model(9, "F32", SHAPES))
    put(f"{folder}/zoo", "other-shape", small_model(9, "F32", {"x.weight": (30, 30)}))
    write(f"{folder}/zoo/broken/model.safetensors", b"too short")
    write(f"{folder}/zoo/notes/readme.txt", "no model")
    for ranks in (1, 3):
        r = good(["scan", "zoo", "-o", "out.yaml", "--force"], ranks, cwd=folder)
        equal(manifest(f"{folder}/out.yaml"), ("zoo/base", {"one": "zoo/one", "two": "zoo/two"}), "manifest")
        notes = r.lines("note")
        for name in ("stranger", "other-shape", "broken/model.safetensors"):
            check(sum(name in n for n in notes) == 1, f"no note about {name}: {notes}")
        equal(len(notes), 3, f"notes {notes}")


@with_scratch
def test_base_is_forced_or_guessed_for_two_models(folder):
    base = small_model(1, "F32", SHAPES)
    put(folder + "/zoo", "b", base)
    put(folder + "/zoo", "a", tune(base, 2, rows=3))
    r = good(["scan", "zoo", "-o", "out.yaml"], cwd=folder)
    equal(manifest(f"{folder}/out.yaml"), ("zoo/b", {"a": "zoo/a"}), "the smaller one is the base")
    check(any("--base" in n for n in r.lines("note")), f"no note tells of the choice: {r}")
    r = good(["scan", "zoo", "-o", "out.yaml", "--base", "a", "--force"], 3, cwd=folder)
    equal(manifest(f"{folder}/out.yaml"), ("zoo/a", {"b": "zoo/b"}), "the forced one is the base")
    check(not r.lines("note"), f"notes: {r}")
    good(["scan", "zoo", "-o", "out.yaml", "--base", "zoo/a", "--force"], cwd=folder)
    equal(manifest(f"{folder}/out.yaml")[0], "zoo/a", "base by its path")
    refused(folder, ["scan", "zoo", "-o", "new.yaml", "--base", "nobody"], 2, "nobody")


@with_scratch
def test_hub_cache_and_single_files_are_models(folder):
    base = small_model(1, "F32", SHAPES)
    write(f"{folder}/zoo/base.safetensors", st_bytes(base))
    write(f"{folder}/zoo/tuned.v2.safetensors", st_bytes(tune(base, 2)))
    hub = f"{folder}/zoo/models--org--name"
    write(f"{hub}/blobs/aaaa", st_bytes(tune(base, 3)))
    write(f"{hub}/refs/main", "1234")
    os.makedirs(f"{hub}/snapshots/1234")
    os.symlink("../../blobs/aaaa", f"{hub}/snapshots/1234/model.safetensors")
    os.symlink("models--org--name", f"{folder}/zoo/the-same")
    r = good(["scan", "zoo", "-o", "zoo/out.yaml"], 3, cwd=folder)
    equal(manifest(f"{folder}/zoo/out.yaml"),
          ("base.safetensors", {"tuned.v2": "tuned.v2.safetensors", "org--name": "models--org--name/snapshots/1234"}), "manifest")
    check(any("are one model" in n for n in r.lines("note")), f"no note tells of the link: {r}")
    good(["compress", "zoo/out.yaml", "-o", "a.h5", "-q"], cwd=folder)


@with_scratch
def test_scan_of_what_is_no_zoo_is_refused(folder):
    put(folder + "/lone", "a", small_model(1, "F32", SHAPES))
    put(folder + "/lone", "b", small_model(2, "F32", SHAPES))
    os.makedirs(f"{folder}/empty")
    refused(folder, ["scan", "lone", "-o", "z.yaml"], 1, "no two of its 2 models", ranks=(1, 3))
    refused(folder, ["scan", "empty", "-o", "z.yaml"], 1, "empty", "no model")
    refused(folder, ["scan", "nowhere", "-o", "z.yaml"], 1, "nowhere")
    refused(folder, ["scan", "lone/a", "-o", "z.yaml"], 2, "lone/a", "is a model")
    refused(folder, ["scan", "lone"], 2, "-o")
    refused(folder, ["scan", "lone", "-o", "nowhere/z.yaml"], 2, "nowhere/z.yaml")


def found(folder, *more, ranks=1):
    """The base and {name: path} that a scan of folder/zoo finds, and its notes."""
    r = good(["scan", "zoo", "-o", "out.yaml", "--force", *more], ranks, cwd=folder)
    return *manifest(f"{folder}/out.yaml"), r.lines("note")


def told(notes, *words):
    """Exactly one note has all the words."""
    equal(sum(all(w in n for w in words) for n in notes), 1, f"notes with {words} among {notes}")


# ------------------------------------------------------------------------------------------------------------------- quantised copies

LAYERS = [f"model.layers.{i}.{part}.weight" for i in (0, 1) for part in ("self_attn.q_proj", "mlp.up_proj")]
QUANTISABLE = {EMBED: (300, 32), **{name: (48, 32) for name in LAYERS}, "model.norm.weight": (32,), "lm_head.weight": (300, 32)}


def int8(name, shape, x):
    """bitsandbytes, 8 bits."""
    scale = np.abs(x).max(1)
    return [(name, "I8", shape, np.rint(x / scale[:, None] * 127).astype(np.int8).tobytes()), (name[:-6] + "SCB", "F32", shape[:1], scale.tobytes())]


def nf4(name, shape, x):
    """bitsandbytes, 4 bits: packed, one column."""
    return [(name, "U8", (x.size // 2, 1), bytes(x.size // 2)), (name + ".absmax", "F32", (x.size // 64,), bytes(x.size // 16))]


def gptq(name, shape, x):
    return [(name[:-6] + "qweight", "I32", (shape[1] // 8, shape[0]), bytes(x.size // 2)),
            (name[:-6] + "scales", "F16", (1, shape[0]), to_dtype(np.abs(x).max(1), "F16"))]


def f8(name, shape, x):
    scale = np.abs(x).max() / 448
    return [(name, "F8_E4M3", shape, to_dtype(x / scale, "F8_E4M3")), (name + "_scale", "F32", (1, 1), np.float32(scale).tobytes())]


def quantised(model, how, names=LAYERS):
    out = []
    for name, dtype, shape, data in model:
        out += how(name, shape, to_float(data, dtype).reshape(shape)) if name in names else [(name, dtype, shape, data)]
    return out


def quantisable_family(folder):
    """zeta and three fine-tuned models whose embeddings and heads hardly move."""
    family_of = {"zeta": small_model(1, "F32", QUANTISABLE)}
    for i, name in enumerate(("one", "three", "two")):
        tuned = small_model(2 + i, "F32", QUANTISABLE, family_of["zeta"], 1e-3)
        family_of[name] = [t if t[0] in LAYERS else (*b[:3], to_dtype(to_float(b[3], "F32") * np.float32(1 + 1e-5 * (i + 1)), "F32"))
                           for t, b in zip(tuned, family_of["zeta"])]
    for name, model in family_of.items():
        put(f"{folder}/zoo", name, model)
    return family_of


@with_scratch
def test_quantised_copies_are_neither_base_nor_task(folder):
    models = quantisable_family(folder)
    want = ("zeta", ["one", "three", "two"])
    for copies in (["zeta-int8"], ["zeta-nf4"], ["zeta-gptq"], ["zeta-f8"], ["zeta-int8", "one-int8", "one-f8"]):
        for copy in copies:
            put(f"{folder}/zoo", copy, quantised(models[copy.split("-")[0]], {"int8": int8, "nf4": nf4, "gptq": gptq, "f8": f8}[copy.split("-")[1]]))
        for ranks in (1, 3):
            base, tasks, notes = found(folder, ranks=ranks)
            equal((os.path.basename(base), sorted(tasks)), want, f"base and tasks beside {copies}")
            for copy in copies:
                told(notes, copy, "neither a base nor a task")
            equal(len(notes), len(copies), f"notes {notes}")
        for copy in copies:
            shutil.rmtree(f"{folder}/zoo/{copy}")
    good(["compress", "out.yaml", "-o", "a.h5", "-q"], cwd=folder)


@with_scratch
def test_quantised_models_that_are_all_alike_still_share_a_base(folder):
    """A few layers are floats, as attention is beside packed experts: of these deltas can be made."""
    for name, model in quantisable_family(folder).items():
        put(f"{folder}/zoo", name, quantised(model, f8, LAYERS[1:]))
    base, tasks, notes = found(folder)
    equal((base, sorted(tasks), notes), ("zoo/zeta", ["one", "three", "two"], []), "base, tasks and notes")
    good(["compress", "out.yaml", "-o", "a.h5", "-q"], cwd=folder)


@with_scratch
def test_models_with_less_than_half_in_common_stay_apart(folder):
    """A tower that three models hold among much else is not their base."""
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(6)]
    for i, name in enumerate(("alpha", "beta", "gamma")):
        model = small_model(i, "F32", {n: (48, 32) for n in names})
        model[:2] = small_model(9, "F32", {n: (48, 32) for n in names[:2]})
        put(f"{folder}/zoo", name, model)
    put(f"{folder}/zoo", "tower", small_model(9, "F32", {n: (48, 32) for n in names[:2]}))
    refused(folder, ["scan", "zoo", "-o", "z.yaml"], 1, "no two of its 4 models")


@with_scratch
def test_a_chain_of_models_has_a_json_of_numbers(folder):
    """first and last overlap with the middle one, not with each other."""
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]
    middle = small_model(1, "F32", {n: (48, 32) for n in names})
    for name, part in (("middle", middle), ("first", middle[:2]), ("last", middle[2:])):
        put(f"{folder}/zoo", name, part)
    out = json.loads(good(["scan", "zoo", "-o", "z.yaml", "--json"], cwd=folder).out)
    equal([(z["base"]["name"], [(t["name"], t["distance_sum"]) for t in z["tasks"]]) for z in out["zoos"]], [("middle", [("first", None), ("last", None)])],
          "base, tasks and sums")


@with_scratch
def test_odd_names_survive_the_manifest(folder):
    for name in ("del\x7f", "c1\x85", "none\ufffe", "two\nlines", "quote\"'", "h\u00f6\U0001f600"):
        family(f"{folder}/zoo", ["base", name], 1)
        found(folder)
        good(["plan", "out.yaml"], cwd=folder)
        shutil.rmtree(f"{folder}/zoo")

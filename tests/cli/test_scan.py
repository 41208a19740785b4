"""scan: which models of a folder share a base."""
import io
import json
import os
import shutil
import struct
import zipfile

import numpy as np

from common import (DELTAZOO, EMBED, Q, Result, Skipped, call, check, equal, good, hashes, read, refused, small_model, st_bytes, to_dtype, to_float, with_scratch,
                    write)

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
    reported = json.loads(good(["scan", "zoo", "-o", "w.yaml", "--json"], cwd=folder).out)
    equal([(z["manifest"], z["base"]["name"], [t["name"] for t in z["tasks"]]) for z in reported["zoos"]],
          [("w-alpha.yaml", "alpha", ["a-one", "a-three", "a-two"]), ("w-omega.yaml", "omega", ["o-one", "o-two"])], "JSON")
    check(all(0.01 < t["distance"] < 0.4 for z in reported["zoos"] for t in z["tasks"]), f"distances: {reported}")


@with_scratch
def test_one_base_gives_the_manifest_itself_and_strangers_are_reported(folder):
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
    refused(folder, ["scan", "lone"], 1, "no two of its 2 models")
    refused(folder, ["scan", "lone", "-o", "nowhere/z.yaml"], 2, "nowhere/z.yaml")


def found(folder, *more, ranks=1):
    """The base and {name: path} that a scan of folder/zoo finds, and its notes."""
    r = good(["scan", "zoo", "-o", "out.yaml", "--force", *more], ranks, cwd=folder)
    return *manifest(f"{folder}/out.yaml"), r.lines("note")


def reported(notes, *words):
    """Exactly one note has all the words."""
    equal(sum(all(w in n for w in words) for n in notes), 1, f"notes with {words} among {notes}")


def torch_bytes(model):
    """What torch.save makes of a state dict of F32 tensors."""
    text = lambda t: b"X" + struct.pack("<I", len(t)) + t.encode()  # noqa: E731
    number = lambda n: b"J" + struct.pack("<i", n)  # noqa: E731
    numbers = lambda list_: b"(" + b"".join(map(number, list_)) + b"t"  # noqa: E731
    pickle, out = b"\x80\x02}(", io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for key, (name, _, shape, data) in enumerate(model):
            storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(key)) + text("cpu") + number(len(data) // 4) + b"tQ"
            strides = [int(np.prod(shape[i + 1:])) for i in range(len(shape))]
            pickle += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + numbers(shape) + numbers(strides) + b"\x89Nt" + b"R"
            file.writestr(f"archive/data/{key}", data)
        file.writestr("archive/data.pkl", pickle + b"u.")
        file.writestr("archive/version", b"3\n")
    return out.getvalue()


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
                reported(notes, copy, "neither a base nor a task")
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


# --------------------------------------------------------------------------------------------------------------------- finding models

def as_nobody(folder, args):
    """The program run by a user for whom permissions hold."""
    command = [DELTAZOO] + args
    if os.geteuid() == 0:
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chmod(folder, 0o777)
        if not shutil.which("setpriv") or call(user + ["test", "-x", DELTAZOO])[0] != 0:
            raise Skipped("no setpriv, or another user cannot reach the program")
        command = user + command
    code, out, err = call(command, cwd=folder)
    return Result(args, 1, [code], out, err, "")


@with_scratch
def test_unreadable_folders_are_reported_and_passed_over(folder):
    family(f"{folder}/zoo", ["base", "one", "two"], 1)
    os.makedirs(f"{folder}/zoo/closed", 0o000)
    os.makedirs(f"{folder}/zoo/deep/closed", 0o000)
    try:
        r = as_nobody(folder, ["scan", "zoo", "-o", "out.yaml"])
    finally:
        os.chmod(f"{folder}/zoo/closed", 0o700)
        os.chmod(f"{folder}/zoo/deep/closed", 0o700)
    equal((r.code, r.lines("error")), (0, []), "exit code and errors")
    equal(manifest(f"{folder}/out.yaml"), ("zoo/base", {"one": "zoo/one", "two": "zoo/two"}), "manifest")
    reported(r.lines("note"), "zoo/closed (Permission denied)")
    reported(r.lines("note"), "zoo/deep/closed (Permission denied)")
    if os.geteuid() == 0:
        os.makedirs(f"{folder}/locked")
        r = as_nobody(folder, ["scan", "zoo", "-o", "locked/out.yaml"])
        equal((r.code, len(r.lines("error"))), (1, 1), "exit code and errors")
        check("locked/out.yaml" in r.lines("error")[0] and "Permission denied" in r.lines("error")[0], f"{r}")


@with_scratch
def test_names_that_are_not_utf8_are_reported_and_passed_over(folder):
    family(f"{folder}/zoo", ["base", "one"], 1)
    os.rename(f"{folder}/zoo/one", os.fsencode(f"{folder}/zoo/") + b"caf\xe9")
    family(f"{folder}/zoo", ["base", "two"], 1)
    base, tasks, notes = found(folder)
    equal((base, tasks), ("zoo/base", {"two": "zoo/two"}), "manifest")
    reported(notes, "zoo/caf", "not UTF-8")


@with_scratch
def test_odd_names_survive_the_manifest(folder):
    for name in ("del\x7f", "c1\x85", "none\ufffe", "two\nlines", "quote\"'", "h\u00f6\U0001f600"):
        family(f"{folder}/zoo", ["base", name], 1)
        found(folder)
        good(["plan", "out.yaml"], cwd=folder)
        shutil.rmtree(f"{folder}/zoo")


@with_scratch
def test_single_pytorch_files_are_models_wherever_they_lie(folder):
    base = small_model(1, "F32", SHAPES)
    put(f"{folder}/zoo", "base", base)
    deep = "a/b/c/d/e/f"
    for i, path in enumerate(("meta/consolidated.00.pth", "plain/model.pt", "run/last.ckpt", "own/weights.bin", deep + "/model.safetensors")):
        tuned = tune(base, 10 + i)
        write(f"{folder}/zoo/{path}", st_bytes(tuned) if path.endswith("safetensors") else torch_bytes(tuned))
    write(f"{folder}/zoo/run/optimizer.pt", b"state")
    write(f"{folder}/zoo/run/training_args.bin", b"state")
    write(f"{folder}/zoo/meta/params.json", "{}")
    for ranks in (1, 3):
        got, tasks, notes = found(folder, ranks=ranks)
        equal(got, "zoo/base", "base")
        equal(tasks, {"meta": "zoo/meta", "plain": "zoo/plain/model.pt", "run": "zoo/run/last.ckpt", "own": "zoo/own/weights.bin",
                      deep.replace("/", "-"): "zoo/" + deep}, "tasks")
        equal(notes, [], "notes")
    good(["compress", "out.yaml", "-o", "a.h5", "-q"], cwd=folder)
    good(["restore", "a.h5", "--task", "run", "--base", "zoo/base", "-o", "run"], cwd=folder)


@with_scratch
def test_what_is_no_model_is_reported_with_its_reason(folder):
    family(f"{folder}/zoo", ["base", "one"], 1)
    other = st_bytes(small_model(5, "F32", SHAPES))
    write(f"{folder}/zoo/parts/consolidated.00.pth", b"0")
    write(f"{folder}/zoo/parts/consolidated.01.pth", b"1")
    write(f"{folder}/zoo/lora/adapter_model.safetensors", other)
    write(f"{folder}/zoo/lora/adapter_config.json", "{}")
    write(f"{folder}/zoo/oldlora/adapter_model.bin", b"x")
    write(f"{folder}/zoo/oldlora/non_lora_trainables.bin", b"x")
    write(f"{folder}/zoo/chat/model.gguf", b"GGUF")
    write(f"{folder}/zoo/zero/optimizer.pt", b"x")
    write(f"{folder}/zoo/.trash/gone/model.safetensors", other)
    write(f"{folder}/zoo/.git/config", "no model")
    write(f"{folder}/zoo/restored.partial/model.safetensors", other)
    write(f"{folder}/zoo/one/original/consolidated.00.pth", b"x")
    write(f"{folder}/zoo/one/onnx/model.onnx", b"x")
    write(f"{folder}/zoo/one/global_step5/mp_rank_00_model_states.pt", b"x")
    write(f"{folder}/zoo/torn/model.safetensors.index.json", '{"weight_map": {"x": "model-00001-of-00001.safetensors"}}')
    os.symlink("nowhere", f"{folder}/zoo/dangling")
    os.mkfifo(f"{folder}/zoo/pipe.safetensors")
    os.makedirs(f"{folder}/zoo/empty.safetensors")
    base, tasks, notes = found(folder)
    equal((base, tasks), ("zoo/base", {"one": "zoo/one"}), "manifest")
    for words in (("zoo/parts: ", "parts of one model"), ("zoo/lora: ", "LoRA"), ("zoo/oldlora: ", "LoRA"), ("zoo/chat/model.gguf: ", "format"),
                  ("zoo/zero: ", "state of a training"), ("zoo/.trash/gone: ", "hidden"), ("zoo/restored.partial: ", "unfinished"), ("zoo/one/original/", "another format"),
                  ("zoo/torn/", "model-00001-of-00001.safetensors is missing"), ("zoo/dangling (No such file", "cannot be looked at"),
                  ("of two models", "base")):
        reported(notes, *words)
    equal(len(notes), 11, f"notes {notes}")


@with_scratch
def test_many_of_a_kind_are_reported_in_one_line(folder):
    family(f"{folder}/zoo", ["base", "one"], 1)
    for i in range(12):
        write(f"{folder}/zoo/lora-{i:02}/adapter_model.bin", b"x")
        write(f"{folder}/zoo/torn-{i:02}/model.safetensors", b"x")
    notes = found(folder)[2]
    reported(notes, "zoo/lora-00 and 11 more: ")
    reported(notes, "zoo/torn-00/model.safetensors", " and 11 more: ")
    equal(len(notes), 3, f"notes {notes}")


def adapter(folder, base, seed=1, card=False, name="adapter_model.safetensors"):
    """A LoRA as peft saves it; `base` is what it says to be of, in its configuration or its card."""
    value = np.full((4, 32), seed, "<f4").tobytes()
    write(f"{folder}/{name}", st_bytes([(f"base_model.{LAYERS[0][:-7]}.lora_{x}.weight", "F32", (4, 32), value) for x in "AB"], {"format": "pt"}))
    if card:
        write(f"{folder}/README.md", f"---\nbase_model: {base}\nlibrary_name: peft\n---\n")
    else:
        write(f"{folder}/adapter_config.json", json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))


@with_scratch
def test_adapters_are_tasks_of_the_base_that_they_name(folder):
    """By a hub's name, a path, a card; of a task: in the zoo of its base. Equal states of one training are one; of a model elsewhere it is left out."""
    family(f"{folder}/zoo", ["base", "one", "two"], 1)
    adapter(f"{folder}/zoo/chat", "org/base")
    adapter(f"{folder}/zoo/chat/checkpoint-3", "org/base")
    adapter(f"{folder}/zoo/chat/checkpoint-2", "org/base", 2)
    adapter(f"{folder}/zoo/math", f"{folder}/zoo/base/", 3)
    adapter(f"{folder}/zoo/more", "one", 4)
    adapter(f"{folder}/zoo/picture", "org/base", 5, card=True, name="pytorch_lora_weights.safetensors")
    adapter(f"{folder}/zoo/lost", "org/other", 6)
    for ranks in (1, 3):
        base, tasks, notes = found(folder, ranks=ranks)
        equal((base, sorted(tasks)), ("zoo/base", ["chat", "chat-checkpoint-2", "math", "more", "one", "picture", "two"]), "manifest")
        reported(notes, "zoo/lost (of org/other): ", "not among the models", "left out")
        reported(notes, "chat-checkpoint-3 (chat)", "equal")
    shown = json.loads(good(["scan", "zoo", "--json"], cwd=folder).out)["zoos"][0]
    equal({t["name"]: (t["kind"], t["distance"] is None) for t in shown["tasks"] if t["name"] in ("chat", "one")}, {"chat": ("adapter", True), "one": ("model", False)}, "kinds")
    check("adapter" in good(["scan", "zoo"], cwd=folder).out, "the table does not say which are adapters")
    good(["compress", "out.yaml", "-o", "a.h5", "-q"], 3, cwd=folder)
    good(["restore", "a.h5", "--task", "math", "--base", "zoo/base", "-o", "r", "-q"], cwd=folder)
    equal(hashes(f"{folder}/r"), hashes(f"{folder}/zoo/math"), "the restored adapter")


@with_scratch
def test_a_base_and_its_adapters_alone_are_a_zoo(folder):
    family(f"{folder}/zoo", ["base"], 1)
    adapter(f"{folder}/zoo/chat", "base")
    base, tasks, notes = found(folder)
    equal((base, tasks, notes), ("zoo/base", {"chat": "zoo/chat"}, []), "manifest and notes")
    good(["compress", "out.yaml", "-o", "a.h5", "-q"], cwd=folder)


@with_scratch
def test_checkpoints_inside_a_model_are_models_too(folder):
    base = small_model(1, "F32", SHAPES)
    put(f"{folder}/zoo", "base", base)
    for i, name in enumerate(("trainer", "trainer/checkpoint-500", "trainer/checkpoint-1000")):
        put(f"{folder}/zoo", name, tune(base, 2 + i))
    want = {"trainer": "zoo/trainer", "trainer-checkpoint-500": "zoo/trainer/checkpoint-500", "trainer-checkpoint-1000": "zoo/trainer/checkpoint-1000"}
    got, tasks, notes = found(folder)
    equal((got, tasks, notes), ("zoo/base", want, []), "manifest and notes")
    good(["scan", "zoo/trainer", "-o", "zoo/trainer/own.yaml", "--base", "trainer"], cwd=folder)
    equal(manifest(f"{folder}/zoo/trainer/own.yaml"),
          (".", {"checkpoint-500": "checkpoint-500", "checkpoint-1000": "checkpoint-1000"}), "manifest of the trainer's folder")
    good(["plan", "zoo/trainer/own.yaml"], cwd=folder)


@with_scratch
def test_links_neither_loop_nor_lead_out_nor_rename(folder):
    family(f"{folder}/zoo", ["zeta", "one", "two"], 1)
    family(f"{folder}/elsewhere", ["linked"], 1)
    put(folder, "outside", small_model(1, "F32", SHAPES))
    for i in range(8):
        os.symlink((".", "..", "../zoo", folder)[i % 4], f"{folder}/zoo/loop-{i}")
    os.symlink("..", f"{folder}/zoo/one/up")
    os.symlink("..", f"{folder}/elsewhere/linked/up")
    os.symlink("zeta", f"{folder}/zoo/alias")
    os.symlink("../elsewhere/linked", f"{folder}/zoo/linked")
    base, tasks, notes = found(folder, "--base", "zeta")
    equal((base, tasks), ("zoo/zeta", {"one": "zoo/one", "two": "zoo/two", "linked": "zoo/linked"}), "manifest")
    reported(notes, "zoo/loop-0 and 9 more: a link to a folder above it")
    reported(notes, "zoo/zeta and zoo/alias: are one model")
    equal(len(notes), 2, f"notes {notes}")


@with_scratch
def test_a_zoo_of_links_into_a_hidden_store_is_found(folder):
    family(f"{folder}/zoo/.store", ["base", "one"], 1)
    os.makedirs(f"{folder}/zoo/models/now")
    for name in ("base", "one"):
        os.symlink(f"../../.store/{name}", f"{folder}/zoo/models/now/{name}")
    base, tasks, notes = found(folder)
    equal((base, tasks), ("zoo/models/now/base", {"models-now-one": "zoo/models/now/one"}), "manifest")
    check(not any("hidden" in n for n in notes), f"notes {notes}")


@with_scratch
def test_two_snapshots_with_the_same_blobs_are_one_model(folder):
    base = small_model(1, "F32", SHAPES)
    put(f"{folder}/zoo", "base", base)
    hub = f"{folder}/zoo/models--org--name"
    write(f"{hub}/blobs/aaaa", st_bytes(tune(base, 3)))
    for revision in ("1234", "5678"):
        os.makedirs(f"{hub}/snapshots/{revision}")
        os.symlink("../../blobs/aaaa", f"{hub}/snapshots/{revision}/model.safetensors")
    write(f"{hub}/snapshots/5678/checkpoint-5/model.safetensors", st_bytes(tune(base, 4)))
    got, tasks, notes = found(folder)
    hub = "zoo/models--org--name/snapshots/"
    equal((got, tasks), ("zoo/base", {"org--name": hub + "1234", "org--name-checkpoint-5": hub + "5678/checkpoint-5"}), "manifest")
    reported(notes, hub + "1234 and " + hub + "5678: are one model")


# -------------------------------------------------------------------------------------------------------------- writing the manifests

@with_scratch
def test_a_place_that_is_not_there_is_reported_before_the_work(folder):
    family(f"{folder}/zoo", ["base", "one"], 1)
    refused(folder, ["scan", "zoo", "-o", "nodir/z.yaml"], 2, "nodir/z.yaml", "No such file or directory")


OLDER = "base: b\ntasks:\n  - {name: t, path: t}\n"


@with_scratch
def test_older_manifests_stay_until_all_new_ones_are_written(folder):
    family(f"{folder}/zoo", ["alpha", "a-one", "a-two"], 1)
    family(f"{folder}/zoo", ["omega", "o-one", "o-two"], 2)
    write(f"{folder}/z-alpha.yaml", OLDER)
    os.makedirs(f"{folder}/z-omega.yaml")
    refused(folder, ["scan", "zoo", "-o", "z.yaml", "--force"], 2, "z-omega.yaml", "not a regular file")
    os.rmdir(f"{folder}/z-omega.yaml")
    os.makedirs(f"{folder}/z-omega.yaml.partial")
    refused(folder, ["scan", "zoo", "-o", "z.yaml", "--force"], 1, "z-omega.yaml.partial")
    equal(read(f"{folder}/z-alpha.yaml"), OLDER.encode(), "the older manifest")
    os.rmdir(f"{folder}/z-omega.yaml.partial")
    os.rename(f"{folder}/z-alpha.yaml", f"{folder}/real.yaml")
    os.symlink("real.yaml", f"{folder}/z-alpha.yaml")
    write(f"{folder}/z-omega.yaml", OLDER)
    write(f"{folder}/z-omega.yaml.partial", OLDER[:9])
    with open(f"{folder}/z-omega.yaml", "rb") as reader:
        good(["scan", "zoo", "-o", "z.yaml", "--force"], cwd=folder)
        equal(reader.read(), OLDER.encode(), "what a reader of the older manifest sees")
    equal(manifest(f"{folder}/real.yaml")[0], "zoo/alpha", "the manifest that a link leads to")
    check(os.path.islink(f"{folder}/z-alpha.yaml"), "the link is no link any more")
    equal(sorted(os.listdir(folder)), ["real.yaml", "z-alpha.yaml", "z-omega.yaml", "zoo"], "files")


# --------------------------------------------------------------------------------------------------------------- which is the base

def trainer_output(folder):
    """A base, and what a training left: its states, the last one of which is the model itself."""
    base = small_model(1, "F32", SHAPES)
    steps = [tune(base, 2, 4e-4), tune(base, 2, 1e-3)]
    put(folder, "zoo/start", base)
    put(folder, "zoo/run", steps[1])
    for i, model in enumerate(steps):
        put(folder, f"zoo/run/checkpoint-{4 * i + 4}", model)
    return base


@with_scratch
def test_states_of_a_training_are_no_base_and_equal_models_are_stored_once(folder):
    trainer_output(folder)
    for ranks in 1, 3:
        r = good(["scan", "zoo", "-o", "z.yaml", "--force"], ranks, cwd=folder)
        equal(manifest(f"{folder}/z.yaml"), ("zoo/start", {"run": "zoo/run", "run-checkpoint-4": "zoo/run/checkpoint-4"}), "manifest")
        reported(r.lines("note"), "run-checkpoint-8 (run)", "is equal to another task: left out")
    good(["compress", "z.yaml", "-o", "a.h5", "-q", "--recipe", "lossless"], cwd=folder)


@with_scratch
def test_model_cards_and_configurations_name_the_base(folder):
    base = small_model(1, "F32", SHAPES)
    put(folder, "zoo/alpha", tune(base, 1, 3e-3))
    put(folder, "zoo/org--origin", base)
    for name in "beta", "gamma":
        put(folder, f"zoo/{name}", tune(base, len(name), 3e-3))
    alone = good(["scan", "zoo"], cwd=folder).out
    for claim in ("README.md", "---\nlicense: mit\nbase_model: org/alpha\n---\n# x"), ("README.md", "---\nbase_model:\n- alpha\n---\n"), ("config.json", '{"_name_or_path": "./alpha"}'):
        write(f"{folder}/zoo/beta/{claim[0]}", claim[1])
        good(["scan", "zoo", "-o", "z.yaml", "--force"], 3, cwd=folder)
        equal(manifest(f"{folder}/z.yaml")[0], "zoo/alpha", f"base by {claim}")
        write(f"{folder}/zoo/beta/{claim[0]}", "{}")
    check("base org--origin" in alone, f"without a card distances tell: {alone}")


@with_scratch
def test_scan_prints_without_an_output_and_writes_nothing(folder):
    family(f"{folder}/zoo", ["base", "one", "two"], 1)
    before = sorted(os.listdir(folder))
    out = good(["scan", "zoo"], 3, cwd=folder).out
    check(out.startswith("base base, 2 tasks\n") and "one" in out and "two" in out, out)
    equal(json.loads(good(["scan", "zoo", "--json"], cwd=folder).out)["zoos"][0]["manifest"], None, "manifest in JSON")
    equal(sorted(os.listdir(folder)), before, "files")


@with_scratch
def test_base_may_lie_outside_the_scanned_folder(folder):
    base = small_model(1, "F32", SHAPES)
    put(folder, "elsewhere/origin", base)
    for i, name in enumerate(("one", "two")):
        put(folder, f"zoo/{name}", tune(base, 2 + i))
    for ranks in 1, 3:
        good(["scan", "zoo", "-o", "z.yaml", "--force", "--base", "elsewhere/origin"], ranks, cwd=folder)
        equal(manifest(f"{folder}/z.yaml"), ("elsewhere/origin", {"one": "zoo/one", "two": "zoo/two"}), "manifest")
    good(["compress", "z.yaml", "-o", "a.h5", "-q", "--recipe", "lossless"], cwd=folder)


@with_scratch
def test_pipelines_are_models_and_their_parts_are_not(folder):
    base = small_model(1, "F32", SHAPES)
    for name, model in (("base", base), ("one", tune(base, 2)), ("two", tune(base, 3))):
        write(f"{folder}/zoo/{name}/model_index.json", json.dumps({"_class_name": "X", "unet": ["diffusers", "U"]}))
        write(f"{folder}/zoo/{name}/unet/diffusion_pytorch_model.safetensors", st_bytes(model))
    good(["scan", "zoo", "-o", "z.yaml"], cwd=folder)
    equal(manifest(f"{folder}/z.yaml"), ("zoo/base", {"one": "zoo/one", "two": "zoo/two"}), "manifest")

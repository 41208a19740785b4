"""Chains: checkpoints that are coded against the one before."""
import json
import os
import shutil
import sys

import numpy as np

from common import DELTAZOO, ENV, ROOT, call, check, equal, good, hashes, info, read, refused, run, sha256, st_bytes, st_parse, to_dtype, to_float, with_scratch, write

sys.path.insert(0, os.path.join(ROOT, "src", "python"))
import deltazoo  # noqa: E402

LAYERS = [f"model.layers.{i}.{part}.weight" for i in range(2) for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")]
SHAPES = dict({n: (96, 64) for n in LAYERS}, **{"model.embed_tokens.weight": (300, 64), "model.norm.weight": (64,), "lm_head.weight": (300, 64)})


def save(folder, tensors, dtype="BF16", **more):
    """tensors: name -> float32 array, or bytes with a dtype and a shape."""
    entries = [(n, *t) if isinstance(t, tuple) else (n, dtype, t.shape, to_dtype(t, dtype)) for n, t in tensors.items()]
    write(f"{folder}/model.safetensors", st_bytes(entries))
    write(f"{folder}/config.json", json.dumps({"model_type": "llama", **more}))


def chain(folder, steps, share=0.1, size=0.002, seed=0, spread=1):
    """base and step-1 .. step-N: each changes a share of the elements of the one before. Returns the models as float32."""
    rng = np.random.default_rng(seed)
    now = {n: (rng.standard_normal(s) * 0.05).astype(np.float32) for n, s in SHAPES.items()}
    models = [now]
    save(f"{folder}/base", now)
    for k in range(1, steps + 1):
        part = share if np.isscalar(share) else share[k - 1]
        now = {n: np.where(rng.random(x.shape) < part, x + size * spread * rng.standard_normal(x.shape), x).astype(np.float32) for n, x in now.items()}
        models.append(now)
        save(f"{folder}/step-{k}", now, step=k)
    return models


def manifest(path, zoo, tasks, base="base"):
    """tasks: names, or (name, parent)."""
    lines = [f"base: {zoo}/{base}", "tasks:"]
    for t in tasks:
        name, parent = (t, None) if isinstance(t, str) else t
        lines.append(f"  - {{name: {name}, path: {zoo}/{name}" + (f", parent: {parent}" if parent else "") + "}")
    return write(path, "\n".join(lines) + "\n")


def in_line(steps, first=1):
    return [f"step-{first}"] + [(f"step-{k}", f"step-{k - 1}") for k in range(first + 1, steps + 1)]


def restores_exactly(folder, archive, names, base="base", ranks=1):
    for name in names:
        shutil.rmtree(f"{folder}/out", ignore_errors=True)
        good(["restore", archive, "--task", name, "--base", f"{folder}/{base}", "-o", "out", "-q"], ranks, cwd=folder)
        equal(hashes(f"{folder}/out"), hashes(f"{folder}/{name}"), f"{name} from {archive}")


def clean(folder, archive):
    left = [n for n in os.listdir(folder) if n.startswith(archive) and n != archive]
    check(not left, f"left behind: {left}")


EXACT = ["--quality", "lossless", "-q"]


@with_scratch
def test_an_exact_chain_restores_every_step_and_is_smaller(folder):
    shares = [0.01, 0.2, 0.05, 0.1, 0.02, 0.15, 0.05, 0.1, 0.01, 0.2]
    chain(folder, 10, shares)
    steps = [f"step-{k}" for k in range(1, 11)]
    manifest(f"{folder}/each.yaml", folder, steps)
    manifest(f"{folder}/chain.yaml", folder, in_line(10))
    good(["compress", "each.yaml", "-o", "each.h5", *EXACT], cwd=folder)
    for archive, ranks in (("chain.h5", 1), ("two.h5", 2), ("four.h5", 4)):
        good(["compress", "chain.yaml", "-o", archive, *EXACT], ranks, cwd=folder)
        clean(folder, archive)
    equal(sha256(f"{folder}/two.h5"), sha256(f"{folder}/chain.h5"), "the chain by 2 ranks and by 1")
    equal(sha256(f"{folder}/four.h5"), sha256(f"{folder}/chain.h5"), "the chain by 4 ranks and by 1")
    good(["verify", "chain.h5"], 2, cwd=folder)
    good(["verify", "chain.h5", "--base", "base"], 2, cwd=folder)
    restores_exactly(folder, "chain.h5", steps)
    restores_exactly(folder, "chain.h5", ["step-8"], ranks=3)
    small, large = os.path.getsize(f"{folder}/chain.h5"), os.path.getsize(f"{folder}/each.h5")
    check(small < 0.8 * large, f"the chain has {small} bytes, each against the base {large}")
    with deltazoo.open(f"{folder}/chain.h5") as z:
        z.check()
        for name in steps:
            own = st_parse(f"{folder}/{name}")
            for tensor, (_, _, raw) in own.items():
                equal(z.restore_bytes(name, tensor, f"{folder}/base").tobytes(), raw, f"{name}: {tensor} by the Python reader")
            for row in z._rows(name):
                digest = deltazoo.xxhash.xxh3_128_intdigest(deltazoo.xxhash.xxh3_128_digest(own[row.tensor.name][2])[:8][::-1] + deltazoo.xxhash.xxh3_128_digest(own[row.tensor.name][2])[8:][::-1])
                equal(row.digest, digest, f"digest of {name}: {row.tensor.name}")


@with_scratch
def test_anchors_and_repack_and_a_tree(folder):
    chain(folder, 6)
    tasks = ["step-3", ("step-5", "step-4"), ("step-4", "step-3"), ("step-6", "step-3"), "step-1", ("step-2", "step-1")]
    manifest(f"{folder}/tree.yaml", folder, tasks)
    good(["compress", "tree.yaml", "-o", "tree.h5", *EXACT], cwd=folder)
    names = [t if isinstance(t, str) else t[0] for t in tasks]
    restores_exactly(folder, "tree.h5", names)
    good(["repack", "tree.h5", "-o", "again.h5"], 2, cwd=folder)
    equal(sha256(f"{folder}/again.h5"), sha256(f"{folder}/tree.h5"), "packed again")
    manifest(f"{folder}/chain.yaml", folder, in_line(6))
    good(["compress", "chain.yaml", "-o", "a.h5", "--anchor-every", "1", *EXACT], cwd=folder)
    manifest(f"{folder}/each.yaml", folder, [f"step-{k}" for k in range(1, 7)])
    good(["compress", "each.yaml", "-o", "b.h5", *EXACT], cwd=folder)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/b.h5"), "every task an anchor, and no parents")
    good(["compress", "chain.yaml", "-o", "three.h5", "--anchor-every", "3", *EXACT], cwd=folder)
    restores_exactly(folder, "three.h5", [f"step-{k}" for k in range(1, 7)])
    with deltazoo.open(f"{folder}/three.h5") as z:
        equal([max(r.depth for r in z._rows(f"step-{k}")) for k in range(1, 7)], [0, 1, 2, 0, 1, 2], "depths with an anchor every 3")


@with_scratch
def test_parents_that_are_in_the_archive_already(folder):
    chain(folder, 4)
    manifest(f"{folder}/one.yaml", folder, in_line(2))
    manifest(f"{folder}/two.yaml", folder, in_line(4, 3)[:0] + [("step-3", "step-2"), ("step-4", "step-3")])
    good(["compress", "one.yaml", "-o", "a.h5", *EXACT], cwd=folder)
    shutil.copy(f"{folder}/a.h5", f"{folder}/b.h5")
    good(["compress", "two.yaml", "-o", "a.h5", "--append", *EXACT], 2, cwd=folder)
    good(["compress", "two.yaml", "-o", "b.h5", "--append", *EXACT], 1, cwd=folder)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/b.h5"), "appended by 2 ranks and by 1")
    restores_exactly(folder, "a.h5", [f"step-{k}" for k in range(1, 5)])
    manifest(f"{folder}/all.yaml", folder, in_line(4))
    good(["compress", "all.yaml", "-o", "a.h5", "--skip-existing", *EXACT], cwd=folder)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/b.h5"), "nothing to do")
    refused(folder, ["compress", "one.yaml", "-o", "a.h5", "--replace", *EXACT], 2, "task 'step-2' cannot go", "step-3", lines=1)
    good(["compress", "all.yaml", "-o", "a.h5", "--replace", *EXACT], cwd=folder)
    restores_exactly(folder, "a.h5", [f"step-{k}" for k in range(1, 5)])


@with_scratch
def test_removing_a_parent(folder):
    chain(folder, 3)
    manifest(f"{folder}/chain.yaml", folder, in_line(3))
    good(["compress", "chain.yaml", "-o", "a.h5", *EXACT], cwd=folder)
    refused(folder, ["remove", "a.h5", "--task", "step-2"], 2, "task 'step-2' cannot go", "'step-3'", "keep it too, or 'deltazoo remove --rebase' codes it anew")
    good(["remove", "a.h5", "--task", "step-2", "--task", "step-3"], cwd=folder)
    restores_exactly(folder, "a.h5", ["step-1"])


@with_scratch
def test_removing_a_parent_and_rebasing_its_children(folder):
    """Exact and lossy: every task that stays restores to the bytes it did before, on any number of ranks; what is lossy is still reported so."""
    training(folder, 5)
    manifest(f"{folder}/chain.yaml", folder, in_line(5))
    for quality in ("lossless", "high"):
        good(["compress", "chain.yaml", "-o", "a.h5", "--quality", quality, "--force", "-q"], cwd=folder)
        shutil.copy(f"{folder}/a.h5", f"{folder}/b.h5")
        before = {}
        for k in (1, 3, 4, 5):
            good(["restore", "a.h5", "--task", f"step-{k}", "--base", "base", "-o", f"{quality}-{k}", "-q"], cwd=folder)
            before[k] = hashes(f"{folder}/{quality}-{k}")
        refused(folder, ["remove", "a.h5", "--task", "step-2", "--rebase"], 2, "--base PATH is needed")
        refused(folder, ["remove", "a.h5", "--task", "step-2", "--rebase", "--base", "step-1"], 1, "not the base of this archive")
        good(["remove", "a.h5", "--task", "step-2", "--rebase", "--base", "base"], cwd=folder)
        good(["remove", "b.h5", "--task", "step-2", "--rebase", "--base", "base"], 3, cwd=folder)
        equal(sha256(f"{folder}/b.h5"), sha256(f"{folder}/a.h5"), f"{quality}: by 3 ranks and by 1")
        good(["verify", "a.h5", "--base", "base"], cwd=folder)
        shown = {t["name"]: t for t in info("a.h5", cwd=folder)["tasks"]}
        equal({n: t["parent"] for n, t in shown.items()}, {"step-1": None, "step-3": None, "step-4": "step-3", "step-5": "step-4"}, "parents")
        check((shown["step-3"]["lossy"]["verdict"] == "exact") == (quality == "lossless"), f"{shown['step-3']['lossy']}")
        compared = good(["compare", "a.h5", "--task", "step-3", "--base", "base", "--finetuned", "step-3", "-q", "--json"], cwd=folder).out
        check((json.loads(compared)["lossy"]["verdict"] == "exact") == (quality == "lossless"), f"compare: {compared[:400]}")
        for k in (1, 3, 4, 5):
            shutil.rmtree(f"{folder}/out", ignore_errors=True)
            good(["restore", "a.h5", "--task", f"step-{k}", "--base", "base", "-o", "out", "-q"], cwd=folder)
            names = {n for n in before[k] if n.endswith(".safetensors")}
            equal({n: st_parse(f"{folder}/out/{n}") for n in names}, {n: st_parse(f"{folder}/{quality}-{k}/{n}") for n in names}, f"{quality}: step-{k}")
            check(os.path.exists(f"{folder}/out/deltazoo.json") == (quality == "high"), "a mark of a lossy model")
        with deltazoo.open(f"{folder}/a.h5") as z:
            z.check()
            for tensor, (_, _, raw) in st_parse(f"{folder}/{quality}-5").items():
                equal(z.restore_bytes("step-5", tensor, f"{folder}/base").tobytes(), raw, f"{tensor} by the Python reader")


@with_scratch
def test_what_is_wrong_with_parents(folder):
    chain(folder, 3)
    for tasks, wanted in (([("step-1", "step-2"), ("step-2", "step-1")], "its parents lead back to itself"),
                          ([("step-1", "nobody")], "its parent 'nobody' is neither in the manifest nor in the archive"),
                          ([("step-1", "step-1")], "'step-1' cannot be its parent"),
                          ([("step-1", "a/b")], "'a/b' cannot be its parent")):
        manifest(f"{folder}/zoo.yaml", folder, tasks)
        refused(folder, ["compress", "zoo.yaml", "-o", "a.h5", *EXACT], 2, "zoo.yaml:", wanted)
    manifest(f"{folder}/zoo.yaml", folder, in_line(3))
    refused(folder, ["compress", "zoo.yaml", "-o", "a.h5", "--method", "ultradelta", "-q"], 2, "tracenorm=off")
    refused(folder, ["compress", "zoo.yaml", "-o", "a.h5", "--anchor-every", "65", "-q"], 2, "--anchor-every 65")
    refused(folder, ["compress", "zoo.yaml", "-o", "a.h5", "--anchor-every", "0", "-q"], 2, "--anchor-every 0: give 1 (no chains) to 64")
    write(f"{folder}/step-2/model.safetensors", b"broken")
    refused(folder, ["compress", "zoo.yaml", "-o", "a.h5", *EXACT], 1, "step-2/model.safetensors")


@with_scratch
def test_plan_foresees_what_a_chain_takes(folder):
    chain(folder, 4, share=1, size=0.004)
    manifest(f"{folder}/zoo.yaml", folder, in_line(4))
    manifest(f"{folder}/each.yaml", folder, [f"step-{k}" for k in range(1, 5)])
    manifest(f"{folder}/auto.yaml", folder, ["step-1", *((f"step-{k}", "auto") for k in (2, 3, 4))])
    for more in (["--quality", "lossless"], ["--quality", "high"], [], ["--quality", "small"], ["--anchor-every", "3"], ["--method", "dare"]):
        planned = json.loads(good(["plan", "zoo.yaml", "--json", *more], cwd=folder).out)["tasks"]
        each = json.loads(good(["plan", "each.yaml", "--json", *(more if "--anchor-every" not in more else [])], cwd=folder).out)["tasks"]
        good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--force", *more], cwd=folder)
        for k, (plan, alone) in enumerate(zip(planned, each)):
            task = info("a.h5", plan["name"], cwd=folder)["tasks"][0]
            stored = sum(x["stored_bytes"] for x in task["tensors"]) + 40 * len(SHAPES)
            check(abs(plan["predicted_stored_bytes"] / stored - 1) < 0.3, f"{more}: {plan['name']}: {plan['predicted_stored_bytes']} foreseen, {stored} stored")
            if task["lossy"]["verdict"] != "exact":
                equal(plan["verdict"], task["lossy"]["verdict"], f"{more}: verdict of {plan['name']}")
            anchor = k == 0 or "--anchor-every" in more and k == 3
            if anchor:
                equal(plan["predicted_stored_bytes"], alone["predicted_stored_bytes"], f"{more}: {plan['name']} is an anchor")
            elif k == 3 and "dare" not in more:
                check(plan["predicted_stored_bytes"] < 0.9 * alone["predicted_stored_bytes"], f"{more}: {plan} and against the base {alone}")
    equal([t["predicted_stored_bytes"] for t in json.loads(good(["plan", "auto.yaml", "--json"], cwd=folder).out)["tasks"]],
          [t["predicted_stored_bytes"] for t in json.loads(good(["plan", "zoo.yaml", "--json"], cwd=folder).out)["tasks"]], "parents that are looked for")


@with_scratch
def test_notes_of_a_chain_are_said_once(folder):
    chain(folder, 4, share=1, size=0.004)
    manifest(f"{folder}/zoo.yaml", folder, in_line(4))
    lines = good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--mem-per-rank", "64M"], cwd=folder).err.splitlines()
    notes = [line for line in lines if "note:" in line]
    check(sum("kept exactly, of all bytes" in n for n in notes) == 1 and sum("--mem-per-rank" in n for n in notes) == 1, f"{notes}")
    equal(len(notes), len(set(notes)), f"lines that are said again: {notes}")


@with_scratch
def test_plan_with_parents_that_it_cannot_see(folder):
    chain(folder, 2)
    manifest(f"{folder}/zoo.yaml", folder, [("step-2", "step-1")])
    said = good(["plan", "zoo.yaml"], cwd=folder).err.replace("\n", " ")
    check("task 'step-2': its parent 'step-1' is not in the manifest: foreseen against the base" in said, said)
    manifest(f"{folder}/circle.yaml", folder, [("step-2", "step-1"), ("step-1", "step-2")])
    refused(folder, ["plan", "circle.yaml"], 2, "circle.yaml", "step-2", "lead back to itself")
    refused(folder, ["plan", "zoo.yaml", "--anchor-every", "0"], 2, "--anchor-every 0")
    manifest(f"{folder}/flat.yaml", folder, ["step-1", "step-2"])
    check("parent" not in good(["plan", "flat.yaml"], cwd=folder).err, "a note without parents")


@with_scratch
def test_tensors_that_the_parent_has_otherwise(folder):
    """Another shape, another type, one that is new, one that is gone: against the base, or whatever there is."""
    models = chain(folder, 2)
    rng = np.random.default_rng(1)
    odd = dict(models[1])
    odd["model.embed_tokens.weight"] = np.vstack([odd["model.embed_tokens.weight"], rng.standard_normal((20, 64)).astype(np.float32) * 0.05])
    odd["new.weight"] = rng.standard_normal((40, 64)).astype(np.float32)
    del odd["model.norm.weight"]
    odd["lm_head.weight"] = ("F32", (300, 64), models[1]["lm_head.weight"].astype(np.float32).tobytes())
    save(f"{folder}/step-1", odd)
    last = {n: x for n, x in models[2].items()}
    last["model.embed_tokens.weight"] = odd["model.embed_tokens.weight"] * np.float32(1.01)
    last["new.weight"] = odd["new.weight"] + np.float32(0.001)
    save(f"{folder}/step-2", last)
    manifest(f"{folder}/zoo.yaml", folder, in_line(2))
    good(["compress", "zoo.yaml", "-o", "a.h5", *EXACT], 2, cwd=folder)
    restores_exactly(folder, "a.h5", ["step-1", "step-2"])
    good(["verify", "a.h5", "--base", "base"], cwd=folder)
    with deltazoo.open(f"{folder}/a.h5") as z:
        up = {r.tensor.name: r.up is not None for r in z._rows("step-2")}
        check(up["model.embed_tokens.weight"] and up["new.weight"] and not up["lm_head.weight"] and not up["model.norm.weight"], f"{up}")
        for tensor, (_, _, raw) in st_parse(f"{folder}/step-2").items():
            equal(z.restore_bytes("step-2", tensor, f"{folder}/base").tobytes(), raw, f"{tensor} by the Python reader")


def energy(x):
    return float(np.sum(np.square(x, dtype=np.float64)))


def noise(folder, archive, name):
    """Energy of what the restored layers are off, over that of their delta from the base; the share of the delta that is restored."""
    shutil.rmtree(f"{folder}/out", ignore_errors=True)
    good(["restore", archive, "--task", name, "--base", f"{folder}/base", "-o", "out", "-q"], cwd=folder)
    got, own = st_parse(f"{folder}/out"), st_parse(f"{folder}/{name}")
    base = st_parse(f"{folder}/base")
    error = whole = inner = 0.0
    for n in LAYERS:
        b, t, g = (to_float(m[n][2], "BF16") for m in (base, own, got))
        error, whole, inner = error + energy(g - t), whole + energy(t - b), inner + float(np.dot((g - b).astype(np.float64), (t - b).astype(np.float64)))
    return error / whole, inner / whole


def training(folder, steps, drift=0.9, size=0.004, layers=LAYERS):
    """A run whose steps go mostly one way: base and step-1 .. step-N."""
    rng = np.random.default_rng(5)
    base = {n: (rng.standard_normal((256, 512) if n in layers else s) * 0.05).astype(np.float32) for n, s in SHAPES.items()}
    way = {n: rng.standard_normal(x.shape).astype(np.float32) for n, x in base.items()}
    now, models = dict(base), [base]
    save(f"{folder}/base", base)
    for k in range(1, steps + 1):
        now = {n: x + size * (drift * way[n] + rng.standard_normal(x.shape)).astype(np.float32) for n, x in now.items()}
        models.append(now)
        save(f"{folder}/step-{k}", now)
    return models


def lossy_chain(folder, size, most):
    """High quality: where steps are large, limited by the weights' size, and where they are small, by the delta's: noise beyond the delta's energy."""
    training(folder, 6, size=size)
    manifest(f"{folder}/chain.yaml", folder, in_line(6))
    manifest(f"{folder}/each.yaml", folder, [f"step-{k}" for k in range(1, 7)])
    command = ["compress", "chain.yaml", "--quality", "high", "-q", "--force", "-o"]
    good([*command, "chain.h5"], 2, cwd=folder)
    for kernels in ("portable", "avx2", ""):
        good([*command, "one.h5"], cwd=folder, env={"DZ_KERNELS": kernels} if kernels else None)
        equal(sha256(f"{folder}/one.h5"), sha256(f"{folder}/chain.h5"), f"by 1 rank, with the kernels {kernels or 'of this machine'}, and by 2")
    good(["compress", "each.yaml", "-o", "each.h5", "--quality", "high", "-q"], cwd=folder)
    chain, each = ({t["name"]: t for t in info(f"{folder}/{a}")["tasks"]} for a in ("chain.h5", "each.h5"))
    for k in range(1, 7):
        name = f"step-{k}"
        (mine, kept), (other, _) = noise(folder, "chain.h5", name), noise(folder, "each.h5", name)
        shown = chain[name]["lossy"]["noise_to_delta"]
        check(abs(mine / shown - 1) < 0.05, f"{name}: noise {mine}, shown {shown}")
        check(mine < 1.05 * other, f"{name}: noise {mine} in the chain, {other} against the base")
        check(abs(kept - 1) < 0.02, f"{name}: {kept} of the delta is restored")
    mine, other = (sum(t["stored_bytes"] for t in tasks.values()) for tasks in (chain, each))
    check(mine < most * other, f"{mine} bytes in the chain, {other} against the base")
    good(["verify", "chain.h5", "--base", "base"], cwd=folder)
    with deltazoo.open(f"{folder}/chain.h5") as z:
        z.check()
        good(["restore", "chain.h5", "--task", "step-6", "--base", "base", "-o", "c", "-q"], cwd=folder)
        for tensor, (_, _, raw) in st_parse(f"{folder}/c").items():
            equal(z.restore_bytes("step-6", tensor, f"{folder}/base").tobytes(), raw, f"{tensor} by the Python reader")


@with_scratch
def test_a_lossy_chain_of_large_steps(folder):
    lossy_chain(folder, 0.004, 0.75)


@with_scratch
def test_a_lossy_chain_whose_noise_is_more_than_its_steps(folder):
    lossy_chain(folder, 0.0006, 0.55)


def parents(archive, cwd):
    return {t["name"]: t["parent"] for t in info(archive, cwd=cwd)["tasks"]}


@with_scratch
def test_parents_by_measured_energy(folder):
    """Two runs from one base, in any order, and a model that is near to none: a task's parent is the nearest of the others, or the base."""
    chain(folder, 3, share=1, seed=1)
    shutil.move(f"{folder}/base", f"{folder}/zero")
    for k in (1, 2, 3):
        shutil.move(f"{folder}/step-{k}", f"{folder}/a{k}")
    zero = {n: to_float(t[2], "BF16").reshape(t[1]) for n, t in st_parse(f"{folder}/zero").items()}
    rng = np.random.default_rng(9)
    now = zero
    for k in (1, 2):
        now = {n: (x + 0.003 * rng.standard_normal(x.shape)).astype(np.float32) for n, x in now.items()}
        save(f"{folder}/b{k}", now)
    save(f"{folder}/far", {n: (x + 0.05 * rng.standard_normal(x.shape)).astype(np.float32) for n, x in zero.items()})
    tasks = [("a3", "auto"), ("b2", "auto"), ("far", "auto"), ("a1", "auto"), ("b1", "auto"), ("a2", "auto")]
    manifest(f"{folder}/zoo.yaml", folder, tasks, base="zero")
    good(["compress", "zoo.yaml", "-o", "a.h5", *EXACT], 2, cwd=folder)
    equal(parents("a.h5", folder), {"a1": None, "a2": "a1", "a3": "a2", "b1": None, "b2": "b1", "far": None}, "parents")
    restores_exactly(folder, "a.h5", ["a1", "a2", "a3", "b1", "b2", "far"], base="zero")
    manifest(f"{folder}/some.yaml", folder, ["a1", ("a2", "a3"), ("a3", "auto")], base="zero")
    good(["compress", "some.yaml", "-o", "b.h5", *EXACT], cwd=folder)
    equal(parents("b.h5", folder), {"a1": None, "a3": "a1", "a2": "a3"}, "a parent that is named, of one that looks for its own")
    manifest(f"{folder}/mixed.yaml", folder, ["b1", "a1", ("a2", "auto"), "far"], base="zero")
    good(["compress", "mixed.yaml", "-o", "c.h5", *EXACT], cwd=folder)
    equal(parents("c.h5", folder), {"b1": None, "a1": None, "a2": "a1", "far": None}, "several that have none")


@with_scratch
def test_scan_finds_the_checkpoints_of_a_run(folder):
    chain(folder, 4)
    os.makedirs(f"{folder}/zoo/run")
    shutil.move(f"{folder}/base", f"{folder}/zoo/base")
    for k, n in ((1, "run/step-20"), (2, "run/step-100"), (3, "run/step-9"), (4, "other")):
        shutil.move(f"{folder}/step-{k}", f"{folder}/zoo/{n}")
    good(["scan", "zoo", "-o", "zoo.yaml", "--base", "zoo/base", "--chains"], 2, cwd=folder)
    good(["compress", "zoo.yaml", "-o", "a.h5", *EXACT], cwd=folder)
    found = {n.split("-step-")[-1].replace("step-", ""): p and p.split("-step-")[-1].replace("step-", "") for n, p in parents("a.h5", folder).items()}
    equal(found, {"9": None, "20": "9", "100": "20", "other": None}, "parents by number")


@with_scratch
def test_damage_in_a_parent_is_its_childrens_too(folder):
    """A block of the first task: verify names it and all that are coded against it; restore fails, or with --keep-going goes on."""
    chain(folder, 3, share=1)
    manifest(f"{folder}/chain.yaml", folder, in_line(3))
    good(["compress", "chain.yaml", "-o", "a.h5", *EXACT], cwd=folder)
    with deltazoo.open(f"{folder}/a.h5") as z:
        row = next(r for r in z._rows("step-1") if r.tensor.name == LAYERS[0])
        at = z.file["tasks/step-1/payload"].id.get_offset() + row.offset + row.length // 2
    data = bytearray(read(f"{folder}/a.h5"))
    data[at] ^= 4
    write(f"{folder}/bad.h5", bytes(data))
    for more in ([], ["--base", "base"]):
        for ranks in (1, 3):
            r = run(["verify", "bad.h5", *more], ranks, cwd=folder)
            check(r.code == 4 or r.code == 1 or r.code == 3, f"{r}")
            text = r.out + r.err
            for k in (1, 2, 3):
                check(f"task 'step-{k}': tensor '{LAYERS[0]}'" in text, f"step-{k} is not named: {r}")
            check("what it is coded against" in text, f"{r}")
    r = run(["restore", "bad.h5", "--task", "step-3", "--base", "base", "-o", "x", "-q"], cwd=folder)
    check(r.code not in (0, None) and "what it is coded against" in r.err and "task 'step-1'" in r.err, f"{r}")
    r = run(["restore", "bad.h5", "--task", "step-3", "--base", "base", "-o", "x", "-q", "--keep-going"], cwd=folder)
    got, own = st_parse(f"{folder}/x"), st_parse(f"{folder}/step-3")
    equal([n for n in own if got[n] != own[n]], [LAYERS[0]], "tensors that are lost")


@with_scratch
def test_a_chain_with_its_base_and_shared_tensors(folder):
    """--with-base, and tensors that do not change from step to step."""
    models = chain(folder, 4)
    for k in range(2, 5):
        save(f"{folder}/step-{k}", dict(models[k], **{"lm_head.weight": models[1]["lm_head.weight"]}))
    manifest(f"{folder}/chain.yaml", folder, in_line(4))
    for archive, ranks in (("a.h5", 1), ("b.h5", 3)):
        good(["compress", "chain.yaml", "-o", archive, "--with-base", *EXACT], ranks, cwd=folder)
    equal(sha256(f"{folder}/b.h5"), sha256(f"{folder}/a.h5"), "by 3 ranks and by 1")
    good(["verify", "a.h5"], 2, cwd=folder)
    for name in ("step-1", "step-4"):
        good(["restore", "a.h5", "--task", name, "-o", f"out-{name}", "-q"], cwd=folder)
        equal(hashes(f"{folder}/out-{name}"), hashes(f"{folder}/{name}"), name)
    with deltazoo.open(f"{folder}/a.h5") as z:
        for tensor, (_, _, raw) in st_parse(f"{folder}/step-4").items():
            equal(z.restore_bytes("step-4", tensor).tobytes(), raw, f"{tensor} by the Python reader")


@with_scratch
def test_exports_and_sums_take_the_whole_delta_from_the_base(folder):
    training(folder, 3)
    manifest(f"{folder}/chain.yaml", folder, in_line(3))
    good(["compress", "chain.yaml", "-o", "a.h5", "--quality", "high", "-q"], cwd=folder)
    for k in (1, 3):
        good(["restore", "a.h5", "--task", f"step-{k}", "--base", "base", "-o", f"r{k}", "-q"], cwd=folder)
    base, one, three = ({n: to_float(t[2], "BF16") for n, t in st_parse(f"{folder}/{m}").items()} for m in ("base", "r1", "r3"))
    good(["export", "a.h5", "--task", "step-3", "--base", "base", "-o", "v.safetensors", "-q"], cwd=folder)
    for n, (dtype, _, raw) in st_parse(f"{folder}/v.safetensors").items():
        check(np.allclose(to_float(raw, dtype), three[n] - base[n], atol=1e-6), f"the delta of {n}")
    good(["restore", "a.h5", "--task", "step-1=0.5", "--task", "step-3=0.5", "--base", "base", "-o", "sum", "-q"], cwd=folder)
    for n, t in st_parse(f"{folder}/sum").items():
        want = base[n] + 0.5 * (one[n] - base[n]) + 0.5 * (three[n] - base[n])
        check(np.abs(to_float(t[2], "BF16") - want).max() <= np.abs(want).max() / 100, f"the sum of {n}")
    with deltazoo.open(f"{folder}/a.h5") as z:
        check(np.allclose(z.delta("step-3", LAYERS[0], f"{folder}/base").reshape(-1), three[LAYERS[0]] - base[LAYERS[0]], atol=1e-6), "the delta by the Python reader")
    good(["compare", "a.h5", "--task", "step-3", "--base", "base", "--finetuned", "step-3"], cwd=folder)


@with_scratch
def test_a_chain_that_grows_night_by_night(folder):
    """The same bytes as in one job, as long as the manifest still names the parents' models."""
    training(folder, 4, size=0.0006)
    for n in (2, 3, 4):
        manifest(f"{folder}/zoo.yaml", folder, in_line(n))
        good(["compress", "zoo.yaml", "-o", "a.h5", "--quality", "high", "--skip-existing", "-q"], 1 + n % 2, cwd=folder)
    good(["compress", "zoo.yaml", "-o", "b.h5", "--quality", "high", "-q"], cwd=folder)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/b.h5"), "three nights, and one job")
    shutil.rmtree(f"{folder}/step-3")
    manifest(f"{folder}/last.yaml", folder, [("step-4", "step-3")])
    good(["remove", "a.h5", "--task", "step-4"], cwd=folder)
    good(["compress", "last.yaml", "-o", "a.h5", "--quality", "high", "--append", "-q"], cwd=folder)
    mine, _ = noise(folder, "a.h5", "step-4")
    other, _ = noise(folder, "b.h5", "step-4")
    check(mine < 1.05 * other, f"noise {mine} without the parent's model, {other} with it")

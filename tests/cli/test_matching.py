"""Which tensor of the base a task's tensor belongs to: found from names and shapes, in the layouts that libraries write."""
import json
import time

import numpy as np

from common import DELTAZOO, SmallZoo, call, check, equal, good, hashes, info, refused, st_bytes, with_scratch, write


def made(shapes, seed, base=None):
    """Tensors of these shapes; with a base (name to bytes): that plus a delta."""
    rng = np.random.default_rng(seed)
    out = []
    for name, shape in shapes.items():
        x = rng.standard_normal(int(np.prod(shape))).astype(np.float32) * np.float32(0.02)
        if base is not None and name in base:
            x = np.frombuffer(base[name], np.float32) + x * np.float32(0.01)
        out.append((name, "F32", shape, x.astype(np.float32).tobytes()))
    return out


def encoder(prefix="", blocks=2, width=16):
    shapes = {"embeddings.word_embeddings.weight": (60, width), "embeddings.LayerNorm.weight": (width,), "embeddings.LayerNorm.bias": (width,)}
    for i in range(blocks):
        for part in ("attention.self.query", "attention.self.key", "attention.output.dense", "intermediate.dense"):
            shapes[f"encoder.layer.{i}.{part}.weight"] = (width, width)
            shapes[f"encoder.layer.{i}.{part}.bias"] = (width,)
        shapes[f"encoder.layer.{i}.output.LayerNorm.weight"] = (width,)
        shapes[f"encoder.layer.{i}.output.LayerNorm.bias"] = (width,)
    return {prefix + n: s for n, s in shapes.items()}


def plan(folder, base, task, *more):
    """Base and task as models; what `plan` says of each tensor of the task."""
    zoo = SmallZoo(folder)
    zoo.put("base", base)
    zoo.put("one", task)
    zoo.manifest("one")
    r = good(["plan", "zoo.yaml", "--json", *more], cwd=folder)
    return {t["name"]: t for t in json.loads(r.out)["tasks"][0]["tensors"]}, r


def renamed(tensors, rename):
    return [(rename(n), *rest) for n, *rest in tensors]


def comes_back(folder):
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--recipe", "lossless", "--force"], cwd=folder)
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "-q", "--force"], cwd=folder)
    equal(hashes(f"{folder}/r"), hashes(f"{folder}/one"), "restored files")


def rename_case(of_base, of_task, more=None):
    """Names under which a base and a task stand, as functions of the plain name; `more`: tensors that only the task has."""

    def test(folder):
        shapes = encoder()
        base = made(shapes, 1)
        task = renamed(made(shapes, 2, {n: b for n, _, _, b in base}), of_task)
        planned, r = plan(folder, renamed(base, of_base), task + made(more or {}, 3))
        equal({of_task(n): planned[of_task(n)]["base"] for n in shapes}, {of_task(n): of_base(n) for n in shapes}, "matches")
        equal({n: planned[n]["base"] for n in more or {}}, {n: None for n in more or {}}, "what only the task has")
        lossy = {n for n in shapes if n.endswith(".weight") and "LayerNorm" not in n and "embeddings" not in n}
        equal({n for n, t in planned.items() if t["policy"] == "ultradelta"}, {of_task(n) for n in lossy}, "lossy tensors")
        check(any("another name" in n for n in r.lines("note")), f"no note tells of the names: {r}")
        comes_back(folder)

    return with_scratch(test)


def plain(name):
    return name


def under(prefix):
    return lambda name: prefix + name


def adapted(name):
    """As peft names what it wraps."""
    inside = name.replace(".query.", ".query.base_layer.") if "embeddings" not in name else name
    return "base_model.model." + inside


def old_norms(name):
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


HEAD = {"classifier.weight": (3, 16), "classifier.bias": (3,)}
test_a_task_with_a_head_over_a_headless_base = rename_case(plain, under("vit."), HEAD)
test_a_headless_task_of_a_model_with_a_head = rename_case(under("bert."), plain)
test_one_library_prefix_for_another = rename_case(under("roberta."), under("bert."), HEAD)
test_a_prefix_in_the_middle = rename_case(under("model."), under("model.language_model."), {"visual.merger.weight": (5, 7)})
test_a_compiled_model = rename_case(under("model."), under("_orig_mod.model."))
test_a_compiled_part_of_a_model = rename_case(under("model."), under("model._orig_mod."))
test_a_model_of_distributed_data_parallel = rename_case(under("model."), under("module.model."))
test_a_model_of_fully_sharded_data_parallel = rename_case(plain, lambda n: "_fsdp_wrapped_module." + n.replace(".attention.", "._fsdp_wrapped_module.attention."))
test_a_model_that_peft_wraps = rename_case(under("bert."), lambda n: adapted("bert." + n), {"base_model.model.classifier.modules_to_save.default.weight": (3, 16)})
test_norms_of_gamma_and_beta_in_the_task = rename_case(plain, old_norms)
test_norms_of_gamma_and_beta_in_the_base = rename_case(old_norms, under("bert."))


@with_scratch
def test_towers_of_a_model_have_prefixes_of_their_own(folder):
    text, vision = encoder(width=16), {f"blocks.{i}.attn.qkv.weight": (72, 24) for i in range(3)}
    base = renamed(made(text, 1), under("model.language_model.")) + renamed(made(vision, 2), under("model.visual."))
    task = renamed(made(text, 3), under("model.")) + renamed(made(vision, 4), under("visual."))
    planned, _ = plan(folder, base, task)
    equal({n: t["base"] for n, t in planned.items()}, {**{"model." + n: "model.language_model." + n for n in text}, **{"visual." + n: "model.visual." + n for n in vision}},
          "matches")


@with_scratch
def test_a_head_of_another_shape_is_not_taken_for_a_pooler(folder):
    base = made({**encoder(), "pooler.dense.weight": (16, 16), "pooler.dense.bias": (16,)}, 1)
    task = made({**encoder(), "classifier.dense.weight": (16, 16), "classifier.dense.bias": (16,), "classifier.out_proj.weight": (2, 16)}, 2)
    planned, _ = plan(folder, base, task)
    equal({n: t["base"] for n, t in planned.items() if n.startswith("classifier")}, {n: None for n in planned if n.startswith("classifier")}, "matches")


def experts(fused, width=16, inner=8, n=3):
    shapes = {}
    for i in range(2):
        shapes[f"model.layers.{i}.self_attn.q_proj.weight"] = (width, width)
        shapes[f"model.layers.{i}.mlp.gate.weight"] = (n, width)
        where = f"model.layers.{i}.mlp.experts."
        if fused:
            shapes[where + "gate_up_proj"] = (n, 2 * inner, width)
            shapes[where + "down_proj"] = (n, width, inner)
            continue
        for e in range(n):
            shapes.update({f"{where}{e}.gate_proj.weight": (inner, width), f"{where}{e}.up_proj.weight": (inner, width), f"{where}{e}.down_proj.weight": (width, inner)})
    return shapes


def fused_case(of_base, of_task):
    def test(folder):
        planned, r = plan(folder, made(experts(of_base), 1), made(experts(of_task), 2))
        found = [n for n in r.lines("note") if "fused on one side" in n]
        check(len(found) == 1 and "2 modules" in found[0] and ".mlp.experts." in found[0] and "save_pretrained" in found[0], f"notes of {r}")
        parts = ("here 9 tensors: 'model.layers.0.mlp.experts.0.", "in the base 2: ", "save the base again") if of_base else ("here 2 tensors: ", "in the base 9: ", "save the task again")
        nbytes = sum(int(np.prod(t["shape"])) * 4 for n, t in planned.items() if "experts" in n)
        check(all(p in found[0] for p in (*parts, "[3, 16, 16]" if "gate_up" in found[0] else "[3, 16, 8]", f"{nbytes / 1000:.3g} KB kept exactly")), f"notes of {r}")
        equal({t["base"] for n, t in planned.items() if "experts" in n}, {None}, "bases of experts")
        comes_back(folder)

    return with_scratch(test)


test_fused_experts_over_separate_ones_are_reported = fused_case(False, True)
test_separate_experts_over_fused_ones_are_reported = fused_case(True, False)


@with_scratch
def test_fused_projections_over_separate_ones_are_reported(folder):
    names = ["q_proj", "k_proj", "v_proj"]
    base = made({f"model.layers.{i}.self_attn.{n}.weight": (16, 16) for i in range(2) for n in names + ["o_proj"]}, 1)
    task = made({f"model.layers.{i}.self_attn.{n}.weight": s for i in range(2) for n, s in (("qkv_proj", (48, 16)), ("o_proj", (16, 16)))}, 2)
    _, r = plan(folder, base, task)
    equal(len([n for n in r.lines("note") if "fused on one side" in n and "qkv_proj" in n and "q_proj" in n]), 1, f"notes of {r}")


@with_scratch
def test_a_task_that_cannot_be_matched_is_refused_by_name_or_left_out(folder):
    zoo = SmallZoo(folder)
    zoo.put("other", made({f"net.{i}.weight": (24, 24) for i in range(3)}, 5))
    write(f"{folder}/other/config.json", "{}")
    zoo.manifest("one", "other", "two")
    for command in (["compress", "zoo.yaml", "-o", "a.h5"], ["plan", "zoo.yaml"]):
        refused(folder, command, 2, "other", "task 'other'", "'net.0.weight'", "--skip-unmatched")
    for ranks in (1, 3):
        r = good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--force", "--skip-unmatched"], ranks, cwd=folder)
        equal(len([n for n in r.lines("note") if n.startswith("left out: other") and "task 'other'" in n]), 1, f"notes of {r}")
        equal([t["name"] for t in info("a.h5", cwd=folder)["tasks"]], ["one", "two"], "tasks")
    equal([t["name"] for t in json.loads(good(["plan", "zoo.yaml", "--json", "--skip-unmatched"], cwd=folder).out)["tasks"]], ["one", "two"], "planned tasks")
    zoo.manifest("other")
    refused(folder, ["compress", "zoo.yaml", "-o", "b.h5", "--skip-unmatched"], 2, "zoo.yaml", "none of the 1 tasks")


@with_scratch
def test_a_copied_head_is_an_alias_of_the_embedding(folder):
    """The embedding untouched, the head a copy of it that the base does not have; and the other way round in the base."""
    body = {f"model.layers.{i}.self_attn.q_proj.weight": (32, 32) for i in range(2)}
    embedding = made({"model.embed_tokens.weight": (64, 32)}, 9)[0]
    base = [embedding] + made(body, 1)
    task = [embedding, ("lm_head.weight", *embedding[1:])] + made(body, 2)
    zoo = SmallZoo(folder)
    for of_base, of_task in ((base, task), (task, base), (base + [("lm_head.weight", *embedding[1:])], task)):
        zoo.put("base", of_base)
        zoo.put("one", of_task)
        zoo.manifest("one")
        good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--force"], cwd=folder)
        stored = {t["name"]: (t["policy"], t["stored_bytes"]) for t in info("a.h5", "one", folder)["tasks"][0]["tensors"]}
        check(all(stored[n][0] in ("equal", "tied", "absent") for n in ("model.embed_tokens.weight", "lm_head.weight") if n in stored), f"{stored}")


@with_scratch
def test_many_tasks_of_another_prefix_are_planned_in_time(folder):
    shapes = {f"layers.{i}.{n}.weight": (8, 8) for i in range(250) for n in ("a.q", "a.k", "a.v", "a.o", "m.up", "m.down", "m.gate", "x.y")}
    tensors = made(shapes, 1)
    write(f"{folder}/base/model.safetensors", st_bytes(tensors))
    write(f"{folder}/task/model.safetensors", st_bytes(renamed(tensors, under("model."))))
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: t{i}, path: task}}\n" for i in range(30)))
    start = time.time()
    code, out, err = call([DELTAZOO, "plan", "zoo.yaml", "--headers"], cwd=folder)
    check(code == 0 and time.time() - start < 20, f"{time.time() - start:.1f} s: {err[-300:]}")

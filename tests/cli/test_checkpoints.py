"""Checkpoints as people have them: tied weights, renamed prefixes, every dtype, hub snapshots, shards of another size. Compressed with 3 ranks (the bytes of
one rank), restored, and read by the independent reader."""
import json
import os
import shutil
import sys

import numpy as np

from common import (model_files, EMBED, K, NORM, Q, ROOT, UP, SmallZoo, call, check, equal, good, hashes, info, read, refused, sha256, small_model, st_bytes, st_head, st_parse, to_dtype,
                    to_float, with_scratch, write)

READER = os.path.join(ROOT, "tests", "reader", "check.py")
HEAD = "lm_head.weight"
COMPRESS = ["compress", "zoo.yaml", "-o", "a.h5", "-q"]


def policies(folder, task="one", archive="a.h5"):
    return {t["name"]: t["policy"] for t in info(archive, task, folder)["tasks"][0]["tensors"]}


def plan(folder, *more, task=0):
    r = good(["plan", "zoo.yaml", "--json", *more], cwd=folder)
    return {t["name"]: t for t in json.loads(r.out)["tasks"][task]["tensors"]}, r


def reader(folder, *args):
    code, out, err = call([sys.executable, READER, f"{folder}/a.h5", *args], cwd=folder)
    check(code == 0, f"the independent reader: {out}{err}")


def round_trip(zoo, *recipe, task="one", lossless=True):
    """Archives of 1 and 3 ranks are the same; what is restored by 3 is what the independent reader decodes. Exact recipes: it is what was there."""
    folder = zoo.folder
    r = zoo.compress("a.h5", "--force", *recipe, ranks=3)
    zoo.compress("alone.h5", "--force", *recipe)
    check(read(f"{folder}/a.h5") == read(f"{folder}/alone.h5"), "the archives of 1 and of 3 ranks differ")
    shutil.rmtree(f"{folder}/r", ignore_errors=True)
    good(["restore", "a.h5", "--task", task, "--base", "base", "-o", "r"], 3, cwd=folder)
    good(["verify", "a.h5", "--base", "base"], 3, cwd=folder)
    equal(model_files(f"{folder}/r"), model_files(f"{folder}/{task}"), "listing")
    if lossless:
        equal(hashes(f"{folder}/r"), hashes(f"{folder}/{task}"), "restored files")
    reader(folder, "--check")
    reader(folder, "--task", task, "--base", "base", "--against", "r")
    return r


def lossy(*tensors):
    return "".join(f'  - {{match: "{t}", policy: ultradelta}}\n' for t in tensors) + '  - {match: "*", policy: lossless}\n'


# ------------------------------------------------------------------------------------------------------ tied weights

def tied_model(model):
    """The model with a head that is its embedding."""
    return model + [(HEAD,) + [t for t in model if t[0] == EMBED][0][1:]]


@with_scratch
def test_tied_head_is_stored_once(folder):
    zoo = SmallZoo(folder, "BF16", shapes={EMBED: (80, 32), Q: (48, 32), NORM: (32,)})
    for name, model in [("base", zoo.base)] + list(zoo.tasks.items()):
        zoo.put(name, tied_model(model))
    r = round_trip(zoo, "--recipe", "lossless")
    check(any(HEAD in n and EMBED in n for n in r.lines("note")), f"no note tells the tie: {r}")
    tensors = {t["name"]: t for t in info("a.h5", "one", folder)["tasks"][0]["tensors"]}
    equal((tensors[HEAD]["policy"], tensors[HEAD]["stored_bytes"], tensors[EMBED]["policy"]), ("tied", 0, "lossless"), "policies")
    zoo.compress("b.h5", "--recipe", "lossless")
    good(["restore", "b.h5", "--task", "two", "--base", "base", "-o", "one-tensor", "--tensor", "lm_head*"], cwd=folder)
    got = st_parse(f"{folder}/one-tensor/model.safetensors")
    equal(list(got), [HEAD], "tensors")
    check(got[HEAD] == st_parse(f"{folder}/two/model.safetensors")[HEAD], "the head is not the task's")
    out = json.loads(good(["compare", "a.h5", "--task", "one", "--base", "base", "--finetuned", "one", "--json"], 3, cwd=folder).out)
    check(all(t["identical"] for t in out["tensors"]), f"compare: {out}")


@with_scratch
def test_tied_head_of_a_lossy_embedding_is_the_restored_embedding(folder):
    zoo = SmallZoo(folder, shapes={EMBED: (80, 32), Q: (48, 32), NORM: (32,)})
    zoo.put("one", tied_model(zoo.tasks["one"]))  # the base has no head: it is tied
    write(f"{folder}/r.yaml", "sparsity: 0.8\ntensors:\n" + lossy("*embed_tokens*", "lm_head*", "*_proj*"))
    round_trip(zoo, "--recipe", "r.yaml", lossless=False)
    got = st_parse(f"{folder}/r/model.safetensors")
    check(got[EMBED] == got[HEAD] and got[EMBED] != st_parse(f"{folder}/one/model.safetensors")[EMBED], "head and embedding are not one lossy tensor")
    write(f"{folder}/r.yaml", "sparsity: 0.8\ntensors:\n" + lossy("*embed_tokens*", "*_proj*"))
    round_trip(zoo, "--recipe", "r.yaml", lossless=False)  # the head is exact by its rule, so both are
    got, want = st_parse(f"{folder}/r/model.safetensors"), st_parse(f"{folder}/one/model.safetensors")
    check(got[HEAD] == want[HEAD] and got[EMBED] == want[EMBED], "a tensor is less exact than its rule")
    equal(policies(folder)[EMBED], "tied", "policy of the embedding")


@with_scratch
def test_tensors_that_agree_only_in_samples_are_not_tied(folder):
    zoo = SmallZoo(folder, shapes={EMBED: (400, 32), Q: (48, 32), NORM: (32,)})
    head = bytearray([t for t in zoo.tasks["one"] if t[0] == EMBED][0][3])
    head[12345] ^= 1
    zoo.put("one", zoo.tasks["one"] + [(HEAD, "F32", (400, 32), bytes(head))])
    round_trip(zoo, "--recipe", "lossless")
    equal(policies(folder)[HEAD], "lossless", "policy of the head")


@with_scratch
def test_untied_head_takes_the_embedding_of_a_tied_base(folder):
    zoo = SmallZoo(folder, shapes={EMBED: (40, 32), Q: (48, 32), NORM: (32,)})
    head = to_float([t for t in zoo.base if t[0] == EMBED][0][3], "F32") * np.float32(1.0001)
    zoo.put("one", zoo.tasks["one"] + [(HEAD, "F32", (41, 32), head.tobytes() + bytes(range(128)))])
    tensors, r = plan(folder, "--recipe", "lossless")
    equal((tensors[HEAD]["base"], tensors[HEAD]["match"]), (EMBED, "head"), "plan")
    check(any(HEAD in n and EMBED in n for n in r.lines("note")), f"no note tells the match: {r}")
    round_trip(zoo, "--recipe", "lossless")
    stored = {t["name"]: t["stored_bytes"] for t in info("a.h5", "one", folder)["tasks"][0]["tensors"]}
    check(stored[HEAD] < 41 * 32 * 3, f"{stored[HEAD]} bytes: the base did not help")


# ---------------------------------------------------------------------------------------------------- other prefixes

def prefix_case(of_base, of_task):
    def test(folder):
        zoo = SmallZoo(folder)
        bare = {name: name.replace("model.", "", 1) for name, *_ in zoo.base}
        zoo.put("base", [(of_base + bare[n], *rest) for n, *rest in zoo.base])
        for task, model in zoo.tasks.items():
            zoo.put(task, [(of_task + bare[n], *rest) for n, *rest in model])
        tensors, r = plan(folder)
        for name, t in tensors.items():
            equal((t["base"], t["match"]), (of_base + name[len(of_task):], "prefix"), f"plan of {name}")
        check(sum("5 tensors" in n and of_task + bare[EMBED] in n and "'one'" in n for n in r.lines("note")) == 1, f"no note names the rule: {r}")
        round_trip(zoo, "--recipe", "lossless")
        round_trip(zoo, "--set", "sparsity=0.5", lossless=False)
        equal(policies(folder), {of_task + bare[n]: p for n, p in {EMBED: "lossless", Q: "ultradelta", K: "ultradelta", UP: "ultradelta", NORM: "lossless"}.items()},
              "policies")

    return with_scratch(test)


test_prefix_of_a_distributed_wrapper = prefix_case("model.", "module.model.")
test_prefix_of_an_adapter_library = prefix_case("model.", "base_model.model.model.")
test_prefix_that_only_the_base_has = prefix_case("transformer.", "")


@with_scratch
def test_ambiguous_prefixes_match_nothing(folder):
    zoo = SmallZoo(folder)
    zoo.put("base", zoo.base + [("module." + n, *rest) for n, *rest in zoo.base[:2]])
    zoo.put("one", [("base_model." + n if n == EMBED else n, *rest) for n, *rest in zoo.tasks["one"]])
    tensors, _ = plan(folder)
    equal((tensors["base_model." + EMBED]["base"], tensors[Q]["base"]), (None, Q), "matches")
    round_trip(zoo, "--recipe", "lossless")


# ------------------------------------------------------------------------------------------------------- every dtype

def dtype_case(of_base, of_task):
    def test(folder):
        zoo = SmallZoo(folder, of_base)
        big = 60 if of_task.startswith("F8") else 1  # deltas as coarse as the type
        model = small_model(2, "F32", base=[(n, "F32", s, to_float(b, d).tobytes()) for n, d, s, b in zoo.base], scale=1e-3 * big)
        model = [(n, of_task, s, to_dtype(to_float(b, "F32"), of_task)) for n, _, s, b in model]
        if of_task == "F64":  # values that no f32 is
            model = [(n, d, s, (np.frombuffer(b) * (1 + 1e-10)).tobytes()) for n, d, s, b in model]
        zoo.put("one", model)
        zoo.manifest("one")
        round_trip(zoo, "--recipe", "lossless")
        round_trip(zoo, "--set", "sparsity=0.5", lossless=False)
        equal([policies(folder)[n] for n in (Q, NORM)], ["ultradelta", "lossless"], "policies")
        reader(folder, "--task", "one", "--base", "base", "--original", "one")
        got, want = st_parse(f"{folder}/r/model.safetensors"), st_parse(f"{folder}/one/model.safetensors")
        equal(got[Q][:2], want[Q][:2], "dtype and shape")
        r, o, b = (to_float(x[Q][2], x[Q][0]) for x in (got, want, st_parse(f"{folder}/base/model.safetensors")))
        check(got[Q] != want[Q] and np.isfinite(r).all(), "Q is not a lossy tensor")
        check(np.dot(r - b, o - b) > 0.3 * np.dot(o - b, o - b), "the restored delta has nothing of the task's")

    return with_scratch(test)


for pair in (("F64", "F64"), ("F8_E4M3", "F8_E4M3"), ("F8_E5M2", "F8_E5M2"), ("F32", "F64"), ("F64", "BF16"), ("BF16", "F8_E4M3"), ("F8_E5M2", "F32"), ("F32", "F8_E5M2")):
    globals()["test_dtype_" + "_from_a_base_of_".join(reversed(pair)).lower()] = dtype_case(*pair)


@with_scratch
def test_f64_elements_that_are_not_kept_are_the_base_to_the_last_bit(folder):
    zoo = SmallZoo(folder, "F64")
    zoo.put("base", [(n, d, s, (np.frombuffer(b) * (1 + 1e-12)).tobytes()) for n, d, s, b in zoo.base])
    round_trip(zoo, "--set", "sparsity=0.5", lossless=False)
    got, base = (np.frombuffer(st_parse(f"{folder}/{x}/model.safetensors")[Q][2]) for x in ("r", "base"))
    check(0.3 < (got == base).mean() < 0.7, f"{(got == base).mean()} of the elements are the base's")


def f8_model(seed, scales=(0, 1, 2)):
    rng = np.random.default_rng(seed)
    model = []
    for layer in range(3):
        name = f"model.layers.{layer}.self_attn.q_proj.weight"
        model.append((name, "F8_E4M3", (64, 32), to_dtype(rng.standard_normal(2048).astype(np.float32) * 40, "F8_E4M3")))
        if layer in scales:
            model.append((name + "_scale_inv", "F32", (1, 1), rng.random(1).astype(np.float32).tobytes()))
    return model + [(K, "BF16", (32, 32), to_dtype(rng.standard_normal(1024) * 0.02, "BF16"))]


@with_scratch
def test_block_scaled_f8_pairs_are_kept_exactly(folder):
    zoo = SmallZoo(folder)
    zoo.put("base", f8_model(1))
    zoo.put("one", f8_model(2))
    zoo.manifest("one")
    write(f"{folder}/r.yaml", 'sparsity: 0.8\ntensors:\n  - {match: "*", policy: ultradelta}\n')
    r = round_trip(zoo, "--recipe", "r.yaml", lossless=False)
    check(any("3 block-scaled F8 tensors" in n and "q_proj.weight_scale_inv" in n for n in r.lines("note")), f"no note tells of the pairs: {r}")
    found = policies(folder)
    equal({n: p for n, p in found.items() if p != "lossless"}, {K: "ultradelta"}, "lossy tensors")
    got, want = st_parse(f"{folder}/r/model.safetensors"), st_parse(f"{folder}/one/model.safetensors")
    check(all(got[n] == want[n] for n in want if n != K), "a pair is not exact")


@with_scratch
def test_f8_without_the_scale_its_siblings_have_is_refused(folder):
    zoo = SmallZoo(folder)
    zoo.put("base", f8_model(1))
    zoo.put("one", f8_model(2, scales=(0, 2)))
    zoo.manifest("one")
    refused(folder, COMPRESS, 1, "one/model.safetensors", "fp8 scale missing", "'model.layers.1.self_attn.q_proj.weight'")
    refused(folder, ["plan", "zoo.yaml"], 1, "fp8 scale missing", ranks=(1,))
    zoo.put("base", f8_model(1, scales=(1,)))
    refused(folder, COMPRESS, 1, "base/model.safetensors", "fp8 scale missing", lines=3)
    zoo.put("base", f8_model(1, scales=()))
    zoo.put("one", f8_model(2, scales=()))
    round_trip(zoo, "--recipe", "lossless")  # no scales at all: plain F8


@with_scratch
def test_whole_llama_shaped_model_is_small_and_comes_back(folder):
    """The small one of tests/bench/whole.py: 3 shards, a row more than the base, tied and untied head."""
    code, out, err = call([sys.executable, os.path.join(ROOT, "tests", "bench", "whole.py"), folder, "--small"], limit=180)
    check(code == 0 and out.count("| whole |") == 2, f"{out}{err}")


# --------------------------------------------------------------------------------------------------- on disk, as it is

def shard(folder, name, model, sizes=(2, 2), metadata=None):
    """A directory of shards with an index, a config and a generation config."""
    parts, at = [], 0
    for size in (*sizes, len(model)):
        parts.append(model[at:at + size])
        at += size
    parts = [p for p in parts if p]
    where = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
        write(f"{folder}/{name}/{file}", st_bytes(part, metadata or {"format": "pt"}))
        where.update({t[0]: file for t in part})
    write(f"{folder}/{name}/model.safetensors.index.json", json.dumps({"metadata": {"total_size": 1, "total_parameters": 7}, "weight_map": where}))
    write(f"{folder}/{name}/config.json", '{"a": 1}')
    write(f"{folder}/{name}/generation_config.json", "{}")


@with_scratch
def test_shards_other_than_the_bases_with_more_rows_and_a_tie(folder):
    zoo = SmallZoo(folder, "F32", shapes={EMBED: (80, 32), Q: (48, 32), K: (48, 32), NORM: (32,)})
    model = [(n, "BF16", s, to_dtype(to_float(b, d), "BF16")) for n, d, s, b in zoo.tasks["one"]]
    embed = (EMBED, "BF16", (81, 32), model[0][3] + bytes(range(64)))
    os.remove(f"{folder}/one/model.safetensors")
    shard(folder, "one", [embed] + model[1:] + [(HEAD,) + embed[1:]])
    zoo.manifest("one")
    round_trip(zoo, "--recipe", "lossless")
    equal(policies(folder)[HEAD], "tied", "policy of the head")
    round_trip(zoo, "--recipe", "whole", "--set", "sparsity=0.5", lossless=False)
    got = st_parse(f"{folder}/r")
    check(got[HEAD] == got[EMBED] and got[EMBED][2][-64:] == bytes(range(64)) and got[EMBED] != (embed[1:]), "embedding and head")


@with_scratch
def test_hub_snapshots_of_links_work(folder):
    zoo = SmallZoo(folder)
    for name in "base", "one":
        hub = f"{folder}/models--org--{name}"
        snapshot = f"{hub}/snapshots/0123abcd"
        os.makedirs(f"{hub}/blobs")
        os.makedirs(snapshot)
        shard(folder, f"made-{name}", zoo.base if name == "base" else zoo.tasks["one"])
        for i, file in enumerate(sorted(os.listdir(f"{folder}/made-{name}"))):
            os.rename(f"{folder}/made-{name}/{file}", f"{hub}/blobs/{i:040x}")
            os.symlink(f"../../blobs/{i:040x}", f"{snapshot}/{file}")
    write(f"{folder}/zoo.yaml", "base: models--org--base/snapshots/0123abcd\ntasks:\n  - {name: one, path: models--org--one/snapshots/0123abcd}\n")
    zoo.compress("a.h5", "--recipe", "lossless", ranks=3)
    good(["restore", "a.h5", "--task", "one", "--base", "models--org--base/snapshots/0123abcd", "-o", "r"], 3, cwd=folder)
    want = {f: sha256(f"{folder}/models--org--one/snapshots/0123abcd/{f}") for f in os.listdir(f"{folder}/models--org--one/snapshots/0123abcd")}
    equal(hashes(f"{folder}/r"), want, "restored files")
    check(not any(os.path.islink(f"{folder}/r/{f}") for f in os.listdir(f"{folder}/r")), "links are restored")


@with_scratch
def test_tied_task_is_appended_and_outlives_another(folder):
    zoo = SmallZoo(folder, shapes={EMBED: (80, 32), Q: (48, 32), NORM: (32,)})
    zoo.put("two", [("module." + n, *rest) for n, *rest in tied_model(zoo.tasks["two"])])
    zoo.manifest("one")
    zoo.compress("a.h5", "--recipe", "lossless")
    zoo.manifest("two")
    zoo.compress("a.h5", "--append", "--recipe", "lossless", ranks=3)
    good(["remove", "a.h5", "--task", "one"], cwd=folder)
    good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", "r"], 3, cwd=folder)
    equal(hashes(f"{folder}/r"), hashes(f"{folder}/two"), "restored files")
    reader(folder, "--task", "two", "--base", "base", "--against", "r")


@with_scratch
def test_restore_cuts_new_shards(folder):
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    shard(folder, "one", tied_model(zoo.tasks["one"]), sizes=(1, 3), metadata={"format": "mlx", "quantization_level": "none"})
    zoo.compress("a.h5", "--recipe", "lossless")
    want = st_parse(f"{folder}/one")
    for ranks in (1, 3):
        for size, files in (("12K", 4), ("100", 6), ("1G", 1)):
            good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", f"r{size}", "--max-shard-size", size, "--force"], ranks, cwd=folder)
            out = f"{folder}/r{size}"
            shards = [f"model-{i + 1:05}-of-{files:05}.safetensors" for i in range(files)] if files > 1 else ["model.safetensors"]
            index = ["model.safetensors.index.json"] if files > 1 else []
            equal(model_files(out), sorted(shards + index + ["config.json", "generation_config.json"]), "listing")
            got = st_parse(out)
            check(got == want, "tensors differ")
            check(all(list(st_parse(f"{out}/{s}")) == sorted(st_parse(f"{out}/{s}")) for s in shards), "a shard is not in the order of names")
            if index:
                reported = json.loads(read(f"{out}/{index[0]}"))
                equal(reported["weight_map"], {n: s for s in shards for n in st_parse(f"{out}/{s}")}, "index")
                equal(reported["metadata"], {"total_size": sum(len(t[2]) for t in want.values()), "total_parameters": 7}, "metadata of the index")
            equal({json.loads(st_head(f"{out}/{s}")[8:])["__metadata__"]["quantization_level"] for s in shards}, {"none"}, "metadata of the files")
            if size == "12K":
                sizes = [sum(len(t[2]) for t in st_parse(f"{out}/{s}").values()) for s in shards]
                check(max(sizes) <= 12 << 10, f"shards of {sizes} bytes")
            write(f"{folder}/again.yaml", f"base: base\ntasks:\n  - {{name: x, path: r{size}}}\n")
            good(["plan", "again.yaml"], cwd=folder)
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "x", "--max-shard-size", "1K", "--tensor", "*"], 2, "--tensor")
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "x", "--max-shard-size", "many"], 2, "many")

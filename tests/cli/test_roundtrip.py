"""Zoos in, archives out, models back; what info, verify, compare and plan say about them."""
import fnmatch
import json
import math
import os

import numpy as np

from common import (st_members, model_files, RANKS, SmallZoo, call, check, equal, good, hashes, info, read, run, st_head, st_parse, tiny_zoo, to_float, with_scratch, DELTAZOO)

COST = {"test_info_tells_what_the_contract_says": 3}


def lossless_case(dtype, shard):
    def test(folder):
        zoo = tiny_zoo(dtype, shard)
        good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "--recipe", "lossless", "-q"], 3, cwd=folder)
        for ranks in (1, 3):
            good(["verify", "a.h5", "--base", f"{zoo}/base", "-q"], ranks, cwd=folder)
            for task in ("task-1", "task-2")[:2 if ranks == 1 else 1]:
                good(["restore", "a.h5", "--task", task, "--base", f"{zoo}/base", "-o", f"{task}-{ranks}", "-q"], ranks, cwd=folder)
                equal(hashes(f"{folder}/{task}-{ranks}"), hashes(f"{zoo}/{task}"), f"files of {task}, {ranks} ranks")

    return with_scratch(test)


def default_case(dtype, shard):
    def test(folder):
        zoo = tiny_zoo(dtype, shard)
        good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q", "--recipe", "ultradelta"], 3, cwd=folder)
        policy = {t["name"]: t["policy"] for t in info("a.h5", "task-1", folder)["tasks"][0]["tensors"]}
        for ranks in (1, 3):
            good(["restore", "a.h5", "--task", "task-1", "--base", f"{zoo}/base", "-o", f"r{ranks}", "-q"], ranks, cwd=folder)
            good(["verify", "a.h5", "--base", f"{zoo}/base", "-q"], ranks, cwd=folder)
        equal(hashes(f"{folder}/r1"), hashes(f"{folder}/r3"), "files restored by 1 and by 3 ranks")
        got, want = f"{folder}/r1", f"{zoo}/task-1"
        equal(model_files(got), model_files(want), "files")
        for file in os.listdir(want):
            if file.endswith(".safetensors"):
                check(st_members(f"{got}/{file}") == st_members(f"{want}/{file}"), f"{file}: its header differs")
                equal(*(os.path.getsize(f) - len(st_head(f)) for f in (f"{got}/{file}", f"{want}/{file}")), f"bytes of tensors in {file}")
            else:
                check(read(f"{got}/{file}") == read(f"{want}/{file}"), f"{file} differs")
        got, want, base = st_parse(got), st_parse(want), st_parse(f"{zoo}/base")
        equal(set(policy), set(want), "tensors of the index")
        for name, (dt, shape, data) in want.items():
            equal(got[name][:2], (dt, shape), name)
            if policy[name] != "ultradelta":
                check(got[name][2] == data, f"{name} ({policy[name]}) is not byte-identical")
            else:
                moved = np.mean(to_float(got[name][2], dt) != to_float(base[name][2], dt))
                check(0.01 < moved < 0.05, f"{name}: {moved:.4f} of its elements differ from the base, not about 0.03")
        check(sum(p == "ultradelta" for p in policy.values()) == 28, "not the seven linear layers of four blocks are lossy")

    return with_scratch(test)


for _dtype in ("bf16", "f16", "f32"):
    for _shard in (None, "5M"):
        globals()[f"test_lossless_{_dtype}_{'sharded' if _shard else 'single'}"] = lossless_case(_dtype, _shard)
        globals()[f"test_default_{_dtype}_{'sharded' if _shard else 'single'}"] = default_case(_dtype, _shard)


@with_scratch
def test_sharded_zoo_is_sharded(folder):
    files = os.listdir(tiny_zoo("bf16", "5M") + "/task-1")
    check("model.safetensors.index.json" in files and sum(f.endswith(".safetensors") for f in files) > 1, f"one file only: {files}")


@with_scratch
def test_restore_some_tensors(folder):
    zoo = tiny_zoo("bf16", "5M")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    good(["restore", "a.h5", "--task", "task-2", "--base", f"{zoo}/base", "-o", "whole", "-q"], cwd=folder)
    whole = st_parse(f"{folder}/whole")
    for i, glob in enumerate(("*.layers.1.*", "lm_head.weight", "*norm*", "*")):
        for ranks in (1, 3):
            out = f"r{i}-{ranks}"
            good(["restore", "a.h5", "--task", "task-2", "--base", f"{zoo}/base", "-o", out, "--tensor", glob, "-q"], ranks, cwd=folder)
            equal(model_files(f"{folder}/{out}"), ["model.safetensors"], "files")
            got = st_parse(f"{folder}/{out}")
            equal(set(got), {n for n in whole if fnmatch.fnmatchcase(n, glob)}, f"tensors of {glob}")
            check(all(got[n] == whole[n] for n in got), f"{glob}: tensors differ from those of the whole model")


@with_scratch
def test_single_file_models(folder):
    zoo = SmallZoo(folder)
    for name in ("base", "one"):
        os.rename(f"{folder}/{name}/model.safetensors", f"{folder}/{name}.safetensors")
    with open(f"{folder}/zoo.yaml", "w") as f:
        f.write(f"base: {folder}/base.safetensors\ntasks:\n  - {{name: one, path: one.safetensors}}\n")
    zoo.compress("a.h5", "--recipe", "lossless", ranks=3)
    good(["restore", "a.h5", "--task", "one", "--base", "base.safetensors", "-o", "r"], 3, cwd=folder)
    equal(hashes(f"{folder}/r"), {"one.safetensors": hashes(folder)["one.safetensors"]}, "files")


@with_scratch
def test_info_tells_what_the_contract_says(folder):
    zoo = tiny_zoo("f16")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "--recipe", "ultradelta", "--set", "seed=5", "-q", "--report", "report.json"], 3, cwd=folder)
    whole, report = info("a.h5", cwd=folder), json.loads(read(f"{folder}/report.json"))
    equal(whole["format_version"], 4, "format_version")
    check(len(whole["base"]["fingerprint"]) == 32 and int(whole["base"]["fingerprint"], 16), "fingerprint")
    equal(whole["archive_bytes"], os.path.getsize(f"{folder}/a.h5"), "archive_bytes")
    equal([t["name"] for t in whole["tasks"]], ["task-1", "task-2"], "tasks")
    equal(report["tasks"], whole["tasks"], "tasks of the report")
    stored = sum(t["stored_bytes"] for t in whole["tasks"])
    check(0.99 * whole["archive_bytes"] - 100 <= stored + whole["shared_bytes"] <= whole["archive_bytes"],
          f"{stored} bytes of the tasks and {whole['shared_bytes']} shared do not make {whole['archive_bytes']}")
    norms = [t["trace_norm"] for t in whole["tasks"]]

    def near(a, b, what, tolerance=1e-6):
        check(abs(a - b) <= tolerance * max(abs(a), abs(b)), f"{what}: {a}, not {b}")

    for t in whole["tasks"]:
        more = info("a.h5", t["name"], folder)["tasks"]
        equal(len(more), 1, "tasks shown with --task")
        tensors = more[0].pop("tensors")
        more[0].pop("recipe_text", None)
        equal(more[0], t, "task, shown alone")
        model = st_parse(f"{zoo}/{t['name']}")
        equal({x["name"]: (x["dtype"], tuple(x["shape"])) for x in tensors}, {n: v[:2] for n, v in model.items()}, "tensors")
        lossy = [x for x in tensors if x["policy"] == "ultradelta"]
        parameters = sum(math.prod(x["shape"]) for x in lossy)
        equal((t["sparsity"], t["bits"], t["seed"]), (0.97, 4, 5), "sparsity, bits, seed")
        equal(t["source_bytes"], sum(len(v[2]) for v in model.values()), "source_bytes")
        equal(t["lossy"]["parameters"], parameters, "lossy.parameters")
        equal(t["lossy"]["source_bytes"], 2 * parameters, "lossy.source_bytes")
        equal(t["lossy"]["kept"], sum(x["kept"] for x in lossy), "lossy.kept")
        check(0.025 < t["lossy"]["kept"] / parameters < 0.031, "lossy.kept is not about 3 %")
        check(all(x["kept"] is None and x["sparsity"] is None for x in tensors if x["policy"] != "ultradelta"), "kept of an exact tensor")
        payload = sum(x["stored_bytes"] for x in tensors)
        check(payload < t["stored_bytes"] < payload + 0.1 * payload + 20000, f"stored_bytes {t['stored_bytes']} beside a payload of {payload}")
        part = sum(x["stored_bytes"] for x in lossy)
        check(part < t["lossy"]["stored_bytes"] <= part + t["stored_bytes"] - payload, f"lossy.stored_bytes {t['lossy']['stored_bytes']} beside {part}")
        check(t["lossy"]["entropy_bytes"] < part < 1.5 * t["lossy"]["entropy_bytes"], f"entropy {t['lossy']['entropy_bytes']} beside {part}")
        b = t["bytes"]
        near(sum(b.values()), t["stored_bytes"], "sum of bytes", 1e-9)
        equal((b["kept_values"], b["exact_tensors"]), (t["lossy"]["entropy_bytes"], payload - part), "bytes of kept values and exact tensors")
        equal(b["checks"], 4 * len(lossy), "bytes.checks: a checksum for the one block of each")
        near(b["positions_and_codes"], part - b["kept_values"] - b["checks"], "bytes.positions_and_codes")
        check(b["index"] > 0 and b["structures"] > 0, f"bytes: {b}")
        near(t["ratio"]["on_disk"], t["source_bytes"] / t["stored_bytes"], "ratio.on_disk")
        near(t["lossy"]["ratio"]["on_disk"], t["lossy"]["source_bytes"] / t["lossy"]["stored_bytes"], "lossy.ratio.on_disk", 1 / t["lossy"]["stored_bytes"])
        p = t["lossy"]["kept"] / parameters
        near(t["lossy"]["ratio"]["value_bits"], 16 / (4 * p), "value_bits")
        near(t["lossy"]["ratio"]["positions_coded"], 16 / (-p * math.log2(p) - (1 - p) * math.log2(1 - p) + 4 * p), "positions_coded")
        near(t["gamma"], min(norms) / t["trace_norm"], "gamma")
    equal(max(t["gamma"] for t in whole["tasks"]), 1, "largest gamma")


@with_scratch
def test_largest_seed_is_reported_as_it_is(folder):
    SmallZoo(folder).compress("a.h5", "--set", f"seed={2**63 - 1}")
    equal(info("a.h5", cwd=folder)["tasks"][0]["seed"], 2**63 - 1, "seed")


@with_scratch
def test_compare_measures_the_error(folder):
    zoo = tiny_zoo("f32")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "--set", "sparsity=0.5", "-q"], cwd=folder)
    good(["restore", "a.h5", "--task", "task-1", "--base", f"{zoo}/base", "-o", "r", "-q"], cwd=folder)
    args = ["compare", "a.h5", "--task", "task-1", "--base", f"{zoo}/base", "--finetuned", f"{zoo}/task-1", "-q", "--json"]
    reported = [json.loads(good(args, ranks, cwd=folder).out) for ranks in (1, 3)]
    base, fine, got = st_parse(f"{zoo}/base"), st_parse(f"{zoo}/task-1"), st_parse(f"{folder}/r")
    equal([t["name"] for t in reported[0]["tensors"]], list(fine), "tensors")
    policy = {t["name"]: t["policy"] for t in info("a.h5", "task-1", folder)["tasks"][0]["tensors"]}
    for j in reported:
        for t in j["tensors"]:
            name = t["name"]
            equal(t["identical"], got[name] == fine[name], f"identical of {name}")
            equal(t["policy"], policy[name], f"policy of {name}")
            if t["identical"]:
                continue
            b, f, g = (to_float(m[name][2], "F32").astype(np.float64) for m in (base, fine, got))
            for key, want in (("relative_error", np.linalg.norm(g - f) / np.linalg.norm(f - b)),
                              ("cosine", np.dot(g - b, f - b) / np.linalg.norm(g - b) / np.linalg.norm(f - b)), ("max_abs_error", np.abs(g - f).max())):
                check(abs(t[key] - want) <= 1e-4 * abs(want) + 1e-9, f"{key} of {name}: {t[key]}, not {want}")
    check(0.3 < reported[0]["lossy"]["relative_error"] < 3 and 0.3 < reported[0]["lossy"]["cosine"] < 1, f"of all lossy tensors: {reported[0]['lossy']}")


@with_scratch
def test_compare_finds_exact_tensors_identical(folder):
    zoo = tiny_zoo("bf16")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "--recipe", "lossless", "-q"], cwd=folder)
    for ranks in (1, 3):
        r = good(["compare", "a.h5", "--task", "task-2", "--base", f"{zoo}/base", "--finetuned", f"{zoo}/task-2", "-q", "--json"], ranks, cwd=folder)
        check(all(t["identical"] for t in json.loads(r.out)["tensors"]), "not all tensors are identical")


@with_scratch
def test_verify_json_of_a_sound_archive(folder):
    SmallZoo(folder).compress()
    for ranks in RANKS:
        j = json.loads(good(["verify", "a.h5", "--base", "base", "--json", "-q"], ranks, cwd=folder).out)
        equal((j["sound"], j["problems"], j["tasks"], j["tensors"]), (True, [], 2, 10), "verify --json")


@with_scratch
def test_plan_reads_headers_only(folder):
    """The data may as well be missing blocks: files of zeros, as sparse as they come."""
    SmallZoo(folder)
    for name in ("base", "one", "two"):
        head = st_head(f"{folder}/{name}/model.safetensors")
        size = os.path.getsize(f"{folder}/{name}/model.safetensors")
        with open(f"{folder}/{name}/model.safetensors", "wb") as f:
            f.write(head)
            f.truncate(size)
    plans = [json.loads(good(["plan", "zoo.yaml", "--ranks", "5", "--json"], ranks, cwd=folder).out) for ranks in (1, 3)]
    equal(plans[0], plans[1], "plan by 1 and by 3 ranks")
    good(["plan", "zoo.yaml"], cwd=folder)


@with_scratch
def test_synth_does_not_depend_on_ranks(folder):
    for ranks in (1, 3):
        good(["synth", "--shape", "tiny", "--layers", "1", "--tasks", "2", "--dtype", "bf16", "--seed", "3", "-q", "-o", f"z{ranks}"], ranks, cwd=folder)
    equal(hashes(f"{folder}/z1"), hashes(f"{folder}/z3"), "files")


@with_scratch
def test_every_command_has_help(folder):
    for command in ([], ["synth"], ["compress"], ["restore"], ["info"], ["verify"], ["compare"], ["plan"]):
        r = good(command + ["--help"], cwd=folder)
        check("deltazoo" in r.out and not r.err, f"{r}")
    check(run([], cwd=folder).code == 2, "no command: exit code is not 2")


@with_scratch
def test_mpirun_gives_the_exit_code_on(folder):
    SmallZoo(folder)
    for args, want in ((["compress", "nowhere.yaml", "-o", "a.h5"], 2), (["compress", "zoo.yaml", "-o", "a.h5"], 0), (["info", "zoo.yaml"], 1)):
        code, _, err = call(["mpirun", "-n", "3", DELTAZOO] + args, cwd=folder)
        equal(code, want, f"exit code of mpirun for {args}, stderr {err[-500:]!r}")

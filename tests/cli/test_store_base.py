"""The base in the archive: one file restores everything, `--base` is optional, and a wrong one is still refused. And zoos without any base."""
import json
import os
import shutil
import sys

import numpy as np

from common import (EMBED, MARK_FILE, ROOT, SmallZoo, call, check, equal, good, hashes, info, read, refused, run, sha256, st_bytes, small_model, stopped,
                    tiny_zoo, to_dtype, turns, with_scratch, write)

COST = {"test_killed_while_the_base_is_stored": 12, "test_every_command_goes_without_the_base": 9}

PURE = [sys.executable, os.path.join(ROOT, "src", "python", "deltazoo.py")]


def zoo_of(folder, **keys):
    """A synthetic zoo with a manifest in `folder`; a base with more files than a model."""
    zoo = f"{folder}/zoo"
    shutil.copytree(tiny_zoo("bf16"), zoo)
    write(f"{zoo}/base/tokenizer.json", b'{"of": "the base"}\n' * 50)
    write(f"{zoo}/base/empty.txt", "")
    lines = "".join(f"{key}: {value}\n" for key, value in keys.items())
    write(f"{folder}/zoo.yaml", f"base: zoo/base\n{lines}tasks:\n  - {{name: task-1, path: zoo/task-1}}\n  - {{name: task-2, path: zoo/task-2}}\n")
    return zoo


def compress(folder, archive, *more, ranks=1, manifest="zoo.yaml"):
    return good(["compress", manifest, "-o", archive, "-q", *more], ranks, cwd=folder)


def restored(folder, archive, task, out, *more, ranks=1):
    good(["restore", archive, "--task", task, "-o", out, "-q", *more], ranks, cwd=folder)
    return hashes(f"{folder}/{out}")


@with_scratch
def test_the_base_comes_back_byte_for_byte(folder):
    zoo = zoo_of(folder)
    compress(folder, "a.h5", "--with-base")
    for ranks in (1, 3):
        equal(restored(folder, "a.h5", "base", f"base-{ranks}", ranks=ranks), hashes(f"{zoo}/base"), f"the base, {ranks} ranks")
    check(not os.path.exists(f"{folder}/base-1/{MARK_FILE}"), "the base is marked as lossy")
    for task in ("task-1", "task-2"):
        equal(restored(folder, "a.h5", task, task + "-a"), restored(folder, "a.h5", task, task + "-b", "--base", "zoo/base"), f"{task} without and with --base")
    good(["restore", "a.h5", "--all", "-o", "all", "-q"], cwd=folder)
    equal(sorted(os.listdir(f"{folder}/all")), ["base", "task-1", "task-2"], "what --all restores")
    equal(hashes(f"{folder}/all/base"), hashes(f"{zoo}/base"), "the base of --all")


@with_scratch
def test_the_base_is_coded_by_itself_and_deduplicated(folder):
    zoo = SmallZoo(folder, "BF16", shapes={"a.weight": (256, 512), "b.weight": (256, 512)})
    tensors = small_model(1, "BF16", {"a.weight": (256, 512), "b.weight": (256, 512)})
    zoo.put("base", [tensors[0], (tensors[1][0], *tensors[0][1:])])  # b has the bytes of a
    write(f"{folder}/base/tokenizer.json", b'{"the": "same"}\n' * 3000)
    shutil.copy(f"{folder}/base/tokenizer.json", f"{folder}/one/tokenizer.json")
    compress(folder, "a.h5", "--with-base", "--quality", "lossless")
    base = info("a.h5", cwd=folder)["base"]
    check(base["stored"], f"{base}")
    stored, half = base["task"]["stored_bytes"], 256 * 512 * 2
    check(stored < 0.72 * half, f"a tied tensor of {half} bytes takes {stored}")
    equal(restored(folder, "a.h5", "base", "r"), hashes(f"{folder}/base"), "the base")


@with_scratch
def test_an_embedding_takes_less_for_its_columns_and_for_what_its_rows_share(folder):
    """A base whose columns differ, and a task whose rows moved alike: smaller than the same elements in another order; same bytes on any ranks."""
    rng = np.random.default_rng(4)
    rows, columns = 60000, 96  # two tiles, the second one begins within a row
    base = rng.standard_normal((rows, columns), np.float32) * np.exp2(rng.standard_normal(columns)) * np.float32(0.02) + rng.standard_normal(columns) * np.float32(0.04)
    moved = base + np.outer(rng.standard_normal(rows), rng.standard_normal(columns)) * 4e-3 + rng.standard_normal((rows, columns)) * 3e-4
    sizes = {}
    for name, order in (("rows", slice(None)), ("mixed", rng.permutation(rows * columns))):
        for model, x in (("base", base), ("one", moved)):
            write(f"{folder}/{name}/{model}/model.safetensors",
                  st_bytes([(EMBED, "BF16", (rows, columns), to_dtype(x.reshape(-1)[order].astype(np.float32), "BF16"))]))
        write(f"{folder}/{name}/zoo.yaml", "base: base\nstore_base: true\ntasks:\n  - {name: one, path: one}\n")
        for ranks in (1, 2, 4) if name == "rows" else (1,):
            compress(folder, f"{name}-{ranks}.h5", "--quality", "lossless", ranks=ranks, manifest=f"{name}/zoo.yaml")
            equal(sha256(f"{folder}/{name}-{ranks}.h5"), sha256(f"{folder}/{name}-1.h5"), f"{ranks} ranks")
        about = info(f"{name}-1.h5", cwd=folder)
        sizes[name] = about["base"]["task"]["stored_bytes"], about["tasks"][0]["stored_bytes"]
        for model in ("base", "one"):
            equal(restored(folder, f"{name}-1.h5", model, f"{name}-{model}", ranks=3)["model.safetensors"], sha256(f"{folder}/{name}/{model}/model.safetensors"), model)
    for i, what, bits in ((0, "base", 0.4), (1, "task", 2)):
        less, more = sizes["rows"][i], sizes["mixed"][i]
        check(more - less > bits / 8 * rows * columns, f"the {what} takes {less} bytes, and {more} in another order")


@with_scratch
def test_same_bytes_on_any_number_of_ranks_and_by_manifest(folder):
    zoo_of(folder)
    write(f"{folder}/with.yaml", read(f"{folder}/zoo.yaml").decode().replace("tasks:", "store_base: true\ntasks:"))
    compress(folder, "a.h5", "--with-base")
    for ranks in (1, 2, 4):
        compress(folder, f"{ranks}.h5", ranks=ranks, manifest="with.yaml")
        equal(sha256(f"{folder}/{ranks}.h5"), sha256(f"{folder}/a.h5"), f"store_base on {ranks} ranks")
    write(f"{folder}/without.yaml", read(f"{folder}/zoo.yaml").decode().replace("tasks:", "store_base: false\ntasks:"))
    compress(folder, "b.h5", manifest="without.yaml")
    compress(folder, "c.h5")
    equal(sha256(f"{folder}/b.h5"), sha256(f"{folder}/c.h5"), "store_base: false")


@with_scratch
def test_a_wrong_base_is_refused_all_the_same(folder):
    zoo_of(folder)
    compress(folder, "a.h5", "--with-base")
    refused(folder, ["restore", "a.h5", "--task", "task-1", "--base", "zoo/task-2", "-o", "r", "-q"], 1, "not the base of this archive")
    refused(folder, ["verify", "a.h5", "--base", "zoo/task-2", "-q"], 1, "not the base of this archive")
    refused(folder, ["restore", "a.h5", "--task", "base", "--base", "zoo/nothing", "-o", "r", "-q"], (1, 2), "zoo/nothing")
    compress(folder, "b.h5")
    refused(folder, ["restore", "b.h5", "--task", "task-1", "-o", "r", "-q"], 2, "b.h5: does not hold its base", "--base PATH", "fingerprint")
    refused(folder, ["compare", "b.h5", "--task", "task-1", "--finetuned", "zoo/task-1"], 2, "does not hold its base")
    refused(folder, ["restore", "b.h5", "--task", "base", "--base", "zoo/base", "-o", "r", "-q"], 2, "no task 'base'")


@with_scratch
def test_every_command_goes_without_the_base(folder):
    zoo_of(folder)
    compress(folder, "a.h5", "--with-base")
    r = good(["verify", "a.h5", "-q"], 2, cwd=folder)
    check("2 tasks and the base" in r.out, f"{r.out}")
    equal(good(["compare", "a.h5", "--task", "task-1", "--finetuned", "zoo/task-1", "--json"], cwd=folder).out.split('"seconds"')[0],
          good(["compare", "a.h5", "--task", "task-1", "--finetuned", "zoo/task-1", "--base", "zoo/base", "--json"], cwd=folder).out.split('"seconds"')[0], "compare")
    for how in (["--format", "patch"], ["--format", "dense"], ["--format", "hdf5"]):
        good(["export", "a.h5", "--task", "task-1", "-o", "x", "-q", *how], cwd=folder)
        good(["export", "a.h5", "--task", "task-1", "-o", "y", "-q", "--base", "zoo/base", *how], 3, cwd=folder)
        equal(sha256(f"{folder}/x"), sha256(f"{folder}/y"), f"export {how} without and with --base")
        os.unlink(f"{folder}/x")
        os.unlink(f"{folder}/y")
    equal(restored(folder, "a.h5", "task-1=0.5", "m1", "--task", "task-2=0.5"), restored(folder, "a.h5", "task-1=0.5", "m2", "--task", "task-2=0.5", "--base", "zoo/base"), "a merge")
    code, out, err = call([*PURE, "restore", "a.h5", "--task", "task-1", "-o", "pure"], cwd=folder)
    equal(code, 0, out + err)
    equal(hashes(f"{folder}/pure"), restored(folder, "a.h5", "task-1", "c"), "the Python reader's task-1")
    code, out, err = call([*PURE, "restore", "a.h5", "--task", "base", "-o", "pure-base"], cwd=folder)
    equal((code, hashes(f"{folder}/pure-base")), (0, hashes(f"{folder}/zoo/base")), "the Python reader's base")
    equal(call([*PURE, "check", "a.h5"], cwd=folder)[0], 0, "the Python reader's check")


@with_scratch
def test_what_tables_say(folder):
    zoo_of(folder)
    r = compress(folder, "a.h5", "--with-base")
    text = good(["info", "a.h5"], cwd=folder).out
    for out in (r.out, text):
        check("base, stored" in out and "with the base, which is in it" in out and "must be kept" not in out, out)
    check("2 tasks and the base" in r.out, r.out)
    equal(good(["info", "a.h5", "--names"], cwd=folder).out.split(), ["task-1", "task-2"], "names")
    found = info("a.h5", cwd=folder)
    equal([t["name"] for t in found["tasks"]], ["task-1", "task-2"], "tasks")
    equal((found["base"]["stored"], found["base"]["task"]["name"]), (True, "base"), "the base")
    both = found["base"]["bytes"] + sum(t["source_bytes"] for t in found["tasks"])
    check(f"{both / found['archive_bytes']:.2f}x" in text, f"the ratio with the base is not {both} / {found['archive_bytes']}: {text}")
    plan = good(["plan", "zoo.yaml", "--with-base"], cwd=folder).out
    check("base, stored" in plan and "with the base, which will be in it" in plan, plan)
    compress(folder, "b.h5")
    equal(info("b.h5", cwd=folder)["base"]["stored"], False, "an archive without its base")


@with_scratch
def test_a_base_is_added_later_and_stays(folder):
    zoo = zoo_of(folder)
    one = write(f"{folder}/one.yaml", "base: zoo/base\ntasks:\n  - {name: task-1, path: zoo/task-1}\n")
    compress(folder, "a.h5", "--with-base")
    compress(folder, "b.h5")
    compress(folder, "b.h5", "--skip-existing", "--with-base", ranks=2)
    for archive in ("a.h5", "b.h5"):
        check(info(archive, cwd=folder)["base"]["stored"], archive)
        equal(restored(folder, archive, "base", f"r-{archive}"), hashes(f"{zoo}/base"), f"the base of {archive}")
    r = compress(folder, "b.h5", "--skip-existing", "--with-base")
    check("has all tasks" in r.out, f"{r.out}")
    compress(folder, "c.h5", "--with-base", manifest=one)
    compress(folder, "c.h5", "--append", "--with-base", "--skip-existing", ranks=3)
    first = restored(folder, "c.h5", "task-2", "r-c")
    equal(first, restored(folder, "a.h5", "task-2", "r-a"), "task-2, appended to an archive with its base")
    good(["remove", "c.h5", "--task", "task-1"], cwd=folder)
    check(info("c.h5", cwd=folder)["base"]["stored"], "removing a task drops the base")
    good(["repack", "a.h5", "--task", "task-2", "-o", "d.h5"], cwd=folder)
    for archive in ("c.h5", "d.h5"):
        equal(restored(folder, archive, "task-2", f"again-{archive}"), first, f"task-2 of {archive}")
    good(["remove", "d.h5", "--task", "base"], cwd=folder)
    check(not info("d.h5", cwd=folder)["base"]["stored"], "the base is not removed")
    refused(folder, ["restore", "d.h5", "--task", "task-2", "-o", "x", "-q"], 2, "does not hold its base")
    equal(restored(folder, "d.h5", "task-2", "with", "--base", "zoo/base"), first, "task-2 with --base")


@with_scratch
def test_the_name_of_the_base_is_taken(folder):
    zoo_of(folder)
    write(f"{folder}/named.yaml", "base: zoo/base\ntasks:\n  - {name: base, path: zoo/task-1}\n")
    refused(folder, ["compress", "named.yaml", "-o", "a.h5", "-q", "--with-base"], 2, "task 'base'", "another")
    compress(folder, "a.h5", "--with-base")
    for how in ("--append", "--replace", "--update"):
        refused(folder, ["compress", "named.yaml", "-o", "a.h5", "-q", how], 2, "'base' is the base that the archive holds")
    compress(folder, "b.h5", manifest="named.yaml")
    refused(folder, ["compress", "zoo.yaml", "-o", "b.h5", "-q", "--append", "--with-base"], 2, "b.h5: has a task 'base'")
    write(f"{folder}/bad.yaml", "base: zoo/base\nstore_base: perhaps\ntasks:\n  - {name: a, path: zoo/task-1}\n")
    refused(folder, ["compress", "bad.yaml", "-o", "c.h5", "-q"], 2, "bad.yaml:2", "store_base", "'perhaps'")
    write(f"{folder}/none.yaml", "store_base: true\ntasks:\n  - {name: a, path: zoo/task-1}\n")
    refused(folder, ["compress", "none.yaml", "-o", "c.h5", "-q"], 2, "none.yaml:1", "no 'base' to store")


@with_scratch
def test_damage_of_the_base_is_named(folder):
    zoo_of(folder)
    compress(folder, "a.h5", "--with-base")
    good_bytes = read(f"{folder}/a.h5")
    compress(folder, "b.h5")
    at = next(i for i in range(len(good_bytes) // 2, len(good_bytes)) if good_bytes[i] not in (0, 255))  # the base's payload is the last and largest
    harmed = bytearray(good_bytes)
    harmed[at] ^= 4
    write(f"{folder}/a.h5", bytes(harmed))
    r = run(["verify", "a.h5", "-q"], cwd=folder)
    equal(r.code, 3, f"{r}")
    check("task 'base'" in r.err, f"the base is not named: {r}")
    found = json.loads(run(["verify", "a.h5", "-q", "--json"], cwd=folder).out)["damage"]
    texts = [d["message"] for d in found]
    check(len(set(texts)) == len(texts) and all(f"task '{d['task']}'" in d["message"] for d in found), f"a line of the base's damage for each task, in its name: {texts}")
    check(sum("what it is coded against, task 'base', is damaged" in t for t in texts) == len(texts) - 1, f"{texts}")
    r = run(["restore", "a.h5", "--task", "base", "-o", "x", "-q"], cwd=folder)
    check(r.code == 3 and "base" in r.err and not os.path.exists(f"{folder}/x"), f"{r}")
    tensor = json.loads(run(["verify", "a.h5", "-q", "--json"], cwd=folder).out)["damage"][0]["tensor"]
    r = run(["restore", "a.h5", "--task", "task-1", "-o", "x", "-q"], cwd=folder)
    check(r.code == 3 and tensor in r.err and not os.path.exists(f"{folder}/x"), f"{r}")
    equal(restored(folder, "a.h5", "task-1", "y", "--base", "zoo/base"), restored(folder, "b.h5", "task-1", "z", "--base", "zoo/base"), "task-1 with --base")
    run(["restore", "a.h5", "--task", "base", "-o", "k", "-q", "--keep-going"], cwd=folder)
    check(os.path.exists(f"{folder}/k"), "nothing is restored of a damaged base")
    good(["remove", "a.h5", "--task", "base"], cwd=folder)  # the way out: the base is stored again
    compress(folder, "a.h5", "--skip-existing", "--with-base")
    good(["verify", "a.h5", "-q"], cwd=folder)


@with_scratch
def test_killed_while_the_base_is_stored(folder):
    zoo_of(folder)
    compress(folder, "want.h5", "--with-base")
    for ranks in (1, 3):
        archive = f"{ranks}.h5"
        args = ["compress", "zoo.yaml", "-o", archive, "--with-base"]
        code, log, _ = stopped(folder, args, ranks, "5/6 write", SLOW_PATH=".partial", SLOW_MS="80", DZ_JOURNAL_AFTER="0")
        check(code == 75 and not os.path.exists(f"{folder}/{archive}"), f"{code}: {log}")
        compress(folder, archive, "--with-base", ranks=4 - ranks)
        equal(sha256(f"{folder}/{archive}"), sha256(f"{folder}/want.h5"), f"resumed, {ranks} ranks")


# ------------------------------------------------------------------------------------------------- no base at all


@with_scratch
def test_models_without_a_base(folder):
    zoo = zoo_of(folder)
    write(f"{folder}/zoo.yaml", "tasks:\n  - {name: task-1, path: zoo/task-1}\n  - {name: other, path: zoo/base}\n")
    r = compress(folder, "a.h5")
    check("names no base" in r.err and "no base: each task is coded by itself" in r.out, f"{r} {r.out}")
    for ranks in (2, 4):
        compress(folder, f"{ranks}.h5", ranks=ranks)
        equal(sha256(f"{folder}/{ranks}.h5"), sha256(f"{folder}/a.h5"), f"{ranks} ranks")
    equal(restored(folder, "a.h5", "task-1", "r1", ranks=3), hashes(f"{zoo}/task-1"), "task-1")
    equal(restored(folder, "a.h5", "other", "r2"), hashes(f"{zoo}/base"), "other")
    good(["verify", "a.h5", "-q"], cwd=folder)
    good(["info", "a.h5"], cwd=folder)
    good(["plan", "zoo.yaml"], cwd=folder)
    code, out, err = call([*PURE, "restore", "a.h5", "--task", "task-1", "-o", "pure"], cwd=folder)
    equal((code, hashes(f"{folder}/pure")), (0, hashes(f"{zoo}/task-1")), f"the Python reader: {out} {err}")
    equal(call([*PURE, "check", "a.h5"], cwd=folder)[0], 0, "the Python reader's check")
    refused(folder, ["restore", "a.h5", "--task", "task-1", "--base", "zoo/base", "-o", "x", "-q"], 2, "a.h5: has no base", "--base zoo/base")
    write(f"{folder}/more.yaml", "tasks:\n  - {name: task-2, path: zoo/task-2}\n")
    compress(folder, "a.h5", "--append", manifest="more.yaml", ranks=2)
    equal(restored(folder, "a.h5", "task-2", "r3"), hashes(f"{zoo}/task-2"), "task-2, appended")
    refused(folder, ["compress", "more.yaml", "-o", "b.h5", "-q", "--with-base"], 2, "no base to store")


@with_scratch
def test_without_a_base_there_are_no_deltas(folder):
    """Not one task under the name of a sum, and no advice to give a base that is refused."""
    zoo_of(folder)
    write(f"{folder}/zoo.yaml", "tasks:\n  - {name: task-1, path: zoo/task-1}\n  - {name: task-2, path: zoo/task-2}\n")
    compress(folder, "a.h5")
    for i, tasks in enumerate((["task-1=0.5", "task-2=0.5"], ["task-1=0.5"])):
        given = [x for t in tasks for x in ("--task", t)]
        refused(folder, ["restore", "a.h5", *given, "-o", "sum", "-q"], 2, "a.h5: has no base", "restore one task", ranks=turns(i))
    for i, how in enumerate(([], ["--format", "sparse"], ["--format", "hdf5"], ["--format", "lora", "--rank", 4], ["--format", "patch"])):
        refused(folder, ["export", "a.h5", "--task", "task-1", *how, "-o", "out", "-q"], 2, "a.h5: has no base", "no deltas", ranks=turns(i))
    check(not os.path.exists(f"{folder}/sum") and not os.path.exists(f"{folder}/out"), "something is left")


@with_scratch
def test_recipes_that_keep_all_need_no_base(folder):
    zoo = zoo_of(folder)
    write(f"{folder}/zoo.yaml", "tasks:\n  - {name: task-1, path: zoo/task-1}\n")
    write(f"{folder}/own.yaml", 'tensors:\n  - {match: "*.mlp.*", policy: drop}\n  - {match: "*", policy: lossless}\n')
    refused(folder, ["compress", "zoo.yaml", "-o", "a.h5", "-q", "--recipe", "own.yaml"], 2, "zoo.yaml: names no base")
    compress(folder, "a.h5", "--recipe", "lossless")
    equal(restored(folder, "a.h5", "task-1", "r1"), hashes(f"{zoo}/task-1"), "task-1")


@with_scratch
def test_without_a_base_nothing_is_lossy(folder):
    zoo_of(folder)
    write(f"{folder}/zoo.yaml", "tasks:\n  - {name: task-1, path: zoo/task-1}\n")
    for how in (["--quality", "high"], ["--method", "bitdelta"], ["--recipe", "ultradelta"], ["--set", "noise_to_delta=1"]):
        refused(folder, ["compress", "zoo.yaml", "-o", "a.h5", "-q", *how], 2, "zoo.yaml: names no base", "lossless")
    write(f"{folder}/own.yaml", "tasks:\n  - {name: task-1, path: zoo/task-1, quality: high}\n")
    refused(folder, ["compress", "own.yaml", "-o", "a.h5", "-q"], 2, "own.yaml:2", "'task-1'", "kept exactly")
    compress(folder, "a.h5", "--quality", "lossless")
    write(f"{folder}/with.yaml", "base: zoo/base\ntasks:\n  - {name: task-2, path: zoo/task-2}\n")
    refused(folder, ["compress", "with.yaml", "-o", "a.h5", "-q", "--append"], 1, "not the base of a.h5")
    compress(folder, "b.h5", manifest="with.yaml")
    refused(folder, ["compress", "zoo.yaml", "-o", "b.h5", "-q", "--append"], 1, "not the base of b.h5")

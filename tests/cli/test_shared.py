"""Tensors and files that several tasks have are stored once, exact and lossy ones; what is shared outlives the task that held it."""
import os
import shutil
import sys

from common import ROOT, SmallZoo, call, check, equal, good, hashes, info, refused, replaced, sha256, small_model, st_parse, tiny_zoo, with_scratch, write

PURE = [sys.executable, os.path.join(ROOT, "src", "python", "deltazoo.py")]
HEAD = {"body.weight": (64, 64), "head.weight": (128, 512)}
HEAD_BYTES = 128 * 512 * 2


def twins(folder, names=("task-1", "copy"), more=("task-2",)):
    """Two names for one model, and another one."""
    zoo = tiny_zoo("bf16")
    for task in names:
        shutil.copytree(f"{zoo}/task-1", f"{folder}/{task}")
    for task in more:
        shutil.copytree(f"{zoo}/{task}", f"{folder}/{task}")
    shutil.copytree(f"{zoo}/base", f"{folder}/base")
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: {t}, path: {t}}}\n" for t in (*names, *more)))


def compress(folder, archive, *more, ranks=1, manifest="zoo.yaml"):
    return good(["compress", manifest, "-o", archive, "-q", *more], ranks, cwd=folder)


def restored(folder, archive, task, out, marks=False):
    shutil.rmtree(f"{folder}/{out}", ignore_errors=True)
    good(["restore", archive, "--task", task, "--base", "base", "-o", out, "-q"], cwd=folder)
    return hashes(f"{folder}/{out}", marks)


def stored(archive, folder):
    return {t["name"]: t["stored_bytes"] for t in info(archive, cwd=folder)["tasks"]}


@with_scratch
def test_a_model_under_two_names_is_stored_once(folder):
    twins(folder)
    for quality in ("lossless", "high"):
        compress(folder, f"{quality}.h5", "--quality", quality)
        for ranks in (2, 4):
            compress(folder, f"{ranks}.h5", "--quality", quality, "--force", ranks=ranks)
            equal(sha256(f"{folder}/{ranks}.h5"), sha256(f"{folder}/{quality}.h5"), f"{quality} on {ranks} ranks")
        found = info(f"{quality}.h5", cwd=folder)
        sizes = stored(f"{quality}.h5", folder)
        check(sizes["copy"] < 5000 < sizes["task-1"] / 10, f"{quality}: {sizes}")
        check(found["shared"]["saved_bytes"] > 0.9 * sizes["task-1"] - 5000 and found["shared"]["tensors"] > 20, f"{found['shared']}, {sizes}")
        check("stored once for several tasks" in good(["info", f"{quality}.h5"], cwd=folder).out, "info does not say what is shared")
        one, two = restored(folder, f"{quality}.h5", "task-1", "r1"), restored(folder, f"{quality}.h5", "copy", "r2")
        if quality == "lossless":
            equal((one, two), (hashes(f"{folder}/task-1"), hashes(f"{folder}/copy")), "both models")
        else:  # the mark in the header names the task; the tensors are the same
            size = os.path.getsize(f"{folder}/r1/model.safetensors") // 2
            tails = []
            for r in ("r1", "r2"):
                with open(f"{folder}/{r}/model.safetensors", "rb") as f:
                    f.seek(-size, os.SEEK_END)
                    tails.append(f.read())
            check(tails[0] == tails[1], "the two are restored to different values")
            check(os.path.exists(f"{folder}/r2/deltazoo.json"), "a shared lossy model carries no mark")
        code, out, err = call([*PURE, "restore", f"{quality}.h5", "--task", "copy", "--base", "base", "-o", f"pure-{quality}"], cwd=folder)
        equal(code, 0, out + err)
        equal(hashes(f"{folder}/pure-{quality}"), two, f"{quality}: the Python reader's copy")
        equal(call([*PURE, "check", f"{quality}.h5"], cwd=folder)[0], 0, "the Python reader's check")
        good(["verify", f"{quality}.h5", "--base", "base", "-q"], 3, cwd=folder)
        good(["compare", f"{quality}.h5", "--task", "copy", "--base", "base", "--finetuned", "copy"], cwd=folder)


@with_scratch
def test_equal_heads_are_stored_once(folder):
    zoo = SmallZoo(folder, "BF16", ("one", "two", "three"), HEAD)
    head = small_model(9, "BF16", HEAD)[1][3]  # nothing of the base's: its bytes do not shrink by the base
    for task in ("one", "three"):
        zoo.put(task, replaced(zoo.tasks[task], "head.weight", data=head))
    compress(folder, "a.h5", "--quality", "lossless")
    sizes = stored("a.h5", folder)
    check(sizes["one"] > 0.6 * HEAD_BYTES and sizes["three"] < 0.2 * HEAD_BYTES, f"the head of {HEAD_BYTES} bytes is stored twice: {sizes}")
    for task in ("one", "two", "three"):
        equal(restored(folder, "a.h5", task, "r"), hashes(f"{folder}/{task}"), task)
    equal(info("a.h5", cwd=folder)["shared"]["tensors"], 1, "shared tensors")
    # one after the other, the same
    for task in ("one", "two", "three"):
        zoo.manifest(task)
        compress(folder, "b.h5", "--append", "--quality", "lossless", ranks=2)
    equal(stored("b.h5", folder)["three"], sizes["three"], "bytes of an appended task")
    for task in ("one", "two", "three"):
        equal(restored(folder, "b.h5", task, "r"), hashes(f"{folder}/{task}"), task)


@with_scratch
def test_equal_files_are_stored_once(folder):
    SmallZoo(folder)
    tokenizer = os.urandom(50000)
    for task in ("one", "two"):
        write(f"{folder}/{task}/tokenizer.json", tokenizer)
    compress(folder, "a.h5")
    check(os.path.getsize(f"{folder}/a.h5") < 80000, "the tokenizer is stored twice")
    shared = info("a.h5", cwd=folder)["shared"]
    check(shared["files"] == 1 and shared["saved_bytes"] >= 50000, f"{shared}")


@with_scratch
def test_what_is_shared_outlives_the_task_that_held_it(folder):
    twins(folder, names=("task-1", "copy", "another"))
    compress(folder, "a.h5", "--quality", "lossless")
    whole = os.path.getsize(f"{folder}/a.h5")
    shutil.copy(f"{folder}/a.h5", f"{folder}/b.h5")
    good(["remove", "a.h5", "--task", "task-1"], cwd=folder)
    good(["remove", "b.h5", "--task", "task-1"], 3, cwd=folder)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/b.h5"), "removed by 1 and 3 ranks")
    check(whole - 5000 < os.path.getsize(f"{folder}/a.h5") < whole, "the bytes are gone, or there twice")
    for task in ("copy", "another", "task-2"):
        equal(restored(folder, "a.h5", task, "r"), hashes(f"{folder}/{task}"), task)
    good(["verify", "a.h5", "--base", "base", "-q"], cwd=folder)
    equal(call([*PURE, "check", "a.h5"], cwd=folder)[0], 0, "the Python reader's check")
    good(["remove", "a.h5", "--task", "copy", "--task", "task-2"], cwd=folder)
    equal(restored(folder, "a.h5", "another", "r"), hashes(f"{folder}/another"), "the last that has them")
    good(["repack", "b.h5", "--task", "another", "-o", "c.h5"], cwd=folder)
    equal(restored(folder, "c.h5", "another", "r"), hashes(f"{folder}/another"), "one that was taken out")
    # the model of the task that holds the bytes is replaced by another one
    shutil.rmtree(f"{folder}/copy")
    shutil.copytree(f"{folder}/task-2", f"{folder}/copy")
    write(f"{folder}/more.yaml", "base: base\ntasks:\n  - {name: copy, path: copy}\n")
    compress(folder, "b.h5", "--replace", "--quality", "lossless", manifest="more.yaml")
    for task in ("copy", "another", "task-2"):
        equal(restored(folder, "b.h5", task, "r"), hashes(f"{folder}/{task}"), f"{task} after --replace")


@with_scratch
def test_lossy_bytes_do_not_move(folder):
    twins(folder)
    compress(folder, "a.h5", "--quality", "high")
    holder = min(("task-1", "copy"), key=lambda t: -stored("a.h5", folder)[t])
    other = "copy" if holder == "task-1" else "task-1"
    refused(folder, ["remove", "a.h5", "--task", holder], 2, f"'{holder}' cannot go", f"'{other}'")
    for how in (["--format", "dense"], ["--format", "sparse"], ["--base", "base"]):
        vectors = []
        for task in (holder, other):
            good(["export", "a.h5", "--task", task, "-o", "x", "--force", "-q", *how], cwd=folder)
            vectors.append({name: t[2] for name, t in st_parse(f"{folder}/x").items()})
        check(vectors[0] == vectors[1], f"export {how}: the twins' deltas differ")
    sums = [{n: t[2] for n, t in st_parse(f"{folder}/m-{task}").items()} for task in (holder, other)
            if good(["restore", "a.h5", "--task", f"{task}=0.5", "--base", "base", "-o", f"m-{task}", "-q"], cwd=folder)]
    check(sums[0] == sums[1], "half of a twin's delta is another one's")
    good(["remove", "a.h5", "--task", other], cwd=folder)
    good(["remove", "a.h5", "--task", holder], cwd=folder)


@with_scratch
def test_what_was_lossy_is_no_original(folder):
    """Once a chain's parent is gone, its child keeps exactly what was restored: that is not the child's original."""
    twins(folder, names=("task-1",), more=("task-2",))
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: task-1, path: task-1}\n  - {name: task-2, path: task-2, parent: task-1}\n")
    compress(folder, "a.h5", "--quality", "high")
    good(["remove", "a.h5", "--task", "task-1", "--rebase", "--base", "base"], cwd=folder)
    write(f"{folder}/more.yaml", "base: base\ntasks:\n  - {name: exact, path: task-2}\n")
    compress(folder, "a.h5", "--append", "--quality", "lossless", manifest="more.yaml")
    equal(restored(folder, "a.h5", "exact", "r"), hashes(f"{folder}/task-2"), "an exact task beside one that was lossy")


@with_scratch
def test_a_lossy_tensor_is_never_shared_with_a_worse_one(folder):
    twins(folder, more=())
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: task-1, path: task-1, quality: small}\n  - {name: copy, path: copy, quality: high}\n")
    compress(folder, "a.h5", "--quality", "small")
    sizes = stored("a.h5", folder)
    check(sizes["copy"] > 150000, f"a copy of quality high is restored from one of quality small: {sizes}")
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: task-1, path: task-1, quality: lossless}\n  - {name: copy, path: copy}\n")
    compress(folder, "b.h5", "--quality", "small")
    check(stored("b.h5", folder)["copy"] < 5000, "a lossy model is not restored from its exact twin")
    equal(restored(folder, "b.h5", "copy", "r"), hashes(f"{folder}/copy"), "the copy, which is exact now")
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: task-1, path: task-1}\n  - {name: copy, path: copy}\n")
    compress(folder, "c.h5", "--recipe", "ultradelta")
    equal(restored(folder, "c.h5", "task-1", "r1").keys(), restored(folder, "c.h5", "copy", "r2").keys(), "files")
    good(["verify", "c.h5", "--base", "base", "-q"], cwd=folder)


@with_scratch
def test_damage_of_shared_bytes_is_that_of_all_tasks(folder):
    twins(folder)
    compress(folder, "a.h5", "--quality", "lossless")
    raw = bytearray(open(f"{folder}/a.h5", "rb").read())
    sizes = stored("a.h5", folder)
    holder = "task-1" if sizes["task-1"] > sizes["copy"] else "copy"
    struck = None
    for at in range(len(raw) // 8, len(raw), len(raw) // 40):
        harmed = bytearray(raw)
        harmed[at] ^= 16
        write(f"{folder}/h.h5", bytes(harmed))
        code, out, err = call([os.environ.get("DELTAZOO", os.path.join(ROOT, "build", "deltazoo")), "verify", "h.h5", "-q"], cwd=folder)
        if code == 3 and f"task '{holder}'" in err:
            struck = err
            break
    check(struck and all(f"task '{t}'" in struck for t in ("task-1", "copy")), f"damage of {holder} is not that of its twin: {struck}")
    check("task 'task-2'" not in struck, f"{struck}")


@with_scratch
def test_without_a_base_and_with_a_stored_one(folder):
    twins(folder)
    write(f"{folder}/none.yaml", "tasks:\n  - {name: task-1, path: task-1}\n  - {name: copy, path: copy}\n")
    compress(folder, "n.h5", manifest="none.yaml")
    sizes = stored("n.h5", folder)
    check(min(sizes.values()) < 5000, f"{sizes}")
    compress(folder, "s.h5", "--with-base", "--quality", "lossless")
    for archive in ("n.h5", "s.h5"):
        for task in ("task-1", "copy"):
            shutil.rmtree(f"{folder}/r", ignore_errors=True)
            good(["restore", archive, "--task", task, "-o", "r", "-q"], cwd=folder)
            equal(hashes(f"{folder}/r"), hashes(f"{folder}/{task}"), f"{task} of {archive}")


@with_scratch
def test_a_target_ratio_is_met_by_each_task_before_anything_is_shared(folder):
    """A task that shares its lossy tensors takes fewer bytes than the target asks for: that is no fault."""
    twins(folder)
    for ratio in ("20", "60"):
        compress(folder, "a.h5", "--target-ratio", ratio, "--force")
        tasks = {t["name"]: t for t in info("a.h5", cwd=folder)["tasks"]}
        alone = tasks["task-2"]["lossy"]["source_bytes"] / tasks["task-2"]["lossy"]["stored_bytes"]
        check(abs(alone / float(ratio) - 1) < 0.02, f"{ratio}: {alone}")
        check(tasks["copy"]["stored_bytes"] < 0.5 * tasks["task-1"]["stored_bytes"], f"{ratio}: {stored('a.h5', folder)}")
        good(["verify", "a.h5", "--base", "base", "-q"], cwd=folder)

"""compress --update: new, changed and vanished models, by their content."""
import json
import os
import shutil
import signal
import subprocess
import time

from common import (DELTAZOO, ENV, Q, check, equal, good, hashes, info, read, refused, replaced, sha256, slow_io, small_model, st_bytes, stopped, with_scratch,
                    write)
from test_determinism import big_zoo
from test_scan import SHAPES, put

NAMES = ["one", "two", "three"]
UP = list(SHAPES)[2]


def zoo(folder, names=NAMES):
    base = small_model(1, "F32", SHAPES)
    put(folder, "base", base)
    for i, name in enumerate(NAMES + ["four"]):
        put(folder, name, small_model(10 + i, "F32", SHAPES, base))
    name_tasks(folder, names)


def name_tasks(folder, names):
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: {n}, path: {n}}}\n" for n in names))


def change(folder, name, seed=99):
    put(folder, name, small_model(seed, "F32", SHAPES, small_model(1, "F32", SHAPES)))


def update(folder, *options, ranks=1, archive="z.h5"):
    """{task: (action, why)} as the report has it; the same as is printed."""
    r = good(["compress", "zoo.yaml", "-o", archive, "--update", "-q", "--report", "z.json", *options], ranks, cwd=folder)
    report = json.loads(read(f"{folder}/z.json"))["job"]["update"]
    lines = r.out.split("\n\n")[0].splitlines()
    equal(len(lines), len(report), f"lines of {r.out}")
    for line, entry in zip(lines, report):
        check(line.split()[:2] == [entry["action"], entry["task"] + (":" if entry["why"] else "")], f"{line!r}, {entry}")
    return {e["task"]: (e["action"], e["why"]) for e in report}


def actions(found):
    return {name: action for name, (action, _) in found.items()}


@with_scratch
def test_nights(folder):
    """Each night's archive has the bytes of the same work on other ranks, and unchanged tasks keep theirs."""
    zoo(folder)
    equal(actions(update(folder)), dict.fromkeys(NAMES, "added"), "the first night")
    first = sha256(f"{folder}/z.h5")
    inode = os.stat(f"{folder}/z.h5").st_ino
    equal(update(folder, ranks=3), dict.fromkeys(NAMES, ("unchanged", "")), "nothing new")
    equal((sha256(f"{folder}/z.h5"), os.stat(f"{folder}/z.h5").st_ino), (first, inode), "the archive, which is left alone")
    for name in NAMES:  # dates say nothing
        os.utime(f"{folder}/{name}/model.safetensors", (1, 1))
    equal(actions(update(folder)), dict.fromkeys(NAMES, "unchanged"), "other dates")
    good(["restore", "z.h5", "--task", "one", "--base", "base", "-o", "r1", "-q"], cwd=folder)
    change(folder, "two")
    name_tasks(folder, ["one", "two", "four"])
    sums = set()
    for ranks in (1, 2, 4):
        shutil.copy(f"{folder}/z.h5", f"{folder}/z{ranks}.h5")
        found = update(folder, ranks=ranks, archive=f"z{ranks}.h5")
        equal(actions(found), {"one": "unchanged", "two": "replaced", "four": "added", "three": "kept"}, f"second night, {ranks} ranks")
        check(found["two"][1].startswith("tensor '") and "--prune" in found["three"][1], f"{found}")
        sums.add(sha256(f"{folder}/z{ranks}.h5"))
    equal(len(sums), 1, "archives of 1, 2 and 4 ranks")
    os.replace(f"{folder}/z2.h5", f"{folder}/z.h5")
    good(["restore", "z.h5", "--task", "one", "--base", "base", "-o", "r2", "-q"], cwd=folder)
    equal(hashes(f"{folder}/r1"), hashes(f"{folder}/r2"), "the unchanged task")
    good(["compare", "z.h5", "--task", "two", "--base", "base", "--finetuned", "two", "--max-noise", "0.99"], cwd=folder)
    equal(actions(update(folder)), {"one": "unchanged", "two": "unchanged", "four": "unchanged", "three": "kept"}, "third night")
    equal(actions(update(folder, "--prune", ranks=3))["three"], "removed", "pruned where nothing else is to be done")
    equal(good(["info", "z.h5", "--names"], cwd=folder).out.split(), ["one", "two", "four"], "tasks")
    change(folder, "four")
    name_tasks(folder, ["two", "four"])
    equal(actions(update(folder, "--prune")), {"two": "unchanged", "four": "replaced", "one": "removed"}, "pruned beside other work")
    equal(sorted(good(["info", "z.h5", "--names"], cwd=folder).out.split()), ["four", "two"], "tasks")
    good(["verify", "z.h5", "--base", "base"], cwd=folder)


@with_scratch
def test_what_counts_as_a_change(folder):
    zoo(folder)
    update(folder)
    write(f"{folder}/one/tokenizer.json", '{"a": 1}')
    equal(update(folder)["one"], ("replaced", "a new file 'tokenizer.json'"), "a new file")
    write(f"{folder}/one/tokenizer.json", '{"a": 2}')
    equal(update(folder)["one"], ("replaced", "file 'tokenizer.json'"), "another content of the same size")
    os.unlink(f"{folder}/one/tokenizer.json")
    equal(update(folder)["one"], ("replaced", "no file 'tokenizer.json'"), "a file that is gone")
    model = small_model(11, "F32", SHAPES, small_model(1, "F32", SHAPES))

    def last_bit(x):
        x[-1] = x[-1] * 1.0000002

    put(folder, "two", replaced(model, UP, edit=last_bit))
    found = update(folder, ranks=3)
    equal((found["one"], found["two"]), (("unchanged", ""), ("replaced", f"tensor '{UP}'")), "the last bit of one element")
    write(f"{folder}/two/model.safetensors", st_bytes(replaced(model, UP, edit=last_bit), {"format": "np"}))
    equal(update(folder)["two"], ("replaced", "the header of 'model.safetensors'"), "other metadata")
    found = update(folder, "--quality", "lossless")
    check(all(action == "unchanged" and "--replace" in why for action, why in found.values()), f"other settings: {found}")


@with_scratch
def test_equal_tied_and_grown_tensors_are_known_again(folder):
    """Tensors that are equal to the base's, that have more rows, that are not in the base, and integers."""
    base = small_model(1, "F32", SHAPES)
    put(folder, "base", base)
    same = small_model(2, "F32", SHAPES, base)
    same[2] = base[2]
    n, d, s, b = same[0]
    same[0] = (n, d, (s[0] + 7, s[1]), b + bytes(len(b) // s[0] * 7))
    same.append(("score.weight", "F32", (3, 5), bytes(60)))
    same.append(("ids", "I64", (4,), bytes(32)))
    same.append(("none", "F32", (0, 3), b""))
    same.append(("lm_head.weight", *same[0][1:]))
    put(folder, "one", same)
    put(folder, "two", base)
    name_tasks(folder, ["one", "two"])
    update(folder)
    equal(actions(update(folder, ranks=3)), dict.fromkeys(["one", "two"], "unchanged"), "nothing new")
    put(folder, "one", [(n, d, s, bytes(31) + b"\1" if n == "ids" else b) for n, d, s, b in same])
    equal(update(folder)["one"], ("replaced", "tensor 'ids'"), "an integer")


@with_scratch
def test_a_changed_parent_takes_its_children_along(folder):
    zoo(folder)
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n  - {name: two, path: two, parent: one}\n  - {name: three, path: three, parent: two}\n"
          "  - {name: four, path: four}\n")
    update(folder, "--quality", "lossless")
    equal(update(folder, "--quality", "lossless", ranks=3), dict.fromkeys(NAMES + ["four"], ("unchanged", "")), "nothing new")
    change(folder, "one")
    sums = set()
    for ranks in (1, 3):
        shutil.copy(f"{folder}/z.h5", f"{folder}/z{ranks}.h5")
        found = update(folder, "--quality", "lossless", ranks=ranks, archive=f"z{ranks}.h5")
        equal(actions(found), {"one": "replaced", "two": "replaced", "three": "replaced", "four": "unchanged"}, "the chain")
        check("'one'" in found["two"][1] and "'two'" in found["three"][1], f"{found}")
        sums.add(sha256(f"{folder}/z{ranks}.h5"))
    equal(len(sums), 1, "archives of 1 and 3 ranks")
    for name in NAMES:
        good(["restore", "z1.h5", "--task", name, "--base", "base", "-o", f"r-{name}", "-q"], cwd=folder)
        equal(hashes(f"{folder}/r-{name}"), hashes(f"{folder}/{name}"), name)
    # other settings, which may be lossy: an unchanged child keeps its own, where they can be; else its line says so
    for k, (night, how) in enumerate(((["--quality", "high"], ", with its settings as before"), (["--quality", "high", "--set", "seed=7"], ", with other settings than before"))):
        sums = set()
        for ranks in (1, 3):
            shutil.copy(f"{folder}/z.h5", f"{folder}/other.h5")
            found = update(folder, *night, archive="other.h5", ranks=ranks)
            equal(found["two"], ("replaced", "coded against 'one', which is replaced" + how), f"an unchanged child, {night}")
            sums.add(sha256(f"{folder}/other.h5"))
        equal(len(sums), 1, f"archives of 1 and 3 ranks, {night}")
        for name in NAMES:
            kept = k == 0 and name != "one"
            text = info("other.h5", name, folder)["tasks"][0]["recipe_text"]
            check(("quality: lossless" if kept else "quality: high") in text, f"{night}: {name}: {text}")
            if kept:
                good(["restore", "other.h5", "--task", name, "--base", "base", "-o", f"o-{name}", "-q"], cwd=folder)
                equal(hashes(f"{folder}/o-{name}"), hashes(f"{folder}/{name}"), f"{name} is exact as before")
    same = update(folder, "--quality", "lossless")
    equal(same["two"], ("replaced", "coded against 'one', which is replaced"), "with the same settings")
    # what a task that stays is coded against stays too
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: three, path: three, parent: two}\n")
    found = update(folder, "--quality", "lossless", "--prune", archive="z1.h5")
    equal(actions(found), {"three": "unchanged", "one": "kept", "two": "kept", "four": "removed"}, "pruned")
    check("coded against it" in found["two"][1], f"{found}")


@with_scratch
def test_a_stored_base_is_no_task(folder):
    zoo(folder)
    update(folder, "--with-base")
    equal(update(folder, "--prune"), dict.fromkeys(NAMES, ("unchanged", "")), "nothing new")
    change(folder, "two")
    equal(actions(update(folder, "--prune", ranks=2))["two"], "replaced", "a change")
    shutil.rmtree(f"{folder}/base")
    good(["verify", "z.h5", "--originals", "zoo.yaml", "--report", "z.verify.json"], 2, cwd=folder)
    found = json.loads(good(["report", "z.json", "--originals", "--json"], cwd=folder).out)
    equal([o["cover"] for o in found["originals"]], ["gone", "lossy", "lossy", "lossy"], "the base is gone, and not needed")


@with_scratch
def test_refusals(folder):
    zoo(folder)
    update(folder)
    for other in ("--force", "--append", "--replace", "--skip-existing"):
        refused(folder, ["compress", "zoo.yaml", "-o", "z.h5", "--update", other], 2, "--update", ranks=(1,))
    refused(folder, ["compress", "zoo.yaml", "-o", "z.h5", "--prune"], 2, "--prune goes with --update")
    write(f"{folder}/base/model.safetensors", st_bytes(replaced(small_model(1, "F32", SHAPES), Q, edit=lambda x: x.__imul__(2)), {"format": "pt"}))
    refused(folder, ["compress", "zoo.yaml", "-o", "z.h5", "--update", "-q"], 1, "not the base of z.h5", Q)
    change(folder, "one")
    refused(folder, ["compress", "zoo.yaml", "-o", "z.h5", "--update", "-q"], 1, "not the base of z.h5")
    write(f"{folder}/base/model.safetensors", st_bytes(small_model(1, "F32", dict(list(SHAPES.items())[:-1])), {"format": "pt"}))
    refused(folder, ["compress", "zoo.yaml", "-o", "z.h5", "--update", "-q"], 1, "not the base of z.h5", "model.norm.weight")


@with_scratch
def test_killed_and_run_again(folder):
    """Neither a signal during the comparison nor a kill during the work loses anything; the next run finds the same changes and makes the same archive."""
    zoo_folder = big_zoo()
    write(f"{folder}/zoo.yaml", f"base: {zoo_folder}/base\ntasks:\n  - {{name: one, path: {zoo_folder}/one}}\n")
    good(["compress", "zoo.yaml", "-o", "z.h5", "-q"], 2, cwd=folder)
    write(f"{folder}/zoo.yaml", f"base: {zoo_folder}/base\ntasks:\n" + "".join(f"  - {{name: {n}, path: {zoo_folder}/{n}}}\n" for n in ("one", "two")))
    shutil.copy(f"{folder}/z.h5", f"{folder}/right.h5")
    good(["compress", "zoo.yaml", "-o", "right.h5", "--update", "-q"], 2, cwd=folder)
    before = sha256(f"{folder}/z.h5")
    args = ["compress", "zoo.yaml", "-o", "z.h5", "--update"]
    code, text, _ = stopped(folder, args, 1, "compare ", SLOW_PATH=zoo_folder, SLOW_MS="300")
    check(code == 75 and "interrupted" in text, f"{code}: {text}")
    equal((sha256(f"{folder}/z.h5"), sorted(os.listdir(folder))), (before, ["right.h5", "z.h5", "zoo.yaml"]), "after the signal")
    env = dict(ENV, LD_PRELOAD=slow_io(), SLOW_PATH=zoo_folder, SLOW_MS="100", DZ_JOURNAL_AFTER="0")
    p = subprocess.Popen([DELTAZOO, *args], cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not os.path.isdir(f"{folder}/z.h5.journal") and p.poll() is None:
        time.sleep(0.05)
    p.kill()
    check(p.wait() == -signal.SIGKILL, "it was over before it was killed")
    equal(sha256(f"{folder}/z.h5"), before, "the archive after the kill")
    good(args, 2, cwd=folder)
    equal(sha256(f"{folder}/z.h5"), sha256(f"{folder}/right.h5"), "the archive")
    equal(sorted(os.listdir(folder)), ["right.h5", "z.h5", "zoo.yaml"], "files")

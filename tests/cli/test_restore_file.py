"""restore -o FILE.safetensors: the tensors of one task in this one file, nothing beside it."""
import json
import os
import shutil
import sys

from common import ROOT, SmallZoo, call, check, equal, good, hashes, read, refused, run, st_parse, tiny_zoo, with_scratch, write

READER = os.path.join(ROOT, "src", "python", "deltazoo.py")


def metadata(path):
    raw = read(path)
    return json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])["__metadata__"]


def restore(folder, out, *more, task="one", ranks=1, archive="a.h5"):
    return good(["restore", archive, "--task", task, "--base", "base", "-o", out, "-q", *more], ranks, cwd=folder)


@with_scratch
def test_task_of_one_file(folder):
    """The bytes that the file has in a restored folder: marked where it is lossy, the original's where it is not."""
    zoo = SmallZoo(folder)
    zoo.compress()
    zoo.compress("exact.h5", "--recipe", "lossless")
    restore(folder, "whole")
    for ranks in 1, 3:
        r = restore(folder, f"m{ranks}.safetensors", ranks=ranks)
        equal(read(f"{folder}/m{ranks}.safetensors"), read(f"{folder}/whole/model.safetensors"), f"{ranks} ranks")
        equal([line for line in r.lines("note") if "config.json" in line], r.lines("note"), f"{r}")
        check(len(r.lines("note")) == 1 and "not written" in r.err, f"the companion file is not named: {r}")
        restore(folder, f"e{ranks}.safetensors", archive="exact.h5", ranks=ranks)
        equal(read(f"{folder}/e{ranks}.safetensors"), read(f"{folder}/one/model.safetensors"), "the exact one")
    check(not [n for n in os.listdir(folder) if "partial" in n or n == "deltazoo.json"], f"{os.listdir(folder)}")
    check("deltazoo" in metadata(f"{folder}/m1.safetensors"), "no mark")
    zoo.manifest("m1.safetensors", file="again.yaml")
    refused(folder, ["compress", "again.yaml", "-o", "again.h5", "-q"], 2, "m1.safetensors", "restored", ranks=(1,))
    restore(folder, "some.safetensors", "--tensor", "*q_proj*")
    restore(folder, "some", "--tensor", "*q_proj*")
    equal(read(f"{folder}/some.safetensors"), read(f"{folder}/some/model.safetensors"), "--tensor")
    restore(folder, "bf16.safetensors", "--dtype", "bf16")
    restore(folder, "bf16", "--dtype", "bf16")
    equal(read(f"{folder}/bf16.safetensors"), read(f"{folder}/bf16/model.safetensors"), "--dtype")
    r = good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "dry.safetensors", "--dry-run"], cwd=folder)
    check("config.json" in r.err and not os.path.exists(f"{folder}/dry.safetensors"), f"{r}")
    r = good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "folder.safetensors/", "-q"], cwd=folder)  # a folder's name
    check(os.path.exists(f"{folder}/folder.safetensors/config.json"), f"{r}")


@with_scratch
def test_shards_become_one_file(folder):
    shutil.copytree(tiny_zoo(shard="100K"), f"{folder}/zoo")
    inside = f"{folder}/zoo"
    for recipe in "ultradelta", "lossless":
        good(["compress", "zoo.yaml", "-o", f"{recipe}.h5", "-q", "--recipe", "lossless"] if recipe == "lossless" else ["compress", "zoo.yaml", "-o", f"{recipe}.h5", "-q"],
             cwd=inside)
        restore(inside, f"{recipe}", task="task-1", archive=f"{recipe}.h5")
        check(len([n for n in os.listdir(f"{inside}/{recipe}") if n.endswith(".safetensors")]) > 1, "not sharded")
        for ranks in 1, 3:
            r = restore(inside, f"{recipe}{ranks}.safetensors", task="task-1", archive=f"{recipe}.h5", ranks=ranks)
            note = r.lines("note")
            check(len(note) == 1 and "tokenizer.json" in note[0] and "index.json" not in note[0], f"{r}")
        equal(read(f"{inside}/{recipe}1.safetensors"), read(f"{inside}/{recipe}3.safetensors"), "ranks")
        equal("deltazoo" in metadata(f"{inside}/{recipe}1.safetensors"), recipe == "ultradelta", "mark")
        os.makedirs(f"{inside}/{recipe}-one")
        os.rename(f"{inside}/{recipe}1.safetensors", f"{inside}/{recipe}-one/model.safetensors")
        equal(st_parse(f"{inside}/{recipe}-one"), st_parse(f"{inside}/{recipe}"), "tensors")


@with_scratch
def test_what_is_there_already(folder):
    """A marked file is replaced by --force, one without a mark only by its own bytes."""
    zoo = SmallZoo(folder)
    zoo.compress()
    zoo.compress("exact.h5", "--recipe", "lossless")
    command = ["restore", "a.h5", "--task", "one", "--base", "base", "-q", "-o"]
    restore(folder, "m.safetensors")
    first = read(f"{folder}/m.safetensors")
    refused(folder, command + ["m.safetensors"], 2, "m.safetensors: exists already (--force replaces it)", ranks=(1, 3))
    restore(folder, "m.safetensors", "--force", task="two", ranks=3)
    check(read(f"{folder}/m.safetensors") != first, "not replaced")
    refused(folder, command + ["one/model.safetensors", "--force"], 2, "one/model.safetensors", "never replaced", ranks=(1, 3))
    refused(folder, command + ["base/model.safetensors", "--force"], 2, "is a file of the model", ranks=(1, 3))
    restore(folder, "one/model.safetensors", "--force", archive="exact.h5")  # its own bytes
    refused(folder, ["restore", "exact.h5", "--task", "two", "--base", "base", "-q", "--force", "-o", "one/model.safetensors"], 2, "never replaced", ranks=(1, 3))
    refused(folder, command + ["nodir/m.safetensors"], 2, "no such directory: nodir", ranks=(1, 3))
    write(f"{folder}/n.safetensors.partial", "precious")
    refused(folder, command + ["n.safetensors"], 2, "n.safetensors.partial", "remove it first", ranks=(1, 3))


@with_scratch
def test_what_takes_a_folder(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    common = ["--base", "base", "-o", "m.safetensors", "-q"]
    for more in (["--task", "one", "--task", "two"], ["--all"], ["--task", "one", "--max-shard-size", "1M"], ["--task", "one", "--keep-going"]):
        refused(folder, ["restore", "a.h5", *more, *common], 2, "m.safetensors", "folder's name", ranks=(1, 3))
    before = hashes(folder)
    code, _, err = call([sys.executable, READER, "restore", "a.h5", "--task", "one", *common[:-1]], cwd=folder)
    check(code == 1 and "m.safetensors" in err and "folder's name" in err and "Traceback" not in err, f"{code} {err}")
    equal(hashes(folder), before, "files")
    r = run(["restore", "a.h5", "--task", "one", *common], cwd=folder)
    equal(r.code, 0, f"{r}")

"""Archives of many tasks: info finds, sorts and pages; one task is appended, verified and restored among many."""
import json
import os
import sys

import h5py

from common import ROOT, check, equal, good, hashes, made_once, read, refused, run, sha256, with_scratch, write

sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
import tasks as many  # noqa: E402

N, TENSORS = 60, 7


def zoo():
    """N tasks, one that is appended, and the archive of the N."""

    def make(folder):
        many.make(folder, N, TENSORS)
        many.manifest(folder, "zoo", range(N))
        many.manifest(folder, "more", [N])
        good(["compress", f"{folder}/zoo.yaml", "-o", f"{folder}/zoo.h5", "-q"])

    return made_once(f"thousand-{N}", make)


def info(*options, ranks=1):
    return good(["info", f"{zoo()}/zoo.h5", *options], ranks).out


def test_info_filters_sorts_and_pages():
    names = info("--names").split()
    equal(names, [f"task-{t:05}" for t in range(N)], "all names")
    equal(info("--names", "--match", "task-0001?").split(), names[10:20], "names that match")
    equal(info("--names", "--skip", 50, "--limit", 5).split(), names[50:55], "a page")
    equal(info("--names", "--skip", 55, "--limit", 50).split(), names[55:], "the last page")
    equal(info("--names", "--skip", 1000).split(), [], "beyond the end")
    equal(info("--names", "--sort", "-name", "--limit", 3).split(), names[:-4:-1], "backwards")
    all_ = [json.loads(line) for line in info("--json-lines").splitlines()]
    equal([t["name"] for t in all_], names, "lines of JSON")
    equal(all_, json.loads(info("--json"))["tasks"], "each line is what --json has")
    stored = [t["name"] for t in sorted(all_, key=lambda t: (-t["stored_bytes"], t["name"]))]
    equal(info("--names", "--sort=-stored", ranks=3).split(), stored, "by size, equal ones in the archive's order")
    equal([t["name"] for t in json.loads(info("--json", "--match", "*9"))["tasks"]], names[9::10], "filters of --json")
    table = [line.split() for line in info("--columns", "name,tensors,quality", "--limit", 2).splitlines()]
    equal(table[0] + table[2][:2], ["name", "tensors", "quality", names[1], str(TENSORS)], "columns")
    equal(len(table), 3, "lines of a page")
    text = info("--match", "task-0000*", "--sort", "noise")
    check("(10 of 60 tasks" in text and sum(line.startswith("task-") for line in text.splitlines()) == 10, text)
    check(all(len(line) <= 80 for line in text.splitlines()[2:]), text)


def test_info_of_one_task_filters_its_tensors():
    tensors = [json.loads(line) for line in info("--task", "task-00003", "--json-lines", "--match", "*.[12].*").splitlines()]
    equal([t["name"] for t in tensors], [f"model.layers.{i}.mlp.up_proj.weight" for i in (1, 2)], "tensors")
    equal(tensors, json.loads(info("--task", "task-00003", "--json", "--match", "*.[12].*"))["tasks"][0]["tensors"], "and in --json")
    check("layers.4" not in info("--task", "task-00003", "--match", "*.1.*").split("tensor ")[1], "a tensor that does not match")


def test_info_of_one_task_says_what_that_of_all_says():
    one, all_of_them = json.loads(info("--task", "task-00003", "--json")), json.loads(info("--json"))
    listed = {k: v for k, v in one["tasks"][0].items() if k not in ("tensors", "recipe_text")}
    equal(listed, next(t for t in all_of_them["tasks"] if t["name"] == "task-00003"), "a task alone and among all")
    equal((one["shared"], one["archive_bytes"], one["shared_bytes"]), (None, all_of_them["archive_bytes"], all_of_them["shared_bytes"]), "the archive's own figures")
    text = info("--task", "task-00003")
    check(f"{len(all_of_them['tasks'])} tasks" in text and "task-00002" not in text, text[:900])


@with_scratch
def test_refusals(folder):
    archive = f"{zoo()}/zoo.h5"
    refused(folder, ["info", archive, "--sort", "size"], 2, "--sort", "'size'", "stored")
    refused(folder, ["info", archive, "--columns", "name,,stored"], 2, "--columns", "''")
    refused(folder, ["info", archive, "--json", "--json-lines"], 2, "one of")
    refused(folder, ["info", archive, "--task", "task-00001", "--limit", "3"], 2, "--match")
    refused(folder, ["info", archive, "--task", "task-1"], 2, "task-1")


@with_scratch
def test_one_of_many_is_appended_and_restored_alike_on_any_number_of_ranks(folder):
    sums = set()
    for ranks in (1, 2, 4):
        write(f"{folder}/{ranks}.h5", read(f"{zoo()}/zoo.h5"))
        good(["compress", f"{zoo()}/more.yaml", "-o", f"{folder}/{ranks}.h5", "--append", "-q"], ranks)
        sums.add(sha256(f"{folder}/{ranks}.h5"))
        good(["restore", f"{folder}/{ranks}.h5", "--task", "task-00031", "--base", f"{zoo()}/base.safetensors", "-o", f"{folder}/r{ranks}", "-q"], ranks)
    equal(len(sums), 1, "archives of 1, 2 and 4 ranks")
    equal(hashes(f"{folder}/r1"), hashes(f"{folder}/r4"), "restored on 1 and 4 ranks")
    equal(len(good(["info", f"{folder}/2.h5", "--names"]).out.split()), N + 1, "tasks")


@with_scratch
def test_one_of_many_is_verified_alone(folder):
    """Damage in the payload of another task is not looked at; in its own it is found."""
    archive = bytearray(read(f"{zoo()}/zoo.h5"))
    whole = json.loads(good(["verify", f"{zoo()}/zoo.h5", "--json"]).out)
    one = json.loads(good(["verify", f"{zoo()}/zoo.h5", "--json", "--task", "task-00005"], 3).out)
    equal((one["sound"], one["tasks"], one["tensors"], whole["tasks"]), (True, 1, TENSORS, N), "what is read")
    damaged = json.loads(info("--json-lines", "--match", "task-00007"))
    check(damaged["bytes"]["exact_tensors"] + damaged["bytes"]["kept_values"] > 0, f"{damaged}")
    with h5py.File(f"{zoo()}/zoo.h5") as f:
        payload = f["tasks/task-00007/payload"]
        archive[payload.id.get_offset() + payload.shape[0] // 2] ^= 255
    write(f"{folder}/bad.h5", bytes(archive))
    good(["verify", "bad.h5", "--task", "task-00005"], cwd=folder)
    for tasks in (["--task", "task-00007"], ["--task", "task-00005", "--task", "task-00007"]):
        r = run(["verify", "bad.h5", *tasks], 3, cwd=folder)
        check(r.code == 3 and "task-00007" in r.err, f"{r}")
    refused(folder, ["verify", "bad.h5", "--task", "task-7"], 2, "no task 'task-7'")
    refused(folder, ["verify", "bad.h5", "--task", "task-00005", "--report", "r.json"], 2, "whole archive")

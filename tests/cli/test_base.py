"""The archive knows which model its base is, tables say that it must be kept and what it costs, and a wrong base is distinguished from the right one."""
import os
import shutil
import subprocess
import sys

import h5py

from common import ROOT, SHAPES, UP, SmallZoo, check, equal, good, info, refused, run, small_model, with_scratch, write

READER = os.path.join(ROOT, "src", "python", "deltazoo.py")


def known(folder, archive="a.h5"):
    base = info(archive, cwd=folder)["base"]
    return base["name"], base["origin"], base["revision"]


@with_scratch
def test_base_is_named_by_its_folder_its_config_or_its_hub(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    equal(known(folder), ("base", "base", ""), "by its folder")
    write(f"{folder}/base/config.json", '{"_name_or_path": "/home/me/x", "_commit_hash": "0a1b"}')
    zoo.compress("b.h5")
    equal(known(folder, "b.h5"), ("base", "base", "0a1b"), "a local path is no name")
    write(f"{folder}/base/config.json", '{"_name_or_path": "org/model-7b"}')
    zoo.compress("c.h5")
    equal(known(folder, "c.h5"), ("org/model-7b", "base", ""), "by its config")
    hub = "hub/models--acme--tiny-1b/snapshots/0123abcd"
    shutil.copytree(f"{folder}/base", f"{folder}/{hub}")
    zoo.manifest("one", base=hub)
    zoo.compress("d.h5")
    equal(known(folder, "d.h5"), ("acme/tiny-1b", hub, "0123abcd"), "by its place in a hub's cache")
    write(f"{folder}/base/config.json", '{"_name_or_path": "ev\\u0000il\\u001b[31m"}')
    zoo.manifest("one")
    zoo.compress("e.h5", ranks=3)
    check("\x1b" not in good(["info", "e.h5"], cwd=folder).out, "control characters reach the terminal")


@with_scratch
def test_base_survives_append_remove_and_repack(folder):
    zoo = SmallZoo(folder)
    zoo.manifest("one")
    zoo.compress()
    zoo.manifest("two")
    zoo.compress("a.h5", "--append")
    equal(known(folder), ("base", "base", ""), "after append")
    good(["repack", "a.h5", "-o", "b.h5"], cwd=folder)
    good(["remove", "b.h5", "--task", "one"], 3, cwd=folder)
    equal(known(folder, "b.h5"), ("base", "base", ""), "after repack and remove")


@with_scratch
def test_tables_say_that_the_base_is_kept(folder):
    zoo = SmallZoo(folder)
    out = zoo.compress().out
    for text in out, good(["info", "a.h5"], cwd=folder).out:
        check("with the base, which must be kept (base, 25.7 KB): " in text, text)
    nbytes = sum(len(t[3]) for t in zoo.base)
    equal(info("a.h5", cwd=folder)["base"]["bytes"], nbytes, "the base's bytes")
    with_base = (3 * nbytes) / (nbytes + os.path.getsize(f"{folder}/a.h5"))
    check(f" {with_base:.2f}x" in out, f"{with_base}: {out}")


@with_scratch
def test_wrong_base_is_reported_from_the_right_one(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    restore = ["restore", "a.h5", "--task", "one", "-o", "r", "-q", "--base"]
    refused(folder, restore + ["two"], 1, "two: not the base of this archive, which is 'base' (fingerprint ", "another model of this architecture", ranks=(1, 3))
    zoo.put("revised", [t if t[0] == UP else z for t, z in zip(zoo.tasks["one"], zoo.base)])
    refused(folder, restore + ["revised"], 1, "1 tensors differ (of 5)", "fine-tuned model of it", ranks=(1,))
    zoo.put("small", small_model(9, shapes={k: v for k, v in SHAPES.items() if k != UP}))
    refused(folder, restore + ["small"], 1, f"it has no tensor '{UP}'", "'base' (fingerprint", "this is 'small'", "another architecture", ranks=(1,))
    code = subprocess.run([sys.executable, READER, "restore", "a.h5", "--task", "one", "--base", "small", "-o", "p"], cwd=folder, capture_output=True, text=True)
    check(code.returncode == 1 and "'base' (fingerprint" in code.stderr, code.stderr)


@with_scratch
def test_archive_of_an_earlier_version_has_no_name_of_its_base(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    with h5py.File(f"{folder}/a.h5", "r+") as f:
        for name in ("name", "origin"):
            del f["base"].attrs[name]
    equal(known(folder), ("", "", ""), "an archive without these attributes")
    check(run(["info", "a.h5"], cwd=folder).code == 0, "info")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "-q"], cwd=folder)

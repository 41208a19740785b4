"""No output takes the place of an input, whatever --force says: exit 2 before the work, every file as it was."""
import os

from common import SmallZoo, good, refused, turns, with_scratch, write

COMPRESS = ["compress", "zoo.yaml", "--recipe", "mine.yaml", "-q"]
RULES = 'tensors:\n  - {match: "*_proj*", policy: ultradelta}\n  - {match: "*", policy: lossless}\n'


def make(folder):
    SmallZoo(folder)
    write(f"{folder}/mine.yaml", RULES)
    good(COMPRESS + ["-o", "a.h5"], cwd=folder)
    os.link(f"{folder}/zoo.yaml", f"{folder}/linked.yaml")
    os.symlink("one", f"{folder}/first")


INPUTS = ("zoo.yaml", "./linked.yaml", "mine.yaml", "one/config.json", "base/model.safetensors", "first/model.safetensors")


@with_scratch
def test_compress_replaces_none_of_its_inputs(folder):
    make(folder)
    for i, name in enumerate(INPUTS):
        refused(folder, COMPRESS + ["-o", name, "--force"], 2, name, "did not make", ranks=turns(i))
        refused(folder, COMPRESS + ["-o", "b.h5", "--report", name], 2, name, "did not make", ranks=turns(i))


@with_scratch
def test_report_is_not_the_archive(folder):
    make(folder)
    for archive, report in (("b.h5", "b.h5"), ("b.h5", "./one/../b.h5"), ("a.h5", "a.h5")):
        refused(folder, COMPRESS + ["-o", archive, "--force", "--report", report], 2, report, "archive", ranks=(1, 3))
    refused(folder, ["info", "a.h5", "--plot", "./a.h5"], 2, "a.h5", "archive", ranks=(1,))


@with_scratch
def test_restore_and_export_replace_none_of_their_inputs(folder):
    make(folder)
    restore = ["restore", "a.h5", "--task", "one", "--base", "base", "--force", "-q", "-o"]
    refused(folder, restore + ["base"], 2, "base/model.safetensors", "model base", ranks=(1, 3))
    refused(folder, restore + ["first/../base", "--tensor", "*"], 2, "model.safetensors", "model base", ranks=(1, 3))
    export = ["export", "a.h5", "--task", "one", "--base", "base", "--force", "-q", "-o"]
    refused(folder, export + ["a.h5"], 2, "a.h5", "archive", ranks=(1, 3))
    refused(folder, export + ["base/model.safetensors"], 2, "base/model.safetensors", "did not make", ranks=(1, 3))
    refused(folder, restore + ["one"], 2, "one/", "never replaced", ranks=(3,))  # the original of the task


@with_scratch
def test_restore_does_not_replace_the_archive(folder):
    make(folder)
    os.mkdir(f"{folder}/r")
    os.rename(f"{folder}/a.h5", f"{folder}/r/model.safetensors")
    refused(folder, ["restore", "r/model.safetensors", "--task", "one", "--base", "base", "--force", "-q", "-o", "r"], 2, "r/model.safetensors", "archive",
            ranks=(1, 3))


@with_scratch
def test_repack_of_some_tasks_does_not_replace_the_archive(folder):
    make(folder)
    for out in ("a.h5", "./a.h5"):
        refused(folder, ["repack", "a.h5", "-o", out, "--task", "one", "--force"], 2, out, "itself", ranks=(1, 3))
    os.mkfifo(f"{folder}/pipe")
    refused(folder, ["repack", "a.h5", "-o", "pipe", "--force"], 2, "pipe", "not a file", ranks=(1,))
    good(["repack", "a.h5", "-o", "a.h5"], cwd=folder)


@with_scratch
def test_scan_replaces_manifests_only(folder):
    make(folder)
    for name in ("one/config.json", "base/model.safetensors", "a.h5"):
        refused(folder, ["scan", ".", "-o", name, "--force"], 2, name, "not a manifest", ranks=(1, 3))

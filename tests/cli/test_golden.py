"""Archives of earlier format versions, kept in tests/golden: they are still read, give the same models, and can be appended to.

v1-methods.h5 was written by the last build before the schema became one table (commit e3b624f): a task for each method. v1.json: SHA-256 of what that
build restored."""
import hashlib
import json
import os
import shutil

from common import ROOT, check, equal, good, info, read, sha256, small_model, st_bytes, st_parse, with_scratch, write

GOLDEN = os.path.join(ROOT, "tests", "golden")
BASE = f"{GOLDEN}/v1-base"


def tensors_digest(folder):
    """Of every tensor's name, type, shape and bytes: not of the file's header, which may say more from version to version."""
    h = hashlib.sha256()
    for name, (dtype, shape, data) in sorted(st_parse(folder).items()):
        h.update(f"{name} {dtype} {list(shape)}\n".encode() + data)
    return h.hexdigest()


def restores_as_recorded(folder, archive, ranks):
    for task, wanted in json.loads(read(f"{GOLDEN}/v1.json")).items():
        good(["restore", archive, "--task", task, "--base", BASE, "-o", f"{task}-{archive}", "-q"], ranks, cwd=folder)
        equal(tensors_digest(f"{folder}/{task}-{archive}"), wanted["tensors"], f"tensors of {task} from {archive}")
        equal(sha256(f"{folder}/{task}-{archive}/config.json"), wanted["config.json"], f"config of {task} from {archive}")


@with_scratch
def test_version_1_is_verified_and_restored(folder):
    shutil.copy(f"{GOLDEN}/v1-methods.h5", f"{folder}/a.h5")
    equal(info("a.h5", cwd=folder)["format_version"], 1, "format version")
    for ranks in (1, 3):
        good(["verify", "a.h5", "--base", BASE, "-q"], ranks, cwd=folder)
    restores_as_recorded(folder, "a.h5", 1)
    shutil.copy(f"{folder}/a.h5", f"{folder}/b.h5")
    restores_as_recorded(folder, "b.h5", 3)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{GOLDEN}/v1-methods.h5"), "an archive that was only read")


@with_scratch
def test_version_1_is_appended_to(folder):
    tensors = [(n, *t) for n, t in st_parse(BASE).items()]
    shapes = {n: s for n, _, s, _ in tensors}
    more = small_model(77, "BF16", shapes, tensors, 1e-2)
    write(f"{folder}/more/model.safetensors", st_bytes(more))
    write(f"{folder}/zoo.yaml", f"base: {BASE}\ntasks:\n  - {{name: more, path: more}}\n")
    for archive, ranks in (("a.h5", 1), ("b.h5", 3)):
        shutil.copy(f"{GOLDEN}/v1-methods.h5", f"{folder}/{archive}")
        good(["compress", "zoo.yaml", "--append", "-o", archive, "--recipe", "lossless", "-q"], ranks, cwd=folder)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/b.h5"), "archive appended to by 1 and 3 ranks")
    check(len(info("a.h5", cwd=folder)["tasks"]) == 7, "a task is missing")
    good(["verify", "a.h5", "--base", BASE, "-q"], 2, cwd=folder)
    restores_as_recorded(folder, "a.h5", 1)
    good(["restore", "a.h5", "--task", "more", "--base", BASE, "-o", "back", "-q"], cwd=folder)
    equal(tensors_digest(f"{folder}/back"), tensors_digest(f"{folder}/more"), "the task that was appended")
    good(["remove", "a.h5", "--task", "more"], cwd=folder)
    restores_as_recorded(folder, "b.h5", 3)

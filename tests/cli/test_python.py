"""The Python reader as its users meet it (src/python): values, deltas, whole models, its command line, what it refuses. tests/reader/ has it decode every kind of archive."""
import os
import shutil
import sys

import numpy as np
import pytest

from common import model_files, ROOT, call, check, equal, good, hashes, info, refused, st_parse, tiny_zoo, to_float, with_scratch

SOURCE = os.path.join(ROOT, "src", "python")
sys.path.insert(0, SOURCE)
import deltazoo  # noqa: E402

Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"


def archive(folder, dtype="bf16", *more):
    zoo = tiny_zoo(dtype)
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q", "--recipe", "ultradelta", *more], cwd=folder)
    return zoo, f"{folder}/a.h5"


def fails(call, *wanted):
    try:
        call()
    except deltazoo.Error as error:
        text = str(error)
        check(all(w in text for w in wanted) and "\n" not in text, f"{text!r} has not {wanted!r}")
        return
    check(False, f"nothing is refused where {wanted!r} is due")


@with_scratch
def test_python_restores_the_program_s_files_and_values(folder):
    for dtype in ("bf16", "f16", "f32"):
        zoo, path = archive(folder, dtype, "--force")
        good(["restore", "a.h5", "--task", "task-2", "--base", f"{zoo}/base", "-o", "r", "-q", "--force"], cwd=folder)
        theirs, base = st_parse(f"{folder}/r"), st_parse(f"{zoo}/base")
        with deltazoo.open(path) as z:
            equal(z.tasks, ["task-1", "task-2"], "tasks")
            files = z.restore_model("task-2", f"{zoo}/base", f"{folder}/p-{dtype}")
            equal(hashes(f"{folder}/p-{dtype}", True), hashes(f"{folder}/r", True), "files")
            equal(sorted(files), model_files(f"{folder}/r"), "paths")
            listed = {t["name"]: t for t in info("a.h5", "task-2", cwd=folder)["tasks"][0]["tensors"]}
            equal({t.name: (list(t.shape), t.dtype, t.policy, t.stored_bytes) for t in z.tensors("task-2")},
                  {n: (t["shape"], t["dtype"], t["policy"], t["stored_bytes"]) for n, t in listed.items()}, "tensors")
            for name in (Q, NORM):
                kind, _, data = theirs[name]
                mine = z.restore("task-2", name, f"{zoo}/base")
                check(np.array_equal(mine.reshape(-1), to_float(data, kind)), f"{name}: other values")
                from_memory = z.restore_bytes("task-2", name, base[name][2])
                equal(from_memory.tobytes(), data, "from the base's tensor in memory")
            dense, (where, what) = z.delta("task-2", Q), z.delta_sparse("task-2", Q)
            equal(listed[Q]["kept"] >= len(where) > 0, True, "positions")
            again = np.zeros(dense.size, np.float32)
            again[where] = what
            check(np.array_equal(again.reshape(dense.shape), dense), "dense and sparse delta differ")
            total = to_float(base[Q][2], base[Q][0]) + dense.reshape(-1)
            error = np.abs(total - to_float(theirs[Q][2], theirs[Q][0]))
            check(error.max() <= np.abs(total).max() * {"bf16": 2.0 ** -8, "f16": 2.0 ** -11, "f32": 0}[dtype], "base + delta is not what is restored")


@with_scratch
def test_python_exports_the_program_s_deltas(folder):
    zoo, path = archive(folder)
    good(["export", "a.h5", "--task", "task-1", "--base", f"{zoo}/base", "-o", "v.safetensors", "-q"], cwd=folder)
    vectors = st_parse(f"{folder}/v.safetensors")
    with deltazoo.open(path) as z:
        for name in (Q, NORM):
            check(np.array_equal(z.delta("task-1", name, f"{zoo}/base").reshape(-1), to_float(vectors[name][2], vectors[name][0])), f"{name}: another delta")


@pytest.mark.torch
@with_scratch
def test_python_gives_torch_tensors(folder):
    import torch
    zoo, path = archive(folder)
    with deltazoo.open(path) as z:
        tensor = z.restore("task-1", Q, f"{zoo}/base", framework="pt")
        equal(tensor.dtype, torch.bfloat16, "dtype")
        check(np.array_equal(tensor.float().numpy(), z.restore("task-1", Q, f"{zoo}/base")), "other values")


@with_scratch
def test_python_refuses_in_one_line(folder):
    zoo, path = archive(folder)
    with deltazoo.open(path) as z:
        fails(lambda: z.tensors("nobody"), "a.h5", "'nobody'", "task-1")
        fails(lambda: z.restore("task-1", "nothing"), "a.h5", "'nothing'", "tensors(")
        fails(lambda: z.restore("task-1", Q), Q, "base=")
        fails(lambda: z.restore("task-1", Q, f"{zoo}/task-2"), Q, "not the base's")
        fails(lambda: z.restore("task-1", Q, b"1234"), Q, "4 bytes")
        fails(lambda: z.delta_sparse("task-1", NORM), NORM, "not ultradelta")
        fails(lambda: z.restore_model("task-1", f"{folder}/absent", f"{folder}/x"), "absent")
        fails(lambda: z.restore_model("task-1", f"{zoo}/task-2", f"{folder}/x"), "not the base's")
        check(not os.path.exists(f"{folder}/x"), "a failed restore leaves something")
        os.mkdir(f"{folder}/full")
        shutil.copy(path, f"{folder}/full/a.h5")
        fails(lambda: z.restore_model("task-1", f"{zoo}/base", f"{folder}/full"), "not empty", "force")
    fails(lambda: deltazoo.open(f"{folder}/absent.h5"), "absent.h5", "no such file")
    fails(lambda: deltazoo.open(f"{zoo}/zoo.yaml"), "zoo.yaml", "not an HDF5 file")


@with_scratch
def test_python_command_line(folder):
    zoo, path = archive(folder)
    env = {"PYTHONPATH": SOURCE}

    def python(*args):
        return call([sys.executable, "-m", "deltazoo", *args], cwd=folder, env=env)

    code, out, err = python("list", "a.h5")
    check(code == 0 and [line.split()[0] for line in out.splitlines()] == ["task", "task-1", "task-2"], out + err)
    code, out, err = python("show", "a.h5", "--task", "task-1", "--tensor", "*q_proj*")
    check(code == 0 and Q in out and NORM not in out and "ultradelta" in out, out + err)
    code, out, err = python("restore", "a.h5", "--task", "task-1", "--base", f"{zoo}/base", "-o", "p")
    good(["restore", "a.h5", "--task", "task-1", "--base", f"{zoo}/base", "-o", "r", "-q"], cwd=folder)
    check(code == 0, out + err)
    equal(hashes(f"{folder}/p", True), hashes(f"{folder}/r", True), "files")
    code, out, err = python("check", "a.h5")
    check(code == 0 and "sound" in out, out + err)
    code, out, err = python("restore", "a.h5", "--task", "no", "--base", f"{zoo}/base", "-o", "q")
    check(code == 1 and err.count("\n") == 1 and "it has task-1, task-2" in err, out + err)


@with_scratch
def test_hdf5_2_reads_every_object(folder):
    """h5py brings a library of its own, newer than the program's."""
    import h5py
    check(h5py.version.hdf5_version_tuple >= (2, 0, 0), f"h5py's HDF5 is {h5py.version.hdf5_version}")
    good(["compress", "-q", f"{tiny_zoo('bf16')}/zoo.yaml", "-o", f"{folder}/a.h5"])
    read = {}
    with h5py.File(f"{folder}/a.h5") as f:
        f.visititems(lambda name, o: read.update({name: o[()].nbytes}) if isinstance(o, h5py.Dataset) else None)
    check({"tensors", "blobs/data", "base/tiles", "tasks/task-1/index", "tasks/task-2/payload"} <= set(read) and all(read.values()), f"{read}")

"""Task vectors for other tools, and back: what is written is the delta that restore adds."""
import os
import subprocess

import h5py
import numpy as np

from common import EMBED, NORM, Q, SmallZoo, check, equal, good, refused, run, st_parse, tiny_zoo, to_float, with_scratch, write


def restored(folder, zoo, task="task-1", recipe="ultradelta"):
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q", "--recipe", recipe], cwd=folder)
    good(["restore", "a.h5", "--task", task, "--base", f"{zoo}/base", "-o", "r", "-q"], cwd=folder)
    return st_parse(f"{folder}/r"), st_parse(f"{zoo}/base")


@with_scratch
def test_dense_vector_and_back(folder):
    for dtype, ranks in (("bf16", 3), ("f32", 2)):
        zoo = tiny_zoo(dtype)
        model, base = restored(folder, zoo)
        good(["export", "a.h5", "--task", "task-1", "--base", f"{zoo}/base", "-o", "v.safetensors", "-q"], ranks, cwd=folder)
        vector = st_parse(f"{folder}/v.safetensors")
        equal(sorted(vector), sorted(model), "tensors")
        for name, (kind, shape, data) in vector.items():
            equal((kind, shape), ("F32", model[name][1]), name)
            sum32 = to_float(base[name][2], base[name][0]) + np.frombuffer(data, "<f4")
            size = np.maximum(np.abs(sum32), np.abs(to_float(base[name][2], base[name][0])))
            check(np.all(np.abs(sum32 - to_float(model[name][2], model[name][0])) <= size * (2.0 ** -8 if dtype == "bf16" else 2.0 ** -23)), f"{name}: base + vector is not the model")
        good(["import", "v.safetensors", "--base", f"{zoo}/base", "-o", "again", "-q"], ranks, cwd=folder)
        again = st_parse(f"{folder}/again")
        lossy = {t for t in st_parse(f"{folder}/v.safetensors") if np.count_nonzero(np.frombuffer(vector[t][2], "<f4")) < 0.1 * len(vector[t][2]) / 4}
        check(Q in lossy or len(lossy) > 3, "no sparse delta at all")
        for name in lossy:  # the very same sum
            check(again[name] == model[name], f"{name}: imported, it is not what restore gives")
        subprocess.run(["rm", "-rf", f"{folder}/again", f"{folder}/r", f"{folder}/a.h5", f"{folder}/v.safetensors"], check=True)


@with_scratch
def test_what_a_vector_lacks_is_said(folder):
    """Exported with its base it makes the right model; without, both commands name what is missing. Files beside are the base's, which is said too."""
    zoo = SmallZoo(folder)
    zoo.compress()
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "-q"], cwd=folder)
    r = good(["export", "a.h5", "--task", "one", "-o", "v.safetensors", "-q"], 3, cwd=folder)
    check(any("v.safetensors lacks 2 tensors of its task: " in n and EMBED in n and NORM in n and "--base PATH" in n for n in r.lines("note")), f"{r}")
    r = good(["import", "v.safetensors", "--base", "base", "-o", "m", "-q"], 3, cwd=folder)
    check(any("v.safetensors lacks 2 tensors of its task: " in n and EMBED in n for n in r.lines("note")), f"{r}")
    check(any("config, tokenizer" in n for n in r.lines("note")), f"{r}")
    r = good(["export", "a.h5", "--task", "one", "--base", "base", "-o", "w.safetensors", "-q"], cwd=folder)
    check(not r.lines("note"), f"{r}")
    r = good(["import", "w.safetensors", "--base", "base", "-o", "n", "-q"], cwd=folder)
    check(not any("lacks" in n for n in r.lines("note")), f"{r}")
    want, got = st_parse(f"{folder}/r"), st_parse(f"{folder}/n")
    for name in want:
        a, b = (np.frombuffer(x[name][2], "<f4") for x in (want, got))
        check(np.allclose(a, b, rtol=1e-6, atol=1e-7), f"{name}: the imported model is not the restored one")


@with_scratch
def test_sparse_vector(folder):
    zoo = tiny_zoo("f32")
    restored(folder, zoo)
    for ranks in (1, 3):
        r = good(["export", "a.h5", "--task", "task-1", "--format", "sparse", "-o", f"s{ranks}.safetensors", "-q"], ranks, cwd=folder)
        check("tensors of its task: " in r.err and "sparse vector has lossy tensors only" in r.err, f"nothing is said about the others: {r}")
    good(["export", "a.h5", "--task", "task-1", "-o", "d.safetensors", "-q"], 2, cwd=folder)
    dense, sparse = st_parse(f"{folder}/d.safetensors"), st_parse(f"{folder}/s3.safetensors")
    equal(st_parse(f"{folder}/s1.safetensors"), sparse, "the vector by 1 and 3 ranks")
    equal(sorted(sparse), sorted(f"{n}.{part}" for n in dense for part in ("positions", "values")), "tensors")
    for name, (kind, shape, data) in dense.items():
        x = np.zeros(int(np.prod(shape)), "<f4")
        positions = np.frombuffer(sparse[f"{name}.positions"][2], "<i8")
        check(np.all(np.diff(positions) > 0), f"{name}: positions do not ascend")
        x[positions] = np.frombuffer(sparse[f"{name}.values"][2], "<f4")
        check(x.tobytes() == data and 0 < len(positions) < x.size / 10, f"{name}: not the dense delta")


@with_scratch
def test_arrays_for_hdf5_tools(folder):
    zoo = tiny_zoo("bf16")
    restored(folder, zoo)
    good(["export", "a.h5", "--task", "task-1", "--format", "hdf5", "-o", "v.h5", "-q"], 3, cwd=folder)
    good(["export", "a.h5", "--task", "task-1", "-o", "d.safetensors", "-q"], cwd=folder)
    dense = st_parse(f"{folder}/d.safetensors")
    with h5py.File(f"{folder}/v.h5") as f:
        equal(sorted(f), sorted(dense), "datasets")
        equal(f.attrs["task"], b"task-1", "attribute")
        for name in f:
            check(f[name].shape == dense[name][1] and f[name][()].tobytes() == dense[name][2], name)
    name = sorted(dense)[0]
    out = subprocess.run(["h5dump", "-d", f"/{name}", "-s", "0,0", "-c", "1,4", f"{folder}/v.h5"], capture_output=True, text=True)
    check(out.returncode == 0 and "DATA" in out.stdout, f"h5dump: {out.stderr}")


@with_scratch
def test_refused(folder):
    zoo = tiny_zoo("bf16")
    restored(folder, zoo)
    refused(folder, ["export", "a.h5", "--task", "task-1", "-o", "a.h5"], 2, "a.h5: exists and is a deltazoo archive", "never replaced")
    refused(folder, ["export", "a.h5", "--task", "x", "-o", "v"], 2, "'x'")
    refused(folder, ["export", "a.h5", "--task", "task-1", "-o", "v", "--format", "csv"], 2, "'csv'")
    refused(folder, ["export", "a.h5", "--task", "task-1", "-o", "v", "--tensor", "*norm*"], 2, "'*norm*'")
    refused(folder, ["import", f"{zoo}/task-1", "--base", "r", "-o", "r"], 2, "exists already")
    good(["export", "a.h5", "--task", "task-1", "--format", "sparse", "-o", "s.safetensors", "-q"], cwd=folder)
    r = run(["import", "s.safetensors", "--base", f"{zoo}/base", "-o", "m"], 3, cwd=folder)
    check(r.code == 1 and "q_proj.weight.positions' is not in the base" in r.err, f"{r}")
    os.makedirs(f"{folder}/mine.partial")  # nothing that was there before is removed or filled
    good(["export", "a.h5", "--task", "task-1", "-o", "d.safetensors", "-q"], cwd=folder)
    write(f"{folder}/mine.partial/notes", "mine")
    refused(folder, ["import", "d.safetensors", "--base", f"{zoo}/base", "-o", "mine"], 2, "mine.partial", "remove it first")

"""Archives whose tasks refer to each other (chains, shared tensors) or that hold their base, through the package: bit for bit the program's restore, whatever reads and however."""
import os
import shutil
import sys

import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "cli"))
from common import check, equal, good, hashes, info, made_once, st_parse, to_float
from live_models import is_like, model_of
from package import load
from test_chains import chain, in_line, manifest
from test_package import ENGINES, fails, raw

STEPS = [f"step-{k}" for k in range(1, 6)]
Q = "model.layers.0.self_attn.q_proj.weight"
COST = {"test_what_the_program_restores": 10}


@pytest.fixture(scope="module")
def dz():
    return load()


@pytest.fixture(scope="module")
def zoo():
    """A folder with a chain, a copy of a step of it, and archives of them: exact, by the default method, and each with its base; restored models are beside them."""

    def make(folder):
        chain(folder, 5, [0.05, 0.3, 0.01, 0.2, 0.1], spread=3)
        shutil.copytree(f"{folder}/step-3", f"{folder}/copy")
        manifest(f"{folder}/zoo.yaml", folder, [*in_line(5), "copy"])
        for name, how in (("exact", ["--quality", "lossless"]), ("lossy", ["--method", "auto"])):
            good(["compress", "zoo.yaml", "-o", f"{name}.h5", "-q", *how], cwd=folder)
            good(["compress", "zoo.yaml", "-o", f"{name}-whole.h5", "-q", "--with-base", *how], cwd=folder)
            for archive in (name, f"{name}-whole"):
                parents = {t["name"]: t.get("parent") for t in info(f"{archive}.h5", cwd=folder)["tasks"]}
                equal(parents["step-5"], "step-4", "the chain")
                for task in (*STEPS, "copy"):
                    good(["restore", f"{archive}.h5", "--task", task, "--base", "base", "-o", f"{archive}.{task}", "-q"], cwd=folder)

    return made_once("package-chained", make)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["exact", "lossy", "exact-whole", "lossy-whole"])
def test_what_the_program_restores(dz, zoo, name, engine):
    base = {n: data for n, (_, _, data) in st_parse(f"{zoo}/base").items()}
    ways = [f"{zoo}/base", base] + ([None] if name.endswith("whole") else [])
    with dz.open(f"{zoo}/{name}.h5", engine) as z:
        equal(z.tasks, sorted([*STEPS, "copy"]), "tasks")
        equal(z.base.task, "base" if name.endswith("whole") else None, "the base")
        for task in ("step-5", "copy", "step-2", "step-5", "step-1", "step-4"):  # to and fro along the chain
            theirs = st_parse(f"{zoo}/{name}.{task}")
            equal({t.name: (t.dtype, t.shape) for t in z.tensors(task)}, {n: (k, tuple(s)) for n, (k, s, _) in theirs.items()}, "tensors")
            for way in ways:
                for n, (_, _, data) in theirs.items():
                    equal(z.restore_bytes(task, n, way).tobytes(), data, f"{task}: {n}")
        kind, shape, data = st_parse(f"{zoo}/{name}.step-4")[Q]
        whole = to_float(data, kind).reshape(shape)
        with z.open_task("step-4", f"{zoo}/base") as t:
            for index in (slice(3, 9), -1, (slice(None, None, 7), slice(2, 5))):
                check(np.array_equal(t.get_slice(Q)[index], whole[index]), f"slice {index}")
        z.verify()
        if not name.endswith("whole"):
            fails(dz, lambda: z.restore("step-4", Q), Q, "base=")
        fails(dz, lambda: z.restore("step-4", Q, f"{zoo}/step-1"), Q, "not the base")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["exact", "lossy", "lossy-whole"])
def test_deltas_are_those_from_the_base(dz, zoo, name, engine):
    """Of a task that is coded against another one too, where the base is at hand."""
    base = st_parse(f"{zoo}/base")
    with dz.open(f"{zoo}/{name}.h5", engine) as z:
        for task in ("step-1", "step-3", "step-5", "copy"):
            theirs = st_parse(f"{zoo}/{name}.{task}")
            for t in z.tensors(task):
                delta = z.delta(task, t.name, None if name.endswith("whole") else f"{zoo}/base")
                restored, old = (to_float(x[t.name][2], t.dtype).reshape(t.shape) for x in (theirs, base))
                error = np.abs(old + delta - restored) if t.policy == "ultradelta" else np.abs(restored - old - delta)
                if t.policy == "ultradelta" and task in ("step-3", "step-5") and name == "lossy" and t.name == Q:
                    fails(dz, lambda: z.delta(task, Q), "lossy.h5", task, Q, "base=")
                    fails(dz, lambda: z.delta_sparse(task, Q), "lossy.h5", task, Q, "coded against")
                check(delta.shape == t.shape and float(error.max()) <= (2 ** -8 * np.abs(restored).max() if t.policy == "ultradelta" else 0), f"{task}: {t.name}: {error.max()}")


@pytest.mark.torch
@pytest.mark.parametrize("name", ["exact", "lossy", "exact-whole", "lossy-whole"])
def test_models_in_memory(dz, zoo, name):
    import torch
    base = None if name.endswith("whole") else f"{zoo}/base"
    with dz.open(f"{zoo}/{name}.h5") as z:
        for threads in (1, 3):
            for task in ("step-5", "copy", "step-1"):
                theirs = st_parse(f"{zoo}/{name}.{task}")
                sd = z.load_state_dict(task, base, threads=threads)
                equal({n: raw(t) for n, t in sd.items()}, {n: data for n, (_, _, data) in theirs.items()}, f"{task} by {threads} threads")
        model = model_of(f"{zoo}/base")
        live = z.load_into(model, "step-1", f"{zoo}/base")
        for task in ("step-5", "copy", "step-3", "step-2", None, "step-4", "step-5"):
            live.load(task)
            check(is_like(model, f"{zoo}/{name}.{task}" if task else f"{zoo}/base"), f"{task} in a live model")
        live.unload()
        check(is_like(model, f"{zoo}/base"), "the base again")
        model = model_of(f"{zoo}/base")
        with z.load_into(model, "step-4") as live:  # the model is the base
            check(is_like(model, f"{zoo}/{name}.step-4"), "a live model that is the base")
            live.load("copy")
            check(is_like(model, f"{zoo}/{name}.copy"), "and another task")
        check(is_like(model, f"{zoo}/base"), "back")
        check(all(t.dtype == torch.bfloat16 for t in model.state_dict().values()), "types")


def test_children_read_a_chain(dz, zoo):
    theirs = st_parse(f"{zoo}/lossy.step-5")
    with dz.open(f"{zoo}/lossy.h5") as z:
        z.restore("step-5", Q, f"{zoo}/base")
        pid = os.fork()
        if pid == 0:
            os._exit(0 if all(z.restore_bytes("step-5", n, f"{zoo}/base").tobytes() == data for n, (_, _, data) in theirs.items()) else 1)
        equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "a child")


@pytest.mark.parametrize("name", ["exact", "lossy"])
def test_files_from_a_file_object_and_by_the_package(dz, zoo, name, folder):
    with open(f"{zoo}/{name}.h5", "rb") as file, dz.open(file) as z:
        equal(z.engine, "python", "engine")
        z.restore_model("step-5", f"{zoo}/base", f"{folder}/by-object")
    with dz.open(f"{zoo}/{name}.h5", "native") as z:
        z.restore_model("step-5", f"{zoo}/base", f"{folder}/by-path")
    for made in ("by-object", "by-path"):
        equal(hashes(f"{folder}/{made}"), hashes(f"{zoo}/{name}.step-5"), made)

"""What newcomers do wrong, or in another way than was thought of: refusals are one line that names what is wrong, nothing crashes, and what can work does."""

import io
import os
import pickle
import shutil
import sys
import threading

import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(__file__))
from common import call, check, equal, hashes
from package import load, site
from test_package import ENGINES, TINY_Q, fails, zoo_of


@pytest.fixture(scope="module")
def dz():
    return load()


CLOSED = {"tasks": lambda z, base: z.tasks, "base": lambda z, base: z.base, "task": lambda z, base: z.task("task-1"), "tensors": lambda z, base: z.tensors("task-1"),
          "restore": lambda z, base: z.restore("task-1", TINY_Q, base), "delta": lambda z, base: z.delta("task-1", TINY_Q),
          "delta_sparse": lambda z, base: z.delta_sparse("task-1", TINY_Q), "base_of": lambda z, base: z.base_of("task-1", TINY_Q),
          "iter": lambda z, base: next(z.iter("task-1", base)), "load_state_dict": lambda z, base: z.load_state_dict("task-1", base, framework="np"),
          "restore_model": lambda z, base: z.restore_model("task-1", base, "nothing-is-made"), "verify": lambda z, base: z.verify()}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("before", ["nothing", "used"])
def test_a_closed_archive_says_so(dz, engine, before):
    zoo, archive, _ = zoo_of()
    for name, use in CLOSED.items():
        z = dz.open(archive, engine)
        if before == "used":
            z.restore("task-1", TINY_Q, f"{zoo}/base")
        z.close()
        z.close()
        fails(dz, lambda: use(z, f"{zoo}/base"), archive, "closed")
        check("closed" in repr(z), repr(z))
        equal(pickle.loads(pickle.dumps(z)).tasks, ["task-1", "task-2", "task-3"], "opened anew")


def test_closing_while_others_read(dz):
    """Either whole tensors or the refusal; never memory that is freed."""
    zoo, archive, _ = zoo_of()
    with dz.open(archive) as sound:
        want = sound.restore_bytes("task-1", TINY_Q, f"{zoo}/base").tobytes()
    for _ in range(20):
        z, wrong, ready = dz.open(archive), [], threading.Barrier(4)

        def run():
            ready.wait()
            try:
                while True:
                    if z.restore_bytes("task-1", TINY_Q, f"{zoo}/base").tobytes() != want:
                        wrong.append("other bytes")
                    z.task("task-2"), z.base_of("task-2", TINY_Q), z.tensors("task-3")
            except dz.Error as error:
                if "closed" not in str(error):
                    wrong.append(str(error))

        threads = [threading.Thread(target=run) for _ in range(3)]
        for t in threads:
            t.start()
        ready.wait()
        z.close()
        for t in threads:
            t.join()
        equal(wrong, [], "what threads saw")


@pytest.mark.torch
@pytest.mark.parametrize("engine", ENGINES)
def test_bases_of_every_kind(dz, engine):
    """Shards, a file, a state dict, parameters, f32 of the same values; what is none is refused with what is needed."""
    import torch
    from safetensors.torch import load_file, save_file
    zoo, archive, restored = zoo_of()
    base = load_file(f"{zoo}/base/model.safetensors")
    with dz.open(archive, engine) as z:
        want = z.restore_bytes("task-1", TINY_Q, f"{zoo}/base").tobytes()
        for what, given in (("a file", f"{zoo}/base/model.safetensors"), ("a state dict", base), ("a parameter", torch.nn.Parameter(base[TINY_Q])), ("f32", base[TINY_Q].float()),
                            ("f32 of numpy", base[TINY_Q].float().numpy()), ("not contiguous", base[TINY_Q].t().contiguous().t())):
            equal(z.restore_bytes("task-1", TINY_Q, given).tobytes(), want, what)
        q = base[TINY_Q]
        for given, *words in ((q.double(), "float64", "BF16"), (q.half(), "float16", "BF16"), (q.to("meta"), "meta device"), (7, "not int"), ([1], "not list"),
                              (torch.nn.Linear(2, 2), "not Linear"), (q[:3], "has 1536 bytes"), (np.array([None]), "Python objects"), (q + 1, "not the base"),
                              ({TINY_Q: None}, "give base="), ({}, "has not"), ("nowhere", "nowhere"), (f"{zoo}/task-1", "not the base")):
            try:
                z.restore("task-1", TINY_Q, given)
            except dz.Error as error:
                check(all(w in str(error) for w in words) and "\n" not in str(error) and "task-1" in str(error), f"{error} has not {words}")
                check(not isinstance(error, dz.Damaged), f"a wrong base is no damage: {error}")
            else:
                check(False, f"{type(given)} is taken")


@pytest.mark.torch
@pytest.mark.parametrize("engine", ENGINES)
def test_a_base_in_shards(dz, engine, folder):
    import json
    from safetensors.torch import load_file, save_file
    zoo, archive, _ = zoo_of()
    base = load_file(f"{zoo}/base/model.safetensors")
    names = sorted(base)
    half, files = len(names) // 2, [f"model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    for file, own in zip(files, (names[:half], names[half:])):
        save_file({n: base[n] for n in own}, f"{folder}/{file}", metadata={"format": "pt"})
    with open(f"{folder}/model.safetensors.index.json", "w") as file:
        json.dump({"metadata": {}, "weight_map": {n: files[k >= half] for k, n in enumerate(names)}}, file)
    with dz.open(archive, engine) as z:
        equal(z.restore_bytes("task-1", TINY_Q, folder).tobytes(), z.restore_bytes("task-1", TINY_Q, f"{zoo}/base").tobytes(), "values")
    os.remove(f"{folder}/{files[1]}")
    with dz.open(archive, engine) as z:
        fails(dz, lambda: z.load_state_dict("task-1", folder, framework="np"), files[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_paths_that_are_relative_stay_what_they_were(dz, engine, folder):
    """The working directory changes after opening: threads, other processes and whole models find the archive."""
    zoo, archive, restored = zoo_of()
    shutil.copy(archive, f"{folder}/a.h5")
    os.makedirs(f"{folder}/elsewhere")
    before = os.getcwd()
    try:
        os.chdir(folder)
        with dz.open("a.h5", engine) as z:
            equal(z.path, "a.h5", "path as it was given")
            want = z.restore_bytes("task-1", TINY_Q, f"{zoo}/base").tobytes()
            os.chdir("elsewhere")
            got = z.load_state_dict("task-1", f"{zoo}/base", framework="np", threads=2)
            check(np.array_equal(got[TINY_Q], z.restore("task-1", TINY_Q, f"{zoo}/base")), "values")
            with pickle.loads(pickle.dumps(z)) as other:
                equal(other.restore_bytes("task-1", TINY_Q, f"{zoo}/base").tobytes(), want, "sent to another process")
            z.restore_model("task-1", f"{zoo}/base", "r")
            equal(hashes("r", True)["model.safetensors"], hashes(restored["task-1"], True)["model.safetensors"], "the model")
            z.verify()
    finally:
        os.chdir(before)


def test_one_base_path_in_two_working_directories(dz, folder):
    zoo, archive, _ = zoo_of()
    os.makedirs(f"{folder}/x")
    os.makedirs(f"{folder}/y")
    shutil.copytree(f"{zoo}/base", f"{folder}/x/base")
    shutil.copytree(f"{zoo}/task-1", f"{folder}/y/base")
    before = os.getcwd()
    try:
        with dz.open(archive) as z:
            os.chdir(f"{folder}/x")
            z.restore("task-1", TINY_Q, "base")
            os.chdir(f"{folder}/y")
            fails(dz, lambda: z.restore("task-1", TINY_Q, "base"), "not the base")
    finally:
        os.chdir(before)


def test_what_is_no_archive_no_task_no_weight(dz, folder):
    zoo, archive, _ = zoo_of()
    with dz.open(archive) as z:
        fails(dz, lambda: z.restore_model({}, f"{zoo}/base", f"{folder}/r"), "no task is given", "task-1")
        fails(dz, lambda: z.restore_model({"task-1": float("nan")}, f"{zoo}/base", f"{folder}/r"), "task-1", "weight nan")
        fails(dz, lambda: z.restore_model({"task-1": float("inf")}, f"{zoo}/base", f"{folder}/r"), "task-1", "weight inf")
        check(not os.path.exists(f"{folder}/r"), "something is made")
        for task in (None, 3, "", "task-9"):
            fails(dz, lambda: z.tensors(task), "no task", "task-1")
    with open(f"{zoo}/zoo.yaml") as text:
        fails(dz, lambda: dz.open(text), "zoo.yaml", "'rb'")
    fails(dz, lambda: dz.open(f"{zoo}/base/model.safetensors"), "not an archive")
    with open(archive, "rb") as file:
        equal(dz.open(io.BytesIO(file.read())).tasks, ["task-1", "task-2", "task-3"], "from memory")


@pytest.mark.torch
def test_types_are_torch_s(dz):
    import torch
    zoo, archive, _ = zoo_of()
    with dz.open(archive) as z:
        for dtype in ("float16", np.float16, np.dtype("f2")):
            fails(dz, lambda: z.load_state_dict("task-1", f"{zoo}/base", dtype=dtype), "torch.float16")
        sd = z.load_state_dict("task-1", f"{zoo}/base", dtype=torch.float16, threads=1000)
        check(all(t.dtype == torch.float16 for t in sd.values() if t.is_floating_point()), "types")


INTERRUPTED = """
import os, signal, sys, threading, time, deltazoo, torch
torch.set_num_threads(1)
z = deltazoo.open(sys.argv[1])
want = z.load_state_dict("task-1", sys.argv[2])
for k in range(12):
    threading.Timer(0.003 * (k + 1), os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        end = time.monotonic() + 2  # Python drops an interrupt that comes while an object is taken down
        while time.monotonic() < end:
            z.load_state_dict("task-1", sys.argv[2], threads=1 + k % 3)
    except KeyboardInterrupt:
        pass
got = z.load_state_dict("task-1", sys.argv[2], threads=2)
print(all(torch.equal(got[n], want[n]) for n in want), threading.active_count())
"""


@pytest.mark.torch
def test_an_interrupt_leaves_the_archive_usable(dz, folder):
    zoo, archive, _ = zoo_of()
    code, out, err = call([sys.executable, "-c", INTERRUPTED, archive, f"{zoo}/base"], cwd=folder, env={"PYTHONPATH": site()}, limit=120)
    check(code == 0 and out.split() == ["True", "1"], out + err)


@pytest.mark.torch
def test_live_models_of_other_kinds(dz):
    """In place and back, of another type, and on the meta device, which is refused."""
    import torch
    from live_models import is_like, live_model
    from safetensors.torch import load_file
    zoo, archive, restored = zoo_of()
    base = load_file(f"{zoo}/base/model.safetensors")
    with dz.open(archive) as z:
        model = live_model({n: t.clone() for n, t in base.items()})
        places = {n: t.data_ptr() for n, t in model.state_dict().items()}
        live = z.load_into(model, "task-1", f"{zoo}/base")
        check(is_like(model, restored["task-1"]) and places == {n: t.data_ptr() for n, t in model.state_dict().items()}, "in place")
        live.unload()
        check(is_like(model, f"{zoo}/base"), "back")
        half = live_model({n: t.float() for n, t in base.items()})
        with z.load_into(half, "task-2", f"{zoo}/base"):
            want = load_file(f"{restored['task-2']}/model.safetensors")
            check(all(torch.equal(t, want[n].float()) for n, t in half.state_dict().items()), "of another type")
        check(all(torch.equal(t, base[n].float()) for n, t in half.state_dict().items()), "of another type, back")
        meta = live_model({n: t.to("meta") for n, t in base.items()})
        fails(dz, lambda: z.load_into(meta, "task-1", f"{zoo}/base"), "meta device")

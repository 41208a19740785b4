"""The Python package, both engines: values, deltas, models in memory, live models, other processes, refusals."""

import http.server
import io
import os
import pickle
import shutil
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(__file__))
from common import Q, ROOT, SmallZoo, call, check, equal, good, hashes, made_once, model_files, st_parse, tiny_zoo, to_float
from live_models import is_like, live_model, model_of
from package import load, site, wheel

COST = {"test_a_hundred_swaps_in_a_live_model": 10, "test_memory_is_bounded": 20, "test_wheel_in_a_bare_venv": 30, "test_without_the_c_sources_pip_installs_the_python_reader": 15}
ENGINES = ("native", "python")
TINY_Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def dz():
    return load()


def zoo_of(recipe="ultradelta", dtype="bf16", tasks=3):
    """(zoo, archive, {task: restored folder}) of a tiny zoo."""
    zoo = tiny_zoo(dtype, tasks=tasks)

    def make(folder):
        how = ["--method", recipe] if recipe in ("auto", "bitdelta", "dare") else ["--recipe", recipe]
        good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q", *how], cwd=folder)
        for t in range(1, tasks + 1):
            good(["restore", "a.h5", "--task", f"task-{t}", "--base", f"{zoo}/base", "-o", f"r{t}", "-q"], cwd=folder)

    folder = made_once(f"package-{recipe}-{dtype}-{tasks}", make)
    return zoo, f"{folder}/a.h5", {f"task-{t}": f"{folder}/r{t}" for t in range(1, tasks + 1)}


def fails(dz, run, *wanted, kind=None):
    try:
        run()
    except (kind or dz.Error) as error:
        text = str(error)
        check(all(w in text for w in wanted) and "\n" not in text, f"{text!r} has not {wanted!r}")
        return
    check(False, f"nothing is refused where {wanted!r} is due")


def raw(tensor):
    """The bytes of a torch tensor."""
    import torch
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("recipe,dtype", [("ultradelta", "bf16"), ("ultradelta", "f32"), ("bitdelta", "f16"), ("lossless", "bf16"), ("auto", "bf16")])
def test_tensors_are_those_that_the_program_restores(dz, engine, recipe, dtype):
    zoo, archive, restored = zoo_of(recipe, dtype, 2)
    theirs, base = st_parse(restored["task-2"]), st_parse(f"{zoo}/base")
    with dz.open(archive, engine) as z:
        equal(z.engine, engine, "engine")
        equal(z.tasks, ["task-1", "task-2"], "tasks")
        equal({t.name: (t.dtype, t.shape) for t in z.tensors("task-2")}, {n: (k, tuple(s)) for n, (k, s, _) in theirs.items()}, "tensors")
        given = {name: data for name, (_, _, data) in base.items()}  # a mapping as the base: no file is read
        for name, (kind, shape, data) in theirs.items():
            equal(z.restore_bytes("task-2", name, f"{zoo}/base").tobytes(), data, name)
            equal(z.restore_bytes("task-2", name, given).tobytes(), data, f"{name}, from memory")
            array = z.restore("task-2", name, given)
            check(array.shape == tuple(shape) and np.array_equal(array.reshape(-1), to_float(data, kind)), f"{name}: other values")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_archive_with_its_base_needs_no_other(dz, engine, folder):
    zoo, archive, restored = zoo_of("auto", "bf16", 2)
    good(["compress", f"{zoo}/zoo.yaml", "-o", "b.h5", "-q", "--method", "auto", "--with-base"], cwd=folder)
    theirs, base = st_parse(restored["task-2"]), st_parse(f"{zoo}/base")
    with dz.open(f"{folder}/b.h5", engine) as z, dz.open(archive, engine) as without:
        equal((z.tasks, z.base.task, without.base.task), (["task-1", "task-2"], "base", None), "tasks, and the base's")
        for name, (_, _, data) in theirs.items():
            equal(z.restore_bytes("task-2", name).tobytes(), data, name)
        for name, (_, _, data) in base.items():
            equal(z.restore_bytes("base", name).tobytes(), data, f"the base's {name}")
        equal(z.restore_bytes("task-2", TINY_Q, f"{zoo}/base").tobytes(), theirs[TINY_Q][2], "with a base, too")
        fails(dz, lambda: z.restore_bytes("task-2", TINY_Q, f"{zoo}/task-1"), "not the base")
        fails(dz, lambda: without.restore_bytes("task-2", TINY_Q), "needs the base's")
        exact = next(t.name for t in z.tensors("task-2") if t.policy == "lossless")
        check(np.array_equal(z.delta("task-2", exact), without.delta("task-2", exact, f"{zoo}/base")), "a delta by the stored base")
        z.restore_model("task-2", None, f"{folder}/r")
        equal(hashes(f"{folder}/r"), hashes(restored["task-2"]), "files of a model")
        fails(dz, lambda: without.restore_model("task-2", None, f"{folder}/x"), "does not hold its base")
        check(not os.path.exists(f"{folder}/x"), "a refused restore leaves a folder")


@pytest.mark.parametrize("recipe", ["ultradelta", "auto", "lossless"])
def test_both_engines_tell_the_same(dz, recipe):
    zoo, archive, _ = zoo_of(recipe, "bf16", 2)
    with dz.open(archive, "native") as a, dz.open(archive, "python") as b:
        equal(a.base, b.base, "base")
        for task in a.tasks:
            equal(a.tensors(task), b.tensors(task), "tensors")
            equal(a.task(task)._replace(stored_bytes=0), b.task(task)._replace(stored_bytes=0), "task")
            for t in a.tensors(task):
                equal(a.base_of(task, t.name), b.base_of(task, t.name), "base of")
                if t.policy == "tied":
                    continue
                one, two = (z.delta(task, t.name, f"{zoo}/base") for z in (a, b))
                check(np.array_equal(one, two), f"{t.name}: another delta")  # zeros of either sign
                if t.policy == "ultradelta":
                    (p, v), (q, w) = (z.delta_sparse(task, t.name) for z in (a, b))
                    check(np.array_equal(p, q) and np.array_equal(v, w) and np.array_equal(np.flatnonzero(one), p), f"{t.name}: sparse deltas differ")


@pytest.mark.torch
@pytest.mark.parametrize("threads", [1, 3])
def test_state_dicts_without_files(dz, threads):
    import torch
    zoo, archive, restored = zoo_of()
    theirs = st_parse(restored["task-1"])
    sd = dz.load_state_dict(archive, "task-1", f"{zoo}/base", threads=threads)
    equal(list(sd), list(theirs), "names and their order")
    for name, tensor in sd.items():
        check(tensor.dtype == torch.bfloat16 and list(tensor.shape) == list(theirs[name][1]) and raw(tensor) == theirs[name][2], name)
    with dz.open(archive) as z:
        equal(sorted(z.load_state_dict("task-1", f"{zoo}/base", pattern="*q_proj*", threads=threads)), sorted(n for n in theirs if "q_proj" in n), "chosen")
        half = z.load_state_dict("task-1", f"{zoo}/base", dtype=torch.float32, threads=threads)
        check(all(t.dtype == torch.float32 and torch.equal(t, sd[n].float()) for n, t in half.items()), "another dtype")
        fails(dz, lambda: z.load_state_dict("task-1", f"{zoo}/task-2", threads=threads), "task-2", "not the base", archive)
        arrays = z.load_state_dict("task-1", sd | {n: torch.frombuffer(bytearray(d), dtype=torch.uint8) for n, (_, _, d) in st_parse(f"{zoo}/base").items()}, "np")
        check(all(np.array_equal(arrays[n], sd[n].float().numpy()) for n in sd), "numpy")
        seen = [name for name, tensor in z.iter("task-1", f"{zoo}/base", "pt", progress=True) if raw(tensor) == theirs[name][2]]
        equal(seen, list(theirs), "one after the other")


@pytest.mark.parametrize("engine", ENGINES)
def test_slices(dz, engine):
    zoo, archive, restored = zoo_of()
    kind, shape, data = st_parse(restored["task-1"])[TINY_Q]
    whole = to_float(data, kind).reshape(shape)
    with dz.open(archive, engine) as z, z.open_task("task-1", f"{zoo}/base") as t:
        equal(sorted(t.keys()), sorted(x.name for x in z.tensors("task-1")), "keys")
        s = t.get_slice(TINY_Q)
        equal((s.get_shape(), s.get_dtype()), (list(shape), kind), "shape and dtype")
        n = shape[0]
        for index in (0, -1, n - 1, slice(3, 9), slice(None), slice(9, 3), slice(-7, None, 3), slice(None, None, -1), slice(n, n + 5), (slice(1, 5), slice(2, 4)), (5, 6),
                      (..., 1), (slice(None), 3), (slice(0, 8, 2), slice(None, None, -1))):
            check(np.array_equal(s[index], whole[index]), f"{index}")
        with pytest.raises(IndexError):
            s[n]
        check(np.array_equal(t.get_tensor(TINY_Q), whole), "whole")


@pytest.mark.parametrize("engine", ENGINES)
def test_files_are_the_program_s(dz, engine, folder):
    zoo, archive, restored = zoo_of()
    with dz.open(archive, engine) as z:
        files = z.restore_model("task-2", f"{zoo}/base", f"{folder}/p")
        equal(hashes(f"{folder}/p", True), hashes(restored["task-2"], True), "files")
        equal(sorted(files), model_files(restored["task-2"]), "paths")
        fails(dz, lambda: z.restore_model("task-1", f"{zoo}/base", f"{folder}/p"), f"{folder}/p", "not empty")
        z.restore_model("task-1", f"{zoo}/base", f"{folder}/p", force=True)
        equal(hashes(f"{folder}/p", True), hashes(restored["task-1"], True), "files in the place of others")
        fails(dz, lambda: z.restore_model("task-1", f"{zoo}/task-2", f"{folder}/x"), "not the base")
        check(not os.path.exists(f"{folder}/x"), "a failed restore leaves something")
    with dz.open(archive, "native") as z:
        z.restore_model({"task-1": 0.6, "task-2": 0.4}, f"{zoo}/base", f"{folder}/sum")
        good(["restore", archive, "--task", "task-1=0.6", "--task", "task-2=0.4", "--base", f"{zoo}/base", "-o", "s", "-q"], cwd=folder)
        equal(hashes(f"{folder}/sum", True), hashes(f"{folder}/s", True), "a sum's files")


def test_the_whole_archive_is_verified(dz, folder):
    zoo, archive, _ = zoo_of()
    with dz.open(archive, "native") as a, dz.open(archive, "python") as b:
        equal(a.verify(f"{zoo}/base")[:2], b.verify()[:2], "tasks and tensors")
    broken = bytearray(open(archive, "rb").read())
    with dz.open(archive, "python") as z:  # a byte in the middle of a payload
        payload = z._engine.archive.file["tasks/task-2/payload"]
        at = payload.id.get_offset() + len(payload) // 2
    broken[at] ^= 64
    with open(f"{folder}/b.h5", "wb") as file:
        file.write(broken)
    for engine in ENGINES:
        with dz.open(f"{folder}/b.h5", engine) as z:
            fails(dz, z.verify, "b.h5", "block 0", kind=dz.Damaged)
            fails(dz, lambda: z.load_state_dict("task-2", f"{zoo}/base", "np"), "b.h5", "task-2", kind=dz.Damaged)
            z.load_state_dict("task-1", f"{zoo}/base", "np")


@pytest.mark.parametrize("engine", ENGINES)
def test_refusals_are_exceptions_of_one_line(dz, engine, folder):
    zoo, archive, _ = zoo_of()
    with dz.open(archive, engine) as z:
        fails(dz, lambda: z.tensors("nobody"), "a.h5", "'nobody'", "task-1")
        fails(dz, lambda: z.restore("task-1", "nothing"), "a.h5", "'nothing'", "tensors(")
        fails(dz, lambda: z.restore("task-1", TINY_Q), TINY_Q, "base=")
        fails(dz, lambda: z.restore("task-1", TINY_Q, {}), TINY_Q, "base given has not")
        fails(dz, lambda: z.restore("task-1", TINY_Q, f"{zoo}/task-2"), TINY_Q, "not the base")
        fails(dz, lambda: z.restore("task-1", TINY_Q, b"1234"), TINY_Q, "4 bytes")
        fails(dz, lambda: z.restore("task-1", TINY_Q, f"{zoo}/absent"), "absent")
        fails(dz, lambda: z.restore("task-1", TINY_Q, f"{zoo}/base", "jax"), "'jax'")
        fails(dz, lambda: z.delta_sparse("task-1", "model.norm.weight"), "model.norm.weight", "not ultradelta")
        given = bytearray(st_parse(f"{zoo}/base")[TINY_Q][2])
        given[11] ^= 1
        fails(dz, lambda: z.restore("task-1", TINY_Q, bytes(given)), TINY_Q, "not the base")
    fails(dz, lambda: dz.open(f"{folder}/absent.h5", engine), "absent.h5")
    fails(dz, lambda: dz.open(f"{zoo}/zoo.yaml", engine), "zoo.yaml")
    fails(dz, lambda: dz.open(archive, "rust"), "'rust'")
    z = dz.open(archive, engine)
    z.close()
    z.close()
    with pytest.raises(Exception):
        z.restore("task-1", TINY_Q, f"{zoo}/base")


@pytest.mark.torch
@pytest.mark.parametrize("engine", ENGINES)
def test_a_live_model_s_base_that_is_none_is_refused(dz, engine):
    with dz.open(zoo_of()[1], engine) as z:
        fails(dz, lambda: z.load_into(None, "task-1", 7), "base: a path")


CORPUS = """
import os, sys, deltazoo
seen = 0
for name in sorted(os.listdir(sys.argv[1])):
    seen += 1
    try:
        with deltazoo.open(os.path.join(sys.argv[1], name), "native") as z:
            for task in z.tasks:
                for t in z.tensors(task):
                    for call in (z.delta_sparse, z.restore_bytes):
                        try:
                            call(task, t.name)
                        except (deltazoo.Error, MemoryError):
                            pass
            z.verify()
    except (deltazoo.Error, MemoryError) as error:
        assert "\\n" not in str(error), error
print(seen)
"""


def test_broken_archives_crash_nothing():
    code, out, err = call([sys.executable, "-c", CORPUS, f"{ROOT}/tests/broken/archive"], env={"PYTHONPATH": site()}, limit=300)
    check(code == 0 and int(out) == len(os.listdir(f"{ROOT}/tests/broken/archive")) > 0, f"exit {code}: {out} {err[-2000:]}")


# -------------------------------------------------------------------------------------------------------------------------------- remote archives


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves one file, by ranges only."""

    path_served, sent = "", 0

    def do_GET(self):
        first, last = (int(x) for x in self.headers["Range"].removeprefix("bytes=").split("-"))
        with open(Ranges.path_served, "rb") as file:
            file.seek(first)
            body = file.read(last - first + 1)
        Ranges.sent += len(body)
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Remote(io.RawIOBase):
    """A file object over HTTP ranges, without a cache."""

    def __init__(self, url, size):
        self.name, self.size, self.at = url, size, 0

    def seekable(self):
        return True

    def readable(self):
        return True

    def tell(self):
        return self.at

    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def readinto(self, buffer):
        n = min(len(buffer), self.size - self.at)
        if n > 0:
            request = urllib.request.Request(self.name, headers={"Range": f"bytes={self.at}-{self.at + n - 1}"})
            buffer[:n] = urllib.request.urlopen(request, timeout=20).read()
            self.at += n
        return max(n, 0)


@pytest.mark.parametrize("recipe", ["lossless", "auto"])
def test_a_remote_archive_is_read_by_ranges(dz, recipe):
    zoo, archive, restored = zoo_of(recipe, "bf16", 3)
    name, theirs = TINY_Q, st_parse(restored["task-2"])
    Ranges.path_served, Ranges.sent, size = archive, 0, os.path.getsize(archive)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/zoo.h5"
        with dz.open(Remote(url, size)) as z:
            equal((z.path, z.engine), (url, "python"), "what is open")
            stored, index = next(t.stored_bytes for t in z.tensors("task-2") if t.name == name), Ranges.sent
            equal(z.restore_bytes("task-2", name, f"{zoo}/base").tobytes(), theirs[name][2], "tensor")
        equal(Ranges.sent - index, stored, "bytes for a tensor")
        check(index < 40000, f"{index} bytes for the index, of {size}")
        fails(dz, lambda: dz.open(Remote(url, size), "native"), "native")
    finally:
        server.shutdown()


LEFT_OPEN = """
import io, sys, deltazoo
class File(io.FileIO):  # h5py 3.16 crashes at the end of Python where one of these is still open
    def readinto(self, buffer):
        return super().readinto(buffer)
z = deltazoo.open(File(sys.argv[1]))
print(z.engine, len(z.tensors("task-1")))
"""


def test_a_file_object_may_be_left_open(folder):
    _, archive, _ = zoo_of()
    code, out, err = call([sys.executable, "-c", LEFT_OPEN, archive], env={"PYTHONPATH": site()})
    check(code == 0 and out.startswith("python "), f"exit {code}: {out} {err}")


# ------------------------------------------------------------------------------------------------------------------------------------ live models


@pytest.mark.torch
@pytest.mark.parametrize("given", ["path", "none", "mapping"])
def test_a_hundred_swaps_in_a_live_model(dz, given):
    from safetensors.torch import load_file
    zoo, archive, restored = zoo_of()
    base = {"path": f"{zoo}/base", "none": None, "mapping": load_file(f"{zoo}/base/model.safetensors")}[given]
    model = model_of(f"{zoo}/base")
    places = {name: p.data_ptr() for name, p in model.named_parameters()}
    live = dz.load_into(model, archive, "task-1", base)
    check(is_like(model, restored["task-1"]), "the first task")
    order = np.random.default_rng(1).integers(0, 4, 100)
    for k, which in enumerate(order):
        task = None if which == 0 else f"task-{which}"
        live.load(task)
        if k % 9 == 0 or k > 96:
            check(is_like(model, restored[task] if task else f"{zoo}/base"), f"swap {k}: {task}")
    live.unload()
    check(is_like(model, f"{zoo}/base"), "the base again")
    equal({name: p.data_ptr() for name, p in model.named_parameters()}, places, "places in memory")
    equal(bool(live._kept), given == "none", "copies are kept only where the base is not given")


@pytest.mark.torch
def test_a_live_model_of_another_type_or_with_values_of_its_own(dz):
    import torch
    zoo, archive, restored = zoo_of()
    model = model_of(f"{zoo}/base").float()
    with dz.load_into(model, archive, "task-2", f"{zoo}/base") as live:
        check(is_like(model, restored["task-2"], torch.float32), "as f32")
        equal(len(live._kept), 0, "copies")
    check(is_like(model, f"{zoo}/base", torch.float32), "back")
    fails(dz, lambda: dz.load_into(model, archive, "task-2"), "float32", "BF16", "base=PATH")
    model = model_of(f"{zoo}/task-3")  # not the base: its own values come back
    with dz.load_into(model, archive, "task-2", f"{zoo}/base"):
        check(is_like(model, restored["task-2"]), "over other values")
    check(is_like(model, f"{zoo}/task-3"), "its own values are back")


@pytest.mark.torch
def test_a_load_that_fails_leaves_the_old_values(dz, folder):
    zoo, archive, restored = zoo_of()
    model = model_of(f"{zoo}/task-1")
    with dz.open(archive) as z:
        fails(dz, lambda: z.load_into(model, "task-1"), "not the base")
        check(is_like(model, f"{zoo}/task-1"), "the old values")
        good_one = model_of(f"{zoo}/base")
        live = z.load_into(good_one, "task-1", f"{zoo}/base")
        last = z.tensors("task-2")[-1].name
        real, count = z._engine.restore_into, []

        def broken(task, name, *more):
            count.append(name)
            if name == last:
                raise dz.Damaged("a block is damaged")
            return real(task, name, *more)

        z._engine.restore_into = broken
        fails(dz, lambda: live.load("task-2"), last, "damaged", kind=dz.Damaged)
        check(len(count) > 5 and live.task is None and is_like(good_one, f"{zoo}/base"), "the base is back")
        del z._engine.restore_into


@pytest.mark.torch
def test_names_shapes_and_ties_are_checked_before_anything_changes(dz):
    import torch
    from safetensors.torch import load_file
    zoo, archive, restored = zoo_of()
    tensors = load_file(f"{zoo}/base/model.safetensors")
    few = {n: t for n, t in tensors.items() if n != TINY_Q}
    model = live_model(few)
    fails(dz, lambda: dz.load_into(model, archive, "task-1", f"{zoo}/base"), TINY_Q, "the model has no", "strict=False")
    dz.load_into(model, archive, "task-1", f"{zoo}/base", strict=False)
    check(all(raw(p.data) == st_parse(restored["task-1"])[n][2] for n, p in model.named_parameters()), "those that it has")
    model = live_model(tensors | {"more": torch.zeros(2)})
    fails(dz, lambda: dz.load_into(model, archive, "task-1", f"{zoo}/base"), "more", "strict=False")
    model = live_model(tensors | {TINY_Q: torch.zeros(3, 4)})
    fails(dz, lambda: dz.load_into(model, archive, "task-1", f"{zoo}/base"), TINY_Q, "[3, 4]")
    model = model_of(f"{zoo}/base")  # tied in the model, but not in the task
    model.lm_head.weight = model.model.embed_tokens.weight
    fails(dz, lambda: dz.load_into(model, archive, "task-1", f"{zoo}/base"), "one tensor in the model", "differ in the task")


# -------------------------------------------------------------------------------------------------------------------------------- other processes


@pytest.mark.parametrize("engine", ENGINES)
def test_an_open_archive_works_in_children(dz, engine):
    zoo, archive, restored = zoo_of()
    theirs = st_parse(restored["task-1"])
    names = list(theirs)
    with dz.open(archive, engine) as z:
        z._engine.lock.acquire()  # another thread is reading while the process forks
        pids = []
        for k in range(4):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = 0 if all(z.restore_bytes("task-1", n, f"{zoo}/base").tobytes() == theirs[n][2] for n in names[k::4]) else 2
                finally:
                    os._exit(code)
            pids.append(pid)
        z._engine.lock.release()
        equal([z.restore_bytes("task-1", n, f"{zoo}/base").tobytes() == theirs[n][2] for n in names], [True] * len(names), "in the parent meanwhile")
        equal([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids], [0] * 4, "children")
        again = pickle.loads(pickle.dumps(z))
        equal((again.path, again.engine), (z.path, z.engine), "sent to another process")
        again.close()


WORKERS = """
import sys, torch, deltazoo
archive, base, engine = sys.argv[1:]

class Tensors(torch.utils.data.Dataset):
    def __init__(self):
        self.z = deltazoo.open(archive, engine)
        self.names = [t.name for t in self.z.tensors("task-1")]
    def __len__(self):
        return len(self.names)
    def __getitem__(self, k):
        return self.names[k], self.z.restore("task-1", self.names[k], base, "pt")

if __name__ == "__main__":
    for context in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(Tensors(), batch_size=None, num_workers=2, multiprocessing_context=context)
        print(len(list(loader)), sum(float(t.float().sum()) for _, t in loader))
"""


@pytest.mark.torch
def test_dataloader_workers(dz, folder):
    zoo, archive, _ = zoo_of()
    with open(f"{folder}/w.py", "w") as file:
        file.write(WORKERS)
    outputs = []
    for engine in ENGINES:
        code, out, err = call([sys.executable, "w.py", archive, f"{zoo}/base", engine], cwd=folder, env={"PYTHONPATH": site()}, limit=120)
        check(code == 0, err[-2000:])
        outputs += out.split("\n")[:2]
    check(len(set(outputs)) == 1 and int(outputs[0].split()[0]) == len(dz.open(archive).tensors("task-1")), f"{outputs}")


MEMORY = """
import sys, numpy, torch, deltazoo
archive, base, threads = sys.argv[1:]
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
z = deltazoo.open(archive)
z.load_state_dict("task-1", base, pattern="*norm*")
before = peak()
sd = z.load_state_dict("task-1", base, threads=int(threads))
print((peak() - before) / sum(t.nbytes for t in sd.values()))
"""


@pytest.mark.torch
def test_memory_is_bounded(folder):
    good(["synth", "--shape", "llama2-7b", "--layers", "1", "--tasks", "1", "--dtype", "bf16", "--seed", "1", "-q", "-o", "zoo"], cwd=folder, limit=300)
    good(["compress", "zoo/zoo.yaml", "-o", "a.h5", "-q", "--recipe", "ultradelta"], cwd=folder, limit=300)
    code, out, err = call([sys.executable, "-c", MEMORY, "a.h5", "zoo/base", "2"], cwd=folder, env={"PYTHONPATH": site()}, limit=300)
    check(code == 0 and 0.9 < float(out) < 1.2, f"peak memory, in models: {out} {err[-1000:]}")


# --------------------------------------------------------------------------------------------------------------------------------------- the rest


def test_command_line(folder):
    zoo, archive, restored = zoo_of()
    env = {"PYTHONPATH": site()}

    def python(*args):
        return call([sys.executable, "-m", "deltazoo", *args], cwd=folder, env=env)

    code, out, err = python("list", archive)
    check(code == 0 and [line.split()[0] for line in out.splitlines()] == ["task", "task-1", "task-2", "task-3"], out + err)
    code, out, err = python("show", archive, "--task", "task-1", "--tensor", "*q_proj*")
    check(code == 0 and TINY_Q in out and "model.norm" not in out and "ultradelta" in out, out + err)
    code, out, err = python("restore", archive, "--task", "task-1", "--base", f"{zoo}/base", "-o", "p")
    check(code == 0, out + err)
    equal(hashes(f"{folder}/p", True), hashes(restored["task-1"], True), "files")
    code, out, err = python("verify", archive, "--base", f"{zoo}/base")
    check(code == 0 and "sound" in out, out + err)
    code, out, err = python("restore", archive, "--task", "no", "--base", f"{zoo}/base", "-o", "q")
    check(code == 1 and err.count("\n") == 1 and "it has task-1, task-2" in err, out + err)


def test_without_the_c_sources_pip_installs_the_python_reader(folder):
    shutil.copytree(f"{ROOT}/src/python", f"{folder}/source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    site()  # build/wheel/venv is there
    tools = f"{ROOT}/build/wheel/venv/bin"
    code, out, err = call([f"{tools}/python", "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--target", "lib", "./source"], cwd=folder,
                          env={"PATH": f"{tools}:{os.environ['PATH']}"}, limit=300)
    check(code == 0, out + err)
    zoo, archive, _ = zoo_of()
    text = f"import deltazoo; z = deltazoo.open({archive!r}); print(deltazoo.__file__, z.engine, deltazoo.__version__)"
    code, out, err = call([sys.executable, "-c", text], cwd="/", env={"PYTHONPATH": f"{folder}/lib"})
    check(code == 0 and f"{folder}/lib/deltazoo/__init__.py python" in out, out + err)
    version = subprocess.run([os.environ.get("DELTAZOO", f"{ROOT}/build/deltazoo"), "--version"], capture_output=True, text=True).stdout
    check(out.split()[-1] in version, f"version {out!r}, the program's is {version!r}")


def test_wheel_in_a_bare_venv(folder):
    """Python and pip alone: no compiler, no library of the package on the path. The example of src/doc/python.md runs to its end."""
    call([sys.executable, "-m", "venv", f"{folder}/bare"], limit=120)
    python = f"{folder}/bare/bin/python"
    code, out, err = call([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel()], cwd=folder, env={"PATH": f"{folder}/bare/bin"}, limit=300)
    check(code == 0, out + err)
    zoo, archive, restored = zoo_of()
    page = open(f"{ROOT}/src/doc/python.md").read()
    example = page.split("```python\n")[1].split("```")[0]
    for theirs, ours in (("zoo.h5", archive), ('"llama-2-7b"', repr(f"{zoo}/base")), ('"math"', '"task-1"'), ('"code"', '"task-2"')):
        check(theirs in example or theirs == '"code"', f"the example has no {theirs}")
        example = example.replace(theirs, ours)
    code, out, err = call([python, "-c", example + "\nassert z.engine == 'native', z.engine"], cwd=folder, env={"PATH": f"{folder}/bare/bin", "LD_LIBRARY_PATH": ""})
    check(code == 0 and "q_proj" in out, out + err)
    equal(hashes(f"{folder}/task-1", True), hashes(restored["task-1"], True), "files")


@pytest.mark.torch  # deltazoo.Live imports it
def test_it_is_typed(dz):
    """py.typed is in the wheel, and everything public says what it takes and gives."""
    import inspect
    check(os.path.exists(f"{site()}/deltazoo/py.typed"), "no py.typed")
    for name in dz.__all__:
        thing = getattr(dz, name)
        functions = [thing] if inspect.isfunction(thing) else [f for n, f in vars(thing).items() if inspect.isfunction(f) and not n.startswith("_")]
        for function in functions:
            if function.__module__.startswith("deltazoo_package"):
                lacks = {p for p in inspect.signature(function).parameters if p != "self"} - set(function.__annotations__)
                check(not lacks and "return" in function.__annotations__, f"{name}.{function.__name__}: {lacks}")


def test_both_engines_hold_embeddings_to_their_own_limits(dz, tmp_path):
    """The verdict is the worse of matrices and vocabulary, in C and in Python."""
    import test_vocabulary
    for k, (scale, more) in enumerate(((1, ["--quality", "balanced"]), (30, ["--set", "noise_to_delta=40", "--set", "noise_to_base=1"]), (1, ["--quality", "small"]))):
        folder = str(tmp_path / str(k))
        test_vocabulary.make_zoo(folder, scale=scale)
        archive = test_vocabulary.compress(folder, *more)
        with dz.open(archive, "native") as a, dz.open(archive, "python") as b:
            equal(a.task("task-1").quality, b.task("task-1").quality, f"{more}: quality")
            equal([t.quality.verdict for t in a.tensors("task-1")], [t.quality.verdict for t in b.tensors("task-1")], f"{more}: verdicts")

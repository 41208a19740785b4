"""Helpers of the tests: safetensors written by hand, commands with a time limit, what a refusal must look like."""
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

import numpy as np
import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests"))
from launcher import UNBOUND, environment  # noqa: E402

DELTAZOO = os.path.abspath(os.environ.get("DELTAZOO", os.path.join(ROOT, "build", "deltazoo")))
LOG_LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "  # a job's log begins when its models are open
TIME_LIMIT = 60  # seconds: a command that takes longer hangs
RANKS = (1, 3, 7)
ALL = os.environ.get("DZ_TEST_RANKS") == "all"  # every case with each of RANKS; by default variants of one check take turns


def turns(i):
    """Rank counts of the i-th of many variants that go the same way: alone, and with 3 or 7 ranks in turn."""
    return RANKS if ALL else (1, RANKS[1 + i % 2])


ENV = environment(**UNBOUND)


Failed = pytest.fail.Exception
Skipped = pytest.skip.Exception  # for what this machine does not permit; a missing tool or library is a failure


def check(condition, text):
    __tracebackhide__ = True
    if not condition:
        raise Failed(text)


def equal(got, want, what):
    __tracebackhide__ = True
    check(got == want, f"{what}: {got!r}, not {want!r}")


# ------------------------------------------------------------------------------------------------- running commands

def program_of(flavour):
    """The program of another build; a test that needs one fails without it."""
    path = os.path.join(ROOT, "build", flavour, "deltazoo")
    check(os.access(path, os.X_OK), f"build/{flavour}/deltazoo is not there: make {flavour}")
    return path


class Result:
    """codes: exit code of every rank. out: stdout of all ranks. err: stderr of rank 0. noise: stderr of the others and of mpirun."""

    def __init__(self, args, ranks, codes, out, err, noise):
        self.args, self.ranks, self.codes, self.out, self.err, self.noise = args, ranks, codes, out, err, noise

    @property
    def code(self):
        return self.codes[0] if len(set(self.codes)) == 1 else None

    def lines(self, kind):
        start = f"deltazoo: {kind}: "
        return [line[len(start):] for line in self.err.splitlines() if line.startswith(start)]

    def __str__(self):
        return f"[{self.ranks} ranks: deltazoo {' '.join(self.args)}: exit {self.codes}, stderr {self.err[-1500:]!r}, others {self.noise[-500:]!r}]"


def call(command, cwd=None, env=None, limit=TIME_LIMIT):
    """A command to its end, or Failed when it exceeds the limit. Returns code, stdout, stderr."""
    p = subprocess.Popen(command, cwd=cwd, env=dict(ENV, **(env or {})), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                         text=True, errors="replace", start_new_session=True)
    try:
        out, err = p.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        p.send_signal(signal.SIGTERM)  # mpirun takes its ranks along
        try:
            p.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.communicate()
        raise Failed(f"hangs: still running after {limit} s: {' '.join(command)}")
    return p.returncode, out, err


# Each rank's exit code and stderr into files of its own, so that all of them can be looked at.
EACH_RANK = '"$@" 2>"$DZ_TEST_RANKS/$OMPI_COMM_WORLD_RANK.err"; echo $? >"$DZ_TEST_RANKS/$OMPI_COMM_WORLD_RANK.code"'


def run(args, ranks=1, cwd=None, env=None, limit=TIME_LIMIT):
    args = [str(a) for a in args]
    if ranks == 1:
        code, out, err = call([DELTAZOO] + args, cwd, env, limit)
        return Result(args, 1, [code], out, err, "")
    with tempfile.TemporaryDirectory(prefix="dz-ranks-") as box:
        command = ["mpirun", "-n", str(ranks), "sh", "-c", EACH_RANK, "sh", DELTAZOO] + args
        code, out, noise = call(command, cwd, dict(env or {}, DZ_TEST_RANKS=box), limit)
        codes, err = [], ""
        for rank in range(ranks):
            try:
                codes.append(int(read(f"{box}/{rank}.code")))
                text = read(f"{box}/{rank}.err").decode(errors="replace")
            except (OSError, ValueError):
                raise Failed(f"rank {rank} of {ranks} did not end by itself: mpirun exit {code}: deltazoo {' '.join(args)}: {noise[-800:]}")
            if rank == 0:
                err = text
            else:
                noise += text
        return Result(args, ranks, codes, out, err, noise)


def mpirun(ranks, *args, program=DELTAZOO, launcher=("mpirun",), **more):
    """The program under mpirun, on one rank too. Returns code, stdout, stderr."""
    return call([*launcher, "-n", str(ranks), program, *map(str, args)], **more)


def job(ranks, *args, **more):
    """The same; it must succeed."""
    __tracebackhide__ = True
    code, out, err = mpirun(ranks, *args, **more)
    check(code == 0, f"{ranks} ranks: deltazoo {' '.join(map(str, args))}: exit {code}: {out[-500:]} {err[-1500:]}")
    return out, err


def good(args, ranks=1, **more):
    r = run(args, ranks, **more)
    check(r.code == 0 and not r.lines("error"), f"should succeed: {r}")
    return r


def info(archive, task=None, cwd=None):
    r = good(["info", archive, "--json"] + (["--task", task] if task else []), cwd=cwd)
    return json.loads(r.out)


def snapshot(folder):
    """Everything below a folder: whoever leaves, changes or replaces a file is seen."""
    seen = {}
    for where, dirs, files in os.walk(folder):
        for name in dirs + files:
            path = os.path.join(where, name)
            st = os.lstat(path)
            entry = (st.st_ino, st.st_mode)
            seen[os.path.relpath(path, folder)] = entry if name in dirs else entry + (st.st_size, st.st_mtime_ns)
    return seen


def changes(before, after):
    return [f"+{p}" for p in sorted(after.keys() - before.keys())] + [f"-{p}" for p in sorted(before.keys() - after.keys())] + \
        [f"~{p}" for p in sorted(before.keys() & after.keys()) if before[p] != after[p]]


def refused(folder, args, code, *wanted, lines=1, ranks=None, env=None):
    """The command, run in `folder`, fails as the contract says: exit `code` on every rank, `lines` error lines on rank 0's stderr and nothing else there
    that is not ours, every text of `wanted` in them, nothing on stdout, and nothing in `folder` made, changed or removed. `ranks`: by default in turns."""
    for n in ranks or turns(zlib.crc32(repr((args, wanted)).encode())):
        before = snapshot(folder)
        r = run(args, n, cwd=folder, env=env)
        found = changes(before, snapshot(folder))
        check(r.code in (code if isinstance(code, tuple) else (code,)), f"exit code is not {code}: {r}")
        errors = r.lines("error")
        check(len(errors) == lines, f"{len(errors)} error lines, not {lines}: {r}")
        text = "\n".join(errors)
        for w in wanted:
            check(w in text, f"the error does not name {w!r}: {r}")
        foreign = [line for line in r.err.splitlines() if line and not line.startswith("deltazoo: ") and not re.match(LOG_LINE, line)]
        check(not foreign, f"stderr has lines that are no messages of the program: {r}")
        check(not r.noise.strip(), f"other ranks say something: {r}")
        check(not r.out.strip(), f"stdout is not empty: {r.out[:300]!r} {r}")
        check(not found, f"leaves traces: {found} {r}")


class Scratch:
    """A folder for one test, removed at its end."""

    def __enter__(self):
        self.path = os.path.realpath(tempfile.mkdtemp(prefix="dz-cli-"))
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def with_scratch(function):
    """Makes `function(folder)` a test."""

    def test():
        with Scratch() as folder:
            function(folder)

    test.__name__ = function.__name__
    test.__doc__ = function.__doc__
    return test


# ------------------------------------------------------------------------------------------------------------ files

def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, content):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as f:
        f.write(content.encode() if isinstance(content, str) else content)
    return path


def sha256(path):
    return hashlib.sha256(read(path)).hexdigest()


MARK_FILE = "deltazoo.json"  # in the folder of a restored lossy model: it names the archive and its date


def hashes(folder, marks=False):
    """sha256 of every file below a folder; with `marks` also of deltazoo.json."""
    return {os.path.relpath(os.path.join(w, f), folder): sha256(os.path.join(w, f)) for w, _, files in os.walk(folder) for f in files if marks or f != MARK_FILE}


def model_files(folder):
    """The names in a model's folder, but for deltazoo.json."""
    return sorted(f for f in os.listdir(folder) if f != MARK_FILE)


SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}


def st_raw(header, data=b"", length=None):
    """A safetensors file of any header bytes, with any claimed header length."""
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def st_header(entries):
    """entries: (name, dtype, shape, begin, end)."""
    return json.dumps({n: {"dtype": d, "shape": list(s), "data_offsets": [b, e]} for n, d, s, b, e in entries})


def st_bytes(tensors, metadata=None):
    """tensors: (name, dtype, shape, bytes), laid out one after another."""
    head, at = {}, 0
    if metadata:
        head["__metadata__"] = metadata
    for name, dtype, shape, data in tensors:
        head[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    return st_raw(json.dumps(head, separators=(",", ":")), b"".join(t[3] for t in tensors))


def st_parse(path):
    """name -> (dtype, shape, bytes), in file order, of a file or of all shards of a directory."""
    if os.path.isdir(path):
        found = {}
        for name in sorted(os.listdir(path)):
            if name.endswith(".safetensors"):
                found.update(st_parse(os.path.join(path, name)))
        return found
    raw = read(path)
    n = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8:8 + n])
    return {name: (t["dtype"], tuple(t["shape"]), raw[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
            for name, t in head.items() if name != "__metadata__"}


def st_head(path):
    raw = read(path)
    return raw[:8 + struct.unpack("<Q", raw[:8])[0]]


def st_members(path):
    """The members of a header in their order, without the mark of a restored lossy model."""
    members = json.loads(st_head(path)[8:], object_pairs_hook=list)
    out = [(n, [m for m in value if m[0] != "deltazoo"] if n == "__metadata__" else value) for n, value in members]
    return [m for m in out if m != ("__metadata__", [])]


def f8_values(dtype):
    """The finite values of the positive codes, ascending."""
    if dtype == "F8_E5M2":
        return (np.arange(124, dtype=np.uint16) << np.uint16(8)).view(np.float16).astype(np.float32)
    codes = np.arange(127)
    return np.where(codes < 8, codes / 512, (8 + codes % 8) * 2.0 ** (codes // 8 - 10)).astype(np.float32)


def to_dtype(x, dtype):
    """float32 array to the bytes of a dtype, rounded to nearest (even, but for F8)."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    if dtype == "F64":
        return x.astype(np.float64).tobytes()
    if dtype.startswith("F8"):
        values = f8_values(dtype)
        codes = np.searchsorted((values[1:] + values[:-1]) / 2, np.abs(x)).astype(np.uint8)
        return (codes | np.signbit(x).astype(np.uint8) << np.uint8(7)).tobytes()
    if dtype == "F32":
        return x.tobytes()
    if dtype == "F16":
        return x.astype(np.float16).tobytes()
    bits = x.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16).tobytes()


def to_float(data, dtype):
    if dtype == "F64":
        return np.frombuffer(data, np.float64).astype(np.float32)
    if dtype.startswith("F8"):
        codes, values = np.frombuffer(data, np.uint8), np.append(f8_values(dtype), [np.nan] * 4)
        return (np.where(codes > 127, -1, 1) * values[codes & 127]).astype(np.float32)
    if dtype == "F32":
        return np.frombuffer(data, np.float32)
    if dtype == "F16":
        return np.frombuffer(data, np.float16).astype(np.float32)
    return (np.frombuffer(data, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


# ------------------------------------------------------------------------------------------------------------- zoos

Q = "model.layers.0.self_attn.q_proj.weight"
K = "model.layers.0.self_attn.k_proj.weight"
UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"
EMBED = "model.embed_tokens.weight"
SHAPES = {EMBED: (40, 32), Q: (48, 32), K: (48, 32), UP: (64, 32), NORM: (32,)}


def small_model(seed, dtype="F32", shapes=None, base=None, scale=1e-3):
    """Tensors of a small model of known architecture (recipe "llama": Q, K and UP are lossy); with a base: that plus a delta."""
    rng = np.random.default_rng(seed)
    out = []
    for i, (name, shape) in enumerate((shapes or SHAPES).items()):
        x = rng.standard_normal(int(np.prod(shape))).astype(np.float32) * np.float32(0.02)
        if base is not None:
            x = to_float(base[i][3], dtype) + x * np.float32(scale * (1 + i) / 0.02)
        out.append((name, dtype, shape, to_dtype(x, dtype)))
    return out


def replaced(tensors, name, data=None, shape=None, dtype=None, edit=None):
    """The list with one tensor changed; edit(float32 array) changes values."""
    out = []
    for n, d, s, b in tensors:
        if n == name:
            d, s, b = dtype or d, shape or s, b if data is None else data
            if edit:
                x = to_float(b, d).copy()
                edit(x)
                b = to_dtype(x, d) if d != "F32" else x.tobytes()
        out.append((n, d, s, b))
    return out


class SmallZoo:
    """folder/base, folder/one, folder/two (directories with a model and a config) and folder/zoo.yaml."""

    def __init__(self, folder, dtype="F32", tasks=("one", "two"), shapes=None):
        self.folder = folder
        self.base = small_model(1, dtype, shapes)
        self.tasks = {t: small_model(2 + i, dtype, shapes, self.base) for i, t in enumerate(tasks)}
        self.put("base", self.base)
        for t, tensors in self.tasks.items():
            self.put(t, tensors)
            write(f"{folder}/{t}/config.json", f'{{"task": "{t}"}}\n')
        self.manifest(*tasks)

    def put(self, name, tensors):
        write(f"{self.folder}/{name}/model.safetensors", st_bytes(tensors, {"format": "pt"}))

    def manifest(self, *tasks, base="base", file="zoo.yaml"):
        write(f"{self.folder}/{file}", f"base: {base}\ntasks:\n" + "".join(f"  - {{name: {os.path.basename(t)}, path: {t}}}\n" for t in tasks))

    def compress(self, archive="a.h5", *more, ranks=1):
        return good(["compress", "zoo.yaml", "-o", archive, "-q", *more], ranks, cwd=self.folder)


@contextlib.contextmanager
def locked(path):
    """Holds a lock file, among all processes of the run."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(key, make):
    """A folder that several tests read: made by the first that asks, in the run's shared folder (conftest.py)."""
    folder = os.path.join(os.environ["DZ_TEST_SHARED"], key)
    with locked(folder + ".lock"):
        if not os.path.exists(folder + ".done"):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            make(folder)
            write(folder + ".done", "")
    return folder


def tiny_zoo(dtype="f32", shard=None, tasks=2):
    """A synthetic zoo of shape "tiny", with a few more side files."""

    def make(folder):
        good(["synth", "--shape", "tiny", "--tasks", tasks, "--dtype", dtype, "--seed", 7, "-q", "-o", folder, "--force"] + (["--shard-size", shard] if shard else []))
        for t in range(1, tasks + 1):
            write(f"{folder}/task-{t}/generation_config.json", f'{{"temperature": 0.{t}}}\n')
            write(f"{folder}/task-{t}/tokenizer.json", b'{"bytes": "\xc3\xa9\\n"}\n' * 300)
            write(f"{folder}/task-{t}/empty.txt", "")

    return made_once(f"tiny-{dtype}-{shard or 'single'}-{tasks}", make)


def slow_io():
    """The library that makes storage slow (slow_io.c), for LD_PRELOAD with SLOW_PATH and SLOW_MS."""

    def make(folder):
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "slow_io.c")
        code, _, err = call(["gcc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", f"{folder}/slow_io.so", source, "-ldl"])
        check(code == 0, err)

    return made_once("slow-io", make) + "/slow_io.so"


def stopped(folder, args, ranks, when, **env):
    """Starts a command on slow storage and sends USR1 once `when`, a pattern, is in its log. Returns code, stderr, seconds from the signal on."""
    env = dict(ENV, LD_PRELOAD=slow_io(), DZ_LOG_INTERVAL="0.3", **env)
    with open(f"{folder}/stopped.log", "w+") as log:
        command = (["mpirun", "-n", str(ranks)] if ranks > 1 else []) + [DELTAZOO] + args
        p = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            end = time.time() + TIME_LIMIT
            while not re.search(when, read(log.name).decode()) and p.poll() is None and time.time() < end:
                time.sleep(0.05)
            signalled = time.time()
            p.send_signal(signal.SIGUSR1)
            code = p.wait(TIME_LIMIT)
        finally:
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
    text = read(f"{folder}/stopped.log").decode()
    os.unlink(f"{folder}/stopped.log")
    return code, text, time.time() - signalled

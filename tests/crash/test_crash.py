#!/usr/bin/python3
"""Faults on purpose. The program of `make FLAVOUR=fault` is run with DZ_FAULT (src/base/fault.h) while it makes an archive
or appends to one, on 1 and 3 ranks. Whatever fails, and wherever a rank dies:

- the run ends by itself, with a non-zero exit and one clear message (a killed rank has none) - or with exit 0 and the right archive;
- the archive's name has the old archive or the whole new one, byte for byte: no committed task is lost;
- the same command, run again on another number of ranks, makes the archive that a run without a fault makes, and leaves nothing beside it.

Each fault is a test. `make check-crash` runs the long matrix; with CRASH_REPORT=FILE.md what became of them is kept as a table (fault_report.py).
"""
import os
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from common import DELTAZOO, ENV, check, program_of, sha256, tiny_zoo, write

LIMIT = 60
WATCHDOG = 4


def call(program, args, ranks, cwd, fault=None):
    env = dict(ENV, DZ_JOURNAL_AFTER="0", **({"DZ_FAULT": fault} if fault else {}))
    command = (["mpirun", "-n", str(ranks)] if ranks > 1 else []) + [program] + args
    p = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    try:
        out, err = p.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
        return None, ""
    return p.returncode, err


class Operation:
    """What is done to an archive, and what it is to become. `before`: the archive that is there, or None."""

    def __init__(self, box, name, before, args):
        self.box, self.name, self.before, self.args = box, name, before, args
        folder = self.fresh()
        code, err = call(DELTAZOO, self.args + ["-q"], 1, folder)
        check(code == 0, f"{name} fails without a fault: {err}")
        self.after = sha256(f"{folder}/a.h5")

    def fresh(self):
        folder = tempfile.mkdtemp(prefix=self.name + "-", dir=self.box)
        if self.before:
            shutil.copy(self.before, f"{folder}/a.h5")
        return folder

    def state(self, folder):
        path = f"{folder}/a.h5"
        return sha256(path) if os.path.exists(path) else None


def try_fault(op, ranks, fault):
    """Returns (state, text): ok, or what went wrong; and whether the fault struck at all."""
    folder = op.fresh()
    old = op.state(folder)
    code, err = call(program_of("fault"), op.args + ["-q", "--watchdog", str(WATCHDOG)], ranks, folder, fault)
    said = [line for line in err.splitlines() if line.startswith("deltazoo: error: ")]
    now = op.state(folder)
    kind = fault.split(":")[3] if fault.count(":") == 3 else "eio"
    what = None
    if code is None:
        return "hang", f"still running after {LIMIT} s"
    if now not in (old, op.after):
        what = "lost", "the archive is neither the old nor the new one"
    elif code == 0 and now != op.after:
        what = "silent", "exit 0, but the archive is not the new one"
    elif code != 0 and kind in ("eio", "enospc") and len(said) != 1:
        what = "mute", f"exit {code} with {len(said)} messages: {err[-300:]!r}"
    elif kind == "hang" and code != 0 and (code != 75 or "behind" not in err and "no progress" not in err):
        what = "mute", f"exit {code} of a hanging rank: {err[-300:]!r}"
    struck = code != 0
    if what is None and now == old != op.after:
        again, text = None, ""
        for _ in range(3):  # a rank of the killed run may take a moment to die
            again, text = call(DELTAZOO, op.args + ["-q"], 1 + ranks % 3, folder)
            if "another job" not in text:
                break
            time.sleep(1)
        if again != 0 or op.state(folder) != op.after:
            what = "not resumed", f"the next run: exit {again}: {text[-300:]!r}"
        elif sorted(os.listdir(folder)) != ["a.h5"]:
            what = "litter", f"{sorted(os.listdir(folder))}"
    shutil.rmtree(folder, ignore_errors=True)
    return what or ("ok" if struck else "passed by", "")


def faults(quick):
    """(operation, ranks, fault)."""
    steps = (1, 2, 4, 9, 17) if quick else (1, 2, 3, 5, 8, 13, 22, 37, 62, 90)
    for op in ("create", "append", "chain", "stored"):
        for ranks in (3,) if quick else (1, 3):
            for point, kinds in (("write", ("kill", "eio", "enospc")), ("read", ("eio", "kill")), ("open", ("eio",)), ("sync", ("eio", "kill")),
                                 ("rename", ("eio", "kill")), ("alloc", ("eio",)), ("layout", ("eio", "kill")), ("agree", ("eio", "kill", "hang")),
                                 ("work", ("eio", "kill", "hang"))):
                for kind in kinds:
                    few = point in ("rename", "layout") or kind == "hang"
                    some = (4,) if (point, kind) == ("agree", "hang") else (1,) if few else steps  # the first three are before the watchdog
                    if quick:
                        some = some[:1] if kind == "hang" else some[(len(op) + len(kind)) % 2::2]
                    for n in some:
                        for rank in (0,) if point in ("rename", "layout") else (n % ranks,) if quick else range(ranks):
                            if kind == "hang" and ranks == 1:
                                continue
                            if point == "alloc" and not quick and n > 1:
                                yield op, ranks, f"{point}:{rank}:{n * 37}:{kind}"
                            yield op, ranks, f"{point}:{rank}:{n}:{kind}"


def matrix():
    """Every fault once: the quick ones, and those of the long matrix."""
    for quick in (True, False):
        for op, ranks, fault in faults(quick):
            yield pytest.param(op, ranks, fault, id=f"{op}-{ranks}-{fault}" + ("" if quick else "-long"), marks=[] if quick else [pytest.mark.long])


@pytest.fixture(scope="module")
def operations(box):
    zoo = tiny_zoo("bf16")
    names = sorted(n for n in os.listdir(zoo) if n.startswith("task"))
    for name, some in (("one", names[:1]), ("two", names[1:2]), ("all", names[:2])):
        write(f"{box}/{name}.yaml", f"base: {zoo}/base\ntasks:\n" + "".join(f"  - {{name: {n}, path: {zoo}/{n}}}\n" for n in some))
    parents = (None, names[0], names[1] if len(names) > 2 else names[0])
    write(f"{box}/chain.yaml", f"base: {zoo}/base\ntasks:\n" + "".join(
        f"  - {{name: {n}, path: {zoo}/{n}" + (f", parent: {p}" if p else "") + "}\n" for n, p in zip(names, parents)))
    write(f"{box}/twin.yaml", f"base: {zoo}/base\ntasks:\n  - {{name: twin, path: {zoo}/{names[0]}}}\n  - {{name: {names[1]}, path: {zoo}/{names[1]}}}\n")
    code, err = call(DELTAZOO, ["compress", f"{box}/one.yaml", "-o", f"{box}/one.h5", "-q"], 1, box)
    check(code == 0, err)
    return {"create": Operation(box, "create", None, ["compress", f"{box}/all.yaml", "-o", "a.h5"]),
            "chain": Operation(box, "chain", None, ["compress", f"{box}/chain.yaml", "-o", "a.h5", "--quality", "lossless"]),
            "stored": Operation(box, "stored", f"{box}/one.h5", ["compress", f"{box}/twin.yaml", "-o", "a.h5", "--append", "--with-base"]),
            "append": Operation(box, "append", f"{box}/one.h5", ["compress", f"{box}/two.yaml", "-o", "a.h5", "--append"])}


@pytest.mark.parametrize("op, ranks, fault", list(matrix()))
def test_fault(operations, record_property, op, ranks, fault):
    state, text = try_fault(operations[op], ranks, fault)
    record_property("fault", {"operation": op, "ranks": ranks, "fault": fault, "state": state})
    check(state in ("ok", "passed by"), f"{op} on {ranks} ranks, {fault}: {state}: {text}")

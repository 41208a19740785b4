"""What a task costs in an archive of many: append, info, verify and restore of one task in archives of 10, 100, ... tasks.

    build/venv/bin/python tests/bench/tasks.py [--tasks 10,100,1000] [--tensors 200] [--work DIR] [--ranks 1]

Every model has small tensors of its own values, so that what is measured is the archive's own structure. Each is the best of three; memory is the peak of
the process; both with the start of the program. Times are of the processor (user and system, all ranks), so that other work on the machine counts less. Prints a
Markdown table.
"""
import argparse
import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests"))
from launcher import UNBOUND, environment  # noqa: E402

DELTAZOO = os.environ.get("DELTAZOO", os.path.join(ROOT, "build", "deltazoo"))
ENV = environment(**UNBOUND)
SHAPE = (24, 16)


def save(path, values):
    """F32 tensors layers.N.mlp.up_proj.weight of SHAPE."""
    size = SHAPE[0] * SHAPE[1] * 4
    header = {f"model.layers.{i}.mlp.up_proj.weight": {"dtype": "F32", "shape": list(SHAPE), "data_offsets": [i * size, (i + 1) * size]} for i in range(len(values))}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + values.tobytes())


def make(folder, ntasks, ntensors):
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(1)
    base = (0.02 * rng.standard_normal((ntensors, *SHAPE))).astype(np.float32)
    save(f"{folder}/base.safetensors", base)
    for t in range(ntasks + 1):
        save(f"{folder}/task-{t:05}.safetensors", base + (1e-3 * rng.standard_normal(base.shape)).astype(np.float32))


def manifest(folder, name, tasks):
    with open(f"{folder}/{name}.yaml", "w") as f:
        f.write("base: base.safetensors\ntasks:\n" + "".join(f"  - {{name: task-{t:05}, path: task-{t:05}.safetensors}}\n" for t in tasks))


def once(args, ranks):
    """Seconds of the processor, and peak memory, MB."""
    command = [DELTAZOO, *map(str, args)] if ranks == 1 else ["mpirun", "-n", str(ranks), DELTAZOO, *map(str, args)]
    p = subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = p.stderr.read()
    _, status, usage = os.wait4(p.pid, 0)
    if status != 0:
        raise RuntimeError(f"{' '.join(command)}: {error.decode()[-500:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def best(args, ranks, before=lambda: None, times=3):
    runs = []
    for _ in range(times):
        before()
        runs.append(once(args, ranks))
    return min(r[0] for r in runs), min(r[1] for r in runs)


LIBRARY = """import ctypes, resource, sys
lib, archive, out, message = ctypes.CDLL(sys.argv[1]), sys.argv[2].encode(), ctypes.c_void_p(), ctypes.create_string_buffer(300)
used = lambda: (lambda u: u.ru_utime + u.ru_stime)(resource.getrusage(resource.RUSAGE_SELF))
before = used()
code = lib.deltazoo_open_tasks(archive, (ctypes.c_char_p * 1)(sys.argv[3].encode()), ctypes.c_size_t(1), ctypes.byref(out), message, ctypes.c_size_t(300))
print(used() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024) if code == 0 else sys.exit(message.value.decode())
"""


def best_of_library(archive, task):
    """Of deltazoo_open_tasks alone, and memory with Python's."""
    library = os.path.join(os.path.dirname(DELTAZOO), "libdeltazoo.so")
    runs = [tuple(map(float, subprocess.run([sys.executable, "-c", LIBRARY, library, archive, task], capture_output=True, text=True, check=True).stdout.split()))
            for _ in range(3)]
    return min(r[0] for r in runs), min(r[1] for r in runs)


def measure(folder, n, ntensors, ranks):
    archive, copy = f"{folder}/zoo.h5", f"{folder}/copy.h5"
    middle = f"task-{n // 2:05}"
    manifest(folder, "zoo", range(n))
    manifest(folder, "more", [n])
    out = {"compress": once(["compress", f"{folder}/zoo.yaml", "-o", archive, "-q", "--force"], ranks)}
    out["append one"] = best(["compress", f"{folder}/more.yaml", "-o", copy, "-q", "--append"], ranks, lambda: shutil.copy(archive, copy))
    out["info --names"] = best(["info", archive, "--names"], 1)
    out["info"] = best(["info", archive], 1)
    out["info --task"] = best(["info", archive, "--task", middle], 1)
    out["library, one"] = best_of_library(archive, middle)
    out["verify"] = best(["verify", archive, "-q"], ranks, times=1)
    try:
        out["verify one"] = best(["verify", archive, "--task", middle, "-q"], ranks)
    except RuntimeError as error:  # earlier versions verify whole archives only
        if "unknown option" not in str(error) and "--task" not in str(error):
            raise
        out["verify one"] = out["verify"]
    restored = f"{folder}/restored"
    out["restore one"] = best(["restore", archive, "--task", middle, "--base", f"{folder}/base.safetensors", "-o", restored, "-q"], ranks,
                              lambda: shutil.rmtree(restored, ignore_errors=True))
    out["remove one"] = best(["remove", copy, "--task", middle], ranks, lambda: shutil.copy(archive, copy), times=1)
    return out, os.path.getsize(archive)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="10,100,1000")
    parser.add_argument("--tensors", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--work", default="/tmp/deltazoo-tasks")
    args = parser.parse_args()
    counts = [int(n) for n in args.tasks.split(",")]
    make(args.work, max(counts), args.tensors)
    results = {n: measure(args.work, n, args.tensors, args.ranks) for n in counts}
    print("| | " + " | ".join(f"{n} tasks" for n in counts) + " |\n|---|" + "---:|" * len(counts))
    print("| archive | " + " | ".join(f"{size / 1e6:.2f} MB" for _, size in results.values()) + " |")
    for what in results[counts[0]][0]:
        print(f"| {what} | " + " | ".join("{:.3f} s, {:.0f} MB".format(*out[what]) for out, _ in results.values()) + " |")


if __name__ == "__main__":
    main()

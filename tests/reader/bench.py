#!/usr/bin/python3
"""Speed of the Python reader on one LLaMA-2-7B layer, beside `deltazoo restore` in the same run. Prints Markdown (results/python.md):

  tests/reader/bench.py [DIR] >results/python.md        DIR: for some 3 GB of models, by default a temporary one
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SOURCE = os.path.join(ROOT, "src", "python")
sys.path.insert(0, SOURCE)
import deltazoo

PROGRAM = os.environ.get("DELTAZOO", os.path.join(ROOT, "build", "deltazoo"))
GLOB = "*layers.0.*_proj.weight"
READ = """
import fnmatch, sys, time
begun = time.monotonic()
sys.path.insert(0, sys.argv[1])
import deltazoo
with deltazoo.open("zoo.h5") as z, open("out.bin", "wb") as file:
    for t in z.tensors("task-1"):
        if %s:
            file.write(z.restore_bytes("task-1", t.name, "zoo/base"))
print(time.monotonic() - begun)
"""


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def timed(*command):
    begun = time.monotonic()
    run(*command)
    return time.monotonic() - begun


def median(measure):
    times = [measure() for _ in range(3)]
    run("rm", "-f", "out.bin")
    return statistics.median(times)


def restore(*more):
    run("rm", "-rf", "out")
    return timed(PROGRAM, "restore", "zoo.h5", "--task", "task-1", "--base", "zoo/base", "-o", "out", "-q", *more)


def command_line():
    run("rm", "-rf", "out")
    return timed(sys.executable, os.path.join(SOURCE, "deltazoo.py"), "restore", "zoo.h5", "--task", "task-1", "--base", "zoo/base", "-o", "out")


def processor():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()
    os.chdir(folder)
    if not os.path.exists("zoo.h5"):
        run(PROGRAM, "synth", "--shape", "llama2-7b", "--layers", "1", "--tasks", "1", "--dtype", "bf16", "--seed", "1", "-o", "zoo", "-q")
        run(PROGRAM, "compress", "zoo/zoo.yaml", "-o", "zoo.h5", "-q")
    with deltazoo.open("zoo.h5") as z:
        tensors = z.tensors("task-1")
    lossy = [t for t in tensors if t.policy == "ultradelta"]
    rows = [("lossy tensors of the layer", sum(t.nbytes for t in lossy), median(lambda: restore("--tensor", GLOB)),
             median(lambda: float(run(sys.executable, "-c", READ % f"fnmatch.fnmatchcase(t.name, '{GLOB}')", SOURCE)))),
            ("whole model, embedding and head exact", sum(t.nbytes for t in tensors), median(restore), median(command_line))]
    print("# The Python reader's speed\n")
    print("Against `deltazoo restore` (C, one rank); both write what they restore to files. Medians of 3, wall clock, start of the program and checks of the base's digests")
    print("included.\n")
    print("    deltazoo synth --shape llama2-7b --layers 1 --tasks 1 --dtype bf16 --seed 1 -o zoo && deltazoo compress zoo/zoo.yaml -o zoo.h5")
    print(f"    deltazoo restore zoo.h5 --task task-1 --base zoo/base -o out [--tensor '{GLOB}']")
    print("    python3 -m deltazoo restore zoo.h5 --task task-1 --base zoo/base -o out; or restore_bytes() of each of those tensors, written to a file\n")
    print("| what | bytes restored | deltazoo restore | Python reader | times slower | Python, per s |")
    print("|---|---|---|---|---|---|")
    for what, nbytes, program, python in rows:
        print(f"| {what} | {deltazoo.size_text(nbytes)} | {program:.2f} s | {python:.2f} s | {python / program:.1f} | {deltazoo.size_text(nbytes / python)} |")
    import numpy
    print(f"\n{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {numpy.__version__}; load at the end {os.getloadavg()[0]:.1f}."
          " `tests/reader/bench.py` makes this file.")
    if len(sys.argv) < 2:
        run("rm", "-rf", folder)


if __name__ == "__main__":
    main()

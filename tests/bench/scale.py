#!/usr/bin/python3
"""Plans of large jobs on many ranks, made from headers alone: results/scale.md, first part. The files' data are holes.

usage: scale.py [--repeat 5] [--element NS] [--row US] [--out results/scale.md]

The second table simulates the wall time of compress at the default quality: the slowest rank's share by the plan, of `--element` nanoseconds for each element of a
task (measured: (8 tasks - 1 task) / 7 of ViT-B/32); the plan, which every rank makes; and rank 0's tables, `--row` microseconds for each tensor of a task (measured:
tensors.py). Reading and writing cost nothing but what is in these: the bandwidth that this takes is given."""
import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "paper"))
from models import MODELS  # noqa: E402
from provenance import provenance  # noqa: E402
from run import DELTAZOO, Zoo, grow, make_zoo  # noqa: E402

MODEL, TASKS, RANKS = "llama-2-13b", (8, 64), (64, 256, 1024, 4096, 16384)


def make(work, tasks):
    """A zoo of whole models that take no room: the tasks are links to one."""
    path = make_zoo(Zoo(MODEL, 1, "gauss", 1), work, 2, "small")
    for model in ("base", "task-1"):
        grow(os.path.join(path, model), MODELS[MODEL].blocks)
    with open(os.path.join(path, "zoo.yaml"), "w", encoding="utf-8") as manifest:
        manifest.write("base: base\ntasks:\n" + "".join(f"  - {{name: t{i}, path: task-1}}\n" for i in range(tasks)))
    return path


def of_all_tasks(path, tasks):
    """Elements and tensors of all tasks."""
    elements = rows = 0
    for name in sorted(os.listdir(os.path.join(path, "task-1"))):
        if not name.endswith(".safetensors"):
            continue
        with open(os.path.join(path, "task-1", name), "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        shapes = [tensor["shape"] for tensor_name, tensor in header.items() if tensor_name != "__metadata__"]
        elements += sum(math.prod(shape) for shape in shapes)
        rows += len(shapes)
    return tasks * elements, tasks * rows


def plan(path, ranks, repeat):
    seconds = []
    for _ in range(repeat):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        reported = subprocess.run([DELTAZOO, "plan", os.path.join(path, "zoo.yaml"), "--headers", "--ranks", str(ranks), "--json"], check=True, stdout=subprocess.PIPE).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return json.loads(reported)["work"], statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--element", type=float, default=2.5)
    parser.add_argument("--row", type=float, default=45)
    parser.add_argument("--out", default="results/scale.md")
    options = parser.parse_args()
    here, work = provenance(), tempfile.mkdtemp(prefix="deltazoo-scale.")
    lines, simulated = [], []
    try:
        for tasks in TASKS:
            path = make(work, tasks)
            (elements, rows), first = of_all_tasks(path, tasks), None
            for ranks in RANKS:
                reported, seconds = plan(path, ranks, options.repeat)
                of = reported["per_rank"]
                nbytes = sum(r["bytes"] for r in of)
                lines.append(f"| {tasks} | {ranks:,} | {reported['tiles']:,} | {nbytes / 1e12:.3f} TB | {max(r['bytes'] for r in of) / 1e6:.0f} MB | {max(r['tiles'] for r in of)} | "
                             f"{reported['imbalance']:.3f} | {sum(r['tiles'] == 0 for r in of)} | {seconds:.2f} s |")
                print(lines[-1], flush=True)
                slowest, serial = reported["imbalance"] * elements * options.element * 1e-9 / ranks, rows * options.row * 1e-6
                whole = slowest + seconds + serial
                first = first or (ranks, whole)
                simulated.append(f"| {tasks} | {ranks:,} | {slowest:.2f} s | {seconds:.2f} s | {serial:.2f} s | {whole:.2f} s | {first[1] / whole:.1f} of {ranks // first[0]} | "
                                 f"{nbytes / whole / 1e9:,.0f} GB/s |")
            shutil.rmtree(path)
    finally:
        shutil.rmtree(work)
    head = [f"Command: `tests/bench/scale.py`, LLaMA-2-13B, bf16, by `deltazoo plan --ranks N --json` from headers alone. Commit {here['commit']}. Machine: {here['machine']}; medians of {options.repeat}.", "",
            "| tasks | ranks | tiles | read by all ranks | most read by one | most tiles of one | imbalance: slowest rank over mean, planned | idle ranks | processor time to plan, one process, JSON included |",
            "|---|---|---|---|---|---|---|---|---|"]
    curve = [f"Simulated wall time of compress at the default quality. Assumed: {options.element:g} ns for each element of a task on a core, reading from the page cache included; each rank",
             f"plans by itself (the time above, less JSON for many ranks); rank 0 takes {options.row:g} us for each tensor of a task to lay out the tables, while the others wait; reductions are",
             "milliseconds; the file system delivers what is asked for: the last column is what it would have to for one reading (method auto reads twice, the second time often from memory).", "",
             "| tasks | ranks | slowest rank's work | plan | tables | whole | speed-up over 64 ranks | read by all ranks in this time |", "|---|---|---|---|---|---|---|---|"]
    with open(options.out, encoding="utf-8") as old:
        text = old.read()
    begin, end = "<!-- begin: scale.py -->\n", "<!-- end -->"
    before, rest = text.split(begin)
    with open(options.out, "w", encoding="utf-8") as new:
        new.write(before + begin + "\n".join(["", *head, *lines, "", *curve, *simulated, "", ""]) + end + rest.split(end, 1)[1])


if __name__ == "__main__":
    main()

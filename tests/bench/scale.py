#!/usr/bin/python3
"""Plans of large jobs on many ranks, made from headers alone: results/scale.md, first part. The files' data are holes.

usage: scale.py [--repeat 5] [--out results/scale.md]"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "paper"))
from models import MODELS  # noqa: E402
from provenance import provenance  # noqa: E402
from run import DELTAZOO, Zoo, grow, make_zoo  # noqa: E402

MODEL, TASKS, RANKS = "llama-2-13b", (8, 64), (64, 1024, 16384)


def make(work, tasks):
    """A zoo of whole models that take no room: the tasks are links to one."""
    path = make_zoo(Zoo(MODEL, 1, "gauss", 1), work, 2, "small")
    for model in ("base", "task-1"):
        grow(os.path.join(path, model), MODELS[MODEL].blocks)
    with open(os.path.join(path, "zoo.yaml"), "w", encoding="utf-8") as manifest:
        manifest.write("base: base\ntasks:\n" + "".join(f"  - {{name: t{i}, path: task-1}}\n" for i in range(tasks)))
    return path


def plan(path, ranks, repeat):
    seconds = []
    for _ in range(repeat):
        begun = time.monotonic()
        reported = subprocess.run([DELTAZOO, "plan", os.path.join(path, "zoo.yaml"), "--ranks", str(ranks), "--json"], check=True, stdout=subprocess.PIPE).stdout
        seconds.append(time.monotonic() - begun)
    return json.loads(reported)["work"], statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", default="results/scale.md")
    options = parser.parse_args()
    here, work = provenance(), tempfile.mkdtemp(prefix="deltazoo-scale.")
    lines = []
    try:
        for tasks in TASKS:
            path = make(work, tasks)
            for ranks in RANKS:
                reported, seconds = plan(path, ranks, options.repeat)
                of = reported["per_rank"]
                nbytes = sum(r["bytes"] for r in of)
                lines.append(f"| {tasks} | {ranks:,} | {reported['tiles']:,} | {nbytes / 1e12:.3f} TB | {max(r['bytes'] for r in of) / 1e6:.0f} MB | {max(r['tiles'] for r in of)} | "
                             f"{reported['imbalance']:.3f} | {sum(r['tiles'] == 0 for r in of)} | {seconds:.2f} s |")
                print(lines[-1], flush=True)
            shutil.rmtree(path)
    finally:
        shutil.rmtree(work)
    head = [f"Command: `tests/bench/scale.py`, LLaMA-2-13B, bf16, by `deltazoo plan --ranks N --json` from headers alone. Commit {here['commit']}. Machine: {here['machine']}; medians of {options.repeat}.", "",
            "| tasks | ranks | tiles | read by all ranks | most read by one | most tiles of one | imbalance: slowest rank over mean, planned | idle ranks | time to plan, one process, JSON included |",
            "|---|---|---|---|---|---|---|---|---|"]
    with open(options.out, encoding="utf-8") as old:
        text = old.read()
    begin, end = "<!-- begin: scale.py -->\n", "<!-- end -->"
    before, rest = text.split(begin)
    with open(options.out, "w", encoding="utf-8") as new:
        new.write(before + begin + "\n".join(["", *head, *lines, "", ""]) + end + rest.split(end, 1)[1])


if __name__ == "__main__":
    main()

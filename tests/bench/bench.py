#!/usr/bin/python3
"""Speed and memory as ratios in one run: medians of N, beside a plain read and a plain copy of the same files. Writes results/bench.md.

usage: bench.py [--repeat 5] [--out results/bench.md]     DELTAZOO names the program; everything is read from a warm cache."""
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
from provenance import provenance  # noqa: E402

DELTAZOO = os.environ["DELTAZOO"]
PHASES = ("open", "statistics", "histogram", "code", "trace norm", "write")


def run(*args):
    return subprocess.run(args, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout


def timed(*args):
    begun = time.monotonic()
    run(*args)
    return time.monotonic() - begun


def files_below(path):
    return sorted(os.path.join(d, f) for d, _, names in os.walk(path) for f in names if f.endswith(".safetensors"))


def compress(ranks, zoo, work, more=()):
    report = os.path.join(work, "report.json")
    wall = timed("mpirun", "-n", str(ranks), DELTAZOO, "compress", "-q", "--force", os.path.join(zoo, "zoo.yaml"), "-o", os.path.join(work, "a.h5"), "--report", report,
                 *more)
    return wall, json.load(open(report))


def median_run(runs):
    """The run of median wall time."""
    return sorted(runs, key=lambda r: r[0])[len(runs) // 2]


def bench_zoo(title, shape, work, repeat):
    zoo = os.path.join(work, "zoo")
    run("mpirun", "-n", "2", DELTAZOO, "synth", "-q", *shape, "--seed", "3", "-o", zoo)
    models = files_below(zoo)
    nbytes = sum(map(os.path.getsize, models))
    tasks = nbytes - sum(map(os.path.getsize, files_below(os.path.join(zoo, "base"))))
    out = [f"## {title}", "", f"`deltazoo synth {' '.join(shape)} --seed 3`: {nbytes / 1e9:.2f} GB in {len(models)} files.", "",
           "| ranks | wall, mpirun included | times `cat` of the same files | task GB/s per core | " + " | ".join(PHASES) + " | peak memory per rank |", "|---" * (5 + len(PHASES)) + "|"]
    run("cat", *models)
    cat = statistics.median(timed("sh", "-c", 'cat "$@" >/dev/null', "sh", *models) for _ in range(repeat))
    for ranks in (1, 2):
        wall, report = median_run([compress(ranks, zoo, work) for _ in range(repeat)])
        job = report["job"]
        out.append(f"| {ranks} | {wall:.2f} s | {wall / cat:.1f} | {tasks / wall / 1e9 / ranks:.2f} | " + " | ".join(f"{job['phase_seconds'][p]:.2f}" for p in PHASES) +
                   f" | {job['peak_memory_bytes'] / 1e6:.0f} MB |")
    base, copy, restored = os.path.join(zoo, "base"), os.path.join(work, "copy"), os.path.join(work, "r")

    def once_copy():
        shutil.rmtree(copy, ignore_errors=True)
        return timed("cp", "-r", base, copy)

    def once_restore():
        shutil.rmtree(restored, ignore_errors=True)
        return timed("mpirun", "-n", "2", DELTAZOO, "restore", "-q", os.path.join(work, "a.h5"), "--task", "task-1", "--base", base, "-o", restored)

    cp, back = statistics.median(once_copy() for _ in range(repeat)), statistics.median(once_restore() for _ in range(repeat))
    out += ["", f"`cat`: {cat:.3f} s. `cp` of the base: {cp:.3f} s. Restore of one task, 2 ranks, synced to disk: {back:.2f} s, {back / cp:.1f} times `cp` (which does not sync).", ""]
    shutil.rmtree(zoo)
    return out


def bench_memory(work, limits=("256M", "512M", "2G")):
    """--mem-per-rank against the peak resident set, with matrices of 4096 x 11008."""
    zoo = os.path.join(work, "zoo")
    run("mpirun", "-n", "2", DELTAZOO, "synth", "-q", "--shape", "llama2-7b", "--layers", "2", "--tasks", "2", "--dtype", "bf16", "--seed", "3", "-o", zoo)
    nbytes = sum(map(os.path.getsize, files_below(zoo)))
    out = ["## Memory", "", f"LLaMA-2-7B shapes (4096 x 11008), 2 layers, 2 tasks, bf16, {nbytes / 1e9:.2f} GB, 2 ranks, one run each.", "",
           "| `--mem-per-rank` | peak memory of a rank | wall |", "|---|---|---|"]
    for limit in limits:
        wall, report = compress(2, zoo, work, more=("--mem-per-rank", limit))
        out.append(f"| {limit} | {report['job']['peak_memory_bytes'] / 2**20:.0f} MiB | {wall:.2f} s |")
    shutil.rmtree(zoo)
    return out + [""]


def bench_growth(work, repeat, layers=(1, 2, 4, 8)):
    """Time against size: the same shapes, more blocks."""
    out = ["## Time against size", "", f"LLaMA-2-7B shapes, 1 task, bf16, 2 ranks, warm cache, medians of {repeat}. The head and the embedding (262 M parameters) are exact and the same in all rows.", "",
           "| blocks | parameters of the task | wall | a thousand million parameters | a thousand million in lossy tensors, beyond the row before |", "|---|---|---|---|---|"]
    before = None
    for n in layers:
        zoo = os.path.join(work, "zoo")
        run("mpirun", "-n", "2", DELTAZOO, "synth", "-q", "--shape", "llama2-7b", "--layers", str(n), "--tasks", "1", "--dtype", "bf16", "--seed", "3", "-o", zoo)
        run("cat", *files_below(zoo))
        parameters = sum(map(os.path.getsize, files_below(os.path.join(zoo, "task-1")))) / 2e9
        wall = statistics.median(compress(2, zoo, work)[0] for _ in range(repeat))
        slope = f"{(wall - before[1]) / (parameters - before[0]):.2f} s" if before else "-"
        out.append(f"| {n} | {parameters:.2f} G | {wall:.2f} s | {wall / parameters:.2f} s | {slope} |")
        before = (parameters, wall)
        shutil.rmtree(zoo)
    return out + [""]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", default="results/bench.md")
    options = parser.parse_args()
    here = provenance()
    text = ["# Speed and memory", "", f"Command: `make bench`. Medians of {options.repeat}, warm cache. Commit {here['commit']}. Machine: {here['machine']}, a virtual machine; noisy, so compare the ratios.", ""]
    work = tempfile.mkdtemp(prefix="deltazoo-bench.")
    try:
        for title, shape in (("ViT-B/32, 8 tasks, f16", ("--shape", "vit-b-32", "--tasks", "8", "--dtype", "f16")),
                             ("LLaMA-2-7B shapes, 4 layers, 4 tasks, bf16", ("--shape", "llama2-7b", "--layers", "4", "--tasks", "4", "--dtype", "bf16"))):
            text += bench_zoo(title, shape, work, options.repeat)
        text += bench_memory(work) + bench_growth(work, min(3, options.repeat))
    finally:
        shutil.rmtree(work)
    open(options.out, "w").write("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Speed and memory as ratios in one run: medians of N, beside a plain read and a plain copy of the same files. Writes results/bench.md.

usage: bench.py [--repeat 5] [--out results/bench.md] [--before PROGRAM --before-name COMMIT]
RANKS="1 2 4 8" names the numbers of ranks. DELTAZOO names the program; an older one, measured in the same run, gets a row of its own. Everything is read from a warm cache, unless it says cold."""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "paper"))
from provenance import provenance  # noqa: E402

DELTAZOO = os.environ["DELTAZOO"]
BEFORE = None  # (program, name)
KEPT = "\n## Methods side by side\n"  # from here on results of other commands: they stay
RANKS = [int(r) for r in os.environ.get("RANKS", "1 2").split()]
PHASES = ("open", "statistics", "histogram", "code", "trace norm", "write")


def run(*args):
    return subprocess.run(args, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout


def timed(*args):
    begun = time.monotonic()
    run(*args)
    return time.monotonic() - begun


def files_below(path):
    return sorted(os.path.join(d, f) for d, _, names in os.walk(path) for f in names if f.endswith(".safetensors"))


def compress(ranks, zoo, work, more=(), program=DELTAZOO):
    report = os.path.join(work, "report.json")
    wall = timed("mpirun", "-n", str(ranks), program, "compress", "-q", "--force", os.path.join(zoo, "zoo.yaml"), "-o", os.path.join(work, "a.h5"), "--report", report,
                 *more)
    return wall, json.load(open(report))


def median_run(runs):
    """The run of median wall time."""
    return sorted(runs, key=lambda r: r[0])[len(runs) // 2]


def drop_cache(paths):
    """These files out of the page cache, so that the disk is read."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def bench_compress(zoo, work, repeat):
    """Rows of one and two ranks, and of the older program; the seconds of `cat`, the compute phases' speed-up, and the seconds of each row's phases."""
    models = files_below(zoo)
    tasks = sum(map(os.path.getsize, models)) - sum(map(os.path.getsize, files_below(os.path.join(zoo, "base"))))
    rows = ["| ranks | wall, mpirun included | times `cat` of the same files | task GB/s per core | " + " | ".join(PHASES) + " | peak memory per rank |", "|---" * (5 + len(PHASES)) + "|"]
    run("cat", *models)
    cat = statistics.median(timed("sh", "-c", 'cat "$@" >/dev/null', "sh", *models) for _ in range(repeat))
    phases = {}
    for ranks, program, name in [(r, DELTAZOO, str(r)) for r in RANKS] + ([(RANKS[-1], BEFORE[0], f"{RANKS[-1]}, at {BEFORE[1]}")] if BEFORE else []):
        wall, report = median_run([compress(ranks, zoo, work, program=program) for _ in range(repeat)])
        job = report["job"]
        phases[name] = [wall - sum(job["phase_seconds"].values())] + [job["phase_seconds"][p] for p in PHASES]
        rows.append(f"| {name} | {wall:.2f} s | {wall / cat:.1f} | {tasks / wall / 1e9 / ranks:.2f} | " + " | ".join(f"{job['phase_seconds'][p]:.2f}" for p in PHASES) +
                    f" | {job['peak_memory_bytes'] / 1e6:.0f} MB |")
    return rows, cat, speed_up(phases), phases


def speed_up(phases):
    """How many times faster each phase is on more ranks than on the fewest."""
    first, rows = phases[str(RANKS[0])][1:], [f"| from {RANKS[0]} rank{'s' * (RANKS[0] > 1)} to | " + " | ".join(PHASES) + " | statistics to trace norm |", "|---" * (len(PHASES) + 2) + "|"]
    for ranks in RANKS[1:]:
        now = phases[str(ranks)][1:]
        rows.append(f"| {ranks} | " + " | ".join(f"{a / b:.2f}" if a >= 0.05 and b > 0 else "-" for a, b in zip(first, now)) + f" | {sum(first[1:-1]) / sum(now[1:-1]):.2f} |")
    return ["Times faster, phase by phase:", "", *rows]


def bench_cold(zoo, work, repeat):
    """Both with the files dropped from the page cache before."""
    models, cat, job = files_below(zoo), [], []
    for _ in range(repeat):
        drop_cache(models)
        cat.append(timed("sh", "-c", 'cat "$@" >/dev/null', "sh", *models))
        drop_cache(models)
        job.append(compress(2, zoo, work)[0])
    cat, job = statistics.median(cat), statistics.median(job)
    return f"Cold (files dropped from the page cache): `cat` {cat:.2f} s, 2 ranks {job:.2f} s, {job / cat:.2f} times `cat`."


def settle(*paths):
    """Files gone, and their pages back with the host of this virtual machine: what is written next meets fresh memory, whoever writes it."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
    time.sleep(4)


def bench_restore(zoo, work, repeat):
    base, copy, restored = os.path.join(zoo, "base"), os.path.join(work, "copy"), os.path.join(work, "r")

    def copied(sync):
        settle(copy, restored)
        return timed("sh", "-c", 'cp -r "$0" "$1"' + (' && sync "$1"/*' if sync else ""), base, copy)

    def back(sync, program=DELTAZOO):
        settle(copy, restored)
        return timed("mpirun", "-n", "2", program, "restore", "-q", os.path.join(work, "a.h5"), "--task", "task-1", "--base", base, "-o", restored, *([] if sync else ["--no-sync"]))

    rows = ["| one task restored, 2 ranks | seconds | `cp` of the base to the same disk | ratio |", "|---|---|---|---|"]
    for sync in (False, True):
        pairs = [(back(sync), copied(sync)) for _ in range(repeat)]
        mine, cp = (statistics.median(x) for x in zip(*pairs))
        rows.append(f"| {'synced to disk, both' if sync else 'not synced (`--no-sync`), as `cp`'} | {mine:.2f} | {cp:.2f} | {mine / cp:.1f} |")
        if BEFORE:
            old = statistics.median(back(sync, BEFORE[0]) for _ in range(repeat))
            rows.append(f"| the same at {BEFORE[1]} | {old:.2f} | {cp:.2f} | {old / cp:.1f} |")
    settle(copy, restored)
    return rows


def bench_side_by_side(zoo, repeat):
    """Methods and rates, and exact coding beside zipnn's."""
    here = os.path.dirname(os.path.abspath(__file__))
    methods = run(sys.executable, os.path.join(here, "methods.py"), os.path.join(zoo, "zoo.yaml"), "--repeat", str(repeat), "--ranks", "2").decode()
    exact = run(sys.executable, os.path.join(here, "exact.py"), zoo).decode()
    return ["Methods and rates by turns, two ranks; processor seconds are those of all ranks:", "", methods, "Exact coding in memory, processor time of one core (tests/bench/exact.py):", "", exact]


def bench_zoo(title, shape, work, repeat):
    zoo = os.path.join(work, "zoo")
    run("mpirun", "-n", "2", DELTAZOO, "synth", "-q", *shape, "--seed", "3", "-o", zoo)
    models = files_below(zoo)
    rows, cat, gain, phases = bench_compress(zoo, work, repeat)
    out = [f"## {title}", "", f"`deltazoo synth {' '.join(shape)} --seed 3`: {sum(map(os.path.getsize, models)) / 1e9:.2f} GB in {len(models)} files. `cat`: {cat:.3f} s.", "", *rows, "",
           *gain, "", *bench_side_by_side(zoo, repeat), *bench_restore(zoo, work, repeat), "", bench_cold(zoo, work, repeat), ""]
    shutil.rmtree(zoo)
    return out, (title, cat, phases)


def bench_memory(work, limits=("128M", "256M", "512M", "2G")):
    """--mem-per-rank against the peak resident set, with matrices of 4096 x 11008."""
    zoo = os.path.join(work, "zoo")
    run("mpirun", "-n", "2", DELTAZOO, "synth", "-q", "--shape", "llama2-7b", "--layers", "2", "--tasks", "2", "--dtype", "bf16", "--seed", "3", "-o", zoo)
    nbytes = sum(map(os.path.getsize, files_below(zoo)))
    kinds = (("auto", ()), ("lossless", ("--recipe", "lossless")))
    out = ["## Memory", "", f"LLaMA-2-7B shapes (4096 x 11008), 2 layers, 2 tasks, bf16, {nbytes / 1e9:.2f} GB, 2 ranks, one run each.", "",
           "| `--mem-per-rank` | settings | peak memory of a rank | wall |", "|---|---|---|---|"]
    for limit in limits:
        for name, more in kinds:
            wall, report = compress(2, zoo, work, more=("--mem-per-rank", limit, *more))
            out.append(f"| {limit} | {name} | {report['job']['peak_memory_bytes'] / 2**20:.0f} MiB | {wall:.2f} s |")
    shutil.rmtree(zoo)
    return out + [""]


def bench_growth(work, repeat):
    """Time against size: more tasks of one shape, and more blocks of another."""
    out = ["## Time against size", "", f"2 ranks, warm cache, medians of {repeat}. LLaMA's head and embedding (262 M parameters) are exact and the same in all its rows; of ViT-B/32 the base is read once for all tasks.", "",
           "| zoo | parameters of the tasks | wall | of it inside the program | seconds inside for 10^9 parameters | for 10^9 more, beyond the row before |", "|---|---|---|---|---|---|"]
    zoos = [("vit-b-32", 12, n, "f16") for n in (1, 4, 12, 24)] + [("llama2-7b", n, 1, "bf16") for n in (1, 2, 4, 8)]
    before, points = None, []
    for shape, layers, tasks, dtype in zoos:
        zoo = os.path.join(work, "zoo")
        run("mpirun", "-n", "2", DELTAZOO, "synth", "-q", "--shape", shape, "--layers", str(layers), "--tasks", str(tasks), "--dtype", dtype, "--seed", "3", "-o", zoo)
        run("cat", *files_below(zoo))
        parameters = tasks * sum(map(os.path.getsize, files_below(os.path.join(zoo, "task-1")))) / 2e9
        wall, report = median_run([compress(2, zoo, work) for _ in range(repeat)])
        inside = report["job"]["seconds"]
        slope = f"{(inside - before[2]) / (parameters - before[1]):.2f}" if before and before[0] == shape else "-"
        what = f"ViT-B/32, {tasks} task{'s' * (tasks > 1)}" if shape == "vit-b-32" else f"LLaMA-2-7B, {layers} block{'s' * (layers > 1)}, 1 task"
        out.append(f"| {what} | {parameters:.2f} G | {wall:.2f} s | {inside:.2f} s | {inside / parameters:.2f} | {slope} |")
        before = (shape, parameters, inside)
        points.append(before)
        shutil.rmtree(zoo)
    return out + [""], points


def plot(zoos, points, path):
    """Where the time goes, and how it grows."""
    figure, panels = plt.subplots(1, len(zoos) + 1, figsize=(5 * len(zoos) + 5, 4.2))
    for axes, (title, cat, phases) in zip(panels, zoos):
        bottom = [0.0] * len(phases)
        for i, name in enumerate(("mpirun",) + PHASES):
            values = [seconds[i] for seconds in phases.values()]
            axes.bar(list(phases), values, bottom=bottom, label=name, color=f"C{i}")
            bottom = [b + v for b, v in zip(bottom, values)]
        axes.axhline(cat, color="k", ls=":", label="`cat` of the same files")
        axes.axhline(6 * cat, color="k", ls="--", lw=0.8, label="six times that")
        axes.set(title=title, xlabel="ranks", ylabel="seconds")
        axes.set_ylim(0, 1.5 * max(max(bottom), 6 * cat))
        axes.legend(fontsize=8, ncol=3, loc="upper center")
    for shape, marker in (("vit-b-32", "o"), ("llama2-7b", "s")):
        panels[-1].plot([p for s, p, _ in points if s == shape], [t for s, _, t in points if s == shape], marker + "-", label=shape)
    panels[-1].set(title="time against size, 2 ranks", xlabel="parameters of the tasks, 10^9", ylabel="seconds inside the program", xlim=(0, None), ylim=(0, None))
    panels[-1].legend()
    panels[-1].grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", default="results/bench.md")
    parser.add_argument("--before")
    parser.add_argument("--before-name", default="an older commit")
    options = parser.parse_args()
    global BEFORE
    BEFORE = (options.before, options.before_name) if options.before else None
    here = provenance()
    text = ["# Speed and memory", "", f"Command: `make bench`. Medians of {options.repeat}, warm cache. Commit {here['commit']}. Machine: {here['machine']}, a virtual machine; noisy, so compare the ratios.", "", f"![phases and growth]({os.path.splitext(os.path.basename(options.out))[0]}.png)", ""]
    work, zoos = tempfile.mkdtemp(prefix="deltazoo-bench."), []
    try:
        for title, shape in (("ViT-B/32, 8 tasks, f16", ("--shape", "vit-b-32", "--tasks", "8", "--dtype", "f16")),
                             ("LLaMA-2-7B shapes, 4 layers, 4 tasks, bf16", ("--shape", "llama2-7b", "--layers", "4", "--tasks", "4", "--dtype", "bf16"))):
            lines, measured = bench_zoo(title, shape, work, options.repeat)
            text += lines
            zoos.append(measured)
        lines, points = bench_growth(work, min(3, options.repeat))
        text += bench_memory(work) + lines
        plot(zoos, points, os.path.splitext(options.out)[0] + ".png")
    finally:
        shutil.rmtree(work)
    kept = open(options.out).read().partition(KEPT) if os.path.exists(options.out) else ("", "", "")
    open(options.out, "w").write("\n".join(text) + kept[1] + kept[2])
    print("\n".join(text))


if __name__ == "__main__":
    main()

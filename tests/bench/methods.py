#!/usr/bin/python3
"""Methods and rates side by side, and beside an older program: methods.py ZOO.yaml [--before PROGRAM --before-name COMMIT] [--repeat 5] [--ranks 2].

Programs and settings take turns; medians. Prints a table in Markdown for results/bench.md: wall seconds with mpirun, processor seconds of all ranks, both
over those of UltraDelta in the same run, peak memory of a rank, bytes of the archive. On a machine that others use too, compare processor seconds."""
import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time

NOW = [("ultradelta", ["--recipe", "ultradelta"]), ("auto, 16x", ["--target-ratio", "16"]), ("auto, 25x", ["--target-ratio", "25"]), ("auto, 50x", ["--target-ratio", "50"]),
       ("auto, 200x", ["--target-ratio", "200"]), ("auto, 800x", ["--target-ratio", "800"]), ("quality high", ["--quality", "high"]), ("quality balanced (default)", []),
       ("quality small", ["--quality", "small"]), ("lossless", ["--recipe", "lossless"])]
BEFORE = [("ultradelta", []), ("auto, 50x", ["--set", "method=auto", "--set", "target_ratio=50"]), ("lossless", ["--recipe", "lossless"])]


def measure(program, options, zoo, folder, ranks):
    """Wall and processor seconds, peak memory of a rank in MB, bytes of the archive."""
    archive = os.path.join(folder, "a.h5")
    report = os.path.join(folder, "report")
    command = ["mpirun", "-n", str(ranks), program, "compress", zoo, "-o", archive, "-q", "--force", "--report", report + ".json", *options]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)

    memory = json.load(open(report + ".json"))["job"]["peak_memory_bytes"] / 1e6
    size = os.path.getsize(archive)
    os.remove(archive)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, memory, size


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("zoo")
    args.add_argument("--before")
    args.add_argument("--before-name", default="before")
    args.add_argument("--repeat", type=int, default=5)
    args.add_argument("--ranks", type=int, default=2)
    a = args.parse_args()
    program = os.environ.get("DELTAZOO", "build/deltazoo")
    rows = [(f"{name}, {a.before_name}", a.before, options) for name, options in BEFORE if a.before] + [(name, program, options) for name, options in NOW]
    found = {name: [] for name, _, _ in rows}
    with tempfile.TemporaryDirectory(prefix="dz-methods-") as folder:
        for _ in range(a.repeat):
            for name, which, options in rows:
                found[name].append(measure(which, options, a.zoo, folder, a.ranks))
    middle = {name: [statistics.median(f[k] for f in list_) for k in range(4)] for name, list_ in found.items()}
    spread = {name: f"{min(f[1] for f in list_):.2f} to {max(f[1] for f in list_):.2f}" for name, list_ in found.items()}
    wall, cpu = middle["ultradelta"][:2]
    print("| setting | wall | over UltraDelta's | processor seconds | least to most | over UltraDelta's | peak memory of a rank | archive |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (w, c, memory, size) in middle.items():
        print(f"| {name} | {w:.2f} s | {w / wall:.2f} | {c:.2f} s | {spread[name]} | {c / cpu:.2f} | {memory:.0f} MB | {size / 1e6:.1f} MB |")


if __name__ == "__main__":
    main()

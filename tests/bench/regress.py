#!/usr/bin/python3
"""Is this program slower or its archives larger than the last release's? Both in one run, by turns.

usage: regress.py [--before PROGRAM | --release TAG_OR_COMMIT] [--repeat 5] [--slower 1.15] [--larger 1.01]

Without --before the last release (the last tag, or the commit that is named) is checked out beside and built. Compressing and restoring a small synthetic zoo by
several settings; processor seconds in user mode of one rank, least of the rounds, since other users of the machine only ever add to them. A table in Markdown; exit 1
where a ratio is beyond its limit in the whole (times: the sum over the settings; bytes: each)."""
import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
DELTAZOO = os.environ.get("DELTAZOO", os.path.join(ROOT, "build", "deltazoo"))
SETTINGS = [("ultradelta", ["--set", "method=ultradelta"]), ("auto, 25x", ["--set", "method=auto", "--set", "target_ratio=25"]),
            ("auto, 200x", ["--set", "method=auto", "--set", "target_ratio=200"]), ("lossless", ["--recipe", "lossless"])]


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")


def seconds(*command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    run(*command)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def build(release, folder):
    """The program of a release, built beside this one."""
    source = os.path.join(folder, "source")
    run("git", "-C", ROOT, "worktree", "add", "--detach", source, release)
    try:
        run("make", "-C", source, "-j2", "all")
        shutil.copy(os.path.join(source, "build", "deltazoo"), os.path.join(folder, "before"))
    finally:
        run("git", "-C", ROOT, "worktree", "remove", "--force", source)
    return os.path.join(folder, "before")


def last_release():
    tags = subprocess.run(["git", "-C", ROOT, "describe", "--tags", "--abbrev=0", "HEAD^"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    if tags.returncode:
        sys.exit("no release yet: name a commit by --release, or a program by --before")
    return tags.stdout.strip()


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--before")
    args.add_argument("--release")
    args.add_argument("--repeat", type=int, default=5)
    args.add_argument("--slower", type=float, default=1.15)
    args.add_argument("--larger", type=float, default=1.01)
    a = args.parse_args()
    faults, totals = [], {"before": 0.0, "now": 0.0}
    with tempfile.TemporaryDirectory(prefix="dz-regress-") as folder:
        release = a.before or a.release or last_release()
        programs = {"before": a.before or build(release, folder), "now": DELTAZOO}
        zoo = os.path.join(folder, "zoo")
        run(programs["before"], "synth", "-q", "--shape", "vit-b-32", "--layers", "4", "--tasks", "3", "--dtype", "bf16", "--seed", "3", "-o", zoo)
        print(f"| setting | {os.path.basename(release)}, s | now, s | ratio | restore, s | now, s | ratio | bytes, ratio |\n|---|---|---|---|---|---|---|---|")
        for name, options in SETTINGS:
            took, size = {}, {}
            for _ in range(a.repeat):
                for which, program in programs.items():
                    archive, back = os.path.join(folder, which + ".h5"), os.path.join(folder, "back")
                    code = seconds(program, "compress", os.path.join(zoo, "zoo.yaml"), "-o", archive, "-q", "--force", *options)
                    restore = seconds(program, "restore", archive, "--task", "task-1", "--base", os.path.join(zoo, "base"), "-o", back, "-q", "--no-sync")
                    shutil.rmtree(back)
                    least = took.setdefault(which, [code, restore])
                    took[which] = [min(least[0], code), min(least[1], restore)]
                    size[which] = os.path.getsize(archive)
            for which in programs:
                totals[which] += sum(took[which])
            (b, r), (n, s), larger = took["before"], took["now"], size["now"] / size["before"]
            print(f"| {name} | {b:.2f} | {n:.2f} | {n / max(b, 0.01):.2f} | {r:.2f} | {s:.2f} | {s / max(r, 0.01):.2f} | {larger:.4f} |", flush=True)
            if larger > a.larger:
                faults.append(f"{name}: {larger:.4f} times the bytes of {release}, at most {a.larger} are allowed")
    slower = totals["now"] / totals["before"]
    print(f"\nIn all {slower:.2f} times the processor seconds of {release}.")
    if slower > a.slower:
        faults.append(f"{slower:.2f} times the processor seconds of {release}, at most {a.slower} are allowed")
    for fault in faults:
        print(f"regression: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

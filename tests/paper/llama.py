#!/usr/bin/python3
"""LLaMA-2-7B whole: synth, compress, verify, restore, compare. Writes OUT (results/llama-2-7b.md).

usage: llama.py [--layers N] [--shape NAME] [--recipe paper] [--tails gauss] [--ranks 2] [--work DIR] [--out FILE.md]

One base and one task, bf16, every block unless --layers says fewer: 27 GB in --work, 40 with the restored model, all removed at the end. Fails unless the archive
is sound, the base is right, the directory comes back with the same files and headers, every exact tensor comes back byte for byte, and the lossy ones have the
error that `compare` tells (one tensor is measured here, independently)."""
import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from models import MODELS, ROOT  # noqa: E402
from provenance import provenance  # noqa: E402
from run import DELTAZOO, ENV, LAUNCH, SEED  # noqa: E402


class Log:
    """Runs commands; keeps what they said and how long they took."""

    def __init__(self, work, ranks):
        self.work, self.ranks, self.lines, self.seconds = work, ranks, [], {}

    def run(self, command, *args, keep=True):
        shown = f"$ mpirun -n {self.ranks} deltazoo {command} {' '.join(args)}"
        begun = time.monotonic()
        done = subprocess.run([*LAUNCH, "-n", str(self.ranks), DELTAZOO, command, *args], cwd=self.work, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if keep else subprocess.PIPE,
                              text=True, check=False)
        self.seconds[command] = time.monotonic() - begun
        if done.returncode != 0:
            sys.exit(f"{shown}: exit {done.returncode}: {done.stdout}{done.stderr or ''}")
        if keep:
            self.lines += [shown, *done.stdout.rstrip().splitlines(), ""]
            print("\n".join(self.lines[-len(done.stdout.splitlines()) - 2:]), flush=True)
        return done.stdout


def files_of(folder):
    return sorted(f for f in os.listdir(folder) if f.endswith(".safetensors"))


def read_header(path):
    with open(path, "rb") as file:
        text = file.read(struct.unpack("<Q", file.read(8))[0])
    return 8 + len(text), text


def tensors(folder):
    """name -> its bytes, mapped."""
    found = {}
    for file in files_of(folder):
        start, text = read_header(os.path.join(folder, file))
        raw = np.memmap(os.path.join(folder, file), np.uint8, "r")
        for name, entry in json.loads(text).items():
            if name != "__metadata__":
                found[name] = raw[start + entry["data_offsets"][0]:start + entry["data_offsets"][1]]
    return found


def same(a, b, piece=1 << 26):
    return len(a) == len(b) and all(np.array_equal(a[i:i + piece], b[i:i + piece]) for i in range(0, len(a), piece))


def unmarked(header):
    """A header without the mark of a restored lossy model."""
    members = json.loads(header[1], object_pairs_hook=list)
    return [(n, [m for m in v if m[0] != "deltazoo"] if n == "__metadata__" else v) for n, v in members]


def floats(raw):
    return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def check_restored(work, reported, compared):
    """(exact tensors, their bytes): all the same; exits when the restored model is not what was promised."""
    task, back = f"{work}/zoo/task-1", f"{work}/restored"
    if sorted(os.listdir(task)) != sorted(set(os.listdir(back)) - {"deltazoo.json"}):
        sys.exit("the restored directory has other files")
    for file in files_of(task):
        if unmarked(read_header(f"{task}/{file}")) != unmarked(read_header(f"{back}/{file}")):
            sys.exit(f"{file}: another header")
    original, restored, base = tensors(task), tensors(back), tensors(f"{work}/zoo/base")
    exact = [t["name"] for t in reported["tensors"] if t["policy"] != "ultradelta"]
    for name in exact:
        if not same(original[name], restored[name]):
            sys.exit(f"{name} is not exact")
    name = next(t["name"] for t in reported["tensors"] if t["policy"] == "ultradelta")
    b, o, r = (floats(np.array(x[name])) for x in (base, original, restored))
    error = float(np.linalg.norm(r - o) / np.linalg.norm(o - b))
    says = next(t["relative_error"] for t in compared["tensors"] if t["name"] == name)
    if abs(error - says) > 1e-4 * says:
        sys.exit(f"{name}: relative error {error}, compare says {says}")
    return exact, sum(len(original[name]) for name in exact), name, error


def main():
    m = MODELS["llama-2-7b"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=m.blocks)
    parser.add_argument("--shape", default=m.shape, help="a stand-in, only to see that all runs")
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--tails", default="gauss")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--work", default=os.environ.get("TMPDIR", "/tmp"))
    parser.add_argument("--out", default=os.path.join(ROOT, "results", "llama-2-7b.md"))
    options = parser.parse_args()
    if options.work:
        os.makedirs(options.work, exist_ok=True)
    here, work = provenance(), tempfile.mkdtemp(prefix="deltazoo-llama.", dir=options.work)
    try:
        shutil.copy(m.recipe(options.recipe), os.path.join(work, f"{options.recipe}.yaml"))
        log = Log(work, options.ranks)
        log.run("synth", "--shape", options.shape, "--layers", str(options.layers), "--tasks", "1", "--dtype", m.dtype, "--tails", options.tails, "--seed", SEED, "--shard-size", "5G", "-o", "zoo")
        log.run("compress", "zoo/zoo.yaml", "--recipe", f"{options.recipe}.yaml", "-o", "zoo.h5", "--report", "zoo.json")
        log.run("verify", "zoo.h5", "--base", "zoo/base")
        log.run("restore", "zoo.h5", "--task", "task-1", "--base", "zoo/base", "-o", "restored")
        compared = json.loads(log.run("compare", "zoo.h5", "-q", "--task", "task-1", "--base", "zoo/base", "--finetuned", "zoo/task-1", "--json", keep=False))
        with open(os.path.join(work, "zoo.json"), encoding="utf-8") as file:
            job = json.load(file)["job"]
        reported = json.loads(subprocess.run([DELTAZOO, "info", f"{work}/zoo.h5", "--task", "task-1", "--json"], env=ENV, stdout=subprocess.PIPE, check=True).stdout)
        archive, reported = reported["archive_bytes"], reported["tasks"][0]
        exact, exact_bytes, name, error = check_restored(work, reported, compared)
    finally:
        shutil.rmtree(work)
    lossy, size, s = reported["lossy"], reported["source_bytes"], log.seconds
    speed = lambda seconds, nbytes: f"{seconds:.1f} s | {nbytes / seconds / 1e6:.0f} MB/s"
    blocks = "every block" if options.layers == m.blocks else f"{options.layers} of {m.blocks} blocks"
    command = "tests/paper/llama.py" + (f" --layers {options.layers}" if options.layers != m.blocks else "") + "".join(
        f" --{o} {getattr(options, o)}" for o in ("shape", "recipe", "tails", "ranks") if getattr(options, o) != parser.get_default(o))
    text = [f"# {'LLaMA-2-7B' if options.shape == m.shape else 'A stand-in of shape ' + options.shape}, {blocks}", "",
            f"Command: `{command}`. Commit {here['commit']}. Machine: {here['machine']}; one run. Base and task: {size / 1e9:.2f} GB each, bf16, {len(reported['tensors'])} tensors, true names and shapes, synth's weights,",
            f"deltas `{options.tails}`. Recipe config/paper/llama-2-7b/{options.recipe}.yaml: sparsity {reported['sparsity']:g}, {reported['bits']} bits. {options.ranks} ranks.", "",
            "| | |", "|---|---|",
            f"| source, bytes | {size:,} |", f"| archive, bytes, everything counted | {archive:,} |", f"| ratio, whole model | {size / archive:.1f} |",
            f"| lossy tensors: source, stored, ratio on disk | {lossy['source_bytes']:,}, {lossy['stored_bytes']:,}, **{lossy['ratio']['on_disk']:.1f}** |",
            f"| the paper's ways of counting, at this density | 16/(b p) = {lossy['ratio']['value_bits']:.1f}, 16/(H(p) + b p) = {lossy['ratio']['positions_coded']:.1f} |",
            f"| exact tensors: {len(exact)}, source, stored | {exact_bytes:,}, {reported['bytes']['exact_tensors']:,} |",
            f"| trace norm | {reported['trace_norm']:.6g} ± {100 * reported['trace_norm_error'] / reported['trace_norm']:.2g} % |" if reported["trace_norm"] > 0 else "| trace norm | - |",
            f"| lossy tensors, restored: relative error, cosine of the deltas | {compared['lossy']['relative_error']:.3f}, {compared['lossy']['cosine']:.4f} |", "",
            "| step | time, mpirun included | task bytes a second |", "|---|---|---|",
            *(f"| {step} | {speed(s[step], size)} |" for step in ("compress", "verify", "restore", "compare")), "",
            f"Compress: peak memory {job['peak_memory_bytes'] / 1e6:.0f} MB a rank; " + ", ".join(f"{p} {t:.1f} s" for p, t in job["phase_seconds"].items()) + ".", "",
            f"Checked by the script: the restored directory has the same files and headers; its {len(exact)} exact tensors ({exact_bytes / 1e6:.0f} MB) are those of the input byte for byte; the error of",
            f"`{name}`, measured from the restored file, is what `compare` tells ({error:.4f}).", "", "## Log", "", "```", *(line for line in log.lines), "```"]
    with open(options.out, "w", encoding="utf-8") as file:
        file.write("\n".join(text) + "\n")
    print("\n".join(text[:24]))


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Held-out loss against real bytes, through the program itself: compress, restore, evaluate. Rows that are done stay done.

usage: experiment.py OUT [--seeds 3] [--jobs 2] [--family lm] [--only TEXT]      OUT as zoo.py; writes OUT/rows/*.json
environment: DELTAZOO, the program; DELTAZOO_REF, an older one to compare with (or none)"""
import argparse
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import tempfile
import time

import evaluate
import networks
import settings
import torch
from zoo import is_lossy

DELTAZOO = os.environ.get("DELTAZOO", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../build/deltazoo"))
REFERENCE = os.environ.get("DELTAZOO_REF")

# name: (program, ways to say it (the first that the program takes), seeds matter, tasks one by one)
NEW, OLD = "DELTAZOO", "DELTAZOO_REF"
def by_method(*args):
    """`--method NAME`, or as a recipe's key."""
    return [["--method", args[0], *args[1:]], ["--set", f"method={args[0]}", *args[1:]]]


ROWS = {
    "default": (NEW, [["--quality", "balanced"]], True, False),
    "quality high": (NEW, [["--quality", "high"]], True, False),
    "quality small": (NEW, [["--quality", "small"]], True, False),
    "auto 100x": (NEW, by_method("auto", "--set", "target_ratio=100"), True, False),
    "auto 400x": (NEW, by_method("auto", "--set", "target_ratio=400"), True, False),
    "UltraDelta 0.97, together": (NEW, by_method("ultradelta", "--set", "sparsity=0.97"), True, False),
    "UltraDelta 0.97, alone": (NEW, by_method("ultradelta", "--set", "sparsity=0.97"), True, True),
    "DARE 0.97": (NEW, by_method("dare", "--set", "sparsity=0.97"), True, False),
    "BitDelta": (NEW, by_method("bitdelta"), False, False),
    "lossless": (NEW, [["--recipe", "lossless"]], False, False),
    "e3b624f default": (OLD, [[]], True, False),
    "e3b624f auto 100x": (OLD, [["--set", "method=auto", "--set", "target_ratio=100"]], True, False),
    "e3b624f auto 400x": (OLD, [["--set", "method=auto", "--set", "target_ratio=400"]], True, False),
    "LoRA rank 16": (None, 16, False, False),
    "LoRA rank 64": (None, 64, False, False),
}
USAGE = 2  # exit code of a program that does not know an option


def run(program, *args):
    return subprocess.run([program, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)


def checked(program, *args):
    done = run(program, *args)
    if done.returncode:
        raise RuntimeError(f"{' '.join(args)}: {done.stderr.strip()[-300:]}")
    return done.stdout


def through_program(out, family, tasks, program, ways, seed, work):
    """One archive of these tasks: {task: what became of it}, bytes of the archive; or why the program refused."""
    root = os.path.join(out, family)
    manifest, archive = os.path.join(work, "zoo.yaml"), os.path.join(work, "zoo.h5")
    with open(manifest, "w", encoding="utf-8") as f:
        f.write(f"base: {root}/base\ntasks:\n" + "".join(f"  - {{name: {t}, path: {root}/{t}}}\n" for t in tasks))
    for way in ways:
        start = time.time()
        done = run(program, "compress", manifest, "-q", "-o", archive, *way, "--set", f"seed={seed}")
        seconds = time.time() - start
        if done.returncode == 0:
            break
        if done.returncode != USAGE:
            raise RuntimeError(done.stderr.strip()[-300:])
    else:
        return {"refused": done.stderr.strip().split("\n")[0]}
    info = json.loads(checked(program, "info", archive, "--json"))
    rows = {}
    for t in info["tasks"]:
        name, restored = t["name"], os.path.join(work, t["name"])
        checked(program, "restore", archive, "-q", "--task", name, "--base", f"{root}/base", "-o", restored)
        compared = json.loads(checked(program, "compare", archive, "--task", name, "--base", f"{root}/base", "--finetuned", f"{root}/{name}", "--json"))
        lossy = t.get("lossy") or {}
        rows[name] = {"bytes": t["stored_bytes"], "lossy_bytes": lossy.get("stored_bytes", 0), "lossy_parameters": lossy.get("parameters", 0),
                      "nsr": compared.get("lossy", {}).get("relative_error", 0.0) ** 2, **evaluate.measure(out, family, name, networks.load(restored))}
        shutil.rmtree(restored)
    return {"tasks": rows, "archive": os.path.getsize(archive), "way": way, "seconds": seconds}


def lora(out, family, tasks, rank):
    """mergekit's extraction, done here: of each linear layer's delta the first singular vectors, each times the root of its value, in fp16; the
    rest of the model as it is."""
    base = networks.load(os.path.join(out, family, "base"))
    rows = {}
    for task in tasks:
        tuned, size, stored, noise, energy = networks.load(os.path.join(out, family, task)), 0, 0, 0.0, 0.0
        restored = dict(tuned)
        for n, w in base.items():
            if not is_lossy(n, w):
                stored += 2 * tuned[n].numel()
                continue
            d = tuned[n] - w
            u, s, v = torch.linalg.svd(d, full_matrices=False)
            a, b = ((u[:, :rank] * s[:rank].sqrt()).half().float(), (s[:rank].sqrt()[:, None] * v[:rank]).half().float())
            restored[n] = (w + a @ b).bfloat16().float()
            size += 2 * (a.numel() + b.numel())
            noise, energy = noise + float((a @ b - d).square().sum()), energy + float(d.square().sum())
        rows[task] = {"bytes": size + stored, "lossy_bytes": size, "lossy_parameters": sum(w.numel() for n, w in base.items() if is_lossy(n, w)),
                      "nsr": noise / energy, **evaluate.measure(out, family, task, restored)}
    return {"tasks": rows, "archive": sum(r["bytes"] for r in rows.values())}


def fingerprint(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()[:12]


def job(args):
    out, family, name, seed = args
    program_name, ways, _, alone = ROWS[name]
    program = {NEW: DELTAZOO, OLD: REFERENCE, None: None}[program_name]
    tasks = list(settings.TASKS[family])
    key = re.sub(r"[^a-z0-9.]+", "-", f"{family} {name} {seed}".lower()) + (f"-{fingerprint(program)}" if program else "")
    path = os.path.join(out, "rows", key + ".json")
    if os.path.exists(path):
        return path, json.load(open(path))
    work = tempfile.mkdtemp(dir=os.path.join(out, "rows"))
    try:
        if program is None:
            row = lora(out, family, tasks, ways)
        elif alone:
            row = {"tasks": {}, "archive": 0}
            for task in tasks:
                one = through_program(out, family, [task], program, ways, seed, work)
                if "refused" in one:
                    row = one
                    break
                row["tasks"].update(one["tasks"])
                row["archive"] += one["archive"]
                os.remove(os.path.join(work, "zoo.h5"))
        else:
            row = through_program(out, family, tasks, program, ways, seed, work)
    except RuntimeError as failure:
        row = {"refused": f"failed: {failure}"}
    finally:
        shutil.rmtree(work)
    row |= {"family": family, "name": name, "seed": seed, "program": program_name, "fingerprint": fingerprint(program) if program else None}
    if not row.get("refused", "").startswith("failed"):
        json.dump(row, open(path + ".new", "w"), indent=1)
        os.rename(path + ".new", path)
    return path, row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--family")
    parser.add_argument("--only", default="", help="rows whose name has this text")
    o = parser.parse_args()
    out = os.path.abspath(o.out)
    os.makedirs(os.path.join(out, "rows"), exist_ok=True)
    families = [f for f in settings.TASKS if o.family in (None, f)]
    jobs = [(out, family, name, seed) for seed in range(o.seeds) for family in families for name, (program, _, seeded, _) in ROWS.items()
            if (seeded or seed == 0) and (program != OLD or REFERENCE) and o.only in name]
    with multiprocessing.get_context("spawn").Pool(o.jobs) as pool:
        for path, row in pool.imap_unordered(job, jobs):
            said = row.get("refused") or " ".join(f"{t} {r['share']:.3f}" for t, r in row["tasks"].items())
            print(f"{row['family']} {row['name']}, seed {row['seed']}: {said}", flush=True)
    index = [os.path.join(out, "rows", f) for f in os.listdir(os.path.join(out, "rows")) if f.endswith(".json")]
    print(f"{len(index)} rows in {out}/rows")


if __name__ == "__main__":
    main()

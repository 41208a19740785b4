#!/usr/bin/env python3
"""The Python package on real fine-tunes, beside the program and safetensors in the same run. Prints Markdown, the second part of results/python.md:

  tests/python/bench.py ZOO.yaml [DIR]        after make, make wheel and make venv; in build/venv, with the wheel on PYTHONPATH

ZOO.yaml: a base and three or more fine-tunes of it with safetensors files (results/python.md used those of make quality-lm). DIR: for 2 GB of files."""
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import deltazoo
import torch
from live_models import is_like, live_model, model_of
from safetensors.torch import load_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ.get("DELTAZOO", f"{ROOT}/build/deltazoo")
TIMES = 5


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr}")
    return done.stdout


def cpu():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measured(work, before=lambda: None, times=TIMES):
    """(least wall clock, least CPU time) in seconds: other load of the machine only adds."""
    walls, cpus = [], []
    for _ in range(times):
        before()
        a, b = time.monotonic(), cpu()
        kept = work()
        walls.append(time.monotonic() - a)
        cpus.append(cpu() - b)
        del kept
    return min(walls), min(cpus)


def clear():
    shutil.rmtree("out", ignore_errors=True)


def read_all(path):
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


PEAK = """
import sys, deltazoo, torch
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
z = deltazoo.open(sys.argv[1])
before = peak()
sd = z.load_state_dict(sys.argv[2], sys.argv[3])
print((peak() - before) / sum(t.nbytes for t in sd.values()))
"""


FIRST = """
import resource, sys, time, deltazoo, torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
archive, task, base, original, threads = sys.argv[1:]
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
if archive:
    z = deltazoo.open(archive)
    z.load_state_dict(task, base, pattern="*norm*")
    begun = time.monotonic(), cpu()
    kept = z.load_state_dict(task, base, threads=int(threads))
else:
    load_file(original)
    begun = time.monotonic(), cpu()
    kept = {name: tensor.clone() for name, tensor in load_file(original).items()}
print(time.monotonic() - begun[0], cpu() - begun[1])
"""


def first(archive, task, base, original, threads=1):
    """(least wall clock, least CPU time) of a model's first load in a process, everything imported and open."""
    runs = [tuple(map(float, run(sys.executable, "-c", FIRST, archive, task, base, original, threads).split())) for _ in range(TIMES)]
    return tuple(map(min, zip(*runs)))


def restored(archive, task, base):
    """The folder of the task's model as the program restores it."""
    shutil.rmtree(f"r-{task}", ignore_errors=True)
    run(PROGRAM, "restore", archive, "--task", task, "--base", base, "-o", f"r-{task}", "-q")
    return f"r-{task}"


def speeds(zoo, base):
    print("| archive, task | what | wall clock | CPU time | times (wall) | times (CPU) |")
    print("|---|---|---|---|---|---|")
    for archive in ("exact.h5", "auto.h5"):
        for task in zoo[:1] + zoo[-2:]:
            original = f"{zoo_paths[task]}/model.safetensors"
            with deltazoo.open(archive) as z:
                rows = [("deltazoo restore", measured(lambda: run(PROGRAM, "restore", archive, "--task", task, "--base", base, "-o", "out", "-q"), clear)),
                        ("restore_model", measured(lambda: z.restore_model(task, base, "out"), clear))]
            rows.append(("safetensors: load_file, values read", first("", task, base, original)))
            rows += [(f"load_state_dict, {threads} thread{'s' * (threads > 1)}", first(archive, task, base, original, threads)) for threads in (1, 2)]
            for (what, (wall, used)), (_, (beside_wall, beside)) in zip(rows, (rows[0], rows[0], rows[2], rows[2], rows[2])):
                print(f"| {archive}, {task} | {what} | {wall:.2f} s | {used:.2f} s | {wall / beside_wall:.2f} | {used / beside:.2f} |", flush=True)
    pure = measured(lambda: deltazoo.open("exact.h5", "python").restore_model(zoo[0], base, "out"), clear, 1)
    print(f"| exact.h5, {zoo[0]} | restore_model, Python reader | {pure[0]:.1f} s | {pure[1]:.1f} s | | |")
    print(f"\nPeak memory of load_state_dict beyond the imports, in models: {float(run(sys.executable, '-c', PEAK, 'exact.h5', zoo[0], base)):.2f} (exact.h5), "
          f"{float(run(sys.executable, '-c', PEAK, 'auto.h5', zoo[0], base)):.2f} (auto.h5).\n")


def swaps(zoo, base, archive, swaps_made=100):
    paths = [restored(archive, task, base) for task in zoo[:3]]
    model, wrong = model_of(base), 0
    begun = time.monotonic()
    with deltazoo.open(archive) as z:
        live = z.load_into(model, zoo[0], base)
        for k in range(1, swaps_made):
            live.load(zoo[k % 3])
            if k % 10 == 0 or k > swaps_made - 4:
                wrong += not is_like(model, paths[k % 3])
        took = (time.monotonic() - begun) / swaps_made
        live.unload()
    wrong += not is_like(model, base)
    print(f"{archive}: {swaps_made} swaps between {', '.join(zoo[:3])} in a live model, {took:.2f} s each; compared with restored files 13 times and with the base at "
          f"the end: {wrong} differ.\n")


def adapters(zoo, base):
    print("| task | rank | bytes | CPU time | energy of the linear layers' deltas | of all |")
    print("|---|---|---|---|---|---|")
    for task in zoo[:3]:
        for rank in (16, 64):
            begun = cpu()
            out = run(PROGRAM, "export", "exact.h5", "--task", task, "--base", base, "--format", "lora", "--rank", rank, "-o", "lora", "-q", "--force")
            used = cpu() - begun
            energy, everything = out.split("energy kept: ")[1].split(" %")[0], out.split(",\n")[-1].split(" %")[0]
            print(f"| {task} | {rank} | {os.path.getsize('lora/adapter_model.safetensors') / 1e6:.1f} MB | {used:.1f} s | {energy} % | {everything} % |")
    print()


def patches(zoo, base):
    print("| archive, task | elements that differ | bytes of the patch | patched base is the restored model |")
    print("|---|---|---|---|")
    for archive in ("exact.h5", "auto.h5", "sparse.h5"):
        for task in zoo[:3]:
            out = run(PROGRAM, "export", archive, "--task", task, "--base", base, "--format", "patch", "-o", "p.safetensors", "-q", "--force")
            tensors = read_all(f"{base}/model.safetensors")
            deltazoo.open_patch("p.safetensors").apply(tensors)
            same = is_like(live_model(tensors), restored(archive, task, base))
            print(f"| {archive}, {task} | {out.split('task ' + task + ', ')[1].split(' %')[0]} % | {os.path.getsize('p.safetensors') / 1e6:.1f} MB | {'yes' if same else 'NO'} |")
    print()


def main():
    global zoo_paths
    manifest = os.path.abspath(sys.argv[1])
    os.chdir(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    torch.set_num_threads(1)
    for archive, how in (("exact.h5", ["--recipe", "lossless"]), ("auto.h5", []), ("sparse.h5", ["--recipe", "ultradelta"])):
        run(PROGRAM, "compress", manifest, "-o", archive, "-q", "--force", *how)
    zoo = [t["name"] for t in json.loads(run(PROGRAM, "info", "exact.h5", "--json"))["tasks"]]
    lines = open(manifest).read().splitlines()
    where = os.path.dirname(manifest)
    base = os.path.join(where, next(line.split(":", 1)[1].strip() for line in lines if line.startswith("base:")))
    zoo_paths = {task: os.path.join(where, next(line.split("path:")[1].strip(" }") for line in lines if f"name: {task}," in line)) for task in zoo}
    print("## The package\n")
    print(f"Real fine-tunes ({', '.join(zoo)}; {os.path.getsize(f'{base}/model.safetensors') / 1e6:.0f} MB each, BF16): exactly (`exact.h5`, recipe lossless), by the default method (`auto.h5`) and")
    print(f"by UltraDelta (`sparse.h5`). One rank of the program; least of {TIMES} runs. CPU time is what other load of the machine disturbs least.\n")
    speeds(zoo, base)
    for archive in ("exact.h5", "auto.h5"):
        swaps(zoo, base, archive)
    adapters(zoo, base)
    patches(zoo, base)
    print(f"deltazoo {deltazoo.__version__}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}; load at the end {os.getloadavg()[0]:.1f}. `tests/python/bench.py` makes this part.")


if __name__ == "__main__":
    main()

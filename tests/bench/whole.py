#!/usr/bin/python3
"""Whole models: LLaMA-shaped checkpoints as they are on disk, compressed with embeddings and head at sparsity 0.90, by the default, and with both exact.

  whole.py DIR [--small]     works in DIR (about 9 GB, removed at the end; --small: 60 MB, for make check)

Two zoos, bf16, three shards, 32001 rows against the base's 32000: an untied head, and a tied one that the base leaves out and the task writes twice. Both are
made by synth (normal deltas in the linear layers, all of the head's rows and 1 % of the embedding's moved). Each is compressed by two ranks with
--mem-per-rank 512M, verified and restored; what is exact by its rule must come back so. Prints a table; exit 1 when a promise is broken.
"""
import argparse
import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from launcher import UNBOUND, environment  # noqa: E402

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
DELTAZOO = os.environ.get("DELTAZOO", os.path.join(ROOT, "build", "deltazoo"))
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ENV = environment(**UNBOUND)


def run(*args, ranks=2):
    command = ["mpirun", "-n", str(ranks), DELTAZOO] if ranks > 1 else [DELTAZOO]
    done = subprocess.run(command + list(args), env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def tensors(folder):
    """name -> (dtype, shape, bytes as an array), in the order of the files."""
    found = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            raw = np.memmap(os.path.join(folder, file), np.uint8, "r")
            length = struct.unpack("<Q", raw[:8].tobytes())[0]
            for name, entry in json.loads(raw[8:8 + length].tobytes()).items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    found[name] = (entry["dtype"], entry["shape"], raw[8 + length + begin:8 + length + end])
    return found


def save(folder, model, shards):
    """The model as a Hugging Face directory."""
    os.makedirs(folder)
    total = sum(len(t[2]) for t in model.values())
    parts, held = [{}], 0
    for name, tensor in model.items():
        if held and held + len(tensor[2]) > total / shards * 1.05 and len(parts) < shards:
            parts.append({})
            held = 0
        parts[-1][name] = tensor
        held += len(tensor[2])
    where = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, (dtype, shape, data) in part.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
            at += len(data)
            where[name] = file
        text = json.dumps(header).encode()
        with open(os.path.join(folder, file), "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for _, _, data in part.values():
                out.write(data.data)
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as out:
        json.dump({"metadata": {"total_size": total}, "weight_map": where}, out)
    with open(os.path.join(folder, "config.json"), "w") as out:
        json.dump({"model_type": "llama"}, out)
    return len(parts)


def with_pad_row(tensor):
    dtype, shape, data = tensor
    row = np.random.default_rng(5).integers(0, 256, len(data) // shape[0], np.uint8)
    row[1::2] &= 0x3D  # small numbers
    return dtype, [shape[0] + 1] + shape[1:], np.concatenate([data, row])


def make(folder, shape, layers):
    run("synth", "--shape", shape, "--layers", str(layers), "--tasks", "1", "--dtype", "bf16", "--tails", "gauss", "--seed", "11", "-q", "-o", f"{folder}/made", ranks=1 if layers == 4 else 2)
    for kind in "untied", "tied":
        base, task = dict(tensors(f"{folder}/made/base")), dict(tensors(f"{folder}/made/task-1"))
        task[EMBED], task[HEAD] = with_pad_row(task[EMBED]), with_pad_row(task[HEAD])
        if kind == "tied":
            task[HEAD] = task[EMBED]
            del base[HEAD]
        save(f"{folder}/{kind}/base", base, 3)
        if save(f"{folder}/{kind}/task", task, 3) != 3:
            sys.exit("not three shards")
        with open(f"{folder}/{kind}/zoo.yaml", "w") as out:
            out.write("base: base\ntasks:\n  - {name: task, path: task}\n")
    shutil.rmtree(f"{folder}/made")


def check_restored(folder):
    original, restored = tensors(f"{folder}/task"), tensors(f"{folder}/restored")
    if sorted(os.listdir(f"{folder}/task")) != sorted(set(os.listdir(f"{folder}/restored")) - {"deltazoo.json"}) or list(original) != list(restored):
        sys.exit(f"{folder}: another listing")
    policies = {t["name"]: t["policy"] for t in json.loads(run("info", f"{folder}/a.h5", "--task", "task", "--json", ranks=1))["tasks"][0]["tensors"]}
    for name, (dtype, shape, data) in original.items():
        exact = policies[name] in ("lossless", "equal")
        tail = data[-(len(data) // shape[0]):] if name in (EMBED, HEAD) else data[:0]
        if restored[name][:2] != (dtype, shape) or (exact and not np.array_equal(restored[name][2], data)):
            sys.exit(f"{folder}: {name} is not exact")
        if len(tail) and not np.array_equal(restored[name][2][-len(tail):], tail):
            sys.exit(f"{folder}: {name}: the row beyond the base's is not exact")
    if policies[HEAD] == "tied" and not np.array_equal(restored[HEAD][2], restored[EMBED][2]):
        sys.exit(f"{folder}: the tie is not restored")
    return policies


def measure(folder, kind, recipe, least, most_memory):
    zoo = f"{folder}/{kind}"
    run("compress", f"{zoo}/zoo.yaml", "-o", f"{zoo}/a.h5", "-q", "--force", "--recipe", recipe, "--mem-per-rank", "512M", "--report", f"{zoo}/report.json")
    with open(f"{zoo}/report.json", encoding="utf-8") as file:
        report = json.load(file)
    run("verify", f"{zoo}/a.h5", "--base", f"{zoo}/base", "-q", ranks=1)
    run("restore", f"{zoo}/a.h5", "--task", "task", "--base", f"{zoo}/base", "-o", f"{zoo}/restored", "-q", ranks=1)
    policies = check_restored(zoo)
    shutil.rmtree(f"{zoo}/restored")
    ratio = report["tasks"][0]["source_bytes"] / report["archive_bytes"]
    memory, top = report["job"]["peak_memory_bytes"], report["largest"][0]
    print(f"| {kind} ({HEAD}: {policies[HEAD]}) | {recipe} | {report['tasks'][0]['source_bytes'] / 1e6:.1f} MB | {report['archive_bytes'] / 1e6:.2f} MB | "
          f"{ratio:.1f} | {report['job']['seconds']:.1f} s | {memory / 1e6:.0f} MB | {top['name']} ({top['policy']}), {100 * top['share']:.0f} % |", flush=True)
    if ratio < least:
        sys.exit(f"{kind}: ratio {ratio:.1f} is below {least}")
    if memory > most_memory:
        sys.exit(f"{kind}: {memory / 1e6:.0f} MB a rank are above {most_memory / 1e6:.0f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    folder = os.path.join(args.folder, f"deltazoo-whole-{os.getpid()}")
    os.makedirs(folder)
    try:
        make(folder, *(("tiny", 4) if args.small else ("llama2-7b", 2)))
        print("| head | recipe | model | archive, everything counted | ratio | 2 ranks | memory per rank | most bytes |\n|---|---|---|---|---|---|---|---|")
        for kind in "untied", "tied":
            measure(folder, kind, "whole", 25 if args.small else 40, 600e6)
            if not args.small:
                measure(folder, kind, "structure", 60, 600e6)
                measure(folder, kind, "llama", 1, 600e6)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Exact coding in memory beside zipnn's delta mode: bytes and processor time of one core, both directions.

usage: exact.py ZOO [--elements 12582912] [--python PYTHON]     ZOO: a folder with base and task-1, 16-bit floats, in model.safetensors
       exact.py --zipnn WORDS BASE DTYPE                        what PYTHON, which has zipnn, runs

Both take the largest tensors' elements, 4 Mi at a time; ours by tests/bench/bench_lossless.c, zipnn with delta_compressed_type="byte" and one thread; least of
the rounds. Prints a table in Markdown."""
import argparse
import json
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
TILE, ROUNDS = 4 << 20, 5


def tensors(path):
    """name -> (dtype, place and length in the file) of a safetensors file."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        head = json.loads(file.read(length))
    return {name: (t["dtype"], 8 + length + t["data_offsets"][0], t["data_offsets"][1] - t["data_offsets"][0]) for name, t in head.items() if name != "__metadata__"}


def take(zoo, elements, folder):
    """Files of the largest tensors' elements, of the task and of the base, and their dtype."""
    task, base = (os.path.join(zoo, model, "model.safetensors") for model in ("task-1", "base"))
    of_task, of_base = tensors(task), tensors(base)
    names = sorted((n for n in of_task if of_task[n][0] in ("BF16", "F16") and n in of_base and of_base[n][::2] == of_task[n][::2]), key=lambda n: (-of_task[n][2], n))
    with open(os.path.join(folder, "words"), "wb") as words, open(os.path.join(folder, "base"), "wb") as predictor, open(task, "rb") as t, open(base, "rb") as b:
        for name in names:
            length = min(of_task[name][2], 2 * elements - words.tell())
            for source, at, out in ((t, of_task[name][1], words), (b, of_base[name][1], predictor)):
                source.seek(at)
                out.write(source.read(length))
    return words.name, predictor.name, of_task[names[0]][0]


def user_seconds():
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def by_zipnn(words, base, dtype):
    from zipnn import ZipNN
    name, count, nbytes, into, out = {"BF16": "bfloat16", "F16": "float16"}[dtype], 0, 0, 0.0, 0.0
    with open(words, "rb") as w, open(base, "rb") as b:
        while mine := w.read(2 * TILE):
            theirs, took = b.read(2 * TILE), []
            for _ in range(ROUNDS):
                coder = ZipNN(bytearray_dtype=name, input_format="byte", delta_compressed_type="byte", threads=1)
                begun = user_seconds()
                coded = coder.compress(bytearray(mine), delta_second_data=bytearray(theirs))
                middle = user_seconds()
                back = coder.decompress(coded, delta_second_data=bytearray(theirs))
                took.append((middle - begun, user_seconds() - middle))
                if bytes(back) != mine:
                    sys.exit("zipnn does not give back what it got")
            count, nbytes = count + len(mine) // 2, nbytes + len(coded)
            into, out = into + min(t[0] for t in took), out + min(t[1] for t in took)
    print(f"{count} elements: {nbytes / count:.4f} bytes, {1e9 * into / count:.2f} ns in, {1e9 * out / count:.2f} ns out, each")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("zoo", nargs="?")
    args.add_argument("--elements", type=int, default=3 * TILE)
    args.add_argument("--python", default=os.path.join(ROOT, "build", "venv-bench", "bin", "python"))
    args.add_argument("--zipnn", nargs=3)
    a = args.parse_args()
    if a.zipnn:
        return by_zipnn(*a.zipnn)
    with tempfile.TemporaryDirectory(prefix="dz-exact-") as folder:
        files = take(a.zoo, a.elements, folder)
        print("| coder | bytes an element | in, ns an element | out, ns an element |\n|---|---|---|---|")
        for name, command in (("deltazoo", [os.path.join(ROOT, "build", "release", "bench", "bench_lossless")]), ("zipnn, delta mode", [a.python, __file__, "--zipnn"])):
            said = subprocess.run([*command, *files], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
            found = re.search(r"([\d.]+) bytes, ([\d.]+) ns in, ([\d.]+) ns out", said)
            print(f"| {name} | {' | '.join(found.groups())} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

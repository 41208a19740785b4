#!/usr/bin/python3
"""Holds the Python reader (src/python/deltazoo.py, written from src/archive/FORMAT.md) against the C program's files.

  check.py ARCHIVE --task NAME --base PATH --against DIR   restores the task and compares it with DIR, byte for byte
  check.py ARCHIVE --task NAME --base PATH --original DIR  compares it with the fine-tuned model: exact tensors are exact, and lossy ones keep
                                                           just the levels that FORMAT.md "How the writer decides" says the writer keeps
  check.py ARCHIVE --check                                 walks all tasks: structure and checksums, no base needed

Exit codes: 0 all is well, 1 something differs or is damaged.
"""

import argparse
import os
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src", "python"))
import deltazoo
from deltazoo import ABSENT, EQUAL, LOSSLESS, SIZES, TIED, ULTRADELTA, element_numbers, kept_body, need, safetensors_header, to_f32, together


def check_levels(row, base, original):
    """Kept are the elements and levels that the quota asks for."""
    if row.common == 0 or row.bits > 8:  # rotated deltas and values are no levels
        return
    delta = to_f32(original[:row.common * row.tensor.size].tobytes(), row.tensor.dtype) - \
        to_f32(base[:row.common * row.base.size].tobytes(), row.base.dtype)
    lo, hi = delta.min(), delta.max()
    step = (hi - lo) / np.float32((1 << row.bits) - 1)
    need((lo, step) == (row.lo, row.step), f"{row.tensor.name}: lo {row.lo} and step {row.step}, not {lo} and {step}")
    levels = np.zeros(row.common, np.uint8) if step == 0 else np.rint((delta - lo) / step).astype(np.uint8)
    members = np.bincount(levels, minlength=1 << row.bits).tolist()
    zero = [row.lo + np.float32(g) * row.step == 0 for g in range(1 << row.bits)]
    z = sum(n for n, is_zero in zip(members, zero) if is_zero) / row.common
    tiles = []
    for k, ((begin, end, shared), body) in enumerate(zip(row.tiles(), row.bodies())):
        if shared:
            tiles.append((begin, end, row.tile_key(k), *together([kept_body(body, end - begin, row.bits, row.tile_key(k), 1 - float(row.sparsity))])[0]))
    quota = np.bincount(np.concatenate([t[4] for t in tiles]), minlength=1 << row.bits).tolist()

    def quotas(sparsity):
        pruned = max(0.0, (sparsity - z) / (1 - z)) if z < 1 else 0.0
        return [0 if is_zero else n - round(n * pruned) for n, is_zero in zip(members, zero)]

    # the writer's sparsity is an f64 that the index rounds to f32: any that rounds to it will do
    half = float(np.spacing(row.sparsity)) / 2
    least, most = quotas(float(row.sparsity) + half), quotas(float(row.sparsity) - half)
    for g in range(1 << row.bits):
        need(least[g] <= quota[g] <= most[g], f"{row.tensor.name}: {quota[g]} elements of level {g}, where {least[g]} to {most[g]} are due")
    seen = [0] * (1 << row.bits)
    for k, (begin, end, key, positions, found) in enumerate(tiles):
        u = element_numbers(end - begin, key)
        wanted = []
        for g in range(1 << row.bits):
            mine = np.flatnonzero(levels[begin:end] == g)
            if len(mine):
                n, m, h = members[g], seen[g], len(mine)
                share = (quota[g] * (m + h) + n // 2) // n - (quota[g] * m + n // 2) // n
                wanted.append(mine[np.argsort(u[mine], kind="stable")[:share]])
                seen[g] += h
        wanted = np.sort(np.concatenate(wanted))
        need(np.array_equal(wanted, positions), f"{row.tensor.name}: tile {k} keeps {len(positions)} elements, others than the {len(wanted)} due")
        need(np.array_equal(levels[begin:end][wanted], found), f"{row.tensor.name}: tile {k} has other levels")


def check_original(archive, task, base_path, original_path):
    """The writer did with the fine-tuned model what it says. Returns the numbers of exact and of lossy tensors."""
    base, original = deltazoo.Base(base_path), deltazoo.Base(original_path).tensors
    rows = [row for row in archive._rows(task) if row.policy != ABSENT]
    need({row.tensor.name for row in rows} == set(original), f"{original_path}: its tensors are not those of {task}")
    exact = lossy = 0
    for row in rows:
        name = row.tensor.name
        dtype, shape, raw = original[name]
        restored = archive.restore_bytes(task, name, base)
        need((dtype, shape) == (row.tensor.dtype, row.tensor.shape), f"{name}: another dtype or shape")
        if row.policy in (LOSSLESS, EQUAL) or row.policy == TIED and row.tied.policy in (LOSSLESS, EQUAL):
            need(np.array_equal(restored, raw), f"{name}: not the original's bytes")
            exact += 1
        elif row.policy == ULTRADELTA:
            rest = row.common * row.tensor.size
            need(np.array_equal(restored[rest:], raw[rest:]), f"{name}: rows beyond the base's are not exact")
            check_levels(row, base[row.base.name][2], raw)
            lossy += 1
        elif row.policy == TIED:
            need(np.array_equal(raw, original[row.tied.tensor.name][2]), f"{name}: tied to another tensor")
            lossy += 1
    return exact, lossy


def first_difference(mine, theirs):
    n = min(len(mine), len(theirs))
    differ = np.flatnonzero(np.frombuffer(mine, np.uint8, n) != np.frombuffer(theirs, np.uint8, n))
    return int(differ[0]) if len(differ) else n


def tree(directory):
    return {os.path.relpath(os.path.join(where, name), directory) for where, _, names in os.walk(directory) for name in names}


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def compare(here, there):
    """What differs first between two directories, or None."""
    mine, theirs = tree(here), tree(there)
    for path in sorted(mine ^ theirs):
        return f"{path}: not in {there if path in mine else 'the archive'}"
    for path in sorted(mine):
        a, b = read(here, path), read(there, path)
        if a == b:
            continue
        at, inside = first_difference(a, b), ""
        if path.endswith(".safetensors"):
            entries, data = safetensors_header(a, path)
            for name, dtype, _, begin, end in entries:
                if begin <= at - data < end:
                    size = SIZES.get(dtype, 1)
                    element = (at - data - begin) // size
                    where = data + begin + element * size
                    inside = f", {name} element {element}: {a[where:where + size][::-1].hex()} here, {b[where:where + size][::-1].hex()} there"
        return f"{path}: differs from byte {at} on ({len(a)} bytes here, {len(b)} there){inside}"
    return None


def main(words=None):
    parser = argparse.ArgumentParser(description="holds the Python reader against the C program's files")
    parser.add_argument("archive")
    parser.add_argument("--task")
    parser.add_argument("--base")
    parser.add_argument("--against", metavar="DIR")
    parser.add_argument("--original", metavar="DIR")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(words)
    wants_task = options.against or options.original
    if not (options.check or wants_task) or wants_task and not (options.task and options.base):
        parser.error("--check, or --task, --base and one of --against and --original")
    try:
        with deltazoo.open(options.archive) as archive:
            if options.check:
                ntasks, ntensors, nblocks = archive.check()
                print(f"sound: {ntasks} tasks, {ntensors} tensors, {nblocks} blocks")
            if options.against:
                with tempfile.TemporaryDirectory() as folder:
                    files = archive.restore_model(options.task, options.base, folder)
                    difference = compare(folder, options.against)
                if difference:
                    print(difference)
                    return 1
                print(f"identical: {len(archive.tensors(options.task))} tensors, {len(files)} files")
            if options.original:
                exact, lossy = check_original(archive, options.task, options.base, options.original)
                print(f"faithful: {exact} exact tensors, {lossy} lossy")
    except (deltazoo.Error, OSError, KeyError, ValueError) as error:
        print(f"damaged: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

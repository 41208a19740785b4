"""The worked example of FORMAT.md is what the program writes, and what it says of it is what the reader decodes."""
import os
import re
import sys

import h5py
import numpy as np

from common import ROOT, check, equal, good, read, st_bytes, st_parse, with_scratch, write

sys.path.insert(0, os.path.join(ROOT, "src", "python"))
import deltazoo  # noqa: E402

EXAMPLE = read(os.path.join(ROOT, "src", "archive", "FORMAT.md")).decode().split("## 10. ")[1].split("\n## ")[0]
DELTAS = [-3, 1, 1, -1, 3, -1, 1, -1, -1, 1, 3, -1, 1, 1, -1, -3]  # eighths
RECIPE = """bits: 2
sparsity: 0.5
allocation: uniform
tensors:
  - {match: "*", policy: ultradelta}
"""


def numbers(pattern):
    return re.findall(pattern, EXAMPLE)


@with_scratch
def test_format_s_worked_example_is_what_the_program_writes(folder):
    for name, values in (("base", np.ones(16)), ("task", 1 + np.array(DELTAS) / 8)):
        write(f"{folder}/{name}.safetensors", st_bytes([("w", "F32", (4, 4), values.astype("<f4").tobytes())]))
    write(f"{folder}/zoo.yaml", "base: base.safetensors\ntasks:\n  - {name: t, path: task.safetensors}\n")
    write(f"{folder}/r.yaml", RECIPE)
    check("".join("    " + line + "\n" for line in RECIPE.splitlines()) in EXAMPLE, "the recipe is another one in FORMAT.md")
    good(["compress", "zoo.yaml", "-o", "a.h5", "--recipe", "r.yaml", "-q"], cwd=folder)
    with h5py.File(f"{folder}/a.h5") as file:
        payload, row, record = file["tasks/t/payload"][()].tobytes(), file["tasks/t/index"][0], file["tasks/t"].attrs["record"]
    dump = "".join(numbers(r"(?m)^    [0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)$")).replace(" ", "")
    equal(dump, payload.hex(), "the payload's hex dump")
    with deltazoo.open(f"{folder}/a.h5") as z:
        tensor, _ = z._row("t", "w")
        positions, levels = deltazoo.together(tensor.kept_bodies())[0]
        u = deltazoo.element_numbers(16, tensor.tile_key(0))
        value = z.restore("t", "w", f"{folder}/base.safetensors").reshape(-1)
        where = z.delta_sparse("t", "w")
    equal(numbers(r"key ([0-9a-f]{16})"), [f"{int(record['key']):016x}", f"{tensor.key:016x}", f"{tensor.tile_key(0):016x}"], "task, tensor and tile key")
    table = [line.split("|")[1:-1] for line in EXAMPLE.splitlines() if re.match(r"\| \d+ \| [0-9a-f]{8} ", line)]
    equal([(int(a), b.strip()) for a, b, *_ in table], [(i, f"{x:08x}") for i, x in enumerate(u.tolist())], "the elements' numbers")
    equal([(int(t[0]), int(t[3])) for t in table if t[3].strip() not in ("", "skip")], list(zip(positions.tolist(), levels.tolist())), "kept elements and levels")
    equal([float(t[4]) for t in table], value.tolist(), "restored values")
    equal([float(row[k]) for k in ("lo", "step", "scale")], [-0.375, 0.25, 2.0], "lo, step and scale")
    good(["restore", "a.h5", "--task", "t", "--base", "base.safetensors", "-o", "r", "-q"], cwd=folder)
    equal(st_parse(f"{folder}/r/task.safetensors" if os.path.exists(f"{folder}/r/task.safetensors") else f"{folder}/r")["w"][2], value.astype("<f4").tobytes(), "what the program restores")
    check(len(where[0]) > 0, "no delta")

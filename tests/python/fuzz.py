#!/usr/bin/env python3
"""Fuzzes the Python package with changed archives: whatever is in the file, calls return or raise deltazoo.Error (or MemoryError), in one line.

  tests/python/fuzz.py SECONDS ARCHIVE...     with the package on PYTHONPATH; ends with the count of inputs; 1 if one crashed, and where it is

Inputs are the archives with bits flipped, bytes overwritten, pieces exchanged between them, or cut short. They are read in a child process, a hundred in
each: one that a signal ends, or that takes a minute, is a crash."""
import os
import random
import shutil
import signal
import sys
import tempfile
import time

import deltazoo
import numpy as np

EACH = 100  # inputs of a child


def changed(data, others, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        how, at = rng.randrange(6), rng.randrange(len(data))
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at] = rng.choice((0, 1, 127, 128, 255))
        elif how == 2:
            data[at:at + 8] = rng.choice((0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 63, 2 ** 64 - 1, len(data))).to_bytes(8, "little")
        elif how == 3:
            other = rng.choice(others)
            begin, n = rng.randrange(len(other)), rng.randrange(1, 4096)
            data[at:at + n] = other[begin:begin + n]
        elif how == 4:
            n = rng.randrange(1, 64)
            data[at:at + n] = bytes(rng.randrange(256) for _ in range(n))
        else:
            del data[rng.randrange(max(at, 1)) if rng.random() < 0.1 else len(data) - rng.randrange(1, 64):]
        if not data:
            return b"\0"
    return bytes(data)


def read(path, engine, base):
    """All that the package does with an archive."""
    def tried(call, *args, **options):
        try:
            return call(*args, **options)
        except (deltazoo.Error, MemoryError) as error:
            if "\n" in str(error):
                raise SystemExit(f"an error of several lines: {error!r}") from None

    def use(z):
        repr(z), z.base, z.lost
        for task in z.tasks[:4]:
            tried(z.task, task)
            for t in (tried(z.tensors, task) or [])[:12]:
                for call in (z.delta_sparse, z.restore, z.base_of):
                    tried(call, task, t.name)
                tried(z.restore_bytes, task, t.name, base)
                tried(z.delta, task, t.name, base)
            tried(z.load_state_dict, task, base, "np")
        tried(z.verify)

    z = tried(deltazoo.open, path, engine)
    if z is not None:
        with z:
            tried(use, z)


def child(seed, seeds, base, place):
    rng = random.Random(seed)
    for k in range(EACH):
        with open(f"{place}/{seed}-{k}.h5", "wb") as file:
            file.write(changed(rng.choice(seeds), seeds, rng))
        signal.alarm(60)
        read(f"{place}/{seed}-{k}.h5", "native", base)
        signal.alarm(0)
        os.remove(f"{place}/{seed}-{k}.h5")


def main():
    seconds, paths = float(sys.argv[1]), sys.argv[2:]
    base = os.environ.get("DZ_FUZZ_BASE")
    seeds = [open(path, "rb").read() for path in paths]
    place, end, seed, crashes = tempfile.mkdtemp(), time.monotonic() + seconds, int(os.environ.get("DZ_FUZZ_SEED", "1")) * 1000000, 0
    inputs = 0
    while time.monotonic() < end:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                np.random.seed(0)
                child(seed, seeds, base, place)
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            crashes += 1
            for name in os.listdir(place):
                shutil.copy(f"{place}/{name}", f"fuzz-{name}")
                print(f"crash: fuzz-{name}", flush=True)
                os.remove(f"{place}/{name}")
        inputs += EACH
        seed += 1
    shutil.rmtree(place)
    print(f"{inputs} inputs, {crashes} crashes")
    sys.exit(bool(crashes))


if __name__ == "__main__":
    main()

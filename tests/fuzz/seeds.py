"""First inputs of the fuzz targets that read files: seeds.py DIR, with DIR/safetensors, DIR/torch and DIR/yaml. Real small files in all their kinds."""
import glob
import io
import json
import os
import struct
import sys

import numpy as np
import torch

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
out = sys.argv[1]
count = 0


def put(target, content):
    global count
    count += 1
    with open(f"{out}/{target}/real-{count:03}", "wb") as f:
        f.write(content)


def header(entries, **more):
    at, head = 0, dict(more)
    for name, dtype, shape, nbytes in entries:
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    put("safetensors", struct.pack("<I", at) + json.dumps(head).encode())


header([])
header([("a", "BF16", [4, 8], 64), ("b.weight", "F32", [3], 12), ("c", "I64", [], 8), ("d", "F8_E4M3", [2, 2, 2], 8)])
header([("empty", "F16", [0, 5], 0), ("é\u2028", "NEW", [3], 7), ("b", "BOOL", [1] * 8, 1)], __metadata__={"format": "pt"})

for path in sorted(glob.glob(f"{ROOT}/config/recipes/*.yaml")):
    with open(path, "rb") as f:
        put("yaml", b"r" + f.read())  # 'r' is odd: a recipe
put("yaml", b"bbase: base\ntasks:\n  - {name: math, path: wizardmath}\n  - name: code\n    path: \"../code\"\n")
put("yaml", b"q" + b"sparsity: 0.97\nbits: 4\nmethod: auto\ntarget_ratio: null\ntensors:\n- {match: '*', policy: drop, factor: 1.5}\n")



def without_filters(path, plain):
    """The archive once more, its tables as they are."""
    import h5py
    committed = {}  # types of the new file, by name

    def attributes(of, to):
        for name in of.attrs:
            old = h5py.h5a.open(of.id, name.encode())
            value = np.zeros((), old.dtype)
            old.read(value)
            h5py.h5a.create(to, name.encode(), type_in_new(old.get_type()), h5py.h5s.create(h5py.h5s.SCALAR)).write(value)

    def type_in_new(kind):
        return committed[h5py.h5i.get_name(kind)] if kind.committed() else kind

    def copy(of, to):
        attributes(of, to)
        for name, child in of.items():
            if isinstance(child, h5py.Group):
                props = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
                props.set_attr_phase_change(64, 0)
                copy(child, h5py.h5g.create(to, name.encode(), gcpl=props))
            elif isinstance(child, h5py.Datatype):
                committed[h5py.h5i.get_name(child.id)] = kind = child.id.copy()
                kind.commit(to, name.encode())
                attributes(child, kind)
            else:
                props = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                props.set_obj_track_times(False)
                data = child[()]
                if child.chunks:
                    props.set_chunk((max(1, len(data)),))
                elif not len(data):
                    continue
                new = h5py.h5d.create(to, name.encode(), type_in_new(child.id.get_type()), h5py.h5s.create_simple((len(data),)), props)
                if len(data):
                    new.write(h5py.h5s.ALL, h5py.h5s.ALL, data)

    create, access = h5py.h5p.create(h5py.h5p.FILE_CREATE), h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    create.set_attr_phase_change(64, 0)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    with h5py.File(path, "r") as old:
        new = h5py.h5f.create(plain.encode(), h5py.h5f.ACC_TRUNC, create, access)
        copy(old, h5py.h5g.open(new, b"/"))
        committed.clear()  # open types keep the file open
        new.close()


def archives():
    """Small archives; each also with tables that are neither deflated nor checksummed, so that changed bytes are changed numbers."""
    import subprocess
    import tempfile
    program = os.environ.get("DELTAZOO", f"{ROOT}/build/deltazoo")
    with tempfile.TemporaryDirectory() as box:
        subprocess.run([sys.executable, f"{ROOT}/tests/flips/zoo.py", box, "small"], check=True)
        with open(f"{box}/zoo.yaml") as f:
            manifest = f.read()
        task = next(line for line in manifest.splitlines() if "path:" in line).split("path:")[1].strip(" }")
        with open(f"{box}/twin.yaml", "w") as f:  # the base, and rows that refer to another task's
            f.write(manifest + f"  - {{name: twin, path: {task}}}\n  - {{name: child, path: {task}, parent: twin}}\n")
        for setting, made, more in (("positions=seeded", "zoo", []), ("positions=golomb", "zoo", []), ("method=auto", "zoo", []), ("quality=lossless", "twin", ["--with-base"])):
            path, plain = f"{box}/{setting}.h5", f"{box}/{setting}-plain.h5"
            recipe = [] if more else ["--recipe", f"{box}/recipe.yaml"]
            subprocess.run([program, "compress", f"{box}/{made}.yaml", *recipe, "--set", setting, *more, "-q", "-o", path],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            without_filters(path, plain)
            for made in (path, plain):
                with open(made, "rb") as f:
                    put("archive", f.read())


archives()
models = [{"w": torch.ones(2, 3), "b": torch.arange(4).half()}, {"state_dict": {"w": torch.ones(2, 2).bfloat16()}, "epoch": 3, "lr": 0.1, "n": None},
          {"model": {"x": torch.nn.Parameter(torch.zeros(3)), "s": torch.tensor(1)}, "args": ("a", [1, 2], {"k": True})}]
shared = torch.arange(12).float()
models.append({"a": shared[:6].reshape(2, 3), "b": shared[6:], "c": shared})
models.append({"t": shared.reshape(3, 4).t(), "s": shared.reshape(3, 4)[:, 1::2], "e": shared[:1].expand(5), "w": shared.unfold(0, 4, 2), "c": torch.zeros(2, 3, dtype=torch.complex64).t()})
for model in models:
    for protocol in (2, 4):
        file = io.BytesIO()
        torch.save(model, file, pickle_protocol=protocol)
        put("torch", file.getvalue())

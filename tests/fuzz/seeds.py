"""First inputs of the fuzz targets that read files: seeds.py DIR, with DIR/safetensors, DIR/torch and DIR/yaml. Real small files in all their kinds."""
import glob
import io
import json
import os
import struct
import sys

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

try:
    import torch
except ImportError:
    sys.exit(0)  # tests/broken/torch has some
models = [{"w": torch.ones(2, 3), "b": torch.arange(4).half()}, {"state_dict": {"w": torch.ones(2, 2).bfloat16()}, "epoch": 3, "lr": 0.1, "n": None},
          {"model": {"x": torch.nn.Parameter(torch.zeros(3)), "s": torch.tensor(1)}, "args": ("a", [1, 2], {"k": True})}]
shared = torch.arange(12).float()
models.append({"a": shared[:6].reshape(2, 3), "b": shared[6:], "c": shared})
for model in models:
    for protocol in (2, 4):
        file = io.BytesIO()
        torch.save(model, file, pickle_protocol=protocol)
        put("torch", file.getvalue())

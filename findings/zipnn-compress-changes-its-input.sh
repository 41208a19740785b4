#!/usr/bin/env bash
# zipnn 0.5.4 with torch 2.13.0.
#
# One would believe: compressing a tensor reads it. A live model can be compressed and goes on working, and a tensor can be compressed twice,
# with two settings, to compare sizes.
#
# Seen: compress works in the caller's memory. Every element of a bfloat16 or float32 tensor, and of a bytearray, has another value
# afterwards: what was compressed comes back right from the result, but the original is gone, without an error or a warning. Compressed a second
# time, what comes back is the spoiled tensor. float16 tensors, numpy arrays and both inputs of a delta are left as they are, so a trial on
# one of those shows nothing. Compress a clone.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -q --disable-pip-version-check torch==2.13.0 zipnn==0.5.4 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PY'
import torch
from zipnn import ZipNN

torch.manual_seed(0)
true = torch.randn(512, 512)
share = {}
for dtype in (torch.bfloat16, torch.float32, torch.float16):
    original = true.to(dtype)
    tensor = original.clone()
    first = ZipNN(input_format="torch").compress(tensor)
    share[dtype] = (tensor != original).float().mean().item()
    back = ZipNN(input_format="torch").decompress(first)
    second = ZipNN(input_format="torch").compress(tensor)
    again = ZipNN(input_format="torch").decompress(second)
    print(f"{dtype}: {share[dtype]:.0%} of the tensor's elements changed by compress; first result restores it: {torch.equal(back, original)}, "
          f"second: {torch.equal(again, original)}")
    assert torch.equal(back, original)
    assert torch.equal(again, original) == (dtype == torch.float16)

layer = torch.nn.Linear(256, 256, dtype=torch.bfloat16)
x = torch.ones(1, 256, dtype=torch.bfloat16)
before = layer(x)
ZipNN(input_format="torch").compress(layer.weight.detach())
print("outputs of a live layer are what they were:", torch.equal(layer(x), before))
assert not torch.equal(layer(x), before)

array = true.numpy().copy()
ZipNN(input_format="numpy", bytearray_dtype="float32").compress(array)
print("numpy array is what it was:", bool((array == true.numpy()).all()))
assert (array == true.numpy()).all()

plain = bytearray(true.bfloat16().view(torch.int16).numpy().tobytes())
keep = bytes(plain)
ZipNN(bytearray_dtype="bfloat16").compress(plain)
print("bytearray is what it was:", plain == keep)
assert plain != keep

one, two = bytearray(true.bfloat16().view(torch.int16).numpy().tobytes()), bytearray((true * 1.001).bfloat16().view(torch.int16).numpy().tobytes())
keep_one, keep_two = bytes(one), bytes(two)
ZipNN(bytearray_dtype="bfloat16", delta_compressed_type="byte").compress(one, delta_second_data=two)
print("both inputs of a delta are what they were:", one == keep_one and two == keep_two)
assert one == keep_one and two == keep_two

assert share[torch.bfloat16] > 0.9 and share[torch.float32] > 0.9 and share[torch.float16] == 0
PY

#!/usr/bin/env bash
# torch 2.13.0.
#
# One would believe: whether torch.load (with weights_only=True, as it is by default) reads a checkpoint depends on the types in it. bytes,
# set and list are among those it reads.
#
# Seen: for bytes it depends on the value. A checkpoint with b"x" loads; the same checkpoint with b"" is refused, so a run whose byte string
# happens to be empty leaves a checkpoint that the same program cannot resume from. Pickle writes the two in different ways: b"x" through
# `_codecs.encode`, b"" as a call of `bytes`, which is not on the list. It also depends on how the file was saved: pickle_protocol=2 and 3
# load, 4 and 5, which torch.save takes without a word, do not, whatever is in the file.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PY'
import io
import pickle

import torch

def loads(value, protocol=2):
    file = io.BytesIO()
    torch.save({"weight": torch.ones(2), "state": value}, file, pickle_protocol=protocol)
    file.seek(0)
    try:
        return "loads" if torch.load(file)["state"] == value else "loads another value"
    except pickle.UnpicklingError:
        return "refused"

seen = {repr(v): loads(v) for v in (b"x", b"", "", [], set(), (), bytearray(), {})}
seen |= {f"protocol {p}": loads("text", p) for p in (2, 3, 4, 5)}
for what, result in seen.items():
    print(f"{what:<16} {result}")
refused = {what for what, result in seen.items() if result != "loads"}
assert refused == {"b''", "protocol 4", "protocol 5"}, refused
PY

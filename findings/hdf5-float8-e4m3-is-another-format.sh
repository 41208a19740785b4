#!/usr/bin/env bash
# h5py 3.16.0 with its HDF5 2.0.0, and ml_dtypes 0.6.0.
#
# One would believe: HDF5's new type H5T_FLOAT_F8E4M3, "8-bit FP8 E4M3", is the E4M3 in which models are quantised (float8_e4m3fn in torch,
# safetensors, JAX; OCP's OFP8): seven exponent steps up to 448, no infinity, one NaN. Then the bytes of such a weight, written to a dataset
# of that type, are read back as the weights.
#
# Seen: HDF5 reads the top exponent as IEEE does, as it has only one rule for all floats. Of the 254 finite numbers 14 are read as something
# else: 256 is infinity, and 288 to 448 are NaN. A quantiser scales each row so that its largest weight becomes 448, so every row has one, and
# no error says so. The other way round, a float above 240 is written as infinity, the byte that models read as 256. The bytes themselves
# are kept: store and read them as bytes (uint8 or opaque).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -q --disable-pip-version-check h5py==3.16.0 ml_dtypes==0.6.0 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PY'
import ctypes
import glob
import os

import h5py
import ml_dtypes
import numpy as np

ALL = h5py.h5s.ALL
print("HDF5", h5py.version.hdf5_version)
e4m3 = h5py.h5t.IEEE_F16LE.copy()
e4m3.set_fields(7, 3, 4, 0, 3)
e4m3.set_precision(8)
e4m3.set_size(1)
e4m3.set_ebias(7)
library = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(h5py.__file__), os.pardir, "h5py.libs", "libhdf5-*.so*"))[0])
predefined = ctypes.c_int64.in_dll(library, "H5T_FLOAT_F8E4M3_g").value
same_type = library.H5Tequal(ctypes.c_int64(e4m3.id), ctypes.c_int64(predefined)) == 1
print("the type used here is H5T_FLOAT_F8E4M3:", same_type)


def dataset(file, name, shape):
    return h5py.Dataset(h5py.h5d.create(file.id, name, e4m3, h5py.h5s.create_simple(shape)))


codes = np.arange(256, dtype=np.uint8)
means = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
with h5py.File("codes.h5", "w") as file:
    dataset(file, b"w", codes.shape).id.write(ALL, ALL, codes, mtype=e4m3)
with h5py.File("codes.h5") as file:
    read = file["w"].astype(np.float32)[...]
    kept = np.empty_like(codes)
    file["w"].id.read(ALL, ALL, kept, mtype=e4m3)
finite = np.isfinite(means)
wrong = finite & (read != means)
print(f"of {finite.sum()} finite numbers {wrong.sum()} are read as others:", ", ".join(f"{a:g} as {b:g}" for a, b in zip(means[wrong], read[wrong]) if a > 0))

rows = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32) * 0.02
scale = np.abs(rows).max(axis=1, keepdims=True) / 448
quantised = (rows / scale).astype(ml_dtypes.float8_e4m3fn)
with h5py.File("rows.h5", "w") as file:
    dataset(file, b"w", rows.shape).id.write(ALL, ALL, quantised.view(np.uint8), mtype=e4m3)
    dataset(file, b"of floats", (4,))[...] = np.float32([200, 240, 300, 448])
with h5py.File("rows.h5") as file:
    read = file["w"].astype(np.float32)[...]
    stored = np.empty(4, np.uint8)
    file["of floats"].id.read(ALL, ALL, stored, mtype=e4m3)
spoiled = ~np.isfinite(read)
print(f"a layer quantised by rows: {spoiled.any(axis=1).sum()} of {len(rows)} rows have NaN or infinity when read, {spoiled.mean():.1%} of all weights")
print("floats 200, 240, 300, 448 written to the type, as models read the bytes:", stored.view(ml_dtypes.float8_e4m3fn).astype(np.float32).tolist())

assert h5py.version.hdf5_version == "2.0.0" and same_type
assert wrong.sum() == 14 and np.isnan(read).any() and (kept == codes).all()
assert spoiled.any(axis=1).all()
assert stored.view(ml_dtypes.float8_e4m3fn).astype(np.float32).tolist()[2:] == [256, 256]
PY

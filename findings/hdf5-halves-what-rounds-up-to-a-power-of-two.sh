#!/usr/bin/env bash
# h5py 3.14.0 with its HDF5 1.14.6, and h5py 3.16.0 with its HDF5 2.0.0; ml_dtypes 0.6.0.
#
# One would believe: floats written to a dataset of a smaller float type are each rounded to a neighbour in that type. HDF5 converts on its own
# when memory and file differ in type; that is what a type for the file is for.
#
# Seen: some numbers come out as half of what they are. HDF5 converts such types in software; when a number is small (subnormal in the
# type) and rounding carries it to the next power of two, the exponent stays behind. HDF5 1.14 even goes on in that way: after one small
# number, 0.99999 further on in the array becomes 0.5 in float16, while the same array without the small number is right. HDF5 2.0.0 forgets
# in time, and lets the hardware do float16 in the byte order of the machine, but still halves small numbers in float16 of the other order
# and in its new 8-bit types. In FP8 E4M3 small is anything below 0.0156, that is, most weights of a model: one in ten is stored at half
# its size. Convert in numpy (ml_dtypes), and hand over the type that the file has.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/halves.py" <<'PY'
import h5py
import ml_dtypes
import numpy as np

version = h5py.version.hdf5_version
e4m3 = h5py.h5t.IEEE_F16LE.copy()
e4m3.set_fields(7, 3, 4, 0, 3)
e4m3.set_precision(8)
e4m3.set_size(1)
e4m3.set_ebias(7)
types = {"float16": (h5py.h5t.IEEE_F16LE, np.float16), "float16, other byte order": (h5py.h5t.IEEE_F16BE, np.float16), "FP8 E4M3": (e4m3, ml_dtypes.float8_e4m3)}


def through_file(values, file_type):
    with h5py.File("x.h5", "w") as file:
        h5py.Dataset(h5py.h5d.create(file.id, b"x", file_type, h5py.h5s.create_simple(values.shape)))[...] = values
    with h5py.File("x.h5") as file:
        return file["x"].astype(np.float32)[...]


alone, after = np.float32([0.99999]), np.float32([0.00001, 0.99999])
one = through_file(alone, h5py.h5t.IEEE_F16LE)[0], through_file(after, h5py.h5t.IEEE_F16LE)[1]
print(f"HDF5 {version}: 0.99999 in float16 is {one[0]:g}, after 0.00001 in the same array {one[1]:g}")

weights = (np.random.default_rng(0).standard_normal(100000) * 0.02).astype(np.float32)
halved = {}
for name, (file_type, numpy_type) in types.items():
    for kind, values in {"weights of 0.02": weights, "weights of 0.00002": weights * np.float32(1e-3)}.items():
        right = values.astype(numpy_type).astype(np.float32)
        halved[name, kind] = float(((through_file(values, file_type) == right / 2) & (right != 0)).mean())
    print(f"HDF5 {version}, {name}: stored at half their size:", ", ".join(f"{halved[name, kind]:.3%} of {kind}" for kind in ("weights of 0.02", "weights of 0.00002")))

if version == "1.14.6":
    assert one == (1.0, 0.5)
    assert halved["float16", "weights of 0.02"] > 0 and halved["float16", "weights of 0.00002"] > 0.005
else:
    assert version == "2.0.0" and one == (1.0, 1.0)
    assert halved["float16", "weights of 0.00002"] == 0 and halved["float16, other byte order", "weights of 0.00002"] > 0
assert halved["FP8 E4M3", "weights of 0.02"] > 0.09
PY
cd "$dir"
for version in 3.14.0 3.16.0; do
    python3 -m venv "$dir/venv-$version"
    "$dir/venv-$version/bin/python" -m pip install -q --disable-pip-version-check "h5py==$version" ml_dtypes==0.6.0 numpy==2.4.6
    "$dir/venv-$version/bin/python" -W ignore halves.py
done

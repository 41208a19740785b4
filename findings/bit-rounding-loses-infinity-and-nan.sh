#!/usr/bin/env bash
# netCDF4 1.7.5.1.post1 with its netCDF-C 4.10.1, and numcodecs 0.16.6 (the filters of Zarr).
#
# One would believe: rounding the mantissa before compression, which netCDF calls quantize_mode and Zarr BitRound, changes a number in its last
# digits. What is no number, infinity or NaN, stays what it is, so a run that overflowed can still be told by its files.
#
# Seen: the bits of these are rounded like the others. netCDF's GranularBitRound makes zero of infinity, of both signs, and with the other sign
# (it spares NaN); BitGroom makes NaN of every second +infinity or -infinity, depending on its place in the array; BitRound keeps them. numcodecs' BitRound
# keeps infinity, but makes -0.0 of the NaN 0x7fffffff, by carry into the sign; this is the NaN that NVIDIA documents for its GPUs, while the one numpy
# writes stays, so a test on a CPU shows nothing. All but BitGroom make infinity of the largest float. Look for values that are not
# finite before writing.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -q --disable-pip-version-check netCDF4==1.7.5.1.post1 numcodecs==0.16.6 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PY'
import netCDF4
import numpy as np
from numcodecs import BitRound

names = ["inf", "inf", "-inf", "-inf", "numpy's NaN", "a GPU's NaN", "largest float", "a weight"]
values = np.array([0x7F800000, 0x7F800000, 0xFF800000, 0xFF800000, 0x7FC00000, 0x7FFFFFFF, 0x7F7FFFFF, 0x3CA3D70A], np.uint32).view(np.float32)


def by_netcdf(mode, digits):
    with netCDF4.Dataset("x.nc", "w") as file:
        file.createDimension("n", values.size)
        file.createVariable("w", "f4", ("n",), zlib=True, significant_digits=digits, quantize_mode=mode)[:] = values
    with netCDF4.Dataset("x.nc") as file:
        return np.asarray(file["w"][:])


def by_numcodecs(bits):
    codec = BitRound(bits)
    return codec.decode(codec.encode(values.copy())).view(np.float32)


print("netCDF-C", netCDF4.__netcdf4libversion__)
seen = {"netCDF BitGroom": by_netcdf("BitGroom", 3), "netCDF BitRound": by_netcdf("BitRound", 8), "netCDF GranularBitRound": by_netcdf("GranularBitRound", 3),
        "numcodecs BitRound": by_numcodecs(8)}
for who, result in seen.items():
    print(f"{who}:", ", ".join(f"{name} -> {value:g}" for name, value in zip(names, result)))
    assert abs(result[-1] / values[-1] - 1) < 0.01

granular, groom, codec = seen["netCDF GranularBitRound"], seen["netCDF BitGroom"], seen["numcodecs BitRound"]
assert (granular[:4] == 0).all() and np.signbit(granular[:4]).tolist() == [True, True, False, False] and np.isnan(granular[4:6]).all()
assert sorted(np.isnan(groom[:2]).tolist()) == sorted(np.isnan(groom[2:4]).tolist()) == [False, True]
assert (codec[:4] == values[:4]).all() and np.isnan(codec[4]) and codec[5] == 0 and np.signbit(codec[5])
assert np.isinf(seen["netCDF BitRound"][6]) and np.isinf(codec[6]) and (seen["netCDF BitRound"][:4] == values[:4]).all()
PY

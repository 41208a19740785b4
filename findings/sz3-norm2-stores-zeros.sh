#!/usr/bin/env bash
# hdf5plugin 7.1.0 with h5py 3.16.0.
#
# One would believe: SZ3(norm2=1e-3) stores a dataset so that the Euclidean norm of the error is at most 0.001, as absolute= bounds each error. It
# is one of four arguments, and the only one but absolute for which the library prints no "Only absolute and norm2 modes properly tested".
#
# Seen: with norm2, whatever its value, every number is stored as zero. The write succeeds, the dataset has its shape and its filter, a few
# bytes on disk, and reads as zeros, without an error or a warning. peak_signal_to_noise_ratio, which does warn, stores everything
# exactly at any ratio. absolute, and relative, of which the warning speaks too, keep their bounds. The numbers that are read back right after
# writing, before the file is closed, may be the right ones, out of the cache; so check after opening the file again.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -q --disable-pip-version-check hdf5plugin==7.1.0 h5py==3.16.0 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PY'
import h5py
import hdf5plugin
import numpy as np

weights = (np.random.default_rng(0).standard_normal((256, 256)) * 0.02).astype(np.float32)
norm = np.linalg.norm(weights)


def stored(**bound):
    with h5py.File("x.h5", "w") as file:
        data = file.create_dataset("w", data=weights, chunks=weights.shape, compression=hdf5plugin.SZ3(**bound))
        before = data[...]
    with h5py.File("x.h5") as file:
        return before, file["w"][...], file["w"].id.get_storage_size()


print(f"weights: {weights.nbytes} bytes, norm {norm:.4f}, largest {np.abs(weights).max():.4f}")
for bound in (1e-6, 1e-3, 1.0):
    before, after, size = stored(norm2=bound)
    error = np.linalg.norm(after - weights)
    print(f"norm2={bound:g}: norm of the error {error:.4f}, {np.mean(after == 0):.0%} zeros, {size} bytes; read before closing: {'right' if np.array_equal(before, weights) else 'wrong'}")
    assert (after == 0).all() and size < 1000 and np.array_equal(before, weights)
for ratio in (20.0, 60.0):
    _, after, size = stored(peak_signal_to_noise_ratio=ratio)
    print(f"peak_signal_to_noise_ratio={ratio:g}: {'exact' if np.array_equal(after, weights) else 'lossy'}, {size} bytes")
    assert np.array_equal(after, weights)
for bound in (1e-3, 1e-4):
    _, after, size = stored(absolute=bound)
    largest = np.abs(after - weights).max()
    print(f"absolute={bound:g}: largest error {largest:.3g}, {size} bytes")
    assert 0 < largest <= bound
_, after, size = stored(relative=1e-2)
largest = np.abs(after - weights).max() / (weights.max() - weights.min())
print(f"relative=0.01: largest error {largest:.3g} of the range, {size} bytes")
assert 0 < largest <= 1e-2
PY

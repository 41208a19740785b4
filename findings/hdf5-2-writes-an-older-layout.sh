#!/usr/bin/env bash
# h5py 3.14.0 with its HDF5 1.14.6, and h5py 3.16.0 with its HDF5 2.0.0.
#
# One would believe: the version bounds of a file (libver) fix its format. A program that asks for the format of one release, and leaves
# out times, writes the same bytes with that release of HDF5 and with every later one; so a checksum over a file says whether data changed.
#
# Seen: with the same bounds HDF5 2.0 writes the place of a contiguous dataset in version 3 of that message, where 1.14 writes version 4. It
# is the older form, also where the bounds say "1.14 at least". With it the checksum of the object's header changes: files of the same
# length and the same data, made by the same program, differ. With the bounds "1.8" both write version 3, and the bytes are equal. Each
# release reads the other's. Who compares files by hash over an upgrade of HDF5 has to compare the data.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/layout.py" <<'PY'
import hashlib
import sys

import h5py
import numpy as np

LAYOUT = 8  # type of the message that says where a dataset's bytes are


def write(path, bound):
    bounds, root, plist = (h5py.h5p.create(kind) for kind in (h5py.h5p.FILE_ACCESS, h5py.h5p.FILE_CREATE, h5py.h5p.DATASET_CREATE))
    bounds.set_libver_bounds(*[getattr(h5py.h5f, "LIBVER_" + bound.upper())] * 2)
    root.set_obj_track_times(False)
    plist.set_obj_track_times(False)
    with h5py.File(h5py.h5f.create(path.encode(), fcpl=root, fapl=bounds)) as file:
        dataset = h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((10,)), dcpl=plist)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(10, dtype=np.float32))


def messages(raw):
    """(type, bytes) of the messages in every object header of the newer form."""
    at = raw.find(b"OHDR")
    while at >= 0:
        flags, place = raw[at + 5], at + 6
        place += (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        end = place + width + int.from_bytes(raw[place:place + width], "little")
        place += width
        while place + 4 <= end:
            kind, size = raw[place], int.from_bytes(raw[place + 1:place + 3], "little")
            place += 4 + (2 if flags & 4 else 0)
            yield kind, raw[place:place + size]
            place += size
        at = raw.find(b"OHDR", at + 4)


version, seen = h5py.version.hdf5_version, {}
for bound in ("v18", "v110", "v114"):
    write("x.h5", bound)
    raw = open("x.h5", "rb").read()
    seen[bound] = [body[0] for kind, body in messages(raw) if kind == LAYOUT]
    print(f"HDF5 {version}, bounds {bound}: version of the layout message {seen[bound]}, {len(raw)} bytes, SHA-256 {hashlib.sha256(raw).hexdigest()[:16]}")
    open(f"{bound}-{version}.h5", "wb").write(raw)
assert seen == {"v18": [3], "v110": [3], "v114": [3]} if version == "2.0.0" else seen == {"v18": [3], "v110": [4], "v114": [4]}
if len(sys.argv) > 1:
    for bound in seen:
        theirs, ours = (open(f"{bound}-{v}.h5", "rb").read() for v in (sys.argv[1], version))
        assert len(theirs) == len(ours) and (theirs == ours) == (bound == "v18")
        with h5py.File(f"{bound}-{sys.argv[1]}.h5") as file:
            assert (file["x"][...] == np.arange(10)).all()
    print("of the same length and data; equal with the bounds v18 alone")
PY
cd "$dir"
for version in 3.14.0 3.16.0; do
    python3 -m venv "$dir/venv-$version"
    "$dir/venv-$version/bin/python" -m pip install -q --disable-pip-version-check "h5py==$version" numpy==2.4.6
done
"$dir/venv-3.14.0/bin/python" layout.py
"$dir/venv-3.16.0/bin/python" layout.py 1.14.6

#!/usr/bin/env bash
# An installed tree as another program's author meets it: pkg-config, the shared and the static library, the example, manual pages. The library, the
# Python reader and (through export) h5dump give the same tensor's first values. The last line reads "N passed, N failed".
set -uo pipefail
. "$(dirname "$0")/../env.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/tally.sh

make --no-print-directory install DESTDIR="$dir/root" PREFIX=/opt/deltazoo BLAS_LIBS=-lnot-the-builds >"$dir/log" 2>&1 || { cat "$dir/log"; echo "0 passed, 1 failed"; exit 1; }
tree=$dir/root/opt/deltazoo
[ -x "$tree/bin/deltazoo" ] && [ -e "$tree/lib/libdeltazoo.so.0" ] && [ -e "$tree/lib/libdeltazoo.a" ] && [ -e "$tree/share/man/man1/deltazoo-compress.1" ] &&
    [ -e "$tree/share/deltazoo/jobs/compress.sbatch" ] && [ -e "$tree/share/deltazoo/config/zoo.yaml" ] && [ -e "$tree/share/bash-completion/completions/deltazoo" ] &&
    [ -e "$tree/share/deltazoo/python/pyproject.toml" ]
result "everything is installed" $?
export PKG_CONFIG_PATH=$tree/lib/pkgconfig
grep -q '^Libs.private: .*-lhdf5' "$PKG_CONFIG_PATH/deltazoo.pc" && ! grep -q not-the-builds "$PKG_CONFIG_PATH/deltazoo.pc"
result "deltazoo.pc names the libraries that the build was linked with" $?
mkdir -p "$dir/hdf5/lib64" && touch "$dir/hdf5/lib64/libhdf5.so"
make -pn HDF5_PREFIX="$dir/hdf5" lint >"$dir/log" 2>/dev/null && grep -q "^HDF5_LIBS := -L$dir/hdf5/lib64 -Wl,-rpath,$dir/hdf5/lib64 -lhdf5" "$dir/log"
result "HDF5 is found where its prefix has lib64 alone" $?
flags() { pkg-config --define-variable=prefix="$tree" "$@" deltazoo; }
# shellcheck disable=SC2046
gcc -std=c11 -Wall -Wextra -Werror tests/install/example.c $(flags --cflags --libs) -Wl,-rpath,"$tree/lib" -o "$dir/example" 2>&1
result "the example compiles against the shared library" $?
# shellcheck disable=SC2046
gcc -std=c11 tests/install/example.c $(flags --cflags) "$tree/lib/libdeltazoo.a" $(flags --static --libs-only-other) $(flags --static --libs | tr ' ' '\n' | grep -v '^-ldeltazoo$' | tr '\n' ' ') -o "$dir/static" 2>&1
result "and against the static one" $?
[ -z "$(nm -D --defined-only "$tree/lib/libdeltazoo.so" | awk '$2 ~ /[TDB]/ {print $3}' | grep -v '^deltazoo_' | grep -v '^DELTAZOO_')" ]
result "nothing but deltazoo_* is exported" $?

bin=$tree/bin/deltazoo
"$bin" synth --shape tiny --tasks 2 --dtype bf16 --seed 3 -o "$dir/zoo" >/dev/null 2>&1 && "$bin" compress "$dir/zoo/zoo.yaml" -o "$dir/a.h5" -q >/dev/null 2>&1
result "the installed program makes an archive" $?
name=model.layers.0.self_attn.q_proj.weight
first=$("$dir/example" "$dir/a.h5" task-2 $name "$dir/zoo/base" | tail -n 1 | sed 's/.*: //')
[ -n "$first" ] && [ "$first" = "$("$dir/static" "$dir/a.h5" task-2 $name "$dir/zoo/base" | tail -n 1 | sed 's/.*: //')" ]
result "both examples print a tensor" $?
"$bin" restore "$dir/a.h5" --task task-2 --base "$dir/zoo/base" -o "$dir/r" -q >/dev/null 2>&1
"$bin" export "$dir/a.h5" --task task-2 --format hdf5 --tensor $name -o "$dir/v.h5" -q >/dev/null 2>&1
"$PYTHON" - "$dir" $name "$first" "$tree/share/deltazoo/python" <<'PY'
import subprocess, sys
import numpy as np
folder, name, first, installed = sys.argv[1:]
sys.path.insert(0, installed)
import deltazoo

assert deltazoo.__file__.startswith(installed), deltazoo.__file__


def dumped(file, name, row):
    """The first row of a dataset, as h5dump prints it."""
    start = ",".join(["0"] * len(row)), ",".join(map(str, [1] * (len(row) - 1) + [row[-1]]))
    out = subprocess.run(["h5dump", "-y", "-w", "200", "-m", "%.9g", "-d", f"/{name}", "-s", start[0], "-c", start[1], file], capture_output=True, text=True).stdout
    return np.array([float(x) for x in out.split("DATA {")[1].split("}")[0].replace(",", " ").split()], np.float32)


restored = deltazoo.Base(f"{folder}/r")[name][2]
with deltazoo.open(f"{folder}/a.h5") as z:
    mine = z.restore_bytes("task-2", name, f"{folder}/zoo/base")
    delta = z.delta("task-2", name)
    assert np.array_equal(mine, restored), "the Python reader's tensor is not restore's"
    print("example:", first)
    print("python: ", " ".join(f"{b:02x}" for b in mine[:16].tolist()))
    assert " ".join(f"{b:02x}" for b in mine[:16].tolist()) == first, "the example program prints other values than the Python reader"
    row = dumped(f"{folder}/v.h5", name, delta.shape)
    print("h5dump: ", *row[:8], " python:", *delta[0, :8])
    assert np.array_equal(row, delta[0]) and np.count_nonzero(row) > 0, "h5dump prints another delta than the Python reader's"
    b = deltazoo.Base(f"{folder}/zoo/base")[name][2][:2 * len(row)].tobytes()
    sums = deltazoo.from_f32(deltazoo.to_f32(b, "BF16") + row, "BF16")
    assert sums == restored[:2 * len(row)].tobytes(), "base + h5dump's delta is not the restored row"
PY
result "the library's example, the Python reader and h5dump give the same first values of a tensor" $?
if command -v man >/dev/null; then
    man -l "$tree/share/man/man1/deltazoo.1" >"$dir/page" 2>"$dir/err" && grep -q 'deltazoo-compress' "$dir/page" && [ ! -s "$dir/err" ]
    result "man renders the installed page" $?
fi
tally

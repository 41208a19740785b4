#!/usr/bin/env bash
# An installed tree as another program's author meets it: pkg-config, the shared and the static library, the example, manual pages. The library, the independent
# Python reader and (through export) h5dump give the same tensor's first values. The last line reads "N passed, N failed".
set -uo pipefail
. "$(dirname "$0")/../env.sh"
passed=0 failed=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
result() {
    if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1"; fi
}

make --no-print-directory install DESTDIR="$dir/root" PREFIX=/opt/deltazoo >"$dir/log" 2>&1 || { cat "$dir/log"; echo "0 passed, 1 failed"; exit 1; }
tree=$dir/root/opt/deltazoo
[ -x "$tree/bin/deltazoo" ] && [ -e "$tree/lib/libdeltazoo.so.0" ] && [ -e "$tree/lib/libdeltazoo.a" ] && [ -e "$tree/share/man/man1/deltazoo-compress.1" ] &&
    [ -e "$tree/share/deltazoo/jobs/compress.sbatch" ] && [ -e "$tree/share/deltazoo/config/zoo.yaml" ] && [ -e "$tree/share/bash-completion/completions/deltazoo" ]
result "everything is installed" $?
export PKG_CONFIG_PATH=$tree/lib/pkgconfig
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
"$PYTHON" - "$dir" $name "$first" <<'PY'
import json, struct, subprocess, sys
import numpy as np
sys.path.insert(0, "tests/reader")
folder, name, first = sys.argv[1:]


def tensor(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    at = json.loads(raw[8:8 + n])[name]["data_offsets"]
    return raw[8 + n + at[0]:8 + n + at[1]]


def real(b):
    return (np.frombuffer(b, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


import glob
restored, base = (b"".join(tensor(p) for p in sorted(glob.glob(f"{folder}/{d}/*.safetensors")) if name.encode() in open(p, "rb").read(1 << 20)) for d in ("r", "zoo/base"))
assert " ".join(f"{b:02x}" for b in restored[:16]) == first, (restored[:16].hex(), first)
shape = [int(x) for x in subprocess.run(["h5dump", "-H", "-d", f"/{name}", f"{folder}/v.h5"], capture_output=True, text=True).stdout.split("SIMPLE { ( ")[1].split(" )")[0].split(", ")]
out = subprocess.run(["h5dump", "-y", "-w", "200", "-m", "%.9g", "-d", f"/{name}", "-s", "0,0", "-c", f"1,{shape[1]}", f"{folder}/v.h5"], capture_output=True, text=True).stdout
delta = np.array([float(x) for x in out.split("DATA {")[1].split("}")[0].replace(",", " ").split()], np.float32)
x = (real(base)[:shape[1]] + delta).astype(np.float32)
bits = x.view(np.uint32)
rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2").tobytes()
assert rounded == restored[:2 * shape[1]], "base + h5dump's delta is not the restored row"
assert np.count_nonzero(delta) > 0
PY
result "the library, restore and h5dump of the exported delta agree on the tensor's first values" $?
if command -v man >/dev/null; then
    man -l "$tree/share/man/man1/deltazoo.1" >"$dir/page" 2>"$dir/err" && grep -q 'deltazoo-compress' "$dir/page" && [ ! -s "$dir/err" ]
    result "man renders the installed page" $?
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

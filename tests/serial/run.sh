#!/usr/bin/env bash
# The program built without MPI (make serial): it reads and makes the archives of the MPI build, byte for byte.
set -uo pipefail
. "$(dirname "$0")/../env.sh"
serial=build/serial/deltazoo
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/tally.sh
ldd $serial >"$dir/log" && grep -q libhdf5_serial "$dir/log" && ! grep -qE 'libmpi|libhdf5_(openmpi|mpich)' "$dir/log"
result "is linked without MPI" $?
"$DELTAZOO" synth -q --shape tiny --tasks 2 -o "$dir/zoo" >/dev/null
mpirun -q -n 2 "$DELTAZOO" compress -q "$dir/zoo/zoo.yaml" -o "$dir/right.h5" >/dev/null
$serial verify -q "$dir/right.h5" --base "$dir/zoo/base" >"$dir/log" 2>&1
result "verifies the archive of two ranks" $?
$serial restore -q "$dir/right.h5" --task task-2 --base "$dir/zoo/base" -o "$dir/s" >"$dir/log" 2>&1 &&
    "$DELTAZOO" restore -q "$dir/right.h5" --task task-2 --base "$dir/zoo/base" -o "$dir/o" >>"$dir/log" 2>&1 && diff -r "$dir/s" "$dir/o" >>"$dir/log"
result "restores the same files" $?
$serial compress -q "$dir/zoo/zoo.yaml" -o "$dir/a.h5" >"$dir/log" 2>&1 && cmp -s "$dir/a.h5" "$dir/right.h5"
result "makes the same archive" $?
tally

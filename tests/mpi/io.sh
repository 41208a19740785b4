#!/usr/bin/env bash
# Hints for MPI-IO: those about stripes are there when the file is made; malformed ones are told before the work.
set -uo pipefail
. "$(dirname "$0")/../env.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/tally.sh
"$DELTAZOO" synth -q --shape tiny --tasks 2 --seed 5 -o "$dir/zoo" >/dev/null
mpicc=$(command -v mpicc.openmpi || command -v mpicc)
"$mpicc" -shared -fPIC tests/mpi/mpi_open.c -o "$dir/mpi_open.so" >"$dir/log" 2>&1
result "the library that listens compiles" $?

"$DELTAZOO" compress -q "$dir/zoo/zoo.yaml" -o "$dir/right.h5" >/dev/null
mpirun -q -n 2 -x LD_PRELOAD="$dir/mpi_open.so" "$DELTAZOO" compress -q "$dir/zoo/zoo.yaml" -o "$dir/a.h5" --io collective --io-hint striping_factor=4 \
    --io-hint striping_unit=4194304 >/dev/null 2>"$dir/log" && cmp "$dir/a.h5" "$dir/right.h5" && [ "$(head -n 1 "$dir/log")" = "made by MPI-IO, stripes 4" ] &&
    [ "$(grep -c '^opened by MPI-IO, stripes 4' "$dir/log")" -eq 2 ]
result "the file is made with the hints about its stripes, its bytes are the same" $?

mpirun -q -n 2 "$DELTAZOO" compress "$dir/zoo/zoo.yaml" -o "$dir/b.h5" --io collective --io-hint foo --io-hint =1 --io-hint cb_nodes=2 >"$dir/log" 2>&1
[ $? -eq 2 ] && [ "$(grep -c 'is not KEY=VALUE' "$dir/log")" -eq 2 ] && ! grep -q tiles "$dir/log"
result "malformed hints are refused before the work" $?

"$DELTAZOO" compress -q "$dir/zoo/zoo.yaml" -o "$dir/c.h5" --io-hint cb_nodes=2 >/dev/null 2>"$dir/log" && grep -q 'no effect' "$dir/log"
result "a hint that has no effect is told so" $?
tally

#!/usr/bin/env bash
# MPI_Finalize that crashes (a fault on purpose, on one rank): the job has been done and told, and its exit code stays.
. "$(dirname "$0")/../env.sh"
. "$(dirname "$0")/../tally.sh"
program=build/fault/deltazoo
[ -x "$program" ] || { echo "skipped: no $program"; echo "0 passed, 0 failed"; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$program" synth -q --shape tiny --tasks 1 -o "$dir/zoo" >/dev/null 2>&1

# try CODE arguments: mpirun's exit code, when the second of 3 ranks crashes.
try() {
    local want=$1
    shift
    DZ_FAULT=finalize:1:1 mpirun -q -n 3 "$program" "$@" >"$dir/log" 2>&1
    [ $? -eq "$want" ]
}
DZ_FAULT=finalize:1:1 mpirun -q -n 3 "$program" compress -q "$dir/zoo/zoo.yaml" -o "$dir/a.h5" --report "$dir/a.json" >"$dir/log" 2>&1
grep -q '"state": "done"' "$dir/a.json" && "$DELTAZOO" verify -q "$dir/a.h5" >>"$dir/log" 2>&1 # mpirun itself fails with 1: it misses a rank
result "a job that is done is done, and its report says so" $?
try 2 compress -q "$dir/zoo/zoo.yaml" -o "$dir/a.h5" && grep -q 'exists already' "$dir/log"
result "one that is refused has code 2" $?
printf x | dd of="$dir/a.h5" bs=1 seek=$(($(stat -c %s "$dir/a.h5") / 2)) conv=notrunc 2>/dev/null
try 3 verify -q "$dir/a.h5" && grep -q 'is damaged' "$dir/log"
result "one that found damage has code 3" $?
tally

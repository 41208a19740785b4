#!/usr/bin/env bash
# The program built against MPICH (make mpich): the archives of Open MPI's build, byte for byte, on one rank and three.
set -uo pipefail
. "$(dirname "$0")/../env.sh"
mpich=build/mpich/deltazoo
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/tally.sh
ldd $mpich >"$dir/log" && grep -q libmpich "$dir/log" && ! grep -qE 'libmpi\.so|libhdf5_openmpi' "$dir/log"
result "is linked with MPICH alone" $?
compile() { make -n "$@" FLAVOUR=none build/none/base/error.o >"$dir/log" 2>&1; }
compile MPICC=mpicc.mpich && grep -q hdf5/mpich "$dir/log" && ! grep -q openmpi "$dir/log"
result "MPICC=mpicc.mpich alone takes HDF5 of MPICH" $?
! compile MPICC=mpicc.mpich HDF5_NAME=hdf5-openmpi && grep -q 'mpicc.mpich is of mpich, but the HDF5 found is not' "$dir/log"
result "HDF5 of another MPI is refused" $?
"$DELTAZOO" synth -q --shape tiny --tasks 3 -o "$dir/zoo" >/dev/null
mpirun.openmpi -q -n 2 "$DELTAZOO" compress -q "$dir/zoo/zoo.yaml" -o "$dir/right.h5" >/dev/null
for n in 1 3; do
    mpirun.mpich -n $n $mpich compress -q "$dir/zoo/zoo.yaml" -o "$dir/a.h5" --force --report "$dir/a.json" >"$dir/log" 2>&1 &&
        cmp -s "$dir/a.h5" "$dir/right.h5" && grep -q "\"ranks\": $n" "$dir/a.json"
    result "$n ranks make the bytes of Open MPI's build" $?
done
mpirun.mpich -n 3 $mpich verify -q "$dir/right.h5" --base "$dir/zoo/base" >"$dir/log" 2>&1
result "verifies the archive of Open MPI's build" $?
mpirun.mpich -n 3 $mpich restore -q "$dir/right.h5" --task task-2 --base "$dir/zoo/base" -o "$dir/m" >"$dir/log" 2>&1 &&
    "$DELTAZOO" restore -q "$dir/right.h5" --task task-2 --base "$dir/zoo/base" -o "$dir/o" >>"$dir/log" 2>&1 && diff -r "$dir/m" "$dir/o" >>"$dir/log"
result "restores the same files" $?
mpirun.mpich -n 3 $mpich compress -q "$dir/none.yaml" -o "$dir/b.h5" >"$dir/log" 2>&1
[ $? -eq 2 ] && [ "$(grep -c '^deltazoo: error: ' "$dir/log")" -eq 1 ]
result "a refusal is one line and exit code 2" $?
tally

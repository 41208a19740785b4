#!/bin/bash
# An independent reader (src/python/deltazoo.py, written from FORMAT.md) decodes archives of many kinds and must get the very bytes that
# `deltazoo restore` writes. DELTAZOO: the program, by default build/deltazoo.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
deltazoo=$(realpath "${DELTAZOO:-$here/../../build/deltazoo}")
python=${PYTHON:-/usr/bin/python3}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

report() { # report NAME STATUS LOG
    if [ "$2" = 0 ]; then
        echo "ok $1"
        passed=$((passed + 1))
    else
        echo "FAIL $1"
        sed 's/^/    /' "$3"
        failed=$((failed + 1))
    fi
}

steps() { # steps ZOO ARCHIVE [OPTION...]: compress, restore, read
    local zoo=$1 archive=$2
    shift 2
    timeout 60 mpirun -q -n 3 "$deltazoo" compress "$zoo/zoo.yaml" -o "$archive" -q "$@" >"$archive.out" 2>&1 || { cat "$archive.out"; return 1; }
    timeout 60 "$deltazoo" restore "$archive" --task task-1 --base "$zoo/base" -o "$archive.d" -q 2>&1 || return 1
    local original=(--original "$zoo/task-1")
    case "$*" in *method=*) original=() ;; esac # quotas of the other methods are their own
    timeout 60 "$python" "$here/check.py" "$archive" --check --task task-1 --base "$zoo/base" --against "$archive.d" "${original[@]}" 2>&1
}

run() { # run NAME ZOO [OPTION...]
    local name=$1 zoo=$2 status=0
    shift 2
    steps "$work/$zoo" "$work/$name.h5" "$@" >"$work/$name.log" || status=$?
    report "$name" "$status" "$work/$name.log"
    rm -rf "$work/$name.h5.d"
}

for dtype in bf16 f16 f32; do
    "$deltazoo" synth --shape tiny --layers 1 --tasks 2 --dtype $dtype --seed 1 -o "$work/$dtype" -q >"$work/synth"
done
"$deltazoo" synth --shape tiny --layers 1 --tasks 2 --dtype bf16 --seed 5 --shard-size 1M -o "$work/shards" -q >"$work/synth"
for kind in shapes files dtypes values drop tiles; do
    "$python" "$here/edge_zoo.py" $kind "$work/$kind"
done

for dtype in bf16 f16 f32; do
    run default-$dtype $dtype
    run lossless-$dtype $dtype --recipe lossless
done
run golomb bf16 --set positions=golomb
run bits-8 bf16 --set bits=8
run bits-8-golomb f16 --set bits=8 --set positions=golomb
run bits-1 bf16 --set bits=1
run bits-8-dense f32 --set bits=8 --set sparsity=0
run dense bf16 --set sparsity=0
run sparse bf16 --set sparsity=0.995 --set rescale=tensor --set tracenorm=off
run sparser f32 --set sparsity=0.9999 --set bits=8
run auto bf16 --set method=auto --set target_ratio=200
run dare f16 --set method=dare
run magnitude bf16 --set method=magnitude
run bitdelta f32 --set method=bitdelta
run shards shards
for kind in shapes files dtypes values drop tiles; do
    run edge-$kind $kind --recipe "$work/$kind/recipe.yaml"
done
for kind in shapes values tiles; do
    run edge-$kind-auto $kind --recipe "$work/$kind/recipe.yaml" --set method=auto --set sparsity=0.9
done
run edge-shapes-golomb shapes --recipe "$work/shapes/recipe.yaml" --set positions=golomb --set bits=2
run edge-dtypes-dense dtypes --recipe "$work/dtypes/recipe.yaml" --set sparsity=0.1 --set bits=8

# what the reader does find: the file differs, the base is another, the archive is damaged
"$deltazoo" restore "$work/default-bf16.h5" --task task-1 --base "$work/bf16/base" -o "$work/other" -q >"$work/log" 2>&1
refuses() { # refuses NAME PATTERN COMMAND...: exit 1 and one line with the pattern
    local name=$1 pattern=$2 status=0 good=1
    shift 2
    "$python" "$here/check.py" "$@" >"$work/$name.log" 2>&1 || status=$?
    if [ "$status" = 1 ] && grep -q "$pattern" "$work/$name.log" && [ "$(wc -l <"$work/$name.log")" = 1 ]; then good=0; fi
    report "$name" "$good" "$work/$name.log"
}
printf 'X' | dd of="$work/other/model.safetensors" bs=1 seek=2000000 conv=notrunc status=none
refuses sees-difference 'differs from byte 2000000' "$work/default-bf16.h5" --task task-1 --base "$work/bf16/base" --against "$work/other"
refuses sees-other-base "is not the base's" "$work/default-bf16.h5" --task task-1 --base "$work/bf16/task-2" --against "$work/other"
"$python" - "$work/default-bf16.h5" "$work/damaged.h5" <<'END'
import h5py, shutil, sys
shutil.copyfile(sys.argv[1], sys.argv[2])
with h5py.File(sys.argv[2], "r+") as file:
    file["tasks/task-1/payload"][1000] ^= 4
END
refuses sees-damage 'is damaged' "$work/damaged.h5" --check

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

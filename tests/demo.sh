#!/usr/bin/env bash
# The main job on a small synthetic zoo, 2 ranks: make it, compress it, verify, restore, compare.
set -euo pipefail
. "$(dirname "$0")/env.sh"
dir=$(cd "$(dirname "$0")/.." && pwd)/build/demo
rm -rf "$dir"
mkdir -p "$dir"
run() {
    echo
    echo "\$ $*" | sed "s|$DELTAZOO|deltazoo|g; s|$dir/||g"
    (cd "$dir" && "$@")
}
run mpirun -n 2 "$DELTAZOO" synth --shape vit-b-32 --layers 4 --tasks 4 --dtype bf16 --seed 7 -o zoo
run mpirun -n 2 "$DELTAZOO" compress zoo/zoo.yaml -o zoo.h5
run mpirun -n 2 "$DELTAZOO" verify zoo.h5 --base zoo/base
run mpirun -n 2 "$DELTAZOO" restore zoo.h5 --task task-1 --base zoo/base -o restored
run mpirun -n 2 "$DELTAZOO" compare zoo.h5 --task task-1 --base zoo/base --finetuned zoo/task-1 |
    awk 'NR <= 3 { print } /^all lossy tensors/ { end = 1 } end' # the command, the head and the end
echo
run h5ls -r zoo.h5
echo
echo "The zoo, its archive and the restored model are in $dir"

#!/usr/bin/env bash
# The fuzz targets' first inputs can be made, and each archive among them is one. The last line reads "N passed, N failed".
set -uo pipefail
. "$(dirname "$0")/../env.sh"
. tests/tally.sh
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir"/{safetensors,yaml,torch,archive}
"$PYTHON" tests/fuzz/seeds.py "$dir"
result "seeds are made" $?
for seed in "$dir"/archive/*; do
    "$DELTAZOO" verify -q "$seed" >/dev/null
    result "archive ${seed##*/} is sound" $?
done
tally

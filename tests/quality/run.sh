#!/usr/bin/env bash
# The quality experiment from nothing: train both zoos (unless QUALITY_ZOO has them), measure all methods, write results/quality.{md,png}.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
tests/deps.sh plots quality
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_ARENA_MAX=1 # tensors reuse memory: on virtual machines page faults cost more than the work
zoo=${QUALITY_ZOO:-$PWD/build/quality}
mkdir -p "$zoo"
pids=()
for family in vit seq; do
    (
        [ -e "$zoo/$family/zoo.yaml" ] || "$PYTHON" tests/quality/train.py --family $family --out "$zoo" --jobs 1
        "$PYTHON" tests/quality/experiment.py "$zoo" $family --split "${SPLIT:-test}" --seeds "${SEEDS:-3}" --out "$zoo/$family.json"
    ) &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
"$PYTHON" tests/quality/report.py results/quality.md results/quality.png "$zoo/vit.json" "$zoo/seq.json"
cat results/quality.md

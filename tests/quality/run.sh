#!/usr/bin/env bash
# The quality experiment from nothing: train both zoos (unless QUALITY_ZOO has them), measure all methods, write results/quality.{md,png}.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
for p in python3-torch python3-sklearn python3-matplotlib; do
    dpkg-query -W -f='${db:Status-Status}' $p 2>/dev/null | grep -q '^installed$' || missing="${missing:-} $p"
done
if [ -n "${missing:-}" ]; then
    sudo=; [ "$(id -u)" -eq 0 ] || sudo=sudo
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
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

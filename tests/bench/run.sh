#!/usr/bin/env bash
# make bench: one harness, everything as ratios in one run. RANKS="1 2 4 8 16": the numbers of ranks; BEFORE=PROGRAM or RELEASE=COMMIT: what is compared with in the
# check for regressions, by default the last tag.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
tests/deps.sh plots
wanted=$(cat tests/bench/requirements.txt)
if [ "$(cat build/venv-bench/installed 2>/dev/null)" != "$wanted" ]; then # zipnn, beside the tests' torch and numpy
    tests/venv.sh
    rm -rf build/venv-bench
    /usr/bin/python3 -m venv build/venv-bench
    realpath build/venv/lib/python3*/site-packages >"$(echo build/venv-bench/lib/python3*/site-packages)/tests.pth"
    build/venv-bench/bin/python -m pip install --disable-pip-version-check --no-input -q --no-deps -r tests/bench/requirements.txt
    echo "$wanted" >build/venv-bench/installed
fi
"$PYTHON" tests/bench/bench.py "$@"
if [ -n "${BEFORE:-}${RELEASE:-}" ] || git describe --tags --abbrev=0 'HEAD^' >/dev/null 2>&1; then
    "$PYTHON" tests/bench/regress.py ${BEFORE:+--before "$BEFORE"} ${RELEASE:+--release "$RELEASE"}
fi

#!/usr/bin/env bash
# make bench: one harness, everything as ratios in one run.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
tests/deps.sh plots
"$PYTHON" tests/bench/bench.py "$@"

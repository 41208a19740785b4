# Sourced by scripts outside the test tree (demo, benchmarks, experiments, fuzzing).
cd "$(dirname "${BASH_SOURCE[0]}")/.."
set -a
. tests/launcher.env
set +a
PYTHON=${PYTHON:-/usr/bin/python3}
FLAVOUR=${FLAVOUR:-release}
if [ "$FLAVOUR" = release ]; then DELTAZOO=${DELTAZOO:-$PWD/build/deltazoo}; else DELTAZOO=${DELTAZOO:-$PWD/build/$FLAVOUR/deltazoo}; fi
export DELTAZOO PYTHON FLAVOUR

#!/usr/bin/env bash
# The paper's models at true shape: results/paper.md, its tables and plots. Arguments are run.py's.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
tests/deps.sh plots || echo "no matplotlib: no plots" >&2
exec "$PYTHON" tests/paper/run.py "$@"

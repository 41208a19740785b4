#!/usr/bin/env bash
# The paper's models at true shape: results/paper.md, its tables and plots. Arguments are run.py's.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
if ! "$PYTHON" -c 'import matplotlib' 2>/dev/null; then
    sudo=; [ "$(id -u)" -eq 0 ] || sudo=sudo
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends python3-matplotlib >/dev/null || echo "no matplotlib: no plots" >&2
fi
exec "$PYTHON" tests/paper/run.py "$@"

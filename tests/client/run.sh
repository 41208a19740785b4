#!/usr/bin/env bash
# Makes build/venv-clients, a Python with the libraries that load models, and runs tests/client in it. Arguments go to pytest; the last line is "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/env.sh
timm=1.0.31 # without what it requires: torchvision
wanted=$(cat tests/requirements.txt tests/requirements-clients.txt; echo "timm==$timm")
if [ "$(cat build/venv-clients/installed 2>/dev/null)" != "$wanted" ]; then
    echo "venv-clients: installing tests/requirements.txt and tests/requirements-clients.txt"
    pip="build/venv-clients/bin/python -m pip install --disable-pip-version-check --no-input"
    if ! { rm -rf build/venv-clients && "${PYTHON:-/usr/bin/python3}" -m venv build/venv-clients &&
        $pip -r tests/requirements.txt -r tests/requirements-clients.txt && $pip --no-deps "timm==$timm"; } >build/venv-clients.log 2>&1 </dev/null; then
        echo "venv-clients: failed: $(grep -iE 'error|not ' build/venv-clients.log | tail -n 1) (all of it: build/venv-clients.log)" >&2
        echo "0 passed, 1 failed"
        exit 1
    fi
    echo "$wanted" >build/venv-clients/installed
fi
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
exec build/venv-clients/bin/python -m pytest -n "${DZ_TEST_JOBS:-3}" tests/client "$@"

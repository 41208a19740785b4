#!/usr/bin/env bash
# wheel.sh: build/wheel/deltazoo-*.whl, a Linux wheel that has its libraries in it. build/wheel/venv has the tools (requirements-wheel.txt).
set -euo pipefail
cd "$(dirname "$0")/.."
W=build/wheel
mkdir -p $W
if ! cmp -s tests/requirements-wheel.txt $W/installed; then
    rm -rf $W/venv && "${PYTHON:-/usr/bin/python3}" -m venv $W/venv
    $W/venv/bin/python -m pip install -q --disable-pip-version-check --no-input -r tests/requirements-wheel.txt
    cp tests/requirements-wheel.txt $W/installed
fi
rm -rf $W/raw $W/*.whl && mkdir -p $W/raw
PATH="$PWD/$W/venv/bin:$PATH" $W/venv/bin/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w $W/raw ./src/python
case $(ls $W/raw) in
    *none-any.whl) echo "wheel: the C library was not built: see above" >&2 && exit 1 ;;
esac
PATH="$PWD/$W/venv/bin:$PATH" $W/venv/bin/auditwheel -v repair -w $W $W/raw/*.whl >$W/auditwheel.log 2>&1 || { tail -n 5 $W/auditwheel.log >&2 && exit 1; }
ls -l $W/*.whl

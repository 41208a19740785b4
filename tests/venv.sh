#!/usr/bin/env bash
# Makes build/venv, the Python of the tests, with the pinned packages of requirements.txt and, unless DZ_WITHOUT=torch, requirements-client.txt; does nothing where it is up to date. PYTHON: the Python it is made of.
set -uo pipefail
cd "$(dirname "$0")/.."
files=(tests/requirements.txt tests/requirements-client.txt)
[ "${DZ_WITHOUT:-}" != torch ] || files=(tests/requirements.txt)
wanted=$(cat "${files[@]}")
mkdir -p build
plots=$(cat tests/requirements-plots.txt) # a Python of its own, as users have it, which deltazoo starts to draw PNG
if [ "$(cat build/venv-plots/installed 2>/dev/null)" != "$plots" ]; then
    if ! { rm -rf build/venv-plots && "${PYTHON:-/usr/bin/python3}" -m venv build/venv-plots &&
        build/venv-plots/bin/python -m pip install --disable-pip-version-check --no-input -r tests/requirements-plots.txt; } >build/venv-plots.log 2>&1 </dev/null; then
        echo "venv: failed, so no test can run: no matplotlib: $(tail -n 1 build/venv-plots.log)" >&2
        exit 1
    fi
    echo "$plots" >build/venv-plots/installed
fi
[ "$(cat build/venv/installed 2>/dev/null)" = "$wanted" ] && exit 0
echo "venv: installing ${files[*]} into build/venv"
rm -f build/venv/installed
if ! { { build/venv/bin/python -c '' 2>/dev/null || { rm -rf build/venv && "${PYTHON:-/usr/bin/python3}" -m venv build/venv; }; } &&
    build/venv/bin/python -m pip install --disable-pip-version-check --no-input "${files[@]/#/-r}"; } >build/venv.log 2>&1 </dev/null; then
    echo "venv: failed, so no test can run: $(grep -v '^ *$' build/venv.log | grep -iE 'error|not ' | tail -n 1) (all of it: build/venv.log)" >&2
    exit 1
fi
echo "$wanted" >build/venv/installed

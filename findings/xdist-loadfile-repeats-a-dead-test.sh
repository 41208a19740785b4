#!/usr/bin/env bash
# pytest-xdist 3.8.0 with pytest 9.0.2.
#
# One would believe: a test that ends its worker process is one failure, and the other tests run on a new worker, however tests are
# distributed. With `--dist load` that is so.
#
# Seen: with `--dist loadfile` the tests that are left of the file go to the new worker together with the one that ended the last worker.
# It ends this one too, and so on, until xdist gives up: one bad test is counted as a failure many times, and tests of its file that are
# sound may never run.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check pytest==9.0.2 pytest-xdist==3.8.0
cd "$dir"
cat >test_some.py <<'PY'
import os

def test_a(): pass
def test_b(): pass
def test_ends_its_process(): os._exit(3)
def test_d(): pass
def test_e(): pass
PY
failures() {
    timeout 120 "$dir/venv/bin/python" -m pytest -n 2 --dist "$1" -p no:cacheprovider test_some.py 2>&1 | grep -c "^FAILED.*test_ends_its_process\|crashed while running 'test_some.py::test_ends" || true
}
load=$(failures load) file=$(failures loadfile)
echo "--dist load: the test is named as a crash $load times"
echo "--dist loadfile: the test is named as a crash $file times"
[ "$load" -ge 1 ] && [ "$load" -le 2 ] && [ "$file" -gt 4 ]

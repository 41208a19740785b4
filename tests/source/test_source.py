"""The source tree itself."""
from common import ROOT, call, check


def test_layers():
    code, out, err = call(["tests/layers.sh"], cwd=ROOT)
    check(code == 0, out + err)


def test_format():
    code, out, err = call(["make", "--no-print-directory", "lint"], cwd=ROOT, limit=180)
    check(code == 0, out + err)
